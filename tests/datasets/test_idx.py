"""The idx reader: what it accepts, and what it refuses before taking memory."""

import gzip
import struct
import tracemalloc

import numpy as np
import pytest

from tinyflow.datasets.idx import IdxError, read_idx


def idx_bytes(values: np.ndarray, type_code: int = 0x08) -> bytes:
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, type_code, values.ndim, *values.shape)
    return header + values.tobytes()


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, size=(3, 5, 7), dtype=np.uint8)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_reads_back_what_was_written(tmp_path, values, pack):
    path = tmp_path / "images"
    path.write_bytes(pack(idx_bytes(values)))
    read = read_idx(path, values.shape)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, values)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: b"\x00\x00\x0d\x03" + raw[4:], "expected idx magic 00000803, got 00000d03"),
        (lambda raw: b"", "expected idx magic 00000803, got $"),
        (lambda raw: raw[:9], "ends inside its header, after 9 bytes"),
        (lambda raw: raw[:-2], "expected 105 bytes after the header, got 103"),
        (lambda raw: raw + b"x", "goes on after the 105 bytes"),
        (
            lambda raw: raw[:4] + struct.pack(">III", 3, 5, 8) + raw[16:],
            r"expected shape \[3, 5, 7\], got \[3, 5, 8\]",
        ),
    ],
    ids=["type", "empty", "header", "short", "long", "shape"],
)
def test_refuses(tmp_path, values, pack, change, message):
    path = tmp_path / "images"
    path.write_bytes(pack(change(idx_bytes(values))))
    with pytest.raises(IdxError, match=message) as caught:
        read_idx(path, values.shape)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("where", ["truncated", "flipped"])
def test_refuses_damaged_gzip(tmp_path, values, where):
    packed = bytearray(gzip.compress(idx_bytes(values)))
    if where == "truncated":
        del packed[-20:]
    else:
        packed[-6] ^= 0xFF  # in the stored checksum of the content
    path = tmp_path / "images.gz"
    path.write_bytes(packed)
    with pytest.raises(IdxError, match="damaged gzip file"):
        read_idx(path, values.shape)


def test_forged_size_takes_no_memory(tmp_path):
    forged = struct.pack(">BBBB3I", 0, 0, 8, 3, 2**31, 2**15, 2**15)
    path = tmp_path / "images"
    path.write_bytes(forged)
    tracemalloc.start()
    try:
        with pytest.raises(IdxError, match="expected shape"):
            read_idx(path, (3, 5, 7))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
