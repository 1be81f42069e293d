"""Long sums: a block of terms at a time, the sums of a tile kept in memory in between.

Main types: ``Blocks``, ``BlockSums``. May import core, ir and contraction.tile.

What comes from memory continues the same chain, so that blocks change no bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tinyflow.ir.loop.nodes import SERIAL, Body, Buffer, For, If, Store
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ir.scalar.visit import plain
from tinyflow.schedule.contraction.problem import Problem
from tinyflow.schedule.contraction.tile import ROW, Tile, at_tile, hints, results
from tinyflow.schedule.lowering import Axes, Scratch

#: Terms of a block: at least so many for one visit of a tile's partial sums.
BLOCK_TERMS = 128


@dataclass
class Blocks:
    """A block of terms: ``count`` of them, ``block`` its number, ``inner`` the axes within one and
    their largest extents ``sizes``, ``at`` the summed axes' values in terms of both."""

    block: Expr
    count: int
    inner: Axes
    sizes: list[int]
    at: list[Expr]


def blocks_of(p: Problem, most: int) -> Blocks:
    """Blocks of at most ``most`` terms, as equal as they can be, made of whole inner axes."""
    position, length = len(p.terms), 1
    while position and length * p.terms[position - 1][1] <= most:
        position -= 1
        length *= p.terms[position][1]
    inner = p.terms[position:]
    at, sizes = [v for v, _ in inner], [e for _, e in inner]
    block, count = s.var("kb"), 1
    rest: Expr = block
    for number, (var, extent) in enumerate(reversed(p.terms[:position])):
        if number:
            parts, value = extent, rest % s.index(extent)
        else:  # the axis that is cut
            size = -(-extent // -(-extent // max(1, most // length)))
            parts = -(-extent // size)
            first = (rest % s.index(parts)) * size
            here = s.index(size)
            if extent % size:
                here = s.minimum(here, s.index(extent) - first)
            inner, sizes = [(var, plain(here)), *inner], [size, *sizes]
            value = first + var
        at.insert(0, value)
        rest = rest // s.index(parts)
        count *= parts
    return Blocks(block, count, inner, sizes, at)


class BlockSums:
    """A tile's sums over one block of terms after the other, kept in memory in between."""

    def __init__(self, p: Problem, blocks: Blocks) -> None:
        self.p, self.blocks = p, blocks
        self.scratch: list[tuple[Buffer, Scratch]] = []
        if p.bare or blocks.count == 1:
            self.total = p.x.buffer(p.item.value)
        else:
            size = p.item.value.type.size
            self.total = Buffer("partial", p.dtype, (size,))
            self.scratch.append((self.total, Scratch(p.dtype, size, "partial")))

    def tile(
        self, rows: int, width: int, i: Expr, j: Expr, b: Callable[[Tile], Expr], masked: bool,
        a: Callable[[Expr], Expr] | None = None,
    ) -> Body:  # fmt: skip
        p, blocks = self.p, self.blocks
        t = Tile(p, rows, width)
        zero = t.start(s.const(0, p.dtype))
        done = t.over_rows(t.lanes(results(p, t, i, j * p.width)))
        if a is None:
            sweep = sweep_tile(p, t, i, j, blocks.inner, blocks.at, b(t), masked)
        else:
            sweep = t.sweep(blocks.inner, a, b(t), masked)
        if blocks.count == 1:
            return t.whole(zero + hints(p, t, i, j) + sweep + done)
        place = (p.x.position(p.item),)
        # Placed before the lanes are made: the last vector of a narrow tile has no variable.
        resume, keep = (
            t.over_rows(t.lanes(at_tile(p, (copy,), p.row_at(i, ROW), j * p.width + t.offset)))
            for copy in (
                Store(t.acc, t.at, s.load(self.total, *place)),
                Store(self.total, place, s.load(t.acc, *t.at)),
            )
        )
        first, last = blocks.block.equal(0), blocks.block.equal(blocks.count - 1)
        start = If(first, zero, (zero if width % p.lanes else ()) + resume)
        end = keep if p.bare else (If(last, done, keep),)
        return t.whole((start, *sweep, *end))

    def repeat(self, body: Body) -> Body:
        return (For(self.blocks.block, self.blocks.count, SERIAL, body),)


def sweep_tile(
    p: Problem, t: Tile, i: Expr, j: Expr, axes: Axes, terms: Sequence[Expr], b: Expr, masked: bool
) -> Body:
    """The sums over ``axes``; terms: the summed axes' values in terms of them."""
    column = j * p.width + t.offset
    return t.sweep(axes, lambda u: p.a(p.row_at(i, u), terms, column), b, masked)


def flat_index(axes: Sequence[tuple[Expr, int]]) -> Expr:
    """Row-major element number of a position given as (index, extent) pairs."""
    at = s.index(0)
    for index, extent in axes:
        at = at * s.index(extent) + index
    return at


def in_bands(axis: tuple[Expr, Any], bands: int, band: Expr) -> tuple[tuple[Expr, Any], Expr]:
    """The loop over share ``band`` of an axis, ``bands`` shares that differ by one at the most, and
    the axis's value in terms of it."""
    var, extent = axis
    if bands == 1:
        return axis, var
    within = s.var(f"in_{band.attr}")
    first = band * extent // bands
    return (within, plain((band + 1) * extent // bands - first)), first + within
