"""One scalar operation as one or a few LLVM instructions, on scalars and vectors alike.

Main table: ``EMITTERS``, an entry per operation that only needs its arguments' values; integer
division and shifts are in llvm_integer.py. Imports core, ir.scalar. No fast-math flag anywhere:
bits are part of the meaning.
"""

from __future__ import annotations

import math

from tinyflow.codegen.llvm_expr import Emitter, ExpressionWriter, select_text
from tinyflow.codegen.llvm_text import literal, memory_type, suffix, type_name
from tinyflow.core.dtype import DType, bool_, int32, int64
from tinyflow.core.error import InternalError
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar.nodes import Expr

_KIND_OPS = {
    ("add", "float"): "fadd", ("sub", "float"): "fsub", ("mul", "float"): "fmul",
    ("div", "float"): "fdiv",
    ("and", "bool"): "and", ("or", "bool"): "or", ("xor", "bool"): "xor",
}  # fmt: skip
for _kind in ("int", "uint"):
    _KIND_OPS.update({(op, _kind): op for op in ("add", "sub", "mul", "and", "or", "xor")})


def _plain(w: ExpressionWriter, e: Expr, r: list[str], lanes: int, level: int, ty: str) -> str:
    name = _KIND_OPS.get((e.op, e.dtype.kind))
    if name is None:
        raise InternalError(f"codegen: {e.op} of {e.dtype.name}")
    return w.emit(level, f"{name} {ty} {r[0]}, {r[1]}")


_PREDICATES = {
    "float": {"lt": "olt", "le": "ole", "eq": "oeq", "ne": "une"},
    "int": {"lt": "slt", "le": "sle", "eq": "eq", "ne": "ne"},
    "uint": {"lt": "ult", "le": "ule", "eq": "eq", "ne": "ne"},
    "bool": {"lt": "ult", "le": "ule", "eq": "eq", "ne": "ne"},
}


def _compare(w: ExpressionWriter, e: Expr, r: list[str], lanes: int, level: int, ty: str) -> str:
    kind = e.args[0].dtype.kind
    name = "fcmp" if kind == "float" else "icmp"
    return w.emit(level, f"{name} {_PREDICATES[kind][e.op]} {ty} {r[0]}, {r[1]}")


def _extreme(w: ExpressionWriter, e: Expr, r: list[str], lanes: int, level: int, ty: str) -> str:
    return extreme(w, e.op, e.dtype, r, lanes, level, e.args)


def extreme(
    w: ExpressionWriter,
    op: str,
    dtype: DType,
    r: list[str],
    lanes: int,
    level: int,
    args: tuple[Expr, ...] = (),
) -> str:
    """min or max; floats: NaN if either is NaN, -0 < +0 (IEEE 754-2019 minimum, maximum)."""
    ty, mangled = type_name(dtype, lanes), suffix(dtype, lanes)
    if dtype.kind != "float":
        sign = "u" if dtype.kind == "uint" else "s"
        return w.call_on(level, f"{sign}{op}", ty, r, mangled)
    limits = [n for n, a in enumerate(args) if a.op == "const" and a.attr == a.attr]
    if limits:
        limit, x = r[limits[0]], r[1 - limits[0]]
        number = args[limits[0]].attr
        below = math.copysign(1.0, number) < 0 if number == 0 else None
        if not (op == "min" and below):
            # limit > x ? limit : x is one instruction on every target and lets NaN through.
            predicate = "ogt" if op == "max" else "olt"
            test = w.emit(level, f"fcmp {predicate} {ty} {limit}, {x}")
            bit = type_name(bool_, lanes)
            out = w.emit(level, f"select {bit} {test}, {ty} {limit}, {ty} {x}")
            if op == "max" and below is False:
                # max(-0, +0) is +0, and adding +0 changes nothing else.
                zero = literal(0.0, dtype)
                zero = f"splat ({type_name(dtype)} {zero})" if lanes else zero
                out = w.emit(level, f"fadd {ty} {out}, {zero}")
            return out
    if lanes:
        return _vector_extreme(w, op, dtype, r[0], r[1], lanes, level)
    return w.call_on(level, f"{op}imum", ty, r, mangled)


WHOLE = {32: int32, 64: int64}


def _vector_extreme(
    w: ExpressionWriter, op: str, dtype: DType, a: str, b: str, lanes: int, level: int
) -> str:
    """b > a ? b : a, then equal operands, then a NaN in ``b``: one instruction each on x86.

    LLVM's own sequence for ``maximum`` orders the operands by the sign of one of them first, which
    in a reduction puts six dependent instructions between an accumulator and its next value.
    """
    ty, bit = type_name(dtype, lanes), type_name(bool_, lanes)
    whole = type_name(WHOLE[dtype.bits], lanes)
    better = w.emit(level, f"fcmp {'ogt' if op == 'max' else 'olt'} {ty} {b}, {a}")
    best = w.emit(level, f"select {bit} {better}, {ty} {b}, {ty} {a}")  # a NaN in a stays
    # Equal operands differ in bits only if they are zeros of both signs: max ands the signs away.
    equal = w.emit(level, f"fcmp oeq {ty} {b}, {a}")
    bits_a = w.emit(level, f"bitcast {ty} {a} to {whole}")
    bits_b = w.emit(level, f"bitcast {ty} {b} to {whole}")
    merged = w.emit(level, f"{'and' if op == 'max' else 'or'} {whole} {bits_a}, {bits_b}")
    zero = w.emit(level, f"bitcast {whole} {merged} to {ty}")
    best = w.emit(level, f"select {bit} {equal}, {ty} {zero}, {ty} {best}")
    unordered = w.emit(level, f"fcmp uno {ty} {b}, {b}")
    return w.emit(level, f"select {bit} {unordered}, {ty} {b}, {ty} {best}")


def _unary_float(name: str) -> Emitter:
    def emit(w: ExpressionWriter, e: Expr, r: list[str], lanes: int, level: int, ty: str) -> str:
        if e.dtype.kind != "float":
            return r[0]
        return w.call_on(level, name, ty, r, suffix(e.dtype, lanes))

    return emit


def _neg(w: ExpressionWriter, e: Expr, r: list[str], lanes: int, level: int, ty: str) -> str:
    if e.dtype.kind == "float":
        return w.emit(level, f"fneg {ty} {r[0]}")
    zero = "zeroinitializer" if lanes else "0"
    return w.emit(level, f"sub {ty} {zero}, {r[0]}")


def _abs(w: ExpressionWriter, e: Expr, r: list[str], lanes: int, level: int, ty: str) -> str:
    if e.dtype.kind == "float":
        return w.call_on(level, "fabs", ty, r, suffix(e.dtype, lanes))
    if e.dtype.kind == "uint":
        return r[0]
    name = f"abs.{suffix(e.dtype, lanes)}"
    if name not in w.declarations:
        w.declare_intrinsic(name, ty, [ty, "i1"])
    return w.emit(level, f"call {ty} @llvm.{name}({ty} {r[0]}, i1 false)")


def _not(w: ExpressionWriter, e: Expr, r: list[str], lanes: int, level: int, ty: str) -> str:
    ones = "true" if e.dtype is bool_ else "-1"
    ones = f"splat ({type_name(e.dtype)} {ones})" if lanes else ones
    return w.emit(level, f"xor {ty} {r[0]}, {ones}")


def _fma(w: ExpressionWriter, e: Expr, r: list[str], lanes: int, level: int, ty: str) -> str:
    return w.call_on(level, "fma", ty, r, suffix(e.dtype, lanes))


def _dot_pairs(
    w: ExpressionWriter, e: Expr, r: list[str], lanes: int, level: int, ty: str
) -> str:
    name = w.pair_product.get(lanes)
    if name is not None:
        halves = f"<{2 * lanes} x i16>"
        a, b = (w.emit(level, f"bitcast {ty} {x} to {halves}") for x in r[:2])
        if name not in w.declarations:
            w.declare_intrinsic(name, ty, [halves, halves])
        total = w.emit(level, f"call {ty} @llvm.{name}({halves} {a}, {halves} {b})")
        return w.emit(level, f"add {ty} {total}, {r[2]}")
    sixteen = "splat (i32 16)" if lanes else "16"
    total = r[2]
    for start in ("shl", ""):  # the low halves go up first
        parts = [w.emit(level, f"{start} {ty} {x}, {sixteen}") if start else x for x in r[:2]]
        a, b = (w.emit(level, f"ashr {ty} {x}, {sixteen}") for x in parts)
        total = w.emit(level, f"add {ty} {total}, {w.emit(level, f'mul {ty} {a}, {b}')}")
    return total


def _select_plain(
    w: ExpressionWriter, e: Expr, r: list[str], lanes: int, level: int, ty: str
) -> str:
    c, x, y = (w.memo[a] for a in e.args)
    return w.emit(level, select_text(w, c, x, y, e.dtype, lanes))


def _bitcast(w: ExpressionWriter, e: Expr, r: list[str], lanes: int, level: int, ty: str) -> str:
    target = type_name(e.dtype, lanes)
    if target == ty:
        return r[0]  # int32 and uint32 are one LLVM type
    return w.emit(level, f"bitcast {ty} {r[0]} to {target}")


# --- conversions ----------------------------------------------------------------------------------


def _cast(w: ExpressionWriter, e: Expr, r: list[str], lanes: int, level: int, ty: str) -> str:
    source, target = e.args[0].dtype, e.dtype
    to = type_name(target, lanes)
    if target.kind == "bool":
        return _is_nonzero(w, source, r[0], lanes, level, ty)
    if source.kind == "float":
        if target.kind == "float":
            name = "fpext" if target.bits > source.bits else "fptrunc"
            return w.emit(level, f"{name} {ty} {r[0]} to {to}")
        return _float_to_int(w, e, r[0], lanes, level, ty, to)
    unsigned = source.kind in ("uint", "bool")
    if target.kind == "float":
        return w.emit(level, f"{'u' if unsigned else 's'}itofp {ty} {r[0]} to {to}")
    if source.kind == "bool" or target.bits > source.bits:
        return w.emit(level, f"{'z' if unsigned else 's'}ext {ty} {r[0]} to {to}")
    if target.bits == source.bits:
        return r[0]
    return w.emit(level, f"trunc {ty} {r[0]} to {to}")


def _is_nonzero(
    w: ExpressionWriter, source: DType, ref: str, lanes: int, level: int, ty: str
) -> str:
    zero = "zeroinitializer" if lanes else literal(source.as_numpy_dtype(0).item(), source)
    name = "fcmp une" if source.kind == "float" else "icmp ne"
    return w.emit(level, f"{name} {ty} {ref}, {zero}")


def _float_to_int(
    w: ExpressionWriter, e: Expr, ref: str, lanes: int, level: int, ty: str, to: str
) -> str:
    """Saturating, NaN -> 0; cheaper where min and max already bound the value."""
    source, target = e.args[0].dtype, e.dtype
    low, high = float_bounds(e.args[0])
    if target.min <= low and high <= target.max:
        test = w.emit(level, f"fcmp ord {ty} {ref}, {ref}")
        zero = "zeroinitializer" if lanes else literal(0.0, source)
        bit = type_name(bool_, lanes)
        safe = w.emit(level, f"select {bit} {test}, {ty} {ref}, {ty} {zero}")
        name = "fptoui" if target.kind == "uint" else "fptosi"
        return w.emit(level, f"{name} {ty} {safe} to {to}")
    sign = "u" if target.kind == "uint" else "s"
    name = f"fpto{sign}i.sat.{suffix(target, lanes)}.{suffix(source, lanes)}"
    if name not in w.declarations:
        w.declare_intrinsic(name, to, [ty])
    return w.emit(level, f"call {to} @llvm.{name}({ty} {ref})")


def float_bounds(expr: Expr) -> tuple[float, float]:
    """An interval that holds the value unless it is NaN, from min and max with constants."""
    low, high = -math.inf, math.inf
    while expr.op in ("rint", "floor", "ceil", "trunc", "min", "max"):
        if expr.op in ("min", "max"):
            limits = [a for a in expr.args if a.op == "const"]
            if not limits:
                break
            limit = limits[0].attr
            if expr.op == "min" and high == math.inf:
                high = math.ceil(limit) if math.isfinite(limit) else limit
            elif expr.op == "max" and low == -math.inf:
                low = math.floor(limit) if math.isfinite(limit) else limit
            expr = expr.args[1] if expr.args[0].op == "const" else expr.args[0]
        else:
            expr = expr.args[0]
    return min(low, high), max(low, high)


EMITTERS: dict[str, Emitter] = {
    **dict.fromkeys(("add", "sub", "mul", "div", "and", "or", "xor"), _plain),
    **dict.fromkeys(s.COMPARE, _compare),
    "min": _extreme,
    "max": _extreme,
    "neg": _neg,
    "abs": _abs,
    "not": _not,
    "sqrt": _unary_float("sqrt"),
    "floor": _unary_float("floor"),
    "ceil": _unary_float("ceil"),
    "rint": _unary_float("roundeven"),
    "trunc": _unary_float("trunc"),
    "fma": _fma,
    "dot_pairs": _dot_pairs,
    "select": _select_plain,
    "cast": _cast,
    "bitcast": _bitcast,
}


def memory_to_value(w: ExpressionWriter, dtype: DType, ref: str, lanes: int, level: int) -> str:
    """bool leaves memory as a byte."""
    if dtype is not bool_:
        return ref
    zero = "zeroinitializer" if lanes else "0"
    return w.emit(level, f"icmp ne {memory_type(dtype, lanes)} {ref}, {zero}")


def value_to_memory(w: ExpressionWriter, dtype: DType, ref: str, lanes: int, level: int) -> str:
    """The other way: a byte that is 0 or 1."""
    if dtype is not bool_:
        return ref
    return w.emit(level, f"zext {type_name(dtype, lanes)} {ref} to {memory_type(dtype, lanes)}")
