"""Elementary functions as plain arithmetic: one table, and the pass that applies it.

Main names: ``EXPANSIONS`` (name -> function of expressions), ``expand``. Imports core, ir.scalar.

Every function is branch-free and built from IEEE basic operations, explicit fma and bit operations,
so it has the same bits on every target and vectorises. At most 2 ulp for float32 and float64 over
the whole range, special values and denormals as in C (docs/functions.md: all of float32, measured);
sin, cos and tan up to |x| = 1e14, beyond which they are bounded but meaningless. float16 and
bfloat16 are computed in float32. The rarer functions of float32 are computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable

from tinyflow.core.dtype import float32, float64
from tinyflow.core.error import InternalError
from tinyflow.ir.scalar import math_exp, math_special, math_trig
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ir.scalar.visit import transform_all

Expansion = Callable[..., Expr]


def _through_double(function: Expansion) -> Expansion:
    """float32 by way of float64, which is exact enough that only the last rounding shows."""

    def expansion(*args: Expr) -> Expr:
        if args[0].dtype is float64:
            return function(*args)
        return s.cast(function(*(s.cast(a, float64) for a in args)), args[0].dtype)

    return expansion


EXPANSIONS: dict[str, Expansion] = {
    "exp": math_exp.exp,
    "exp2": math_exp.exp2,
    "expm1": math_exp.expm1,
    "log": math_exp.log,
    "log2": math_exp.log2,
    "log10": math_exp.log10,
    "log1p": math_exp.log1p,
    "sigmoid": math_exp.sigmoid,
    "softplus": math_exp.softplus,
    "rsqrt": math_exp.rsqrt,
    "tanh": math_exp.tanh,
    "sinh": _through_double(math_trig.sinh64),
    "cosh": _through_double(math_trig.cosh64),
    "asinh": _through_double(math_trig.asinh64),
    "acosh": _through_double(math_trig.acosh64),
    "atanh": _through_double(math_trig.atanh64),
    "sin": math_trig.sin,
    "cos": math_trig.cos,
    "tan": _through_double(math_trig.tan64),
    "asin": math_trig.asin,
    "acos": math_trig.acos,
    "atan": math_trig.atan,
    "atan2": math_trig.atan2,
    "erf": math_special.erf,
    "erfc": _through_double(math_special.erfc64),
    "erfinv": math_special.erfinv,
    "pow": math_special.pow_,
}


def expand(expr: Expr) -> Expr:
    """``expr`` with every ``call`` replaced by arithmetic."""
    return expand_all((expr,))[0]


def expand_all(roots: tuple[Expr, ...]) -> list[Expr]:
    """``expand`` of several expressions that share sub-expressions."""
    return transform_all(roots, lambda node: _expanded(node) if node.op == "call" else None)


def _expanded(node: Expr) -> Expr:
    function = EXPANSIONS.get(node.attr)
    if function is None:
        raise InternalError(
            f"no expansion of the function {node.attr!r}", choices=sorted(EXPANSIONS)
        )
    if node.dtype in (float32, float64):
        return function(*node.args)
    return s.cast(function(*(s.cast(a, float32) for a in node.args)), node.dtype)
