"""Literals, and what is known before a run."""

import numpy as np
import pytest

from tinyflow.core.dtype import bool_, float32, float64, int32, int64, uint8
from tinyflow.core.error import DTypeError, ShapeError, Unsupported
from tinyflow.core.shape import Dim
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.interp import run
from tinyflow.ir.graph.nodes import Function, Input, TensorType
from tinyflow.ops.creation import (
    Constant,
    constant,
    constant_value,
    fill,
    make_constant,
    ones_like,
    zeros_like,
)
from tinyflow.ops.elementwise import add, multiply
from tinyflow.ops.sequence import DynamicRange, Range, arange
from tinyflow.ops.shape import rank, shape, size
from tinyflow.passes.functionalize import functionalize
from tinyflow.passes.specialize import specialize


@pytest.fixture(autouse=True)
def builder():
    with building(Builder()) as current:
        yield current


def placeholder(builder, dtype, dims):
    return builder.emit(Input(TensorType(dtype, dims), "feed"), ())


# what TensorFlow 1.15 makes of a literal
@pytest.mark.parametrize(
    "value, dtype",
    [
        (1, int32), (2**31, int64), (-(2**31), int32), (1.5, float32), (True, bool_),
        ([1, 2], int32), ([1, 2.5], float32), ([], float32), ([True, 1], int32),
        ([[1], [2]], int32), ([1, 2**40], int64), (np.float64(1.5), float64),
        (np.zeros(2), float64),
        ([np.float64(1.5)], float32), (np.arange(2), int64), (np.uint8(3), uint8),
    ],
)  # fmt: skip
def test_dtype_of_a_literal(value, dtype):
    assert make_constant(value).dtype is dtype


@pytest.mark.parametrize(
    "value, beside, want",
    [
        (1, float32, 1.0), (True, float32, 1.0), (3, int64, 3), (2.5, float64, 2.5),
        (np.array([1.5, 2.0]), float32, [1.5, 2.0]), (np.array([1.0, 2.0]), int32, [1, 2]),
        (300.0, float32, 300.0), (False, bool_, False), (255, uint8, 255),
    ],
)  # fmt: skip
def test_a_literal_takes_the_dtype_beside_it(value, beside, want):
    made = make_constant(value, beside)
    assert made.dtype is beside and made.value.tolist() == want


@pytest.mark.parametrize(
    "value, beside, text",
    [
        (1.5, int32, "expected int32, got 1.5 of type float"),
        (2.0, int32, "expected int32, got 2.0 of type float"),
        ([1, 2.5], int64, r"expected int64, got \[1, 2.5\] of type list"),
        (1, bool_, "expected bool, got 1 of type int"),
        (2**40, int32, "1099511627776 does not fit int32"),
        (-1, uint8, "-1 does not fit uint8"),
        (2**70, None, "does not fit any integer dtype"),
        (np.array([1.5]), int32, "an array of float64 with fractions beside a tensor of int32"),
        (None, None, "None is not a value"),
        ("a", None, "cannot make a tensor of 'a'"),
    ],
)
def test_a_literal_that_would_lose_something(value, beside, text):
    with pytest.raises(DTypeError, match=text):
        make_constant(value, beside)


def test_a_ragged_list():
    with pytest.raises(ShapeError, match="unequal lengths"):
        make_constant([[1, 2], [3]])


def test_the_hint_of_a_fraction_beside_integers(builder):
    x = placeholder(builder, int32, (2,))
    with pytest.raises(DTypeError) as caught:
        add(x, 1.5)
    assert "tf.cast" in caught.value.hint


def test_an_explicit_dtype_converts_arrays_freely():
    assert constant(np.array([1.7, -1.7]), int32).node.op.value.tolist() == [1, -1]
    with pytest.raises(DTypeError):
        constant(1.7, int32)


def test_a_shape_repeats_the_last_element():
    assert constant([1, 2], shape=(2, 3)).node.op.value.tolist() == [[1, 2, 2], [2, 2, 2]]
    assert constant(0.5, shape=(2,)).node.op.value.tolist() == [0.5, 0.5]
    with pytest.raises(ShapeError, match="3 elements for shape"):
        constant([1, 2, 3], shape=(2,))


def test_equality_goes_by_dtype_shape_and_bytes():
    one = Constant(np.array([1.0, np.nan]))
    assert one == Constant(np.array([1.0, np.nan])) and hash(one) == hash(Constant(one.value))
    assert one != Constant(np.array([[1.0, np.nan]]))
    assert Constant(np.float32(0.0)) != Constant(np.float32(-0.0))
    assert Constant(np.int32(1)) != Constant(np.int64(1))


def test_a_constant_does_not_change_with_its_source():
    array = np.zeros(3)
    made = Constant(array)
    array[0] = 1
    assert made.value.tolist() == [0, 0, 0] and not made.value.flags.writeable


def test_values_known_at_construction(builder):
    x = placeholder(builder, float32, (4, 5))
    assert constant_value(shape(x)).tolist() == [4, 5]
    assert constant_value(size(x)) == 20 and constant_value(rank(x)) == 2
    assert constant_value(add(multiply(size(x), 2), 1)) == 41
    assert constant_value(x) is None and constant_value(add(x, 1.0)) is None
    partly = placeholder(builder, float32, (Dim.symbol("N"), 5))
    assert constant_value(shape(partly)) is None


def test_a_long_chain_is_given_up_not_recursed():
    value = constant(1)
    for _ in range(5000):
        value = add(value, 1)
    assert constant_value(value) is None


def test_dynamic_fill_and_range(builder):
    x = placeholder(builder, float32, (Dim.symbol("N"), 3))
    n = size(x)
    filled = fill(shape(x), 2.5)
    assert filled.type.shape == (Dim.symbol("N"), 3)
    numbers = arange(n)
    assert isinstance(numbers.node.op, DynamicRange)
    assert numbers.type.shape == (3 * Dim.symbol("N"),)
    fn = functionalize([filled, numbers], feeds=[x])
    static = specialize(fn, [TensorType(float32, (2, 3))])
    assert static.outputs[1].node.op == Range(0, 6)
    assert run(static, [np.zeros((2, 3), np.float32)])[1].tolist() == list(range(6))
    known = arange(size(placeholder(builder, int32, (7,))))
    assert known.node.op == Range(0, 7)


def test_a_range_of_computed_numbers_is_refused_with_a_hint(builder):
    x = placeholder(builder, int32, ())
    fn = functionalize([arange(x)], feeds=[x])
    with pytest.raises(Unsupported, match="depends on computed data"):
        specialize(fn, [TensorType(int32, ())])


def test_range_dtypes_follow_tensorflow():
    assert arange(5).type == TensorType(int32, (5,))
    assert arange(0.0, 1.0, 0.3).type == TensorType(float32, (4,))
    assert arange(1, 2.5).type == TensorType(float32, (2,))
    assert arange(5, dtype=float64).type == TensorType(float64, (5,))


def test_like_ops_with_another_dtype(builder):
    x = placeholder(builder, float32, (2, 3))
    unknown = placeholder(builder, float32, None)
    assert zeros_like(x, int32).type == TensorType(int32, (2, 3))
    assert ones_like(unknown, int64).type == TensorType(int64, None)
    fn = Function("f", [unknown], [ones_like(unknown, int64)])
    assert run(fn, [np.zeros((1, 2), np.float32)])[0].tolist() == [[1, 1]]


@pytest.mark.parametrize("number", [0.0, -0.0, 1.5, np.nan])
def test_a_number_that_fills_a_shape_keeps_its_bits(number):
    array = constant(number, float32, shape=(3, 7)).node.op.value
    assert array.shape == (3, 7) and not array.flags.writeable
    assert array.tobytes() == np.full((3, 7), number, np.float32).tobytes()


def test_the_last_of_several_numbers_fills_the_rest():
    assert constant([1, 0], int32, shape=(4,)).node.op.value.tolist() == [1, 0, 0, 0]
    assert constant([0, 2], int32, shape=(4,)).node.op.value.tolist() == [0, 2, 2, 2]


def test_the_number_of_a_constant_is_that_of_all_its_elements():
    assert Constant(np.full((2, 3), 4.0, np.float32)).number == 4.0
    assert Constant(np.array([0.0, -0.0], np.float32)).number is None
    assert Constant(np.array([1, 2])).number is None and Constant(np.zeros((0,))).number is None
