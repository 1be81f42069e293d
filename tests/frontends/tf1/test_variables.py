"""Variables: creation, initialisation, reading and writing (rows A09, A15, A16)."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import tinyflow as tf


def session():
    sess = tf.Session()
    sess.run(tf.global_variables_initializer())
    return sess


def test_what_a_variable_is():
    w = tf.Variable(tf.zeros([2, 3]), name="w")
    assert w.name == "w:0" and w.op.name == "w" and w.op.type == "VariableV2"
    assert w.dtype == tf.float32 and w.shape.as_list() == [2, 3] == w.get_shape().as_list()
    assert w.initializer.name == "w/Assign" and w.value().name == "w/read:0"
    assert repr(w) == "<tf.Variable 'w:0' shape=(2, 3) dtype=float32_ref>"
    assert w.graph is tf.get_default_graph() and w.trainable
    assert tf.Variable(3).dtype == tf.int32 and tf.Variable(3, dtype=tf.float64).dtype == "float64"
    assert tf.Variable(np.arange(3.0)).dtype == tf.float64


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_initial_values(dtype):
    value = np.arange(6, dtype=dtype).reshape(2, 3)
    made = [
        tf.Variable(value),
        tf.Variable(tf.constant(value)),
        tf.Variable(lambda: tf.constant(value) * 1.0),
        tf.Variable(value.tolist(), dtype=dtype),
    ]
    sess = session()
    for v in made:
        np.testing.assert_array_equal(sess.run(v), value)
        assert sess.run(v).dtype == dtype


def test_operators_read_the_variable():
    v = tf.Variable([[1.0, 2.0], [3.0, 4.0]])
    sess = session()
    a = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    for ours, theirs in (
        (v + 1.0, a + 1), (1.0 - v, 1 - a), (v * v, a * a), (2.0 / v, 2 / a), (v**2.0, a**2),
        (-v, -a), (v @ v, a @ a), (v > 2.0, a > 2), (v[0], a[0]), (v[:, 1], a[:, 1]), (abs(-v), a),
        (tf.matmul(v, v), a @ a), (tf.square(v), a * a), (tf.reduce_sum(v), a.sum()),
        (a + v, a + a), (tf.concat([v, v], 0), np.concatenate([a, a])),
    ):  # fmt: skip
        np.testing.assert_allclose(sess.run(ours), theirs, rtol=1e-6)


def test_assignments():
    v = tf.Variable(10.0)
    sess = session()
    assert sess.run(tf.assign(v, 5)) == 5.0 and sess.run(v) == 5.0
    assert sess.run(tf.assign_add(v, 2)) == 7.0 and sess.run(v.assign_sub(3.0)) == 4.0
    assert sess.run(v.assign(v * 2.0)) == 8.0 and sess.run(v) == 8.0
    assert sess.run(v.assign(1.0, read_value=False)) is None and sess.run(v) == 1.0
    # The result of an assignment stands for its variable.
    assert sess.run(tf.assign_add(tf.assign(v, 3.0), 1.0)) in (2.0, 4.0)


def test_reads_see_the_start_of_the_step_unless_ordered():
    v = tf.Variable(1.0)
    write = v.assign(5.0)
    plain = v + 0.0
    with tf.control_dependencies([write]):
        after, identity, read = v + 0.0, tf.identity(v), v.read_value()
    sess = session()
    assert sess.run([plain, write]) == [1.0, 5.0]
    sess.run(v.initializer)
    assert sess.run([plain, after, identity, read]) == [1.0, 5.0, 5.0, 5.0]
    sess.run(v.initializer)
    assert sess.run(write + 1.0) == 6.0  # a data edge orders as well


def test_two_writes_form_a_chain():
    v = tf.Variable(1.0)
    first, second = v.assign_add(1.0), v.assign_add(10.0)
    sess = session()
    assert sess.run([first, second]) == [2.0, 12.0] and sess.run(v) == 12.0


@pytest.mark.parametrize(
    "initializer",
    [
        lambda: tf.global_variables_initializer(),
        lambda: tf.initialize_all_variables(),
        lambda: tf.variables_initializer(tf.global_variables()),
        lambda: tf.initialize_variables(tf.all_variables()),
        lambda: tf.group(*[v.initializer for v in tf.trainable_variables()]),
    ],
)
def test_every_spelling_initialises(initializer):
    v, w = tf.Variable(1.0), tf.Variable([2.0])
    sess = tf.Session()
    assert sess.run(initializer()) is None
    assert sess.run(v + w) == [3.0]


def test_local_variables():
    v = tf.Variable(4.0, collections=[tf.GraphKeys.LOCAL_VARIABLES], trainable=False)
    w = tf.get_local_variable("w", [2], initializer=tf.ones_initializer())
    assert tf.local_variables() == [v, w] and tf.global_variables() == []
    sess = tf.Session()
    sess.run(tf.local_variables_initializer())
    assert sess.run(v) == 4.0


def test_uninitialised():
    v = tf.Variable([1.0, 2.0], name="v")
    w = tf.Variable(3.0, name="w")
    ready = tf.is_variable_initialized(v)
    names = tf.report_uninitialized_variables()
    sess = tf.Session()
    assert not sess.run(ready) and list(sess.run(names)) == [b"v", b"w"]
    for fetch in (v, v + 1.0, tf.assign_add(v, [1.0, 1.0]), [w * 1.0, v]):
        with pytest.raises(tf.errors.FailedPreconditionError) as caught:
            sess.run(fetch)
        text = str(caught.value)
        assert "use uninitialized value" in text.lower() and "test_variables.py" in text
        assert "global_variables_initializer" in text
    sess.run(v.initializer)
    assert sess.run(ready) and list(sess.run(names)) == [b"w"]
    with pytest.raises(tf.errors.FailedPreconditionError, match="uninitialized value w"):
        sess.run(tf.assert_variables_initialized())
    sess.run(w.initializer)
    assert len(sess.run(names)) == 0
    sess.run(tf.assert_variables_initialized())


def test_initialized_value():
    v = tf.Variable(tf.random_uniform([3]), name="v")
    twice = tf.Variable(v.initialized_value() * 2.0)
    sess = tf.Session()
    sess.run(tf.global_variables_initializer())
    a, b = sess.run([v, twice])
    np.testing.assert_array_equal(a * 2, b)
    sess.run(v.assign([1.0, 2.0, 3.0]))
    sess.run(twice.initializer)
    np.testing.assert_array_equal(sess.run(twice), [2.0, 4.0, 6.0])


def test_concurrent_assign_add_with_locking():
    v = tf.Variable(tf.zeros([3]))
    add = tf.assign_add(v, tf.ones([3]), use_locking=True)
    sess = session()
    threads = [
        threading.Thread(target=lambda: [sess.run(add) for _ in range(25)]) for _ in range(8)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    np.testing.assert_array_equal(sess.run(v), [200.0] * 3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("scatter_update", [9.0, 2.0, 8.0]),
        ("scatter_add", [10.0, 2.0, 11.0]),
        ("scatter_sub", [-8.0, 2.0, -5.0]),
        ("scatter_mul", [9.0, 2.0, 24.0]),
        ("scatter_div", [1 / 9, 2.0, 3 / 8]),
        ("scatter_min", [1.0, 2.0, 3.0]),
        ("scatter_max", [9.0, 2.0, 8.0]),
    ],
)
def test_scatter(name, expected):
    v = tf.Variable([1.0, 2.0, 3.0])
    op = getattr(tf, name)(v, [0, 2], [9.0, 8.0])
    sess = session()
    np.testing.assert_allclose(sess.run(op), expected, rtol=1e-6)
    np.testing.assert_allclose(sess.run(v), expected, rtol=1e-6)


def test_count_up_to():
    v = tf.Variable(0)
    count = v.count_up_to(2)
    sess = session()
    assert [sess.run(count), sess.run(count)] == [0, 1]
    with pytest.raises(tf.errors.OutOfRangeError):
        sess.run(count)
    assert sess.run(v) == 2


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: tf.Variable(), ValueError, "initial_value must be specified"),
        (lambda: tf.Variable(tf.placeholder(tf.float32)), NotImplementedError, "shape specified"),
        (lambda: tf.Variable(1.0, collections="variables"), ValueError, "list, tuple, or set"),
        (lambda: tf.Variable(tf.constant(1), dtype=tf.float32), TypeError, "tf.cast"),
        (lambda: tf.assign(tf.Variable([1.0, 2.0]), [1.0]), ValueError, "a value of shape [2]"),
        (lambda: tf.assign(tf.Variable(1.0), tf.constant(1)), TypeError, "tf.cast"),
        (lambda: tf.assign(tf.constant(1.0), 2.0), ValueError, "must be a variable"),
        (lambda: iter(tf.Variable([1.0])), TypeError, "not iterable"),
    ],
)
def test_errors(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)
