"""Pooling to a given number of windows, as equal as they can be.

Main types: ``AdaptiveAvgPool``, ``AdaptiveAvgPoolGrad``, ``AdaptivePositions``; functions
``adaptive_avg_pool``, ``adaptive_max_pool``. May import ops.base, pooling, pool_positions,
window_largest, windows.
Shapes: x: [n, h.., c], y: [n, counts.., c]; channels second for NCHW. Along an axis of extent h,
window o of k covers the positions from floor(o*h / k) to ceil((o+1)*h / k) - 1 (torch's meaning).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tinyflow import te
from tinyflow.core.dtype import DType, int32, int64
from tinyflow.core.error import DTypeError, InvalidArgumentError, ShapeError, Unsupported
from tinyflow.core.shape import show
from tinyflow.ops.base import Op, Sample, TensorType, Value, emit, ranged, require_same_dtype
from tinyflow.ops.indexing import gather
from tinyflow.ops.movement import reshape
from tinyflow.ops.padding import inside_all
from tinyflow.ops.pool_positions import check_positions, flat_position, max_positions
from tinyflow.ops.pooling import avg_pool, max_pool
from tinyflow.ops.window_largest import MOST_TAPS, first_largest, some_nan, where_largest
from tinyflow.ops.windows import FORMATS, check_windows, spatial_axes


class Share(NamedTuple):
    """One spatial axis of known extent, cut into ``count`` windows."""

    extent: int
    count: int  # type: ignore[assignment]

    @property
    def most(self) -> int:
        """The length of the longest window."""
        return max((self.end(o) - self.start(o) for o in range(self.count)), default=0)

    def start(self, window: Any) -> Any:
        return window * self.extent // self.count

    def end(self, window: Any) -> Any:
        return ((window + 1) * self.extent + (self.count - 1)) // self.count

    @property
    def most_windows(self) -> int:
        """The largest number of windows that share a position."""
        return max((self.last(h) - self.first(h) + 1 for h in range(self.extent)), default=0)

    def first(self, at: Any) -> Any:
        """The first window that holds position ``at``."""
        return at * self.count // self.extent

    def last(self, at: Any) -> Any:
        return ((at + 1) * self.count + (self.extent - 1)) // self.extent - 1


@dataclass(frozen=True)
class AdaptiveOp(Op, abstract=True):
    """What they share: the number of windows of each spatial axis, data_format."""

    counts: tuple[int, ...] = (1, 1)
    data_format: str = "NHWC"

    def output_type(self, x: TensorType) -> TensorType:
        dims = len(self.counts)
        if self.data_format not in FORMATS.get(dims, ()):
            raise InvalidArgumentError(
                f"unknown data_format {self.data_format!r} for {dims} spatial axes",
                choices=FORMATS.get(dims, ()),
            )
        if min(self.counts) < 1:
            raise InvalidArgumentError(f"the result needs windows, got {self.counts}")
        x.require_rank(dims + 2)
        if x.shape is None:
            return x
        for axis in spatial_axes(self.data_format):
            if x.shape[axis] == 0:
                raise ShapeError(f"axis {axis} has no elements", expected="at least one")
        return x.with_shape(self.counted(x.shape))

    def counted(self, shape: Sequence[Any]) -> tuple[Any, ...]:
        """The result's shape for an input of this one."""
        result = list(shape)
        for axis, count in zip(spatial_axes(self.data_format), self.counts, strict=True):
            result[axis] = count
        return tuple(result)

    def shares(self, x: Sequence[Any]) -> list[Share]:
        """Errors: Unsupported for an extent that is not known."""
        extents = [x[axis] for axis in spatial_axes(self.data_format)]
        if any(type(h) is not int for h in extents):
            raise Unsupported(
                f"adaptive pooling of unknown extents {show(tuple(extents))}",
                hint="give the placeholder its height and width",
            )
        return [Share(h, k) for h, k in zip(extents, self.counts, strict=True)]

    def windows(self, x: Any) -> Iterable[tuple[tuple[Any, ...], tuple[Any, ...]]]:
        """For references: (index of the windows in y, index of what they cover in x)."""
        shares = self.shares(np.shape(x))
        for window in np.ndindex(*self.counts):
            own: list[Any] = [slice(None)] * np.ndim(x)
            covered = list(own)
            for axis, share, o in zip(spatial_axes(self.data_format), shares, window, strict=True):
                own[axis], covered[axis] = o, slice(share.start(o), share.end(o))
            yield tuple(own), tuple(covered)

    def attributes_of(self) -> tuple[Any, ...]:
        return self.counts, self.data_format


#: shape of x, counts, format: windows that overlap, that are one element, and wholes
CASES: tuple[Any, ...] = (
    ((2, 7, 5, 3), (3, 2), "NHWC"),
    ((1, 4, 8, 17), (4, 5), "NHWC"),
    ((2, 3, 5, 6), (7, 4), "NCHW"),
    ((3, 11, 2), (4,), "NWC"),
    ((2, 3, 10), (1,), "NCW"),
    ((1, 4, 5, 3, 2), (3, 2, 2), "NDHWC"),
    ((1, 24, 23, 2), (2, 2), "NHWC"),
    ((0, 4, 5, 2), (3, 2), "NHWC"),
)


@dataclass(frozen=True)
class AdaptiveAvgPool(AdaptiveOp):
    """y[n, o, c] = mean of x[n, h, c] over the positions h of window o of ``counts``.

    x: float[n, h.., c], h known    y: float[n, counts.., c]
    Gradient: AdaptiveAvgPoolGrad
    Errors: ShapeError, DTypeError, InvalidArgumentError, Unsupported
    Source: torch AdaptiveAvgPool
    """

    def infer(self, x: TensorType) -> TensorType:
        return self.output_type(x.require_float())

    def reference(self, x: Any) -> Any:
        y = np.zeros(self.counted(x.shape), x.dtype)
        for window, covered in self.windows(x):
            y[window] = x[covered].mean(spatial_axes(self.data_format))
        return y

    def compute(self, x: te.Tensor) -> te.Tensor:
        shares, places = self.shares(x.shape), spatial_axes(self.data_format)

        def element(*axes: Any) -> Any:
            taps = [te.reduce_axis(share.most, f"t{d}") for d, share in enumerate(shares)]
            at, fits, count = list(axes), [], te.index(1)
            for axis, share, tap in zip(places, shares, taps, strict=True):
                start, end = share.start(axes[axis]), share.end(axes[axis])
                at[axis] = start + tap
                fits.append(at[axis] < end)
                count = count * (end - start)
            part = x[tuple(at)] / te.cast(count, x.dtype)
            return te.sum(te.select(inside_all(fits), part, te.const(0, x.dtype)), taps)

        return te.compute(self.counted(x.shape), element, "adaptive_avg_pool")

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (emit(AdaptiveAvgPoolGrad(*self.attributes_of()), dy, x),)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, *own in CASES:
            x = ranged(rng, shape, "float", -2, 2)
            yield Sample((x,), AdaptiveAvgPool(*own), ulp=16.0, scale=2.0)

    def bad_samples(self) -> Iterable[Any]:
        yield from _bad_inputs(type(self))
        yield (np.zeros((2, 5, 4, 3), np.int32),), DTypeError


def _bad_inputs(kind: Any) -> Iterable[Any]:
    x = np.zeros((2, 5, 4, 3), np.float32)
    yield (x[0],), ShapeError
    yield (x[:, :0],), ShapeError
    yield Sample((x,), kind((2, 0))), InvalidArgumentError
    yield Sample((x,), kind((2, 2), "NCHWC")), InvalidArgumentError


@dataclass(frozen=True)
class AdaptiveAvgPoolGrad(AdaptiveOp):
    """dx[n, h, c] = sum over the windows o that hold h of dy[n, o, c] / elements of window o.

    dy: float[n, counts.., c]   like: what was pooled, only its shape matters    dx: type of like
    Gradient: AdaptiveAvgPool      Errors: ShapeError, DTypeError
    """

    def infer(self, dy: TensorType, like: TensorType) -> TensorType:
        require_same_dtype(dy, like)
        check_windows(self.output_type(like.require_float()), dy, "dy")
        return like

    def reference(self, dy: Any, like: Any) -> Any:
        dx = np.zeros(np.shape(like), dy.dtype)
        places = spatial_axes(self.data_format)
        for window, covered in self.windows(like):
            count = np.prod([np.shape(dx[covered])[axis] for axis in places])
            dx[covered] += np.expand_dims(dy[window] / dy.dtype.type(count), places)
        return dx

    def compute(self, dy: te.Tensor, like: te.Tensor) -> te.Tensor:
        shares, places = self.shares(like.shape), spatial_axes(self.data_format)

        def element(*axes: Any) -> Any:
            total: Any = None
            for steps in itertools.product(*(range(share.most_windows) for share in shares)):
                at, fits, count = list(axes), [], te.index(1)
                for axis, share, step in zip(places, shares, steps, strict=True):
                    window = share.first(axes[axis]) + step
                    at[axis] = window
                    if step:
                        fits.append(window <= share.last(axes[axis]))
                    count = count * (share.end(window) - share.start(window))
                part = dy[tuple(at)] / te.cast(count, dy.dtype)
                part = te.select(inside_all(fits), part, te.const(0, dy.dtype))
                total = part if total is None else total + part
            return total

        return te.compute(like.shape, element, "adaptive_avg_pool_grad")

    def vjp(self, dz: Value, z: Value, dy: Value, like: Value) -> tuple[Any, ...]:
        return emit(AdaptiveAvgPool(*self.attributes_of()), dz), None

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, *own in CASES:
            op = AdaptiveAvgPoolGrad(*own)
            dy = ranged(rng, op.counted(shape), "float", -1, 1)
            yield Sample((dy, np.zeros(shape, np.float32)), op, ulp=16.0, scale=2.0)

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 4, 6, 3), np.float32)
        yield (x, x), ShapeError
        yield (x[:, :1, :1].astype(np.float64), x), DTypeError


@dataclass(frozen=True)
class AdaptivePositions(AdaptiveOp):
    """position[n, o, c] = where the first largest element of window o of ``counts`` lies, counted
    as in PoolPositions.

    x: number[n, h.., c], h known     position: ``dtype``[n, counts.., c]; NaN counts as the largest
    Errors: ShapeError, DTypeError, InvalidArgumentError; Unsupported above MOST_TAPS elements
    """

    within: str = "plane"
    dtype: DType = int64
    same_dtype = False
    not_differentiable = "the result is a position"

    def infer(self, x: TensorType) -> TensorType:
        check_positions(self.within, self.dtype)
        return self.output_type(x.require_number()).with_dtype(self.dtype)

    def reference(self, x: Any) -> Any:
        shares, places = self.shares(np.shape(x)), spatial_axes(self.data_format)
        y: Any = np.zeros(self.counted(x.shape), self.dtype.numpy)
        for index in np.ndindex(*y.shape):
            own: list[Any] = [(i,) for i in index]
            for axis, share in zip(places, shares, strict=True):
                own[axis] = range(share.start(index[axis]), share.end(index[axis]))
            best: Any = where_largest(x, itertools.product(*own))
            y[index] = flat_position(best, x.shape, self.within, self.data_format)
        return y

    def compute(self, x: te.Tensor) -> te.Tensor:
        shares, places = self.shares(x.shape), spatial_axes(self.data_format)
        most = [share.most for share in shares]
        if np.prod(most) > MOST_TAPS:
            raise Unsupported(
                f"adaptive max pooling with windows of {show(tuple(most))} elements",
                expected=f"at most {MOST_TAPS} elements, or extents that the counts divide",
            )

        def element(*axes: Any) -> Any:
            starts = [share.start(axes[a]) for a, share in zip(places, shares, strict=True)]
            ends = [share.end(axes[a]) for a, share in zip(places, shares, strict=True)]
            here, at = [], list(axes)
            for tap in itertools.product(*map(range, most)):
                fits = []
                for d, axis in enumerate(places):
                    at[axis] = starts[d] + tap[d]
                    if tap[d]:
                        fits.append(at[axis] < ends[d])
                here.append((inside_all(fits), x[tuple(at)]))
            rest = te.cast(first_largest(here, x.dtype), int64)
            for d in reversed(range(len(places))):
                at[places[d]] = starts[d] + rest % most[d]
                rest = rest // most[d]
            position = flat_position(at, x.shape, self.within, self.data_format)
            return te.cast(position, self.dtype)

        return te.compute(self.counted(x.shape), element, "adaptive_positions")

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for number, (shape, *own) in enumerate(CASES[:6]):
            within = ("plane", "image", "batch")[number % 3]
            x = rng.integers(-2, 3, shape).astype(np.float32)
            whole = (*own, within, (int64, int32)[number % 2])
            yield Sample((x,), AdaptivePositions(*whole))
        yield Sample((rng.integers(-9, 9, (2, 7, 5, 3)).astype(np.int32),),
                     AdaptivePositions((3, 2)))  # fmt: skip
        yield Sample((some_nan(rng, (2, 5, 5, 3)),), AdaptivePositions((2, 3)))

    def bad_samples(self) -> Iterable[Any]:
        yield from _bad_inputs(type(self))
        yield Sample((np.zeros((2, 5, 4, 3), np.float32),),
                     AdaptivePositions(within="row")), InvalidArgumentError  # fmt: skip


def adaptive_avg_pool(
    x: Any, counts: Any = (1, 1), data_format: str = "NHWC", name: str | None = "AdaptiveAvgPool"
) -> Any:
    """The mean of every one of ``counts`` windows. See AdaptiveAvgPool."""
    counts = tuple(counts)
    size = _equal_windows(x, counts, data_format)
    if size is not None:
        ones = (1,) * len(counts)
        return avg_pool(x, size, size, "VALID", ones, data_format, name=name)
    return emit(AdaptiveAvgPool(counts, data_format), x, name=name)


def adaptive_max_pool(
    x: Value, counts: Any = (1, 1), data_format: str = "NHWC", within: str = "plane",
    dtype: Any = int64, name: str | None = "AdaptiveMaxPool",
) -> tuple[Any, Any]:  # fmt: skip
    """The largest element of every one of ``counts`` windows, and where it lies.

    x: number[n, h.., c], h known    Gradient: dy goes to the first largest element of its window
    Errors: those of AdaptivePositions. See there for ``within``.
    """
    counts = tuple(counts)
    size = _equal_windows(x, counts, data_format)
    if size is not None:
        own = size, size, "VALID", (1,) * len(counts), data_format
        return max_pool(x, *own, name=name), max_positions(x, *own, within=within, dtype=dtype)
    position = emit(AdaptivePositions(counts, data_format, within, dtype), x)
    flat = position
    if within != "batch":
        flat = emit(AdaptivePositions(counts, data_format, "batch", int64), x)
    return gather(reshape(x, (-1,)), flat, name=name), position


def _equal_windows(x: Value, counts: tuple[int, ...], data_format: str) -> tuple[int, ...] | None:
    """The size of the windows if all of them have one, side by side."""
    shape = x.type.shape
    if shape is None or len(shape) != len(data_format) or data_format not in FORMATS.get(
        len(counts), ()
    ):
        return None
    extents: list[Any] = [shape[axis] for axis in spatial_axes(data_format)]
    for h, k in zip(extents, counts, strict=True):
        if type(h) is not int or k < 1 or h < k or h % k:
            return None
    return tuple(h // k for h, k in zip(extents, counts, strict=True))
