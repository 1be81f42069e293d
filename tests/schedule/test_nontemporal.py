"""Results larger than the caches are stored past them: which ones, and that values stay."""

import dataclasses

import numpy as np
import pytest

import tinyflow as tf
from tests.codegen.harness import assembly, check
from tests.codegen.harness import compiled as compiled_kernel
from tests.compile.test_unknown_sizes import run_all
from tests.schedule import test_auto
from tests.schedule.test_streaming import hints_of
from tinyflow import ops
from tinyflow.core.dtype import float32
from tinyflow.core.error import InternalError
from tinyflow.ir.loop.nodes import Buffer, For, Kernel, Store
from tinyflow.ir.loop.verify import verify
from tinyflow.ir.scalar import nodes as s
from tinyflow.schedule import targets
from tinyflow.schedule.targets import host_target

LEAST = 1 << 16  # bytes of the last cache in these tests


@pytest.fixture
def small_cache(monkeypatch):
    target = dataclasses.replace(host_target(), l3_bytes=LEAST)
    monkeypatch.setattr(targets, "host_target", lambda: target)


def normal(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def marked(plan):
    return [b.name for k in plan.kernels for b in k.kernel.buffers if b.nontemporal]


def scaled_softmax(x):
    total = ops.reduce_sum(x, axis=1)
    return ops.softmax(x), total


@pytest.mark.parametrize(
    ("build", "shape", "names"),
    [
        (ops.tanh, (LEAST // 8,), ["out0"]),
        (ops.tanh, (LEAST // 8 - 16,), []),  # fits
        (ops.softmax, (64, 256), ["out0"]),
        (ops.softmax, (64, 250), []),  # rows do not start at a vector
        (scaled_softmax, (64, 256), ["out1"]),  # but not one number per row
        (lambda x: ops.reduce_sum(x, axis=0), (128, 256), []),
        (ops.transpose, (128, 256), []),  # squares turned in registers
        (ops.transpose, (128, 250), []),
    ],
)
def test_which_results(small_cache, build, shape, names):
    x = normal(*shape)
    function = test_auto.compiled(build, x)
    assert marked(function.plan) == names
    assert not {("prefetch", name) for name in names} & hints_of(function)


def both_ways(x):
    return ops.transpose(x), ops.negative(x)


@pytest.mark.parametrize("build", [ops.tanh, ops.softmax, scaled_softmax, both_ways])
def test_values_do_not_change(monkeypatch, small_cache, build):
    x = normal(96, 320)
    function = test_auto.compiled(build, x)
    assert marked(function.plan)
    found = function(x)
    monkeypatch.undo()
    function = test_auto.compiled(build, x)
    assert not marked(function.plan)
    for a, b in zip(found, function(x), strict=True):
        np.testing.assert_array_equal(a, b)


def double(lanes, size):
    x, y = Buffer("x", float32, (size,)), Buffer("y", float32, (size,), nontemporal=True)
    i, lane = s.var("i"), s.var("lane")
    at = i * lanes + lane
    vectors = For(lane, lanes, "vectorize", (Store(y, (at,), s.load(x, at) * 2.0),))
    tasks = size // lanes
    return Kernel("double", (x, y), (), (For(i, tasks, "parallel", (vectors,)),), ("y",), tasks)


@pytest.mark.parametrize("lanes", [16, 8, 4])
@pytest.mark.parametrize("start", [0, 1, 4, 8])
def test_any_alignment(lanes, start):
    """Such stores fault where they are not aligned: those vectors go the ordinary way."""
    room = np.empty(64 + 16 + 96, np.float32)
    first = -room.ctypes.data % 64 // 4 + start
    x, y = normal(96), room[first : first + 96]
    compiled_kernel(double(lanes, 96), lanes)([x, y], (), 0, 96 // lanes)
    np.testing.assert_array_equal(y, x * 2)
    check(double(lanes, 96), [x, y], lanes=lanes, end=96 // lanes)


def test_a_result_in_the_memory_of_an_input():
    x = normal(960)
    lanes = host_target().lanes
    shared = x.copy()
    compiled_kernel(double(lanes, 960))([shared, shared], (), 0, 960 // lanes)
    np.testing.assert_array_equal(shared, x * 2)


def test_the_instruction():
    text = assembly(double(host_target().lanes, 960))
    if host_target().triple.startswith("x86_64"):
        assert "movntps" in text
        assert "fence" in text or "lock" in text  # other threads see it before the task is done


def test_unknown_sizes(small_cache):
    """A size that is an argument may become large later: a kernel more, the same bits."""
    columns = 256
    sizes = (3, 5, LEAST // columns // 4, 7, 2)

    def build():
        x = tf.placeholder(tf.float32, [None, columns])
        return [x], [tf.tanh(x) * x, tf.nn.softmax(x)]

    feeds = [(normal(n, columns),) for n in sizes]
    found, (family,) = run_all(build, feeds)
    (step,) = family.symbolic
    (name,) = step.pattern.symbols
    past = {n: marked(step.plan_at({name: n})) for n in sizes[1:]}
    assert [bool(names) for names in past.values()] == [n > 10 for n in past]
    for (x,), (curved, share) in zip(feeds, found, strict=True):
        np.testing.assert_allclose(curved, np.tanh(x) * x, rtol=1e-5, atol=1e-6)
        wanted = np.exp(x.astype(float))
        np.testing.assert_allclose(share, wanted / wanted.sum(1, keepdims=True), rtol=1e-5)


def test_a_result_of_known_size_beside_operands_of_unknown_ones(small_cache):
    """A weight's gradient stays in the caches, however many rows are read for it."""

    def build():
        x = tf.placeholder(tf.float32, [None, 64])
        return [x], [tf.matmul(x, tf.tanh(x), transpose_a=True) * 2.0]

    _, (family,) = run_all(build, [(normal(n, 64),) for n in (3, 5, LEAST // 64)])
    assert not family.reasons
    (step,) = family.symbolic
    (name,) = step.pattern.symbols
    (product,) = [k for k in step.plan_at({name: LEAST // 64}).kernels
                  if any(v.type.shape == (64, 64) for v in k.arguments if hasattr(v, "type"))]
    assert not any(b.nontemporal for b in product.kernel.buffers)


def test_a_result_that_is_read_is_no_such_result():
    x = Buffer("x", float32, (16,), nontemporal=True)
    i = s.var("i")
    body = (For(i, 16, "serial", (Store(x, (i,), s.load(x, i) + 1.0),)),)
    with pytest.raises(InternalError, match="nontemporal parameters may not be read"):
        verify(Kernel("k", (x,), (), body, ("x",)))
