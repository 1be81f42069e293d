"""Convolutions without stride and their gradients as products of matrices.

Main types and functions: ``Tiling``, ``tiled_conv``, ``tiled_input_grad``, ``tiled_filter_grad``;
``im2col``, ``im2col_input_grad``, ``im2col_filter_grad``. May import contraction, convolution,
movement, patches and tiles. Shapes: x: [n, h, w, c], filter: [r, s, c, k], y: [n, h', w', k];
tiled forms without w, too. All extents are known.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from tinyflow.ops.base import Value, emit
from tinyflow.ops.contraction import BatchMatMul, MatMul
from tinyflow.ops.convolution import ConvOp
from tinyflow.ops.movement import reshape
from tinyflow.ops.patches import Patches, PatchesGrad
from tinyflow.ops.tiles import TilePlanes, TileResults

Pads = list[tuple[int, int]]


class Tiling(NamedTuple):
    """algorithm: "winograd" or "fourier". points: elements of a tile of x along each axis; a filter
    of f taps makes points - f + 1 results of them. An axis of one tap has one point."""

    algorithm: str
    points: tuple[int, ...]

    def step(self, taps: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(p - f + 1 for p, f in zip(self.points, taps, strict=True))

    def tiles(self, sizes: tuple[int, ...], taps: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(-(-n // m) for n, m in zip(sizes, self.step(taps), strict=True))

    @property
    def planes(self) -> int:
        return math.prod(self.points) * (3 if self.algorithm == "fourier" else 2) // 2

    def names(self) -> tuple[str, str, str]:
        """The maps of image, filter and result."""
        sides = ("image", "filter") if self.algorithm == "winograd" else ("left", "right")
        left, right, result = (f"{self.algorithm}_{side}" for side in (*sides, "result"))
        return left, right, result


def tiled_conv(x: Value, filter: Value, pads: Pads, tiling: Tiling) -> Value:
    """Convolution without stride; pads: zeros before and after each spatial axis."""
    return _tiled(x, filter, pads, tiling, False)


def tiled_input_grad(dy: Value, filter: Value, pads: Pads, tiling: Tiling) -> Value:
    """The gradient of ``tiled_conv`` for x: the convolution of dy with the filter turned around
    and its channels exchanged. pads: those of the convolution, less than the taps."""
    taps = _known(filter)[:-2]
    own = [(f - 1 - b, f - 1 - a) for f, (b, a) in zip(taps, pads, strict=True)]
    return _tiled(dy, filter, own, tiling, True)


def _known(x: Value) -> tuple[int, ...]:
    return x.type.shape  # type: ignore[return-value]


def _two(spatial: Any, missing: Any) -> tuple[Any, ...]:
    """What belongs to spatial axes, for two of them: one axis is the second of an image."""
    return (missing, *spatial) if len(spatial) == 1 else tuple(spatial)


def _image(x: Value) -> Value:
    n, *extents, channels = _known(x)
    return x if len(extents) == 2 else reshape(x, (n, *_two(extents, 1), channels))


def _filter_planes(
    filter: Value, name: str, points: tuple[int, ...], turned: bool
) -> Value:
    """[planes, c, k] of a filter, an image of one tile with c * k channels."""
    *taps, c, k = _known(filter)
    reads = _two(taps, 1)
    op = TilePlanes(name, points, (1, 1), (1, 1), reads, (0, 0), turned)
    return reshape(emit(op, reshape(filter, (1, *reads, c * k))), (op.planes, c, k))  # type: ignore[no-any-return]


def _tiled(x: Value, filter: Value, pads: Pads, tiling: Tiling, turned: bool) -> Value:
    """The convolution; turned: with the filter around, from k to c channels."""
    n, *extents, _ = _known(x)
    *taps, c, k = _known(filter)
    sizes = tuple(h + sum(p) - f + 1 for h, p, f in zip(extents, pads, taps, strict=True))
    points, step = _two(tiling.points, 1), _two(tiling.step(tuple(taps)), 1)
    tiles = _two(tiling.tiles(sizes, tuple(taps)), 1)
    before = _two([b for b, _ in pads], 0)
    left, right, result = tiling.names()
    image = emit(TilePlanes(left, points, tiles, step, points, before), _image(x))
    # A product of spectra turns the filter around by itself.
    weights = _filter_planes(filter, right, points, turned != (tiling.algorithm == "fourier"))
    product = emit(BatchMatMul(adj_b=turned), image, weights)
    y = emit(TileResults(result, points, tiles, step, _two(sizes, 1)), product)
    return y if len(extents) == 2 else reshape(y, (n, *sizes, c if turned else k))  # type: ignore[no-any-return]


def tiled_filter_grad(x: Value, dy: Value, pads: Pads, tiling: Tiling) -> Value:
    """The gradient of ``tiled_conv`` for the filter, by Fourier's transform: a tile of dy is a
    filter that moves over its tile of x, and the sum over all tiles is part of the product."""
    _, *extents, c = _known(x)
    _, *sizes, k = _known(dy)
    taps = tuple(h + sum(p) - o + 1 for h, p, o in zip(extents, pads, sizes, strict=True))
    points, step = _two(tiling.points, 1), _two(tiling.step(taps), 1)
    tiles = _two(tiling.tiles(tuple(sizes), taps), 1)
    before = _two([b for b, _ in pads], 0)
    left, right, result = tiling.names()
    images = emit(TilePlanes(left, points, tiles, step, points, before), _image(x))
    slopes = emit(TilePlanes(right, points, tiles, step, step, (0, 0), True), _image(dy))
    product = emit(BatchMatMul(adj_a=True), images, slopes)
    reads = _two(taps, 1)
    whole = TileResults(result, points, (1, 1), reads, reads)
    dw = emit(whole, reshape(product, (whole.planes, 1, c * k)))
    return reshape(dw, (*taps, c, k))  # type: ignore[no-any-return]


# ---- windows side by side ------------------------------------------------------------------------
def _windows(op: ConvOp, taps: tuple[int, ...]) -> tuple[Any, ...]:
    """The attributes of the patches that ``op`` multiplies."""
    return tuple(taps), op.strides, op.padding, op.dilations, op.data_format


def _matrix(x: Value) -> Value:
    """The last axis as columns, all others as rows."""
    *rows, columns = _known(x)
    return reshape(x, (math.prod(rows), columns))  # type: ignore[no-any-return]


def im2col(op: ConvOp, x: Value, filter: Value) -> Value:
    """The convolution as patches times filter; channels last, one group."""
    *taps, c, k = _known(filter)
    windows = emit(Patches(*_windows(op, tuple(taps))), x)
    y = emit(MatMul(), _matrix(windows), reshape(filter, (math.prod(taps) * c, k)))
    return reshape(y, (*_known(windows)[:-1], k))  # type: ignore[no-any-return]


def im2col_input_grad(op: ConvOp, dy: Value, filter: Value, like: Value) -> Value:
    *taps, c, k = _known(filter)
    flat = reshape(filter, (math.prod(taps) * c, k))
    slopes = emit(MatMul(transpose_b=True), _matrix(dy), flat)
    windows = reshape(slopes, (*_known(dy)[:-1], math.prod(taps) * c))
    return emit(PatchesGrad(*_windows(op, tuple(taps))), windows, like)  # type: ignore[no-any-return]


def im2col_filter_grad(op: ConvOp, x: Value, dy: Value, shape: tuple[int, ...]) -> Value:
    """shape: of the filter."""
    windows = emit(Patches(*_windows(op, shape[:-2])), x)
    return reshape(emit(MatMul(transpose_a=True), _matrix(windows), _matrix(dy)), shape)  # type: ignore[no-any-return]
