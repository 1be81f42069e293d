"""The walk over what depends on what: order, one visit, depth."""

from __future__ import annotations

import random

from tinyflow.core.order import producers_first


def test_left_to_right_and_each_once():
    needs = {"d": "bc", "b": "a", "c": "ea", "a": "", "e": "", "f": "ad"}
    assert producers_first("df", lambda x: needs[x]) == ["a", "b", "e", "c", "d", "f"]
    assert producers_first("fd", lambda x: needs[x]) == ["a", "b", "e", "c", "d", "f"]
    assert producers_first("", lambda x: needs[x]) == []


def test_every_thing_is_asked_once():
    asked = []
    needs = {3: (2, 1, 2), 2: (1, 0), 1: (0,), 0: ()}

    def look(x):
        asked.append(x)
        return needs[x]

    assert producers_first([3, 3, 1], look) == [0, 1, 2, 3]
    assert sorted(asked) == [0, 1, 2, 3]


def test_against_recursion():
    rng = random.Random(0)
    for count in (1, 5, 30):
        needs = {n: rng.sample(range(n), rng.randint(0, min(n, 4))) for n in range(count)}
        order: dict[int, None] = {}

        def enter(n, needs=needs, order=order):
            if n not in order:
                for other in needs[n]:
                    enter(other)
                order[n] = None

        roots = rng.sample(range(count), (count + 1) // 2)
        for root in roots:
            enter(root)
        assert producers_first(roots, needs.__getitem__) == [*order]


def test_deeper_than_the_interpreters_stack():
    depth = 200_000
    order = producers_first([depth], lambda n: (n - 1,) if n else ())
    assert order == list(range(depth + 1))
