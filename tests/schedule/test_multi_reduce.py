"""Several reductions in one pass: values, bits, threads, and the kernels that it takes."""

import numpy as np
import pytest

from tests.schedule.test_auto import compiled, normal
from tinyflow import ops
from tinyflow.passes.fusion import siblings
from tinyflow.runtime.thread_pool import default_pool, set_num_threads


def statistics(axis):
    def build(x):
        return (
            ops.reduce_sum(x, axis=axis),
            ops.reduce_sum(ops.square(x), axis=axis),
            ops.reduce_max(x, axis=axis),
        )

    return build


CASES = [
    ((300, 70), 0), ((17, 1000), 0), ((9001, 5), 0), ((20000, 33), 0), ((40, 9, 10, 24), (0, 1, 2)),
    ((6, 24, 30, 31), (0, 2, 3)), ((300, 700), None), ((9, 64, 33), 1), ((5000, 1), 0),
    ((16, 257), 0), ((1, 5000), 0),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize(("shape", "axis"), CASES)
def test_every_form_has_the_bits_of_single_reductions(shape, axis, dtype, monkeypatch):
    x = (normal(*shape) * 10).astype(dtype)
    together = compiled(statistics(axis), x)(x)
    monkeypatch.setattr(siblings, "WORTH", 1 << 60)
    alone = compiled(statistics(axis), x)(x)
    axes = tuple(range(len(shape))) if axis is None else axis
    expected = x.sum(axes), np.square(x).sum(axes), x.max(axes)
    for a, b, e in zip(together, alone, expected, strict=True):
        assert a.tobytes() == b.tobytes()
        np.testing.assert_allclose(a, e, rtol=1e-4 if dtype == "float32" else 1e-9, atol=1e-2)


@pytest.mark.parametrize(("shape", "kernels"), [((300, 70), 1), ((20000, 33), 2)])
def test_how_many_kernels(shape, kernels):
    assert len(compiled(statistics(0), normal(*shape)).plan.kernels) == kernels


def test_the_number_of_threads_changes_no_bit():
    x = normal(3000, 200)
    function = compiled(statistics(0), x)
    before = default_pool().n_threads
    results = []
    try:
        for threads in (1, 2):
            set_num_threads(threads)
            results.append([r.tobytes() for r in function(x)])
    finally:
        set_num_threads(before)
    assert results[0] == results[1]


def test_what_follows_each_reduction_is_in_the_kernel():
    def build(x, y, bias):
        return ops.tanh(ops.reduce_sum(x, axis=0)) + bias, ops.reduce_sum(x * y, axis=0) * 0.5

    x, y, bias = normal(400, 50), normal(400, 50), normal(50)
    function = compiled(build, x, y, bias)
    assert [k.group.kind for k in function.plan.kernels] == ["reduce"]
    first, second = function(x, y, bias)
    np.testing.assert_allclose(first, np.tanh(x.sum(0)) + bias, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(second, (x * y).sum(0) * 0.5, rtol=1e-4, atol=1e-4)
