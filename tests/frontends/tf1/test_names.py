"""Automatic names agree with TensorFlow 1.15.5, whose names for this script are stored below."""

from __future__ import annotations

import pytest

import tinyflow as tf


def build():
    """A list of tensors, operations and variables whose names TensorFlow 1.15.5 was asked for."""
    v = []
    x = tf.placeholder(tf.float32, [None, 8])
    t = tf.placeholder(tf.float32, [None, 3], name="target")
    v += [x, t]
    with tf.name_scope("layer1") as s:
        w = tf.Variable(tf.truncated_normal([8, 4], stddev=0.1), name="w")
        b = tf.Variable(tf.zeros([4]))
        h = tf.nn.relu(tf.matmul(x, w) + b)
        v += [w, b, h]
    with tf.name_scope("layer1"):
        w2 = tf.Variable(tf.random_uniform([4, 3], -1.0, 1.0), name="w")
        logits = tf.nn.xw_plus_b(h, w2, tf.zeros([3]))
        v += [w2, logits]
    with tf.name_scope(s):
        v.append(h * 2)
    y = tf.nn.softmax(logits)
    v += [y, tf.nn.softmax(logits, name="probabilities")]
    ce = tf.reduce_mean(-tf.reduce_sum(t * tf.log(y), 1))
    each = tf.nn.softmax_cross_entropy_with_logits(labels=t, logits=logits)
    label = tf.argmax(t, 1)
    v += [ce, tf.reduce_mean(each, name="loss")]
    v.append(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=label, logits=logits))
    v.append(tf.nn.sigmoid_cross_entropy_with_logits(labels=t, logits=logits))
    hit = tf.equal(tf.argmax(y, 1), tf.argmax(t, 1))
    v.append(tf.reduce_mean(tf.cast(hit, tf.float32)))
    v += [x + 1, 1 - x, x / 2, x / x, tf.multiply(x, 3.0), tf.add(x, x), -x, x**2, x > 0]
    v += [x[0], x[:, 1:3], tf.reshape(x, [-1]), tf.transpose(x), tf.concat([x, x], 0)]
    v += [tf.stack([x, x]), tf.constant([1.0, 2.0]), tf.ones([2]), tf.zeros_like(x), tf.shape(x)]
    v += [tf.range(3), tf.one_hot([1], 2), tf.square(x), tf.sqrt(x), tf.expand_dims(x, 0)]
    v += [tf.tile(x, [1, 2]), tf.identity(x), tf.add_n([x, x]), tf.clip_by_value(x, 0.0, 1.0)]
    v += [tf.nn.l2_loss(x), tf.maximum(x, 0.0), tf.get_variable("gv", [2])]
    v += [tf.to_float(tf.constant(1)), *tf.gradients(ce, [w, w2])]
    v += [tf.assign(b, [1.0, 2.0, 3.0, 4.0]), tf.global_variables_initializer()]
    v.append(tf.train.GradientDescentOptimizer(0.1).minimize(ce))
    v.append(tf.group(v[-1], v[-2]))
    v += [tf.reduce_sum(x, name="total"), tf.reduce_max(w)]
    with tf.variable_scope("vs"):
        a = tf.get_variable("a", [2], initializer=tf.zeros_initializer())
        v += [a, a + 1.0]
        with tf.name_scope("inner"):
            v.append(a * a)
    with tf.variable_scope("vs", reuse=True):
        v += [tf.get_variable("a", [2]), tf.constant(2.0)]
    return v


#: printed by TensorFlow 1.15.5 for the script above
EXPECTED = """
Placeholder:0 target:0 layer1/w:0 layer1/Variable:0 layer1/Relu:0 layer1_1/w:0
layer1_1/xw_plus_b:0 layer1/mul:0 Softmax:0 probabilities:0 Mean:0 loss:0
SparseSoftmaxCrossEntropyWithLogits/SparseSoftmaxCrossEntropyWithLogits:0 logistic_loss:0
Mean_1:0 add:0 sub:0 truediv:0 truediv_1:0 Mul_1:0 Add_1:0 Neg_1:0 pow:0 Greater:0
strided_slice:0 strided_slice_1:0 Reshape:0 transpose:0 concat:0 stack:0 Const_3:0 ones:0
zeros_like:0 Shape:0 range:0 one_hot:0 Square:0 Sqrt:0 ExpandDims:0 Tile:0 Identity:0 AddN:0
clip_by_value:0 L2Loss:0 Maximum:0 gv:0 ToFloat:0 gradients/layer1/MatMul_grad/MatMul_1:0
gradients/layer1_1/xw_plus_b/MatMul_grad/MatMul_1:0 Assign:0 init GradientDescent group_deps
total:0 Max:0 vs/a:0 vs/add:0 vs/inner/mul:0 vs/a:0 vs_1/Const:0
"""


def test_names_equal_tensorflows():
    assert [v.name for v in build()] == EXPECTED.split()


def test_helper_names_are_counted_though_no_helper_is_made():
    x = tf.placeholder(tf.float32, [2, 3])
    tf.reduce_sum(x)  # TensorFlow makes the constant [0, 1] for it
    assert tf.constant(1.0).name == "Const_1:0"
    unknown = tf.placeholder(tf.float32)
    tf.reduce_sum(unknown)
    assert tf.range(3).name == "range_1:0"
    assert tf.rank(x).name == "Rank_1:0"


def test_a_name_is_given_by_position_or_by_keyword():
    x = tf.constant([1.0, 2.0])
    assert tf.truediv(x, x, "by_place").name == "by_place:0"
    assert tf.truediv(x, x, name="by_word").name == "by_word:0"
    assert tf.cumsum(x, 0, False, True, "sums").name == "sums:0"
    # Arguments that older programs use stand after the name.
    assert tf.count_nonzero(x, None, None, tf.int32, "count", [0]).name == "count:0"
    with pytest.raises(TypeError, match="name"):
        tf.truediv(x, x, "by_place", name="by_word")


def test_constants_of_literals_live_under_the_operation():
    x = tf.placeholder(tf.float32, [2, 3], name="x")
    tf.multiply(x, 2.0)
    x / 4.0
    tf.matmul([[1.0, 2.0]], x)
    names = [op.name for op in tf.get_default_graph().get_operations()]
    assert names == ["x", "Mul/y", "Mul", "truediv/y", "truediv", "MatMul/a", "MatMul"]


def test_case_is_set_aside():
    x = tf.placeholder(tf.float32, [])
    assert (x * x).name == "mul:0"
    assert tf.multiply(x, x).name == "Mul_1:0"


def test_gradients_are_named_after_the_forward_operation():
    x = tf.placeholder(tf.float32, [2, 3])
    w = tf.Variable(tf.zeros([3, 4]), name="w")
    (dw,) = tf.gradients(tf.matmul(x, w), [w])
    assert dw.name == "gradients/MatMul_grad/MatMul_1:0"


@pytest.mark.parametrize(
    ("name", "hint"), [("a b", "'a_b'"), ("_x", "'x'"), ("", None), ("a:b", "'a_b'")]
)
def test_bad_names(name, hint):
    if not name:
        assert tf.constant(1.0, name="").name == "Const:0"
        return
    with pytest.raises(ValueError, match="is not a valid scope name") as caught:
        tf.constant(1.0, name=name)
    assert hint in str(caught.value)
