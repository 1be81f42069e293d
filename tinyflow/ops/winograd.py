"""3x3 convolutions with fewer products: Winograd's minimal filtering.

Main functions: ``winograd_conv``, ``winograd_input_grad``; ``WinogradTile`` holds one algorithm's
matrices. May import conv_products, contraction, elementwise, movement, padding and slicing.

A tile of m x m results reads (m+2) x (m+2) elements of x. With d those and g the filter,
Y = A^T [(G g G^T) * (B^T d B)] A takes (m+2)**2 products per channel instead of 9 * m**2: 2.25
times fewer for m = 2, 4 times fewer for m = 4. Products over channels are plain matrix products.
Rounding: the matrices of m = 2 hold 0, 1 and 1/2 only, and the sums are shorter than those of the
direct form; those of m = 4 lose about one digit.
Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tinyflow.ops.base import Value, emit
from tinyflow.ops.contraction import matmul
from tinyflow.ops.conv_products import Interleave
from tinyflow.ops.elementwise import add, multiply, negative, subtract
from tinyflow.ops.movement import reshape
from tinyflow.ops.padding import Pad
from tinyflow.ops.strided import strided_slice

#: a grid of values, rows first
Grid = list[list[Value]]
Rows = tuple[tuple[float, ...], ...]


class WinogradTile(NamedTuple):
    """F(size x size, 3 x 3): the matrices B^T of x, G of the filter and A^T of the result."""

    size: int
    input: Rows
    filter: Rows
    output: Rows


F2 = WinogradTile(
    2,
    ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1)),
    ((1, 1, 1, 0), (0, 1, -1, -1)),
)
F4 = WinogradTile(
    4,
    (
        (4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1),
    ),
    (
        (1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1),
    ),
    (
        (1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1),
    ),
)  # fmt: skip


def winograd_conv(
    x: Value, filter: Value, pads: list[tuple[int, int]], tile: WinogradTile
) -> Value:
    """Convolution without stride: x [n, h, w, c], filter [3, 3, c, k], y [n, h', w', k].

    pads: zeros before and after each spatial axis. All extents are known.
    """
    taps = [[_tap(filter, i, j) for j in range(3)] for i in range(3)]
    return _tiled(x, taps, False, pads, tile)


def winograd_input_grad(
    dy: Value, filter: Value, pads: list[tuple[int, int]], tile: WinogradTile
) -> Value:
    """The gradient of ``winograd_conv`` for x: the convolution of dy with the filter turned around
    and its channels exchanged.

    pads: those of the convolution, at most 2 each.
    """
    taps = [[_tap(filter, 2 - i, 2 - j) for j in range(3)] for i in range(3)]
    return _tiled(dy, taps, True, [(2 - before, 2 - after) for before, after in pads], tile)


def _tiled(
    x: Value, taps: Grid, turned: bool, pads: list[tuple[int, int]], tile: WinogradTile
) -> Value:
    """The convolution with a filter given tap by tap; turned: each tap is [k, c]."""
    n, *extents, channels = x.type.shape  # type: ignore[misc]
    outputs = taps[0][0].type.shape[0 if turned else 1]  # type: ignore[index]
    sizes = [h + sum(pad) - 2 for h, pad in zip(extents, pads, strict=True)]
    tiles = [-(-size // tile.size) for size in sizes]
    whole = [
        (before, after + count * tile.size - size)
        for (before, after), count, size in zip(pads, tiles, sizes, strict=True)
    ]
    padded = emit(Pad(((0, 0), *whole, (0, 0))), x)
    read = range(tile.size + 2)
    elements = [[_every(padded, i, j, tiles, tile.size) for j in read] for i in read]
    rows = (n * tiles[0] * tiles[1], channels)
    left = _transformed(tile.input, elements)
    right = _transformed(tile.filter, taps)
    products = [
        [matmul(reshape(v, rows), u, transpose_b=turned) for v, u in zip(a, b, strict=True)]
        for a, b in zip(left, right, strict=True)
    ]
    results = [
        reshape(part, (n, *tiles, outputs))
        for row in _transformed(tile.output, products) for part in row
    ]  # fmt: skip
    steps = (tile.size,) * 2
    present = (True,) * tile.size**2
    return emit(Interleave(steps, tuple(sizes), present), *results)  # type: ignore[no-any-return]


def _every(x: Value, i: int, j: int, tiles: list[int], step: int) -> Value:
    """Element (i, j) of every tile: [n, tiles, tiles, c]."""
    n, *_, channels = x.type.shape  # type: ignore[misc]
    begin = (0, i, j, 0)
    end = (n, i + (tiles[0] - 1) * step + 1, j + (tiles[1] - 1) * step + 1, channels)
    return strided_slice(x, begin, end, (1, step, step, 1))  # type: ignore[no-any-return]


def _tap(filter: Value, i: int, j: int) -> Value:
    return strided_slice(filter, (i, j), (i + 1, j + 1), (1, 1), shrink_axis_mask=3)  # type: ignore[no-any-return]


def _transformed(matrix: Rows, grid: Grid) -> Grid:
    """matrix @ grid @ matrix^T, element by element."""
    columns = [
        [_combined(row, [line[j] for line in grid]) for j in range(len(grid[0]))] for row in matrix
    ]
    return [[_combined(row, line) for row in matrix] for line in columns]


def _combined(row: tuple[float, ...], values: list[Value]) -> Value:
    """sum of row[i] * values[i]; factors of 0, 1 and -1 cost nothing."""
    total: Any = None
    for factor, value in zip(row, values, strict=True):
        if factor == 0:
            continue
        size = value if abs(factor) == 1 else multiply(value, abs(factor))
        if total is None:
            total = size if factor > 0 else negative(size)
        else:
            total = (add if factor > 0 else subtract)(total, size)
    return total  # type: ignore[no-any-return]
