"""Values computed again instead of kept: by function, by every k-th layer, by a byte budget."""

import warnings

import numpy as np
import pytest

import tinyflow as tf
from tinyflow.compile.memory import memory_report
from tinyflow.compile.step import compile_step
from tinyflow.core import options
from tinyflow.core.error import InvalidArgumentError
from tinyflow.passes.rematerialize import fit, peak_bytes

BATCH, WIDTH, LAYERS = 64, 96, 12


def layer(h, n, dropout=False):
    start = np.random.default_rng(n).normal(size=(WIDTH, WIDTH)).astype(np.float32) / 8
    w = tf.Variable(start, name=f"w{n}")
    b = tf.Variable(np.full(WIDTH, 0.01, np.float32), name=f"b{n}")
    h = tf.tanh(tf.matmul(h, w) + b)
    return tf.nn.dropout(h, keep_prob=0.8, seed=n) if dropout else h


def perceptron(run_block, dropout=False, blocks=4):
    """(loss, gradients, feed) of a chain of layers, ``run_block(f)`` applied to every third."""
    tf.reset_default_graph()
    tf.set_random_seed(5)
    x = h = tf.placeholder(tf.float32, [BATCH, WIDTH])
    for n in range(blocks):
        def block(value, first=3 * n):
            for k in range(3):
                value = layer(value, first + k, dropout)
            return value

        h = run_block(block)(h)
    loss = tf.reduce_mean(tf.square(h))
    return loss, tf.gradients(loss, tf.trainable_variables()), x


def convolutional(run_block=lambda f: f):
    tf.reset_default_graph()
    rng = np.random.default_rng(0)
    x = h = tf.placeholder(tf.float32, [4, 16, 16, 8])

    def block(value):
        w = tf.Variable(rng.normal(size=(3, 3, 8, 8)).astype(np.float32) / 9)
        scale, offset = tf.Variable(tf.ones([8])), tf.Variable(tf.zeros([8]))
        value = tf.nn.conv2d(value, w, [1, 1, 1, 1], "SAME")
        mean, variance = tf.nn.moments(value, [0, 1, 2])
        return tf.nn.relu(tf.nn.batch_normalization(value, mean, variance, offset, scale, 1e-3))

    for _ in range(5):
        h = h + run_block(block)(h)
    pooled = tf.nn.max_pool(h, [1, 2, 2, 1], [1, 2, 2, 1], "VALID")
    loss = tf.reduce_mean(tf.square(pooled))
    return loss, tf.gradients(loss, tf.trainable_variables()), x


def updated(loss, grads):
    return tf.group(*[tf.assign_sub(v, 0.1 * g)
                      for v, g in zip(tf.trainable_variables(), grads, strict=True)])  # fmt: skip


def plan_of(model, **changes):
    """The plan of a training step."""
    loss, grads, x = model
    with options.override(**changes):
        return compile_step([loss], [updated(loss, grads)], [x], [x.type]).plan


def values_of(model, **changes):
    """Loss and gradients, then the variables after two steps."""
    loss, grads, x = model
    shape = x.type.shape
    feed = {x: np.random.default_rng(1).normal(size=shape).astype(np.float32)}
    train = updated(loss, grads)
    with options.override(**changes), tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        found = sess.run([loss, *grads], feed)
        sess.run(train, feed)
        sess.run(train, feed)
        return found + sess.run(tf.trainable_variables())


def same_bits(first, second):
    return all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))


def plain(f):
    return f


# ---- by function --------------------------------------------------------------------------------
@pytest.mark.parametrize("dropout", [False, True])
def test_a_recomputed_function_keeps_every_bit_and_takes_less_memory(dropout):
    kept, again = (plan_of(perceptron(f, dropout)) for f in (plain, tf.recompute_grad))
    assert again.memory.arena_bytes < 0.7 * kept.memory.arena_bytes
    assert not any(n.op.type_name == "Again" for n in kept.fn.nodes)
    first = values_of(perceptron(plain, dropout))
    assert same_bits(first, values_of(perceptron(tf.recompute_grad, dropout)))
    assert same_bits(first, values_of(perceptron(tf.recompute_grad, dropout), fuse=False))


def test_batch_normalisation_inside_of_a_recomputed_function():
    first = values_of(convolutional())
    assert same_bits(first, values_of(convolutional(tf.contrib.layers.recompute_grad)))
    kept, again = (plan_of(convolutional(f)) for f in (plain, tf.recompute_grad))
    assert again.memory.arena_bytes < 0.8 * kept.memory.arena_bytes


def test_a_recomputed_function_of_several_arguments_and_results():
    def build(wrap):
        tf.reset_default_graph()
        x = tf.placeholder(tf.float64, [7])

        def f(a, b, *, factor):
            """Two results."""
            c = tf.exp(a * b) * factor
            return tf.sin(c), {"c": tf.sqrt(c)}

        y, more = (tf.recompute_grad(f) if wrap else f)(x, x + 1, factor=2.0)
        return x, tf.gradients(y * more["c"], x)

    values = np.linspace(-1, 1, 7)
    found = []
    for wrap in (False, True):
        x, grads = build(wrap)
        with tf.Session() as sess:
            found.append(sess.run(grads, {x: values}))
    assert same_bits(*found)


def test_second_derivatives_through_a_recomputed_function():
    tf.reset_default_graph()
    x = tf.placeholder(tf.float64, [3])
    y = tf.recompute_grad(lambda v: tf.sin(v) * tf.sin(v))(x)
    (first,) = tf.gradients(y, x)
    (second,) = tf.gradients(first, x)
    values = np.array([0.1, 0.7, -2.0])
    with tf.Session() as sess:
        np.testing.assert_allclose(sess.run(second, {x: values}), 2 * np.cos(2 * values), 1e-12)


def test_recompute_grad_says_what_is_no_function():
    with pytest.raises(InvalidArgumentError, match="not callable"):
        tf.recompute_grad(3)


# ---- every k ------------------------------------------------------------------------------------
def sequential(every):
    tf.reset_default_graph()
    x = tf.placeholder(tf.float32, [BATCH, WIDTH])
    layers = [lambda h, n=n: layer(h, n) for n in range(LAYERS)]
    if every:
        h = tf.contrib.layers.recompute_sequential(layers, x, every)
    else:
        h = x
        for one in layers:
            h = one(h)
    loss = tf.reduce_mean(tf.square(h))
    return loss, tf.gradients(loss, tf.trainable_variables()), x


def test_a_checkpoint_every_few_layers_beats_one_at_each_end():
    arena = {k: plan_of(sequential(k)).memory.arena_bytes for k in (0, 3, LAYERS)}
    assert arena[3] < 0.7 * arena[0]
    assert arena[3] < arena[LAYERS]
    assert same_bits(values_of(sequential(0)), values_of(sequential(3)))
    with pytest.raises(InvalidArgumentError, match="every=0"):
        tf.contrib.layers.recompute_sequential([], 0, 0)


# ---- by a budget --------------------------------------------------------------------------------
def deep():
    return perceptron(plain, blocks=6)


@pytest.mark.filterwarnings("ignore:memory_budget")  # other steps of the session: fetched gradients
@pytest.mark.parametrize("share", [0.9, 0.75])
@pytest.mark.parametrize("model", [deep, convolutional])
def test_a_budget_is_kept_and_changes_no_bit(model, share):
    report = memory_report(plan_of(model()))
    budget = report.peak_bytes - int((1 - share) * report.arena)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        within = memory_report(plan_of(model(), memory_budget=budget))
    assert within.peak_bytes <= budget
    assert same_bits(values_of(model()), values_of(model(), memory_budget=budget))


def test_a_small_budget_more_than_halves_the_arena_and_warns_where_the_bytes_are():
    free = memory_report(plan_of(deep()))
    with pytest.warns(UserWarning, match=r"above the budget of 1,000; .*gives less") as caught:
        least = memory_report(plan_of(deep(), memory_budget=1000))
    assert "arena" in str(caught[0].message) and "variables" in str(caught[0].message)
    assert least.arena < 0.5 * free.arena


def test_a_generous_budget_changes_nothing():
    loss, grads, x = deep()
    with options.override(memory_budget=1 << 40):
        step = compile_step([loss], [updated(loss, grads)], [x], [x.type])
    assert [r.changed for r in step.records if r.name == "rematerialize"] == [False]


def test_a_session_has_a_budget_of_its_own():
    peaks = []
    limit = memory_report(plan_of(deep())).peak_bytes - 100_000
    for config in (None, tf.ConfigProto(memory_budget=limit)):
        loss, grads, x = deep()
        train = updated(loss, grads)
        feed = {x: np.ones((BATCH, WIDTH), np.float32)}
        with tf.Session(config=config) as sess:
            sess.run(tf.global_variables_initializer())
            sess.run([loss, train], feed)
            (family,) = [f for f in sess.graph.steps.values() if len(f.feeds) == 1]
            (step,) = family.exact.values()
            peaks.append(memory_report(step.plan).peak_bytes)
    assert peaks[1] <= limit < peaks[0]


def test_the_estimate_is_close_to_the_plan():
    for model in (deep, convolutional):
        loss, grads, x = model()
        with options.override(memory_budget=1 << 40):  # kernels in order, none side by side
            step = compile_step([loss], [updated(loss, grads)], [x], [x.type])
            assert step.plan.kernels  # planned under these options
        planned = memory_report(step.plan).peak_bytes
        assert peak_bytes(step.fn) == pytest.approx(planned, rel=0.1)
        assert fit(step.fn, 1 << 40) is step.fn
