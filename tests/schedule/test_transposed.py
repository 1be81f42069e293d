"""Arrays read across: squares turned in registers, whatever surrounds the transposition."""

import itertools

import numpy as np
import pytest

from tests.schedule.test_auto import compiled, normal
from tinyflow import ops


def is_turned(function):
    return any(step.startswith("transpose(") for k in function.plan.kernels for step in k.steps)


def reference_bits(build, *arrays):
    """The op-by-op result of the same graph; the kernels of one op at a time are other loops."""
    return compiled(build, *arrays, fuse=False)(*arrays)


SIZES = (16, 17, 33, 64, 65, 100, 131)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8", "int64", "bool"])
def test_every_edge_of_a_matrix(dtype):
    for rows, columns in itertools.product(SIZES, SIZES):
        x = (normal(rows, columns) * 50).astype(dtype)
        function = compiled(ops.transpose, x)
        assert is_turned(function), (rows, columns)
        np.testing.assert_array_equal(function(x)[0], x.T)


@pytest.mark.parametrize(
    ("perm", "shape"),
    [((0, 2, 3, 1), (3, 37, 9, 11)), ((0, 3, 1, 2), (3, 9, 11, 37)), ((3, 1, 2, 0), (20, 3, 5, 18)),
     ((2, 1, 0), (33, 7, 65)), ((1, 0, 2), (5, 20, 30)), ((2, 0, 1), (40, 50, 24))],
)  # fmt: skip
def test_every_order_of_axes(perm, shape):
    x = normal(*shape)
    np.testing.assert_array_equal(
        compiled(lambda v: ops.transpose(v, perm), x)(x)[0], x.transpose(perm)
    )


def test_large_arrays_over_threads():
    x = normal(300, 513)
    for threads in (1, 2):
        function = compiled(ops.transpose, x, threads=threads)
        assert is_turned(function)
        np.testing.assert_array_equal(function(x)[0], x.T)


GRAPHS = {
    "epilogue": lambda x, y: ops.tanh(ops.add(ops.transpose(x), y)),
    "prologue": lambda x, y: ops.transpose(ops.multiply(ops.exp(x), x)),
    "two operands": lambda x, y: ops.subtract(ops.transpose(x), ops.transpose(ops.transpose(y))),
    "several results": lambda x, y: (
        ops.exp(ops.transpose(x)), ops.multiply(ops.exp(ops.transpose(x)), y)
    ),
    "shared with the value itself": lambda x, y: ops.add(
        ops.transpose(x), ops.slice_(ops.pad(x, ((0, 90), (0, 90))), (0, 0), y.type.shape)
    ),
    "padding": lambda x, y: ops.add(
        ops.pad(ops.transpose(ops.slice_(x, (1, 2), (60, 50))), ((2, 1), (1, 0))), 1.0
    ),
    "other element sizes": lambda x, y: ops.add(
        ops.cast(ops.transpose(x), "float64"), ops.cast(y, "float64")
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("shape", [(64, 96), (70, 83), (67, 129)])
def test_fusion_keeps_the_bits(name, shape):
    x, y = normal(*shape), normal(*shape[::-1])
    build = GRAPHS[name]
    results = compiled(build, x, y)(x, y)
    for got, expected in zip(results, reference_bits(build, x, y), strict=True):
        assert got.tobytes() == expected.tobytes()


def test_an_operand_may_be_overwritten():
    """y + x^T over the memory of exp(z): every element is evaluated exactly once."""
    x, z = normal(70, 83), normal(83, 70)

    def build(x, z):
        y = ops.exp(z)
        return ops.add(ops.add(y, ops.transpose(x)), ops.reduce_sum(y))

    (got,) = compiled(build, x, z)(x, z)
    assert got.tobytes() == reference_bits(build, x, z)[0].tobytes()


def test_short_axes_stay_with_gathers():
    x = normal(200, 3)
    function = compiled(ops.transpose, x)
    assert not is_turned(function)
    np.testing.assert_array_equal(function(x)[0], x.T)
