"""Winograd's, Fourier's and im2col's forms of convolutions: when they are taken, what they compute,
how exact they are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import tinyflow as tf
from tests.ops.test_convolution import function_of
from tinyflow.compile import compile_function
from tinyflow.core import options
from tinyflow.core.dtype import as_dtype
from tinyflow.core.error import InvalidArgumentError
from tinyflow.core.shape import Dim
from tinyflow.ir.graph import interp
from tinyflow.ir.graph.builder import Builder, building, emit
from tinyflow.ir.graph.nodes import Function, Input, TensorType
from tinyflow.ops.conv_forms import Tiling, tiled_conv, tiled_filter_grad, tiled_input_grad
from tinyflow.ops.conv_grads import ConvFilterGrad, ConvInputGrad
from tinyflow.ops.convolution import CASES as conv_cases
from tinyflow.ops.convolution import Conv
from tinyflow.ops.winograd import F2, F4
from tinyflow.passes.pipeline import optimize
from tinyflow.passes.rules.convolution import (
    FOURIER_POINTS,
    GAIN,
    FourierConvolution,
    WinogradConvolution,
    Work,
    best_tiling,
)
from tinyflow.rewrite import Approximate, RuleSet

WINOGRAD_2, WINOGRAD_4 = Tiling("winograd", (4, 4)), Tiling("winograd", (6, 6))
#: error of the result relative to its largest element, in units of its type's precision
LIMITS = {WINOGRAD_2: 16, WINOGRAD_4: 64}


def made(build, *arrays):
    builder = Builder()
    with building(builder):
        inputs = [emit(Input(TensorType(as_dtype(a.dtype), a.shape))) for a in arrays]
        return Function("f", inputs, [build(*inputs)])


def compiled_run(fn, arrays):
    return compile_function(fn)(*arrays)


@pytest.mark.parametrize("tile", [F2, F4], ids=["F2", "F4"])
def test_matrices_are_exact_over_the_rationals(tile):
    """One tile of integers, in float64: the identity of the paper to the last digits."""
    rng = np.random.default_rng(0)
    a = tile.size + 2
    d, g = rng.integers(-9, 9, (a, a)), rng.integers(-9, 9, (3, 3))
    bt, gm, at = (np.array(m, np.float64) for m in tile[1:])
    y = at @ ((gm @ g @ gm.T) * (bt @ d @ bt.T)) @ at.T
    windows = np.lib.stride_tricks.sliding_window_view(d, (3, 3))
    np.testing.assert_allclose(y, (windows * g).sum((-2, -1)), rtol=1e-12, atol=1e-10)


#: n, spatial extents, taps, c, k, pads, tiles
FORMS = [
    (2, (7, 9), (3, 3), 3, 4, ((1, 1), (1, 1)), WINOGRAD_2),
    (1, (8, 5), (3, 3), 2, 3, ((0, 2), (2, 1)), WINOGRAD_2),
    (2, (7, 9), (3, 3), 3, 4, ((1, 1), (1, 1)), WINOGRAD_4),
    (1, (8, 5), (3, 3), 2, 18, ((0, 2), (2, 1)), WINOGRAD_4),
    (2, (13, 11), (7, 5), 3, 4, ((3, 3), (2, 2)), Tiling("fourier", (12, 8))),
    (1, (9, 21), (2, 7), 18, 5, ((0, 1), (6, 0)), Tiling("fourier", (8, 20))),
    (3, (6, 17), (1, 9), 2, 3, ((0, 0), (4, 4)), Tiling("fourier", (1, 16))),
    (2, (19,), (8,), 3, 2, ((4, 3),), Tiling("fourier", (12,))),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", FORMS, ids=lambda f: f"{f[2]}-{f[6].algorithm}{f[6].points}")
def test_forms_are_convolutions_and_their_gradients(form, dtype):
    n, spatial, taps, c, k, pads, tiling = form
    dims, rng = len(taps), np.random.default_rng(1)
    own = (1,) * dims, pads, (1,) * dims, ("NWC", "NHWC")[dims - 1]
    x, f = (rng.normal(size=s).astype(dtype) for s in ((n, *spatial, c), (*taps, c, k)))
    dy = rng.normal(size=Conv(*own).reference(x, f).shape).astype(dtype)
    wide = {id(a): a.astype(np.float64) for a in (x, f, dy)}
    cases = [
        (lambda a, b: tiled_conv(a, b, list(pads), tiling), Conv, (x, f)),
        (lambda a, b: tiled_input_grad(a, b, list(pads), tiling), ConvInputGrad, (dy, f, x)),
    ]
    if tiling.algorithm == "fourier":
        build = lambda a, b: tiled_filter_grad(a, b, list(pads), tiling)  # noqa: E731
        cases.append((build, ConvFilterGrad, (x, dy, f)))
    for build, op, arrays in cases:
        want = op(*own).reference(*(wide[id(a)] for a in arrays))
        fn = made(build, *arrays[:2])
        ways = [interp.run] if dtype is np.float64 else [interp.run, compiled_run]
        for (got,) in (way(fn, arrays[:2]) for way in ways):
            assert got.dtype == dtype and got.shape == want.shape
            error = np.abs(got - want).max() / np.abs(want).max()
            assert error <= LIMITS.get(tiling, 8) * np.finfo(dtype).eps


# ---- choices -------------------------------------------------------------------------------------
def by_loops(x, w, before, sizes):
    """y, and a function dy -> dx, dw: one window and one image after the other, in float64."""
    x, w = x.astype(np.float64), w.astype(np.float64)
    f, g = w.shape[:2]
    padded = np.zeros((x.shape[0], x.shape[1] + 2 * f, x.shape[2] + 2 * g, x.shape[3]))
    inner = np.s_[:, before[0] : before[0] + x.shape[1], before[1] : before[1] + x.shape[2]]
    padded[inner] = x
    y = np.zeros((x.shape[0], *sizes, w.shape[3]))
    places = list(itertools.product(*map(range, y.shape)))
    for n, i, j, k in places:
        y[n, i, j, k] = np.sum(padded[n, i : i + f, j : j + g] * w[..., k])

    def gradients(dy):
        dx, dw = np.zeros_like(padded), np.zeros_like(w)
        for n, i, j, k in places:
            dx[n, i : i + f, j : j + g] += dy[n, i, j, k] * w[..., k]
            dw[..., k] += dy[n, i, j, k] * padded[n, i : i + f, j : j + g]
        return dx[inner], dw

    return y, gradients


SHAPES = [
    ((2, 9, 7, 3), (3, 3, 3, 4), "SAME"),
    ((1, 8, 11, 5), (3, 3, 5, 2), "VALID"),
    ((2, 11, 9, 2), (7, 4, 2, 3), "SAME"),
    ((1, 13, 10, 4), (5, 9, 4, 3), "VALID"),
]


SWEEP = [
    pytest.param(*shape, dtype, id=f"{shape[1][0]}x{shape[1][1]}-{shape[2]}-{dtype}",
                 marks=() if (n, dtype) in ((0, "float32"), (2, "float64")) else pytest.mark.slow)
    for n, shape in enumerate(SHAPES) for dtype in ("float32", "float64")
]  # fmt: skip


@pytest.mark.parametrize(("x_shape", "w_shape", "padding", "dtype"), SWEEP)
def test_all_choices_agree_with_loops_and_both_gradients(x_shape, w_shape, padding, dtype):
    rng = np.random.default_rng(3)
    x, w = (rng.normal(size=s).astype(dtype) for s in (x_shape, w_shape))
    same = padding == "SAME"
    before = [(f - 1) // 2 if same else 0 for f in w_shape[:2]]
    sizes = [h if same else h - f + 1 for h, f in zip(x_shape[1:3], w_shape[:2])]
    y, gradients = by_loops(x, w, before, sizes)
    slope = rng.normal(size=y.shape).astype(dtype)
    wanted = y, *gradients(slope.astype(np.float64))
    images, weights = tf.placeholder(dtype, x_shape), tf.placeholder(dtype, w_shape)
    product = tf.nn.conv2d(images, weights, [1, 1, 1, 1], padding)
    fetches = [product, *tf.gradients(product, [images, weights], grad_ys=tf.constant(slope))]
    results = {}
    for choice in ("direct", "im2col", "winograd", "fft"):
        with options.override(convolution=choice), tf.Session() as session:
            results[choice] = session.run(fetches, {images: x, weights: w})
        for got, want in zip(results[choice], wanted, strict=True):
            error = np.abs(got - want).max() / np.abs(want).max()
            assert error <= (64 if choice == "winograd" else 16) * np.finfo(dtype).eps, choice
    # They really are other ways: rounding tells.
    assert any((a != b).any() for a, b in zip(results["direct"], results["fft"]))


#: without stride, besides those of the op
PLAIN = (
    ((2, 9, 7, 3), (3, 3, 3, 4), ((1, 1), "SAME")),
    ((1, 7, 8, 2), (5, 4, 2, 3), ((1, 1), ((2, 1), (0, 3)))),
    ((2, 15, 2), (6, 2, 3), ((1,), "SAME", (1,), "NWC")),
)


@pytest.mark.parametrize("choice", ["im2col", "winograd", "fft"])
def test_every_sample_keeps_its_value_under_every_choice(choice):
    """Strides, dilation, groups, formats, one to three axes: taken where possible, right always."""
    rng, taken = np.random.default_rng(4), 0
    for x_shape, w_shape, own in (*conv_cases, *PLAIN):
        x, w = rng.normal(size=x_shape), rng.normal(size=w_shape)
        dy = rng.normal(size=Conv(*own).reference(x, w).shape)
        for op, arrays in ((Conv(*own), (x, w)), (ConvInputGrad(*own), (dy, w, x)),
                           (ConvFilterGrad(*own), (x, dy, w))):  # fmt: skip
            with options.override(convolution=choice):
                fn, records = optimize(made(lambda *inputs, op=op: emit(op, *inputs), *arrays))
            taken += sum(len(r.trace.rewrites) for r in records if r.name == "choose_convolutions")
            (got,) = interp.run(fn, arrays)
            np.testing.assert_allclose(got, op.reference(*arrays), rtol=1e-9, atol=1e-12)
    assert taken >= {"im2col": 30, "winograd": 4, "fft": 12}[choice]


FOUND = {"direct": "ConvProduct", "im2col": "PatchRows", "winograd": "TileResults",
         "fft": "TileResults"}  # fmt: skip


@pytest.mark.parametrize("choice", FOUND)
def test_a_choice_holds_at_every_level_of_rules(choice):
    fn = function_of(Conv((1, 1), "SAME"), (1, 5, 6, 2), (3, 3, 2, 4))
    for level in (1, 2, 3):
        with options.override(level=level, convolution=choice):
            ops = {n.op.type_name: n.op for n in compile_function(fn).fn.nodes}
        assert FOUND[choice] in ops
        if "TileResults" in ops:
            assert ops["TileResults"].map.startswith(choice[:1])  # winograd, fourier


def test_a_choice_that_is_not_possible_leaves_the_direct_form():
    fn = function_of(Conv((2, 1), "SAME"), (1, 5, 6, 2), (3, 3, 2, 4))
    for choice in ("winograd", "fft"):
        with options.override(convolution=choice):
            assert "ConvProduct" in {n.op.type_name for n in compile_function(fn).fn.nodes}
    with options.override(convolution="im2col"):  # with a stride, too
        assert "PatchRows" in {n.op.type_name for n in compile_function(fn).fn.nodes}


def test_an_unknown_choice_is_an_error():
    with pytest.raises(InvalidArgumentError) as error, options.override(convolution="fourier"):
        pass
    assert "'fourier'" in str(error.value) and "winograd" in str(error.value)


CASES = [
    (Conv, (2, 29, 27, 64), (3, 3, 64, 64), "winograd"),
    (ConvInputGrad, (2, 29, 27, 64), (3, 3, 64, 64), "winograd"),
    (Conv, (2, 29, 27, 32), (9, 9, 32, 32), "fourier"),
    (ConvInputGrad, (2, 29, 27, 32), (9, 9, 32, 32), "fourier"),
    (ConvFilterGrad, (2, 29, 27, 32), (9, 9, 32, 32), "fourier"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0].__name__}-{c[3]}")
def test_a_compiled_step_takes_them_at_level_3_only(case):
    """Native code, against float64 and the direct form."""
    op_class, x, w, algorithm = case
    op, y = op_class((1, 1), "SAME"), (*x[:3], w[3])
    shapes = {Conv: (x, w), ConvInputGrad: (y, w, x), ConvFilterGrad: (x, y, w)}[op_class]
    rng = np.random.default_rng(2)
    arrays = [rng.normal(size=s).astype(np.float32) for s in shapes]
    exact = op.reference(*(a.astype(np.float64) for a in arrays))
    errors = {}
    for level in (2, 3):
        with options.override(level=level):
            compiled = compile_function(function_of(op, *shapes))
        maps = [n.op.map for n in compiled.fn.nodes if n.op.type_name == "TileResults"]
        assert maps == ([] if level == 2 else [f"{algorithm}_result"])
        (got,) = compiled(*arrays)
        errors[level] = np.abs(got - exact).max() / np.abs(exact).max()
    assert errors[3] < (20 if algorithm == "winograd" else 2) * errors[2]
    assert errors[3] < 64 * np.finfo(np.float32).eps


def test_channels_first_are_turned_before_the_choice():
    op = Conv((1, 1), "SAME", (1, 1), "NCHW")
    with options.override(level=3):
        ops = compile_function(function_of(op, (4, 128, 28, 28), (3, 3, 128, 128))).fn.nodes
    assert "TileResults" in {n.op.type_name for n in ops}


def test_errors_of_spectra_are_relative_to_the_norms_of_a_tile():
    """The bound of FourierConvolution, with a pixel of 1e6 that only its own tile may feel."""
    rng = np.random.default_rng(5)
    x, w = rng.normal(size=(1, 40, 16, 3)), rng.normal(size=(7, 7, 3, 4))
    x[0, 35, 3, 1] = 1e6
    x, w = x.astype(np.float32), w.astype(np.float32)
    tiling = Tiling("fourier", (16, 16))
    fn = made(lambda a, b: tiled_conv(a, b, [(0, 0), (0, 0)], tiling), x, w)
    (got,) = compile_function(fn)(x, w)
    error = np.abs(got - Conv().reference(x.astype(np.float64), w.astype(np.float64)))
    filters = np.sqrt((w.astype(np.float64) ** 2).sum((0, 1)))
    for first in range(0, 34, 10):
        tile = np.sqrt((x[0, first : first + 16].astype(np.float64) ** 2).sum((0, 1)))
        bound = (6 * np.log2(16 * 16) + 3) * 2.0**-24 * tile @ filters
        assert (error[0, first : first + 10] <= bound).all()
    assert error[0, :20].max() < 1e-4 < error[0, 30:].max()


SAME = Conv((1, 1), "SAME")
REFUSED = [
    (Conv((2, 2), "SAME"), (4, 28, 28, 64), (3, 3, 64, 64), "stride or dilation"),
    (Conv((1, 1), "SAME", (2, 2)), (4, 28, 28, 64), (3, 3, 64, 64), "stride or dilation"),
    (Conv((1, 1), "SAME", (1, 1), "NCHW"), (4, 64, 28, 28), (3, 3, 64, 64), "channels first"),
    (SAME, (4, 28, 28, 4), (3, 4, 4, 4), "no tiles for a filter of 3x4"),
    (SAME, (4, 28, 28, 64), (3, 3, 1, 64), "groups of channels"),
    (SAME, (4, 28, 28, 3), (3, 3, 3, 64), "moves less memory"),
    (SAME, (1, 7, 7, 512), (3, 3, 512, 512), "moves less memory"),
    (SAME, (Dim.symbol("N"), 28, 28, 64), (3, 3, 64, 64), "unknown extents"),
    (SAME, (4, 28, 28, 1), (5, 5, 1, 16), "moves less memory"),
    (SAME, (4, 90, 90, 3), (70, 70, 3, 3), "no tiles for a filter of 70x70"),
    (Conv((1, 1), ((3, 0), (0, 0))), (4, 28, 28, 64), (3, 3, 64, 64), "beyond the filter"),
    (Conv((1, 1, 1), "SAME", (1, 1, 1), "NDHWC"), (1, 9, 9, 9, 8), (7, 7, 7, 8, 8), "three"),
]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_the_direct_form_stays_where_it_is_faster(case):
    op, x, w, reason = REFUSED[case]
    rule_set = RuleSet("tiled", [WinogradConvolution, FourierConvolution])
    with options.override(level=3):
        _, trace = rule_set.apply(function_of(op, x, w))
    assert reason in str(trace) and not trace.rewrites


def test_the_choice_follows_the_shape():
    assert WinogradConvolution.contract is FourierConvolution.contract is Approximate

    def chosen(algorithm, n, sizes, taps, c, k, size_bytes=4):
        work = Work(n, sizes, taps, c, k, size_bytes)
        tiling, cost = best_tiling(algorithm, work)
        return tiling if work.direct_cost > GAIN * cost else None

    three = "winograd", 4
    assert chosen(*three, (28, 28), (3, 3), 128, 128) == WINOGRAD_4
    assert chosen(*three, (28, 28), (3, 3), 128, 128, 8) == WINOGRAD_4
    # 8x8 results would be computed for 6x6
    assert chosen("winograd", 32, (6, 6), (3, 3), 256, 256) == WINOGRAD_2
    assert chosen(*three, (2, 2), (3, 3), 512, 512) is None
    assert chosen(*three, (224, 224), (3, 3), 3, 64) is None
    assert chosen(*three, (112, 112), (3, 3), 128, 128) == WINOGRAD_4
    assert chosen(*three, (224, 224), (3, 3), 64, 64) is None  # the parts take 220 MiB
    assert chosen("fourier", 4, (56, 56), (7, 7), 64, 64) == Tiling("fourier", (20, 20))
    assert chosen("fourier", 4, (7, 7), (7, 7), 256, 256) is None
    assert chosen("fourier", 4, (2000,), (31,), 64, 64) == Tiling("fourier", (64,))
    assert chosen("fourier", 4, (2000,), (3,), 64, 64) is None
    assert {p for p in FOURIER_POINTS if p % 4} == set()
