"""L14 and L15: the listings of tensor expressions, scheduled, compiled and run."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import tinyflow.te as te

LECTURES = Path(__file__).resolve().parents[2] / "examples" / "lectures"


def listing(name: str) -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(LECTURES / name)))


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def test_l14_shape_and_rule():
    code = listing("l14_matrix_product_in_te.py")
    assert code.C.shape == (code.m, code.n)
    assert [axis.extent for axis in code.C.op.axis] == [code.m, code.n]
    assert [axis.name for axis in code.C.op.reduce_axis] == ["k"]
    assert code.C.op.input_tensors == (code.A, code.B)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 5, 7), (64, 33, 100)])
def test_l14_is_a_product_with_b_transposed(sizes):
    code = listing("l14_matrix_product_in_te.py")
    function = te.build(te.create_schedule(code.C.op), [code.A, code.B, code.C])
    m, n, h = sizes
    a, b, c = normal(m, h), normal(n, h), np.empty((m, n), np.float32)
    function(a, b, c)
    np.testing.assert_allclose(c, a @ b.T, rtol=2e-5, atol=2e-5)


def by_the_formula(data: np.ndarray, w: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Loops of exactly the slide's formula, axes in the order [kx, ky, kc]."""
    out = np.zeros(shape, np.float32)
    for i, x, y in np.ndindex(*shape):
        total = np.float32(0)
        for kx in range(3):
            for ky in range(3):
                for kc in range(len(data)):
                    total += data[kc, x + kx, y + ky] * w[i, kx, ky]
        out[i, x, y] = total
    return out


@pytest.mark.parametrize("scheduled", [False, True])
def test_l15_is_its_formula(scheduled):
    code = listing("l15_convolution_in_te.py")
    s = te.create_schedule(code.out.op)
    if scheduled:
        i, x, y = code.out.op.axis
        yo, yi = s[code.out].split(y, 8)
        s[code.out].reorder(i, x, yo, code.kx, code.ky, code.kc, yi)
        s[code.out].vectorize(yi)
        s[code.out].unroll(code.ky)
        s[code.out].parallel(i)
    function = te.build(s, [code.data, code.w, code.out])
    data, w = normal(4, 9, 13), normal(5, 3, 3)
    out = np.empty((5, 7, 11), np.float32)
    function(data, w, out)
    np.testing.assert_array_equal(out, by_the_formula(data, w, out.shape))


@pytest.mark.parametrize("name", ["l14_matrix_product_in_te.py", "l15_convolution_in_te.py"])
def test_as_programs_they_print_the_loops(name, capsys):
    runpy.run_path(str(LECTURES / name), run_name="__main__")
    printed = capsys.readouterr().out
    assert "= 0.0" in printed and printed.count("for ") >= 3


def test_digits_are_recognised_on_a_simulated_matrix_unit():
    """Weights trained as a graph; the product for new images runs on a declared 8x8x8 unit."""
    import tinyflow as tf
    from tinyflow import datasets

    digits = datasets.get_digits(flatten=True, onehot=True)
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.float32, [None, 64])
        labels = tf.placeholder(tf.float32, [None, 10])
        weights = tf.Variable(tf.zeros([64, 10]))
        y = tf.nn.softmax(tf.matmul(x, weights))
        loss = tf.reduce_mean(-tf.reduce_sum(labels * tf.log(y), reduction_indices=[1]))
        step = tf.train.GradientDescentOptimizer(0.5).minimize(loss)
        session.run(tf.global_variables_initializer())
        for _ in range(200):
            images, classes = digits.train.next_batch(100)
            session.run(step, {x: images, labels: classes})
        trained = session.run(weights)
    count = len(digits.test.images) // 8 * 8  # the unit takes whole tiles
    images = np.ascontiguousarray(digits.test.images[:count], np.float32)
    scores = np.empty((count, 16), np.float32)
    on_the_unit(count)(images, np.pad(trained, ((0, 0), (0, 6))), scores)
    np.testing.assert_allclose(scores[:, :10], images @ trained, rtol=1e-4, atol=1e-4)
    assert not scores[:, 10:].any()
    found = scores[:, :10].argmax(1) == digits.test.labels[:count].argmax(1)
    assert found.mean() > 0.9


def on_the_unit(rows: int) -> object:
    """images[rows, 64] @ weights[64, 16] on an 8x8x8 unit: fill, multiply-accumulate."""
    from tinyflow.ir.loop.nodes import For

    k = te.reduce_axis(8, name="k")
    a, b = te.placeholder((8, 8), name="a"), te.placeholder((8, 8), name="b")
    tile = te.compute((8, 8), lambda i, j: te.dot(a[i, k], b[k, j], axis=k), name="tile")

    def unit(inputs, outputs):
        left, right = inputs
        (out,) = outputs
        u, v, w = (te.var(f"unit.{name}") for name in "uvw")
        step = out.store((u, v), te.fma(left[u, w], right[w, v], out[u, v]))
        zero = out.store((u, v), te.const(0, out.buffer.dtype))
        fill = (For(u, 8, "serial", (For(v, 8, "vectorize", (zero,)),)),)
        lanes = For(u, 8, "unroll", (For(v, 8, "vectorize", (step,)),))
        multiply = (For(w, 8, "serial", (lanes,)),)
        return fill + multiply, fill, multiply

    images, weights = te.placeholder((rows, 64), name="x"), te.placeholder((64, 16), name="w")
    n = te.reduce_axis(64, name="n")
    scores = te.compute(
        (rows, 16), lambda i, j: te.dot(images[i, n], weights[n, j], axis=n), name="scores"
    )
    s = te.create_schedule(scores)
    io, jo, ii, ji = s[scores].tile(*scores.op.axis, 8, 8)
    no, ni = s[scores].split(n, 8)
    s[scores].reorder(io, jo, no, ii, ji, ni)
    s[scores].tensorize(ii, te.decl_tensor_intrin(tile.op, unit, "unit"))
    s[scores].parallel(io)
    return te.build(s, [images, weights, scores])
