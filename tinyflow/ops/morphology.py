"""Grey-scale dilation and erosion: windows of an image under a structuring function.

Main types: ``Dilation2D``, ``DilationArgmax``; functions ``dilation2d``, ``erosion2d``.
May import ops.base, pooling, window_largest and the families of arithmetic.
Shapes: x: [n, h, w, c], filter: [taps, taps, c], y: [n, o, o, c].
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow import te
from tinyflow.core.dtype import int32
from tinyflow.core.error import DTypeError, InvalidArgumentError, ShapeError, Unsupported
from tinyflow.core.shape import show
from tinyflow.ops.base import Sample, TensorType, Value, emit, ranged, require_same_dtype
from tinyflow.ops.comparison import equal
from tinyflow.ops.creation import constant, zeros_like
from tinyflow.ops.elementwise import add, negative
from tinyflow.ops.like import reshape_like
from tinyflow.ops.logical import select
from tinyflow.ops.movement import expand_dims, reverse, transpose
from tinyflow.ops.pool_windows import PoolOp
from tinyflow.ops.pooling import PoolPut
from tinyflow.ops.reduction import reduce_sum
from tinyflow.ops.window_largest import MOST_TAPS, first_largest, is_larger, lowest, some_nan
from tinyflow.ops.windows import require_shape


@dataclass(frozen=True)
class DilationOp(PoolOp, abstract=True):
    """What the two share: ``size`` is that of the filter; channels last."""

    same_dtype = True

    def check(self, x: TensorType, filter: TensorType) -> TensorType:
        """Type of the result. Errors: ShapeError, DTypeError, Unsupported."""
        require_same_dtype(x, filter)
        result = self.output_type(x.require_number())
        if len(self.taps) > MOST_TAPS:
            raise Unsupported(
                f"dilation by {len(self.taps)} elements",
                expected=f"a structuring function of at most {MOST_TAPS} elements",
            )
        channels = None if x.shape is None else x.shape[-1:]
        wanted = (*self.size, *channels) if channels else None
        require_shape(
            filter, filter.with_shape(wanted), f"the filter has shape {show(filter.shape)}",
            "rows, columns and the channels of x:",
        )  # fmt: skip
        return result

    def candidates(self, x: te.Tensor, filter: te.Tensor, axes: Any, read: Any) -> list[Any]:
        """(is it inside, x + filter) for every tap of a window."""
        found = []
        for tap in self.taps:
            inside, here = read(tap)
            own = filter[(*(te.index(t) for t in tap), axes[-1])]
            found.append((inside, here + own))
        return found

    def best(self, x: Any, filter: Any) -> tuple[Any, Any]:
        """For references: the largest sum of each window, and the number of its tap."""
        x, filter = np.asarray(x), np.asarray(filter)
        padded, sizes = self.arrays(x, 0)
        inside, _ = self.arrays(np.ones_like(x), 0)
        y = np.full((len(x), *sizes, x.shape[-1]), lowest(TensorType(x.dtype, ()).dtype), x.dtype)  # type: ignore[arg-type]
        index = np.full(y.shape, len(self.taps), np.int32)
        for number, tap in enumerate(self.taps):
            own = self.seen(padded, sizes, tap) + filter[tap]
            fits = self.seen(inside, sizes, tap) != 0
            larger = fits & np.where(index == len(self.taps), True, np.frompyfunc(
                is_larger, 2, 1)(own, y).astype(bool))  # fmt: skip
            y, index = np.where(larger, own, y), np.where(larger, number, index)
        return y, index.astype(np.int32)


@dataclass(frozen=True)
class Dilation2D(DilationOp):
    """y[n, o, c] = largest x[n, o*stride + t*dilation - before, c] + filter[t, c] over the taps t
    that fall inside; NaN if there is one.

    x: number[n, h, w, c]   filter: number[taps, taps, c]   y: number[n, o, o, c]
    Gradient: dy goes to the first largest, in x and in filter
    Errors: ShapeError, DTypeError, InvalidArgumentError; Unsupported above MOST_TAPS taps
    Source: Serra, Image Analysis and Mathematical Morphology, 1982
    """

    def infer(self, input: TensorType, filter: TensorType) -> TensorType:
        return self.check(input, filter)

    def reference(self, x: Any, filter: Any) -> Any:
        return self.best(x, filter)[0]

    def compute(self, x: te.Tensor, filter: te.Tensor) -> te.Tensor:
        worst = te.const(lowest(x.dtype), x.dtype)

        def element(axes: Any, read: Any) -> Any:
            found = self.candidates(x, filter, axes, read)
            return functools.reduce(te.maximum, [te.select(fit, own, worst) for fit, own in found])

        return self.windowed(x, element, "dilation")

    def vjp(self, dy: Value, y: Value, x: Value, filter: Value) -> tuple[Any, ...]:
        own = self.attributes_of()
        index = emit(DilationArgmax(*own), x, filter)
        # One row per tap: the gradients of the windows that chose it, summed.
        numbers = constant(np.arange(len(self.taps), dtype=np.int32))
        hit = equal(expand_dims(index, -1), numbers)
        each = add(expand_dims(dy, -1), constant(np.zeros(len(self.taps)), dy.dtype))
        chosen = reduce_sum(select(hit, each, zeros_like(each)), tuple(range(len(self.size) + 1)))
        dfilter = reshape_like(transpose(chosen, (1, 0), name=None), filter)
        return emit(PoolPut(*own), dy, index, x), dfilter

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for x, own in CASES:
            filter = (*own[0], x[-1])
            values = rng.permutation(int(np.prod(x))).reshape(x) / max(1, np.prod(x)) * 4
            arrays = values.astype(np.float32), ranged(rng, filter, "float", -1, 1)
            yield Sample(arrays, Dilation2D(*own))
        x = rng.integers(-9, 9, (2, 5, 4, 3)).astype(np.int32)
        yield Sample((x, x[0, :2, :3]), Dilation2D((2, 3), (1, 1), "SAME"))

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 5, 4, 3), np.float32)
        yield (x, x[0, :2, :2, :1]), ShapeError
        yield (x, x[0, :3, :2]), ShapeError
        yield (x[0], x[0, :2, :2]), ShapeError
        yield (x, x[0, :2, :2].astype(np.float64)), DTypeError
        yield Sample((x, x[0, :2, :2]), Dilation2D(padding="FULL")), InvalidArgumentError


#: shape of x, attributes
CASES: tuple[Any, ...] = (
    ((2, 6, 5, 3), ((2, 3), (1, 1), "SAME")),
    ((2, 9, 8, 2), ((3, 2), (2, 1), "VALID", (2, 3))),
    ((1, 7, 6, 17), ((3, 3), (2, 2), "SAME", (1, 2))),
    ((1, 4, 3, 2), ((1, 1), (1, 2))),
    ((0, 4, 3, 2), ((2, 2), (1, 1), "SAME")),
)


@dataclass(frozen=True)
class DilationArgmax(DilationOp):
    """index[n, o, c] = which tap of window o attains the dilation first; rows before columns.

    x: number[n, h, w, c]   filter: number[taps, taps, c]   index: int32[n, o, o, c]; the number of
    taps where none falls inside. NaN counts as the largest
    Errors: those of Dilation2D
    """

    not_differentiable = "the result is an index"

    def infer(self, input: TensorType, filter: TensorType) -> TensorType:
        return self.check(input, filter).with_dtype(int32)

    def reference(self, x: Any, filter: Any) -> Any:
        return self.best(x, filter)[1]

    def compute(self, x: te.Tensor, filter: te.Tensor) -> te.Tensor:
        def element(axes: Any, read: Any) -> Any:
            return first_largest(self.candidates(x, filter, axes, read), x.dtype)

        return self.windowed(x, element, "dilation_argmax")

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for x, own in CASES:
            arrays = rng.integers(-2, 3, x), rng.integers(-2, 3, (*own[0], x[-1]))
            yield Sample(tuple(a.astype(np.float32) for a in arrays), DilationArgmax(*own))
        x = some_nan(rng, (1, 4, 5, 3), 1)
        yield Sample((x, np.zeros((2, 2, 3), np.float32)), DilationArgmax())

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 5, 4, 3), np.float32)
        yield (x, x[0, :3, :2]), ShapeError
        yield (x, x[0, :2, :2].astype(np.float64)), DTypeError


def dilation2d(
    x: Any, filter: Value, strides: Any = (1, 1), padding: Any = "VALID",
    dilations: Any = (1, 1), name: str | None = "Dilation2D",
) -> Any:  # fmt: skip
    """The largest x + filter of every window. See Dilation2D.

    Errors: Unsupported for a filter of unknown size
    """
    size: Any = None if filter.type.shape is None else filter.type.shape[:2]
    if size is None or not all(type(k) is int for k in size):
        raise Unsupported(f"dilation by a filter of unknown size {filter.type}",
                          hint="tell it with set_shape")  # fmt: skip
    return emit(Dilation2D(size, tuple(strides), padding, tuple(dilations)), x, filter, name=name)


def erosion2d(
    x: Any, filter: Value, strides: Any = (1, 1), padding: Any = "VALID",
    dilations: Any = (1, 1), name: str | None = "erosion2d",
) -> Any:  # fmt: skip
    """The smallest x - filter of every window, the filter turned around: the dual of dilation."""
    turned = reverse(filter, (0, 1))
    return negative(dilation2d(negative(x), turned, strides, padding, dilations), name=name)
