"""Compiling a session's step and running it against a session's variables.

Main types: ``Step`` (compiled, shared), ``BoundStep`` (with one session's variables),
``CompiledFunction`` (a pure function of arrays), ``StepFamily`` (a request's steps by the sizes of
its feeds). May import passes and the other modules of compile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinyflow.compile import step_cache
from tinyflow.compile.binding import binding, check_initialized, observers
from tinyflow.compile.family import Family
from tinyflow.compile.memory import within_budget
from tinyflow.compile.plan import Plan, make_plan
from tinyflow.compile.program import Program
from tinyflow.compile.staged import StagedStep, needs_stages
from tinyflow.compile.symbolic import Pattern, SymbolicStep
from tinyflow.core import options
from tinyflow.core.error import InvalidArgumentError, NeedsHost, Unsupported
from tinyflow.core.garbage import without_collections
from tinyflow.ir.graph.nodes import Effect, Function, Node, TensorType, Value
from tinyflow.passes.base import PassRecord
from tinyflow.passes.functionalize import functionalize
from tinyflow.passes.pipeline import optimize
from tinyflow.passes.specialize import specialize
from tinyflow.runtime.variables import VariableStore
from tinyflow.schedule.targets import Target


class CompiledFunction:
    """``compiled(*arrays) -> tuple of arrays`` for a function whose input types are static."""

    def __init__(
        self, fn: Function, fuse: bool | None = None, target: Target | None = None
    ) -> None:
        self.fn, self.records = optimize(fn)
        self.plan: Plan = make_plan(
            self.fn, options.current().fuse if fuse is None else fuse, target
        )
        self.program = Program(self.plan, VariableStore())
        # Optimisation may drop inputs that nothing needs; calls still pass them.
        kept = {binding(v): n for n, v in enumerate(fn.inputs)}
        self._positions = [kept[binding(v)] for v in self.program.feed_values]
        self._types: list[tuple[Any, Any]] = [(v.type.shape, v.dtype.numpy) for v in fn.inputs]

    def __call__(self, *arrays: Any) -> tuple[np.ndarray[Any, Any], ...]:
        prepared = [
            np.ascontiguousarray(np.asarray(a, dtype)).reshape(shape)
            for a, (shape, dtype) in zip(arrays, self._types, strict=True)
        ]
        for array, (shape, _) in zip(prepared, self._types, strict=True):
            if array.shape != shape:
                raise InvalidArgumentError(f"expected shape {shape}, got {array.shape}")
        return tuple(self.program.run([prepared[p] for p in self._positions]))


def compile_function(
    fn: Function, fuse: bool | None = None, target: Target | None = None
) -> CompiledFunction:
    """Optimises and compiles a function of static types; see ``core.options`` for the switches."""
    return CompiledFunction(fn, fuse, target)


class Step:
    """A compiled step of a graph: which fetches, which feeds, of which types.

    written: the function as the user's graph defines it.   fn: after all passes.   records: what
    each pass made of it.   plan: kernels and memory. These are made when somebody looks where an
    earlier process has left what runs (compile.step_cache).
    """

    def __init__(
        self,
        written: Function,
        fetches: Sequence[Value],
        feeds: Sequence[Value],
        feed_types: Sequence[TensorType],
        state_types: dict[Any, TensorType] | None = None,
        targets: Sequence[Node] = (),
        inside: bool = True,
    ) -> None:
        self.written = written
        self.fetches = tuple(fetches)
        self.targets = tuple(targets)
        self.feeds = tuple(feeds)
        self.specialized = specialize(written, feed_types, state_types, inside=inside)
        self._options = options.current()
        self.fuse, self.memory_budget = self._options.fuse, self._options.memory_budget
        # What takes no feeds (initialisers, a line in a REPL) may run only once: the first run
        # goes op by op through kernels that other steps have left in the cache.
        self.once_first = self.fuse and not feeds
        self.refused_sizes: tuple[str, ...] = ()  # why no step for all sizes serves this one's
        self._optimized: tuple[Function, list[PassRecord]] | None = None
        self._plans: dict[bool, Plan] = {}
        self._content = step_cache.content_of(self.specialized)
        self._known: dict[bool, Plan | None] = {}
        if self._known_plan(self.fuse and not self.once_first) is None:
            self._optimize()
        for observe in observers:
            observe(self)

    def _optimize(self) -> tuple[Function, list[PassRecord]]:
        if self._optimized is None:
            with options.override(**vars(self._options)):
                self._optimized = optimize(self.specialized)
        return self._optimized

    @property
    def fn(self) -> Function:
        return self._optimize()[0]

    @property
    def records(self) -> list[PassRecord]:
        return self._optimize()[1]

    def plan_for(self, fuse: bool) -> Plan:
        found = self._plans.get(fuse)
        if found is None:
            fn, records = self._optimize()
            with options.override(**vars(self._options)):
                found = make_plan(fn, fuse)
                if self.memory_budget and fuse:
                    fn, found = within_budget(fn, records, found, self.memory_budget, make_plan)
                    self._optimized = fn, records
            self._plans[fuse] = found
        return found

    def _known_plan(self, fuse: bool) -> Plan | None:
        if fuse not in self._known:
            self._known[fuse] = step_cache.load(
                self._content, fuse, self.specialized, lambda: self.plan_for(fuse)
            )
        return self._known[fuse]

    def runnable_plan(self, fuse: bool) -> Plan:
        """``plan_for(fuse)``, or the part of it that an earlier process has left and that runs."""
        known = self._plans.get(fuse) or self._known_plan(fuse)
        if known is None:
            known = self.plan_for(fuse)
            step_cache.save(self._content, fuse, self.specialized, known)
        return known

    @property
    def plan(self) -> Plan:
        """Kernels and memory of the whole step, compiled together."""
        return self.plan_for(self.fuse)

    @without_collections
    def bind(self, store: VariableStore) -> BoundStep:
        """The step with one session's variables and an arena of its own."""
        return BoundStep(self, store)


class BoundStep:
    """``run(arrays)`` executes the step once. One thread at a time."""

    def __init__(self, step: Step, store: VariableStore) -> None:
        self.step = step
        self.store = store
        self.compiled = not step.once_first  # the whole-step program is in use
        self._ran = self._ready = False
        self._load(Program(step.runnable_plan(step.fuse and self.compiled), store))

    def _load(self, program: Program) -> None:
        self.program = program
        kept = {feed: n for n, feed in enumerate(self.step.feeds)}
        self._positions = [kept[binding(v)] for v in program.feed_values]
        self._all_in_order = self._positions == list(range(len(self.step.feeds)))
        for observe in observers:
            observe(self)

    def run(self, arrays: Sequence[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        """The fetched values, fresh arrays in the order of the fetches.

        arrays: one per feed, C-contiguous, of exactly the types the step was compiled for.
        Errors: FailedPreconditionError for a variable without a value; what kernels report.
        """
        if not self._ready:
            self._prepare()
        if not self._all_in_order:
            arrays = [arrays[p] for p in self._positions]
        return self.program.run(arrays)

    def _prepare(self) -> None:
        """Before each run until the whole-step program is in use: at most twice."""
        check_initialized(self.program.fn, self.program, self.store)
        if not self.compiled and self._ran:
            self._load(Program(self.step.runnable_plan(self.step.fuse), self.store))
            self.compiled = True
        self._ran, self._ready = True, self.compiled


@without_collections
def compile_step(
    fetches: Sequence[Value],
    targets: Sequence[Node],
    feeds: Sequence[Value],
    feed_types: Sequence[TensorType],
    state_types: dict[Any, TensorType] | None = None,
    inside: bool = True,
) -> Step | StagedStep:
    """Compiles what ``Session.run`` asks for. The first run of a step without feeds goes op by op.

    fetches: values whose arrays are wanted.   targets: nodes that must run.   feeds: values that
    the caller provides, with the static types of this call.   inside: whether slices by computed
    bounds may count on lying inside (see ops.dynamic_slice).
    """
    written = functionalize(fetches, targets, feeds)
    if needs_stages(written):
        return StagedStep(written, feeds, inside=inside)
    # A step that has called Python cannot run again; stages can, each by itself.
    calls = any(node.op.effect is Effect.HOST for node in written.nodes)
    try:
        return Step(
            written, fetches, feeds, feed_types, state_types, targets, inside and not calls
        )
    except NeedsHost as refusal:
        staged = StagedStep(written, feeds, inside=inside)
        staged.give_to_host(refusal)
        return staged


class StepFamily(Family):
    """The steps of one ``Session.run`` request.

    inside: whether slices count on lying inside (see ops.dynamic_slice); until one does not.
    """

    inside = True

    def __init__(
        self, fetches: Sequence[Value], targets: Sequence[Node], feeds: Sequence[Value]
    ) -> None:
        self.fetches, self.targets, self.feeds = tuple(fetches), tuple(targets), tuple(feeds)
        super().__init__([f.type for f in feeds], self._step, self._for_all_sizes)

    def at(self, types: Sequence[TensorType]) -> tuple[Any, dict[str, int] | None]:
        """See ``Family.at``; a step in stages serves all sizes, each stage by its own family."""
        first = next(iter(self.exact.values()), None)
        return (first, None) if isinstance(first, StagedStep) else super().at(types)

    def cut_short(self) -> None:
        """From now on a slice has as many elements as there are: all steps are compiled anew."""
        if self.inside:
            self.inside = False
            self.exact.clear()
            self.symbolic.clear()
            self.reasons.clear()

    def _step(self, types: Sequence[TensorType]) -> Step | StagedStep:
        step = compile_step(
            self.fetches, self.targets, self.feeds, types, inside=self.inside
        )
        if isinstance(step, Step):
            step.refused_sizes = tuple(self.reasons.values())
        return step

    def _for_all_sizes(self, pattern: Pattern, sizes: Mapping[str, int]) -> SymbolicStep:
        if not options.current().fuse:
            raise Unsupported("op by op, kernels are specialised")
        if options.current().memory_budget:
            raise Unsupported("a memory budget is kept for known sizes")
        written = functionalize(self.fetches, self.targets, self.feeds)
        return SymbolicStep(
            written, self.fetches, self.feeds, pattern, sizes, targets=self.targets,
            inside=self.inside and not any(n.op.effect is Effect.HOST for n in written.nodes),
        )  # fmt: skip
