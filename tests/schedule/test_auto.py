"""What the automatic scheduler makes of typical graphs: kernels, forms, native results."""

import numpy as np
import pytest

from tinyflow import ops
from tinyflow.compile import compile_function
from tinyflow.core import options
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Function, Input, Node, TensorType


def compiled(build, *arrays, **changes):
    with building(Builder()):
        types = [TensorType(a.dtype, a.shape) for a in arrays]
        inputs = [Node(Input(t), (), (t,)).outputs[0] for t in types]
        outputs = build(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    with options.override(verify=True, **changes):
        return compile_function(Function("f", inputs, outputs))


def normal(*shape, dtype=np.float32):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(dtype)


def layer_norm(x):
    mean = ops.reduce_mean(x, axis=-1, keepdims=True)
    centred = ops.subtract(x, mean)
    variance = ops.reduce_mean(ops.square(centred), axis=-1, keepdims=True)
    return ops.multiply(centred, ops.rsqrt(ops.add(variance, 1e-5)))


@pytest.mark.parametrize(
    ("build", "kinds"),
    [
        (lambda x: ops.tanh(ops.add(ops.multiply(x, x), 1.0)), ["map"]),
        (ops.softmax, ["row"]),
        (ops.log_softmax, ["row"]),
        (layer_norm, ["row"]),
        (lambda x: ops.reduce_sum(x, axis=0), ["reduce"]),
        (lambda x: ops.transpose(ops.exp(x)), ["map"]),
        (lambda x: ops.relu(ops.matmul(x, ops.ones((37, 9)))), ["dot"]),
        (lambda x: ops.relu(ops.matmul(x, ops.transpose(x))), ["dot"]),  # packs on its stack
        (lambda x: ops.softmax(ops.matmul(x, ops.ones((37, 9)))), ["dot", "row"]),
    ],
)  # fmt: skip
def test_number_and_kind_of_kernels(build, kinds):
    function = compiled(build, normal(20, 37))
    assert [k.group.kind for k in function.plan.kernels] == kinds


SHAPES = [
    (1, 1, 1), (1, 20, 1), (3, 5, 7), (13, 1, 2), (17, 33, 65), (100, 784, 10), (784, 100, 10),
    (300, 200, 1), (1, 300, 40), (5, 129, 16), (40, 600, 100), (30, 7, 500),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize("shape", SHAPES)
def test_contractions_of_every_form(shape, dtype):
    m, k, n = shape
    a, b = (normal(m, k) * 8).astype(dtype), (normal(k, n) * 8).astype(dtype)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    bound = k * np.finfo(np.float32 if dtype != "float64" else np.float64).eps
    for flip_a in (False, True):
        for flip_b in (False, True):
            left = np.ascontiguousarray(a.T) if flip_a else a
            right = np.ascontiguousarray(b.T) if flip_b else b
            function = compiled(
                lambda x, y, fa=flip_a, fb=flip_b: ops.matmul(x, y, transpose_a=fa, transpose_b=fb),
                left, right,
            )  # fmt: skip
            (got,) = function(left, right)
            scale = np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64)) + 1e-30
            assert np.max(np.abs(got - exact) / scale) <= bound


@pytest.mark.parametrize("transpose_a", [False, True])
def test_layout_and_form_do_not_change_bits(transpose_a):
    """One canonical order per extents: operands in place, turned or packed give the same bits."""
    a, b = normal(64, 300), normal(300, 12)
    (plain,) = compiled(ops.matmul, a, b)(a, b)
    left = np.ascontiguousarray(a.T) if transpose_a else a
    right = np.ascontiguousarray(b.T)
    function = compiled(
        lambda x, y: ops.matmul(x, y, transpose_a=transpose_a, transpose_b=True), left, right
    )
    (other,) = function(left, right)
    np.testing.assert_array_equal(plain, other)


def test_blocked_form_with_an_epilogue():
    a, b, c = normal(600, 1100), normal(600, 150), normal(1100, 150)

    def build(x, y, z):
        return ops.subtract(z, ops.multiply(ops.matmul(x, y, transpose_a=True), 0.5))

    function = compiled(build, a, b, c)
    assert len(function.plan.kernels) == 2
    (got,) = function(a, b, c)
    np.testing.assert_allclose(got, c - 0.5 * (a.T @ b), rtol=1e-4, atol=1e-3)
    (alone,) = compiled(build, a, b, c, fuse=False)(a, b, c)
    np.testing.assert_array_equal(got, alone)


@pytest.mark.parametrize("shape", [(20000, 3), (3, 20000), (70000,), (9000, 17)])
@pytest.mark.parametrize("axis", [0, -1, None])
def test_long_reductions_go_in_chunks(shape, axis):
    x = normal(*shape)
    if axis is not None and axis >= len(shape):
        pytest.skip("no such axis")
    (got,) = compiled(lambda v: ops.reduce_sum(v, axis=axis), x)(x)
    np.testing.assert_allclose(got, x.sum(axis=axis, dtype=np.float64), rtol=1e-4, atol=1e-2)


def test_threads_and_lanes_do_not_change_bits():
    x = normal(300, 500)

    def build(v):
        return ops.softmax(ops.matmul(v, ops.transpose(v))), ops.reduce_sum(v, axis=0)

    expected = compiled(build, x)(x)
    for changes in ({"lanes": 8}, {"lanes": 4}, {"threads": 1}, {"threads": 2}, {"fuse": False}):
        for want, got in zip(expected, compiled(build, x, **changes)(x), strict=True):
            assert want.tobytes() == got.tobytes(), changes


@pytest.mark.parametrize("shape", [(64, 128), (8192,), (7, 1171)])
def test_threads_share_few_elements_that_take_long(shape):
    """Arithmetic counts, and the number of arrays; a sum of two is done before a thread wakes."""
    x, *others = normal(9, *shape)

    def gates(v, *more):
        return ops.tanh(ops.sigmoid(v) * ops.tanh(more[0])) * ops.sigmoid(more[1])

    def many(v, *more):
        return tuple(v * a + b for a, b in zip(more[:4], more[4:], strict=True))

    for build, shared in ((gates, True), (many, True), (lambda v, *more: v + more[0], False)):
        function = compiled(build, x, *others)
        (kernel,) = function.plan.kernels
        assert (kernel.chunk > 0 and kernel.tasks > kernel.chunk) == shared
        expected = function(x, *others)
        for changes in ({"threads": 1}, {"lanes": 4}, {"fuse": False}):
            found = compiled(build, x, *others, **changes)(x, *others)
            for want, got in zip(expected, found, strict=True):
                assert want.tobytes() == got.tobytes(), changes
