"""16-bit floats: every operation in float32, rounded after each one.

Main function: ``widened``. Imports core and ir.scalar.

A sum, product, quotient or root of two p-bit numbers computed with at least 2p + 2 bits and rounded
again is the correctly rounded one (Figueroa, 1995): float32 (24) serves float16 (11) and bfloat16
(8). So the bits are those of NumPy and ml_dtypes, and fusing operations changes none. bfloat16 is
the upper half of a float32, to which it converts by a shift; no instruction set is assumed.
"""

from __future__ import annotations

from tinyflow.core.dtype import (
    NARROW,
    DType,
    bfloat16,
    float16,
    float32,
    float64,
    int32,
    uint16,
    uint32,
)
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar.nodes import Expr

_ARITHMETIC = frozenset(
    {"add", "sub", "mul", "div", "min", "max", "neg", "abs", "sqrt", "floor", "ceil", "rint",
     "trunc", "floordiv", "mod", "truncdiv", "rem"}
)  # fmt: skip


def widened(node: Expr) -> Expr | None:
    """An equal expression whose arithmetic is not of 16-bit floats; None if it is so already."""
    op = node.op
    if op == "cast":
        return _converted(node.args[0], node.dtype)
    if node.dtype in NARROW:
        if op in _ARITHMETIC:
            return narrowed(s.make(op, tuple(wide(a) for a in node.args), float32, node.attr),
                            node.dtype)  # fmt: skip
        if op == "fma":
            # The exact product has 22 bits; only in float64 is its sum exact enough.
            a, b, c = (s.cast(wide(x), float64) for x in node.args)
            return narrowed(a * b + c, node.dtype)
    if op in s.COMPARE and node.args[0].dtype in NARROW:
        return s.make(op, tuple(wide(a) for a in node.args), node.dtype, node.attr)
    return None


def wide(x: Expr) -> Expr:
    """The value as float32: exact."""
    if x.dtype is not bfloat16:
        return s.cast(x, float32)
    if x.op == "const":
        return s.const(float(x.attr), float32)
    bits = s.cast(s.bitcast(x, uint16), uint32)
    return s.bitcast(s.binary("shl", bits, s.const(16, uint32)), float32)


def narrowed(x: Expr, dtype: DType) -> Expr:
    """float32 or float64 rounded once, to nearest even."""
    if x.dtype is float64:
        x = _odd_float32(x)
    if dtype is float16:
        return s.cast(x, float16)
    bits = s.bitcast(x, uint32)
    one, half = s.const(1, uint32), s.const(0x7FFF, uint32)
    sixteen = s.const(16, uint32)
    last = s.binary("and", s.binary("shr", bits, sixteen), one)
    rounded = s.binary("shr", bits + half + last, sixteen)
    sign = s.binary("and", s.binary("shr", bits, sixteen), s.const(0x8000, uint32))
    quiet = s.binary("or", sign, s.const(0x7FC0, uint32))
    kept = s.select(s.compare("eq", x, x), rounded, quiet)
    return s.bitcast(s.cast(kept, uint16), bfloat16)


def _odd_float32(x: Expr) -> Expr:
    """float64 cut to float32 with the last bit set where something was lost, so that the next
    rounding sees it (rounding to odd)."""
    near = s.cast(x, float32)
    back = s.cast(near, float64)
    bits = s.bitcast(near, int32)
    one, zero = s.const(1, int32), s.const(0, int32)
    beyond = s.compare("lt", s.unary("abs", x), s.unary("abs", back))
    cut = bits - s.select(beyond, one, zero)
    finite = s.compare("lt", s.unary("abs", x), s.const(float("inf"), float64))
    lost = s.select(s.compare("eq", back, x), zero, one)
    odd = s.bitcast(s.binary("or", cut, lost), float32)
    return s.select(finite, odd, near)


def _converted(x: Expr, target: DType) -> Expr | None:
    if x.dtype is target or not (x.dtype in NARROW or target in NARROW):
        return None
    if target in NARROW:
        if x.dtype is float32:
            return None if target is float16 else narrowed(x, target)
        if x.dtype is float64:
            # ml_dtypes goes through float32, NumPy rounds once
            return narrowed(s.cast(x, float32) if target is bfloat16 else x, target)
        source = wide(x) if x.dtype in NARROW else s.cast(x, float32)
        return narrowed(source, target)
    if x.dtype is float16 and target is float32:
        return None
    value = wide(x)
    return value if target is float32 else s.cast(value, target)
