"""What a pass is, and the runner that times, verifies, dumps and stops.

Main types: ``GraphPass`` (made by ``@graph_pass``), ``PassRecord``; ``run_passes``.
May import core, ir.graph and rewrite.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinyflow.core import options
from tinyflow.core.error import InternalError, TinyFlowError
from tinyflow.ir.graph.nodes import Function
from tinyflow.ir.graph.text import outline, show
from tinyflow.ir.graph.verify import verify


@dataclass(frozen=True)
class GraphPass:
    """A pure function ``Function -> Function`` with its name and what it relies on.

    needs, provides: facts about the function, checked by the runner ("static_types" holds from the
    start). level: the lowest optimisation level at which it runs; 0 is always.
    """

    name: str
    run: Callable[[Function], Function]
    needs: frozenset[str] = frozenset()
    provides: frozenset[str] = frozenset()
    level: int = 1
    doc: str = field(default="", compare=False)
    #: the rules of a rewriting pass, for traces and bisecting
    rule_set: Any = field(default=None, compare=False)

    def __call__(self, fn: Function) -> Function:
        return self.run(fn)


def graph_pass(
    needs: Iterable[str] = (), provides: Iterable[str] = (), level: int = 1
) -> Callable[[Callable[[Function], Function]], GraphPass]:
    """Declares a function to be a pass under its own name."""

    def declare(function: Callable[[Function], Function]) -> GraphPass:
        return GraphPass(
            function.__name__, function, frozenset(needs), frozenset(provides), level,
            function.__doc__ or "",
        )  # fmt: skip

    return declare


@dataclass(frozen=True)
class PassRecord:
    """What one pass did. time_us: how long it took; fn: the function after it.

    trace: rewrites and refusals of a rule pass (rewrite.Trace), else None.
    """

    number: int
    name: str
    reason: str
    time_us: float
    nodes_before: int
    nodes_after: int
    changed: bool
    fn: Function
    trace: Any = None

    @property
    def text(self) -> str:
        """The function after the pass, or "unchanged"."""
        return outline(self.fn) if self.changed else "unchanged\n"

    def __str__(self) -> str:
        what = f"{self.nodes_before} -> {self.nodes_after} nodes" if self.changed else "unchanged"
        return f"{self.number:03d} {self.name:<18} {self.time_us:9.0f} us  {what}"


@dataclass(frozen=True)
class Step:
    """One line of a pipeline: a pass and why it stands at this place."""

    graph_pass: GraphPass
    reason: str


def run_passes(
    fn: Function, steps: Sequence[Step], facts: Iterable[str] = ("static_types",)
) -> tuple[Function, list[PassRecord]]:
    """Runs the steps that the current options allow; the function and one record per step run.

    options: ``level`` and ``disabled_passes`` choose, ``verify`` checks after each pass, ``dump``
    writes ``NNN_name.txt``, ``stop_after`` ends after the pass of that name or number.
    Errors: InternalError naming the pass, for an exception in a pass or an illegal result.
    """
    now = options.current()
    established = set(facts)
    records: list[PassRecord] = []
    dump = _Dump(now.dump, fn)
    if now.verify:
        verify(fn, "(before the first pass)")
    for number, step in enumerate(steps, 1):
        one = step.graph_pass
        if now.level < one.level or one.name in now.disabled_passes:
            continue
        missing = one.needs - established
        if missing:
            raise InternalError(f"pass {one.name} needs {', '.join(sorted(missing))}")
        record = _run_one(number, step, fn)
        established |= one.provides
        records.append(record)
        fn = record.fn
        dump.write(record)
        if now.verify and record.changed:
            verify(fn, one.name)
        if now.stop_after in (one.name, str(number), f"{number:03d}"):
            break
    return fn, records


def _run_one(number: int, step: Step, fn: Function) -> PassRecord:
    one = step.graph_pass
    nodes_before = len(fn.nodes)
    start = time.perf_counter()
    trace = None
    try:
        if one.rule_set is not None:
            after, trace = one.rule_set.apply(fn)
        else:
            after = one.run(fn)
    except TinyFlowError:
        raise
    except Exception as error:
        raise InternalError(
            f"pass {one.name} failed: {type(error).__name__}: {error}",
            hint=f"TINYFLOW_DISABLE={one.name} leaves it out; "
            "TINYFLOW_DUMP=<folder> shows its input",
        ) from error
    time_us = (time.perf_counter() - start) * 1e6
    return PassRecord(
        number, one.name, step.reason, time_us, nodes_before, len(after.nodes), after is not fn,
        after, trace,
    )  # fmt: skip


class _Dump:
    """Writes the function before the first pass and after every pass, when a folder is set."""

    def __init__(self, folder: str | None, fn: Function) -> None:
        self.folder = folder
        if folder is not None:
            os.makedirs(folder, exist_ok=True)
            self._write("000_input.txt", show(fn))

    def write(self, record: PassRecord) -> None:
        if self.folder is None:
            return
        text = show(record.fn) if record.changed else "unchanged\n"
        header = f"# {record}\n# {record.reason}\n"
        if record.trace is not None and record.trace.events:
            header += "".join(f"# {event}\n" for event in record.trace.events)
        self._write(f"{record.number:03d}_{record.name}.txt", header + text)

    def _write(self, name: str, text: str) -> None:
        assert self.folder is not None
        with open(os.path.join(self.folder, name), "w", encoding="utf-8") as file:
            file.write(text)
