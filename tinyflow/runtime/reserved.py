"""Address space that becomes memory page by page, for arrays whose length only running tells.

Main function: ``reserve``. Imports the standard library only.

The system backs a page when it is first touched and keeps it, so from the second step on a loop of
the same length gets nothing new. No page is touched for rows that are never written.
"""

from __future__ import annotations

import ctypes
import mmap
import sys

#: Linux counts such a mapping against no limit until it is touched (the constant is not in mmap).
_NO_RESERVE = 0x4000 if sys.platform == "linux" else 0
_SMALLEST = 1 << 20


class Reserved:
    """A range of addresses; ``address`` and ``size_bytes``. It lives as long as this object."""

    def __init__(self, size_bytes: int) -> None:
        self._map = _mapped(size_bytes)
        self.size_bytes = size_bytes
        self._view = ctypes.c_char.from_buffer(self._map)
        self.address = ctypes.addressof(self._view)


def _mapped(size_bytes: int) -> mmap.mmap:
    if sys.platform == "win32":
        return mmap.mmap(-1, size_bytes)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
    return mmap.mmap(-1, size_bytes, flags=flags)


def reserve(size_bytes: int) -> Reserved:
    """Address space of ``size_bytes``. Errors: MemoryError when the system refuses."""
    try:
        return Reserved(max(_SMALLEST, size_bytes))
    except OSError as error:
        raise MemoryError(
            f"cannot reserve {size_bytes >> 20} MiB of addresses for the saved values of a loop: "
            f"{error}; give the while_loop maximum_iterations"
        ) from None
