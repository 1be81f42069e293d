"""Contractions whose operands are read where they are, or from panels of b packed beforehand.

Main function: ``lower_direct``. May import core, ir and contraction.tile.

Convolutions come here: their operand a is an image read at y * stride + dy, which packing would
write once per tap. Long sums (a weight gradient runs over every pixel of every image) are done a
block of terms at a time, so that the block of both operands stays in the second-level cache for
all tiles; partial sums go through memory in between, which continues the same chain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

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
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ir.scalar.visit import plain
from tinyflow.schedule.contraction.paired import pack_terms, paired
from tinyflow.schedule.contraction.problem import Problem, extent_of, stride_along
from tinyflow.schedule.contraction.tile import (
    LANE,
    ROW,
    VECTOR,
    Tile,
    at_tile,
    cases,
    hints,
    over_tiles,
    results,
    tile_cases,
)
from tinyflow.schedule.grain import nest
from tinyflow.schedule.lowering import Axes, LoweredKernel, Scratch, single_axis
from tinyflow.schedule.targets import Target

#: Bytes of a panel of b that a task packs for itself: half of what one stack may hold.
STACK_PANEL = 128 * 1024
#: Tiles along the rows that use a panel before packing all of b beforehand has paid.
PACKED_USES = 8
#: Bytes between two rows of b beyond which every row is another page's: panels are packed.
FAR = 1024
#: Terms of a block of a long sum: at least so many for one visit of a tile's partial sums.
BLOCK_TERMS = 128
#: Terms from which on a sum may be long.
LONG_SUM = 1024
#: Bytes between two terms of a from which on a tile of it is packed, for so many panels.
TURNED = 256
TURNED_PANELS = 4
#: Terms of a packed tile of a: it stays in the first-level cache while panels of b pass.
TILE_TERMS = 576
#: Tiles of rows per task where no other axis gives tasks: b passes once for all of them.
BAND_TILES = 10
#: Few terms, and the tile for them.
THIN_TERMS, THIN_ROWS, THIN_VECTORS = 32, 2, 8
#: Tasks for threads that make their shares about equal.
MANY_TASKS = 8
#: One tile's rows only: b streams from memory, so many of its rows at a time ...
STREAMED_TERMS = 8
#: ... and so many bytes of each (two pages).
STREAMED_BYTES = 8192

#: b at the summed axes' values, for a panel and a column within it
PanelElement = Callable[[Sequence[Expr], Expr, Expr], Expr]


def lower_direct(p: Problem, target: Target) -> list[LoweredKernel]:
    """Tiles read a in place; the epilogue runs on the accumulators."""
    uses = p.row_tiles * extent_of(p.row_loops)
    size = p.dtype.size_bytes
    apart = p.b_stride != 1 and p.n > 1
    far = apart or p.n * size >= FAR
    form = p.tuning.form if p.k else None
    pairs = paired(p, target) if form is None else None
    if pairs is not None:
        return _with_packed_panels(pairs, lambda b, own: _lower_row_tiles(pairs, target, b, own))
    if form is None and _is_thin(p, target):
        return [_lower_whole(_thin(p), target)]
    if form == "panels":
        return [_lower_stack_panels(p)]
    if not (p.k and (far or a_is_turned(p))) if form is None else form in ("in_place", "long"):
        return [_lower_long(p, target) if _is_long(p, target) else _lower_whole(p, target)]
    if form is None and a_is_turned(p):
        if far and uses >= PACKED_USES and not p.column_loops:
            return _with_packed_panels(p, lambda b, own: _lower_row_tiles(p, target, b, own))
        return [_lower_row_tiles(p, target)]
    fits = p.k * p.width * size <= STACK_PANEL
    # Where each task has panels of its own and a stays near, packing them needs no other kernel.
    tasks = extent_of(p.shared) * p.panels
    own = fits and tasks >= MANY_TASKS and p.all_rows * p.k * size <= target.l2_bytes // 2
    unpacked = (apart and (fits or p.shared)) or uses < PACKED_USES or own
    if (unpacked and form is None) or p.column_loops:
        if uses > 1 or apart:
            return [_lower_stack_panels(p)]
        streamed = p.k * p.n * size > target.l2_bytes and p.n * size >= STREAMED_BYTES
        return [_lower_streamed(p) if streamed else _lower_whole(p, target)]
    return _with_packed_panels(p, lambda element, scratch: (
        _lower_long if _is_long(p, target) else _lower_whole)(p, target, element, scratch))


def _with_packed_panels(
    p: Problem, lower: Callable[[PanelElement, Sequence[tuple[Buffer, Scratch]]], LoweredKernel]
) -> list[LoweredKernel]:
    """A kernel that packs all of b into panels, and the one that ``lower`` makes to read them."""
    packed = Buffer("b_packed", p.dtype, (extent_of(p.shared) * p.panels * p.k * p.width,))
    scratch = [(packed, Scratch(p.dtype, packed.shape[0], "b_packed"))]  # type: ignore[arg-type]

    def element(terms: Sequence[Expr], panel: Expr, column: Expr) -> Expr:
        around = [*p.shared, (panel, p.panels)]
        rows = [(t, e) for t, (_, e) in zip(terms, p.terms, strict=True)]
        return s.load(packed, flat_index([*around, *rows, (column, p.width)]))

    panel = s.var("jt")
    terms = [v for v, _ in p.terms]
    task, extent, change = single_axis([*p.shared, (panel, p.panels)], "task")
    packing = nest(p.terms, _pack_row(p, packed, terms, panel, element))
    packing = loop_visit.substitute_vars(packing, change)
    pack = p.x.kernel((For(task, extent, PARALLEL, packing),), ["cache_read(b, panels)",
                      "parallel(j.o)"], 0, 1, scratch, "_pack")  # fmt: skip
    return [pack, lower(element, scratch)]


def _is_thin(p: Problem, target: Target) -> bool:
    """Whether the result is large and takes few terms: its memory is the work (a weight gradient
    of a small batch, with the update behind it)."""
    result_bytes = p.all_rows * p.n * p.dtype.size_bytes
    plain = p.b_stride == 1 and not p.shared and not p.column_loops and p.panels > 1
    return 0 < p.k <= THIN_TERMS and plain and p.row_tiles > 1 and result_bytes > target.l2_bytes


def _thin(p: Problem) -> Problem:
    """Few rows at a time, so that each is read and written as one stream."""
    return replace(p, rows=min(p.rows, THIN_ROWS), vectors=min(-(-p.n // p.lanes), THIN_VECTORS))


def flat_index(axes: Sequence[tuple[Expr, int]]) -> Expr:
    """Row-major element number of a position given as (index, extent) pairs."""
    at = s.index(0)
    for index, extent in axes:
        at = at * s.index(extent) + index
    return at


def _steps(p: Problem) -> list[str]:
    return [
        f"tile(i, j, {p.rows}, {p.width})", "reorder(k, i.i, j.i)", "cache_write(acc, register)",
        "unroll(i.i)", f"vectorize(j.i, {p.lanes})",
    ]  # fmt: skip


def _pack_row(
    p: Problem, buffer: Buffer, terms: Sequence[Expr], panel: Expr, element: PanelElement,
    local: Sequence[Expr] | None = None,
) -> Body:  # fmt: skip
    """One row of a panel of b into its place, zeros beyond the last column."""
    column = VECTOR * p.lanes + LANE
    place = element(terms if local is None else local, panel, column).args
    store: Body = (Store(buffer, place, p.b(terms, panel * p.width + column)),)
    if p.n % p.width:
        zero = Store(buffer, place, s.const(0, p.dtype))
        store = (If(panel * p.width + column < p.n, store, (zero,)),)
    return (For(VECTOR, p.vectors, UNROLL, (For(LANE, p.lanes, VECTORIZE, store),)),)


def _sweep(
    p: Problem, t: Tile, i: Expr, j: Expr, axes: Axes, terms: Sequence[Expr], b: Expr, masked: bool
) -> Body:
    """The sums over ``axes``; terms: the summed axes' values in terms of them."""
    column = j * p.width + t.offset
    return t.sweep(axes, lambda u: p.a(p.row_at(i, u), terms, column), b, masked)


def _lower_whole(
    p: Problem, target: Target, element: PanelElement | None = None,
    scratch: Sequence[tuple[Buffer, Scratch]] = (),
) -> LoweredKernel:  # fmt: skip
    """One pass over all terms per tile."""
    i, j = s.var("it"), s.var("jt")
    terms = [v for v, _ in p.terms]

    def tile(rows: int, width: int) -> Body:
        t = Tile(p, rows, width)
        b = element(terms, j, t.offset) if element else p.b(terms, j * p.width + t.offset)
        sweep = hints(p, t, i, j) + _sweep(p, t, i, j, p.terms, terms, b, element is None)
        finish = t.over_rows(t.lanes(results(p, t, i, j * p.width)))
        return t.whole(t.start(s.const(0, p.dtype)) + sweep + finish)

    body = tile_cases(p, i, j, tile)
    rows_first = [*p.shared, *p.row_loops, (i, p.row_tiles), *p.column_loops, (j, p.panels)]
    columns_first = [*p.shared, *p.column_loops, (j, p.panels), *p.row_loops, (i, p.row_tiles)]
    # Threads share the larger operand, so that each of them reads only its part of it, and panels
    # that do not stay in the cache together stay there one at a time.
    b_bytes = p.k * p.n * extent_of(p.column_loops) * p.dtype.size_bytes
    swap = (p.n > p.all_rows or b_bytes > target.l2_bytes // 2) and not _is_thin(p, target)
    if p.tuning.order is not None:
        swap = p.tuning.order == "columns"
    tiles = columns_first if swap and p.panels * extent_of(p.column_loops) > 1 else rows_first
    return over_tiles(p, body, tiles, _steps(p), scratch)


# ---- long sums -----------------------------------------------------------------------------------
@dataclass
class _Blocks:
    """A block of terms: ``count`` of them, ``block`` its number, ``inner`` the axes within one and
    their largest extents ``sizes``, ``at`` the summed axes' values in terms of both."""

    block: Expr
    count: int
    inner: Axes
    sizes: list[int]
    at: list[Expr]


def _is_long(p: Problem, target: Target) -> bool:
    """Whether an operand leaves the cache before the next tile needs it again."""
    if p.tuning.form is not None:
        return p.tuning.form.endswith("long") and p.k > 1
    uses = p.row_tiles * extent_of(p.row_loops)
    one_tile = p.k * (p.rows + p.width) * p.dtype.size_bytes
    return uses > 1 and p.k >= LONG_SUM and one_tile > target.l2_bytes // 2


def _blocks(p: Problem, most: int) -> _Blocks:
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
    return _Blocks(block, count, inner, sizes, at)


class _Sums:
    """A tile's sums over one block of terms after the other, kept in memory in between."""

    def __init__(self, p: Problem, blocks: _Blocks) -> None:
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
            sweep = _sweep(p, t, i, j, blocks.inner, blocks.at, b(t), masked)
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


def _lower_long(
    p: Problem, target: Target, element: PanelElement | None = None,
    scratch: Sequence[tuple[Buffer, Scratch]] = (),
) -> LoweredKernel:  # fmt: skip
    """For every block of terms all tiles: the block of both operands stays in the cache."""
    i, j = s.var("it"), s.var("jt")
    columns = p.n * extent_of(p.column_loops)
    # Loops around the rows walk the taps of a filter, which read the same pixels.
    term_bytes = (p.m + columns) * p.dtype.size_bytes
    most = max(BLOCK_TERMS, target.l2_bytes // 2 // term_bytes)
    blocks = _blocks(p, p.tuning.kc or most)
    sums = _Sums(p, blocks)

    def b(t: Tile) -> Expr:
        if element is not None:
            return element(blocks.at, j, t.offset)
        return p.b(blocks.at, j * p.width + t.offset)

    tiles = tile_cases(p, i, j, lambda rows, width: sums.tile(rows, width, i, j, b,
                                                              element is None))  # fmt: skip
    tasks, rest = list(p.shared), [*p.row_loops, (i, p.row_tiles), *p.column_loops, (j, p.panels)]
    # Tasks of equal length for an even number of threads; each reads its operands through.
    while extent_of(tasks) < MANY_TASKS and extent_of(tasks) % 2 and len(rest) > 1:
        tasks.append(rest.pop(0))
    steps = [f"split(k, {blocks.count} blocks)", *_steps(p)]
    return over_tiles(p, sums.repeat(nest(rest, tiles)), [*tasks, (s.var("all"), 1)], steps,
                      [*scratch, *sums.scratch])  # fmt: skip


def _lower_stack_panels(p: Problem) -> LoweredKernel:
    """Each task packs its panel of b on its stack, a block of terms at a time.

    For few rows (b is read once, in an order that memory likes) and for a transposed b, whose
    columns are apart.
    """
    i, j = s.var("it"), s.var("jt")
    blocks = _blocks(p, min(p.tuning.kc or p.k, STACK_PANEL // (p.width * p.dtype.size_bytes)))
    sums = _Sums(p, blocks)
    local = [v for v, _ in blocks.inner]
    panel = Buffer("panel", p.dtype, (extent_of(list(zip(local, blocks.sizes, strict=True)))
                                      * p.width,), "stack")  # fmt: skip

    def element(terms: Sequence[Expr], j: Expr, column: Expr) -> Expr:
        rows = list(zip(terms, blocks.sizes, strict=True))
        return s.load(panel, flat_index([*rows, (column, p.width)]))

    pack = nest(blocks.inner, _pack_row(p, panel, blocks.at, j, element, local))
    if _turns(p, blocks):
        pack = _turn_panel(p, panel, blocks, j, element, pack)
    tiles = tile_cases(
        p, i, j,
        lambda rows, width: sums.tile(rows, width, i, j, lambda t: element(local, j, t.offset),
                                      False),
    )  # fmt: skip
    body = (Alloc(panel, sums.repeat(pack + nest([*p.row_loops, (i, p.row_tiles)], tiles))),)
    steps = [*_steps(p), "cache_read(b, panel)"]
    if blocks.count > 1:
        steps.insert(0, f"split(k, {blocks.count} blocks)")
    axes = [*p.shared, *p.column_loops, (j, p.panels), (s.var("all"), 1)]
    return over_tiles(p, body, axes, steps, sums.scratch)


def _turns(p: Problem, blocks: _Blocks) -> bool:
    """Whether b's terms lie side by side, so that squares of it can be turned in registers."""
    if not p.terms:
        return False
    term = p.terms[-1][0]
    value = p.b([v for v, _ in p.terms], s.var("j"))
    return (
        value.op == "load"
        and value.attr.dtype.size_bytes == 4
        and stride_along(value, term) == 1
        and bool(p.b_stride)
        and blocks.sizes[-1] >= p.lanes
        and p.n >= p.width
    )


def _turn_panel(
    p: Problem, panel: Buffer, blocks: _Blocks, j: Expr, element: PanelElement, plainly: Body
) -> Body:
    """The panel of a transposed b: squares turned in registers, what is left element by element.

    element: of the panel.   plainly: the nest that packs any panel.
    """
    square, vector = s.var("kq"), s.var("v")
    last, extent = blocks.inner[-1]
    lanes = p.lanes
    here = s.index(extent)

    def at(term: Expr) -> tuple[list[Expr], list[Expr]]:
        """(global, local) values of the summed axes where the last is ``term``."""
        change = {last: term}
        local = [v for v, _ in blocks.inner]
        return ([scalar_visit.substitute(e, change) for e in blocks.at],
                [scalar_visit.substitute(e, change) for e in local])  # fmt: skip

    terms, local = at(square * lanes)
    first = p.b(terms, j * p.width + vector * lanes)
    (place,) = element(local, j, vector * lanes).args
    apart = p.b_stride or 0
    turn = Call("transpose", (panel, place, s.index(p.width), first.attr, first.args[0],
                              s.index(apart), s.index(lanes)))  # fmt: skip
    squares: Body = (For(vector, p.vectors, SERIAL, (turn,)),)
    body: Body = (For(square, plain(here // lanes), SERIAL, squares),)
    if not (isinstance(extent, int) and extent % lanes == 0):
        tail = s.var("kt")
        terms, local = at(here // lanes * lanes + tail)
        row = _pack_row(p, panel, terms, j, element, local)
        body += (For(tail, plain(here - here // lanes * lanes), SERIAL, row),)
    body = nest(blocks.inner[:-1], body)
    full = p.n // p.width
    return body if full == p.panels else (If(j < full, body, plainly),)


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


def _lower_row_tiles(
    p: Problem, target: Target, element: PanelElement | None = None,
    scratch: Sequence[tuple[Buffer, Scratch]] = (),
) -> LoweredKernel:  # fmt: skip
    """A block of terms at a time, tiles of a transposed a, whose every term is in another line, are
    packed on the stack; all panels of b pass each of them. The block of b stays in the cache."""
    i, j = s.var("it"), s.var("jt")
    columns = p.n * extent_of(p.column_loops) * p.dtype.size_bytes
    blocks = _blocks(p, max(BLOCK_TERMS, min(TILE_TERMS, target.l2_bytes // 2 // columns)))
    sums = _Sums(p, blocks)
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
    body = packing + nest([*p.column_loops, (j, p.panels)], tiles)
    tasks, around = list(p.shared), list(p.row_loops)
    while around and extent_of(tasks) < MANY_TASKS and extent_of(tasks) % 2:
        tasks.append(around.pop(0))
    band, within = s.var("band"), s.var("in_band")
    bands = 1
    if extent_of(tasks) == 1:
        bands = min(p.row_tiles, 2 * -(-p.row_tiles // (2 * BAND_TILES)))
    first = band * p.row_tiles // bands
    here = (band + 1) * p.row_tiles // bands - first
    body = loop_visit.substitute_vars(body, {i: first + within})
    body = nest([*around, (within, plain(here))], body)
    steps = [*_steps(p), "cache_read(a, tile)"]
    if blocks.count > 1:
        steps.insert(0, f"split(k, {blocks.count} blocks)")
    axes = [*tasks, (band, bands), (s.var("all"), 1)]
    return over_tiles(p, (Alloc(packed, sums.repeat(body)),), axes, steps,
                      [*scratch, *sums.scratch])  # fmt: skip


def _lower_streamed(p: Problem) -> LoweredKernel:
    """One tile of rows: b comes from memory once, pages of a few of its rows at a time."""
    i, j = s.index(0), s.var("jt")
    blocks = _blocks(p, STREAMED_TERMS)
    sums = _Sums(p, blocks)

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
    steps = [f"split(k, {blocks.count} blocks)", *_steps(p)]
    axes = [*p.shared, (group, groups), (s.var("all"), 1)]
    return over_tiles(p, body, axes, steps, sums.scratch)
