"""What pooling ops share: where windows lie, and the two ways to walk them.

Main types: ``PoolOp`` (abstract op), ``Line`` (one spatial axis). May import ops.base,
ops.movement, ops.padding, ops.windows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple

import numpy as np

from tinyflow import te
from tinyflow.core.error import DTypeError, InvalidArgumentError, ShapeError
from tinyflow.ops.base import Op, Sample, TensorType
from tinyflow.ops.movement import prefer_int
from tinyflow.ops.padding import inside_all
from tinyflow.ops.windows import (
    before,
    check_attributes,
    covered,
    from_last,
    output_extent,
    pad_pair,
    padding_of,
    spatial_axes,
    to_last,
)

#: windows of more elements are walked by a loop instead of written out
WRITTEN_OUT = 64


class Line(NamedTuple):
    """One spatial axis: extent of x, number of windows, and what slides; ``after``: the padding
    behind it, None where it is not known."""

    extent: Any
    count: Any
    size: int
    stride: int
    dilation: int
    before: Any
    after: int | None = 0
    ceil: bool = False

    @property
    def is_padded(self) -> bool:
        """Whether a window may reach outside, as far as is known."""
        reach = (self.size - 1) * self.dilation
        if type(self.extent) is not int or type(self.count) is not int:
            starts_inside = type(self.before) is int and self.before == 0
            return not (starts_inside and self.after == 0 and not self.ceil)
        return bool(self.before) or (self.count - 1) * self.stride + reach >= self.extent

    def position(self, window: Any, tap: Any) -> Any:
        """Where ``tap`` of ``window`` falls; outside [0, extent) in the padding."""
        return window * self.stride + tap * self.dilation - self.before

    def inside(self, at: Any) -> list[Any]:
        if not self.is_padded:
            return []
        return [te.index(0) <= at, at < self.extent]

    def windows_on(self, at: Any) -> list[tuple[list[Any], Any, Any]]:
        """The windows that position ``at`` lies in: (conditions, window, tap) each."""
        moved = at + self.before
        if self.dilation > 1:
            found = []
            for tap in range(self.size):
                start = moved - tap * self.dilation
                window = start // self.stride
                fits = [te.index(0) <= start, window < self.count]
                if self.stride > 1:
                    fits.append((start % self.stride).equal(0))
                found.append((fits, window, te.index(tap)))
            return found
        whole = moved // self.stride if self.stride > 1 else moved
        rest = moved % self.stride if self.stride > 1 else te.index(0)
        return [self._nth(whole, rest, n) for n in range(-(-self.size // self.stride))]

    def _nth(self, whole: Any, rest: Any, n: int) -> tuple[list[Any], Any, Any]:
        """The n-th window back from the last one that begins at or before the position."""
        window, tap = whole - n, rest + n * self.stride
        fits = []
        if (n + 1) * self.stride > self.size:
            fits.append(tap < self.size)
        if n:
            fits.append(te.index(0) <= window)
        ends = type(self.extent) is int and type(self.count) is int and type(self.before) is int
        if not ends or (self.extent - 1 + self.before) // self.stride - n >= self.count:
            fits.append(window < self.count)
        return fits, window, tap


@dataclass(frozen=True)
class PoolOp(Op, abstract=True):
    """What pooling ops share: size, strides and dilations of the window per spatial axis, padding
    "SAME", "VALID" or ((before, after), ..), data_format; ceil: a last window may reach beyond the
    padding, if it begins before."""

    size: tuple[int, ...] = (2, 2)
    strides: tuple[int, ...] = (2, 2)
    padding: Any = "VALID"
    dilations: tuple[int, ...] = (1, 1)
    data_format: str = "NHWC"
    ceil: bool = False
    #: whether the op with channels last gives the same numbers, transposed
    turns: ClassVar[bool] = True

    @property
    def taps(self) -> list[tuple[int, ...]]:
        """The places in the window, in the order in which ties are decided."""
        return list(itertools.product(*map(range, self.size)))

    def output_type(self, x: TensorType) -> TensorType:
        check_attributes(self.strides, self.padding, self.dilations, self.data_format)
        if len(self.size) != len(self.strides) or min(self.size) < 1:
            raise InvalidArgumentError(
                f"the window must be {len(self.strides)} numbers >= 1, got {self.size}"
            )
        x.require_rank(len(self.size) + 2)
        if x.shape is None:
            return x
        shape = list(x.shape)
        for d, axis in enumerate(spatial_axes(self.data_format)):
            shape[axis] = output_extent(
                shape[axis], self.size[d], self.strides[d], self.dilations[d],
                padding_of(self.padding, d), self.ceil,
            )  # fmt: skip
        return x.with_shape(tuple(shape))

    def lines(self, x: Sequence[Any]) -> list[Line]:
        """The spatial axes of an input of te shape ``x``."""
        found = []
        for d, axis in enumerate(spatial_axes(self.data_format)):
            own = self.size[d], self.strides[d], self.dilations[d]
            pad = padding_of(self.padding, d)
            count = prefer_int(output_extent(x[axis], *own, pad, self.ceil))
            after = None if pad == "SAME" else pad[1]
            found.append(
                Line(x[axis], count, *own, before(x[axis], *own, pad), after, self.ceil)
            )
        return found

    def windowed(self, x: te.Tensor, element: Any, name: str) -> te.Tensor:
        """``element(axes, read)`` per window; read(tap) is (is it inside, element of x)."""
        lines, places = self.lines(x.shape), spatial_axes(self.data_format)
        shape = list(x.shape)
        for axis, line in zip(places, lines, strict=True):
            shape[axis] = line.count

        def at(*axes: Any) -> Any:
            def read(tap: Sequence[Any]) -> tuple[Any, Any]:
                index, fits = list(axes), []
                for axis, line, t in zip(places, lines, tap, strict=True):
                    index[axis] = line.position(axes[axis], t)
                    fits += line.inside(index[axis])
                return inside_all(fits), x[tuple(index)]

            return element(axes, read)

        return te.compute(shape, at, name)

    def gathered(self, dy: te.Tensor, like: te.Tensor, element: Any, name: str) -> te.Tensor:
        """Sum over the windows that hold a position of ``element(index of the window, tap)``."""
        lines, places = self.lines(like.shape), spatial_axes(self.data_format)

        def at(*axes: Any) -> Any:
            total: Any = None
            own = [line.windows_on(axes[axis]) for axis, line in zip(places, lines, strict=True)]
            for chosen in itertools.product(*own):
                index, fits = list(axes), []
                for axis, (conditions, window, _) in zip(places, chosen, strict=True):
                    index[axis] = window
                    fits += conditions
                tap = te.index(0)
                for (_, _, t), size in zip(chosen, self.size, strict=True):
                    tap = tap * size + t
                part = element(tuple(index), tap)
                part = te.select(inside_all(fits), part, te.const(0, dy.dtype))
                total = part if total is None else total + part
            return total

        return te.compute(like.shape, at, name)

    def arrays(self, x: Any, fill: Any) -> tuple[Any, list[int]]:
        """For references: x padded, and the number of windows per axis; channels last."""
        own = self.pads(x)
        x = to_last(x, self.data_format)
        sliding = list(zip(x.shape[1:-1], self.size, self.strides, self.dilations, strict=True))
        counts = [
            output_extent(*line, padding_of(self.padding, axis), self.ceil)
            for axis, line in enumerate(sliding)
        ]
        pads = [_covering(pair, count, *line)
                for pair, count, line in zip(own, counts, sliding, strict=True)]  # fmt: skip
        return np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=fill), counts

    def pads(self, like: Any) -> list[tuple[int, int]]:
        """For references: the padding before and after each spatial axis."""
        extents = to_last(like, self.data_format).shape[1:-1]
        return [
            pad_pair(h, k, s, r, padding_of(self.padding, axis))
            for axis, (h, k, s, r) in enumerate(
                zip(extents, self.size, self.strides, self.dilations, strict=True)
            )
        ]

    def seen(self, x: Any, sizes: Any, tap: tuple[int, ...]) -> Any:
        return x[covered(tap, sizes, self.strides, self.dilations)]

    def middle(self, padded: Any, like: Any) -> Any:
        """The padded array without its padding, in the op's format."""
        shape = to_last(like, self.data_format).shape
        index: list[Any] = [slice(None)]
        for (b, _), extent in zip(self.pads(like), shape[1:-1], strict=True):
            index.append(slice(b, b + extent))
        return from_last(padded[tuple(index)], self.data_format)

    def attributes_of(self) -> tuple[Any, ...]:
        """The six attributes that all pooling ops share."""
        return tuple(getattr(self, f.name) for f in fields(PoolOp))

    def over_same_windows(self, kind: Any, *rest: Any) -> Any:
        """An op of the class ``kind`` with these windows and its own further attributes."""
        return kind(*self.attributes_of(), *rest)

    def bad_types(self) -> Iterable[Any]:
        """(sample, error) of one input."""
        x = np.zeros((2, 5, 4, 3), np.float32)
        yield Sample((x[0],), type(self)()), ShapeError
        yield Sample((x[:, :1],), type(self)()), ShapeError
        yield Sample((x,), type(self)(padding="FULL")), InvalidArgumentError
        yield Sample((x,), type(self)((2,))), InvalidArgumentError
        yield Sample((x > 0,), type(self)()), DTypeError


def _covering(
    pads: tuple[int, int], count: int, extent: int, size: int, stride: int, dilation: int
) -> tuple[int, int]:
    """The padding, extended to where the last of ``count`` windows ends."""
    end = (count - 1) * stride + (size - 1) * dilation + 1
    return pads[0], max(pads[1], end - pads[0] - extent)
