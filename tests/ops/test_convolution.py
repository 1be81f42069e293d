"""What convolutions become, for known and unknown batch sizes, and large ones natively."""

from __future__ import annotations

import numpy as np
import pytest

from tinyflow.compile import compile_function
from tinyflow.core import options
from tinyflow.core.dtype import float32
from tinyflow.core.error import Unsupported
from tinyflow.core.shape import Dim, strictly, substituted
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Function, Input, TensorType
from tinyflow.ir.graph.visit import result_values
from tinyflow.ops.conv_grads import ConvFilterGrad, ConvInputGrad
from tinyflow.ops.conv_products import batch_parts
from tinyflow.ops.convolution import Conv
from tinyflow.ops.pooling import AvgPool, MaxPool, PoolArgmax
from tinyflow.passes.decompose import decompose


def function_of(op, *shapes):
    builder = Builder()
    with building(builder):
        inputs = [
            builder.emit(Input(TensorType(float32, s), "argument", f"a{n}"), (), f"x{n}")
            for n, s in enumerate(shapes)
        ]
        outputs = result_values(builder.emit(op, tuple(inputs), "y"))
    return Function("f", inputs, list(outputs))


def parts(fn):
    return [n.op.type_name for n in decompose(fn).nodes if n.op.type_name != "Input"]


def test_forward_pads_once_and_multiplies_once():
    shapes = (8, 9, 9, 16), (3, 3, 16, 32)
    assert parts(function_of(Conv((1, 1), "VALID"), *shapes)) == ["ConvProduct"]
    assert parts(function_of(Conv((2, 2), "SAME"), *shapes)) == ["Pad", "ConvProduct"]


def test_input_gradient_without_stride_is_one_product():
    shapes = (8, 7, 7, 32), (3, 3, 16, 32), (8, 9, 9, 16)
    found = parts(function_of(ConvInputGrad((1, 1), "VALID"), *shapes))
    assert sorted(found) == ["ConvProduct", "Pad", "Transpose"]


def test_input_gradient_with_stride_is_a_product_per_residue():
    shapes = (8, 5, 5, 32), (3, 3, 16, 32), (8, 9, 9, 16)
    found = parts(function_of(ConvInputGrad((2, 2), "SAME"), *shapes))
    assert found.count("ConvProduct") == 4 and found.count("Pad") == 1 and "Interleave" in found
    shapes = (8, 5, 5, 32), (1, 1, 16, 32), (8, 9, 9, 16)
    found = parts(function_of(ConvInputGrad((2, 2), "SAME"), *shapes))
    assert found.count("ConvProduct") == 1  # the other residues see no tap


@pytest.mark.parametrize(("images", "channels", "expected"), [
    (32, 2, [(8, 4)]), (7, 2, [(7, 1)]), (9, 2, [(1, 2), (7, 1)]), (22, 2, [(6, 3), (2, 2)]),
    (1, 2, [(1, 1)]), (22, 10_000, [(1, 22)]), (1, 10_000, [(1, 1)]),
])  # fmt: skip
def test_filter_gradient_is_summed_in_parts_of_the_batch(images, channels, expected):
    op = ConvFilterGrad((1, 1), "SAME")
    x, dy = (images, 5, 5, channels), (images, 5, 5, 3)
    fn = decompose(function_of(op, x, dy, (3, 3, channels, 3)))
    products = [n.op for n in fn.nodes if n.op.type_name == "FilterProduct"]
    assert [(p.parts, p.images[1]) for p in products] == expected
    assert sum(p.parts * p.images[1] for p in products) == images
    sums = [n.op.type_name for n in fn.nodes].count("Sum")
    assert sums == sum(p.parts > 1 for p in products)


def test_unknown_batches_are_summed_in_the_parts_of_known_ones():
    for own in ((49, 1 << 18), (1024, 1 << 18), (1025, 1 << 18), (49, (1 << 18) - 1)):
        unknown = batch_parts(Dim.symbol("N"), *own)
        for n in range(70):
            here = [p for p in substituted(tuple(unknown), {"N": n}) if p[0] and p[1][1]]
            assert here == (batch_parts(n, *own) if n else [])


@pytest.mark.parametrize("seen", [3, 36, 37])
def test_parts_of_an_unknown_height_hold_for_some_heights(seen):
    h = Dim.symbol("H")
    with strictly({"H": seen}) as conditions:
        parts = batch_parts(16, h * 28, 1 << 18)
    for height in range(1, 60):
        if all(c.is_met({"H": height}) for c in conditions):
            assert parts == batch_parts(16, height * 28, 1 << 18)
    assert all(c.is_met({"H": seen}) for c in conditions)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("inner", [4, 2, 1])
def test_unknown_batch_sizes_decompose(stride, inner):
    """With one graph for all batch sizes: types stay those of the whole operation."""
    n = Dim.symbol("N")
    x, w = (n, 9, 8, 4), (3, 3, inner, 8)
    op = Conv((stride, stride), "SAME")
    y = op.infer(TensorType(float32, x), TensorType(float32, w)).shape
    own = (stride, stride), "SAME"
    for one, shapes in (
        (op, (x, w)), (ConvInputGrad(*own), (y, w, x)), (ConvFilterGrad(*own), (x, y, w)),
    ):  # fmt: skip
        fn = function_of(one, *shapes)
        assert decompose(fn).outputs[0].type == fn.outputs[0].type


def test_unknown_heights_decompose_where_nothing_depends_on_them():
    n, h = Dim.symbol("N"), Dim.symbol("H")
    x, w = (n, h, h, 3), (3, 3, 3, 8)
    for padding in ("SAME", "VALID"):
        op = Conv((1, 1), padding)
        y = op.infer(TensorType(float32, x), TensorType(float32, w)).shape
        for fn in (
            function_of(op, x, w),
            function_of(ConvInputGrad((1, 1), padding), y, w, x),
            function_of(ConvFilterGrad((1, 1), padding), x, y, w),
        ):
            with strictly({"N": 2, "H": 9}):
                assert decompose(fn).outputs[0].type == fn.outputs[0].type
    with pytest.raises(Unsupported, match="needs a known extent"):
        decompose(function_of(Conv((2, 2), "SAME"), x, w))


LARGE = [
    (Conv((1, 1), "SAME"), (4, 17, 19, 35), (3, 3, 35, 50)),
    (Conv((2, 2), "SAME"), (3, 33, 31, 3), (7, 7, 3, 64)),
    (Conv((1, 1), "SAME"), (2, 20, 21, 48), (3, 3, 1, 48)),
    (Conv((1, 1), "VALID", (2, 2)), (2, 20, 21, 24), (3, 3, 8, 36)),
    (Conv((1, 2), "SAME", (1, 1), "NCHW"), (2, 18, 20, 21), (3, 3, 18, 40)),
]


@pytest.mark.parametrize("case", range(len(LARGE)))
def test_large_convolutions_and_gradients(case):
    """Against the reference, and the same bits for any number of threads and lanes."""
    op, x_shape, w_shape = LARGE[case]
    rng = np.random.default_rng(case)
    y_shape = op.infer(TensorType(float32, x_shape), TensorType(float32, w_shape)).shape
    x, w, dy = (rng.uniform(-1, 1, s).astype(np.float32) for s in (x_shape, w_shape, y_shape))
    own = op.strides, op.padding, op.dilations, op.data_format
    for one, arrays in (
        (op, (x, w)), (ConvInputGrad(*own), (dy, w, x)), (ConvFilterGrad(*own), (x, dy, w)),
    ):  # fmt: skip
        fn = function_of(one, *(a.shape for a in arrays))
        with options.override(threads=2, lanes=16):
            (result,) = compile_function(fn)(*arrays)
        with options.override(threads=1, lanes=8):
            (other,) = compile_function(fn)(*arrays)
        assert result.tobytes() == other.tobytes()
        wanted = one.reference(*(a.astype(np.float64) for a in arrays))
        size = np.sqrt(dy.size / dy.shape[0] if one.type_name == "ConvFilterGrad" else w.size)
        np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=3e-6 * size)


@pytest.mark.parametrize("op", [MaxPool, AvgPool, PoolArgmax], ids=lambda c: c.__name__)
def test_a_large_window_is_a_loop(op):
    """Windows that cover whole images: code does not grow with them, except for positions."""
    x = np.random.default_rng(0).normal(size=(2, 20, 17, 5)).astype(np.float32)
    pool = op((20, 17), (20, 17))
    (result,) = compile_function(function_of(pool, x.shape))(x)
    np.testing.assert_allclose(result, pool.reference(x), rtol=1e-5, atol=1e-6)


def test_window_beyond_the_limit_says_what_works():
    with pytest.raises(Unsupported, match="reduce_max"):
        compile_function(function_of(PoolArgmax((64, 64), (64, 64)), (1, 64, 64, 2)))
