"""16-bit floats: single operations round as NumPy's do, sums are made in float32."""

import numpy as np
import pytest

import tinyflow as tf

NARROW = [tf.float16, tf.bfloat16]


def run(value, feeds=None):
    return tf.Session().run(value, feeds or {})


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_a_sum_of_many_ones_does_not_stop(dtype):
    """Added one by one in the type itself, 256 (bfloat16) or 2,048 (float16) is the end."""
    with tf.Graph().as_default():
        x = tf.placeholder(dtype, [None])
        ones = np.ones(4096, dtype.as_numpy_dtype)
        assert float(run(tf.reduce_sum(x), {x: ones})) == 4096
        assert float(run(tf.reduce_sum(tf.ones([4096], dtype)))) == 4096  # folded


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_products_are_rounded_once(dtype):
    rng = np.random.default_rng(0)
    a = rng.normal(size=(33, 300)).astype(dtype.as_numpy_dtype)
    b = rng.normal(size=(300, 50)).astype(dtype.as_numpy_dtype)
    with tf.Graph().as_default():
        x, y = tf.placeholder(dtype, [33, 300]), tf.placeholder(dtype, [300, 50])
        got = run(tf.matmul(x, y), {x: a, y: b})
    assert got.dtype == dtype.as_numpy_dtype
    exact = a.astype(np.float64) @ b.astype(np.float64)
    ulp = 2.0**-8 if dtype == tf.bfloat16 else 2.0**-11
    error = np.abs(got.astype(np.float64) - exact)
    assert (error <= ulp * np.abs(exact) + 300 * 2.0**-24 * 20).all()


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_every_operation_of_a_fused_chain_rounds(dtype):
    rng = np.random.default_rng(1)
    a, b = (rng.normal(size=97).astype(dtype.as_numpy_dtype) for _ in range(2))
    with tf.Graph().as_default():
        x, y = tf.placeholder(dtype, [97]), tf.placeholder(dtype, [97])
        got = run((x * y + y) / (x - y), {x: a, y: b})
    expected = (a * b + b) / (a - b)
    np.testing.assert_array_equal(got.view(np.uint16), expected.view(np.uint16))


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_a_training_step_converges(dtype):
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(64, 20)).astype(dtype.as_numpy_dtype)
    labels = np.eye(5)[rng.integers(0, 5, 64)].astype(dtype.as_numpy_dtype)
    with tf.Graph().as_default():
        x, y = tf.placeholder(dtype, [64, 20]), tf.placeholder(dtype, [64, 5])
        w = tf.Variable(tf.zeros([20, 5], dtype))
        loss = tf.reduce_mean(
            tf.nn.softmax_cross_entropy_with_logits(labels=y, logits=tf.matmul(x, w))
        )
        step = tf.train.GradientDescentOptimizer(0.5).minimize(loss)
        session = tf.Session()
        session.run(tf.global_variables_initializer())
        losses = [session.run([loss, step], {x: inputs, y: labels})[0] for _ in range(30)]
    assert float(losses[0]) == pytest.approx(np.log(5), rel=0.01)
    assert float(losses[-1]) < 1.2


def test_small_integers_wrap_as_numpy_does():
    a = np.array([100, -100, 127, -128, 0], np.int8)
    with tf.Graph().as_default():
        x = tf.placeholder(tf.int8, [5])
        np.testing.assert_array_equal(run(x + x, {x: a}), a + a)
        np.testing.assert_array_equal(run(tf.cast(x, tf.uint16), {x: a}), a.astype(np.uint16))


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_running_sums_and_sums_by_segment_do_not_stop(dtype):
    """They have loop nests of their own and no tensor expression."""
    with tf.Graph().as_default():
        x = tf.placeholder(dtype, [4096])
        rows = tf.placeholder(tf.int32, [4096])
        found = run(
            [tf.cumsum(x)[-1], tf.unsorted_segment_sum(x, rows, 2), tf.nn.top_k(x, k=2).values],
            {x: np.ones(4096, dtype.as_numpy_dtype), rows: np.zeros(4096, np.int32)},
        )
    found = [np.asarray(f).astype(float).tolist() for f in found]
    assert found == [4096.0, [4096.0, 0.0], [1.0, 1.0]]


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_an_empty_segment_has_the_lowest_value_of_its_own_type(dtype):
    with tf.Graph().as_default():
        x, rows = tf.placeholder(dtype, [2]), tf.placeholder(tf.int32, [2])
        low = run(tf.unsorted_segment_max(x, rows, 2), {x: [1, 2], rows: [1, 1]})[0]
    assert -np.inf < float(low) < -65e3


@pytest.mark.parametrize("dtype", NARROW, ids=str)
@pytest.mark.parametrize("shape", [(13,), (5, 40), (300,)], ids=str)
def test_the_place_of_the_largest(dtype, shape):
    array = np.random.default_rng(1).normal(size=shape).astype(dtype.as_numpy_dtype)
    with tf.Graph().as_default():
        x = tf.placeholder(dtype, shape)
        found = run([tf.argmax(x, axis=-1), tf.argmin(x, axis=0)], {x: array})
    assert np.array_equal(found[0], array.argmax(-1)) and np.array_equal(found[1], array.argmin(0))


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_host_calls_keep_their_types(dtype):
    with tf.Graph().as_default():
        x = tf.placeholder(dtype, [3])
        y = tf.py_func(lambda a: np.float32(a.astype(np.float32).sum()), [x], tf.float32)
        assert run(y, {x: np.ones(3, dtype.as_numpy_dtype)}) == 3.0
