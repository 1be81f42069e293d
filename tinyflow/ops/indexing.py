"""Ops that read or write at computed positions: gather, segment sum, one hot, tensor scatter.

Main types: ``GatherV2``, ``UnsortedSegmentSum``, ``TensorScatter``, ``OneHot``.
May import ops.base, like and movement. Writes at computed positions are no tensor expression; those
ops build their loop nest themselves (``lower_loops``), in the order of the indices (loop_nests).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tinyflow import te
from tinyflow.core.dtype import DType, as_dtype, float32
from tinyflow.core.error import DTypeError, InvalidArgumentError, ShapeError
from tinyflow.core.shape import merge_shapes, normalize_axis, show
from tinyflow.ir.loop.nodes import Buffer, Stmt
from tinyflow.ir.scalar import nodes as scalar
from tinyflow.ir.scalar.nodes import INDEX_OUT_OF_RANGE, Expr
from tinyflow.ops.base import Op, Sample, TensorType, Value, emit, emit_shaped
from tinyflow.ops.like import LikeOp
from tinyflow.ops.loop_nests import accumulate_rows
from tinyflow.ops.movement import add_last_axes, floats, transpose


def checked_position(index: Expr, extent: Any) -> Expr:
    """``index`` as int64, reported unless 0 <= index < extent; out of range it reads element 0."""
    position = te.as_index(index)
    limit = te.as_index(extent)
    inside = _is_inside(index, extent)
    safe = te.select(inside, position, te.index(0))
    return te.checked(safe, inside, position, limit, code=INDEX_OUT_OF_RANGE)


def _is_inside(index: Expr, extent: Any) -> Expr:
    position = te.as_index(index)
    return (te.index(0) <= position) & (position < te.as_index(extent))


def require_inside(indices: Any, extent: int, op: str) -> None:
    """The reference's check; kernels report the same through their status."""
    bad = (np.asarray(indices) < 0) | (np.asarray(indices) >= extent)
    if bad.any():
        got = int(np.asarray(indices)[bad].ravel()[0])
        raise InvalidArgumentError(
            f"{op}: index {got} is out of range", expected=f"0 <= index < {extent}"
        )


@dataclass(frozen=True)
class CheckedIndex(Op):
    """y = x, after making sure that 0 <= x < limit.

    x: integer[...]    y: same type    Errors: InvalidArgumentError at run time; DTypeError
    """

    limit: Any
    not_differentiable = "indices are integers"

    def infer(self, x: TensorType) -> TensorType:
        return x.require_integer()

    def reference(self, x: Any) -> Any:
        require_inside(x, self.limit, "index")  # type: ignore[arg-type]
        return x

    def compute(self, x: te.Tensor) -> te.Tensor:
        def element(*axes: Expr) -> Expr:
            return te.cast(checked_position(x[axes], self.limit), x.dtype)

        return te.compute(x.shape, element, "checked_index")

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, dtype in (((3, 4), np.int32), ((), np.int64), ((0,), np.int32)):
            yield Sample((rng.integers(0, 5, shape).astype(dtype),), CheckedIndex(5))

    def bad_samples(self) -> Iterable[Any]:
        yield Sample((np.zeros(3, np.float32),), CheckedIndex(5)), DTypeError


@dataclass(frozen=True)
class GatherV2(Op):
    """y[a, i, b] = params[a, indices[i], b]: slices of ``params`` along ``axis``.

    params: any[a..., n, b...]   indices: integer[i...]    y: dtype of params, [a..., i..., b...]
    Gradient: dparams[.., k, ..] = sum of dy[.., i, ..] over the i with indices[i] = k
    Errors: DTypeError, AxisError; InvalidArgumentError at run time for an index outside [0, n)
    """

    axis: int = 0
    onnx = "Gather"
    same_dtype = False

    def infer(self, params: TensorType, indices: TensorType) -> TensorType:
        indices.require_integer()
        if params.shape is None:
            return params
        if not params.shape:
            raise ShapeError("params is a scalar", expected="params of rank 1 or more")
        axis = normalize_axis(self.axis, len(params.shape))
        if indices.shape is None:
            return params.with_shape(None)
        return params.with_shape(
            params.shape[:axis] + indices.shape + params.shape[axis + 1 :]
        )

    def reference(self, params: Any, indices: Any) -> Any:
        require_inside(indices, np.shape(params)[self.axis], "GatherV2")
        return np.take(params, np.asarray(indices, np.int64), self.axis)

    def compute(self, params: te.Tensor, indices: te.Tensor) -> te.Tensor:
        axis = normalize_axis(self.axis, params.rank)
        end = axis + indices.rank
        shape = params.shape[:axis] + indices.shape + params.shape[axis + 1 :]
        extent = params.shape[axis]

        def element(*axes: Expr) -> Expr:
            position = checked_position(indices[axes[axis:end]], extent)
            if extent == 0:  # nothing to read: every index is reported
                return te.select(position < 0, te.const(0, params.dtype), 0)
            return params[(*axes[:axis], position, *axes[end:])]

        return te.compute(shape, element, "gather")

    def vjp(self, dy: Value, y: Value, params: Value, indices: Value) -> tuple[Any, ...]:
        return emit(GatherGrad(self.axis), dy, indices, params), None

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, positions, axis in (
            ((5, 3), (2, 4), 0), ((3, 7), (4,), 1), ((2, 5, 3), (), -2), ((4,), (6,), 0),
            ((3, 2), (0,), 0), ((1, 4), (3,), 0),
        ):  # fmt: skip
            indices = rng.integers(0, shape[axis], positions).astype(np.int32)
            yield Sample((floats(rng, *shape), indices), GatherV2(axis))
        yield Sample((np.arange(6, dtype=np.int32), np.array([5, 0, 5], np.int64)), GatherV2(0))

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((3, 2), np.float32)
        yield Sample((x, np.zeros(2, np.float32)), GatherV2(0)), DTypeError
        yield Sample((x, np.zeros(2, np.int32)), GatherV2(2)), ShapeError
        yield Sample((np.float32(1), np.zeros(2, np.int32)), GatherV2(0)), ShapeError


def gather(params: Any, indices: Any, axis: int = 0, name: str | None = None) -> Any:
    """Slices at computed positions along ``axis``. See GatherV2."""
    return emit(GatherV2(int(axis)), params, indices, name=name)


@dataclass(frozen=True)
class GatherGrad(LikeOp):
    """dparams of ``GatherV2``: zeros like params, with dy added at its indices.

    dy: number[a..., i..., b...]   indices: integer[i...]   params: read for its shape only
    Gradient: gather again     Errors: ShapeError, DTypeError
    """

    axis: int = 0

    def infer(self, dy: TensorType, indices: TensorType, params: TensorType) -> TensorType:  # type: ignore[override]
        dy.require_number()
        merge_shapes(GatherV2(self.axis).infer(params, indices).shape, dy.shape)
        return dy.with_shape(params.shape)

    def _layout(self, rank: int, index_rank: int) -> tuple[int, tuple[int, ...]]:
        """The axis, and the permutation that brings dy's index axes to the front."""
        axis = normalize_axis(self.axis, rank)
        moved = tuple(range(axis, axis + index_rank))
        wide = rank - 1 + index_rank
        return axis, moved + tuple(d for d in range(wide) if d not in moved)

    def reference(self, dy: Any, indices: Any, params: Any) -> Any:
        axis, perm = self._layout(np.ndim(params), np.ndim(indices))
        dx = np.zeros(np.shape(params), np.asarray(dy).dtype)
        np.add.at(np.moveaxis(dx, axis, 0), np.asarray(indices), np.transpose(dy, perm))
        return dx

    def decompose(self, dy: Value, indices: Value, params: Value) -> Value:  # type: ignore[override]
        shape: tuple[int, ...] = params.type.shape  # type: ignore[assignment]
        axis, perm = self._layout(len(shape), len(indices.type.shape))  # type: ignore[arg-type]
        moved = dy if perm == tuple(sorted(perm)) else transpose(dy, perm)
        summed = emit(UnsortedSegmentSum(shape[axis]), moved, indices)
        if axis == 0:
            return summed  # type: ignore[no-any-return]
        order = list(range(1, len(shape)))
        order.insert(axis, 0)
        return transpose(summed, order)  # type: ignore[no-any-return]

    def vjp(self, dz: Value, z: Value, dy: Value, indices: Value, params: Value) -> tuple[Any, ...]:  # type: ignore[override]
        return gather(dz, indices, self.axis), None, None

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, positions, axis in (
            ((5, 3), (2, 4), 0), ((3, 7), (4,), 1), ((2, 5, 3), (), -2), ((4,), (6,), 0),
            ((3, 2), (0,), 0),
        ):  # fmt: skip
            x = floats(rng, *shape)
            indices = rng.integers(0, shape[axis], positions).astype(np.int32)
            dy = np.asarray(np.take(x, indices, axis))
            yield Sample((dy, indices, x), GatherGrad(axis), scale=9.0)

    def bad_samples(self) -> Iterable[Any]:
        arrays = np.zeros((2, 3), np.float32), np.zeros(4, np.int32), np.zeros((5, 3), np.float32)
        yield Sample(arrays, GatherGrad(0)), ShapeError


def segment_loops(
    inputs: tuple[Buffer, ...], outputs: tuple[Buffer, ...], combine: Any, start: Any
) -> tuple[Stmt, ...]:
    """y[k] = start, then y[ids[i]] = combine(y[ids[i]], values[i]) for every id that is not < 0."""
    values, ids = inputs
    (y,) = outputs

    def segment(i: tuple[Expr, ...]) -> Expr:
        return te.as_index(scalar.load(ids, *i))

    return accumulate_rows(
        y, ids.shape,
        lambda i: [checked_position(segment(i), y.shape[0])],
        lambda at: scalar.const(start, y.dtype),
        lambda old, p, i, b: combine(old, scalar.load(values, *i, *b)),
        lambda i: te.index(0) <= segment(i),
    )  # fmt: skip


@dataclass(frozen=True)
class UnsortedSegmentSum(Op):
    """y[k, b] = sum of data[i, b] over the i with segment_ids[i] = k, in the order of i.

    values: number[i..., b...]    segment_ids: integer[i...], negative ones are left out
    y: dtype of values, [num_segments, b...]
    Gradient: dvalues[i, b] = dy[segment_ids[i], b], 0 for negative ids
    Errors: ShapeError, DTypeError; InvalidArgumentError at run time for an id >= num_segments
    """

    num_segments: Any
    same_dtype = False

    def infer(self, values: TensorType, segment_ids: TensorType) -> TensorType:
        values.require_number()
        segment_ids.require_integer()
        if type(self.num_segments) is int and self.num_segments < 0:
            raise ShapeError("num_segments is negative", expected="num_segments >= 0")
        if values.shape is None or segment_ids.shape is None:
            return values.with_shape(None)
        rank = len(segment_ids.shape)
        merge_shapes(values.shape[:rank], segment_ids.shape)
        return values.with_shape((self.num_segments, *values.shape[rank:]))

    def reference(self, values: Any, segment_ids: Any) -> Any:
        ids = np.asarray(segment_ids)
        kept = ids >= 0
        require_inside(ids[kept], self.num_segments, "UnsortedSegmentSum")  # type: ignore[arg-type]
        y = np.zeros((self.num_segments, *np.shape(values)[ids.ndim :]), np.asarray(values).dtype)
        np.add.at(y, ids[kept], np.asarray(values)[kept])
        return y

    def lower_loops(
        self, inputs: tuple[Buffer, ...], outputs: tuple[Buffer, ...]
    ) -> tuple[Stmt, ...]:
        return segment_loops(inputs, outputs, _COMBINE["add"][1], 0)

    def vjp(self, dz: Value, z: Value, values: Value, segment_ids: Value) -> tuple[Any, ...]:
        from tinyflow.ops.comparison import greater_equal
        from tinyflow.ops.elementwise import maximum
        from tinyflow.ops.logical import select

        taken = gather(dz, maximum(segment_ids, 0))
        kept = greater_equal(segment_ids, 0)
        kept = add_last_axes(kept, (taken.type.rank or 0) - (kept.type.rank or 0))
        return select(kept, taken, 0), None

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for values, ids, count in (
            ((6, 3), (6,), 4), ((2, 3, 5), (2, 3), 7), ((5,), (5,), 2), ((0, 2), (0,), 3),
        ):  # fmt: skip
            positions = rng.integers(-1, count, ids).astype(np.int32)
            yield Sample((floats(rng, *values), positions), UnsortedSegmentSum(count), scale=9.0)
        whole = rng.integers(-9, 9, (4, 2)).astype(np.int32), np.array([1, 0, 1, 1], np.int64)
        yield Sample(whole, UnsortedSegmentSum(2))

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((3, 2), np.float32)
        yield Sample((x, np.zeros(4, np.int32)), UnsortedSegmentSum(2)), ShapeError
        yield Sample((x, np.zeros(3, np.float32)), UnsortedSegmentSum(2)), DTypeError
        yield Sample((x > 0, np.zeros(3, np.int32)), UnsortedSegmentSum(2)), DTypeError


def unsorted_segment_sum(
    data: Any, segment_ids: Any, num_segments: Any, name: str | None = None
) -> Any:
    """Sums by segment. See UnsortedSegmentSum."""
    return emit_shaped(
        UnsortedSegmentSum(0), "num_segments", num_segments, data, segment_ids, node_name=name
    )


#: how TensorScatter combines an old element with an update: NumPy's function, scalar expression
_COMBINE: dict[str, tuple[Any, Any]] = {
    "update": (None, lambda old, new: new),
    "add": (np.add, lambda old, new: old + new),
    "sub": (np.subtract, lambda old, new: old - new),
    "mul": (np.multiply, lambda old, new: old * new),
    "div": (np.divide, lambda old, new: old / new),
    "min": (np.minimum, scalar.minimum),
    "max": (np.maximum, scalar.maximum),
}


@dataclass(frozen=True)
class TensorScatter(Op):
    """y = tensor, then y[indices[i]] = combine(y[indices[i]], updates[i]) for every i in order.

    tensor: any[n, b...]   indices: integer[i...]   updates: dtype of tensor, [i..., b...]
    kind: update, add, sub, mul, div (floats), min or max      y: type of tensor
    Gradient (update, add, sub): of tensor dy (update: 0 at the indices), of updates +-dy[indices];
    where several updates meet, "update" gives the gradient to all of them
    Errors: ShapeError, DTypeError; InvalidArgumentError at run time for an index outside [0, n)
    """

    kind: str = "update"
    same_dtype = False
    #: the result starts as this input: a copy, or its memory where nothing else needs it later
    starts_from: ClassVar[int] = 0
    kinds: ClassVar[tuple[str, ...]] = tuple(_COMBINE)

    def infer(self, tensor: TensorType, indices: TensorType, updates: TensorType) -> TensorType:
        indices.require_integer()
        if self.kind not in _COMBINE:
            raise InvalidArgumentError(f"unknown kind {self.kind!r}", choices=self.kinds)
        if updates.dtype is not tensor.dtype:
            raise DTypeError(f"updates are {updates.dtype}, the tensor is {tensor.dtype}")
        if self.kind == "div":
            tensor.require_float()
        elif self.kind != "update":
            tensor.require_number()
        if tensor.shape is None or indices.shape is None:
            return tensor
        if not tensor.shape:
            raise ShapeError("the tensor is a scalar", expected="rank 1 or more")
        wanted = indices.shape + tensor.shape[1:]
        try:
            merge_shapes(updates.shape, wanted)
        except ShapeError as error:
            error.expected = f"updates of shape indices.shape + tensor.shape[1:] = {show(wanted)}"
            raise
        return tensor

    def reference(self, tensor: Any, indices: Any, updates: Any) -> Any:
        require_inside(indices, np.shape(tensor)[0], "TensorScatter")
        y = np.array(tensor)
        function = _COMBINE[self.kind][0]
        if function is None:
            rows = np.reshape(updates, (np.size(indices), *y.shape[1:]))
            for position, row in zip(np.ravel(indices), rows, strict=True):
                y[position] = row
        else:
            function.at(y, np.asarray(indices), updates)
        return y

    def lower_loops(
        self, inputs: tuple[Buffer, ...], outputs: tuple[Buffer, ...]
    ) -> tuple[Stmt, ...]:
        _, indices, updates = inputs
        (y,) = outputs
        combine = _COMBINE[self.kind][1]
        return accumulate_rows(
            y, indices.shape,
            lambda i: [checked_position(scalar.load(indices, *i), y.shape[0])],
            None,  # the plan has put the tensor there
            lambda old, p, i, b: combine(old, scalar.load(updates, *i, *b)),
            # The memory may be a variable's: a wrong index must not change its first row.
            inside=lambda i: _is_inside(scalar.load(indices, *i), y.shape[0]),
        )  # fmt: skip

    def vjp(
        self, dy: Value, y: Value, tensor: Value, indices: Value, updates: Value
    ) -> tuple[Any, ...]:
        from tinyflow.ops.creation import zeros_like
        from tinyflow.ops.elementwise import negative

        if self.kind not in ("update", "add", "sub"):
            return None, None, None
        taken = gather(dy, indices)
        if self.kind == "update":
            cleared = emit(TensorScatter("update"), dy, indices, zeros_like(updates))
            return cleared, None, taken
        return dy, None, negative(taken) if self.kind == "sub" else taken

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for kind in _COMBINE:
            smooth = kind in ("update", "add", "sub")
            for shape, count in (((5, 3), 3), ((6,), 2)):
                indices = rng.permutation(shape[0])[:count].astype(np.int32)
                updates = rng.uniform(0.5, 2.0, (count, *shape[1:])).astype(np.float32)
                yield Sample(
                    (floats(rng, *shape), indices, updates), TensorScatter(kind),
                    check_gradient=smooth, scale=3.0,
                )  # fmt: skip
        again = np.array([[1, 0], [1, 1]], np.int64)
        yield Sample((np.zeros((2, 3), np.int32), again, rng.integers(0, 9, (2, 2, 3), np.int32)),
                     TensorScatter("add"))  # fmt: skip
        yield Sample((floats(rng, 2, 3), again, floats(rng, 2, 2, 3)), check_gradient=False)
        yield Sample((floats(rng, 3, 0), again[0], floats(rng, 2, 0)), TensorScatter("sub"))

    def bad_samples(self) -> Iterable[Any]:
        x, rows = np.zeros((3, 2), np.float32), np.zeros(2, np.int32)
        yield Sample((x, rows, np.zeros((2, 3), np.float32))), ShapeError
        yield Sample((x, rows, np.zeros((2, 2), np.float64))), DTypeError
        yield Sample((x, rows.astype(np.float32), x[:2])), DTypeError
        whole = x.astype(np.int32)
        yield Sample((whole, rows, whole[:2]), TensorScatter("div")), DTypeError


@dataclass(frozen=True)
class OneHot(Op):
    """y[..., k, ...] = on_value where indices[...] = k, else off_value; the new axis is ``axis``.

    indices: integer[...]   depth: extent of the new axis   axis: its place, -1 for the last
    y: ``dtype``      An index outside [0, depth) gives a row of off_value.
    Errors: DTypeError for other indices, ShapeError for a negative depth, AxisError
    """

    depth: Any
    axis: int = -1
    dtype: DType = float32
    on_value: float | int | bool = 1
    off_value: float | int | bool = 0
    onnx = "OneHot"
    not_differentiable = "the indices are integers"

    def infer(self, indices: TensorType) -> TensorType:
        indices.require_integer()
        if type(self.depth) is not int and isinstance(self.depth, tuple):
            raise ShapeError("depth is not a scalar", expected="one number")
        if type(self.depth) is int and self.depth < 0:
            raise ShapeError(f"depth {self.depth} is negative", expected="depth >= 0")
        shape = indices.shape
        if shape is None:
            return TensorType(self.dtype, None)
        at = normalize_axis(self.axis, len(shape) + 1)
        return TensorType(self.dtype, (*shape[:at], self.depth, *shape[at:]))

    def reference(self, indices: Any) -> Any:
        hit = np.expand_dims(indices, self.axis)
        at = self.axis % hit.ndim
        numbers = np.arange(self.depth).reshape([-1] + [1] * (hit.ndim - 1 - at))
        return np.where(hit == numbers, self.on_value, self.off_value).astype(self.dtype.numpy)

    def compute(self, indices: te.Tensor) -> te.Tensor:
        at = normalize_axis(self.axis, indices.rank + 1)
        shape = (*indices.shape[:at], self.depth, *indices.shape[at:])
        on, off = te.const(self.on_value, self.dtype), te.const(self.off_value, self.dtype)

        def element(*axes: Expr) -> Expr:
            index = te.as_index(indices[axes[:at] + axes[at + 1 :]])
            return te.select(index.equal(axes[at]), on, off)

        return te.compute(shape, element, "one_hot")

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, op in (
            ((4,), OneHot(5)), ((2, 3), OneHot(4, 0)), ((), OneHot(3)), ((0,), OneHot(2)),
            ((3,), OneHot(4, 1, as_dtype("int32"), 7, -1)), ((5, 1), OneHot(3, 1)),
            ((4,), OneHot(3, -1, as_dtype("bool"), True, False)), ((4,), OneHot(0)),
        ):  # fmt: skip
            yield Sample((rng.integers(-1, 6, shape).astype(np.int32),), op)

    def bad_samples(self) -> Iterable[Any]:
        yield Sample((np.zeros(3, np.float32),), OneHot(2)), DTypeError
        yield Sample((np.zeros(3, np.int32),), OneHot(-2)), ShapeError
        yield Sample((np.zeros(3, np.int32),), OneHot(2, 3)), ShapeError


def one_hot(
    indices: Any, depth: Any, on_value: Any = None, off_value: Any = None, axis: Any = None,
    dtype: Any = None, name: str | None = "one_hot",
) -> Any:  # fmt: skip
    """Rows with one element set. dtype: that of on_value or off_value, else float32. See OneHot."""
    from tinyflow.ops.logical import select

    place = -1 if axis is None else int(axis)
    levels = [v for v in (on_value, off_value) if v is not None]
    if any(isinstance(v, Value) for v in levels):
        hit = emit_shaped(
            OneHot(0, place, as_dtype("bool"), True, False), "depth", depth, indices
        )
        off = off_value if off_value is not None else 0
        return select(hit, on_value if on_value is not None else 1, off, name=name)
    if dtype is None:
        dtype = np.result_type(*levels) if levels else float32
        if levels and all(type(v) in (int, float) for v in levels):
            dtype = float32 if any(type(v) is float for v in levels) else as_dtype("int32")
    on = 1 if on_value is None else np.asarray(on_value).item()
    off = 0 if off_value is None else np.asarray(off_value).item()
    op = OneHot(0, place, as_dtype(dtype), on, off)
    return emit_shaped(op, "depth", depth, indices, node_name=name)


__all__ = [
    "GatherGrad", "GatherV2", "OneHot", "TensorScatter", "UnsortedSegmentSum", "gather", "one_hot",
    "unsorted_segment_sum",
]  # fmt: skip
