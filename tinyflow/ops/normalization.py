"""Normalisation: batch norm in training and inference, layer norm, local response norm.

Main types: ``FusedBatchNorm``, ``NeighbourSum``. May import ops.base, arithmetic and reductions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow import te
from tinyflow.core.error import DTypeError, InvalidArgumentError, ShapeError
from tinyflow.core.shape import merge_dim
from tinyflow.ops.base import Op, Sample, TensorType, Value, emit, floats, require_same_dtype
from tinyflow.ops.elementwise import add, divide, maximum, multiply, rsqrt, sqrt, square, subtract
from tinyflow.ops.movement import add_last_axes
from tinyflow.ops.padding import inside_all
from tinyflow.ops.reduction import element_count, reduce_mean, reduce_sum
from tinyflow.ops.special import power


@dataclass(frozen=True)
class FusedBatchNorm(Op):
    """y = (x - mean) / sqrt(var + epsilon) * scale + offset, mean and var of each channel of x.

    x: float[n, .., c] (NCHW: [n, c, ..])   scale, offset: same dtype [c]
    y: type of x    batch_mean: [c]    batch_variance: [c], the sum of squares over m - 1, not m
    (m = elements per channel), as moving averages want it; 0 for m = 1
    Gradient: with z = (x - mean) / sqrt(var + epsilon) and means over the channel:
    dx = scale / sqrt(var + epsilon) * (dy - mean(dy) - z mean(dy z)), dscale = sum(dy z),
    doffset = sum(dy), and the terms of the two statistics where they are used
    Errors: ShapeError, DTypeError, InvalidArgumentError for an unknown format
    Source: Ioffe and Szegedy 2015, Batch Normalization
    """

    epsilon: float = 1e-3
    data_format: str = "NHWC"
    onnx = "BatchNormalization"

    def infer(self, x: TensorType, scale: TensorType, offset: TensorType) -> Any:
        if self.data_format not in ("NHWC", "NCHW", "NDHWC", "NCDHW"):
            raise InvalidArgumentError(
                f"unknown data_format {self.data_format!r}", choices=("NHWC", "NCHW")
            )
        require_same_dtype(x, scale, offset)
        x.require_float().require_rank(2, at_least=True)
        channels: Any = None
        if x.shape is not None:
            channels = x.shape[self._axis(len(x.shape))]
        for type_, what in ((scale, "scale"), (offset, "offset")):
            type_.require_rank(1)
            if type_.shape is None:
                continue
            merged = type_.shape[0] if channels is None else merge_dim(channels, type_.shape[0])
            if merged is None:
                raise ShapeError(
                    f"{what} has {type_.shape[0]} elements for {channels} channels",
                    expected=f"{what}.shape == [{channels}]",
                )
            channels = merged
        own = x.with_shape(None if channels is None else (channels,))
        return x, own, own

    def _axis(self, rank: int) -> int:
        return 1 if self.data_format[1] == "C" else rank - 1

    def _others(self, x: Value) -> tuple[int, ...]:
        """The axes of one channel's elements."""
        rank = x.type.rank
        if rank is None:
            raise InvalidArgumentError("batch normalization needs an input of known rank")
        return tuple(a for a in range(rank) if a != self._axis(rank))

    def _along(self, x: Value, channels: Value) -> Value:
        """One number per channel, so that it broadcasts against x."""
        rank: int = x.type.rank  # type: ignore[assignment]
        return add_last_axes(channels, rank - 1 - self._axis(rank))

    def reference(self, x: Any, scale: Any, offset: Any) -> Any:
        x = np.asarray(x)
        axis = self._axis(x.ndim)
        last = np.moveaxis(x, axis, -1)
        others = tuple(range(x.ndim - 1))
        count = last[..., 0].size
        mean = last.mean(others, dtype=x.dtype)
        squares = np.square(last - mean).sum(others, dtype=x.dtype)
        variance = squares / x.dtype.type(max(count, 1))
        y = (last - mean) / np.sqrt(variance + x.dtype.type(self.epsilon)) * scale + offset
        return np.moveaxis(y, -1, axis), mean, squares / x.dtype.type(max(count - 1, 1))

    def decompose(self, x: Value, scale: Value, offset: Value) -> Any:
        others = self._others(x)
        mean = reduce_mean(x, others)
        centred = subtract(x, self._along(x, mean))
        squares = reduce_sum(square(centred), others)
        count = element_count(x, mean)
        factor = multiply(rsqrt(add(divide(squares, count), self.epsilon)), scale)
        y = add(multiply(centred, self._along(x, factor)), self._along(x, offset))
        return y, mean, divide(squares, _one_less(count))

    def vjp(self, grads: Any, results: Any, x: Value, scale: Value, offset: Value) -> Any:
        others = self._others(x)
        dy, dmean, dvariance = grads
        _, mean, unbiased = results
        count = element_count(x, mean)
        rest = _one_less(count)
        shrink = rest / count if isinstance(count, float) else divide(rest, count)
        centred = subtract(x, self._along(x, mean))
        inverse = rsqrt(add(multiply(unbiased, shrink), self.epsilon))
        dx, dscale, doffset = None, None, None
        if dy is not None:
            doffset = reduce_sum(dy, others)
            product = reduce_sum(multiply(dy, centred), others)
            dscale = multiply(product, inverse)
            slope = multiply(divide(dscale, count), inverse)
            shift = divide(doffset, count)
            inner = subtract(
                subtract(dy, self._along(x, shift)), multiply(centred, self._along(x, slope))
            )
            dx = multiply(inner, self._along(x, multiply(inverse, scale)))
        if dmean is not None:
            part = self._along(x, divide(dmean, count))
            dx = add(multiply(centred, 0.0), part) if dx is None else add(dx, part)
        if dvariance is not None:
            part = multiply(centred, self._along(x, multiply(divide(dvariance, rest), 2.0)))
            dx = part if dx is None else add(dx, part)
        return dx, dscale, doffset

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, form in (
            ((2, 3, 4, 5), "NHWC"), ((2, 3, 4, 5), "NCHW"), ((7, 17), "NHWC"),
            ((3, 2, 4, 5, 6), "NDHWC"), ((5, 1, 1, 3), "NHWC"),
        ):  # fmt: skip
            op = FusedBatchNorm(1e-3, form)
            channels = shape[op._axis(len(shape))]
            arrays = floats(rng, *shape), floats(rng, channels), floats(rng, channels)
            yield Sample(arrays, op, ulp=16.0, scale=16.0)

    def bad_samples(self) -> Iterable[Any]:
        x, c = np.zeros((2, 4, 5, 3), np.float32), np.zeros(3, np.float32)
        yield (x, c[:2], c), ShapeError
        yield (x, c, x), ShapeError
        yield (x[0, 0, 0], c, c), ShapeError
        yield (x, c.astype(np.float64), c), DTypeError
        yield Sample((x, c, c), FusedBatchNorm(data_format="CHWN")), InvalidArgumentError


def _one_less(count: Any) -> Any:
    """max(count - 1, 1) of a number or a value."""
    if isinstance(count, float):
        return max(count - 1.0, 1.0)
    return maximum(subtract(count, 1.0), 1.0)


@dataclass(frozen=True)
class NeighbourSum(Op):
    """y[.., c] = sum of x[.., j] over |j - c| <= radius, j inside.

    x: float[.., c]    y: same type     Gradient: dx = the same sum of dy
    Errors: DTypeError, ShapeError for a scalar
    """

    radius: int = 5

    def infer(self, x: TensorType) -> TensorType:
        return x.require_float().require_rank(1, at_least=True)

    def reference(self, x: Any) -> Any:
        x = np.asarray(x)
        wide = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(self.radius, self.radius)])
        count = x.shape[-1]
        return sum(wide[..., d : d + count] for d in range(2 * self.radius + 1)) + 0 * x

    def compute(self, x: te.Tensor) -> te.Tensor:
        def element(*axes: Any) -> Any:
            total: Any = None
            for d in range(-self.radius, self.radius + 1):
                at = axes[-1] + d
                fits = [te.index(0) <= at] if d < 0 else [at < x.shape[-1]] if d > 0 else []
                part = x[(*axes[:-1], at)]
                part = te.select(inside_all(fits), part, te.const(0, x.dtype)) if fits else part
                total = part if total is None else total + part
            return total

        return te.compute(x.shape, element, "neighbour_sum")

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (emit(self, dy),)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, radius in (((3, 4), 1), ((2, 3, 17), 2), ((5,), 0), ((2, 3), 5), ((0, 4), 1)):
            yield Sample((floats(rng, *shape),), NeighbourSum(radius), ulp=4.0, scale=9.0)

    def bad_samples(self) -> Iterable[Any]:
        yield (np.zeros((2, 3), np.int32),), DTypeError
        yield (np.float32(1),), ShapeError


def fused_batch_norm(
    x: Any, scale: Any, offset: Any, epsilon: float = 1e-3, data_format: str = "NHWC",
    name: str | None = "FusedBatchNormV3",
) -> Any:  # fmt: skip
    """Batch norm with the statistics of the batch: y, mean, variance. See FusedBatchNorm."""
    return emit(FusedBatchNorm(float(epsilon), data_format), x, scale, offset, name=name)


def batch_normalization(
    x: Any, mean: Any, variance: Any, offset: Any, scale: Any, epsilon: Any,
    names: tuple[str | None, ...] = (None,) * 7,
) -> Any:  # fmt: skip
    """(x - mean) / sqrt(variance + epsilon) * scale + offset, as x * a + (offset - mean * a).

    offset, scale may be None.
    names: of the nodes for variance + epsilon, its inverse root, a, x * a, mean * a, their
    difference and the result.
    """
    inverse = rsqrt(add(variance, epsilon, name=names[0]), name=names[1])
    if scale is not None:
        inverse = multiply(inverse, scale, name=names[2])
    scaled = multiply(x, inverse, name=names[3])
    moved = multiply(mean, inverse, name=names[4])
    if offset is None:
        return subtract(scaled, moved, name=names[6])
    return add(scaled, subtract(offset, moved, name=names[5]), name=names[6])


def local_response_normalization(
    x: Any, depth_radius: int = 5, bias: float = 1.0, alpha: float = 1.0, beta: float = 0.5,
    name: str | None = "LRN",
) -> Any:  # fmt: skip
    """x / (bias + alpha * sum of squares of the channels within depth_radius) ** beta.

    Source: Krizhevsky et al. 2012, section 3.3
    """
    total = emit(NeighbourSum(int(depth_radius)), square(x))
    base = add(multiply(total, float(alpha)), float(bias))
    if beta == 0.5:
        return multiply(x, rsqrt(base), name=name)
    if beta == 0.75:  # AlexNet's: two roots cost a fraction of a power
        root = sqrt(base)
        return divide(x, multiply(root, sqrt(root)), name=name)
    if beta == 1:
        return divide(x, base, name=name)
    return multiply(x, power(base, -float(beta)), name=name)


def layer_norm(
    x: Any, scale: Any = None, offset: Any = None, axes: Any = (-1,), epsilon: float = 1e-12,
    name: str | None = "layer_norm",
) -> Any:  # fmt: skip
    """(x - mean) / sqrt(var + epsilon) * scale + offset, mean and var over ``axes`` of each row.

    scale, offset: broadcast against x, or None.      Source: Ba et al. 2016, Layer Normalization
    """
    centred = subtract(x, reduce_mean(x, axes, True))
    variance = reduce_mean(square(centred), axes, True)
    inverse = rsqrt(add(variance, epsilon))
    y = multiply(centred, inverse, name=None if scale is not None or offset is not None else name)
    if scale is not None:
        y = multiply(y, scale, name=None if offset is not None else name)
    return y if offset is None else add(y, offset, name=name)
