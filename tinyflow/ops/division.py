"""Whole quotients and remainders; integer division by zero is a run-time error.

Main types: FloorDiv, FloorMod, TruncateDiv, TruncateMod. May import ops.base, elementwise,
rounding.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow import te
from tinyflow.core.dtype import float64
from tinyflow.core.error import InvalidArgumentError
from tinyflow.ir.scalar import nodes as scalar
from tinyflow.ir.scalar.nodes import DIVISION_BY_ZERO, Expr
from tinyflow.ops.base import Binary, Sample, Value, emit
from tinyflow.ops.elementwise import divide, multiply, negative, subtract
from tinyflow.ops.rounding import rint


@dataclass(frozen=True)
class WholeDivision(Binary, abstract=True):
    """Quotients and remainders. Integer division by zero is an InvalidArgumentError at run time."""

    domain = (0.5, 3.0)

    def integers(self, x: Expr, y: Expr) -> Expr:
        raise NotImplementedError

    def floats(self, x: Expr, y: Expr) -> Expr:
        raise NotImplementedError

    def element(self, x: Expr, y: Expr) -> Expr:
        if x.dtype.is_floating:
            return self.floats(x, y)
        return te.checked(self.integers(x, y), y.not_equal(0), x, y, DIVISION_BY_ZERO)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        if self.needs != "integer":
            yield from super().samples(rng)
        x = rng.integers(-20, 20, (3, 5))
        y = rng.integers(1, 7, (5,)) * np.array([1, -1, 1, -1, 1])
        yield Sample((x.astype(np.int32), y.astype(np.int32)), note="int32, both signs")
        yield Sample((np.abs(x).astype(np.uint8), np.abs(y).astype(np.uint8)), note="uint8")
        yield Sample((np.zeros((0, 3), np.int32), np.ones((3,), np.int32)))


def _require_divisor(x: Any, y: Any) -> None:
    """Errors: InvalidArgumentError for an integer divisor 0."""
    y = np.asarray(y)
    if y.dtype.kind in "iu" and np.size(x) and not np.all(y):
        raise InvalidArgumentError("integer division by zero", expected="a divisor other than 0")


@dataclass(frozen=True)
class FloorDiv(WholeDivision):
    """z = floor(x / y), as Python's // for integers; for floats the rounded quotient is floored.

    x, y: number[...], broadcast    Gradient: none (piecewise constant)
    Errors: InvalidArgumentError at run time for an integer divisor 0
    """

    not_differentiable = "piecewise constant: the derivative is 0 wherever it exists"

    def reference(self, x: Any, y: Any) -> Any:
        _require_divisor(x, y)
        if np.asarray(x).dtype.kind == "f":
            return np.floor(np.divide(x, y))
        return np.floor_divide(x, y)

    def integers(self, x: Expr, y: Expr) -> Expr:
        return x // y

    def floats(self, x: Expr, y: Expr) -> Expr:
        return te.floor(x / y)


def floordiv(x: Any, y: Any, name: str | None = None) -> Any:
    """floor(x / y), the Python operator //. See FloorDiv."""
    return emit(FloorDiv(), x, y, name=name)


@dataclass(frozen=True)
class FloorMod(WholeDivision):
    """z = x - floor(x / y) * y: the remainder with the divisor's sign, the Python operator %.

    x, y: number[...], broadcast    Floats: exact while |x / y| < 2**53.
    Gradient: dx = dz, dy = -dz * floor(x / y)
    Errors: InvalidArgumentError at run time for an integer divisor 0
    """

    def reference(self, x: Any, y: Any) -> Any:
        _require_divisor(x, y)
        return np.mod(x, y)

    def integers(self, x: Expr, y: Expr) -> Expr:
        return x % y

    def floats(self, x: Expr, y: Expr) -> Expr:
        zero = scalar.const(0.0, x.dtype)
        rest = float_remainder(x, y)
        rest = te.select(rest.not_equal(zero) & ((rest < zero) ^ (y < zero)), rest + y, rest)
        # A remainder of zero takes the divisor's sign, as Python's does.
        return te.select(rest.equal(zero), te.select(y < zero, -zero, zero), rest)

    def partials(self, dz: Value, z: Value, x: Value, y: Value) -> tuple[Any, Any]:
        return dz, negative(multiply(dz, floordiv(x, y)))


def float_remainder(x: Expr, y: Expr) -> Expr:
    """C's fmod: x - trunc(x / y) * y with the sign of x, exact while |x / y| < 2**53."""
    a, b = te.cast(x, float64), te.cast(y, float64)
    rest = te.fma(-te.trunc(a / b), b, a)
    # x / y may have rounded up to the next whole number; then the remainder has the wrong sign.
    wrong = rest.not_equal(0.0) & ((rest < 0.0) ^ (a < 0.0))
    step = te.select((b < 0.0) ^ (a < 0.0), -b, b)
    rest = te.select(wrong, rest + step, rest)
    infinite = te.abs(b).equal(float("inf")) & (te.abs(a) < float("inf"))
    return te.cast(te.select(infinite, a, rest), x.dtype)


def floormod(x: Any, y: Any, name: str | None = None) -> Any:
    """x - floor(x / y) * y, the Python operator %. See FloorMod."""
    return emit(FloorMod(), x, y, name=name)


@dataclass(frozen=True)
class TruncateDiv(WholeDivision):
    """z = x / y rounded towards zero, as in C.    x, y: integer[...]    Gradient: none

    Errors: InvalidArgumentError at run time for a divisor 0
    """

    needs = "integer"
    not_differentiable = "defined on integers only"

    def reference(self, x: Any, y: Any) -> Any:
        _require_divisor(x, y)
        quotient = np.floor_divide(x, y)
        return quotient + ((np.mod(x, y) != 0) & ((x < 0) != (y < 0))).astype(quotient.dtype)

    def integers(self, x: Expr, y: Expr) -> Expr:
        return scalar.binary("truncdiv", x, y)


def truncatediv(x: Any, y: Any, name: str | None = None) -> Any:
    """x / y towards zero, integers. See TruncateDiv."""
    return emit(TruncateDiv(), x, y, name=name)


@dataclass(frozen=True)
class TruncateMod(WholeDivision):
    """z = x - trunc(x / y) * y: the remainder with the dividend's sign, as in C.

    x, y: number[...], broadcast    Floats: exact while |x / y| < 2**53.
    Gradient: dx = dz, dy = -dz * trunc(x / y)
    Errors: InvalidArgumentError at run time for an integer divisor 0
    """

    onnx = "Mod"

    def reference(self, x: Any, y: Any) -> Any:
        _require_divisor(x, y)
        return np.fmod(x, y)

    def integers(self, x: Expr, y: Expr) -> Expr:
        return scalar.binary("rem", x, y)

    def floats(self, x: Expr, y: Expr) -> Expr:
        return float_remainder(x, y)

    def partials(self, dz: Value, z: Value, x: Value, y: Value) -> tuple[Any, Any]:
        # (z - x) / y is minus the whole quotient; z and x are taken as constants of it.
        return dz, multiply(dz, truncated_quotient(z, x, y))


def truncated_quotient(z: Value, x: Value, y: Value) -> Any:
    """-trunc(x / y), from the remainder z."""
    return rint(divide(subtract(z, x), y))


def truncatemod(x: Any, y: Any, name: str | None = None) -> Any:
    """Remainder of division towards zero. See TruncateMod."""
    return emit(TruncateMod(), x, y, name=name)
