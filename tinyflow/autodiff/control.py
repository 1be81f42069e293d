"""Reverse mode through loops and branches.

Main functions: ``while_vjp``, ``if_vjp``. May import core, ir, ops, autodiff.reverse.

The forward loop saves, per iteration, the values that the body's gradient reads and that are not
cheap to have again; the backward loop runs from the last iteration to the first. Invariant values
are never saved, nor reads of invariant arrays, views, constants and counters. Gradients of
invariant inputs add up in the backward loop. A loop inside the body is run again in the backward
loop. Source: Yu et al., Dynamic control flow in large-scale machine learning, EuroSys 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tinyflow.autodiff import reverse
from tinyflow.core.error import Unsupported
from tinyflow.ir.graph.builder import Builder, building, emit
from tinyflow.ir.graph.nodes import Effect, Function, Node, TensorType, Value
from tinyflow.ir.graph.visit import ancestors, substitute
from tinyflow.ops.control import (
    ControlOp,
    If,
    While,
    new_extent,
    new_input,
    outputs_of,
    step_of,
)
from tinyflow.ops.convert import Identity, cast
from tinyflow.ops.creation import Constant, constant, zeros_like
from tinyflow.ops.joining import ConcatV2, Pack
from tinyflow.ops.tensor_array import ArrayRead, ArrayWrite, NewArrayLike

_INDEX = TensorType("int32", ())


def vjp(node: Node, totals: Sequence[Value | None]) -> Sequence[Value | None]:
    """Gradients of the inputs of an ``If`` or ``While`` from those of its results."""
    if isinstance(node.op, If):
        return if_vjp(node, node.op, totals)
    assert isinstance(node.op, While)
    if not node.op.back_prop:
        raise Unsupported(
            "gradients: this while_loop was made with back_prop=False", source=node.source
        )
    return _LoopGradient(node, node.op, totals).run()


# ---- If -----------------------------------------------------------------------------------------


def if_vjp(node: Node, op: If, totals: Sequence[Value | None]) -> list[Value | None]:
    """An If of both branches' gradients; each computes its branch's values again."""
    asked = [n for n, total in enumerate(totals) if total is not None]
    weights = [totals[n] for n in asked]
    xs = node.inputs[1:]
    found = []
    for branch in op.functions:
        with building(Builder()) as builder:
            inputs = [new_input(w.type) for w in weights]  # type: ignore[union-attr]
            grads = _sweep(
                builder, node, [branch.outputs[n] for n in asked], inputs, branch.inputs
            )
        found.append((branch, inputs, grads))
    wanted = [
        j for j in range(len(xs)) if any(grads[j] is not None for _, _, grads in found)
    ]
    if not wanted:
        return [None] * len(node.inputs)
    functions = []
    for branch, inputs, grads in found:
        with building(Builder()):
            outputs: list[Any] = [
                zeros_like(branch.inputs[j]) if grads[j] is None else grads[j] for j in wanted
            ]
        functions.append(Function(f"{branch.name}_gradient", [*branch.inputs, *inputs], outputs))
        for one in ancestors([v.node for v in outputs], stop=functions[-1].inputs):
            if _calls_python(one):
                raise _called_twice(one)
    results = outputs_of(emit(If(*functions), node.inputs[0], *xs, *weights))
    by_input = dict(zip(wanted, results, strict=True))
    return [None, *[by_input.get(j) for j in range(len(xs))]]


def _sweep(
    builder: Builder, node: Node, ys: Sequence[Value], weights: Sequence[Value],
    xs: Sequence[Value],
) -> list[Value | None]:  # fmt: skip
    """Gradients of the floating ``xs`` of a sub-function; None where no path leads there."""
    sweep = reverse._Sweep(builder, node.source)
    for y, weight in zip(ys, weights, strict=True):
        sweep.parts.setdefault(y, []).append(weight)
    floating = [x for x in dict.fromkeys(xs) if x.dtype.is_floating]
    found = sweep.run(ys, floating, set(xs))
    by_value = dict(zip(floating, found, strict=True))
    return [by_value.get(x) for x in xs]


# ---- While --------------------------------------------------------------------------------------


class _LoopGradient:
    """The forward loop with saved values and the backward loop of one ``While``."""

    def __init__(self, node: Node, op: While, totals: Sequence[Value | None]) -> None:
        self.node, self.op, self.totals = node, op, totals
        self.body = op.body
        n = op.n_carried
        self.inside = set(ancestors([v.node for v in op.body.outputs], stop=op.body.inputs))
        for one in self.inside:
            _check_repeatable(one)
        self.index = new_input(_INDEX)  # t of the backward loop
        self.invariants: dict[Value, Value] = {}  # outer value -> input of the backward body
        self.saved: dict[Value, Value] = {}  # forward value -> input of the backward body
        self.known: dict[Value, Value] = {}  # forward value -> its value in the backward body
        self.carried = list(op.body.inputs[:n])
        self.outer = dict(zip(op.body.inputs[n:], node.inputs[n:], strict=True))
        for k, value in enumerate(self.carried):
            if op.body.outputs[k] is value:
                self.outer[value] = node.inputs[k]

    def run(self) -> list[Value | None]:
        op, body, node = self.op, self.body, self.node
        n = op.n_carried
        live = self.live_carried()
        with building(Builder()) as builder:
            cots = {k: new_input(self.type_after(k)) for k in live}
            weights = [(body.outputs[k], cot) for k, cot in cots.items()]
            for s, total in enumerate(self.totals[n:]):
                if total is not None:
                    weights.append((op.saved[s], self.row_of(total)))
            rows = {j: new_input(body.inputs[j].type) for j in self.row_stacks()}
            weights += [(body.inputs[j], self.cleared_row(j, a)) for j, a in rows.items()]
            grads = _sweep(
                builder, node, [y for y, _ in weights], [w for _, w in weights], body.inputs
            )
            after = [
                zeros_like(cots[k]) if grads[k] is None else grads[k] for k in live
            ]
            summed = [j for j in range(n, len(body.inputs)) if grads[j] is not None]
            sums = {j: rows[j] if j in rows else new_input(body.inputs[j].type) for j in summed}
            after += [
                grads[j] if j in rows else reverse.add_up([sums[j], grads[j]])  # type: ignore[list-item]
                for j in summed
            ]
        if not after:
            return [None] * len(node.inputs)
        loop_inputs = [self.index, *cots.values(), *sums.values()]
        inside = self.closed(loop_inputs, after)  # type: ignore[arg-type]
        return self.emit_loops(live, summed, loop_inputs, inside)

    def type_after(self, k: int) -> TensorType:
        """The type of carried value ``k`` after an iteration: a growing one has another shape."""
        before, after = self.carried[k].type, self.body.outputs[k].type
        grows = after.shape is not None and not after.is_static and not before.is_static
        return after if grows else before

    def live_carried(self) -> list[int]:
        """Floating carried values that the asked results may depend on through the iterations."""
        op, body = self.op, self.body
        live = {k for k in range(op.n_carried) if self.totals[k] is not None}
        saved = [
            y for y, t in zip(op.saved, self.totals[op.n_carried :], strict=True) if t is not None
        ]
        while True:
            reached = _reached([body.outputs[k] for k in live] + saved, body.inputs)
            more = {k for k in range(op.n_carried) if body.inputs[k] in reached} - live
            more = {k for k in more if body.inputs[k].dtype.is_floating}
            if not more:
                return sorted(k for k in live if body.inputs[k].dtype.is_floating)
            live |= more

    def row_stacks(self) -> list[int]:
        """Invariant inputs that are rows saved by another loop, one of which each iteration reads.

        Their gradients have as many rows as that loop had iterations: they are not cleared as a
        whole, which nobody knows the size of, but row by row.
        """
        found = []
        for j in range(self.op.n_carried, len(self.body.inputs)):
            outer = self.node.inputs[j]
            made = outer.node.op
            if not isinstance(made, While) or outer.index < made.n_carried:
                continue
            if not outer.dtype.is_floating:
                continue
            if self.row_index(j) is not None:
                found.append(j)
        return found

    def row_index(self, j: int) -> Value | None:
        """The counter by which the body reads input ``j``, if it does so and nothing else."""
        value, index = self.body.inputs[j], None
        for node in self.inside:
            for n, read in enumerate(node.inputs):
                if read is not value:
                    continue
                if not isinstance(node.op, ArrayRead) or n != 0 or index not in (
                    None, node.inputs[1]
                ):
                    return None
                index = node.inputs[1]
        if index not in self.carried or not step_of(self.op, self.carried.index(index)):
            return None
        return index

    def cleared_row(self, j: int, array: Value) -> Value:
        index = self.row_index(j)
        zero = zeros_like(emit(ArrayRead(), array, index))
        return emit(ArrayWrite(), array, index, zero)  # type: ignore[no-any-return]

    def row_of(self, outer: Value) -> Value:
        return emit(ArrayRead(), self.invariant(outer), self.index)  # type: ignore[no-any-return]

    def invariant(self, outer: Value) -> Value:
        """The input of the backward body that stands for a value from outside."""
        if outer not in self.invariants:
            self.invariants[outer] = new_input(outer.type)
        return self.invariants[outer]

    # ---- what the backward body reads of the forward body ---------------------------------------

    def closed(self, loop_inputs: Sequence[Value], outputs: Sequence[Value]) -> list[Value]:
        """``outputs`` with every forward value replaced by what the backward body has for it."""
        with building(Builder()):
            mapping = {v: self.value_of(v) for v in self.forward_values(outputs)}
        draft = Function("backward", loop_inputs, outputs)
        return list(substitute(draft, mapping).outputs)

    def forward_values(self, outputs: Sequence[Value]) -> list[Value]:
        """Values of the forward body that nodes of the backward body read."""
        found: dict[Value, None] = {}
        seen: set[Node] = set()
        inputs = set(self.body.inputs)
        stack = list(reversed(outputs))
        while stack:
            value = stack.pop()
            if value in inputs or value.node in self.inside:
                found[value] = None
            elif value.node not in seen:
                seen.add(value.node)
                stack.extend(reversed(value.node.inputs))
        return list(found)

    def value_of(self, value: Value) -> Value:
        """A forward value in the backward body: invariant, computed again, or saved."""
        known = self.known.get(value)
        if known is None:
            known = self.known[value] = self.made(value)
        return known

    def made(self, value: Value) -> Value:
        outer = self.outer.get(value)
        if outer is not None:
            return self.invariant(outer)
        if value in self.carried:
            k = self.carried.index(value)
            step = step_of(self.op, k)
            return self.save(value) if step is None else self.counted(k, step)
        node = value.node
        if isinstance(node.op, Constant):
            return value
        if self.is_cheap(node):
            again = node.replaced(inputs=tuple(self.value_of(v) for v in node.inputs))
            return again.outputs[value.index]
        return self.save(value)

    def counted(self, k: int, step: int) -> Value:
        """A carried counter in iteration t: start + t * step."""
        start = self.node.inputs[k]
        t: Any = self.index if start.dtype is self.index.dtype else cast(self.index, start.dtype)
        if step != 1:
            t = t * step
        known = start.node.op
        if isinstance(known, Constant) and not np.any(known.value):
            return t
        return self.invariant(start) + t  # type: ignore[operator, no-any-return]

    def is_cheap(self, node: Node) -> bool:
        """Whether to compute the node again: views, reads of invariant arrays, invariants."""
        if node.op.effect is not Effect.NONE or node.control_inputs:
            return False
        if isinstance(node.op, ArrayRead):
            return node.inputs[0] in self.outer
        if node.op.is_view or isinstance(node.op, Identity):
            return True
        if isinstance(node.op, (Pack, ConcatV2)) and node.types[0].dtype.is_integer:
            return True  # bounds and shapes, of which some elements are constants
        if isinstance(node.op, ControlOp):
            return False
        return all(self.is_invariant(v) for v in node.inputs)

    def is_invariant(self, value: Value) -> bool:
        if value in self.outer:
            return True
        if value in self.carried or value.node.op.effect is not Effect.NONE:
            return False
        if isinstance(value.node.op, ControlOp) or value.node.control_inputs:
            return False
        return all(self.is_invariant(v) for v in value.node.inputs)

    def save(self, value: Value) -> Value:
        if value not in self.saved:
            self.saved[value] = new_input(value.type.with_shape(None))
        return emit(ArrayRead(), self.saved[value], self.index)  # type: ignore[no-any-return]

    # ---- the two loops --------------------------------------------------------------------------

    def emit_loops(
        self, live: Sequence[int], summed: Sequence[int], loop_inputs: Sequence[Value],
        after: Sequence[Value],
    ) -> list[Value | None]:  # fmt: skip
        node, op = self.node, self.op
        n = op.n_carried
        rows = set(self.row_stacks())
        results, trips = self.emit_forward()
        first = len(op.saved) + n + (0 if op.counter else 1)
        stacks = dict(zip(self.saved, results[first:], strict=True))
        for value, stack in stacks.items():
            place = self.saved[value]
            place.node.types = (stack.type,)
        with building(Builder()):
            go_on = self.index >= constant(np.int32(0))  # type: ignore[operator]
            before = self.index - constant(np.int32(1))  # type: ignore[operator]
        constants = [*self.invariants.values(), *self.saved.values()]
        inputs = [*loop_inputs, *constants]
        backward = While(
            Function("backward_condition", inputs, [go_on]),
            Function("backward", inputs, [before, *after]),
            len(loop_inputs),
        )
        starts = [
            *[self.start_of(k) for k in live],
            *[
                emit(NewArrayLike(), node.inputs[j]) if j in rows else zeros_like(node.inputs[j])
                for j in summed
            ],
        ]
        found = outputs_of(
            emit(backward, trips - 1, *starts, *self.invariants, *stacks.values())
        )[1:]
        grads: list[Value | None] = [None] * len(node.inputs)
        for position, total in zip([*live, *summed], found, strict=False):
            grads[position] = total
        return grads

    def start_of(self, k: int) -> Value:
        total = self.totals[k]
        return zeros_like(self.node.outputs[k]) if total is None else total  # type: ignore[no-any-return]

    def emit_forward(self) -> tuple[Sequence[Value], Any]:
        """The loop again, with a counter and the saved values; merged with the original later."""
        op, body, node = self.op, self.body, self.node
        n = op.n_carried
        if op.counter:
            inputs, starts = list(body.inputs), list(node.inputs)
            outs, position = list(body.outputs[:n]), n - 1
        else:
            count = new_input(_INDEX)
            with building(Builder()):
                more = count + constant(np.int32(1))  # type: ignore[operator]
            inputs = [*body.inputs[:n], count, *body.inputs[n:]]
            starts = [*node.inputs[:n], constant(np.int32(0)), *node.inputs[n:]]
            outs, position = [*body.outputs[:n], more], n
        forward = replace(
            op, counter=True, n_carried=len(outs),
            extent=new_extent("iterations") if op.extent is None else op.extent,
            cond=Function(op.cond.name, _like(op.cond, inputs, n, op.counter), op.cond.outputs),
            body=Function(body.name, inputs, [*outs, *op.saved, *self.saved]),
        )  # fmt: skip
        results = outputs_of(emit(forward, *starts))
        return results, results[position]


def _like(cond: Function, inputs: Sequence[Value], n: int, same: bool) -> list[Value]:
    """The condition's inputs with the counter's among them."""
    if same:
        return list(cond.inputs)
    return [*cond.inputs[:n], inputs[n], *cond.inputs[n:]]


def _reached(outputs: Sequence[Value], inputs: Sequence[Value]) -> set[Value]:
    """Inputs that differentiable paths lead to."""
    stops, found, seen = set(inputs), set(), set()
    stack = [v for v in outputs if v.dtype.is_floating]
    while stack:
        value = stack.pop()
        if value in stops:
            found.add(value)
            continue
        node = value.node
        if node in seen or reverse.why_not_differentiable(node.op) is not None:
            continue
        seen.add(node)
        stack.extend(v for v in node.inputs if v.dtype.is_floating)
    return found


def _check_repeatable(node: Node) -> None:
    """Loops and branches inside a body run again backwards: they must do the same again."""
    if not isinstance(node.op, ControlOp):
        return
    for fn in node.op.functions:
        for one in ancestors([v.node for v in fn.outputs], stop=fn.inputs):
            if _calls_python(one):
                raise _called_twice(one)
            if one.op.effect in (Effect.RANDOM, Effect.WRITE):
                raise Unsupported(
                    f"gradients: {one.op.type_name} in a loop or branch inside a while_loop",
                    expected="an inner loop or branch without random numbers and assignments",
                    source=one.source,
                    hint="draw the numbers in the outer body and use them in the inner one",
                )
            _check_repeatable(one)


def _calls_python(node: Node) -> bool:
    """Whether it runs the user's Python; what only tells sizes may run again."""
    return node.op.effect is Effect.HOST and not hasattr(node.op, "tells_shapes")


def _called_twice(node: Node) -> Unsupported:
    return Unsupported(
        f"gradients: {node.op.type_name} '{node.name}' in a branch, or in a loop or branch inside "
        "a while_loop: the gradient would call Python again",
        expected="Python functions in the outermost body of a while_loop, or outside",
        source=node.source,
        hint="call it outside and use its result inside, or stop_gradient what comes out",
    )


__all__ = ["if_vjp", "vjp"]
