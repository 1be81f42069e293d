"""Contractions whose operands are read where they are.

Main functions: ``lower_in_place``, ``lower_long``, ``lower_streamed``. May import core, ir,
contraction.tile and contraction.sums.
"""

from __future__ import annotations

from dataclasses import replace

from tinyflow.ir.loop import visit as loop_visit
from tinyflow.ir.loop.nodes import SERIAL, Body, For
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ir.scalar.visit import plain
from tinyflow.schedule.contraction.problem import Problem, extent_of
from tinyflow.schedule.contraction.sums import BLOCK_TERMS, BlockSums, blocks_of, sweep_tile
from tinyflow.schedule.contraction.tile import (
    MANY_TASKS,
    Tile,
    hints,
    over_tiles,
    results,
    tile_cases,
    tile_steps,
)
from tinyflow.schedule.grain import nest
from tinyflow.schedule.lowering import LoweredKernel
from tinyflow.schedule.targets import Target

#: Few terms, and the tile for them.
THIN_TERMS, THIN_ROWS, THIN_VECTORS = 32, 2, 8
#: One tile's rows only: b streams from memory, so many of its rows at a time ...
STREAMED_TERMS = 8
#: ... and so many bytes of each (two pages).
STREAMED_BYTES = 8192


def lower_in_place(p: Problem, target: Target) -> LoweredKernel:
    """One pass over all terms per tile."""
    i, j = s.var("it"), s.var("jt")
    terms = [v for v, _ in p.terms]

    def tile(rows: int, width: int) -> Body:
        t = Tile(p, rows, width)
        b = p.b(terms, j * p.width + t.offset)
        sweep = hints(p, t, i, j) + sweep_tile(p, t, i, j, p.terms, terms, b, True)
        finish = t.over_rows(t.lanes(results(p, t, i, j * p.width)))
        return t.whole(t.start(s.const(0, p.dtype)) + sweep + finish)

    body = tile_cases(p, i, j, tile)
    rows_first = [*p.shared, *p.row_loops, (i, p.row_tiles), *p.column_loops, (j, p.panels)]
    columns_first = [*p.shared, *p.column_loops, (j, p.panels), *p.row_loops, (i, p.row_tiles)]
    # Threads share the larger operand, so that each of them reads only its part of it, and panels
    # that do not stay in the cache together stay there one at a time.
    b_bytes = p.k * p.n * extent_of(p.column_loops) * p.dtype.size_bytes
    swap = (p.n > p.all_rows or b_bytes > target.l2_bytes // 2) and not is_thin(p, target)
    if p.tuning.order is not None:
        swap = p.tuning.order == "columns"
    tiles = columns_first if swap and p.panels * extent_of(p.column_loops) > 1 else rows_first
    return over_tiles(p, body, tiles, tile_steps(p))


def is_thin(p: Problem, target: Target) -> bool:
    """Whether the result is large and takes few terms: its memory is the work (a weight gradient
    of a small batch, with the update behind it)."""
    result_bytes = p.all_rows * p.n * p.dtype.size_bytes
    plain = p.b_stride == 1 and not p.shared and not p.column_loops and p.panels > 1
    return 0 < p.k <= THIN_TERMS and plain and p.row_tiles > 1 and result_bytes > target.l2_bytes


def thin(p: Problem) -> Problem:
    """Few rows at a time, so that each is read and written as one stream."""
    return replace(p, rows=min(p.rows, THIN_ROWS), vectors=min(-(-p.n // p.lanes), THIN_VECTORS))


def lower_long(p: Problem, target: Target) -> LoweredKernel:
    """For every block of terms all tiles: the block of both operands stays in the cache."""
    i, j = s.var("it"), s.var("jt")
    # Loops around the rows walk the taps of a filter, which read the same pixels.
    term_bytes = (p.m + p.n * extent_of(p.column_loops)) * p.dtype.size_bytes
    most = max(BLOCK_TERMS, target.l2_bytes // 2 // term_bytes)
    blocks = blocks_of(p, p.tuning.kc or most)
    sums = BlockSums(p, blocks)

    def b(t: Tile) -> Expr:
        return p.b(blocks.at, j * p.width + t.offset)

    tiles = tile_cases(p, i, j, lambda rows, width: sums.tile(rows, width, i, j, b, True))
    tasks, rest = list(p.shared), [*p.row_loops, (i, p.row_tiles), *p.column_loops, (j, p.panels)]
    # Tasks of equal length for an even number of threads; each reads its operands through.
    while extent_of(tasks) < MANY_TASKS and extent_of(tasks) % 2 and len(rest) > 1:
        tasks.append(rest.pop(0))
    steps = [f"split(k, {blocks.count} blocks)", *tile_steps(p)]
    axes = [*tasks, (s.var("all"), 1)]
    return over_tiles(p, sums.repeat(nest(rest, tiles)), axes, steps, sums.scratch)


def is_streamed(p: Problem, target: Target) -> bool:
    """Whether b passes once, and its rows are longer than what one stream of it should be."""
    row_bytes = p.n * p.dtype.size_bytes
    return p.panel_uses == 1 and p.k * row_bytes > target.l2_bytes and row_bytes >= STREAMED_BYTES


def lower_streamed(p: Problem) -> LoweredKernel:
    """One tile of rows: b comes from memory once, pages of a few of its rows at a time."""
    i, j = s.index(0), s.var("jt")
    blocks = blocks_of(p, STREAMED_TERMS)
    sums = BlockSums(p, blocks)

    def b(t: Tile) -> Expr:
        return p.b(blocks.at, j * p.width + t.offset)

    tiles = tile_cases(p, i, j, lambda rows, width: sums.tile(rows, width, i, j, b, True))
    # An even number of groups: two threads finish together.
    groups = 2 * -(-p.n * p.dtype.size_bytes // (2 * STREAMED_BYTES))
    together = -(-p.panels // groups)
    groups = -(-p.panels // together)
    group, within = s.var("jg"), s.var("jp")
    here = s.minimum(s.index(together), s.index(p.panels) - group * together)
    tiles = loop_visit.substitute_vars(tiles, {j: group * together + within})
    body = sums.repeat((For(within, plain(here), SERIAL, tiles),))
    steps = [f"split(k, {blocks.count} blocks)", *tile_steps(p)]
    axes = [*p.shared, (group, groups), (s.var("all"), 1)]
    return over_tiles(p, body, axes, steps, sums.scratch)
