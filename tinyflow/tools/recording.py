"""Which steps a program compiles, and what their kernels take.

Main types: ``Recording`` (a context manager), ``RecordedStep``. May import core, ir and compile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tinyflow.compile.staged import StagedStep
from tinyflow.core.error import NameNotFoundError
from tinyflow.ir.graph.nodes import Node, Value
from tinyflow.tools.kernel_table import StepTimes, enable_profile, step_times


class RecordedStep:
    """A compiled step and the programs that ran it (one per session; a step that ran op by op
    first and whole later has one for each)."""

    def __init__(self, step: Any) -> None:
        self.step = step
        self.programs: list[Any] = []

    @property
    def program(self) -> Any:
        """The program that ran most often."""
        return max(self.programs, key=lambda p: step_times(p).runs)

    @property
    def times(self) -> StepTimes:
        return step_times(self.program)

    @property
    def ran_once(self) -> bool:
        """Whether it only ran op by op, as a graph that is run once does."""
        return bool(self.step.fuse and self.step.once_first and len(self.programs) == 1)

    @property
    def sizes_served(self) -> str:
        """For which sizes of the feeds the step was compiled, and why for no others."""
        pattern = getattr(self.step, "pattern", None)
        if pattern is not None:
            return f"serves all sizes of its feeds: {', '.join(map(str, pattern.types))}"
        refused = getattr(self.step, "refused_sizes", ())
        return f"compiled for these sizes only: {refused[-1]}" if refused else ""

    @property
    def work(self) -> int:
        """Operations and bytes of all runs."""
        total = 0
        for program in self.programs:
            times = step_times(program)
            total += times.runs * sum(k.flops + k.bytes for k in times.kernels)
        return total

    def names(self, variables: Mapping[str, Any]) -> list[str]:
        """What was asked for, as the script calls it where it has a name for it."""
        own = {
            id(item): name
            for name, item in variables.items()
            if isinstance(item, (Value, Node)) and not name.startswith("_")
        }
        found = []
        for item in (*self.step.fetches, *self.step.targets):
            graph_name = str(getattr(item, "name", None) or _node(item).name)
            name = own.get(id(item))
            found.append(f"{name} ({graph_name})" if name else graph_name)
        return found

    def computes(self, wanted: Any) -> bool:
        """Whether the value, node or name was among what the step was asked for."""
        for item in (*self.step.fetches, *self.step.targets):
            node = _node(item)
            if wanted is item or wanted is node:
                return True
            if isinstance(wanted, str) and wanted in (node.name, getattr(item, "name", None)):
                return True
        return False


def _node(item: Any) -> Node:
    return item if isinstance(item, Node) else item.node  # type: ignore[no-any-return]


class Recording:
    """``with Recording() as recording: ...`` notes every step that is compiled and times it."""

    def __init__(self) -> None:
        self.steps: list[RecordedStep] = []
        self.staged: list[StagedStep] = []  # steps, and bodies of loops, cut at calls of Python

    def __enter__(self) -> Recording:
        from tinyflow.compile import step

        step.observers.append(self._observe)
        return self

    def __exit__(self, *exception: Any) -> None:
        from tinyflow.compile import step

        step.observers.remove(self._observe)

    def _observe(self, item: Any) -> None:
        if isinstance(item, StagedStep):
            self.staged.append(item)
            return
        program = getattr(item, "program", None)
        if program is None:
            self.steps.append(RecordedStep(item))
            return
        enable_profile(program)
        for recorded in self.steps:
            if recorded.step is item.step:
                recorded.programs.append(program)

    @property
    def ran(self) -> list[RecordedStep]:
        return [s for s in self.steps if s.programs]

    def choose(self, fetch: str | None, variables: Mapping[str, Any]) -> RecordedStep:
        """The step that computed ``fetch`` (a graph name or a variable of the script), or the one
        with the most work. Errors: NameNotFoundError lists what was computed.
        """
        candidates = self.ran
        if fetch is not None:
            wanted: Any = fetch
            if isinstance(variables.get(fetch), (Value, Node)):
                wanted = variables[fetch]
            candidates = [s for s in candidates if s.computes(wanted)]
        if not candidates:
            raise NameNotFoundError(
                f"the script never ran {fetch!r}" if fetch else "the script ran no step",
                choices=_unique(n for s in self.ran for n in s.names(variables)) or None,
                hint=None if fetch else "explain shows what sess.run(...) compiles",
            )
        return max(candidates, key=lambda s: s.work)

    def graphs(self) -> list[Any]:
        """The user's graphs behind the steps."""
        items = [i for s in self.steps for i in (*s.step.fetches, *s.step.targets)]
        found = {id(g): g for i in items if (g := getattr(i, "graph", None)) is not None}
        return list(found.values())


def _unique(names: Any) -> Sequence[str]:
    return list(dict.fromkeys(names))
