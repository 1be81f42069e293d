"""``tf.map_fn``, ``tf.scan``, ``tf.foldl``, ``tf.foldr``: loops over the first dimension.

Main functions: those. May import core, ops, control_flow, tensor_array.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyflow.core.error import InvalidArgumentError
from tinyflow.frontends.tf1 import array_functions as arrays
from tinyflow.frontends.tf1.control_flow import while_loop
from tinyflow.frontends.tf1.convert import convert_to_tensor, graph_of, tensor
from tinyflow.frontends.tf1.nest import flatten, pack_as
from tinyflow.frontends.tf1.tensor_array import TensorArray

__all__ = ["foldl", "foldr", "map_fn", "scan"]


def _rows(value: Any) -> Any:
    """The size of the first dimension: an int where it is known."""
    shape = value.type.shape
    if shape == ():
        raise InvalidArgumentError(
            "elems must be a 1+ dimensional Tensor, not a scalar", source=value.node.source
        )
    if shape is not None and isinstance(shape[0], int):
        return shape[0]
    return arrays.shape(value)[0]


def _unstacked(values: list[Any]) -> list[TensorArray]:
    return [TensorArray(v.dtype, size=0).unstack(v) for v in values]


def map_fn(
    fn: Callable[..., Any], elems: Any, dtype: Any = None, parallel_iterations: Any = None,
    back_prop: bool = True, swap_memory: bool = False, infer_shape: bool = True,
    name: str | None = None,
) -> Any:  # fmt: skip
    """``fn`` of every row of ``elems``, stacked. dtype: structure of the results' dtypes."""
    if not callable(fn):
        raise TypeError("fn must be callable.")
    graph = graph_of(*flatten(elems))
    with graph.as_default(), graph.name_scope(name or "map"):
        values = [tensor(e, "elem") for e in flatten(elems)]
        n = _rows(values[0])
        sources = _unstacked(values)
        structure = elems if dtype is None else dtype
        kinds = [v.dtype for v in values] if dtype is None else flatten(dtype)
        targets = [TensorArray(kind, size=n) for kind in kinds]

        def body(i: Any, outs: list[TensorArray]) -> Any:
            results = flatten(fn(pack_as(elems, [s.read(i) for s in sources])))
            if len(results) != len(outs):
                raise InvalidArgumentError(
                    f"map_fn: fn returns {len(results)} tensors, dtype has {len(outs)}",
                    hint="give dtype=... with the structure of what fn returns",
                )
            return i + 1, [o.write(i, r) for o, r in zip(outs, results, strict=True)]

        start = convert_to_tensor(np.int32(0))
        _, outs = while_loop(
            lambda i, _: i < n, body, (start, targets), back_prop=back_prop,
            swap_memory=swap_memory,
        )  # fmt: skip
        return pack_as(structure, [o.stack() for o in outs])


def scan(
    fn: Callable[..., Any], elems: Any, initializer: Any = None, parallel_iterations: int = 10,
    back_prop: bool = True, swap_memory: bool = False, infer_shape: bool = True,
    reverse: bool = False, name: str | None = None,
) -> Any:  # fmt: skip
    """All states a, where a = fn(a, row) over the rows of ``elems``, stacked.

    Without ``initializer`` the first row is the first state. reverse: from the last row on.
    """
    if not callable(fn):
        raise TypeError("fn must be callable.")
    graph = graph_of(*flatten(elems), *flatten(initializer))
    with graph.as_default(), graph.name_scope(name or "scan"):
        values = [tensor(e, "elem") for e in flatten(elems)]
        n = _rows(values[0])
        sources = _unstacked(values)
        first = _first(sources, n, initializer, reverse)
        targets = [TensorArray(a.dtype, size=n, element_shape=None) for a in first]
        structure = elems if initializer is None else initializer
        if initializer is None:
            where = n - 1 if reverse else 0
            targets = [t.write(where, a) for t, a in zip(targets, first, strict=True)]

        def body(i: Any, states: list[Any], outs: list[TensorArray]) -> Any:
            rows = pack_as(elems, [s.read(i) for s in sources])
            after = [tensor(a) for a in flatten(fn(pack_as(structure, states), rows))]
            step = i - 1 if reverse else i + 1
            return step, after, [o.write(i, a) for o, a in zip(outs, after, strict=True)]

        begin = (0 if initializer is not None else 1) if not reverse else (
            n - 1 if initializer is not None else n - 2
        )
        _, _, outs = while_loop(
            lambda i, a, o: i >= 0 if reverse else i < n, body,
            (_start(begin), first, targets), back_prop=back_prop, swap_memory=swap_memory,
            maximum_iterations=n,
        )  # fmt: skip
        return pack_as(structure, [o.stack() for o in outs])


def _start(begin: Any) -> Any:
    return convert_to_tensor(np.int32(begin) if isinstance(begin, int) else begin)


def _first(sources: list[TensorArray], n: Any, initializer: Any, reverse: bool) -> list[Any]:
    if initializer is not None:
        return [tensor(i) for i in flatten(initializer)]
    where = n - 1 if reverse else 0
    return [s.read(where) for s in sources]


def _fold(
    fn: Any, elems: Any, initializer: Any, back_prop: bool, name: str, reverse: bool
) -> Any:
    if not callable(fn):
        raise TypeError("fn must be callable.")
    graph = graph_of(*flatten(elems), *flatten(initializer))
    with graph.as_default(), graph.name_scope(name):
        values = [tensor(e, "elem") for e in flatten(elems)]
        n = _rows(values[0])
        sources = _unstacked(values)
        first = _first(sources, n, initializer, reverse)
        structure = elems if initializer is None else initializer
        skipped = 0 if initializer is not None else 1
        begin = n - 1 - skipped if reverse else skipped

        def body(i: Any, states: list[Any]) -> Any:
            rows = pack_as(elems, [s.read(i) for s in sources])
            after = flatten(fn(pack_as(structure, states), rows))
            return (i - 1 if reverse else i + 1), [tensor(a) for a in after]

        _, states = while_loop(
            lambda i, a: i >= 0 if reverse else i < n, body, (_start(begin), first),
            back_prop=back_prop,
        )  # fmt: skip
        return pack_as(structure, states)


def foldl(
    fn: Callable[..., Any], elems: Any, initializer: Any = None, parallel_iterations: int = 10,
    back_prop: bool = True, swap_memory: bool = False, name: str | None = None,
) -> Any:  # fmt: skip
    """The last state a, where a = fn(a, row) over the rows of ``elems`` from the first on."""
    return _fold(fn, elems, initializer, back_prop, name or "foldl", False)


def foldr(
    fn: Callable[..., Any], elems: Any, initializer: Any = None, parallel_iterations: int = 10,
    back_prop: bool = True, swap_memory: bool = False, name: str | None = None,
) -> Any:  # fmt: skip
    """As ``foldl``, from the last row on."""
    return _fold(fn, elems, initializer, back_prop, name or "foldr", True)
