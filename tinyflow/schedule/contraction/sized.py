"""Contractions whose extents are arguments: true extents, edges that a run tells.

Main types: ``Sized``, ``EdgeTile``; ``tile_of``, ``cases_of``, ``results_of``. May import core, ir
and contraction's tile and problem.

Rows of the last tile beyond the edge compute the last row again, lanes beyond the last column are
masked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tinyflow.ir.loop.nodes import UNROLL, VECTORIZE, Body, For, If, Store
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.schedule.contraction.problem import Problem, extent_of
from tinyflow.schedule.contraction.tile import LANE, ROW, VECTOR, Tile, cases, results
from tinyflow.schedule.lowering import Axes


class Sized:
    """A problem made with likely sizes, and the true extents of its axes."""

    def __init__(self, p: Problem, tallest: int) -> None:
        self.p, self.tallest = p, tallest
        extents = p.x.extents

        def true(axes: Axes) -> Axes:
            return [(v, extents.get(v, n)) for v, n in axes]

        self.terms, self.row_axes = true(p.terms), true(p.row_axes)
        self.shared, self.row_loops = true(p.shared), true(p.row_loops)
        self.column_loops = true(p.column_loops)
        self.k, self.m = extent_of(self.terms), extent_of(self.row_axes)
        self.n: Any = p.n if p.column is None else extents.get(p.column, p.n)
        if len(p.row_axes) > 1 and isinstance(self.m, Expr):
            raise TypeError("a tile would have rows of two axes, one of them an argument")

    @property
    def work(self) -> Any:
        around = extent_of([*self.shared, *self.row_loops, *self.column_loops])
        return self.m * self.k * around * self.n

    @property
    def row_tiles(self) -> Any:
        rows = self.p.rows
        return (self.m + (rows - 1)) // rows if isinstance(self.m, Expr) else self.p.row_tiles

    @property
    def panels(self) -> Any:
        width = self.p.width
        return self.p.panels if isinstance(self.n, int) else (self.n + (width - 1)) // width

    def position(self, i: Expr, u: Expr, whole: bool, rows: int = 0) -> tuple[Expr, ...]:
        """Row ``u`` of tile ``i``; whole: no row of the tile lies beyond the last."""
        at = self.p.row_at(i, u, rows)
        return at if whole else (s.minimum(at[0], self.m - 1),)


class EdgeTile(Tile):
    """A tile of the last panel, whose width a run tells: lanes beyond the edge are masked."""

    def __init__(self, p: Problem, rows: int, first: Expr, end: Any) -> None:
        super().__init__(p, rows, p.width)
        self.first, self.end = first, end

    def lanes(self, body: Body, masked: bool = True) -> Body:
        if not masked:
            return super().lanes(body, masked)
        zero: Body = ()
        if any(isinstance(st, Store) and st.buffer is self.b_now for st in body):
            zero = super().lanes((Store(self.b_now, (self.offset,), s.const(0, self.p.dtype)),))
        inside = If(self.first + self.offset < self.end, body)
        lane = For(LANE, self.p.lanes, VECTORIZE, (inside,))
        return (*zero, For(VECTOR, self.vectors, UNROLL, (lane,)))


def tile_of(q: Sized, rows: int, width: int, panel: Expr) -> Tile:
    """A tile of known width, or (0) the one of the last panel."""
    p = q.p
    return Tile(p, rows, width) if width else EdgeTile(p, rows, panel * p.width, q.n)


def existing_rows(q: Sized, i: Expr, body: Body, whole: bool) -> Body:
    """``body`` for row ROW of tile ``i`` if there is one; whole: there is."""
    if whole or not isinstance(q.m, Expr):
        return body
    return (If(q.position(i, ROW, True)[0] < q.m, body),)


def results_of(q: Sized, t: Tile, i: Expr, j: Expr, whole: bool) -> Body:
    """The group's results; rows beyond the last have none."""
    return existing_rows(q, i, results(q.p, t, i, j), whole)


def cases_of(
    q: Sized, i: Expr, j: Expr, make: Callable[[int, int, bool], Body], lower: Sequence[int] = ()
) -> Body:
    """The tile at row tile ``i`` and panel ``j``; at the edges narrower or with repeated rows.

    make(rows, width, whole): width 0 for a panel of which a run tells how wide it is.
    lower: heights that the last tile may have instead, where so many rows are enough.
    """
    p = q.p

    def panel(rows: int, whole: bool) -> Body:
        if not isinstance(q.n, int):
            inside = (j + 1) * p.width <= q.n
            return (If(inside, make(rows, p.width, whole), make(rows, 0, whole)),)
        full = p.n // p.width
        main = make(rows, p.width, whole) if full else ()
        tail = make(rows, p.n % p.width, whole) if p.n % p.width else ()
        return cases(j, p.panels, full, main, tail)

    if isinstance(q.m, Expr):
        last = panel(p.rows, False)
        for rows in sorted(lower, reverse=True):
            last = (If(q.m - i * p.rows <= rows, panel(rows, False), last),)
        return (If((i + 1) * p.rows <= q.m, panel(p.rows, True), last),)
    full = p.m // p.rows
    main = panel(p.rows, True) if full else ()
    tail = panel(p.m % p.rows, True) if p.m % p.rows else ()
    return cases(i, p.row_tiles, full, main, tail)
