"""What a step does and where its values live: kernels and host calls in order, and a memory plan.

Main type: ``Plan`` (shared by all sessions); main function: ``make_plan``. May import core, ir,
ops, passes, schedule and compile.gangs, loops, rows, seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinyflow.compile import seen
from tinyflow.compile.gangs import Gang, form_gangs
from tinyflow.compile.loops import (
    BranchAction,
    LoopAction,
    constants_of,
    is_new_and_open,
    kernels_in,
    may_stop,
    plan_control,
    reserved_of,
    steps_of,
)
from tinyflow.compile.rows import RowPlace, place_rows
from tinyflow.core import options
from tinyflow.core.garbage import without_collections
from tinyflow.core.shape import substituted
from tinyflow.ir.graph.nodes import Function, Input, Node, Value
from tinyflow.ops.counted import TruePositions
from tinyflow.ops.tensor_array import NewArray
from tinyflow.passes.fusion import Group, Grouping, fuse_groups, in_memory
from tinyflow.passes.loops import order_arrays
from tinyflow.passes.plan_memory import MemoryPlan, Place, Use, plan_memory
from tinyflow.schedule.lowering import LoweredKernel, rebound, value_at
from tinyflow.schedule.targets import Target, current_target


@dataclass(eq=False)
class HostCall:
    """A node that runs in Python between native segments."""

    node: Node


@dataclass(eq=False)
class CopyKernel:
    """Bytes from one slot to another at the end of a step."""

    source: Any
    target: Any
    size_bytes: int


Action = LoweredKernel | HostCall | CopyKernel | RowPlace | LoopAction | BranchAction | Gang


@dataclass(eq=False)
class Plan:
    """Everything about a step that does not depend on a session.

    actions: kernels and host calls in order, then the copies.
    fetches: per output of the function a position in the list of result arrays, or the feed's,
    constant's or variable's value it simply is.   sizes: of the extents that types have symbols
    for (see compile.symbolic).
    """

    fn: Function
    grouping: Grouping
    target: Target
    actions: list[Action]
    memory: MemoryPlan
    results: list[Value]
    constants: dict[Value, np.ndarray[Any, Any]] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)

    def shape_of(self, value: Value) -> tuple[int, ...]:
        """The value's shape, in numbers."""
        shape = value.type.shape
        return substituted(shape, self.sizes) if self.sizes else shape  # type: ignore[no-any-return, return-value]

    def bytes_of(self, value: Any) -> int:
        """Bytes of a value or of scratch memory."""
        size = value.type.size_bytes if isinstance(value, Value) else value.size_bytes
        return value_at(size, self.sizes)

    @property
    def kernels(self) -> list[LoweredKernel]:
        return kernels_in(self.actions, LoweredKernel)

    @property
    def full(self) -> Plan:
        """The plan with all that there is to be seen; see compile.step_cache."""
        return self


@without_collections
def make_plan(
    fn: Function, fuse: bool = True, target: Target | None = None, gangs: bool = True
) -> Plan:
    """Groups, kernels and memory for an optimised function with static types.

    gangs: whether small independent kernels may run at the same time (not in bodies of loops, whose
    kernels stand in the list of the step). The first ``len(fn.outputs) - len(fn.updates)`` outputs
    are fetches, the rest new values of variables.
    """
    if target is None:
        target = current_target()
    fn = order_arrays(fn)
    grouping = fuse_groups(fn, fuse)
    actions: list[Action] = []
    reserved: dict[Any, Place] = {}
    inner_constants: dict[Value, np.ndarray[Any, Any]] = {}
    uses: list[Use] = []
    kernel_of: dict[int, LoweredKernel] = {}
    views: dict[Value, Value] = {}
    known: dict[Any, Any] = {}
    for group in grouping.groups:
        if group.kind == "view":
            item = group.items[0]
            views[item.value] = item.reads[0][0]
        elif group.kind == "host":
            node = group.items[0].value.node
            actions.append(HostCall(node))
            uses.append(Use(node.inputs, node.outputs))
        elif group.kind == "control":
            node = group.items[0].value.node
            inner = [make_plan(f, fuse, target, gangs=False) for f in steps_of(node)]
            control, use = plan_control(node, inner, views)
            actions.append(control)
            uses.append(use)
            reserved.update(reserved_of(control))
            inner_constants.update(constants_of(control))
        elif isinstance(group.items[0].value.node.op, NewArray):
            value = group.items[0].value
            uses.append(Use((), (value,)))
            if is_new_and_open(value):
                reserved[value] = Place("reserved", value)
        else:
            node = group.items[0].value.node
            empty = empty_results(grouping, group)
            uses += [Use((), empty)] if empty else []
            if not _is_computed(grouping, group):
                continue
            if hasattr(node.op, "starts_from"):
                old, new = node.inputs[node.op.starts_from], node.outputs[0]
                actions.append(CopyKernel(old, new, new.type.size_bytes))
                uses.append(Use((old,), (new,), ((old, new),)))
            for lowered in _lowered(grouping, group, target, fuse, known):
                actions.append(lowered)
                kernel_of[len(uses)] = lowered
                uses.append(use_of(lowered))
            if getattr(node.op, "updates_in_place", False):
                views[node.outputs[0]] = node.inputs[0]
                uses[-1] = Use(node.inputs, (), may_stop=may_stop(node))
                kernel_of.clear()  # nothing moves past what changes an array
    if fuse and gangs and not _saves_memory(fn):
        actions, uses = form_gangs(fn, actions, uses, kernel_of, views)
    actions, uses, rows = place_rows(fn, actions, uses, views, made_by)
    fixed, constants = fixed_places(fn, uses, views)
    fixed.update(reserved)
    fixed.update(rows)
    constants.update(inner_constants)
    split = len(fn.outputs) - len(fn.updates)
    results = list(dict.fromkeys(fn.outputs[:split]))
    memory = plan_memory(
        uses,
        fixed,
        views,
        [(n, v) for n, v in enumerate(results)],
        [(key, fn.outputs[n]) for key, n in fn.updates.items()],
    )
    place_views(memory, views)
    actions = [a for a in actions if not moves_nothing(a, memory)]
    actions += [CopyKernel(c.source, c.target, c.size_bytes) for c in memory.copies if c.size_bytes]
    return Plan(fn, grouping, target, actions, memory, results, constants)


def _saves_memory(fn: Function) -> bool:
    """Whether memory was asked to come before time: kernels side by side keep more alive."""
    return bool(options.current().memory_budget) or any(
        node.op.type_name == "Again" for node in fn.nodes
    )


def _lowered(
    grouping: Grouping, group: Group, target: Target, fuse: bool, known: dict[Any, Any]
) -> list[LoweredKernel]:
    """The group's kernels; repeated layers are scheduled once, and by one process once."""
    key, external, results = grouping.signature(group)
    found = known.get(key)
    if found is None:

        def lower() -> list[LoweredKernel]:
            # Schedules are imported when a group is new: most processes know all of theirs.
            from tinyflow.schedule.auto import lower_group

            return lower_group(grouping, group, target, generic=not fuse)

        kernels = seen.kernels_of(key, group, external + results, target, fuse, lower)
        known[key] = kernels, external, results
        return kernels
    kernels, old_external, old_results = found
    change = dict(zip(old_external + old_results, external + results, strict=True))
    return rebound(kernels, group, change)


def moves_nothing(action: Any, memory: MemoryPlan) -> bool:
    """A copy onto itself: the result took over its input's memory."""
    if not isinstance(action, CopyKernel):
        return False
    places = memory.places
    return action.size_bytes == 0 or places.get(action.source) == places.get(action.target)


def empty_results(
    grouping: Grouping, group: Group, sizes: Mapping[str, int] | None = None
) -> tuple[Value, ...]:
    """The group's results without elements: no kernel need touch them, and yet they have a place,
    which views and readers ask for. sizes: the run's extents, where types have symbols for them.
    """
    found = [i.value for i in grouping.results(group)]
    return tuple([v for v in found if not value_at(v.type.size, sizes or {})])


def _is_computed(grouping: Grouping, group: Group) -> bool:
    """Whether there is something to compute, or an error to report."""
    if group.kind == "loops" and not isinstance(group.items[0].value.node.op, TruePositions):
        return True
    return any(i.value.type.size != 0 for i in grouping.results(group))


def use_of(lowered: LoweredKernel) -> Use:
    """What a kernel reads and writes, for the memory plan."""
    reads, writes = [], []
    for buffer, argument in zip(lowered.kernel.buffers, lowered.arguments, strict=True):
        if argument is None:
            continue
        if buffer.name in lowered.kernel.outputs:
            writes.append(argument)
        else:
            reads.append(argument)
    items = lowered.group.items if lowered.group is not None else ()
    stops = any(may_stop(item.value.node) for item in items)
    return Use(tuple(reads), tuple(writes), lowered.in_place, stops)


def made_by(action: Any) -> tuple[Any, ...]:
    """What a kernel writes; nothing for other actions."""
    return use_of(action).writes if isinstance(action, LoweredKernel) else ()


def fixed_places(
    fn: Function, uses: Sequence[Use], views: dict[Value, Value]
) -> tuple[dict[Any, Place], dict[Value, np.ndarray[Any, Any]]]:
    fixed: dict[Any, Place] = {}
    constants: dict[Value, np.ndarray[Any, Any]] = {}
    for value in fn.inputs:
        op = value.node.op
        assert isinstance(op, Input)
        role = "feed" if op.role == "argument" else op.role
        fixed[value] = Place(role, value if op.key is None else op.key)
    needed = [v for use in uses for v in use.reads if isinstance(v, Value)]
    for value in [*needed, *views.values(), *fn.outputs]:
        node = value.node
        if value not in fixed and in_memory(node):
            array = np.ascontiguousarray(node.op.reference())
            constants[value] = array
            fixed[value] = Place("constant", value)
    return fixed, constants


def place_views(memory: MemoryPlan, views: dict[Value, Value]) -> None:
    for value in views:
        root = value
        while root in views:
            root = views[root]
        if root in memory.places:
            memory.places[value] = memory.places[root]
