"""Tensor expressions: shapes, broadcasting, reductions and the errors of their authors."""

import numpy as np
import pytest

from tinyflow import te
from tinyflow.core.dtype import float32
from tinyflow.ir.scalar.interp import evaluate
from tinyflow.te.canonical import CHUNK, chunk_count, is_striped_dot


def value(tensor, arrays, *position):
    """One element of a map, by the scalar interpreter."""

    def read(source, indices):
        return arrays[source][tuple(int(i) for i in indices)]

    return evaluate(tensor.body, dict(zip(tensor.axes, position, strict=True)), None, read)


def test_map_broadcasts_extents_of_one():
    x, y = te.placeholder((3, 1, 4)), te.placeholder((5, 1))
    z = te.map(lambda a, b: a * b, x, y)
    assert z.shape == (3, 5, 4) and z.reduction is None
    arrays = {x: np.arange(12.0, dtype=np.float32).reshape(3, 1, 4), y: np.ones((5, 1), np.float32)}
    assert value(z, arrays, 2, 4, 1) == 9.0


def test_symbolic_extents_are_kept():
    n = te.var("n")
    x = te.placeholder((n, 4))
    assert te.map(te.tanh, x).shape == (n, 4)


def test_reductions_say_how_they_fold():
    x = te.placeholder((3, 4, 5))
    total = te.reduction("sum", x, (0, 2), keepdims=True)
    assert total.shape == (1, 4, 1)
    assert total.reduction.combiner == "sum"
    assert [extent for _, extent in total.reduction.axes] == [3, 5]


def test_a_product_is_a_dot():
    a, b = te.placeholder((3, 4)), te.placeholder((4, 5))
    k = te.reduce_axis(4)
    c = te.compute((3, 5), lambda i, j: te.dot(a[i, k], b[k, j], axis=k))
    assert c.reduction.combiner == "dot" and c.dtype is float32


def test_wrong_number_of_indices():
    with pytest.raises(IndexError, match="has 2 dimensions, got 1"):
        te.placeholder((3, 4))[0]


def test_reduce_axis_starts_at_zero():
    assert te.reduce_axis((0, 7)).extent == 7
    with pytest.raises(ValueError, match="must start at 0"):
        te.reduce_axis((1, 7))


def test_canonical_order_depends_on_extents_alone():
    assert [chunk_count(n) for n in (0, 1, CHUNK, CHUNK + 1)] == [1, 1, 1, 2]
    assert is_striped_dot(10, 784) and not is_striped_dot(10, 100) and not is_striped_dot(17, 784)
