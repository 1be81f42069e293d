"""Steps in which Python functions return arrays of sizes nobody knows beforehand.

Main types: ``StagedStep``, ``BoundStagedStep``. May import passes and compile.program.

Everything before a host call is one compiled function, its results feed the call, and what it
returns is a feed, of now known type, of the next one: for the second size, a stage is compiled for
all sizes (see compile.family). Stages are pure, so a value that two of them
need is computed twice; random draws agree because counters advance after the last stage only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinyflow.compile.binding import binding, check_initialized
from tinyflow.compile.family import Family
from tinyflow.compile.program import Plan, Program, make_plan
from tinyflow.compile.symbolic import BoundSymbolicStep, Pattern, SymbolicStep
from tinyflow.core.shape import opaque
from tinyflow.ir.graph.nodes import Effect, Function, Input, Node, TensorType, Value
from tinyflow.ir.graph.visit import substitute
from tinyflow.passes.pipeline import optimize
from tinyflow.passes.specialize import specialize
from tinyflow.runtime.variables import VariableStore


def needs_stages(fn: Function) -> bool:
    """Whether a host call's results have types that only running it can tell."""
    return any(
        node.op.effect is Effect.HOST
        and (any(t.shape is None for t in node.types) or hasattr(node.op, "tells_shapes"))
        for node in fn.nodes
    )


class StagedStep:
    """A step cut at its host calls; see the module's header. It serves feeds of all sizes.

    stages: (host call or None for the end, ranks of what was returned) -> steps by size.
    """

    def __init__(self, written: Function, feeds: Sequence[Value]) -> None:
        self.written = written
        self.feeds = tuple(feeds)
        self.hosts = [n for n in written.nodes if n.op.effect is Effect.HOST]
        self.stages: dict[Any, Stage] = {}

    def stage(self, host: Node | None, returned: Mapping[Value, np.ndarray[Any, Any]]) -> Stage:
        """Inputs of a host call, or the step's results when ``host`` is None."""
        key = host, tuple([a.ndim for a in returned.values()])
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
        self, step: StagedStep, host: Node | None, returned: Mapping[Value, np.ndarray[Any, Any]]
    ) -> None:
        written = step.written
        known: dict[Value, Value] = {}
        for value, array in returned.items():
            open_shape = tuple([opaque(f"returned{len(known)}_{d}") for d in range(array.ndim)])
            shape = value.type.shape
            type_ = TensorType(value.dtype, open_shape if shape is None else shape)
            node = Node(Input(type_, "feed", value), (), (type_,), source=value.node.source)
            known[value] = node.outputs[0]
        outputs = written.outputs if host is None else host.inputs
        cut = Function(
            written.name, written.inputs, outputs, written.updates if host is None else {}
        )
        cut = substitute(cut, known)
        feeds = [v for v in cut.inputs if v.node.op.role == "feed"]  # type: ignore[attr-defined]
        others = [v for v in cut.inputs if v not in feeds]
        self.function = Function(
            cut.name, [*feeds, *known.values(), *others], cut.outputs, cut.updates
        )
        self.inputs: tuple[Value, ...] = (*step.feeds, *returned)
        super().__init__([v.type for v in (*feeds, *known.values())], self._plan, self._symbolic)

    def _plan(self, types: Sequence[TensorType]) -> Plan:
        return make_plan(optimize(specialize(self.function, types))[0])

    def _symbolic(self, pattern: Pattern, sizes: Mapping[str, int]) -> SymbolicStep:
        outputs = self.function.outputs[: len(self.function.outputs) - len(self.function.updates)]
        return SymbolicStep(self.function, outputs, self.inputs, pattern, sizes)


class BoundStagedStep:
    """``run(arrays)`` executes all stages once. One thread at a time."""

    def __init__(self, step: StagedStep, store: VariableStore) -> None:
        self.step = step
        self.store = store
        self._programs: dict[Plan, Program] = {}
        self._steps: dict[SymbolicStep, BoundSymbolicStep] = {}

    def run(self, arrays: Sequence[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        """The fetched values. Exceptions of the host functions pass through."""
        returned: dict[Value, np.ndarray[Any, Any]] = {}
        for host in self.step.hosts:
            results = host.op.call_host(*self._evaluate(host, arrays, returned))  # type: ignore[attr-defined]
            for value, result in zip(host.outputs, results, strict=True):
                returned[value] = np.ascontiguousarray(result).reshape(np.shape(result))
        return self._evaluate(None, arrays, returned)

    def _evaluate(
        self,
        host: Node | None,
        arrays: Sequence[np.ndarray[Any, Any]],
        returned: dict[Value, np.ndarray[Any, Any]],
    ) -> list[np.ndarray[Any, Any]]:
        stage = self.step.stage(host, returned)
        given = [*arrays, *returned.values()]
        types = [TensorType(v.dtype, a.shape) for v, a in zip(stage.inputs, given, strict=True)]
        compiled, sizes = stage.at(types)
        if sizes is not None:
            step = self._steps.get(compiled)
            if step is None:
                step = self._steps[compiled] = compiled.bind(self.store)
            return step.run(sizes, given, advance=host is None)
        program = self._programs.get(compiled)
        if program is None:
            program = self._programs[compiled] = Program(compiled, self.store)
            check_initialized(compiled.fn, program, self.store)
        by_key = dict(zip(stage.inputs, given, strict=True))
        feeds = [by_key[binding(v)] for v in program.feed_values]
        return program.run(feeds, advance=host is None)
