"""What a planned step takes of memory, known before it runs, and whether that is within a budget.

Main type: ``MemoryReport``; main functions: ``memory_report``, ``within_budget``. May import core,
ir, passes and compile.plan.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tinyflow.compile.plan import Plan
from tinyflow.ir.graph.nodes import Function, Value
from tinyflow.passes.base import PassRecord
from tinyflow.passes.plan_memory import Place
from tinyflow.passes.rematerialize import (
    fit,
    is_step,
    peak_bytes,
    recompute_marked,
    rematerialize,
)

_ATTEMPTS = 4


@dataclass(frozen=True)
class MemoryReport:
    """Bytes by kind. arena: intermediate values, at the offsets of the plan; live: those in use at
    the worst moment, which no plan of the order can go below; naive: every value in a range of its
    own. variables, feeds, fetches, constants: arrays of the caller, the session and the program.
    """

    arena: int
    live: int
    naive: int
    variables: int
    feeds: int
    fetches: int
    constants: int

    @property
    def peak_bytes(self) -> int:
        """All that exists while the step runs."""
        return self.arena + self.variables + self.feeds + self.fetches + self.constants


def memory_report(plan: Plan) -> MemoryReport:
    """Counted from the plan; nothing runs."""
    memory = plan.memory
    by_kind: dict[str, dict[Place, int]] = {}
    for value, place in memory.places.items():
        sizes = by_kind.setdefault(place.kind, {})
        sizes[place] = max(sizes.get(place, 0), plan.bytes_of(value))
    naive = {
        v: plan.bytes_of(v)
        for v, place in memory.places.items()
        if place.kind == "arena" and not (isinstance(v, Value) and _is_shown(plan, v))
    }
    results = [v for n, v in enumerate(plan.results) if Place("fetch", n) not in
               by_kind.get("fetch", {})]  # fmt: skip
    return MemoryReport(
        arena=memory.arena_bytes,
        live=memory.live_bytes,
        naive=sum(naive.values()),
        variables=_total(by_kind, "variable") + _total(by_kind, "counter"),
        feeds=_total(by_kind, "feed"),
        fetches=_total(by_kind, "fetch") + sum(map(plan.bytes_of, results)),
        constants=_total(by_kind, "constant"),
    )


def _is_shown(plan: Plan, value: Value) -> bool:
    """Whether the value is a view of another one's memory."""
    item = plan.grouping.items.get(value)
    return item is not None and item.group is not None and item.group.kind == "view"


def _total(by_kind: dict[str, dict[Place, int]], kind: str) -> int:
    return sum(by_kind.get(kind, {}).values())


def within_budget(
    fn: Function,
    records: Sequence[PassRecord],
    plan: Plan,
    budget: int,
    plan_of: Callable[[Function], Plan],
) -> tuple[Function, Plan]:
    """(function, plan) whose peak is at most ``budget``, or the lowest found, with a warning.

    The pass works with estimates: scratch areas and gaps come with the kernels. Where the plan
    comes out above the budget, the pass aims lower by what its estimate lacked.
    """
    before = _before_rematerialize(records)
    aim, peak = budget, memory_report(plan).peak_bytes
    best = fn, plan, peak
    if before is not None and not is_step(before):
        before = None
    estimate = 0 if before is None else peak_bytes(fn)
    for _ in range(_ATTEMPTS):
        if before is None or peak <= budget or estimate > aim:
            break  # or nothing was found that would fit
        aim = min(aim - 1, budget - (peak - estimate))
        tried = fit(before, max(aim, 1))
        estimate = peak_bytes(tried)
        attempt = plan_of(tried)
        peak = memory_report(attempt).peak_bytes
        if peak < best[2]:
            best = tried, attempt, peak
    if best[2] > budget and before is not None and before is not fn:
        plain = recompute_marked(before)
        attempt = plan_of(plain)
        if memory_report(attempt).peak_bytes < best[2]:
            best = plain, attempt, memory_report(attempt).peak_bytes
    if best[2] > budget:
        warnings.warn(_too_much(memory_report(best[1]), budget), stacklevel=2)
    return best[0], best[1]


def _before_rematerialize(records: Iterable[PassRecord]) -> Function | None:
    """What the budget's search starts from: marked functions are already recomputed."""
    found = None
    for record in records:
        if record.name == rematerialize.name:
            return found
        found = record.fn
    return None


def _too_much(report: MemoryReport, budget: int) -> str:
    parts = ", ".join(
        f"{kind} {size:,}"
        for kind in ("arena", "variables", "feeds", "fetches", "constants")
        if (size := getattr(report, kind))
    )
    return (
        f"memory_budget: the step needs {report.peak_bytes:,} bytes ({parts}), above the budget of "
        f"{budget:,}; no recomputation found gives less"
    )
