"""The idx file format of the MNIST distribution.

Main names: read_idx, IdxError. Source: "The IDX file format", on the MNIST page of Y. LeCun.
May import: NumPy and the standard library.
"""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

import numpy as np

_UINT8 = 0x08
_GZIP_MAGIC = b"\x1f\x8b"


class IdxError(ValueError):
    """A file is not the idx file it should be."""


def read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The uint8 array of an idx file, plain or gzip.

    shape: what the header must say. The sizes are compared before memory is taken, and no more
    than that is unpacked, so a forged or damaged file costs nothing.
    Errors: IdxError with the path and the first difference; OSError when it cannot be read.
    """
    import gzip

    with open(path, "rb") as raw:
        packed = raw.read(2) == _GZIP_MAGIC
        raw.seek(0)
        stream = gzip.GzipFile(fileobj=raw) if packed else raw
        try:
            return _parse(stream, path, shape)
        except (EOFError, gzip.BadGzipFile, zlib.error) as damage:
            raise IdxError(f"{path}: damaged gzip file: {damage}") from damage


def _parse(stream, path: Path, shape: tuple[int, ...]) -> np.ndarray:
    # Header, big-endian: two zero bytes, type code, number of dimensions, then each extent.
    header_size = 4 + 4 * len(shape)
    header = stream.read(header_size)
    magic = bytes([0, 0, _UINT8, len(shape)])
    if header[:4] != magic:
        raise IdxError(f"{path}: expected idx magic {magic.hex()}, got {header[:4].hex()}")
    if len(header) < header_size:
        raise IdxError(f"{path}: ends inside its header, after {len(header)} bytes")
    found = struct.unpack(f">{len(shape)}I", header[4:])
    if found != shape:
        raise IdxError(f"{path}: expected shape {list(shape)}, got {list(found)}")
    size_bytes = math.prod(shape)
    values = np.empty(shape, np.uint8)
    filled = _read_into(stream, values.reshape(-1).data)
    if filled < size_bytes:
        raise IdxError(f"{path}: expected {size_bytes} bytes after the header, got {filled}")
    # Reading past the end also makes gzip compare its checksum.
    if stream.read(1):
        raise IdxError(f"{path}: goes on after the {size_bytes} bytes its header announces")
    return values


def _read_into(stream, target: memoryview) -> int:
    """Fill `target` from `stream`; the number of bytes there were."""
    filled = 0
    while filled < len(target):
        count = stream.readinto(target[filled : filled + (1 << 20)])
        if not count:
            break
        filled += count
    return filled
