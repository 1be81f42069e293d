"""Steps in which Python functions return arrays of sizes nobody knows beforehand.

Main types: ``StagedStep``, ``BoundStagedStep``. May import passes and compile.program.

Everything before a host call is one compiled function, its results feed the call, and what it
returns is a feed, of now known type, of the next one. Stages are pure, so a value that two of them
need is computed twice; random draws agree because counters advance after the last stage only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyflow.compile.program import Program, make_plan
from tinyflow.ir.graph.nodes import Effect, Function, Input, Node, TensorType, Value
from tinyflow.ir.graph.visit import substitute
from tinyflow.passes.pipeline import optimize
from tinyflow.passes.specialize import specialize
from tinyflow.runtime.variables import VariableStore


def needs_stages(fn: Function) -> bool:
    """Whether a host call's results have types that only running it can tell."""
    return any(
        node.op.effect is Effect.HOST and any(t.shape is None for t in node.types)
        for node in fn.nodes
    )


class StagedStep:
    """A step cut at its host calls; see the module's header."""

    def __init__(
        self, written: Function, feeds: Sequence[Value], feed_types: Sequence[TensorType]
    ) -> None:
        self.written = written
        self.feeds = tuple(feeds)
        self.feed_types = tuple(feed_types)
        self.hosts = [n for n in written.nodes if n.op.effect is Effect.HOST]

    def bind(self, store: VariableStore) -> BoundStagedStep:
        return BoundStagedStep(self, store)


class BoundStagedStep:
    """``run(arrays)`` executes all stages once. One thread at a time."""

    def __init__(self, step: StagedStep, store: VariableStore) -> None:
        self.step = step
        self.store = store
        self._programs: dict[Any, Program] = {}

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
        """Inputs of a host call, or the step's results when ``host`` is None."""
        key = (host, tuple(a.shape for a in returned.values()))
        program = self._programs.get(key)
        if program is None:
            program = self._programs[key] = self._compile(host, returned)
        by_key = dict(zip(self.step.feeds, arrays, strict=True)) | returned
        feeds = [by_key[v.node.op.key] for v in program.feed_values]  # type: ignore[attr-defined]
        return program.run(feeds, advance=host is None)

    def _compile(self, host: Node | None, returned: dict[Value, np.ndarray[Any, Any]]) -> Program:
        written = self.step.written
        known: dict[Value, Value] = {}
        types = list(self.step.feed_types)
        for value, array in returned.items():
            type_ = TensorType(value.dtype, array.shape)
            node = Node(Input(type_, "feed", value), (), (type_,), source=value.node.source)
            known[value] = node.outputs[0]
            types.append(type_)
        outputs = written.outputs if host is None else host.inputs
        cut = Function(
            written.name, written.inputs, outputs, written.updates if host is None else {}
        )
        cut = substitute(cut, known)
        feeds = [v for v in cut.inputs if v.node.op.role == "feed"]  # type: ignore[attr-defined]
        others = [v for v in cut.inputs if v not in feeds]
        staged = Function(
            cut.name, [*feeds, *known.values(), *others], cut.outputs, cut.updates
        )
        optimized, _ = optimize(specialize(staged, types))
        return Program(make_plan(optimized), self.store)
