"""Optimizers against TensorFlow 1.15: five steps, names, slots, sparse gradients, kernels.

``optimizer_numbers.json`` holds what TensorFlow 1.15.5 computed for the graphs below.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import tinyflow as tf
from tests.observing import steps_made
from tinyflow.compile import step as compiled

STORED = json.loads((Path(__file__).parent / "optimizer_numbers.json").read_text())

OPTIMIZERS = {
    "GradientDescent": lambda: tf.train.GradientDescentOptimizer(0.1),
    "Momentum": lambda: tf.train.MomentumOptimizer(0.1, 0.9),
    "Nesterov": lambda: tf.train.MomentumOptimizer(0.1, 0.9, use_nesterov=True),
    "Adam": lambda: tf.train.AdamOptimizer(0.1),
    "AdamEpsilon": lambda: tf.train.AdamOptimizer(0.05, 0.8, 0.99, 0.01),
    "RMSProp": lambda: tf.train.RMSPropOptimizer(0.1),
    "RMSPropMomentum": lambda: tf.train.RMSPropOptimizer(0.1, 0.8, 0.5, 1e-3),
    "RMSPropCentered": lambda: tf.train.RMSPropOptimizer(0.1, 0.8, 0.5, 1e-3, centered=True),
    "Adagrad": lambda: tf.train.AdagradOptimizer(0.1),
    "Adadelta": lambda: tf.train.AdadeltaOptimizer(1.0, 0.9, 1e-4),
    "Ftrl": lambda: tf.train.FtrlOptimizer(
        0.1, l1_regularization_strength=0.01, l2_regularization_strength=0.02
    ),
    "FtrlPower": lambda: tf.train.FtrlOptimizer(0.1, learning_rate_power=-0.7),
    "FtrlShrinkage": lambda: tf.train.FtrlOptimizer(
        0.1, l2_shrinkage_regularization_strength=0.03
    ),
}
START = [[0.5, -1.25, 2.0], [1.5, 0.25, -0.75]]
TARGET = [[1.0, 0.5, -1.0], [0.0, -2.0, 0.125]]


def problem(kind, dtype, optimizer):
    """The graph whose numbers are stored: a matrix, read whole or by rows, and a vector."""
    w = tf.Variable(np.array(START, dtype), name="w")
    b = tf.Variable(np.array([0.1, 0.2, 0.3], dtype), name="b")
    step = tf.train.get_or_create_global_step()
    target = np.array(TARGET, dtype)
    if kind == "sparse":
        distance = tf.gather(w, [1, 0, 1]) - target[[1, 0, 1]]
    else:
        distance = w - target
    loss = tf.reduce_sum(tf.square(distance)) + tf.reduce_sum(b**4)
    return w, b, optimizer.minimize(loss, global_step=step), step


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_five_steps_are_those_of_tensorflow(name, kind, dtype):
    w, b, train, step = problem(kind, dtype, OPTIMIZERS[name]())
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        for _ in range(5):
            sess.run(train)
        found, vector, count = sess.run([w, b, step])
    wanted = STORED["numbers"][f"{name}/{dtype}/{kind}"]
    tolerance = 8 * np.finfo(dtype).eps
    np.testing.assert_allclose(found.ravel(), wanted["w"], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(vector, wanted["b"], rtol=tolerance, atol=tolerance)
    assert count == 5 and found.dtype == dtype


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_names_are_those_of_tensorflow(name):
    optimizer = OPTIMIZERS[name]()
    w, _, train, _ = problem("dense", "float32", optimizer)
    wanted = STORED["names"][name]
    assert [v.name for v in tf.global_variables()] == wanted["variables"]
    assert [v.name for v in optimizer.variables()] == wanted["optimizer"]
    assert optimizer.get_slot_names() == wanted["slots"]
    assert train.name == wanted["train"]
    slots = {s: optimizer.get_slot(w, s).name for s in optimizer.get_slot_names()}
    assert slots == wanted["inits"]
    assert optimizer.get_slot(w, "no such slot") is None
    assert w in tf.trainable_variables() and len(tf.trainable_variables()) == 2


def step_of(sess, fetch, feed):
    """The compiled step of a run."""
    with steps_made() as seen:
        sess.run(fetch, feed)
    return next(s for s in seen if isinstance(s, compiled.Step))


@pytest.mark.parametrize("name", ["Momentum", "Nesterov", "Adam", "RMSProp", "Adagrad"])
def test_the_update_of_a_variable_is_one_kernel_in_place(name):
    w = tf.Variable(np.ones((300, 40), np.float32))
    g = tf.placeholder(tf.float32, [300, 40])
    train = OPTIMIZERS[name]().apply_gradients([(g, w)])
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        step = step_of(sess, train, {g: np.ones((300, 40))})
    large = [k for k in step.plan.kernels if any(b.shape == (12000,) for b in k.kernel.buffers)]
    assert len(large) == 1
    kernel = large[0].kernel
    written = sum(b.shape == (12000,) and b.name in kernel.outputs for b in kernel.buffers)
    assert written >= 2  # the variable and what the optimizer remembers
    assert sum(old.type.shape == (300, 40) for old, _ in step.plan.memory.reused) == written
    assert step.plan.memory.arena_bytes <= 1024  # scalars only


def test_learning_rate_that_changes_compiles_once():
    rate = tf.placeholder(tf.float32, [])
    w = tf.Variable([1.0, 2.0])
    train = tf.train.AdamOptimizer(rate).minimize(tf.reduce_sum(w * w))
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        sess.run(train, {rate: 0.1})
        with steps_made() as seen:
            before = sess.run(w)
            sess.run(train, {rate: 0.0})
            np.testing.assert_array_equal(sess.run(w), before)
            sess.run(train, {rate: 0.5})
            assert not np.array_equal(sess.run(w), before)
    steps = [s for s in seen if isinstance(s, compiled.Step) and s.feeds]
    assert not steps


def test_rate_as_variable_function_and_decay():
    step = tf.train.get_or_create_global_step()
    w = tf.Variable([1.0])
    rate = tf.train.exponential_decay(0.5, step, 1, 0.5, staircase=True)
    train = tf.train.GradientDescentOptimizer(lambda: rate).minimize(
        tf.reduce_sum(w), global_step=step
    )
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        seen = []
        for _ in range(3):
            sess.run(train)
            seen.append(float(sess.run(w)[0]))
    np.testing.assert_allclose(seen, [0.5, 0.25, 0.125])


def test_sparse_steps_touch_only_their_rows():
    table = tf.Variable(np.ones((6, 4), np.float32))
    ids = tf.placeholder(tf.int32, [3])
    rows = tf.nn.embedding_lookup(table, ids)
    optimizer = tf.train.MomentumOptimizer(0.1, 0.9)
    loss = tf.reduce_sum(rows * rows)
    gradient = tf.gradients(loss, table)[0]
    assert isinstance(gradient, tf.IndexedSlices)
    train = optimizer.minimize(loss)
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        values, indices, shape = sess.run(gradient, {ids: [4, 1, 4]})
        assert values.shape == (3, 4) and indices.tolist() == [4, 1, 4] and shape.tolist() == [6, 4]
        dense = sess.run(tf.convert_to_tensor(gradient), {ids: [4, 1, 4]})
        np.testing.assert_array_equal(dense[:, 0], [0, 2, 0, 0, 4, 0])
        sess.run(train, {ids: [4, 1, 4]})
        value, slot = sess.run([table, optimizer.get_slot(table, "momentum")])
        np.testing.assert_allclose(value[:, 0], [1, 0.8, 1, 1, 0.6, 1], rtol=1e-6)
        np.testing.assert_allclose(slot[:, 0], [0, 2, 0, 0, 4, 0])


def test_a_large_table_is_updated_in_place():
    rows = 20000
    table = tf.Variable(tf.zeros([rows, 64]))
    ids = tf.placeholder(tf.int32, [128])
    loss = tf.reduce_sum(tf.square(tf.nn.embedding_lookup(table, ids) - 1.0))
    train = tf.train.AdagradOptimizer(0.1).minimize(loss)
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        step = step_of(sess, train, {ids: np.arange(128)})
        assert step.plan.memory.arena_bytes < rows * 64  # a quarter of one table
        assert not step.plan.memory.copies
        assert sess.run(tf.reduce_sum(table)) > 0


def test_constraint_is_applied_after_the_update():
    w = tf.Variable([1.0, -1.0], constraint=lambda x: tf.maximum(x, 0.0))
    train = tf.train.AdamOptimizer(0.1).minimize(tf.reduce_sum(w))
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        sess.run(train)
        np.testing.assert_allclose(sess.run(w), [0.9, 0.0], rtol=1e-6)


def test_two_optimizers_have_slots_of_their_own():
    w = tf.Variable([1.0], name="w")
    first, second = tf.train.AdamOptimizer(0.1), tf.train.AdamOptimizer(0.1)
    first.minimize(w * w)
    second.minimize(w * w)
    names = [v.name for v in second.variables()]
    assert names == ["beta1_power_1:0", "beta2_power_1:0", "w/Adam_2:0", "w/Adam_3:0"]
    assert [v.name for v in first.variables()][-1] == "w/Adam_1:0"


def test_bad_arguments():
    with pytest.raises(ValueError, match="initial_accumulator_value must be positive"):
        tf.train.AdagradOptimizer(0.1, initial_accumulator_value=0.0)
    with pytest.raises(ValueError, match="learning_rate_power"):
        tf.train.FtrlOptimizer(0.1, learning_rate_power=0.5)
    w = tf.Variable([1.0])
    with pytest.raises(ValueError, match="No gradients provided for any variable"):
        tf.train.AdamOptimizer().minimize(tf.constant(1.0), var_list=[w])


# ---------------------------------------------------------------------- rates and clipping


def test_decays():
    """Numbers of TensorFlow 1.15."""
    step = tf.placeholder(tf.int64, [])
    train = tf.train
    rates = {
        "staircase": train.exponential_decay(0.1, step, 10, 0.5, staircase=True),
        "exponential": train.exponential_decay(0.1, step, 10, 0.5),
        "natural": train.natural_exp_decay(0.1, step, 10, 0.5),
        "inverse": train.inverse_time_decay(0.1, step, 10, 0.5),
        "polynomial": train.polynomial_decay(0.1, step, 10, 0.01, power=2.0),
        "cycle": train.polynomial_decay(0.1, step, 10, 0.01, cycle=True),
        "cosine": train.cosine_decay(0.1, step, 10, alpha=0.1),
        "piecewise": train.piecewise_constant(step, [4, 15], [1.0, 2.0, 3.0]),
    }
    wanted = {
        5: [0.1, 0.07071068, 0.07788008, 0.08, 0.0325, 0.055, 0.055, 2.0],
        15: [0.05, 0.03535534, 0.04723666, 0.05714286, 0.01, 0.0325, 0.01, 2.0],
        16: [0.05, 0.03298770, 0.04493290, 0.05555556, 0.01, 0.028, 0.01, 3.0],
    }
    with tf.Session() as sess:
        for at, numbers in wanted.items():
            np.testing.assert_allclose(sess.run(list(rates.values()), {step: at}), numbers,
                                       rtol=2e-6)  # fmt: skip
    with pytest.raises(ValueError, match="length of boundaries"):
        train.piecewise_constant(step, [1], [1.0])
    with pytest.raises(ValueError, match="global_step is required"):
        train.exponential_decay(0.1, None, 10, 0.5)


def test_clip_by_global_norm():
    w = tf.Variable(np.ones((4, 2), np.float32))
    rows = tf.gradients(tf.reduce_sum(tf.gather(w, [1, 3]) * 6.0), w)[0]
    clipped, norm = tf.clip_by_global_norm([tf.constant([3.0, 4.0]), None, rows], 6.5)
    assert clipped[1] is None and isinstance(clipped[2], tf.IndexedSlices)
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        vector, part, total = sess.run([clipped[0], clipped[2], norm])
        assert total == 13.0
        np.testing.assert_allclose(vector, [1.5, 2.0])
        np.testing.assert_allclose(part.values, np.full((2, 2), 3.0))
        huge, _ = tf.clip_by_global_norm([tf.constant([np.inf, 1.0])], 1.0)
        assert np.isnan(sess.run(huge[0])).all()
        small = tf.clip_by_global_norm([tf.constant([0.3])], 1.0)[0][0]
        np.testing.assert_allclose(sess.run(small), [0.3])
        np.testing.assert_allclose(
            sess.run(tf.clip_by_average_norm(tf.constant([3.0, 4.0]), 1.0)), [1.2, 1.6]
        )


def test_slices_stand_for_the_dense_gradient():
    """What programs do to gradients works on slices too."""
    w = tf.Variable(np.arange(8, dtype=np.float64).reshape(4, 2))
    x = tf.gather(w, [[1, 3], [3, 0]])
    slices = tf.gradients(tf.reduce_sum(x**3), w)[0]
    assert slices.shape.as_list() == [4, 2] and slices.values.shape.as_list() == [4, 2]
    value = np.arange(8.0).reshape(4, 2)
    dense = 3 * value**2 * np.array([1, 1, 0, 2])[:, None]
    second = tf.gradients(slices, w)[0]
    vector = tf.constant([1.0, 2.0])
    curvature = tf.hessians(tf.reduce_sum(tf.gather(vector, [0, 1, 1]) ** 2), vector)[0]
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        np.testing.assert_allclose(sess.run(tf.convert_to_tensor(slices)), dense)
        np.testing.assert_allclose(sess.run(tf.clip_by_value(slices, -9.0, 9.0)), dense.clip(-9, 9))
        np.testing.assert_allclose(sess.run(tf.negative(slices)), -dense)
        np.testing.assert_allclose(sess.run((-slices).values), -sess.run(slices).values)
        np.testing.assert_allclose(
            sess.run(tf.convert_to_tensor(second)), 6 * value * np.array([1, 1, 0, 2])[:, None]
        )
        np.testing.assert_allclose(sess.run(curvature), [[2, 0], [0, 4]])


def test_an_embedding_step_compiles_twice_for_all_counts():
    table = tf.Variable(tf.ones([50, 8]))
    ids = tf.placeholder(tf.int32, [None])
    loss = tf.reduce_sum(tf.square(tf.nn.embedding_lookup(table, ids) - 2.0))
    train = tf.train.AdagradOptimizer(0.1).minimize(loss)
    rng = np.random.default_rng(0)
    value, total = np.ones((50, 8), np.float32), np.full((50, 8), 0.1, np.float32)
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        with steps_made() as seen:
            for count in (5, 7, 1, 40, 100):
                chosen = rng.integers(0, 10, count)
                sess.run(train, {ids: chosen})
                slope = np.zeros_like(value)
                np.add.at(slope, chosen, 2 * (value[chosen] - 2))
                total += slope * slope
                value -= np.float32(0.1) * slope / np.sqrt(total)
        np.testing.assert_allclose(sess.run(table), value, rtol=1e-5)
    assert sum(hasattr(s, "written") for s in seen) <= 2
