"""Products of small integers, two terms at a time.

Main functions: ``paired``, ``packed_pairs``, ``pack_terms``. May import core, ir and
contraction.panels.

int8 and int16 operands become int32 sums. Packed two and two into int32 lanes, one instruction
multiplies both and adds them (``Target.pair_product``): twice the terms of a float's fma, where a
product of int32 takes longer than one. Sums of integers are the same in any order, modulo 2**32,
so term t stands beside term t + half: both are read as vectors, none is shuffled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tinyflow.core.dtype import SMALL_INTEGERS, int32
from tinyflow.ir.loop.nodes import PARALLEL, SERIAL, VECTORIZE, Body, Buffer, For, If, Store
from tinyflow.ir.loop.visit import substitute_vars
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.schedule.contraction.panels import pack_row
from tinyflow.schedule.contraction.problem import Position, Problem, extent_of
from tinyflow.schedule.contraction.sums import flat_index
from tinyflow.schedule.contraction.tile import LANE, ROW
from tinyflow.schedule.grain import nest
from tinyflow.schedule.lowering import Axes, LoweredKernel, Scratch, single_axis
from tinyflow.schedule.targets import Target

#: b at the summed axes' values, a panel and a column within it
PackedElement = Callable[[Sequence[Expr], Expr, Expr], Expr]
PackedScratch = list[tuple[Buffer, Scratch]]

#: Tiles along the rows from which on packing both operands pays.
LEAST_USES = 4
#: Terms of the axis that is halved, at least.
LEAST_TERMS = 8


def paired(p: Problem, target: Target) -> Problem | None:
    """The problem with half as many terms, each of them a pair; None where that does not pay."""
    if p.dtype is not int32 or target.pair_product is None or not p.terms or p.column is None:
        return None
    last, extent = p.terms[-1]
    if p.striped or p.column_loops or extent < LEAST_TERMS or p.panel_uses < LEAST_USES:
        return None
    if p.a_stride != 1 and p.rows > p.lanes:
        return None  # its tiles are packed a vector of rows at a time
    terms = [v for v, _ in p.terms]
    if not (_is_small(p.b(terms, p.column)) and _is_small(p.a(p.row_at(s.index(0), ROW), terms,
                                                              p.column))):  # fmt: skip
        return None
    half = -(-extent // 2)

    def join(at: Callable[[Sequence[Expr]], Expr], term: Sequence[Expr]) -> Expr:
        second = term[-1] + half
        high = at([*term[:-1], second])
        if extent % 2:
            high = s.select(second < extent, high, s.const(0, int32))
        low = s.binary("and", at(term), s.const(0xFFFF, int32))
        return s.binary("or", low, s.binary("shl", high, s.const(16, int32)))

    def a(position: Position, term: Sequence[Expr], j: Expr) -> Expr:
        return join(lambda t: p.a(position, t, j), term)

    def b(term: Sequence[Expr], j: Expr) -> Expr:
        return join(lambda t: p.b(t, j), term)

    return replace(p, a=a, b=b, k=p.k // extent * half, terms=[*p.terms[:-1], (last, half)],
                   paired=True)  # fmt: skip


def _is_small(operand: Expr) -> bool:
    """Whether an operand is a small integer from memory."""
    return (
        operand.op == "cast"
        and operand.args[0].op == "load"
        and operand.args[0].dtype in SMALL_INTEGERS
    )


def packed_pairs(p: Problem) -> tuple[LoweredKernel, PackedElement, PackedScratch]:
    """The kernel that packs all panels of b, an element of them, and where they are."""
    size = extent_of([*p.shared, *p.terms]) * p.panels * p.width
    packed = Buffer("b_packed", p.dtype, (size,))
    scratch = [(packed, Scratch(p.dtype, size, "b_packed"))]

    def element(terms: Sequence[Expr], panel: Expr, column: Expr) -> Expr:
        rows = [(t, e) for t, (_, e) in zip(terms, p.terms, strict=True)]
        return s.load(packed, flat_index([*p.shared, (panel, p.panels), *rows, (column, p.width)]))

    j = s.var("jt")
    terms = [v for v, _ in p.terms]
    task, extent, change = single_axis([*p.shared, (j, p.panels)], "task")
    row = pack_row(p, packed, (terms, terms), j, lambda at, column: element(at, j, column))
    body = substitute_vars(nest(p.terms, row), change)
    steps = ["cache_read(b, panels)", "parallel(j.o)"]
    pack = p.x.kernel((For(task, extent, PARALLEL, body),), steps, 0, 1, scratch, "_pack")
    return pack, element, scratch


def pack_terms(
    p: Problem, packed: Buffer, place: Callable[[Expr], Expr], tile: Expr, axes: Axes,
    terms: Sequence[Expr], rows: int,
) -> Body:  # fmt: skip
    """``rows`` rows of a tile of a into their places, vectors along the last of ``axes``.

    place: of row u, in terms of the axes.   terms: the summed axes' values in terms of them.
    """
    last, extent = axes[-1]
    chunk = s.var("kq")
    value = p.a(p.row_at(tile, ROW), terms, s.index(0))
    store: Body = (Store(packed, (place(ROW),), value),)
    whole = isinstance(extent, int) and extent % p.lanes == 0
    if not whole:
        store = (If(last < extent, store),)
    store = substitute_vars(store, {last: chunk * p.lanes + LANE})
    count = -(-extent // p.lanes) if isinstance(extent, int) else scalar_visit.plain(
        (extent + (p.lanes - 1)) // p.lanes
    )  # fmt: skip
    body: Body = (For(chunk, count, SERIAL, (For(LANE, p.lanes, VECTORIZE, store),)),)
    return (For(ROW, rows, SERIAL, nest(axes[:-1], body)),)
