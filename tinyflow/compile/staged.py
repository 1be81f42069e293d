"""Steps in which Python functions return arrays of sizes nobody knows beforehand.

Main types: ``StagedStep``, ``BoundStagedStep``. May import passes and compile.plan, program.

Everything before a host call is one compiled function, its results feed the call, and what it
returns is a feed, of now known type, of the next one: for the second size, a stage is compiled for
all sizes (see compile.family). Stages are pure, so a value that two of them
need is computed twice; random draws agree because counters advance after the last stage only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinyflow.compile.binding import binding, check_initialized, observers
from tinyflow.compile.driven import DrivenControl, Rows
from tinyflow.compile.family import Family
from tinyflow.compile.plan import Plan, make_plan
from tinyflow.compile.program import Program
from tinyflow.compile.symbolic import (
    KEPT_IN_LOOPS,
    KEPT_SIZES,
    BoundSymbolicStep,
    Pattern,
    SymbolicStep,
)
from tinyflow.core.error import NeedsHost, ShorterSlice, Unsupported
from tinyflow.core.shape import opaque
from tinyflow.ir.graph.nodes import Effect, Function, Input, Node, TensorType, Value
from tinyflow.ir.graph.visit import substitute
from tinyflow.ops.driven import Driven
from tinyflow.passes.give_to_host import given_to_host, with_readers
from tinyflow.passes.pipeline import optimize
from tinyflow.passes.sink_shapes import sink_shapes
from tinyflow.passes.specialize import specialize
from tinyflow.runtime.variables import VariableStore

Array = np.ndarray[Any, Any]


def needs_stages(fn: Function) -> bool:
    """Whether a host call's results have types that only running it can tell."""
    return any(
        node.op.effect is Effect.HOST
        and (any(t.shape is None for t in node.types) or hasattr(node.op, "tells_shapes"))
        for node in fn.nodes
    )


class StagedStep:
    """A step cut at its host calls; see the module's header. It serves feeds of all sizes.

    stages: (host call or None for the end, what was returned and its ranks) -> steps by size.
    inside: whether slices count on lying inside (see ops.dynamic_slice); until one does not.
    parts: steps of the sub-functions of loops and branches that Python drives.
    """

    def __init__(
        self, written: Function, feeds: Sequence[Value], kept_sizes: int = KEPT_SIZES,
        inside: bool = True,
    ) -> None:  # fmt: skip
        self.feeds, self.kept_sizes, self.inside = tuple(feeds), kept_sizes, inside
        self.parts: dict[Function, StagedStep] = {}
        inputs: list[Any] = [v.node.op for v in written.inputs]
        self.counters = [op.key for op in inputs if op.role == "counter"]
        self._cut(written)
        for observe in observers:
            observe(self)

    def _cut(self, written: Function) -> None:
        self.written = written = sink_shapes(with_readers(written))
        self.hosts = [n for n in written.nodes if n.op.effect is Effect.HOST]
        self.stages: dict[Any, Stage] = {}

    def give_to_host(self, refusal: NeedsHost) -> None:
        """What was refused becomes a host call. Errors: the refusal where that cannot be."""
        self._cut(given_to_host(self.written, refusal))

    def cut_short(self) -> None:
        """From now on a slice has as many elements as there are."""
        self.inside = False
        self._cut(self.written)

    def stage(self, host: Node | None, returned: Mapping[Value, Any]) -> Stage:
        """Inputs of a host call, or the step's results when ``host`` is None."""
        ranks = [(v, a.ndim) for v, a in returned.items() if not isinstance(a, Rows)]
        key = host, frozenset(ranks)  # runs may call independent hosts in different orders
        found = self.stages.get(key)
        if found is None:
            found = self.stages[key] = Stage(self, host, returned)
        return found

    def bind(self, store: VariableStore) -> BoundStagedStep:
        return BoundStagedStep(self, store)


class Stage(Family):
    """What lies before a host call (or the end), given the feeds and what earlier calls returned.

    inputs: what it takes, in order: the step's feeds, then returned values.
    """

    def __init__(
        self, step: StagedStep, host: Node | None, returned: Mapping[Value, Any]
    ) -> None:
        written, self.kept_sizes, self.inside = step.written, step.kept_sizes, step.inside
        known: dict[Value, Value] = {}
        for value, array in returned.items():
            if isinstance(array, Rows):
                continue
            open_shape = tuple([opaque(f"returned{len(known)}_{d}") for d in range(array.ndim)])
            shape = value.type.shape
            type_ = TensorType(value.dtype, open_shape if shape is None else shape)
            node = Node(Input(type_, "feed", value), (), (type_,), source=value.node.source)
            known[value] = node.outputs[0]
        outputs = written.outputs if host is None else native_inputs(host, returned)
        cut = Function(
            written.name, written.inputs, outputs, written.updates if host is None else {}
        )
        cut = substitute(cut, known)
        for node in cut.nodes:
            if node.op.effect is Effect.HOST:  # it reads what a driven loop saved for another one
                raise Unsupported(
                    "gradients: second derivatives through a loop that Python drives",
                    expected="first derivatives of such loops", source=node.source,
                    hint="collect rows in a tf.TensorArray of known size: such loops are native",
                )  # fmt: skip
        feeds = [v for v in cut.inputs if v.node.op.role == "feed"]  # type: ignore[attr-defined]
        others = [v for v in cut.inputs if v not in feeds]
        self.function = Function(
            cut.name, [*feeds, *known.values(), *others], cut.outputs, cut.updates
        )
        self.inputs: tuple[Value, ...] = (*step.feeds, *known)
        self.dtypes = [v.dtype for v in self.inputs]
        super().__init__([v.type for v in (*feeds, *known.values())], self._plan, self._symbolic)

    def _plan(self, types: Sequence[TensorType]) -> Plan:
        return make_plan(optimize(specialize(self.function, types, inside=self.inside))[0])

    def _symbolic(self, pattern: Pattern, sizes: Mapping[str, int]) -> SymbolicStep:
        outputs = self.function.outputs[: len(self.function.outputs) - len(self.function.updates)]
        return SymbolicStep(
            self.function, outputs, self.inputs, pattern, sizes, kept=self.kept_sizes,
            inside=self.inside,
        )  # fmt: skip


class BoundStagedStep:
    """``run(arrays)`` executes all stages once. One thread at a time."""

    def __init__(self, step: StagedStep, store: VariableStore) -> None:
        self.step = step
        self.store = store
        self._programs: dict[Plan, Program] = {}
        self._steps: dict[SymbolicStep, BoundSymbolicStep] = {}
        self._driven: dict[Node, DrivenControl] = {}

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """The fetched values. Exceptions of the host functions pass through."""
        returned: dict[Value, Any] = {}
        called: set[Node] = set()
        while True:
            host = next((h for h in self.step.hosts if h not in called), None)
            try:
                values = self._evaluate(host, arrays, returned)
            except NeedsHost as refusal:
                self.step.give_to_host(refusal)  # what was called stays as it is
                continue
            except ShorterSlice:
                self.step.cut_short()
                continue
            if host is None:
                for key in self.step.counters:
                    self.store.counter(key)[0] += 1
                return values
            called.add(host)
            new: dict[Value, Any] = {}
            if isinstance(host.op, Driven):  # a loop may start from what took long to compute
                pairs = zip(native_inputs(host, returned), values, strict=True)
                new = {v: a for v, a in pairs if not _is_given(v)}
            for value, result in zip(
                host.outputs, self._call(host, values, returned), strict=True
            ):
                new[value] = result if isinstance(result, Rows) else contiguous(result)
            returned.update(new)

    def _call(self, host: Node, values: list[Array], returned: Mapping[Value, Any]) -> Any:
        if not isinstance(host.op, Driven):
            return host.op.call_host(*values)  # type: ignore[attr-defined]
        native = iter(values)
        rows = [isinstance(returned.get(v), Rows) for v in host.inputs]
        driven = self._driven.get(host)
        if driven is None:
            driven = self._driven[host] = DrivenControl(host, rows, self._part)
        return driven.run([
            returned[v] if is_rows else next(native)
            for v, is_rows in zip(host.inputs, rows, strict=True)
        ])  # fmt: skip

    def _part(self, fn: Function, closed: Function, feeds: Sequence[Value]) -> Any:
        """What runs a sub-function; compiled once for all sessions."""
        step = self.step.parts.get(fn)
        if step is None:
            step = self.step.parts[fn] = StagedStep(closed, feeds, KEPT_IN_LOOPS)
        return step.bind(self.store).run

    def _evaluate(
        self, host: Node | None, arrays: Sequence[Array], returned: Mapping[Value, Any]
    ) -> list[Array]:
        stage = self.step.stage(host, returned)
        if not stage.function.outputs:
            return []
        known = {**dict(zip(self.step.feeds, arrays, strict=True)), **returned}
        given = [known[v] for v in stage.inputs]
        types = [TensorType(d, a.shape) for d, a in zip(stage.dtypes, given, strict=True)]
        compiled, sizes = stage.at(types)
        if sizes is not None:
            step = self._steps.get(compiled)
            if step is None:
                step = self._steps[compiled] = compiled.bind(self.store)
            return step.run(sizes, given, advance=False)
        program = self._programs.get(compiled)
        if program is None:
            program = self._programs[compiled] = Program(compiled, self.store)
            check_initialized(compiled.fn, program, self.store)
        by_key = dict(zip(stage.inputs, given, strict=True))
        feeds = [by_key[binding(v)] for v in program.feed_values]
        return program.run(feeds, advance=False)


def native_inputs(host: Node, returned: Mapping[Value, Any]) -> list[Value]:
    """The inputs of a host call that a stage computes: all but the rows of driven loops."""
    return [v for v in host.inputs if not isinstance(returned.get(v), Rows)]


def _is_given(value: Value) -> bool:
    """Whether a value costs nothing to have again."""
    return not value.node.inputs or value.node.op.effect is Effect.HOST


def contiguous(result: Any) -> Array:
    return np.ascontiguousarray(result).reshape(np.shape(result))
