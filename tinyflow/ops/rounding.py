"""Rounding to whole numbers, and the tests for NaN and infinity.

Main types: Floor, Ceil, Rint, Round, IsNan, IsInf, IsFinite. May import ops.base.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow import te
from tinyflow.core.dtype import bool_
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ops.base import Sample, TensorType, Unary, emit


@dataclass(frozen=True)
class Rounding(Unary, abstract=True):
    """y = a whole number near x, in x's dtype."""

    not_differentiable = "piecewise constant: the derivative is 0 wherever it exists"

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        yield from super().samples(rng)
        edge = [0.5, 1.5, 2.5, -0.5, -1.5, -0.0, 8388609.0, 1e30, np.inf, -np.inf, np.nan]
        yield Sample((np.array(edge, np.float32),), note="halves and special values")


@dataclass(frozen=True)
class Floor(Rounding):
    """y = the largest whole number <= x.    x: float[...]    y: same shape and dtype"""

    onnx = "Floor"

    def reference(self, x: Any) -> Any:
        return np.floor(x)

    def element(self, x: Expr) -> Expr:
        return te.floor(x)


def floor(x: Any, name: str | None = None) -> Any:
    """Round down. See Floor."""
    return emit(Floor(), x, name=name)


@dataclass(frozen=True)
class Ceil(Rounding):
    """y = the smallest whole number >= x.    x: float[...]    y: same shape and dtype"""

    onnx = "Ceil"

    def reference(self, x: Any) -> Any:
        return np.ceil(x)

    def element(self, x: Expr) -> Expr:
        return te.ceil(x)


def ceil(x: Any, name: str | None = None) -> Any:
    """Round up. See Ceil."""
    return emit(Ceil(), x, name=name)


@dataclass(frozen=True)
class Rint(Rounding):
    """y = the nearest whole number, halves to the even one.    x: float[...]    y: same"""

    onnx = "Round"

    def reference(self, x: Any) -> Any:
        return np.rint(x)

    def element(self, x: Expr) -> Expr:
        return te.rint(x)


def rint(x: Any, name: str | None = None) -> Any:
    """Round to nearest, halves to even. See Rint."""
    return emit(Rint(), x, name=name)


@dataclass(frozen=True)
class Round(Rounding):
    """y = the nearest whole number, halves to the even one; integers stay as they are.

    x: number[...]    y: same shape and dtype
    """

    needs = "number"

    def reference(self, x: Any) -> Any:
        return np.rint(x) if np.asarray(x).dtype.kind == "f" else x

    def element(self, x: Expr) -> Expr:
        return te.rint(x) if x.dtype.is_floating else x

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        yield from super().samples(rng)
        yield Sample((rng.integers(-9, 9, (2, 3)),), note="int64")


def round(x: Any, name: str | None = None) -> Any:
    """Round to nearest, halves to even; integers unchanged. See Round."""
    return emit(Round(), x, name=name)


@dataclass(frozen=True)
class FloatTest(Unary, abstract=True):
    """y = whether x is of a kind of float.    x: float[...]    y: bool, same shape"""

    not_differentiable = "the result is boolean"

    def infer(self, x: TensorType) -> TensorType:
        return x.require_float().with_dtype(bool_)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        yield Sample((np.array([[np.nan, np.inf, -np.inf], [0.0, -0.0, 3e38]], np.float32),))
        yield Sample((np.array(np.nan, np.float32),))
        yield Sample((np.zeros((0, 5), np.float32),))


@dataclass(frozen=True)
class IsNan(FloatTest):
    """y = whether x is not a number.    x: float[...]    y: bool, same shape"""

    onnx = "IsNaN"

    def reference(self, x: Any) -> Any:
        return np.isnan(x)

    def element(self, x: Expr) -> Expr:
        return x.not_equal(x)


def is_nan(x: Any, name: str | None = None) -> Any:
    """Whether x is NaN. See IsNan."""
    return emit(IsNan(), x, name=name)


@dataclass(frozen=True)
class IsInf(FloatTest):
    """y = whether x is +inf or -inf.    x: float[...]    y: bool, same shape"""

    onnx = "IsInf"

    def reference(self, x: Any) -> Any:
        return np.isinf(x)

    def element(self, x: Expr) -> Expr:
        return te.abs(x).equal(float("inf"))


def is_inf(x: Any, name: str | None = None) -> Any:
    """Whether x is infinite. See IsInf."""
    return emit(IsInf(), x, name=name)


@dataclass(frozen=True)
class IsFinite(FloatTest):
    """y = whether x is neither NaN nor infinite.    x: float[...]    y: bool, same shape"""

    def reference(self, x: Any) -> Any:
        return np.isfinite(x)

    def element(self, x: Expr) -> Expr:
        return te.abs(x) < float("inf")


def is_finite(x: Any, name: str | None = None) -> Any:
    """Whether x is finite. See IsFinite."""
    return emit(IsFinite(), x, name=name)
