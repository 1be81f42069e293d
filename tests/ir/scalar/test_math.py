"""Elementary functions: at most 2 ulp, special values as in C, branch-free, legal expressions.

Oracles: NumPy in float64 for float32, NumPy in x87 extended precision for float64; erf and its
relatives in extended precision from their series and continued fraction.
"""

import numpy as np
import pytest
from scipy import special

from tinyflow.core.dtype import bfloat16, float16, float32, float64
from tinyflow.core.error import InternalError
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar.interp import evaluate
from tinyflow.ir.scalar.math import EXPANSIONS, expand
from tinyflow.ir.scalar.text import parse, show
from tinyflow.ir.scalar.verify import verify
from tinyflow.ir.scalar.visit import postorder

INF, NAN = np.inf, np.nan
EXTENDED = np.longdouble
HAS_EXTENDED = np.finfo(EXTENDED).nmant >= 63
DTYPES = [
    float32,
    pytest.param(float64, marks=pytest.mark.skipif(not HAS_EXTENDED, reason="no oracle")),
]
ROOT_PI = np.sqrt(EXTENDED("3.14159265358979323846264338327950288"))
COUNT = 4000


def erf_series(a):
    """2/sqrt(pi) * exp(-a**2) * sum of 2**n * a**(2n+1) / (1*3*...*(2n+1)): all positive."""
    term = total = a
    for n in range(1, 120):
        term = term * (2 * a * a) / (2 * n + 1)
        total = total + term
    return total * np.exp(-a * a) * 2 / ROOT_PI


def erfc_fraction(a):
    """exp(-a**2)/sqrt(pi) / (a + (1/2)/(a + 1/(a + (3/2)/(a + ...)))), for a >= 2."""
    f = a
    for k in range(160, 0, -1):
        f = a + EXTENDED(k) / 2 / f
    return np.exp(-a * a) / ROOT_PI / f


def erfc_positive(a):
    near, far = np.minimum(a, EXTENDED(2)), np.maximum(a, EXTENDED(2))
    return np.where(a < 2, 1 - erf_series(near), erfc_fraction(far))


def erf(x):
    a = np.abs(x)
    return np.sign(x) * np.where(a < 2, erf_series(np.minimum(a, 2)), 1 - erfc_positive(a))


def erfc(x):
    tail = erfc_positive(np.abs(x))
    return np.where(x < 0, 2 - tail, tail)


def erfinv(x):
    """SciPy's value and two Halley steps in extended precision."""
    a = np.abs(x)
    y = special.erfinv(a.astype(np.float64)).astype(EXTENDED)
    for _ in range(2):
        small = erf_series(np.minimum(y, EXTENDED(2))) - a
        step = np.where(a < 0.5, small, (1 - a) - erfc_positive(y)) * ROOT_PI / 2 * np.exp(y * y)
        y = y - step / (1 + y * step)
    return np.sign(x) * y


def sigmoid(x):
    z = np.exp(-np.abs(x))
    return np.where(x < 0, z, 1) / (1 + z)


def softplus(x):
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)


def uniform(low, high):
    return lambda rng: rng.uniform(low, high, COUNT)


def scales(low, high):
    """Both signs, every binary order of magnitude alike."""
    return lambda rng: rng.choice([-1, 1], COUNT) * 2.0 ** rng.uniform(low, high, COUNT)


def near_one(rng):
    return 1 + rng.choice([-1, 1], COUNT) * 2.0 ** rng.uniform(-30, 0, COUNT)


def below_one(rng):
    return rng.choice([-1, 1], COUNT) * (1 - 2.0 ** rng.uniform(-52, -1, COUNT))


#: name -> (oracle, samples for both dtypes, more for float64)
ANY, SMALL = scales(-149, 128), scales(-60, 4)
UNIT = (uniform(-1, 1), below_one, scales(-149, 0))
CASES = {
    "exp": (np.exp, (uniform(-105, 89), SMALL), uniform(-746, 710)),
    "exp2": (np.exp2, (uniform(-151, 129), SMALL), uniform(-1076, 1025)),
    "expm1": (np.expm1, (uniform(-20, 89), uniform(-2, 2), SMALL), uniform(-40, 710)),
    "log": (np.log, (ANY, near_one), scales(-1074, 1024)),
    "log2": (np.log2, (ANY, near_one), scales(-1074, 1024)),
    "log10": (np.log10, (ANY, near_one), scales(-1074, 1024)),
    "log1p": (np.log1p, (ANY, uniform(-1, 3), below_one), scales(-1074, 1024)),
    "sigmoid": (sigmoid, (uniform(-105, 30), uniform(-2, 2)), uniform(-746, 40)),
    "softplus": (softplus, (uniform(-105, 30), uniform(-2, 2)), uniform(-746, 40)),
    "rsqrt": (lambda x: 1 / np.sqrt(x), (ANY,), scales(-1074, 1024)),
    "tanh": (np.tanh, (uniform(-10, 10), uniform(-1, 1), ANY), uniform(-20, 20)),
    "sinh": (np.sinh, (uniform(-90, 90), uniform(-2, 2), SMALL), uniform(-711, 711)),
    "cosh": (np.cosh, (uniform(-90, 90), uniform(-2, 2)), uniform(-711, 711)),
    "asinh": (np.arcsinh, (ANY, uniform(-3, 3)), scales(-1074, 1024)),
    "acosh": (np.arccosh, (ANY, uniform(1, 3), near_one), scales(0, 1024)),
    "atanh": (np.arctanh, UNIT, scales(-1074, 0)),
    "sin": (np.sin, (uniform(-10, 10), uniform(-1e5, 1e5), scales(-149, 46)), uniform(-1e8, 1e8)),
    "cos": (np.cos, (uniform(-10, 10), uniform(-1e5, 1e5), scales(-149, 46)), uniform(-1e8, 1e8)),
    "tan": (np.tan, (uniform(-10, 10), uniform(-1e5, 1e5), scales(-149, 46)), uniform(-1e8, 1e8)),
    "asin": (np.arcsin, UNIT, scales(-1074, 0)),
    "acos": (np.arccos, UNIT, scales(-1074, 0)),
    "atan": (np.arctan, (ANY, uniform(-3, 3)), scales(-1074, 1024)),
    "erf": (erf, (uniform(-6, 6), uniform(-1.5, 1.5), SMALL), scales(-1000, 2)),
    "erfc": (erfc, (uniform(-6, 11), uniform(-1, 1), SMALL), uniform(0, 27.3)),
    "erfinv": (erfinv, UNIT, below_one),
}


def ulps(got, exact):
    """|got - exact| in units of the last place of the exact result, rounded to got's dtype."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(got.dtype)
        unit = np.spacing(np.abs(np.where(np.isfinite(rounded), rounded, 1)))
        error = np.abs(got.astype(EXTENDED) - exact) / unit
    same = (np.isnan(got) & np.isnan(exact)) | ((got == rounded) & np.isinf(got))
    return np.where(same, 0, np.where(np.isnan(error), INF, error))


def native(name, *args):
    """The expanded function of arrays, through the interpreter."""
    dtype = {np.dtype("float32"): float32, np.dtype("float64"): float64}[args[0].dtype]
    variables = [s.var(f"x{n}", dtype) for n in range(len(args))]
    return evaluate(s.call(name, *variables), dict(zip(variables, args, strict=True)))


def samples(name, dtype):
    _, both, wide = CASES[name]
    rng = np.random.default_rng(7)
    parts = [draw(rng) for draw in (*both, *([wide] if dtype is float64 else []))]
    with np.errstate(over="ignore", under="ignore"):
        x = np.concatenate(parts).astype(dtype.numpy)
    return x[np.abs(x) < 1] if name == "erfinv" else x


def test_every_function_is_measured():
    assert set(EXPANSIONS) == set(CASES) | {"pow", "atan2"}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_at_most_two_ulp(name, dtype):
    x = samples(name, dtype)
    oracle = CASES[name][0]
    with np.errstate(all="ignore"):
        wide = EXTENDED if dtype is float64 or name.startswith("erf") else np.float64
        exact = np.asarray(oracle(x.astype(wide)))
    error = ulps(native(name, x), exact)
    worst = int(error.argmax())
    assert error[worst] <= 2, f"{name}({x[worst]!r}): {float(error[worst]):.2f} ulp"


#: name -> {x: y}, exact; from the tables of ISO C, annex F. -0.0 (equal to 0 as a key): below.
SPECIAL = {
    "exp": {0: 1, INF: INF, -INF: 0, NAN: NAN, 1e4: INF, -1e4: 0},
    "exp2": {0: 1, 10: 1024, -1: 0.5, INF: INF, -INF: 0, NAN: NAN, 1e4: INF, -1e4: 0},
    "expm1": {0: 0, INF: INF, -INF: -1, NAN: NAN, 1e4: INF, -1e4: -1},
    "log": {0: -INF, 1: 0, INF: INF, -INF: NAN, -1: NAN, NAN: NAN},
    "log2": {0: -INF, 1: 0, 8: 3, 0.25: -2, INF: INF, -1: NAN, NAN: NAN},
    "log10": {0: -INF, 1: 0, INF: INF, -1: NAN, NAN: NAN},
    "log1p": {0: 0, -1: -INF, -2: NAN, INF: INF, -INF: NAN, NAN: NAN},
    "sigmoid": {0: 0.5, INF: 1, -INF: 0, NAN: NAN, 1e4: 1, -1e4: 0},
    "softplus": {INF: INF, -INF: 0, NAN: NAN, 1e4: 1e4, -1e4: 0},
    "rsqrt": {0: INF, 4: 0.5, INF: 0, -1: NAN, NAN: NAN},
    "tanh": {0: 0, INF: 1, -INF: -1, NAN: NAN, 1e4: 1},
    "sinh": {0: 0, INF: INF, -INF: -INF, NAN: NAN, 1e4: INF},
    "cosh": {0: 1, INF: INF, -INF: INF, NAN: NAN, 1e4: INF},
    "asinh": {0: 0, INF: INF, -INF: -INF, NAN: NAN},
    "acosh": {1: 0, 0: NAN, -INF: NAN, INF: INF, NAN: NAN},
    "atanh": {0: 0, 1: INF, -1: -INF, 2: NAN, INF: NAN, NAN: NAN},
    "sin": {0: 0, INF: NAN, -INF: NAN, NAN: NAN},
    "cos": {0: 1, INF: NAN, -INF: NAN, NAN: NAN},
    "tan": {0: 0, INF: NAN, -INF: NAN, NAN: NAN},
    "asin": {0: 0, 2: NAN, -INF: NAN, NAN: NAN},
    "acos": {1: 0, 2: NAN, -INF: NAN, NAN: NAN},
    "atan": {0: 0, NAN: NAN},
    "erf": {0: 0, INF: 1, -INF: -1, NAN: NAN},
    "erfc": {0: 1, INF: 0, -INF: 2, NAN: NAN},
    "erfinv": {0: 0, 1: INF, -1: -INF, 2: NAN, -INF: NAN, NAN: NAN},
}


@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_special_values(name, dtype):
    x = np.array(list(SPECIAL[name]), dtype.numpy)
    expected = np.array(list(SPECIAL[name].values()), dtype.numpy)
    got = native(name, x)
    np.testing.assert_array_equal(got, expected)
    assert not np.signbit(got[got == 0]).any()


ODD = {"expm1", "log1p", "tanh", "sinh", "asinh", "atanh", "sin", "tan", "asin", "atan"}
ODD |= {"erf", "erfinv"}


@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_negative_zero(name, dtype):
    (got,) = native(name, np.array([-0.0], dtype.numpy))
    (positive,) = native(name, np.array([0.0], dtype.numpy))
    sign = -1 if name in ODD or name == "rsqrt" else 1
    np.testing.assert_array_equal(got, sign * positive)
    assert np.signbit(got) == np.signbit(sign * positive) or np.isnan(got)


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "erf"])
def test_saturates_without_overshooting(name):
    x = np.linspace(2, 50, 20001)
    for kind in (np.float32, np.float64):
        y = native(name, x.astype(kind))
        assert y.max() == 1
        assert np.all(y[x > 40] == 1)
        assert np.all(native(name, -x.astype(kind)) >= -1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_huge_angles_stay_in_range(dtype):
    x = np.array([1e15, 1e20, dtype.max], dtype.numpy)
    for name in ("sin", "cos"):
        assert np.all(np.abs(native(name, x)) <= 1)


POINTS = [0.0, -0.0, 1, -1, 2, -2, 0.5, -0.5, 3, -3, INF, -INF, NAN, 1e-40, 1e30, -1e30, 33554433]


@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
@pytest.mark.parametrize(("name", "oracle"), [("pow", np.power), ("atan2", np.arctan2)])
def test_special_values_of_two(name, oracle, dtype):
    a, b = (g.ravel().astype(dtype.numpy) for g in np.meshgrid(POINTS, POINTS))
    with np.errstate(all="ignore"):
        exact = oracle(a.astype(np.float64), b.astype(np.float64)).astype(EXTENDED)
        zero = exact.astype(dtype.numpy) == 0
    got = native(name, a, b)
    # The float64 oracle itself is off by one unit.
    assert ulps(got, exact).max() <= (1.5 if dtype is float32 else 2.5)
    np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(exact[zero]))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_pow_is_within_two_ulp(dtype):
    rng = np.random.default_rng(8)
    top = 89 if dtype is float32 else 710
    a = np.exp(rng.uniform(-1, 1, 3 * COUNT) * top * rng.choice([0.01, 0.1, 1], 3 * COUNT))
    b = rng.uniform(-1.05, 1.05, 3 * COUNT) * top / np.log(a)
    whole = rng.integers(-30, 30, COUNT)
    with np.errstate(all="ignore"):
        a = np.concatenate([a, -rng.uniform(0, 4, COUNT)]).astype(dtype.numpy)
        b = np.concatenate([b, whole]).astype(dtype.numpy)
        exact = np.power(a.astype(EXTENDED), b.astype(EXTENDED))
    assert ulps(native("pow", a, b), exact).max() <= 2


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_atan2_is_within_two_ulp(dtype):
    rng = np.random.default_rng(9)
    y, x = ((rng.normal(size=9000) * 2.0 ** rng.choice([0, 1, 60], 9000)) for _ in "yx")
    y, x = y.astype(dtype.numpy), x.astype(dtype.numpy)
    exact = np.arctan2(y.astype(EXTENDED), x.astype(EXTENDED))
    assert ulps(native("atan2", y, x), exact).max() <= 2


@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
@pytest.mark.parametrize("name", EXPANSIONS)
def test_expansion_is_legal_arithmetic(name, dtype):
    arguments = [s.var("x", dtype), s.var("y", dtype)][: 2 if name in ("pow", "atan2") else 1]
    expanded = expand(s.call(name, *arguments))
    verify(expanded)
    assert expanded.dtype is dtype
    used = {node.op for node in postorder(expanded)}
    assert not used & {"call", "load", "read"}
    names = {"x": arguments[0], "y": arguments[-1]}
    assert parse(show(expanded), names) is expanded


@pytest.mark.parametrize("dtype", [float16, bfloat16], ids=str)
def test_short_floats_are_computed_in_float32(dtype):
    x = s.var("x", dtype)
    value = np.array(1.5, dtype.numpy)
    got = evaluate(s.call("exp", x), {x: value})
    assert got.dtype == dtype.numpy
    assert got == np.exp(np.float32(1.5)).astype(dtype.numpy)


def test_unknown_function():
    with pytest.raises(InternalError, match="no expansion of the function 'gamma'"):
        expand(s.call("gamma", s.var("x", float32)))


def test_nested_calls_share_what_they_share():
    x = s.var("x", float32)
    twice = s.call("exp", x) + s.call("exp", x)
    assert expand(twice).args[0] is expand(twice).args[1]
    inner = expand(s.call("log", s.call("exp", x)))
    assert not any(node.op == "call" for node in postorder(inner))
