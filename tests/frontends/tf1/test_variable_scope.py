"""``variable_scope``, ``get_variable`` and initializers (rows A11, A12)."""

from __future__ import annotations

import numpy as np
import pytest

import tinyflow as tf


def test_sharing():
    def layer():
        with tf.variable_scope("layer", reuse=tf.AUTO_REUSE):
            return tf.get_variable("w", [3])

    assert layer() is layer()
    with tf.variable_scope("a"):
        w = tf.get_variable("w", [2])
    with tf.variable_scope("a", reuse=True):
        assert tf.get_variable("w", [2]) is w and tf.get_variable("w") is w
        with tf.variable_scope("deep"), pytest.raises(ValueError, match="does not exist"):
            tf.get_variable("w", [2])  # reuse is inherited
    with tf.variable_scope("a") as scope:
        scope.reuse_variables()
        assert tf.get_variable("w") is w
    with tf.variable_scope(scope, reuse=True):
        assert tf.get_variable("w") is w
    assert w.name == "a/w:0"


def test_a_duplicate_quotes_the_first_definition():
    tf.get_variable("bias", [3])
    line = test_a_duplicate_quotes_the_first_definition.__code__.co_firstlineno + 1
    with pytest.raises(ValueError, match="Variable bias already exists, disallowed") as caught:
        tf.get_variable("bias", [3])
    assert f"Originally defined at test_variable_scope.py:{line}" in str(caught.value)
    assert isinstance(caught.value, tf.errors.AlreadyExistsError)


def test_sharing_errors():
    tf.get_variable("w", [3])
    with tf.variable_scope("", reuse=True):
        with pytest.raises(ValueError, match=r"specified shape \(4,\) and found shape \(3,\)"):
            tf.get_variable("w", [4])
        with pytest.raises(TypeError, match="specified dtype float64 and found dtype float32"):
            tf.get_variable("w", [3], dtype=tf.float64)
        with pytest.raises(ValueError, match="does not exist") as caught:
            tf.get_variable("ww", [3])
        assert "did you mean 'w'?" in str(caught.value)
    with pytest.raises(ValueError, match="must be fully defined, but instead was"):
        tf.get_variable("v", [None, 3])
    with pytest.raises(ValueError, match="do not specify shape"):
        tf.get_variable("v", [3], initializer=tf.zeros([3]))


def test_a_tensor_as_second_argument_is_the_initializer():
    b = tf.get_variable("bias", tf.zeros((100,)))
    w = tf.get_variable("weights", tf.random_uniform((4, 100), -1, 1))
    sess = tf.Session()
    sess.run(tf.global_variables_initializer())
    assert sess.run(b).shape == (100,) and np.abs(sess.run(w)).max() <= 1


def test_names_of_scopes():
    with tf.variable_scope("a") as first:
        assert tf.constant(1.0).name == "a/Const:0" and first.name == "a"
        with tf.variable_scope("b"):
            assert tf.get_variable("v", [1]).name == "a/b/v:0"
            assert tf.get_variable_scope().name == "a/b"
        with tf.name_scope("n"):
            assert tf.get_variable("v", [1]).name == "a/v:0"
            assert tf.Variable(1.0, name="v").name == "a/n/v:0"
    with tf.variable_scope("a"):
        assert tf.constant(1.0).name == "a_1/Const:0"
        assert tf.get_variable("u", [1]).name == "a/u:0"
    names = []
    for _ in range(2):
        with tf.variable_scope(None, default_name="block"):
            names.append(tf.get_variable("v", [1]).name)
    assert names == ["block/v:0", "block_1/v:0"]
    with tf.variable_scope(first), tf.variable_scope("c"):
        assert tf.get_variable("v", [1]).name == "a/c/v:0"
    assert [v.name for v in first.global_variables()][:2] == ["a/b/v:0", "a/v:0"]


def test_defaults_of_a_scope():
    def penalty(v):
        return tf.reduce_sum(tf.square(v), name="penalty")

    with tf.variable_scope("s", initializer=tf.constant_initializer(2.0), regularizer=penalty):
        w = tf.get_variable("w", [3])
        with tf.variable_scope("inner"):
            u = tf.get_variable("u", [2], initializer=tf.ones_initializer())
            free = tf.get_variable("free", [2], regularizer=tf.no_regularizer)
    losses = tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
    assert [t.name for t in losses] == ["s/w/Regularizer/penalty:0",
                                        "s/inner/u/Regularizer/penalty:0"]  # fmt: skip
    sess = tf.Session()
    sess.run(tf.global_variables_initializer())
    np.testing.assert_array_equal(sess.run(w), [2.0] * 3)
    np.testing.assert_array_equal(sess.run(free), [2.0] * 2)
    assert sess.run([*losses, tf.reduce_sum(u)]) == [12.0, 2.0, 2.0]
    with tf.variable_scope("d", dtype=tf.float64):
        assert tf.get_variable("x", [1]).dtype == tf.float64


def test_custom_getter():
    seen = []

    def doubled(getter, name, *args, **kwargs):
        seen.append(name)
        return getter(name, *args, **kwargs) * 2.0

    with tf.variable_scope("s", custom_getter=doubled):
        y = tf.get_variable("w", [2], initializer=tf.ones_initializer())
    sess = tf.Session()
    sess.run(tf.global_variables_initializer())
    np.testing.assert_array_equal(sess.run(y), [2.0, 2.0])
    assert seen == ["s/w"]


def test_partitioner():
    def halves(shape, dtype):
        return [2] + [1] * (shape.ndims - 1)

    w = tf.get_variable("w", [5, 2], initializer=tf.ones_initializer(), partitioner=halves)
    assert [v.name for v in w] == ["w/part_0:0", "w/part_1:0"]
    assert [v.shape.as_list() for v in w] == [[3, 2], [2, 2]]
    y = tf.matmul(w, tf.ones([2, 1]))
    sess = tf.Session()
    sess.run(tf.global_variables_initializer())
    np.testing.assert_array_equal(sess.run(y), np.full((5, 1), 2.0))


def test_initializers():
    shape = [200, 100]
    cases = {
        "glorot_uniform": (tf.glorot_uniform_initializer(seed=1), np.sqrt(2 / 300)),
        "glorot_normal": (tf.glorot_normal_initializer(seed=1), np.sqrt(2 / 300)),
        "he": (tf.variance_scaling_initializer(2.0, "fan_in", seed=1), np.sqrt(2 / 200)),
        "default": (None, np.sqrt(2 / 300)),
        "normal": (tf.random_normal_initializer(stddev=0.3, seed=2), 0.3),
        "uniform": (tf.random_uniform_initializer(-1, 1, seed=2), np.sqrt(1 / 3)),
        "truncated": (tf.truncated_normal_initializer(stddev=0.5, seed=2), 0.5 * 0.8796),
        "xavier": (tf.contrib.layers.xavier_initializer(seed=1), np.sqrt(2 / 300)),
        "unit": (tf.uniform_unit_scaling_initializer(seed=3), np.sqrt(1 / 200)),
    }
    made = {k: tf.get_variable(k, shape, initializer=i) for k, (i, _) in cases.items()}
    listed = tf.get_variable("l", [2, 2], initializer=tf.constant_initializer([1, 2, 3, 4]))
    eye = tf.get_variable("eye", [2, 2], initializer=tf.keras.initializers.Identity(3.0))
    count = tf.get_variable("count", [2], dtype=tf.int32)
    sess = tf.Session()
    sess.run(tf.global_variables_initializer())
    for name, (_, deviation) in cases.items():
        value = sess.run(made[name])
        assert abs(value.std() / deviation - 1) < 0.03 and abs(value.mean()) < 0.03 * deviation * 5
    np.testing.assert_array_equal(sess.run(listed), [[1, 2], [3, 4]])
    np.testing.assert_array_equal(sess.run(eye), 3 * np.eye(2))
    np.testing.assert_array_equal(sess.run(count), [0, 0])
    assert tf.constant_initializer(3.0).get_config() == {"value": 3.0, "dtype": "float32"}


def test_scope_arguments():
    with pytest.raises(ValueError, match="name_or_scope is required"):
        tf.variable_scope(None)
    with pytest.raises(ValueError, match="reuse parameter"):
        tf.variable_scope("a", reuse=3)
    with pytest.raises(TypeError, match="must be a string or VariableScope"):
        tf.variable_scope(3)


def test_objects_that_are_called_with_or_without_a_shape():
    class WithShape:
        def __call__(self, shape, dtype=None, partition_info=None):
            return tf.fill(shape, 2.0)

    class WithoutShape:
        def __call__(self):
            return np.full(3, 5.0, np.float32)

    class WithAnything:
        def __call__(*arguments, **keywords):
            return tf.fill(arguments[1], 7.0)

    made = [
        tf.get_variable(f"v{n}", [3], initializer=one)
        for n, one in enumerate((WithShape(), WithoutShape(), WithAnything(), WithShape()))
    ]
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        assert [v[0] for v in sess.run(made)] == [2.0, 5.0, 7.0, 2.0]
