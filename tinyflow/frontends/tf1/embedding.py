"""Rows of tables: ``nn.embedding_lookup`` on one table or several, gathers with batch dimensions.

Main functions: ``embedding_lookup``, ``batched_gather``. May import core, ops, convert.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyflow.core.error import InvalidArgumentError, ShapeError
from tinyflow.frontends.tf1.array_functions import cast
from tinyflow.frontends.tf1.convert import graph_of, tensor
from tinyflow.frontends.tf1.math_functions import clip_by_norm
from tinyflow.ir.graph.builder import emit
from tinyflow.ir.graph.nodes import Value
from tinyflow.ops import indexing
from tinyflow.ops.comparison import equal, less
from tinyflow.ops.convert import identity
from tinyflow.ops.elementwise import maximum
from tinyflow.ops.logical import select
from tinyflow.ops.movement import add_last_axes, reshape, transpose
from tinyflow.ops.reduction import reduce_prod
from tinyflow.ops.sequence import arange
from tinyflow.ops.shape import shape as shape_of

__all__ = ["batched_gather", "embedding_lookup"]


def embedding_lookup(
    params: Any, ids: Any, partition_strategy: str = "mod", name: str | None = None,
    validate_indices: bool = True, max_norm: Any = None,
) -> Any:  # fmt: skip
    """Rows of a table, which may be cut into several: id i is row i // n of table i % n ("mod"),
    or the tables follow one another ("div").

    max_norm: rows are scaled down to this Euclidean norm.
    """
    tables = [params] if _is_one(params) else list(params)
    if not tables:
        raise InvalidArgumentError("Need at least one param")
    graph = graph_of(tables, ids)
    with graph.as_default(), graph.name_scope(name or "embedding_lookup") as scope:
        ids = tensor(ids, "ids")
        if len(tables) == 1 and max_norm is None:
            return indexing.gather(tensor(tables[0]), ids, 0, scope)
        if len(tables) == 1:
            rows = indexing.gather(tensor(tables[0]), ids)
        else:
            rows = _from_several([tensor(t) for t in tables], ids, partition_strategy)
        if max_norm is not None:
            axes = list(range(ids.type.rank or 0, rows.type.rank))
            rows = clip_by_norm(rows, max_norm, axes)
        return identity(rows, name=scope)


def _is_one(params: Any) -> bool:
    known = isinstance(params, (Value, np.ndarray)) or hasattr(params, "as_value")
    return known or not hasattr(params, "__iter__")


def _from_several(tables: list[Any], ids: Any, strategy: str) -> Any:
    """Each table gives its rows, row 0 where an id is not its own; the rows are put together."""
    count = len(tables)
    if strategy == "mod":
        owner, row = ids % count, ids // count
    elif strategy == "div":
        total = sum(_rows(t) for t in tables)
        each, extra = divmod(total, count)
        owner = maximum(ids // (each + 1), (ids - extra) // max(each, 1))
        row = select(less(owner, extra), ids % (each + 1), (ids - extra) % max(each, 1))
    else:
        raise InvalidArgumentError(
            f"Unrecognized partition strategy: {strategy}", choices=["mod", "div"]
        )
    result: Any = None
    for n, table in enumerate(tables):
        own = equal(owner, n)
        found = indexing.gather(table, select(own, row, 0))
        wide = add_last_axes(own, (found.type.rank or 0) - (own.type.rank or 0))
        result = found if result is None else select(wide, found, result)
    return result


def _rows(table: Any) -> int:
    extent = table.type.shape[0] if table.type.shape else None
    if type(extent) is not int:
        raise ShapeError("embedding_lookup: a table's number of rows is unknown",
                         received={"table": table.type})  # fmt: skip
    return extent


def batched_gather(params: Any, indices: Any, axis: int, batch_dims: int, name: str) -> Any:
    """y[b, outer, i, rest] = params[b, outer, indices[b, i], rest], the first ``batch_dims`` axes
    shared: one gather from rows that are numbered through all batches.

    Errors: ShapeError when ranks are unknown or axis < batch_dims
    """
    params, indices = tensor(params, "params"), tensor(indices, "indices")
    rank, index_rank = params.type.rank, indices.type.rank
    if rank is None or index_rank is None:
        raise ShapeError("gather with batch_dims needs known ranks",
                         received={"params": params.type, "indices": indices.type})  # fmt: skip
    axis += rank if axis < 0 else 0
    batch = batch_dims + (index_rank if batch_dims < 0 else 0)
    if not batch <= axis < rank or batch > index_rank:
        raise ShapeError(
            f"batch_dims ({batch_dims}) must be less than or equal to axis ({axis})",
            received={"params": params.type, "indices": indices.type},
        )
    outer = list(range(batch, axis))
    front = [*range(batch), axis, *outer, *range(axis + 1, rank)]
    rows = transpose(params, front) if outer else params
    extents = _extents(rows)
    n = extents[batch]
    if type(n) is int:
        indices = emit(indexing.CheckedIndex(n), indices)
    start = reshape(arange(0, _product(extents[:batch])),
                    [*_extents(indices)[:batch], *[1] * (index_rank - batch)])  # fmt: skip
    place = indices + cast(start * n, indices.dtype)
    flat = reshape(rows, [_product(extents[: batch + 1]), *extents[batch + 1 :]])
    if not outer:
        return indexing.gather(flat, place, 0, name)
    found = indexing.gather(flat, place)  # [b, i, outer, rest]
    inner = list(range(batch, index_rank))
    moved = [index_rank + d for d in range(len(outer))]
    rest = list(range(index_rank + len(outer), found.type.rank))
    return transpose(found, [*range(batch), *moved, *inner, *rest], name)


def _extents(x: Any) -> list[Any]:
    dynamic = None
    found: list[Any] = []
    for d, extent in enumerate(x.type.shape):
        if type(extent) is not int:
            dynamic = shape_of(x) if dynamic is None else dynamic
            extent = dynamic[d]  # type: ignore[index]
        found.append(extent)
    return found


def _product(extents: list[Any]) -> Any:
    if all(type(d) is int for d in extents):
        total = 1
        for d in extents:
            total *= d
        return total
    from tinyflow.frontends.tf1.array_functions import stack

    return reduce_prod(stack(extents))
