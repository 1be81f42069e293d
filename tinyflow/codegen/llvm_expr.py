"""Expressions to values: evaluation order, number of lanes, level of the loop nest, masks.

Main type: ``ExpressionWriter``; the instructions themselves are in llvm_operations.py and
llvm_integer.py. Imports core, ir.scalar and ir.loop.
"""

from __future__ import annotations

from collections.abc import Callable

from tinyflow.codegen.llvm_demands import compute_shared
from tinyflow.codegen.llvm_text import (
    is_literal,
    lane_numbers,
    literal,
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

_NO_EXPRESSIONS: frozenset[Expr] = frozenset()
Emitter = Callable[["ExpressionWriter", Expr, list[str], int, int, str], str]


class ExpressionWriter(Writer):
    """Values of expressions. Subclasses add the operations, memory and control flow."""

    emitters: dict[str, Emitter] = {}

    def __init__(self) -> None:
        super().__init__()
        self.facts: dict[Expr, Facts] = {}
        self.variable_bits: dict[Expr, int] = {}
        self.written: frozenset[Buffer] = NO_BUFFERS
        self.readers: dict[Buffer, list[Expr]] = {}
        self.mask: Value | None = None  # active lanes; None: all
        self.lane: Expr | None = None
        self.lanes = 0
        #: number of lanes: the target's instruction for products of pairs, if it has one
        self.pair_product: dict[int, str | None] = {}
        self.effects_known: dict[Expr, tuple[frozenset[Expr], frozenset[Expr]]] = {}

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
        checks = node.op == "checked" or any(self.facts[a].checks for a in node.args)
        found = Facts(variables, effects, reads, checks, False)
        found.guards = any(self.facts[a].guards for a in node.args) or self.is_guarded(node)
        return found

    def is_guarded(self, node: Expr) -> bool:
        """Whether it is a select whose branches may load or check only where they are chosen."""
        if node.op != "select":
            return False
        a, b = self.facts[node.args[1]], self.facts[node.args[2]]
        return (a.effects or b.effects) and (
            a.checks or b.checks or bounds_condition(node.args[0])
        )

    def certain(self, expr: Expr) -> frozenset[Expr]:
        """Loads, checks, folds and selects among them that evaluating ``expr`` always performs."""
        return self._effects_of(expr)[0]

    def possible(self, expr: Expr) -> frozenset[Expr]:
        """Loads, checks and folds that evaluating ``expr`` may perform."""
        return self._effects_of(expr)[1]

    def _effects_of(self, expr: Expr) -> tuple[frozenset[Expr], frozenset[Expr]]:
        known = self.effects_known
        if expr not in known:
            for node in postorder(expr):
                if node not in known:
                    known[node] = self._effect_sets(node)
        return known[expr]

    def _effect_sets(self, node: Expr) -> tuple[frozenset[Expr], frozenset[Expr]]:
        if not self.describe(node).effects:
            return _NO_EXPRESSIONS, _NO_EXPRESSIONS
        parts = [self.effects_known[a] for a in node.args]
        possible = _NO_EXPRESSIONS.union(*(p for _, p in parts))
        if node.op == "select":
            certain = parts[0][0] | (parts[1][0] & parts[2][0]) | {node}
        elif node.op == "fold":  # what its body does depends on its own variable
            return frozenset((node,)), frozenset((node,))
        else:
            certain = _NO_EXPRESSIONS.union(*(c for c, _ in parts))
        if node.op in ("load", "checked"):
            certain, possible = certain | {node}, possible | {node}
        return certain, possible

    # --- values -----------------------------------------------------------------------------------

    def value(self, root: Expr) -> Value:
        """The value of an expression at this place, computed if it is not known yet.

        Iterative: fused expressions can be thousands of operations deep.
        """
        memo = self.memo
        found = memo.get(root)
        if found is not None:
            return found
        if self.describe(root).guards:
            compute_shared(self, root)
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
            emitter = self.emitters.get(expr.op)
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
        spread = [self.spread(v, a.dtype, lanes) for v, a in zip(values, args, strict=True)]
        return spread, lanes, level

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

    def disjunction(self, a: Value, b: Value) -> Value:
        """Lanes (or the scalar) where one of both holds."""
        lanes = a[1] or b[1]
        level = max(a[2], b[2])
        x, y = self.spread(a, bool_, lanes), self.spread(b, bool_, lanes)
        return self.emit(level, f"or {type_name(bool_, lanes)} {x}, {y}"), lanes, level

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
        """The value of ``expr``, whose loads and checks happen only where ``condition`` holds."""
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


# --- operations that decide what to evaluate themselves; None: like any other -------------------


def _const(w: ExpressionWriter, e: Expr) -> Value:
    return literal(e.attr, e.dtype), 0, 0


def _var(w: ExpressionWriter, e: Expr) -> Value:
    if e is w.lane:
        return lane_numbers("i64", w.lanes), w.lanes, 0
    raise InternalError(f"codegen: variable {e.attr} has no value here")


def _select(w: ExpressionWriter, e: Expr) -> Value | None:
    condition, a, b = e.args
    facts = w.facts
    if not w.is_guarded(e):
        return None
    # What both arms do happens whatever the condition says. Written under each arm's mask, a chain
    # of selects (powers by squaring) would be twice as long with every link.
    shared = w.certain(a) & w.certain(b)
    if w.possible(a) <= shared and w.possible(b) <= shared:
        return None
    for part in postorder(e):  # in this order, so that the text is always the same
        if part in shared:
            w.value(part)
    # Only what the condition selects may be loaded: x[i - 1] where i > 0, else 0.
    c = w.value(condition)
    x = w.under(c, a)
    y = w.under(w.negation(c), b) if facts[b].effects and b not in w.memo else w.value(b)
    lanes = c[1] or x[1] or y[1]
    level = max(c[2], x[2], y[2], w.floor)
    return w.emit(level, select_text(w, c, x, y, e.dtype, lanes)), lanes, level


def select_text(
    w: ExpressionWriter, c: Value, x: Value, y: Value, dtype: DType, lanes: int
) -> str:
    ty = type_name(dtype, lanes)
    # A scalar condition may choose between vectors.
    return (
        f"select {type_name(bool_, c[1])} {c[0]}, {ty} {w.spread(x, dtype, lanes)}, "
        f"{ty} {w.spread(y, dtype, lanes)}"
    )


_SPECIAL: dict[str, Callable[[ExpressionWriter, Expr], Value | None]] = {
    "const": _const,
    "var": _var,
    "load": lambda w, e: w.load(e),
    "fold": lambda w, e: w.fold(e),
    "checked": lambda w, e: w.checked(e),
    "select": _select,
    **dict.fromkeys(s.COMPARE, lambda w, e: w.lane_comparison(e)),
}
