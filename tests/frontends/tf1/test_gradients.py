"""``tf.gradients`` and optimizers (rows A17, A25)."""

from __future__ import annotations

import numpy as np
import pytest

import tinyflow as tf


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_gradients_of_a_vector_are_those_of_its_sum(dtype):
    x = tf.constant([1.0, 2.0, 3.0], dtype=dtype)
    y = tf.square(x)
    (dx,) = tf.gradients(y, [x])
    sess = tf.Session()
    np.testing.assert_allclose(sess.run(dx), [2.0, 4.0, 6.0])
    (two,) = tf.gradients([y, x * 3.0], x)
    np.testing.assert_allclose(sess.run(two), [5.0, 7.0, 9.0])
    (weighted,) = tf.gradients(y, x, grad_ys=np.array([1.0, 0.0, -1.0], dtype.as_numpy_dtype))
    np.testing.assert_allclose(sess.run(weighted), [2.0, 0.0, -6.0])
    (second,) = tf.gradients(dx, x)
    np.testing.assert_allclose(sess.run(second), [2.0, 2.0, 2.0])


def test_grad_ys_is_a_vector_jacobian_product():
    rng = np.random.default_rng(0)
    a, v = rng.normal(size=(3, 4)), rng.normal(size=(2, 4))
    x = tf.placeholder(tf.float64, [2, 3])
    (dx,) = tf.gradients(tf.matmul(x, a), x, grad_ys=v)
    np.testing.assert_allclose(tf.Session().run(dx, {x: np.ones((2, 3))}), v @ a.T)


def test_later_reads_of_a_variable_belong_to_it():
    v, w = tf.Variable(3.0), tf.Variable(2.0)
    (twice,) = tf.gradients(2.0 * v.read_value(), v)
    with tf.control_dependencies([v.assign_add(1.0)]):
        y = v * v * w
    slopes = tf.gradients(y, [v, w])
    train = tf.train.GradientDescentOptimizer(0.5).minimize(y, var_list=[w])
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        assert sess.run(twice) == 2.0
        assert sess.run([y, *slopes]) == [32.0, 16.0, 16.0]  # both see v = 4
        sess.run(train)
        assert sess.run(w) == 2.0 - 0.5 * 25.0


def test_unconnected():
    x, y = tf.constant([1.0, 2.0]), tf.constant(3.0)
    assert tf.gradients(y * 2.0, [x, y])[0] is None
    zeros = tf.gradients(y * 2.0, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)[0]
    np.testing.assert_array_equal(tf.Session().run(zeros), [0.0, 0.0])
    zeros = tf.gradients(y * 2.0, x, unconnected_gradients="zero")[0]
    assert zeros.shape.as_list() == [2]
    with pytest.raises(ValueError, match="unconnected_gradients"):
        tf.gradients(y, x, unconnected_gradients="ones")


def test_stop_gradients():
    a = tf.constant(2.0)
    b = a * 3.0
    g = tf.gradients(a + b, [a, b], stop_gradients=[a, b])
    assert tf.Session().run(g) == [1.0, 1.0]
    total = tf.gradients(a + b, [a, b])
    assert tf.Session().run(total) == [4.0, 1.0]
    assert tf.gradients(tf.stop_gradient(a) * 2.0, a)[0] is None


def test_variables_intermediates_and_accepted_arguments():
    w = tf.Variable(3.0)
    h = w * 2.0
    g = tf.gradients(h * h, [w, h, w.value()], aggregation_method=0, gate_gradients=True,
                     colocate_gradients_with_ops=True)  # fmt: skip
    sess = tf.Session()
    sess.run(w.initializer)
    assert sess.run(g) == [24.0, 12.0, 24.0]


def test_an_integer_y_is_an_error_with_a_hint():
    x = tf.placeholder(tf.float32, [2, 3])
    with pytest.raises(TypeError, match=r"tf\.argmax") as caught:
        tf.gradients(tf.argmax(x, 1), x)
    assert "test_gradients.py" in str(caught.value)


def test_hessians():
    x = tf.constant([1.0, 2.0, 3.0])
    (h,) = tf.hessians(tf.reduce_sum(x * x * x), x)
    np.testing.assert_allclose(tf.Session().run(h), np.diag([6.0, 12.0, 18.0]))


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_gradient_descent(dtype):
    w = tf.Variable([1.0, 2.0], dtype=dtype)
    b = tf.Variable(0.5, dtype=dtype)
    frozen = tf.Variable(1.0, trainable=False, dtype=dtype)
    loss = tf.reduce_sum(w * w) * frozen + b
    step = tf.train.get_or_create_global_step()
    train = tf.train.GradientDescentOptimizer(0.1).minimize(loss, global_step=step)
    only_w = tf.train.GradientDescentOptimizer(tf.constant(0.1)).minimize(loss, var_list=[w])
    sess = tf.Session()
    sess.run(tf.global_variables_initializer())
    assert sess.run(train) is None
    np.testing.assert_allclose(sess.run(w), [0.8, 1.6], rtol=1e-6)
    np.testing.assert_allclose(sess.run([b, frozen]), [0.4, 1.0], rtol=1e-6)
    sess.run(only_w)
    np.testing.assert_allclose(sess.run(w), [0.64, 1.28], rtol=1e-6)
    np.testing.assert_allclose(sess.run(b), 0.4, rtol=1e-6)
    assert sess.run(step) == 1 == tf.train.global_step(sess, step)
    assert train.type == "AssignAdd" and train in tf.get_collection(tf.GraphKeys.TRAIN_OP)


def test_compute_then_apply():
    w, u = tf.Variable(3.0), tf.Variable(1.0)
    opt = tf.train.GradientDescentOptimizer(learning_rate=lambda: 1.0)
    pairs = opt.compute_gradients(w * w, [w, u])
    assert pairs[1] == (None, u) and pairs[0][1] is w
    clipped = [(tf.clip_by_value(g, -1.0, 1.0), v) for g, v in pairs if g is not None]
    train = opt.apply_gradients(clipped)
    sess = tf.Session()
    sess.run(tf.global_variables_initializer())
    sess.run(train)
    assert sess.run([w, u]) == [2.0, 1.0]


def test_minimize_errors():
    w = tf.Variable(1.0)
    opt = tf.train.GradientDescentOptimizer(0.1)
    with pytest.raises(ValueError, match="No gradients provided for any variable"):
        opt.minimize(tf.constant(1.0))
    with pytest.raises(ValueError, match="No gradients provided"):
        opt.apply_gradients([(None, w)])
    with tf.Graph().as_default(), pytest.raises(ValueError, match="No variables to optimize"):
        opt.minimize(tf.constant(1.0))


def test_a_bare_optimizer_is_its_only_minimize():
    w = tf.Variable(1.0)
    opt = tf.train.GradientDescentOptimizer(0.5)
    sess = tf.Session()
    sess.run(w.initializer)
    with pytest.raises(ValueError, match=r"its minimize\(\) was never called"):
        sess.run(opt)
    opt.minimize(w * w)
    assert sess.run(opt) is None and sess.run(w) == 0.0
    opt.minimize(w * w)
    with pytest.raises(ValueError, match=r"has 2 minimize\(\) calls") as caught:
        sess.run(opt)
    assert str(caught.value).count("minimize 1 at test_gradients.py") == 1


def test_a_vector_loss_trains_the_sum_and_leaves_a_note():
    w = tf.Variable([1.0, 2.0])
    x = tf.placeholder(tf.float32, [3, 2])
    loss = tf.reduce_sum(x * w, axis=1)
    train = tf.train.GradientDescentOptimizer(1.0).minimize(loss)
    sess = tf.Session()
    sess.run(w.initializer)
    sess.run(train, {x: np.ones((3, 2))})
    np.testing.assert_array_equal(sess.run(w), [-2.0, -1.0])
    ((text, source),) = tf.get_default_graph().lint_notes
    assert "did you mean tf.reduce_mean?" in text and "test_gradients.py" in str(source)


def test_gradients_keep_the_users_lines():
    w = tf.Variable([1.0, 2.0])
    y = tf.sqrt(w)  # the forward line
    (g,) = tf.gradients(y, w)
    line = test_gradients_keep_the_users_lines.__code__.co_firstlineno
    places = dict(g.op.origin)
    assert g.op.source.line == line + 2 == places["gradient of"].line
    assert places["requested at"].line == line + 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_slice_whose_begin_follows_from_a_shape(dtype):
    x = tf.placeholder(dtype, [None, 4])
    last = tf.slice(x, [tf.shape(x)[0] - 2, 1], [2, -1])
    (slope,) = tf.gradients(tf.reduce_sum(last * last), x)
    with tf.Session() as sess:
        for rows in (5, 2, 7, 3):
            value = np.random.default_rng(rows).normal(size=(rows, 4)).astype(dtype)
            want = np.zeros_like(value)
            want[-2:, 1:] = 2 * value[-2:, 1:]
            got = sess.run([last, slope], {x: value})
            np.testing.assert_array_equal(got[0], value[-2:, 1:])
            np.testing.assert_array_equal(got[1], want)
