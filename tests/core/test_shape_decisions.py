"""What can be decided about extents that only a run tells, and what is noted where it cannot."""

import pytest

from tinyflow.core.error import ShapeError
from tinyflow.core.shape import Dim, are_equal, at_most, broadcast_dim, broadcast_parts, strictly

N, M = Dim.symbol("N"), Dim.symbol("M")


def test_numbers_and_polynomials_are_decided_for_all_sizes():
    with strictly({"N": 5}) as conditions:
        assert at_most(3, 3) and not at_most(4, 3)
        assert at_most(N, N + 2) and at_most(N, 2 * N) and at_most(0, N * M)
        assert not at_most(N + 1, N) and not at_most(N, -1)
        assert are_equal(N * 2, N + N) and not are_equal(N, N + 1)
        assert at_most(N // 2, N + N // 2)
    assert not conditions


def test_other_decisions_follow_the_sizes_at_hand_and_become_conditions():
    with strictly({"N": 5, "M": 7}) as conditions:
        assert at_most(N * 3 + 1, 16) and not at_most(N, 4) and at_most(N, M)
        assert not are_equal(M, N + 1)
    assert [str(c) for c in conditions] == ["3*N <= 15", "N > 4", "-M+N <= 0", "M-N > 1"]

    def met(sizes):
        return [c.is_met(sizes) for c in conditions]

    assert met({"N": 5, "M": 7}) == [True] * 4
    assert met({"N": 6, "M": 7}) == [False, True, True, False]
    assert met({"N": 3, "M": 2}) == [True, False, False, False]


def test_a_difference_that_may_be_negative_is_not_taken_for_a_count():
    with strictly({"N": 5}) as conditions:
        assert at_most(0, (N - 3) // 2)
    (condition,) = conditions
    assert condition.is_met({"N": 3}) and not condition.is_met({"N": 2})


def test_without_sizes_nothing_is_decided():
    with pytest.raises(ShapeError, match=r"only a run can tell whether N is at most 4"):
        at_most(N, 4)


def test_what_broadcasts_can_be_taken_apart():
    both = broadcast_dim(N, M)
    assert broadcast_parts(str(both)) == (N, M)
