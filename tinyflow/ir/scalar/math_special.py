"""erf, erfc, erfinv and pow.

Main functions: one per elementary function, Expr -> Expr. Imports core and ir.scalar.
"""

from __future__ import annotations

from tinyflow.core.dtype import float32, float64
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar.math_parts import (
    EXP,
    FORMATS,
    INF,
    LN2,
    LOG,
    LOG2E,
    NAN,
    Table,
    at_least,
    at_most,
    bits,
    exp_normal,
    exp_scaled,
    from_bits,
    horner,
    log_parts,
    log_sum,
    magnitude,
    minus,
    power_of_two,
    real,
    reduce_exp,
    sign_bit,
    two_powers,
    with_sign,
)
from tinyflow.ir.scalar.nodes import Expr

Pair = tuple[Expr, Expr]  # an unevaluated sum, the second part below half an ulp of the first


def _sum_ordered(a: Expr, b: Expr) -> Pair:
    """a + b exactly, |a| >= |b| (Dekker)."""
    total = a + b
    return total, b - (total - a)


def _product(a: Expr, b: Expr) -> Pair:
    total = a * b
    return total, s.fma(a, b, minus(total))


# erf(x)/x - 1 in x**2 for |x| <= 1: 2**-29.6 and 2**-56.7.
_ERF_SMALL: Table = {
    float32: (0.12837917, -0.37612626, 0.11283583, -0.026853723, 0.0051881387, -0.00080083543,
              7.847207e-05),
    float64: (
        0.12837916709551256, -0.37612638903183493, 0.112837916709431, -0.026866170642932365,
        0.005223977604607683, -0.0008548325855218022, 0.00012055291318092519,
        -1.4924668197473569e-05, 1.644657969073765e-06, -1.620203498984405e-07,
        1.3692270243298441e-08, -7.744201364356362e-10,
    ),
}  # fmt: skip
# log(erfc(x)) from 1 to where erf(x) rounds to 1; error of erf 2**-29.8 and 2**-62.2.
_LOG_ERFC: Table = {
    float32: (-0.00033939048, -1.1270976, -0.6381314, -0.103118, 0.021843258, -0.0029489095,
              0.00018650203),
    float64: (
        -2.2948483907152404e-08, -1.1283789650848028, -0.6366204993788589, -0.1027715099233363,
        0.01912947466200639, 0.00020012471706294094, -0.0016724143954191585,
        0.0005500164491226966, 2.372506850039917e-05, -0.00011179449130130986,
        6.524129866806843e-05, -2.446429203415195e-05, 6.840818723041409e-06,
        -1.4836041779532042e-06, 2.5081437124219995e-07, -3.258969845095796e-08,
        3.1513137556012464e-09, -2.1380577041059572e-10, 9.083675184634483e-12,
        -1.818048089570858e-13,
    ),
}  # fmt: skip
#: erf rounds to 1 from here on.
_ERF_LIMIT = {float32: 3.93, float64: 5.95}


def erf(x: Expr) -> Expr:
    """x + x * P(x**2) below 1, 1 - exp(log(erfc(|x|))) above."""
    a = at_most(magnitude(x), _ERF_LIMIT[x.dtype])
    square = a * a
    small = s.fma(a, horner(square, _ERF_SMALL[x.dtype]), a)
    large = 1.0 - exp_normal(horner(a, _LOG_ERFC[x.dtype]))
    return with_sign(s.select(a < 1.0, small, large), x)


# erfc(x) * exp(x**2) * (1 + 2x) in (x - 4) / (x + 4) for 0 <= x <= 27.3; error 2**-61.6.
# Source of the form: M. Shepherd, J. Laframboise, Math. Comp. 36(153), 1981.
_ERFC = (
    1.2329951186255526, -0.13962111684056253, 0.015379652102620081, 0.06809705425469297,
    -0.10103906603632774, 0.09373283499833655, -0.06633036581158555, 0.03716751553781334,
    -0.016197734066559954, 0.00503196997297104, -0.0007577732179778706, -0.00019925664803914156,
    0.00015062132485407081, -2.4399483193411035e-05, -1.122093289113577e-05,
    5.710707730191223e-06, 2.9168508104178867e-07, -8.276513626258523e-07, 7.70146431428682e-08,
    1.1316774896251853e-07, -1.91207198023619e-08, -1.6546276125442086e-08,
    1.708204177331559e-09, 2.0898420590405966e-09, 2.8480831359777616e-10,
)  # fmt: skip


def erfc64(x: Expr) -> Expr:
    """1 - erf(x), accurate where it is small: exp(-a**2) * P(u) / (1 + 2a), a = |x| >= 1/2.

    Three factors of one rounding each would be too many, so each carries what its rounding lost.
    """
    a = at_most(magnitude(x), 27.3)
    u = (a - 4.0) / (a + 4.0)
    head, head_low = _sum_ordered(real(_ERFC[0], x), u * horner(u, _ERFC[1:]))
    below, below_low = _sum_ordered(a + a, real(1.0, x))
    inverse = real(1.0, x) / below
    q = head * inverse
    rest = s.fma(minus(q), below, head) + s.fma(minus(q), below_low, head_low)
    square, square_low = _product(a, a)
    r, m = reduce_exp(minus(square), 2 * FORMATS[float64].bias)
    p, p_low = _sum_ordered(real(1.0, x), s.fma(r * r, horner(r, EXP[float64]), r))
    p_low = s.fma(minus(p), square_low, p_low)
    high, low = _product(p, q)
    low = low + s.fma(p_low, q, p * rest * inverse)
    first, second = two_powers(m, x)
    tail = (high + low) * first * second
    z = x * x
    near = 1.0 - s.fma(x, horner(z, _ERF_SMALL[float64]), x)
    return s.select(a < 0.5, near, s.select(x < 0.0, 2.0 - tail, tail))


# erfinv(x)/x - 1 in w = -log(1 - x**2). float64: up to w = 6.25 in w - 3.125 (2**-58.2), up to 16
# in sqrt(w) - 3.25 (2**-59.8), from there in sqrt(w) - 5.03125 (2**-63.8). float32: up to w = 5 in
# w (2**-27.4), from there in sqrt(w) - 3.16 (2**-26.6). Form: M. Giles, "Approximating the erfinv
# function", GPU Computing Gems 2, 2011; own coefficients.
_ERFINV_CENTER: Table = {
    float32: (-0.11377308, 0.23201382, 0.011548652, -0.002334292, -0.00012748623, 4.4568125e-05,
              3.982156e-06, -1.9762283e-06, 2.2100362e-07, -8.78973e-09),
    float64: (
        0.6536545626831027, 0.24015818242558834, -0.006033670871426996, -0.0007407025341545546,
        0.00018673420802052925, -1.3882523394196495e-05, -1.365469177263573e-06,
        4.2347881711938704e-07, -2.907038989607316e-08, -4.112660642059858e-09,
        1.051222567213291e-09, -5.4142946638140685e-11, -1.2978504293746772e-11,
        2.6305035680682e-12, -8.079288246633639e-14, -4.001591977298825e-14,
        6.5333351251528874e-15, -3.9875231530619514e-17, -1.23447855593738e-16,
        1.5544983678748125e-17, 6.955949552230282e-19, -3.487553428041535e-19,
        1.654241157715638e-20, 3.219187551090968e-21, -3.0022056059566764e-22,
    ),
}  # fmt: skip
_ERFINV_TAIL: Table = {
    float32: (1.9934587, 1.0041932, 0.006519898, -0.004799865, 0.003358505, -0.0022636692,
              0.0012394261, -0.0003464409, -0.00014296986, 0.00011572923),
    float64: (
        2.0838856104922208, 1.0052589676941655, 0.005370914553555091, -0.0037512085082238343,
        0.0024914420979534097, -0.001688275535477099, 0.0009532893416636951,
        -0.00035503781338262313, 2.4031511857260635e-05, 6.8287114285729e-05,
        -4.732067377152453e-05, 1.2465042298734385e-05, 2.932549885946572e-06,
        -3.985744465286485e-06, 1.4816708212050432e-06, -2.7554534895776535e-08,
        -2.456107112758446e-07, 1.315309699720353e-07, -2.0818766031547184e-08,
        -1.528456990109201e-08, 7.645622883352891e-09,
    ),
}  # fmt: skip
_ERFINV_FAR = (
    3.8814781489772106, 1.0102911741198122, -0.0001584390495481845, -0.0002057201851208294,
    7.298525531195998e-05, -1.8853117562684387e-05, 4.314923873630285e-06,
    -9.380364482607785e-07, 2.1124939062370728e-07, -5.9270393391680195e-08,
    2.426630774750727e-08, -1.2538341906862278e-08, 6.490993297607839e-09,
    -2.9918540052779973e-09, 1.1551394662694733e-09, -3.488314738813465e-10,
    6.644887146631737e-11, 6.571496482769273e-12, -1.2947733117562038e-11,
    5.351158003304682e-12, -8.287369889747089e-13,
)  # fmt: skip


def _log_lost(e: Expr, f: Expr, w: Expr) -> Expr:
    """The rounding error of the last addition in w = -log_sum(e, f)."""
    high, low = LN2.of(f)
    near = f + s.fma(f * f, horner(f, LOG[f.dtype]), e * low)
    return minus(s.fma(e, high, w) + near)


def erfinv(x: Expr) -> Expr:
    """The y with erf(y) = x; +-inf at +-1, NaN beyond. x + x*p(w), w = -log((1-x)(1+x))."""
    a = magnitude(x)
    # Near 1 the factor 1 - a is exact; below 1/2 the logarithm needs -a*a, which 1 - a*a rounds.
    e, f = log_parts((1.0 - a) * (a + 1.0))
    f = s.select(a < 0.5, minus(a * a), f)
    w = minus(log_sum(e, f))
    root = s.unary("sqrt", w)
    if x.dtype is float32:
        p = s.select(
            w < 5.0,
            horner(w, _ERFINV_CENTER[float32]),
            horner(root - 3.16, _ERFINV_TAIL[float32]),
        )
    else:
        # What rounding took from w (its sum with e*log(2)) and from the root would show in the last
        # bit; 0/0 at x = 0 is not selected.
        lost = (s.fma(minus(root), root, w) + _log_lost(e, f, w)) / (root + root)
        tail = horner(root - 3.25 + lost, _ERFINV_TAIL[float64])
        far = horner(root - 5.03125 + lost, _ERFINV_FAR)
        center = horner(w - 3.125, _ERFINV_CENTER[float64])
        p = s.select(w < 6.25, center, s.select(w < 16.0, tail, far))
    outside = s.select(a.equal(1.0), real(INF, x), real(NAN, x))
    return with_sign(s.select(a < 1.0, s.fma(a, p, a), outside), x)


# --- pow ------------------------------------------------------------------------------------------

# (log(1+f) - f) / f**2 (2**-35.7), and 2**f for |f| <= 1/2 (2**-34.5): float32 pow in float64.
_POW_LOG = (-0.5000000002151561, 0.3333333404363992, -0.2499999482945867, 0.1999989813834984,
            -0.16666927459260386, 0.14290571210898537, -0.12497412487347324, 0.11009610248864743,
            -0.09927305237151608, 0.10015392521491275, -0.09871907707175866,
            0.05358673394762127)  # fmt: skip
_POW_EXP2 = (0.9999999999616851, 0.6931471807284394, 0.24022651198144168, 0.055504103534557724,
             0.009618027254083455, 0.0013333922558724264, 0.00015469291197930886,
             1.520192295505714e-05)  # fmt: skip


def _pow32(a: Expr, y: Expr) -> Expr:
    """a**y for 0 <= a, float32: 2**(y * log2(a)) in float64, rounded once at the end."""
    wide, power = s.cast(a, float64), s.cast(y, float64)
    e, f = log_parts(wide)
    scale = real(LOG2E.float64[0], wide)
    log2 = s.fma(s.fma(f * f, horner(f, _POW_LOG), f), scale, e)
    t = at_most(at_least(power * _log_ends(wide, log2), -200.0), 200.0)
    form = FORMATS[float64]
    magic = real(form.magic + form.bias, wide)
    shifted = t + magic
    p = horner(t - (shifted - magic), _POW_EXP2)
    return s.cast(p * power_of_two(bits(shifted), wide), float32)


def _log_ends(a: Expr, log: Expr) -> Expr:
    """``log`` of ``a`` with -inf at 0, inf at inf, NaN for NaN."""
    return s.select(a.equal(0.0), real(-INF, a), s.select(a < INF, log, a))


# 2*atanh(t) = 2t + t**3 * (2/3 + z*(...)) in z = t**2, |t| <= 0.1717: error of the log 2**-73.
_POW_ATANH = (0.39999999999999974, 0.28571428571445273, 0.22222222217496612, 0.18181818875208913,
              0.15384556536763278, 0.1333633029200275, 0.11674556893363049,
              0.11991194542394)  # fmt: skip
_TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)
#: log(2) with 41 bits, so that its products with exponents are exact, and the rest.
_LN2_SHORT, _LN2_REST = 0.693147180559663, 2.8235290563031577e-13


def _product_pairs(a: Pair, b: Pair) -> Pair:
    high, low = _product(a[0], b[0])
    return high, low + s.fma(a[0], b[1], a[1] * b[0])


def _log_pair(e: Expr, f: Expr) -> Pair:
    """e*log(2) + log(1 + f) to about 68 bits: 2*atanh(t) with t = f / (2 + f) as a pair."""
    below = f + 2.0
    below_low = f - (below - 2.0)
    inverse = real(1.0, f) / below
    t = f * inverse
    rest = s.fma(minus(t), below, f)
    t_pair = (t, s.fma(minus(t), below_low, rest) * inverse)
    z = _product_pairs(t_pair, t_pair)
    first, second = _sum_ordered(real(_TWO_THIRDS[0], f), z[0] * horner(z[0], _POW_ATANH))
    cubic = _product_pairs(_product_pairs(t_pair, z), (first, second + _TWO_THIRDS[1]))
    high, low = _sum_ordered(t + t, cubic[0])
    low = low + (cubic[1] + (t_pair[1] + t_pair[1]))
    # |e*log(2)| > |log(1 + f)| unless e is 0, where the sum is exact whatever the order.
    total, error = _sum_ordered(e * _LN2_SHORT, high)
    return total, error + (low + e * _LN2_REST)


def _pow64(a: Expr, y: Expr) -> Expr:
    """a**y for 0 <= a, float64: exp(y * log(a)) with the logarithm and the product as pairs."""
    high, low = _log_pair(*log_parts(a))
    high = _log_ends(a, high)
    product, error = _product(y, high)
    error = error + y * low
    t = at_most(at_least(product, -746.0), 710.0)
    # Where t was cut off the error means nothing (and is NaN when the product is infinite).
    error = s.select(t.equal(product), error, real(0.0, a))
    p, first, second = exp_scaled(t)
    return s.fma(p, error, p) * first * second


def pow_(x: Expr, y: Expr) -> Expr:
    """x**y with the special cases of C's pow (ISO C, F.10.4.4)."""
    a = magnitude(x)
    one = real(1.0, x)
    value = _pow32(a, y) if x.dtype is float32 else _pow64(a, y)
    half = y * 0.5
    whole = s.unary("trunc", y).equal(y)
    odd = whole & s.unary("trunc", half).not_equal(half)
    value = from_bits(bits(value) | s.select(odd, sign_bit(x), s.const(0, bits(x).dtype)), x)
    value = s.select((x < 0.0) & (x > -INF) & ~whole, real(NAN, x), value)
    infinite_power = a.equal(1.0) & magnitude(y).equal(INF)  # (-1)**inf is 1
    return s.select(y.equal(0.0) | x.equal(1.0) | infinite_power, one, value)
