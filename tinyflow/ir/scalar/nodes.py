"""Scalar and index expressions, interned: equal expressions are the same object.

Main type: ``Expr``; build them with operators and the functions below, never with ``Expr(...)``.
Imports core only.

Grammar (``op``: arguments, ``attr``)::

    const  ()                attr = Python bool, int or float
    var    ()                attr = name                       loop variables, extents: int64
    add sub mul min max      (a, b)  one dtype                 min, max: NaN if either is NaN
    div                      (a, b)  floats                    IEEE division
    floordiv mod             (a, b)  integers, towards -inf    x // 0 == x % 0 == 0
    truncdiv rem             (a, b)  integers, towards 0       the same for 0
    and or xor               (a, b)  bool or integers
    shl shr                  (a, b)  integers; shr is arithmetic for signed, logical for unsigned
    lt le eq ne              (a, b)  -> bool; comparisons with NaN are false, ne is true
    neg abs not sqrt floor ceil rint trunc     (a,)            rint: half to even
    fma                      (a, b, c)  a*b + c rounded once   floats
    dot_pairs                (a, b, c)  int32; a and b hold two int16 each: low(a)*low(b) +
                             high(a)*high(b) + c, modulo 2**32
    select                   (condition, a, b)
    cast                     (a,)    dtype = target            float -> int saturates, NaN -> 0
    bitcast                  (a,)    dtype of the same size
    call                     (a, ...)  attr = name             exp, log ...: see math.py
    load                     (i, ...)  attr = loop.Buffer      one index per dimension
    read                     (i, ...)  attr = te.Tensor        only in tensor expressions
    reduce                   (body, ...)  attr = Reduction     only at the top of a te expression
    fold                     ()      attr = (combiner, Buffer) the fixed tree over a buffer's lanes
    checked                  (value, ok, got, limit)  attr = status code; value, and if not ok the
                             kernel reports (code, got, limit) through its status record
"""

from __future__ import annotations

import os
import struct
import threading
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np

from tinyflow.core.dtype import DType, bool_, float32, int32, int64
from tinyflow.core.shape import Dim, quotient_parts

COMPARE = frozenset({"lt", "le", "eq", "ne"})
UNARY = ("neg", "abs", "not", "sqrt", "floor", "ceil", "rint", "trunc")
BINARY = (
    "add", "sub", "mul", "div", "min", "max", "floordiv", "mod", "truncdiv", "rem",
    "and", "or", "xor", "shl", "shr",
)  # fmt: skip
COMBINERS = ("sum", "prod", "max", "min", "all", "any", "dot")


class Reduction(NamedTuple):
    """How ``reduce`` folds its body over ``axes``: ((var, extent), ...), first axis slowest.

    combiner: one of COMBINERS; ``dot`` has two bodies a, b and is acc = fma(a, b, acc), in order.
    """

    combiner: str
    axes: tuple[tuple[Expr, Any], ...]


class Expr:
    """One interned expression; see the grammar at the top of the module."""

    __slots__ = ("__weakref__", "args", "attr", "dtype", "op")

    op: str
    args: tuple[Expr, ...]
    dtype: DType
    attr: Any

    def __repr__(self) -> str:
        from tinyflow.ir.scalar.text import show

        return show(self)

    # Arithmetic builds expressions; ``==`` stays identity because expressions are dictionary keys.
    def __add__(self, other: Operand) -> Expr:
        return add(self, like(other, self))

    def __radd__(self, other: Operand) -> Expr:
        return add(like(other, self), self)

    def __sub__(self, other: Operand) -> Expr:
        return sub(self, like(other, self))

    def __rsub__(self, other: Operand) -> Expr:
        return sub(like(other, self), self)

    def __mul__(self, other: Operand) -> Expr:
        return mul(self, like(other, self))

    def __rmul__(self, other: Operand) -> Expr:
        return mul(like(other, self), self)

    def __truediv__(self, other: Operand) -> Expr:
        return binary("div", self, like(other, self))

    def __rtruediv__(self, other: Operand) -> Expr:
        return binary("div", like(other, self), self)

    def __floordiv__(self, other: Operand) -> Expr:
        return floordiv(self, like(other, self))

    def __mod__(self, other: Operand) -> Expr:
        return mod(self, like(other, self))

    def __neg__(self) -> Expr:
        return unary("neg", self)

    def __and__(self, other: Operand) -> Expr:
        return binary("and", self, like(other, self))

    def __or__(self, other: Operand) -> Expr:
        return binary("or", self, like(other, self))

    def __xor__(self, other: Operand) -> Expr:
        return binary("xor", self, like(other, self))

    def __lshift__(self, other: Operand) -> Expr:
        return binary("shl", self, like(other, self))

    def __rshift__(self, other: Operand) -> Expr:
        return binary("shr", self, like(other, self))

    def __invert__(self) -> Expr:
        return unary("not", self)

    def __lt__(self, other: Operand) -> Expr:
        return compare("lt", self, like(other, self))

    def __le__(self, other: Operand) -> Expr:
        return compare("le", self, like(other, self))

    def __gt__(self, other: Operand) -> Expr:
        return compare("lt", like(other, self), self)

    def __ge__(self, other: Operand) -> Expr:
        return compare("le", like(other, self), self)

    def equal(self, other: Operand) -> Expr:
        return compare("eq", self, like(other, self))

    def not_equal(self, other: Operand) -> Expr:
        return compare("ne", self, like(other, self))

    def __bool__(self) -> bool:
        raise TypeError(f"the expression {self!r} has no truth value; use select or &, |, ~")

    @property
    def is_const(self) -> bool:
        return self.op == "const"


Operand = Expr | int | float | bool
_table: WeakValueDictionary[Any, Expr] = WeakValueDictionary()
_table_lock = threading.RLock()
# A child forked while another thread makes an expression would inherit a lock nobody releases.
os.register_at_fork(
    before=_table_lock.acquire, after_in_parent=_table_lock.release,
    after_in_child=_table_lock.release,
)  # fmt: skip


def make(op: str, args: tuple[Expr, ...], dtype: DType, attr: Any = None) -> Expr:
    """The one expression with these parts. No checks or simplification: see verify.py."""
    # Floats are keyed by their bits: 0.0 and -0.0 differ, NaN equals itself.
    key_attr = struct.pack("d", attr) if type(attr) is float else attr
    key = (op, args, dtype.name, type(attr), key_attr)
    found = _table.get(key)
    if found is None:
        with _table_lock:  # two threads must not make the same expression twice
            found = _table.get(key)
            if found is None:
                found = object.__new__(Expr)
                found.op, found.args, found.dtype, found.attr = op, args, dtype, attr
                _table[key] = found
    return found


def const(value: Any, dtype: DType) -> Expr:
    """A literal, rounded to its dtype so that printing and parsing keep its bits."""
    if dtype.kind == "float":
        number = float(value)
        if dtype.size_bytes < 8:
            with np.errstate(over="ignore"):  # beyond the largest is inf, as everywhere
                number = float(dtype.numpy.type(number))
        return make("const", (), dtype, number)
    if dtype.kind == "bool":
        return make("const", (), dtype, bool(value))
    number = int(value) & ((1 << dtype.bits) - 1)
    if dtype.kind == "int" and number >> (dtype.bits - 1):
        number -= 1 << dtype.bits
    return make("const", (), dtype, number)


def var(name: str, dtype: DType = int64) -> Expr:
    return make("var", (), dtype, name)


def index(value: Expr | int | Dim) -> Expr:
    """An index expression from an int or an extent that a run knows."""
    if isinstance(value, Expr):
        return value
    return _extent(value) if isinstance(value, Dim) else make("const", (), int64, int(value))


def _extent(dim: Dim) -> Expr:
    """A polynomial over the sizes of a run as an expression over variables of their names."""
    total = index(0)
    for monomial, coefficient in dim.terms:
        product = index(1)
        for symbol in monomial:
            parts = quotient_parts(symbol)
            factor = var(symbol) if parts is None else floordiv(*map(index, parts))
            product = mul(product, factor)
        total = add(total, mul(product, index(coefficient)))
    return total


def like(value: Operand, other: Expr) -> Expr:
    """``value`` as an expression of ``other``'s dtype; what has an ``expr`` stands for that."""
    if isinstance(value, Expr):
        return value
    if isinstance(value, Dim):
        return cast(index(value), other.dtype)
    stands_for = getattr(value, "expr", None)  # a loop axis of te: i + axis
    return const(value, other.dtype) if stands_for is None else cast(stands_for, other.dtype)


def as_expr(value: Operand) -> Expr:
    if isinstance(value, Expr):
        return value
    if isinstance(value, bool):
        return const(value, bool_)
    return const(value, int32 if isinstance(value, int) else float32)


def _exact_integers(a: Expr, b: Expr) -> bool:
    return a.op == "const" == b.op and a.dtype.kind in ("int", "uint")


def add(a: Expr, b: Expr) -> Expr:
    if a.dtype.kind in ("int", "uint"):
        if a.op == "const":
            a, b = b, a
        if b.op == "const":
            if b.attr == 0:
                return a
            if a.op == "const":
                return const(a.attr + b.attr, a.dtype)
            if a.op == "add" and a.args[1].op == "const":
                return add(a.args[0], const(a.args[1].attr + b.attr, a.dtype))
        if a.op == "mul" and b.op == "mod" and a.args[0].op == "floordiv":
            x, extent = b.args
            if a.args == (floordiv(x, extent), extent) and _is_not_zero(extent):
                return x  # x // n * n + x % n, what is left of a reshape and its inverse
    return make("add", (a, b), a.dtype)


def _is_not_zero(expr: Expr) -> bool:
    """Of a number, or of an extent that a run tells: there are no positions where that is 0."""
    if expr.op == "const":
        return bool(expr.attr)
    if expr.op in ("add", "mul"):
        return all(map(_is_not_zero, expr.args))
    return expr.op == "var"


def sub(a: Expr, b: Expr) -> Expr:
    if a.dtype.kind in ("int", "uint"):
        if a is b:
            return const(0, a.dtype)
        if b.op == "const":
            return add(a, const(-b.attr, a.dtype))
    return make("sub", (a, b), a.dtype)


def mul(a: Expr, b: Expr) -> Expr:
    if a.dtype.kind in ("int", "uint"):
        if a.op == "const":
            a, b = b, a
        if b.op == "const":
            if b.attr in (0, 1):
                return a if b.attr else b
            if a.op == "const":
                return const(a.attr * b.attr, a.dtype)
            if a.op == "mul" and a.args[1].op == "const":
                return mul(a.args[0], const(a.args[1].attr * b.attr, a.dtype))
    return make("mul", (a, b), a.dtype)


def floordiv(a: Expr, b: Expr) -> Expr:
    if b.op == "const":
        if b.attr == 1:
            return a
        if a.op == "const":
            return const(a.attr // b.attr if b.attr else 0, a.dtype)
    return make("floordiv", (a, b), a.dtype)


def mod(a: Expr, b: Expr) -> Expr:
    if b.op == "const":
        if b.attr == 1:
            return const(0, a.dtype)
        if a.op == "const":
            return const(a.attr % b.attr if b.attr else 0, a.dtype)
    return make("mod", (a, b), a.dtype)


def minimum(a: Expr, b: Operand) -> Expr:
    b = like(b, a)
    if _exact_integers(a, b):
        return const(min(a.attr, b.attr), a.dtype)
    return a if a is b else make("min", (a, b), a.dtype)


def maximum(a: Expr, b: Operand) -> Expr:
    b = like(b, a)
    if _exact_integers(a, b):
        return const(max(a.attr, b.attr), a.dtype)
    return a if a is b else make("max", (a, b), a.dtype)


def binary(op: str, a: Expr, b: Expr) -> Expr:
    """Any two-argument arithmetic op of the grammar; the result has ``a``'s dtype."""
    special = _SPECIAL.get(op)
    if special is not None:
        return special(a, b)
    if op in ("and", "or") and a.dtype is bool_:
        for x, y in ((a, b), (b, a)):
            if x.op == "const":
                return y if x.attr == (op == "and") else x
    return make(op, (a, b), a.dtype)


_SPECIAL = {"add": add, "sub": sub, "mul": mul, "floordiv": floordiv, "mod": mod,
            "min": minimum, "max": maximum}  # fmt: skip


def compare(op: str, a: Expr, b: Expr) -> Expr:
    """op: lt, le, eq or ne."""
    if _exact_integers(a, b):
        x, y = a.attr, b.attr
        return const({"lt": x < y, "le": x <= y, "eq": x == y, "ne": x != y}[op], bool_)
    return make(op, (a, b), bool_)


def unary(op: str, a: Expr) -> Expr:
    """neg, abs, not, sqrt, floor, ceil, rint or trunc."""
    if op == "neg" and a.op == "const" and a.dtype.kind != "bool":
        return const(-a.attr, a.dtype)
    return make(op, (a,), a.dtype)


def fma(a: Expr, b: Expr, c: Expr) -> Expr:
    """a*b + c with one rounding: the only place where a product and a sum are contracted."""
    return make("fma", (a, like(b, a), like(c, a)), a.dtype)


def dot_pairs(a: Expr, b: Expr, c: Expr) -> Expr:
    """c plus the products of the low and of the high halves of a and b, all int32."""
    return make("dot_pairs", (a, b, c), a.dtype)


def select(condition: Expr, a: Expr, b: Operand) -> Expr:
    b = like(b, a)
    if condition.op == "const":
        return a if condition.attr else b
    return a if a is b else make("select", (condition, a, b), a.dtype)


def cast(a: Expr, dtype: DType) -> Expr:
    if a.dtype is dtype:
        return a
    if a.op == "const" and _folds(a, dtype):
        return const(a.attr, dtype)
    return make("cast", (a,), dtype)


def _folds(a: Expr, dtype: DType) -> bool:
    """Whether const() converts exactly as a kernel does."""
    if dtype.kind == "float":
        # Larger integers would be rounded twice: const goes through float64.
        return a.dtype.kind == "float" or abs(a.attr) <= 2**53
    return a.dtype.kind != "float"


def bitcast(a: Expr, dtype: DType) -> Expr:
    return a if a.dtype is dtype else make("bitcast", (a,), dtype)


def call(name: str, *args: Expr) -> Expr:
    """An elementary function by name; math.py expands it into arithmetic."""
    return make("call", args, args[0].dtype, name)


def load(buffer: Any, *indices: Expr | int) -> Expr:
    return make("load", tuple(index(i) for i in indices), buffer.dtype, buffer)


def read(tensor: Any, *indices: Expr | int) -> Expr:
    return make("read", tuple(index(i) for i in indices), tensor.dtype, tensor)


def reduce(combiner: str, axes: tuple[tuple[Expr, Any], ...], *bodies: Expr) -> Expr:
    return make("reduce", bodies, bodies[0].dtype, Reduction(combiner, axes))


def fold(combiner: str, buffer: Any) -> Expr:
    return make("fold", (), buffer.dtype, (combiner, buffer))


def checked(value: Expr, ok: Expr, got: Expr, limit: Expr, code: int) -> Expr:
    """``value``; the kernel reports status ``code`` with (got, limit) where ``ok`` is false."""
    return make("checked", (value, ok, cast(got, int64), cast(limit, int64)), value.dtype, code)


# Status codes that kernels report; the runtime turns them into UserErrors with the op's line.
INDEX_OUT_OF_RANGE, DIVISION_BY_ZERO, NEGATIVE_EXPONENT = 1, 2, 3
