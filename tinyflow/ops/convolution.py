"""Convolutions of one to three spatial axes; conv_grads has their gradients.

Main types: ``Conv``, ``ConvOp`` (what the three share). May import ops.base, windows,
conv_products, movement, padding.
Shapes: x: [n, h.., c], filter: [k.., c / groups, co], y: [n, o.., co]; channels second for NCHW.
The three pad with zeros and then are plain contractions (ops.conv_products).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow.core.error import (
    DTypeError,
    InvalidArgumentError,
    ShapeError,
    Unsupported,
)
from tinyflow.core.shape import show
from tinyflow.ops.base import Op, Sample, TensorType, Value, emit, ranged, require_same_dtype
from tinyflow.ops.conv_products import ConvProduct
from tinyflow.ops.movement import reshape
from tinyflow.ops.padding import Pad
from tinyflow.ops.windows import (
    FORMATS,
    assemble,
    channel_axis,
    channels_first,
    check_attributes,
    covered,
    from_last,
    output_extent,
    pad_pair,
    padding_of,
    spatial_axes,
    to_last,
)


@dataclass(frozen=True)
class ConvOp(Op, abstract=True):
    """What the three share: strides and dilations per spatial axis, padding "SAME", "VALID" or
    ((before, after), ..) per spatial axis, data_format. The groups follow from the channels."""

    strides: tuple[int, ...] = (1, 1)
    padding: Any = "VALID"
    dilations: tuple[int, ...] = (1, 1)
    data_format: str = "NHWC"

    def output_type(self, input: TensorType, filter: TensorType) -> TensorType:
        """Type of the convolution. Errors: InvalidArgumentError, DTypeError, ShapeError."""
        check_attributes(self.strides, self.padding, self.dilations, self.data_format)
        require_same_dtype(input, filter)
        rank = len(self.strides) + 2
        for type_, what in ((input, "input"), (filter, "filter")):
            if type_.shape is not None and len(type_.shape) != rank:
                raise ShapeError(
                    f"the {what} has rank {len(type_.shape)}",
                    expected=f"rank {rank}: "
                    + (self.data_format if what == "input" else "[taps.., inputs, outputs]"),
                )
        input.require_number()
        if input.shape is None or filter.shape is None:
            return input.with_shape(None)
        channels = input.shape[channel_axis(self.data_format)]
        inner, outer = filter.shape[-2:]
        if type(channels) is int and type(inner) is int:
            self._check_channels(channels, inner, outer)
        places = []
        for d, axis in enumerate(spatial_axes(self.data_format)):
            places.append(
                output_extent(input.shape[axis], filter.shape[d],  # type: ignore[arg-type]
                              self.strides[d], self.dilations[d], padding_of(self.padding, d))
            )  # fmt: skip
        return input.with_shape(assemble(self.data_format, input.shape[:1], places, (outer,)))

    def _check_channels(self, channels: int, inner: int, outer: Any) -> None:
        axis = channel_axis(self.data_format)
        if inner < 1 or channels % inner:
            raise ShapeError(
                f"{channels} input channels, and a filter for {inner}",
                expected=f"input.shape[{axis}] == filter.shape[-2] (or a multiple of it: groups)",
                hint=f'channels come last in "{self.data_format}"'
                if not channels_first(self.data_format) else None,
            )  # fmt: skip
        if type(outer) is int and outer % (channels // inner):
            raise ShapeError(
                f"{outer} output channels do not divide into {channels // inner} groups",
                expected="filter.shape[-1] to be a multiple of input channels / filter.shape[-2]",
            )

    def groups(self, x: TensorType, w: TensorType) -> int:
        channels, inner = x.shape[channel_axis(self.data_format)], w.shape[-2]  # type: ignore[index]
        return channels // inner  # type: ignore[return-value, operator]

    def pads(self, x: Any, taps: Any) -> list[tuple[int, int]]:
        """Zeros before and after each spatial axis of an input of shape ``x``."""
        return [
            pad_pair(x[a], taps[d], self.strides[d], self.dilations[d], padding_of(self.padding, d))
            for d, a in enumerate(spatial_axes(self.data_format))
        ]

    def padded(self, x: Value, pads: list[tuple[int, int]]) -> Value:
        if not any(map(any, pads)):
            return x
        none = ((0, 0),)
        return emit(Pad(assemble(self.data_format, none, pads, none)), x)  # type: ignore[no-any-return]

    def with_channels_last(self) -> Conv:
        """The convolution with the op's attributes, its format aside."""
        return Conv(self.strides, self.padding, self.dilations, FORMATS[len(self.strides)][0])

    def _arrays(self, x: Any, taps: Any) -> tuple[Any, Any]:
        """For references: x padded, and the number of windows per axis; channels last."""
        x = to_last(x, self.data_format)
        pads = self.with_channels_last().pads(x.shape, taps)
        sizes = [
            output_extent(x.shape[d + 1], taps[d], s, r, padding_of(self.padding, d))
            for d, (s, r) in enumerate(zip(self.strides, self.dilations, strict=True))
        ]
        return np.pad(x, ((0, 0), *pads, (0, 0))), sizes


def split_groups(array: Any, groups: int) -> Any:
    """The last axis as (group, channel)."""
    return array.reshape(*array.shape[:-1], groups, array.shape[-1] // groups)


@dataclass(frozen=True)
class Conv(ConvOp):
    """y[n, o, k] = sum over taps t and channels c of x[n, o*stride + t*dilation - before, c] *
    filter[t, c, k], x zero outside.

    input: number[n, h.., c]  filter: number[taps.., c / groups, co]  y: number[n, o.., co]
    Integers wrap around; int8 and uint8 cast to int32 are read as they are (ONNX ConvInteger).
    Gradient: ConvInputGrad, ConvFilterGrad
    Errors: ShapeError for ranks or channels that do not fit, or windows larger than the input;
    DTypeError; InvalidArgumentError for unknown attributes
    Complexity: 2 * size of y * taps * c / groups operations
    Source: Goodfellow et al., Deep Learning, section 9.1
    """

    onnx = "Conv"

    def infer(self, input: TensorType, filter: TensorType) -> TensorType:
        return self.output_type(input, filter)

    def reference(self, x: Any, w: Any) -> Any:
        w = np.asarray(w)
        x, sizes = self._arrays(x, w.shape[:-2])
        groups = x.shape[-1] // w.shape[-2]
        x, w = split_groups(x, groups), split_groups(w, groups)
        y = np.zeros((x.shape[0], *sizes, groups, w.shape[-1]), x.dtype)
        for tap in np.ndindex(*w.shape[:-3]):
            seen = x[covered(tap, sizes, self.strides, self.dilations)]
            y += np.einsum("...gc,cgo->...go", seen, w[tap])
        return from_last(y.reshape(*y.shape[:-2], groups * w.shape[-1]), self.data_format)

    def decompose(self, x: Value, w: Value) -> Value:
        pads = self.pads(x.type.shape, w.type.shape)
        groups = self.groups(x.type, w.type)
        product = ConvProduct(self.strides, self.dilations, self.data_format, groups)
        y = emit(product, self.padded(x, pads), w)
        return merge_groups(y, self.infer(x.type, w.type))

    def vjp(self, dy: Value, y: Value, x: Value, w: Value) -> tuple[Any, ...]:
        from tinyflow.ops.conv_grads import ConvFilterGrad, ConvInputGrad

        own = self.strides, self.padding, self.dilations, self.data_format
        return emit(ConvInputGrad(*own), dy, w, x), emit(ConvFilterGrad(*own), x, dy, w)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for x, w, own in CASES:
            arrays = uniform(rng, x), uniform(rng, w)
            yield Sample(arrays, Conv(*own), ulp=8.0, scale=float(np.prod(w[:-1])))
        x, w = rng.integers(-99, 99, (2, 6, 5, 4)), rng.integers(-99, 99, (2, 3, 4, 3))
        yield Sample((x.astype(np.int32), w.astype(np.int32)), Conv((1, 2), "SAME"))

    def bad_samples(self) -> Iterable[Any]:
        x, w = np.zeros((2, 5, 4, 3), np.float32), np.zeros((3, 2, 3, 6), np.float32)
        yield (x, w[0]), ShapeError
        yield (x[0], w), ShapeError
        yield (x, w[:, :, :2]), ShapeError
        yield (np.zeros((2, 5, 4, 12), np.float32), w), ShapeError
        yield (x[:, :2], w), ShapeError
        yield (x, w.astype(np.float64)), DTypeError
        yield Sample((x, w), Conv(padding="FULL")), InvalidArgumentError
        yield Sample((x, w), Conv((1, 0))), InvalidArgumentError
        yield Sample((x, w), Conv(data_format="CHWN")), InvalidArgumentError


def uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return ranged(rng, shape, "float", -1.0, 1.0)


#: x, filter, attributes: odd sizes, strides above the taps, dilation, groups, every format
CASES: tuple[Any, ...] = (
    ((2, 7, 6, 3), (3, 2, 3, 4), ((2, 1), "SAME")),
    ((2, 5, 4, 1), (3, 3, 1, 17), ()),
    ((1, 8, 7, 16), (3, 2, 16, 1), ((3, 3), "SAME", (1, 1))),
    ((2, 9, 8, 2), (2, 3, 2, 3), ((1, 1), "SAME", (3, 2))),
    ((3, 2, 7, 9), (3, 2, 2, 4), ((2, 3), "VALID", (1, 1), "NCHW")),
    ((2, 6, 5, 4), (2, 3, 2, 6), ((1, 2), "SAME", (1, 1))),
    ((2, 4, 5, 6), (3, 2, 2, 4), ((1, 1), "SAME", (1, 1), "NCHW")),
    ((2, 5, 6, 3), (3, 2, 1, 6), ((2, 2), "SAME")),
    ((2, 5, 6, 3), (3, 3, 1, 3), ((1, 1), ((2, 0), (1, 3)))),
    ((1, 9, 11, 2), (2, 2, 2, 3), ((4, 3), "VALID", (2, 2))),
    ((4, 1, 1, 5), (1, 1, 5, 2), ()),
    ((0, 4, 4, 2), (3, 3, 2, 3), ((1, 1), "SAME")),
    ((2, 7, 5, 3), (1, 1, 3, 2), ((2, 2), "VALID")),
    ((3, 10, 4), (4, 4, 5), ((2,), "SAME", (1,), "NWC")),
    ((3, 4, 10), (4, 2, 6), ((1,), ((3, 4),), (2,), "NCW")),
    ((1, 4, 5, 6, 2), (2, 3, 2, 2, 3), ((1, 2, 1), "SAME", (1, 1, 1), "NDHWC")),
    ((2, 2, 3, 5, 4), (2, 2, 3, 2, 3), ((1, 1, 2), "VALID", (1, 1, 1), "NCDHW")),
)


def merge_groups(y: Value, type_: TensorType) -> Value:
    """``y`` in the shape of ``type_``: two channel axes become one."""
    if y.type.shape == type_.shape:
        return y
    assert type_.shape is not None
    unknown = [d for d in type_.shape if type(d) is not int]
    if len(unknown) > 1:
        raise Unsupported(
            f"a grouped convolution of unknown shape {show(type_.shape)}",
            expected="at most one unknown extent",
        )
    return reshape(y, tuple(d if type(d) is int else -1 for d in type_.shape))  # type: ignore[no-any-return]


def conv(
    input: Any, filter: Any, strides: Any = (1, 1), padding: Any = "VALID",
    dilations: Any = (1, 1), data_format: str = "NHWC", name: str | None = "Conv2D",
) -> Any:  # fmt: skip
    """Convolution over one to three spatial axes. See Conv."""
    op = Conv(tuple(strides), padding, tuple(dilations), data_format)
    return emit(op, input, filter, name=name)
