"""What the elementary functions are made of: float formats, polynomials, bits, exp and log cores.

Main types: ``Format``; main functions: ``horner``, ``exp_scaled``, ``split``. Imports core and
ir.scalar.nodes. Coefficients here and in the other math_*.py files are minimax fits (Remez exchange
in 45-digit arithmetic), rounded to the format; each table states its error as a power of two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tinyflow.core.dtype import DType, float32, float64, int32, int64, uint32, uint64
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar.nodes import Expr


class Format(NamedTuple):
    """A binary float format.

    magic: 1.5 * 2**mantissa. x + magic rounds x to an integer, which then stands in the low bits.
    """

    real: DType
    whole: DType
    natural: DType
    mantissa: int
    bias: int
    magic: float

    @property
    def one(self) -> int:
        """The bits of 1.0."""
        return self.bias << self.mantissa

    @property
    def low(self) -> int:
        """The mantissa field."""
        return (1 << self.mantissa) - 1


FORMATS = {
    float32: Format(float32, int32, uint32, 23, 127, 1.5 * 2.0**23),
    float64: Format(float64, int64, uint64, 52, 1023, 1.5 * 2.0**52),
}

INF, NAN = float("inf"), float("nan")


class Constant(NamedTuple):
    """A real number as a sum of two floats of each format."""

    float32: tuple[float, float]
    float64: tuple[float, float]

    def of(self, x: Expr) -> tuple[Expr, Expr]:
        high, low = self.float32 if x.dtype is float32 else self.float64
        return s.const(high, x.dtype), s.const(low, x.dtype)


LN2 = Constant((0.6931472, -1.9046542e-09), (0.6931471805599453, 2.3190468138462996e-17))
LOG2E = Constant((1.442695, 1.925963e-08), (1.4426950408889634, 2.0355273740931033e-17))
LOG10E = Constant((0.4342945, -1.010305e-08), (0.4342944819032518, 1.098319650216765e-17))
HALF_PI = Constant((1.5707964, -4.371139e-08), (1.5707963267948966, 6.123233995736766e-17))
QUARTER_PI = Constant((0.7853982, -2.1855694e-08), (0.7853981633974483, 3.061616997868383e-17))
PI = Constant((3.1415927, -8.742278e-08), (3.141592653589793, 1.2246467991473532e-16))

Coefficients = Sequence[float]
Table = dict[DType, Coefficients]  # from the constant term up


def real(value: float, x: Expr) -> Expr:
    """A literal of ``x``'s dtype."""
    return s.const(value, x.dtype)


def horner(x: Expr, coefficients: Coefficients) -> Expr:
    """c0 + x*(c1 + x*(c2 + ...)), one fma per step."""
    total = real(coefficients[-1], x)
    for c in reversed(coefficients[:-1]):
        total = s.fma(total, x, real(c, x))
    return total


def bits(x: Expr) -> Expr:
    return s.bitcast(x, FORMATS[x.dtype].whole)


def from_bits(whole: Expr, x: Expr) -> Expr:
    return s.bitcast(whole, x.dtype)


def magnitude(x: Expr) -> Expr:
    return s.unary("abs", x)


def sign_bit(x: Expr) -> Expr:
    """The bits of -0.0 where ``x`` is negative (or -0.0), else 0."""
    return bits(x) & (-1 << (FORMATS[x.dtype].whole.bits - 1))


def with_sign(value: Expr, x: Expr) -> Expr:
    """``value``, which is >= 0 or already has x's sign, with the sign of ``x``; keeps -0.0."""
    return from_bits(bits(value) | sign_bit(x), x)


def at_least(x: Expr, low: float) -> Expr:
    """max(x, low); NaN passes. A select is one instruction where a NaN-correct max is several."""
    return s.select(x < low, real(low, x), x)


def at_most(x: Expr, high: float) -> Expr:
    return s.select(x > high, real(high, x), x)


def minus(x: Expr) -> Expr:
    return s.unary("neg", x)


# --- exp ------------------------------------------------------------------------------------------

# (exp(r) - 1 - r) / r**2 for |r| <= 1.003 * log(2)/2; error of exp 2**-28.2 and 2**-57.9.
EXP: Table = {
    float32: (0.49999994, 0.1666652, 0.041668408, 0.0083689215, 0.0013814174),
    float64: (
        0.5000000000000011, 0.16666666666666405, 0.041666666666527026, 0.008333333333498267,
        0.0013888888944574808, 0.00019841269500631655, 2.4801492014748457e-05,
        2.755758956549333e-06, 2.7630667888985103e-07, 2.4999733349874847e-08,
    ),
}  # fmt: skip

#: exp is 0 below the first and inf above the second.
EXP_RANGE = {float32: (-104.0, 89.0), float64: (-746.0, 710.0)}


def reduce_exp(x: Expr, shift: int) -> tuple[Expr, Expr]:
    """(r, m) with x = n*log(2) + r, |r| <= log(2)/2, and m = n + shift in the low bits of an int.

    n*ln2_high needs no spare zero bits because the product is exact inside the fma.
    """
    form = FORMATS[x.dtype]
    magic = real(form.magic + shift, x)
    shifted = s.fma(x, LOG2E.of(x)[0], magic)
    n = shifted - magic
    high, low = LN2.of(x)
    r = s.fma(n, minus(low), s.fma(n, minus(high), x))
    return r, bits(shifted)


def power_of_two(exponent: Expr, x: Expr) -> Expr:
    """2**(e - bias) for e in the low bits of ``exponent``, 0 < e < 2*bias + 1."""
    return from_bits(exponent << FORMATS[x.dtype].mantissa, x)


def two_powers(m: Expr, x: Expr) -> tuple[Expr, Expr]:
    """(a, b) with a*b = 2**n for m = n + 2*bias: two steps reach inf and the denormals exactly."""
    half = m >> 1
    return power_of_two(half, x), power_of_two(m - half, x)


def exp_scaled(x: Expr, halved: bool = False) -> tuple[Expr, Expr, Expr]:
    """(p, a, b) with exp(x) = p*a*b, p in [0.7, 1.42]; ``x`` inside EXP_RANGE. halved: exp(x)/2."""
    r, m = reduce_exp(x, 2 * FORMATS[x.dtype].bias - halved)
    p = horner(r, (1.0, 1.0, *EXP[x.dtype]))
    return (p, *two_powers(m, x))


def exp_normal(x: Expr) -> Expr:
    """exp(x) where neither ``x`` nor the result is near the ends of the range."""
    r, m = reduce_exp(x, FORMATS[x.dtype].bias)
    return horner(r, (1.0, 1.0, *EXP[x.dtype])) * power_of_two(m, x)


def exp_product(p: Expr, a: Expr, b: Expr, x: Expr) -> Expr:
    """p*a*b = exp(x), from an exact 0 where it is 0: masked scores of an attention are -1e9, and a
    product that underflows takes the processor a hundred cycles."""
    return s.select(x < EXP_RANGE[x.dtype][0], real(0.0, x), p) * a * b


def exp_negative(x: Expr) -> Expr:
    """exp(x) for x <= 0 or NaN."""
    return exp_product(*exp_scaled(at_least(x, EXP_RANGE[x.dtype][0])), x)


# --- log ------------------------------------------------------------------------------------------

# (log(1+f) - f) / f**2 for sqrt(1/2) <= 1+f <= sqrt(2); error of log 2**-27.8 and 2**-56.8.
LOG: Table = {
    float32: (-0.49999988, 0.33333325, -0.25001583, 0.20001973, -0.16609082, 0.14181824,
              -0.13242993, 0.1290444, -0.076217756),
    float64: (
        -0.5000000000000003, 0.33333333333333026, -0.24999999999974928, 0.20000000000085036,
        -0.16666666671354852, 0.14285714279637268, -0.12499999604530732, 0.1111111109812166,
        -0.10000017938003644, 0.09090927469111618, -0.08332864105775743, 0.07691432703942794,
        -0.07149937076827546, 0.06685938808374395, -0.0619437169327588, 0.056589503165770265,
        -0.05678058257168456, 0.06529556274016583, -0.06006273511517875, 0.026175295828311396,
    ),
}  # fmt: skip

#: The bits of sqrt(1/2): mantissas from here up have exponent 0, so that log is smooth at 1.
ROOT_HALF = {float32: 0x3F3504F3, float64: 0x3FE6A09E667F3BCD}


def split(x: Expr) -> tuple[Expr, Expr]:
    """(biased exponent as a natural number, mantissa - 1) for normal x > 0.

    x = (1 + f) * 2**(exponent - bias) with sqrt(1/2) <= 1 + f < sqrt(2); f is exact.
    """
    form, root = FORMATS[x.dtype], ROOT_HALF[x.dtype]
    moved = bits(x) + (form.one - root)
    exponent = s.bitcast(moved, form.natural) >> form.mantissa
    f = from_bits((moved & form.low) + root, x) - 1.0
    return exponent, f


def to_real(exponent: Expr, x: Expr, bias: Expr) -> Expr:
    """exponent - bias as a float: 2**mantissa + exponent is a matter of or-ing bits."""
    form = FORMATS[x.dtype]
    magic = (form.bias + form.mantissa) << form.mantissa
    return s.bitcast(exponent | magic, x.dtype) - bias


def log_parts(x: Expr) -> tuple[Expr, Expr]:
    """(e, f) with x = (1 + f) * 2**e for any x > 0, denormals included."""
    form = FORMATS[x.dtype]
    tiny = x < 2.0 ** (1 - form.bias)
    up = 2 * ((form.mantissa + 2) // 2)
    exponent, f = split(s.select(tiny, x * 2.0**up, x))
    base = 2.0**form.mantissa + form.bias
    return to_real(exponent, x, s.select(tiny, real(base + up, x), real(base, x))), f


def log_domain(x: Expr, value: Expr) -> Expr:
    """``value`` where 0 < x < inf; log(0) = -inf, log(inf) = inf, NaN below 0 and for NaN."""
    value = s.select(x < INF, value, x)
    outside = s.select(x.equal(0.0), real(-INF, x), real(NAN, x))
    return s.select(x <= 0.0, outside, value)


def log_sum(e: Expr, f: Expr) -> Expr:
    """e*log(2) + log(1 + f)"""
    high, low = LN2.of(f)
    tail = s.fma(f * f, horner(f, LOG[f.dtype]), e * low)
    return s.fma(e, high, f + tail)
