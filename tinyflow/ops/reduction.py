"""Reductions: folding axes away.

Main types: Sum, Mean, Prod, Max, Min, All, Any, L2Loss, LogSumExp, EuclideanNorm. May import
ops.base, elementwise, comparison, logical, convert, rounding.

``axis`` is None (all axes) or a tuple of axes, negative ones counted from the end; ``keepdims``
leaves extents of 1. Floats are added in the order of te/canonical.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any as AnyType
from typing import ClassVar

import numpy as np

from tinyflow import te
from tinyflow.core.error import AxisError, DTypeError, Unsupported
from tinyflow.core.shape import Shape, is_static, normalize_axes
from tinyflow.ops.base import Op, Sample, TensorType, Value, emit, emit_shaped
from tinyflow.ops.comparison import equal, not_equal
from tinyflow.ops.convert import cast, stop_gradient
from tinyflow.ops.elementwise import (
    add,
    divide,
    exp,
    log,
    maximum,
    multiply,
    sqrt,
    square,
    subtract,
)
from tinyflow.ops.logical import logical_and, select
from tinyflow.ops.rounding import is_finite

Axes = tuple[int, ...] | None


@dataclass(frozen=True)
class Reduction(Op, abstract=True):
    """y = fold of x over ``axis``.

    x: [...]    y: x's dtype, the axes removed (or of extent 1 with ``keepdims``)
    Errors: AxisError, DTypeError
    """

    axis: Axes = None
    keepdims: bool = False
    needs: ClassVar[str] = "number"
    #: axes (of shape 2, 3, 4) and keepdims of the samples
    variants: ClassVar[tuple[tuple[Axes, bool], ...]] = (
        (None, False), (None, True), ((1,), False), ((0, 2), False), ((-1,), True), ((), False),
    )  # fmt: skip

    def infer(self, x: TensorType) -> TensorType:
        getattr(x, f"require_{self.needs}")()
        return x.with_shape(reduced_shape(x.shape, self.axis, self.keepdims))

    def samples(self, rng: np.random.Generator) -> Iterable[AnyType]:
        for axis, keepdims in self.variants:
            op = type(self)(axis, keepdims)
            yield Sample((self.sample_array(rng, (2, 3, 4)),), op)
        yield Sample((self.sample_array(rng, ()),), type(self)())
        yield Sample((self.sample_array(rng, (1, 37)),), type(self)((1,)))
        yield Sample((self.sample_array(rng, (3, 0)),), type(self)((0,)))
        empty = self.sample_array(rng, (3, 0))
        yield Sample((empty,), type(self)((1,)), check_gradient=False, note="empty fold")
        if self.needs == "number":
            yield Sample((rng.integers(-3, 4, (3, 5)),), type(self)((0,)), note="int64")

    def sample_array(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.uniform(-3, 3, shape).astype(np.float32)

    def bad_samples(self) -> Iterable[AnyType]:
        good = self.sample_array(np.random.default_rng(0), (2, 3))
        yield Sample((good,), type(self)((2,))), AxisError
        yield Sample((good,), type(self)((0, -2))), AxisError
        yield Sample((good[0, 0],), type(self)((1,))), AxisError
        bad = np.zeros((2, 3), np.float32 if self.needs == "bool" else bool)
        yield Sample((bad,), type(self)()), DTypeError


@dataclass(frozen=True)
class Fold(Reduction, abstract=True):
    """A reduction by one of te's combiners; a subclass names it and the NumPy function."""

    combiner: ClassVar[str] = ""
    numpy_function: ClassVar[AnyType] = None

    def reference(self, x: AnyType) -> AnyType:
        x = np.asarray(x)
        folded = type(self).numpy_function(x, axis=self.axis, keepdims=self.keepdims)
        return np.asarray(folded).astype(x.dtype)  # NumPy widens integer sums

    def compute(self, x: te.Tensor) -> te.Tensor:
        axes = normalize_axes(self.axis, x.rank)
        return te.reduction(self.combiner, x, axes, self.keepdims, name=self.type_name.lower())


def reduced_shape(shape: Shape, axis: Axes, keepdims: bool) -> Shape:
    """The shape without ``axis`` (with extents of 1 there, for keepdims)."""
    if shape is None:
        return () if axis is None and not keepdims else None
    axes = normalize_axes(axis, len(shape))
    if keepdims:
        return tuple(1 if a in axes else d for a, d in enumerate(shape))
    return tuple(d for a, d in enumerate(shape) if a not in axes)


def reduce_with(
    op: AnyType, x: AnyType, axis: AnyType, keepdims: bool, name: str | None
) -> AnyType:
    """``op(axis, keepdims)`` of x; the axis may be an int, a sequence, None or a tensor."""
    if axis is None or type(axis) is tuple:
        return emit(op(axis, keepdims), x, name=name)
    if isinstance(axis, int):
        return emit(op((axis,), keepdims), x, name=name)
    if isinstance(axis, list):
        axis = tuple(axis)
    return emit_shaped(op(None, keepdims), "axis", axis, x, node_name=name)


def restored(y: Value, x: Value, axis: Axes, keepdims: bool) -> Value:
    """A reduced value with its folded axes back at extent 1, so that it broadcasts against x."""
    from tinyflow.ops.movement import expand_dims

    shape = x.type.shape
    if keepdims or (axis is None and shape is None):
        return y  # a scalar broadcasts as it is
    if shape is not None:
        axes = normalize_axes(axis, len(shape))
        if len(axes) == len(shape):
            return y
    else:
        assert axis is not None
        if min(axis, default=0) < 0 <= max(axis, default=-1):
            raise Unsupported(
                "gradient of a reduction over axes from both ends at unknown rank",
                hint="give the placeholder a shape, or count all axes from one end",
            )
        # Inserted axes shift those after them: from the end backwards for negative ones.
        axes = tuple(sorted(axis, reverse=bool(axis) and axis[0] < 0))
    for a in axes:
        y = expand_dims(y, a)
    return y


def element_count(x: Value, y: Value) -> AnyType:
    """Elements of x per element of its reduction y, in x's dtype; a number when it is known."""
    if is_static(x.type.shape) and is_static(y.type.shape):
        count = x.type.size // max(y.type.size, 1)
        return count if x.dtype.is_integer else float(count)
    from tinyflow.ops.division import floordiv
    from tinyflow.ops.shape import size

    return cast(floordiv(size(x), maximum(size(y), 1)), x.dtype)


@dataclass(frozen=True)
class Sum(Fold):
    """y = sum of x over ``axis``; 0 for no elements; integers wrap around.

    Gradient: dx = dy, broadcast to x
    """

    combiner = "sum"
    numpy_function = staticmethod(np.sum)
    onnx = "ReduceSum"

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[AnyType, ...]:
        from tinyflow.ops.movement import broadcast_like

        return (broadcast_like(restored(dy, x, self.axis, self.keepdims), x),)


def reduce_sum(
    x: AnyType, axis: AnyType = None, keepdims: bool = False, name: str | None = None
) -> AnyType:
    """Sum over ``axis``. See Sum."""
    return reduce_with(Sum, x, axis, keepdims, name)


@dataclass(frozen=True)
class Mean(Reduction):
    """y = sum of x over ``axis`` / number of elements folded; NaN for none.

    Integers divide towards zero, as TensorFlow does.    Gradient: dx = dy / count, broadcast to x
    """

    onnx = "ReduceMean"

    def reference(self, x: AnyType) -> AnyType:
        x = np.asarray(x)
        total = np.sum(x, axis=self.axis, keepdims=self.keepdims)
        count = max(x.size // max(total.size, 1), 0 if x.dtype.kind == "f" else 1)
        if x.dtype.kind == "f":
            return np.divide(total, x.dtype.type(count)).astype(x.dtype)
        return (np.sign(total) * (np.abs(total) // count)).astype(x.dtype)

    def decompose(self, x: Value) -> AnyType:
        total = reduce_sum(x, self.axis, self.keepdims)
        count = element_count(x, total)
        if x.dtype.is_floating:
            return divide(total, count)
        from tinyflow.ops.division import truncatediv

        return truncatediv(total, max(count, 1))

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[AnyType, ...]:
        from tinyflow.ops.movement import broadcast_like

        # Divide first: there are fewer elements before the broadcast.
        share = divide(dy, element_count(x, y))
        return (broadcast_like(restored(share, x, self.axis, self.keepdims), x),)


def reduce_mean(
    x: AnyType, axis: AnyType = None, keepdims: bool = False, name: str | None = None
) -> AnyType:
    """Mean over ``axis``. See Mean."""
    return reduce_with(Mean, x, axis, keepdims, name)


@dataclass(frozen=True)
class Prod(Fold):
    """y = product of x over ``axis``; 1 for no elements; integers wrap around.

    Gradient: dx_i = dy * product of the other elements, right also where elements are 0. (Its own
    derivative is right where no element is 0.)
    """

    combiner = "prod"
    numpy_function = staticmethod(np.prod)
    onnx = "ReduceProd"

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[AnyType, ...]:
        # The others' product is y/x_i without zeros; with one zero it is the rest at that place
        # and 0 elsewhere; with two it is 0. Zeros are replaced by 1 so that nothing divides by 0.
        is_zero = equal(x, 0)
        zeros = reduce_sum(cast(is_zero, x.dtype), self.axis, True)
        safe = select(is_zero, 1, x)
        rest = reduce_prod(safe, self.axis, True)
        others = select(equal(zeros, 0), divide(rest, safe), 0)
        others = select(logical_and(is_zero, equal(zeros, 1)), rest, others)
        return (multiply(restored(dy, x, self.axis, self.keepdims), others),)


def reduce_prod(
    x: AnyType, axis: AnyType = None, keepdims: bool = False, name: str | None = None
) -> AnyType:
    """Product over ``axis``. See Prod."""
    return reduce_with(Prod, x, axis, keepdims, name)


@dataclass(frozen=True)
class Extremum(Fold, abstract=True):
    """The largest or smallest element; NaN if there is one.

    Gradient: dy shared equally among the elements that attain it, as in TensorFlow.
    """

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[AnyType, ...]:
        attained = cast(equal(x, restored(y, x, self.axis, self.keepdims)), x.dtype)
        ties = reduce_sum(attained, self.axis, True)
        return (multiply(divide(attained, ties), restored(dy, x, self.axis, self.keepdims)),)

    def worst(self, dtype: np.dtype) -> AnyType:
        """The result for no elements."""
        raise NotImplementedError

    def reference(self, x: AnyType) -> AnyType:
        x = np.asarray(x)
        numpy_function = type(self).numpy_function
        folded = numpy_function(
            x, axis=self.axis, keepdims=self.keepdims, initial=self.worst(x.dtype)
        )
        return np.asarray(folded).astype(x.dtype)

    def samples(self, rng: np.random.Generator) -> Iterable[AnyType]:
        yield from super().samples(rng)
        x = np.array([[1, np.nan, 3], [np.inf, 2, -np.inf]], np.float32)
        yield Sample((x,), type(self)((1,)), check_gradient=False, note="NaN and infinities")


@dataclass(frozen=True)
class Max(Extremum):
    """y = largest element of x over ``axis``; -inf (smallest integer) for no elements."""

    combiner = "max"
    numpy_function = staticmethod(np.max)
    onnx = "ReduceMax"

    def worst(self, dtype: np.dtype) -> AnyType:
        return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def reduce_max(
    x: AnyType, axis: AnyType = None, keepdims: bool = False, name: str | None = None
) -> AnyType:
    """Largest element over ``axis``. See Max."""
    return reduce_with(Max, x, axis, keepdims, name)


@dataclass(frozen=True)
class Min(Extremum):
    """y = smallest element of x over ``axis``; inf (largest integer) for no elements."""

    combiner = "min"
    numpy_function = staticmethod(np.min)
    onnx = "ReduceMin"

    def worst(self, dtype: np.dtype) -> AnyType:
        return np.inf if dtype.kind == "f" else np.iinfo(dtype).max


def reduce_min(
    x: AnyType, axis: AnyType = None, keepdims: bool = False, name: str | None = None
) -> AnyType:
    """Smallest element over ``axis``. See Min."""
    return reduce_with(Min, x, axis, keepdims, name)


@dataclass(frozen=True)
class TruthReduction(Fold, abstract=True):
    """A reduction of truth values."""

    needs = "bool"
    not_differentiable = "the result is boolean"

    def sample_array(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return np.asarray(rng.uniform(size=shape) < 0.6)


@dataclass(frozen=True)
class All(TruthReduction):
    """y = whether every element over ``axis`` is true; true for none."""

    combiner = "all"
    numpy_function = staticmethod(np.all)


def reduce_all(
    x: AnyType, axis: AnyType = None, keepdims: bool = False, name: str | None = None
) -> AnyType:
    """Whether all are true over ``axis``. See All."""
    return reduce_with(All, x, axis, keepdims, name)


@dataclass(frozen=True)
class Any(TruthReduction):
    """y = whether some element over ``axis`` is true; false for none."""

    combiner = "any"
    numpy_function = staticmethod(np.any)


def reduce_any(
    x: AnyType, axis: AnyType = None, keepdims: bool = False, name: str | None = None
) -> AnyType:
    """Whether any is true over ``axis``. See Any."""
    return reduce_with(Any, x, axis, keepdims, name)


@dataclass(frozen=True)
class L2Loss(Op):
    """y = sum(x * x) / 2, over all elements.

    x: float[...]    y: scalar of x's dtype    Gradient: dx = dy * x    Errors: DTypeError
    """

    def infer(self, x: TensorType) -> TensorType:
        return x.require_float().with_shape(())

    def reference(self, x: AnyType) -> AnyType:
        x = np.asarray(x)
        return np.sum(x * x).astype(x.dtype) * x.dtype.type(0.5)

    def decompose(self, x: Value) -> AnyType:
        return multiply(reduce_sum(square(x)), 0.5)

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[AnyType, ...]:
        return (multiply(dy, x),)

    def samples(self, rng: np.random.Generator) -> Iterable[AnyType]:
        for shape in ((3, 4), (), (0, 5), (1, 37)):
            yield Sample((rng.normal(size=shape).astype(np.float32),))

    def bad_samples(self) -> Iterable[AnyType]:
        yield (np.array([1, 2]),), DTypeError


def l2_loss(x: AnyType, name: str | None = None) -> AnyType:
    """sum(x * x) / 2. See L2Loss."""
    return emit(L2Loss(), x, name=name)


@dataclass(frozen=True)
class LogSumExp(Reduction):
    """y = log(sum(exp(x))) over ``axis``, without overflow; -inf for no elements.

    x: float[...]    Gradient: dx = dy * exp(x - y)
    Source: the largest element is taken out of the sum: m + log(sum(exp(x - m)))
    """

    needs = "float"
    onnx = "ReduceLogSumExp"

    def _largest(self, x: AnyType) -> AnyType:
        largest = np.max(x, axis=self.axis, keepdims=True, initial=-np.inf)
        return np.where(np.isfinite(largest), largest, 0).astype(x.dtype)

    def reference(self, x: AnyType) -> AnyType:
        x = np.asarray(x)
        m = self._largest(x)
        total = np.sum(np.exp(x - m), axis=self.axis, keepdims=True)
        y = np.log(total) + m
        return y.reshape(reduced_shape(x.shape, self.axis, self.keepdims)).astype(x.dtype)

    def decompose(self, x: Value) -> AnyType:
        from tinyflow.ops.movement import reshape_like

        m = stop_gradient(reduce_max(x, self.axis, True))
        # An infinite maximum would give inf - inf; 0 lets exp and log find the infinity themselves.
        m = select(is_finite(m), m, 0)
        total = reduce_sum(exp(subtract(x, m)), self.axis, self.keepdims)
        return add(log(total), m if self.keepdims else reshape_like(m, total))

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[AnyType, ...]:
        y = restored(y, x, self.axis, self.keepdims)
        dy = restored(dy, x, self.axis, self.keepdims)
        # All of x at -inf: -inf - -inf would be NaN, where each weight is 0.
        return (multiply(dy, exp(subtract(x, select(is_finite(y), y, 0)))),)


def reduce_logsumexp(
    x: AnyType, axis: AnyType = None, keepdims: bool = False, name: str | None = None
) -> AnyType:
    """log(sum(exp(x))) over ``axis``. See LogSumExp."""
    return reduce_with(LogSumExp, x, axis, keepdims, name)


@dataclass(frozen=True)
class EuclideanNorm(Reduction):
    """y = sqrt(sum(x * x)) over ``axis``.

    x: float[...]    Gradient: dx = dy * x / y, and 0 where y = 0
    """

    needs = "float"
    onnx = "ReduceL2"

    def reference(self, x: AnyType) -> AnyType:
        x = np.asarray(x)
        return np.sqrt(np.sum(x * x, axis=self.axis, keepdims=self.keepdims)).astype(x.dtype)

    def decompose(self, x: Value) -> AnyType:
        return sqrt(reduce_sum(square(x), self.axis, self.keepdims))

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[AnyType, ...]:
        inside = not_equal(y, 0)
        scale = select(inside, divide(dy, select(inside, y, 1)), 0)
        return (multiply(restored(scale, x, self.axis, self.keepdims), x),)


def reduce_euclidean_norm(
    x: AnyType, axis: AnyType = None, keepdims: bool = False, name: str | None = None
) -> AnyType:
    """sqrt(sum(x * x)) over ``axis``. See EuclideanNorm."""
    return reduce_with(EuclideanNorm, x, axis, keepdims, name)
