"""Packing ranges with lifetimes: no overlap, near the lower bound, deterministic."""

import time

import numpy as np
import pytest

from tinyflow.passes.pack_intervals import Range, most_live_bytes, pack


def check(ranges, packing):
    for n, a in enumerate(ranges):
        assert packing.offsets[n] >= 0
        assert packing.offsets[n] + a.size_bytes <= packing.total_bytes
        for m in range(n):
            b = ranges[m]
            together = a.first <= b.last and b.first <= a.last
            apart = (
                packing.offsets[n] + a.size_bytes <= packing.offsets[m]
                or packing.offsets[m] + b.size_bytes <= packing.offsets[n]
            )
            assert apart or not together, (a, b)


def test_nothing_needs_nothing():
    assert pack([]) == ([], 0, 0)


def test_ranges_that_follow_each_other_share():
    ranges = [Range(64, n, n) for n in range(5)]
    assert pack(ranges) == ([0] * 5, 64, 64)


def test_first_fit_in_order_of_birth_would_leave_a_gap():
    """The long-lived small range goes beside the large ones, not between them."""
    ranges = [Range(64, 0, 1), Range(128, 1, 9), Range(256, 2, 4), Range(256, 5, 9)]
    packing = pack(ranges)
    check(ranges, packing)
    assert packing.total_bytes == packing.live_bytes == 384


@pytest.mark.parametrize("seed", range(20))
def test_random_ranges_do_not_overlap_and_stay_near_the_bound(seed):
    rng = np.random.default_rng(seed)
    ranges = []
    for _ in range(80):
        first = int(rng.integers(0, 60))
        size = 64 * int(rng.integers(1, 40))
        ranges.append(Range(size, first, first + int(rng.integers(0, 12))))
    packing = pack(ranges)
    check(ranges, packing)
    live = [sum(r.size_bytes for r in ranges if r.first <= t <= r.last) for t in range(80)]
    assert packing.live_bytes == most_live_bytes(ranges) == max(live)
    assert packing.live_bytes <= packing.total_bytes <= 1.25 * packing.live_bytes
    assert pack(ranges) == packing


def test_ten_thousand_ranges_take_seconds_at_most():
    rng = np.random.default_rng(0)
    ranges = [Range(64 * int(s), n, n + 3 + int(s) % 50) for n, s in
              enumerate(rng.integers(1, 99, 10_000))]  # fmt: skip
    begin = time.thread_time()
    packing = pack(ranges)
    assert time.thread_time() - begin < 5
    assert packing.total_bytes < 1.6 * packing.live_bytes
