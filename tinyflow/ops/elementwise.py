"""Arithmetic on elements: unary and binary, with NumPy broadcasting; exp and log.

Main types: one op class per function, its user function under it. May import ops.base,
comparison, convert, creation, logical.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow import te
from tinyflow.core.dtype import DType, float32, float64
from tinyflow.core.error import DTypeError, InvalidArgumentError, ShapeError
from tinyflow.core.shape import merge_shapes
from tinyflow.ir.scalar import nodes as scalar
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ops.base import (
    Binary,
    Op,
    Sample,
    TensorType,
    Unary,
    Value,
    emit,
    require_same_dtype,
)
from tinyflow.ops.comparison import equal, greater_equal, less_equal
from tinyflow.ops.convert import cast
from tinyflow.ops.creation import zeros_like
from tinyflow.ops.logical import logical_and, one_dtype, select


@dataclass(frozen=True)
class Neg(Unary):
    """y = -x, element-wise.

    x: number[...]       y: same shape and dtype
    Gradient: dx = -dy   Errors: DTypeError if x is bool
    """

    needs = "number"
    onnx = "Neg"

    def reference(self, x: Any) -> Any:
        return np.negative(x)

    def element(self, x: Expr) -> Expr:
        return -x

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (negative(dy),)


def negative(x: Any, name: str | None = None) -> Any:
    """-x. See Neg."""
    return emit(Neg(), x, name=name)


@dataclass(frozen=True)
class Abs(Unary):
    """y = |x|, element-wise.

    x: number[...]               y: same shape and dtype
    Gradient: dx = dy * sign(x), so 0 at 0   Errors: DTypeError if x is bool
    """

    needs = "number"
    onnx = "Abs"

    def reference(self, x: Any) -> Any:
        return np.abs(x)

    def element(self, x: Expr) -> Expr:
        return x if x.dtype.is_unsigned else te.abs(x)

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (multiply(dy, sign(x)),)


def absolute(x: Any, name: str | None = None) -> Any:
    """|x|. See Abs."""
    return emit(Abs(), x, name=name)


@dataclass(frozen=True)
class Sign(Unary):
    """y = 1 where x > 0, -1 where x < 0, else 0 (also for NaN and -0).

    x: number[...]    y: same shape and dtype    Gradient: dx = 0
    Errors: DTypeError if x is bool
    """

    needs = "number"
    onnx = "Sign"

    def reference(self, x: Any) -> Any:
        x = np.asarray(x)
        return (x > 0).astype(x.dtype) - (x < 0).astype(x.dtype)

    def element(self, x: Expr) -> Expr:
        one, zero = scalar.const(1, x.dtype), scalar.const(0, x.dtype)
        below = zero if x.dtype.is_unsigned else te.select(x < zero, -one, zero)
        return te.select(x > zero, one, below)

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (zeros_like(x),)


def sign(x: Any, name: str | None = None) -> Any:
    """-1, 0 or 1. See Sign."""
    return emit(Sign(), x, name=name)


@dataclass(frozen=True)
class Square(Unary):
    """y = x * x.

    x: number[...]    y: same shape and dtype    Gradient: dx = dy * 2x
    Errors: DTypeError if x is bool
    """

    needs = "number"

    def reference(self, x: Any) -> Any:
        return np.multiply(x, x)

    def element(self, x: Expr) -> Expr:
        return x * x

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (multiply(dy, multiply(x, 2)),)


def square(x: Any, name: str | None = None) -> Any:
    """x * x. See Square."""
    return emit(Square(), x, name=name)


@dataclass(frozen=True)
class Sqrt(Unary):
    """y = sqrt(x), correctly rounded; NaN below 0.

    x: float[...]                y: same shape and dtype
    Gradient: dx = dy / (2y), so inf at 0, but 0 where dy is 0 too
    Errors: DTypeError if x is not floating
    """

    onnx = "Sqrt"
    domain = (0.1, 5.0)

    def reference(self, x: Any) -> Any:
        return np.sqrt(x)

    def element(self, x: Expr) -> Expr:
        return te.sqrt(x)

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        # where(x > 0, sqrt(x), 0) sends 0 to the branch not taken; 0/0 would make a NaN of it.
        hidden = logical_and(equal(y, 0), equal(dy, 0))
        return (divide(multiply(dy, 0.5), select(hidden, 1, y)),)


def sqrt(x: Any, name: str | None = None) -> Any:
    """Square root. See Sqrt."""
    return emit(Sqrt(), x, name=name)


@dataclass(frozen=True)
class Rsqrt(Unary):
    """y = 1 / sqrt(x); inf at 0, NaN below.

    x: float[...]                y: same shape and dtype
    Gradient: dx = -dy * y**3 / 2, 0 where dy is 0
    Errors: DTypeError if x is not floating
    """

    domain = (0.1, 5.0)

    def reference(self, x: Any) -> Any:
        return np.reciprocal(np.sqrt(x))

    def element(self, x: Expr) -> Expr:
        return 1.0 / te.sqrt(x)

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        # As for sqrt: a dy of 0 comes from a branch that was not taken, and 0 * inf would be NaN.
        finite = select(logical_and(equal(dy, 0), equal(y, np.inf)), 1, y)
        return (multiply(multiply(dy, -0.5), multiply(square(finite), finite)),)


def rsqrt(x: Any, name: str | None = None) -> Any:
    """1 / sqrt(x). See Rsqrt."""
    return emit(Rsqrt(), x, name=name)


@dataclass(frozen=True)
class Reciprocal(Unary):
    """y = 1 / x.    x: float[...]    Gradient: dx = -dy * y**2    Errors: DTypeError"""

    onnx = "Reciprocal"
    domain = (0.3, 4.0)

    def reference(self, x: Any) -> Any:
        return np.reciprocal(x)

    def element(self, x: Expr) -> Expr:
        return 1.0 / x

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (negative(multiply(dy, square(y))),)


def reciprocal(x: Any, name: str | None = None) -> Any:
    """1 / x. See Reciprocal."""
    return emit(Reciprocal(), x, name=name)


@dataclass(frozen=True)
class Exp(Unary):
    """y = exp(x), element-wise, at most 2 ulp.

    x: float[...]           y: same shape and dtype
    Gradient: dx = dy * y   Errors: DTypeError if x is not floating
    Source: NIST DLMF 4.2
    """

    onnx = "Exp"

    def reference(self, x: Any) -> Any:
        return np.exp(x)

    def element(self, x: Expr) -> Expr:
        return te.exp(x)

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (multiply(dy, y),)


def exp(x: Any, name: str | None = None) -> Any:
    """e to the power x. See Exp."""
    return emit(Exp(), x, name=name)


@dataclass(frozen=True)
class Log(Unary):
    """y = log(x), natural logarithm, element-wise; log(0) = -inf, NaN below 0.

    x: float[...]           y: same shape and dtype
    Gradient: dx = dy / x   Errors: DTypeError if x is not floating
    Source: NIST DLMF 4.2
    """

    onnx = "Log"
    domain = (0.1, 5.0)

    def reference(self, x: Any) -> Any:
        return np.log(x)

    def element(self, x: Expr) -> Expr:
        return te.log(x)

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (divide(dy, x),)


def log(x: Any, name: str | None = None) -> Any:
    """Natural logarithm. See Log."""
    return emit(Log(), x, name=name)


@dataclass(frozen=True)
class Add(Binary):
    """z = x + y.    Gradient: dx = dz, dy = dz, summed over stretched axes."""

    onnx = "Add"

    def reference(self, x: Any, y: Any) -> Any:
        return np.add(x, y)

    def element(self, x: Expr, y: Expr) -> Expr:
        return x + y

    def partials(self, dz: Value, z: Value, x: Value, y: Value) -> tuple[Any, Any]:
        return dz, dz


def add(x: Any, y: Any, name: str | None = None) -> Any:
    """x + y. See Add."""
    return emit(Add(), x, y, name=name)


@dataclass(frozen=True)
class AddN(Op):
    """y = values[0] + values[1] + ..., added from left to right; all of one shape and dtype.

    values: one or more number[...]    Gradient: dy for each
    Errors: DTypeError, ShapeError, InvalidArgumentError without values
    """

    onnx = "Sum"

    def infer(self, *values: TensorType) -> TensorType:
        if not values:
            raise InvalidArgumentError("needs at least one value", expected="one or more values")
        require_same_dtype(*values)
        values[0].require_number()
        return values[0].with_shape(functools.reduce(merge_shapes, [v.shape for v in values]))

    def reference(self, *values: Any) -> Any:
        return functools.reduce(np.add, values)

    def decompose(self, *values: Value) -> Any:
        # One addition each: the kernel of a product can add the sum so far, so that the gradients
        # of a weight that many steps share need not all wait in memory for their sum.
        return functools.reduce(add, values)

    def vjp(self, dy: Value, y: Value, *values: Value) -> tuple[Any, ...]:
        return (dy,) * len(values)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for count, shape in ((1, (3, 4)), (3, (2, 1, 5)), (4, ()), (2, (0, 3))):
            arrays = tuple(rng.normal(size=shape).astype(np.float32) for _ in range(count))
            yield Sample(arrays)

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 3), np.float32)
        yield (x, np.zeros((3, 2), np.float32)), ShapeError
        yield (x, x.astype(np.float64)), DTypeError


def add_n(values: Any, name: str | None = None) -> Any:
    """The sum of a list of values of one shape. See AddN."""
    return emit(AddN(), *values, name=name)


@dataclass(frozen=True)
class Sub(Binary):
    """z = x - y.    Gradient: dx = dz, dy = -dz, summed over stretched axes."""

    onnx = "Sub"

    def reference(self, x: Any, y: Any) -> Any:
        return np.subtract(x, y)

    def element(self, x: Expr, y: Expr) -> Expr:
        return x - y

    def partials(self, dz: Value, z: Value, x: Value, y: Value) -> tuple[Any, Any]:
        return dz, negative(dz)


def subtract(x: Any, y: Any, name: str | None = None) -> Any:
    """x - y. See Sub."""
    return emit(Sub(), x, y, name=name)


@dataclass(frozen=True)
class Mul(Binary):
    """z = x * y.    Gradient: dx = dz * y, dy = dz * x, summed over stretched axes."""

    onnx = "Mul"

    def reference(self, x: Any, y: Any) -> Any:
        return np.multiply(x, y)

    def element(self, x: Expr, y: Expr) -> Expr:
        return x * y

    def partials(self, dz: Value, z: Value, x: Value, y: Value) -> tuple[Any, Any]:
        return multiply(dz, y), multiply(dz, x)


def multiply(x: Any, y: Any, name: str | None = None) -> Any:
    """x * y. See Mul."""
    return emit(Mul(), x, y, name=name)


@dataclass(frozen=True)
class RealDiv(Binary):
    """z = x / y for floats (IEEE: x/0 = inf, 0/0 = NaN).

    Gradient: dx = dz / y, dy = -dz * z / y, summed over stretched axes.
    Errors: DTypeError for integers (``truediv`` converts them first, as Python 3 does).
    """

    needs = "float"
    onnx = "Div"
    domain = (0.5, 3.0)

    def reference(self, x: Any, y: Any) -> Any:
        return np.divide(x, y)

    def element(self, x: Expr, y: Expr) -> Expr:
        return x / y

    def partials(self, dz: Value, z: Value, x: Value, y: Value) -> tuple[Any, Any]:
        dx = divide(dz, y)
        return dx, negative(multiply(dx, z))


def divide(x: Any, y: Any, name: str | None = None) -> Any:
    """x / y for floats. See RealDiv."""
    return emit(RealDiv(), x, y, name=name)


#: what ``truediv`` converts integers to; TensorFlow's table, completed for the wide unsigned types
_QUOTIENT: dict[str, DType] = {
    "int8": float32, "uint8": float32, "int16": float32, "uint16": float32,
    "int32": float64, "uint32": float64, "int64": float64, "uint64": float64,
}  # fmt: skip


def truediv(x: Any, y: Any, name: str | None = None) -> Any:
    """x / y as in Python 3: integers become float64 first (8 and 16 bits: float32). See RealDiv."""
    x, y = one_dtype(x, y)
    if x.dtype is y.dtype and x.dtype.name in _QUOTIENT:
        target = _QUOTIENT[x.dtype.name]
        x, y = cast(x, target), cast(y, target)
    return emit(RealDiv(), x, y, name=name)


@dataclass(frozen=True)
class Maximum(Binary):
    """z = the larger of x and y; NaN if either is NaN.

    Gradient: dz goes to x where x >= y, else to y (a tie is x's), as in TensorFlow.
    """

    onnx = "Max"

    def reference(self, x: Any, y: Any) -> Any:
        return np.maximum(x, y)

    def element(self, x: Expr, y: Expr) -> Expr:
        return te.maximum(x, y)

    def partials(self, dz: Value, z: Value, x: Value, y: Value) -> tuple[Any, Any]:
        taken = greater_equal(x, y)
        return select(taken, dz, 0), select(taken, 0, dz)


def maximum(x: Any, y: Any, name: str | None = None) -> Any:
    """The larger of two, element-wise. See Maximum."""
    return emit(Maximum(), x, y, name=name)


@dataclass(frozen=True)
class Minimum(Binary):
    """z = the smaller of x and y; NaN if either is NaN.

    Gradient: dz goes to x where x <= y, else to y (a tie is x's), as in TensorFlow.
    """

    onnx = "Min"

    def reference(self, x: Any, y: Any) -> Any:
        return np.minimum(x, y)

    def element(self, x: Expr, y: Expr) -> Expr:
        return te.minimum(x, y)

    def partials(self, dz: Value, z: Value, x: Value, y: Value) -> tuple[Any, Any]:
        taken = less_equal(x, y)
        return select(taken, dz, 0), select(taken, 0, dz)


def minimum(x: Any, y: Any, name: str | None = None) -> Any:
    """The smaller of two, element-wise. See Minimum."""
    return emit(Minimum(), x, y, name=name)


def clip_by_value(x: Any, low: Any, high: Any, name: str | None = None) -> Any:
    """max(min(x, high), low): x limited to [low, high]; the gradient passes at the limits too."""
    return maximum(minimum(x, high), low, name=name)


@dataclass(frozen=True)
class SquaredDifference(Binary):
    """z = (x - y)**2.    Gradient: dx = 2 dz (x - y), dy = -dx, summed over stretched axes."""

    def reference(self, x: Any, y: Any) -> Any:
        return np.square(np.subtract(x, y))

    def element(self, x: Expr, y: Expr) -> Expr:
        return (x - y) * (x - y)

    def partials(self, dz: Value, z: Value, x: Value, y: Value) -> tuple[Any, Any]:
        dx = multiply(multiply(dz, 2), subtract(x, y))
        return dx, negative(dx)


def squared_difference(x: Any, y: Any, name: str | None = None) -> Any:
    """(x - y)**2. See SquaredDifference."""
    return emit(SquaredDifference(), x, y, name=name)
