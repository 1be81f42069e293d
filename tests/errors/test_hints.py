"""Hints: each wrong program says how to repair it, and the repair works when applied (Q03, Q04)."""

from __future__ import annotations

import numpy as np
import pytest

import tinyflow as tf

X = np.arange(6.0, dtype=np.float32).reshape(2, 3)


@pytest.fixture(autouse=True)
def _fresh_graph():
    tf.reset_default_graph()
    yield
    tf.reset_default_graph()


def x(*shape):
    return tf.constant(np.ones(shape or (2, 3), np.float32))


def i(*shape):
    return tf.constant(np.ones(shape, np.int32))


def run(fetch, feed=None, initialise=True):
    with tf.Session() as sess:
        if initialise:
            sess.run(tf.global_variables_initializer())
        return sess.run(fetch, feed)


def feed(shape, value, dtype=tf.float32):
    p = tf.placeholder(dtype, shape, name="p")
    return run(tf.reduce_sum(p), {p: value})


def probabilities(reduce):
    y, label = tf.nn.softmax(x(4, 3)), x(4, 3)
    return reduce(label, tf.log(y))


def misplaced(label, log):
    return tf.reduce_mean(-tf.reduce_sum(label * log), reduction_indices=[1])


def placed(label, log):
    return tf.reduce_mean(-tf.reduce_sum(label * log, reduction_indices=[1]))


#: name -> (wrong program, part of the hint, the program repaired as the hint says)
CASES = {
    "transposed matmul": (
        lambda: tf.matmul(x(2, 3), x(5, 3)), "transpose_b=True",
        lambda: run(tf.matmul(x(2, 3), x(5, 3), transpose_b=True)),
    ),
    "transposed first operand": (
        lambda: tf.matmul(x(3, 2), x(3, 5)), "transpose_a=True",
        lambda: run(tf.matmul(x(3, 2), x(3, 5), transpose_a=True)),
    ),
    "vector in matmul": (
        lambda: tf.matmul(x(2, 3), x(3)), "tf.expand_dims(b, 1)",
        lambda: run(tf.matmul(x(2, 3), tf.expand_dims(x(3), 1))),
    ),
    "one value per row": (
        lambda: x(4, 3) + x(4), "tf.expand_dims(y, 1)",
        lambda: run(x(4, 3) + tf.expand_dims(x(4), 1)),
    ),
    "transposed operand": (
        lambda: x(2, 3) * x(3, 2), "tf.transpose", lambda: run(x(2, 3) * tf.transpose(x(3, 2))),
    ),
    "the lecture's parenthesis": (
        lambda: probabilities(misplaced), "did you mean it for the inner reduce_sum?",
        lambda: run(probabilities(placed)),
    ),
    "int and float tensors": (
        lambda: x(2) + i(2), "tf.cast(..., tf.int32)", lambda: run(tf.cast(x(2), tf.int32) + i(2)),
    ),
    "float literal beside ints": (
        lambda: i(2) * 1.5, "tf.cast(..., tf.float32)",
        lambda: run(tf.cast(i(2), tf.float32) * 1.5),
    ),
    "condition of ints": (
        lambda: tf.where(i(2), x(2), x(2)), "tf.not_equal(condition, 0)",
        lambda: run(tf.where(tf.not_equal(i(2), 0), x(2), x(2))),
    ),
    "missing batch dimension": (
        lambda: feed([None, 3], np.ones(3)), "np.expand_dims(value, 0)",
        lambda: feed([None, 3], np.expand_dims(np.ones(3), 0)),
    ),
    "a batch of one too many": (
        lambda: feed([3], np.ones((1, 3))), "feed value[0]", lambda: feed([3], np.ones((1, 3))[0]),
    ),
    "column expected": (
        lambda: feed([None, 1], np.ones(5)), "value.reshape(-1, 1)",
        lambda: feed([None, 1], np.ones(5).reshape(-1, 1)),
    ),
    "column fed": (
        lambda: feed([None], np.ones((5, 1))), "value.reshape(-1)",
        lambda: feed([None], np.ones((5, 1)).reshape(-1)),
    ),
    "image not flattened": (
        lambda: feed([None, 784], np.ones((2, 28, 28))), "value.reshape(-1, 784)",
        lambda: feed([None, 784], np.ones((2, 28, 28)).reshape(-1, 784)),
    ),
    "transposed feed": (
        lambda: feed([None, 3], np.ones((3, 5))), "value.T",
        lambda: feed([None, 3], np.ones((3, 5)).T),
    ),
    "rows of different length": (
        lambda: feed([None, 2], [[1, 2], [3]]), "pad them to one length",
        lambda: feed([None, 2], [[1, 2], [3, 0]]),
    ),
    "text fed": (
        lambda: feed([], "1,5"), "float(text)", lambda: feed([], float("1,5".replace(",", "."))),
    ),
    "a number too large": (
        lambda: feed([], 2**40, tf.int32), "tf.int64", lambda: feed([], 2**40, tf.int64),
    ),
    "a tensor fed": (
        lambda: feed([], tf.constant(1.0)), "value = sess.run(tensor)",
        lambda: feed([], run(tf.constant(1.0))),
    ),
    "forgotten feed": (
        lambda: run(tf.placeholder(tf.float32, [], name="p") * 2.0), "feed_dict={p: ...}",
        lambda: run((p := tf.placeholder(tf.float32, [], name="p")) * 2.0, {p: 1.0}),
    ),
    "forgotten initialisation": (
        lambda: run(tf.Variable(1.0) * 2.0, initialise=False), "tf.global_variables_initializer()",
        lambda: run(tf.Variable(1.0) * 2.0),
    ),
    "misspelt function": (
        lambda: tf.reduce_maen(x()), "tf.reduce_mean?", lambda: run(tf.reduce_mean(x())),
    ),
    "function of another module": (
        lambda: tf.relu(x()), "tf.nn.relu?", lambda: run(tf.nn.relu(x())),
    ),
    "misspelt tensor name": (
        lambda: (tf.constant(1.0, name="loss"), run("los:0")), "'loss:0'?",
        lambda: (tf.constant(1.0, name="loss"), run("loss:0")),
    ),
    "operation instead of tensor": (
        lambda: (tf.constant(1.0, name="c"), tf.get_default_graph().get_tensor_by_name("c")),
        "did you mean 'c:0'?",
        lambda: (tf.constant(1.0, name="c"), tf.get_default_graph().get_tensor_by_name("c:0")),
    ),
    "a result fetched": (
        lambda: run(run(tf.constant(1.0))), "loss = sess.run(loss)",
        lambda: run(tf.constant(1.0)),
    ),
    "a function fetched": (
        lambda: run(tf.global_variables_initializer), "forget to call it",
        lambda: [run(tf.global_variables_initializer())],
    ),
    "tensor as a condition": (
        lambda: 1 if x()[0, 0] > 0.0 else 2, "tf.where",
        lambda: run(tf.where(x()[0, 0] > 0.0, 1, 2)),
    ),
    "loop over a tensor": (
        lambda: [row * 2.0 for row in x()], "tf.unstack(value)",
        lambda: [run(row * 2.0) for row in tf.unstack(x())],
    ),
    "list as index": (
        lambda: x()[[0, 1]], "tf.gather(x, positions)", lambda: run(tf.gather(x(), [0, 1])),
    ),
    "stack for concat": (
        lambda: tf.stack([x(2, 3), x(4, 3)]), "tf.concat",
        lambda: run(tf.concat([x(2, 3), x(4, 3)], 0)),
    ),
    "assign transposed": (
        lambda: tf.assign(tf.Variable(x(2, 3)), x(3, 2)), "tf.transpose",
        lambda: run(tf.assign(tf.Variable(x(2, 3)), tf.transpose(x(3, 2)))),
    ),
    "assign a batch": (
        lambda: tf.assign(tf.Variable(x(3)), x(5, 3)), "tf.reduce_mean(value, 0)",
        lambda: run(tf.assign(tf.Variable(x(3)), tf.reduce_mean(x(5, 3), 0))),
    ),
    "variable made twice": (
        lambda: [tf.get_variable("w", [2]) for _ in range(2)], "reuse=tf.AUTO_REUSE",
        lambda: reused("w"),
    ),
    "uneven split": (
        lambda: tf.split(x(5, 2), 2), "give the sizes as a list",
        lambda: run(tf.split(x(5, 2), [3, 2])),
    ),
    "logits and labels by position": (
        lambda: tf.nn.softmax_cross_entropy_with_logits(x(), x()), "labels",
        lambda: run(tf.nn.softmax_cross_entropy_with_logits(labels=x(), logits=x())),
    ),
    "gradient of a class": (
        lambda: tf.gradients(tf.argmax((w := tf.Variable(x())) * 1.0, 1), w),
        "differentiate the loss that comes before them",
        lambda: run(tf.gradients((w := tf.Variable(x())) * 1.0, w)),
    ),
    "name with a blank": (
        lambda: tf.constant(1.0, name="my loss"), "'my_loss'",
        lambda: tf.constant(1.0, name="my_loss"),
    ),
    "shape not known": (
        lambda: tf.zeros(tf.placeholder(tf.float32, [None, 3]).shape), "tf.shape(x)",
        lambda: tf.zeros(tf.shape(tf.placeholder(tf.float32, [None, 3]))),
    ),
}  # fmt: skip


def reused(name):
    with tf.variable_scope("", reuse=tf.AUTO_REUSE):
        return [tf.get_variable(name, [2]) for _ in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_the_hint_is_given(name):
    program, hint, _ = CASES[name]
    with pytest.raises((tf.errors.OpError, NotImplementedError)) as caught:
        program()
    text = str(caught.value)
    assert "hint: " in text and hint in text.partition("hint: ")[2]


@pytest.mark.parametrize("name", CASES)
def test_the_repair_works(name):
    assert CASES[name][2]() is not None


def test_there_are_enough_cases():
    assert len(CASES) >= 30


def test_the_lectures_misplaced_parenthesis_names_its_line():
    """L3: the axis meant for the inner sum goes to the mean of a scalar."""
    y_ = tf.placeholder(tf.float32, [None, 10])
    y = tf.nn.softmax(tf.placeholder(tf.float32, [None, 10]))
    with pytest.raises(ValueError) as caught:
        tf.reduce_mean(-tf.reduce_sum(y_ * tf.log(y)), reduction_indices=[1])
    line = test_the_lectures_misplaced_parenthesis_names_its_line.__code__.co_firstlineno + 5
    text = str(caught.value)
    for part in (
        "axis 1 is outside a rank 0 input",
        "none (the input is a scalar)",
        f"created at test_hints.py:{line}",
        f"the inner reduce_sum is at test_hints.py:{line}",
        "did you mean it for the inner reduce_sum?",
    ):
        assert part in text
    # No such hint when the scalar was not made by a reduction.
    with pytest.raises(ValueError) as caught:
        tf.reduce_mean(tf.constant(1.0), reduction_indices=[1])
    assert "did you mean" not in str(caught.value)
