"""Compile time: what is repeated is not made again, and deep graphs cost what their nodes cost."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

import tinyflow as tf
from tests.observing import is_bound, steps_made
from tinyflow.compile import seen
from tinyflow.compile.kernels import kernel_text
from tinyflow.core import options
from tinyflow.passes.functionalize import functionalize
from tinyflow.passes.fusion import fuse_groups
from tinyflow.passes.pipeline import optimize
from tinyflow.runtime import jit, kernel_cache
from tinyflow.schedule import auto


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    """A kernel cache of the test's own, and the compiler's sources taken as settled."""
    monkeypatch.setattr(kernel_cache, "_default", kernel_cache.KernelCache(tmp_path / "kernels"))
    monkeypatch.setattr(seen, "compiler_fingerprint", lambda: "sources")
    monkeypatch.setattr("tinyflow.compile.kernels._addresses", {})


@pytest.fixture
def counts(monkeypatch):
    """How often groups were scheduled and modules compiled."""
    found = {"scheduled": 0, "compiled": 0}
    lower, build = auto.lower_group, jit.compile_object

    def counted_lower(*arguments, **keywords):
        found["scheduled"] += 1
        return lower(*arguments, **keywords)

    def counted_build(*arguments, **keywords):
        found["compiled"] += 1
        return build(*arguments, **keywords)

    monkeypatch.setattr(auto, "lower_group", counted_lower)
    monkeypatch.setattr(jit, "compile_object", counted_build)
    return found


def _training(layers, rate=0.1, width=24):
    """A step of a network of residual blocks with layer normalisation, and its batch."""
    x = tf.placeholder(tf.float32, [8, width])
    h = x
    for _ in range(layers):
        w = tf.Variable(np.full((width, width), 0.01, np.float32))
        mean = tf.reduce_mean(h, axis=1, keepdims=True)
        spread = tf.reduce_mean(tf.square(h - mean), axis=1, keepdims=True)
        h = h + tf.tanh(tf.matmul((h - mean) * tf.rsqrt(spread + 1e-5), w))
    loss = tf.reduce_mean(tf.square(h))
    train = tf.train.MomentumOptimizer(rate, 0.9).minimize(loss)
    return [train, loss], x, np.linspace(-1, 1, 8 * width, dtype=np.float32).reshape(8, width)


def _run(layers, steps=2, rate=0.1):
    """Losses of some steps, and the compiled step."""
    with tf.Graph().as_default(), tf.Session() as session, steps_made(is_bound) as made:
        fetches, x, batch = _training(layers, rate)
        session.run(tf.global_variables_initializer())
        losses = [session.run(fetches, {x: batch})[1] for _ in range(steps)]
    return losses, made[-1]


def test_more_layers_need_no_more_kernels(empty_cache, counts):
    _run(4)
    few = dict(counts)
    counts.update(scheduled=0, compiled=0)
    _run(16)
    # The same layers again: from the cache, but for what the depth itself changes.
    assert counts["scheduled"] <= 4 and counts["compiled"] <= 4, (few, counts)


def test_a_second_session_schedules_nothing(empty_cache, counts):
    first, _ = _run(3)
    assert counts["scheduled"] > 5 and counts["compiled"] > 5
    counts.update(scheduled=0, compiled=0)
    second, step = _run(3)
    assert counts == {"scheduled": 0, "compiled": 0}
    assert first == second
    assert any(isinstance(k.kernel, seen.SeenKernel) for k in step.program.plan.kernels)


def test_kernels_from_the_cache_show_the_same_loops(empty_cache, counts):
    _, step = _run(2)
    texts = [kernel_text(k.kernel) for k in step.program.plan.kernels]
    counts.update(scheduled=0, compiled=0)
    _, step = _run(2)
    assert counts["scheduled"] == 0
    assert [kernel_text(k.kernel) for k in step.program.plan.kernels] == texts
    assert counts["scheduled"] > 0  # loop nests are made when somebody looks


_STEP = """
import sys
import numpy as np
import tinyflow as tf
from tinyflow.compile import seen
seen.compiler_fingerprint = lambda: "sources"
x = tf.placeholder(tf.float32, [8, 5])
w = tf.Variable(np.full((5, 3), 0.5, np.float32))
loss = tf.reduce_mean(tf.square(tf.tanh(tf.matmul(x, w))))
train = tf.train.AdamOptimizer(0.1).minimize(loss)
with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    print(repr(session.run([train, loss], {x: np.ones((8, 5), np.float32)})[1]))
    print(repr(session.run(loss, {x: np.ones((8, 5), np.float32)})))
heavy = ("tinyflow.schedule.auto", "tinyflow.schedule.schedule", "tinyflow.codegen.llvm")
print([name for name in heavy if name in sys.modules])
"""


def test_a_process_that_finds_its_kernels_imports_no_scheduler(tmp_path):
    def lines():
        environment = {**os.environ, "TINYFLOW_CACHE": str(tmp_path)}
        ended = subprocess.run(
            [sys.executable, "-c", _STEP], env=environment, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.splitlines()

    cold, warm = lines(), lines()
    assert cold[:2] == warm[:2]
    assert "tinyflow.schedule.auto" in cold[2] and "tinyflow.codegen.llvm" in cold[2]
    assert warm[2] == "[]"


def test_other_sizes_and_options_are_other_entries(empty_cache, counts):
    _run(2)
    counts.update(scheduled=0, compiled=0)
    with options.override(lanes=4):
        _run(2)
    assert counts["scheduled"] > 5


@pytest.mark.parametrize("optimizer", ["GradientDescent", "Adam"])
def test_another_learning_rate_needs_no_other_code(empty_cache, counts, optimizer):
    def losses(rate):
        with tf.Graph().as_default(), tf.Session() as session:
            x = tf.placeholder(tf.float32, [16, 8])
            w = tf.Variable(np.full((8, 3), 0.5, np.float32))
            loss = tf.reduce_mean(tf.square(tf.tanh(tf.matmul(x, w)) - 0.25))
            train = getattr(tf.train, f"{optimizer}Optimizer")(rate).minimize(loss)
            session.run(tf.global_variables_initializer())
            batch = np.linspace(-1, 1, 128, dtype=np.float32).reshape(16, 8)
            return [session.run([train, loss], {x: batch})[1] for _ in range(3)]

    slow = losses(0.01)
    counts.update(scheduled=0, compiled=0)
    fast = losses(0.1)
    assert counts == {"scheduled": 0, "compiled": 0}
    assert fast[0] == slow[0] and fast[2] < slow[2]


def test_slices_at_different_places_share_their_code(empty_cache, counts):
    """The steps of an unrolled recurrence differ in the row that they read."""
    steps, batch, width = 12, 32, 48
    with tf.Graph().as_default(), tf.Session() as session, steps_made(is_bound) as made:
        x = tf.placeholder(tf.float32, [steps, batch, width])
        w = tf.constant(np.eye(width, dtype=np.float32) * 0.5)
        h = tf.zeros([batch, width])
        for one in tf.unstack(x, num=steps):
            h = tf.tanh(one + tf.matmul(h, w))
        rng = np.random.default_rng(0)
        value = rng.standard_normal((steps, batch, width)).astype(np.float32)
        got = session.run(h, {x: value})
    want = np.zeros((batch, width))
    for one in value.astype(np.float64):
        want = np.tanh(one + want * 0.5)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    kernels = made[-1].program.plan.kernels
    assert len(kernels) >= steps
    assert len({kernel_text(k.kernel) for k in kernels}) <= 6


def _seconds_per_node(layers):
    with tf.Graph().as_default():
        fetches, x, _ = _training(layers)
        written = functionalize([fetches[1]], [fetches[0]], [x])
        best = np.inf
        for _ in range(3):
            start = time.thread_time()
            fn, _records = optimize(written)
            fuse_groups(fn)
            best = min(best, time.thread_time() - start)
        return best / len(written.nodes)


def test_passes_take_the_same_time_per_node_at_any_depth():
    shallow, deep = _seconds_per_node(6), _seconds_per_node(48)
    assert deep < 2.5 * shallow, (shallow, deep)
