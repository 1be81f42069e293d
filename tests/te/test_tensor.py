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


@pytest.mark.parametrize("make", [te.var, lambda name: te.reduce_axis(4, name=name)])
def test_names_of_axes_are_taken(make):
    make("i"), make("index0")
    with pytest.raises(ValueError, match="the name i0 is taken"):
        make("i0")


def test_two_reduce_axes_need_two_names():
    x = te.placeholder((3, 4))
    p, q = te.reduce_axis(3), te.reduce_axis(4)
    with pytest.raises(ValueError, match="two reduce axes have the name k"):
        te.sum(x[p, q], axis=[p, q])


def test_axes_know_their_names():
    x = te.placeholder((3, 4), name="x")
    k = te.reduce_axis(4, name="k")
    y = te.compute((3,), lambda row: te.max(x[row, k], axis=k), name="y")
    assert [(axis.name, axis.extent) for axis in y.op.axis] == [("row", 3)]
    assert [(axis.name, axis.extent) for axis in y.op.reduce_axis] == [("k", 4)]
    assert y.op.input_tensors == (x,) and y.op.output(0) is y
    assert x.op.input_tensors == ()


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'create_schedules'"):
        _ = te.create_schedules


def test_canonical_order_depends_on_extents_alone():
    assert [chunk_count(n) for n in (0, 1, CHUNK, CHUNK + 1)] == [1, 1, 1, 2]
    assert is_striped_dot(10, 784) and not is_striped_dot(10, 100) and not is_striped_dot(17, 784)
