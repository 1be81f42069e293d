"""Winograd's form of convolutions: when it is taken, what it computes, how exact it is."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ops.test_convolution import function_of
from tinyflow.compile import compile_function
from tinyflow.core import options
from tinyflow.core.dtype import as_dtype
from tinyflow.core.shape import Dim
from tinyflow.ir.graph import interp
from tinyflow.ir.graph.builder import Builder, building, emit
from tinyflow.ir.graph.nodes import Function, Input, TensorType
from tinyflow.ops.conv_grads import ConvInputGrad
from tinyflow.ops.convolution import Conv
from tinyflow.ops.winograd import F2, F4, winograd_conv, winograd_input_grad
from tinyflow.passes.rules.convolution import TiledConvolution, best_tile
from tinyflow.rewrite import Approximate, RuleSet

#: error of the result relative to its largest element, in units of its type's precision
LIMITS = {2: 16, 4: 64}


def tiled(build, *arrays):
    builder = Builder()
    with building(builder):
        inputs = [emit(Input(TensorType(as_dtype(a.dtype), a.shape))) for a in arrays]
        return Function("f", inputs, [build(*inputs)])


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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tile", [F2, F4], ids=["F2", "F4"])
@pytest.mark.parametrize(("shape", "pads"), [((2, 7, 9, 3, 4), ((1, 1), (1, 1))),
                                             ((1, 8, 5, 2, 3), ((0, 2), (2, 1)))])  # fmt: skip
def test_forward_and_gradient_are_convolutions(shape, pads, tile, dtype):
    n, h, w, c, k = shape
    rng = np.random.default_rng(1)
    x, f = (rng.normal(size=s).astype(dtype) for s in ((n, h, w, c), (3, 3, c, k)))
    op = Conv((1, 1), pads)
    exact = op.reference(x.astype(np.float64), f.astype(np.float64))
    dy = rng.normal(size=exact.shape).astype(dtype)
    slope = ConvInputGrad((1, 1), pads).reference(
        dy.astype(np.float64), f.astype(np.float64), x.astype(np.float64)
    )
    for fn, arrays, want in (
        (tiled(lambda a, b: winograd_conv(a, b, list(pads), tile), x, f), (x, f), exact),
        (tiled(lambda a, b: winograd_input_grad(a, b, list(pads), tile), dy, f), (dy, f), slope),
    ):
        (got,) = interp.run(fn, arrays)
        assert got.dtype == dtype and got.shape == want.shape
        error = np.abs(got - want).max() / np.abs(want).max()
        assert error <= LIMITS[tile.size] * np.finfo(dtype).eps


@pytest.mark.parametrize("gradient", [False, True])
def test_a_compiled_step_takes_it_at_level_3_only(gradient):
    """Native code, against float64 and the direct form."""
    x, w = (2, 29, 27, 64), (3, 3, 64, 64)
    op = (ConvInputGrad if gradient else Conv)((1, 1), "SAME")
    shapes = (x, w, x) if gradient else (x, w)
    rng = np.random.default_rng(2)
    arrays = [rng.normal(size=s).astype(np.float32) for s in shapes]
    exact = op.reference(*(a.astype(np.float64) for a in arrays))
    errors = {}
    for level in (2, 3):
        with options.override(level=level):
            compiled = compile_function(function_of(op, *shapes))
        found = {n.op.type_name for n in compiled.fn.nodes}
        assert ("ConvProduct" in found, "MatMul" in found) == (level == 2, level == 3)
        (got,) = compiled(*arrays)
        errors[level] = np.abs(got - exact).max() / np.abs(exact).max()
    assert errors[3] < 20 * errors[2] and errors[3] < 64 * np.finfo(np.float32).eps


REFUSED = [
    (Conv((2, 2), "SAME"), (4, 28, 28, 64), (3, 3, 64, 64), "stride"),
    (Conv((1, 1), "SAME", (2, 2)), (4, 28, 28, 64), (3, 3, 64, 64), "stride"),
    (Conv((1, 1), "SAME", (1, 1), "NCHW"), (4, 64, 28, 28), (3, 3, 64, 64), "channels first"),
    (Conv((1, 1), "SAME"), (4, 28, 28, 64), (5, 5, 64, 64), "no 3x3 filter"),
    (Conv((1, 1), "SAME"), (4, 28, 28, 64), (3, 3, 1, 64), "no 3x3 filter"),
    (Conv((1, 1), "SAME"), (4, 28, 28, 3), (3, 3, 3, 64), "moves less memory"),
    (Conv((1, 1), "SAME"), (1, 7, 7, 512), (3, 3, 512, 512), "moves less memory"),
    (Conv((1, 1), "SAME"), (Dim.symbol("N"), 28, 28, 64), (3, 3, 64, 64), "unknown extents"),
    (Conv((1, 1), ((3, 0), (0, 0))), (4, 28, 28, 64), (3, 3, 64, 64), "beyond the filter"),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_the_direct_form_stays_where_it_is_faster(case):
    op, x, w, reason = REFUSED[case]
    with options.override(level=3):
        _, trace = RuleSet("tiled", [TiledConvolution]).apply(function_of(op, x, w))
    assert reason in str(trace) and not trace.rewrites


def test_the_choice_follows_the_shape():
    assert TiledConvolution.contract is Approximate
    assert best_tile(4, (28, 28), 128, 128, 4) is F4
    assert best_tile(4, (28, 28), 128, 128, 8) is F4
    assert best_tile(32, (6, 6), 256, 256, 4) is F2  # 8x8 results would be computed for 6x6
    assert best_tile(4, (2, 2), 512, 512, 4) is None
    assert best_tile(4, (224, 224), 3, 64, 4) is None
    assert best_tile(4, (112, 112), 128, 128, 4) is F4
    assert best_tile(4, (224, 224), 64, 64, 4) is None  # the parts take 220 MiB
