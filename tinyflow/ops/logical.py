"""Truth values, bits, and choosing between elements.

Main types: LogicalNot/And/Or/Xor, Invert, Select. May import ops.base.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow import te
from tinyflow.core.error import DTypeError, ShapeError
from tinyflow.core.shape import broadcast_shapes
from tinyflow.ir.graph.builder import current_builder
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ops.base import (
    Binary,
    Op,
    Sample,
    TensorType,
    Unary,
    Value,
    broadcast_types,
    emit,
)


@dataclass(frozen=True)
class LogicalNot(Unary):
    """y = not x.    x: bool[...]    y: same shape    Errors: DTypeError if x is not bool"""

    needs = "bool"
    onnx = "Not"
    not_differentiable = "the result is boolean"

    def reference(self, x: Any) -> Any:
        return np.logical_not(x)

    def element(self, x: Expr) -> Expr:
        return te.logical_not(x)


def logical_not(x: Any, name: str | None = None) -> Any:
    """not x, element-wise. See LogicalNot."""
    return emit(LogicalNot(), x, name=name)


@dataclass(frozen=True)
class BooleanBinary(Binary, abstract=True):
    """z = x ? y for truth values, with broadcasting."""

    needs = "bool"
    not_differentiable = "the result is boolean"

    def bad_samples(self) -> Iterable[Any]:
        yield (np.zeros((2, 3), bool), np.zeros((4,), bool)), ShapeError
        yield (np.zeros(2, np.float32), np.zeros(2, np.float32)), DTypeError


@dataclass(frozen=True)
class LogicalAnd(BooleanBinary):
    """z = x and y.    x, y: bool[...]    z: bool, broadcast"""

    onnx = "And"

    def reference(self, x: Any, y: Any) -> Any:
        return np.logical_and(x, y)

    def element(self, x: Expr, y: Expr) -> Expr:
        return x & y


def logical_and(x: Any, y: Any, name: str | None = None) -> Any:
    """x and y, element-wise. See LogicalAnd."""
    return emit(LogicalAnd(), x, y, name=name)


@dataclass(frozen=True)
class LogicalOr(BooleanBinary):
    """z = x or y.    x, y: bool[...]    z: bool, broadcast"""

    onnx = "Or"

    def reference(self, x: Any, y: Any) -> Any:
        return np.logical_or(x, y)

    def element(self, x: Expr, y: Expr) -> Expr:
        return x | y


def logical_or(x: Any, y: Any, name: str | None = None) -> Any:
    """x or y, element-wise. See LogicalOr."""
    return emit(LogicalOr(), x, y, name=name)


@dataclass(frozen=True)
class LogicalXor(BooleanBinary):
    """z = x != y for truth values.    x, y: bool[...]    z: bool, broadcast"""

    onnx = "Xor"

    def reference(self, x: Any, y: Any) -> Any:
        return np.logical_xor(x, y)

    def element(self, x: Expr, y: Expr) -> Expr:
        return x ^ y


def logical_xor(x: Any, y: Any, name: str | None = None) -> Any:
    """Either x or y but not both, element-wise. See LogicalXor."""
    return emit(LogicalXor(), x, y, name=name)


@dataclass(frozen=True)
class Invert(Unary):
    """y = ~x, every bit flipped.    x: integer[...]    y: same    Errors: DTypeError for floats"""

    needs = "integer"
    onnx = "BitwiseNot"
    not_differentiable = "defined on integers only"

    def reference(self, x: Any) -> Any:
        return np.invert(x)

    def element(self, x: Expr) -> Expr:
        return te.logical_not(x)


def invert(x: Any, name: str | None = None) -> Any:
    """Bitwise complement. See Invert."""
    return emit(Invert(), x, name=name)


@dataclass(frozen=True)
class Select(Op):
    """z = x where the condition holds, else y; all three broadcast.

    condition: bool[...]    x, y: one dtype    z: that dtype, broadcast shape
    Gradient: dx = where(condition, dz, 0), dy = where(condition, 0, dz): a NaN or infinity in the
    branch that was not taken does not reach the result, but it does reach the gradient of
    whatever computed that branch (0 * inf); make its *input* safe too where that can happen.
    Errors: DTypeError, ShapeError
    """

    onnx = "Where"
    same_dtype = False  # the condition is bool; ``select`` gives x and y one dtype

    def infer(self, condition: TensorType, x: TensorType, y: TensorType) -> TensorType:
        if condition.dtype.kind != "bool":
            raise DTypeError(
                f"the condition has dtype {condition.dtype}",
                expected="a bool condition",
                hint="compare first, for example tf.not_equal(condition, 0)",
            )
        both = broadcast_types(x, y)
        if condition.shape == both.shape:
            return both
        return both.with_shape(broadcast_shapes(condition.shape, both.shape))

    def reference(self, condition: Any, x: Any, y: Any) -> Any:
        return np.where(condition, x, y)

    def compute(self, condition: te.Tensor, x: te.Tensor, y: te.Tensor) -> te.Tensor:
        return te.map(te.select, condition, x, y, name="select")

    def vjp(self, dz: Value, z: Value, condition: Value, x: Value, y: Value) -> tuple[Any, ...]:
        from tinyflow.ops.movement import unbroadcast

        return (
            None,
            unbroadcast(select(condition, dz, 0), x),
            unbroadcast(select(condition, 0, dz), y),
        )

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        shapes = (
            ((3, 4), (3, 4), (3, 4)), ((), (2, 5), (2, 5)), ((3, 1), (4,), (2, 3, 1)),
            ((0, 3), (3,), ()), ((7,), (), ()),
        )  # fmt: skip
        for c, a, b in shapes:
            yield Sample(
                (
                    rng.integers(0, 2, c).astype(bool),
                    rng.normal(size=a).astype(np.float32),
                    rng.normal(size=b).astype(np.float32),
                )
            )
        yield Sample((np.array([True, False]), np.array([1, 2]), np.array([3, 4])), note="int64")

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 3), np.float32)
        yield (np.zeros((2, 3), np.int32), x, x), DTypeError
        yield (np.zeros((2, 3), bool), x, x.astype(np.float64)), DTypeError
        yield (np.zeros((4,), bool), x, x), ShapeError


def select(condition: Any, x: Any, y: Any, name: str | None = None) -> Any:
    """``x`` where the condition holds, else ``y``; a literal takes its dtype. See Select."""
    x, y = one_dtype(x, y)
    return emit(Select(), condition, x, y, name=name)


def one_dtype(x: Any, y: Any) -> tuple[Value, Value]:
    """Both as values; a literal takes the dtype of the tensor beside it."""
    if isinstance(x, Value) and isinstance(y, Value):
        return x, y
    return current_builder().convert(_EQUALLY_TYPED, (x, y), None)  # type: ignore[return-value]


_EQUALLY_TYPED = LogicalAnd()  # any op of two inputs x, y with ``same_dtype``
