"""Aligned memory: one block per program (Arena), arrays side by side (Shelf), single arrays
(aligned_empty).

Main types: Arena, Shelf. Imports numpy only.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector register."""
HUGE_PAGE = 2 << 20
_HUGE_FROM = HUGE_PAGE // 2


class Arena:
    """``size_bytes`` of zeroed memory at a fixed ``address``, a multiple of ``ALIGNMENT``.

    From 1 MiB on the address is a multiple of 2 MiB and the system is asked for huge pages, which
    saves most TLB misses of a step. Physical memory is taken when a page is first written.
    The memory lives as long as the arena or any view of it.
    """

    def __init__(self, size_bytes: int) -> None:
        if size_bytes < 0:
            raise ValueError(f"arena: expected a size >= 0 bytes, got {size_bytes}")
        huge = size_bytes >= _HUGE_FROM
        alignment = HUGE_PAGE if huge else ALIGNMENT
        # mmap aligns to pages only; an empty mapping is not allowed.
        length = max(size_bytes, 1) + (HUGE_PAGE if huge else 0)
        mapping = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANON)
        whole = np.frombuffer(mapping, dtype=np.uint8)
        skip = -whole.ctypes.data % alignment
        if huge and hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # a kernel without transparent huge pages
                mapping.madvise(mmap.MADV_HUGEPAGE, 0, length)
        self.size_bytes = size_bytes
        self._bytes: NDArray[np.uint8] = whole[skip : skip + size_bytes]
        self.address: int = whole.ctypes.data + skip

    def view(
        self, offset: int, shape: Sequence[int], numpy_dtype: DTypeLike
    ) -> NDArray[np.generic]:
        """The array of ``shape`` at ``offset`` bytes; shares and keeps the arena's memory."""
        dtype = np.dtype(numpy_dtype)
        end = offset + math.prod(shape) * dtype.itemsize
        if offset < 0 or end > self.size_bytes or offset % dtype.alignment:
            raise ValueError(
                f"arena: {dtype}{list(shape)} at byte {offset} does not fit or is not aligned; "
                f"the arena has {self.size_bytes} bytes"
            )
        if dtype.hasobject:
            raise ValueError(f"arena: {dtype} holds Python references, not bytes")
        return self._bytes[offset:end].view(dtype).reshape(tuple(shape))


class Shelf:
    """Arrays that live as long as each other, side by side in blocks of huge pages.

    A matrix product walks down the rows of its operands, each of which may lie in another page:
    with pages of 4 KiB the weights of one layer take more entries than the TLB has, and under
    virtual machines each miss costs two walks. Small arrays are left to the C library.
    """

    BLOCK_BYTES = 16 << 20  # of address space; memory is taken as it is written
    SMALL_BYTES = 64 << 10
    #: Between arrays, so that those of 2**n bytes do not share cache sets and page offsets.
    APART_BYTES = 5 * ALIGNMENT

    def __init__(self) -> None:
        self._block: Arena | None = None
        self._used = 0

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[np.generic]:
        """Like ``aligned_empty``."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        if size < self.SMALL_BYTES:
            return aligned_empty(shape, dtype)
        if self._block is None or self._used + size > self._block.size_bytes:
            self._block, self._used = Arena(max(size, self.BLOCK_BYTES)), 0
        array = self._block.view(self._used, shape, dtype)
        self._used += -(-size // ALIGNMENT) * ALIGNMENT + self.APART_BYTES
        return array


def aligned_empty(shape: int | Sequence[int], dtype: DTypeLike) -> NDArray[np.generic]:
    """Like ``numpy.empty``, C order, with the first element at a multiple of 64 bytes."""
    dtype = np.dtype(dtype)
    if dtype.hasobject:
        raise ValueError(f"aligned_empty: {dtype} holds Python references, not bytes")
    extents = (shape,) if isinstance(shape, int) else tuple(shape)
    size_bytes = math.prod(extents) * dtype.itemsize
    raw = np.empty(size_bytes + ALIGNMENT, dtype=np.uint8)
    skip = -raw.ctypes.data % ALIGNMENT
    return raw[skip : skip + size_bytes].view(dtype).reshape(extents)
