"""The meaning of scalar expressions, in NumPy: the oracle for generated code.

Main functions: ``evaluate``, and ``fma`` rounded once. Imports core and ir.scalar.
Vectorised: variables, loads and reads may give arrays, which broadcast against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np

from tinyflow.core.dtype import DType, float64
from tinyflow.core.error import InternalError
from tinyflow.ir.scalar.nodes import Expr, Reduction
from tinyflow.ir.scalar.visit import postorder

Value = Any  # a NumPy array or scalar of the expression's dtype
Load = Callable[[Any, tuple[Value, ...]], Value]
Report = Callable[[int, int, int], None]


def evaluate(
    expr: Expr,
    env: Mapping[Expr, Any] | None = None,
    load: Load | None = None,
    read: Load | None = None,
    report: Report | None = None,
) -> Value:
    """The value of ``expr``: an array or NumPy scalar of its dtype.

    env: values of the variables.   load, read: (buffer or tensor, indices) -> value.
    report: called with (code, got, limit) for the first element where a ``checked`` fails.
    Both sides of a ``select`` are evaluated, so ``load`` must accept indices that are masked off.
    Complexity: linear in the number of distinct sub-expressions.
    """
    return evaluate_all((expr,), env, load, read, report)[0]


def evaluate_all(
    roots: tuple[Expr, ...],
    env: Mapping[Expr, Any] | None = None,
    load: Load | None = None,
    read: Load | None = None,
    report: Report | None = None,
) -> list[Value]:
    """``evaluate`` of several expressions that share sub-expressions."""
    if any(node.op == "call" for node in postorder(*roots)):
        from tinyflow.ir.scalar.math import expand  # math.py's constants would slow down imports

        roots = tuple(expand(root) for root in roots)
    env = env or {}
    values: dict[Expr, Value] = {}
    with np.errstate(all="ignore"):
        if any(root.op == "reduce" for root in roots):
            return [_reduce(root, env, load, read, report) for root in roots]
        for node in postorder(*roots):
            if node in env:
                values[node] = np.asarray(env[node], node.dtype.numpy)
                continue
            args = [values[a] for a in node.args]
            if node.op in ("load", "read"):
                found = load if node.op == "load" else read
                if found is None:
                    raise InternalError(f"scalar interp: no {node.op} function for {node!r}")
                values[node] = np.asarray(found(node.attr, tuple(args)), node.dtype.numpy)
            elif node.op == "fold":
                values[node] = _fold(node, load)
            elif node.op == "checked":
                values[node] = _checked(node.attr, args, report)
            else:
                values[node] = _MEANINGS[node.op](node, *args)
    return [values[root] for root in roots]


# --- fma ------------------------------------------------------------------------------------------


def fma(a: Value, b: Value, c: Value, dtype: DType) -> Value:
    """a*b + c rounded once to ``dtype``.

    Below float64: the product is exact in float64, the sum is rounded to odd there, and rounding
    to odd with at least two spare bits makes the second rounding harmless.
    Source: S. Boldo, G. Melquiond, "Emulation of FMA and correctly rounded sums: proved
    algorithms using rounding to odd", IEEE Trans. Computers 57(4), 2008.
    """
    with np.errstate(all="ignore"):
        if dtype is float64:
            return _fma64(*np.broadcast_arrays(a, b, c))
        exact = np.multiply(a, b, dtype=np.float64)
        return _add_to_odd(exact, np.asarray(c, np.float64)).astype(dtype.numpy)


def _two_sum(a: Value, b: Value) -> tuple[Value, Value]:
    """(s, e) with s = round(a + b) and s + e = a + b exactly (Knuth, TAOCP 2, 4.2.2)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _two_product(a: Value, b: Value) -> tuple[Value, Value]:
    """(p, e) with p = round(a * b) and p + e = a * b exactly, without fma (Dekker 1971)."""
    p = a * b
    a_high, b_high = (x * 134217729.0 - (x * 134217729.0 - x) for x in (a, b))
    a_low, b_low = a - a_high, b - b_high
    error = ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low
    return p, error


def _add_to_odd(a: Value, b: Value) -> Value:
    """a + b in float64; an inexact sum takes the neighbour whose last bit is 1."""
    total, error = _two_sum(a, b)
    bits = np.asarray(total, np.float64).view(np.int64)
    change = np.isfinite(total) & (error != 0) & (bits & 1 == 0)
    # Away from zero where the error has the sum's sign, else towards zero: bits + 1 or bits - 1.
    outward = (error > 0) == (total > 0)
    return np.where(change, bits + np.where(outward, 1, -1), bits).view(np.float64)


def _fma64(a: Value, b: Value, c: Value) -> Value:
    high, low = _two_product(a, b)
    sum_high, sum_low = _two_sum(c, low)
    top, rest = _two_sum(high, sum_high)
    result = np.asarray(top + _add_to_odd(rest, sum_low))
    # Where the error terms could over- or underflow: plain arithmetic if that is exact, else
    # exact fractions, one element at a time.
    size, plain = np.abs(high), a * b + c
    safe = (size >= 2.0**-900) & (size <= 2.0**1000) & (np.abs(c) <= 2.0**1000)
    safe &= (c == 0) | (np.abs(c) >= 2.0**-900)
    for x in (a, b):
        safe &= (np.abs(x) >= 2.0**-1000) & (np.abs(x) <= 2.0**990)
    easy = ~(np.isfinite(a) & np.isfinite(b) & np.isfinite(c)) | (a == 0) | (b == 0)
    result = np.where(easy, plain, result)
    for where in zip(*np.nonzero(np.atleast_1d(~safe & ~easy)), strict=True):
        place = where if result.ndim else ()
        result[place] = _fma_fraction(float(a[place]), float(b[place]), float(c[place]))
    return result


def _fma_fraction(a: float, b: float, c: float) -> float:
    total = Fraction(a) * Fraction(b) + Fraction(c)
    if total == 0:
        # Exact cancellation is +0; a product that underflows to zero needs its own sign.
        return 0.0
    try:
        size = float(abs(total))
    except OverflowError:
        size = np.inf
    return -size if total < 0 else size


# --- integers and conversions ---------------------------------------------------------------------


def _floordiv(node: Expr, a: Value, b: Value) -> Value:
    return np.where(b == 0, 0, np.floor_divide(a, _nonzero(a, b))).astype(node.dtype.numpy)


def _mod(node: Expr, a: Value, b: Value) -> Value:
    return np.where(b == 0, 0, np.remainder(a, _nonzero(a, b))).astype(node.dtype.numpy)


def _nonzero(a: Value, b: Value) -> Value:
    """``b`` with the divisors that trap on some machines replaced: 0, and -1 under INT_MIN.

    INT_MIN / 1 == INT_MIN, which is also what INT_MIN / -1 wraps to; both leave remainder 0.
    """
    trap = b == 0
    if np.issubdtype(np.asarray(a).dtype, np.signedinteger):
        trap = trap | ((b == -1) & (a == np.iinfo(np.asarray(a).dtype).min))
    return np.where(trap, np.asarray(b).dtype.type(1), b)


def _truncdiv(node: Expr, a: Value, b: Value) -> Value:
    quotient = _floordiv(node, a, b)
    inexact = (_mod(node, a, b) != 0) & ((a < 0) != (b < 0))
    return (quotient + inexact).astype(node.dtype.numpy)


def _rem(node: Expr, a: Value, b: Value) -> Value:
    return np.where(b == 0, 0, a - _truncdiv(node, a, b) * b).astype(node.dtype.numpy)


def _cast(node: Expr, a: Value) -> Value:
    """Rounds to nearest even; float -> int truncates and saturates, NaN gives 0; int wraps."""
    source, target = node.args[0].dtype, node.dtype
    if target.kind == "bool":
        return a != 0
    if source.kind != "float" or target.kind == "float":
        return np.asarray(a).astype(target.numpy)
    wide = np.trunc(np.asarray(a).astype(np.float64))
    low, high = target.min, target.max
    # float(high) may round up to high + 1, so that everything from there on saturates.
    inside = (wide > float(low)) & (wide < float(high))
    whole = np.where(inside, wide, 0.0).astype(target.numpy)
    kind = target.numpy.type
    whole = np.where(wide >= float(high), kind(high), whole)
    return np.where(wide <= float(low), kind(low), whole)


def _shift(node: Expr, a: Value, b: Value) -> Value:
    """An amount outside [0, bits) shifts everything out: 0, or -1 for shr of a negative number."""
    bits = node.dtype.bits
    amount = np.where((b >= 0) & (b < bits), b, 0).astype(node.dtype.numpy)
    shifted = (np.left_shift if node.op == "shl" else np.right_shift)(a, amount)
    empty = np.where((a < 0) & (node.op == "shr"), -1, 0).astype(node.dtype.numpy)
    return np.where((b >= 0) & (b < bits), shifted, empty)


def _extreme(op: str, a: Value, b: Value) -> Value:
    """IEEE 754-2019 minimum and maximum: NaN if either is NaN, and -0 < +0."""
    result = (np.minimum if op == "min" else np.maximum)(a, b)
    if np.asarray(result).dtype.kind in "iub":
        return result
    # The first operand wins among zeros where its sign is the wanted one.
    first_wins = np.signbit(a) == (op == "min")
    return np.where((a == 0) & (b == 0), np.where(first_wins, a, b), result)


def _select(node: Expr, condition: Value, a: Value, b: Value) -> Value:
    return np.where(condition, a, b)


def _bitcast(node: Expr, a: Value) -> Value:
    return np.ascontiguousarray(a).view(node.dtype.numpy).reshape(np.shape(a))


def _with(function: Callable[..., Any]) -> Callable[..., Value]:
    return lambda node, *args: function(*args)


def _dot_pairs(a: Value, b: Value, c: Value) -> Value:
    """The halves are signed; sums of products wrap around as the instruction does."""
    total = np.asarray(c).astype(np.int64)
    for shift in (0, 16):
        low, high = ((np.asarray(v) >> shift).astype(np.int16) for v in (a, b))
        total = total + low.astype(np.int64) * high
    return total.astype(np.int32)


_MEANINGS: dict[str, Callable[..., Value]] = {
    "const": lambda node: np.asarray(node.attr, node.dtype.numpy),
    "add": _with(np.add),
    "sub": _with(np.subtract),
    "mul": _with(np.multiply),
    "div": _with(np.divide),
    "min": lambda node, a, b: _extreme("min", a, b),
    "max": lambda node, a, b: _extreme("max", a, b),
    "floordiv": _floordiv,
    "mod": _mod,
    "truncdiv": _truncdiv,
    "rem": _rem,
    "and": _with(np.bitwise_and),
    "or": _with(np.bitwise_or),
    "xor": _with(np.bitwise_xor),
    "shl": _shift,
    "shr": _shift,
    "lt": _with(np.less),
    "le": _with(np.less_equal),
    "eq": _with(np.equal),
    "ne": _with(np.not_equal),
    "neg": _with(np.negative),
    "abs": _with(np.abs),
    "not": _with(np.invert),
    "sqrt": _with(np.sqrt),
    "floor": _with(np.floor),
    "ceil": _with(np.ceil),
    "rint": _with(np.rint),
    "trunc": _with(np.trunc),
    "fma": lambda node, a, b, c: fma(a, b, c, node.dtype),
    "dot_pairs": _with(_dot_pairs),
    "select": _select,
    "cast": _cast,
    "bitcast": _bitcast,
}


def _checked(code: int, args: list[Value], report: Report | None) -> Value:
    value, ok, got, limit = args
    if report is not None and not np.all(ok):
        failed = np.broadcast_arrays(ok, got, limit)
        first = int(np.argmin(failed[0]))
        report(code, int(failed[1].flat[first]), int(failed[2].flat[first]))
    return value


# --- folds ----------------------------------------------------------------------------------------


def identity(combiner: str, dtype: DType) -> Any:
    """The value that ``combiner`` starts from, of NumPy type."""
    if combiner in ("all", "prod"):
        return dtype.numpy.type(1)
    if combiner in ("any", "sum", "dot"):
        return dtype.numpy.type(0)
    if dtype.kind == "float":
        return dtype.numpy.type(np.inf if combiner == "min" else -np.inf)
    return dtype.numpy.type(dtype.max if combiner == "min" else dtype.min)


def combine(combiner: str, dtype: DType, a: Value, b: Value) -> Value:
    """One step of a fold."""
    if combiner in ("sum", "dot"):
        return np.add(a, b, dtype=dtype.numpy)
    if combiner == "prod":
        return np.multiply(a, b, dtype=dtype.numpy)
    if combiner in ("all", "any"):
        return (np.logical_and if combiner == "all" else np.logical_or)(a, b)
    return _extreme(combiner, a, b)


def _fold(node: Expr, load: Load | None) -> Value:
    """Lane l with lane l + n/2, then l + n/4, ...: the tree of te/canonical.py."""
    combiner, buffer = node.attr
    if load is None:
        raise InternalError(f"scalar interp: no load function for {node!r}")
    (lanes,) = buffer.shape
    values = [load(buffer, (np.int64(lane),)) for lane in range(int(lanes))]
    while len(values) > 1:
        half = (len(values) + 1) // 2
        values = [
            combine(combiner, node.dtype, values[n], values[n + half])
            if n + half < len(values) else values[n]
            for n in range(half)
        ]  # fmt: skip
    return values[0]


def _reduce(
    node: Expr,
    env: Mapping[Expr, Any],
    load: Load | None,
    read: Load | None,
    report: Report | None,
) -> Value:
    """In ascending order, first axis slowest. Float sums and products differ in the last bits from
    the canonical tree (te/canonical.py), which exists only after lowering; ``dot`` does not."""
    if node.op != "reduce":
        return evaluate(node, env, load, read, report)
    reduction: Reduction = node.attr
    extents = [evaluate(e, env) if isinstance(e, Expr) else e for _, e in reduction.axes]
    axes = [axis for axis, _ in reduction.axes]
    total: Value = identity(reduction.combiner, node.dtype)
    for position in product(*(range(int(e)) for e in extents)):
        inner = {**env, **dict(zip(axes, map(np.int64, position), strict=True))}
        values = evaluate_all(node.args, inner, load, read, report)
        if reduction.combiner == "dot" and node.dtype.kind == "float":
            total = fma(values[0], values[1], total, node.dtype)
        elif reduction.combiner == "dot":
            total = total + values[0] * values[1]
        else:
            total = combine(reduction.combiner, node.dtype, total, values[0])
    return total
