"""Gradients limited together: ``tf.clip_by_global_norm`` and its kin.

Main functions: ``global_norm``, ``clip_by_global_norm``, ``clip_by_average_norm``.
May import core, ops, convert. Lists may contain None and ``IndexedSlices``, which stay so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyflow.core.error import InvalidArgumentError
from tinyflow.frontends.tf1.array_functions import cast, size
from tinyflow.frontends.tf1.convert import graph_of, scoped, tensor
from tinyflow.frontends.tf1.indexed_slices import IndexedSlices
from tinyflow.ops.comparison import greater
from tinyflow.ops.convert import identity
from tinyflow.ops.elementwise import divide, maximum, minimum, multiply, sqrt
from tinyflow.ops.logical import select
from tinyflow.ops.reduction import l2_loss, reduce_sum
from tinyflow.ops.rounding import is_finite

__all__ = ["clip_by_average_norm", "clip_by_global_norm", "global_norm"]


def _values(t_list: Any) -> list[Any]:
    """The tensors that count, of slices their values."""
    if not isinstance(t_list, (list, tuple)):
        raise InvalidArgumentError("t_list should be a sequence")
    return [
        t.values if isinstance(t, IndexedSlices) else None if t is None else tensor(t)
        for t in t_list
    ]


def _with_values(t: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(t, IndexedSlices):
        return IndexedSlices(change(t.values), t.indices, t.dense_shape)
    return None if t is None else change(tensor(t))


def global_norm(t_list: Any, name: str | None = None) -> Any:
    """The root of the sum of squares of all elements of all tensors."""
    values = _values(t_list)
    graph = graph_of([v for v in values if v is not None])
    with graph.as_default(), graph.name_scope(name or "global_norm") as scope:
        halves = [l2_loss(v) for v in values if v is not None]
        if not halves:
            raise InvalidArgumentError("t_list has no tensor")
        total = halves[0]
        for half in halves[1:]:
            total = total + half
        return sqrt(total * 2.0, name=scope)


def clip_by_global_norm(
    t_list: Any, clip_norm: Any, use_norm: Any = None, name: str | None = None
) -> tuple[list[Any], Any]:
    """Every tensor times clip_norm / max(norm, clip_norm), and the norm of all of them together.

    A norm that is infinite or NaN makes every element NaN.
    """
    norm = global_norm(t_list, name) if use_norm is None else tensor(use_norm)
    graph = graph_of(norm)
    with graph.as_default(), graph.name_scope(name or "clip_by_global_norm"):
        limit = _of(clip_norm, norm)
        scale = limit * minimum(divide(_of(1.0, norm), norm), divide(_of(1.0, norm), limit))
        scale = select(is_finite(norm), scale, np.nan)
        # The same tensor twice in the list is clipped once.
        done: dict[int, Any] = {}
        for t in t_list:
            if id(t) not in done:
                done[id(t)] = _with_values(t, lambda v: multiply(v, cast(scale, v.dtype)))
        return [done[id(t)] for t in t_list], norm


def _of(value: Any, like: Any) -> Any:
    """``value`` in the dtype of ``like``."""
    from tinyflow.frontends.tf1.convert import convert_to_tensor, is_tensor

    if is_tensor(value):
        return cast(tensor(value), like.dtype)
    return convert_to_tensor(value, like.dtype)


@scoped("clip_by_average_norm")
def clip_by_average_norm(t: Any, clip_norm: Any, name: str | None = None) -> Any:
    """``t`` scaled down so that its Euclidean norm divided by its size is at most ``clip_norm``."""
    t = tensor(t, "t")
    total = reduce_sum(multiply(t, t))
    positive = greater(total, 0)
    # sqrt has an infinite slope at 0: its input is made safe as well as its result.
    norm = select(positive, sqrt(select(positive, total, 1)), 0)
    average = norm / cast(size(t), t.dtype)
    limit = _of(clip_norm, t)
    return identity(divide(t * limit, maximum(average, limit)), name=name)
