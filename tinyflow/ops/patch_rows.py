"""Windows of an image side by side, and their sum, row by row: for extents that are known.

Main types: ``PatchRows``, ``PatchRowsGrad``. May import ops.base, loop_nests, patches and others.
Shapes: x: [n, h.., w * c], patches: [n, o.., taps * c].

Along the last spatial axis a window without dilation is one run of size * c elements, in the image
and in the patches: such runs are copied or added as they are. A padded row lies in memory that
stays in the first cache, so that no element asks whether it is inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinyflow import te
from tinyflow.core.error import InvalidArgumentError, ShapeError
from tinyflow.ir.loop.nodes import PARALLEL, SERIAL, Alloc, Body, Buffer, For, If, Store
from tinyflow.ir.scalar import nodes as scalar
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ops.base import Sample, TensorType, ranged
from tinyflow.ops.conv_products import LOWERED
from tinyflow.ops.loop_nests import integer, lanes, nest, pays
from tinyflow.ops.padding import inside_all
from tinyflow.ops.patches import CASES, Patches, PatchesGrad
from tinyflow.ops.pool_windows import Line

Position = tuple[Expr, ...]


@dataclass(frozen=True)
class _Rows:
    """The rows of one call: every axis but the last spatial one is a loop around them."""

    lines: list[Line]
    images: int
    channels: int

    @property
    def last(self) -> Line:
        return self.lines[-1]

    @property
    def row_taps(self) -> tuple[int, ...]:
        return tuple(line.size for line in self.lines[:-1])

    @property
    def length(self) -> int:
        """Elements of a row with its padding."""
        line = self.last
        reach = (line.count - 1) * line.stride + (line.size - 1) * line.dilation + 1
        return max(reach, line.before + line.extent) * self.channels  # type: ignore[no-any-return]

    def tasks(self, extents: Sequence[int], body: Callable[[Position], Body]) -> Body:
        """``body(position)`` for all images and ``extents``, which threads share."""
        axes = (self.images, *extents)
        task, rest = scalar.var("task"), list[Expr]()
        number: Expr = task
        for extent in reversed(axes[1:]):
            rest.insert(0, number % extent)
            number = number // extent
        count = math.prod(axes)
        work = count * self.length * math.prod(self.row_taps) * self.last.size
        kind = PARALLEL if count > 1 and pays(work) else SERIAL
        return (For(task, count, kind, body((number, *rest))),)

    def number_of(self, taps: Position) -> Expr:
        """The first element in a patch of a row of taps."""
        number = te.index(0)
        for tap, size in zip(taps, self.row_taps, strict=True):
            number = number * size + tap
        return number * (self.last.size * self.channels)

    def runs(self, body: Callable[[Expr, Expr, Expr], Body]) -> Body:
        """``body(window, element of the patch's row, element of the padded row)`` for all."""
        line, c = self.last, self.channels
        window = scalar.var("window")
        start = window * (line.stride * c)
        if line.dilation == 1:
            inner = lanes(line.size * c, "run", lambda e: body(window, e, start + e))
        else:
            tap = scalar.var("tap")
            inner = (For(tap, line.size, SERIAL, lanes(
                c, "run",
                lambda e: body(window, tap * c + e, start + tap * (line.dilation * c) + e),
            )),)  # fmt: skip
        return (For(window, line.count, SERIAL, inner),)

    def fill(self, row: Buffer, zero: Expr, begin: int, end: int) -> Body:
        """Zeros in elements begin .. end of a padded row."""
        return lanes(end - begin, f"zero{begin}", lambda e: (Store(row, (e,), zero),), begin)

    def across(self, body: Callable[[Expr, Expr], Body]) -> Body:
        """``body(element of the row, element of the padded row)`` for the row of the image."""
        first = self.last.before * self.channels
        return lanes(
            self.last.extent * self.channels, "element", lambda e: body(e, e + first)
        )


def _rows(op: Any, flat: Any, channels: int) -> _Rows:
    *extents, last = [integer(d) for d in flat]
    return _Rows(op.lines([*extents, last // channels, channels]), extents[0], channels)


def row_bytes(op: Any, x: TensorType) -> int:
    """Bytes of a padded row of an image."""
    shape: Any = x.shape
    return _rows(op, flattened(shape), shape[-1]).length * x.dtype.size_bytes


def flattened(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an image whose last two axes are one."""
    return (*shape[:-2], shape[-2] * shape[-1])


@dataclass(frozen=True)
class PatchRows(Patches):
    """``Patches`` of an image of known extents, whose last two axes are one.

    x: number[n, h.., w * c]     y: [n, o.., taps * c]    Errors: those of Patches
    """

    channels: int = 1
    not_differentiable = LOWERED

    def _whole(self, shape: Any) -> Any:
        return shape and (*shape[:-1], shape[-1] // self.channels, self.channels)

    def infer(self, images: TensorType) -> TensorType:
        images.require_rank(len(self.strides) + 1)
        return super().infer(images.with_shape(self._whole(images.shape)))

    def reference(self, x: Any) -> Any:
        return super().reference(np.reshape(x, self._whole(np.shape(x))))

    def lower_loops(self, inputs: tuple[Buffer, ...], outputs: tuple[Buffer, ...]) -> Body:
        (x,), (y,) = inputs, outputs
        if 0 in y.shape:
            return ()
        rows = _rows(self, x.shape, self.channels)
        last, zero = rows.last, te.const(0, x.dtype)
        row = Buffer("row", x.dtype, (rows.length,), "stack")
        edge = last.before * rows.channels, (last.before + last.extent) * rows.channels

        def windows(position: Position) -> Body:
            def taps(own: Position) -> Body:
                at, fits = [], []
                for line, o, t in zip(rows.lines, position[1:], own, strict=False):
                    at.append(line.position(o, t))
                    fits += line.inside(at[-1])
                copied = rows.across(
                    lambda e, place: (Store(row, (place,), scalar.load(x, position[0], *at, e)),)
                )
                if fits:
                    copied = (If(inside_all(fits), copied, rows.fill(row, zero, *edge)),)
                base = rows.number_of(own)
                return copied + rows.runs(lambda window, e, source: (
                    Store(y, (*position, window, base + e), scalar.load(row, source)),
                ))  # fmt: skip

            edges = rows.fill(row, zero, 0, edge[0])
            edges += rows.fill(row, zero, edge[1], rows.length)
            return (Alloc(row, (*edges, *nest(rows.row_taps, "t", taps))),)

        return rows.tasks([line.count for line in rows.lines[:-1]], windows)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, own in CASES:
            op = replace(PatchRows(*own), channels=shape[-1])
            yield Sample((ranged(rng, flattened(shape), "float", -2, 2),), op)
        yield Sample((rng.integers(-9, 9, (2, 5, 12)).astype(np.int32),), PatchRows(channels=3))

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 5, 12), np.float32)
        yield (x[0],), ShapeError
        yield Sample((x,), PatchRows(data_format="NCHW")), InvalidArgumentError


@dataclass(frozen=True)
class PatchRowsGrad(PatchesGrad):
    """``PatchesGrad`` of an image of known extents: every row of it adds the runs that fall on it,
    rows of taps and then windows in order.

    dy: number[n, o.., taps * c]   like: the image    dx: number[n, h.., w * c]
    Errors: those of PatchesGrad
    """

    not_differentiable = LOWERED

    def infer(self, dy: TensorType, like: TensorType) -> TensorType:
        image: Any = super().infer(dy, like).shape
        return like.with_shape(image and flattened(image))

    def reference(self, dy: Any, like: Any) -> Any:
        return super().reference(dy, like).reshape(flattened(np.shape(like)))

    def lower_loops(self, inputs: tuple[Buffer, ...], outputs: tuple[Buffer, ...]) -> Body:
        (dy, like), (dx,) = inputs, outputs
        if 0 in dx.shape:
            return ()
        rows = _rows(self, dx.shape, integer(like.shape[-1]))
        zero = te.const(0, dx.dtype)
        row = Buffer("row", dx.dtype, (rows.length,), "stack")

        def image_row(position: Position) -> Body:
            def taps(own: Position) -> Body:
                at, fits = [], []
                for line, h, t in zip(rows.lines, position[1:], own, strict=False):
                    start = h + line.before - t * line.dilation
                    fits.append(te.index(0) <= start)
                    if line.stride > 1:
                        fits.append((start % line.stride).equal(0))
                    at.append(start // line.stride)
                    fits.append(at[-1] < line.count)
                base = rows.number_of(own)
                added = rows.runs(lambda window, e, target: (Store(
                    row, (target,),
                    scalar.load(row, target)
                    + scalar.load(dy, position[0], *at, window, base + e),
                ),))  # fmt: skip
                return (If(inside_all(fits), added),) if fits else added

            cleared = rows.fill(row, zero, 0, rows.length)
            written = rows.across(
                lambda e, place: (Store(dx, (*position, e), scalar.load(row, place)),)
            )
            return (Alloc(row, (*cleared, *nest(rows.row_taps, "t", taps), *written)),)

        return rows.tasks([line.extent for line in rows.lines[:-1]], image_row)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for sample in super().samples(rng):
            op = PatchRowsGrad(*sample.op.attributes_of())
            yield Sample(sample.arrays, op, ulp=sample.ulp, scale=sample.scale)
