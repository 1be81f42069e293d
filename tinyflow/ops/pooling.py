"""Pooling: the largest element or the mean of every window, and the gradients.

Main types: ``MaxPool``, ``PoolArgmax``, ``PoolPick``, ``PoolPut``, ``AvgPool``, ``AvgPoolGrad``.
May import ops.base, ops.pool_windows, ops.window_largest, ops.windows. Shapes: x: [n, h.., c], y:
[n, o.., c]; channels second for NCHW.

An element of a result reads the few elements of its window, an element of a gradient the few
windows it lies in. So nothing scatters, and all vectorise.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow import te
from tinyflow.core.dtype import float32, int32
from tinyflow.core.error import (
    DTypeError,
    InvalidArgumentError,
    ShapeError,
    Unsupported,
)
from tinyflow.ops.base import Sample, TensorType, Value, emit, ranged, require_same_dtype
from tinyflow.ops.padding import inside_all
from tinyflow.ops.pool_windows import WRITTEN_OUT, Line, PoolOp
from tinyflow.ops.window_largest import MOST_TAPS, first_largest, lowest, some_nan
from tinyflow.ops.windows import check_windows, from_last, spatial_axes, to_last

#: x, attributes: windows apart, side by side and overlapping, every format, padding
CASES: tuple[Any, ...] = (
    ((2, 6, 4, 3), ((2, 2), (2, 2))),
    ((2, 7, 5, 17), ((3, 2), (2, 2), "SAME")),
    ((1, 5, 6, 1), ((3, 3), (1, 1), "SAME")),
    ((2, 3, 8, 7), ((2, 3), (3, 4), "VALID", (1, 1), "NCHW")),
    ((2, 9, 8, 2), ((2, 3), (2, 1), "VALID", (2, 3))),
    ((2, 5, 4, 3), ((2, 3), (1, 2), ((1, 0), (2, 1)))),
    ((1, 1, 1, 4), ((3, 3), (2, 2), "SAME")),
    ((3, 10, 2), ((4,), (3,), "SAME", (1,), "NWC")),
    ((3, 2, 10), ((2,), (2,), "SAME", (2,), "NCW")),
    ((1, 4, 5, 6, 2), ((2, 2, 3), (2, 2, 1), "SAME", (1, 1, 1), "NDHWC")),
    ((0, 4, 4, 2), ((2, 2), (2, 2))),
    ((2, 9, 10, 3), ((8, 9), (2, 2), "SAME")),
    ((2, 7, 6, 3), ((3, 2), (2, 3), ((1, 0), (0, 1)), (1, 2), "NHWC", True)),
    ((1, 3, 8, 9), ((2, 3), (4, 2), "VALID", (1, 1), "NCHW", True)),
    ((2, 5, 3), ((1,), (3,), ((0, 1),), (1,), "NWC", True)),
)


def counted_cases(kind: Any) -> Iterable[tuple[tuple[int, ...], Any]]:
    """Shape of x and an op of the class ``kind``: sums, and means that count the padding."""
    pads = ((1, 0), (0, 1))
    yield (2, 7, 6, 3), kind((3, 2), (2, 3), pads, (1, 2), "NHWC", True, "padded")
    yield (2, 3, 6, 5), kind((3, 2), (1, 2), pads, (1, 1), "NCHW", False, "padded")
    yield (3, 8, 2), kind((3,), (2,), "SAME", (1,), "NWC", True, "padded")
    yield (1, 9, 10, 4), kind((8, 9), (2, 2), "SAME", (1, 1), "NHWC", False, 1)
    yield (2, 5, 4, 3), kind((2, 2), (2, 2), "VALID", (1, 1), "NHWC", True, 3)


def _spaced(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Random elements, no two of them close: finite differences do not move the maximum."""
    size = int(np.prod(shape))
    return (rng.permutation(size).reshape(shape) / max(size, 1) * 4 - 2).astype(np.float32)


def _or_else(here: tuple[Any, Any], fill: Any) -> Any:
    """The element of (is it inside, element), ``fill`` outside."""
    inside, own = here
    return te.select(inside, own, fill)


@dataclass(frozen=True)
class MaxPool(PoolOp):
    """y[n, o, c] = largest x[n, h, c] of the positions h of window o; NaN if there is one.

    x: number[n, h.., c]   y: number[n, o.., c]
    Gradient: dy goes to the first largest element of its window, rows before columns
    Errors: ShapeError, DTypeError, InvalidArgumentError
    """

    onnx = "MaxPool"

    def infer(self, x: TensorType) -> TensorType:
        return self.output_type(x.require_number())

    def reference(self, x: Any) -> Any:
        x = np.asarray(x)
        worst = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        padded, sizes = self.arrays(x, worst)
        y = np.full((len(padded), *sizes, padded.shape[-1]), worst, padded.dtype)
        for tap in self.taps:
            y = np.maximum(y, self.seen(padded, sizes, tap))
        return from_last(y, self.data_format)

    def compute(self, x: te.Tensor) -> te.Tensor:
        worst = te.const(lowest(x.dtype), x.dtype)

        def element(axes: Any, read: Any) -> Any:
            if len(self.taps) > WRITTEN_OUT:
                tap = [te.reduce_axis(k, f"t{d}") for d, k in enumerate(self.size)]
                return te.max(_or_else(read(tap), worst), tap)
            here = [_or_else(read(place), worst) for place in self.taps]
            return functools.reduce(te.maximum, here)

        return self.windowed(x, element, "max_pool")

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        own = self.attributes_of()
        return (emit(PoolPut(*own), dy, emit(PoolArgmax(*own), x), x),)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, own in CASES:
            yield Sample((_spaced(rng, shape),), MaxPool(*own))
        yield Sample((rng.integers(-9, 9, (2, 5, 4, 3)).astype(np.int32),),
                     MaxPool((3, 3), (2, 2), "SAME"))  # fmt: skip
        x = some_nan(rng, (1, 4, 4, 2))
        yield Sample((x,), MaxPool((3, 3), (1, 1), "SAME"), check_gradient=False)

    def bad_samples(self) -> Iterable[Any]:
        yield from self.bad_types()


@dataclass(frozen=True)
class PoolArgmax(PoolOp):
    """index[n, o, c] = which tap of window o is the first largest; taps count rows before columns.

    x: number[n, h.., c]    index: int32[n, o.., c]; a position outside is never chosen, and where
    the largest is NaN the index is the number of taps: none of them
    Errors: ShapeError, DTypeError, InvalidArgumentError; Unsupported above MOST_TAPS taps
    """

    same_dtype = False
    not_differentiable = "the result is an index"

    def infer(self, x: TensorType) -> TensorType:
        return self.output_type(x.require_number()).with_dtype(int32)

    def reference(self, x: Any) -> Any:
        padded, sizes = self.arrays(np.asarray(x), 0)
        inside, _ = self.arrays(np.ones_like(x), 0)
        most = to_last(MaxPool(*self.attributes_of()).reference(x), self.data_format)
        index = np.full(most.shape, len(self.taps), np.int32)
        for number, tap in reversed(list(enumerate(self.taps))):
            here = (self.seen(inside, sizes, tap) != 0) & (self.seen(padded, sizes, tap) == most)
            index = np.where(here, number, index)
        return from_last(index.astype(np.int32), self.data_format)

    def compute(self, x: te.Tensor) -> te.Tensor:
        if len(self.taps) > MOST_TAPS:
            raise Unsupported(
                f"the gradient of max pooling over {len(self.taps)} elements",
                expected=f"windows of at most {MOST_TAPS} elements",
                hint="reduce_max over the axes is the maximum of a whole image",
            )

        def element(axes: Any, read: Any) -> Any:
            return first_largest([read(tap) for tap in self.taps], x.dtype, nan_wins=False)

        return self.windowed(x, element, "pool_argmax")

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, own in CASES:
            yield Sample((rng.integers(-2, 3, shape).astype(np.float32),), PoolArgmax(*own))
        x = np.full((1, 4, 4, 2), -np.inf, np.float32)
        yield Sample((x,), PoolArgmax((3, 3), (1, 1), "SAME"))

    def bad_samples(self) -> Iterable[Any]:
        yield from self.bad_types()


def _index_type(wanted: TensorType, index: TensorType) -> None:
    """Errors: DTypeError, ShapeError when ``index`` has not one number per window."""
    index.require_integer()
    check_windows(wanted, index, "index")


@dataclass(frozen=True)
class PoolPick(PoolOp):
    """y[n, o, c] = x[n, h, c] with h the tap number index[n, o, c] of window o.

    x: number[n, h.., c]   index: int[n, o.., c]   y: number[n, o.., c]; 0 where index is no tap
    Gradient: PoolPut      Errors: ShapeError, DTypeError
    """

    same_dtype = False

    def infer(self, x: TensorType, index: TensorType) -> TensorType:
        result = self.output_type(x.require_number())
        _index_type(result, index)
        return result

    def reference(self, x: Any, index: Any) -> Any:
        padded, sizes = self.arrays(np.asarray(x), 0)
        index = to_last(index, self.data_format)
        y = np.zeros(index.shape, padded.dtype)
        for number, tap in enumerate(self.taps):
            y = np.where(index == number, self.seen(padded, sizes, tap), y)
        return from_last(y, self.data_format)

    def compute(self, x: te.Tensor, index: te.Tensor) -> te.Tensor:
        def element(axes: Any, read: Any) -> Any:
            y, own = te.const(0, x.dtype), index[axes]
            for number, tap in enumerate(self.taps):
                inside, here = read(tap)
                y = te.select(inside & own.equal(number), here, y)
            return y

        return self.windowed(x, element, "pool_pick")

    def vjp(self, dy: Value, y: Value, x: Value, index: Value) -> tuple[Any, ...]:
        return emit(PoolPut(*self.attributes_of()), dy, index, x), None

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, own in CASES:
            x = ranged(rng, shape, "float", -2, 2)
            yield Sample((x, PoolArgmax(*own).reference(x)), PoolPick(*own))

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 4, 6, 3), np.float32)
        yield (x, np.zeros((2, 3, 3, 3), np.int32)), ShapeError
        yield (x, x[:, ::2, ::2]), DTypeError


@dataclass(frozen=True)
class PoolPut(PoolOp):
    """dx[n, h, c] = sum of dy[n, o, c] over the windows o whose tap number index[n, o, c] is h.

    dy: number[n, o.., c]   index: int[n, o.., c]   like: what was pooled, only its shape matters
    dx: dtype of dy, shape of like      Gradient: PoolPick      Errors: ShapeError, DTypeError
    """

    same_dtype = False

    def infer(self, dy: TensorType, index: TensorType, like: TensorType) -> TensorType:
        wanted = self.output_type(like)
        dy.require_number()
        check_windows(wanted, dy, "dy")
        _index_type(wanted, index)
        return dy.with_shape(like.shape)

    def reference(self, dy: Any, index: Any, like: Any) -> Any:
        dy, index = to_last(dy, self.data_format), to_last(index, self.data_format)
        padded, sizes = self.arrays(np.zeros(np.shape(like), dy.dtype), 0)
        for number, tap in enumerate(self.taps):
            self.seen(padded, sizes, tap)[...] += np.where(index == number, dy, 0)
        return self.middle(padded, like)

    def compute(self, dy: te.Tensor, index: te.Tensor, like: te.Tensor) -> te.Tensor:
        def element(at: tuple[Any, ...], tap: Any) -> Any:
            hit = index[at].equal(te.cast(tap, index.dtype))
            return te.select(hit, dy[at], te.const(0, dy.dtype))

        return self.gathered(dy, like, element, "pool_put")

    def vjp(self, dz: Value, z: Value, dy: Value, index: Value, like: Value) -> tuple[Any, ...]:
        return emit(PoolPick(*self.attributes_of()), dz, index), None, None

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, own in (*CASES, ((2, 8, 9, 3), ((2, 3), (3, 5)))):
            like = ranged(rng, shape, "float", -2, 2)
            index = PoolArgmax(*own).reference(like)
            dy = ranged(rng, index.shape, "float", -1, 1)
            yield Sample((dy, index, np.zeros_like(like)), PoolPut(*own), scale=4.0)

    def bad_samples(self) -> Iterable[Any]:
        x, index = np.zeros((2, 4, 6, 3), np.float32), np.zeros((2, 2, 3, 3), np.int32)
        yield (x[:, ::2, ::2], index[:, :1], x), ShapeError
        yield (x, index, x), ShapeError
        yield (x[:, ::2, ::2], x[:, ::2, ::2], x), DTypeError


@dataclass(frozen=True)
class MeanOp(PoolOp, abstract=True):
    """What means share: what a window's sum is divided by.

    counted: "inside" (its elements that lie inside x), "padded" (those and the ones in the
    padding), or a number for every window (1: the sum).
    """

    counted: Any = "inside"

    def output_type(self, x: TensorType) -> TensorType:
        fixed = type(self.counted) is int and self.counted > 0
        if not fixed and self.counted not in ("inside", "padded"):
            raise InvalidArgumentError(
                f"counted is {self.counted!r}", choices=("inside", "padded", "a number above 0")
            )
        return PoolOp.output_type(self, x)

    def mean_attributes(self) -> tuple[Any, ...]:
        return (*self.attributes_of(), self.counted)

    def count(self, lines: list[Line], windows: Sequence[Any], dtype: Any) -> Any:
        """What the sum of a window is divided by, as a number of ``dtype``."""
        if type(self.counted) is int:
            return te.const(self.counted, dtype)
        counts: Any = None
        fixed = 1
        for line, window in zip(lines, windows, strict=True):
            own: Any = None
            for tap in range(line.size):
                conditions = self._counts(line, line.position(window, tap))
                if not conditions:
                    break
                one = te.select(inside_all(conditions), te.const(1, int32), te.const(0, int32))
                own = one if own is None else own + one
            if own is None:
                fixed *= line.size
            else:
                counts = own if counts is None else counts * own
        if counts is None:
            return te.const(fixed, dtype)
        total = te.maximum(counts * te.const(fixed, int32), te.const(1, int32))
        return te.cast(total, dtype)

    def _counts(self, line: Line, at: Any) -> list[Any]:
        """Conditions for the position ``at`` to count; none where all do."""
        if self.counted == "inside":
            return line.inside(at)
        return [at < line.extent + line.after] if line.ceil and line.after is not None else []

    def counts(self, x: Any, sizes: Any) -> Any:
        """For references: ``count`` of every window, channels last."""
        if type(self.counted) is int:
            return x.dtype.type(self.counted)
        ones, _ = self.arrays(np.ones_like(x), 0)
        if self.counted == "padded":
            extents = to_last(x, self.data_format).shape[1:-1]
            reach = (slice(n + sum(p)) for n, p in zip(extents, self.pads(x), strict=True))
            ones[(slice(None), *reach)] = 1
        return np.maximum(sum(self.seen(ones, sizes, tap) for tap in self.taps), 1)


@dataclass(frozen=True)
class AvgPool(MeanOp):
    """y[n, o, c] = sum of x[n, h, c] over the positions h of window o that lie inside, divided by
    how many count: by default those, so that y is their mean.

    value: float[n, h.., c]    y: float[n, o.., c]; 0 where a window lies wholly in the padding
    Gradient: AvgPoolGrad      Errors: ShapeError, DTypeError, InvalidArgumentError
    """

    onnx = "AveragePool"

    def infer(self, value: TensorType) -> TensorType:
        return self.output_type(value.require_float())

    def reference(self, x: Any) -> Any:
        padded, sizes = self.arrays(np.asarray(x), 0)
        y = sum(self.seen(padded, sizes, tap) for tap in self.taps)
        return from_last(y / self.counts(x, sizes), self.data_format)

    def compute(self, x: te.Tensor) -> te.Tensor:
        lines, places = self.lines(x.shape), spatial_axes(self.data_format)

        def element(axes: Any, read: Any) -> Any:
            zero = te.const(0, x.dtype)
            count = self.count(lines, [axes[a] for a in places], x.dtype)
            if len(self.taps) > WRITTEN_OUT:
                tap = [te.reduce_axis(k, f"t{d}") for d, k in enumerate(self.size)]
                inside, here = read(tap)
                return te.sum(te.select(inside, here / count, zero), tap)
            inside_only = [_or_else(read(place), zero) for place in self.taps]
            return functools.reduce(operator.add, inside_only) / count

        return self.windowed(x, element, "avg_pool")

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (emit(AvgPoolGrad(*self.mean_attributes()), dy, x),)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, own in CASES:
            x = ranged(rng, shape, "float", -2, 2)
            yield Sample((x,), AvgPool(*own), ulp=16.0, scale=2.0)
        for shape, op in counted_cases(AvgPool):
            yield Sample((ranged(rng, shape, "float", -2, 2),), op, ulp=16.0, scale=9.0)

    def bad_samples(self) -> Iterable[Any]:
        yield from self.bad_types()


@dataclass(frozen=True)
class AvgPoolGrad(MeanOp):
    """dx[n, h, c] = sum over the windows o that hold h of dy[n, o, c] / elements of o that count.

    dy: float[n, o.., c]   like: what was pooled, only its shape matters      dx: type of like
    Gradient: AvgPool      Errors: ShapeError, DTypeError
    """

    def infer(self, dy: TensorType, like: TensorType) -> TensorType:
        require_same_dtype(dy, like)
        check_windows(self.output_type(like.require_float()), dy, "dy")
        return like

    def reference(self, dy: Any, like: Any) -> Any:
        padded, sizes = self.arrays(np.zeros_like(like), 0)
        share = to_last(dy, self.data_format) / self.counts(like, sizes)
        for tap in self.taps:
            self.seen(padded, sizes, tap)[...] += share
        return self.middle(padded, like)

    def compute(self, dy: te.Tensor, like: te.Tensor) -> te.Tensor:
        lines, places = self.lines(like.shape), spatial_axes(self.data_format)

        def element(at: tuple[Any, ...], tap: Any) -> Any:
            return dy[at] / self.count(lines, [at[a] for a in places], dy.dtype)

        return self.gathered(dy, like, element, "avg_pool_grad")

    def vjp(self, dz: Value, z: Value, dy: Value, like: Value) -> tuple[Any, ...]:
        return emit(AvgPool(*self.mean_attributes()), dz), None

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        plain = [(shape, AvgPoolGrad(*own)) for shape, own in CASES]
        for shape, op in (*plain, ((2, 8, 9, 3), AvgPoolGrad((2, 3), (3, 5))),
                          *counted_cases(AvgPoolGrad)):  # fmt: skip
            y: Any = op.output_type(TensorType(float32, shape)).shape
            arrays = ranged(rng, y, "float", -1, 1), np.zeros(shape, np.float32)
            yield Sample(arrays, op, ulp=16.0, scale=9.0)

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 4, 6, 3), np.float32)
        yield (x[:, ::2, ::3], x), ShapeError
        yield (x[:, ::2, ::2].astype(np.float64), x), DTypeError


def max_pool(
    x: Any, size: Any = (2, 2), strides: Any = (2, 2), padding: Any = "VALID",
    dilations: Any = (1, 1), data_format: str = "NHWC", name: str | None = "MaxPool",
    ceil: bool = False,
) -> Any:  # fmt: skip
    """The largest element of every window. See MaxPool."""
    op = MaxPool(tuple(size), tuple(strides), padding, tuple(dilations), data_format, ceil)
    return emit(op, x, name=name)


def avg_pool(
    x: Any, size: Any = (2, 2), strides: Any = (2, 2), padding: Any = "VALID",
    dilations: Any = (1, 1), data_format: str = "NHWC", name: str | None = "AvgPool",
    ceil: bool = False, counted: Any = "inside",
) -> Any:  # fmt: skip
    """The mean of every window. See AvgPool."""
    op = AvgPool(tuple(size), tuple(strides), padding, tuple(dilations), data_format, ceil, counted)
    return emit(op, x, name=name)
