"""Einstein sums against NumPy: every form, unknown sizes, gradients, the order and the flags."""

from __future__ import annotations

import numpy as np
import pytest

import tinyflow as tf
from tinyflow.ops.contraction import BatchMatMul, MatMul
from tinyflow.ops.einsum import contraction_path

EXTENTS = dict(zip("abcdefhijklmnqstu", [2, 3, 4, 5, 6, 4, 2, 3, 4, 5, 2, 3, 2, 5, 2, 3, 7]))

EQUATIONS = [
    "ij,jk->ik", "ij,jk", "ij,kj->ik", "ji,jk->ik", "ji,kj->ki", "ij,kj->ki", "bij,bjk->bik",
    "bij,bkj->bik", "bji,bkj->bik", "bji,bjk->bki", "ij->ji", "ij->ij", "ii->i", "ii", "ij->",
    "ij->j", "ij->i", "i,j->ij", "i,j->ji", "i,i->", "i,i", "ij,ij->", "ij,ij->j", "bi,bi->b",
    "bij,bj->bi", "bj,bij->bi", "bhqd,bhkd->bhqk", "bqhd,bkhd->bhqk", "bhqk,bkhd->bqhd",
    "abc,cd->abd", "abcd,dcbe->ae", "abcd,cdeb->ae", "ijk,jk->i", "ij,jk,kl->il",
    "ij,jk,kl,lm->im", "i,ij,j->", "i,ij,j", "iij->ij", "iji->j", "iij,jk->ik", "ij,jjk->ik",
    "bhc,hcd->bhd", "abc,abd->cd", "abc,abd->dc", "ab,cd->abcd", "ab,cd->cadb", "ab,ab->ab",
    "ab,b->a", "a,ab,abc->c", "abc->cba", "ijk,ijl->kl", "btd,dn->btn", "btn,bsn->bts",
    "ia,ja,ka->ijk", "ijklm,ml->ijk", "iiii->i", "bd,d->b", "b,->b", ",->", "ecd,edf->ecf",
    "ab,bc,cd,de,ea->", "ab,bc,cd,de,ef,fh->ah", "abc,abc,abc->b",
]  # fmt: skip


def operands(equation, rng):
    terms = equation.split("->")[0].split(",")
    return [rng.normal(size=[EXTENTS[c] for c in term]) for term in terms]


@pytest.mark.parametrize("equation", EQUATIONS)
def test_equation(equation):
    arrays = operands(equation, np.random.default_rng(0))
    inputs = [tf.placeholder(tf.float64, a.shape) for a in arrays]
    y = tf.einsum(equation, *inputs)
    wanted = np.einsum(equation, *arrays)
    assert y.shape.as_list() == list(wanted.shape)
    with tf.Session() as sess:
        found = sess.run(y, dict(zip(inputs, arrays, strict=True)))
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


ELLIPSES = [
    ("...ij,...jk->...ik", (2, 3, 4, 5), (3, 5, 2)),
    ("...ij,...jk", (2, 1, 4, 5), (3, 5, 2)),
    ("...i->...", (2, 3, 4)),
    ("i...->...", (2, 3, 4)),
    ("ij,j...->i...", (2, 3), (3, 4, 5)),
    ("...,...->...", (2, 3), (1, 3)),
    ("...a,a->...", (4, 3), (3,)),
    ("...", (2, 3)),
]


@pytest.mark.parametrize("case", ELLIPSES, ids=[c[0] for c in ELLIPSES])
def test_ellipsis_broadcasts(case):
    equation, *shapes = case
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=s) for s in shapes]
    with tf.Session() as sess:
        found = sess.run(tf.einsum(equation, *arrays))
    np.testing.assert_allclose(found, np.einsum(equation, *arrays), rtol=1e-12, atol=1e-12)


def test_unknown_sizes():
    a = tf.placeholder(tf.float64, [None, None, 3])
    b = tf.placeholder(tf.float64, [None, 3, 2])
    y = tf.einsum("bij,bjk->ibk", a, b)
    z = tf.einsum("bij,cjk->ikbc", a, b)
    rng = np.random.default_rng(2)
    with tf.Session() as sess:
        for size in (2, 5):
            x, w = rng.normal(size=(size, 4, 3)), rng.normal(size=(size, 3, 2))
            found, outer = sess.run([y, z], {a: x, b: w})
            np.testing.assert_allclose(found, np.einsum("bij,bjk->ibk", x, w), rtol=1e-12)
            np.testing.assert_allclose(outer, np.einsum("bij,cjk->ikbc", x, w), rtol=1e-12)


@pytest.mark.parametrize("equation", ["bij,bjk->bki", "ii,ij->j", "i,ij,j->", "ab,ab->b"])
def test_gradient(equation):
    rng = np.random.default_rng(3)
    arrays = operands(equation, rng)
    inputs = [tf.placeholder(tf.float64, a.shape) for a in arrays]
    loss = tf.reduce_sum(tf.sin(tf.einsum(equation, *inputs)))
    slopes = tf.gradients(loss, inputs)
    ways = [rng.normal(size=a.shape) for a in arrays]

    def value(step):
        moved = [a + step * w for a, w in zip(arrays, ways, strict=True)]
        return np.sin(np.einsum(equation, *moved)).sum()

    with tf.Session() as sess:
        found = sess.run(slopes, dict(zip(inputs, arrays, strict=True)))
    analytic = sum((g * w).sum() for g, w in zip(found, ways, strict=True))
    numeric = (value(1e-6) - value(-1e-6)) / 2e-6
    assert analytic == pytest.approx(numeric, rel=1e-7, abs=1e-7)


def ops_of(y):
    """Op classes of the graph behind ``y``."""
    return [operation.op for operation in y.graph.get_operations()]


def test_flags_take_the_place_of_transposes():
    q = tf.placeholder(tf.float32, [2, 4, 8, 16])
    k = tf.placeholder(tf.float32, [2, 4, 9, 16])
    tf.einsum("bhqd,bhkd->bhqk", q, k)
    ops = ops_of(q)
    assert BatchMatMul(False, True) in ops
    assert not any(op.type_name == "Transpose" for op in ops)


def test_matrices_are_multiplied_without_batches():
    x, w = tf.placeholder(tf.float32, [8, 16, 32]), tf.placeholder(tf.float32, [32, 10])
    tf.einsum("btd,dn->btn", x, w)
    assert MatMul(False, False) in ops_of(x)


def test_the_cheapest_order_is_taken():
    extents = {"i": 1000, "j": 10, "k": 1000, "l": 1}
    assert contraction_path(["ij", "jk", "kl"], "il", extents) == [(1, 2), (0, 1)]
    extents["i"], extents["l"] = 1, 1000
    assert contraction_path(["ij", "jk", "kl"], "il", extents) == [(0, 1), (0, 1)]


@pytest.mark.parametrize(
    ("equation", "shapes", "error", "text"),
    [
        ("ij,jk->ik", [(2, 3)], ValueError, "is for 2 operands, got 1"),
        ("ij,jk->ik", [(2, 3), (4, 5)], ValueError, "label 'j' has the extents 3 and 4"),
        ("ij->ik", [(2, 3)], ValueError, "one that no operand has"),
        ("ij->ii", [(2, 3)], ValueError, "repeats a label"),
        ("i1->i", [(2, 3)], ValueError, "bad equation"),
        ("ijk->i", [(2, 3)], ValueError, "does not fit an operand of rank 2"),
        ("ii->i", [(2, 3)], ValueError, "label 'i' has the extents 2 and 3"),
    ],
)
def test_errors(equation, shapes, error, text):
    with pytest.raises(error, match=text):
        tf.einsum(equation, *[np.zeros(s) for s in shapes])
