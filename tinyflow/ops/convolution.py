"""Convolutions of one to three spatial axes and their gradients.

Main types: ``Conv``, ``ConvInputGrad``, ``ConvFilterGrad``, each the gradient of the others.
May import ops.base, windows, conv_products, elementwise, movement, padding, reduction.
Shapes: x: [n, h.., c], filter: [k.., c / groups, co], y: [n, o.., co]; channels second for NCHW.
The three pad with zeros and then are plain contractions (ops.conv_products).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd
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
from tinyflow.ops.conv_products import ConvProduct, FilterProduct, Interleave, batch_parts
from tinyflow.ops.elementwise import add
from tinyflow.ops.movement import reshape, transpose
from tinyflow.ops.padding import Pad
from tinyflow.ops.reduction import reduce_sum
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
    require_shape,
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

    def _arrays(self, x: Any, taps: Any) -> tuple[Any, Any]:
        """For references: x padded, and the number of windows per axis; channels last."""
        x = to_last(x, self.data_format)
        pads = _named(self, FORMATS[len(self.strides)][0]).pads(x.shape, taps)
        sizes = [
            output_extent(x.shape[d + 1], taps[d], s, r, padding_of(self.padding, d))
            for d, (s, r) in enumerate(zip(self.strides, self.dilations, strict=True))
        ]
        return np.pad(x, ((0, 0), *pads, (0, 0))), sizes


def _grouped(array: Any, groups: int) -> Any:
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
        x, w = _grouped(x, groups), _grouped(w, groups)
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
        return _merged(y, self.infer(x.type, w.type))

    def vjp(self, dy: Value, y: Value, x: Value, w: Value) -> tuple[Any, ...]:
        own = self.strides, self.padding, self.dilations, self.data_format
        return emit(ConvInputGrad(*own), dy, w, x), emit(ConvFilterGrad(*own), x, dy, w)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for x, w, own in CASES:
            arrays = _uniform(rng, x), _uniform(rng, w)
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


def _uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
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


def _merged(y: Value, type_: TensorType) -> Value:
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


@dataclass(frozen=True)
class ConvInputGrad(ConvOp):
    """dx[n, h, c] = sum over windows o and taps t that fall on h, and k, of dy[n, o, k] *
    filter[t, c, k]: the gradient of Conv for its input, and the transposed convolution.

    dy: float[n, o.., co]   filter: float[taps.., c / groups, co]
    like: the convolution's input, of which only the shape matters    dx: type of like
    Gradient: d(dy) = Conv, d(filter) = ConvFilterGrad     Errors: those of Conv
    """

    def infer(self, dy: TensorType, filter: TensorType, like: TensorType) -> TensorType:
        _check_output(self.output_type(like, filter), dy)
        return like

    def reference(self, dy: Any, w: Any, like: Any) -> Any:
        w = np.asarray(w)
        padded, sizes = self._arrays(np.zeros_like(like), w.shape[:-2])
        groups = padded.shape[-1] // w.shape[-2]
        dx, dy, w = (
            _grouped(part, groups) for part in (padded, to_last(dy, self.data_format), w)
        )
        for tap in np.ndindex(*w.shape[:-3]):
            at = covered(tap, sizes, self.strides, self.dilations)
            dx[at] += np.einsum("...go,cgo->...gc", dy, w[tap])
        dx = dx.reshape(padded.shape)
        extents = to_last(like, self.data_format).shape
        own = _named(self, FORMATS[len(self.strides)][0]).pads(extents, np.shape(w))
        middle = tuple(
            slice(b, b + d) for (b, _), d in zip(own, extents[1:-1], strict=True)
        )
        return from_last(dx[(slice(None), *middle)], self.data_format)

    def decompose(self, dy: Value, w: Value, like: Value) -> Value:
        # Positions h = stride*t + q of one residue q see every stride-th tap: a convolution of dy
        # with stride 1. Each residue is one; their results are interleaved.
        shape: Any = like.type.shape
        groups = self.groups(like.type, w.type)
        phases = [
            _phases(shape[a], w.type.shape[d], self.strides[d], self.dilations[d], pad)  # type: ignore[arg-type, index]
            for d, (a, pad) in enumerate(
                zip(spatial_axes(self.data_format), self.pads(shape, w.type.shape), strict=True)
            )
        ]
        counts = [
            shape[a] if s == 1 else -(-_known(shape[a]) // s)
            for a, s in zip(spatial_axes(self.data_format), self.strides, strict=True)
        ]
        pads, begins = self._reach(dy.type.shape, phases, counts)
        source, swapped = self.padded(dy, pads), _swapped(w, groups)
        results, present = [], []
        channels = shape[channel_axis(self.data_format)]
        partial = like.type.with_shape(assemble(self.data_format, shape[:1], counts, (channels,)))
        for residues in itertools.product(*phases):
            chosen = [p for p in residues if p is not None]
            present.append(len(chosen) == len(residues))
            if not present[-1]:
                continue
            product = ConvProduct(
                (1,) * len(counts), tuple(p.dilation for p in chosen), self.data_format, groups,
                tuple(p.low - b for p, b in zip(chosen, begins, strict=True)),
                tuple(counts) if all(type(c) is int for c in counts) else (),
                tuple((p.last, -p.step, p.count) for p in chosen),
            )  # fmt: skip
            results.append(_merged(emit(product, source, swapped), partial))
        if len(present) == 1:
            return results[0]
        sizes = tuple(shape[a] for a in spatial_axes(self.data_format))
        op = Interleave(self.strides, sizes, tuple(present), self.data_format)
        return emit(op, *results)  # type: ignore[no-any-return]

    def _reach(self, dy: Any, phases: Any, counts: list[Any]) -> tuple[list[Any], list[int]]:
        """Zeros around dy that all phases read, and the position that index 0 then stands for."""
        pads, begins = [], []
        for axis, own, count in zip(spatial_axes(self.data_format), phases, counts, strict=True):
            found = [p for p in own if p is not None]
            low = min(p.low for p in found)
            behind = max(
                _difference(p.low + (p.count - 1) * p.dilation + count, dy[axis]) for p in found
            )
            if type(count) is not int and (low > 0 or behind < 0):
                raise Unsupported("the gradient of padding beyond the filter, at unknown extents")
            pads.append((max(0, -low), max(0, behind)))
            begins.append(min(0, low))
        return pads, begins

    def vjp(self, dz: Value, z: Value, dy: Value, w: Value, like: Value) -> tuple[Any, ...]:
        own = self.strides, self.padding, self.dilations, self.data_format
        return emit(Conv(*own), dz, w), emit(ConvFilterGrad(*own), dz, dy, w), None

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for x, w, own in (*CASES, *LOOSE):
            y = Conv(*own).infer(*_types(x, w)).shape
            arrays = _uniform(rng, y), _uniform(rng, w), np.zeros(x, np.float32)  # type: ignore[arg-type]
            yield Sample(arrays, ConvInputGrad(*own), ulp=8.0, scale=float(np.prod(w)))

    def bad_samples(self) -> Iterable[Any]:
        x, w = np.zeros((2, 5, 4, 3), np.float32), np.zeros((3, 2, 3, 6), np.float32)
        yield (np.zeros((2, 3, 3, 5), np.float32), w, x), ShapeError
        yield (x, w, x), ShapeError
        yield (np.zeros((2, 3, 3, 6), np.float64), w, x), DTypeError


#: cases in which the last positions of x lie in no window
LOOSE: tuple[Any, ...] = (
    ((1, 9, 8, 2), (2, 2, 2, 3), ((3, 5), "VALID")),
    ((2, 2, 3, 1), (1, 1, 1, 2), ((4, 4), "SAME")),
    ((1, 10, 2), (3, 2, 2), ((4,), "VALID", (2,), "NWC")),
)


def _types(*shapes_: tuple[int, ...]) -> list[TensorType]:
    from tinyflow.core.dtype import float32

    return [TensorType(float32, s) for s in shapes_]


def _named(op: ConvOp, data_format: str) -> ConvOp:
    """The convolution with the op's attributes in another format."""
    return Conv(op.strides, op.padding, op.dilations, data_format)


def _known(extent: Any) -> int:
    if type(extent) is not int:
        raise Unsupported(
            f"the gradient of a strided convolution needs known extents, got {extent}",
            hint="give the placeholder its height and width",
        )
    return extent


def _difference(a: Any, b: Any) -> int:
    """a - b where it is a number although both may be unknown."""
    result = a - b
    if type(result) is not int:
        raise Unsupported(f"a convolution's gradient needs known extents, got {a} and {b}")
    return result


def _check_output(wanted: TensorType, dy: TensorType) -> None:
    """Errors: DTypeError, ShapeError when ``dy`` is no result of the convolution."""
    require_same_dtype(wanted, dy)
    require_shape(
        dy, wanted, f"{show(dy.shape)} is not the convolution's result", "a tensor of shape"
    )


@dataclass(frozen=True)
class _Phase:
    """The taps that fall on one residue: number ``last`` first, every ``step``-th one before it,
    ``count`` in all; position t sees dy[t + low + j * dilation] for j < count."""

    low: int
    dilation: int
    last: int
    step: int
    count: int


def _phases(
    extent: Any, taps: int, stride: int, dilation: int, pad: tuple[int, int]
) -> list[_Phase | None]:
    """One phase per residue mod stride; None where no tap or no position falls.

    Window o covers position o*stride + d*dilation - before with tap d, so position stride*t + q is
    covered by o = t + (q + before - d*dilation) / stride wherever that is whole.
    """
    found: list[_Phase | None] = []
    shared = gcd(stride, dilation)
    step, apart = stride // shared, dilation // shared
    for q in range(stride):
        own = [d for d in range(taps) if (q + pad[0] - d * dilation) % stride == 0]
        if not own or (type(extent) is int and q >= max(extent, 1)):
            found.append(None)
            continue
        low = (q + pad[0] - own[-1] * dilation) // stride
        found.append(_Phase(low, apart, own[-1], step, len(own)))
    return found


def _swapped(w: Value, groups: int) -> Value:
    """The filter with input and output channels of each group swapped: [taps.., co / groups, c].

    A node of its own, so that the product reads its last axis contiguously.
    """
    *taps, inner, outer = w.type.shape  # type: ignore[misc]
    rank = len(taps)
    if groups == 1:
        return transpose(w, (*range(rank), rank + 1, rank), name=None)  # type: ignore[no-any-return]
    outer = outer // groups
    if inner == 1 == outer:
        return w
    split = reshape(w, (*taps, inner, groups, outer))
    turned = transpose(split, (*range(rank), rank + 2, rank + 1, rank), name=None)
    return reshape(turned, (*taps, outer, groups * inner))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class ConvFilterGrad(ConvOp):
    """dw[t, c, k] = sum over n and windows o of x[n, o*stride + t*dilation - before, c] *
    dy[n, o, k]: the gradient of Conv for its filter.

    input: float[n, h.., c]   dy: float[n, o.., co]
    like: the filter, of which only the shape matters      dw: type of like
    Gradient: dx = ConvInputGrad, d(dy) = Conv     Errors: those of Conv
    """

    def infer(self, input: TensorType, dy: TensorType, like: TensorType) -> TensorType:
        _check_output(self.output_type(input, like), dy)
        return like

    def reference(self, x: Any, dy: Any, like: Any) -> Any:
        shape = np.shape(like)
        x, sizes = self._arrays(x, shape[:-2])
        groups = x.shape[-1] // shape[-2]
        x, dy = _grouped(x, groups), _grouped(to_last(dy, self.data_format), groups)
        dw = np.zeros((*shape[:-1], groups, shape[-1] // groups), x.dtype)
        axes = "abcd"[: x.ndim - 2]
        for tap in np.ndindex(*shape[:-2]):
            seen = x[covered(tap, sizes, self.strides, self.dilations)]
            dw[tap] = np.einsum(f"{axes}gx,{axes}go->xgo", seen, dy)
        return dw.reshape(shape)

    def decompose(self, x: Value, dy: Value, like: Value) -> Value:
        shape: Any = like.type.shape
        padded = self.padded(x, self.pads(x.type.shape, shape))
        groups, sums = self.groups(x.type, like.type), []
        for parts, images in batch_parts(x.type.shape[0]):  # type: ignore[index]
            product = FilterProduct(
                self.strides, self.dilations, self.data_format, groups, shape[:-2], parts, images
            )
            dw = emit(product, padded, dy)
            sums.append(dw if parts == 1 else reduce_sum(dw, 0))
        return _merged(functools.reduce(add, sums), like.type)

    def vjp(self, dz: Value, z: Value, x: Value, dy: Value, like: Value) -> tuple[Any, ...]:
        own = self.strides, self.padding, self.dilations, self.data_format
        return emit(ConvInputGrad(*own), dy, dz, x), emit(Conv(*own), x, dz), None

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for x, w, own in (*CASES, *LOOSE):
            y: Any = Conv(*own).infer(*_types(x, w)).shape
            arrays = _uniform(rng, x), _uniform(rng, y), np.zeros(w, np.float32)
            yield Sample(arrays, ConvFilterGrad(*own), ulp=8.0, scale=float(max(1, np.prod(y))))

    def bad_samples(self) -> Iterable[Any]:
        x, w = np.zeros((2, 5, 4, 3), np.float32), np.zeros((3, 2, 3, 6), np.float32)
        yield (x, np.zeros((2, 3, 3, 5), np.float32), w), ShapeError
        yield (x, x, w), ShapeError
        yield (x, np.zeros((2, 3, 3, 6), np.float64), w), DTypeError


def conv(
    input: Any, filter: Any, strides: Any = (1, 1), padding: Any = "VALID",
    dilations: Any = (1, 1), data_format: str = "NHWC", name: str | None = "Conv2D",
) -> Any:  # fmt: skip
    """Convolution over one to three spatial axes. See Conv."""
    op = Conv(tuple(strides), padding, tuple(dilations), data_format)
    return emit(op, input, filter, name=name)


def conv_input_grad(
    dy: Any, filter: Any, like: Any, strides: Any = (1, 1), padding: Any = "VALID",
    dilations: Any = (1, 1), data_format: str = "NHWC", name: str | None = "Conv2DBackpropInput",
) -> Any:  # fmt: skip
    """Transposed convolution to the shape of ``like``. See ConvInputGrad."""
    op = ConvInputGrad(tuple(strides), padding, tuple(dilations), data_format)
    return emit(op, dy, filter, like, name=name)


def conv_filter_grad(
    input: Any, dy: Any, like: Any, strides: Any = (1, 1), padding: Any = "VALID",
    dilations: Any = (1, 1), data_format: str = "NHWC", name: str | None = "Conv2DBackpropFilter",
) -> Any:  # fmt: skip
    """A convolution's filter gradient, of the shape of ``like``. See ConvFilterGrad."""
    op = ConvFilterGrad(tuple(strides), padding, tuple(dilations), data_format)
    return emit(op, input, dy, like, name=name)
