"""Segments, order, masks and counts; the numbers are those of TensorFlow 1.15.5."""

from __future__ import annotations

import numpy as np
import pytest

import tinyflow as tf

ROWS, IDS = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [0, 0, 2]

CASES = [
    ("segment_sum", lambda: tf.segment_sum(ROWS, IDS), [[4, 6], [0, 0], [5, 6]]),
    ("segment_mean", lambda: tf.segment_mean(ROWS, IDS), [[2, 3], [0, 0], [5, 6]]),
    ("segment_max", lambda: tf.segment_max(ROWS, IDS), [[3, 4], [0, 0], [5, 6]]),
    ("segment_min", lambda: tf.segment_min(ROWS, IDS), [[1, 2], [0, 0], [5, 6]]),
    ("segment_prod", lambda: tf.segment_prod(ROWS, IDS), [[3, 8], [1, 1], [5, 6]]),
    (
        "unsorted_segment_max",
        lambda: tf.unsorted_segment_max([1.0, 2.0, 3.0], IDS, 4),
        [2.0, np.finfo("f").min, 3.0, np.finfo("f").min],
    ),
    ("unsorted_segment_mean", lambda: tf.unsorted_segment_mean(ROWS, IDS, 3),
     [[2, 3], [0, 0], [5, 6]]),
    ("in_top_k", lambda: tf.nn.in_top_k([[1.0, 5, 3], [2, 2, 2], [1, np.nan, 0]], [2, 0, 0], 1),
     [False, True, False]),
    ("sort", lambda: tf.sort([[3, 1, 2], [9, 7, 8]], 0, "DESCENDING"), [[9, 7, 8], [3, 1, 2]]),
    ("argsort", lambda: tf.argsort([3, 1, 2]), [1, 2, 0]),
    ("where", lambda: tf.where([[True, False], [True, True]]), [[0, 0], [1, 0], [1, 1]]),
    ("mask of elements", lambda: tf.boolean_mask([[1, 2], [3, 4]], [[True, False], [True, True]]),
     [1, 3, 4]),
    ("mask of rows", lambda: tf.boolean_mask([[1, 2], [3, 4]], [False, True]), [[3, 4]]),
    ("mask of columns", lambda: tf.boolean_mask([[1, 2], [3, 4]], [False, True], axis=1),
     [[2], [4]]),
    ("sequence_mask", lambda: tf.sequence_mask([1, 3, 2]),
     [[True, False, False], [True, True, True], [True, True, False]]),
    ("sequence_mask with length", lambda: tf.sequence_mask([1, 3], 4, tf.float32),
     [[1, 0, 0, 0], [1, 1, 1, 0]]),
    ("reverse_sequence", lambda: tf.reverse_sequence([[1, 2, 3], [4, 5, 6]], [2, 3], seq_axis=1),
     [[2, 1, 3], [6, 5, 4]]),
    ("cumsum", lambda: tf.cumsum([1, 2, 3], exclusive=True, reverse=True), [5, 3, 0]),
    ("cumprod", lambda: tf.cumprod([[1.0, 2.0], [3.0, 4.0]], 1), [[1, 2], [3, 12]]),
    ("gather_nd", lambda: tf.gather_nd([[1, 2], [3, 4]], [[0, 1], [1, 0]]), [2, 3]),
    ("scatter_nd", lambda: tf.scatter_nd([[1], [3]], [5, 6], [5]), [0, 5, 0, 6, 0]),
    ("bincount", lambda: tf.bincount([1, 1, 4]), [0, 2, 0, 0, 1]),
    ("bincount with weights", lambda: tf.bincount([1, 1, 4], [0.5, 0.5, 2.0], minlength=8),
     [0, 1, 0, 0, 2, 0, 0, 0]),
    ("bincount cut", lambda: tf.bincount([1, 1, 4], maxlength=3), [0, 2, 0]),
    ("histogram", lambda: tf.histogram_fixed_width([-1.0, 0.0, 1.5, 2, 5, 15], [0.0, 5.0], 5),
     [2, 1, 1, 0, 2]),
    ("gather with a batch", lambda: tf.gather([[1, 2], [3, 4]], [[0, 0], [1, 0]], batch_dims=1),
     [[1, 1], [4, 3]]),
    ("lookup in tables by mod",
     lambda: tf.nn.embedding_lookup([[[0.0], [2.0], [4.0]], [[1.0], [3.0]]], [4, 3, 0, 1]),
     [[4], [3], [0], [1]]),
    ("lookup in tables by div",
     lambda: tf.nn.embedding_lookup([[[0.0], [1.0], [2.0]], [[3.0], [4.0]]], [4, 3, 0, 1], "div"),
     [[4], [3], [0], [1]]),
    ("lookup of norm 1",
     lambda: tf.nn.embedding_lookup(np.array([[3.0, 4.0], [1.0, 0.0]]), [0, 1], max_norm=1.0),
     [[0.6, 0.8], [1, 0]]),
    ("trace", lambda: tf.trace([[1.0, 2.0], [3.0, 4.0]]), 5.0),
    ("diag", lambda: tf.diag([1, 2]), [[1, 0], [0, 2]]),
    ("diag_part", lambda: tf.diag_part([[1, 2], [3, 4]]), [1, 4]),
    ("matrix_diag", lambda: tf.linalg.diag([[1.0, 2.0]]), [[[1, 0], [0, 2]]]),
    ("matrix_diag_part", lambda: tf.matrix_diag_part([[1.0, 2, 3], [4, 5, 6]]), [1, 5]),
    ("matrix_band_part", lambda: tf.matrix_band_part([[1, 2, 3], [4, 5, 6], [7, 8, 9]], 1, 0),
     [[1, 0, 0], [4, 5, 0], [0, 8, 9]]),
]  # fmt: skip


@pytest.mark.parametrize(("make", "wanted"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_numbers(make, wanted):
    with tf.Session() as sess:
        np.testing.assert_allclose(sess.run(make()), wanted, rtol=1e-6)


def test_top_k_and_unique():
    scores = tf.placeholder(tf.float32, [None, 4])
    top = tf.nn.top_k(scores, 2)
    y, idx, count = tf.unique_with_counts([3, 1, 3, 2, 1])
    with tf.Session() as sess:
        values, indices = sess.run(top, {scores: [[1.0, 5, 3, 4], [2, 2, 2, 2]]})
        assert values.tolist() == [[5, 4], [2, 2]] and indices.tolist() == [[1, 3], [0, 1]]
        found = sess.run([y, idx, count])
        assert [f.tolist() for f in found] == [[3, 1, 2], [0, 1, 0, 2, 1], [2, 2, 1]]
    with pytest.raises(ValueError, match="input must have at least k columns"):
        tf.nn.top_k(scores, 5)


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 1000])
def test_sorting_against_numpy(n):
    rng = np.random.default_rng(n)
    x = rng.integers(0, 50, (3, n)).astype(np.float32)
    x[1, :: 7] = np.nan
    with tf.Session() as sess:
        up, order, top = sess.run([tf.sort(x), tf.argsort(x), tf.nn.top_k(x[:1], min(n, 100))])
    np.testing.assert_array_equal(up, np.sort(x, -1))
    np.testing.assert_array_equal(order, np.argsort(x, -1, kind="stable"))
    np.testing.assert_array_equal(top.values[0], np.sort(x[0])[::-1][: min(n, 100)])
    np.testing.assert_array_equal(x[0][top.indices[0]], top.values[0])


def test_sizes_that_follow_from_values():
    """One graph, many counts: masks, indices, distinct values, with a gradient."""
    x = tf.placeholder(tf.float64, [None, 3])
    mask = tf.reduce_sum(x, 1) > 0
    kept = tf.boolean_mask(x, mask)
    loss = tf.reduce_sum(kept**3)
    slope = tf.gradients(loss, kept)[0]
    whole = tf.convert_to_tensor(tf.gradients(loss, x)[0])
    assert kept.shape.as_list() == [None, 3]
    rng = np.random.default_rng(0)
    with tf.Session() as sess:
        for rows in (5, 9, 9, 1):
            value = rng.normal(size=(rows, 3))
            chosen = value.sum(1) > 0
            fetches = [kept, slope, whole, tf.where(mask)]
            found, partial, full, places = sess.run(fetches, {x: value})
            np.testing.assert_array_equal(found, value[chosen])
            np.testing.assert_allclose(partial, 3 * value[chosen] ** 2)
            np.testing.assert_allclose(full, 3 * value**2 * chosen[:, None])
            np.testing.assert_array_equal(places, np.argwhere(chosen))
        none = sess.run(kept, {x: np.full((4, 3), -1.0)})
        assert none.shape == (0, 3)
        assert sess.run(tf.reduce_max(tf.where(mask)), {x: [[-1.0] * 3]}) == np.iinfo("int64").min


def test_segments_of_fed_ids():
    ids = tf.placeholder(tf.int32, [None])
    rows = tf.placeholder(tf.float32, [None, 2])
    total = tf.segment_sum(rows, ids)
    with tf.Session() as sess:
        for last in (2, 5):
            found = sess.run(total, {ids: [0, 0, last], rows: ROWS})
            assert found.shape == (last + 1, 2) and found[last].tolist() == [5, 6]
    with pytest.raises(ValueError, match="segment ids are not increasing"):
        tf.segment_sum(ROWS, [1, 0, 2])


def test_index_errors():
    at = tf.placeholder(tf.int32, [None, 2])
    table = tf.placeholder(tf.int32, [None])
    with tf.Session() as sess:
        for y, feed in (
            (tf.gather_nd([[1, 2], [3, 4]], at), {at: [[0, 2]]}),
            (tf.scatter_nd(at, [1.0], [2, 2]), {at: [[2, 0]]}),
            (tf.unsorted_segment_max([1.0], table, 3), {table: [3]}),
            (tf.gather([[1, 2]], tf.expand_dims(table, 0), batch_dims=1), {table: [2]}),
        ):
            with pytest.raises(tf.errors.InvalidArgumentError, match="out of range"):
                sess.run(y, feed)


#: tables whose rows are all alike, so that no index is needed to compute an element
ALIKE = {
    "one row": lambda row: row * 2.0,
    "reshaped": lambda row: tf.reshape(row[0] * 3.0, [1, 3]),
    "expanded": lambda row: tf.expand_dims(tf.exp(row[0]), 0),
    "broadcast": lambda row: tf.broadcast_to(row, [4, 3]),
    "tiled": lambda row: tf.tile(row, [4, 1]),
    "constant": lambda row: tf.zeros([4, 3]),
}


@pytest.mark.parametrize("name", ALIKE)
def test_indices_into_equal_rows_are_checked(name):
    row, at = tf.placeholder(tf.float32, [1, 3]), tf.placeholder(tf.int32, [1])
    table = ALIKE[name](row)
    found = (tf.gather(table, at), tf.gather(table, at) + table, table[at[0]],
             tf.gather(tf.transpose(table), at, axis=1))  # fmt: skip
    with tf.Session() as sess:
        for y in found:
            sess.run(y, {row: np.ones((1, 3)), at: [0]})
            for index in (4, -5):
                with pytest.raises(tf.errors.InvalidArgumentError, match="out of range"):
                    sess.run(y, {row: np.ones((1, 3)), at: [index]})


@pytest.mark.parametrize("shape,axis", [((2, 3, 4), 1), ((2, 3, 4), 2), ((5, 4), 1)])
def test_gather_with_batch_dimensions(shape, axis):
    rng = np.random.default_rng(4)
    x = rng.normal(size=shape)
    at = rng.integers(0, shape[axis], (shape[0], 6))
    y = tf.gather(x, at, axis=axis, batch_dims=1)
    wanted = np.stack([np.take(x[b], at[b], axis - 1) for b in range(shape[0])])
    with tf.Session() as sess:
        np.testing.assert_array_equal(sess.run(y), wanted)


def test_a_wrong_row_leaves_the_variable_alone():
    w = tf.Variable(np.ones((3, 2), np.float32))
    at = tf.placeholder(tf.int32, [1])
    changed = tf.scatter_update(w, at, [[5.0, 5.0]])
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        with pytest.raises(tf.errors.InvalidArgumentError, match="out of range"):
            sess.run(changed.op, {at: [3]})
        np.testing.assert_array_equal(sess.run(w), np.ones((3, 2)))
        sess.run(changed.op, {at: [2]})
        assert sess.run(w)[2].tolist() == [5, 5]


def test_experts_by_partition_and_stitch():
    """Rows sent to experts and put together again, with the gradient of both ways."""
    x = tf.placeholder(tf.float64, [None, 2])
    owner = tf.placeholder(tf.int32, [None])
    scales = tf.constant([1.0, 10.0, 100.0], tf.float64)
    parts = tf.dynamic_partition(x, owner, 3)
    places = tf.dynamic_partition(tf.range(tf.shape(x)[0]), owner, 3)
    y = tf.dynamic_stitch(places, [p * scales[n] for n, p in enumerate(parts)])
    slope = tf.gradients(tf.reduce_sum(y**2), x)[0]
    with tf.Session() as sess:
        for owners in ([2, 0, 2, 1], [1, 1, 0], [0, 2, 0, 1]):
            value = np.arange(2.0 * len(owners)).reshape(-1, 2)
            factor = np.array([1.0, 10.0, 100.0])[owners][:, None]
            found, gradient = sess.run([y, tf.convert_to_tensor(slope)], {x: value, owner: owners})
            np.testing.assert_allclose(found, value * factor)
            np.testing.assert_allclose(gradient, 2 * value * factor**2)
        inverse = sess.run(tf.invert_permutation([2, 0, 1]))
        assert inverse.tolist() == [1, 2, 0]
