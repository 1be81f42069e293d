"""Which schedule parameters to measure next: at random, by beam, by evolution, with a model.

Main table: ``STRATEGIES``. Imports schedule and tune.

A strategy only proposes; the search measures, and tells it what came out. Proposals may repeat or
be impossible: the search skips those without measuring.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyflow.core.error import TinyFlowError
from tinyflow.runtime.thread_pool import default_pool
from tinyflow.schedule.tuning import Tuning
from tinyflow.tune import space
from tinyflow.tune.cost_model import CostModel
from tinyflow.tune.features import features_of
from tinyflow.tune.workload import Workload

#: How many of the best are parents of the next candidates.
PARENTS = 4
#: Candidates that a model ranks, and how many of them are measured before it ranks again.
POOL, BATCH = 24, 4
#: Measurements that a model needs before it is asked.
TAUGHT = 12
#: Pools without anything new after which a model has nothing to say.
_TRIES = 4


class Strategy:
    """Proposes tunings for one workload. best: (ratio, tuning) of those measured, best first."""

    def __init__(
        self, workload: Workload, random_numbers: random.Random, model: CostModel
    ) -> None:
        self.workload, self.random, self.model = workload, random_numbers, model
        self.queue: list[Tuning] = space.seeds(workload.kind, workload.target)

    def next(self, best: Sequence[tuple[float, Tuning]]) -> Tuning:
        return self.queue.pop(0) if self.queue else self.further(best)

    def further(self, best: Sequence[tuple[float, Tuning]]) -> Tuning:
        raise NotImplementedError

    def told(self, chosen: Tuning, ratio: float) -> None:
        """What a proposal's measurement gave."""


class Random(Strategy):
    """Every parameter by itself; no seeds: the floor that the others must beat."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.queue = []

    def further(self, best: Sequence[tuple[float, Tuning]]) -> Tuning:
        return space.drawn(self.workload.kind, self.workload.target, self.random)


class Beam(Strategy):
    """All neighbours of the best few, then all neighbours of the best few of those."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.expanded: set[Tuning] = set()

    def further(self, best: Sequence[tuple[float, Tuning]]) -> Tuning:
        target = self.workload.target
        members = [chosen for _, chosen in best[:PARENTS]] or [self.workload.kind()]
        fresh = [m for m in members if m not in self.expanded]
        if not fresh:  # a hill climbed: jump
            return space.drawn(self.workload.kind, target, self.random)
        self.expanded.update(fresh)
        self.queue = [n for member in fresh for n in space.neighbours(member, target)]
        self.random.shuffle(self.queue)
        return self.queue.pop(0)


class Evolution(Strategy):
    """Children of the best: one or two parameters changed, or mixed from two parents."""

    def further(self, best: Sequence[tuple[float, Tuning]]) -> Tuning:
        return self._child(best)

    def _child(self, best: Sequence[tuple[float, Tuning]]) -> Tuning:
        target = self.workload.target
        parents = [chosen for _, chosen in best[:PARENTS]] or [self.workload.kind()]
        parent = self.random.choice(parents)
        if len(parents) > 1 and self.random.random() < 0.3:
            parent = space.crossed(parent, self.random.choice(parents), target, self.random)
        return space.mutated(parent, target, self.random)


class Model(Evolution):
    """Evolution whose children a learned cost model ranks; only the most promising are measured.

    The model sees loop nests, which cost a thousandth of a measurement to make. One in BATCH is
    taken from the pool at random, so that it also learns what it does not expect.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.known: dict[Tuning, Any] = {}
        self.proposed: set[bytes] = set()
        self.seeds = list(self.queue)
        pool = default_pool()
        self.threads = pool.n_threads if pool is not None else 1
        self.start = self._counts(self.workload.kind())
        if len(self.model) >= TAUGHT:
            self.queue = []  # it knows better than the order of the list

    def further(self, best: Sequence[tuple[float, Tuning]]) -> Tuning:
        if len(self.model) < TAUGHT:
            return super().further(best)
        for _ in range(_TRIES):
            pool = self._pool(best)
            if pool:
                guesses = self.model.predict(np.array([self.known[c] for c in pool]))
                ranked = [pool[n] for n in np.argsort(guesses, kind="stable")]
                chosen = ranked[: BATCH - 1]
                if len(ranked) >= BATCH:
                    chosen.append(self.random.choice(ranked[BATCH - 1 :]))
                self.proposed.update(self.known[c].tobytes() for c in chosen)
                self.queue = chosen
                return self.queue.pop(0)
        return super().further(best)

    def _pool(self, best: Sequence[tuple[float, Tuning]]) -> list[Tuning]:
        """New candidates that can be lowered: children, seeds, and some that are just different."""
        kind, target = self.workload.kind, self.workload.target
        found = dict.fromkeys(self.seeds)
        found.update(dict.fromkeys(self._child(best) for _ in range(POOL)))
        found.update(dict.fromkeys(
            space.drawn(kind, target, self.random) for _ in range(POOL // 4)
        ))
        fresh: dict[bytes, Tuning] = {}
        for chosen in found:
            features = self._features(chosen)
            if features is not None and features.tobytes() not in self.proposed:
                fresh.setdefault(features.tobytes(), chosen)  # equal counts: equal code, nearly
        return list(fresh.values())

    def _features(self, chosen: Tuning) -> Any:
        """Counts compared with the default's, and the counts; None if it cannot be lowered."""
        if chosen not in self.known:
            counts = self._counts(chosen)
            usable = counts is not None and self.start is not None
            self.known[chosen] = np.concatenate([counts - self.start, counts]) if usable else None
        return self.known[chosen]

    def _counts(self, chosen: Tuning) -> Any:
        try:
            return features_of(self.workload.kernels(chosen), self.threads)
        except TinyFlowError:
            return None

    def told(self, chosen: Tuning, ratio: float) -> None:
        features = self._features(chosen)
        if features is not None:
            self.proposed.add(features.tobytes())
            self.model.add(features, ratio)


STRATEGIES: dict[str, type[Strategy]] = {
    "model": Model, "evolution": Evolution, "beam": Beam, "random": Random,
}  # fmt: skip
