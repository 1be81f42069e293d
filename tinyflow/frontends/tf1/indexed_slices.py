"""Gradients that touch a few rows of a large tensor: ``tf.IndexedSlices``.

Main types: ``IndexedSlices``, ``IndexedSlicesValue``; ``sparse_gradient`` finds them.
May import core, ops, convert.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tinyflow.frontends.tf1.convert import tensor
from tinyflow.frontends.tf1.tensor_shape import TensorShape
from tinyflow.ir.graph.builder import emit
from tinyflow.ir.graph.nodes import Value
from tinyflow.ops.elementwise import Add, AddN
from tinyflow.ops.indexing import GatherGrad, unsorted_segment_sum
from tinyflow.ops.joining import concat
from tinyflow.ops.movement import reshape
from tinyflow.ops.shape import shape as shape_of
from tinyflow.ops.shape import symbolic_value

__all__ = ["IndexedSlices", "IndexedSlicesValue", "sparse_gradient"]


class IndexedSlicesValue(NamedTuple):
    """What fetching ``IndexedSlices`` gives: three arrays (the last is None when not known)."""

    values: Any
    indices: Any
    dense_shape: Any


class IndexedSlices:
    """dense[indices[i], ...] = sum of the values[i, ...] at that index; 0 elsewhere.

    values: [n, b...]    indices: integer[n], repeated ones add up    dense_shape: integer[1 + b]
    Used as a tensor it is the dense tensor.
    """

    def __init__(self, values: Any, indices: Any, dense_shape: Any = None) -> None:
        self.values = tensor(values)
        self.indices = tensor(indices)
        self.dense_shape = None if dense_shape is None else tensor(dense_shape)

    @property
    def dtype(self) -> Any:
        return self.values.dtype

    @property
    def shape(self) -> TensorShape:
        """The dense shape as far as the graph knows it."""
        known = None if self.dense_shape is None else symbolic_value(self.dense_shape)
        if known is None:
            return TensorShape(None)
        return TensorShape([d if type(d) is int else None for d in known])

    get_shape = shape.fget  # type: ignore[attr-defined]

    @property
    def graph(self) -> Any:
        return self.values.graph

    @property
    def name(self) -> str:
        return self.values.name  # type: ignore[no-any-return]

    @property
    def op(self) -> Any:
        return self.values.op

    @property
    def device(self) -> str:
        return self.values.device  # type: ignore[no-any-return]

    def as_value(self) -> Value:
        """The dense tensor. Errors: ValueError when ``dense_shape`` is not known."""
        if self.dense_shape is None:
            raise ValueError(
                f"Tensor conversion requested for IndexedSlices without dense_shape: {self}"
            )
        return unsorted_segment_sum(self.values, self.indices, self.dense_shape[0])  # type: ignore[no-any-return]

    def __neg__(self) -> IndexedSlices:
        return IndexedSlices(-self.values, self.indices, self.dense_shape)

    def __repr__(self) -> str:
        shape = "" if self.dense_shape is None else f", dense_shape={self.dense_shape.name}"
        return f"IndexedSlices(indices={self.indices}, values={self.values}{shape})"

    # What a fetch of it runs, and what it returns.
    @property
    def fetched(self) -> list[Any]:
        shape = [] if self.dense_shape is None else [self.dense_shape]
        return [self.values, self.indices, *shape]

    def finish(self, results: list[Any]) -> IndexedSlicesValue:
        return IndexedSlicesValue(results[0], results[1], results[2] if len(results) > 2 else None)


def sparse_gradient(gradient: Value, x: Value) -> IndexedSlices | None:
    """The gradient of ``x`` as slices where all of it comes from gathers of rows of ``x``."""
    parts: list[Any] = []
    pending = [gradient]
    while pending:
        node = pending.pop().node
        if isinstance(node.op, (Add, AddN)):
            pending += reversed(node.inputs)
        elif isinstance(node.op, GatherGrad) and node.op.axis == 0 and node.inputs[2] is x:
            parts.append(node)
        else:
            return None
    values, indices = [], []
    for node in parts:
        dy, rows, _ = node.inputs
        if rows.type.rank == 1:
            values.append(dy)
            indices.append(rows)
            continue
        rest = (x.type.shape or ())[1:] if x.type.shape is not None else None
        if rest is None or not all(type(d) is int for d in rest):
            return None
        values.append(reshape(dy, (-1, *rest)))
        indices.append(reshape(rows, (-1,)))
    if len({i.dtype for i in indices}) > 1:
        return None
    joined = len(parts) > 1
    return IndexedSlices(
        concat(values, 0) if joined else values[0],
        concat(indices, 0) if joined else indices[0],
        shape_of(x),
    )


def dense_rows(slices: IndexedSlices, like: Value) -> Value:
    """The dense tensor, of the shape of ``like``."""
    return emit(GatherGrad(0), slices.values, slices.indices, like)  # type: ignore[no-any-return]
