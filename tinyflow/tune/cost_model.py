"""A learned cost model: how much slower than the default a schedule will be, from its features.

Main type: ``CostModel``. Imports NumPy only.

Least-squares boosting of stumps on log(time / time of the default): each round fits one threshold
of one feature to what is left and adds a part of it. It needs a dozen measurements to be better
than chance, and what it learns on one kernel holds for the next.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Array = Any
#: Thresholds, and the part of each that is added.
ROUNDS, RATE = 80, 0.2
#: Measurements that are remembered, the latest ones.
MEMORY = 600
#: Measurements on each side of a threshold, at least.
LEAST = 2


class _Stump(NamedTuple):
    """x[feature] <= threshold: below, else above."""

    feature: int
    threshold: float
    below: float
    above: float


class CostModel:
    """Learns from ``add``; ``predict`` gives log(time / time of the default), lower is better."""

    def __init__(self) -> None:
        self._rows: list[Array] = []
        self._targets: list[float] = []
        self._stumps: list[_Stump] | None = []
        self._mean = 0.0

    def __len__(self) -> int:
        return len(self._targets)

    def add(self, features: Array, ratio: float) -> None:
        """One measurement; ratio: time / time of the default."""
        self._rows.append(np.asarray(features, float))
        self._targets.append(float(np.log(max(ratio, 1e-6))))
        del self._rows[:-MEMORY], self._targets[:-MEMORY]
        self._stumps = None

    def predict(self, features: Array) -> Array:
        """One number per row of features."""
        rows = np.atleast_2d(np.asarray(features, float))
        if self._stumps is None:
            self._fit()
        found = np.full(len(rows), self._mean)
        for stump in self._stumps or ():
            below = rows[:, stump.feature] <= stump.threshold
            found += np.where(below, stump.below, stump.above)
        return found

    def _fit(self) -> None:
        rows, left = np.array(self._rows), np.array(self._targets)
        self._mean, self._stumps = float(left.mean()), []
        left = left - self._mean
        order = np.argsort(rows, axis=0, kind="stable")
        ranked = np.take_along_axis(rows, order, axis=0)
        for _ in range(ROUNDS):
            stump = _best_stump(ranked, left[order])
            if stump is None:
                return
            self._stumps.append(stump)
            below = rows[:, stump.feature] <= stump.threshold
            left -= np.where(below, stump.below, stump.above)


def _best_stump(ranked: Array, left: Array) -> _Stump | None:
    """The threshold that explains most; columns: features, each in ascending order.

    Splitting n numbers of sum s into parts (n1, s1), (n2, s2) lowers the squared error by
    s1**2/n1 + s2**2/n2 - s**2/n.
    """
    count = len(ranked)
    if count < 2 * LEAST:
        return None
    sums = np.cumsum(left, axis=0)
    total, below = sums[-1], np.arange(1, count)[:, None]
    gain = sums[:-1] ** 2 / below + (total - sums[:-1]) ** 2 / (count - below) - total**2 / count
    allowed = ranked[1:] > ranked[:-1]
    allowed[: LEAST - 1] = allowed[count - LEAST :] = False
    gain = np.where(allowed, gain, 0.0)
    place, feature = np.unravel_index(int(gain.argmax()), gain.shape)
    if gain[place, feature] <= 1e-12:
        return None
    threshold = (ranked[place, feature] + ranked[place + 1, feature]) / 2
    first = sums[place, feature]
    return _Stump(
        int(feature), float(threshold), RATE * float(first / (place + 1)),
        RATE * float((total[feature] - first) / (count - place - 1)),
    )  # fmt: skip
