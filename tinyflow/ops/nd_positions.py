"""Gather and scatter by tuples of positions.

Main types: ``GatherNd``, ``ScatterNd``. May import ops.base, indexing, like and movement.
Shapes: params: [n_0 ... n_q-1, b...]; indices: integer[i..., q]; slices: [i..., b...].
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow import te
from tinyflow.core.error import DTypeError, ShapeError
from tinyflow.core.shape import merge_shapes
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ops.base import Extents, Op, Sample, TensorType, Value, emit, emit_shaped, floats
from tinyflow.ops.indexing import UnsortedSegmentSum, checked_position, require_inside
from tinyflow.ops.like import LikeOp
from tinyflow.ops.movement import reshape

__all__ = ["GatherNd", "GatherNdGrad", "ScatterNd", "gather_nd", "scatter_nd"]


def _slices(params: Any, indices: TensorType) -> Any:
    """The shape of the slices, None when it is not known. Errors: ShapeError, DTypeError"""
    indices.require_integer().require_rank(1, at_least=True)
    if params is None or indices.shape is None or type(indices.shape[-1]) is not int:
        return None
    depth = indices.shape[-1]
    if not 1 <= depth <= len(params):
        raise ShapeError(
            f"the last axis of indices has {depth} elements",
            expected=f"1 to {len(params)}, at most the rank of params",
        )
    return (*indices.shape[:-1], *params[depth:])


def _tuples(indices: Any, shape: Any, op: str) -> tuple[Any, ...]:
    """The reference's index arrays, checked."""
    parts = tuple(np.moveaxis(np.asarray(indices, np.int64), -1, 0))
    for part, extent in zip(parts, shape, strict=False):
        require_inside(part, extent, op)
    return parts


@dataclass(frozen=True)
class GatherNd(Op):
    """y[i, b] = params[indices[i, 0], ..., indices[i, q-1], b].

    params: any[n_0 ... n_q-1, b...]   indices: integer[i..., q]   y: dtype of params, [i..., b...]
    Gradient: dparams = zeros with dy added at the indices
    Errors: ShapeError, DTypeError; InvalidArgumentError at run time for an index out of range
    """

    onnx = "GatherND"
    same_dtype = False

    def infer(self, params: TensorType, indices: TensorType) -> TensorType:
        return params.with_shape(_slices(params.shape, indices))

    def reference(self, params: Any, indices: Any) -> Any:
        return np.asarray(params)[_tuples(indices, np.shape(params), "GatherNd")]

    def compute(self, params: te.Tensor, indices: te.Tensor) -> te.Tensor:
        lead, depth = indices.rank - 1, int(indices.shape[-1])  # type: ignore[arg-type]
        shape = indices.shape[:-1] + params.shape[depth:]

        def element(*axes: Expr) -> Expr:
            at = [
                checked_position(indices[(*axes[:lead], te.index(d))], params.shape[d])
                for d in range(depth)
            ]
            return params[(*at, *axes[lead:])]

        return te.compute(shape, element, "gather_nd")

    def vjp(self, dy: Value, y: Value, params: Value, indices: Value) -> tuple[Any, ...]:
        return emit(GatherNdGrad(), dy, indices, params), None

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, lead, depth in (
            ((4, 3), (5,), 1), ((4, 3), (2, 3), 2), ((2, 3, 5), (4,), 2), ((6,), (), 1),
            ((2, 3), (0,), 2),
        ):  # fmt: skip
            columns = [rng.integers(0, n, lead) for n in shape[:depth]]
            indices = np.stack(columns, -1).astype(np.int32).reshape(*lead, depth)
            yield Sample((floats(rng, *shape), indices))

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((3, 2), np.float32)
        yield (x, x), DTypeError
        yield (x, np.zeros((4, 3), np.int32)), ShapeError


def _scattered(values: Value, indices: Value, shape: tuple[int, ...]) -> Value:
    """Zeros of ``shape`` with the slices added: one segment per tuple of positions."""
    depth: int = indices.type.shape[-1]  # type: ignore[index,assignment]
    position: Any = None
    for d in range(depth):
        column = indices[..., d]  # type: ignore[index]
        position = column if position is None else position * shape[d] + column
    segments = int(np.prod(shape[:depth]))
    summed = emit(UnsortedSegmentSum(segments), values, position)
    return reshape(summed, shape)  # type: ignore[no-any-return]


def _added(values: Any, indices: Any, shape: Any, op: str) -> Any:
    y = np.zeros(shape, np.asarray(values).dtype)
    np.add.at(y, _tuples(indices, shape, op), values)
    return y


@dataclass(frozen=True)
class GatherNdGrad(LikeOp):
    """dparams of ``GatherNd``: zeros like params, with dy added at its indices.

    dy: number[i..., b...]    indices: integer[i..., q]    params: read for its shape only
    Gradient: GatherNd again    Errors: ShapeError, DTypeError
    """

    def infer(self, dy: TensorType, indices: TensorType, params: TensorType) -> TensorType:  # type: ignore[override]
        dy.require_number()
        merge_shapes(_slices(params.shape, indices), dy.shape)
        return dy.with_shape(params.shape)

    def reference(self, dy: Any, indices: Any, params: Any) -> Any:
        return _added(dy, indices, np.shape(params), "GatherNdGrad")

    def decompose(self, dy: Value, indices: Value, params: Value) -> Value:  # type: ignore[override]
        return _scattered(dy, indices, params.type.shape)  # type: ignore[arg-type]

    def vjp(self, dz: Value, z: Value, dy: Value, indices: Value, params: Value) -> tuple[Any, ...]:  # type: ignore[override]
        return gather_nd(dz, indices), None, None

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for params, indices in _index_samples(rng):
            dy = floats(rng, *indices.shape[:-1], *params.shape[indices.shape[-1] :])
            yield Sample((dy, indices, params), scale=9.0)

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((3, 2), np.float32)
        yield (x, np.zeros((4, 1), np.int32), x), ShapeError


def _index_samples(rng: np.random.Generator) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    for shape, lead, depth in (((4, 3), (5,), 1), ((4, 3), (2, 3), 2), ((2, 3, 5), (4,), 2)):
        columns = [rng.integers(0, n, lead) for n in shape[:depth]]
        yield floats(rng, *shape), np.stack(columns, -1).astype(np.int32)


@dataclass(frozen=True)
class ScatterNd(Op):
    """y = zeros of ``shape``, then y[indices[i, :], b] += updates[i, b] for every i in order.

    indices: integer[i..., q]    updates: number[i..., b...]    y: dtype of updates, ``shape``
    Gradient: dupdates = dy gathered at the indices
    Errors: ShapeError, DTypeError; InvalidArgumentError at run time for an index out of range
    """

    shape: Extents
    onnx = "ScatterND"
    same_dtype = False

    def infer(self, indices: TensorType, updates: TensorType) -> TensorType:
        updates.require_number()
        wanted = _slices(self.shape, indices)
        try:
            merge_shapes(wanted, updates.shape)
        except ShapeError as error:
            error.expected = f"updates of shape {list(wanted)}"
            raise
        return updates.with_shape(self.shape)

    def reference(self, indices: Any, updates: Any) -> Any:
        return _added(updates, indices, self.shape, "ScatterNd")

    def decompose(self, indices: Value, updates: Value) -> Value:
        checked = emit(CheckedTuples(self.shape), indices)
        return _scattered(updates, checked, self.shape)

    def vjp(self, dy: Value, y: Value, indices: Value, updates: Value) -> tuple[Any, ...]:
        return None, gather_nd(dy, indices)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for params, indices in _index_samples(rng):
            dy = floats(rng, *indices.shape[:-1], *params.shape[indices.shape[-1] :])
            yield Sample((indices, dy), ScatterNd(params.shape), scale=9.0)

    def bad_samples(self) -> Iterable[Any]:
        rows = np.zeros((4, 1), np.int32)
        yield Sample((rows, np.zeros((4, 3), np.float32)), ScatterNd((5, 2))), ShapeError
        yield Sample((rows.astype(np.float32), np.zeros((4, 2), np.float32)),
                     ScatterNd((5, 2))), DTypeError  # fmt: skip


@dataclass(frozen=True)
class CheckedTuples(Op):
    """y = x, after making sure that 0 <= x[..., d] < shape[d] for every d.

    x: integer[i..., q]    y: same type    Errors: InvalidArgumentError at run time; DTypeError
    """

    shape: Extents
    not_differentiable = "indices are integers"

    def infer(self, x: TensorType) -> TensorType:
        return x.require_integer()

    def reference(self, x: Any) -> Any:
        _tuples(x, self.shape, "ScatterNd")
        return x

    def compute(self, x: te.Tensor) -> te.Tensor:
        def element(*axes: Expr) -> Expr:
            limit = te.index(self.shape[-1])
            for d in range(int(x.shape[-1]) - 1, -1, -1):  # type: ignore[arg-type]
                limit = te.select(axes[-1].equal(te.index(d)), te.index(self.shape[d]), limit)
            return te.cast(checked_position(x[axes], limit), x.dtype)

        return te.compute(x.shape, element, "checked_tuples")

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        yield Sample((rng.integers(0, 3, (4, 2)).astype(np.int32),), CheckedTuples((3, 5)))

    def bad_samples(self) -> Iterable[Any]:
        yield Sample((np.zeros((3, 1), np.float32),), CheckedTuples((5,))), DTypeError


def gather_nd(params: Any, indices: Any, name: str | None = None) -> Any:
    """Slices at tuples of positions. See GatherNd."""
    return emit(GatherNd(), params, indices, name=name)


def scatter_nd(indices: Any, updates: Any, shape: Any, name: str | None = None) -> Any:
    """Slices added into zeros. See ScatterNd."""
    return emit_shaped(ScatterNd(()), "shape", shape, indices, updates, node_name=name)
