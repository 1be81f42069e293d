"""Sparse tensors: feeding, fetching, products against SciPy, gradients, embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

import tinyflow as tf
from tests.observing import steps_made


def entries(rng, rows, columns, count):
    """Distinct places in row-major order, and values."""
    places = np.sort(rng.choice(rows * columns, count, replace=False))
    return np.stack(np.divmod(places, columns), 1).astype(np.int64), rng.normal(size=count)


@pytest.mark.parametrize("columns", [1, 7, 16, 50, 300])
@pytest.mark.parametrize("adjoint", [False, True])
def test_product_against_scipy(columns, adjoint):
    rng = np.random.default_rng(columns)
    indices, values = entries(rng, 40, 30, 500)
    matrix = scipy.sparse.csr_matrix((values, indices.T), (40, 30))
    b = rng.normal(size=(40 if adjoint else 30, columns))
    a = tf.SparseTensor(indices, values, [40, 30])
    y = tf.sparse_tensor_dense_matmul(a, b, adjoint_a=adjoint)
    flipped = tf.sparse.matmul(a, b.T.copy(), adjoint_a=adjoint, adjoint_b=True)
    wanted = (matrix.T if adjoint else matrix) @ b
    with tf.Session() as sess:
        for found in sess.run([y, flipped]):
            np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


def test_fed_sparse_matrix_of_unknown_shape():
    """As graph convolutions do it: the same graph for graphs of several sizes, with gradients."""
    a = tf.sparse_placeholder(tf.float64)
    b = tf.placeholder(tf.float64, [None, 3])
    y = tf.sparse_tensor_dense_matmul(a, b)
    loss = tf.reduce_sum(y * y)
    slopes = tf.gradients(loss, [b, a.values])
    rng = np.random.default_rng(5)
    with tf.Session() as sess:
        for rows in (4, 6, 4):
            indices, values = entries(rng, rows, 5, 9)
            dense = rng.normal(size=(5, 3))
            matrix = scipy.sparse.coo_matrix((values, indices.T), (rows, 5))
            feed = {a: tf.SparseTensorValue(indices, values, [rows, 5]), b: dense}
            found, db, dv = sess.run([y, *slopes], feed)
            product = matrix @ dense
            np.testing.assert_allclose(found, product, rtol=1e-12)
            np.testing.assert_allclose(db, matrix.T @ (2 * product), rtol=1e-12)
            wanted = [2 * product[i] @ dense[j] for i, j in indices]
            np.testing.assert_allclose(dv, wanted, rtol=1e-12)
            np.testing.assert_allclose(sess.run(y, {a: matrix, b: dense}), product, rtol=1e-12)


def test_plans_of_fed_sparse_tensors_are_kept():
    a = tf.sparse_placeholder(tf.float32, [3, 2])
    y = tf.sparse_tensor_dense_matmul(a, tf.ones([2, 1]))
    value = tf.SparseTensorValue([[0, 1], [2, 0]], [2.0, 3.0], [3, 2])
    with tf.Session() as sess:
        np.testing.assert_array_equal(sess.run(y, {a: value}), [[2], [0], [3]])
        before = len(sess._plans)
        sess.run(y, {a: value})
        assert len(sess._plans) == before


def test_fetching_and_arithmetic():
    a = tf.SparseTensor([[0, 1], [1, 0]], [2.0, 3.0], [2, 3])
    assert a.shape.as_list() == [2, 3] and a.dtype is tf.float32
    with tf.Session() as sess:
        value = sess.run(a * 2.0)
        assert isinstance(value, tf.SparseTensorValue)
        assert value.values.tolist() == [4, 6] and value.dense_shape.tolist() == [2, 3]
        half = sess.run(a / np.array([[1, 2, 1], [4, 1, 1]], np.float32))
        np.testing.assert_allclose(half.values, [1, 0.75])
        flipped = sess.run(tf.sparse_transpose(a))
        assert flipped.indices.tolist() == [[0, 1], [1, 0]] and flipped.values.tolist() == [3, 2]
        kept = sess.run(tf.sparse_retain(a, [False, True]))
        assert kept.indices.tolist() == [[1, 0]]
        assert sess.run(tf.sparse_reduce_sum(a)) == 5.0
        np.testing.assert_array_equal(sess.run(tf.sparse_reduce_sum(a, 0)), [3, 2, 0])
        np.testing.assert_array_equal(sess.run(tf.sparse.reduce_sum(a, 1, True)), [[2], [3]])


def test_to_dense():
    a = tf.SparseTensor([[0, 1], [1, 0]], [2.0, 3.0], [2, 3])
    with tf.Session() as sess:
        np.testing.assert_array_equal(sess.run(tf.sparse.to_dense(a)), [[0, 2, 0], [3, 0, 0]])
        np.testing.assert_array_equal(
            sess.run(tf.sparse_tensor_to_dense(a, -1.0)), [[-1, 2, -1], [3, -1, -1]]
        )
        np.testing.assert_array_equal(sess.run(tf.sparse_to_dense([1, 3], [5], 1.0)),
                                      [0, 1, 0, 1, 0])  # fmt: skip
        bad = tf.sparse_to_dense(tf.placeholder_with_default([[0, 3]], [1, 2]), [2, 3], [1.0])
        with pytest.raises(tf.errors.InvalidArgumentError, match="out of range"):
            sess.run(bad)


@pytest.mark.parametrize("combiner", ["sum", "mean", "sqrtn"])
@pytest.mark.parametrize("weighted", [False, True])
def test_embedding_lookup_sparse(combiner, weighted):
    rng = np.random.default_rng(6)
    table = rng.normal(size=(5, 3))
    rows, ids, weights = [0, 0, 1, 2], [4, 1, 1, 0], [0.5, 2.0, 1.0, 3.0]
    indices = [[0, 0], [0, 1], [1, 0], [2, 0]]
    sparse_ids = tf.SparseTensor(indices, np.array(ids, np.int64), [3, 2])
    given = tf.SparseTensor(indices, np.array(weights), [3, 2]) if weighted else None
    y = tf.nn.embedding_lookup_sparse(table, sparse_ids, given, combiner=combiner)
    wanted = np.zeros((3, 3))
    norm = np.zeros(3)
    for r, i, w in zip(rows, ids, weights if weighted else [1.0] * 4, strict=True):
        wanted[r] += w * table[i]
        norm[r] += {"sum": 0.0, "mean": w, "sqrtn": w * w}[combiner]
    scale = {"sum": np.ones(3), "mean": norm, "sqrtn": np.sqrt(norm)}[combiner]
    with tf.Session() as sess:
        np.testing.assert_allclose(sess.run(y), wanted / scale[:, None], rtol=1e-12)


def test_errors():
    with pytest.raises(ValueError, match="rank 2"):
        tf.SparseTensor([0, 1], [2.0, 3.0], [2])
    a = tf.SparseTensor([[0, 1]], [2.0], [2, 2])
    with pytest.raises(TypeError, match="the values are float32, the dense matrix is float64"):
        tf.sparse_tensor_dense_matmul(a, np.zeros((2, 2)))
    p = tf.sparse_placeholder(tf.float32, [2, 2])
    with tf.Session() as sess, pytest.raises(ValueError, match="SparseTensorValue"):
        sess.run(p, {p: np.zeros((2, 2))})


def test_graph_convolution_with_sparse_dropout_learns():
    """Entries are dropped at random, so their number differs in every step: few compilations."""
    rng = np.random.default_rng(0)
    n, features, classes = 120, 20, 3
    labels = rng.integers(0, classes, n)
    linked = rng.random((n, n)) < np.where(labels[:, None] == labels, 0.2, 0.01)
    adjacency = (linked | linked.T | np.eye(n, dtype=bool)).astype(np.float32)
    scale = 1 / np.sqrt(adjacency.sum(1))
    adjacency = scipy.sparse.coo_matrix(adjacency * scale * scale[:, None])
    rows = scipy.sparse.coo_matrix((rng.random((n, features)) < 0.3).astype(np.float32))

    support = tf.sparse_placeholder(tf.float32)
    x = tf.sparse_placeholder(tf.float32, [n, features])
    keep = tf.placeholder_with_default(1.0, [])
    tf.set_random_seed(1)
    flags = tf.cast(tf.floor(keep + tf.random_uniform(tf.shape(x.values))), tf.bool)
    dropped = tf.sparse_retain(x, flags) * (1.0 / keep)
    first = tf.get_variable("first", [features, 16])
    second = tf.get_variable("second", [16, classes])
    hidden = tf.nn.relu(
        tf.sparse_tensor_dense_matmul(support, tf.sparse_tensor_dense_matmul(dropped, first))
    )
    scores = tf.sparse_tensor_dense_matmul(support, tf.matmul(hidden, second))
    loss = tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=scores)
    )
    train = tf.train.AdamOptimizer(0.02).minimize(loss)
    feed = {support: adjacency, x: rows, keep: 0.7}
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        with steps_made() as seen:
            losses = [sess.run([loss, train], feed)[0] for _ in range(40)]
        del feed[keep]
        found = sess.run(scores, feed).argmax(1)
    assert losses[-1] < 0.5 * losses[0]
    assert (found == labels).mean() > 0.9
    assert sum(hasattr(s, "written") for s in seen) < 12  # of several stages, two each
