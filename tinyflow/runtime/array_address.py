"""The address of an array's first element, quickly: a step asks for it once per feed and fetch.

Main function: ``address_of``. Imports numpy only.

``array.ctypes.data`` and ``array.__array_interface__`` build objects and take nearly a microsecond.
NumPy's C interface (``PyArrayObject_fields``) puts the pointer right behind the object's header;
that is read directly where a check at import finds it there, otherwise the slow way is taken.
"""

from __future__ import annotations

import ctypes
import platform
from typing import Any

import numpy as np

_OFFSET = object.__basicsize__
_read = ctypes.c_uint64.from_address


def _by_interface(array: np.ndarray[Any, Any]) -> int:
    return array.__array_interface__["data"][0]  # type: ignore[no-any-return]


def _by_field(array: np.ndarray[Any, Any]) -> int:
    return _read(id(array) + _OFFSET).value


def _fields_are_known() -> bool:
    if platform.python_implementation() != "CPython" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    whole = np.arange(24, dtype=np.float32)
    samples = (whole, whole[3:], whole.reshape(4, 6)[1:, 2:], np.array(1.0))
    return all(_by_field(a) == _by_interface(a) for a in samples)


address_of = _by_field if _fields_are_known() else _by_interface
