"""The order of matrix products by cost, and what stands between them."""

import itertools

import numpy as np
import pytest

from tests.ir.graph.helpers import function
from tinyflow import ops
from tinyflow.compile import compile_function
from tinyflow.core import options
from tinyflow.ir.graph.nodes import Input
from tinyflow.passes.rules.products import Factor, best_order
from tinyflow.passes.simplify import SIMPLIFY


def simplified(body, *types, level=3):
    fn = function(body, *types)
    with options.override(level=level):
        return fn, SIMPLIFY.apply(fn)[0]


def multiplications(fn):
    total = 0
    for node in fn.nodes:
        if node.op.type_name == "MatMul":
            rows, inner = node.inputs[0].type.shape[:: -1 if node.op.transpose_a else 1]
            total += rows * inner * node.types[0].shape[1]
    return total


def matrix(*shape, dtype="float32"):
    return dtype, shape


def test_a_vector_goes_through_a_product_of_matrices_one_by_one():
    def body(a, b, c, x):
        return ops.matmul(ops.matmul(ops.matmul(a, b), c), x)

    types = matrix(40, 30), matrix(30, 50), matrix(50, 20), matrix(20, 1)
    before, after = simplified(body, *types)
    assert multiplications(before) == 40 * 30 * 50 + 40 * 50 * 20 + 40 * 20
    assert multiplications(after) == 50 * 20 + 30 * 50 + 40 * 30
    products = [n for n in after.nodes if not isinstance(n.op, Input)]
    assert [n.types[0].shape for n in products] == [(50, 1), (30, 1), (40, 1)]


def test_the_text_book_example():
    """Cormen et al., Introduction to Algorithms, section 15.2: 15,125 multiplications."""
    extents = (30, 35, 15, 5, 10, 20, 25)

    def body(*factors):
        product = factors[0]
        for factor in factors[1:]:
            product = ops.matmul(product, factor)
        return product

    types = [matrix(m, n) for m, n in itertools.pairwise(extents)]
    before, after = simplified(body, *types)
    assert multiplications(after) == 15_125 < multiplications(before)
    factors = [Factor(v, False) for v in before.inputs]
    assert best_order(factors)[0] == 15_125


@pytest.mark.parametrize("outer", [False, True])
@pytest.mark.parametrize("inner", [(False, False), (True, False), (False, True), (True, True)])
def test_transposed_factors_keep_their_value(inner, outer):
    first, second = inner

    def body(a, b, c):
        product = ops.matmul(a, b, transpose_a=first, transpose_b=second)  # 12 x 20
        return ops.matmul(product, c, transpose_a=outer)

    shapes = [(9, 12)[:: 1 if first else -1], (20, 9)[:: 1 if second else -1],
              (12, 1) if outer else (20, 1)]  # fmt: skip
    before, after = simplified(body, *[matrix(*s) for s in shapes])
    assert multiplications(after) < multiplications(before)
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=s).astype(np.float32) for s in shapes]
    a, b, c = (x.astype(np.float64) for x in arrays)
    product = (a.T if first else a) @ (b.T if second else b)
    expected = (product.T if outer else product) @ c
    np.testing.assert_allclose(compile_function(after)(*arrays)[0], expected, rtol=1e-4, atol=1e-4)


def test_floats_keep_their_order_below_the_third_level():
    def body(a, b, x):
        return ops.matmul(ops.matmul(a, b), x)

    for level in (1, 2):
        before, after = simplified(body, matrix(8, 8), matrix(8, 8), matrix(8, 1), level=level)
        assert multiplications(after) == multiplications(before)
    whole = [matrix(8, 8, dtype="int32"), matrix(8, 8, dtype="int32"), matrix(8, 1, dtype="int32")]
    before, after = simplified(body, *whole, level=1)
    assert multiplications(after) < multiplications(before)


def test_a_product_with_another_reader_is_kept():
    def body(a, b, x):
        product = ops.matmul(a, b)
        return ops.add(ops.matmul(product, x), ops.reduce_sum(product))

    before, after = simplified(body, matrix(8, 8), matrix(8, 8), matrix(8, 1))
    assert multiplications(after) == multiplications(before)


# ---- pieces --------------------------------------------------------------------------------------
def left(body, *types):
    return [n.op.type_name for n in simplified(body, *types, level=1)[1].nodes
            if not isinstance(n.op, Input)]  # fmt: skip


X, Y = matrix(6, 5), matrix(3, 5)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (lambda x, y: ops.concat(ops.split(x, 3, axis=0), 0), []),
        (lambda x, y: ops.concat(ops.split(x, 3, axis=0)[::-1], 0),
         ["StridedSlice"] * 3 + ["ConcatV2"]),
        (lambda x, y: ops.split(ops.concat([x, y], 0), [6, 3], axis=0)[1], []),
        (lambda x, y: ops.split(ops.concat([x, y], 0), [5, 4], axis=0)[1],
         ["ConcatV2", "StridedSlice"]),
        (lambda x, y: ops.split(ops.concat([x, y], 0), 9, axis=0)[7], ["Slice"]),
        (lambda x, y: ops.slice_(ops.pad(x, ((2, 1), (0, 3))), (2, 0), (6, 5)), []),
        (lambda x, y: ops.slice_(ops.pad(x, ((2, 1), (0, 3))), (1, 0), (6, 5)), ["Pad", "Slice"]),
        (lambda x, y: ops.concat([ops.concat([x, y], 0), ops.concat([x, x], 0)], 0),
         ["ConcatV2"]),
        (lambda x, y: ops.concat([ops.concat([x, x], 1), ops.concat([y, y], 1)], 0),
         ["ConcatV2"] * 3),
        (lambda x, y: ops.pad(ops.pad(x, ((1, 0), (0, 0)), constant_values=1.0),
                              ((0, 1), (0, 0))), ["Pad", "Pad"]),
        (lambda x, y: ops.reverse(ops.reverse(x, (0,)), (1,)), ["ReverseV2"] * 2),
    ],
)  # fmt: skip
def test_pieces_meet(body, expected):
    assert left(body, X, Y) == expected


def test_a_part_of_a_split_gradient_is_the_part():
    """d(concat)/d(split): nothing of a round trip is left in the step."""

    def body(x, y):
        first, second = ops.split(ops.tanh(ops.concat([x, y], 0)), [6, 3], axis=0)
        return ops.concat([first, second], 0)

    assert left(body, X, Y) == ["ConcatV2", "Tanh"]
