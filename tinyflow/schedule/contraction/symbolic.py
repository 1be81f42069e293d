"""Contractions in which the number of rows, of terms or of products is an argument.

Main function: ``lower_symbolic_dot``. May import core, ir, te and contraction's tile and problem.

The order of every sum is the one that the specialised kernel has (te/canonical.py), so the bits
agree. Rows are cut into tiles of equal height; see sized.py for the edges. There is a kernel per
height of a tile, and a run takes the one that wastes least; narrow products have one for few and
one for many terms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
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
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ir.scalar.visit import plain
from tinyflow.schedule.contraction.panels import FAR, STACK_PANEL, turn_panel, turns
from tinyflow.schedule.contraction.problem import (
    Position,
    Problem,
    extent_of,
    problem_of,
    stride_along,
)
from tinyflow.schedule.contraction.sized import Sized, cases_of, results_of, tile_of
from tinyflow.schedule.contraction.striped import STRIPED_BAND, _terms_tile, _turn
from tinyflow.schedule.contraction.sums import Blocks
from tinyflow.schedule.contraction.tile import (
    LANE,
    MANY_TASKS,
    PARALLEL_WORK,
    ROW,
    VECTOR,
    Tile,
    at_tile,
    hints,
    results,
)
from tinyflow.schedule.grain import nest
from tinyflow.schedule.lowering import (
    Axes,
    GroupExpressions,
    LoweredKernel,
    Scratch,
    single_axis,
    value_at,
)
from tinyflow.schedule.targets import Target
from tinyflow.te.canonical import LONG, NARROW, STRIPE

#: Terms of an image from which on a visit of every tile pays.
IMAGE_TERMS = 32
#: What a tile costs besides its rows, in rows: loading a step's vectors of b.
TILE_COST = 3

Kernels = list[LoweredKernel]

#: Tiles along the rows that use a panel before packing all of b beforehand has paid.
PACKED_USES = 8


def lower_symbolic_dot(
    fresh: Callable[[], GroupExpressions], target: Target
) -> tuple[Callable[[Mapping[str, int]], Any], Callable[[Any], Kernels]]:
    """How to choose and how to make the kernels of a contraction group.

    Errors: TypeError where no kernel here could keep the order of the sums.
    """
    first = _problem(fresh(), target, None)
    k, m = first.k, first.m
    last = _deciding_extent(first)
    narrow = isinstance(k, Expr) and isinstance(last, int) and last <= NARROW
    heights = _heights(first.tallest) if isinstance(m, Expr) else (first.p.rows,)

    def choose(sizes: Mapping[str, int]) -> tuple[bool, int, int]:
        terms = value_at(k, sizes)
        if not isinstance(last, int) and terms >= LONG and value_at(last, sizes) <= NARROW:
            raise TypeError("a narrow product whose columns are an argument")
        many = narrow and terms >= LONG
        if many or first.p.striped:
            return many, heights[0], int(terms <= _few_terms(first.p))
        if not isinstance(m, Expr):
            uses = _uses(value_at(first.row_tiles, sizes), first, sizes)
            return many, heights[0], uses if terms else 0
        rows = value_at(m, sizes)
        height = min(heights, key=lambda h: (-(-rows // h) * (h + TILE_COST), h))
        return many, height, _uses(-(-rows // height), first, sizes)

    def make(kind: tuple[bool, int, int]) -> Kernels:
        many, height, worth = kind  # how often a panel is used; whether b is turned
        terms = (LONG if many else LONG - 1) if narrow else None
        q = _problem(fresh(), target, terms)
        if isinstance(m, Expr):
            q.p.rows = height
        if q.p.striped:
            return [_striped_rows(q) if q.p.swapped else _striped_terms(q, bool(worth))]
        if worth and _sums_over_images(q):
            return [_image_by_image(q)]
        return _tiled(q, target, worth)

    return choose, make


def _problem(x: GroupExpressions, target: Target, terms: int | None) -> Sized:
    """terms: an estimate of the summed extent that decides whether the sum is striped."""
    if terms is not None:
        x.likely[s.var("r0")] = terms
    p = problem_of(x, target)
    tallest = max(1, (target.vector_registers - p.vectors - 1) // p.vectors)
    return Sized(p, tallest)


def _deciding_extent(q: Sized) -> Any:
    """What decides with the number of terms about the order of a sum: see te/canonical.py."""
    tensor = q.p.item.tensor
    if len(tensor.body.attr.axes) != 1:
        return NARROW + 1
    return tensor.shape[-1] if tensor.shape else 1


def _heights(tallest: int) -> tuple[int, ...]:
    """Heights of tiles worth a kernel of their own: few rows are bound by reading b, once each."""
    return tuple(h for h in (2, 4, 8) if h < tallest) + (tallest,)


def _uses(tiles: int, q: Sized, sizes: Mapping[str, int]) -> int:
    """How many tiles read a panel of b: 1, some (2) or many (PACKED_USES)."""
    tiles *= value_at(extent_of(q.row_loops), sizes)
    return PACKED_USES if tiles >= PACKED_USES else min(max(tiles, 1), 2)


# ---- one chain per element -----------------------------------------------------------------------
def _tiled(q: Sized, target: Target, uses: int) -> Kernels:
    """Tiles read a in place, and b there, from panels packed beforehand, or one on the stack.

    uses: 1, some (2) or many (PACKED_USES) row tiles read a panel.
    """
    p = q.p
    apart = p.b_stride != 1 and p.n > 1
    far = apart or p.n * p.dtype.size_bytes >= FAR
    own = far and (uses > 1 or apart) and (uses < PACKED_USES or apart) and (
        isinstance(q.k, int) and 0 < q.k * p.width * p.dtype.size_bytes <= STACK_PANEL
    )
    packed: Buffer | None = None
    kernels: Kernels = []
    scratch: list[tuple[Buffer, Scratch]] = []
    if own:
        packed = Buffer("b_panel", p.dtype, (q.k * p.width,), "stack")
    elif far and not q.column_loops and (uses >= PACKED_USES or apart):
        size = q.k * extent_of(q.shared) * (q.panels * p.width)
        packed = Buffer("b_packed", p.dtype, (size,))
        scratch = [(packed, Scratch(p.dtype, size, "b_packed"))]
        kernels.append(_pack(q, packed, scratch))
    i, j = s.var("it"), s.var("jt")

    def tile(rows: int, width: int, whole: bool) -> Body:
        t = tile_of(q, rows, width, j)
        terms = [v for v, _ in q.terms]
        column = j * p.width + t.offset
        around = [] if own else [*q.shared, (j, q.panels)]
        b = p.b(terms, column) if packed is None else (
            _packed(q, packed, around, terms, t.offset)
        )  # fmt: skip
        sweep = hints(p, t, i, j) if whole and isinstance(q.n, int) else ()
        sweep += t.sweep(
            q.terms, lambda u: p.a(q.position(i, u, whole), terms, column), b, packed is None
        )
        stores = results_of(q, t, i, j * p.width, whole)
        finish = t.over_rows(t.lanes(stores))
        return t.whole(t.start(s.const(0, p.dtype)) + sweep + finish)

    rows_first = [*q.shared, *q.row_loops, (i, q.row_tiles), *q.column_loops, (j, q.panels)]
    columns_first = [*q.shared, *q.column_loops, (j, q.panels), *q.row_loops, (i, q.row_tiles)]
    b_bytes = p.k * p.n * extent_of(p.column_loops) * p.dtype.size_bytes
    swap = p.n > p.all_rows or b_bytes > target.l2_bytes // 2
    axes = columns_first if swap and p.panels * extent_of(p.column_loops) > 1 else rows_first
    steps = [
        f"tile(i, j, {p.rows}, {p.width})", "reorder(k, i.i, j.i)", "cache_write(acc, register)",
        "unroll(i.i)", f"vectorize(j.i, {p.lanes})",
    ]  # fmt: skip
    body = cases_of(q, i, j, tile)
    if own:
        assert packed is not None
        body = nest([*q.row_loops, (i, q.row_tiles)], body)
        body = (Alloc(packed, _copied(q, packed, [], j) + body),)
        axes = [*q.shared, *q.column_loops, (j, q.panels), (s.var("all"), 1)]
        steps.append("cache_read(b, panel)")
    kernels.append(_over_tiles(q, body, axes, steps, scratch))
    return kernels


def _over_tiles(
    q: Sized, body: Body, axes: Axes, steps: list[str],
    scratch: Sequence[tuple[Buffer, Scratch]] = (),
) -> LoweredKernel:  # fmt: skip
    """The kernel that runs ``body`` for every tile; all axes but the last go to threads."""
    task, extent, change = single_axis(axes[:-1], "task")
    body = loop_visit.substitute_vars(nest(axes[-1:], body), change)
    each = s.maximum(s.index(q.work) // s.maximum(s.index(extent), 1), 1)
    chunk = s.maximum(s.index(PARALLEL_WORK // 4) // each, 1)
    parallel = (For(task, extent, PARALLEL, body),)
    names = ", ".join(str(v.attr) for v, _ in axes[:-1])
    return q.p.x.kernel(
        parallel, [*steps, f"parallel({names})"], q.work * 2, chunk, scratch,
        work=(q.work, PARALLEL_WORK),
    )  # fmt: skip


def _sums_over_images(q: Sized) -> bool:
    """Whether an argument counts images (of each part of a batch), each of which is a sum worth a
    visit of every tile."""
    static = [*q.terms[1:], *q.row_axes, *q.row_loops, (LANE, q.n)]
    return (
        len(q.terms) > 1 and not q.column_loops and isinstance(q.terms[0][1], Expr)
        and all(isinstance(n, int) for _, n in static) and extent_of(q.terms[1:]) >= IMAGE_TERMS
    )  # fmt: skip


def _image_by_image(q: Sized) -> LoweredKernel:
    """For every image all tiles, each continuing its chains from memory: what they read of one
    image stays in the caches. There is at least one image."""
    p, x = q.p, q.p.x
    i, j = s.var("it"), s.var("jt")
    image, images = q.terms[0]
    terms = [v for v, _ in q.terms]
    bare = p.bare
    size = plain(s.index(p.item.value.type.size))
    total = x.buffer(p.item.value) if bare else Buffer("partial", p.dtype, (size,))
    scratch = [] if bare else [(total, Scratch(p.dtype, size, "partial"))]

    def tile(rows: int, width: int, whole: bool) -> Body:
        t = Tile(p, rows, width)
        column = j * p.width + t.offset
        place = (x.position(p.item),)
        moves = (Store(t.acc, t.at, s.load(total, *place)),
                 Store(total, place, s.load(t.acc, *t.at)))  # fmt: skip
        resume, keep = (
            t.over_rows(t.lanes(at_tile(p, (move,), p.row_at(i, ROW), column))) for move in moves
        )
        zero = t.start(s.const(0, p.dtype))
        body: Body = (If(image.equal(0), zero, (zero if width % p.lanes else ()) + resume),)
        body += t.sweep(
            q.terms[1:], lambda u: p.a(p.row_at(i, u), terms, column), p.b(terms, column), True
        )
        if bare:
            return t.whole(body + keep)
        done = t.over_rows(t.lanes(results(p, t, i, j * p.width)))
        return t.whole((*body, If(image.equal(images - 1), done, keep)))

    flat, tiles, change = single_axis([*q.row_loops, (i, p.row_tiles)], "tile")
    body = loop_visit.substitute_vars(nest([(j, p.panels)], cases_of(q, i, j, tile)), change)
    share = -(-tiles // MANY_TASKS)
    group, within = s.var("group"), s.var("within")
    here = s.minimum(s.index(share), s.index(tiles) - group * share)
    body = loop_visit.substitute_vars(body, {flat: group * share + within})
    body = (For(image, images, SERIAL, (For(within, plain(here), SERIAL, body),)),)
    steps = [
        "split(k, images)", f"tile(i, j, {p.rows}, {p.width})", "reorder(k.o, i, j, k.i)",
        "cache_write(acc, register)", "unroll(i.i)", f"vectorize(j.i, {p.lanes})",
    ]  # fmt: skip
    axes = [*q.shared, (group, -(-tiles // share)), (s.var("all"), 1)]
    return _over_tiles(q, body, axes, steps, scratch)


def _packed(
    q: Sized, packed: Buffer, around: Axes, terms: Sequence[Expr], column: Expr
) -> Expr:
    """packed[around..., terms..., column of the panel]"""
    at = s.index(0)
    rows = [(value, extent) for value, (_, extent) in zip(terms, q.terms, strict=True)]
    for value, extent in [*around, *rows]:
        at = at * s.index(extent) + value
    return s.load(packed, at * q.p.width + column)


def _copied(q: Sized, packed: Buffer, around: Axes, panel: Expr) -> Body:
    """A panel of b into its place, zeros beyond the last column; squares of a transposed b are
    turned in registers."""
    p = q.p

    def element(terms: Sequence[Expr], column: Expr) -> Expr:
        return _packed(q, packed, around, terms, column)

    terms = [v for v, _ in q.terms]
    column = VECTOR * p.lanes + LANE
    at = element(terms, column).args
    store: Body = (Store(packed, at, p.b(terms, panel * p.width + column)),)
    if not isinstance(q.n, int) or q.n % p.width:
        zero = Store(packed, at, s.const(0, p.dtype))
        store = (If(panel * p.width + column < q.n, store, (zero,)),)
    vectors = For(VECTOR, p.vectors, UNROLL, (For(LANE, p.lanes, VECTORIZE, store),))
    plainly = nest(q.terms, (vectors,))
    whole = Blocks(s.index(0), 1, q.terms, [n for _, n in p.terms], terms)
    if isinstance(q.n, int) and turns(p, whole):
        return turn_panel(p, packed, whole, panel, element, plainly)
    return plainly


def _pack(
    q: Sized, packed: Buffer, scratch: Sequence[tuple[Buffer, Scratch]]
) -> LoweredKernel:
    """All panels of b, beforehand."""
    panel = s.var("jt")
    around = [*q.shared, (panel, q.panels)]
    task, extent, change = single_axis(around, "task")
    copied = loop_visit.substitute_vars(_copied(q, packed, around, panel), change)
    return q.p.x.kernel(
        (For(task, extent, PARALLEL, copied),), ["cache_read(b, panels)", "parallel(j.o)"], 0, 1,
        scratch, "_pack", work=(packed.shape[0], PARALLEL_WORK // 4),
    )  # fmt: skip


# ---- STRIPE chains per element -------------------------------------------------------------------
def _striped_rows(q: Sized) -> LoweredKernel:
    """Vectors run along the rows: the stripes one after the other, their sums kept on the stack."""
    p = q.p
    i, j, stripe, step = s.var("it"), s.var("jt"), s.var("stripe"), s.var("k")
    if isinstance(q.m, Expr):
        raise TypeError("a narrow product whose columns are an argument")

    def tile(rows: int, width: int, whole: bool) -> Body:
        t = tile_of(q, rows, width, j)
        j0 = j * p.width
        sums = Buffer("stripes", p.dtype, (STRIPE, rows * t.vectors * p.lanes), "stack")
        term = _split_term(q, step * STRIPE + stripe)
        count = (s.index(q.k) + (STRIPE - 1) - stripe) // STRIPE
        body = t.start(s.const(0, p.dtype))
        body += t.sweep(
            [(step, plain(count))],
            lambda u: p.a(p.row_at(i, u), term, j0 + t.offset),
            p.b(term, j0 + t.offset),
            b_masked=True,
        )
        keep = Store(sums, (stripe, *t.at), s.load(t.acc, *t.at))
        body += t.over_rows(t.lanes((keep,), masked=False))
        loops: Body = (For(stripe, STRIPE, SERIAL, t.whole(body)),)
        half = STRIPE // 2
        while half:
            both = s.load(sums, stripe, *t.at) + s.load(sums, stripe + half, *t.at)
            fold = t.over_rows(t.lanes((Store(sums, (stripe, *t.at), both),), masked=False))
            loops += (For(stripe, half, SERIAL, fold),)
            half //= 2
        final = s.load(sums, s.index(0), *t.at)
        finish = t.over_rows(t.lanes((Store(t.acc, t.at, final),), masked=False))
        finish += t.over_rows(t.lanes(results(p, t, i, j0)))
        return (Alloc(sums, loops + t.whole(finish)),)

    axes = [*q.shared, *q.row_loops, *q.column_loops, (j, q.panels), (i, p.row_tiles)]
    steps = [
        f"tile(j, i, {p.rows}, {p.width})", f"stripe(k, {STRIPE})", "reorder(k.l, k.o, j.i, i.i)",
        "cache_write(acc, register)", "unroll(j.i)", f"vectorize(i.i, {p.lanes})",
    ]  # fmt: skip
    return _over_tiles(q, cases_of(q, i, j, tile), axes, steps)


def _split_term(q: Sized, k: Expr) -> list[Expr]:
    values: list[Expr] = []
    for _, extent in reversed(q.terms[1:]):
        values.insert(0, k % s.index(extent))
        k = k // s.index(extent)
    return [k, *values] if q.terms else []


@dataclass
class _Clamped(Problem):
    """A problem whose rows beyond the last are the last one again."""

    limit: Any = None

    def row_at(self, tile: Expr, u: Expr, rows: int = 0) -> Position:
        return (s.minimum(super().row_at(tile, u, rows)[0], self.limit - 1),)


def _few_terms(p: Problem) -> int:
    """The most terms for which a transposed b stays in the first-level caches."""
    return max(1, 96 * 1024 // (max(1, p.n) * p.dtype.size_bytes * STRIPE)) * STRIPE


def _striped_terms(q: Sized, few_terms: bool) -> LoweredKernel:
    """Vectors run along k: STRIPE partial sums per result are one vector, folded at the end."""
    p = q.p
    if not isinstance(q.n, int):
        raise TypeError("a narrow product whose columns are an argument")
    if len(p.row_axes) != 1:
        raise TypeError("a narrow product without an axis for its rows")
    p.k, p.terms = q.k, q.terms
    # Rows beyond the edge write the last one again, so nothing they read may be overwritten.
    p.x.in_place = ()
    clamped = _Clamped(**{f.name: getattr(p, f.name) for f in fields(Problem)}, limit=q.m)
    blocks = (q.k + (STRIPE - 1)) // STRIPE
    columns = max(1, min(p.n, 10))
    rows = max(1, 20 // columns)
    band, row_of_band, k = s.var("band"), s.var("it"), s.var("k")
    tiles = max(1, STRIPED_BAND // rows)
    row_tiles = (s.index(q.m) + (rows - 1)) // rows
    turn = stride_along(p.b(p.split_term(k), s.var("j")), k) != 1
    turn = turn and few_terms
    longest = _few_terms(p) if isinstance(blocks, Expr) else blocks * STRIPE
    turned = Buffer("b_turned", p.dtype, (max(1, p.n), longest), "stack")

    def element_b(term: Expr, column: Expr) -> Expr:
        return s.load(turned, column, term) if turn else p.b(p.split_term(term), column)

    first = band * tiles + row_of_band

    def strip(one: Problem) -> Body:
        out: Body = ()
        for start in range(0, max(1, p.n), columns):
            width = min(columns, max(1, p.n) - start)
            out += _terms_tile(one, first * rows, rows, start, width, element_b)
        return out

    body: Body = _turn(p, turned, blocks) if turn else ()
    here = s.minimum(s.index(tiles), row_tiles - band * tiles)
    every = (If((first + 1) * rows <= s.index(q.m), strip(p), strip(clamped)),)
    body += (For(row_of_band, plain(here), SERIAL, every),)
    if turn:
        body = (Alloc(turned, body),)
    steps = [
        f"tile(i, j, {rows}, {columns})", f"stripe(k, {STRIPE})", "unroll(i.i)", "unroll(j.i)",
        f"vectorize(k.l, {STRIPE})",
    ]  # fmt: skip
    around = [*q.shared, *q.row_loops, *q.column_loops]
    bands = plain((row_tiles + (tiles - 1)) // tiles)
    return _over_tiles(q, body, [*around, (band, bands), (s.var("all"), 1)], steps)
