"""Narrow contractions: STRIPE chains per result, folded by the fixed tree.

Main functions: ``lower_striped_rows``, ``lower_striped_terms``. May import core, ir, te and
contraction.tile.
"""

from __future__ import annotations

from collections.abc import Callable

from tinyflow.ir.loop.nodes import SERIAL, UNROLL, VECTORIZE, Alloc, Body, Buffer, For, If, Store
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ir.scalar.visit import plain
from tinyflow.schedule.contraction.problem import Problem, stride_along
from tinyflow.schedule.contraction.tile import (
    TERM,
    Tile,
    at_tile,
    cases,
    multiply_add,
    over_tiles,
    results,
    tile_cases,
)
from tinyflow.schedule.lowering import LoweredKernel
from tinyflow.te.canonical import STRIPE


def lower_striped_rows(p: Problem) -> LoweredKernel:
    """Vectors run along the rows: the stripes one after the other, their sums kept on the stack."""
    i, j, stripe = s.var("it"), s.var("jt"), s.var("stripe")

    def tile(rows: int, width: int) -> Body:
        t = Tile(p, rows, width)
        j0 = j * p.width
        length = rows * t.vectors * p.lanes
        sums = Buffer("stripes", p.dtype, (STRIPE, length), "stack")
        term = p.split_term(TERM * STRIPE + stripe)
        count = (s.index(p.k + STRIPE - 1) - stripe) // STRIPE
        body = t.start(s.const(0, p.dtype))
        body += t.sweep(
            [(TERM, count)],
            lambda u: p.a(p.row_at(i, u), term, j0 + t.offset),
            p.b(term, j0 + t.offset),
            b_masked=True,
        )
        body += t.over_rows(
            t.lanes((Store(sums, (stripe, *t.at), s.load(t.acc, *t.at)),), masked=False)
        )
        nest: Body = (For(stripe, STRIPE, SERIAL, t.whole(body)),)
        half = STRIPE // 2
        while half:
            both = s.load(sums, stripe, *t.at) + s.load(sums, stripe + half, *t.at)
            fold = t.over_rows(t.lanes((Store(sums, (stripe, *t.at), both),), masked=False))
            nest += (For(stripe, half, SERIAL, fold),)
            half //= 2
        final = s.load(sums, s.index(0), *t.at)
        finish = t.over_rows(t.lanes((Store(t.acc, t.at, final),), masked=False))
        finish += t.over_rows(t.lanes(results(p, t, i, j0)))
        return (Alloc(sums, nest + t.whole(finish)),)

    body = tile_cases(p, i, j, tile)
    steps = [
        f"tile(j, i, {p.rows}, {p.width})", f"stripe(k, {STRIPE})", "reorder(k.l, k.o, j.i, i.i)",
        "cache_write(acc, register)", "unroll(j.i)", f"vectorize(i.i, {p.lanes})",
    ]  # fmt: skip
    return over_tiles(p, body, [*p.outer, (j, p.panels), (i, p.row_tiles)], steps)


#: Rows of a striped product per task: b is transposed once for each.
STRIPED_BAND = 50


def lower_striped_terms(p: Problem) -> LoweredKernel:
    """Vectors run along k: STRIPE partial sums per result are one vector, folded at the end."""
    blocks = -(-p.k // STRIPE)
    columns = max(1, min(p.n, 10))
    rows = max(1, min(p.m, 20 // columns))
    band, tile_row = s.var("band"), s.var("it")
    tiles = max(1, STRIPED_BAND // rows)
    row_tiles = -(-p.m // rows) if p.m else 0
    turned = Buffer("b_turned", p.dtype, (max(1, p.n), blocks * STRIPE), "stack")
    k = s.var("k")
    turn = stride_along(p.b(p.split_term(k), s.var("j")), k) != 1
    small = p.n * blocks * STRIPE * p.dtype.size_bytes <= 96 * 1024
    body: Body = ()
    if turn and small:
        body += _turn(p, turned, blocks)

    def element_b(term: Expr, column: Expr) -> Expr:
        return s.load(turned, column, term) if turn and small else p.b(p.split_term(term), column)

    first = band * tiles + tile_row

    def strip(count: int) -> Body:
        out: Body = ()
        for start in range(0, max(1, p.n), columns):
            width = min(columns, max(1, p.n) - start)
            out += _terms_tile(p, first * rows, count, start, width, element_b)
        return out

    full, rest = p.m // rows, p.m % rows
    tiles_body = cases(first, row_tiles, full, strip(rows) if full else (),
                        strip(rest) if rest else ())  # fmt: skip
    here = s.minimum(s.index(tiles), s.index(row_tiles) - band * tiles)
    bands = -(-row_tiles // tiles)
    if bands == 1:
        here = s.index(row_tiles)
    body += (For(tile_row, plain(here), SERIAL, tiles_body),)
    if turn and small:
        body = (Alloc(turned, body),)
    steps = [
        f"tile(i, j, {rows}, {columns})", f"stripe(k, {STRIPE})", "unroll(i.i)", "unroll(j.i)",
        f"vectorize(k.l, {STRIPE})",
    ]  # fmt: skip
    return over_tiles(p, body, [*p.outer, (band, bands), (s.var("all"), 1)], steps)


def _turn(p: Problem, turned: Buffer, blocks: int) -> Body:
    """b_turned[j, k] = b[k, j], zeros beyond the last term."""
    block, lane, column = s.var("kb"), s.var("lane"), s.var("jc")
    term = block * STRIPE + lane
    store: Body = (Store(turned, (column, term), p.b(p.split_term(term), column)),)
    if not (isinstance(p.k, int) and p.k % STRIPE == 0):
        store = (If(term < p.k, store, (Store(turned, (column, term), s.const(0, p.dtype)),)),)
    vector = For(lane, STRIPE, VECTORIZE, store)
    return (For(block, blocks, SERIAL, (For(column, max(1, p.n), UNROLL, (vector,)),)),)


def _terms_tile(
    p: Problem, i0: Expr, rows: int, j0: int, width: int, element_b: Callable[[Expr, Expr], Expr]
) -> Body:
    """rows x width results, each with its STRIPE partial sums in a register of its own."""
    block, lane = s.var("kb"), s.var("lane")
    accs = {
        (u, v): Buffer(f"acc{u}_{v}", p.dtype, (STRIPE,), "register")
        for u in range(rows) for v in range(width)
    }  # fmt: skip
    b_now = [Buffer(f"b{v}", p.dtype, (STRIPE,), "register") for v in range(width)]
    a_now = Buffer("a_now", p.dtype, (STRIPE,), "register")

    def vector(stores: list[Store]) -> Body:
        return (For(lane, STRIPE, VECTORIZE, tuple(stores)),)

    def terms(term: Expr) -> list[Store]:
        stores = [
            Store(b_now[v], (lane,), element_b(term, s.index(j0 + v))) for v in range(width)
        ]
        for u in range(rows):
            row = p.row_at(i0, s.index(u), rows=1)
            stores.append(Store(a_now, (lane,), p.a(row, p.split_term(term), s.index(0))))
            for v in range(width):
                acc = accs[u, v]
                new = multiply_add(s.load(a_now, lane), s.load(b_now[v], lane), s.load(acc, lane))
                stores.append(Store(acc, (lane,), new))
        return stores

    zero = s.const(0, p.dtype)
    body = vector([Store(acc, (lane,), zero) for acc in accs.values()])
    full = p.k // STRIPE
    inner: Body = (For(block, full, SERIAL, vector(terms(block * STRIPE + lane))),)
    if not (isinstance(p.k, int) and p.k % STRIPE == 0):
        term = full * STRIPE + lane
        inner += (For(lane, STRIPE, VECTORIZE, (If(term < p.k, tuple(terms(term))),)),)
    for buffer in (a_now, *b_now):
        inner = (Alloc(buffer, inner),)
    body += inner
    for (u, v), acc in accs.items():
        p.x.temporaries[p.item.value] = s.fold("sum", acc)
        p.x.forget()
        stores = tuple(p.x.store_result(r) for r in p.x.results)
        body += at_tile(p, stores, p.row_at(i0, s.index(u), rows=1), s.index(j0 + v))
    for acc in accs.values():
        body = (Alloc(acc, body),)
    return body
