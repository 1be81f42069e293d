"""An executable step: native segments, the host calls between them, and their memory.

Main types: ``Plan`` (what to run and where values live; shared), ``Program`` (one plan bound to
memory of its own). May import core, ir, passes, schedule, codegen and runtime.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinyflow.compile import seen
from tinyflow.compile.gangs import Gang, form_gangs
from tinyflow.compile.kernels import kernel_address
from tinyflow.compile.loops import (
    BranchAction,
    Jump,
    LoopAction,
    constants_of,
    is_new_and_open,
    kernels_in,
    lay_out,
    may_stop,
    plan_control,
    reserved_of,
    steps_of,
)
from tinyflow.core import options
from tinyflow.core.dtype import uint8
from tinyflow.core.error import InternalError, InvalidArgumentError, ShorterSlice
from tinyflow.core.garbage import without_collections
from tinyflow.core.shape import substituted
from tinyflow.ir.graph.nodes import Function, Input, Node, Value
from tinyflow.ir.loop.nodes import SERIAL, For, Kernel, Store
from tinyflow.ir.loop.nodes import Buffer as LoopBuffer
from tinyflow.ir.scalar import nodes as s
from tinyflow.ops.counted import TruePositions
from tinyflow.ops.tensor_array import NewArray
from tinyflow.passes.fusion import Group, Grouping, fuse_groups, in_memory
from tinyflow.passes.loops import order_arrays
from tinyflow.passes.plan_memory import MemoryPlan, Place, Use, plan_memory
from tinyflow.runtime.arena import Arena, Shelf
from tinyflow.runtime.array_address import address_of
from tinyflow.runtime.launch_list import Launch, LaunchList, ProfileRecord
from tinyflow.runtime.reserved import Reserved, reserve
from tinyflow.runtime.result_memory import result_empty
from tinyflow.runtime.thread_pool import ThreadPool, default_pool, set_num_threads
from tinyflow.schedule.lowering import LoweredKernel, rebound, value_at
from tinyflow.schedule.targets import Target, host_target


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
    actions: list[LoweredKernel | HostCall | CopyKernel | LoopAction | BranchAction | Gang]
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
        target = host_target().with_lanes(options.current().lanes)
    fn = order_arrays(fn)
    grouping = fuse_groups(fn, fuse)
    actions: list[LoweredKernel | HostCall | CopyKernel | LoopAction | BranchAction | Gang] = []
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
    fixed, constants = fixed_places(fn, uses, views)
    fixed.update(reserved)
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


_COPY_BLOCK = 1 << 16


@functools.cache
def copy_address(target: Target) -> int:
    """Native code of the one kernel that serves every copy."""
    return seen.address_of_fixed("copy", copy_kernel, target)


def copy_kernel() -> Kernel:
    """out[0:n] = in[0:n], bytes; n is an argument: one kernel serves every copy."""
    from tinyflow.schedule.schedule import Schedule

    n, i = s.var("n"), s.var("i")
    source = LoopBuffer("in0", uint8, (n,))
    target = LoopBuffer("out0", uint8, (n,))
    store = Store(target, (i,), s.load(source, i))
    schedule = Schedule((For(i, n, SERIAL, (store,)),))
    outer, inner = schedule.block("i", _COPY_BLOCK)
    schedule.vectorize(inner, 64)
    schedule.parallel(outer)
    tasks = (n + (_COPY_BLOCK - 1)) // _COPY_BLOCK
    return Kernel("copy", (source, target), (n,), schedule.body, ("out0",), tasks)


class Program:
    """A plan with memory: call ``run(feeds)``.

    store: the session's variables (None when the function has none).   arena, reserved: memory that
    programs which never run at once may share; the latter by the value that it is for.
    native_calls: foreign calls made so far; ``profile`` and ``record`` give times per kernel.
    """

    def __init__(
        self, plan: Plan, store: Any = None, arena: Arena | None = None,
        reserved: dict[Any, Reserved] | None = None,
    ) -> None:  # fmt: skip
        self.plan = plan
        self.store = store
        needed = max(plan.memory.arena_bytes, 64)
        self.arena = Arena(needed) if arena is None or arena.size_bytes < needed else arena
        self._reserved = {} if reserved is None else reserved
        self._slot_of: dict[Any, int] = {}
        self._slots: list[Any] = [None]  # slot 0 is the status record
        self._keep: list[Any] = []
        self.pool = _pool()
        self.segments: list[Any] = []
        self._launch_sources: list[list[LoweredKernel | CopyKernel]] = []
        self._build_segments()
        fn = plan.fn
        self.feed_values = [v for v in fn.inputs if _role(v) in ("feed", "argument")]
        self.counters = [v.node.op.key for v in fn.inputs if _role(v) == "counter"]  # type: ignore[attr-defined]
        self.reads = [v.node.op.key for v in fn.inputs if _role(v) == "variable"]  # type: ignore[attr-defined]
        self.updates = list(fn.updates)
        self._fetch_types: list[tuple[Any, Any]] = [
            (plan.shape_of(v), v.dtype.numpy) for v in plan.results
        ]
        split = len(fn.outputs) - len(fn.updates)
        self._positions = [plan.results.index(v) for v in fn.outputs[:split]]
        self._bind_static()
        self._generation = -1
        self._marked = False

    # ---- building ------------------------------------------------------------------------------
    def _slot(self, place: Any) -> int:
        found = self._slot_of.get(place)
        if found is None:
            found = self._slot_of[place] = len(self._slots)
            self._slots.append(place)
        return found

    def _place(self, value: Any) -> Any:
        if isinstance(value, Place):
            return value
        return self.plan.memory.places[value]

    def _build_segments(self) -> None:
        batch: list[Launch] = []
        sources: list[Any] = []
        pending: list[tuple[list[Launch], list[Any]]] = []
        for action in self.plan.actions:
            if isinstance(action, HostCall):
                if batch:
                    pending.append((batch, sources))
                    self.segments.append(len(pending) - 1)
                    batch, sources = [], []
                self.segments.append(action)
                for value in (*action.node.inputs, *action.node.outputs):
                    if value in self.plan.memory.places:
                        self._slot(self._place(value))
            elif isinstance(action, (LoopAction, BranchAction)):
                self._lay_out(action, batch, sources)
            elif isinstance(action, Gang):
                members = [self._launch(one) for one in action.members]
                after = len(batch) + 2 + len(members)
                batch += [Launch.gang(len(members)), Launch.jump(after, (), True), *members]
                sources += [None, None, *action.members]
            else:
                batch.append(self._launch(action))
                sources.append(action)
        if batch:
            pending.append((batch, sources))
            self.segments.append(len(pending) - 1)
        for place in self.plan.memory.places.values():
            if place.kind != "arena":
                self._slot(place)
        lists = [LaunchList(b, len(self._slots), self.pool) for b, _ in pending]
        self._launch_sources = [srcs for _, srcs in pending]
        self.segments = [lists[x] if isinstance(x, int) else x for x in self.segments]
        self.launch_lists = lists

    def _lay_out(self, action: Any, batch: list[Launch], sources: list[Any]) -> None:
        """A loop or branch as kernels and jumps."""
        records: list[Any] = [None] * len(batch)  # jumps count from the segment's start
        lay_out(records, action, self._place, CopyKernel)
        for record in records[len(batch) :]:
            if isinstance(record, Jump):
                slots = () if record.flag is None else (self._slot(record.flag),)
                batch.append(Launch.jump(record.target, slots, record.when))
                sources.append(None)
            else:
                batch.append(self._launch(record[0], record[1]))
                sources.append(record[0])

    def _launch(self, action: LoweredKernel | CopyKernel, place: Any = None) -> Launch:
        place = place or self._place
        if isinstance(action, CopyKernel):
            address = copy_address(self.plan.target)
            size = value_at(action.size_bytes, self.plan.sizes)
            tasks = -(-size // _COPY_BLOCK)
            slots = (self._slot(place(action.source)), self._slot(place(action.target)))
            return Launch(address, tasks, 4, slots, (size,), "copy", "",
                          0, 2 * size)  # fmt: skip
        kernel = action.kernel
        arguments = tuple(
            0 if a is None else self._slot(place(a)) for a in action.arguments
        )
        source = " ".join(dict.fromkeys(str(p) for p in kernel.sources))
        known = action.addresses.get(self.plan.target)
        address = kernel_address(kernel, self.plan.target) if known is None else known
        action.addresses[self.plan.target] = address
        return Launch(
            address, action.tasks, max(1, action.chunk),
            arguments, action.extents, kernel.name, source, action.flops, action.bytes,
            serial=action.chunk == 0 or self.pool is None,
        )  # fmt: skip

    def _bind_static(self) -> None:
        """Addresses that never change: arena, constants, counters."""
        shelf = Shelf()
        for slot, place in enumerate(self._slots):
            if place is None:
                continue
            if place.kind == "arena":
                self._set(slot, self.arena.address + place.key)
            elif place.kind == "constant":
                array = self.plan.constants[place.key]
                copy = shelf.empty(array.shape, array.dtype)
                copy[...] = array
                self._keep.append(copy)
                self._set(slot, copy.ctypes.data)
            elif place.kind == "counter":
                self._set(slot, self.store.counter(place.key).ctypes.data)
            elif place.kind == "reserved":
                self._set(slot, self._reserve(place.key).address)
        values = {v: n for n, v in enumerate(self.feed_values)}
        self._feed_slots = [
            (values[v], self._slot_of[p])
            for v, p in self.plan.memory.places.items()
            if p.kind == "feed" and p in self._slot_of and v in values
        ]
        self._fetch_slots = [
            self._slot_of.get(Place("fetch", n)) for n in range(len(self.plan.results))
        ]
        self._initialized_slots = [
            (p.key, slot) for p, slot in self._slot_of.items() if p.kind == "initialized"
        ]
        self._tables = [x.table for x in self.launch_lists]

    def _reserve(self, value: Value) -> Reserved:
        needed = self.plan.bytes_of(value)
        memory = self._reserved.get(value)
        if memory is None or memory.size_bytes < needed:
            memory = self._reserved[value] = reserve(needed)
        self._keep.append(memory)
        return memory

    def _set(self, slot: int, address: int) -> None:
        for lst in self.launch_lists:
            lst.table[slot] = address

    def bind_variables(self) -> None:
        """Look up where the store keeps the variables (again, after one moved)."""
        for place, slot in self._slot_of.items():
            if place.kind == "variable":
                self._set(slot, self.store.array(place.key).ctypes.data)
        self._generation = self.store.generation

    # ---- running -------------------------------------------------------------------------------
    def run(
        self, feeds: Sequence[np.ndarray[Any, Any]], advance: bool = True
    ) -> list[np.ndarray[Any, Any]]:
        """Result arrays, one per fetch; fresh memory that the caller owns.

        feeds: C-contiguous arrays of exactly the declared types, one per feed input.
        advance: whether this ends a step: random counters move on.
        """
        store = self.store
        if store is not None and self._generation != store.generation:
            self.bind_variables()
        tables = self._tables
        for position, slot in self._feed_slots:
            address = address_of(feeds[position])
            for table in tables:
                table[slot] = address
        results = []
        for (shape, dtype), fetch_slot in zip(self._fetch_types, self._fetch_slots, strict=True):
            array = result_empty(shape, dtype)
            results.append(array)
            if fetch_slot is not None:
                address = address_of(array)
                for table in tables:
                    table[fetch_slot] = address
        if self._initialized_slots:
            self._bind_initialized()
        for segment in self.segments:
            if type(segment) is LaunchList:
                if segment.run():
                    self._raise_status(segment)
            else:
                self._call_host(segment, feeds, results)
        if advance:
            for key in self.counters:
                store.counter(key)[0] += 1
        if not self._marked:
            for ref in self.updates:
                store.mark_initialized(ref)
            self._marked = True
        if len(self._positions) == len(results):
            return results
        fresh = [True] * len(results)
        out = []
        for n in self._positions:  # the same value fetched twice: two arrays
            out.append(results[n] if fresh[n] else results[n].copy())
            fresh[n] = False
        return out

    def _bind_initialized(self) -> None:
        flags = [np.array([self.store.is_initialized(ref)]) for ref, _ in self._initialized_slots]
        self._flags = flags
        for flag, (_, slot) in zip(flags, self._initialized_slots, strict=True):
            self._set(slot, flag.ctypes.data)

    def _call_host(
        self, call: HostCall, feeds: Sequence[Any], results: Sequence[Any]
    ) -> None:
        node = call.node
        arguments = [np.array(self._array(v, feeds, results)) for v in node.inputs]
        returned = node.op.call_host(*arguments)  # type: ignore[attr-defined]
        for value, array in zip(node.outputs, returned or (), strict=False):
            if value in self.plan.memory.places:
                np.copyto(self._array(value, feeds, results), array, casting="no")

    def _array(self, value: Value, feeds: Sequence[Any], results: Sequence[Any]) -> Any:
        """The memory of a value as an array (a view)."""
        if value.node.op.type_name in ("Constant", "Setting"):
            return value.node.op.reference()
        place = self.plan.memory.places[value]
        shape, dtype = self.plan.shape_of(value), value.dtype.numpy
        if place.kind == "arena":
            return self.arena.view(place.key, shape, dtype)  # type: ignore[arg-type]
        if place.kind == "feed":
            (position,) = [p for p, slot in self._feed_slots if slot == self._slot_of[place]]
            return feeds[position].reshape(shape)
        if place.kind == "fetch":
            return results[place.key].reshape(shape)
        if place.kind == "variable":
            return self.store.array(place.key).reshape(shape)
        if place.kind == "counter":
            return self.store.counter(place.key).reshape(shape)
        if place.kind == "initialized":
            return np.array(self.store.is_initialized(place.key))
        raise InternalError(f"no array for {place}")

    def _raise_status(self, segment: LaunchList) -> None:
        """The error that a kernel reported, with the user's line."""
        status = segment.status
        action = self._launch_sources[self.launch_lists.index(segment)][status.launch_index]
        group = action.group if isinstance(action, LoweredKernel) else None
        nodes = [i.value.node for i in group.items] if group is not None else []
        raise kernel_error(status, nodes)

    @property
    def launch_actions(self) -> list[LoweredKernel | CopyKernel]:
        """What each native launch is, in the order of the launch lists; jumps are left out."""
        return [a for sources in self._launch_sources for a in sources if a is not None]

    # ---- looking inside ------------------------------------------------------------------------
    @property
    def native_calls(self) -> int:
        return sum(x.record().native_calls for x in self.launch_lists)

    def profile(self, enabled: bool) -> None:
        for segment in self.launch_lists:
            segment.profile(enabled)

    def record(self) -> list[ProfileRecord]:
        return [x.record() for x in self.launch_lists]


def kernel_error(status: Any, nodes: Sequence[Node]) -> InvalidArgumentError:
    """The user's error for a kernel's status record."""
    codes = {
        s.INDEX_OUT_OF_RANGE: (
            f"index {status.value} is out of range",
            f"indices in [0, {status.limit})",
            ("Gather", "Scatter", "TensorScatter", "OneHot", "Sparse", "DynamicSlice",
             "PlaceSlice", "SliceAdd"),
        ),
        s.DIVISION_BY_ZERO: ("integer division by zero", "a divisor other than 0",
                             ("FloorDiv", "FloorMod", "Div", "Truncate", "Mod")),
        s.NEGATIVE_EXPONENT: ("integers to negative integer powers are not allowed",
                              "exponents of 0 or more", ("Pow",)),
    }  # fmt: skip
    what, expected, names = codes.get(
        status.code, (f"a kernel reported status {status.code}", "", ())
    )
    node = next((n for n in nodes if n.op.type_name.startswith(names)), None) if names else None
    node = node or (nodes[-1] if nodes else None)
    if node is None:
        return InvalidArgumentError(what, expected=expected)
    stops = status.code == s.INDEX_OUT_OF_RANGE and any(map(may_stop, nodes))
    error = (ShorterSlice if stops else InvalidArgumentError)(
        f"{node.op.type_name} {node.name or ''}: {what}".replace(" :", ":"),
        expected=expected, source=node.source, sources=dict(node.origin) or None,
    )  # fmt: skip
    error.node = node
    return error


def _role(value: Value) -> str:
    return value.node.op.role  # type: ignore[attr-defined,no-any-return]


def _pool() -> ThreadPool | None:
    threads = options.current().threads
    if threads:
        set_num_threads(threads)
    return default_pool()
