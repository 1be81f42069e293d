"""Memory of large results, reused when the caller drops them.

Main function: ``result_empty``. May import runtime.arena.

A fresh large array costs a page fault per 4 KiB when it is first written, which at memory speed is
more than the kernel that fills it. So blocks of results that were garbage-collected are kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyflow.runtime.arena import Arena

#: Below this size the C allocator reuses memory by itself.
LARGE_BYTES = 1 << 18
#: Blocks kept for reuse, in all.
KEEP_BYTES = 1 << 28

_free: dict[int, list[Arena]] = {}
_kept_bytes = 0


class _Lease:
    """Base object of a result array: gives the block back when the array is gone."""

    __slots__ = ("__array_interface__", "block")

    def __init__(self, block: Arena, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.block = block
        self.__array_interface__ = {
            "shape": shape, "typestr": dtype.str, "data": (block.address, False), "version": 3,
        }  # fmt: skip

    def __del__(self) -> None:
        global _kept_bytes
        size = self.block.size_bytes
        if _kept_bytes + size <= KEEP_BYTES:
            _kept_bytes += size
            _free.setdefault(size, []).append(self.block)


def result_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """An uninitialised array that the caller owns."""
    global _kept_bytes
    size = dtype.itemsize
    for extent in shape:
        size *= extent
    if size < LARGE_BYTES or dtype.kind == "V":
        return np.empty(shape, dtype)
    size = -(-size // 4096) * 4096
    try:
        block = _free[size].pop()
        _kept_bytes -= size
    except (KeyError, IndexError):
        block = Arena(size)
    return np.asarray(_Lease(block, shape, dtype))
