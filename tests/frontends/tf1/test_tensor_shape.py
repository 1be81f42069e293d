"""TensorShape and Dimension against the behaviour of TensorFlow 1.15."""

from __future__ import annotations

import pytest

import tinyflow as tf


def test_views_of_a_shape():
    x = tf.placeholder(tf.float32, [None, 3])
    shape = x.get_shape()
    assert shape.as_list() == [None, 3] == x.shape.as_list()
    assert shape.ndims == 2 == len(shape) and not shape.is_fully_defined()
    assert shape[1].value == 3 == int(shape[1]) and shape[0].value is None
    assert shape[1] == 3 and (shape[0] == 3) is None
    assert [d.value for d in shape] == [None, 3]
    assert str(shape) == "(?, 3)" and repr(shape) == "TensorShape([Dimension(None), Dimension(3)])"
    assert shape[:1].as_list() == [None] and shape[-1].value == 3
    unknown = tf.placeholder(tf.float32).shape
    assert unknown.ndims is None and not unknown and str(unknown) == "<unknown>"
    with pytest.raises(ValueError, match="as_list\\(\\) is not defined on an unknown"):
        unknown.as_list()
    assert tf.zeros([2, 3]).shape == [2, 3] and tf.zeros([2, 3]).shape == (2, 3)
    assert tf.TensorShape([2, 3]).num_elements() == 6


def test_merging():
    a, b = tf.TensorShape([None, 3]), tf.TensorShape([2, None])
    assert a.merge_with(b).as_list() == [2, 3]
    assert tf.TensorShape(None).merge_with(a) == a
    assert a.is_compatible_with([5, 3]) and not a.is_compatible_with([5, 4])
    with pytest.raises(ValueError, match="not compatible"):
        a.merge_with([2, 4])
    with pytest.raises(ValueError, match="must have rank 3"):
        tf.TensorShape([1, 2]).assert_has_rank(3)
    assert tf.TensorShape([1]).concatenate([2, 3]).as_list() == [1, 2, 3]
    assert a.with_rank(2) == a and a.with_rank_at_least(1) is a


def test_dimension_arithmetic():
    three, unknown = tf.Dimension(3), tf.Dimension(None)
    assert (three + 1).value == 4 and (2 * three).value == 6 and (7 // three).value == 2
    assert (10 - three).value == 7 and (three % 2).value == 1
    assert (three + unknown).value is None and (three < unknown) is None
    assert three < 4 and three >= 3 and hash(three) == hash(tf.Dimension(3))
    assert tf.compat.dimension_value(three) == 3
    with pytest.raises(ValueError, match=">= 0"):
        tf.Dimension(-1)
    with pytest.raises(TypeError, match=r"tf\.shape"):
        int(unknown)


def test_set_shape_refines():
    x = tf.placeholder(tf.float32, [None, 784])
    x.set_shape([20, None])
    assert x.shape.as_list() == [20, 784]
    assert tf.matmul(x, tf.zeros([784, 3])).shape.as_list() == [20, 3]
    with pytest.raises(ValueError, match="differ"):
        x.set_shape([20, 10])


def test_shapes_flow_through_operations():
    x = tf.placeholder(tf.float32, [None, 6])
    rows = tf.shape(x)[0]
    assert tf.reshape(x, [-1, 2, 3]).shape.as_list() == [None, 2, 3]
    assert tf.reshape(x, [rows, 3, 2]).shape.as_list() == [None, 3, 2]
    assert tf.concat([x, x], 1).shape.as_list() == [None, 12]
    assert tf.zeros(tf.shape(x)).shape.as_list() == [None, 6]
    assert tf.ones([rows, 2]).shape.as_list() == [None, 2]
    assert tf.zeros(x.shape[1]).shape.as_list() == [6]
    with pytest.raises(ValueError, match="partially known TensorShape"):
        tf.zeros(x.shape)
