"""Steps that serve all sizes: extents of the feeds are arguments of the kernels.

Main types: ``SymbolicStep``, ``BoundSymbolicStep``, ``Pattern``. May import passes, schedule and
compile.plan, program.

A placeholder with unknown extents costs two compilations: a step for the first size seen, and when
another size comes, a step with a symbol in the place of every extent that changed. For a new size
that step's kernels stay as they are; what is done again, in Python, is evaluating extents, planning
memory and packing the launches. Where something in the graph needs a number, the step is compiled
per size instead; ``reason`` says why.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyflow.compile.binding import binding, check_initialized, observers
from tinyflow.compile.loops import constants_of, may_stop, plan_control, reserved_of, steps_of
from tinyflow.compile.plan import (
    CopyKernel,
    HostCall,
    Plan,
    empty_results,
    fixed_places,
    made_by,
    moves_nothing,
    place_views,
    use_of,
)
from tinyflow.compile.program import Program
from tinyflow.compile.rows import place_rows
from tinyflow.core.error import TinyFlowError, Unsupported
from tinyflow.core.shape import Dim, evaluate, strictly
from tinyflow.ir.graph.nodes import Function, Node, TensorType, Value
from tinyflow.ops.tensor_array import NewArray
from tinyflow.passes.control import is_open
from tinyflow.passes.fusion import Group, fuse_groups
from tinyflow.passes.loops import order_arrays
from tinyflow.passes.pipeline import optimize
from tinyflow.passes.plan_memory import Place, Use, plan_memory
from tinyflow.passes.specialize import fits, specialize
from tinyflow.runtime.arena import Arena
from tinyflow.runtime.reserved import Reserved
from tinyflow.runtime.variables import VariableStore
from tinyflow.schedule.targets import Target, current_target

if TYPE_CHECKING:
    from tinyflow.schedule.symbolic import Alternatives

#: Sizes whose memory plan and launches are kept, and in the body of a loop that Python drives.
KEPT_SIZES, KEPT_IN_LOOPS = 64, 1024

Shapes = tuple[tuple[int, ...], ...]


class Pattern:
    """Feed types in which some extents are symbols: those that differ between two sets of shapes.

    Extents that are equal in both sets share a symbol, so that x[N, 3] and labels[N] agree.
    """

    def __init__(
        self, first: Shapes, second: Shapes, declared: Sequence[TensorType]
    ) -> None:
        names: dict[tuple[int, int], str] = {}
        self.types: list[TensorType] = []
        for before, now, type_ in zip(first, second, declared, strict=True):
            shape: list[Any] = list(now)
            open_axes = type_.shape or (None,) * len(now)
            for axis, (a, b, known) in enumerate(zip(before, now, open_axes, strict=True)):
                if a != b and not isinstance(known, int):
                    shape[axis] = Dim.symbol(names.setdefault((a, b), f"size{len(names)}"))
            self.types.append(type_.with_shape(tuple(shape)))
        self.symbols = frozenset(names.values())

    @staticmethod
    def between(
        first: Shapes, second: Shapes, declared: Sequence[TensorType]
    ) -> Pattern | None:
        """The pattern of two sets of shapes; None when their ranks differ."""
        if any(len(a) != len(b) for a, b in zip(first, second, strict=True)):
            return None
        pattern = Pattern(first, second, declared)
        return pattern if pattern.symbols else None

    def match(self, shapes: Shapes) -> dict[str, int] | None:
        """The symbols' values for feeds of these shapes; None when they are of another pattern."""
        sizes: dict[str, int] = {}
        for type_, shape in zip(self.types, shapes, strict=True):
            if len(shape) != len(type_.shape or ()):
                return None
            for dim, extent in zip(type_.shape or (), shape, strict=True):
                wanted = dim
                if isinstance(dim, Dim):
                    wanted = sizes.setdefault(str(dim), extent)
                if wanted != extent:
                    return None
        return sizes


#: An estimate of an extent is at least this: kernels are made for sizes worth the trouble.
LEAST_ESTIMATE = 64


class SymbolicStep:
    """A compiled step for all sizes of a pattern; see the module's header.

    sizes: some that will be run; estimates follow them.
    Errors of construction: Unsupported with the reason when the graph needs numbers.
    """

    fuse, once_first = True, False

    def __init__(
        self,
        written: Function,
        fetches: Sequence[Value],
        feeds: Sequence[Value],
        pattern: Pattern,
        sizes: Mapping[str, int],
        state_types: Mapping[Any, TensorType] | None = None,
        targets: Sequence[Node] = (),
        kept: int = KEPT_SIZES,
        inside: bool = True,
    ) -> None:
        self.kept = kept
        self.written, self.feeds, self.pattern = written, tuple(feeds), pattern
        self.fetches, self.targets = tuple(fetches), tuple(targets)
        self.target: Target = current_target()
        estimates = {name: max(size, LEAST_ESTIMATE) for name, size in sizes.items()}
        self._plans: OrderedDict[tuple[int, ...], Plan] = OrderedDict()
        try:
            with strictly(sizes) as self.conditions:
                self.specialized = specialize(
                    written, pattern.types, state_types, pattern.symbols, inside
                )
                optimized, self.records = optimize(self.specialized)
                self._body = _Body(optimized, self.target, estimates)
            self.fn = self._body.fn
            self.plan = self.plan_at(sizes)
        except (TypeError, TinyFlowError) as error:
            raise Unsupported(f"sizes stay numbers: {error}") from error
        for observe in observers:
            observe(self)

    def plan_at(self, sizes: Mapping[str, int]) -> Plan:
        """Launches and memory for these sizes; the kernels are shared by all.

        Errors: Unsupported where the graph means something else for them, or needs numbers.
        """
        key = tuple(sizes.values())
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = self._planned(sizes)
            if len(self._plans) > self.kept:
                self._plans.popitem(last=False)
        else:
            self._plans.move_to_end(key)
        return plan

    def _planned(self, sizes: Mapping[str, int]) -> Plan:
        unmet = [c for c in self.conditions if not c.is_met(sizes)]
        reason = f"it was made for {unmet[0]}" if unmet else fits(self.specialized, sizes)
        if reason is not None:
            raise Unsupported(f"these sizes differ from others in more than numbers: {reason}")
        try:
            with strictly():
                return self._body.plan(sizes)
        except TypeError as error:  # a kernel for such sizes needs a number
            raise Unsupported(f"sizes stay numbers: {error}") from error

    def bind(self, store: VariableStore) -> BoundSymbolicStep:
        """The step with one session's variables."""
        return BoundSymbolicStep(self, store)


class _Body:
    """A function's kernels for all sizes. estimates: a likely one per symbol.

    parts: per group its kernels, or the bodies of its ``steps_of`` if it is a loop or branch.
    """

    def __init__(self, fn: Function, target: Target, estimates: Mapping[str, int]) -> None:
        self.fn, self.target, self.estimates = order_arrays(fn), target, estimates
        self.grouping = fuse_groups(self.fn)
        self.parts = [(group, self._lowered(group)) for group in self.grouping.groups]

    def _lowered(self, group: Group) -> list[Any]:
        node = group.items[0].value.node
        if group.kind == "control":
            return [_Body(step, self.target, self.estimates) for step in steps_of(node)]
        if group.kind in ("view", "host") or isinstance(node.op, NewArray):
            return []
        shapes: list[Any] = [item.value.type.shape for item in self.grouping.results(group)]
        if shapes and all(any(isinstance(d, int) and d == 0 for d in s) for s in shapes):
            return []  # nothing to compute at any size; schedules divide by extents
        from tinyflow.schedule.symbolic import lower_symbolic

        return lower_symbolic(self.grouping, group, self.target, self.estimates)

    def plan(self, sizes: Mapping[str, int]) -> Plan:
        """Launches and memory for these sizes: ``make_plan`` with kernels that are there."""
        draft = _Draft()
        for group, parts in self.parts:
            self._add(draft, group, parts, sizes)
        fn = self.fn
        actions, uses, rows = place_rows(
            fn, draft.actions, draft.uses, draft.views, made_by, sizes
        )
        fixed, constants = fixed_places(fn, uses, draft.views)
        fixed.update(draft.reserved)
        fixed.update(rows)
        constants.update(draft.constants)
        split = len(fn.outputs) - len(fn.updates)
        fetched = list(dict.fromkeys(fn.outputs[:split]))
        memory = plan_memory(
            uses, fixed, draft.views, list(enumerate(fetched)),
            [(key, fn.outputs[n]) for key, n in fn.updates.items()], sizes=sizes,
        )  # fmt: skip
        place_views(memory, draft.views)
        actions = [a for a in actions if not moves_nothing(a, memory)]
        actions += [
            CopyKernel(c.source, c.target, c.size_bytes) for c in memory.copies if c.size_bytes
        ]
        return Plan(fn, self.grouping, self.target, actions, memory, fetched, constants, sizes)

    def _add(
        self, draft: _Draft, group: Group, parts: list[Any], sizes: Mapping[str, int]
    ) -> None:
        item = group.items[0]
        node = item.value.node
        if group.kind == "view":
            draft.views[item.value] = item.reads[0][0]
        elif group.kind == "host":
            draft.add(HostCall(node), Use(node.inputs, node.outputs))
        elif group.kind == "control":
            action, use = plan_control(node, [part.plan(sizes) for part in parts], draft.views)
            draft.add(action, use)
            draft.reserved.update(reserved_of(action))
            draft.constants.update(constants_of(action))
        elif isinstance(node.op, NewArray):
            draft.uses.append(Use((), (item.value,)))
            if is_open(item.value.type):
                draft.reserved[item.value] = Place("reserved", item.value)
        else:
            self._add_kernels(draft, group, parts, sizes)

    def _add_kernels(
        self, draft: _Draft, group: Group, parts: list[Alternatives], sizes: Mapping[str, int]
    ) -> None:
        node = group.items[0].value.node
        empty = empty_results(self.grouping, group, sizes)
        in_place = getattr(node.op, "updates_in_place", False)
        draft.uses += [Use((), empty)] if empty else []
        if not in_place and len(empty) == len(self.grouping.results(group)):
            return
        if hasattr(node.op, "starts_from"):
            old, new = node.inputs[node.op.starts_from], node.outputs[0]
            size = evaluate(new.type.size_bytes, sizes) or 0
            draft.add(CopyKernel(old, new, size), Use((old,), (new,), ((old, new),)))
        for part in parts:
            for kernel in part.at(sizes):
                stops = may_stop(node)
                use = Use(node.inputs, (), may_stop=stops) if in_place else use_of(kernel)
                draft.add(kernel, use)
        if in_place:
            draft.views[node.outputs[0]] = node.inputs[0]


class _Draft:
    """A plan's parts on the way."""

    def __init__(self) -> None:
        self.actions: list[Any] = []
        self.uses: list[Use] = []
        self.views: dict[Value, Value] = {}
        self.reserved: dict[Any, Place] = {}
        self.constants: dict[Value, np.ndarray[Any, Any]] = {}

    def add(self, action: Any, use: Use) -> None:
        self.actions.append(action)
        self.uses.append(use)


class BoundSymbolicStep:
    """Programs for the sizes that have been run. One thread at a time.

    program: that of the sizes which came last.
    """

    program: Program

    def __init__(self, step: SymbolicStep, store: VariableStore) -> None:
        self.step, self.store = step, store
        self._arena: Arena | None = None
        self._reserved: dict[Value, Reserved] = {}
        self._programs: OrderedDict[tuple[int, ...], Program] = OrderedDict()
        self._ready = False

    def run(
        self, sizes: Mapping[str, int], arrays: Sequence[np.ndarray[Any, Any]], advance: bool = True
    ) -> list[np.ndarray[Any, Any]]:
        """The fetched values, fresh arrays; see ``BoundStep.run``."""
        program = self.program_at(sizes)
        if not self._ready:
            check_initialized(self.step.fn, program, self.store)
            self._ready = True
        kept = self._positions
        return program.run([arrays[p] for p in kept], advance)

    def program_at(self, sizes: Mapping[str, int]) -> Program:
        """The program for these sizes: remembered, or made from the shared kernels."""
        key = tuple(sizes.values())
        program = self._programs.get(key)
        if program is not None:
            self._programs.move_to_end(key)
            return program
        plan = self.step.plan_at(sizes)
        needed = plan.memory.arena_bytes
        if self._arena is None or self._arena.size_bytes < needed:
            # Growing by half bounds the number of arenas; untouched pages take no memory.
            self._arena = Arena(max(64, needed + needed // 2))
        program = self._programs[key] = Program(plan, self.store, self._arena, self._reserved)
        if len(self._programs) > self.step.kept:
            self._programs.popitem(last=False)
        number = {feed: n for n, feed in enumerate(self.step.feeds)}
        self._positions = [number[binding(v)] for v in program.feed_values]
        self.program = program
        for observe in observers:
            observe(self)
        return program
