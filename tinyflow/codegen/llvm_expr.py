"""Scalar operations as LLVM instructions, on scalars and vectors alike.

Main type: ``ExpressionWriter``; ``EMITTERS`` has one entry per operation that only needs its
arguments' values. Imports core, ir.scalar and ir.loop. No fast-math flag anywhere: bits are part of
the meaning.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tinyflow.codegen.llvm_text import (
    is_literal,
    lane_numbers,
    literal,
    memory_type,
    suffix,
    type_name,
)
from tinyflow.codegen.writer import NO_BUFFERS, Facts, Value, Writer
from tinyflow.core.dtype import DType, bool_, int64
from tinyflow.core.error import InternalError
from tinyflow.ir.loop.nodes import Buffer
from tinyflow.ir.loop.visit import bounds_condition
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ir.scalar.visit import postorder

Emitter = Callable[["ExpressionWriter", Expr, list[str], int, int, str], str]


class ExpressionWriter(Writer):
    """Values of expressions. Subclasses add memory (``load``, ``fold``) and control flow."""

    def __init__(self) -> None:
        super().__init__()
        self.facts: dict[Expr, Facts] = {}
        self.variable_bits: dict[Expr, int] = {}
        self.written: frozenset[Buffer] = NO_BUFFERS
        self.readers: dict[Buffer, list[Expr]] = {}
        self.mask: Value | None = None  # active lanes; None: all
        self.lane: Expr | None = None
        self.lanes = 0

    # --- facts ------------------------------------------------------------------------------------

    def describe(self, root: Expr) -> Facts:
        found = self.facts.get(root)
        if found is None:
            for node in postorder(root):
                if node not in self.facts:
                    self.facts[node] = self._describe(node)
            found = self.facts[root]
        return found

    def _describe(self, node: Expr) -> Facts:
        variables, effects, reads = self.variable_bits.get(node, 0), False, NO_BUFFERS
        for arg in node.args:
            facts = self.facts[arg]
            variables |= facts.variables
            effects |= facts.effects
            if facts.reads:
                reads |= facts.reads
        if node.op == "load":
            effects |= node.attr.scope != "register"
            if node.attr in self.written:
                reads |= {node.attr}
        elif node.op == "fold":
            reads |= {node.attr[1]}
        elif node.op == "checked":
            effects = True
        return Facts(variables, effects, reads)

    # --- values -----------------------------------------------------------------------------------

    def value(self, root: Expr) -> Value:
        """The value of an expression at this place, computed if it is not known yet.

        Iterative: fused expressions can be thousands of operations deep.
        """
        memo = self.memo
        found = memo.get(root)
        if found is not None:
            return found
        self.describe(root)
        stack = [root]
        while stack:
            expr = stack[-1]
            if expr in memo:
                stack.pop()
                continue
            special = _SPECIAL.get(expr.op)
            if special is not None:
                result = special(self, expr)
                if result is not None:
                    self.keep(expr, result)
                    stack.pop()
                    continue
            missing = [a for a in expr.args if a not in memo]
            if missing:
                missing.reverse()
                stack.extend(missing)
                continue
            refs, lanes, level = self.operands(expr)
            emitter = EMITTERS.get(expr.op)
            if emitter is None:
                raise InternalError(f"codegen: {expr.op} has no native code (is it expanded?)")
            text = emitter(self, expr, refs, lanes, level, type_name(expr.args[0].dtype, lanes))
            self.keep(expr, (text, lanes, level))
            stack.pop()
        return memo[root]

    def keep(self, expr: Expr, value: Value) -> None:
        self.memo[expr] = value
        self.trail.append(expr)
        for buffer in self.facts[expr].reads:
            self.readers.setdefault(buffer, []).append(expr)

    def operands(self, expr: Expr) -> tuple[list[str], int, int]:
        """The arguments' operands, brought to one number of lanes, and the level to compute at."""
        memo = self.memo
        args = expr.args
        lanes, level, mixed = 0, 0, False
        values = [memo[a] for a in args]
        for value in values:
            if value[2] > level:
                level = value[2]
            if value[1] != lanes:
                mixed = mixed or bool(lanes) or value is not values[0]
                lanes = lanes or value[1]
        if level < self.floors[-1] and expr.dtype is not int64:
            level = self.floors[-1]
        if not mixed:
            return [v[0] for v in values], lanes, level
        return [self.spread(v, a.dtype, lanes) for v, a in zip(values, args, strict=True)], lanes, level

    def spread(self, value: Value, dtype: DType, lanes: int) -> str:
        """The operand as a vector: a scalar is broadcast, at its own level."""
        if value[1] == lanes:
            return value[0]
        return self.splat(value, type_name(dtype), lanes)

    def splat(self, value: Value, scalar: str, lanes: int) -> str:
        ref, _, level = value
        if is_literal(ref):
            return f"splat ({scalar} {ref})"
        key = ("splat", ref, lanes)
        found = self.memo.get(key)
        if found is None:
            ty = f"<{lanes} x {scalar}>"
            first = self.emit(level, f"insertelement {ty} poison, {scalar} {ref}, i64 0")
            text = f"shufflevector {ty} {first}, {ty} poison, <{lanes} x i32> zeroinitializer"
            found = self.remember(key, (self.emit(level, text), lanes, level))
        return found[0]

    def declare_intrinsic(self, name: str, result: str, types: list[str]) -> None:
        self.declarations[name] = f"declare {result} @llvm.{name}({', '.join(types)})"

    def call_on(self, level: int, name: str, ty: str, refs: list[str], mangled: str) -> str:
        """An intrinsic whose arguments and result have one type."""
        full = f"{name}.{mangled}"
        if full not in self.declarations:
            self.declare_intrinsic(full, ty, [ty] * len(refs))
        arguments = ", ".join([f"{ty} {r}" for r in refs])
        return self.emit(level, f"call {ty} @llvm.{full}({arguments})")

    # --- masks ------------------------------------------------------------------------------------

    def conjunction(self, a: Value | None, b: Value) -> Value:
        """Lanes (or the scalar) where both hold."""
        if a is None:
            return b
        lanes = a[1] or b[1]
        level = max(a[2], b[2])
        x, y = self.spread(a, bool_, lanes), self.spread(b, bool_, lanes)
        return self.emit(level, f"and {type_name(bool_, lanes)} {x}, {y}"), lanes, level

    def negation(self, a: Value) -> Value:
        one = "splat (i1 true)" if a[1] else "true"
        return self.emit(a[2], f"xor {type_name(bool_, a[1])} {a[0]}, {one}"), a[1], a[2]

    def any_lane(self, mask: Value) -> Value:
        """Scalar: some lane is active."""
        if not mask[1]:
            return mask
        key = ("any", mask[0])
        found = self.memo.get(key)
        if found is None:
            ty = type_name(bool_, mask[1])
            name = f"vector.reduce.or.v{mask[1]}i1"
            if name not in self.declarations:
                self.declare_intrinsic(name, "i1", [ty])
            ref = self.emit(mask[2], f"call i1 @llvm.{name}({ty} {mask[0]})")
            found = self.remember(key, (ref, 0, mask[2]))
        return found

    def under(self, condition: Value, expr: Expr) -> Value:
        """The value of ``expr`` where its loads and checks happen only where ``condition`` holds."""
        if not self.facts[expr].effects or expr in self.memo:
            return self.value(expr)
        outer, mark = self.mask, self.mark()
        self.mask = self.conjunction(outer, condition)
        result = self.value(expr)
        self.mask = outer
        self.forget_effects(mark)
        return result

    def forget_effects(self, mark: int) -> None:
        """Values that hold only under the mask that ends now."""
        self.forget_expressions(
            mark,
            {k for k in self.trail[mark:] if isinstance(k, Expr) and self.facts[k].effects},
        )

    # --- subclasses -------------------------------------------------------------------------------

    def load(self, expr: Expr) -> Value:
        raise NotImplementedError

    def fold(self, expr: Expr) -> Value:
        raise NotImplementedError

    def checked(self, expr: Expr) -> Value | None:
        raise NotImplementedError

    def lane_comparison(self, expr: Expr) -> Value | None:
        raise NotImplementedError


# --- operations that decide themselves what to evaluate; None: like any other -----------------------


def _const(w: ExpressionWriter, e: Expr) -> Value:
    return literal(e.attr, e.dtype), 0, 0


def _var(w: ExpressionWriter, e: Expr) -> Value:
    if e is w.lane:
        return lane_numbers("i64", w.lanes), w.lanes, 0
    raise InternalError(f"codegen: variable {e.attr} has no value here")


def _select(w: ExpressionWriter, e: Expr) -> Value | None:
    condition, a, b = e.args
    facts = w.facts
    if not (facts[a].effects or facts[b].effects) or not (
        bounds_condition(condition) or _checks(a) or _checks(b)
    ):
        return None
    # Only what the condition selects may be loaded: x[i - 1] where i > 0, else 0.
    c = w.value(condition)
    x = w.under(c, a)
    y = w.under(w.negation(c), b) if facts[b].effects and b not in w.memo else w.value(b)
    lanes = c[1] or x[1] or y[1]
    level = max(c[2], x[2], y[2], w.floor)
    return w.emit(level, _select_text(w, c, x, y, e.dtype, lanes)), lanes, level


def _select_text(
    w: ExpressionWriter, c: Value, x: Value, y: Value, dtype: DType, lanes: int
) -> str:
    ty = type_name(dtype, lanes)
    # A scalar condition may choose between vectors.
    return (
        f"select {type_name(bool_, c[1])} {c[0]}, {ty} {w.spread(x, dtype, lanes)}, "
        f"{ty} {w.spread(y, dtype, lanes)}"
    )


def _checks(expr: Expr) -> bool:
    return any(node.op == "checked" for node in postorder(expr))


_SPECIAL: dict[str, Callable[[ExpressionWriter, Expr], Value | None]] = {
    "const": _const,
    "var": _var,
    "load": lambda w, e: w.load(e),
    "fold": lambda w, e: w.fold(e),
    "checked": lambda w, e: w.checked(e),
    "select": _select,
    **dict.fromkeys(s.COMPARE, lambda w, e: w.lane_comparison(e)),
}


# --- one instruction per operation ----------------------------------------------------------------

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
    return w.call_on(level, f"{op}imum", ty, r, mangled)


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


def _select_plain(
    w: ExpressionWriter, e: Expr, r: list[str], lanes: int, level: int, ty: str
) -> str:
    c, x, y = (w.memo[a] for a in e.args)
    return w.emit(level, _select_text(w, c, x, y, e.dtype, lanes))


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
    if dtype is not bool_:
        return ref
    return w.emit(level, f"zext {type_name(dtype, lanes)} {ref} to {memory_type(dtype, lanes)}")
