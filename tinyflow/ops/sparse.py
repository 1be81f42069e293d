"""Products with sparse matrices given as lists of entries.

Main types: ``SparseTensorDenseMatMul``. May import ops.base, indexing, like and loop_nests.
Shapes: a: [m, k] with entries indices [e, 2] and values [e]; b: [k, n]; y: [m, n].
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow.core.error import DTypeError, ShapeError
from tinyflow.core.shape import merge_shapes
from tinyflow.ir.loop.nodes import Buffer, Stmt
from tinyflow.ir.scalar import nodes as scalar
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ops.base import Op, Sample, TensorType, Value, emit, emit_shaped, floats
from tinyflow.ops.elementwise import multiply
from tinyflow.ops.indexing import checked_position, gather, require_inside
from tinyflow.ops.like import LikeOp
from tinyflow.ops.loop_nests import accumulate_rows
from tinyflow.ops.movement import transpose
from tinyflow.ops.reduction import reduce_sum

__all__ = ["SparseProductGrad", "SparseTensorDenseMatMul", "sparse_dense_matmul"]


def _check_entries(indices: TensorType, values: TensorType, b: TensorType) -> None:
    indices.require_integer().require_rank(2)
    values.require_number().require_rank(1)
    b.require_rank(2)
    if values.dtype is not b.dtype:
        raise DTypeError(
            f"the values are {values.dtype}, the dense matrix is {b.dtype}",
            expected="one dtype", hint=f"convert one of them with tf.cast(..., tf.{b.dtype})",
        )  # fmt: skip
    if indices.shape is not None and values.shape is not None:
        merge_shapes(indices.shape, (values.shape[0], 2))


@dataclass(frozen=True)
class SparseTensorDenseMatMul(Op):
    """y[i, :] = sum over the entries (i, j, v) of v * b[j, :], in the order of the entries.

    indices: integer[e, 2], each row (i, j)    values: number[e]    b: dtype of values, [k, n]
    num_rows: rows of y    transposed: the entries are read as (j, i), the product with a transposed
    y: dtype of values, [num_rows, n]; every element is one chain of fused multiply-adds
    Gradient: db = a^T dy; dvalues[e] = dy[i] . b[j]
    Errors: ShapeError, DTypeError; InvalidArgumentError at run time for an index out of range
    Complexity: 2 e n operations; columns are vectorised and shared by threads, entries are not
    """

    num_rows: Any = 0
    transposed: bool = False
    same_dtype = False

    def infer(self, indices: TensorType, values: TensorType, b: TensorType) -> TensorType:
        _check_entries(indices, values, b)
        return b if b.shape is None else b.with_shape((self.num_rows, b.shape[1]))

    def _sides(self) -> tuple[int, int]:
        """Which column of the indices is the row of y, and which the row of b."""
        return (1, 0) if self.transposed else (0, 1)

    def reference(self, indices: Any, values: Any, b: Any) -> Any:
        to, source = (np.asarray(indices)[:, c] for c in self._sides())
        require_inside(to, self.num_rows, self.type_name)
        require_inside(source, np.shape(b)[0], self.type_name)
        y = np.zeros((self.num_rows, np.shape(b)[1]), np.asarray(b).dtype)
        np.add.at(y, to, np.asarray(values)[:, None] * np.asarray(b)[source])
        return y

    def lower_loops(
        self, inputs: tuple[Buffer, ...], outputs: tuple[Buffer, ...]
    ) -> tuple[Stmt, ...]:
        indices, values, b = inputs
        (y,) = outputs
        to, source = self._sides()

        def positions(i: tuple[Expr, ...]) -> list[Expr]:
            return [
                checked_position(scalar.load(indices, *i, to), y.shape[0]),
                checked_position(scalar.load(indices, *i, source), b.shape[0]),
                scalar.load(values, *i),
            ]

        def combine(
            old: Expr, p: tuple[Expr, ...], i: tuple[Expr, ...], column: tuple[Expr, ...]
        ) -> Expr:
            factor = scalar.load(b, p[1], *column)
            return scalar.fma(p[2], factor, old) if old.dtype.kind == "float" else (
                old + p[2] * factor
            )

        count = values.shape if b.shape[0] != 0 else (0,)
        zero = scalar.const(0, y.dtype)
        return accumulate_rows(y, count, positions, lambda at: zero, combine)  # type: ignore[arg-type]

    def vjp(
        self, dy: Value, y: Value, indices: Value, values: Value, b: Value
    ) -> tuple[Any, ...]:
        db = emit(SparseProductGrad(self.transposed), dy, indices, values, b)
        to, source = self._sides()
        dots = multiply(gather(dy, indices[:, to]), gather(b, indices[:, source]))  # type: ignore[index]
        return None, reduce_sum(dots, 1), db

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for m, k, n, entries in (
            (5, 4, 3, 9), (4, 7, 16, 6), (3, 2, 37, 5), (6, 5, 1, 4), (3, 4, 2, 0), (2, 3, 0, 3),
        ):  # fmt: skip
            for adjoint in (False, True):
                indices = np.stack([rng.integers(0, m, entries), rng.integers(0, k, entries)], 1)
                b = floats(rng, m if adjoint else k, n)
                op = SparseTensorDenseMatMul(k if adjoint else m, adjoint)
                yield Sample((indices, floats(rng, entries), b), op, ulp=9.0, scale=9.0)
        whole = np.array([[0, 1], [1, 0], [0, 1]]), np.array([2, 3, 4], np.int32)
        yield Sample((*whole, np.arange(6, dtype=np.int32).reshape(2, 3)),
                     SparseTensorDenseMatMul(2))  # fmt: skip

    def bad_samples(self) -> Iterable[Any]:
        indices, b = np.zeros((4, 2), np.int64), np.zeros((3, 2), np.float32)
        v = np.zeros(4, np.float32)
        yield Sample((indices, v[:3], b), SparseTensorDenseMatMul(2)), ShapeError
        yield Sample((indices, v.astype(np.float64), b), SparseTensorDenseMatMul(2)), DTypeError
        yield Sample((indices.astype(np.float32), v, b), SparseTensorDenseMatMul(2)), DTypeError
        yield Sample((indices, v, v), SparseTensorDenseMatMul(2)), ShapeError


@dataclass(frozen=True)
class SparseProductGrad(LikeOp):
    """db of ``SparseTensorDenseMatMul``: the transposed product with dy, of the shape of b.

    dy: [m, n]    indices: integer[e, 2]    values: [e]    b: read for its shape only
    Gradient: the product itself again    Errors: ShapeError, DTypeError
    """

    transposed: bool = False

    def infer(  # type: ignore[override]
        self, dy: TensorType, indices: TensorType, values: TensorType, b: TensorType
    ) -> TensorType:
        _check_entries(indices, values, dy)
        if dy.shape is not None and b.shape is not None:
            merge_shapes(dy.shape[1:], b.shape[1:])
        return dy.with_shape(b.shape)

    def _product(self, rows: Any) -> SparseTensorDenseMatMul:
        return SparseTensorDenseMatMul(rows, not self.transposed)

    def reference(self, dy: Any, indices: Any, values: Any, b: Any) -> Any:
        return self._product(np.shape(b)[0]).reference(indices, values, dy)

    def decompose(self, dy: Value, indices: Value, values: Value, b: Value) -> Value:  # type: ignore[override]
        return emit(self._product(b.type.shape[0]), indices, values, dy)  # type: ignore[index,no-any-return]

    def vjp(  # type: ignore[override]
        self, dz: Value, z: Value, dy: Value, indices: Value, values: Value, b: Value
    ) -> tuple[Any, ...]:
        _, dvalues, _ = self._product(0).vjp(dz, z, indices, values, dy)
        ddy = emit(SparseProductGrad(not self.transposed), dz, indices, values, dy)
        return ddy, None, dvalues, None

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for adjoint in (False, True):
            m, k, n, entries = 5, 4, 3, 9
            indices = np.stack([rng.integers(0, m, entries), rng.integers(0, k, entries)], 1)
            dy, b = floats(rng, k if adjoint else m, n), floats(rng, m if adjoint else k, n)
            arrays = dy, indices, floats(rng, entries), b
            yield Sample(arrays, SparseProductGrad(adjoint), ulp=9.0, scale=9.0)

    def bad_samples(self) -> Iterable[Any]:
        indices, b = np.zeros((4, 2), np.int64), np.zeros((3, 2), np.float32)
        yield Sample((b[:, :1], indices, np.zeros(4, np.float32), b)), ShapeError


def sparse_dense_matmul(
    indices: Any, values: Any, num_rows: Any, b: Any, adjoint_a: bool = False,
    adjoint_b: bool = False, name: str | None = "SparseTensorDenseMatMul",
) -> Any:  # fmt: skip
    """a @ b for a sparse a of ``num_rows`` rows (columns if adjoint_a). See the op."""
    if adjoint_b:
        b = transpose(b, (1, 0))
    op = SparseTensorDenseMatMul(0, bool(adjoint_a))
    return emit_shaped(op, "num_rows", num_rows, indices, values, b, node_name=name)
