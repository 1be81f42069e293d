"""Losses at the edges: saturated logits, wrong labels, labels that are no distribution."""

from __future__ import annotations

import numpy as np
import pytest

from tinyflow import ops
from tinyflow.autodiff import gradients
from tinyflow.compile import compile_step
from tinyflow.core.error import InvalidArgumentError, ShapeError
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import TensorType
from tinyflow.ops.placeholder import placeholder
from tinyflow.runtime.variables import VariableStore


def run(function, *arrays):
    """``function`` of placeholders, compiled and run once."""
    arrays = [np.asarray(a) for a in arrays]
    with building(Builder()):
        feeds = [placeholder(a.dtype, a.shape, name=f"x{n}") for n, a in enumerate(arrays)]
        results = function(*feeds)
    results = list(results) if isinstance(results, (list, tuple)) else [results]
    types = [TensorType(a.dtype, a.shape) for a in arrays]
    return compile_step(results, [], feeds, types).bind(VariableStore()).run(arrays)


def test_saturated_logits_give_finite_loss_and_gradient():
    logits = np.array([[200, -200, 0], [-200, 200, 1e4]], np.float32)
    labels = np.array([[0, 1, 0], [1, 0, 0]], np.float32)

    def loss_and_slope(x, t):
        loss = ops.softmax_cross_entropy_with_logits(t, x)
        return [loss, *gradients([loss], [x])]

    loss, slope = run(loss_and_slope, logits, labels)
    np.testing.assert_allclose(loss, [400, 10200])
    np.testing.assert_allclose(slope, [[1, -1, 0], [-1, 0, 1]])


def test_sparse_and_dense_losses_agree():
    logits = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    classes = np.array([0, 6, 3, 3, 1], np.int64)

    def losses(x, k):
        dense = ops.softmax_cross_entropy_with_logits(ops.one_hot(k, 7), x)
        sparse = ops.sparse_softmax_cross_entropy_with_logits(k, x)
        return [dense, sparse, *gradients([dense], [x]), *gradients([sparse], [x])]

    dense, sparse, slope, sparse_slope = run(losses, logits, classes)
    np.testing.assert_allclose(dense, sparse, rtol=1e-6)
    np.testing.assert_allclose(slope, sparse_slope, rtol=1e-5, atol=1e-6)


def test_label_out_of_range_names_the_users_line():
    with pytest.raises(InvalidArgumentError, match=r"(?s)index 4 is out of range.*test_nn\.py"):
        run(
            lambda x, k: ops.sparse_softmax_cross_entropy_with_logits(k, x),
            np.zeros((2, 4), np.float32), np.array([0, 4], np.int32),
        )  # fmt: skip


def test_gather_out_of_range_names_the_users_line():
    with pytest.raises(InvalidArgumentError, match=r"(?s)index -1 is out of range.*test_nn\.py"):
        run(ops.gather, np.zeros((3, 2), np.float32), np.array([2, -1], np.int32))


def test_gradient_of_labels_that_are_no_distribution():
    """The true derivative; TensorFlow's takes the weights of a row to add up to 1."""
    logits, labels = np.array([[1.0, 2.0, 0.5]]), np.array([[2.0, 0.0, 3.0]])
    (slope,) = run(
        lambda x, t: gradients([ops.softmax_cross_entropy_with_logits(t, x)], [x]), logits, labels
    )
    weights = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(slope, weights * 5.0 - labels)


def test_moments_and_l2_normalize():
    x = np.random.default_rng(1).normal(size=(6, 5))
    mean, variance, unit = run(
        lambda v: [*ops.moments(v, [0]), ops.l2_normalize(v, 1)], x
    )
    np.testing.assert_allclose(mean, x.mean(0))
    np.testing.assert_allclose(variance, x.var(0))
    np.testing.assert_allclose((unit**2).sum(1), np.ones(6))


def test_one_hot_levels():
    (levels,) = run(lambda k: ops.one_hot(k, 3, on_value=5.0, off_value=-1.0, axis=0), [2, 0])
    assert levels.dtype == np.float32
    np.testing.assert_array_equal(levels, [[-1, 5], [-1, -1], [5, -1]])


def test_hints():
    with building(Builder()):
        x = placeholder("float32", (3, 4))
        with pytest.raises(ShapeError, match="sparse_softmax_cross_entropy_with_logits"):
            ops.softmax_cross_entropy_with_logits(placeholder("float32", (3,)), x)
        with pytest.raises(ShapeError, match=r"tf.squeeze\(labels, -1\)"):
            ops.sparse_softmax_cross_entropy_with_logits(placeholder("int32", (3, 1)), x)
