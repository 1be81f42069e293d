"""The order of groups under random joins, against a search of the whole graph."""

import numpy as np
import pytest

from tinyflow.core.error import InternalError
from tinyflow.passes.fusion import order
from tinyflow.passes.fusion.groups import Group


def made(count):
    return [Group("map", n, rank=n) for n in range(count)]


def needs(group, target):
    """Whether ``group`` reads from ``target`` through any number of edges."""
    stack, seen = list(group.sources), set()
    while stack:
        current = stack.pop()
        if current is target:
            return True
        if current not in seen:
            seen.add(current)
            stack += current.sources
    return False


def check(groups):
    for group in groups:
        assert all(s.rank < group.rank for s in group.sources)
        assert all(group in s.readers for s in group.sources)
        assert all(group in r.sources for r in group.readers)
    assert len({g.rank for g in groups}) == len(groups)


@pytest.mark.parametrize("seed", range(20))
def test_random_edges_and_joins_keep_the_order(seed):
    rng = np.random.default_rng(seed)
    groups = made(24)
    for _ in range(120):
        first, second = (groups[int(n)] for n in rng.choice(len(groups), 2, replace=False))
        assert order.reaches(first, second) == needs(first, second)
        if rng.random() < 0.6:
            if not needs(first, second):
                order.link(first, second)  # second reads from first
        elif len(groups) > 4 and not (
            needs(first, second) or order.needs_through_another(second, first)
        ):
            order.absorb_edges(first, second)
            groups.remove(first)
        check(groups)


def test_an_edge_that_closes_a_cycle_is_an_internal_error():
    a, b, c = made(3)
    order.link(a, b)
    order.link(b, c)
    with pytest.raises(InternalError, match="wait for each other"):
        order.link(c, a)


def test_a_third_group_between_two_is_found():
    a, b, c = made(3)
    order.link(a, b)
    order.link(a, c)
    assert not order.needs_through_another(c, a)
    order.link(b, c)
    assert order.needs_through_another(c, a)


def test_a_search_that_gets_long_answers_that_they_may_depend():
    groups = made(order.SEARCH_LIMIT + 10)
    first, last = groups[0], groups[-1]
    for group in groups[1:-1]:
        order.link(group, last)
        order.link(groups[1], group)
    assert order.reaches(last, first)  # it does not, but finding that out takes too long
