"""3x3 convolutions with fewer products: the matrices of Winograd's minimal filtering.

Main names: ``WinogradTile``, of which ``TILES`` holds two; ``combined`` applies a matrix. Imports
only the standard library.

A tile of m x m results reads (m+2) x (m+2) elements of x. With d those and g the filter,
Y = A^T [(G g G^T) * (B^T d B)] A takes (m+2)**2 products per channel instead of 9 * m**2: 2.25
times fewer for m = 2, 4 times fewer for m = 4. Products over channels are plain matrix products.
Rounding: the matrices of m = 2 hold 0, 1 and 1/2 only, and the sums are shorter than those of the
direct form; those of m = 4 lose about one digit.
Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

Rows = tuple[tuple[float, ...], ...]


class WinogradTile(NamedTuple):
    """F(size x size, 3 x 3): the matrices B^T of image, G of filter and A^T of result."""

    size: int
    image: Rows
    filter: Rows
    result: Rows


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

#: elements of x along one axis of a tile -> the algorithm
TILES = {tile.size + 2: tile for tile in (F2, F4)}


def combined(matrix: Rows, values: Sequence[Any]) -> list[Any]:
    """matrix @ values; factors of 0, 1 and -1 cost nothing."""
    found = []
    for row in matrix:
        total: Any = None
        for factor, value in zip(row, values, strict=True):
            if factor == 0:
                continue
            term = value if abs(factor) == 1 else value * abs(factor)
            if total is None:
                total = term if factor > 0 else -term
            else:
                total = total + term if factor > 0 else total - term
        found.append(total)
    return found
