"""Where the largest element of every window lies, and putting elements back there.

Main types: ``PoolPositions``; functions ``max_positions``, ``max_unpool``.
May import ops.base, pooling, pool_windows, window_largest, creation, indexing, movement, sequence.
Shapes as in ops.pooling: x: [n, h.., c], y: [n, o.., c]; channels second for NCHW.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow import te
from tinyflow.core.dtype import DType, as_dtype, float32, int32, int64
from tinyflow.core.error import (
    DTypeError,
    InvalidArgumentError,
    ShapeError,
    Unsupported,
)
from tinyflow.core.shape import show
from tinyflow.ops.base import Sample, TensorType, Value, emit
from tinyflow.ops.convert import cast
from tinyflow.ops.creation import constant, zeros
from tinyflow.ops.elementwise import add, multiply
from tinyflow.ops.indexing import TensorScatter
from tinyflow.ops.movement import reshape
from tinyflow.ops.pool_windows import PoolOp
from tinyflow.ops.pooling import CASES, MaxPool
from tinyflow.ops.sequence import arange
from tinyflow.ops.shape import shape as shape_of
from tinyflow.ops.shape import symbolic_value
from tinyflow.ops.window_largest import MOST_TAPS, first_largest, some_nan, where_largest
from tinyflow.ops.windows import channel_axis, channels_first, spatial_axes

#: what a position counts: the elements of one channel's plane (torch), of one image (TensorFlow),
#: or of the whole array (TensorFlow's include_batch_in_index, ONNX)
WITHIN = ("plane", "image", "batch")


def flat_position(at: Sequence[Any], shape: Sequence[Any], within: str, data_format: str) -> Any:
    """The number of the element at ``at``: row by row over the axes that count."""
    channel = channel_axis(data_format)
    skipped = {"plane": (0, channel), "image": (0,), "batch": ()}[within]
    flat: Any = 0
    for axis, extent in enumerate(shape):
        if axis not in skipped:
            flat = flat * extent + at[axis]
    return flat


def check_positions(within: str, dtype: DType) -> None:
    """Errors: InvalidArgumentError, DTypeError for attributes that mean nothing."""
    if within not in WITHIN:
        raise InvalidArgumentError(f"unknown within {within!r}", choices=WITHIN)
    if dtype not in (int32, int64):
        raise DTypeError(f"positions are {dtype}", expected="tf.int32 or tf.int64")


@dataclass(frozen=True)
class PoolPositions(PoolOp):
    """position[n, o, c] = where the first largest element of window o lies, counted row by row in
    the array as its format stores it.

    x: number[n, h.., c]   position: ``output_type``[n, o.., c]
    within: "plane" counts h * width + w; "image" the elements before it in its image, for channels
    last (h * width + w) * channels + c; "batch" those before it in the whole array.
    NaN counts as the largest; 0 in its plane where a window lies wholly in the padding.
    Errors: ShapeError, DTypeError, InvalidArgumentError; Unsupported above MOST_TAPS taps
    """

    within: str = "image"
    dtype: DType = int64
    same_dtype = False
    turns = False
    not_differentiable = "the result is a position"

    def infer(self, x: TensorType) -> TensorType:
        check_positions(self.within, self.dtype)
        return self.output_type(x.require_number()).with_dtype(self.dtype)

    def reference(self, x: Any) -> Any:
        x = np.asarray(x)
        places = spatial_axes(self.data_format)
        shape: Any = self.output_type(TensorType(x.dtype, x.shape)).shape  # type: ignore[arg-type]
        y: Any = np.zeros(shape, np.int64)
        begins = [b for b, _ in self.pads(x)]
        for index in np.ndindex(*y.shape):
            best = where_largest(x, self._inside(index, x.shape, begins))
            if best is None:
                best = tuple([0 if a in places else i for a, i in enumerate(index)])
            y[index] = flat_position(best, x.shape, self.within, self.data_format)
        return y.astype(self.dtype.numpy)

    def _inside(
        self, index: tuple[int, ...], shape: tuple[int, ...], begins: Sequence[int]
    ) -> Iterator[tuple[int, ...]]:
        """For references: the places of x, inside of it, that window ``index`` covers."""
        places = spatial_axes(self.data_format)
        for tap in self.taps:
            at = list(index)
            for d, axis in enumerate(places):
                at[axis] = index[axis] * self.strides[d] + tap[d] * self.dilations[d] - begins[d]
            if all(0 <= at[axis] < shape[axis] for axis in places):
                yield tuple(at)

    def compute(self, x: te.Tensor) -> te.Tensor:
        if len(self.taps) > MOST_TAPS:
            raise Unsupported(
                f"the positions of maxima of {len(self.taps)} elements",
                expected=f"windows of at most {MOST_TAPS} elements",
                hint="argmax over the axes is the position in a whole image",
            )
        lines, places = self.lines(x.shape), spatial_axes(self.data_format)
        none = te.const(len(self.taps), int32)

        def element(axes: Any, read: Any) -> Any:
            number = first_largest([read(tap) for tap in self.taps], x.dtype)
            at = list(axes)
            rest = te.cast(number, int64)
            for d in reversed(range(len(places))):
                line = lines[d]
                own, rest = rest % line.size, rest // line.size
                at[places[d]] = te.select(
                    number < none, line.position(axes[places[d]], own), te.index(0)
                )
            return te.cast(flat_position(at, x.shape, self.within, self.data_format), self.dtype)

        return self.windowed(x, element, "pool_positions")

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for number, (shape, own) in enumerate(CASES):
            rest = WITHIN[number % 3], (int64, int32)[number % 2]
            op = MaxPool(*own).over_same_windows(PoolPositions, *rest)
            yield Sample((rng.integers(-2, 3, shape).astype(np.float32),), op)
        for within in WITHIN:
            x = rng.integers(-9, 9, (2, 3, 5, 4)).astype(np.int32)
            own = (3, 2), (2, 1), "SAME", (1, 1), "NCHW", False
            yield Sample((x,), PoolPositions(*own, within))
        x = some_nan(rng, (2, 4, 5, 3))
        yield Sample((x,), PoolPositions((3, 3), (2, 2), "SAME"))
        yield Sample((x,), PoolPositions((1, 2), (1, 1), ((2, 0), (0, 0))))

    def bad_samples(self) -> Iterable[Any]:
        yield from self.bad_types()
        x = np.zeros((2, 5, 4, 3), np.float32)
        yield Sample((x,), PoolPositions(within="row")), InvalidArgumentError
        yield Sample((x,), PoolPositions(dtype=float32)), DTypeError


def max_positions(
    x: Any, size: Any = (2, 2), strides: Any = (2, 2), padding: Any = "VALID",
    dilations: Any = (1, 1), data_format: str = "NHWC", ceil: bool = False,
    within: str = "image", dtype: Any = int64, name: str | None = None,
) -> Any:  # fmt: skip
    """Where the first largest element of every window lies. See PoolPositions."""
    op = PoolPositions(
        tuple(size), tuple(strides), padding, tuple(dilations), data_format, ceil, within,
        as_dtype(dtype),
    )  # fmt: skip
    return emit(op, x, name=name)


def max_unpool(
    values: Value, positions: Value, shape: Any, within: str = "image",
    data_format: str = "NHWC", name: str | None = None,
) -> Any:  # fmt: skip
    """Zeros of ``shape`` with ``values`` put at ``positions``, which count as in PoolPositions.

    values: number[n, o.., c]   positions: int[n, o.., c]   shape: n, h.., c in the format's order;
    all but n known. Where several values meet, the last one stays.
    Gradient: that of the element at its position, for every value that was put there
    Errors: ShapeError, DTypeError; InvalidArgumentError at run time for a position outside
    """
    check_positions(within, positions.dtype)
    extents = symbolic_value(shape) if isinstance(shape, Value) else tuple(shape)
    if extents is None or len(extents) != len(data_format) or not all(
        type(d) is int for d in extents[1:]
    ):
        raise ShapeError(
            f"max_unpool: the shape is {'unknown' if extents is None else show(extents)}",
            expected=f"{data_format} with known extents behind the first",
        )
    sizes = np.array(extents[1:], np.int64)
    image, channel = int(sizes.prod()), channel_axis(data_format)
    flat = cast(positions, int64)
    if within == "plane":
        channels = extents[channel]
        number = constant(np.arange(channels))
        if channels_first(data_format):
            column = reshape(number, (channels, *[1] * len(spatial_axes(data_format))))
            flat = add(multiply(column, image // max(channels, 1)), flat)
        else:
            flat = add(multiply(flat, channels), number)
    count: Any = extents[0]
    if within != "batch":
        images = shape_of(values)[0] if type(count) is not int else count
        first = multiply(cast(arange(images), int64), image)
        flat = add(reshape(first, (-1, *[1] * (len(extents) - 1))), flat)
    if type(count) is int:
        total: Any = count * image
    else:
        total = multiply(shape_of(values)[0], image)
    empty = zeros([total], values.dtype)
    put = emit(TensorScatter("update"), empty, reshape(flat, (-1,)), reshape(values, (-1,)))
    return reshape(put, (count if type(count) is int else -1, *extents[1:]), name=name)
