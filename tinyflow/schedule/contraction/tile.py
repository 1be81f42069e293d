"""One register tile of a contraction, and what surrounds every tile.

Main type: ``Tile``; ``over_tiles`` makes the kernel. May import core, ir and contraction.problem.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    Call,
    For,
    If,
    Store,
)
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ir.scalar.visit import plain
from tinyflow.schedule.contraction.problem import Position, Problem, extent_of
from tinyflow.schedule.grain import nest
from tinyflow.schedule.lowering import Axes, LoweredKernel, Scratch, single_axis

#: Multiply-adds below which threads do not pay.
PARALLEL_WORK = 200_000
#: Tasks for threads that make their shares about equal.
MANY_TASKS = 8
#: Multiply-adds (vectors) of a summed axis that is unrolled whole: the taps of a small filter.
UNROLLED = 64

#: Arrays of an epilogue that are asked for ahead, and the terms from which there is time to.
MOST_HINTS = 4
HINT_TERMS = 4

# ---- one tile ------------------------------------------------------------------------------------
ROW, VECTOR, LANE, TERM = s.var("u"), s.var("v"), s.var("lane"), s.var("k")


def multiply_add(a: Expr, b: Expr, acc: Expr) -> Expr:
    return s.fma(a, b, acc) if a.dtype.kind == "float" else a * b + acc


class Tile:
    """Loop nests over one register tile of ``rows`` x ``vectors`` accumulators."""

    def __init__(self, p: Problem, rows: int, width: int) -> None:
        self.p, self.rows, self.width = p, rows, width
        self.vectors = -(-width // p.lanes)
        self.acc = Buffer("acc", p.dtype, (rows * self.vectors * p.lanes,), "register")
        self.b_now = Buffer("b_now", p.dtype, (self.vectors * p.lanes,), "register")

    @property
    def at(self) -> tuple[Expr]:
        p = self.p
        return (ROW * (self.vectors * p.lanes) + VECTOR * p.lanes + LANE,)

    def lanes(self, body: Body, masked: bool = True) -> Body:
        """``body`` for every lane of every vector of the tile's row; the last may be partial."""
        p = self.p
        rest = self.width % p.lanes
        out: Body = ()
        full = self.vectors - (1 if rest and masked else 0)
        if full:
            out += (For(VECTOR, full, UNROLL, (For(LANE, p.lanes, VECTORIZE, body),)),)
        if rest and masked:
            last = loop_visit.substitute_vars(body, {VECTOR: s.index(self.vectors - 1)})
            out += (For(LANE, p.lanes, VECTORIZE, (If(rest > LANE, last),)),)
        return out

    def over_rows(self, body: Body) -> Body:
        return (For(ROW, self.rows, UNROLL, body),)

    @property
    def offset(self) -> Expr:
        """Column within the tile."""
        return VECTOR * self.p.lanes + LANE

    def start(self, initial: Expr) -> Body:
        return self.over_rows(self.lanes((Store(self.acc, self.at, initial),), masked=False))

    def sweep(
        self, axes: Axes, a: Callable[[Expr], Expr], b: Expr, b_masked: bool
    ) -> Body:
        """for the terms of ``axes``: acc[u, v] = fma(a(u), b, acc[u, v])"""
        fetch = self.lanes((Store(self.b_now, (self.offset,), b),), masked=b_masked)
        b_lane = s.load(self.b_now, self.offset)
        step = s.dot_pairs if self.p.paired else multiply_add
        update = Store(self.acc, self.at, step(a(ROW), b_lane, s.load(self.acc, *self.at)))
        if self.width % self.p.lanes and b_masked:
            # Lanes beyond the edge hold nothing: they must not be read either.
            zero = Store(self.b_now, (self.offset,), s.const(0, self.p.dtype))
            fetch = self.lanes((zero,), masked=False) + fetch
        a_masked = VECTOR in scalar_visit.free_vars(a(ROW))
        body = fetch + self.over_rows(self.lanes((update,), masked=a_masked))
        if self.rows * self.vectors >= 16:
            # Steps of an unrolled loop must not load early: the accumulators fill the registers.
            body = (Call("in_order", ()), *body)
        for position, (var, extent) in enumerate(reversed(axes)):
            body = self.repeat(var, extent, body) if not position else (
                For(var, extent, SERIAL, body),)  # fmt: skip
        return (Alloc(self.b_now, body),)

    def repeat(self, var: Expr, extent: Any, body: Body) -> Body:
        """for var in extent: body; two steps per iteration where the tile is large and k long.

        Counting and jumping costs a tenth of a large tile's step; more than two gain no more.
        """
        if isinstance(extent, int) and extent * self.rows * self.vectors <= UNROLLED:
            return (For(var, extent, UNROLL, body),)
        if self.rows * self.vectors < 16 or (isinstance(extent, int) and extent < 16):
            return (For(var, extent, SERIAL, body),)
        outer, inner = s.var("ko"), s.var("ki")
        count = s.index(extent)
        pairs = count // 2
        twice = loop_visit.substitute_vars(body, {var: outer * 2 + inner})
        nest: Body = (For(outer, plain(pairs), SERIAL, (For(inner, 2, UNROLL, twice),)),)
        if not (count.is_const and count.attr % 2 == 0):
            last = loop_visit.substitute_vars(body, {var: pairs * 2 + inner})
            nest += (For(inner, plain(count - pairs * 2), SERIAL, last),)
        return nest

    def whole(self, body: Body) -> Body:
        return (Alloc(self.acc, body),)


def results(p: Problem, tile: Tile, i: Expr, j: Expr) -> Body:
    """The group's results from the accumulators of row tile ``i``, columns j + offset."""
    p.x.temporaries[p.item.value] = s.load(tile.acc, *tile.at)
    p.x.forget()
    stores = tuple(p.x.store_result(r) for r in p.x.results)
    return at_tile(p, stores, p.row_at(i, ROW), j + tile.offset)


def hints(p: Problem, tile: Tile, i: Expr, j: Expr) -> Body:
    """Asks for what the epilogue reads of row tile ``i`` and panel ``j``: its rows lie in as many
    pages, which no hardware prefetcher follows, and the sums hide the way to memory."""
    calls: dict[tuple[Any, Expr], Call] = {}
    for stmt in results(p, tile, i, j * p.width):
        for load in scalar_visit.loads(stmt.value):  # type: ignore[attr-defined]
            buffer = load.attr
            used = scalar_visit.free_vars(load)
            if buffer.scope == "param" and ROW in used and LANE in used and len(load.args) == 1:
                first = scalar_visit.substitute(load.args[0], {LANE: s.index(0)})
                calls[buffer, first] = Call("prefetch_read", (buffer, first))
    if not 0 < len(calls) <= MOST_HINTS or p.k < HINT_TERMS:
        return ()
    vectors = For(VECTOR, tile.vectors, UNROLL, tuple(calls.values()))
    return tile.over_rows((vectors,))


def at_tile(p: Problem, body: Body, position: Position, j: Expr) -> Body:
    body = loop_visit.substitute_vars(body, p.mapping)
    change = {v: i for (v, _), i in zip(p.row_axes, position, strict=True)}
    if p.column is not None:
        change[p.column] = j
    return loop_visit.substitute_vars(body, change)


def cases(index: Expr, count: int, full: int, main: Body, tail: Body) -> Body:
    """``main`` for index < full, else ``tail``; only what can happen is generated."""
    if full == count:
        return main
    return tail if full == 0 else (If(index < full, main, tail),)


def tile_cases(p: Problem, i: Expr, j: Expr, make: Callable[[int, int], Body]) -> Body:
    """The tile at row tile ``i`` and panel ``j``: ``make(rows, width)``, smaller at the edges."""
    full_rows, full_panels = p.m // p.rows, p.n // p.width

    def panel(rows: int) -> Body:
        main = make(rows, p.width) if full_panels else ()
        tail = make(rows, p.n % p.width) if p.n % p.width else ()
        return cases(j, p.panels, full_panels, main, tail)

    main = panel(p.rows) if full_rows else ()
    tail = panel(p.m % p.rows) if p.m % p.rows else ()
    return cases(i, p.row_tiles, full_rows, main, tail)


def tile_steps(p: Problem) -> list[str]:
    return [
        f"tile(i, j, {p.rows}, {p.width})", "reorder(k, i.i, j.i)", "cache_write(acc, register)",
        "unroll(i.i)", f"vectorize(j.i, {p.lanes})",
    ]  # fmt: skip


def over_tiles(
    p: Problem, body: Body, axes: Axes, steps: list[str],
    scratch: Sequence[tuple[Buffer, Scratch]] = (),
) -> LoweredKernel:  # fmt: skip
    """The kernel that runs ``body`` for every tile; all axes but the last go to threads."""
    work = extent_of([*p.outer, (ROW, p.m), (LANE, p.n), (TERM, p.k)])
    if work < PARALLEL_WORK:
        return p.x.kernel(nest(axes, body), steps, 2 * work, scratch=scratch)
    count = max(1, len(axes) - 1)
    task, extent, change = single_axis(axes[:count], "task")
    body = loop_visit.substitute_vars(nest(axes[count:], body), change)
    chunk = max(1, PARALLEL_WORK // 4 // max(1, work // max(1, extent)))
    parallel = (For(task, extent, PARALLEL, body),)
    names = ", ".join(str(v.attr) for v, _ in axes[:count])
    return p.x.kernel(parallel, [*steps, f"parallel({names})"], 2 * work, chunk, scratch)
