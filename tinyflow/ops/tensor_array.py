"""Arrays that loops fill row by row: ``NewArray``, ``ArrayRead``, ``ArrayWrite``.

Main types: those, ``RowGrad`` and ``StoredRead``. May import core, ir, te, ops.base, ops.indexing.

A TensorArray of n elements is a tensor [n, element...]. Writing gives a new value, but the memory
plan keeps both in one place: a write costs one row. The pass ``order_arrays`` puts reads of the old
value before the write, and a copy where that is impossible.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from tinyflow import te
from tinyflow.core.dtype import DType, as_dtype
from tinyflow.core.error import DTypeError, InvalidArgumentError, ShapeError
from tinyflow.core.shape import merge_shapes
from tinyflow.ir.loop.nodes import Body, Buffer, Store
from tinyflow.ir.scalar import nodes as scalar
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ops.base import Extents, Op, Sample, TensorType, Value, emit, emit_shaped, floats
from tinyflow.ops.indexing import checked_position
from tinyflow.ops.like import LikeOp
from tinyflow.ops.loop_nests import lanes, nest

_tags = count(1)


@dataclass(frozen=True)
class NewArray(Op):
    """y = an array of ``rows`` elements of shape ``element`` that nothing was written to.

    tag: makes two arrays different    y: dtype [rows, element...]; the reference has zeros
    """

    dtype: DType
    rows: Any
    element: Extents | None
    tag: int = 0
    not_differentiable = "it has no inputs"

    def infer(self) -> TensorType:
        if self.element is None:
            return TensorType(self.dtype, None)
        return TensorType(self.dtype, (self.rows, *self.element))

    def reference(self) -> Any:
        return np.zeros(self.infer().shape, self.dtype.numpy)  # type: ignore[arg-type]

    def lower_loops(self, inputs: tuple[Buffer, ...], outputs: tuple[Buffer, ...]) -> Body:
        return ()

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        return ()


def new_array(dtype: Any, rows: Any, element: Any, name: str | None = None) -> Any:
    """An array of ``rows`` (an int or an integer scalar) elements. See NewArray."""
    op = NewArray(as_dtype(dtype), 0, None if element is None else tuple(element), next(_tags))
    return emit_shaped(op, "rows", rows, node_name=name)


@dataclass(frozen=True)
class ZeroArray(NewArray):
    """y = an array of zeros: one that users fill, where unwritten elements may be read."""

    def decompose(self) -> Value:
        from tinyflow.ops.creation import zeros

        return zeros(self.infer().shape, self.dtype)  # type: ignore[no-any-return]


def zero_array(dtype: Any, rows: Any, element: Any, name: str | None = None) -> Any:
    """An array of zeros. See ZeroArray."""
    op = ZeroArray(as_dtype(dtype), 0, None if element is None else tuple(element), next(_tags))
    return emit_shaped(op, "rows", rows, node_name=name)


def _row_type(array: TensorType, index: TensorType) -> TensorType:
    index.require_integer().require_rank(0)
    array.require_rank(1, at_least=True)
    return array.with_shape(None if array.shape is None else array.shape[1:])


@dataclass(frozen=True)
class ArrayRead(Op):
    """y = array[index].    array: any[n, e...], index: integer []    y: [e...] of the same dtype

    Gradient: dy in row ``index`` of zeros
    Errors: ShapeError, DTypeError; InvalidArgumentError at run time for an index outside [0, n)
    """

    same_dtype = False

    def infer(self, array: TensorType, index: TensorType) -> TensorType:
        return _row_type(array, index)

    def reference(self, array: Any, index: Any) -> Any:
        return np.array(np.asarray(array)[_inside(index, len(array))])

    def compute(self, array: te.Tensor, index: te.Tensor) -> te.Tensor:
        def element(*axes: Expr) -> Expr:
            return array[(checked_position(index[()], array.shape[0]), *axes)]

        return te.compute(array.shape[1:], element, "row")

    def vjp(self, dy: Value, y: Value, array: Value, index: Value) -> tuple[Any, ...]:
        return emit(RowGrad(), dy, index, array), None

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, index in (((5, 3), 2), ((1,), 0), ((3, 2, 4), 1)):
            yield Sample((floats(rng, *shape), np.int32(index)), type(self)())

    def bad_samples(self) -> Iterable[Any]:
        op = type(self)()
        yield Sample((np.zeros((3, 2), np.float32), np.float32(1)), op), DTypeError
        yield Sample((np.zeros((3, 2), np.float32), np.zeros(2, np.int32)), op), ShapeError


def array_read(array: Any, index: Any, name: str | None = None) -> Any:
    """One element of an array. See ArrayRead."""
    return emit(ArrayRead(), array, index, name=name)


@dataclass(frozen=True)
class StoredRead(ArrayRead):
    """As ArrayRead, of an array that is written later: a kernel of its own, never recomputed."""

    def lower_loops(self, inputs: tuple[Buffer, ...], outputs: tuple[Buffer, ...]) -> Body:
        array, index = inputs
        (y,) = outputs
        row = checked_position(scalar.load(index, *_zero_axes(index)), array.shape[0])
        return each(y.shape, lambda *b: (Store(y, b, scalar.load(array, row, *b)),))


def _inside(index: Any, rows: int) -> int:
    if not 0 <= int(index) < rows:
        raise InvalidArgumentError(
            f"TensorArray: index {int(index)} is out of range",
            expected=f"indices in [0, {rows})",
        )
    return int(index)


def _zero_axes(buffer: Buffer) -> tuple[Expr, ...]:
    return tuple(scalar.index(0) for _ in buffer.shape)


def each(shape: tuple[Any, ...], body: Any) -> Body:
    """``body(*indices)`` for every element, vectors along the last axis."""
    if not shape:
        return body()  # type: ignore[no-any-return]
    return nest(shape[:-1], "r", lambda outer: lanes(shape[-1], "e", lambda i: body(*outer, i)))


@dataclass(frozen=True)
class ArrayWrite(Op):
    """y = array with y[index] = row, or y[index] + row (``adds``); y takes over array's memory.

    array: any[n, e...], index: integer [], row: [e...]     y: type of array
    Gradient: of row dy[index]; of array dy, since a row is written once (adds: exactly dy)
    Errors: ShapeError, DTypeError; InvalidArgumentError at run time for an index outside [0, n)
    """

    adds: bool = False
    same_dtype = False
    #: the result's memory is the first input's, of which only one row is touched
    updates_in_place = True

    def infer(self, array: TensorType, index: TensorType, row: TensorType) -> TensorType:
        if array.dtype is not row.dtype:
            raise DTypeError(f"the array holds {array.dtype}, the element is {row.dtype}")
        own = _row_type(array, index)
        if self.adds:
            array.require_number()
        try:
            shape = merge_shapes(own.shape, row.shape)
        except ShapeError as error:
            error.what = f"the array holds elements of shape {own.shape}, got {row.shape}"
            raise
        if array.shape is None or shape is None:
            return array
        return array.with_shape((array.shape[0], *shape))

    def reference(self, array: Any, index: Any, row: Any) -> Any:
        y = np.array(array)
        position = _inside(index, len(y))
        y[position] = y[position] + row if self.adds else row
        return y

    def lower_loops(self, inputs: tuple[Buffer, ...], outputs: tuple[Buffer, ...]) -> Body:
        _, index, row = inputs
        (y,) = outputs
        at = checked_position(scalar.load(index, *_zero_axes(index)), y.shape[0])

        def write(*b: Expr) -> Body:
            new = scalar.load(row, *b)
            if self.adds:
                new = scalar.load(y, at, *b) + new
            return (Store(y, (at, *b), new),)

        return each(y.shape[1:], write)

    def vjp(
        self, dy: Value, y: Value, array: Value, index: Value, row: Value
    ) -> tuple[Any, ...]:
        return dy, None, emit(ArrayRead(), dy, index)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for adds in (False, True):
            for shape, index in (((5, 3), 2), ((1,), 0), ((3, 2, 40), 1)):
                yield Sample(
                    (floats(rng, *shape), np.int32(index), floats(rng, *shape[1:])),
                    ArrayWrite(adds), check_gradient=adds,
                )  # fmt: skip

    def bad_samples(self) -> Iterable[Any]:
        x, row = np.zeros((3, 2), np.float32), np.zeros(2, np.float32)
        yield Sample((x, np.int32(1), np.zeros(3, np.float32))), ShapeError
        yield Sample((x, np.int32(1), row.astype(np.float64))), DTypeError
        yield Sample((x, np.float32(1), row)), DTypeError


def array_write(array: Any, index: Any, row: Any, name: str | None = None) -> Any:
    """The array with one element set. See ArrayWrite."""
    return emit(ArrayWrite(), array, index, row, name=name)


@dataclass(frozen=True)
class CopyArray(Op):
    """y = x, in memory of its own.    Gradient: dx = dy"""

    def infer(self, x: TensorType) -> TensorType:
        return x

    def reference(self, x: Any) -> Any:
        return np.array(x)

    def compute(self, x: te.Tensor) -> te.Tensor:
        return te.map(lambda element: element, x, name="copy")

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (dy,)

    def samples(self, rng: np.random.Generator) -> Any:
        yield Sample((floats(rng, 3, 4),))



@dataclass(frozen=True)
class RowGrad(LikeOp):
    """y = zeros of like's shape with dy in row ``index``.    Gradient: ddy = dy'[index]

    dy: any[e...], index: integer [], like: any[n, e...]
    Sums of it become writes into the other summand: see autodiff.reverse.add_up.
    """

    def infer(self, dy: TensorType, index: TensorType, like: TensorType) -> TensorType:  # type: ignore[override]
        row = _row_type(like, index)
        merge_shapes(row.shape, dy.shape)
        return dy.with_shape(like.shape)

    def reference(self, dy: Any, index: Any, like: Any) -> Any:
        y = np.zeros(np.shape(like), np.asarray(dy).dtype)
        y[_inside(index, len(y))] = dy
        return y

    def decompose(self, dy: Value, index: Value, like: Value) -> Value:  # type: ignore[override]
        from tinyflow.ops.creation import zeros

        start = zeros(like.type.shape, dy.dtype)
        return emit(ArrayWrite(adds=True), start, index, dy)  # type: ignore[no-any-return]

    def vjp(self, dz: Value, z: Value, dy: Value, index: Value, like: Value) -> tuple[Any, ...]:  # type: ignore[override]
        return emit(ArrayRead(), dz, index), None, None

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, index in (((5, 3), 2), ((1,), 0)):
            yield Sample((floats(rng, *shape[1:]), np.int32(index), floats(rng, *shape)))

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((3, 2), np.float32)
        yield Sample((np.zeros(3, np.float32), np.int32(1), x)), ShapeError
        yield Sample((np.zeros(2, np.float32), np.float32(1), x)), DTypeError


@dataclass(frozen=True)
class NewArrayLike(LikeOp):
    """y = an array of like's type that nothing was written to.    Gradient: none

    like: any[n, e...]
    """

    not_differentiable = "nothing of its input is in the result"

    def infer(self, like: TensorType) -> TensorType:  # type: ignore[override]
        return like

    def reference(self, like: Any) -> Any:  # type: ignore[override]
        return np.zeros_like(like)

    def decompose(self, like: Value) -> Value:  # type: ignore[override]
        return new_array(like.dtype, like.type.shape[0], like.type.shape[1:])  # type: ignore[index, no-any-return]

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        return ()
