"""Contractions whose tasks pack a panel of b at a time on their stacks.

Main function: ``lower_panels``. May import core, ir, contraction.tile and contraction.sums.

For a b whose rows are pages apart, or whose columns are, and for many tiles along the rows: a
packed panel is one stream for all of them, and stays in the cache of the core that packed it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tinyflow.ir.loop import visit as loop_visit
from tinyflow.ir.loop.nodes import (
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
from tinyflow.schedule.contraction.problem import Problem, extent_of, in_tiles, stride_along
from tinyflow.schedule.contraction.sums import Blocks, BlockSums, blocks_of, flat_index, in_bands
from tinyflow.schedule.contraction.tile import LANE, VECTOR, over_tiles, tile_cases, tile_steps
from tinyflow.schedule.grain import nest
from tinyflow.schedule.lowering import LoweredKernel
from tinyflow.schedule.targets import Target

#: Bytes of a panel of b that a task packs for itself: half of what one stack may hold.
STACK_PANEL = 128 * 1024
#: Bytes between two rows of b beyond which every row is another page's.
FAR = 1024
#: Tasks that give threads shares about equal, where ...
EQUAL_TASKS = 16
#: ... each has so many tiles along the rows to pay for packing a panel of its own.
TILES_PER_TASK = 8

#: Rows up to which a product with a b that is apart is bound by memory, the squares of b that are
#: turned before they are used, and those between a hint and what it is for.
FEW_ROWS, PASSING_SQUARES, AHEAD_SQUARES = 4, 4, 4
#: Vectors per row of a tile that reads a packed panel, and how many times the elements of other
#: tiles these may cover.
WIDE, SPARE = 4, 1.02

#: The packed panel at the summed axes' values and a column within it.
PanelElement = Callable[[Sequence[Expr], Expr], Expr]


def lower_panels(p: Problem) -> LoweredKernel:
    """Each task packs its panel of b, a block of terms at a time, and sweeps all tiles along the
    rows, or a band of them where there are few panels."""
    i, j, band = s.var("it"), s.var("jt"), s.var("band")
    blocks = blocks_of(p, _most_terms(p))
    sums = BlockSums(p, blocks)
    local = [v for v, _ in blocks.inner]
    size = extent_of(list(zip(local, blocks.sizes, strict=True))) * p.width
    panel = Buffer("panel", p.dtype, (size,), "stack")

    def element(terms: Sequence[Expr], column: Expr) -> Expr:
        rows = list(zip(terms, blocks.sizes, strict=True))
        return s.load(panel, flat_index([*rows, (column, p.width)]))

    pack = nest(blocks.inner, pack_row(p, panel, (blocks.at, local), j, element))
    if turns(p, blocks):
        pack = turn_panel(p, panel, blocks, j, element, pack)
    sweep = tile_cases(
        p, i, j,
        lambda rows, width: sums.tile(rows, width, i, j, lambda t: element(local, t.offset), False),
    )  # fmt: skip
    tasks = [*p.shared, *p.column_loops, (j, p.panels)]
    outermost, *rows = [*p.row_loops, (i, p.row_tiles)]
    more_tasks = min(-(-EQUAL_TASKS // extent_of(tasks)), p.panel_uses // TILES_PER_TASK)
    bands = max(1, min(more_tasks, outermost[1]))
    share, value = in_bands(outermost, bands, band)
    sweep = loop_visit.substitute_vars(nest([share, *rows], sweep), {outermost[0]: value})
    steps = [*tile_steps(p), "cache_read(b, panel)"]
    if blocks.count > 1:
        steps.insert(0, f"split(k, {blocks.count} blocks)")
    axes = [*tasks, (band, bands), (s.var("all"), 1)]
    return over_tiles(p, (Alloc(panel, sums.repeat(pack + sweep)),), axes, steps, sums.scratch)


def is_passing(p: Problem) -> bool:
    """Whether a b whose columns are apart is read once, for a few rows: memory is the work."""
    return p.panel_uses == 1 and p.m <= FEW_ROWS and p.b_stride != 1 and p.n > 1


def in_single_vectors(p: Problem) -> Problem:
    """The problem a vector of columns at a time, so that few streams of b come from memory, and a
    few squares of them: turning them hides behind the way there."""
    if p.tuning.vectors or p.tuning.kc:
        return p
    return replace(p, vectors=1, tuning=replace(p.tuning, kc=PASSING_SQUARES * p.lanes))


def in_wide_tiles(p: Problem, target: Target) -> Problem:
    """The problem in tiles of WIDE vectors, where these leave no more of themselves empty.

    A row of the tile then takes fewer loads per fma, and a is read half as often; a packed panel
    has the bandwidth for it. Its blocks of terms are shorter: where that makes more of them, the
    sums that wait for the next must be results, and fit the cache.
    """
    if p.tuning.rows or p.tuning.vectors or p.vectors >= WIDE:
        return p
    wide = in_tiles(p, WIDE, target)
    if wide is None or wide.tile_elements > SPARE * p.tile_elements:
        return p
    sums_bytes = p.all_rows * wide.width * p.dtype.size_bytes
    more_blocks = blocks_of(wide, _most_terms(wide)).count > blocks_of(p, _most_terms(p)).count
    return p if more_blocks and not (p.bare and sums_bytes <= target.l2_bytes) else wide


def _most_terms(p: Problem) -> int:
    """Terms of a panel that a stack holds."""
    return min(p.tuning.kc or p.k, STACK_PANEL // (p.width * p.dtype.size_bytes))


def pack_row(
    p: Problem, panel: Buffer, terms: tuple[Sequence[Expr], Sequence[Expr]], j: Expr,
    element: PanelElement,
) -> Body:  # fmt: skip
    """One row of panel ``j`` of b into its place, zeros beyond the last column.

    terms: values of the summed axes, of all of them and within the block.
    """
    column = VECTOR * p.lanes + LANE
    place = element(terms[1], column).args
    store: Body = (Store(panel, place, p.b(terms[0], j * p.width + column)),)
    if p.n % p.width:
        zero = Store(panel, place, s.const(0, p.dtype))
        store = (If(j * p.width + column < p.n, store, (zero,)),)
    return (For(VECTOR, p.vectors, UNROLL, (For(LANE, p.lanes, VECTORIZE, store),)),)


def turns(p: Problem, blocks: Blocks) -> bool:
    """Whether b's terms lie side by side, so that squares of it can be turned in registers."""
    if not p.terms:
        return False
    term = p.terms[-1][0]
    value = p.b([v for v, _ in p.terms], s.var("j"))
    return (
        value.op == "load"
        and value.attr.dtype.size_bytes == 4
        and stride_along(value, term) == 1
        and p.b_stride not in (0, None)
        and blocks.sizes[-1] >= p.lanes
        and p.n >= p.width
    )


def turn_panel(
    p: Problem, panel: Buffer, blocks: Blocks, j: Expr, element: PanelElement, plainly: Body
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
    (place,) = element(local, vector * lanes).args
    assert p.b_stride is not None
    apart = s.index(p.b_stride)
    turn = Call("transpose", (panel, place, s.index(p.width), first.attr, first.args[0],
                              apart, s.index(lanes)))  # fmt: skip
    ahead = first.args[0] + AHEAD_SQUARES * lanes
    asked = [Call("prefetch_read", (first.attr, ahead + apart * row)) for row in range(lanes)]
    # Along a row of memory first: as many streams as a square has rows, each as long as the block.
    squares: Body = (For(square, plain(here // lanes), SERIAL, (*asked, turn)),)
    body: Body = (For(vector, p.vectors, SERIAL, squares),)
    if not (isinstance(extent, int) and extent % lanes == 0):
        tail = s.var("kt")
        terms, local = at(here // lanes * lanes + tail)
        row = pack_row(p, panel, (terms, local), j, element)
        body += (For(tail, plain(here - here // lanes * lanes), SERIAL, row),)
    body = nest(blocks.inner[:-1], body)
    full = p.n // p.width
    return body if full == p.panels else (If(j < full, body, plainly),)
