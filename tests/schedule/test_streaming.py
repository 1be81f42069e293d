"""Kernels at memory speed: wide column reductions, maxima in rows, hints. Values and bits."""

import numpy as np
import pytest

from tests.schedule.test_auto import compiled
from tinyflow import ops
from tinyflow.ir.loop.nodes import HINTS, Call
from tinyflow.ir.loop.visit import collect
from tinyflow.te.canonical import CHUNK, STRIPE

SHAPES = [(70, 33), (65, 16), (100, 784), (300, 7), (CHUNK + 1, 129), (1000, 1), (64, 50), (3, 40)]


def canonical_sum(x):
    """Sum over the first axis in the order of te/canonical.py."""
    if len(x) > CHUNK:
        return canonical_sum(
            np.stack([canonical_sum(x[n : n + CHUNK]) for n in range(0, len(x), CHUNK)])
        )
    partials = np.zeros((STRIPE, *x.shape[1:]), x.dtype)
    for n, row in enumerate(x):
        partials[n % STRIPE] += row
    half = STRIPE // 2
    while half:
        partials[:half] += partials[half : 2 * half]
        half //= 2
    return partials[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_columns_are_summed_in_the_canonical_order(shape, dtype):
    x = np.random.default_rng(3).normal(size=shape).astype(dtype)
    (got,) = compiled(lambda v: ops.reduce_sum(v, axis=0), x)(x)
    assert got.tobytes() == canonical_sum(x).tobytes()


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shape", [(70, 256), (90, 100), (256, 128)])
def test_extremes_see_nan_and_the_sign_of_zero(shape, axis):
    rng = np.random.default_rng(4)
    x = np.where(rng.random(shape) < 0.5, np.float32(0.0), np.float32(-0.0))
    x[::3], x[:, ::5] = -0.0, -0.0
    x[rng.random(shape) < 0.1] = -1.0
    for largest, reduce_ in ((True, ops.reduce_max), (False, ops.reduce_min)):
        values = x.copy() if largest else -x
        (got,) = compiled(lambda v, r=reduce_: r(v, axis=axis), values)(values)
        wanted = (values == 0) & (np.signbit(values) != largest)
        assert np.array_equal(np.signbit(got) != largest, wanted.any(axis))
        values[rng.random(shape) < 0.003] = np.nan
        (got,) = compiled(lambda v, r=reduce_: r(v, axis=axis), values)(values)
        assert np.array_equal(np.isnan(got), np.isnan(values).any(axis))


def hints_of(function):
    calls = [c for k in function.plan.kernels for c in collect(k.kernel.body, Call)]
    return {(c.function, c.arguments[0].name) for c in calls if c.function in HINTS}


@pytest.mark.parametrize(
    ("build", "shape", "hints"),
    [
        (ops.softmax, (64, 1024), {("prefetch_read", "in0"), ("prefetch", "out0")}),
        (ops.softmax, (1024, 64), set()),  # short rows are nearly one stream
        (ops.softmax, (1, 1024), set()),  # there is no next row
        (ops.softmax, (3, 2 * CHUNK), set()),  # a row is longer than the first-level cache
        (ops.tanh, (1 << 18,), {("prefetch_read", "in0"), ("prefetch", "out0")}),
        (ops.tanh, (1 << 16,), set()),  # is in the second-level cache
        (ops.tanh, (1 << 15, 16), {("prefetch_read", "in0"), ("prefetch", "out0")}),
        (lambda x: ops.multiply(ops.transpose(x), 2.0), (1 << 15, 16), {("prefetch", "out0")}),
        (lambda x: ops.reduce_sum(x, axis=0), (1024, 1024), {("prefetch_read", "in0")}),
    ],
)
def test_hints(build, shape, hints):
    x = np.random.default_rng(5).normal(size=shape).astype(np.float32)
    assert hints_of(compiled(build, x)) == hints


def test_softmax_divides_once_per_row():
    x = np.zeros((64, 1024), np.float32)
    (kernel,) = compiled(ops.softmax, x).plan.kernels
    names = [item.value.node.op.type_name for item in kernel.group.items]
    assert "Reciprocal" in names and "RealDiv" not in names
