"""Contractions whose operands are read where they are.

Main function: ``lower_direct``. May import core, ir and contraction.tile.
"""

from __future__ import annotations

from tinyflow.ir.loop.nodes import Body
from tinyflow.ir.scalar import nodes as s
from tinyflow.schedule.contraction.problem import Problem
from tinyflow.schedule.contraction.tile import TERM, Tile, over_tiles, results, tile_cases
from tinyflow.schedule.lowering import Axes, LoweredKernel


def lower_direct(p: Problem) -> LoweredKernel:
    """Tiles read a and b in place; the epilogue runs on the accumulators."""
    i, j = s.var("it"), s.var("jt")

    def tile(rows: int, width: int) -> Body:
        t = Tile(p, rows, width)
        i0, j0 = i * p.rows, j * p.width
        body = t.start(s.const(0, p.dtype))
        b = p.b(TERM, j0 + t.offset)
        body += t.sweep(p.k, lambda u: p.a(i0 + u, TERM), b, b_masked=True)
        body += t.over_rows(t.lanes(results(p, t, i0, j0)))
        return t.whole(body)

    body = tile_cases(p, i, j, tile)
    tiles: Axes = [(i, p.row_tiles), (j, p.panels)]
    # Threads share the larger operand, so that each of them reads only its part of it.
    if p.n > p.m and p.panels > 1:
        tiles.reverse()
    steps = [
        f"tile(i, j, {p.rows}, {p.width})", "reorder(k, i.i, j.i)", "cache_write(acc, register)",
        "unroll(i.i)", f"vectorize(j.i, {p.lanes})",
    ]  # fmt: skip
    return over_tiles(p, body, tiles, steps)
