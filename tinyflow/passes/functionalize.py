"""From the user's graph to a pure function: feeds and state become inputs and outputs.

Main function: ``functionalize(fetches, targets, feeds)``. May import core and ir.graph.

Before (graph)                              After (function)
  %0 = Placeholder                            %0 = Input {role="feed", key=<value x:0>}
  %1 = VariableRead {ref=<W>}                 %1 = Input {role="variable", key=<W>}
  %2 = Add(%1, %0)                            %2 = Add(%1, %0)
  %3 = Assign(%2) {ref=<W>}                   outputs %2;  updates <W> -> 0

State semantics. A read sees the value at the start of the step, unless a control or data edge
orders it after a write: then the latest such write. The writes to one variable form one chain, in
creation order (which is a topological order); a write that builds on the old value (assign_add)
uses the value after the previous write of the chain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tinyflow.core.dtype import bool_, uint64
from tinyflow.core.order import producers_first
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Effect, Function, Input, Node, TensorType, Value
from tinyflow.ir.graph.visit import result_values

#: an op without this method is pure and is taken over as it is
Hook = Callable[..., Any]


def functionalize(
    fetches: Sequence[Value],
    targets: Sequence[Node] = (),
    feeds: Sequence[Value] = (),
    name: str = "step",
) -> Function:
    """The pure function of a step that computes ``fetches`` and runs ``targets``.

    inputs: one "feed" per value of ``feeds`` (in order, whether needed or not), then "variable",
    "counter" and "initialized" inputs as they are needed.
    outputs: the fetches in order, then the new values of the written variables (``updates``).
    effects: the host calls, in creation order where control edges leave it open.
    The runtime advances a counter by one after each run; that is no output.
    Errors: InvalidArgumentError for a needed placeholder that is not fed.
    """
    feed_inputs = {value: _input(value.type, "feed", value, value.node) for value in feeds}
    order = _needed(fetches, targets, feed_inputs)
    state = _State(order)
    values: dict[Value, Value] = dict(feed_inputs)
    hosts = _HostOrder()
    with building(Builder()) as builder:
        for node in order:
            inputs = node.inputs
            for value in inputs:
                if value in values:
                    inputs = tuple([values.get(v, v) for v in inputs])
                    break
            state.enter(node)
            hook: Hook | None = getattr(node.op, "functionalize", None)
            if hook is not None:
                with builder.on_behalf_of(node.source, node.origin):
                    results: Sequence[Value] = result_values(hook(state, *inputs))
            else:
                results = _pure(node, inputs, hosts).outputs
            if results is not node.outputs:
                for old, new in zip(node.outputs, results, strict=False):
                    if old is not new:
                        values.setdefault(old, new)  # a fed value stays fed
            if hook is not None or hosts.frontier or node.op.effect is Effect.HOST:
                hosts.leave(node, results)
    outputs = [values.get(v, v) for v in fetches]
    updates = {}
    for ref, value in state.latest.items():
        updates[ref] = len(outputs)
        outputs.append(value)
    inputs_in_order = [*feed_inputs.values(), *state.inputs.values()]
    return Function(name, inputs_in_order, outputs, updates, hosts.nodes)


def _input(type_: TensorType, role: str, key: Any, like: Node | None) -> Value:
    name = getattr(key, "name", None) if like is None else like.name
    op = Input(type_, role, key)
    if like is None:
        source = getattr(key, "source", None)
        node = Node(op, (), (type_,), name) if source is None else Node(
            op, (), (type_,), name, source=source
        )
    else:
        node = Node(op, (), (type_,), name, source=like.source, origin=like.origin)
    return node.outputs[0]


def _needed(
    fetches: Sequence[Value], targets: Sequence[Node], fed: dict[Value, Value]
) -> list[Node]:
    """Nodes to run, cut at fed values; producers first, and in creation order where it is known."""

    def needs(node: Node) -> list[Node]:
        found = [value.node for value in node.inputs if value not in fed]
        return found + [c for c in node.control_inputs if not _all_fed(c, fed)]

    order = producers_first([*(v.node for v in fetches if v not in fed), *targets], needs)
    # A node can only be made after what it reads, so sorting by creation keeps the order legal;
    # control edges added later are the exception, and they keep the depth-first order.
    numbers = [getattr(node, "number", None) for node in order]
    if None not in numbers and _creation_is_topological(order):
        order.sort(key=lambda node: node.number)  # type: ignore[attr-defined]
    return order


def _all_fed(node: Node, fed: dict[Value, Value]) -> bool:
    """Whether a control edge leads to a node that does not run because its results are fed."""
    return bool(fed) and bool(node.outputs) and all(v in fed for v in node.outputs)


def _creation_is_topological(order: Sequence[Node]) -> bool:
    for node in order:
        number = node.number  # type: ignore[attr-defined]
        for control in node.control_inputs:
            if control.number > number:  # type: ignore[attr-defined]
                return False
    return True


class _State:
    """What a stateful op's ``functionalize`` may ask for; see the module's text for the semantics.

    node: the node that is being translated.
    """

    def __init__(self, order: Sequence[Node]) -> None:
        self.node: Node = order[0] if order else None  # type: ignore[assignment]
        self.latest: dict[Any, Value] = {}  # variable -> value after the last write so far
        self.inputs: dict[tuple[str, Any], Value] = {}
        self.writes: dict[Any, list[tuple[int, Value]]] = {}  # variable -> (bit, value) in order
        self.write_count = 0
        self.before: dict[Node, int] = {}  # node -> bit set of the writes it comes after
        self.tracked = any(node.op.effect is Effect.WRITE for node in order)
        self.mask = 0
        self.loops: dict[Any, list[Node]] = {}  # identity of a loop -> its forms, see ops.control
        self.merged: dict[Any, dict[Node, Sequence[Value]]] = {}
        for node in order:
            loop = getattr(node.op, "loop", None)
            if loop is not None:
                self.loops.setdefault(loop, []).append(node)
                self.tracked = True
            elif hasattr(node.op, "is_control"):
                self.tracked = True

    def enter(self, node: Node) -> None:
        self.node = node
        if not self.tracked:
            return
        mask, before = 0, self.before
        for value in node.inputs:
            mask |= before.get(value.node, 0)
        for control in node.control_inputs:
            mask |= before.get(control, 0)
        self.mask = mask
        if mask:
            before[node] = mask

    def read(self, ref: Any) -> Value:
        """The value of a variable as the current node sees it."""
        written = self.writes.get(ref)
        if written:
            if self.node.op.effect is Effect.WRITE or hasattr(self.node.op, "is_control"):
                return written[-1][1]
            for bit, value in reversed(written):
                if self.mask >> bit & 1:
                    return value
        return self._input("variable", ref, ref.type)

    def write(self, ref: Any, value: Value) -> None:
        """The next value of a variable."""
        bit = self.write_count
        self.write_count += 1
        self.writes.setdefault(ref, []).append((bit, value))
        self.latest[ref] = value
        self.mask |= 1 << bit
        self.before[self.node] = self.mask

    def counter(self, node: Any = None) -> Value:
        """uint64[]: how often the current (random) node has run before this step."""
        return self._input("counter", self.node, TensorType(uint64, ()))

    def counter_of(self, node: Node) -> Value:
        """As ``counter``, for a random node inside a sub-function of the current one."""
        return self._input("counter", node, TensorType(uint64, ()))

    def function(self, fn: Function) -> Function:
        """A sub-function as a pure one: its inputs are fed, state comes and goes as in a step."""
        return functionalize(fn.outputs, (), fn.inputs, fn.name)

    def initialized(self, ref: Any) -> Value:
        """bool[]: whether the variable has a value; true after a write that comes before."""
        written = self.writes.get(ref)
        if written and any(self.mask >> bit & 1 for bit, _ in written):
            from tinyflow.ops.creation import constant

            return constant(True, bool_)  # type: ignore[no-any-return]
        return self._input("initialized", ref, TensorType(bool_, ()))

    def _input(self, role: str, key: Any, type_: TensorType) -> Value:
        value = self.inputs.get((role, key))
        if value is None:
            like = key if isinstance(key, Node) else None
            value = self.inputs[role, key] = _input(type_, role, key, like)
        return value


class _HostOrder:
    """Keeps the host calls in the order that control edges ask for, through other nodes too."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []  # translated host nodes
        self.frontier: dict[Node, tuple[Node, ...]] = {}  # user's node -> host nodes before it

    def controls(self, node: Node) -> tuple[Node, ...]:
        """The translated host nodes that must run before ``node``."""
        if not self.frontier:
            return ()
        found: dict[Node, None] = {}
        for control in node.control_inputs:
            found.update(dict.fromkeys(self.frontier.get(control, ())))
        for value in node.inputs:
            found.update(dict.fromkeys(self.frontier.get(value.node, ())))
        return tuple(found)

    def leave(self, node: Node, results: Sequence[Value]) -> None:
        """Notes which host call ``node`` became: itself, or a loop or branch with calls inside."""
        made = next((v.node for v in results if v.node.op.effect is Effect.HOST), None)
        if node.op.effect is Effect.HOST:
            made = self.nodes[-1]
        controls = self.controls(node)
        if made is not None and made not in self.nodes:  # new, so nobody has seen it yet
            data_hosts = {v.node for v in made.inputs}
            made.control_inputs = tuple(c for c in controls if c not in data_hosts)
            self.nodes.append(made)
        if made is not None:
            self.frontier[node] = (made, *[c for c in controls if c is not made])
        elif controls:
            self.frontier[node] = controls


def _pure(node: Node, inputs: tuple[Value, ...], hosts: _HostOrder) -> Node:
    """The node on translated inputs, without control edges except those between host calls."""
    if node.op.effect is Effect.HOST:
        data_hosts = {v.node for v in inputs}
        controls = tuple(c for c in hosts.controls(node) if c not in data_hosts)
        node = node.moved(inputs, controls)
        hosts.nodes.append(node)
        return node
    if inputs is not node.inputs or node.control_inputs:
        return node.moved(inputs, ())
    return node
