"""Sub-functions for concrete types, and how often a loop runs.

Main functions: ``specialize_control``, ``trip_count``. May import core, ir.graph and ops.

What is constant outside becomes constant inside; a branch whose condition is constant takes the
place of its ``If``; saved values get as many rows as the loop can have iterations. Where only
running tells, they get ``open_rows``: address space that the system backs by memory when it is
touched (see runtime.reserved).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinyflow.core.error import NeedsHost, ShapeError
from tinyflow.core.shape import Dim, Dimension, at_most
from tinyflow.ir.graph.nodes import Function, Node, TensorType, Value
from tinyflow.ir.graph.visit import substitute
from tinyflow.ops.base import emit
from tinyflow.ops.control import ControlOp, If, While, constant_of, counter_of, number_of
from tinyflow.ops.creation import constant
from tinyflow.ops.growing import GrowRows, padded_to
from tinyflow.ops.shape import Extent
from tinyflow.ops.tensor_array import ArrayWrite

#: bytes of address space for a saved value of a loop whose length only running tells
RESERVED_BYTES = 1 << 36
#: Numbers of rows that stand for "as many as it takes": no user's extent is one of them by design.
OPEN_EXTENTS = tuple((1 << k) + 3 for k in range(20, 31))


def open_rows(row_bytes: Dimension) -> int:
    """Rows of saved values where the number of iterations is not known before the loop ran."""
    if isinstance(row_bytes, Dim):  # one number for about all sizes: addresses cost nothing
        return OPEN_EXTENTS[4] if at_most(row_bytes, 1 << 16) else OPEN_EXTENTS[0]
    fitting = [n for n in OPEN_EXTENTS if n * row_bytes <= RESERVED_BYTES]
    return fitting[-1] if fitting else OPEN_EXTENTS[0]


def is_open(type_: TensorType) -> bool:
    """Whether this is a saved value of an unknown number of rows."""
    shape: Any = type_.shape
    return bool(shape) and shape[0] in OPEN_EXTENTS


def specialize_control(
    specializer: Any, node: Node, op: ControlOp, inputs: Sequence[Value]
) -> Sequence[Value]:
    """The results of an ``If`` or ``While`` whose inputs have static types."""
    if isinstance(op, If):
        return _specialize_if(specializer, node, op, inputs)
    assert isinstance(op, While)
    return _specialize_while(specializer, node, op, inputs)


def _specialize_if(
    specializer: Any, node: Node, op: If, inputs: Sequence[Value]
) -> Sequence[Value]:
    pred, xs = inputs[0], list(inputs[1:])
    known = constant_of(pred)
    chosen = op.functions if known is None else (op.then if known else op.orelse,)
    fns, xs = _sunk(chosen, xs, 0)
    types = [x.type for x in xs]
    try:
        fns = [specializer.sub_function(fn, types) for fn in fns]
    except ShapeError as error:
        if known is not None:
            raise
        raise NeedsHost(  # the gradient of branches of different shapes: only one of them fits
            f"cond: a branch does not fit the shapes of this run: {error.what}",
            received=error.received, expected=error.expected, sources=error.sources,
        ) from error
    if known is not None:
        return inlined(fns[0], xs)
    for a, b in zip(fns[0].outputs, fns[1].outputs, strict=True):
        if a.type != b.type:
            raise NeedsHost(
                "cond: the branches return different shapes",
                received={"true": a.type, "false": b.type},
                expected="one shape",
                source=node.source,
            )
    return _node(node, If(*fns), [pred, *xs])


def _specialize_while(
    specializer: Any, node: Node, op: While, inputs: Sequence[Value]
) -> Sequence[Value]:
    n = op.n_carried
    (cond, body), inputs = _sunk(op.functions, list(inputs), n)
    types = [x.type for x in inputs]
    limits = {}
    if any(isinstance(node.op, GrowRows) for node in body.nodes):
        entered = replace(op, cond=specializer.sub_function(cond, types), body=body)
        limits = _limits(entered, inputs)
        inputs = _with_all_rows(entered, inputs, limits)
        types = [x.type for x in inputs]
    body = specializer.sub_function(body, types, limits)
    for before, after in zip(types[:n], body.outputs, strict=False):
        if before != after.type:
            raise NeedsHost(
                "while_loop: a loop variable changes its shape from iteration to iteration",
                received={"before": before, "after": after.type},
                expected="loop variables that keep the shapes they enter with",
                source=node.source,
                hint="collect rows in a tf.TensorArray and stack() it after the loop",
            )
    cond = specializer.sub_function(cond, types)
    op = replace(op, cond=cond, body=body)
    trips = trip_count(op, inputs)
    if op.saved:
        op = replace(op, extent=_extent(op, trips, node))
    results = list(_node(node, op, inputs))
    if trips is not None and trips.exact:
        for k in range(n):
            last = _value_after(op, inputs, k, trips.bound)
            if isinstance(last, Dim):
                results[k] = emit(Extent(last, inputs[k].dtype))
            elif last is not None:
                results[k] = constant(last)
                specializer.constants[results[k]] = last
    return results


def _limits(op: While, inputs: Sequence[Value]) -> dict[Value, int]:
    """The last value of every counter of the body that goes up, where comparisons tell it."""
    trips = trip_count(op, inputs)
    if trips is None or not isinstance(trips.bound, int):
        return {}
    found = {}
    for k in range(op.n_carried):
        counter = counter_of(op, inputs, k)
        if counter is not None and counter[1] > 0:
            last = counter[0] + (trips.bound - 1) * counter[1]
            if isinstance(last, int):
                found[op.body.inputs[k]] = last
    return found


def _with_all_rows(
    op: While, inputs: list[Value], limits: Mapping[Value, int]
) -> list[Value]:
    """Arrays that the loop would make longer by known rows have these rows before it."""
    trips = trip_count(op, inputs)
    if trips is None or not trips.exact:
        return inputs
    changed = list(inputs)
    for k in range(op.n_carried):
        value, last = op.body.outputs[k], -1
        while isinstance(value.node.op, (ArrayWrite, GrowRows)):
            if isinstance(value.node.op, GrowRows):
                last = max(last, limits.get(value.node.inputs[1], 1 << 62))
            value = value.node.inputs[0]
        shape = inputs[k].type.shape
        if value is op.body.inputs[k] and shape and 0 <= last < 1 << 62:
            changed[k] = padded_to(inputs[k], max(shape[0], last + 1))  # type: ignore[type-var]
    return changed


def _extent(op: While, trips: Trips | None, node: Node) -> Dimension:
    if trips is not None:
        return trips.bound
    if any(is_open(y.type) for y in op.saved):
        raise NeedsHost(
            "gradients: loops inside loops, where only running tells how long the inner ones are",
            source=node.source,
            hint="give the inner while_loop maximum_iterations",
        )
    return min([open_rows(y.type.size_bytes) for y in op.saved])


def _node(node: Node, op: ControlOp, inputs: Sequence[Value]) -> Sequence[Value]:
    types = op.infer(*[x.type for x in inputs])
    return Node(
        op, tuple(inputs), types, node.name, (), node.device, node.source, node.origin  # type: ignore[arg-type]
    ).outputs


def _sunk(
    fns: Sequence[Function], inputs: list[Value], first: int
) -> tuple[list[Function], list[Value]]:
    """Functions in which inputs from ``first`` on that are small constants are constants, and
    those that follow from a run's sizes are extents."""
    kept = list(range(first))
    places: dict[int, Value] = {}
    for n in range(first, len(inputs)):
        if constant_of(inputs[n]) is None and number_of(inputs[n]) is None:
            kept.append(n)
        else:
            places[n] = inputs[n]
    if not places:
        return list(fns), inputs
    changed = []
    for fn in fns:
        inside = substitute(fn, {fn.inputs[n]: value for n, value in places.items()})
        changed.append(Function(fn.name, [fn.inputs[n] for n in kept], inside.outputs))
    return changed, [inputs[n] for n in kept]


def inlined(fn: Function, inputs: Sequence[Value]) -> list[Value]:
    """The outputs of ``fn`` with its inputs replaced by these values."""
    found = substitute(fn, dict(zip(fn.inputs, inputs, strict=True)))
    return list(found.outputs)


# ---- the number of iterations -------------------------------------------------------------------


@dataclass(frozen=True)
class Trips:
    """bound: the loop runs at most so often; exact: it runs exactly so often."""

    bound: Dimension
    exact: bool


def trip_count(op: While, inputs: Sequence[Value]) -> Trips | None:
    """How often the loop runs, if comparisons of counters with constants tell; else None.

    A counter is a carried integer with a constant start that grows by a constant. Extents that a
    run tells count as constants.
    """
    root = op.cond.outputs[0]
    parts, exact = [root], True
    bounds: list[Dimension] = []
    while parts:
        part = parts.pop()
        node = part.node
        known = constant_of(part)
        if known is not None and not known:
            return Trips(0, True)
        if node.op.type_name == "LogicalAnd":
            parts.extend(node.inputs)
            exact = False
            continue
        bound = None if known is not None else _comparison_bound(op, inputs, node)
        if bound is not None:
            bounds.append(bound)
        elif known is None:
            exact = False
    if not bounds:
        return None
    least = functools.reduce(lambda a, b: a if at_most(a, b) else b, bounds)
    return Trips(least, exact or _all_bounds(op, inputs))


def _all_bounds(op: While, inputs: Sequence[Value]) -> bool:
    """Whether the condition is a conjunction of nothing but comparisons of counters."""
    parts = [op.cond.outputs[0]]
    while parts:
        node = parts.pop().node
        if node.op.type_name == "LogicalAnd":
            parts.extend(node.inputs)
        elif _comparison_bound(op, inputs, node) is None:
            return False
    return True


_SWAPPED = {"Less": "Greater", "Greater": "Less", "LessEqual": "GreaterEqual",
            "GreaterEqual": "LessEqual"}  # fmt: skip


def _comparison_bound(op: While, inputs: Sequence[Value], node: Node) -> Dimension | None:
    name = node.op.type_name
    if name not in _SWAPPED or node.types[0].shape != ():
        return None
    a, b = node.inputs
    limit = number_of(b)
    if limit is None:
        a, limit, name = b, number_of(a), _SWAPPED[name]
    if limit is None or a not in op.cond.inputs:
        return None
    found = counter_of(op, inputs, op.cond.inputs.index(a))
    if found is None:
        return None
    start, step = found
    end = limit + (1 if name == "LessEqual" else -1 if name == "GreaterEqual" else 0)
    way = end - start if name in ("Less", "LessEqual") else start - end
    step = step if name in ("Less", "LessEqual") else -step
    if way == 0 or at_most(way, -1):
        return 0
    return None if step < 0 else (way + (step - 1)) // step


def _value_after(op: While, inputs: Sequence[Value], k: int, trips: Dimension) -> Any:
    found = counter_of(op, inputs, k)
    if found is None:
        return None
    last = found[0] + trips * found[1]
    if isinstance(last, Dim):
        return last
    limits = np.iinfo(inputs[k].dtype.numpy)
    return np.array(last, inputs[k].dtype.numpy) if limits.min <= last <= limits.max else None


__all__ = [
    "Trips", "inlined", "is_open", "open_rows", "specialize_control",
    "trip_count",
]  # fmt: skip
