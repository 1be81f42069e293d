"""Activation functions of neural networks.

Main types: Relu, Relu6, LeakyRelu, Elu, Selu, Sigmoid, Tanh, Softplus, Softsign. May import
ops.base, elementwise, comparison, logical, special.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow import te
from tinyflow.ir.scalar import nodes as scalar
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ops.base import Sample, Unary, Value, emit
from tinyflow.ops.comparison import greater, less
from tinyflow.ops.elementwise import absolute, add, divide, multiply, square, subtract
from tinyflow.ops.logical import logical_and, select


@dataclass(frozen=True)
class Activation(Unary, abstract=True):
    """y = f(x) with samples that reach into the saturated ends and hold NaN."""

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for sample in super().samples(rng):
            yield Sample(sample.arrays)
        tails = np.array([-np.inf, -200.0, -30.0, -0.0, 30.0, 200.0, np.inf, np.nan], np.float32)
        yield Sample((tails,), check_gradient=False, note="saturated and special values")


@dataclass(frozen=True)
class Relu(Activation):
    """y = max(x, 0); NaN stays NaN.

    x: number[...]    y: same shape and dtype    Gradient: dx = dy where x > 0, else 0 (0 at 0)
    """

    needs = "number"
    onnx = "Relu"

    def reference(self, x: Any) -> Any:
        return np.maximum(x, np.asarray(x).dtype.type(0))

    def element(self, x: Expr) -> Expr:
        return te.maximum(x, scalar.const(0, x.dtype))

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        # y > 0 exactly where x > 0, and y is alive anyway while x need not be.
        return (select(greater(y, 0), dy, 0),)


def relu(x: Any, name: str | None = None) -> Any:
    """max(x, 0). See Relu."""
    return emit(Relu(), x, name=name)


@dataclass(frozen=True)
class Relu6(Activation):
    """y = min(max(x, 0), 6); NaN stays NaN.

    x: number[...]    y: same shape and dtype    Gradient: dx = dy where 0 < x < 6, else 0
    Source: Krizhevsky, Convolutional Deep Belief Networks on CIFAR-10, 2010
    """

    needs = "number"
    domain = (-3.0, 9.0)

    def reference(self, x: Any) -> Any:
        number = np.asarray(x).dtype.type
        return np.minimum(np.maximum(x, number(0)), number(6))

    def element(self, x: Expr) -> Expr:
        zero, six = scalar.const(0, x.dtype), scalar.const(6, x.dtype)
        return te.minimum(te.maximum(x, zero), six)

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (select(logical_and(greater(y, 0), less(y, 6)), dy, 0),)


def relu6(x: Any, name: str | None = None) -> Any:
    """min(max(x, 0), 6). See Relu6."""
    return emit(Relu6(), x, name=name)


@dataclass(frozen=True)
class LeakyRelu(Activation):
    """y = x where x > 0, else alpha * x.

    x: float[...]    y: same shape and dtype    Gradient: dx = dy where x > 0, else alpha * dy
    Source: Maas, Hannun, Ng, Rectifier Nonlinearities Improve Acoustic Models, 2013
    """

    alpha: float = 0.2
    onnx = "LeakyRelu"

    def reference(self, x: Any) -> Any:
        x = np.asarray(x)
        return np.where(x > 0, x, x.dtype.type(self.alpha) * x)

    def element(self, x: Expr) -> Expr:
        return te.select(x > 0, x, x * self.alpha)

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (select(greater(x, 0), dy, multiply(dy, self.alpha)),)


def leaky_relu(x: Any, alpha: float = 0.2, name: str | None = None) -> Any:
    """x where x > 0, else alpha * x. See LeakyRelu."""
    return emit(LeakyRelu(float(alpha)), x, name=name)


@dataclass(frozen=True)
class Elu(Activation):
    """y = x where x > 0, else exp(x) - 1.

    x: float[...]    y: same shape and dtype    Gradient: dx = dy where x > 0, else dy * (y + 1)
    Source: Clevert, Unterthiner, Hochreiter, arXiv 1511.07289
    """

    onnx = "Elu"

    def reference(self, x: Any) -> Any:
        return np.where(np.greater(x, 0), x, np.expm1(np.minimum(x, 0))).astype(np.asarray(x).dtype)

    def element(self, x: Expr) -> Expr:
        return te.select(x > 0, x, te.expm1(te.minimum(x, scalar.const(0, x.dtype))))

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (select(greater(y, 0), dy, multiply(dy, add(y, 1))),)


def elu(x: Any, name: str | None = None) -> Any:
    """x where x > 0, else exp(x) - 1. See Elu."""
    return emit(Elu(), x, name=name)


SELU_SCALE = 1.0507009873554804934193349852946
SELU_ALPHA = 1.6732632423543772848170429916717


@dataclass(frozen=True)
class Selu(Activation):
    """y = s * x where x > 0, else s * a * (exp(x) - 1); a = 1.6733, s = 1.0507.

    x: float[...]    y: same shape and dtype
    Gradient: dx = dy * (y + s * a) where x < 0, else s * dy
    Source: Klambauer et al., Self-Normalizing Neural Networks, arXiv 1706.02515
    """

    onnx = "Selu"

    def reference(self, x: Any) -> Any:
        number = np.asarray(x).dtype.type
        low = number(SELU_SCALE * SELU_ALPHA) * np.expm1(np.minimum(x, number(0)))
        return np.where(np.greater(x, 0), number(SELU_SCALE) * x, low)

    def element(self, x: Expr) -> Expr:
        low = te.expm1(te.minimum(x, scalar.const(0, x.dtype))) * (SELU_SCALE * SELU_ALPHA)
        return te.select(x > 0, x * SELU_SCALE, low)

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        low = multiply(dy, add(y, SELU_SCALE * SELU_ALPHA))
        return (select(less(y, 0), low, multiply(dy, SELU_SCALE)),)


def selu(x: Any, name: str | None = None) -> Any:
    """Scaled exponential linear unit. See Selu."""
    return emit(Selu(), x, name=name)


@dataclass(frozen=True)
class Sigmoid(Activation):
    """y = 1 / (1 + exp(-x)), without overflow at either end.

    x: float[...]    y: same shape and dtype    Gradient: dx = dy * y * (1 - y)
    """

    onnx = "Sigmoid"

    def reference(self, x: Any) -> Any:
        x = np.asarray(x)
        small = np.exp(-np.abs(x))
        one = x.dtype.type(1)
        return np.where(x >= 0, one, small) / (one + small)

    def element(self, x: Expr) -> Expr:
        return te.sigmoid(x)

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (multiply(dy, multiply(y, subtract(1, y))),)


def sigmoid(x: Any, name: str | None = None) -> Any:
    """1 / (1 + exp(-x)). See Sigmoid."""
    return emit(Sigmoid(), x, name=name)


@dataclass(frozen=True)
class Tanh(Activation):
    """y = tanh(x).

    x: float[...]    y: same shape and dtype    Gradient: dx = dy * (1 - y**2)
    Source: NIST DLMF 4.28
    """

    onnx = "Tanh"

    def reference(self, x: Any) -> Any:
        return np.tanh(x)

    def element(self, x: Expr) -> Expr:
        return te.tanh(x)

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (multiply(dy, subtract(1, square(y))),)


def tanh(x: Any, name: str | None = None) -> Any:
    """Hyperbolic tangent. See Tanh."""
    return emit(Tanh(), x, name=name)


@dataclass(frozen=True)
class Softplus(Activation):
    """y = log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|)), without overflow.

    x: float[...]    y: same shape and dtype    Gradient: dx = dy * sigmoid(x)
    """

    onnx = "Softplus"

    def reference(self, x: Any) -> Any:
        return np.maximum(x, np.asarray(x).dtype.type(0)) + np.log1p(np.exp(-np.abs(x)))

    def element(self, x: Expr) -> Expr:
        return te.softplus(x)

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (multiply(dy, sigmoid(x)),)


def softplus(x: Any, name: str | None = None) -> Any:
    """log(1 + exp(x)). See Softplus."""
    return emit(Softplus(), x, name=name)


@dataclass(frozen=True)
class Softsign(Activation):
    """y = x / (1 + |x|).

    x: float[...]    y: same shape and dtype    Gradient: dx = dy / (1 + |x|)**2
    """

    onnx = "Softsign"

    def reference(self, x: Any) -> Any:
        return np.divide(x, np.abs(x) + np.asarray(x).dtype.type(1))

    def element(self, x: Expr) -> Expr:
        return x / (te.abs(x) + 1.0)

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (divide(dy, square(add(absolute(x), 1))),)


def softsign(x: Any, name: str | None = None) -> Any:
    """x / (1 + |x|). See Softsign."""
    return emit(Softsign(), x, name=name)
