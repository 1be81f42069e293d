"""What convolutions are made of: products and sums in which every index is affine.

Main types: ``ConvProduct``, ``FilterProduct``, ``Interleave``. May import ops.base, movement and
ops.windows.
Shapes: x: [n, y, x, c] with one to three spatial axes, filter: [taps.., ci, co], channels of group
g: c = g*ci_count + ci, co = g*co_count + o. No padding and no condition here: the convolutions pad
their input first, so that each product is a plain contraction for the scheduler.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinyflow import te
from tinyflow.core.error import DTypeError, ShapeError
from tinyflow.core.shape import at_most, is_static
from tinyflow.ops.base import Op, Sample, TensorType, ranged, require_same_dtype
from tinyflow.ops.movement import prefer_int
from tinyflow.ops.windows import (
    FORMATS,
    assemble,
    channel_axis,
    covered,
    from_last,
    spatial_axes,
    to_last,
)

#: the parts a filter gradient's sum over the batch is cut into. Each is a filter to write and to
#: read again, so one of so many elements is summed in one, if images have no more windows than this
PARTS, LARGE_FILTER, SHORT_SUM = 8, 1 << 18, 1024
LOWERED = "made by decompose, after differentiation"


def group_axes(groups: int, inner: Any, outer: Any) -> tuple[Any, ...]:
    """The channel axes of a product's result: (g, outer), without axes of one element that a
    depthwise convolution has."""
    if groups == 1:
        return (outer,)
    return (groups,) if inner == 1 and outer == 1 else (groups, outer)


@dataclass(frozen=True)
class ConvProduct(Op):
    """y[n, o, g, k] = sum over taps t and channels c of x[n, begin + o*stride + t*dilation, g, c] *
    filter[first + t*step, c, g, k]; the taps are the outer sums, the channels the innermost.

    input: float[n, h.., c]  (NCHW: [n, c, h..])    filter: float[taps.., c / groups, co]
    y: float[n, sizes.., co]; with groups the last axis is two, (groups, co / groups), or one of
    ``groups`` when depthwise. begin: 0 by default; sizes: as many windows as fit by default;
    taps: (first, step, count) per axis, all in order by default.
    Errors: DTypeError, ShapeError for another rank
    Complexity: 2 * size of y * taps * c / groups operations
    """

    strides: tuple[int, ...] = (1, 1)
    dilations: tuple[int, ...] = (1, 1)
    data_format: str = "NHWC"
    groups: int = 1
    begin: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()
    taps: tuple[tuple[int, int, int], ...] = ()
    not_differentiable = LOWERED

    def infer(self, input: TensorType, filter: TensorType) -> TensorType:
        require_same_dtype(input, filter)
        input.require_number().require_rank(len(self.strides) + 2)
        filter.require_rank(len(self.strides) + 2)
        if input.shape is None or filter.shape is None or (
            self.groups > 1 and not is_static(filter.shape[-2:])
        ):
            return input.with_shape(None)
        return input.with_shape(self._shape(input.shape, filter.shape))

    def _taps(self, filter: Sequence[Any]) -> tuple[tuple[Any, Any, Any], ...]:
        return self.taps or tuple((0, 1, k) for k in filter[: len(self.strides)])

    def _begin(self) -> tuple[int, ...]:
        return self.begin or (0,) * len(self.strides)

    def _sizes(self, x: Sequence[Any], filter: Sequence[Any]) -> tuple[Any, ...]:
        return self.sizes or tuple(
            (x[axis] - (b + (count - 1) * r + 1)) // s + 1
            for axis, b, s, r, (_, _, count) in zip(
                spatial_axes(self.data_format), self._begin(), self.strides, self.dilations,
                self._taps(filter), strict=True,
            )
        )  # fmt: skip

    def _shape(self, x: Sequence[Any], filter: Sequence[Any]) -> tuple[Any, ...]:
        channels = group_axes(self.groups, filter[-2], filter[-1] // self.groups)
        return assemble(self.data_format, x[:1], self._sizes(x, filter), channels)

    def reference(self, x: Any, w: Any) -> Any:
        x, w = to_last(x, self.data_format), np.asarray(w)
        dims, groups = len(self.strides), self.groups
        by_last = replace(self, data_format=FORMATS[dims][0])
        sizes = by_last._sizes(x.shape, w.shape)
        inner, outer = w.shape[-2], w.shape[-1] // groups
        y = np.zeros((x.shape[0], *sizes, groups, outer), x.dtype)
        taps = self._taps(w.shape)
        for tap in itertools.product(*(range(count) for _, _, count in taps)):
            part = x[covered(tap, sizes, self.strides, self.dilations, self._begin())]
            own = w[tuple(f + s * t for t, (f, s, _) in zip(tap, taps, strict=True))]
            y += np.einsum("...gc,cgo->...go", part.reshape(*part.shape[:-1], groups, inner),
                           own.reshape(inner, groups, outer))  # fmt: skip
        channels = group_axes(groups, inner, outer)
        y = y.reshape(*y.shape[: dims + 1], *channels)
        if self.data_format[1] == "C":
            y = np.moveaxis(y, range(dims + 1, dims + 1 + len(channels)),
                            range(1, 1 + len(channels)))  # fmt: skip
        return y

    def compute(self, x: te.Tensor, w: te.Tensor) -> te.Tensor:
        dims, groups = len(self.strides), self.groups
        taps, inner = self._taps(w.shape), w.shape[-2]
        outer = w.shape[-1] // groups
        channels = group_axes(groups, inner, outer)
        shape = self._shape(x.shape, w.shape)
        first = self.data_format[1] == "C"

        def element(*axes: Any) -> Any:
            n, rest = axes[0], axes[1:]
            own = rest[: len(channels)] if first else rest[dims:]
            places = rest[len(channels) :] if first else rest[:dims]
            t = [te.reduce_axis(count, f"t{d}") for d, (_, _, count) in enumerate(taps)]
            summed = list(t)
            group = own[0] if groups > 1 else te.index(0)
            column = own[0] if groups == 1 else (
                own[0] * outer + own[1] if len(own) == 2 else own[0]
            )
            channel: Any = group
            c: Any = te.index(0)
            if not (groups > 1 and inner == 1):
                c = te.reduce_axis(inner, "c")
                summed.append(c)
                channel = c if groups == 1 else group * inner + c
            at = [
                o * s + (k * r) + b
                for o, s, k, r, b in zip(
                    places, self.strides, t, self.dilations, self._begin(), strict=True
                )
            ]
            tap = [k * step + f for k, (f, step, _) in zip(t, taps, strict=True)]
            read = x[assemble(self.data_format, (n,), at, (channel,))]
            return te.dot(read, w[(*tap, c, column)], axis=summed)

        return te.compute([prefer_int(d) for d in shape], element, "conv")

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for x, w, op in (
            ((2, 7, 6, 3), (3, 2, 3, 4), ConvProduct((2, 1), (1, 2))),
            ((2, 3, 7, 6), (3, 2, 3, 4), ConvProduct((2, 1), (1, 2), "NCHW")),
            ((1, 5, 6, 4), (2, 3, 2, 6), ConvProduct(groups=2)),
            ((1, 4, 5, 6), (2, 3, 2, 6), ConvProduct(groups=2, data_format="NCHW")),
            ((2, 5, 4, 17), (2, 2, 1, 17), ConvProduct(groups=17)),
            ((2, 5, 4, 3), (2, 2, 1, 6), ConvProduct(groups=3)),
            ((3, 9, 2), (5, 2, 16), ConvProduct((3,), (1,), "NWC")),
            ((2, 8, 8, 3), (3, 3, 3, 2), ConvProduct(
                begin=(1, 0), sizes=(4, 5), taps=((2, -1, 3), (0, 2, 2)))),
        ):  # fmt: skip
            arrays = ranged(rng, x, "float", -1, 1), ranged(rng, w, "float", -1, 1)
            yield Sample(arrays, op, ulp=8.0, scale=float(np.prod(w[:-1])))

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 5, 5, 3), np.float32)
        yield (x, x[0]), ShapeError
        yield (x, x.astype(np.float64)), DTypeError


def batch_parts(images: Any, windows: Any, elements: Any) -> list[tuple[Any, tuple[Any, Any]]]:
    """The parts of a sum over a batch: (how many, (first image, images of each)).

    windows: of an image, the terms that it adds.   elements: of the filter.
    PARTS parts, as equal as they can be: the longer ones, of one image more, come first. A function
    that an unknown extent can compute too, so that its sum has the order of a known one's.

    >>> [batch_parts(n, 784, 576) for n in (16, 3, 19)] + [batch_parts(19, 49, 1 << 20)]
    [[(8, (0, 2))], [(3, (0, 1))], [(3, (0, 3)), (5, (9, 2))], [(1, (0, 19))]]
    """
    large = at_most(LARGE_FILTER, elements) and at_most(windows, SHORT_SUM)
    parts = 1 if large else PARTS
    each = images // parts
    longer = images - each * parts
    found = [(longer, (0, each + 1)), (parts - longer, (longer * (each + 1), each))]
    if type(images) is not int:
        return found
    return [(n, own) for n, own in found if n and own[1]] or [(1, (0, 0))]


def _extent(dim: Any) -> Any:
    """An extent of te: a Python int where it is one."""
    return prefer_int(te.index(dim))


@dataclass(frozen=True)
class FilterProduct(Op):
    """dw[p, t, c, g, k] = sum over images n of part p and windows o of x[n, o*stride + t*dilation,
    g, c] * dy[n, o, g, k]; images are the outermost sum, windows follow in order.

    input: float[n, h.., c]   dy: float[n, o.., co]   dw: float[parts, taps.., c / groups, co]
    With groups the last axis is two, (groups, co / groups), or one when depthwise; without parts
    (parts = 1) there is no first axis. images: (first, count): part p is the ``count`` images from
    ``first`` + p * count on; by default all images, in equal parts. A sum over all windows of a
    batch is long: in parts it is more exact and has work for more threads.
    Errors: DTypeError, ShapeError
    """

    strides: tuple[int, ...] = (1, 1)
    dilations: tuple[int, ...] = (1, 1)
    data_format: str = "NHWC"
    groups: int = 1
    taps: tuple[int, ...] = (1, 1)
    parts: Any = 1  # an int or a Dim, as the next two
    images: tuple[Any, ...] = ()
    not_differentiable = LOWERED

    def infer(self, input: TensorType, dy: TensorType) -> TensorType:
        require_same_dtype(input, dy)
        for type_ in (input, dy):
            type_.require_number().require_rank(len(self.strides) + 2)
        axis = channel_axis(self.data_format)
        if input.shape is None or dy.shape is None or (
            self.groups > 1 and not is_static((input.shape[axis], dy.shape[axis]))
        ):
            return input.with_shape(None)
        return input.with_shape(self._shape(input.shape, dy.shape))

    def _shape(self, x: Sequence[Any], dy: Sequence[Any]) -> tuple[Any, ...]:
        axis = channel_axis(self.data_format)
        inner, outer = x[axis] // self.groups, dy[axis] // self.groups
        parts = () if self.parts == 1 else (self.parts,)
        lead = () if self.groups > 1 and inner == 1 else (inner,)
        return (*parts, *self.taps, *lead, *group_axes(self.groups, inner, outer))

    def reference(self, x: Any, dy: Any) -> Any:
        shape = self._shape(np.shape(x), np.shape(dy))
        x, dy = to_last(x, self.data_format), to_last(dy, self.data_format)
        groups, sizes = self.groups, dy.shape[1:-1]
        dy = dy.reshape(*dy.shape[:-1], groups, dy.shape[-1] // groups)
        inner = x.shape[-1] // groups
        found = []
        first, count = self._images(len(x))
        for part in range(self.parts):
            own = slice(first + part * count, first + (part + 1) * count)
            dw = np.zeros((*self.taps, inner, groups, dy.shape[-1]), x.dtype)
            for tap in np.ndindex(*self.taps):
                seen = x[own][covered(tap, sizes, self.strides, self.dilations)]
                seen = seen.reshape(*seen.shape[:-1], groups, inner)
                axes = "abcde"[: seen.ndim - 2]
                dw[tap] = np.einsum(f"{axes}gx,{axes}go->xgo", seen, dy[own])
            found.append(dw)
        return np.reshape(found, shape).astype(x.dtype)

    def _images(self, batch: Any) -> tuple[Any, Any]:
        """Number of the first image, and how many a part has."""
        return self.images or (0, batch if self.parts == 1 else batch // self.parts)

    def compute(self, x: te.Tensor, dy: te.Tensor) -> te.Tensor:
        axis, dims, groups = channel_axis(self.data_format), len(self.strides), self.groups
        inner, outer = x.shape[axis] // groups, dy.shape[axis] // groups
        shape = self._shape(x.shape, dy.shape)
        first, images = map(_extent, self._images(x.shape[0]))
        windows = [dy.shape[a] for a in spatial_axes(self.data_format)]

        def element(*axes: Any) -> Any:
            part, rest = (te.index(0), axes) if self.parts == 1 else (axes[0] * images, axes[1:])
            t, rest = rest[:dims], rest[dims:]
            c: Any = te.index(0)
            if not (groups > 1 and inner == 1):
                c, rest = rest[0], rest[1:]
            group = rest[0] if groups > 1 else te.index(0)
            column = rest[0] if len(rest) == 1 else rest[0] * outer + rest[1]
            n = te.reduce_axis(images, "n")
            o = [te.reduce_axis(d, f"o{a}") for a, d in enumerate(windows)]
            image = part + n + first
            at = [
                (w * s) + k * r
                for w, s, k, r in zip(o, self.strides, t, self.dilations, strict=True)
            ]
            seen = x[assemble(self.data_format, (image,), at, (group * inner + c,))]
            return te.dot(
                seen, dy[assemble(self.data_format, (image,), o, (column,))], axis=[n, *o]
            )

        return te.compute([_extent(d) for d in shape], element, "conv_filter")

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for x, dy, op in (
            ((2, 7, 6, 3), (2, 3, 4, 5), FilterProduct((2, 1), (1, 2), taps=(3, 2))),
            ((4, 3, 7, 6), (4, 5, 3, 4), FilterProduct((2, 1), (1, 2), "NCHW", 1, (3, 2), 2)),
            ((6, 5, 6, 4), (6, 4, 4, 6), FilterProduct(groups=2, taps=(2, 3), parts=3)),
            ((2, 5, 4, 17), (2, 4, 3, 17), FilterProduct(groups=17, taps=(2, 2), parts=2)),
            ((2, 5, 4, 3), (2, 4, 3, 6), FilterProduct(groups=3, taps=(2, 2))),
            ((3, 9, 2), (3, 2, 16), FilterProduct((3,), (1,), "NWC", 1, (5,), 3)),
            ((5, 4, 3, 2), (5, 3, 2, 6), FilterProduct(taps=(2, 2), parts=2, images=(1, 2))),
        ):
            arrays = ranged(rng, x, "float", -1, 1), ranged(rng, dy, "float", -1, 1)
            yield Sample(arrays, op, ulp=8.0, scale=float(np.prod(dy[:-1])))

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 5, 5, 3), np.float32)
        yield (x, x[0]), ShapeError
        yield (x, x.astype(np.float64)), DTypeError


@dataclass(frozen=True)
class Interleave(Op):
    """y[n, h, c] = phase number (h mod stride) at [n, h // stride, c], per spatial axis.

    phases: the present ones of product(strides) tensors, all float[n, ceil(sizes / strides).., c];
    the others are zero.  y: [n, sizes.., c]
    Errors: ShapeError when the number of phases or a shape does not fit, DTypeError
    """

    strides: tuple[int, ...]
    sizes: tuple[int, ...]
    present: tuple[bool, ...]
    data_format: str = "NHWC"
    not_differentiable = LOWERED

    def infer(self, *phases: TensorType) -> TensorType:
        require_same_dtype(*phases)
        if len(phases) != sum(self.present):
            raise ShapeError(f"{len(phases)} phases", expected=f"{sum(self.present)} phases")
        phases[0].require_rank(len(self.sizes) + 2)
        shape = phases[0].shape
        if shape is None:
            return phases[0]
        places = [shape[a] for a in spatial_axes(self.data_format)]
        wanted = [-(-h // s) for h, s in zip(self.sizes, self.strides, strict=True)]
        if all(type(d) is int for d in places) and places != wanted:
            raise ShapeError(f"phases of {places} positions", expected=str(wanted))
        channels = shape[channel_axis(self.data_format)]
        return phases[0].with_shape(
            assemble(self.data_format, shape[:1], self.sizes, (channels,))
        )

    def _numbers(self) -> dict[tuple[int, ...], int]:
        """residues -> position among the given phases."""
        residues = itertools.product(*(range(s) for s in self.strides))
        given = [q for q, here in zip(residues, self.present, strict=True) if here]
        return {q: i for i, q in enumerate(given)}

    def reference(self, *phases: Any) -> Any:
        arrays = [to_last(p, self.data_format) for p in phases]
        batch, channels = arrays[0].shape[0], arrays[0].shape[-1]
        y = np.zeros((batch, *self.sizes, channels), arrays[0].dtype)
        for q, i in self._numbers().items():
            steps = zip(q, self.strides, strict=True)
            own = y[(slice(None), *(slice(r, None, s) for r, s in steps))]
            own[...] = arrays[i][tuple(slice(d) for d in own.shape)]
        return from_last(y, self.data_format)

    def compute(self, *phases: te.Tensor) -> te.Tensor:
        numbers = self._numbers()
        axis = channel_axis(self.data_format)
        places = spatial_axes(self.data_format)
        shape = assemble(
            self.data_format, phases[0].shape[:1], self.sizes, (phases[0].shape[axis],)
        )

        def element(*axes: Any) -> Any:
            index = list(axes)
            for a, s in zip(places, self.strides, strict=True):
                index[a] = axes[a] // s if s > 1 else axes[a]

            def choose(chosen: tuple[int, ...]) -> Any:
                d = len(chosen)
                if d == len(places):
                    number = numbers.get(chosen)
                    if number is None:
                        return te.const(0, phases[0].dtype)
                    return phases[number][tuple(index)]
                result = choose((*chosen, self.strides[d] - 1))
                for q in range(self.strides[d] - 2, -1, -1):
                    here = (axes[places[d]] % self.strides[d]).equal(q)
                    result = te.select(here, choose((*chosen, q)), result)
                return result

            return choose(())

        return te.compute(shape, element, "interleave")

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, op in (
            ((2, 3, 2, 4), Interleave((2, 2), (5, 4), (True,) * 4)),
            ((2, 4, 3, 2), Interleave((2, 1), (5, 2), (True, False), "NCHW")),
            ((1, 2, 3), Interleave((3,), (4,), (True, False, True), "NWC")),
        ):
            phases = tuple(ranged(rng, shape, "float", -1, 1) for _ in range(sum(op.present)))
            yield Sample(phases, op)

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 3, 3, 1), np.float32)
        op = Interleave((2, 2), (5, 4), (True, False, False, False))
        yield Sample((x,), op), ShapeError
        yield Sample((x, x), op), ShapeError
