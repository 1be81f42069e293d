"""Contractions larger than the caches: packed panels and bands.

Main function: ``lower_blocked``. May import core, ir and contraction.tile.
"""

from __future__ import annotations

from tinyflow.ir.loop import visit as loop_visit
from tinyflow.ir.loop.nodes import (
    PARALLEL,
    SERIAL,
    UNROLL,
    VECTORIZE,
    Alloc,
    Body,
    Buffer,
    Call,
    For,
    If,
    Store,
)
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ir.scalar.visit import plain
from tinyflow.schedule.contraction.problem import Problem
from tinyflow.schedule.contraction.tile import (
    LANE,
    ROW,
    TERM,
    VECTOR,
    Tile,
    cases,
    hints,
    results,
    tile_cases,
)
from tinyflow.schedule.lowering import LoweredKernel, Scratch

#: Steps of k between two visits of a tile: the row part of a tile (28 KiB of floats) stays in L1.
KC = 512
#: Panels of b that one pass over a band works on: GROUP x 64 KiB stay in the second-level cache.
GROUP = 12
#: Bytes of a's packed band: it streams from the second-level cache while b's panel stays in L1.
BAND_BYTES = 192 * 1024


def _kc(p: Problem) -> int:
    """KC, or what was found better; a tile's part of a band must fit on the stack."""
    most = BAND_BYTES // (p.rows * p.dtype.size_bytes)
    return min(p.tuning.kc or KC, most)


def lower_blocked(p: Problem) -> list[LoweredKernel]:
    """pack b, then bands of rows: for each KC of k, pack a, sweep all panels."""
    size = -(-p.k // _kc(p)) * _kc(p) * p.panels * p.width
    packed = Buffer("b_packed", p.dtype, (size,))
    scratch = [(packed, Scratch(p.dtype, size, "b_packed"))]
    kernels = [p.x.kernel(_pack_b(p, packed), ["cache_read(b, panels)", "parallel(j.o)"], 0, 1,
                          scratch, "_pack")]  # fmt: skip
    if p.bare:
        total: Buffer = p.x.buffer(p.item.value)
    else:
        total = Buffer("partial", p.dtype, (p.m * p.n,))
        scratch.append((total, Scratch(p.dtype, p.m * p.n, "partial")))
    band, tile_row = s.var("band"), s.var("it")
    tiles = max(1, (p.tuning.band_bytes or BAND_BYTES) // (_kc(p) * p.rows * p.dtype.size_bytes))
    # An even number of bands, equal to within one tile: two threads finish together.
    bands = min(p.row_tiles, 2 * -(-p.row_tiles // (2 * tiles)))
    first = band * p.row_tiles // bands
    in_band = (band + 1) * p.row_tiles // bands - first
    a_packed = Buffer("a_packed", p.dtype, (tiles * _kc(p) * p.rows,), "stack")
    block = s.var("kb")
    length = _terms_of(p, block)
    panel = s.var("jt")
    packing = _pack_a(p, a_packed, first, tile_row, block, length)
    pack = For(tile_row, plain(in_band), SERIAL, packing)
    group, in_group = s.var("jg"), s.var("jp")
    per_pass = p.tuning.group or GROUP
    groups = -(-p.panels // per_pass)
    here = (
        s.index(per_pass) if p.panels % per_pass == 0
        else s.minimum(s.index(per_pass), s.index(p.panels) - group * per_pass)
    )  # fmt: skip
    tiles_body = _blocked_tiles(
        p, packed, a_packed, total, first, tile_row, panel, block, length
    )
    tiles_body = loop_visit.substitute_vars(tiles_body, {panel: group * per_pass + in_group})
    row_of_tiles = For(in_group, plain(here), SERIAL, tiles_body)
    sweep = For(group, groups, SERIAL, (For(tile_row, plain(in_band), SERIAL, (row_of_tiles,)),))
    body: Body = (For(block, -(-p.k // _kc(p)), SERIAL, (pack, sweep)),)
    body = (Alloc(a_packed, body),)
    steps = [
        f"tile(i, j, {p.rows}, {p.width})", f"split(k, {_kc(p)})", "cache_read(a, band)",
        "cache_write(acc, register)", "unroll(i.i)", f"vectorize(j.i, {p.lanes})",
        "parallel(band)",
    ]  # fmt: skip
    kernels.append(
        p.x.kernel((For(band, bands, PARALLEL, body),), steps, 2 * p.m * p.n * p.k, 1, scratch)
    )
    return kernels


def _pack_b(p: Problem, packed: Buffer) -> Body:
    """b_packed[k // KC, panel, k % KC, column]: what a pass over a band reads stands together.

    Panels at a distance of a power of two would share a part of the second-level cache's sets.
    """
    panel, block = s.var("jt"), s.var("kb")
    column = panel * p.width + VECTOR * p.lanes + LANE
    at = (_packed_row(p, block, panel, TERM) * p.width + VECTOR * p.lanes + LANE,)
    store: Body = (Store(packed, at, p.b([block * _kc(p) + TERM], column)),)
    if p.n % p.width:
        zero = Store(packed, at, s.const(0, p.dtype))
        store = (If(column < p.n, store, (zero,)),)
    vectors = For(VECTOR, p.vectors, UNROLL, (For(LANE, p.lanes, VECTORIZE, store),))
    terms = For(TERM, plain(_terms_of(p, block)), SERIAL, (vectors,))
    return (For(panel, p.panels, PARALLEL, (For(block, -(-p.k // _kc(p)), SERIAL, (terms,)),)),)


def _packed_row(p: Problem, block: Expr, panel: Expr, term: Expr) -> Expr:
    return (block * p.panels + panel) * _kc(p) + term


def _terms_of(p: Problem, block: Expr) -> Expr:
    """Number of terms in a block: KC, fewer in the last one."""
    full = s.index(_kc(p))
    return full if p.k % _kc(p) == 0 else s.minimum(full, s.index(p.k) - block * _kc(p))


def _pack_a(
    p: Problem, packed: Buffer, first: Expr, tile: Expr, block: Expr, length: Expr
) -> Body:
    """a_packed[tile, k, row]: the broadcasts of one step of k stand together."""

    def rows(count: int) -> Body:
        # A cache line of a row at a time: rows whose distance is a power of two share cache sets,
        # so a line that is left is gone when the next element of it is wanted.
        outer, inner = s.var("ko"), s.var("ki")
        value = p.a(p.row_at(first + tile, ROW), [block * _kc(p) + TERM], s.index(0))
        at = ((tile * _kc(p) + TERM) * p.rows + ROW,)
        copy: Body = (Store(packed, at, value),)
        line = loop_visit.substitute_vars(copy, {TERM: outer * 16 + inner})
        body: Body = ()
        full = length // 16
        body += (For(outer, plain(full), SERIAL,
                     (For(ROW, count, SERIAL, (For(inner, 16, UNROLL, line),)),)),)  # fmt: skip
        if not (length.is_const and length.attr % 16 == 0):
            rest = loop_visit.substitute_vars(copy, {TERM: full * 16 + inner})
            body += (For(ROW, count, SERIAL,
                         (For(inner, plain(length - full * 16), SERIAL, rest),)),)  # fmt: skip
        return body

    full, rest = p.m // p.rows, p.m % p.rows
    return cases(first + tile, p.row_tiles, full, rows(p.rows) if full else (),
                  rows(rest) if rest else ())  # fmt: skip


def _blocked_tiles(
    p: Problem, b_packed: Buffer, a_packed: Buffer, total: Buffer, first: Expr, tile_row: Expr,
    panel: Expr, block: Expr, length: Expr,
) -> Body:  # fmt: skip
    """One tile's KC steps: partial sums come from memory and go back, at last to the results."""

    def tile(rows: int, width: int) -> Body:
        t = Tile(p, rows, width)
        i = (first + tile_row) * p.rows + ROW
        j = panel * p.width + t.offset
        at = (i * p.n + j,)
        zero = t.start(s.const(0, p.dtype))
        resume = t.over_rows(t.lanes((Store(t.acc, t.at, s.load(total, *at)),)))
        body: Body = zero
        if p.k > _kc(p):
            partial_lanes = zero if width % p.lanes else ()
            body = (If(block.equal(0), zero, partial_lanes + resume),)
        body += _prefetch_next(p, total, rows, first + tile_row, panel)
        b = s.load(b_packed, _packed_row(p, block, panel, TERM) * p.width + t.offset)
        body += t.sweep(
            [(TERM, plain(length))],
            lambda u: s.load(a_packed, (tile_row * _kc(p) + TERM) * p.rows + u),
            b,
            b_masked=False,
        )
        keep = t.over_rows(t.lanes((Store(total, at, s.load(t.acc, *t.at)),)))
        if p.bare:
            return t.whole(body + keep)
        row = first + tile_row
        done = t.over_rows(t.lanes(results(p, t, row, panel * p.width)))
        last = block.equal(-(-p.k // _kc(p)) - 1)
        return t.whole(hints(p, t, row, panel) + body + (If(last, done, keep),))

    return tile_cases(p, first + tile_row, panel, tile)


def _prefetch_next(p: Problem, total: Buffer, rows: int, tile: Expr, panel: Expr) -> Body:
    """Asks for the next tile's partial sums: its rows lie in as many pages, which no hardware
    prefetcher follows, and this tile's k loop hides the way to memory."""
    row, vector = s.var("u"), s.var("v")
    following = s.minimum(panel + 1, s.index(p.panels - 1))
    index = (tile * p.rows + row) * p.n + following * p.width + vector * p.lanes
    hint = Call("prefetch", (total, index))
    return (For(row, rows, UNROLL, (For(vector, p.vectors, UNROLL, (hint,)),)),)
