"""Gradients of slices are concatenations, not sums of arrays that are almost all zero."""

import numpy as np
import pytest

import tinyflow as tf
from tinyflow.passes.functionalize import functionalize
from tinyflow.passes.pipeline import optimize
from tinyflow.passes.specialize import specialize

X = np.random.default_rng(0).normal(size=(4, 6, 5)).astype(np.float32)


def kinds(value, feed):
    fn = specialize(functionalize([value], [], [feed]), [feed.type])
    return [node.op.type_name for node in optimize(fn)[0].nodes]


def weighted(parts):
    return tf.add_n([tf.reduce_sum(tf.square(part) * (n + 1.0)) for n, part in enumerate(parts)])


@pytest.mark.parametrize(
    "cut",
    [
        lambda x: [x[:, t] for t in range(6)],
        lambda x: [x[:, 0:2], x[:, 3:4], x[:, 5]],  # gaps stay zero
        lambda x: [x[:, 4:], x[:, :3]],  # in any order
        lambda x: [x[0], x[1:3], x[:, 2], x[3]],  # another axis is added
        lambda x: [x[:, 0:4], x[:, 2:6], x[:, 5:]],  # overlaps are added
    ],
)
def test_gradients_of_slices(cut):
    with tf.Graph().as_default():
        x = tf.placeholder(tf.float32, X.shape)
        (gradient,) = tf.gradients(weighted(cut(x)), [x])
        got = tf.Session().run(gradient, {x: X})
        assert "ConcatV2" in kinds(gradient, x)
    weights = np.zeros_like(X)
    for n, part in enumerate(cut(weights)):
        part += n + 1.0
    np.testing.assert_allclose(got, 2.0 * weights * X, rtol=1e-6)


def test_all_steps_leave_no_pad():
    with tf.Graph().as_default():
        x = tf.placeholder(tf.float32, X.shape)
        (gradient,) = tf.gradients(weighted([x[:, t] for t in range(6)]), [x])
        assert not {"Pad", "Add", "AddN"} & set(kinds(gradient, x))
