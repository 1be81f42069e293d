"""The gradients of a convolution, each of which is a convolution again.

Main types: ``ConvInputGrad`` (also the transposed convolution), ``ConvFilterGrad``. May import
ops.base, windows, convolution, conv_products, elementwise, movement, reduction.
Shapes as in ops.convolution.
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
    ShapeError,
    Unsupported,
)
from tinyflow.core.shape import show, size_of
from tinyflow.ops.base import Sample, TensorType, Value, emit, require_same_dtype
from tinyflow.ops.conv_products import ConvProduct, FilterProduct, Interleave, batch_parts
from tinyflow.ops.convolution import CASES, Conv, ConvOp, merge_groups, split_groups, uniform
from tinyflow.ops.elementwise import add
from tinyflow.ops.movement import reshape, transpose
from tinyflow.ops.reduction import reduce_sum
from tinyflow.ops.windows import (
    assemble,
    channel_axis,
    covered,
    from_last,
    require_shape,
    spatial_axes,
    to_last,
)


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
            split_groups(part, groups) for part in (padded, to_last(dy, self.data_format), w)
        )
        for tap in np.ndindex(*w.shape[:-3]):
            at = covered(tap, sizes, self.strides, self.dilations)
            dx[at] += np.einsum("...go,cgo->...gc", dy, w[tap])
        dx = dx.reshape(padded.shape)
        extents = to_last(like, self.data_format).shape
        own = self.with_channels_last().pads(extents, np.shape(w))
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
            results.append(merge_groups(emit(product, source, swapped), partial))
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
            arrays = uniform(rng, y), uniform(rng, w), np.zeros(x, np.float32)  # type: ignore[arg-type]
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
        x, dy = split_groups(x, groups), split_groups(to_last(dy, self.data_format), groups)
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
        windows = size_of([dy.type.shape[a] for a in spatial_axes(self.data_format)])  # type: ignore[index]
        for parts, images in batch_parts(x.type.shape[0], windows, like.type.size):  # type: ignore[index]
            product = FilterProduct(
                self.strides, self.dilations, self.data_format, groups, shape[:-2], parts, images
            )
            dw = emit(product, padded, dy)
            sums.append(dw if parts == 1 else reduce_sum(dw, 0))
        return merge_groups(functools.reduce(add, sums), like.type)

    def vjp(self, dz: Value, z: Value, x: Value, dy: Value, like: Value) -> tuple[Any, ...]:
        own = self.strides, self.padding, self.dilations, self.data_format
        return emit(ConvInputGrad(*own), dy, dz, x), emit(Conv(*own), x, dz), None

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for x, w, own in (*CASES, *LOOSE):
            y: Any = Conv(*own).infer(*_types(x, w)).shape
            arrays = uniform(rng, x), uniform(rng, y), np.zeros(w, np.float32)
            yield Sample(arrays, ConvFilterGrad(*own), ulp=8.0, scale=float(max(1, np.prod(y))))

    def bad_samples(self) -> Iterable[Any]:
        x, w = np.zeros((2, 5, 4, 3), np.float32), np.zeros((3, 2, 3, 6), np.float32)
        yield (x, np.zeros((2, 3, 3, 5), np.float32), w), ShapeError
        yield (x, x, w), ShapeError
        yield (x, np.zeros((2, 3, 3, 6), np.float64), w), DTypeError


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
