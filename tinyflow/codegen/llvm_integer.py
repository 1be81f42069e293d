"""Integer division and shifts that never trap: x // 0 == x % 0 == 0, INT_MIN / -1 wraps.

Main functions: the ``EMITTERS`` entries for floordiv, mod, truncdiv, rem, shl and shr.
Imports core, ir.scalar.
"""

from __future__ import annotations

from tinyflow.codegen.llvm_expr import Emitter, ExpressionWriter
from tinyflow.codegen.llvm_text import literal, type_name
from tinyflow.core.dtype import bool_
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ir.scalar.visit import postorder


class _Block:
    """Emits instructions of one type at one level."""

    def __init__(self, w: ExpressionWriter, e: Expr, lanes: int, level: int, ty: str) -> None:
        self.w, self.dtype, self.lanes, self.level, self.ty = w, e.args[0].dtype, lanes, level, ty
        self.bit = type_name(bool_, lanes)

    def const(self, value: int) -> str:
        text = literal(value, self.dtype)
        return f"splat ({type_name(self.dtype)} {text})" if self.lanes else text

    def op(self, name: str, a: str, b: str) -> str:
        return self.w.emit(self.level, f"{name} {self.ty} {a}, {b}")

    def logic(self, name: str, a: str, b: str) -> str:
        return self.w.emit(self.level, f"{name} {self.bit} {a}, {b}")

    def choose(self, test: str, a: str, b: str) -> str:
        return self.w.emit(self.level, f"select {self.bit} {test}, {self.ty} {a}, {self.ty} {b}")


_KEEPS_SIGN = ("var", "add", "mul", "floordiv", "mod", "min", "max")


def is_nonnegative(expr: Expr) -> bool:
    """Whether an int64 index is certainly >= 0: sums, products and quotients of loop variables."""
    for node in postorder(expr):
        if node.op == "const":
            if node.attr < 0:
                return False
        elif node.op not in _KEEPS_SIGN or node.dtype.name != "int64":
            return False
    return True


def _divide(w: ExpressionWriter, e: Expr, r: list[str], lanes: int, level: int, ty: str) -> str:
    block = _Block(w, e, lanes, level, ty)
    x, y = r
    divisor = e.args[1]
    signed = e.args[0].dtype.kind == "int"
    wants_quotient = e.op in ("floordiv", "truncdiv")
    if divisor.op == "const" and divisor.attr == 0:
        return block.const(0)
    if not signed or (is_nonnegative(e.args[0]) and divisor.op == "const" and divisor.attr > 0):
        return _unsigned(block, divisor, x, y, wants_quotient)
    if divisor.op == "const" and divisor.attr > 0 and e.op in ("floordiv", "mod"):
        power = divisor.attr.bit_length() - 1
        if divisor.attr == 1 << power:  # an arithmetic shift rounds towards -inf
            if wants_quotient:
                return block.op("ashr", x, block.const(power))
            return block.op("and", x, block.const(divisor.attr - 1))
    return _signed(block, e.op, divisor, x, y)


def _unsigned(block: _Block, divisor: Expr, x: str, y: str, wants_quotient: bool) -> str:
    name = "udiv" if wants_quotient else "urem"
    if divisor.op == "const":
        return block.op(name, x, y)  # LLVM knows powers of two and magic numbers
    zero = block.w.emit(block.level, f"icmp eq {block.ty} {y}, {block.const(0)}")
    result = block.op(name, x, block.choose(zero, block.const(1), y))
    return block.choose(zero, block.const(0), result)


def _signed(block: _Block, op: str, divisor: Expr, x: str, y: str) -> str:
    w, level, ty = block.w, block.level, block.ty
    zero = block.const(0)
    if divisor.op == "const" and divisor.attr != -1:
        is_zero, minus, safe = None, None, y
    else:
        is_zero = w.emit(level, f"icmp eq {ty} {y}, {zero}")
        minus = w.emit(level, f"icmp eq {ty} {y}, {block.const(-1)}")
        safe = block.choose(block.logic("or", is_zero, minus), block.const(1), y)
    quotient = block.op("sdiv", x, safe)
    remainder = block.op("sub", x, block.op("mul", quotient, safe))
    if op in ("floordiv", "mod"):
        inexact = w.emit(level, f"icmp ne {ty} {remainder}, {zero}")
        signs = block.op("xor", remainder, safe)
        differ = w.emit(level, f"icmp slt {ty} {signs}, {zero}")
        fix = block.logic("and", inexact, differ)
        if op == "floordiv":
            one = w.emit(level, f"zext {block.bit} {fix} to {ty}")
            quotient = block.op("sub", quotient, one)
        else:
            remainder = block.op("add", remainder, block.choose(fix, safe, zero))
    result = quotient if op in ("floordiv", "truncdiv") else remainder
    if minus is None or is_zero is None:
        return result
    # Divisors 0 and -1 were replaced by 1: the remainder is 0 already.
    if op in ("floordiv", "truncdiv"):
        result = block.choose(minus, block.op("sub", zero, result), result)
        result = block.choose(is_zero, zero, result)
    return result


def _shift(w: ExpressionWriter, e: Expr, r: list[str], lanes: int, level: int, ty: str) -> str:
    """An amount outside [0, bits) shifts everything out."""
    block = _Block(w, e, lanes, level, ty)
    signed_right = e.op == "shr" and e.dtype.kind == "int"
    name = "shl" if e.op == "shl" else "ashr" if signed_right else "lshr"
    amount = e.args[1]
    bits = e.dtype.bits
    if amount.op == "const" and 0 <= amount.attr < bits:
        return block.op(name, r[0], r[1])
    inside = w.emit(level, f"icmp ult {ty} {r[1]}, {block.const(bits)}")
    if signed_right:
        return block.op(name, r[0], block.choose(inside, r[1], block.const(bits - 1)))
    shifted = block.op(name, r[0], block.choose(inside, r[1], block.const(0)))
    return block.choose(inside, shifted, block.const(0))


EMITTERS: dict[str, Emitter] = {
    **dict.fromkeys(("floordiv", "mod", "truncdiv", "rem"), _divide),
    **dict.fromkeys(("shl", "shr"), _shift),
}
