"""Comparisons of elements, with NumPy broadcasting; the result is bool.

Main types: Less, LessEqual, Greater, GreaterEqual, Equal, NotEqual. May import ops.base.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ops.base import Comparison, Sample, emit


@dataclass(frozen=True)
class Ordering(Comparison, abstract=True):
    """z = x ? y for numbers; false where either side is NaN."""

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        yield from super().samples(rng)
        nan, inf = np.nan, np.inf
        x = np.array([nan, 1, inf, -inf, -0.0, 1], np.float32)
        y = np.array([nan, nan, inf, inf, 0.0, 1], np.float32)
        yield Sample((x, y), note="special values")
        yield Sample((rng.integers(0, 3, (3, 4)), rng.integers(0, 3, (4,))), note="int64")


@dataclass(frozen=True)
class Less(Ordering):
    """z = x < y.    x, y: number[...] of one dtype    z: bool, broadcast"""

    onnx = "Less"

    def reference(self, x: Any, y: Any) -> Any:
        return np.less(x, y)

    def element(self, x: Expr, y: Expr) -> Expr:
        return x < y


def less(x: Any, y: Any, name: str | None = None) -> Any:
    """x < y. See Less."""
    return emit(Less(), x, y, name=name)


@dataclass(frozen=True)
class LessEqual(Ordering):
    """z = x <= y.    x, y: number[...] of one dtype    z: bool, broadcast"""

    onnx = "LessOrEqual"

    def reference(self, x: Any, y: Any) -> Any:
        return np.less_equal(x, y)

    def element(self, x: Expr, y: Expr) -> Expr:
        return x <= y


def less_equal(x: Any, y: Any, name: str | None = None) -> Any:
    """x <= y. See LessEqual."""
    return emit(LessEqual(), x, y, name=name)


@dataclass(frozen=True)
class Greater(Ordering):
    """z = x > y.    x, y: number[...] of one dtype    z: bool, broadcast"""

    onnx = "Greater"

    def reference(self, x: Any, y: Any) -> Any:
        return np.greater(x, y)

    def element(self, x: Expr, y: Expr) -> Expr:
        return x > y


def greater(x: Any, y: Any, name: str | None = None) -> Any:
    """x > y. See Greater."""
    return emit(Greater(), x, y, name=name)


@dataclass(frozen=True)
class GreaterEqual(Ordering):
    """z = x >= y.    x, y: number[...] of one dtype    z: bool, broadcast"""

    onnx = "GreaterOrEqual"

    def reference(self, x: Any, y: Any) -> Any:
        return np.greater_equal(x, y)

    def element(self, x: Expr, y: Expr) -> Expr:
        return x >= y


def greater_equal(x: Any, y: Any, name: str | None = None) -> Any:
    """x >= y. See GreaterEqual."""
    return emit(GreaterEqual(), x, y, name=name)


@dataclass(frozen=True)
class Equal(Ordering):
    """z = x == y.    x, y: any one dtype    z: bool, broadcast    NaN equals nothing."""

    needs = "any"
    onnx = "Equal"

    def reference(self, x: Any, y: Any) -> Any:
        return np.equal(x, y)

    def element(self, x: Expr, y: Expr) -> Expr:
        return x.equal(y)


def equal(x: Any, y: Any, name: str | None = None) -> Any:
    """x == y, element-wise. See Equal."""
    return emit(Equal(), x, y, name=name)


@dataclass(frozen=True)
class NotEqual(Ordering):
    """z = x != y.    x, y: any one dtype    z: bool, broadcast    NaN differs from everything."""

    needs = "any"

    def reference(self, x: Any, y: Any) -> Any:
        return np.not_equal(x, y)

    def element(self, x: Expr, y: Expr) -> Expr:
        return x.not_equal(y)


def not_equal(x: Any, y: Any, name: str | None = None) -> Any:
    """x != y, element-wise. See NotEqual."""
    return emit(NotEqual(), x, y, name=name)
