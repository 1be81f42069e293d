"""Passes over functions with loops and branches: unused parts, saved values, sub-functions.

Main passes: ``trim_control``, ``save_rows``, ``optimize_bodies``; ``order_arrays`` for plans.
May import core, ir.graph, ops, passes.base.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tinyflow.core import options
from tinyflow.core.error import InternalError
from tinyflow.core.order import producers_first
from tinyflow.ir.graph.builder import Builder, building, emit
from tinyflow.ir.graph.nodes import Function, Node, Value
from tinyflow.ir.graph.visit import (
    ancestors,
    bind,
    map_controls,
    rebuild,
    remap,
    substitute,
    use_counts,
    users,
)
from tinyflow.ops.control import ControlOp, If, While, new_input, outputs_of
from tinyflow.ops.tensor_array import (
    ArrayRead,
    ArrayWrite,
    CopyArray,
    NewArray,
    StoredRead,
    new_array,
)
from tinyflow.passes.base import graph_pass


def has_control(fn: Function) -> bool:
    return any(isinstance(node.op, ControlOp) for node in fn.nodes)


# ---- what nobody needs --------------------------------------------------------------------------


@graph_pass(needs={"static_types"}, level=0)
def trim_control(fn: Function) -> Function:
    """Loops and branches without inputs, loop variables and saved values that nothing reads.

    A loop variable that the body leaves alone becomes an invariant input.
    Before: %2, %3, %4 = While(%0, %1) and %4 (saved) unread      After: %2, %3 = While(%0, %1)
    """
    if not has_control(fn):
        return fn
    for _ in range(16):  # what a backward loop does not read, its forward loop need not save
        counts = use_counts(fn)

        def change(node: Node, inputs: tuple[Value, ...], counts: Any = counts) -> Any:
            used = [counts.get(v, 0) > 0 for v in node.outputs]
            if isinstance(node.op, While):
                return _trim_while(node, node.op, inputs, used)
            if isinstance(node.op, If):
                return _trim_if(node, node.op, inputs, used)
            return None

        trimmed = rebuild(fn, change)
        if trimmed is fn:
            break
        fn = trimmed
    return fn


def _reads(outputs: Sequence[Value]) -> set[Value]:
    """The values that these need, themselves included."""
    found = {v for node in ancestors([v.node for v in outputs]) for v in node.inputs}
    return found | set(outputs)


def _trim_while(node: Node, op: While, inputs: Sequence[Value], used: Sequence[bool]) -> Any:
    n, body = op.n_carried, op.body
    saved = [i for i in range(n, len(body.outputs)) if used[i]]
    needed = _reads([op.cond.outputs[0], *[body.outputs[i] for i in saved]])
    kept = {k for k in range(n) if used[k]}
    if saved:
        kept.add(n - 1)
    while True:
        more = {
            k for k in range(n)
            if k not in kept and (body.inputs[k] in needed or op.cond.inputs[k] in needed)
        }  # fmt: skip
        fresh = kept | more
        needed |= _reads([body.outputs[k] for k in fresh])
        if fresh == kept and not more:
            break
        kept = fresh
    same = {k for k in kept if body.outputs[k] is body.inputs[k]} - ({n - 1} if saved else set())
    carried = sorted(kept - same)
    others = sorted(same) + list(range(n, len(inputs)))
    invariant: list[int] = []
    twin: dict[int, int] = {}
    first: dict[Value, int] = {}
    for j in others:
        if body.inputs[j] not in needed and op.cond.inputs[j] not in needed:
            continue
        if inputs[j] in first:
            twin[j] = first[inputs[j]]
        else:
            first[inputs[j]] = j
            invariant.append(j)
    if len(carried) + len(invariant) == len(inputs) and len(saved) == len(op.saved):
        return None
    order = carried + invariant

    def trimmed(one: Function, outputs: Sequence[Value]) -> Function:
        merged = {one.inputs[j]: one.inputs[i] for j, i in twin.items()}
        inside = substitute(Function(one.name, one.inputs, outputs), merged)
        return Function(one.name, [one.inputs[j] for j in order], inside.outputs)

    new = replace(
        op, n_carried=len(carried), counter=op.counter and n - 1 in carried,
        cond=trimmed(op.cond, op.cond.outputs),
        body=trimmed(body, [body.outputs[i] for i in carried + saved]),
    )  # fmt: skip
    found = _with(node, new, [inputs[j] for j in order])
    results = list(node.outputs)
    for k in same:
        results[k] = inputs[k]
    for i, value in zip(carried + saved, found, strict=True):
        results[i] = value
    return results


def _trim_if(node: Node, op: If, inputs: Sequence[Value], used: Sequence[bool]) -> Any:
    kept = [i for i in range(len(node.outputs)) if used[i]]
    reads = [_reads([fn.outputs[i] for i in kept]) for fn in op.functions]
    order = [
        j for j in range(len(inputs) - 1)
        if any(fn.inputs[j] in read for fn, read in zip(op.functions, reads, strict=True))
    ]  # fmt: skip
    if len(kept) == len(node.outputs) and len(order) == len(inputs) - 1:
        return None
    fns = [
        Function(fn.name, [fn.inputs[j] for j in order], [fn.outputs[i] for i in kept])
        for fn in op.functions
    ]
    found = _with(node, If(*fns), [inputs[0], *[inputs[1 + j] for j in order]])
    results = list(node.outputs)
    for i, value in zip(kept, found, strict=True):
        results[i] = value
    return results


def _with(node: Node, op: ControlOp, inputs: Sequence[Value]) -> tuple[Value, ...]:
    types = op.infer(*[x.type for x in inputs])
    return node.replaced(op=op, inputs=tuple(inputs), types=types).outputs  # type: ignore[arg-type]


# ---- saved values -------------------------------------------------------------------------------


@graph_pass(needs={"static_types"}, level=0)
def save_rows(fn: Function) -> Function:
    """The saved values of a loop become arrays that it carries and writes one row of.

    Before: body(t, x) -> t + 1, x', y            After: body(t, x, a) -> t + 1, x', a[t] = y
    """
    if not any(isinstance(n.op, While) and n.op.saved for n in fn.nodes):
        return fn

    def change(node: Node, inputs: tuple[Value, ...]) -> Any:
        op = node.op
        if not isinstance(op, While) or not op.saved:
            return None
        n, body = op.n_carried, op.body
        builder = Builder()
        arrays, starts, after = [], [], []
        with building(builder), builder.on_behalf_of(node.source, node.origin):
            for y in op.saved:
                starts.append(new_array(y.dtype, op.extent, y.type.shape))
                arrays.append(new_input(starts[-1].type))
                after.append(emit(ArrayWrite(), arrays[-1], body.inputs[n - 1], y))
        cond = Function(
            op.cond.name,
            [*op.cond.inputs[:n], *[new_input(a.type) for a in arrays], *op.cond.inputs[n:]],
            op.cond.outputs,
        )
        inside = Function(
            body.name, [*body.inputs[:n], *arrays, *body.inputs[n:]], [*body.outputs[:n], *after]
        )
        new = replace(
            op, cond=cond, body=inside, n_carried=n + len(arrays), counter=False, extent=None
        )
        return _with(node, new, [*inputs[:n], *starts, *inputs[n:]])

    return rebuild(fn, change)


# ---- sub-functions ------------------------------------------------------------------------------


@graph_pass(needs={"static_types"}, level=0)
def optimize_bodies(fn: Function) -> Function:
    """The pipeline on every sub-function."""
    if not has_control(fn):
        return fn
    from tinyflow.passes.pipeline import optimize

    def change(node: Node, inputs: tuple[Value, ...]) -> Any:
        op = node.op
        if not isinstance(op, ControlOp):
            return None
        with options.override(dump=None):
            functions = [optimize(f)[0] for f in op.functions]
        if all(a is b for a, b in zip(functions, op.functions, strict=True)):
            return None
        return node.replaced(op=op.with_functions(functions), inputs=inputs).outputs

    return rebuild(fn, change)


# ---- arrays in place ----------------------------------------------------------------------------


@dataclass(frozen=True)
class CarriedSlot:
    """Key of a loop's carried value in the step that is its body: position ``k``."""

    k: int


def order_arrays(fn: Function) -> Function:
    """Every write into an array comes after the reads of the old value, or works on a copy.

    The plan lets the result of a write have the memory of its input; so the input must be the
    function's own (not fed, not a constant), written once, and not be a result.
    """
    writes = [n for n in fn.nodes if isinstance(n.op, ArrayWrite)]
    if not writes:
        return fn
    readers = users(fn)
    results = set(fn.outputs)
    copied: set[Node] = set()
    before: dict[Node, list[Node]] = {}  # write -> reads that it waits for
    later: dict[Node, list[Node]] = {}  # the other way round
    for write in writes:
        array = write.inputs[0]
        others = [r for r in dict.fromkeys(readers.get(array, ())) if r is not write]
        own = _is_own(array) and array not in results and array not in write.inputs[1:]
        if own and others:
            below = _needed_by(readers, write, later)
            own = all(isinstance(r.op, ArrayRead) and r not in below for r in others)
        if own:
            before[write] = others
            for reader in others:
                later.setdefault(reader, []).append(write)
        else:
            copied.add(write)
    if not copied and not later:
        return fn
    new_values: dict[Value, Value] = {}
    for node in _in_order(fn, before):
        inputs = tuple([new_values.get(v, v) for v in node.inputs])
        if node in later:
            new = Node(StoredRead(), inputs, node.types, node.name, (), node.device, node.source,
                       node.origin)  # fmt: skip
        elif node in copied:
            with building(Builder()) as builder, builder.on_behalf_of(node.source, node.origin):
                copy = outputs_of(emit(CopyArray(), inputs[0]))[0]
            new = node.replaced(inputs=(copy, *inputs[1:]))
        elif before.get(node):
            reads = tuple(new_values[r.outputs[0]].node for r in before[node])
            new = node.replaced(inputs=inputs, control_inputs=reads)
        elif inputs != node.inputs:
            new = node.replaced(
                inputs=inputs, control_inputs=map_controls(node.control_inputs, new_values)
            )
        else:
            continue
        bind(node, new.outputs, new_values)
    return remap(fn, new_values)


def _in_order(fn: Function, before: dict[Node, list[Node]]) -> list[Node]:
    """The nodes of ``fn``, each after what it reads and writes after the reads they wait for."""

    def needs(node: Node) -> list[Node]:
        return [*before.get(node, ()), *node.control_inputs, *(v.node for v in node.inputs)]

    return producers_first(fn.nodes, needs)


def _is_own(array: Value) -> bool:
    op = array.node.op
    if isinstance(op, (NewArray, ArrayWrite, While, CopyArray)):
        return True
    key = getattr(op, "key", None)
    return isinstance(key, CarriedSlot)


def _needed_by(
    readers: dict[Value, list[Node]], node: Node, later: dict[Node, list[Node]]
) -> set[Node]:
    """The nodes that need a result of ``node`` or, by ``later``, wait for one that does."""
    found: set[Node] = set()
    stack = [node]
    while stack:
        one = stack.pop()
        following = [r for value in one.outputs for r in readers.get(value, ())]
        for reader in [*following, *later.get(one, ())]:
            if reader not in found:
                found.add(reader)
                stack.append(reader)
    return found


def body_with_condition(op: While) -> Function:
    """carried, invariant -> carried', whether to go on: one function per iteration."""
    given = dict(zip(op.cond.inputs, (*op.body.outputs[: op.n_carried],
                                      *op.body.inputs[op.n_carried :]), strict=True))  # fmt: skip
    if op.saved:
        raise InternalError("a loop with saved values is left: save_rows did not run")
    again = substitute(op.cond, given).outputs[0]
    return Function(op.body.name, op.body.inputs, [*op.body.outputs, again])
