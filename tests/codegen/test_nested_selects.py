"""Chains of selects over one load stay linear in native code."""

import numpy as np
import pytest

from tests.codegen.harness import check, compiled
from tinyflow.codegen.llvm import lower_to_llvm
from tinyflow.core.dtype import float32, int32
from tinyflow.ir.loop.nodes import Buffer, For, Kernel, Store
from tinyflow.ir.scalar import nodes as s
from tinyflow.schedule.targets import host_target


def test_powers_by_squaring_are_written_once_per_bit():
    x, y, z = (Buffer(n, int32, (64,)) for n in "xyz")
    i = s.var("i")
    base, exponent, result = s.load(x, i), s.load(y, i), s.const(1, int32)
    for bit in range(31):
        take = ((exponent >> bit) & 1).not_equal(0)
        result = s.select(take, result * base, result)
        base = base * base
    body = (For(i, 64, "serial", (Store(z, (i,), result),)),)
    kernel = Kernel("power", (x, y, z), (), body, ("z",))
    text = lower_to_llvm(kernel, host_target())
    assert text.count("select") < 100
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-5, 6, 64).astype(np.int32), rng.integers(0, 9, 64).astype(np.int32)]
    check(kernel, [*arrays, np.zeros(64, np.int32)])



def _chain(links, form):
    """Each link uses the one before it twice, in branches that are loaded only where chosen."""
    x, z = Buffer("x", float32, (100,)), Buffer("z", float32, (64,))
    i = s.var("i")
    value = s.load(x, i)
    for link in range(links):
        inside = (i < 40 - link) & (s.index(link) <= i)
        if form == "branch and outside":
            value = s.select(inside, value * value, s.const(0.5, float32)) + value
        elif form == "two selects":
            value = s.select(inside, value * 0.5, s.const(0.25, float32)) + s.select(
                i < 30 + link, value, s.const(1.0, float32)
            )
        else:
            value = s.select(
                inside,
                s.select(i < 20 + link, value, s.load(x, i + link)),
                s.select(i < 45 + link, s.load(x, i + 1), value * value),
            )
    return x, z, i, value


@pytest.mark.parametrize("form", ["branch and outside", "two selects", "nested"])
@pytest.mark.parametrize("kind", ["serial", "vectorize"])
def test_chains_that_use_each_link_twice_stay_linear(form, kind):
    lengths = []
    for links in (4, 8, 12):
        x, z, i, value = _chain(links, form)
        kernel = Kernel("chain", (x, z), (), (For(i, 64, kind, (Store(z, (i,), value),)),), ("z",))
        lengths.append(lower_to_llvm(kernel, host_target()).count("\n"))
    first, second = lengths[1] - lengths[0], lengths[2] - lengths[1]
    assert second <= 1.3 * first + 4, lengths
    rng = np.random.default_rng(1)
    check(kernel, [rng.uniform(0, 1, 100).astype(np.float32), np.zeros(64, np.float32)])


def test_a_condition_that_needs_what_it_guards_is_right():
    """The demand of the shared load is a circle: the branches are written one by one."""
    x, z = Buffer("x", float32, (100,)), Buffer("z", float32, (64,))
    i = s.var("i")
    half, zero = s.const(0.5, float32), s.const(0.0, float32)
    shared = s.load(x, i + 30)
    first = s.select(i < 40, shared * 2.0, zero)
    inner = s.compare("lt", half, s.select(i < 50, shared, zero)) & (i < 60)
    value = first + s.select(inner, shared + s.load(x, i), half)
    kernel = Kernel("circle", (x, z), (), (For(i, 64, "serial", (Store(z, (i,), value),)),), ("z",))
    given = np.random.default_rng(2).uniform(0, 1, 100).astype(np.float32)
    got = np.zeros(64, np.float32)
    compiled(kernel)([given, got])
    at = np.arange(64)
    near, far = given[at], given[at + 30]
    one = np.where(at < 40, far * 2, 0)
    take = (np.where(at < 50, far, 0) > 0.5) & (at < 60)
    np.testing.assert_array_equal(got, one + np.where(take, far + near, np.float32(0.5)))
