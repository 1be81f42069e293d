"""exp, log and what follows from them: expm1, log1p, tanh, sigmoid, softplus, sinh, cosh, roots.

Main functions: one per elementary function, Expr -> Expr. Imports core and ir.scalar.
"""

from __future__ import annotations

from tinyflow.core.dtype import float32, float64
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar.math_parts import (
    EXP,
    EXP_RANGE,
    FORMATS,
    INF,
    LN2,
    LOG,
    LOG2E,
    LOG10E,
    NAN,
    Constant,
    Table,
    at_least,
    at_most,
    bits,
    exp_negative,
    exp_product,
    exp_scaled,
    from_bits,
    horner,
    log_domain,
    log_parts,
    log_sum,
    magnitude,
    minus,
    power_of_two,
    real,
    reduce_exp,
    split,
    to_real,
    two_powers,
    with_sign,
)
from tinyflow.ir.scalar.nodes import Expr


def exp(x: Expr) -> Expr:
    """exp(x) = 2**n * exp(r), x = n*log(2) + r."""
    low, high = EXP_RANGE[x.dtype]
    return exp_product(*exp_scaled(at_most(at_least(x, low), high)), x)


# (2**f - 1) / f for |f| <= 1/2; error of exp2 2**-28.9 and 2**-58.0.
EXP2: Table = {
    float32: (0.6931472, 0.24022648, 0.055503324, 0.009618438, 0.0013398901, 0.00015353342),
    float64: (
        0.6931471805599453, 0.2402265069591013, 0.05550410866482008, 0.009618129107594065,
        0.0013333558146775184, 0.00015403530457188243, 1.5252733492743754e-05,
        1.3215435241270061e-06, 1.0178199667588522e-07, 7.073790769801251e-09,
        4.434766203818519e-10,
    ),
}  # fmt: skip


def exp2(x: Expr) -> Expr:
    """2**x; exact for integers."""
    form = FORMATS[x.dtype]
    x = at_most(at_least(x, -form.bias - form.mantissa - 1.0), form.bias + 1.0)
    magic = real(form.magic + 2 * form.bias, x)
    shifted = x + magic
    p = horner(x - (shifted - magic), (1.0, *EXP2[x.dtype]))
    a, b = two_powers(bits(shifted), x)
    return p * a * b


#: exp(x) - 1 is -1 below.
_EXPM1_LOW = {float32: -18.0, float64: -38.0}


def _half_expm1(x: Expr) -> Expr:
    """(exp(x) - 1) / 2 for ``x`` inside [_EXPM1_LOW, EXP_RANGE]: half, so that 2**(n-1) is finite.

    = h*r**2*q + (h*r + (h - 1/2)) with h = 2**(n-1); the second sum is exact where it cancels.
    """
    r, m = reduce_exp(x, FORMATS[x.dtype].bias - 1)
    h = power_of_two(m, x)
    return s.fma(r * r * h, horner(r, EXP[x.dtype]), s.fma(r, h, h - 0.5))


def expm1(x: Expr) -> Expr:
    """exp(x) - 1"""
    half = _half_expm1(at_most(at_least(x, _EXPM1_LOW[x.dtype]), EXP_RANGE[x.dtype][1]))
    return with_sign(half + half, x)


#: tanh rounds to 1 from here on.
_TANH_LIMIT = {float32: 9.02, float64: 19.1}

# As EXP for -0.201 <= r/log(2) <= 0.801; error of tanh 2**-26.8 and 2**-56.3.
_TANH_EXP: Table = {
    float32: (0.49999973, 0.1666682, 0.04168302, 0.008201805, 0.0016847395),
    float64: (
        0.49999999999999906, 0.1666666666666915, 0.04166666666664344, 0.008333333330478393,
        0.0013888889073243886, 0.0001984127253708937, 2.4800914332474205e-05,
        2.7586035440605835e-06, 2.697958100478912e-07, 3.074815084907103e-08,
    ),
}  # fmt: skip


def tanh(x: Expr) -> Expr:
    """(exp(2a) - 1) / (exp(2a) + 1) with a = |x|, and the sign of x.

    With v = (exp(2a) - 1)/2 it is q = v / (v + 1); where v is small v - v*q is the same with only
    the rounding of v and of the result. 2a = n*log(2) + r is rounded so that r > -0.2*log(2):
    then n = 0 up to a = 0.27, and h*p + (h - 1/2) does not cancel beyond.
    """
    a = at_most(magnitude(x), _TANH_LIMIT[x.dtype])
    form = FORMATS[x.dtype]
    magic = real(form.magic + form.bias - 1, x)
    shifted = s.fma(a, real(2 * LOG2E.float64[0], x), real(-0.3, x)) + magic
    n, (high, low) = shifted - magic, LN2.of(x)
    r = s.fma(n, minus(low), s.fma(n, minus(high), a + a))
    p = s.fma(r * r, horner(r, _TANH_EXP[x.dtype]), r)
    h = power_of_two(bits(shifted), x)
    v = s.fma(p, h, h - 0.5)
    q = v / (v + 1.0)
    return with_sign(s.select(v < 0.35, s.fma(minus(v), q, v), q), x)


def log(x: Expr) -> Expr:
    """log(x) = e*log(2) + log(1 + f)"""
    return log_domain(x, log_sum(*log_parts(x)))


def _log_base(x: Expr, scale: Constant, per_octave: Constant | None) -> Expr:
    """log(x) * scale, the product folded into the polynomial so that it costs no rounding."""
    e, f = log_parts(x)
    high, low = scale.of(x)
    tail = horner(f, [low.attr, *(c * scale.float64[0] for c in LOG[x.dtype])])
    if per_octave is None:
        value = e + s.fma(f, high, f * tail)
    else:
        octave, rest = per_octave.of(x)
        value = s.fma(e, octave, s.fma(f, high, s.fma(f, tail, e * rest)))
    return log_domain(x, value)


def log2(x: Expr) -> Expr:
    """log2(x); exact for powers of two."""
    return _log_base(x, LOG2E, None)


_LOG10_2 = Constant((0.30103, -1.4320989e-08), (0.3010299956639812, -2.8037281277851704e-18))


def log10(x: Expr) -> Expr:
    return _log_base(x, LOG10E, _LOG10_2)


def log1p(x: Expr) -> Expr:
    """log(1+x): e from u = 1+x, but 1 + f = (1+x) * 2**-e computed without rounding u.

    f = x*2**-e + (2**-e - 1) in one fma; where x is so large that 2**-e has no float, u == x.
    """
    form = FORMATS[x.dtype]
    u = x + 1.0
    exponent, f_of_u = split(u)
    e = to_real(exponent, x, real(2.0**form.mantissa + form.bias, x))
    scale = from_bits(
        (2 * form.bias << form.mantissa)
        - s.bitcast(exponent << form.mantissa, form.whole), x
    )  # fmt: skip
    f = s.select(x > 2.0**64, f_of_u, s.fma(x, scale, scale - 1.0))
    value = s.select(x < INF, log_sum(e, f), x)
    outside = s.select(x.equal(-1.0), real(-INF, x), real(NAN, x))
    return with_sign(s.select(x <= -1.0, outside, value), x)


def log1p_of_unit(z: Expr) -> Expr:
    """log(1+z) for 0 <= z <= 1: the exponent is 0 or 1."""
    form = FORMATS[z.dtype]
    octave = z > 0.41421354
    f = s.select(octave, s.fma(z, real(0.5, z), real(-0.5, z)), z)
    high, low = LN2.of(z)
    zero = real(0.0, z)
    tail = s.fma(f * f, horner(f, LOG[form.real]), s.select(octave, low, zero))
    return s.select(octave, high, zero) + (f + tail)


#: sigmoid is 0 below the first and rounds to 1 above the second.
_SIGMOID_RANGE = {float32: (-104.0, 17.4), float64: (-746.0, 37.5)}


def sigmoid(x: Expr) -> Expr:
    """1 / (1 + exp(-x)) = u / (u + exp(-r)) with x = n*log(2) + r, u = 2**n.

    With t = exp(-r) - 1 the denominator u + 1 + t is rounded once: u + 1 is exact, or u tiny and
    added to t first. u in two steps reaches the denormals.
    """
    form = FORMATS[x.dtype]
    low, high = _SIGMOID_RANGE[x.dtype]
    r, m = reduce_exp(at_most(at_least(x, low), high), 2 * form.bias)
    a, b = two_powers(m, x)
    r = minus(r)
    t = s.fma(r * r, horner(r, EXP[x.dtype]), r)
    left, one = x < -8.5, real(1.0, x)
    return a / (s.fma(a, b, s.select(left, t, one)) + s.select(left, one, t)) * b


def softplus(x: Expr) -> Expr:
    """log(1 + exp(x)) = log1p(exp(-|x|)) + max(x, 0)"""
    z = exp_negative(minus(magnitude(x)))
    return log1p_of_unit(z) + s.select(x > 0.0, x, real(0.0, x))


def rsqrt(x: Expr) -> Expr:
    """1 / sqrt(x)"""
    return real(1.0, x) / s.unary("sqrt", x)
