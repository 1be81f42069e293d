# mypy: disable-error-code="misc, override"
"""Inverse functions, where the domain allows it.

Main name: ``RULES``. May import ops and rewrite.
"""

from __future__ import annotations

from typing import Any

from tinyflow.ops import activation as act
from tinyflow.ops import elementwise as ew
from tinyflow.ops import special as sp
from tinyflow.passes.rules.conditions import is_float, is_nonnegative
from tinyflow.rewrite.rule import Match, RealEqual, Rule, rules

INVERSES = rules(contract=RealEqual, when=is_float)(lambda x: [
    ("log_of_exp", ew.log(ew.exp(x)), x),                     # for every real x
    ("log1p_of_expm1", sp.log1p(sp.expm1(x)), x),
    ("relu_twice", act.relu(act.relu(x)), act.relu(x)),
])  # fmt: skip


class ExpOfLog(Rule):
    """exp(log(x)) -> x, where x cannot be below 0

    Why the condition: log is NaN below 0, and exp keeps the NaN.
    """

    contract = RealEqual

    def example(x="float32[5]"):  # type: ignore[no-untyped-def]
        return ew.exp(ew.log(ew.square(x)))

    def pattern(x):  # type: ignore[no-untyped-def]
        return ew.exp(ew.log(x))

    def check(m: Match) -> str | None:
        return None if is_nonnegative(m.x) else "x may be below 0, where log(x) is NaN"

    def rewrite(m: Match) -> Any:
        return m.x


class SquareOfSqrt(Rule):
    """square(sqrt(x)) -> x, where x cannot be below 0

    Why the condition: sqrt is NaN below 0.
    """

    contract = RealEqual

    def example(x="float32[5]"):  # type: ignore[no-untyped-def]
        return ew.square(ew.sqrt(ew.absolute(x)))

    def pattern(x):  # type: ignore[no-untyped-def]
        return ew.square(ew.sqrt(x))

    def check(m: Match) -> str | None:
        return None if is_nonnegative(m.x) else "x may be below 0, where sqrt(x) is NaN"

    def rewrite(m: Match) -> Any:
        return m.x


class AbsoluteOfNonnegative(Rule):
    """abs(x) -> x, where x cannot be below 0"""

    contract = RealEqual  # abs(-0.0) is 0.0

    def example(x="float32[5]"):  # type: ignore[no-untyped-def]
        return ew.absolute(ew.exp(x))

    def pattern(x):  # type: ignore[no-untyped-def]
        return ew.absolute(x)

    def check(m: Match) -> str | None:
        return None if m.x.dtype.is_floating and is_nonnegative(m.x) else ""

    def rewrite(m: Match) -> Any:
        return m.x


RULES: list[Any] = [*INVERSES, ExpOfLog, SquareOfSqrt, AbsoluteOfNonnegative]
