"""Search over schedule parameters, measured against the default, within a time box.

Main types: ``Finding``, ``Search``; main function ``tune``. Imports schedule.tuning and tune. What
to measure next is up to a strategy (strategies.py).

Times on a busy machine drift, so nothing is ever compared with a time taken earlier: a candidate
runs in turns with the default, and it must be ahead in the median of the ratios and in the best
times, which other programs disturb least. The winner must win again in a longer duel before it is
kept; otherwise the default stays.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinyflow.core.error import TinyFlowError
from tinyflow.runtime.thread_pool import default_pool
from tinyflow.schedule import tuning
from tinyflow.schedule.tuning import Tuning, checked_tuning, settings, target_key
from tinyflow.tune import space
from tinyflow.tune.cost_model import CostModel
from tinyflow.tune.strategies import PARENTS, STRATEGIES
from tinyflow.tune.workload import Bench, Workload

#: Turns of a first look, of a candidate that may be the best, and of the final duel.
LOOK, COMPARE, CONFIRM = 2, 5, 25
#: A first look this much slower than the default ends a candidate.
HOPELESS = 1.25
#: Share of the default's time that a winner must stay below in the final duel.
WINS = 0.98
#: How many of the best are remembered.
KEPT = 2 * PARENTS


@dataclass(frozen=True)
class Finding:
    """What a search found for one kernel.

    ratio: time / time of the default (1.0 when the default stays).   tried: candidates measured.
    replayed: it was in the log already and nothing was measured.
    """

    workload: Workload
    tuning: Tuning
    ratio: float
    default_s: float
    tried: int
    replayed: bool = False

    @property
    def saved_s(self) -> float:
        """Time saved per run of the program's step."""
        return self.workload.seconds * (1 - self.ratio)


def replayed(workload: Workload) -> Finding | None:
    """What the log says about the kernel on this kind of machine, if anything."""
    key = target_key(workload.target), workload.signature
    record = tuning.known_findings().get(key)
    if record is None:
        return None
    chosen = checked_tuning(workload.kind, record["tuning"])
    if chosen is None:
        return None
    ratio, default_us = record.get("ratio"), record.get("default_us")
    if not isinstance(ratio, (int, float)) or not isinstance(default_us, (int, float)):
        ratio, default_us = 1.0, 0.0
    return Finding(workload, chosen, float(ratio), float(default_us) * 1e-6, 0, replayed=True)


def tune(
    workload: Workload,
    seconds: float,
    log: Path | None = None,
    progress: Callable[[float, str], None] = lambda share, text: None,
    seed: int = 0,
    strategy: str = "model",
    model: CostModel | None = None,
) -> Finding:
    """Searches for at most ``seconds``; appends what it found to the log (also "the default").

    progress: called with the share of the time that is used and the best so far.
    strategy: one of STRATEGIES.   model: what searches of other kernels of this kind taught.
    """
    search = Search(workload, strategy, random.Random(seed), model)
    start = time.perf_counter()
    # The final duel and one compilation are kept in reserve.
    while (spent := time.perf_counter() - start) < seconds * 0.9 and not search.exhausted:
        search.step()
        progress(min(1.0, spent / seconds), search.best_text)
    finding = search.result()
    progress(1.0, space.shown(finding.tuning))
    if log is not None:
        pool = default_pool()
        tuning.append_log(
            log,
            {
                "target": target_key(workload.target),
                "kernel": workload.signature,
                "tuning": settings(finding.tuning),
                "ratio": round(finding.ratio, 4),
                "default_us": round(finding.default_s * 1e6, 2),
                "tried": finding.tried,
                "strategy": strategy,
                "threads": pool.n_threads if pool is not None else 1,
            },
        )
    return finding


class Search:
    """The best candidates of one kernel so far; ``step`` measures another one."""

    def __init__(
        self,
        workload: Workload,
        strategy: str,
        random_numbers: random.Random,
        model: CostModel | None = None,
    ) -> None:
        self.workload = workload
        learning = CostModel() if model is None else model
        self.strategy = STRATEGIES[strategy](workload, random_numbers, learning)
        self.default = workload.bench(workload.kind())
        self.default.run()
        self.default_times = [self.default.seconds()]
        self.seen: set[Tuning] = {workload.kind()}
        self.texts: set[str] = {self.default.text}
        self.population: list[tuple[float, Tuning, Bench]] = []
        self.tried = self.stale = 0

    @property
    def exhausted(self) -> bool:
        """Whether new candidates have been turning into known code for long."""
        return self.stale > 300

    @property
    def best_text(self) -> str:
        if not self.population or self.population[0][0] >= 1:
            return "default"
        ratio, chosen, _ = self.population[0]
        return f"{space.shown(chosen)} ({1 / ratio:.2f}x)"

    def step(self) -> None:
        """Measures one new candidate."""
        chosen = self.strategy.next([entry[:2] for entry in self.population])
        self.stale += 1
        if chosen in self.seen:
            return
        self.seen.add(chosen)
        try:
            bench = self.workload.bench(chosen)
        except TinyFlowError:
            return  # parameters that this kernel does not allow
        if bench.text in self.texts:
            return
        self.texts.add(bench.text)
        self.stale = 0
        self.tried += 1
        bench.run()
        ratio = self._duel(bench, LOOK)
        if ratio < HOPELESS:
            ratio = self._duel(bench, COMPARE)
        self.strategy.told(chosen, ratio)
        self.population.append((ratio, chosen, bench))
        self.population.sort(key=lambda entry: entry[0])
        del self.population[KEPT:]

    def _duel(self, bench: Bench, turns: int) -> float:
        """Time of the candidate / time of the default: the worse of two ways to say it.

        The median over turns, in which each runs first every other time, and the best times.
        """
        mine: list[float] = []
        theirs: list[float] = []
        for turn in range(turns):
            pair = (self.default, bench) if turn % 2 else (bench, self.default)
            times = {one: one.seconds() for one in pair}
            mine.append(times[bench])
            theirs.append(times[self.default])
        self.default_times += theirs
        typical = statistics.median(a / b for a, b in zip(mine, theirs, strict=True))
        return max(typical, min(mine) / min(theirs))

    @property
    def default_s(self) -> float:
        return statistics.median(self.default_times)

    def result(self) -> Finding:
        """The first of the best that wins the final duel; else the default."""
        for ratio, chosen, bench in self.population[:2]:
            if ratio >= 1:
                break
            again = self._duel(bench, CONFIRM)
            if again < WINS:
                return Finding(self.workload, chosen, again, self.default_s, self.tried)
        return Finding(self.workload, self.workload.kind(), 1.0, self.default_s, self.tried)
