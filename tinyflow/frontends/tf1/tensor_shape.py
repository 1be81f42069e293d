"""TensorFlow-1's view of a shape: ``x.shape[0].value``, ``x.get_shape().as_list()``.

Main types: ``Dimension``, ``TensorShape``. May import core only.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

from tinyflow.core.error import ShapeError
from tinyflow.core.frames import public_methods
from tinyflow.core.shape import Dim, Shape

__all__ = ["Dimension", "TensorShape", "as_dimension", "as_shape", "dimension_value", "text_of"]


def _extent(value: Any) -> int | None:
    """A user's extent as an int; None when unknown (None, Dimension(None), a symbol)."""
    if value is None or isinstance(value, Dim):
        return None
    if isinstance(value, Dimension):
        return value.value
    try:
        extent = operator.index(value)
    except TypeError:
        raise TypeError(
            f"Dimension value must be integer or None or have an __index__ method, got {value!r}"
        ) from None
    if extent < 0:
        raise ShapeError(f"Dimension {extent} must be >= 0", hint="an unknown extent is None")
    return extent


@public_methods()
class Dimension:
    """One extent; ``value`` is None when it is not known before a run.

    Arithmetic and comparison with an unknown extent give ``Dimension(None)`` and ``None``.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value: int | None = _extent(value)

    def is_compatible_with(self, other: Any) -> bool:
        other = as_dimension(other)
        return self.value is None or other.value is None or self.value == other.value

    def assert_is_compatible_with(self, other: Any) -> None:
        if not self.is_compatible_with(other):
            raise ShapeError(f"Dimensions {self} and {other} are not compatible")

    def merge_with(self, other: Any) -> Dimension:
        """The known one of two extents that must agree. Errors: ShapeError."""
        other = as_dimension(other)
        self.assert_is_compatible_with(other)
        return self if self.value is not None else other

    def _combine(self, other: Any, function: Callable[[int, int], int]) -> Dimension:
        try:
            other = as_dimension(other)
        except TypeError:
            return NotImplemented
        if self.value is None or other.value is None:
            return Dimension(None)
        return Dimension(function(self.value, other.value))

    def _compare(self, other: Any, function: Callable[[int, int], bool]) -> bool | None:
        try:
            other = as_dimension(other)
        except (TypeError, ShapeError):
            return NotImplemented
        if self.value is None or other.value is None:
            return None
        return function(self.value, other.value)

    def __add__(self, other: Any) -> Dimension:
        return self._combine(other, operator.add)

    __radd__ = __add__

    def __mul__(self, other: Any) -> Dimension:
        return self._combine(other, operator.mul)

    __rmul__ = __mul__

    def __sub__(self, other: Any) -> Dimension:
        return self._combine(other, operator.sub)

    def __rsub__(self, other: Any) -> Dimension:
        return self._combine(other, lambda a, b: b - a)

    def __floordiv__(self, other: Any) -> Dimension:
        return self._combine(other, operator.floordiv)

    __div__ = __floordiv__

    def __rfloordiv__(self, other: Any) -> Dimension:
        return self._combine(other, lambda a, b: b // a)

    def __mod__(self, other: Any) -> Dimension:
        return self._combine(other, operator.mod)

    def __rmod__(self, other: Any) -> Dimension:
        return self._combine(other, lambda a, b: b % a)

    def __lt__(self, other: Any) -> Any:
        return self._compare(other, operator.lt)

    def __le__(self, other: Any) -> Any:
        return self._compare(other, operator.le)

    def __gt__(self, other: Any) -> Any:
        return self._compare(other, operator.gt)

    def __ge__(self, other: Any) -> Any:
        return self._compare(other, operator.ge)

    def __eq__(self, other: object) -> Any:
        return self._compare(other, operator.eq)

    def __ne__(self, other: object) -> Any:
        return self._compare(other, operator.ne)

    def __hash__(self) -> int:
        return hash(self.value)

    def __int__(self) -> int:
        if self.value is None:
            raise TypeError("this dimension is not known before a run; use tf.shape(x)[i] instead")
        return self.value

    def __index__(self) -> int:
        return int(self)

    def __repr__(self) -> str:
        return f"Dimension({self.value})"

    def __str__(self) -> str:
        return "?" if self.value is None else str(self.value)


def as_dimension(value: Any) -> Dimension:
    return value if isinstance(value, Dimension) else Dimension(value)


def dimension_value(dimension: Any) -> int | None:
    """``tf.compat.dimension_value``: the int or None behind a dimension."""
    return dimension.value if isinstance(dimension, Dimension) else dimension


@public_methods()
class TensorShape:
    """A static shape: a list of dimensions, or of unknown rank (``TensorShape(None)``)."""

    __slots__ = ("_dims",)

    def __init__(self, dims: Any) -> None:
        self._dims: tuple[Dimension, ...] | None
        if dims is None:
            self._dims = None
        elif isinstance(dims, TensorShape):
            self._dims = dims._dims
        else:
            try:
                items = tuple(dims)
            except TypeError:
                items = (dims,)  # TF1: TensorShape(3) is (3,)
            self._dims = tuple(map(as_dimension, items))

    def core(self, label: str) -> Shape:
        """The shape of the type system; unknown extents become symbols ``label_0``, ``label_1``.

        Each use needs a label of its own: equal symbols mean equal extents.
        """
        if self._dims is None:
            return None
        return tuple(
            Dim.symbol(f"{label}_{i}") if d.value is None else d.value
            for i, d in enumerate(self._dims)
        )

    @property
    def dims(self) -> list[Dimension] | None:
        return None if self._dims is None else list(self._dims)

    @property
    def ndims(self) -> int | None:
        return None if self._dims is None else len(self._dims)

    rank = ndims

    def as_list(self) -> list[int | None]:
        """Extents as ints and None. Errors: ValueError when the rank is unknown."""
        return [d.value for d in self._known("as_list()")]

    def num_elements(self) -> int | None:
        if not self.is_fully_defined():
            return None
        return math.prod(int(d) for d in self._known("num_elements()"))

    def is_fully_defined(self) -> bool:
        return self._dims is not None and all(d.value is not None for d in self._dims)

    def assert_is_fully_defined(self) -> None:
        if not self.is_fully_defined():
            raise ShapeError(f"Shape {self} is not fully defined")

    def is_compatible_with(self, other: Any) -> bool:
        other = as_shape(other)
        if self._dims is None or other._dims is None:
            return True
        return len(self._dims) == len(other._dims) and all(
            a.is_compatible_with(b) for a, b in zip(self._dims, other._dims, strict=True)
        )

    def assert_is_compatible_with(self, other: Any) -> None:
        if not self.is_compatible_with(other):
            raise ShapeError(f"Shapes {self} and {as_shape(other)} are incompatible")

    def assert_same_rank(self, other: Any) -> None:
        other = as_shape(other)
        if self._dims is not None and other._dims is not None and self.ndims != other.ndims:
            raise ShapeError(f"Shapes {self} and {other} must have the same rank")

    def assert_has_rank(self, rank: int) -> None:
        if self.ndims not in (None, rank):
            raise ShapeError(f"Shape {self} must have rank {rank}")

    def with_rank(self, rank: int) -> TensorShape:
        """This shape as one of ``rank`` dimensions. Errors: ShapeError when it has another."""
        return self.merge_with(TensorShape([None] * rank))

    def with_rank_at_least(self, rank: int) -> TensorShape:
        if self._dims is not None and len(self._dims) < rank:
            raise ShapeError(f"Shape {self} must have rank at least {rank}")
        return self

    def with_rank_at_most(self, rank: int) -> TensorShape:
        if self._dims is not None and len(self._dims) > rank:
            raise ShapeError(f"Shape {self} must have rank at most {rank}")
        return self

    def merge_with(self, other: Any) -> TensorShape:
        """What two descriptions of one shape say together. Errors: ShapeError."""
        other = as_shape(other)
        if self._dims is None or other._dims is None:
            return other if self._dims is None else self
        if not self.is_compatible_with(other):
            raise ShapeError(f"Shapes {self} and {other} are not compatible")
        return TensorShape([a.merge_with(b) for a, b in zip(self._dims, other._dims, strict=True)])

    def concatenate(self, other: Any) -> TensorShape:
        other = as_shape(other)
        if self._dims is None or other._dims is None:
            return TensorShape(None)
        return TensorShape(self._dims + other._dims)

    def _known(self, what: str) -> tuple[Dimension, ...]:
        if self._dims is None:
            raise ShapeError(
                f"{what} is not defined on an unknown TensorShape.",
                hint="give the placeholder a shape, e.g. tf.placeholder(tf.float32, [None, 3])",
            )
        return self._dims

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            if self._dims is None:
                return _slice_of_unknown(key)
            return TensorShape(self._dims[key])
        return Dimension(None) if self._dims is None else self._dims[key]

    def __iter__(self) -> Iterator[Dimension]:
        return iter(self._known("iteration"))

    def __len__(self) -> int:
        return len(self._known("len()"))

    def __bool__(self) -> bool:
        return self._dims is not None

    def __eq__(self, other: object) -> bool:
        try:
            other = as_shape(other)
        except (TypeError, ShapeError):
            return NotImplemented
        mine, theirs = self._dims, other._dims
        if mine is None or theirs is None:
            return mine is theirs
        return [d.value for d in mine] == [d.value for d in theirs]

    def __hash__(self) -> int:
        return hash(None if self._dims is None else tuple(d.value for d in self._dims))

    def __add__(self, other: Any) -> TensorShape:
        return self.concatenate(other)

    def __radd__(self, other: Any) -> TensorShape:
        return as_shape(other).concatenate(self)

    def __repr__(self) -> str:
        return f"TensorShape({None if self._dims is None else list(self._dims)})"

    def __str__(self) -> str:
        if self._dims is None:
            return "<unknown>"
        if len(self._dims) == 1:
            return f"({self._dims[0]},)"
        return "(" + ", ".join(map(str, self._dims)) + ")"


def _slice_of_unknown(key: slice) -> TensorShape:
    if key.stop is None or (key.start or 0) < 0 or key.stop < 0 or key.step not in (None, 1):
        return TensorShape(None)
    return TensorShape([None] * max(0, key.stop - (key.start or 0)))


def as_shape(shape: Any) -> TensorShape:
    return shape if isinstance(shape, TensorShape) else TensorShape(shape)


def text_of(shape: Shape) -> str:
    """TensorFlow's spelling of a shape: ``(?, 784)``, ``<unknown>``."""
    return str(TensorShape(shape))
