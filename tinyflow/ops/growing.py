"""Arrays that grow to the row that is written next: ``tf.TensorArray(dynamic_size=True)``.

Main types: ``GrowRows``, ``PadRows``, ``FirstRows``. May import ops.base, like, padding, counted.

Where the rows that a loop writes are known, the array has them before the loop, which stays native.
Elsewhere Python tells how many rows an array has after a write.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow.core.dtype import int64
from tinyflow.core.error import DTypeError, ShapeError
from tinyflow.core.shape import opaque
from tinyflow.ops.base import Op, Sample, TensorType, Value, emit, floats
from tinyflow.ops.like import LikeOp


@dataclass(frozen=True)
class GrowRows(Op):
    """y = array, with rows of zeros behind it if ``index`` is not among its rows.

    array: any[n, e...], index: integer []    y: any[max(n, index + 1), e...]
    Gradient: darray = the first n rows of dy    Errors: ShapeError, DTypeError
    """

    same_dtype = False

    def infer(self, array: TensorType, index: TensorType) -> TensorType:
        index.require_integer().require_rank(0)
        array.require_rank(1, at_least=True)
        if array.shape is None:
            return array
        return array.with_shape((opaque(f"grown({array.shape[0]})"), *array.shape[1:]))

    def reference(self, array: Any, index: Any) -> Any:
        more = max(0, int(index) + 1 - len(array))
        return np.concatenate([array, np.zeros((more, *np.shape(array)[1:]), array.dtype)])

    def told(self, array: Value, index: Value) -> Value:
        """The array where Python tells how many rows it has."""
        from tinyflow.ops.convert import cast
        from tinyflow.ops.counted import counted
        from tinyflow.ops.elementwise import maximum
        from tinyflow.ops.shape import shape

        needed: Any = cast(index, int64)
        rows = counted(maximum(needed + 1, shape(array, int64)[0]))
        return emit(PadRows(), array, rows)  # type: ignore[no-any-return]

    def vjp(self, dy: Value, y: Value, array: Value, index: Value) -> tuple[Any, ...]:
        return emit(FirstRows(), dy, array), None

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        return ()  # the extent of its result follows from a value

    def bad_samples(self) -> Iterable[Any]:
        yield (np.zeros((2, 3), np.float32), np.float32(1)), DTypeError
        yield (np.zeros((), np.float32), np.int32(1)), ShapeError


@dataclass(frozen=True)
class PadRows(LikeOp):
    """y = array and, behind it, rows of zeros: as many rows as ``like`` has.

    array: any[n, e...], like: any[m, ...], n <= m    y: any[m, e...]
    Gradient: the first n rows of dy    Errors: ShapeError when like has fewer rows
    """

    def infer(self, array: TensorType, like: TensorType) -> TensorType:
        array.require_rank(1, at_least=True)
        like.require_rank(1, at_least=True)
        if array.shape is None or like.shape is None:
            return array.with_shape(None)
        n, m = array.shape[0], like.shape[0]
        if isinstance(n, int) and isinstance(m, int) and n > m:
            raise ShapeError(f"{n} rows do not fit into {m}")
        return array.with_shape((m, *array.shape[1:]))

    def reference(self, array: Any, like: Any) -> Any:
        rows = np.zeros((len(like) - len(array), *np.shape(array)[1:]), array.dtype)
        return np.concatenate([array, rows])

    def build(self, dy: Value, shape: tuple[int, ...]) -> Value:
        return padded_to(dy, shape[0])

    def vjp(self, dy: Value, y: Value, array: Value, like: Value) -> tuple[Any, ...]:
        return emit(FirstRows(), dy, array), None

    def sample_shapes(self) -> Iterable[tuple[tuple[int, ...], tuple[int, ...]]]:
        return ((3, 4), (5,)), ((2,), (2, 3)), ((0, 5), (3,))

    def bad_samples(self) -> Iterable[Any]:
        yield (np.zeros((2, 3), np.float32), np.zeros(1, np.float32)), ShapeError


def padded_to(array: Value, rows: Any) -> Value:
    """``array`` with rows of zeros behind it, ``rows`` in all."""
    from tinyflow.ops.padding import Pad

    own = array.type.shape or ()
    if own[0] == rows:
        return array
    return emit(Pad(((0, rows - own[0]), *[(0, 0)] * (len(own) - 1))), array)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class FirstRows(LikeOp):
    """y = the first rows of dy, as many as ``like`` has; of the shape of ``like``.

    dy: any[m, e...], like: any[n, e...], n <= m    Gradient: zeros behind dy'
    Errors: ShapeError when like has more rows
    """

    def infer(self, dy: TensorType, like: TensorType) -> TensorType:
        m, n = ((t.shape or (None,))[0] for t in (dy, like))
        if isinstance(m, int) and isinstance(n, int) and n > m:
            raise ShapeError(f"{m} rows have no first {n}")
        return dy.with_shape(like.shape)

    def reference(self, dy: Any, like: Any) -> Any:
        return dy[: len(like)]

    def build(self, dy: Value, shape: tuple[int, ...]) -> Value:
        from tinyflow.ops.slicing import Slice

        if dy.type.shape == tuple(shape):
            return dy
        return emit(Slice((0,) * len(shape), tuple(shape)), dy)  # type: ignore[no-any-return]

    def vjp(self, dz: Value, z: Value, dy: Value, like: Value) -> tuple[Any, ...]:
        return emit(PadRows(), dz, dy), None

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for m, n in ((5, 2), (3, 3), (2, 0)):
            yield Sample((floats(rng, m, 4), floats(rng, n, 4)), FirstRows())

    def bad_samples(self) -> Iterable[Any]:
        yield (np.zeros((2, 3), np.float32), np.zeros((3, 3), np.float32)), ShapeError


def grow_rows(array: Any, index: Any) -> Value:
    """The array with a row for ``index``. See GrowRows."""
    return emit(GrowRows(), array, index)  # type: ignore[no-any-return]


__all__ = ["FirstRows", "GrowRows", "PadRows", "grow_rows", "padded_to"]
