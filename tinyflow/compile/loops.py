"""Loops and branches of a step: their bodies are planned as steps of their own, then laid out flat.

Main types: ``LoopAction``, ``BranchAction``; main functions: ``steps_of``,
``plan_control``, ``lay_out``. May import core, ir, ops and passes; the callers plan the steps.

The body of a loop is a step whose variables are the carried values: the memory plan updates them in
place and copies only what it must. The condition is computed at the end of the body (once more
before the loop, unless the number of iterations is known), so an iteration is the body's kernels
and one conditional jump in the launch list. All bodies share the arena of the step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tinyflow.compile.gangs import Gang
from tinyflow.core.shape import Dim
from tinyflow.ir.graph.nodes import Function, Input, Node, Value
from tinyflow.ir.graph.visit import substitute
from tinyflow.ops.control import ControlOp, If, While
from tinyflow.ops.tensor_array import NewArray
from tinyflow.passes.control import is_open, trip_count
from tinyflow.passes.loops import CarriedSlot, body_with_condition
from tinyflow.passes.plan_memory import Between, Place, Use


@dataclass(eq=False)
class SubPlan:
    """A sub-function's plan. fetches: where its results go, by number of the result.

    feeds: input of the sub-function -> value of the caller.
    """

    plan: Any
    feeds: dict[Value, Value]
    fetches: list[Any]


@dataclass(eq=False)
class LoopAction:
    """start: computes the first condition (None: the loop runs at least once)."""

    node: Node
    start: SubPlan | None
    body: SubPlan
    flag: Between
    arena: Between

    @property
    def parts(self) -> tuple[SubPlan, ...]:
        return (self.body,) if self.start is None else (self.start, self.body)


@dataclass(eq=False)
class BranchAction:
    """Runs ``then`` or ``orelse``; copies: (place of a result, another result that equals it)."""

    node: Node
    then: SubPlan
    orelse: SubPlan
    arena: Between
    copies: tuple[list[Any], list[Any]]

    @property
    def parts(self) -> tuple[SubPlan, ...]:
        return self.then, self.orelse


@dataclass(frozen=True)
class Jump:
    """Go to record ``target`` if the bool at ``flag`` is ``when``; always if ``flag`` is None."""

    flag: Place | None
    when: bool
    target: int


# ---- planning -----------------------------------------------------------------------------------


def steps_of(node: Node) -> tuple[Function, ...]:
    """The steps of their own that an ``If`` or ``While`` is made of: the two branches, or the body
    and, where the loop may not run at all, the first condition."""
    op = node.op
    if isinstance(op, If):
        return tuple([_with_feeds(branch, 0) for branch in op.functions])
    assert isinstance(op, While)
    n = op.n_carried
    whole = body_with_condition(op)
    fn = _with_feeds(whole, n)
    body = Function(
        whole.name, fn.inputs, [fn.outputs[n], *fn.outputs[:n]],
        {CarriedSlot(k): 1 + k for k in range(n)},
    )  # fmt: skip
    trips = trip_count(op, node.inputs)
    if trips is not None and trips.exact and not isinstance(trips.bound, Dim) and trips.bound > 0:
        return (body,)
    return body, _with_feeds(op.cond, 0)


def plan_control(
    node: Node, plans: Sequence[Any], views: dict[Value, Value]
) -> tuple[LoopAction | BranchAction, Use]:
    """The action of an ``If`` or ``While``, and what it does to memory.

    plans: of its ``steps_of``.
    """
    if isinstance(node.op, If):
        return _plan_branch(node, plans)
    return _plan_loop(node, plans, views)


def _plan_loop(
    node: Node, plans: Sequence[Any], views: dict[Value, Value]
) -> tuple[LoopAction, Use]:
    op: While = node.op  # type: ignore[assignment]
    flag = Between(8)
    parts = [
        SubPlan(plan, dict(zip(plan.fn.inputs, node.inputs, strict=True)), [flag]) for plan in plans
    ]
    body, start = parts[0], parts[1] if len(parts) > 1 else None
    arena = Between(max(64, *[p.memory.arena_bytes for p in plans]))
    pairs_of_values = zip(node.inputs, node.outputs, strict=False)
    views.update({a: b for b, a in pairs_of_values if is_new_and_open(b)})
    pairs = _own_inputs(node, op.n_carried, views)
    use = Use(node.inputs, (*node.outputs, flag, arena), pairs, may_stop(node))
    return LoopAction(node, start, body, flag, arena), use


def may_stop(node: Node) -> bool:
    """Whether a run may find, at this node, that the step has to be compiled in another way."""
    if getattr(node.op, "assumes_inside", False):
        return True
    inner = node.op.functions if isinstance(node.op, ControlOp) else ()
    return any(may_stop(n) for fn in inner for n in fn.nodes)


def is_new_and_open(array: Value) -> bool:
    """Whether this is an array of saved values of an unknown number of rows."""
    return isinstance(array.node.op, NewArray) and is_open(array.type)


def _own_inputs(node: Node, n: int, views: dict[Value, Value]) -> tuple[tuple[Any, Any], ...]:
    """(start, result) pairs that may share memory: starts that nothing else in the loop reads."""

    def root(value: Value) -> Value:
        while value in views:
            value = views[value]
        return value

    roots = [root(v) for v in node.inputs]
    return tuple(
        (node.inputs[k], node.outputs[k])
        for k in range(n)
        if roots.count(roots[k]) == 1 and node.outputs[k] not in views
    )


def _with_feeds(fn: Function, n: int) -> Function:
    """``fn`` with its first ``n`` inputs as variables of a step and the others as feeds."""
    fresh: dict[Value, Value] = {}
    for k, value in enumerate(fn.inputs):
        op = Input(value.type, "variable", CarriedSlot(k)) if k < n else Input(value.type, "feed")
        fresh[value] = Node(op, (), (value.type,), value.node.name).outputs[0]
    inside = substitute(fn, fresh)
    return Function(fn.name, [fresh[v] for v in fn.inputs], inside.outputs)


def _plan_branch(node: Node, plans: Sequence[Any]) -> tuple[BranchAction, Use]:
    parts, copies = [], []
    for plan in plans:
        fn = plan.fn
        fetches: list[Any] = [None] * len(plan.results)
        twins: list[Any] = []
        for own, value in zip(node.outputs, fn.outputs, strict=True):
            n = plan.results.index(value)
            if fetches[n] is None:
                fetches[n] = own
            else:
                twins.append((fetches[n], own))
        parts.append(SubPlan(plan, dict(zip(fn.inputs, node.inputs[1:], strict=True)), fetches))
        copies.append(twins)
    arena = Between(max(64, *[p.plan.memory.arena_bytes for p in parts]))
    use = Use(node.inputs, (*node.outputs, arena), may_stop=may_stop(node))
    return BranchAction(node, parts[0], parts[1], arena, (copies[0], copies[1])), use


def constants_of(action: LoopAction | BranchAction) -> dict[Value, Any]:
    found: dict[Value, Any] = {}
    for part in action.parts:
        found.update(part.plan.constants)
    return found


def reserved_of(action: LoopAction | BranchAction) -> dict[Any, Place]:
    """Arrays of unknown length inside, which keep their places whatever level they are on."""
    return {
        v: p
        for part in action.parts
        for v, p in part.plan.memory.places.items()
        if p.kind == "reserved"
    }


# ---- laying out ---------------------------------------------------------------------------------

PlaceOf = Callable[[Any], Place]


def lay_out(
    records: list[Any], action: LoopAction | BranchAction, place: PlaceOf, copy: Any
) -> None:
    """Appends the records of an action. copy(source, target, size) makes the action of a copy."""
    if isinstance(action, LoopAction):
        _lay_out_loop(records, action, place, copy)
    else:
        _lay_out_branch(records, action, place, copy)


def _lay_out_loop(records: list[Any], action: LoopAction, place: PlaceOf, copy: Any) -> None:
    node = action.node
    for before, after in zip(node.inputs, node.outputs, strict=False):
        source, target = place(before), place(after)
        if source != target and not isinstance(before.node.op, NewArray) and after.type.size:
            records.append((copy(before, after, after.type.size_bytes), place))
    flag, leave = place(action.flag), None
    if action.start is not None:
        _lay_out_part(records, action, action.start, place, copy)
        leave = len(records)
        records.append(None)
    again = len(records)
    _lay_out_part(records, action, action.body, place, copy)
    records.append(Jump(flag, True, again))
    if leave is not None:
        records[leave] = Jump(flag, False, len(records))


def _lay_out_branch(records: list[Any], action: BranchAction, place: PlaceOf, copy: Any) -> None:
    other = len(records)
    records.append(None)
    leave = 0
    for part, twins in zip(action.parts, action.copies, strict=True):
        if part is action.orelse:
            leave = len(records)
            records.append(None)
            records[other] = Jump(place(action.node.inputs[0]), False, len(records))
        _lay_out_part(records, action, part, place, copy)
        for source, target in twins:
            if target.type.size:
                records.append((copy(source, target, target.type.size_bytes), place))
    records[leave] = Jump(None, True, len(records))


def _lay_out_part(
    records: list[Any], action: Any, part: SubPlan, outer: PlaceOf, copy: Any
) -> None:
    place = inner_places(action, part, outer)
    for one in part.plan.actions:
        if isinstance(one, (LoopAction, BranchAction)):
            lay_out(records, one, place, copy)
        else:
            records.append((one, place))


def inner_places(action: Any, part: SubPlan, outer: PlaceOf) -> PlaceOf:
    """Where the values of a sub-function live, in places of the whole step."""
    base = outer(action.arena).key
    own = part.plan.memory.places

    def place(value: Any) -> Place:
        found: Place = value if isinstance(value, Place) else own[value]
        if found.kind == "arena":
            return Place("arena", base + found.key)
        if found.kind == "feed":
            return outer(part.feeds[found.key])
        if found.kind == "variable":
            return outer(action.node.outputs[found.key.k])
        if found.kind == "fetch":
            return outer(part.fetches[found.key])
        return found

    return place


def kernels_in(actions: Sequence[Any], kind: type) -> list[Any]:
    """All kernels, those of loops and branches included, in the order of the records."""
    found: list[Any] = []
    for one in actions:
        if isinstance(one, (LoopAction, BranchAction)):
            for part in one.parts:
                found += kernels_in(part.plan.actions, kind)
        elif isinstance(one, Gang):
            found += [k for k in one.members if isinstance(k, kind)]
        elif isinstance(one, kind):
            found.append(one)
    return found
