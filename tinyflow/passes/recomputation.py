"""Copies of forward values next to their late readers: the rewrite behind rematerialisation.

Main types: ``Timeline``, ``Choice``; main function: ``with_copies``. May import core, ir, ops and
passes.fusion.

A step has a *turn*: up to it kernels compute what gradients will need, after it the gradients.
A value chosen to be *dropped* is computed again, by the same ops on the same inputs, for all that
reads it after the turn. Copies start from values that are in memory anyway, through ``Again``,
whose control input is the kernel that runs just before the first late reader.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tinyflow.ir.graph.nodes import Effect, Function, Input, Node, Value
from tinyflow.ir.graph.visit import map_controls, remap
from tinyflow.ops.recompute import Again
from tinyflow.passes.fusion import Grouping, fuse_groups
from tinyflow.passes.fusion.arrange import Traffic

#: Kinds of kernels that stay kernels whatever is fused: good for "after this one".
LASTING = ("dot", "row", "reduce", "attention", "loops")


@dataclass(eq=False)
class Timeline:
    """When each node of a function runs.

    position: node -> number of its kernel, -1 for what is there from the start.
    turn: the last kernel of the forward part.   traffic: what kernels read and make.
    """

    fn: Function
    grouping: Grouping
    traffic: Traffic
    position: dict[Node, int] = field(default_factory=dict)
    turn: int = 0

    def is_early(self, node: Node) -> bool:
        return self.position[node] <= self.turn

    def before(self, position: int) -> Node | None:
        """A node of the last lasting kernel that runs before ``position`` and after the turn."""
        groups = self.grouping.groups
        for n in range(position - 1, self.turn, -1):
            if groups[n].kind in LASTING:
                return groups[n].items[-1].value.node
        return groups[position - 1].items[-1].value.node if position > 0 else None


def timeline(fn: Function) -> Timeline:
    """Positions in the order that the plan will use."""
    grouping = fuse_groups(fn)
    made = Timeline(fn, grouping, Traffic(fn, grouping, grouping.groups))
    known = made.position
    for n, group in enumerate(grouping.groups):
        for item in group.items:
            known.setdefault(item.value.node, n)
    for node in fn.nodes:
        if node not in known:  # part of its readers' expressions
            known[node] = max((known[v.node] for v in node.inputs), default=-1)
    made.turn = _turn(made)
    return made


def is_gradient(node: Node) -> bool:
    return any(label == "gradient of" for label, _ in node.origin)


def _turn(line: Timeline) -> int:
    """The last kernel of what gradients read; -1 in a step without gradients."""
    behind: set[Node] = set()
    turn = -1
    for node in line.fn.nodes:
        if is_gradient(node) or any(v.node in behind for v in node.inputs):
            behind.add(node)
    for node in behind:
        if is_gradient(node):
            for value in node.inputs:
                if value.node not in behind:
                    turn = max(turn, line.position[value.node])
    return turn


def may_repeat(node: Node) -> bool:
    """Whether the node gives the same result whenever it runs."""
    op = node.op
    return not (
        isinstance(op, Input)
        or op.effect is not Effect.NONE
        or node.control_inputs
        or hasattr(op, "call_host")
        or hasattr(op, "is_control")
        or op.type_name in ("Constant", "NewArray", "NewArrayLike")
        or getattr(op, "updates_in_place", False)
    )


@dataclass(eq=False)
class Choice:
    """dropped: values to compute again.   is_kept: whether an early value stays in memory."""

    dropped: set[Value]
    is_kept: Callable[[Value], bool]


class _Copier:
    def __init__(self, line: Timeline, choice: Choice) -> None:
        self.line, self.choice = line, choice
        self.new: dict[Value, Value] = {}
        self.copies: dict[Node, Node] = {}
        self.starts: dict[tuple[Value, Node | None], Value] = {}
        self.behind_dropped = self._behind_dropped()

    def _behind_dropped(self) -> set[Node]:
        """Early nodes whose late readers need a copy."""
        found: set[Node] = set()
        for node in self.line.fn.nodes:
            if not self.line.is_early(node) or not may_repeat(node):
                continue
            if any(v in self.choice.dropped for v in node.outputs) or (
                not any(self.choice.is_kept(v) for v in node.outputs)
                and any(v.node in found for v in node.inputs)
            ):
                found.add(node)
        return found

    def run(self) -> Function:
        fn, position = self.line.fn, self.line.position
        order = sorted(enumerate(fn.nodes), key=lambda pair: (position[pair[1]], pair[0]))
        for _, node in order:
            if self.line.is_early(node):
                continue
            inputs = tuple([self.late(v, position[node]) for v in node.inputs])
            controls = map_controls(node.control_inputs, self.new)
            if inputs != node.inputs or controls is not node.control_inputs:
                changed = node.moved(inputs, controls)
                self.new.update(zip(node.outputs, changed.outputs, strict=True))
        return remap(fn, self.new) if self.new else fn

    def late(self, value: Value, position: int) -> Value:
        """What a late reader reads for ``value``."""
        if value.node in self.behind_dropped:
            return self.copy(value.node, position).outputs[value.index]
        return self.new.get(value, value)

    def copy(self, wanted: Node, position: int) -> Node:
        """The node again, with all it needs that is not in memory."""
        after = self.line.before(position)
        stack = [wanted]
        while stack:
            node = stack[-1]
            if node in self.copies:
                stack.pop()
                continue
            missing = [
                v.node for v in node.inputs if not self.is_start(v) and v.node not in self.copies
            ]
            if missing:
                stack += missing
                continue
            stack.pop()
            self.copies[node] = Node(
                node.op, tuple([self.source(v, after) for v in node.inputs]), node.types,
                node.name, (), node.device, node.source,
                (*(o for o in node.origin if not is_mark(o[0])), ("computed again", node.source)),
            )  # fmt: skip
        return self.copies[wanted]

    def is_start(self, value: Value) -> bool:
        """Whether copies read the value itself."""
        if not may_repeat(value.node):
            return True
        return value not in self.choice.dropped and self.choice.is_kept(value)

    def source(self, value: Value, after: Node | None) -> Value:
        if not self.is_start(value):
            return self.copies[value.node].outputs[value.index]
        if value.node.op.type_name == "Constant":
            return value
        if after is not None and after.outputs:
            after = self.new.get(after.outputs[0], after.outputs[0]).node
        found = self.starts.get((value, after))
        if found is None:
            node = Node(
                Again(), (value,), (value.type,), None, () if after is None else (after,),
                value.node.device, value.node.source, value.node.origin,
            )  # fmt: skip
            found = self.starts[value, after] = node.outputs[0]
        return found


MARK = "recompute "


def is_mark(label: str) -> bool:
    return label.startswith(MARK)


def with_copies(line: Timeline, choice: Choice) -> Function:
    """The function with every late reader of a dropped value reading a copy.

    before: a = Relu(x); ...; g = Mul(dy, a)
    after:  a = Relu(x); ...; b = Relu(Again(x, after dy)); g = Mul(dy, b)
    Same ops on the same inputs, so the same bits.
    """
    return _Copier(line, choice).run()


