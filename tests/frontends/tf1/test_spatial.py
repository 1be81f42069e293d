"""Convolutions, pools and normalisations against stored results of TensorFlow 1.15.5."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tinyflow as tf
from tests.frontends.tf1.spatial_program import results, wave
from tinyflow.core.error import DTypeError, InvalidArgumentError, ShapeError, Unsupported

STORED = Path(__file__).parents[2] / "golden" / "spatial_tf1.npz"


@pytest.fixture(scope="module")
def found():
    return results(tf)


with np.load(STORED) as archive:
    EXPECTED = {name: archive[name] for name in archive.files}


def test_every_result_is_compared(found):
    assert set(found) == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_result_and_gradients_are_those_of_tensorflow(found, name):
    got, want = found[name], EXPECTED[name]
    assert got.shape == want.shape and got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5 * max(1.0, np.abs(want).max()))


def value(y, feeds=None):
    with tf.Session() as session:
        return session.run(y, feeds)


def test_channels_first_convolves_the_same():
    x, w = wave(2, 7, 6, 4), wave(3, 2, 2, 6)
    turned = x.transpose(0, 3, 1, 2)
    last = tf.nn.conv2d(x, w, [1, 2, 1, 1], "SAME")
    first = tf.nn.conv2d(turned, w, [1, 1, 2, 1], "SAME", data_format="NCHW")
    a, b = value([last, first])
    np.testing.assert_allclose(a, b.transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-5)
    pools = [
        tf.nn.max_pool(x, [1, 2, 3, 1], [1, 2, 1, 1], "SAME"),
        tf.nn.max_pool(turned, [1, 1, 2, 3], [1, 1, 2, 1], "SAME", data_format="NCHW"),
    ]
    a, b = value(pools)
    np.testing.assert_array_equal(a, b.transpose(0, 2, 3, 1))


def test_transpose_takes_the_batch_from_a_tensor():
    """Any batch size: the first extent of the result's shape is computed."""
    dy, w = tf.placeholder(tf.float32, [None, 4, 3, 2]), wave(3, 3, 5, 2)
    y = tf.nn.conv2d_transpose(dy, w, tf.stack([tf.shape(dy)[0], 8, 6, 5]), [1, 2, 2, 1])
    back = tf.nn.conv2d_backprop_input([3, 8, 6, 5], w, dy, [1, 2, 2, 1], "SAME")
    for n in (1, 3):
        assert value(y, {dy: wave(n, 4, 3, 2)}).shape == (n, 8, 6, 5)
    a, b = value([y, back], {dy: wave(3, 4, 3, 2)})
    np.testing.assert_array_equal(a, b)


def test_unknown_batch_trains():
    x = tf.placeholder(tf.float32, [None, 9, 9, 3])
    w = tf.Variable(wave(3, 3, 3, 4))
    h = tf.nn.relu(tf.nn.conv2d(x, w, [1, 2, 2, 1], "SAME"))
    loss = tf.reduce_sum(tf.nn.max_pool(h, [1, 3, 3, 1], [1, 2, 2, 1], "SAME") ** 2)
    slope = tf.gradients(loss, w)[0]
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        whole = session.run(slope, {x: wave(6, 9, 9, 3)})
        parts = [session.run(slope, {x: wave(6, 9, 9, 3)[i : i + 1]}) for i in range(6)]
    np.testing.assert_allclose(whole, sum(parts), rtol=1e-4, atol=1e-4)


def test_statistics_of_inference():
    x, mean, variance = wave(2, 3, 4, 3), wave(3), wave(3, phase=1.0) ** 2
    y, same_mean, _ = tf.nn.fused_batch_norm(
        x, np.ones(3, np.float32), np.zeros(3, np.float32), mean, variance, is_training=False
    )
    got, kept = value([y, same_mean])
    np.testing.assert_allclose(got, (x - mean) / np.sqrt(variance + 1e-3), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(kept, mean)


X = np.zeros((2, 5, 4, 3), np.float32)
MISTAKES = [
    (lambda: tf.nn.conv2d(X, np.zeros((3, 3, 2, 4), np.float32), 1, "SAME"), ShapeError,
     "3 input channels, and a filter for 2"),
    (lambda: tf.nn.conv2d(X, np.zeros((6, 1, 3, 4), np.float32), 1, "VALID"), ShapeError,
     "a window of 6 does not fit into 5 positions"),
    (lambda: tf.nn.conv2d(X, np.zeros((3, 3, 3), np.float32), 1, "SAME"), ShapeError,
     "the filter has rank 3"),
    (lambda: tf.nn.conv2d(tf.zeros((2, 5, 4, 3)), tf.zeros((3, 3, 3, 4), tf.float64), 1, "SAME"),
     DTypeError, "float64"),
    (lambda: tf.nn.conv2d(X, np.zeros((3, 3, 3, 4), np.float32), [2, 1, 1, 1], "SAME"),
     Unsupported, "batch and depth"),
    (lambda: tf.nn.conv2d(X, np.zeros((3, 3, 3, 4), np.float32), 1, "FULL"),
     InvalidArgumentError, "SAME"),
    (lambda: tf.nn.max_pool(X, [1, 1, 1, 3], [1, 1, 1, 1], "SAME"), Unsupported, "ksize"),
    (lambda: tf.nn.pool(X, [2, 2], "MIN", "SAME"), InvalidArgumentError, "AVG"),
    (lambda: tf.nn.conv2d_transpose(X, np.zeros((3, 3, 4, 3), np.float32), [2, 9, 9, 4],
                                    [1, 2, 2, 1]), ShapeError, "is not the convolution's result"),
    (lambda: tf.nn.fused_batch_norm(X, np.ones(2, np.float32), np.ones(3, np.float32)),
     ShapeError, "scale has 2 elements for 3 channels"),
]  # fmt: skip


@pytest.mark.parametrize("mistake", range(len(MISTAKES)))
def test_mistakes_are_named_where_they_are_made(mistake):
    call, error, text = MISTAKES[mistake]
    with pytest.raises(error, match=text) as caught:
        call()
    assert "test_spatial.py" in str(caught.value) or error is Unsupported


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_argmax_names_the_largest_of_each_window(padding):
    x = wave(2, 7, 6, 3)
    y, index = tf.nn.max_pool_with_argmax(x, [1, 3, 2, 1], [1, 2, 2, 1], padding)
    assert index.dtype == tf.int64
    y, index = value([y, index])
    flat = x.reshape(2, -1)
    picked = np.stack([flat[n][index[n].ravel()].reshape(y.shape[1:]) for n in range(2)])
    np.testing.assert_array_equal(picked, y)


@pytest.mark.parametrize("axes", [[0, 1], [1]])
def test_weighted_moments_count_elements_as_often_as_told(axes):
    x, weights = wave(3, 4, 2), np.array([[1], [3], [0], [2]], np.float32)
    found = value(list(tf.nn.weighted_moments(x, axes, weights)))
    repeated = np.repeat(x, weights[:, 0].astype(int), axis=1)
    np.testing.assert_allclose(found[0], repeated.mean(tuple(axes)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], repeated.var(tuple(axes)), rtol=1e-5, atol=1e-6)
    kept, _ = tf.nn.weighted_moments(x, axes, weights, keep_dims=True)
    assert kept.shape.ndims == 3
