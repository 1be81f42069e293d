"""Offsets for memory ranges with known lifetimes: the offline storage problem.

Main types: ``Range``, ``Packing``; main functions: ``pack``, ``most_live_bytes``. Imports NumPy.

No packing is smaller than the bytes that live at one time; finding the smallest is NP-hard. Ranges
are placed one after the other, each at the lowest place (or the tightest gap) that is free during
its whole life. Placing the large ones first leaves gaps that small ones fit into. Several orders
are tried and the smallest result is taken, until one meets the lower bound.
Source: Pisarchyk and Lee, Efficient memory management for deep neural net inference, 2020.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

#: With more ranges only the first order is tried: a plan of 10,000 values stays below a second.
MANY = 3000
#: Attempts to improve the best order, for plans of at most ``FEW`` ranges.
ROUNDS, FEW = 24, 300


class Range(NamedTuple):
    """size_bytes; first, last: the numbers of the first and last kernel that need it."""

    size_bytes: int
    first: int
    last: int


class Packing(NamedTuple):
    """offsets: one per range.   total_bytes: end of the last.   live_bytes: the lower bound."""

    offsets: list[int]
    total_bytes: int
    live_bytes: int


def most_live_bytes(ranges: Sequence[Range]) -> int:
    """The most bytes that live during one kernel: no packing is smaller."""
    change: dict[int, int] = {}
    for one in ranges:
        change[one.first] = change.get(one.first, 0) + one.size_bytes
        change[one.last + 1] = change.get(one.last + 1, 0) - one.size_bytes
    most = now = 0
    for when in sorted(change):
        now += change[when]
        most = max(most, now)
    return most


def pack(ranges: Sequence[Range]) -> Packing:
    """Offsets such that ranges alive at the same time do not overlap. Deterministic."""
    bound = most_live_bytes(ranges)
    best: tuple[int, list[int]] = 0, []
    found: list[tuple[int, int, list[int], list[int], bool]] = []
    for order in _orders(ranges):
        for tight in (True, False):
            offsets, total = _placed(ranges, order, tight)
            found.append((total, len(found), offsets, order, tight))
            if total == bound or len(ranges) > MANY:
                return Packing(offsets, total, bound)
    if found:
        total, _, offsets, order, tight = min(found)
        best = total, offsets
        if len(ranges) <= FEW:
            best = _improved(ranges, bound, best, order, tight)
    return Packing(best[1], best[0], bound)


def _improved(
    ranges: Sequence[Range], bound: int, best: tuple[int, list[int]], order: list[int],
    tight: bool,
) -> tuple[int, list[int]]:  # fmt: skip
    """What ends up on top is placed first in the next round."""
    total, offsets = best
    for _ in range(ROUNDS):
        top = [n for n in order if offsets[n] + ranges[n].size_bytes == total]
        order = top + [n for n in order if n not in top]
        offsets, total = _placed(ranges, order, tight)
        best = min(best, (total, offsets))
        if total == bound:
            break
    return best


def _orders(ranges: Sequence[Range]) -> Iterator[list[int]]:
    numbers = range(len(ranges))
    if not ranges:
        return
    yield sorted(numbers, key=lambda n: (-ranges[n].size_bytes, ranges[n].first, n))
    yield sorted(
        numbers,
        key=lambda n: (-ranges[n].size_bytes * (ranges[n].last - ranges[n].first + 1), n),
    )
    yield sorted(numbers, key=lambda n: (ranges[n].first, -ranges[n].size_bytes, n))
    yield sorted(numbers, key=lambda n: (ranges[n].first - ranges[n].last, n))


def _placed(
    ranges: Sequence[Range], order: Sequence[int], tight: bool
) -> tuple[list[int], int]:
    """Places in the given order; tight: the smallest gap that fits, else the lowest."""
    count = len(ranges)
    first, last = np.zeros(count, np.int64), np.zeros(count, np.int64)
    begin, end = np.zeros(count, np.int64), np.zeros(count, np.int64)
    offsets, total = [0] * count, 0
    for k, n in enumerate(order):
        size, born, dead = ranges[n]
        together = np.flatnonzero((first[:k] <= dead) & (last[:k] >= born))
        offset = _gap(begin[together], end[together], size, tight)
        first[k], last[k], begin[k], end[k] = born, dead, offset, offset + size
        offsets[n] = offset
        total = max(total, offset + size)
    return offsets, total


def _gap(begin: np.ndarray, end: np.ndarray, size: int, tight: bool) -> int:
    """An offset with ``size`` free bytes between the given ranges, or behind all of them."""
    if not len(begin):
        return 0
    by_begin = np.argsort(begin, kind="stable")
    begin = begin[by_begin]
    reached = np.maximum.accumulate(end[by_begin])
    starts = np.concatenate([[0], reached[:-1]])
    fits = np.flatnonzero(begin - starts >= size)
    if not len(fits):
        return int(reached[-1])
    lengths = (begin - starts)[fits]
    return int(starts[fits[np.argmin(lengths)] if tight else fits[0]])
