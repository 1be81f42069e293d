"""The memory plan: in place, reuse, copies, and no overlap of what lives at the same time."""

import numpy as np
import pytest

from tinyflow.passes.plan_memory import Place, Use, plan_memory


class Area:
    """A value as the plan sees it: something with a size."""

    def __init__(self, name, size_bytes=640):
        self.name, self.size_bytes = name, size_bytes

    def __repr__(self):
        return self.name


def areas(names, size_bytes=640):
    return [Area(n, size_bytes) for n in names]


def test_a_chain_needs_two_ranges_and_one_in_place():
    a, b, c, d = areas("abcd")
    fixed = {a: Place("feed", "a")}
    uses = [Use((a,), (b,)), Use((b,), (c,)), Use((c,), (d,))]
    assert plan_memory(uses, fixed, {}, [], []).arena_bytes == 2 * 640
    pairs = [Use((a,), (b,)), Use((b,), (c,), ((b, c),)), Use((c,), (d,), ((c, d),))]
    plan = plan_memory(pairs, fixed, {}, [], [])
    assert plan.arena_bytes == 640
    assert plan.reused == [(b, c), (c, d)]


def test_a_variable_is_updated_in_place_only_when_nobody_reads_it_later():
    w, g, new, other = areas(["w", "g", "new", "other"])
    fixed = {w: Place("variable", "W"), g: Place("feed", "g")}
    update = Use((w, g), (new,), ((w, new),))
    plan = plan_memory([update], fixed, {}, [], [("W", new)])
    assert plan.places[new] == Place("variable", "W") and not plan.copies
    late = Use((w,), (other,))
    plan = plan_memory([update, late], fixed, {}, [(0, other)], [("W", new)])
    assert plan.places[new].kind == "arena"
    assert [(c.source, c.target) for c in plan.copies] == [(new, Place("variable", "W"))]


def test_a_fetched_old_value_is_copied_before_the_update():
    w, new = areas(["w", "new"])
    fixed = {w: Place("variable", "W")}
    plan = plan_memory([Use((w,), (new,), ((w, new),))], fixed, {}, [(0, w)], [("W", new)])
    assert plan.places[new].kind == "arena"
    assert [c.target.kind for c in plan.copies] == ["fetch", "variable"]
    assert plan.copies[1].source is new


def test_swapping_two_variables_goes_through_scratch():
    a, b = areas("ab")
    fixed = {a: Place("variable", "A"), b: Place("variable", "B")}
    plan = plan_memory([], fixed, {}, [], [("A", b), ("B", a)])
    memory = {"A": 1, "B": 2}
    scratch = {}
    for copy in plan.copies:
        place = plan.places.get(copy.source, copy.source)
        is_variable = getattr(place, "kind", "") == "variable"
        value = memory[place.key] if is_variable else scratch[copy.source]
        if isinstance(copy.target, Place) and copy.target.kind == "variable":
            memory[copy.target.key] = value
        else:
            scratch[copy.target] = value
    assert memory == {"A": 2, "B": 1}


@pytest.mark.parametrize("seed", range(30))
def test_values_that_live_together_never_overlap(seed):
    rng = np.random.default_rng(seed)
    values = [Area(f"v{n}", int(rng.integers(1, 5000))) for n in range(40)]
    uses = []
    for n, value in enumerate(values):
        reads = tuple(values[int(k)] for k in rng.integers(0, n, min(n, 3))) if n else ()
        pairs = tuple((r, value) for r in reads if r.size_bytes == value.size_bytes)
        uses.append(Use(reads, (value,), pairs))
    plan = plan_memory(uses, {}, {}, [], [])
    last = {v: n for n, use in enumerate(uses) for v in (*use.reads, *use.writes)}
    alive = []
    for n, use in enumerate(uses):
        alive = [v for v in alive if last[v] >= n]
        (new,) = use.writes
        start = plan.places[new].key
        assert start % 64 == 0 and start + new.size_bytes <= plan.arena_bytes
        for old in alive:
            begin = plan.places[old].key
            apart = begin + old.size_bytes <= start or start + new.size_bytes <= begin
            assert apart or (last[old] == n and (old, new) in use.in_place)
        alive.append(new)
