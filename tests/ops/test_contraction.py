"""Matmul in its user functions: ranks, flags, tensordot and dot against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from tinyflow import ops
from tinyflow.core.error import ShapeError
from tinyflow.core.shape import Dim
from tinyflow.ir.graph import interp
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Function, Input, TensorType
from tinyflow.ops.contraction import BatchMatMul, MatMul


@pytest.fixture(autouse=True)
def own_builder():
    with building(Builder()):
        yield


def evaluated(function, *arrays):
    builder = Builder()
    with building(builder):
        inputs = [builder.emit(Input(TensorType(a.dtype, a.shape)), (), None) for a in arrays]
        result = function(*inputs)
    return interp.run(Function("f", inputs, [result]), arrays)[0]


def floats(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape)


def test_rank_chooses_the_op():
    a2, a3 = np.zeros((2, 3)), np.zeros((5, 2, 3))
    assert isinstance(ops.matmul(a2, a2, transpose_b=True).node.op, MatMul)
    product = ops.matmul(a3, a2, transpose_b=True)
    assert isinstance(product.node.op, BatchMatMul) and product.type.shape == (5, 2, 2)
    assert product.node.name == "MatMul"


@pytest.mark.parametrize(
    ("a", "b", "axes"),
    [
        ((2, 3, 4), (4, 5), 1), ((2, 3, 4), (3, 4, 5), 2), ((3, 4), (4, 3), ([0, 1], [1, 0])),
        ((2, 3), (5,), 0), ((4, 2, 3), (3, 6, 2), ([1, -1], [2, 0])), ((3,), (3,), 1),
    ],
)  # fmt: skip
def test_tensordot_is_numpys(a, b, axes):
    x, y = floats(*a), floats(*b)
    found = evaluated(lambda p, q: ops.tensordot(p, q, axes), x, y)
    np.testing.assert_allclose(found, np.tensordot(x, y, axes), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("a", "b"),
    [((3,), (3,)), ((2, 3), (3,)), ((2, 3), (3, 4)), ((), (2, 3)), ((2, 3, 4), (5, 4, 6))],
)
def test_dot_is_numpys(a, b):
    x, y = floats(*a), floats(*b)
    np.testing.assert_allclose(evaluated(ops.dot, x, y), np.dot(x, y), rtol=1e-12, atol=1e-12)


def test_tensordot_keeps_symbols():
    from tinyflow.ops.placeholder import placeholder

    x = placeholder("float32", (Dim.symbol("N"), 3, 4))
    assert ops.tensordot(x, np.zeros((4, 5), np.float32), 1).type.shape == (Dim.symbol("N"), 3, 5)


def test_tensordot_errors():
    with pytest.raises(ShapeError, match="axis 1 of a and axis 0 of b differ"):
        ops.tensordot(np.zeros((2, 3)), np.zeros((4, 2)), 1)
    with pytest.raises(ShapeError, match="different numbers of axes"):
        ops.tensordot(np.zeros((2, 3)), np.zeros((4, 2)), ([0, 1], [0]))
