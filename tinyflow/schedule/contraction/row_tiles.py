"""Contractions that pack tiles of a transposed a: weight gradients.

Main functions: ``lower_row_tiles``, ``a_is_turned``. May import core, ir, contraction.tile and
contraction.sums.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinyflow.ir.loop import visit as loop_visit
from tinyflow.ir.loop.nodes import VECTORIZE, Alloc, Body, Buffer, For, If, Store
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.schedule.contraction.paired import PackedElement, pack_terms
from tinyflow.schedule.contraction.problem import Problem, extent_of
from tinyflow.schedule.contraction.sums import (
    BLOCK_TERMS,
    BlockSums,
    blocks_of,
    flat_index,
    in_bands,
)
from tinyflow.schedule.contraction.tile import (
    LANE,
    MANY_TASKS,
    Tile,
    cases,
    over_tiles,
    tile_cases,
    tile_steps,
)
from tinyflow.schedule.grain import nest
from tinyflow.schedule.lowering import LoweredKernel, Scratch
from tinyflow.schedule.targets import Target

#: Bytes between two terms of a from which on a tile of it is packed, for so many panels.
TURNED = 256
TURNED_PANELS = 4
#: Terms of a packed tile of a: it stays in the first-level cache while panels of b pass.
TILE_TERMS = 576
#: Terms below which the columns are shared out among tasks instead.
GROUP_TERMS = 256
#: Tiles of rows per task where no other axis gives tasks: b passes once for all of them.
BAND_TILES = 10


def a_is_turned(p: Problem) -> bool:
    """Whether a's terms are apart and its rows side by side, and enough panels read a tile."""
    return (
        p.a_row_stride == 1
        and (p.a_stride or 0) * p.dtype.size_bytes >= TURNED
        and p.panels * extent_of(p.column_loops) >= TURNED_PANELS
        and p.rows <= p.lanes
        and p.row_tiles > 1
        and p.k >= 32
    )


def lower_row_tiles(
    p: Problem, target: Target, element: PackedElement | None = None,
    scratch: Sequence[tuple[Buffer, Scratch]] = (),
) -> LoweredKernel:  # fmt: skip
    """A block of terms at a time, tiles of a transposed a, whose every term is in another line, are
    packed on the stack; all panels of b pass each of them. The block of b stays in the cache.

    element: of b at the summed axes' values, a panel and a column within it, where b was packed.
    """
    i, j = s.var("it"), s.var("jt")
    columns = p.n * extent_of(p.column_loops) * p.dtype.size_bytes
    # Where a block of all columns would be short, each task takes some of them.
    half = target.l2_bytes // 2
    groups = 1 if p.column_loops else min(p.panels, -(-columns * GROUP_TERMS // half))
    fit = half // -(-columns // groups)
    blocks = blocks_of(p, max(BLOCK_TERMS, min(TILE_TERMS, fit)))
    sums = BlockSums(p, blocks)
    local = list(zip([v for v, _ in blocks.inner], blocks.sizes, strict=True))
    by_terms = p.paired and p.a_stride == 1
    slots = p.rows if by_terms else p.lanes
    packed = Buffer("a_tile", p.dtype, (extent_of(local) * slots,), "stack")

    def place(u: Expr) -> Expr:
        return flat_index([(u, slots), *local] if by_terms else [*local, (u, slots)])

    def pack(rows: int) -> Body:
        if by_terms:
            return pack_terms(p, packed, place, i, blocks.inner, blocks.at, rows)
        value = p.a(p.row_at(i, LANE), blocks.at, s.index(0))
        store: Body = (Store(packed, (place(LANE),), value),)
        if rows < p.lanes:
            store = (If(rows > LANE, store),)
        return (For(LANE, p.lanes, VECTORIZE, store),)

    def b(t: Tile) -> Expr:
        if element is not None:
            return element(blocks.at, j, t.offset)
        return p.b(blocks.at, j * p.width + t.offset)

    full, rest = p.m // p.rows, p.m % p.rows
    packing = cases(i, p.row_tiles, full, pack(p.rows) if full else (), pack(rest) if rest else ())
    packing = packing if by_terms else nest(blocks.inner, packing)
    tiles = tile_cases(
        p, i, j,
        lambda rows, width: sums.tile(rows, width, i, j, b, element is None,
                                      lambda u: s.load(packed, place(u))),
    )  # fmt: skip
    group, band = s.var("group"), s.var("band")
    panels, value = in_bands((j, p.panels), groups, group)
    tiles = loop_visit.substitute_vars(nest([*p.column_loops, panels], tiles), {j: value})
    body = packing + tiles
    tasks, around = list(p.shared), list(p.row_loops)
    while around and extent_of(tasks) < MANY_TASKS and extent_of(tasks) % 2:
        tasks.append(around.pop(0))
    bands = 1
    if extent_of(tasks) == 1:
        bands = min(p.row_tiles, 2 * -(-p.row_tiles // (2 * BAND_TILES)))
    tile_rows, value = in_bands((i, p.row_tiles), bands, band)
    body = loop_visit.substitute_vars(nest([*around, tile_rows], body), {i: value})
    steps = [*tile_steps(p), "cache_read(a, tile)"]
    if blocks.count > 1:
        steps.insert(0, f"split(k, {blocks.count} blocks)")
    axes = [*tasks, (group, groups), (band, bands), (s.var("all"), 1)]
    return over_tiles(p, (Alloc(packed, sums.repeat(body)),), axes, steps,
                      [*scratch, *sums.scratch])  # fmt: skip
