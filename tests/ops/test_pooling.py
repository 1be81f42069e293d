"""Pools of torch against its stored results, unpooling, patches against convolutions, erosion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tinyflow as tf
from tests.ops.torch_pools import CASES, image, slope
from tinyflow import ops
from tinyflow.core.error import InvalidArgumentError, ShapeError
from tinyflow.ops.windows import FORMATS

with np.load(Path(__file__).parents[1] / "golden" / "pools_torch.npz") as archive:
    STORED = {name: archive[name] for name in archive.files}


def run(fetches, feeds=None):
    with tf.Session() as session:
        return session.run(fetches, feeds)


def pairs(pad):
    return tuple((p, p) for p in pad)


def pooled(name, x):
    """(y, index or None) of a case, with channels second as torch has them."""
    kind, shape, own = CASES[name]
    dims = len(shape) - 2
    form, ones = FORMATS[dims][1], (1,) * dims
    if kind == "max":
        size, strides, pad, dilations, ceil = own
        windows = size, strides, pairs(pad), dilations, form
        y = ops.max_pool(x, *windows, ceil=ceil)
        return y, ops.max_positions(x, *windows, ceil, within="plane")
    if kind == "avg":
        size, strides, pad, ceil, padded, divisor = own
        counted = divisor or ("padded" if padded else "inside")
        return ops.avg_pool(
            x, size, strides, pairs(pad), ones, form, ceil=ceil, counted=counted
        ), None
    if kind == "lp":
        p, size, strides = own
        return ops.lp_pool(x, size, strides, "VALID", ones, form, p), None
    if kind == "adaptive_avg":
        return ops.adaptive_avg_pool(x, *own, form), None
    if kind == "adaptive_max":
        return ops.adaptive_max_pool(x, *own, form)
    size, strides, pad = own
    windows = size, strides, pairs(pad), ones, form
    index = ops.max_positions(x, *windows, within="plane")
    return ops.max_unpool(ops.max_pool(x, *windows), index, shape, "plane", form), None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", sorted(CASES))
def test_pools_gradients_and_positions_are_those_of_torch(name, dtype):
    array = image(name).astype(dtype)
    x = tf.placeholder(dtype, array.shape)
    y, index = pooled(name, x)
    dx = tf.gradients(y, x, tf.constant(slope(y.shape.as_list()).astype(dtype)))[0]
    found = run({"y": y, "dx": dx} | ({} if index is None else {"index": index}), {x: array})
    for part, got in found.items():
        want = STORED[f"{name}.{part}"]
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("padding", ["VALID", ((1, 0), (0, 1))])
def test_unknown_extents(ceil, padding):
    """Also windows that reach into padding behind an axis of unknown extent."""
    x = tf.placeholder(tf.float32, [None, None, None, 3])
    own = (3, 2), (2, 2), padding, (1, 1), "NHWC"
    fetches = [
        ops.max_pool(x, *own, ceil=ceil),
        ops.max_positions(x, *own, ceil, within="batch"),
        ops.avg_pool(x, *own, ceil=ceil, counted="padded"),
    ]
    fetches += [tf.gradients(fetches[n], x)[0] for n in (0, 2)]
    for shape in ((2, 7, 6, 3), (1, 4, 9, 3), (3, 5, 7, 3), (2, 6, 5, 3)):
        array = np.random.default_rng(0).permutation(np.prod(shape)).reshape(shape)
        array = array.astype(np.float32)
        got = run(fetches, {x: array})
        fixed = tf.placeholder(tf.float32, shape)
        pools = [
            ops.max_pool(fixed, *own, ceil=ceil),
            ops.max_positions(fixed, *own, ceil, within="batch"),
            ops.avg_pool(fixed, *own, ceil=ceil, counted="padded"),
        ]
        pools += [tf.gradients(pools[n], fixed)[0] for n in (0, 2)]
        for a, b in zip(got, run(pools, {fixed: array}), strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(array.ravel()[got[1]], got[0])


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("form", ["NHWC", "NCHW", "NWC", "NCDHW"])
def test_unpool_is_the_inverse_of_pooling(form, batch):
    shape = {"NHWC": (2, 6, 8, 3), "NCHW": (2, 3, 6, 8), "NWC": (2, 6, 3),
             "NCDHW": (2, 3, 4, 6, 2)}[form]  # fmt: skip
    array = np.random.default_rng(1).permutation(np.prod(shape)).reshape(shape) + 1.0
    x = tf.placeholder(tf.float64, (None, *shape[1:]))
    y, index = tf.nn.max_pool_with_argmax(x, 2, 2, "VALID", form, include_batch_in_index=batch)
    back = tf.nn.max_unpool(y, index, tf.shape(x), form, batch)
    back.set_shape(x.shape)
    (dx,) = tf.gradients(tf.reduce_sum(back * array), x)
    back, dx, y = run([back, dx, y], {x: array})
    kept = np.isin(array, y)
    np.testing.assert_array_equal(back, np.where(kept, array, 0))
    np.testing.assert_array_equal(dx, np.where(kept, array, 0))


def test_unpool_rejects_positions_outside():
    y = tf.nn.max_unpool(np.ones((1, 1, 1, 1), np.float32), [[[[9]]]], (1, 2, 2, 1))
    with pytest.raises(InvalidArgumentError, match="9"):
        run(y)
    with pytest.raises(ShapeError, match="known extents behind the first"):
        tf.nn.max_unpool(np.ones((1, 1, 1, 1), np.float32), [[[[0]]]], (1, 4, 1))


def test_adaptive_positions_put_back():
    x = np.random.default_rng(2).permutation(2 * 7 * 5 * 3).reshape(2, 7, 5, 3).astype(np.float32)
    y, index = tf.nn.adaptive_max_pool(x, (2, 2))
    y, back = run([y, tf.nn.max_unpool(y, index, x.shape)])
    np.testing.assert_array_equal(back, np.where(np.isin(x, y), x, 0))
    halves = [x[:, a:b, c:d].max((1, 2)) for a, b in ((0, 4), (3, 7)) for c, d in ((0, 3), (2, 5))]
    np.testing.assert_array_equal(y.reshape(2, 4, 3), np.stack(halves, 1))


def test_public_pool_takes_ceil_mode_and_counts_padding():
    x = np.arange(1, 6, dtype=np.float32).reshape(1, 5, 1)
    own = [2], "AVG", [[1, 1]]
    plain = tf.nn.pool(x, *own, strides=[3])
    rounded = tf.nn.pool(x, *own, strides=[3], ceil_mode=True, count_include_pad=True)
    largest = tf.nn.pool(x, [2], "MAX", "VALID", strides=[2], ceil_mode=True)
    a, b, c = run([plain, rounded, largest])
    assert a.ravel().tolist() == [1, 3.5]
    assert b.ravel().tolist() == [0.5, 3.5]  # a third window would begin in the padding
    assert c.ravel().tolist() == [2, 4, 5]


def test_norm_of_infinite_order_is_the_largest_magnitude():
    x = np.random.default_rng(3).normal(size=(2, 5, 6, 3)).astype(np.float32)
    y = run(tf.nn.lp_pool(x, [2, 3], np.inf, "SAME", [2, 2]))
    np.testing.assert_array_equal(y, run(tf.nn.max_pool(abs(x), [2, 3], [2, 2], "SAME")))


def test_norm_of_zeros_has_a_gradient():
    x = tf.zeros([1, 4, 4, 2]) * tf.placeholder_with_default(1.0, [])
    for p in (1.0, 1.5, 2.0, 3.0):
        y = tf.nn.lp_pool(x, [2, 2], p, strides=[2, 2])
        np.testing.assert_array_equal(run(tf.gradients(y, x)[0]), np.zeros((1, 4, 4, 2)))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("rate", [1, 2])
def test_patches_times_filters_is_a_convolution(padding, rate):
    """im2col: the windows as rows of a matrix; forwards and both gradients."""
    rng = np.random.default_rng(4)
    x = tf.constant(rng.normal(size=(2, 9, 8, 3)))
    w = tf.constant(rng.normal(size=(3, 2, 3, 5)))
    strides, rates = [1, 2, 1, 1], [1, rate, rate, 1]
    rows = tf.image.extract_image_patches(x, [1, 3, 2, 1], strides, rates, padding)
    product = tf.tensordot(rows, tf.reshape(w, [18, 5]), 1)
    y = tf.nn.conv2d(x, w, strides, padding, dilations=rates)
    weights = tf.constant(rng.normal(size=y.shape.as_list()))
    slopes = [tf.gradients(tf.reduce_sum(z * weights), [x, w]) for z in (product, y)]
    (a, *da), (b, *db) = run([[product, *slopes[0]], [y, *slopes[1]]])
    for one, other in zip([a, *da], [b, *db], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_erosion_is_the_dual_of_dilation():
    rng = np.random.default_rng(5)
    x, k = rng.normal(size=(1, 6, 5, 2)), rng.normal(size=(2, 3, 2))
    own = [1, 1, 1, 1], [1, 1, 1, 1], "VALID"
    y, other = run([tf.nn.erosion2d(x, k, *own), tf.nn.dilation2d(-x, k[::-1, ::-1], *own)])
    np.testing.assert_array_equal(y, -other)
    windows = np.lib.stride_tricks.sliding_window_view(x[0], (2, 3), (0, 1))
    want = (windows - k[::-1, ::-1].transpose(2, 0, 1)).min((-2, -1))
    np.testing.assert_allclose(y[0], want, rtol=1e-12)
