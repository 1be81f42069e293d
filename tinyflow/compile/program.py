"""An executable step: native segments, the host calls between them, and their memory.

Main type: ``Program``, one plan bound to memory of its own. May import core, ir, passes, schedule,
codegen, runtime and compile.plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np

from tinyflow.compile.gangs import Gang
from tinyflow.compile.kernels import kernel_address
from tinyflow.compile.loops import BranchAction, Jump, LoopAction, lay_out, may_stop
from tinyflow.compile.plan import CopyKernel, HostCall, Plan
from tinyflow.compile.rows import RowPlace
from tinyflow.core import options
from tinyflow.core.error import InternalError, InvalidArgumentError, ShorterSlice
from tinyflow.ir.graph.nodes import Node, Value
from tinyflow.ir.scalar import nodes as s
from tinyflow.passes.plan_memory import Place
from tinyflow.runtime.arena import Arena, Shelf
from tinyflow.runtime.array_address import address_of
from tinyflow.runtime.driver_ir import COPY_BITS
from tinyflow.runtime.launch_list import Launch, LaunchList, ProfileRecord
from tinyflow.runtime.native import native_runtime
from tinyflow.runtime.reserved import Reserved, reserve
from tinyflow.runtime.result_memory import result_empty
from tinyflow.runtime.thread_pool import ThreadPool, default_pool, set_num_threads
from tinyflow.schedule.lowering import LoweredKernel, value_at


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
        self._plan = plan
        self.fn = plan.fn  # its inputs and updates; the nodes between are ``plan.fn``'s
        self.store = store
        needed = max(plan.memory.arena_bytes, 64)
        self.arena = Arena(needed) if arena is None or arena.size_bytes < needed else arena
        self._reserved = {} if reserved is None else reserved
        self._slot_of: dict[Any, int] = {}
        self._slots: list[Any] = [None]  # slot 0 is the status record
        self._keep: list[Any] = []
        self.pool = _pool()
        self.segments: list[Any] = []
        self._launch_sources: list[list[LoweredKernel | CopyKernel | RowPlace]] = []
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

    @property
    def plan(self) -> Plan:
        return self._plan.full

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
        return self._plan.memory.places[value]

    def _build_segments(self) -> None:
        batch: list[Launch] = []
        sources: list[Any] = []
        pending: list[tuple[list[Launch], list[Any]]] = []
        for action in self._plan.actions:
            if isinstance(action, HostCall):
                if batch:
                    pending.append((batch, sources))
                    self.segments.append(len(pending) - 1)
                    batch, sources = [], []
                self.segments.append(action)
                for value in (*action.node.inputs, *action.node.outputs):
                    if value in self._plan.memory.places:
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
        for place in self._plan.memory.places.values():
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

    def _launch(self, action: LoweredKernel | CopyKernel | RowPlace, place: Any = None) -> Launch:
        place = place or self._place
        if isinstance(action, RowPlace):
            return Launch.row(
                self._slot(action.place), self._slot(place(action.array)),
                self._slot(place(action.index)), self._plan.bytes_of(action.row),
                value_at(action.array.type.shape[0], self._plan.sizes),  # type: ignore[index]
                action.index.dtype.size_bytes, s.INDEX_OUT_OF_RANGE,
            )  # fmt: skip
        if isinstance(action, CopyKernel):
            address = native_runtime().addresses["copy_bytes"]
            size = value_at(action.size_bytes, self._plan.sizes)
            tasks = -(-size >> COPY_BITS)
            slots = (self._slot(place(action.source)), self._slot(place(action.target)))
            return Launch(address, tasks, 4, slots, (size,), "copy", "",
                          0, 2 * size)  # fmt: skip
        kernel = action.kernel
        arguments = tuple(
            0 if a is None else self._slot(place(a)) for a in action.arguments
        )
        source = " ".join(dict.fromkeys(str(p) for p in kernel.sources))
        known = action.addresses.get(self._plan.target)
        address = kernel_address(kernel, self._plan.target) if known is None else known
        action.addresses[self._plan.target] = address
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
                array = self._plan.constants[place.key]
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
            for v, p in self._plan.memory.places.items()
            if p.kind == "feed" and p in self._slot_of and v in values
        ]
        self._fetch_slots = [
            self._slot_of.get(Place("fetch", n)) for n in range(len(self._plan.results))
        ]
        self._initialized_slots = [
            (p.key, slot) for p, slot in self._slot_of.items() if p.kind == "initialized"
        ]
        self._tables = [x.table for x in self.launch_lists]

    def _reserve(self, value: Value) -> Reserved:
        needed = self._plan.bytes_of(value)
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
            if value in self._plan.memory.places:
                np.copyto(self._array(value, feeds, results), array, casting="no")

    def _array(self, value: Value, feeds: Sequence[Any], results: Sequence[Any]) -> Any:
        """The memory of a value as an array (a view)."""
        if value.node.op.type_name in ("Constant", "Setting"):
            return value.node.op.reference()
        place = self._plan.memory.places[value]
        shape, dtype = self._plan.shape_of(value), value.dtype.numpy
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
        status, number = segment.status, self.launch_lists.index(segment)
        earlier = [a for sources in self._launch_sources[:number] for a in sources]
        earlier += self._launch_sources[number][: status.launch_index]
        source = self._launch_sources[number][status.launch_index]
        if isinstance(source, RowPlace):
            raise kernel_error(status, [source.write])
        action = self.launch_actions[sum(map(_computes, earlier))]
        group = action.group if isinstance(action, LoweredKernel) else None
        nodes = [i.value.node for i in group.items] if group is not None else []
        raise kernel_error(status, nodes)

    @property
    def launch_actions(self) -> list[LoweredKernel | CopyKernel]:
        """What each native launch is, in the order of the launch lists; records that compute
        nothing are left out."""
        if self.plan is not self._plan:  # a list of kernels, without loops and host calls
            actions: list[Any] = self.plan.actions
            return [one for a in actions for one in getattr(a, "members", (a,))]
        return [a for sources in self._launch_sources for a in sources if _computes(a)]

    # ---- looking inside ------------------------------------------------------------------------
    @property
    def native_calls(self) -> int:
        return sum(x.record().native_calls for x in self.launch_lists)

    def profile(self, enabled: bool) -> None:
        for segment in self.launch_lists:
            segment.profile(enabled)

    def record(self) -> list[ProfileRecord]:
        return [x.record() for x in self.launch_lists]


def _computes(action: Any) -> TypeGuard[LoweredKernel | CopyKernel]:
    """Whether a launch is a kernel or a copy, not a jump or a row's address."""
    return isinstance(action, (LoweredKernel, CopyKernel))


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
