"""Schedule steps: text before and after, legality, and equal results by the loop interpreter."""

import doctest

import numpy as np
import pytest

import tinyflow.schedule.schedule as module
from tinyflow.core.dtype import float32
from tinyflow.ir.loop import interp
from tinyflow.ir.loop.nodes import Buffer, For, Kernel, Store
from tinyflow.ir.loop.text import show_body
from tinyflow.ir.loop.verify import verify
from tinyflow.ir.scalar import nodes as s
from tinyflow.schedule.schedule import Schedule, ScheduleError

i, j, r = s.var("i"), s.var("j"), s.var("r")
X = Buffer("x", float32, (84,))
Y = Buffer("y", float32, (84,))


def scaled(rows=7, columns=12):
    """y[i, j] = 2 * x[i, j]"""
    at = i * columns + j
    body = (Store(Y, (at,), s.load(X, at) * 2.0),)
    return Schedule((For(i, rows, "serial", (For(j, columns, "serial", body),)),))


def result(schedule, outputs=Y, tasks=1):
    kernel = Kernel("k", (X, outputs), (), schedule.body, (outputs.name,), tasks)
    verify(kernel)
    x = np.random.default_rng(0).normal(size=84).astype(np.float32)
    arrays = [x, np.zeros(outputs.shape, np.float32)]
    interp.run(kernel, arrays, (), 0, tasks)
    return x, arrays[1]


STEPS = {
    "split": lambda t: t.split("j", 5),
    "block": lambda t: t.block("j", 5),
    "fuse": lambda t: t.fuse("i", "j"),
    "reorder": lambda t: t.reorder("i", "j"),
    "tile": lambda t: t.tile("i", "j", 7, 4),
    "vectorize": lambda t: t.vectorize("j", 8),
    "unroll": lambda t: t.unroll("j"),
    "fuse, block, vectorize": lambda t: t.vectorize(t.block(t.fuse("i", "j"), 40)[1], 16),
}


@pytest.mark.parametrize("name", STEPS)
def test_steps_keep_the_result(name):
    schedule = scaled()
    STEPS[name](schedule)
    x, y = result(schedule)
    np.testing.assert_array_equal(y, 2 * x)
    assert schedule.steps


def test_parallel_is_outermost():
    schedule = scaled()
    with pytest.raises(ScheduleError, match="outermost"):
        schedule.parallel("j")
    schedule.parallel("i")
    x, y = result(schedule, tasks=7)
    np.testing.assert_array_equal(y, 2 * x)


def test_an_unknown_loop_lists_the_loops():
    with pytest.raises(ScheduleError, match="no loop k") as caught:
        scaled().split("k", 2)
    assert "choices: i, j" in str(caught.value)


def test_fuse_needs_perfect_nesting():
    schedule = scaled()
    schedule.split("j", 5)
    with pytest.raises(ScheduleError, match="not nested alone"):
        schedule.fuse("i", "j.o")


def row_sums(columns):
    """y[i] = sum over r of x[i, r], as two nests: z[i, r] = x + 1 first."""
    total = Buffer("y", float32, (84 // columns,))
    update = s.load(total, i) + s.load(X, i * columns + r)
    body = (
        Store(total, (i,), s.const(0, float32)),
        For(r, columns, "serial", (Store(total, (i,), update),)),
    )
    return Schedule((For(i, 84 // columns, "serial", body),)), total


@pytest.mark.parametrize("columns", [1, 3, 12, 21, 42, 84])
def test_stripe_is_the_canonical_order(columns):
    schedule, total = row_sums(columns)
    schedule.stripe("r")
    x, y = result(schedule, total)
    for row, got in zip(x.reshape(-1, columns), y, strict=True):
        partial = np.zeros(16, np.float32)
        for n, value in enumerate(row):
            partial[n % 16] += value
        while len(partial) > 1:
            half = len(partial) // 2
            partial = partial[:half] + partial[half:]
        assert got == partial[0]


def test_compute_at_and_shrink():
    first, second = s.var("i"), s.var("q")
    z = Buffer("z", float32, (7, 12), "stack")
    make = Store(z, (first, j), s.load(X, first * 12 + j) + 1.0)
    use = Store(Y, (second * 12 + r,), s.load(z, second, r) * 3.0)
    schedule = Schedule(
        (
            For(first, 7, "serial", (For(j, 12, "serial", (make,)),)),
            For(second, 7, "serial", (For(r, 12, "serial", (use,)),)),
        )
    )
    schedule.compute_at("i", "q")
    schedule.shrink(z, "q", "stack")
    assert show_body(schedule.body).startswith("for q in serial(7):\n  with z: stack float32[12]:")
    x, y = result(schedule)
    np.testing.assert_array_equal(y, (x + 1) * 3)


def test_compute_at_refuses_other_iterations():
    z = Buffer("z", float32, (7,), "stack")
    q = s.var("q")
    schedule = Schedule(
        (
            For(i, 7, "serial", (Store(z, (i,), s.load(X, i)),)),
            For(q, 7, "serial", (Store(Y, (q,), s.load(z, s.index(6) - q)),)),
        )
    )
    with pytest.raises(ScheduleError, match="another iteration"):
        schedule.compute_at("i", "q")


def test_documentation_examples():
    assert doctest.testmod(module).failed == 0
