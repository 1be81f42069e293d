"""Forms of contractions: which schedule is chosen, and that none of them changes a bit."""

import numpy as np
import pytest

from tinyflow import ops
from tinyflow.compile import compile_function
from tinyflow.core import options
from tinyflow.ir.graph.builder import Builder, building, emit
from tinyflow.ir.graph.nodes import Function, Input, Node, TensorType
from tinyflow.ops.contraction import PanelMatMul
from tinyflow.ops.conv_products import ConvProduct, FilterProduct


def compiled(build, *arrays, **changes):
    with building(Builder()):
        types = [TensorType(a.dtype, a.shape) for a in arrays]
        inputs = [Node(Input(t), (), (t,)).outputs[0] for t in types]
        outputs = build(*inputs)
    with options.override(verify=True, **changes):
        return compile_function(Function("f", inputs, [outputs]))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def chain(a, b):
    """acc = fma(a, b, acc), k ascending, one rounding to float32 per term (to within a double
    rounding, which needs a tie in the 29 bits that float64 has more)."""
    acc = np.zeros((*a.shape[:-1], b.shape[-1]), np.float32)
    for k in range(a.shape[-1]):
        product = a[..., k, None].astype(np.float64) * b[k].astype(np.float64)
        acc = (product + acc).astype(np.float32)
    return acc


FORMS = [
    # m, k, n, transpose_a, transpose_b, a step that only this form has
    ((20, 40, 100), False, False, "reorder(k, i.i, j.i)"),  # in place
    ((200, 1100, 300), False, False, "tile(i, j, 6, 64)"),
    ((700, 60, 300), False, False, "parallel(jt, band)"),  # few panels: bands of rows
    ((70, 200, 300), True, True, "cache_read(b, panel)"),
    ((30, 70, 300), False, False, "reorder(k, i.i, j.i)"),  # rows apart, but few passes
    ((30, 70, 4200), False, False, "cache_read(b, panel)"),  # few rows: panels on the stack
    ((30, 70, 300), False, True, "cache_read(b, panel)"),  # squares turned in registers
    ((3, 37, 50), False, True, "cache_read(b, panel)"),
    ((20, 1, 300), False, True, "reorder(k, i.i, j.i)"),  # an outer product
    ((20, 2, 300), False, True, "cache_read(b, panel)"),
    ((30, 1200, 300), False, False, "split(k, 3 blocks)"),
    ((2, 300, 4100), False, False, "split(k, 38 blocks)"),  # b streams from memory
    ((70, 200, 300), True, False, "cache_read(a, tile)"),
    ((70, 700, 300), True, False, "split(k, 2 blocks)"),
    ((70, 100, 1100), True, False, "cache_read(a, tile)"),
    ((200, 400, 1100), True, False, "cache_read(b, panel)"),  # many tiles along the rows
    ((1100, 520, 100), True, False, "cache_read(a, band)"),  # blocked: terms pages apart
]


@pytest.mark.parametrize(("shape", "flip_a", "flip_b", "step"), FORMS)
def test_forms_follow_the_one_chain(shape, flip_a, flip_b, step):
    m, k, n = shape
    a, b = normal(m, k), normal(k, n, seed=1)
    left = np.ascontiguousarray(a.T) if flip_a else a
    right = np.ascontiguousarray(b.T) if flip_b else b

    def build(x, y):
        return ops.matmul(x, y, transpose_a=flip_a, transpose_b=flip_b)

    function = compiled(build, left, right, lanes=16)
    assert any(step in kernel.steps for kernel in function.plan.kernels)
    (got,) = function(left, right)
    expected = chain(a, b)
    assert np.mean(got == expected) > 0.999
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    for changes in ({"lanes": 8}, {"lanes": 4}, {"threads": 1}):
        (other,) = compiled(build, left, right, **changes)(left, right)
        assert got.tobytes() == other.tobytes(), changes


@pytest.mark.parametrize("n", [64, 100])
def test_rows_that_are_alike_fill_a_tile(n):
    """A state of zeros is no array: its product has a row axis that neither factor has."""
    function = compiled(lambda w: ops.matmul(ops.zeros((22, 40), "float32"), w) + 1.0,
                        w := normal(40, n), lanes=16)  # fmt: skip
    (kernel,) = function.plan.kernels
    assert "tile(i, j, 11, 32)" in kernel.steps
    w[3, 5] = np.inf
    (got,) = function(w)
    assert np.isnan(got[:, 5]).all()
    assert (np.delete(got, 5, 1) == 1).all()


@pytest.mark.parametrize("step", ["parallel(i1p, jt)", "parallel(it, i1p)"])
@pytest.mark.parametrize("lanes", [4, 16])
def test_panels_are_read_in_their_order(step, lanes):
    """Columns in panels are two axes: the panels stand around the tiles."""
    shape = (37, 300, 32) if "it" not in step else (7, 60, 32)
    a, b = normal(90, shape[1]), normal(*shape, seed=1)
    function = compiled(lambda x, y: emit(PanelMatMul(), x, y), a, b, lanes=lanes)
    (kernel,) = function.plan.kernels
    assert step in kernel.steps
    (got,) = function(a, b)
    matrix = np.ascontiguousarray(b.swapaxes(0, 1)).reshape(shape[1], -1)
    (plain,) = compiled(ops.matmul, a, matrix)(a, matrix)
    assert got.tobytes() == plain.tobytes()


def test_a_batched_transposed_factor_is_turned_per_panel():
    q, k = normal(3, 33, 24), normal(3, 45, 24, seed=1)
    function = compiled(lambda x, y: ops.matmul(x, y, transpose_b=True), q, k)
    (kernel,) = function.plan.kernels
    assert "cache_read(b, panel)" in kernel.steps
    (got,) = function(q, k)
    np.testing.assert_allclose(got, q @ k.transpose(0, 2, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("image", "taps", "strides"),
    [
        ((2, 9, 11, 3, 5), (3, 3), (1, 1)),
        ((1, 12, 30, 1, 33), (5, 5), (1, 2)),
        ((2, 8, 8, 40, 20), (1, 1), (1, 1)),  # a plain product
        ((3, 7, 6, 17, 33), (3, 2), (2, 1)),  # two axes of the image in one tile
        ((2, 5, 40, 64, 300), (3, 3), (1, 1)),  # panels of the filter
    ],
)
def test_convolutions_read_the_image_in_place(image, taps, strides):
    n, h, w, c, o = image
    x, filters = normal(n, h, w, c), normal(*taps, c, o, seed=1)
    function = compiled(lambda a, b: emit(ConvProduct(strides), a, b), x, filters)
    assert {k.group.kind for k in function.plan.kernels} == {"dot"}
    (got,) = function(x, filters)
    expected = ConvProduct(strides).reference(x.astype(np.float64), filters.astype(np.float64))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    (narrow,) = compiled(
        lambda a, b: emit(ConvProduct(strides), a, b), x, filters, lanes=4, threads=1
    )(x, filters)
    assert got.tobytes() == narrow.tobytes()


def test_a_long_sum_goes_in_blocks_that_continue_the_chain():
    x, dy = normal(1, 70, 102, 8), normal(1, 68, 100, 48, seed=1)
    build = lambda a, b: emit(FilterProduct(taps=(3, 3)), a, b)  # noqa: E731
    function = compiled(build, x, dy)
    assert any(s.startswith("split(k, ") for k in function.plan.kernels for s in k.steps)
    (got,) = function(x, dy)
    (narrow,) = compiled(build, x, dy, lanes=4)(x, dy)
    assert got.tobytes() == narrow.tobytes()
    expected = FilterProduct(taps=(3, 3)).reference(x.astype(np.float64), dy.astype(np.float64))
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-2)
