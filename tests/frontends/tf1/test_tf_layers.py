"""``tf.layers``: names, shapes, variables and a training run as TensorFlow 1.15.5 has them.

The stored lines and numbers were printed by TensorFlow 1.15.5 for ``build`` and ``train``.
"""

from __future__ import annotations

import numpy as np
import pytest

import tinyflow as tf
from tinyflow.core.error import InvalidArgumentError


def weights():
    return tf.constant_initializer(0.05)


def build():
    """The placeholders, the loss, and the tensors whose names and shapes are compared."""
    x = tf.placeholder(tf.float32, [None, 8, 8, 3])
    training = tf.placeholder(tf.bool, [])
    same = {"padding": "same", "kernel_initializer": weights()}
    v = [tf.layers.conv2d(x, 4, 3, activation=tf.nn.relu, **same)]
    h = tf.layers.conv2d(v[0], 5, [2, 3], strides=2, kernel_initializer=weights())
    b = tf.layers.batch_normalization(h, training=True)
    b = tf.layers.batch_normalization(b, training=training, momentum=0.9)
    b = tf.layers.batch_normalization(b)
    p = tf.layers.max_pooling2d(b, 2, 2)
    a = tf.layers.average_pooling2d(b, 2, 1, "same")
    u = tf.layers.conv2d_transpose(b, 3, 4, strides=2, **same)
    w = tf.layers.conv2d_transpose(b, 3, 4, strides=2, kernel_initializer=weights())
    s = tf.layers.separable_conv2d(
        b, 3, 2, depthwise_initializer=weights(), pointwise_initializer=weights()
    )
    f = tf.layers.flatten(p)
    d = tf.layers.dense(f, 7, activation=tf.nn.tanh, kernel_initializer=weights())
    e = tf.layers.dense(d, 2, name="out", kernel_initializer=weights())
    r = tf.layers.dropout(e)
    c = tf.layers.conv1d(tf.reshape(h, [-1, 12, 5]), 3, 3, kernel_initializer=weights())
    loss = tf.reduce_sum(tf.square(e)) + tf.reduce_sum(u * u) + tf.reduce_sum(tf.sin(w))
    loss += tf.reduce_sum(s * s) + tf.reduce_sum(a) + tf.reduce_sum(c) + tf.reduce_sum(r)
    return x, training, loss, [*v, h, p, a, u, w, s, f, d, e, c]


@pytest.fixture(name="model")
def _model():
    return build()


NAMES = {
    "conv2d/Relu:0": "(?, 8, 8, 4)",
    "conv2d_1/BiasAdd:0": "(?, 4, 3, 5)",
    "max_pooling2d/MaxPool:0": "(?, 2, 1, 5)",
    "average_pooling2d/AvgPool:0": "(?, 4, 3, 5)",
    "flatten/Reshape:0": "(?, 10)",
}

VARIABLES = """
conv2d/kernel:0 (3, 3, 3, 4) True
conv2d/bias:0 (4,) True
conv2d_1/kernel:0 (2, 3, 4, 5) True
conv2d_1/bias:0 (5,) True
batch_normalization/gamma:0 (5,) True
batch_normalization/beta:0 (5,) True
batch_normalization/moving_mean:0 (5,) False
batch_normalization/moving_variance:0 (5,) False
batch_normalization_1/gamma:0 (5,) True
batch_normalization_1/beta:0 (5,) True
batch_normalization_1/moving_mean:0 (5,) False
batch_normalization_1/moving_variance:0 (5,) False
batch_normalization_2/gamma:0 (5,) True
batch_normalization_2/beta:0 (5,) True
batch_normalization_2/moving_mean:0 (5,) False
batch_normalization_2/moving_variance:0 (5,) False
conv2d_transpose/kernel:0 (4, 4, 3, 5) True
conv2d_transpose/bias:0 (3,) True
conv2d_transpose_1/kernel:0 (4, 4, 3, 5) True
conv2d_transpose_1/bias:0 (3,) True
separable_conv2d/depthwise_kernel:0 (2, 2, 5, 1) True
separable_conv2d/pointwise_kernel:0 (1, 1, 5, 3) True
separable_conv2d/bias:0 (3,) True
dense/kernel:0 (10, 7) True
dense/bias:0 (7,) True
out/kernel:0 (7, 2) True
out/bias:0 (2,) True
conv1d/kernel:0 (3, 5, 3) True
conv1d/bias:0 (3,) True
""".strip().splitlines()


def test_names_and_shapes(model):
    *_, tensors = model
    shapes = {t.name: str(t.shape) for t in tensors}
    for name, shape in NAMES.items():
        assert shapes[name] == shape


def test_variables(model):
    trainable = tf.trainable_variables()
    lines = [f"{v.name} {v.shape} {v in trainable}" for v in tf.global_variables()]
    assert lines == VARIABLES
    assert len(tf.get_collection(tf.GraphKeys.UPDATE_OPS)) == 4


def test_training_run(model):
    x, training, loss, _ = model
    images = np.sin(np.arange(2 * 8 * 8 * 3) * 0.37).reshape(2, 8, 8, 3).astype(np.float32)
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    with tf.control_dependencies(updates):
        step = tf.train.GradientDescentOptimizer(1e-4).minimize(loss)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        losses = [
            session.run([loss, step], {x: images, training: flag})[0]
            for flag in (True, True, False)
        ]
        sums = {v.name: float(np.abs(session.run(v)).sum()) for v in tf.global_variables()}
    np.testing.assert_allclose(losses, [23.325825, -2.4883878, -24.332754], rtol=2e-5)
    for name, total in SUMS.items():
        assert sums[name] == pytest.approx(total, rel=1e-4, abs=1e-5), name


SUMS = {
    "conv2d/kernel:0": 5.37673,
    "conv2d_1/kernel:0": 5.96797,
    "batch_normalization/gamma:0": 4.99913,
    "batch_normalization/beta:0": 0.04065,
    "batch_normalization/moving_mean:0": 0.00883,
    "batch_normalization/moving_variance:0": 4.85158,
    "batch_normalization_1/gamma:0": 4.99174,
    "batch_normalization_1/beta:0": 0.11603,
    "batch_normalization_1/moving_variance:0": 4.41715,
    "batch_normalization_2/gamma:0": 4.99263,
    "batch_normalization_2/beta:0": 0.11618,
    "batch_normalization_2/moving_variance:0": 5.0,
    "conv2d_transpose/kernel:0": 11.78797,
    "conv2d_transpose_1/kernel:0": 12.02262,
    "separable_conv2d/depthwise_kernel:0": 0.99994,
    "separable_conv2d/pointwise_kernel:0": 0.74994,
    "dense/kernel:0": 3.49594,
    "out/kernel:0": 0.69488,
    "conv1d/kernel:0": 2.23358,
}


def test_layers_share_variables_by_name():
    x = tf.placeholder(tf.float32, [None, 6])
    first = tf.layers.dense(x, 3, name="shared")
    second = tf.layers.dense(x, 3, name="shared", reuse=True)
    assert [v.name for v in tf.global_variables()] == ["shared/kernel:0", "shared/bias:0"]
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        a, b = session.run([first, second], {x: np.ones((2, 6), np.float32)})
    np.testing.assert_array_equal(a, b)


def test_dropout_follows_its_flag():
    flag = tf.placeholder(tf.bool, [])
    y = tf.layers.dropout(tf.ones([200]), 0.25, training=flag, seed=3)
    with tf.Session() as session:
        np.testing.assert_array_equal(session.run(y, {flag: False}), np.ones(200))
        trained = session.run(y, {flag: True})
    assert set(np.round(trained, 5)) == {0.0, np.float32(1.33333)}


def test_channels_first_is_the_same_layer():
    x = tf.placeholder(tf.float32, [None, 7, 6, 3])
    last = tf.layers.conv2d(x, 4, 3, name="c")
    last = tf.layers.batch_normalization(last, training=True, name="b")
    turned = tf.transpose(x, [0, 3, 1, 2])
    first = tf.layers.conv2d(turned, 4, 3, name="c", reuse=True, data_format="channels_first")
    first = tf.layers.batch_normalization(first, 1, training=True, name="b", reuse=True)
    images = np.random.default_rng(0).normal(size=(2, 7, 6, 3)).astype(np.float32)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        a, b = session.run([last, first], {x: images})
    np.testing.assert_allclose(a, b.transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-5)


def test_errors_name_the_choices():
    x = tf.placeholder(tf.float32, [None, 7, 6, 3])
    with pytest.raises(InvalidArgumentError, match="channels_last"):
        tf.layers.conv2d(x, 4, 3, data_format="NHWC")
    with pytest.raises(InvalidArgumentError, match="channel dimension of the inputs"):
        tf.layers.conv2d(tf.placeholder(tf.float32, [None, 7, 6, None]), 4, 3)


@pytest.mark.parametrize(("first", "params"), [(1, -1), (-1, -1), (2, 2)])
def test_layer_norm_has_mean_0_and_variance_1(first, params):
    x = np.random.default_rng(0).normal(3.0, 2.0, (2, 4, 5)).astype(np.float32)
    y = tf.contrib.layers.layer_norm(tf.constant(x), False, False, None, None, None, None, True,
                                     first, params)  # fmt: skip
    z = tf.contrib.layers.layer_norm(
        tf.constant(x), begin_norm_axis=first, activation_fn=tf.nn.relu
    )
    assert [v.name for v in tf.global_variables()] == ["LayerNorm_1/beta:0", "LayerNorm_1/gamma:0"]
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        y, z = session.run([y, z])
    axes = tuple(range(first % 3, 3))
    np.testing.assert_allclose(y.mean(axes), 0, atol=1e-5)
    np.testing.assert_allclose(y.var(axes), 1, rtol=1e-4)
    np.testing.assert_allclose(z, np.maximum(y, 0), atol=1e-6)


def test_what_a_result_costs_is_a_regularization_loss():
    x = tf.placeholder(tf.float32, [None, 6])
    y = tf.layers.dense(x, 3, activity_regularizer=tf.nn.l2_loss, kernel_initializer=weights())
    (loss,) = tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        y, loss = session.run([y, loss], {x: np.ones((2, 6), np.float32)})
    np.testing.assert_allclose(loss, (y**2).sum() / 2, rtol=1e-6)
