"""Overlapping tiles of an image as planes of a transform, and an image from such planes.

Main types: ``TilePlanes``, ``TileResults``. May import ops.base, fourier, winograd and others.
Shapes: x: [n, h, w, c], planes: [planes, n * tiles, c], y: [n, h', w', c].

A convolution of tiles becomes one matrix product over channels per plane. A transform acts along
each axis by itself; that of Fourier then combines real and imaginary parts. A tile of a few
channels goes through all of it in one piece, in memory that stays in the first cache. A filter is
an image of one tile, whose channels are all pairs of an input and an output channel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tinyflow import te
from tinyflow.core.error import InvalidArgumentError, ShapeError
from tinyflow.ir.loop.nodes import PARALLEL, SERIAL, VECTORIZE, Alloc, Body, Buffer, For, If, Store
from tinyflow.ir.scalar import nodes as scalar
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ops import fourier, winograd
from tinyflow.ops.base import Op, Sample, TensorType, ranged
from tinyflow.ops.conv_products import LOWERED
from tinyflow.ops.loop_nests import integer
from tinyflow.ops.padding import inside_all

#: Bytes of a vector of channels; all elements of a tile with the channels of a block take at most
#: GRID_BYTES, so that planes, which lie far apart, are written in runs of several vectors.
VECTOR_BYTES, GRID_BYTES = 64, 128 << 10
#: tiles from which on a task takes all channels of one
MANY_TILES = 8

Pair = tuple[int, ...]
Terms = Sequence[Any]


class Map(NamedTuple):
    """One side of a transform.

    line: (elements, points, how many results) -> results along one axis.
    matrix: (points, how many elements or results) -> the same in float64.
    mix: (parts of one frequency, scale) -> its planes, or back; None where planes are points.
    """

    line: Callable[[Terms, int, int], list[Any]]
    matrix: Callable[[int, int], Any]
    mix: Callable[[Terms, float], list[Any]] | None = None


def _winograd(side: str) -> Map:
    return Map(
        lambda x, points, count: winograd.combined(getattr(winograd.TILES[points], side), x),
        lambda points, count: np.array(getattr(winograd.TILES[points], side), np.float64),
    )


def _spectrum(mix: Callable[[Terms, float], list[Any]]) -> Map:
    return Map(
        lambda x, points, count: fourier.spectrum(x, points),
        lambda points, count: fourier.spectrum_matrix(points)[:, :count],
        mix,
    )


MAPS: dict[str, Map] = {
    **{f"winograd_{side}": _winograd(side) for side in ("image", "filter", "result")},
    "fourier_left": _spectrum(lambda parts, scale: fourier.left_factors(parts)),
    "fourier_right": _spectrum(fourier.right_factors),
    "fourier_result": Map(
        fourier.samples,
        # The rows of the spectrum's matrix are orthogonal, so its inverse is its transpose.
        lambda points, count: fourier.spectrum_matrix(points).T[points - count :],
        lambda products, scale: fourier.product_parts(products),
    ),
}


@dataclass(frozen=True)
class TileOp(Op, abstract=True):
    """What the two share. map: a name of MAPS; points: elements of a tile's transform, 1 along an
    axis without any; tiles: how many along each axis; step: elements between two of them."""

    map: str
    points: Pair
    tiles: Pair
    step: Pair
    not_differentiable = LOWERED

    @property
    def mixed(self) -> bool:
        return MAPS[self.map].mix is not None

    @property
    def planes(self) -> int:
        return math.prod(self.points) * (3 if self.mixed else 2) // 2

    def check_points(self) -> None:
        """Errors: InvalidArgumentError."""
        if self.map not in MAPS:
            raise InvalidArgumentError(f"unknown map {self.map!r}", choices=tuple(MAPS))
        if self.mixed and (max(self.points) < 2 or any(p > 1 and p % 2 for p in self.points)):
            raise InvalidArgumentError(f"{self.points} points", expected="even numbers, or 1")
        if not self.mixed and not {*self.points} <= {*winograd.TILES, 1}:
            raise InvalidArgumentError(f"{self.points} points", choices=tuple(winograd.TILES))

    def line(self, axis: int, values: Terms, count: int) -> list[Any]:
        """``count`` results (of a spectrum: all) of elements along an axis."""
        points = self.points[axis]
        return list(values) if points == 1 else MAPS[self.map].line(values, points, count)

    def matrix(self, axis: int, count: int) -> Any:
        points = self.points[axis]
        return np.eye(1) if points == 1 else MAPS[self.map].matrix(points, count)

    @property
    def frequencies(self) -> Pair:
        return tuple(p // 2 if p > 1 else 1 for p in self.points)

    @property
    def part_origins(self) -> list[Pair]:
        """Where the real and the imaginary parts of all frequencies begin, per axis."""
        starts = [(0, p // 2) if p > 1 else (0,) for p in self.points]
        return list(itertools.product(*starts))

    def mix(self, values: Terms) -> list[Any]:
        """Planes from parts, or parts from planes. The product of two spectra is too large by
        prod(points) / 2; the right factor makes up for it."""
        mix = MAPS[self.map].mix
        assert mix is not None
        return mix(values, 2 / math.prod(self.points))

    def mixing_loops(self, body: Callable[[Expr, list[tuple[Expr, ...]]], Body]) -> Body:
        """``body(number of its first plane, positions of its parts)`` for every frequency."""
        u, v = (scalar.var(f"frequency{d}") for d in range(2))
        count = self.frequencies
        first = (u * count[1] + v) * (self.planes // math.prod(count))
        places: list[tuple[Expr, ...]] = [(u + a, v + b) for a, b in self.part_origins]
        inner = For(v, count[1], SERIAL, body(first, places))
        return (For(u, count[0], SERIAL, (inner,)),)


class _Channels(NamedTuple):
    """The channels of a block: ``vectors`` times ``lanes`` from ``start`` on.

    own: the number within the block.
    """

    start: Expr
    vectors: int
    lanes: int

    @property
    def width(self) -> int:
        return self.vectors * self.lanes

    @property
    def own(self) -> Expr:
        return scalar.var("vector") * self.lanes + scalar.var("lane")

    @property
    def all(self) -> Expr:
        return self.start + self.own

    def lines(
        self,
        name: str,
        values: Sequence[Expr],
        make: Callable[[list[Expr]], Sequence[Expr]],
        write: Callable[[int, Expr], Body],
    ) -> Body:
        """``make`` of values, which are all read before the first result is written."""
        lane = scalar.var("lane")
        held = Buffer(name, values[0].dtype, (len(values), self.lanes), "register")
        reads = tuple(Store(held, (te.index(i), lane), v) for i, v in enumerate(values))
        results = make([scalar.load(held, i, lane) for i in range(len(values))])
        writes = tuple(s for i, result in enumerate(results) for s in write(i, result))
        vector = For(lane, self.lanes, VECTORIZE, (*reads, *writes))
        return (For(scalar.var("vector"), self.vectors, SERIAL, (Alloc(held, (vector,)),)),)


def _over_blocks(
    tiles: int, buffer: Buffer, points: int, block: Callable[[Expr, _Channels], Body]
) -> Body:
    """``block(tile, channels)`` for all tiles and all channels of the buffer; threads share the
    tiles, or the blocks of few tiles."""
    channels, size = integer(buffer.shape[-1]), buffer.dtype.size_bytes
    lanes = max(1, VECTOR_BYTES // size)
    whole, rest = divmod(channels, lanes)
    vectors = next(
        v for v in (16, 8, 4, 2, 1)
        if whole % v == 0 and (v == 1 or v * lanes * size * points <= GRID_BYTES)
    )  # fmt: skip
    blocks, whole = whole // vectors + bool(rest), whole // vectors

    def one(tile: Expr, number: Expr) -> Body:
        full = block(tile, _Channels(number * (vectors * lanes), vectors, lanes)) if whole else ()
        last = block(tile, _Channels(te.index(channels - rest), 1, rest)) if rest else ()
        if whole and rest:
            return (If(number < te.index(whole), full, last),)
        return full or last

    task, number = scalar.var("task"), scalar.var("block")
    if tiles >= MANY_TILES:
        inner = (For(number, blocks, SERIAL, one(task, number)),)
        return (For(task, tiles, PARALLEL, inner),)
    return (For(task, tiles * blocks, PARALLEL, one(task // blocks, task % blocks)),)


@dataclass(frozen=True)
class TilePlanes(TileOp):
    """planes[p, (n, t), c] = sum over i, j of M0[p0, i] x[n, t0*step0 + i - before0, t1*step1 + j -
    before1, c] M1[p1, j], x zero outside; then, for Fourier, factors of complex numbers.

    x: float[n, h, w, c]   planes: float[planes, n * tiles, c]
    reads: elements i, j of a tile, the others being zero; turned: their order is reversed
    Errors: DTypeError, ShapeError, InvalidArgumentError
    """

    reads: Pair = (1, 1)
    before: Pair = (0, 0)
    turned: bool = False

    def infer(self, x: TensorType) -> TensorType:
        self.check_points()
        x.require_float().require_rank(4)
        if x.shape is None:
            return x
        return x.with_shape((self.planes, x.shape[0] * math.prod(self.tiles), x.shape[3]))

    def reference(self, x: Any) -> Any:
        spans = [(t - 1) * s + r
                 for t, s, r in zip(self.tiles, self.step, self.reads, strict=True)]  # fmt: skip
        n, h, w, channels = np.shape(x)
        after = [max(0, span - b - e)
                 for span, b, e in zip(spans, self.before, (h, w), strict=True)]  # fmt: skip
        pads = list(zip(self.before, after, strict=True))
        padded = np.pad(x, ((0, 0), *pads, (0, 0)))[:, : spans[0], : spans[1]]
        seen = np.lib.stride_tricks.sliding_window_view(padded, self.reads, (1, 2))
        seen = seen[:, :: self.step[0], :: self.step[1]]
        if self.turned:
            seen = seen[..., ::-1, ::-1]
        a, b = (self.matrix(d, self.reads[d]) for d in range(2))
        points = np.einsum("nstcij,pi,qj->pqnstc", seen.astype(np.float64), a, b)
        points = points.reshape(*self.points, n * math.prod(self.tiles), channels)
        if self.mixed:
            parts = [points[i : i + self.frequencies[0], j : j + self.frequencies[1]]
                     for i, j in self.part_origins]  # fmt: skip
            points = np.stack(self.mix(parts), 2)
        return points.reshape(-1, *points.shape[-2:]).astype(x.dtype)

    def lower_loops(self, inputs: tuple[Buffer, ...], outputs: tuple[Buffer, ...]) -> Body:
        (x,), (planes,) = inputs, outputs
        n, *_ = shape = [integer(d) for d in x.shape]
        if 0 in shape:
            return ()
        row, column = scalar.var("row"), scalar.var("column")

        def block(tile: Expr, c: _Channels) -> Body:
            grid = Buffer("grid", x.dtype, (*self.points, c.width), "stack")
            read = [self._read(x, tile, row, j, c.all) for j in range(self.reads[1])]

            def plane(p: Expr, value: Expr) -> Body:
                return (Store(planes, (p, tile, c.all), value),)

            def point(p: int, value: Expr) -> Body:
                if not self.mixed:
                    return plane(column + p * self.points[1], value)
                return (Store(grid, (te.index(p), column, c.own), value),)

            along_rows = c.lines(
                "elements", read, lambda v: self.line(1, v, self.points[1]),
                lambda q, value: (Store(grid, (row, te.index(q), c.own), value),),
            )  # fmt: skip
            along_columns = c.lines(
                "lines", [scalar.load(grid, i, column, c.own) for i in range(self.reads[0])],
                lambda v: self.line(0, v, self.points[0]), point,
            )  # fmt: skip
            body: Body = (
                For(row, self.reads[0], SERIAL, along_rows),
                For(column, self.points[1], SERIAL, along_columns),
            )
            if self.mixed:
                body += self.mixing_loops(lambda first, places: c.lines(
                    "parts", [scalar.load(grid, *place, c.own) for place in places], self.mix,
                    lambda number, value: plane(first + number, value),
                ))  # fmt: skip
            return (Alloc(grid, body),)

        return _over_blocks(n * math.prod(self.tiles), x, math.prod(self.points), block)

    def _read(self, x: Buffer, tile: Expr, i: Expr, j: int, channel: Expr) -> Expr:
        """Element (i, j) of a tile, zero outside of the image."""
        own = tile // self.tiles[1] % self.tiles[0], tile % self.tiles[1]
        at, fits = [], []
        for d, element in enumerate((i, te.index(j))):
            if self.turned:
                element = te.index(self.reads[d] - 1) - element
            place = own[d] * self.step[d] + element - self.before[d]
            at.append(place)
            extent = integer(x.shape[d + 1])
            if self.before[d]:
                fits.append(te.index(0) <= place)
            if (self.tiles[d] - 1) * self.step[d] + self.reads[d] - self.before[d] > extent:
                fits.append(place < te.index(extent))
        here = scalar.load(x, tile // math.prod(self.tiles), *at, channel)
        return te.select(inside_all(fits), here, te.const(0, x.dtype)) if fits else here

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, op in (
            ((2, 7, 9, 3), TilePlanes("winograd_image", (4, 4), (3, 4), (2, 2), (4, 4), (1, 1))),
            ((1, 6, 5, 18), TilePlanes("winograd_image", (6, 6), (1, 1), (4, 4), (6, 6))),
            ((1, 3, 3, 20), TilePlanes("winograd_filter", (6, 6), (1, 1), (1, 1), (3, 3))),
            ((2, 9, 7, 5), TilePlanes("fourier_left", (8, 6), (3, 2), (3, 4), (8, 6), (2, 1))),
            ((1, 5, 3, 4), TilePlanes("fourier_right", (8, 10), (1, 1), (1, 1), (5, 3),
                                      turned=True)),
            ((2, 1, 30, 3), TilePlanes("fourier_left", (1, 16), (1, 3), (1, 10), (1, 16))),
        ):  # fmt: skip
            yield Sample((ranged(rng, shape, "float", -1, 1),), op, ulp=16.0, scale=8.0)

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((1, 8, 8, 2), np.float32)
        op = TilePlanes("fourier_left", (8, 8), (1, 1), (1, 1), (8, 8))
        yield Sample((x[0],), op), ShapeError
        yield Sample((x,), TilePlanes("fourier", (8, 8), (1, 1), (1, 1))), InvalidArgumentError
        odd = TilePlanes("fourier_left", (8, 7), (1, 1), (1, 1), (8, 7))
        yield Sample((x,), odd), InvalidArgumentError
        five = TilePlanes("winograd_image", (5, 5), (1, 1), (3, 3), (5, 5))
        yield Sample((x,), five), InvalidArgumentError


@dataclass(frozen=True)
class TileResults(TileOp):
    """y[n, t0*step0 + i, t1*step1 + j, c] = sum over p of M0[i, p0] planes[p, (n, t), c] M1[j, p1];
    of Fourier's planes, the products of factors, first come the complex numbers.

    planes: float[planes, n * tiles, c]   y: float[n, sizes.., c]
    Errors: DTypeError, ShapeError, InvalidArgumentError
    """

    sizes: Pair = (1, 1)

    def infer(self, planes: TensorType) -> TensorType:
        self.check_points()
        planes.require_float().require_rank(3)
        if planes.shape is None:
            return planes
        count, tiles, channels = planes.shape
        if type(count) is int and count != self.planes:
            raise ShapeError(f"{count} planes", expected=f"{self.planes} planes")
        return planes.with_shape((tiles // math.prod(self.tiles), *self.sizes, channels))  # type: ignore[operator]

    def reference(self, planes: Any) -> Any:
        _, tiles, channels = np.shape(planes)
        wide = planes.astype(np.float64)
        points = wide.reshape(*self.points, tiles, channels) if not self.mixed else None
        if points is None:
            triples = wide.reshape(*self.frequencies, -1, tiles, channels)
            points = np.zeros((*self.points, tiles, channels))
            parts = self.mix(list(np.moveaxis(triples, 2, 0)))
            for (i, j), part in zip(self.part_origins, parts, strict=True):
                points[i : i + self.frequencies[0], j : j + self.frequencies[1]] = part
        a, b = (self.matrix(d, self.step[d]) for d in range(2))
        y = np.einsum("pqtc,ip,jq->tijc", points, a, b)
        y = y.reshape(-1, *self.tiles, *self.step, channels).transpose(0, 1, 3, 2, 4, 5)
        y = y.reshape(len(y), *(t * s for t, s in zip(self.tiles, self.step, strict=True)), -1)
        return y[:, : self.sizes[0], : self.sizes[1]].astype(planes.dtype)

    def lower_loops(self, inputs: tuple[Buffer, ...], outputs: tuple[Buffer, ...]) -> Body:
        (planes,), (y,) = inputs, outputs
        _, tiles, channels = map(integer, planes.shape)
        if 0 in (tiles, channels):
            return ()
        row, column = scalar.var("row"), scalar.var("column")
        (m0, m1), (p0, p1) = self.step, self.points

        def block(tile: Expr, c: _Channels) -> Body:
            grid = Buffer("grid", y.dtype, (*self.points, c.width), "stack")

            def plane(p: Expr) -> Expr:
                return scalar.load(planes, p, tile, c.all)

            def point(p: int) -> Expr:
                if not self.mixed:
                    return plane(column + p * p1)
                return scalar.load(grid, p, column, c.own)

            along_columns = c.lines(
                "products", [point(p) for p in range(p0)], lambda v: self.line(0, v, m0),
                lambda i, value: (Store(grid, (te.index(i), column, c.own), value),),
            )  # fmt: skip
            along_rows = c.lines(
                "lines", [scalar.load(grid, row, q, c.own) for q in range(p1)],
                lambda v: self.line(1, v, m1),
                lambda j, value: self._write(y, tile, row, j, c.all, value),
            )  # fmt: skip
            body: Body = (
                For(column, p1, SERIAL, along_columns),
                For(row, m0, SERIAL, self._guarded(0, tile, row, along_rows)),
            )
            if self.mixed:
                each = self.planes // math.prod(self.frequencies)
                body = self.mixing_loops(lambda first, places: c.lines(
                    "factors", [plane(first + number) for number in range(each)], self.mix,
                    lambda n, value: (Store(grid, (*places[n], c.own), value),),
                )) + body  # fmt: skip
            return (Alloc(grid, body),)

        return _over_blocks(tiles, y, math.prod(self.points), block)

    def _place(self, axis: int, tile: Expr, element: Expr) -> Expr:
        own = tile // self.tiles[1] % self.tiles[0] if axis == 0 else tile % self.tiles[1]
        return own * self.step[axis] + element

    def _guarded(self, axis: int, tile: Expr, element: Expr, body: Body) -> Body:
        """``body`` where the element lies inside of the result."""
        size = self.sizes[axis]
        if size == self.tiles[axis] * self.step[axis]:
            return body
        return (If(self._place(axis, tile, element) < te.index(size), body),)

    def _write(
        self, y: Buffer, tile: Expr, i: Expr, j: int, channel: Expr, value: Expr
    ) -> Body:
        column = te.index(j)
        at = self._place(0, tile, i), self._place(1, tile, column)
        store = Store(y, (tile // math.prod(self.tiles), *at, channel), value)
        return self._guarded(1, tile, column, (store,))

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, op in (
            ((16, 6, 5), TileResults("winograd_result", (4, 4), (3, 2), (2, 2), (5, 4))),
            ((36, 4, 18), TileResults("winograd_result", (6, 6), (1, 2), (4, 4), (3, 6))),
            ((72, 6, 3), TileResults("fourier_result", (8, 6), (1, 3), (4, 3), (4, 8))),
            ((30, 4, 2), TileResults("fourier_result", (1, 20), (1, 2), (1, 11), (1, 15))),
        ):
            yield Sample((ranged(rng, shape, "float", -1, 1),), op, ulp=16.0, scale=256.0)

    def bad_samples(self) -> Iterable[Any]:
        op = TileResults("winograd_result", (4, 4), (3, 2), (2, 2), (5, 4))
        yield Sample((np.zeros((15, 6, 2), np.float32),), op), ShapeError
        yield Sample((np.zeros((16, 6), np.float32),), op), ShapeError
