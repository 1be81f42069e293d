"""The interpreter against exact arithmetic: Python integers and fractions."""

from fractions import Fraction

import numpy as np
import pytest

from tinyflow.core.dtype import bool_, float32, float64, int8, int32, int64, uint8, uint32, uint64
from tinyflow.ir.loop.nodes import Buffer
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar.interp import evaluate, fma
from tinyflow.te.tensor import placeholder

SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 5e-324, -5e-324, 2.2e-308, 1.7e308,
           1e-45, 3e38, 1.5, 2.0**-149, 1 + 2.0**-52, 1 - 2.0**-53, 1 + 2.0**-23]  # fmt: skip


def value(op, dtype, *args, result=None):
    variables = [s.var(f"v{n}", dtype) for n in range(len(args))]
    expr = s.make(op, tuple(variables), result or dtype)
    return evaluate(expr, dict(zip(variables, args, strict=True)))


def rounded(exact, kind):
    """An exact fraction to the nearest float32 or float64, ties to even, by integers only."""
    if exact == 0:
        return 0.0
    digits, lowest, biggest = (24, -149, 2.0**128) if kind is np.float32 else (53, -1074, None)
    size = abs(exact)
    exponent = size.numerator.bit_length() - size.denominator.bit_length() - digits
    while size / Fraction(2) ** exponent >= 2**digits:
        exponent += 1
    exponent = max(exponent, lowest)
    whole = round(size / Fraction(2) ** exponent)  # round() of a Fraction is half to even
    try:
        got = float(whole * Fraction(2) ** exponent)
    except OverflowError:
        got = np.inf
    got = np.inf if biggest and got >= biggest else got
    return -got if exact < 0 else got


@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
def test_fma_is_rounded_once(dtype):
    kind = dtype.numpy.type
    rng = np.random.default_rng(1)
    width = 30 if dtype is float32 else 400
    a, b = (rng.normal(size=4000) * 2.0 ** rng.integers(-width, width, 4000) for _ in "ab")
    a, b = a.astype(kind), b.astype(kind)
    # Hard cases: c close to -a*b, to half an ulp of it, and far below it.
    scale = rng.choice([1, 1, 2.0**-24, 2.0**-25, 2.0**-53, 2.0**-54, 2.0**-60, 2.0**24], 4000)
    with np.errstate(all="ignore"):
        c = (-(a * b) * scale).astype(kind)
    got = fma(a, b, c, dtype)
    assert got.dtype == dtype.numpy
    for x, y, z, result in zip(a, b, c, got, strict=True):
        if np.isfinite(z):
            exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
            assert float(result) == rounded(exact, kind), (x, y, z)


@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
def test_fma_of_special_values(dtype):
    with np.errstate(over="ignore"):
        values = np.array(SPECIAL).astype(dtype.numpy)
    a, b, c = (x.ravel() for x in np.meshgrid(values, values, values))
    got = fma(a, b, c, dtype)
    for x, y, z, result in zip(*(v.tolist() for v in (a, b, c, got)), strict=True):
        if np.isfinite([x, y, z]).all():
            exact = Fraction(x) * Fraction(y) + Fraction(z)
            expected = rounded(exact, dtype.numpy.type)
            assert result == expected
            if exact < 0 or (exact == 0 and x * y == z == 0):
                sign = -1 if exact < 0 else np.copysign(1, np.float64(x * y) + z)
                assert np.copysign(1, result) == sign, (x, y, z)
        else:
            with np.errstate(all="ignore"):
                expected = np.float64(x) * np.float64(y) + np.float64(z)
            np.testing.assert_equal(result, expected)


def test_float64_fma_is_fast_enough():
    x = np.random.default_rng(2).normal(size=100_000)
    assert np.all(fma(x, x, -(x * x), float64) == fma(-x, x, x * x, float64) * -1)


@pytest.mark.parametrize("dtype", [int8, uint8, int32, int64, uint32, uint64], ids=str)
def test_integer_arithmetic(dtype):
    rng = np.random.default_rng(3)
    edge = [dtype.min, dtype.min + 1, dtype.max, dtype.max - 1, 0, 1, 2, 3, 7]
    edge += [-1, -2, -3, -7] if dtype.kind == "int" else []
    edge += rng.integers(dtype.min, dtype.max, 20, dtype.numpy).tolist()
    values = np.array(edge, object).astype(dtype.numpy)
    a, b = (x.ravel() for x in np.meshgrid(values, values))

    def wrap(number):
        return np.array(int(number) & (2**dtype.bits - 1), np.uint64).astype(dtype.numpy)

    def trunc(x, y):
        return abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)

    meanings = {
        "add": lambda x, y: x + y,
        "sub": lambda x, y: x - y,
        "mul": lambda x, y: x * y,
        "floordiv": lambda x, y: x // y if y else 0,
        "mod": lambda x, y: x % y if y else 0,
        "truncdiv": lambda x, y: trunc(x, y) if y else 0,
        "rem": lambda x, y: x - trunc(x, y) * y if y else 0,
        "min": min,
        "max": max,
        "and": lambda x, y: x & y,
        "or": lambda x, y: x | y,
        "xor": lambda x, y: x ^ y,
    }
    for op, meaning in meanings.items():
        got = value(op, dtype, a, b)
        assert got.dtype == dtype.numpy
        expected = [wrap(meaning(x, y)) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
        np.testing.assert_array_equal(got, expected, op)
    for op, meaning in {"neg": lambda x: -x, "abs": abs, "not": lambda x: ~x}.items():
        expected = [wrap(meaning(x)) for x in a.tolist()]
        np.testing.assert_array_equal(value(op, dtype, a), expected, op)


@pytest.mark.parametrize("dtype", [int8, uint8, int32, int64, uint64], ids=str)
def test_shifts(dtype):
    a = np.array([1, 3, dtype.max, dtype.min], dtype.numpy)
    for amount in (0, 1, 5, dtype.bits - 1, dtype.bits, dtype.bits + 3):
        b = np.full_like(a, amount)
        left = [(x << amount) & (2**dtype.bits - 1) for x in a.tolist()]
        np.testing.assert_array_equal(value("shl", dtype, a, b).view(f"u{dtype.size_bytes}"), left)
        np.testing.assert_array_equal(value("shr", dtype, a, b), [x >> amount for x in a.tolist()])


@pytest.mark.parametrize("source", [float32, float64], ids=str)
@pytest.mark.parametrize("target", [int8, uint8, int32, uint32, int64, uint64], ids=str)
def test_float_to_integer_saturates(source, target):
    values = [
        0.5,
        -0.5,
        1.99,
        -1.99,
        127.9,
        128,
        -128.9,
        -129,
        255.9,
        256,
        2.0**31,
        2.0**32,
        2.0**63,
    ]
    values += [-(2.0**31), -(2.0**63), 2.0**64, 1e30, -1e30, 2.0**62 + 2.0**40]
    x = np.array(values, source.numpy)
    expected = [min(max(int(v), target.min), target.max) for v in x.tolist()]
    np.testing.assert_array_equal(value("cast", source, x, result=target), expected)
    special = np.array([np.nan, np.inf, -np.inf], source.numpy)
    got = value("cast", source, special, result=target)
    assert got.tolist() == [0, target.max, target.min]


def test_minimum_and_maximum():
    inf, nan = np.inf, np.nan
    a = np.array([1, nan, 1, 0.0, -0.0, inf, -inf], np.float32)
    b = np.array([2, 1, nan, -0.0, 0.0, nan, inf], np.float32)
    low, high = value("min", float32, a, b), value("max", float32, a, b)
    np.testing.assert_array_equal(low, [1, nan, nan, 0, 0, nan, -inf])
    np.testing.assert_array_equal(high, [2, nan, nan, 0, 0, nan, inf])
    assert np.signbit(low[3:5]).all()
    assert not np.signbit(high[3:5]).any()


def test_comparisons_with_nan():
    x = np.array([np.nan], np.float64)
    for op, expected in {"lt": False, "le": False, "eq": False, "ne": True}.items():
        assert value(op, float64, x, x, result=bool_).tolist() == [expected]


def test_rounding_and_bits():
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.7], np.float32)
    assert value("rint", float32, x).tolist() == [0, 2, 2, -0.0, -2]
    assert value("floor", float32, x).tolist() == [0, 1, 2, -1, -2]
    assert value("ceil", float32, x).tolist() == [1, 2, 3, 0, -1]
    assert value("trunc", float32, x).tolist() == [0, 1, 2, 0, -1]
    assert value("bitcast", float32, np.float32(1), result=int32) == 0x3F800000
    assert value("cast", int64, np.int64(2**62 + 1), result=float32) == np.float32(2.0**62)


def test_loads_reads_and_broadcasting():
    i, j, k = s.var("i"), s.var("j"), s.var("k")
    buffer, tensor = Buffer("A", float32, (4, 5)), placeholder((5,), float32, "T")
    a, t = np.arange(20, dtype=np.float32).reshape(4, 5), np.arange(5, dtype=np.float32)
    expr = s.load(buffer, i, j) * s.read(tensor, j) + s.cast(i, float32)
    got = evaluate(
        expr,
        {i: np.arange(4)[:, None], j: np.arange(5)},
        load=lambda b, indices: a[indices],
        read=lambda b, indices: t[indices],
    )
    np.testing.assert_array_equal(got, a * t + np.arange(4, dtype=np.float32)[:, None])
    dot = s.reduce("dot", ((k, 5),), s.load(buffer, i, k), s.read(tensor, k))
    got = evaluate(
        dot,
        {i: 2},
        load=lambda b, indices: a[indices],
        read=lambda b, indices: t[indices],
    )
    assert got == a[2] @ t


def test_fold_is_the_halving_tree():
    lanes = np.array([1e8, 1, -1e8, 1], np.float32)
    got = evaluate(s.fold("sum", Buffer("P", float32, (4,))), load=lambda b, i: lanes[i])
    assert got == np.float32(2)  # (1e8 - 1e8) + (1 + 1); a running sum gives 1
    zeros = np.array([0.0, -0.0], np.float32)
    got = evaluate(s.fold("min", Buffer("P", float32, (2,))), load=lambda b, i: zeros[i])
    assert np.signbit(got)


def test_checked_reports_the_first_failure():
    i, reports = s.var("i"), []
    expr = s.checked(i, i < 3, i, s.index(3), s.INDEX_OUT_OF_RANGE)
    got = evaluate(expr, {i: np.array([1, 7, 9])}, report=lambda *r: reports.append(r))
    assert got.tolist() == [1, 7, 9]
    assert reports == [(s.INDEX_OUT_OF_RANGE, 7, 3)]
    evaluate(expr, {i: 2}, report=lambda *r: pytest.fail("nothing to report"))


def test_shared_subexpressions_are_evaluated_once():
    x = e = s.var("x", float64)
    for _ in range(3000):
        e = (e + e) * 0.5
    assert evaluate(e, {x: 3.0}) == 3.0
