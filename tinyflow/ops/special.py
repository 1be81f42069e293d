"""Elementary and special functions of elements; powers.

Main types: Expm1, Log1p, Sin, Cos, Erf, Erfc, Erfinv, Pow, Xlogy, Xdivy. May import ops.base,
elementwise, comparison, logical. (Exp and Log are in elementwise, tanh and sigmoid in activation.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow import te
from tinyflow.core.error import InvalidArgumentError
from tinyflow.ir.scalar import nodes as scalar
from tinyflow.ir.scalar.nodes import NEGATIVE_EXPONENT, Expr
from tinyflow.ops.base import Binary, Sample, Unary, Value, emit
from tinyflow.ops.comparison import equal, greater, not_equal
from tinyflow.ops.convert import cast
from tinyflow.ops.elementwise import (
    add,
    divide,
    exp,
    log,
    multiply,
    negative,
    square,
    subtract,
)
from tinyflow.ops.logical import select


@dataclass(frozen=True)
class Expm1(Unary):
    """y = exp(x) - 1 without cancellation near 0.

    x: float[...]    y: same shape and dtype    Gradient: dx = dy * exp(x)
    Source: NIST DLMF 4.2
    """

    def reference(self, x: Any) -> Any:
        return np.expm1(x)

    def element(self, x: Expr) -> Expr:
        return te.expm1(x)

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (multiply(dy, exp(x)),)


def expm1(x: Any, name: str | None = None) -> Any:
    """exp(x) - 1. See Expm1."""
    return emit(Expm1(), x, name=name)


@dataclass(frozen=True)
class Log1p(Unary):
    """y = log(1 + x) without cancellation near 0; -inf at -1, NaN below.

    x: float[...]    y: same shape and dtype    Gradient: dx = dy / (1 + x)
    Source: NIST DLMF 4.2
    """

    domain = (-0.9, 5.0)

    def reference(self, x: Any) -> Any:
        return np.log1p(x)

    def element(self, x: Expr) -> Expr:
        return te.log1p(x)

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (divide(dy, add(x, 1)),)


def log1p(x: Any, name: str | None = None) -> Any:
    """log(1 + x). See Log1p."""
    return emit(Log1p(), x, name=name)


@dataclass(frozen=True)
class Sin(Unary):
    """y = sin(x), radians.    x: float[...]    Gradient: dx = dy * cos(x)    Source: DLMF 4.14"""

    onnx = "Sin"

    def reference(self, x: Any) -> Any:
        return np.sin(x)

    def element(self, x: Expr) -> Expr:
        return te.sin(x)

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (multiply(dy, cos(x)),)


def sin(x: Any, name: str | None = None) -> Any:
    """Sine. See Sin."""
    return emit(Sin(), x, name=name)


@dataclass(frozen=True)
class Cos(Unary):
    """y = cos(x), radians.    x: float[...]    Gradient: dx = -dy * sin(x)    Source: DLMF 4.14"""

    onnx = "Cos"

    def reference(self, x: Any) -> Any:
        return np.cos(x)

    def element(self, x: Expr) -> Expr:
        return te.cos(x)

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (negative(multiply(dy, sin(x))),)


def cos(x: Any, name: str | None = None) -> Any:
    """Cosine. See Cos."""
    return emit(Cos(), x, name=name)


@dataclass(frozen=True)
class Erf(Unary):
    """y = 2/sqrt(pi) * integral of exp(-t*t) from 0 to x.

    x: float[...]    y: same shape and dtype    Gradient: dx = dy * 2/sqrt(pi) * exp(-x*x)
    Source: NIST DLMF 7.2
    """

    onnx = "Erf"

    def reference(self, x: Any) -> Any:
        return _of_floats(math.erf, x)

    def element(self, x: Expr) -> Expr:
        return te.erf(x)

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        slope = multiply(exp(negative(square(x))), 2 / math.sqrt(math.pi))
        return (multiply(dy, slope),)


def erf(x: Any, name: str | None = None) -> Any:
    """The error function. See Erf."""
    return emit(Erf(), x, name=name)


@dataclass(frozen=True)
class Erfc(Unary):
    """y = 1 - erf(x) without cancellation for large x.

    x: float[...]    y: same shape and dtype    Gradient: dx = -dy * 2/sqrt(pi) * exp(-x*x)
    Source: NIST DLMF 7.2
    """

    def reference(self, x: Any) -> Any:
        return _of_floats(math.erfc, x)

    def element(self, x: Expr) -> Expr:
        return te.erfc(x)

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        slope = multiply(exp(negative(square(x))), -2 / math.sqrt(math.pi))
        return (multiply(dy, slope),)


def erfc(x: Any, name: str | None = None) -> Any:
    """The complement of the error function. See Erfc."""
    return emit(Erfc(), x, name=name)


@dataclass(frozen=True)
class Erfinv(Unary):
    """y with erf(y) = x; -inf and inf at -1 and 1, NaN outside.

    x: float[...]    y: same shape and dtype    Gradient: dx = dy * sqrt(pi)/2 * exp(y*y)
    Source: NIST DLMF 7.17
    """

    domain = (-0.95, 0.95)

    def reference(self, x: Any) -> Any:
        return _of_floats(inverse_erf, x)

    def element(self, x: Expr) -> Expr:
        return te.erfinv(x)

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (multiply(dy, multiply(exp(square(y)), math.sqrt(math.pi) / 2)),)


def erfinv(x: Any, name: str | None = None) -> Any:
    """The inverse of the error function. See Erfinv."""
    return emit(Erfinv(), x, name=name)


def _of_floats(function: Any, x: Any) -> Any:
    """``function`` of Python floats for each element, rounded to x's dtype."""
    x = np.asarray(x)
    values = [function(float(v)) for v in x.ravel()]
    return np.array(values, np.float64).reshape(x.shape).astype(x.dtype)


def inverse_erf(x: float) -> float:
    """erf^-1 in double precision: a start from logarithms, then Halley's iteration."""
    if not -1.0 < x < 1.0:
        return math.copysign(math.inf, x) if abs(x) == 1.0 else math.nan
    # Winitzki's approximation (relative error 2e-3); three cubic steps reach the last bit.
    a, rest = 0.147, math.log1p(-x * x)
    b = 2 / (math.pi * a) + rest / 2
    y = math.copysign(math.sqrt(math.sqrt(b * b - rest / a) - b), x)
    for _ in range(3):
        # Near 1 the difference of complements keeps the digits that erf(y) - x would lose.
        error = math.copysign(1, x) * ((1 - abs(x)) - math.erfc(abs(y)))
        slope = 2 / math.sqrt(math.pi) * math.exp(-y * y)
        step = error / slope if abs(x) > 0.5 else (math.erf(y) - x) / slope
        y -= step / (1 + y * step)
    return y


@dataclass(frozen=True)
class Pow(Binary):
    """z = x ** y; x**0 = 1 for every x, also NaN.

    x, y: number[...], broadcast    Integers wrap around; a negative integer exponent is an error.
    Gradient: dx = dz * y * x**(y-1), 0 where y = 0;  dy = dz * z * log(x), 0 where x <= 0
    Errors: InvalidArgumentError at run time for a negative integer exponent
    """

    onnx = "Pow"
    domain = (0.5, 2.5)

    def reference(self, x: Any, y: Any) -> Any:
        if np.asarray(y).dtype.kind == "i" and np.size(x) and np.any(np.less(y, 0)):
            raise InvalidArgumentError(
                "negative exponent of an integer", expected="exponents of 0 or more"
            )
        return np.power(x, y)

    def element(self, x: Expr, y: Expr) -> Expr:
        return te.power(x, y) if x.dtype.is_floating else integer_power(x, y)

    def partials(self, dz: Value, z: Value, x: Value, y: Value) -> tuple[Any, Any]:
        # Both factors of each product are made safe: 0 * inf would be NaN where 0 is meant.
        constant = equal(y, 0)
        lowered = power(x, select(constant, 1, subtract(y, 1)))
        dx = multiply(dz, select(constant, 0, multiply(y, lowered)))
        positive = greater(x, 0)
        logarithm = select(positive, log(select(positive, x, 1)), 0)
        return dx, multiply(dz, multiply(z, logarithm))

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        yield from super().samples(rng)
        base = rng.integers(-4, 5, (3, 4)).astype(np.int32)
        yield Sample((base, np.array([0, 1, 2, 13], np.int32)), note="int32")
        yield Sample((base.astype(np.int64), np.int64(31)), note="wraps around")
        x = np.array([0.0, -2.0, np.inf, np.nan, 0.0, -1.0], np.float32)
        y = np.array([0.0, 3.0, -1.0, 0.0, -1.0, 0.5], np.float32)
        yield Sample((x, y), check_gradient=False, note="special values")


def integer_power(x: Expr, y: Expr) -> Expr:
    """x ** y by squaring, one step per bit of y: exact modulo 2**bits for every exponent."""
    one = scalar.const(1, x.dtype)
    result, square_, signed = one, x, not x.dtype.is_unsigned
    for bit in range(x.dtype.bits - signed):
        # 1 or square_, without a select: nested ones double the code with each level.
        chosen = (y >> bit) & 1
        result = result * (chosen * (square_ - 1) + 1)
        square_ = square_ * square_
    if not signed:
        return result
    return te.checked(result, y >= 0, y, scalar.const(0, y.dtype), NEGATIVE_EXPONENT)


def power(x: Any, y: Any, name: str | None = None) -> Any:
    """x ** y. See Pow."""
    return emit(Pow(), x, y, name=name)


@dataclass(frozen=True)
class Xlogy(Binary):
    """z = x * log(y), and 0 where x = 0 whatever y is (NaN too).

    x, y: float[...], broadcast
    Gradient: dx = dz * log(y), 0 where x = 0;  dy = dz * x / y, 0 where x = 0
    """

    needs = "float"
    domain = (0.2, 3.0)

    def reference(self, x: Any, y: Any) -> Any:
        x, y = np.broadcast_arrays(x, y)
        return np.where(x == 0, x.dtype.type(0), x * np.log(y))

    def element(self, x: Expr, y: Expr) -> Expr:
        return te.select(x.equal(0), scalar.const(0, x.dtype), x * te.log(y))

    def partials(self, dz: Value, z: Value, x: Value, y: Value) -> tuple[Any, Any]:
        present = cast(not_equal(x, 0), x.dtype)
        return multiply(dz, xlogy(present, y)), multiply(dz, xdivy(x, y))

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        yield from super().samples(rng)
        x = np.array([0.0, 0.0, 0.0, 2.0], np.float32)
        y = np.array([0.0, np.inf, np.nan, 0.0], np.float32)
        yield Sample((x, y), check_gradient=False, note="0 times anything is 0")


def xlogy(x: Any, y: Any, name: str | None = None) -> Any:
    """x * log(y), 0 where x = 0. See Xlogy."""
    return emit(Xlogy(), x, y, name=name)


@dataclass(frozen=True)
class Xdivy(Binary):
    """z = x / y, and 0 where x = 0 whatever y is.

    x, y: float[...], broadcast
    Gradient: dx = dz / y, 0 where x = 0;  dy = -dz * x / y**2, 0 where x = 0
    """

    needs = "float"
    domain = (0.5, 3.0)

    def reference(self, x: Any, y: Any) -> Any:
        x, y = np.broadcast_arrays(x, y)
        return np.where(x == 0, x.dtype.type(0), x / y)

    def element(self, x: Expr, y: Expr) -> Expr:
        return te.select(x.equal(0), scalar.const(0, x.dtype), x / y)

    def partials(self, dz: Value, z: Value, x: Value, y: Value) -> tuple[Any, Any]:
        present = cast(not_equal(x, 0), x.dtype)
        return multiply(dz, xdivy(present, y)), multiply(dz, xdivy(negative(x), square(y)))


def xdivy(x: Any, y: Any, name: str | None = None) -> Any:
    """x / y, 0 where x = 0. See Xdivy."""
    return emit(Xdivy(), x, y, name=name)
