"""What rules ask about values: dtype, constants, sign. May import core, ir.graph and rewrite.

A condition takes a match and returns None when it holds, else the reason why not.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyflow.ir.graph.nodes import Value
from tinyflow.rewrite.pattern import uniform
from tinyflow.rewrite.rule import Match


def is_integer(m: Match) -> str | None:
    """For identities that fail for floats: NaN - NaN is NaN, 0 * inf is NaN."""
    return None if m.root.dtype.is_integer else "holds for integers only"


def is_float(m: Match) -> str | None:
    return None if m.root.dtype.is_floating else "holds for floats only"


def scalar_constant(value: Value) -> float | None:
    """The finite number that all elements of a float value are, or None."""
    found = uniform(value)
    if found is None or found.dtype.kind != "f" or not np.isfinite(found):
        return None
    return float(found)


def is_normal(number: float, dtype: Any) -> bool:
    """Whether ``number`` is finite, not zero and not denormal in ``dtype``."""
    limits = np.finfo(dtype.numpy)
    return math.isfinite(number) and limits.tiny <= abs(number) <= limits.max


#: ops whose result is never below 0 (it may be NaN)
_NONNEGATIVE = frozenset({
    "Exp", "Square", "Abs", "Sqrt", "Sigmoid", "Softmax", "Softplus", "Relu", "Relu6", "Rsqrt",
    "EuclideanNorm", "L2Loss", "SquaredDifference",
})  # fmt: skip
#: ops whose result is above 0 for every real argument (rounding may make it 0)
_POSITIVE = frozenset({"Exp", "Sigmoid", "Softmax", "Softplus"})
#: ops that move or sum elements and keep their sign
_SIGN_KEEPING = frozenset({
    "Reshape", "Transpose", "BroadcastTo", "ExpandDims", "Squeeze", "Identity", "Sum", "Mean",
    "Max", "Min", "Cast",
})  # fmt: skip


def is_nonnegative(value: Value, depth: int = 6) -> bool:
    """Whether no element can be below 0 (NaN is possible)."""
    return _has_sign(value, depth, _NONNEGATIVE, lambda n: n >= 0)


def is_positive(value: Value, depth: int = 6) -> bool:
    """Whether every element is above 0 over the reals: a factor of this kind cancels."""
    return _has_sign(value, depth, _POSITIVE, lambda n: n > 0)


def _has_sign(value: Value, depth: int, certain: frozenset[str], fits: Any) -> bool:
    node = value.node
    name = node.op.type_name
    if name in certain:
        return True
    if depth == 0:
        return False
    if name in ("Constant", "Fill"):
        number = uniform(value)
        return number is not None and number.dtype.kind == "f" and bool(fits(number))
    if name in _SIGN_KEEPING:
        # A sum of no elements is 0, so a strict sign survives only over elements that exist.
        empty = any(d == 0 for d in node.inputs[0].type.shape or ())
        return not empty and _has_sign(node.inputs[0], depth - 1, certain, fits)
    if name in ("Add", "AddN", "Mul", "RealDiv"):
        return all(_has_sign(v, depth - 1, certain, fits) for v in node.inputs)
    return False
