"""sin, cos, tan and the inverse and hyperbolic functions.

Main functions: one per elementary function, Expr -> Expr. Imports core and ir.scalar.
"""

from __future__ import annotations

from tinyflow.core.dtype import float32, float64, int32
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar.math_exp import log1p
from tinyflow.ir.scalar.math_parts import (
    FORMATS,
    HALF_PI,
    INF,
    NAN,
    PI,
    QUARTER_PI,
    Table,
    at_least,
    at_most,
    bits,
    exp_scaled,
    from_bits,
    horner,
    log_parts,
    log_sum,
    magnitude,
    minus,
    real,
    sign_bit,
    with_sign,
)
from tinyflow.ir.scalar.nodes import Expr

# (sin(r) - r) / r**3 and (cos(r) - 1 + r**2/2) / r**4 in z = r**2, |r| <= 1.001 * pi/4;
# error of sin 2**-28.0 and 2**-57.9, of cos 2**-33.0 and 2**-63.9.
_SIN: Table = {
    float32: (-0.16666655, 0.008332156, -0.00019514632),
    float64: (-0.1666666666666663, 0.008333333333322005, -0.00019841269829495596,
              2.7557313587644402e-06, -2.5050742310549593e-08, 1.589590483387433e-10),
}  # fmt: skip
_COS: Table = {
    float32: (0.041666646, -0.001388731, 2.4432416e-05),
    float64: (0.041666666666666595, -0.0013888888888872895, 2.4801587288748593e-05,
              -2.755731414874026e-07, 2.087569658822802e-09, -1.1358311283794622e-11),
}  # fmt: skip

_TWO_OVER_PI = 0.6366197723675814
#: pi/2 in three floats, 159 bits.
_HALF_PI_PARTS = (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591815e-33)


def _reduce(x: Expr, parts: int) -> tuple[Expr, Expr]:
    """(r, quadrant) with |x| = n*pi/2 + r, |r| <= pi/4, n mod 4 in the low bits of an int64.

    For float64 ``x``: the multiples of pi/2 are subtracted part by part (Cody and Waite), each
    product exact inside its fma, the first difference exact as well. Right to the last bits for
    |x| <= 1e14; from 3e15 on the quotient has no integer bits left and r is only bounded.
    """
    magic = real(FORMATS[x.dtype].magic, x)
    shifted = s.fma(x, real(_TWO_OVER_PI, x), magic)
    n = shifted - magic
    r = x
    for part in _HALF_PI_PARTS[:parts]:
        r = s.fma(n, real(-part, x), r)
    return at_most(at_least(r, -0.8), 0.8), bits(shifted)


def _reduce_low(x: Expr, r: Expr) -> Expr:
    """What _reduce(x, 3) lost: |x| - n*pi/2 - r, to first order."""
    magic = real(FORMATS[x.dtype].magic, x)
    n = s.fma(x, real(_TWO_OVER_PI, x), magic) - magic
    first, second, third = (real(part, x) for part in _HALF_PI_PARTS)
    exact = s.fma(n, minus(first), x)
    product = n * second
    lost = s.fma(n, minus(second), product) - n * third
    return ((exact - r) - product) + lost


def _sin_and_cos(x: Expr) -> tuple[Expr, Expr, Expr]:
    """(sin(r), cos(r), quadrant) of |x|. float32 is reduced in float64: right up to 1e14, too."""
    a = magnitude(x)
    if x.dtype is float32:
        wide, wide_quadrant = _reduce(s.cast(a, float64), 2)
        r, quadrant = s.cast(wide, float32), s.cast(wide_quadrant, int32)
    else:
        r, quadrant = _reduce(a, 3)
    z = r * r
    sine = s.fma(r * z, horner(z, _SIN[x.dtype]), r)
    cosine = horner(z, (1.0, -0.5, *_COS[x.dtype]))
    return sine, cosine, quadrant


def _turned(value: Expr, half_turns: Expr) -> Expr:
    """``value`` negated where bit 1 of ``half_turns`` is set."""
    whole = FORMATS[value.dtype].whole
    return from_bits(bits(value) ^ ((half_turns & 2) << (whole.bits - 2)), value)


def sin(x: Expr) -> Expr:
    """sin(x); see _reduce for the range. inf gives NaN."""
    sine, cosine, quadrant = _sin_and_cos(x)
    value = s.select((quadrant & 1).equal(0), sine, cosine)
    turned = _turned(value, quadrant)
    return from_bits(bits(turned) ^ sign_bit(x), x)


def cos(x: Expr) -> Expr:
    """cos(x); see _reduce for the range. inf gives NaN."""
    sine, cosine, quadrant = _sin_and_cos(x)
    value = s.select((quadrant & 1).equal(0), cosine, sine)
    return _turned(value, quadrant + 1)


def tan64(x: Expr) -> Expr:
    """sin(x) / cos(x), with what r and the last additions lost put back into the quotient."""
    a = magnitude(x)
    r, quadrant = _reduce(a, 3)
    z = r * r
    sine_rest = r * z * horner(z, _SIN[x.dtype])
    sine = r + sine_rest
    cosine_rest = z * horner(z, (-0.5, *_COS[x.dtype]))
    cosine = cosine_rest + 1.0
    r_low = _reduce_low(a, r)
    sine_low = s.fma(r_low, cosine, sine_rest - (sine - r))
    cosine_low = s.fma(minus(r_low), sine, cosine_rest - (cosine - 1.0))
    even = (quadrant & 1).equal(0)
    top, top_low = s.select(even, sine, cosine), s.select(even, sine_low, cosine_low)
    bottom, bottom_low = s.select(even, cosine, sine), s.select(even, cosine_low, sine_low)
    inverse = real(1.0, x) / bottom
    q = top * inverse
    rest = s.fma(minus(q), bottom, top) + s.fma(minus(q), bottom_low, top_low)
    # 1/0 and its corrections are NaN, but r is 0 only for x = 0, where the sine is on top.
    return from_bits(bits(_turned(s.fma(rest, inverse, q), quadrant + quadrant)) ^ sign_bit(x), x)


# (atan(t) - t) / t**3 in t**2 for |t| <= tan(pi/8); error 2**-30.5 and 2**-59.5.
_ATAN: Table = {
    float32: (-0.33333316, 0.1999849, -0.14243838, 0.10595915, -0.06083221),
    float64: (
        -0.333333333333332, 0.1999999999995407, -0.14285714280247075, 0.11111110786046399,
        -0.09090897833267686, 0.07692061571250021, -0.06663119537465353, 0.058480021057111406,
        -0.05039812145962737, 0.03807741121633679, -0.017921220975821637,
    ),
}  # fmt: skip
_TAN_PI_8 = 0.41421356237309503


def _atan_quotient(a: Expr, b: Expr) -> Expr:
    """atan(a / b) for a, b >= 0, not both 0 or inf, with one division.

    atan(a/b) = pi/4 + atan((a-b)/(a+b)) = pi/2 - atan(b/a), whichever has a small argument.
    """
    steep, flat = a * _TAN_PI_8 > b, a < b * _TAN_PI_8
    top = s.select(steep, minus(b), s.select(flat, a, a - b))
    bottom = s.select(steep, a, s.select(flat, b, a + b))
    t = top / bottom
    z = t * t
    zero = real(0.0, a)
    (half_high, half_low), (quarter_high, quarter_low) = HALF_PI.of(a), QUARTER_PI.of(a)
    low = s.select(steep, half_low, s.select(flat, zero, quarter_low))
    high = s.select(steep, half_high, s.select(flat, zero, quarter_high))
    return high + (t + s.fma(t * z, horner(z, _ATAN[a.dtype]), low))


def atan(x: Expr) -> Expr:
    """atan(x) in [-pi/2, pi/2]"""
    return with_sign(_atan_quotient(magnitude(x), real(1.0, x)), x)


def atan2(y: Expr, x: Expr) -> Expr:
    """The angle of the point (x, y) in [-pi, pi], with C's special cases."""
    a, b = magnitude(y), magnitude(x)
    form = FORMATS[x.dtype]
    # Two infinities are at 45 degrees, like two ones; two zeros on the axis, like 0 over 1.
    both = a.equal(b) & a.equal(INF)
    a = s.select(both, real(1.0, x), a)
    b = s.select(both, real(1.0, x), s.select(a.equal(b) & a.equal(0.0), real(1.0, x), b))
    # Scale so that neither the sum overflows nor the products underflow.
    top = 2.0 ** (form.bias - 1)
    huge, tiny = (a > top / 4) | (b > top / 4), (a < 1 / top) & (b < 1 / top)
    scale = s.select(huge, real(2.0**-8, x), s.select(tiny, real(2.0**64, x), real(1.0, x)))
    angle = _atan_quotient(a * scale, b * scale)
    high, low = PI.of(x)
    angle = s.select(bits(x) < 0, high - (angle - low), angle)
    return with_sign(s.select(x.equal(x) & y.equal(y), angle, x + y), y)


# (asin(t) - t) / t**3 in t**2 for |t| <= 1/2; error 2**-27.6 and 2**-59.8.
_ASIN: Table = {
    float32: (0.16666754, 0.07495241, 0.045477223, 0.024146946, 0.042219754),
    float64: (
        0.16666666666666763, 0.07499999999970267, 0.044642857175120274, 0.030381942683514535,
        0.022372215665911944, 0.01735159995276871, 0.013980963500417318, 0.011397756474955029,
        0.010786652597783821, 0.0036825244131922764, 0.0217648786482737, -0.02107941153718358,
        0.03267831845490671,
    ),
}  # fmt: skip


def _asin_core(a: Expr) -> tuple[Expr, Expr, Expr]:
    """(outer, t, u): asin(a) = t + u for a <= 1/2, else outer and t + u = asin(sqrt((1-a)/2))."""
    outer = a > 0.5
    z = s.select(outer, s.fma(a, real(-0.5, a), real(0.5, a)), a * a)
    t = s.select(outer, s.unary("sqrt", z), a)
    return outer, t, t * z * horner(z, _ASIN[a.dtype])


def asin(x: Expr) -> Expr:
    """asin(x) = pi/2 - 2*asin(sqrt((1-x)/2)) above 1/2; NaN outside [-1, 1]."""
    a = magnitude(x)
    outer, t, u = _asin_core(a)
    high, low = HALF_PI.of(x)
    # The rounding of the root counts double near 1/2, where 2t is 1: take it back to first order,
    # 1/(2t) = 2 - 2t + O((t - 1/2)**2).
    z = s.fma(a, real(-0.5, a), real(0.5, a))
    root_low = s.fma(minus(t), t, z) * s.fma(t, real(-2.0, x), real(2.0, x))
    far = s.fma(t, real(-2.0, x), high) - s.fma(u + root_low, real(2.0, x), minus(low))
    return with_sign(s.select(outer, far, t + u), x)


def acos(x: Expr) -> Expr:
    """acos(x) = 2*asin(sqrt((1-x)/2)) above 1/2; NaN outside [-1, 1]."""
    outer, t, u = _asin_core(magnitude(x))
    p = t + u
    (half_high, half_low), (high, low) = HALF_PI.of(x), PI.of(x)
    twice = p + p
    far = s.select(x < 0.0, high - (twice - low), twice)
    near = half_high - (with_sign(p, x) - half_low)
    return s.select(outer, far, near)


# (sinh(x) - x) / x**3 in x**2 for |x| <= 1; error 2**-63.
_SINH = (0.16666666666666669, 0.008333333333333137, 0.0001984126984143846,
         2.7557319155082477e-06, 2.505212344032429e-08, 1.6057236985141384e-10,
         7.75941712324567e-13)  # fmt: skip


def _half_exp(a: Expr) -> Expr:
    """exp(a)/2 for a >= 0, finite as long as sinh and cosh are."""
    p, first, second = exp_scaled(at_most(a, 711.0), halved=True)
    return p * first * second


def sinh64(x: Expr) -> Expr:
    """(exp(a) - exp(-a)) / 2 with a = |x|, a polynomial below 1."""
    a = magnitude(x)
    h, z = _half_exp(a), a * a
    small = s.fma(a * z, horner(z, _SINH), a)
    return with_sign(s.select(a < 1.0, small, h - 0.25 / h), x)


def cosh64(x: Expr) -> Expr:
    """(exp(a) + exp(-a)) / 2 with a = |x|"""
    h = _half_exp(magnitude(x))
    return h + 0.25 / h


def _log_twice(x: Expr) -> Expr:
    """log(2x) for x > 0, finite where 2x is not; inf and NaN pass."""
    e, f = log_parts(x)
    return s.select(x < INF, log_sum(e + 1.0, f), x)


_LARGE = 2.0**28  # x**2 + 1 == x**2 from here on


def asinh64(x: Expr) -> Expr:
    """log(a + sqrt(a**2 + 1)) = log1p(a + a**2 / (1 + sqrt(a**2 + 1))) with a = |x|"""
    a = magnitude(x)
    c = at_most(a, _LARGE)
    square = c * c
    near = log1p(c + square / (s.unary("sqrt", square + 1.0) + 1.0))
    return with_sign(s.select(a > _LARGE, _log_twice(a), near), x)


def acosh64(x: Expr) -> Expr:
    """log(x + sqrt(x**2 - 1)) = log1p(t + sqrt(t*(t + 2))) with t = x - 1; NaN below 1."""
    t = at_most(x, _LARGE) - 1.0
    square = s.fma(t, t, t + t)
    root = s.unary("sqrt", square)
    total = t + root
    # What the sum and the root lost, to first order; 1e-300 keeps 0/0 away.
    lost = (t - (total - root)) + s.fma(minus(root), root, square) / (root + root + 1e-300)
    near = log1p(total) + lost / (total + 1.0)
    value = s.select(x > _LARGE, _log_twice(x), near)
    return s.select(x < 1.0, real(NAN, x), value)


def atanh64(x: Expr) -> Expr:
    """log1p(2a / (1 - a)) / 2 with a = |x|; inf at 1, NaN beyond."""
    a = magnitude(x)
    below = 1.0 - a
    below_low = (1.0 - below) - a
    q = (a + a) / below
    # What the quotient lost changes log(1 + q) = log((1 + a)/(1 - a)) by lost / (1 + a).
    lost = s.fma(minus(q), below, a + a) - q * below_low
    value = s.select(a < 1.0, log1p(q) + lost / (a + 1.0), real(INF, x)) * 0.5
    return with_sign(s.select(a <= 1.0, value, real(NAN, x)), x)
