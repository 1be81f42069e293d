# mypy: disable-error-code="misc, override"
"""Algebraic identities. Floats obey fewer of them than the reals do: see each contract.

Main name: ``RULES``. May import core, ir.graph, ops and rewrite.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyflow.ir.graph.builder import emit
from tinyflow.ir.graph.nodes import Value
from tinyflow.ops import elementwise as ew
from tinyflow.ops import logical
from tinyflow.ops.creation import Fill, ZerosLike, constant
from tinyflow.ops.special import Pow
from tinyflow.passes.rules.conditions import is_float, is_integer, is_normal, scalar_constant
from tinyflow.rewrite.rule import Approximate, Bitwise, Match, RealEqual, Rule, rules

# Bit for bit: x + -0.0 is x also for x = -0.0; x - 0.0 as well. The sign of a NaN is no bit that
# anything here promises to keep.
EXACT = rules(contract=Bitwise)(lambda x, y: [
    ("add_negative_zero", x + -0.0, x),
    ("sub_zero", x - 0.0, x),
    ("mul_one", x * 1, x),
    ("div_one", x / 1.0, x),
    ("div_minus_one", x / -1.0, -x),
    ("mul_minus_one", x * -1, -x),
    ("double_negation", ew.negative(-x), x),
    ("add_negation", x + (-y), x - y),
    ("sub_negation", x - (-y), x + y),
    ("mul_negations", (-x) * (-y), x * y),
    ("div_negations", (-x) / (-y), x / y),
    ("square_of_negation", ew.square(-x), ew.square(x)),
    ("square_of_absolute", ew.square(ew.absolute(x)), ew.square(x)),
    ("absolute_of_negation", ew.absolute(-x), ew.absolute(x)),
    ("absolute_twice", ew.absolute(ew.absolute(x)), ew.absolute(x)),
    ("absolute_of_square", ew.absolute(ew.square(x)), ew.square(x)),
    ("product_with_itself", x * x, ew.square(x)),             # (A + b) * (A + b) -> (A + b)**2
    ("maximum_of_one", ew.maximum(x, x), x),
    ("minimum_of_one", ew.minimum(x, x), x),
    ("not_twice", logical.logical_not(logical.logical_not(x)), x),
    ("and_of_one", logical.logical_and(x, x), x),
    ("or_of_one", logical.logical_or(x, x), x),
    ("and_true", logical.logical_and(x, True), x),
    ("or_false", logical.logical_or(x, False), x),
    ("select_of_one", emit(logical.Select(), x, y, y), y),
    ("select_true", emit(logical.Select(), True, x, y), x),
    ("select_false", emit(logical.Select(), False, x, y), y),
    ("sum_of_one", ew.add_n([x]), x),
    ("sum_of_two", ew.add_n([x, y]), x + y),
    ("reciprocal_of_division", 1.0 / x, ew.reciprocal(x)),
])  # fmt: skip

# True for integers only: for floats NaN - NaN and 0 * inf are NaN, and x / x misses x = 0.
INTEGERS = rules(contract=Bitwise, when=is_integer)(lambda x, y: [
    ("add_zero_integer", x + 0, x),
    ("sub_zero_integer", x - 0, x),
    ("sub_itself", x - x, emit(ZerosLike(), x)),
    ("mul_zero", x * 0, emit(ZerosLike(), x)),
    ("negated_difference_integer", -(x - y), y - x),
    ("pow_two_integer", x ** 2, ew.square(x)),
])  # fmt: skip

# Equal over the reals. What differs: the sign of a zero, the rounding of the last place, and
# results beyond the range that the shorter form still reaches.
REAL = rules(contract=RealEqual, when=is_float)(lambda x, y: [
    ("add_zero", x + 0.0, x),                                 # -0.0 + 0.0 is 0.0
    ("zero_minus", 0.0 - x, -x),                              # 0.0 - 0.0 is 0.0
    ("sub_negative_zero", x - -0.0, x),
    ("negated_difference", -(x - y), y - x),
    ("pow_one", x ** 1.0, x),
    ("pow_two", x ** 2.0, ew.square(x)),
    ("pow_three", x ** 3.0, ew.square(x) * x),
    ("pow_half", x ** 0.5, ew.sqrt(x)),                       # pow(-0.0, 0.5) is 0.0
    ("pow_minus_one", x ** -1.0, ew.reciprocal(x)),
    ("pow_minus_half", x ** -0.5, ew.rsqrt(x)),
    ("reciprocal_twice", ew.reciprocal(ew.reciprocal(x)), x),
    ("div_by_reciprocal", x / ew.reciprocal(y), x * y),
    ("reciprocal_of_sqrt", ew.reciprocal(ew.sqrt(x)), ew.rsqrt(x)),
    ("sqrt_of_square", ew.sqrt(ew.square(x)), ew.absolute(x)),
])  # fmt: skip


def _is_as_large(m: Match) -> str | None:
    """A smaller ``y`` has fewer reciprocals than the result has elements to divide."""
    if m.y.type.shape != m.root.type.shape:
        return "one reciprocal serves many elements"
    return is_float(m)


QUOTIENTS = rules(contract=RealEqual, when=_is_as_large)(lambda x, y: [
    ("mul_by_reciprocal", x * ew.reciprocal(y), x / y),       # one rounding instead of two
])  # fmt: skip


class PowZero(Rule):
    """x ** 0 -> 1, for every x (NaN too, as C's pow defines it)"""

    contract = Bitwise

    def example(x="float32[5]"):  # type: ignore[no-untyped-def]
        return emit(Pow(), x, 0.0)

    def pattern(x):  # type: ignore[no-untyped-def]
        return emit(Pow(), x, 0.0)

    def rewrite(m: Match) -> Any:
        return emit(Fill(m.root.type.shape), constant(np.ones((), m.root.dtype.numpy)))


class ReassociateProduct(Rule):
    """(x * c) * d -> x * (c * d), for constants c and d

    Why: gradients scale step by step (1/n, then the learning rate). The product of the constants
    must be a normal number: else the new form could overflow or vanish where the old one did not.
    """

    contract = RealEqual

    def example(x="float32[5]"):  # type: ignore[no-untyped-def]
        return ew.multiply(ew.multiply(x, 3.0), 0.1)

    def pattern(x, c, d):  # type: ignore[no-untyped-def]
        return (x * c) * d

    def check(m: Match) -> str | None:
        c, d = scalar_constant(m.c), scalar_constant(m.d)
        if c is None or d is None or scalar_constant(m.x) is not None:
            return ""
        return None if is_normal(c * d, m.root.dtype) else "the constants' product is not normal"

    def rewrite(m: Match) -> Any:
        return ew.multiply(m.x, _number(known(m.c) * known(m.d), m))


class DivideThenMultiply(Rule):
    """(x / c) * d -> x * (d / c) and (x * d) / c -> x * (d / c), for constants c and d

    Why: as ReassociateProduct; one product is cheaper than a division.
    """

    contract = RealEqual

    def example(x="float32[5]"):  # type: ignore[no-untyped-def]
        return ew.multiply(ew.divide(x, 3.0), 0.1)

    def pattern(x, c, d):  # type: ignore[no-untyped-def]
        return [(x / c) * d, (x * d) / c]

    def check(m: Match) -> str | None:
        c, d = scalar_constant(m.c), scalar_constant(m.d)
        if not c or d is None or scalar_constant(m.x) is not None:
            return ""
        return None if is_normal(d / c, m.root.dtype) else "the constants' ratio is not normal"

    def rewrite(m: Match) -> Any:
        return ew.multiply(m.x, _number(known(m.d) / known(m.c), m))


class ReassociateSum(Rule):
    """(x + c) + d -> x + (c + d), for integer constants

    Why only integers: for floats the sum of the constants may cancel what rounding had kept apart.
    """

    contract = Bitwise

    def example(x="int32[5]"):  # type: ignore[no-untyped-def]
        return ew.add(ew.add(x, 3), 4)

    def pattern(x, c, d):  # type: ignore[no-untyped-def]
        return (x + c) + d

    def check(m: Match) -> str | None:
        if not m.root.dtype.is_integer:
            return ""
        constants = [v.node.op.type_name == "Constant" for v in (m.c, m.d, m.x)]
        return None if constants == [True, True, False] else ""

    def rewrite(m: Match) -> Any:
        return ew.add(m.x, ew.add(m.c, m.d))


class DivideByPowerOfTwo(Rule):
    """x / c -> x * (1 / c), where c is a power of two

    Why: exact, as both change the exponent only; products are faster than divisions.
    """

    contract = Bitwise

    def example(x="float32[5]"):  # type: ignore[no-untyped-def]
        return ew.divide(x, 4.0)

    def pattern(x, c):  # type: ignore[no-untyped-def]
        return x / c

    def check(m: Match) -> str | None:
        c = scalar_constant(m.c)
        if not c or c in (1.0, -1.0):
            return ""
        if abs(math.frexp(c)[0]) != 0.5:
            return ""
        return None if is_normal(1.0 / c, m.root.dtype) else "the reciprocal is not normal"

    def rewrite(m: Match) -> Any:
        return ew.multiply(m.x, _number(1.0 / known(m.c), m))


class DivideByConstant(Rule):
    """x / c -> x * (1 / c), for any constant c; up to 1 ulp away"""

    contract = Approximate

    def example(x="float32[5]"):  # type: ignore[no-untyped-def]
        return ew.divide(x, 3.0)

    def pattern(x, c):  # type: ignore[no-untyped-def]
        return x / c

    def check(m: Match) -> str | None:
        c = scalar_constant(m.c)
        if not c or scalar_constant(m.x) is not None:
            return ""
        return None if is_normal(1.0 / c, m.root.dtype) else "the reciprocal is not normal"

    def rewrite(m: Match) -> Any:
        return ew.multiply(m.x, _number(1.0 / known(m.c), m))


class Distribute(Rule):
    """x * c + y * c -> (x + y) * c

    Why Approximate: the sum rounds before the product, so where x and y nearly cancel the relative
    error is not bounded by a few ulp of the old form's.
    """

    contract = Approximate

    def example(x="float32[5]", y="float32[5]", c="float32[5]"):  # type: ignore[no-untyped-def]
        return ew.add(ew.multiply(x, c), ew.multiply(y, c))

    def pattern(x, y, c):  # type: ignore[no-untyped-def]
        return x * c + y * c

    def rewrite(m: Match) -> Any:
        return ew.multiply(ew.add(m.x, m.y), m.c)


class NegateIntoConstant(Rule):
    """-(x * c) -> x * -c and (-x) * c -> x * -c, for a constant c"""

    contract = Bitwise

    def example(x="float32[5]"):  # type: ignore[no-untyped-def]
        return ew.negative(ew.multiply(x, 3.0))

    def pattern(x, c):  # type: ignore[no-untyped-def]
        return [-(x * c), (-x) * c]

    def check(m: Match) -> str | None:
        c = scalar_constant(m.c)
        return "" if c is None or scalar_constant(m.x) is not None else None

    def rewrite(m: Match) -> Any:
        return ew.multiply(m.x, _number(-known(m.c), m))


def known(value: Value) -> float:
    """The number that ``check`` has found ``value`` to be."""
    number = scalar_constant(value)
    assert number is not None
    return number


def _number(number: float, m: Match) -> Any:
    """A scalar constant of the root's dtype: it broadcasts, so the type of the product is x's."""
    return constant(np.asarray(number, m.root.dtype.numpy))


RULES: list[Any] = [
    *EXACT, *INTEGERS, *REAL, *QUOTIENTS, PowZero, ReassociateProduct, DivideThenMultiply,
    ReassociateSum, DivideByPowerOfTwo, NegateIntoConstant, Distribute, DivideByConstant,
]  # fmt: skip
