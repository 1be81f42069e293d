"""Variables kept in pieces: what ``get_variable(..., partitioner=...)`` makes.

Main type: ``PartitionedVariable``. May import core, variables, variable_scope, array_functions.
"""

from __future__ import annotations

from typing import Any

from tinyflow.core.error import InvalidArgumentError
from tinyflow.frontends.tf1.array_functions import concat
from tinyflow.frontends.tf1.tensor_shape import TensorShape
from tinyflow.frontends.tf1.variable_scope import initial_value
from tinyflow.frontends.tf1.variables import Variable

__all__ = ["PartitionedVariable", "partitioned"]


class PartitionedVariable:
    """A variable kept in pieces along one axis; in an expression it is the whole."""

    def __init__(self, name: str, pieces: list[Variable], axis: int, shape: Any) -> None:
        self.name = name
        self.pieces = pieces
        self.axis = axis
        self.shape = TensorShape(shape)
        self.graph = pieces[0].graph
        self.source = pieces[0].source
        self.dtype = pieces[0].dtype

    def as_value(self) -> Any:
        with self.graph.name_scope(self.name + "/ConcatPartitions/"):
            return concat([p.as_value() for p in self.pieces], self.axis)

    as_tensor = _as_graph_element = as_value

    def get_shape(self) -> TensorShape:
        return self.shape

    def __iter__(self) -> Any:
        return iter(self.pieces)

    def __len__(self) -> int:
        return len(self.pieces)


def partitioned(
    name: str, shape: Any, dtype: Any, initializer: Any, partitioner: Any, trainable: Any,
    collections: Any,
) -> Any:  # fmt: skip
    """The pieces that ``partitioner(shape, dtype)`` asks for; None when it asks for one."""
    static = TensorShape(shape)
    counts = list(partitioner(shape=static, dtype=dtype))
    axes = [axis for axis, count in enumerate(counts) if count > 1]
    if not axes:
        return None
    if len(axes) > 1:
        raise InvalidArgumentError(
            f"Can only slice a variable along one dimension: shape: {static.as_list()}, "
            f"partitioning: {counts}"
        )
    axis, extents = axes[0], static.as_list()
    count, total = counts[axis], extents[axis]
    pieces = []
    for i in range(count):
        rows = total // count + (1 if i < total % count else 0)
        part = [*extents[:axis], rows, *extents[axis + 1 :]]
        value = initial_value(f"{name}/part_{i}", part, dtype, initializer)
        pieces.append(Variable(value, trainable, collections, name=f"{name}/part_{i}", dtype=dtype))
    return PartitionedVariable(name, pieces, axis, extents)
