"""Interning, and the simplifications of the constructors: exact, wrapping included."""

import numpy as np
import pytest

from tinyflow.core.dtype import bool_, float16, float32, float64, int32, int64, uint8
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar.interp import evaluate
from tinyflow.ir.scalar.text import show

i, n, size = s.var("i"), s.var("n", int32), s.var("size")


def test_equal_expressions_are_one_object():
    assert (i + 1) * 2 is (i + 1) * 2
    assert s.const(0.0, float32) is not s.const(-0.0, float32)
    assert s.const(np.nan, float32) is s.const(np.nan, float32)
    assert s.const(1, int32) is not s.const(1, int64)
    assert s.const(True, bool_) is not s.const(1, uint8)


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (i + 0, "i"),
        (1 + i + 2, "i + 3"),
        (i - i, "0"),
        (i * 1, "i"),
        (i * 0, "0"),
        (i * 4 * 2, "i * 8"),
        (i // 1, "i"),
        (i % 1, "0"),
        (i // 32 * 32 + i % 32, "i"),
        (i // 32 * 32 + i % 16, "i // 32 * 32 + i % 16"),
        (s.minimum(i, i), "i"),
        (s.select(s.index(1) < 2, i, n), "i"),
        ((i < 3) & s.const(True, bool_), "i < 3"),
        (s.const(255, uint8) + 1, "0u8"),
        ((i + 2) // size * size + (i + 2) % size, "i + 2"),
        (i // (size * 3) * (size * 3) + i % (size * 3), "i"),
        (i // size * size + i % s.var("m"), "i // size * size + i % m"),
    ],
)
def test_simplified(expr, text):
    assert show(expr) == text


def test_wrapping_products_are_not_divided_away():
    """(n*3)//3 is not n where n*3 wraps; for indices there is simplify_index."""
    for expr, op in (((n * 3) // 3, "floordiv"), ((n * 3) % 3, "mod")):
        assert expr.op == op
    assert evaluate((n * 3) // 3, {n: 2**30}) == -357913942


def test_floats_are_not_simplified():
    x = s.var("x", float32)
    assert show(x + 0.0) == "x + 0.0"
    assert show(x * 0.0) == "x * 0.0"
    assert show(x - x) == "x - x"


def test_constants_are_rounded_to_their_dtype():
    assert s.const(1e300, float32).attr == np.inf
    assert s.const(70000, float16).attr == np.inf
    assert s.const(0.1, float32).attr == float(np.float32(0.1))


def test_large_integers_are_rounded_once():
    value = 2**60 + 2**36 + 1  # through float64 it would first become a tie
    folded = s.cast(s.index(value), float32)
    assert evaluate(folded) == np.int64(value).astype(np.float32)
    assert s.cast(s.index(3), float64) is s.const(3.0, float64)


def test_expressions_have_no_truth_value():
    with pytest.raises(TypeError, match="no truth value"):
        bool(i < 3)
