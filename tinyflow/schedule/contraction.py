"""Contractions: register-tiled loop nests for sums of products.

Main function: ``lower_dot``. May import core, ir, te and schedule.lowering.

C[i, j] = epilogue(sum_k a(i, k) * b(k, j)), one chain acc = fma(a, b, acc) per element, k ascending:
the canonical order of a contraction, whatever the tiling. The limit is two fused multiply-adds per
cycle, each with one vector operand from a register and a broadcast scalar from memory. A tile of
``rows`` x ``vectors`` accumulators needs per k ``vectors`` vector loads and ``rows`` broadcasts for
rows*vectors fmas; it must fill the registers (to hide the latency of 4 cycles x 2 units) and no
more. Two forms:

* ``direct``: b fits in the second-level cache. Tiles read a and b where they are.
* ``blocked``: b is packed once into panels of one tile's width (its own parallel kernel); each task
  takes a band of rows, packs its part of a for KC values of k, and keeps partial sums in memory
  between these steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tinyflow.ir.loop import visit as loop_visit
from tinyflow.ir.loop.nodes import (
    PARALLEL,
    SERIAL,
    UNROLL,
    VECTORIZE,
    Alloc,
    Body,
    Buffer,
    For,
    If,
    Store,
)
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.schedule.lowering import (
    Axes,
    GroupExpressions,
    LoweredKernel,
    Scratch,
    merge_axes,
    single_axis,
)
from tinyflow.schedule.targets import Target
from tinyflow.te.canonical import STRIPE, is_striped_dot

#: Steps of k between two visits of a tile: the row part of a tile (28 KiB of floats) stays in L1.
KC = 512
#: Panels of b that one pass over a band works on: GROUP x 64 KiB stay in the second-level cache.
GROUP = 12
#: Bytes of a's packed band: it streams from the second-level cache while b's panel stays in L1.
BAND_BYTES = 192 * 1024
#: Multiply-adds below which threads do not pay.
PARALLEL_WORK = 200_000

Element = Callable[[Expr, Expr], Expr]


@dataclass
class _Problem:
    """C[outer..., i, j] over k. a(i, k), b(k, j): elements as functions of index expressions."""

    x: GroupExpressions
    a: Element
    b: Element
    m: int
    n: int
    k: int
    item: Any
    outer: Axes
    row: Expr | None
    column: Expr | None
    mapping: dict[Expr, Expr]
    lanes: int
    rows: int
    vectors: int
    b_contiguous: bool
    swapped: bool = False
    striped: bool = False

    @property
    def width(self) -> int:
        return self.lanes * self.vectors

    @property
    def row_tiles(self) -> int:
        return -(-self.m // self.rows)

    @property
    def panels(self) -> int:
        return -(-self.n // self.width)

    @property
    def dtype(self) -> Any:
        return self.item.value.dtype


def lower_dot(x: GroupExpressions, target: Target) -> list[LoweredKernel]:
    """The kernels of a contraction group: one, or packing and blocked product."""
    p = _problem(x, target)
    batch = _size(p.outer)
    if p.striped:
        return [_striped_rows(p, batch) if p.swapped else _striped_terms(p, batch)]
    b_bytes = p.k * p.n * p.dtype.size_bytes
    big = b_bytes > target.l2_bytes * 3 // 4 and p.m >= 4 * p.rows
    if p.k > 0 and not p.outer and (big or (not p.b_contiguous and p.m >= 8)):
        return _blocked(p)
    return [_direct(p, batch)]


def _size(axes: Axes) -> int:
    total = 1
    for _, n in axes:
        total *= n
    return total


def _problem(x: GroupExpressions, target: Target) -> _Problem:
    item = next(
        i
        for i in x.group.items
        if i.tensor is not None and i.tensor.reduction is not None and i.value not in x.group.inlined
    )
    reduce_axes: Axes = [(s.var(f"r{n}"), e) for n, (_, e) in enumerate(item.reduce_axes)]
    a, b = x.reduction_body(item, reduce_axes)
    dummy = Buffer("acc", item.value.dtype, (1,), "stack")
    x.temporaries[item.value] = s.load(dummy, s.index(0))
    x.find_in_place(
        [Store(dummy, (s.index(0),), e) for e in (a, b)] + [x.store_result(r) for r in x.results]
    )
    del x.temporaries[item.value]
    x.forget()
    roots = [a, b] + [x.position(i) for i in x.results]
    axes, mapping = merge_axes(roots, x.outer + reduce_axes, frozenset({len(x.outer)}))
    own = {v for v, _ in x.outer}
    outer = [(v, n) for v, n in axes if v in own]
    k_var, k_extent, k_map = single_axis([(v, n) for v, n in axes if v not in own], "k")
    mapping = {**{v: scalar_visit.substitute(e, k_map) for v, e in mapping.items()}, **k_map}
    a, b = (scalar_visit.substitute(e, mapping) for e in (a, b))
    shape = item.tensor.shape
    last_extent = shape[-1] if shape else 1
    striped = is_striped_dot(last_extent, k_extent)
    if striped and last_extent == 1 and outer:
        outer.append((s.var("j1"), 1))  # the last axis is there, it only has one element
    if outer and _depends(a, outer[-1][0]) and not _depends(b, outer[-1][0]):
        a, b = b, a  # the product commutes exactly; the vector runs along the last output axis
    column, n_extent = None, 1
    if outer and not _depends(a, outer[-1][0]):
        column, n_extent = outer.pop()
    row, m_extent = None, 1
    for position in reversed(range(len(outer))):
        if not _depends(b, outer[position][0]):
            row, m_extent = outer.pop(position)
            break
    lanes = max(2, target.lanes * 4 // max(4, item.value.dtype.size_bytes))
    swapped = column is not None and row is not None and (
        _stride_along(a, k_var) != 1
        if striped
        else _fills_lanes(m_extent, n_extent, lanes) and _stride_along(a, row) == 1
    )
    if swapped:
        a, b = b, a
        (row, m_extent), (column, n_extent) = (column, n_extent), (row, m_extent)
    vectors = _vectors(m_extent, n_extent, lanes, target.vector_registers)
    most = max(1, (target.vector_registers - vectors - 1) // vectors)
    tiles = -(-m_extent // most) if m_extent else 1
    rows = -(-m_extent // max(1, tiles)) if m_extent else 1

    def element(expr: Expr, first: Expr | None, second: Expr | None) -> Element:
        def at(u: Expr, v: Expr) -> Expr:
            change = {}
            if first is not None:
                change[first] = u
            if second is not None:
                change[second] = v
            return scalar_visit.substitute(expr, change)

        return at

    contiguous = column is None or _stride_along(b, column) in (0, 1)
    return _Problem(
        x, element(a, row, k_var), element(b, k_var, column), m_extent, n_extent, k_extent, item,
        outer, row, column, mapping, lanes, rows, vectors, contiguous, swapped, striped,
    )  # fmt: skip


def _fills_lanes(m: int, n: int, lanes: int) -> bool:
    """Whether vectors along the rows fill their lanes where vectors along the columns do not.

    The results are then scattered, which pays for narrow products only.
    """
    return n * 4 <= lanes * 3 and m >= 2 * lanes


def _stride_along(expr: Expr, var: Expr) -> int | None:
    """How far the loads of an operand move per step of ``var``; None unless evenly and alike."""
    strides = set()
    for load in scalar_visit.loads(expr):
        form = scalar_visit.linear(load.args[0], (var,))
        strides.add(None if form is None else form.coefficients.get(var, 0))
    return strides.pop() if len(strides) == 1 else None  # type: ignore[return-value]


def _depends(expr: Expr, var: Expr) -> bool:
    return var in scalar_visit.free_vars(expr)


def _vectors(m: int, n: int, lanes: int, registers: int) -> int:
    """Vectors per tile row: two, unless n is narrow or m so small that only width fills the units."""
    needed = -(-n // lanes) if n else 1
    if m <= 4:
        return max(1, min(needed, (registers - 4) // (max(1, m) + 1), 8))
    return needed if needed <= 3 else 2


# ---- one tile ------------------------------------------------------------------------------------
_ROW, _VECTOR, _LANE, _K = s.var("u"), s.var("v"), s.var("lane"), s.var("k")


def _fma(a: Expr, b: Expr, acc: Expr) -> Expr:
    return s.fma(a, b, acc) if a.dtype.kind == "float" else a * b + acc


class _Tile:
    """Loop nests over one register tile of ``rows`` x ``vectors`` accumulators."""

    def __init__(self, p: _Problem, rows: int, width: int) -> None:
        self.p, self.rows, self.width = p, rows, width
        self.vectors = -(-width // p.lanes)
        self.acc = Buffer("acc", p.dtype, (rows * self.vectors * p.lanes,), "register")
        self.b_now = Buffer("b_now", p.dtype, (self.vectors * p.lanes,), "register")

    @property
    def at(self) -> tuple[Expr]:
        p = self.p
        return (_ROW * (self.vectors * p.lanes) + _VECTOR * p.lanes + _LANE,)

    def lanes(self, body: Body, masked: bool = True) -> Body:
        """``body`` for every lane of every vector of the tile's row; the last may be partial."""
        p = self.p
        rest = self.width % p.lanes
        out: Body = ()
        full = self.vectors - (1 if rest and masked else 0)
        if full:
            out += (For(_VECTOR, full, UNROLL, (For(_LANE, p.lanes, VECTORIZE, body),)),)
        if rest and masked:
            last = loop_visit.substitute_vars(body, {_VECTOR: s.index(self.vectors - 1)})
            out += (For(_LANE, p.lanes, VECTORIZE, (If(_LANE < rest, last),)),)
        return out

    def over_rows(self, body: Body) -> Body:
        return (For(_ROW, self.rows, UNROLL, body),)

    @property
    def offset(self) -> Expr:
        """Column within the tile."""
        return _VECTOR * self.p.lanes + _LANE

    def start(self, initial: Expr) -> Body:
        return self.over_rows(self.lanes((Store(self.acc, self.at, initial),), masked=False))

    def sweep(self, extent: Any, a: Callable[[Expr], Expr], b: Expr, b_masked: bool) -> Body:
        """for k: acc[u, v] = fma(a(u, k), b(k, v), acc[u, v])"""
        fetch = self.lanes((Store(self.b_now, (self.offset,), b),), masked=b_masked)
        b_lane = s.load(self.b_now, self.offset)
        update = Store(self.acc, self.at, _fma(a(_ROW), b_lane, s.load(self.acc, *self.at)))
        if self.width % self.p.lanes and b_masked:
            # Lanes beyond the edge hold nothing: they must not be read either.
            zero = Store(self.b_now, (self.offset,), s.const(0, self.p.dtype))
            fetch = self.lanes((zero,), masked=False) + fetch
        body = fetch + self.over_rows(self.lanes((update,), masked=False))
        return (Alloc(self.b_now, (For(_K, extent, SERIAL, body),)),)

    def whole(self, body: Body) -> Body:
        return (Alloc(self.acc, body),)


def _results(p: _Problem, tile: _Tile, i: Expr, j: Expr) -> Body:
    """The group's results from the tile's accumulators, at rows i + u, columns j + offset."""
    p.x.temporaries[p.item.value] = s.load(tile.acc, *tile.at)
    p.x.forget()
    return _at(p, tuple(p.x.store_result(r) for r in p.x.results), i + _ROW, j + tile.offset)


def _at(p: _Problem, body: Body, i: Expr, j: Expr) -> Body:
    body = loop_visit.substitute_vars(body, p.mapping)
    change = {}
    if p.row is not None:
        change[p.row] = i
    if p.column is not None:
        change[p.column] = j
    return loop_visit.substitute_vars(body, change)


def _cases(index: Expr, count: int, full: int, main: Body, tail: Body) -> Body:
    """``main`` for index < full, else ``tail``; only what can happen is generated."""
    if full == count:
        return main
    return tail if full == 0 else (If(index < full, main, tail),)


# ---- direct --------------------------------------------------------------------------------------
def _direct(p: _Problem, batch: int) -> LoweredKernel:
    """Tiles read a and b in place; the epilogue runs on the accumulators."""
    i, j = s.var("it"), s.var("jt")
    full_rows, full_panels = p.m // p.rows, p.n // p.width

    def tile(rows: int, width: int) -> Body:
        t = _Tile(p, rows, width)
        i0, j0 = i * p.rows, j * p.width
        body = t.start(s.const(0, p.dtype))
        b = p.b(_K, j0 + t.offset)
        body += t.sweep(p.k, lambda u: p.a(i0 + u, _K), b, b_masked=True)
        body += t.over_rows(t.lanes(_results(p, t, i0, j0)))
        return t.whole(body)

    def panel_cases(rows: int) -> Body:
        main = tile(rows, p.width) if full_panels else ()
        tail = tile(rows, p.n % p.width) if p.n % p.width else ()
        return _cases(j, p.panels, full_panels, main, tail)

    main = panel_cases(p.rows) if full_rows else ()
    tail = panel_cases(p.m % p.rows) if p.m % p.rows else ()
    body = _cases(i, p.row_tiles, full_rows, main, tail)
    tiles: Axes = [(i, p.row_tiles), (j, p.panels)]
    # Bands of rows go to threads; with few of them (skinny products) panels of columns do.
    if p.row_tiles < 4 and p.panels > p.row_tiles:
        tiles.reverse()
    steps = [
        f"tile(i, j, {p.rows}, {p.width})", "reorder(k, i.i, j.i)", "cache_write(acc, register)",
        "unroll(i.i)", f"vectorize(j.i, {p.lanes})",
    ]  # fmt: skip
    return _over_tiles(p, body, tiles, batch, steps)


def _over_tiles(
    p: _Problem, body: Body, tiles: Axes, batch: int, steps: list[str]
) -> LoweredKernel:
    """The kernel that runs ``body`` for every tile; the first axis goes to threads if it pays."""
    work = batch * p.m * p.n * p.k
    axes = [*p.outer, *tiles]
    if work < PARALLEL_WORK:
        return p.x.kernel(_nest(axes, body), steps, 2 * work)
    count = len(p.outer) + 1
    task, extent, change = single_axis(axes[:count], "task")
    body = loop_visit.substitute_vars(_nest(axes[count:], body), change)
    chunk = max(1, PARALLEL_WORK // 4 // max(1, work // max(1, extent)))
    parallel = (For(task, extent, PARALLEL, body),)
    return p.x.kernel(parallel, [*steps, f"parallel({tiles[0][0].attr})"], 2 * work, chunk)


def _nest(axes: Axes, body: Body) -> Body:
    for var, extent in reversed(axes):
        body = (For(var, extent, SERIAL, body),)
    return body


# ---- striped ----------------------------------------------------------------------------------
def _striped_rows(p: _Problem, batch: int) -> LoweredKernel:
    """Vectors run along the rows: the stripes one after the other, their sums kept on the stack."""
    i, j, stripe = s.var("it"), s.var("jt"), s.var("stripe")
    full_rows, full_panels = p.m // p.rows, p.n // p.width

    def tile(rows: int, width: int) -> Body:
        t = _Tile(p, rows, width)
        i0, j0 = i * p.rows, j * p.width
        length = rows * t.vectors * p.lanes
        sums = Buffer("stripes", p.dtype, (STRIPE, length), "stack")
        term = _K * STRIPE + stripe
        count = (s.index(p.k + STRIPE - 1) - stripe) // STRIPE
        body = t.start(s.const(0, p.dtype))
        body += t.sweep(
            count, lambda u: p.a(i0 + u, term), p.b(term, j0 + t.offset), b_masked=True
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
        finish += t.over_rows(t.lanes(_results(p, t, i0, j0)))
        return (Alloc(sums, nest + t.whole(finish)),)

    def panel_cases(rows: int) -> Body:
        main = tile(rows, p.width) if full_panels else ()
        tail = tile(rows, p.n % p.width) if p.n % p.width else ()
        return _cases(j, p.panels, full_panels, main, tail)

    main = panel_cases(p.rows) if full_rows else ()
    tail = panel_cases(p.m % p.rows) if p.m % p.rows else ()
    body = _cases(i, p.row_tiles, full_rows, main, tail)
    steps = [
        f"tile(j, i, {p.rows}, {p.width})", f"stripe(k, {STRIPE})", "reorder(k.l, k.o, j.i, i.i)",
        "cache_write(acc, register)", "unroll(j.i)", f"vectorize(i.i, {p.lanes})",
    ]  # fmt: skip
    return _over_tiles(p, body, [(j, p.panels), (i, p.row_tiles)], batch, steps)


#: Rows of a striped product per task: b is transposed once for each.
STRIPED_BAND = 50


def _striped_terms(p: _Problem, batch: int) -> LoweredKernel:
    """Vectors run along k: STRIPE partial sums per result are one vector, folded at the end."""
    blocks = -(-p.k // STRIPE)
    columns = max(1, min(p.n, 10))
    rows = max(1, min(p.m, 20 // columns))
    band, tile_row = s.var("band"), s.var("it")
    tiles = max(1, STRIPED_BAND // rows)
    row_tiles = -(-p.m // rows) if p.m else 0
    turned = Buffer("b_turned", p.dtype, (max(1, p.n), blocks * STRIPE), "stack")
    turn = _stride_along(p.b(s.var("k"), s.var("j")), s.var("k")) != 1
    small = p.n * blocks * STRIPE * p.dtype.size_bytes <= 96 * 1024
    body: Body = ()
    if turn and small:
        body += _turn(p, turned, blocks)

    def element_b(term: Expr, column: Expr) -> Expr:
        return s.load(turned, column, term) if turn and small else p.b(term, column)

    first = band * tiles + tile_row

    def strip(count: int) -> Body:
        out: Body = ()
        for start in range(0, max(1, p.n), columns):
            width = min(columns, max(1, p.n) - start)
            out += _terms_tile(p, first * rows, count, start, width, element_b)
        return out

    full, rest = p.m // rows, p.m % rows
    tiles_body = _cases(first, row_tiles, full, strip(rows) if full else (),
                        strip(rest) if rest else ())  # fmt: skip
    here = s.minimum(s.index(tiles), s.index(row_tiles) - band * tiles)
    bands = -(-row_tiles // tiles)
    if bands == 1:
        here = s.index(row_tiles)
    body += (For(tile_row, _plain(here), SERIAL, tiles_body),)
    if turn and small:
        body = (Alloc(turned, body),)
    steps = [
        f"tile(i, j, {rows}, {columns})", f"stripe(k, {STRIPE})", "unroll(i.i)", "unroll(j.i)",
        f"vectorize(k.l, {STRIPE})",
    ]  # fmt: skip
    return _over_tiles(p, body, [(band, bands)], batch, steps)


def _turn(p: _Problem, turned: Buffer, blocks: int) -> Body:
    """b_turned[j, k] = b[k, j], zeros beyond the last term."""
    block, lane, column = s.var("kb"), s.var("lane"), s.var("jc")
    term = block * STRIPE + lane
    store: Body = (Store(turned, (column, term), p.b(term, column)),)
    if p.k % STRIPE:
        store = (If(term < p.k, store, (Store(turned, (column, term), s.const(0, p.dtype)),)),)
    vector = For(lane, STRIPE, VECTORIZE, store)
    return (For(block, blocks, SERIAL, (For(column, max(1, p.n), UNROLL, (vector,)),)),)


def _terms_tile(
    p: _Problem, i0: Expr, rows: int, j0: int, width: int, element_b: Element
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
            stores.append(Store(a_now, (lane,), p.a(i0 + u, term)))
            for v in range(width):
                acc = accs[u, v]
                new = _fma(s.load(a_now, lane), s.load(b_now[v], lane), s.load(acc, lane))
                stores.append(Store(acc, (lane,), new))
        return stores

    zero = s.const(0, p.dtype)
    body = vector([Store(acc, (lane,), zero) for acc in accs.values()])
    full = p.k // STRIPE
    inner: Body = (For(block, full, SERIAL, vector(terms(block * STRIPE + lane))),)
    if p.k % STRIPE:
        term = full * STRIPE + lane
        inner += (For(lane, STRIPE, VECTORIZE, (If(term < p.k, tuple(terms(term))),)),)
    for buffer in (a_now, *b_now):
        inner = (Alloc(buffer, inner),)
    body += inner
    for (u, v), acc in accs.items():
        p.x.temporaries[p.item.value] = s.fold("sum", acc)
        p.x.forget()
        stores = tuple(p.x.store_result(r) for r in p.x.results)
        body += _at(p, stores, i0 + u, s.index(j0 + v))
    for acc in accs.values():
        body = (Alloc(acc, body),)
    return body


# ---- blocked -------------------------------------------------------------------------------------
def _blocked(p: _Problem) -> list[LoweredKernel]:
    """pack b, then bands of rows: for each KC of k, pack a, sweep all panels."""
    size = p.panels * p.k * p.width
    packed = Buffer("b_packed", p.dtype, (size,))
    scratch = [(packed, Scratch(p.dtype, size, "b_packed"))]
    kernels = [p.x.kernel(_pack_b(p, packed), ["cache_read(b, panels)", "parallel(j.o)"], 0, 1,
                          scratch, "_pack")]  # fmt: skip
    plain = len(p.x.results) == 1 and p.x.results[0] is p.item
    if plain:
        total: Buffer = p.x.buffer(p.item.value)
    else:
        total = Buffer("partial", p.dtype, (p.m * p.n,))
        scratch.append((total, Scratch(p.dtype, p.m * p.n, "partial")))
    band, tile_row = s.var("band"), s.var("it")
    tiles = max(1, BAND_BYTES // (KC * p.rows * p.dtype.size_bytes))
    # An even number of bands, equal to within one tile: two threads finish together.
    bands = min(p.row_tiles, 2 * -(-p.row_tiles // (2 * tiles)))
    first = band * p.row_tiles // bands
    in_band = (band + 1) * p.row_tiles // bands - first
    a_packed = Buffer("a_packed", p.dtype, (tiles * KC * p.rows,), "stack")
    block = s.var("kb")
    length = (
        s.index(KC) if p.k % KC == 0 else s.minimum(s.index(KC), s.index(p.k) - block * KC)
    )  # fmt: skip
    panel = s.var("jt")
    pack = For(tile_row, _plain(in_band), SERIAL, _pack_a(p, a_packed, first, tile_row, block, length))
    group, in_group = s.var("jg"), s.var("jp")
    groups = -(-p.panels // GROUP)
    here = (
        s.index(GROUP) if p.panels % GROUP == 0
        else s.minimum(s.index(GROUP), s.index(p.panels) - group * GROUP)
    )  # fmt: skip
    tiles_body = _blocked_tiles(
        p, packed, a_packed, total, first, tile_row, panel, block, length
    )
    tiles_body = loop_visit.substitute_vars(tiles_body, {panel: group * GROUP + in_group})
    row_of_tiles = For(in_group, _plain(here), SERIAL, tiles_body)
    sweep = For(group, groups, SERIAL, (For(tile_row, _plain(in_band), SERIAL, (row_of_tiles,)),))
    body: Body = (For(block, -(-p.k // KC), SERIAL, (pack, sweep)),)
    body = (Alloc(a_packed, body),)
    if not plain:
        body += _finish(p, total, first, in_band)
    steps = [
        f"tile(i, j, {p.rows}, {p.width})", f"split(k, {KC})", "cache_read(a, band)",
        "cache_write(acc, register)", "unroll(i.i)", f"vectorize(j.i, {p.lanes})",
        "parallel(band)",
    ]  # fmt: skip
    kernels.append(
        p.x.kernel((For(band, bands, PARALLEL, body),), steps, 2 * p.m * p.n * p.k, 1, scratch)
    )
    return kernels


def _plain(extent: Expr) -> Any:
    return extent.attr if extent.is_const else extent


def _pack_b(p: _Problem, packed: Buffer) -> Body:
    """b_packed[panel, k, column]: what a tile reads per step of k stands together."""
    panel = s.var("jt")
    column = panel * p.width + _VECTOR * p.lanes + _LANE
    at = ((panel * p.k + _K) * p.width + _VECTOR * p.lanes + _LANE,)
    store: Body = (Store(packed, at, p.b(_K, column)),)
    if p.n % p.width:
        zero = Store(packed, at, s.const(0, p.dtype))
        store = (If(column < p.n, store, (zero,)),)
    vectors = For(_VECTOR, p.vectors, UNROLL, (For(_LANE, p.lanes, VECTORIZE, store),))
    return (For(panel, p.panels, PARALLEL, (For(_K, p.k, SERIAL, (vectors,)),)),)


def _pack_a(
    p: _Problem, packed: Buffer, first: Expr, tile: Expr, block: Expr, length: Expr
) -> Body:
    """a_packed[tile, k, row]: the broadcasts of one step of k stand together."""

    def rows(count: int) -> Body:
        # A cache line of a row at a time: rows whose distance is a power of two share cache sets,
        # so a line that is left is gone when the next element of it is wanted.
        outer, inner = s.var("ko"), s.var("ki")
        value = p.a((first + tile) * p.rows + _ROW, block * KC + _K)
        at = ((tile * KC + _K) * p.rows + _ROW,)
        copy: Body = (Store(packed, at, value),)
        line = loop_visit.substitute_vars(copy, {_K: outer * 16 + inner})
        body: Body = ()
        full = length // 16
        body += (For(outer, _plain(full), SERIAL,
                     (For(_ROW, count, SERIAL, (For(inner, 16, UNROLL, line),)),)),)  # fmt: skip
        if not (length.is_const and length.attr % 16 == 0):
            rest = loop_visit.substitute_vars(copy, {_K: full * 16 + inner})
            body += (For(_ROW, count, SERIAL,
                         (For(inner, _plain(length - full * 16), SERIAL, rest),)),)  # fmt: skip
        return body

    full, rest = p.m // p.rows, p.m % p.rows
    return _cases(first + tile, p.row_tiles, full, rows(p.rows) if full else (),
                  rows(rest) if rest else ())  # fmt: skip


def _blocked_tiles(
    p: _Problem, b_packed: Buffer, a_packed: Buffer, total: Buffer, first: Expr, tile_row: Expr,
    panel: Expr, block: Expr, length: Expr,
) -> Body:  # fmt: skip
    """One tile's KC steps: partial sums come from memory and go back there."""

    def tile(rows: int, width: int) -> Body:
        t = _Tile(p, rows, width)
        i = (first + tile_row) * p.rows + _ROW
        j = panel * p.width + t.offset
        at = (i * p.n + j,)
        zero = t.start(s.const(0, p.dtype))
        resume = t.over_rows(t.lanes((Store(t.acc, t.at, s.load(total, *at)),)))
        body: Body = zero
        if p.k > KC:
            partial_lanes = zero if width % p.lanes else ()
            body = (If(block.equal(0), zero, partial_lanes + resume),)
        k = block * KC + _K
        b = s.load(b_packed, (panel * p.k + k) * p.width + t.offset)
        body += t.sweep(
            _plain(length),
            lambda u: s.load(a_packed, (tile_row * KC + _K) * p.rows + u),
            b,
            b_masked=False,
        )
        body += t.over_rows(t.lanes((Store(total, at, s.load(t.acc, *t.at)),)))
        return t.whole(body)

    def panel_cases(rows: int) -> Body:
        full = p.n // p.width
        main = tile(rows, p.width) if full else ()
        tail = tile(rows, p.n % p.width) if p.n % p.width else ()
        return _cases(panel, p.panels, full, main, tail)

    full, rest = p.m // p.rows, p.m % p.rows
    return _cases(first + tile_row, p.row_tiles, full, panel_cases(p.rows) if full else (),
                  panel_cases(rest) if rest else ())  # fmt: skip


def _finish(p: _Problem, total: Buffer, first: Expr, in_band: Expr) -> Body:
    """The epilogue over a band of finished sums, row by row."""
    row, panel = s.var("row"), s.var("jt")
    p.x.temporaries[p.item.value] = s.load(total, row * p.n + s.var("column"))
    p.x.forget()
    column = panel * p.lanes + _LANE
    body = _at(p, tuple(p.x.store_result(r) for r in p.x.results), row, column)
    body = loop_visit.substitute_vars(body, {s.var("column"): column})
    full, rest = p.n // p.lanes, p.n % p.lanes
    loops: Body = ()
    if full:
        loops += (For(panel, full, SERIAL, (For(_LANE, p.lanes, VECTORIZE, body),)),)
    if rest:
        tail = loop_visit.substitute_vars(body, {panel: s.index(full)})
        loops += (For(_LANE, p.lanes, VECTORIZE, (If(column_limit(p, full), tail),)),)
    local = s.var("row_in_band")
    count = s.minimum(in_band * p.rows, s.index(p.m) - first * p.rows)
    loops = loop_visit.substitute_vars(loops, {row: first * p.rows + local})
    return (For(local, _plain(count), SERIAL, loops),)


def column_limit(p: _Problem, full: int) -> Expr:
    return _LANE < (p.n - full * p.lanes)
