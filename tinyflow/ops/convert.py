"""Changing an element's type, and ops that only steer the gradient.

Main types: Cast, Identity, StopGradient, PreventGradient. May import ops.base.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tinyflow import te
from tinyflow.core.dtype import DType, as_dtype, bool_, float32, float64, int32, int64, uint8
from tinyflow.core.error import NotFoundError
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ops.base import Op, Sample, TensorType, Unary, Value, emit


def cast_array(x: Any, dtype: DType) -> Any:
    """``x`` as ``dtype``; float -> integer truncates and saturates, NaN -> 0, also in NumPy."""
    x = np.asarray(x)
    target = dtype.numpy
    if x.dtype.kind != "f" or dtype.kind not in ("int", "uint"):
        with np.errstate(all="ignore"):
            return x.astype(target)
    low, high = np.iinfo(target).min, np.iinfo(target).max
    # float(high) may round up to high + 1, so the bound itself already saturates.
    wide = x.astype(np.float64)
    below, above = wide <= float(low), wide >= float(high)
    inside = np.where(below | above | np.isnan(wide), 0.0, wide).astype(target)
    result = np.where(above, target.type(high), np.where(below, target.type(low), inside))
    return result.astype(target)


@dataclass(frozen=True)
class Cast(Op):
    """y = x with element type ``dtype``.

    x: any dtype            y: ``dtype``, same shape
    float -> integer truncates towards zero and saturates, NaN -> 0 (TensorFlow leaves both to the
    processor); integer -> integer keeps the low bits; number -> bool is x != 0; bool -> number is
    0 or 1; float64 -> float32 rounds to nearest even.
    Gradient: dx = cast(dy, x.dtype) between floats; none otherwise
    """

    dtype: DType = float32
    onnx = "Cast"

    def infer(self, x: TensorType) -> TensorType:
        return x.with_dtype(self.dtype)

    def reference(self, x: Any) -> Any:
        return cast_array(x, self.dtype)

    def element(self, x: Expr) -> Expr:
        if self.dtype is bool_ and x.dtype is not bool_:
            return x.not_equal(0)
        return te.cast(x, self.dtype)

    def compute(self, x: te.Tensor) -> te.Tensor:
        return te.map(self.element, x, name="cast")

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (cast(dy, x.dtype) if x.dtype.is_floating and self.dtype.is_floating else None,)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        x = rng.uniform(-3, 3, (3, 4)).astype(np.float32)
        for dtype in (float32, float64, int32, int64, uint8, bool_):
            yield Sample((x,), Cast(dtype), check_gradient=dtype is float64)
        wild = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 300.7, -0.5, 2.0**31], np.float32)
        for dtype in (int32, int64, uint8, bool_):
            yield Sample((wild,), Cast(dtype), check_gradient=False, note="saturates")
        whole = rng.integers(-400, 400, (2, 1, 5)).astype(np.int32)
        for dtype in (float32, int64, uint8, bool_):
            yield Sample((whole,), Cast(dtype), check_gradient=False)
        yield Sample((np.array([True, False]),), Cast(float32), check_gradient=False)
        yield Sample((np.zeros((0, 3), np.int64),), Cast(float64), check_gradient=False)


def cast(x: Any, dtype: Any, name: str | None = None) -> Any:
    """``x`` as ``dtype``; ``x`` itself when it has it already. See Cast."""
    dtype = as_dtype(dtype)
    if isinstance(x, Value) and x.dtype is dtype:
        return x
    return emit(Cast(dtype), x, name=name)


@dataclass(frozen=True)
class Identity(Unary):
    """y = x.    x: any dtype    Gradient: dx = dy"""

    needs = "any"
    is_view = True
    onnx: ClassVar[str | None] = "Identity"

    def reference(self, x: Any) -> Any:
        return x

    def element(self, x: Expr) -> Expr:
        return x

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (dy,)


def identity(x: Any, name: str | None = None) -> Any:
    """The same value under a new name. See Identity."""
    return emit(Identity(), x, name=name)


@dataclass(frozen=True)
class StopGradient(Identity):
    """y = x, taken as a constant by differentiation.    Gradient: none"""

    onnx = None
    not_differentiable = "it is there to end differentiation"

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (None,)


def stop_gradient(x: Any, name: str | None = None) -> Any:
    """``x`` as a constant for differentiation. See StopGradient."""
    return emit(StopGradient(), x, name=name)


@dataclass(frozen=True)
class PreventGradient(Identity):
    """y = x; asking for a gradient through it is an error with ``message`` as the reason."""

    message: str = ""
    onnx = None

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        raise NotFoundError(
            f"PreventGradient: gradient explicitly disabled. Reason: {self.message}",
            received={"x": x.type},
            source=y.node.source,
        )

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for sample in super().samples(rng):
            yield Sample(sample.arrays, check_gradient=False)


def prevent_gradient(x: Any, message: str = "", name: str | None = None) -> Any:
    """``x``; differentiating through it raises. See PreventGradient."""
    return emit(PreventGradient(message), x, name=name)
