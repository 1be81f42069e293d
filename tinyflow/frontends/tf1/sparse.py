"""Sparse tensors as lists of entries, and the functions that take or give them.

Main types: ``SparseTensor``, ``SparseTensorValue``. May import core, ops, convert.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tinyflow.core.dtype import int64
from tinyflow.core.error import InvalidArgumentError, ShapeError
from tinyflow.frontends.tf1.array_functions import cast, placeholder
from tinyflow.frontends.tf1.convert import convert_to_tensor, graph_of, scoped, tensor
from tinyflow.frontends.tf1.tensor_shape import TensorShape
from tinyflow.ir.graph.nodes import Value
from tinyflow.ops import counted, indexing, reduction, segment, sparse
from tinyflow.ops.creation import constant_value, fill
from tinyflow.ops.indexing import gather
from tinyflow.ops.movement import reshape
from tinyflow.ops.nd_positions import gather_nd

__all__ = [
    "SparseTensor", "SparseTensorValue", "sparse_placeholder", "sparse_reduce_sum",
    "sparse_retain", "sparse_tensor_dense_matmul", "sparse_tensor_to_dense", "sparse_to_dense",
    "sparse_transpose",
]  # fmt: skip


class SparseTensorValue(NamedTuple):
    """A sparse tensor as arrays: what is fed for one and what fetching one gives."""

    indices: Any
    values: Any
    dense_shape: Any


class SparseTensor:
    """t[indices[e]] = values[e] for every entry e, 0 elsewhere.

    indices: int64[entries, rank], best in row-major order    values: any[entries]
    dense_shape: int64[rank]        Errors: ShapeError, DTypeError
    """

    def __init__(self, indices: Any, values: Any, dense_shape: Any) -> None:
        graph = graph_of(indices, values, dense_shape)
        with graph.as_default(), graph.name_scope("SparseTensor"):
            self.indices = convert_to_tensor(indices, int64, "indices")
            self.values = tensor(values, "values")
            if isinstance(dense_shape, TensorShape):
                dense_shape = dense_shape.as_list()
            self.dense_shape = convert_to_tensor(dense_shape, int64, "dense_shape")
        for part, rank in ((self.indices, 2), (self.values, 1), (self.dense_shape, 1)):
            part.type.require_rank(rank)

    @classmethod
    def from_value(cls, value: Any) -> SparseTensor:
        """Of a SparseTensorValue, a triple or a sparse tensor."""
        return value if isinstance(value, SparseTensor) else cls(*value)

    @property
    def shape(self) -> TensorShape:
        known = constant_value(self.dense_shape)
        if known is not None:
            return TensorShape([int(d) for d in known])
        rank = self.dense_shape.type.shape[0]
        return TensorShape([None] * rank if type(rank) is int else None)

    def get_shape(self) -> TensorShape:
        return self.shape

    @property
    def dtype(self) -> Any:
        return self.values.dtype

    @property
    def graph(self) -> Any:
        return self.values.graph

    @property
    def op(self) -> Any:
        return self.values.op

    @property
    def name(self) -> str:
        return self.values.name  # type: ignore[no-any-return]

    def eval(self, feed_dict: Any = None, session: Any = None) -> Any:
        from tinyflow.frontends.tf1.elements import _session_for

        return _session_for(self.graph, session, "eval").run(self, feed_dict)

    def with_values(self, values: Any) -> SparseTensor:
        """The same places with other values."""
        return SparseTensor(self.indices, values, self.dense_shape)

    def extents(self, rank: int | None = None) -> list[Any]:
        """The dense shape as extents that ops take: numbers where the graph knows them.

        rank: for a tensor that does not know it. Errors: ShapeError when nobody does
        """
        known = constant_value(self.dense_shape)
        if known is not None:
            return [int(d) for d in known]
        for own in (self.dense_shape.type.shape[0], self.indices.type.shape[1]):
            rank = own if type(own) is int else rank
        if rank is None:
            raise ShapeError(f"the rank of {self} is unknown",
                             hint="tf.sparse_placeholder(dtype, shape=[None, None])")  # fmt: skip
        return [counted.extent_of(self.dense_shape[d]) for d in range(rank)]

    def __mul__(self, other: Any) -> SparseTensor:
        return self.with_values(self.values * self._at_entries(other))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> SparseTensor:
        return self.with_values(self.values / self._at_entries(other))

    def _at_entries(self, other: Any) -> Any:
        """A dense operand at the places of the entries; stretched axes are not supported."""
        dense = other if isinstance(other, Value) else convert_to_tensor(other, self.dtype)
        if dense.type.rank == 0:
            return dense
        if dense.type.rank != self.indices.type.shape[1]:
            raise ShapeError(
                "a sparse tensor is multiplied by a number or by a dense tensor of its shape",
                received={"dense": dense.type}, expected="equal ranks",
            )  # fmt: skip
        return gather_nd(dense, self.indices)

    def __repr__(self) -> str:
        return (
            f"SparseTensor(indices={self.indices}, values={self.values}, "
            f"dense_shape={self.dense_shape})"
        )

    # What a fetch of it runs and returns, and what a feed of it sets.
    @property
    def fetched(self) -> list[Any]:
        return [self.indices, self.values, self.dense_shape]

    def finish(self, results: list[Any]) -> SparseTensorValue:
        return SparseTensorValue(*results)

    def feed_parts(self, value: Any) -> tuple[list[Any], list[Any]]:
        """Keys and values of a feed. Errors: InvalidArgumentError for what is no sparse value."""
        if hasattr(value, "tocoo"):  # a SciPy matrix
            entries = value.tocoo()
            value = np.stack([entries.row, entries.col], 1), entries.data, entries.shape
        if not isinstance(value, (tuple, list)) or len(value) != 3:
            raise InvalidArgumentError(
                f"the value fed for {self} is {type(value).__name__}",
                expected="tf.SparseTensorValue(indices, values, dense_shape)",
            )
        return list(self.fetched), list(value)


def sparse_placeholder(dtype: Any, shape: Any = None, name: str | None = None) -> SparseTensor:
    """A sparse tensor that every run feeds with a SparseTensorValue."""
    label = name or "Placeholder"
    rank = None if shape is None else len(TensorShape(shape).as_list())
    static = None if shape is None else TensorShape(shape).as_list()
    if static is not None and None not in static:
        dense_shape = convert_to_tensor(np.array(static, np.int64), name=f"{label}/shape")
    else:
        dense_shape = placeholder(int64, [rank], f"{label}/shape")
    return SparseTensor(
        placeholder(int64, [None, rank], f"{label}/indices"),
        placeholder(dtype, [None], f"{label}/values"),
        dense_shape,
    )


@scoped("SparseTensorDenseMatMul")
def sparse_tensor_dense_matmul(
    sp_a: Any, b: Any, adjoint_a: bool = False, adjoint_b: bool = False, name: str | None = None
) -> Any:
    """The product of a sparse matrix and a dense one."""
    a = SparseTensor.from_value(sp_a)
    rows = a.extents(2)[1 if adjoint_a else 0]
    dense = tensor(b, "b")
    return sparse.sparse_dense_matmul(
        a.indices, a.values, rows, dense, adjoint_a, adjoint_b, name
    )


def sparse_tensor_to_dense(
    sp_input: Any, default_value: Any = None, validate_indices: bool = True,
    name: str | None = None,
) -> Any:  # fmt: skip
    """The dense tensor of a sparse one."""
    given = SparseTensor.from_value(sp_input)
    graph = given.graph
    with graph.as_default(), graph.name_scope(name or "SparseToDense"):
        return _dense(given.indices, given.extents(), given.values, default_value)


@scoped("SparseToDense")
def sparse_to_dense(
    sparse_indices: Any, output_shape: Any, sparse_values: Any, default_value: Any = 0,
    validate_indices: bool = True, name: str | None = None,
) -> Any:  # fmt: skip
    """A tensor of ``default_value`` with values at the given places.

    sparse_indices: [entries, rank], [entries] or []    sparse_values: [entries] or one value
    """
    indices = tensor(sparse_indices, "sparse_indices")
    shape = tensor(output_shape, "output_shape")
    known = constant_value(shape)
    rank = shape.type.shape[0]
    extents = (
        [int(d) for d in known] if known is not None
        else [counted.extent_of(shape[d]) for d in range(rank)]
    )  # fmt: skip
    if indices.type.rank != 2:
        indices = reshape(indices, (-1, 1))
    return _dense(indices, extents, tensor(sparse_values, "sparse_values"), default_value)


def _dense(indices: Any, extents: list[Any], values: Any, default: Any) -> Any:
    """Entries written in order into one row per element of the result."""
    from tinyflow.ir.graph.builder import emit
    from tinyflow.ops.shape import shape as shape_of

    position, total = _flat(indices, extents)
    if values.type.rank == 0:
        from tinyflow.ops.movement import broadcast_to

        values = broadcast_to(values, [shape_of(position)[0]])
    start = convert_to_tensor(0 if default is None else default, values.dtype)
    base = fill([total], start)
    filled = emit(indexing.TensorScatter("update"), base, position, values)
    return reshape(filled, extents)


def _flat(indices: Any, extents: list[Any]) -> tuple[Any, Any]:
    """Row-major positions of the entries, and the number of elements."""
    position, total = None, 1
    for d, extent in enumerate(extents):
        column = indices[:, d]
        if type(extent) is int:
            from tinyflow.ir.graph.builder import emit

            column = emit(indexing.CheckedIndex(extent), column)
        size = extent if type(extent) is int else cast(extent, column.dtype)
        position = column if position is None else position * size + column
        total = total * extent
    return position, total


def sparse_retain(sp_input: Any, to_retain: Any) -> SparseTensor:
    """The entries whose flag is true."""
    given = SparseTensor.from_value(sp_input)
    kept = counted.true_positions(tensor(to_retain, "to_retain"))
    return SparseTensor(gather(given.indices, kept), gather(given.values, kept), given.dense_shape)


def sparse_transpose(sp_input: Any, perm: Any = None, name: str | None = None) -> SparseTensor:
    """Axes exchanged, entries in row-major order again."""
    from tinyflow.ops.sorting import argsort

    given = SparseTensor.from_value(sp_input)
    rank = given.indices.type.shape[1]
    order = list(perm) if perm is not None else list(range(rank))[::-1]
    with given.graph.as_default(), given.graph.name_scope(name or "SparseTranspose"):
        indices = gather(given.indices, order, 1)
        shape = gather(given.dense_shape, order)
        moved = SparseTensor(indices, given.values, shape)
        sequence = argsort(_flat(indices, moved.extents())[0])
        return SparseTensor(
            gather(indices, sequence), gather(given.values, sequence), shape
        )


def sparse_reduce_sum(
    sp_input: Any, axis: Any = None, keepdims: bool | None = None, reduction_axes: Any = None,
    keep_dims: bool | None = None,
) -> Any:  # fmt: skip
    """The sum of entries over axes, as a dense tensor."""
    given = SparseTensor.from_value(sp_input)
    axis = reduction_axes if axis is None else axis
    keep = bool(keepdims or keep_dims)
    extents = given.extents()
    rank = len(extents)
    axes = range(rank) if axis is None else [axis] if isinstance(axis, int) else list(axis)
    summed = {int(a) % rank for a in axes}
    kept = [d for d in range(rank) if d not in summed]
    if not kept:
        total = reduction.reduce_sum(given.values)
        return reshape(total, [1] * rank) if keep else total
    columns = gather(given.indices, kept, 1)
    position, size = _flat(columns, [extents[d] for d in kept])
    sums = indexing.unsorted_segment_sum(given.values, position, size)
    return reshape(sums, [1 if d in summed else e for d, e in enumerate(extents)
                          if keep or d not in summed])  # fmt: skip


# ---------------------------------------------------------------------- embeddings by sparse ids


def embedding_lookup_sparse(
    params: Any, sp_ids: Any, sp_weights: Any, partition_strategy: str = "mod",
    name: str | None = None, combiner: str | None = None, max_norm: Any = None,
) -> Any:  # fmt: skip
    """Rows of a table combined per row of ``sp_ids``: sum, mean or sqrtn, weighted if asked for.

    The number of rows is that of the sparse tensor when it is known, else the last id's row + 1.
    """
    from tinyflow.frontends.tf1.embedding import embedding_lookup
    from tinyflow.ops.elementwise import sqrt
    from tinyflow.ops.movement import add_last_axes

    combiner = "mean" if combiner is None else combiner
    if combiner not in ("mean", "sqrtn", "sum"):
        raise InvalidArgumentError("combiner must be one of 'mean', 'sqrtn' or 'sum'",
                                   choices=["mean", "sqrtn", "sum"])  # fmt: skip
    ids = SparseTensor.from_value(sp_ids)
    graph = ids.graph
    with graph.as_default(), graph.name_scope(name or "embedding_lookup_sparse"):
        rows = ids.indices[:, 0]
        count = _row_count(ids, rows)
        found = embedding_lookup(params, ids.values, partition_strategy, max_norm=max_norm)
        if sp_weights is None:
            if combiner == "sum":
                return indexing.unsorted_segment_sum(found, rows, count)
            mean = combiner == "mean"
            fold = segment.unsorted_segment_mean if mean else segment.unsorted_segment_sqrt_n
            return fold(found, rows, count)
        weights = cast(SparseTensor.from_value(sp_weights).values, found.dtype)
        wide = add_last_axes(weights, (found.type.rank or 1) - 1)
        total = indexing.unsorted_segment_sum(found * wide, rows, count)
        if combiner == "sum":
            return total
        if combiner == "mean":
            norm = indexing.unsorted_segment_sum(wide, rows, count)
        else:
            norm = sqrt(indexing.unsorted_segment_sum(wide * wide, rows, count))
        return total / norm


def _row_count(ids: SparseTensor, rows: Any) -> Any:
    known = constant_value(ids.dense_shape)
    if known is not None:
        return int(known[0])
    return counted.extent_of(reduction.reduce_max(rows) + 1)
