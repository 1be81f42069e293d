"""Functions through the public call against NumPy, in float32 and float64."""

from __future__ import annotations

import numpy as np
import pytest

import tinyflow as tf

A = np.array([[0.5, 1.5, 2.5], [3.0, 0.25, 1.0]])
B = np.array([[1.0, 2.0, 0.5], [4.0, 3.0, 2.0]])


def softplus(x):
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)


CASES = [
    ("add", lambda x, y: tf.add(x, y), A + B),
    ("floordiv", lambda x, y: x // y, A // B),
    ("mod", lambda x, y: x % y, A % B),
    ("pow", lambda x, y: x**y, A**B),
    ("div_no_nan", lambda x, y: tf.div_no_nan(x, y * 0.0), A * 0),
    ("maximum", lambda x, y: tf.maximum(x, y), np.maximum(A, B)),
    ("squared_difference", lambda x, y: tf.squared_difference(x, y), (A - B) ** 2),
    ("rsqrt", lambda x, y: tf.rsqrt(x), A**-0.5),
    ("log1p", lambda x, y: tf.log1p(x), np.log1p(A)),
    ("clip", lambda x, y: tf.clip_by_value(x, 0.75, 2.0), np.clip(A, 0.75, 2)),
    ("clip_by_norm", lambda x, y: tf.clip_by_norm(x, 1.0), A / np.linalg.norm(A)),
    ("add_n", lambda x, y: tf.add_n([x, y, 1.0 + x]), A + B + 1 + A),
    ("accumulate_n", lambda x, y: tf.accumulate_n([x, y]), A + B),
    ("log_sigmoid", lambda x, y: tf.log_sigmoid(x), -softplus(-A)),
    ("logsumexp", lambda x, y: tf.reduce_logsumexp(x, 1), np.log(np.exp(A).sum(1))),
    ("prod", lambda x, y: tf.reduce_prod(x, 0), A.prod(0)),
    ("variance", lambda x, y: tf.math.reduce_variance(x, 1), A.var(1)),
    ("std", lambda x, y: tf.math.reduce_std(x), A.std()),
    ("norm", lambda x, y: tf.norm(x, axis=1), np.linalg.norm(A, axis=1)),
    ("norm1", lambda x, y: tf.norm(x, 1), np.abs(A).sum()),
    ("norm3", lambda x, y: tf.norm(x, 3), (A**3).sum() ** (1 / 3)),
    ("matmul", lambda x, y: tf.matmul(x, y, transpose_b=True), A @ B.T),
    ("matmul_at", lambda x, y: tf.matmul(x, y, transpose_a=True), A.T @ B),
    ("operator @", lambda x, y: x @ tf.transpose(y), A @ B.T),
    ("tensordot", lambda x, y: tf.tensordot(x, y, [[0], [0]]), A.T @ B),
    ("transpose", lambda x, y: tf.transpose(x, [1, 0]), A.T),
    ("matrix_transpose", lambda x, y: tf.matrix_transpose(x), A.T),
    ("reshape", lambda x, y: tf.reshape(x, [3, -1]), A.reshape(3, -1)),
    ("reshape by a tensor", lambda x, y: tf.reshape(x, tf.shape(y)[::-1]), A.reshape(3, 2)),
    ("tile", lambda x, y: tf.tile(x, [2, 1]), np.tile(A, (2, 1))),
    ("pad", lambda x, y: tf.pad(x, [[1, 0], [0, 2]]), np.pad(A, [[1, 0], [0, 2]])),
    ("slice", lambda x, y: tf.slice(x, [0, 1], [-1, 2]), A[:, 1:3]),
    ("index", lambda x, y: x[1, ::-1], A[1, ::-1]),
    ("gather", lambda x, y: tf.gather(x, [2, 0], axis=1), A[:, [2, 0]]),
    ("embedding", lambda x, y: tf.nn.embedding_lookup(x, [1, 1, 0]), A[[1, 1, 0]]),
    ("reverse", lambda x, y: tf.reverse(x, [1]), A[:, ::-1]),
    ("stack", lambda x, y: tf.stack([x, y], axis=1), np.stack([A, B], 1)),
    ("unstack", lambda x, y: tf.unstack(x, axis=1)[2], A[:, 2]),
    ("split", lambda x, y: tf.split(x, [1, 2], 1)[1], A[:, 1:]),
    ("broadcast_to", lambda x, y: tf.broadcast_to(x[0], [2, 3]), np.broadcast_to(A[0], (2, 3))),
    ("where rows", lambda x, y: tf.where([True, False], x, y), np.stack([A[0], B[1]])),
    ("where", lambda x, y: tf.where(x > y, x, y), np.maximum(A, B)),
    ("softmax", lambda x, y: tf.nn.softmax(x), np.exp(A) / np.exp(A).sum(1, keepdims=True)),
    ("log_softmax", lambda x, y: tf.nn.log_softmax(x, 0), A - np.log(np.exp(A).sum(0))),
    ("sigmoid cross entropy",
     lambda x, y: tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=y), softplus(B) - A * B),
    ("weighted", lambda x, y: tf.nn.weighted_cross_entropy_with_logits(x, y, 3.0),
     (1 - A) * B + (1 + 2 * A) * softplus(-B)),
    ("cross entropy", lambda x, y: tf.nn.softmax_cross_entropy_with_logits_v2(x, y),
     -(A * (B - np.log(np.exp(B).sum(1, keepdims=True)))).sum(1)),
    ("sparse", lambda x, y: tf.nn.sparse_softmax_cross_entropy_with_logits(labels=[2, 0], logits=x),
     np.log(np.exp(A).sum(1)) - A[[0, 1], [2, 0]]),
    ("bias_add", lambda x, y: tf.nn.bias_add(x, y[0]), A + B[0]),
    ("xw_plus_b", lambda x, y: tf.nn.xw_plus_b(x, tf.transpose(y), [1.0, 2.0]), A @ B.T + [1, 2]),
    ("relu_layer", lambda x, y: tf.nn.relu_layer(x, -tf.transpose(y), [9.0, 20.0]),
     np.maximum(-A @ B.T + [9, 20], 0)),
    ("l2_normalize", lambda x, y: tf.nn.l2_normalize(x, 1),
     A / np.linalg.norm(A, axis=1, keepdims=True)),
    ("moments", lambda x, y: tf.nn.moments(x, [0])[1], A.var(0)),
    ("moments mean", lambda x, y: tf.nn.moments(x, [0, 1], keep_dims=True)[0], [[A.mean()]]),
    ("l2_loss", lambda x, y: tf.nn.l2_loss(x), (A * A).sum() / 2),
    ("leaky", lambda x, y: tf.nn.leaky_relu(x - 1.0, 0.1), np.where(A > 1, A - 1, (A - 1) * 0.1)),
    ("zeros_like", lambda x, y: tf.zeros_like(x) + tf.ones_like(y), A * 0 + 1),
    ("fill", lambda x, y: tf.fill([2, 3], x[0, 0]), np.full((2, 3), 0.5)),
    ("packed list", lambda x, y: tf.convert_to_tensor([x[0, 0], 2.0]), [0.5, 2.0]),
    ("nested list", lambda x, y: tf.reduce_sum([[x[0, 0], 1.0], [y[0, 1], 2.0]], 1), [1.5, 4.0]),
    ("saturate", lambda x, y: tf.saturate_cast(x * 1000.0, tf.uint8),
     np.clip(A * 1000, 0, 255).astype(np.uint8)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(("name", "build", "expected"), CASES, ids=[c[0] for c in CASES])
def test_against_numpy(name, build, expected, dtype):
    x = tf.placeholder(dtype, [None, 3], name="x")
    y = tf.placeholder(dtype, [2, 3], name="y")
    result = tf.Session().run(build(x, y), {x: A, y: B})
    tolerance = 2e-5 if dtype == tf.float32 else 1e-11
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)
    if result.dtype != np.uint8:
        assert result.dtype == dtype.as_numpy_dtype


def test_integers_and_booleans():
    i, j = tf.constant([7, -7, 7]), tf.constant([2, 2, -2])
    flags = tf.constant([True, False])
    sess = tf.Session()
    for ours, expected in (
        (i // j, [3, -4, -4]), (i % j, [1, 1, -1]), (i / j, [3.5, -3.5, -3.5]),
        (tf.div(i, j), [3, -4, -4]), (tf.truncatediv(i, j), [3, -3, -3]),
        (tf.logical_and(flags, True), [True, False]), (~flags, [False, True]),
        (flags ^ tf.constant([True, True]), [False, True]), (tf.reduce_any(flags), True),
        (tf.reduce_all(flags), False), (tf.count_nonzero([0, 3, 0, 4]), 2),
        (tf.range(2, 9, 3), [2, 5, 8]), (tf.linspace(0.0, 1.0, 5), np.linspace(0, 1, 5)),
        (tf.eye(2, 3), np.eye(2, 3)), (tf.one_hot([1, 0], 3), [[0, 1, 0], [1, 0, 0]]),
        (tf.one_hot([1], 2, on_value=5, off_value=-1), [[-1, 5]]),
        (tf.argmin([[3, 1], [0, 2]], 1), [1, 0]), (tf.equal(i, 7), [True, False, True]),
        (tf.unsorted_segment_sum([1, 2, 3], [1, 1, 0], 2), [3, 3]),
        (tf.size(i), 3), (tf.rank(i), 1), (tf.to_int32(tf.constant([1.9, -1.9])), [1, -1]),
    ):  # fmt: skip
        np.testing.assert_array_equal(sess.run(ours), expected)
    assert sess.run(i / j).dtype == np.float64


def test_constants():
    sess = tf.Session()
    assert tf.constant(1).dtype == tf.int32 and tf.constant(1.0).dtype == tf.float32
    assert tf.constant(np.ones(2)).dtype == tf.float64
    np.testing.assert_array_equal(sess.run(tf.constant([1, 2, 3], shape=[2, 2])), [[1, 2], [3, 3]])
    np.testing.assert_array_equal(sess.run(tf.constant(7.0, shape=[2, 3])), np.full((2, 3), 7))
    np.testing.assert_array_equal(sess.run(tf.constant([[1, 2]], dtype="float64")), [[1.0, 2.0]])
    assert tf.convert_to_tensor([1, 2], preferred_dtype=tf.float32).dtype == tf.float32
    assert tf.convert_to_tensor([1.5, 2], preferred_dtype=tf.int32).dtype == tf.float32


def test_placeholder_with_default():
    x = tf.placeholder_with_default([1.0, 2.0], [None])
    assert x.shape.as_list() == [None]
    sess = tf.Session()
    assert sess.run(tf.reduce_sum(x)) == 3.0
    assert sess.run(tf.reduce_sum(x), {x: [1.0, 2.0, 3.0]}) == 6.0


def test_dropout():
    x = tf.ones([1000])
    tf.set_random_seed(0)
    sess = tf.Session()
    kinds = tf.nn.dropout(x, 0.8), tf.nn.dropout(x, rate=0.2), tf.nn.dropout(x, tf.constant(0.8))
    for y in kinds:
        value = sess.run(y)
        assert set(np.unique(value).tolist()) == {0.0, 1.25}
        assert 0.74 < (value > 0).mean() < 0.86
        assert not np.array_equal(value, sess.run(y))  # new in every run
    np.testing.assert_array_equal(sess.run(tf.nn.dropout(x, 1.0)), np.ones(1000))
    with pytest.raises(ValueError, match="keep_prob must be in"):
        tf.nn.dropout(x, 0.0)


def test_random_functions():
    tf.set_random_seed(1)
    sess = tf.Session()
    uniform, normal, cut, whole = sess.run([
        tf.random_uniform([20000], -2.0, 3.0), tf.random_normal([20000], 1.0, 2.0),
        tf.truncated_normal([20000], stddev=3.0), tf.random_uniform([20000], 3, 9, tf.int64),
    ])  # fmt: skip
    assert uniform.min() >= -2 and uniform.max() < 3 and abs(uniform.mean() - 0.5) < 0.05
    assert abs(normal.mean() - 1) < 0.06 and abs(normal.std() - 2) < 0.06
    assert np.abs(cut).max() <= 6 and abs(cut.std() - 3 * 0.8796) < 0.06
    assert set(np.unique(whole)) == set(range(3, 9))
    with pytest.raises(ValueError, match="maxval"):
        tf.random_uniform([2], dtype=tf.int32)


def test_unseeded_draws_differ_between_sessions_and_operations():
    a, b = tf.random_uniform([8]), tf.random_uniform([8])
    one, two = tf.Session(), tf.Session()
    first, second = one.run([a, b]), two.run([a, b])
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], second[0])


def test_py_func_print_assert(capfd):
    x = tf.placeholder(tf.float32, [None])
    pair = tf.py_func(lambda a, b: (a + b, a.sum()), [x, [1.0, 2.0]], [tf.float32, tf.float32])
    shown = tf.Print(x, [x, tf.shape(x)], message="x is ")
    check = tf.Assert(tf.reduce_all(x > 0.0), [x])
    with tf.control_dependencies([check, tf.assert_equal(tf.shape(x)[0], 2)]):
        y = tf.identity(x)
    sess = tf.Session()
    total, s = sess.run(pair, {x: [3.0, 4.0]})
    np.testing.assert_array_equal(total, [4.0, 6.0])
    assert s == 7.0
    sess.run(shown, {x: [3.0, 4.0]})
    assert "x is [3 4][2]" in capfd.readouterr().err
    np.testing.assert_array_equal(sess.run(y, {x: [1.0, 2.0]}), [1.0, 2.0])
    for bad in ([-1.0, 1.0], [1.0, 2.0, 3.0]):
        with pytest.raises(tf.errors.InvalidArgumentError, match="assertion failed"):
            sess.run(y, {x: bad})


def test_logging(caplog):
    tf.logging.set_verbosity(tf.logging.INFO)
    tf.logging.info("step %d", 3)
    assert "step 3" in caplog.text
    assert tf.logging.get_verbosity() == tf.logging.INFO
    tf.logging.set_verbosity(tf.logging.WARN)
