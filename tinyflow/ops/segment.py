"""Reductions over rows that share a segment id, and sums over equal keys.

Main types: ``UnsortedSegmentMax`` and its kin, ``FirstOfEqual``. May import ops.base, indexing,
sorting and arithmetic families. Shapes: values [i..., b...], ids integer[i...], y [segments, b...].
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tinyflow.core.dtype import DType, int32
from tinyflow.core.error import DTypeError, ShapeError
from tinyflow.core.titled import titled
from tinyflow.ir.loop.nodes import Buffer, If, Stmt, Store
from tinyflow.ir.scalar import nodes as scalar
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ops.base import Op, Sample, TensorType, Value, emit, emit_shaped, floats
from tinyflow.ops.comparison import equal, greater, greater_equal
from tinyflow.ops.convert import cast
from tinyflow.ops.elementwise import divide, maximum, multiply, sqrt
from tinyflow.ops.indexing import (
    UnsortedSegmentSum,
    gather,
    require_inside,
    segment_loops,
    unsorted_segment_sum,
)
from tinyflow.ops.logical import logical_and, select
from tinyflow.ops.loop_nests import nest
from tinyflow.ops.movement import add_last_axes
from tinyflow.ops.sorting import argsort

__all__ = [
    "FirstOfEqual", "UnsortedSegmentMax", "UnsortedSegmentMin", "UnsortedSegmentProd",
    "first_of_equal", "sum_of_equal", "unsorted_segment_max", "unsorted_segment_mean",
    "unsorted_segment_min", "unsorted_segment_prod", "unsorted_segment_sqrt_n",
]  # fmt: skip


@dataclass(frozen=True)
class SegmentFold(UnsortedSegmentSum, abstract=True):
    """y[k, b] = fold of values[i, b] over the i with ids[i] = k, starting from ``start``.

    values: number[i..., b...]    ids: integer[i...], negative ones are left out
    Errors: ShapeError, DTypeError; InvalidArgumentError at run time for an id >= num_segments
    """

    function: ClassVar[Any] = None
    fold: ClassVar[Any] = None

    def start(self, dtype: DType) -> Any:
        """The result of a segment without rows."""
        raise NotImplementedError(f"{self.type_name}.start")

    def reference(self, values: Any, segment_ids: Any) -> Any:
        ids, values = np.asarray(segment_ids), np.asarray(values)
        kept = ids >= 0
        require_inside(ids[kept], self.num_segments, self.type_name)
        shape = (self.num_segments, *np.shape(values)[ids.ndim :])
        y = np.full(shape, self.start(TensorType(values.dtype).dtype), values.dtype)
        type(self).function.at(y, ids[kept], values[kept])
        return y

    def lower_loops(
        self, inputs: tuple[Buffer, ...], outputs: tuple[Buffer, ...]
    ) -> tuple[Stmt, ...]:
        return segment_loops(inputs, outputs, type(self).fold, self.start(outputs[0].dtype))

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for values, count in (((6, 3), 4), ((7, 2, 5), 5), ((5,), 2), ((1, 19), 1)):
            rest = rng.integers(-1, count, values[0] - count)
            ids = rng.permutation([*range(count), *rest]).astype(np.int32)
            yield Sample((floats(rng, *values), ids), type(self)(count), ulp=8.0)
        pair = rng.integers(-1, 7, (2, 3)).astype(np.int32)
        for shape, ids, count in (((2, 3, 5), pair, 7), ((0, 2), pair[:0, 0], 3)):
            # Integers: the float of a segment without rows is too large for finite differences.
            yield Sample((rng.integers(-9, 9, shape).astype(np.int32), ids), type(self)(count))
        whole = rng.integers(-9, 9, (4, 2)).astype(np.int32), np.array([1, 0, 1, 1], np.int64)
        yield Sample(whole, type(self)(2))

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((3, 2), np.float32)
        yield Sample((x, np.zeros(4, np.int32)), type(self)(2)), ShapeError
        yield Sample((x, np.zeros(3, np.float32)), type(self)(2)), DTypeError


@dataclass(frozen=True)
class SegmentExtremum(SegmentFold, abstract=True):
    """The largest or smallest element per segment. See SegmentFold.

    Gradient: dy[k, b], shared by the elements that equal y[k, b]
    """

    def vjp(self, dz: Value, z: Value, values: Value, segment_ids: Value) -> tuple[Any, ...]:
        rows = maximum(segment_ids, 0)
        kept = _like_rows(greater_equal(segment_ids, 0), values)
        chosen = logical_and(equal(values, gather(z, rows)), kept)
        count = unsorted_segment_sum(cast(chosen, dz.dtype), segment_ids, self.num_segments)
        share = gather(divide(dz, maximum(count, 1)), rows)
        return select(chosen, share, 0), None


@dataclass(frozen=True)
class UnsortedSegmentMax(SegmentExtremum):
    """y[k, b] = max of values[i, b] over the i with ids[i] = k; the dtype's lowest for no rows.

    Inputs, gradient and errors: see SegmentExtremum.
    """

    function = np.maximum
    fold = staticmethod(scalar.maximum)

    def start(self, dtype: DType) -> Any:
        return dtype.min


@dataclass(frozen=True)
class UnsortedSegmentMin(SegmentExtremum):
    """y[k, b] = min of values[i, b] over the i with ids[i] = k; the dtype's highest for no rows.

    Inputs, gradient and errors: see SegmentExtremum.
    """

    function = np.minimum
    fold = staticmethod(scalar.minimum)

    def start(self, dtype: DType) -> Any:
        return dtype.max


@dataclass(frozen=True)
class UnsortedSegmentProd(SegmentFold):
    """y[k, b] = product of values[i, b] over the i with ids[i] = k; 1 for no rows.

    Inputs and errors: see SegmentFold.
    Gradient: dy[k, b] times the product of the other elements of the segment, zeros included
    """

    function = np.multiply
    fold = staticmethod(lambda old, new: old * new)

    def start(self, dtype: DType) -> Any:
        return 1

    def vjp(self, dz: Value, z: Value, values: Value, segment_ids: Value) -> tuple[Any, ...]:
        rows = maximum(segment_ids, 0)
        zero = equal(values, 0)
        zeros = unsorted_segment_sum(cast(zero, dz.dtype), segment_ids, self.num_segments)
        # With one zero in a segment only that element has a gradient: the others' product.
        nonzero = select(zero, 1, values)
        product: Value = emit(UnsortedSegmentProd(self.num_segments), nonzero, segment_ids)
        others = select(
            zero,
            select(greater(gather(zeros, rows), 1), 0, gather(product, rows)),
            divide(gather(z, rows), nonzero),
        )
        kept = _like_rows(greater_equal(segment_ids, 0), values)
        return select(kept, multiply(gather(dz, rows), others), 0), None


def _like_rows(flags: Value, values: Value) -> Value:
    """Numbers per row with an axis of 1 for every further axis of ``values``."""
    return add_last_axes(flags, (values.type.rank or 0) - (flags.type.rank or 0))


def _segment_function(name: str, op_class: type[SegmentFold]) -> Any:
    @titled(name, f"See {op_class.__name__}.")
    def function(data: Any, segment_ids: Any, num_segments: Any, name: str | None = None) -> Any:
        return emit_shaped(
            op_class(0), "num_segments", num_segments, data, segment_ids, node_name=name
        )

    return function


unsorted_segment_max = _segment_function("unsorted_segment_max", UnsortedSegmentMax)
unsorted_segment_min = _segment_function("unsorted_segment_min", UnsortedSegmentMin)
unsorted_segment_prod = _segment_function("unsorted_segment_prod", UnsortedSegmentProd)


def _sizes(data: Value, segment_ids: Value, num_segments: Any) -> Value:
    """Rows per segment, at least 1, with an axis of 1 per axis of a row."""
    from tinyflow.ops.creation import ones_like

    count = unsorted_segment_sum(ones_like(segment_ids, data.dtype), segment_ids, num_segments)
    wide = (data.type.rank or 0) - (segment_ids.type.rank or 0)
    return maximum(add_last_axes(count, wide), 1)  # type: ignore[no-any-return]


def unsorted_segment_mean(
    data: Any, segment_ids: Any, num_segments: Any, name: str | None = None
) -> Any:
    """The sum of a segment's rows divided by their number, 0 for no rows."""
    total = unsorted_segment_sum(data, segment_ids, num_segments)
    return divide(total, _sizes(data, segment_ids, num_segments), name=name)


def unsorted_segment_sqrt_n(
    data: Any, segment_ids: Any, num_segments: Any, name: str | None = None
) -> Any:
    """The sum of a segment's rows divided by the root of their number, 0 for no rows."""
    total = unsorted_segment_sum(data, segment_ids, num_segments)
    return divide(total, sqrt(_sizes(data, segment_ids, num_segments)), name=name)


@dataclass(frozen=True)
class FirstOfEqual(Op):
    """y[i] = the smallest j with keys[j] = keys[i].

    keys: number[n]    order: int32[n], positions of the keys in ascending order, ties by position
    y: int32[n]        Errors: ShapeError for other ranks
    """

    same_dtype = False
    not_differentiable = "the result is a position"

    def infer(self, keys: TensorType, order: TensorType) -> TensorType:
        keys.require_number().require_rank(1)
        order.require_integer().require_rank(1)
        return TensorType(int32, keys.shape)

    def reference(self, keys: Any, order: Any) -> Any:
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        return first[np.ravel(inverse)].astype(np.int32)

    def lower_loops(
        self, inputs: tuple[Buffer, ...], outputs: tuple[Buffer, ...]
    ) -> tuple[Stmt, ...]:
        keys, order = inputs
        (y,) = outputs

        def at(k: Expr) -> Expr:
            return scalar.cast(scalar.load(order, k), scalar.index(0).dtype)

        def one(axes: tuple[Expr, ...]) -> tuple[Stmt, ...]:
            (k,) = axes
            own, before = at(k), at(scalar.maximum(k - 1, 0))
            same = scalar.load(keys, own).equal(scalar.load(keys, before))
            repeated = (scalar.index(0) < k) & same
            return (
                If(
                    repeated,
                    (Store(y, (own,), scalar.load(y, before)),),
                    (Store(y, (own,), scalar.cast(own, int32)),),
                ),
            )

        return nest(keys.shape, "k", one)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for n in (7, 40, 1, 0):
            keys = rng.integers(0, 9, n).astype(np.int32)
            yield Sample((keys, np.argsort(keys, kind="stable").astype(np.int32)))

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 2), np.int32)
        yield (x, x[0]), ShapeError
        yield (x[0], x[0].astype(np.float32)), DTypeError


def first_of_equal(keys: Any) -> Any:
    """For every element the first position of its value. See FirstOfEqual."""
    return emit(FirstOfEqual(), keys, argsort(keys))


def sum_of_equal(values: Any, keys: Any) -> Any:
    """y[i] = sum of values[j] over the j with keys[j] = keys[i].    values: [n, b...], keys: [n]"""
    from tinyflow.ops.shape import shape as shape_of

    first = first_of_equal(keys)
    return gather(unsorted_segment_sum(values, first, shape_of(keys)[0]), first)
