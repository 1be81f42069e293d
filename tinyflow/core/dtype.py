"""Element types.

Main type: ``DType``; one instance per type (``float32``, ``int64`` ...), found by ``as_dtype``.
May be imported by everything; imports NumPy only (``ml_dtypes`` when bfloat16 is first used).
"""

from __future__ import annotations

from typing import Any

import numpy as np


class DType:
    """An element type: its name, kind and size in bytes.

    Compares equal to whatever ``as_dtype`` maps to it (``float32 == "float32" == np.float32``).
    """

    __slots__ = ("_hash", "_numpy", "kind", "name", "size_bytes")

    name: str
    kind: str
    size_bytes: int

    def __init__(self, name: str, kind: str, size_bytes: int) -> None:
        self.name = name
        self.kind = kind  # "bool", "int", "uint" or "float"
        self.size_bytes = size_bytes
        self._numpy: np.dtype[Any] | None = None
        self._hash = hash(name)

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype; bfloat16 comes from ml_dtypes, imported on first use."""
        if self._numpy is None:
            if self.name == "bfloat16":
                import ml_dtypes

                self._numpy = np.dtype(ml_dtypes.bfloat16)
            else:
                self._numpy = np.dtype(self.name)
        return self._numpy

    @property
    def as_numpy_dtype(self) -> Any:
        return self.numpy.type

    @property
    def is_floating(self) -> bool:
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        return self.kind in ("int", "uint")

    @property
    def is_bool(self) -> bool:
        return self.kind == "bool"

    @property
    def is_unsigned(self) -> bool:
        return self.kind == "uint"

    @property
    def bits(self) -> int:
        return self.size_bytes * 8

    @property
    def base_dtype(self) -> DType:
        return self

    @property
    def min(self) -> Any:
        return self._limits().min if self.kind != "bool" else False

    @property
    def max(self) -> Any:
        return self._limits().max if self.kind != "bool" else True

    def _limits(self) -> Any:
        if self.name == "bfloat16":
            import ml_dtypes

            return ml_dtypes.finfo(self.numpy)  # type: ignore[no-untyped-call]
        return np.finfo(self.numpy) if self.kind == "float" else np.iinfo(self.numpy)

    def is_compatible_with(self, other: Any) -> bool:
        return self == as_dtype(other)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if isinstance(other, DType) or other is None:
            return False
        try:
            return as_dtype(other) is self
        except (TypeError, ValueError):
            return False

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"tf.{self.name}"

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> str:
        return self.name


bool_ = DType("bool", "bool", 1)
int8 = DType("int8", "int", 1)
int16 = DType("int16", "int", 2)
int32 = DType("int32", "int", 4)
int64 = DType("int64", "int", 8)
uint8 = DType("uint8", "uint", 1)
uint16 = DType("uint16", "uint", 2)
uint32 = DType("uint32", "uint", 4)
uint64 = DType("uint64", "uint", 8)
float16 = DType("float16", "float", 2)
bfloat16 = DType("bfloat16", "float", 2)
float32 = DType("float32", "float", 4)
float64 = DType("float64", "float", 8)

ALL = (
    bool_, int8, int16, int32, int64, uint8, uint16, uint32, uint64,
    float16, bfloat16, float32, float64,
)  # fmt: skip
#: Types that kernels are generated for.
COMPILED = ALL
#: Floats that are stored in 16 bits and computed in float32.
NARROW = (float16, bfloat16)
#: Integers whose products an instruction adds up in pairs: they fit into 16 bits with a sign.
SMALL_INTEGERS = (int8, int16, uint8)

_BY_KEY: dict[Any, DType] = {}
for _d in ALL:
    _BY_KEY[_d.name] = _d
    if _d.name != "bfloat16":
        _BY_KEY[np.dtype(_d.name)] = _d
        _BY_KEY[np.dtype(_d.name).type] = _d
_BY_KEY.update({bool: bool_, int: int32, float: float32, "half": float16, "float": float32,
                "double": float64, "int": int32})  # fmt: skip


def as_dtype(spec: Any) -> DType:
    """The ``DType`` for a DType, NumPy dtype or scalar type, Python type or name.

    Python ``int`` and ``float`` mean int32 and float32, as in TensorFlow.
    Errors: TypeError when nothing matches.
    """
    if isinstance(spec, DType):
        return spec
    try:
        found = _BY_KEY.get(spec)
    except TypeError:
        found = None
    if found is not None:
        return found
    try:
        numpy_dtype = np.dtype(spec)
    except TypeError:
        numpy_dtype = None
    if numpy_dtype is not None:
        found = _BY_KEY.get(numpy_dtype) or _BY_KEY.get(numpy_dtype.name)
        if found is not None:
            return found
    raise TypeError(
        f"cannot convert {spec!r} to a dtype; known: {', '.join(d.name for d in ALL)}"
    )
