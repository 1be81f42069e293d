"""Reductions: what samples cannot express (unknown ranks, computed axes, extreme values)."""

import numpy as np
import pytest

from tinyflow.autodiff.reverse import gradients
from tinyflow.core.dtype import float32, float64, int32
from tinyflow.core.error import AxisError, Unsupported
from tinyflow.core.shape import Dim
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.interp import run
from tinyflow.ir.graph.nodes import Function, Input, TensorType
from tinyflow.ops.creation import constant
from tinyflow.ops.elementwise import square
from tinyflow.ops.position import argmax
from tinyflow.ops.reduction import (
    LogSumExp,
    Mean,
    reduce_logsumexp,
    reduce_max,
    reduce_mean,
    reduce_prod,
    reduce_sum,
)
from tinyflow.passes.functionalize import functionalize
from tinyflow.passes.specialize import specialize


@pytest.fixture(autouse=True)
def builder():
    with building(Builder()) as current:
        yield current


def placeholder(builder, dims, dtype=float64):
    return builder.emit(Input(TensorType(dtype, dims), "feed"), ())


def run_step(fetches, x, array):
    fn = functionalize(fetches, feeds=[x])
    return run(specialize(fn, [TensorType(array.dtype, array.shape)]), [array])


N = Dim.symbol("N")


def test_symbolic_shapes_are_carried_through(builder):
    x = placeholder(builder, (N, 3, 4))
    assert reduce_sum(x, 1).type.shape == (N, 4)
    assert reduce_sum(x, [-1], keepdims=True).type.shape == (N, 3, 1)
    assert reduce_sum(x, 0).type.shape == (3, 4)
    unknown = placeholder(builder, None)
    assert reduce_sum(unknown).type.shape == () and reduce_sum(unknown, 0).type.shape is None
    assert reduce_sum(unknown, keepdims=True).type.shape is None


@pytest.mark.parametrize("dims", [(2, 3, 4), (N, 3, 4), (N, Dim.symbol("M"), 4), None])
@pytest.mark.parametrize("axis", [None, 0, [0, 1], [-1], [-1, -3], []])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize(
    "reduce", [reduce_sum, reduce_mean, reduce_max, reduce_prod, reduce_logsumexp]
)
def test_gradients_at_every_degree_of_knowledge(builder, reduce, axis, keepdims, dims):
    """The gradient does not depend on how much of the shape is known when it is built."""
    x = placeholder(builder, dims)
    y = square(reduce(x, axis, keepdims))
    array = np.random.default_rng(3).normal(size=(2, 3, 4))
    (got,) = run_step(gradients([y], [x]), x, array)
    static = placeholder(builder, (2, 3, 4))
    y = square(reduce(static, axis, keepdims))
    (want,) = run(Function("f", [static], gradients([y], [static])), [array])
    assert got.shape == (2, 3, 4)
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_axes_from_both_ends_at_unknown_rank(builder):
    x = placeholder(builder, None)
    y = reduce_sum(x, [0, -1])
    with pytest.raises(Unsupported, match="axes from both ends"):
        gradients([y], [x])


def test_an_axis_given_as_a_tensor(builder):
    x = placeholder(builder, (2, 3, 4))
    assert reduce_sum(x, constant([0, 2])).type.shape == (3,)
    assert reduce_sum(x, constant(1)).type.shape == (2, 4)
    assert argmax(x, constant(2)).type.shape == (2, 3)
    axis = builder.emit(Input(TensorType(int32, ()), "feed"), ())
    assert reduce_sum(x, axis).type.shape is None


def test_the_message_for_an_axis_out_of_range(builder):
    scalar = placeholder(builder, ())
    with pytest.raises(AxisError) as caught:
        reduce_mean(scalar, [1])
    text = str(caught.value)
    assert "Mean" in text and "none (the input is a scalar)" in text and "float64[]" in text


def test_logsumexp_at_the_ends():
    x = np.array([[1000.0, 1000.0], [-1000.0, -1000.0], [-np.inf, 0.0], [np.inf, 0.0]])
    want = [1000 + np.log(2), -1000 + np.log(2), 0.0, np.inf]
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(LogSumExp((1,)).reference(x), want)
        assert LogSumExp((1,)).reference(np.full((1, 2), -np.inf)) == -np.inf
        assert np.isnan(LogSumExp((0,)).reference(np.array([np.nan, 0.0])))


def test_the_mean_of_integers_and_of_nothing():
    assert Mean().reference(np.array([-1, -2], np.int32)) == -1
    with np.errstate(all="ignore"):
        assert np.isnan(Mean().reference(np.zeros(0, np.float32)))


def test_counts_of_a_mean_follow_the_feed(builder):
    x = placeholder(builder, (N, 3), float32)
    grad = gradients([reduce_mean(x)], [x])
    for rows in (2, 5):
        (got,) = run_step(grad, x, np.ones((rows, 3), np.float32))
        np.testing.assert_allclose(got, np.full((rows, 3), 1 / (3 * rows)), rtol=1e-6)
