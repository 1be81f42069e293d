"""Element-wise loops that read arrays across: squares are turned in registers on the way.

Main function: ``across``. May import core, ir, schedule.grain and schedule.lowering.

Lanes walk the last axis of the domain. Where a transposed operand lies in memory along an earlier
axis, one vector would be gathered from as many cache lines as it has lanes. So the domain is cut
into blocks over (that axis, last axis); squares of the operand, lanes x lanes, are turned into a
small buffer, and the expressions run over the block's rows and read it in order.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tinyflow.ir.loop import visit as loop_visit
from tinyflow.ir.loop.nodes import (
    PARALLEL,
    SERIAL,
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
from tinyflow.schedule.grain import PARALLEL_ELEMENTS, nest, size, tasks_per_claim
from tinyflow.schedule.lowering import Axes, roots_of, single_axis
from tinyflow.schedule.prefetch import CACHE_LINE

#: Squares of a block along the axis that the operands lie along, and along the last one.
DEEP, WIDE = 4, 4
#: Smaller squares gain nothing over gathers.
LEAST_SIDE = 4
#: Each operand has a buffer of up to 16 KiB on the stack; more would crowd the second-level cache.
MOST_OPERANDS = 4

Operand = tuple[Expr, Any]  # a load, and the distance of its elements along the last axis


class Turned(NamedTuple):
    """A scheduled body, its steps, and tasks per claim (0: not parallel)."""

    body: Body
    steps: tuple[str, ...]
    chunk: Any


def across(body: Body, axes: Axes, lanes: int, sized: bool) -> Turned | None:
    """The loops over ``axes`` around ``body`` by blocks of squares; None where that gains nothing.

    sized: extents are arguments, so the size is not known to be small.
    """
    found = _operands(body, axes)
    if found is None:
        return None
    place, operands = found
    (row, depth), (column, width) = axes[place], axes[-1]
    side = lanes
    while side > min(depth, width):
        side //= 2
    if side < LEAST_SIDE:
        return None
    rows, columns = _Cut(row, depth, side, DEEP), _Cut(column, width, side, WIDE)
    inner = _block(body, operands, rows, columns)
    outer = [*(a for n, a in enumerate(axes[:-1]) if n != place),
             (rows.block, rows.blocks), (columns.block, columns.blocks)]  # fmt: skip
    names = f"{row.attr}, {column.attr}"
    steps = [f"tile({names}, {rows.step}, {columns.step})",
             f"transpose({', '.join(str(e.attr) for e, _ in operands)}, {side} x {side})",
             f"vectorize({column.attr}, {side})"]  # fmt: skip
    if not sized and size(n for _, n in axes) < PARALLEL_ELEMENTS:
        return Turned(nest(outer, inner), tuple(steps), 0)
    task, extent, change = single_axis(outer, "task")
    inner = loop_visit.substitute_vars(inner, change)
    steps.append("parallel(" + ", ".join(str(v.attr) for v, _ in outer) + ")")
    chunk = tasks_per_claim(rows.step * columns.step)
    return Turned((For(task, extent, PARALLEL, inner),), tuple(steps), chunk)


# ---- what is read across -------------------------------------------------------------------------
def _operands(body: Body, axes: Axes) -> tuple[int, list[Operand]] | None:
    """The axis (its position) along which most of the operands read across lie, and these."""
    variables = [v for v, _ in axes]
    last = variables[-1]
    by_axis: dict[int, list[Operand]] = {}
    for load in dict.fromkeys(scalar_visit.loads(*roots_of(body))):
        form = scalar_visit.linear(load.args[0], variables) if len(load.args) == 1 else None
        if form is None or load.attr.scope != "param" or not _is_inside(load, form, axes):
            continue
        apart = form.coefficients.get(last, 0)
        if isinstance(apart, int) and apart in (-1, 0, 1):
            continue
        for n, (var, extent) in enumerate(axes[:-1]):
            if form.coefficients.get(var) == 1 and isinstance(extent, int):
                by_axis.setdefault(n, []).append((load, apart))
    if not by_axis or not isinstance(axes[-1][1], int):
        return None
    place = max(by_axis, key=lambda n: len(by_axis[n]))
    return (place, by_axis[place]) if len(by_axis[place]) <= MOST_OPERANDS else None


def _is_inside(load: Expr, form: scalar_visit.Linear, axes: Axes) -> bool:
    """Whether the load is in range all over the domain: no condition around it is needed."""
    low = high = form.offset
    for var, extent in axes:
        factor = form.coefficients.get(var, 0)
        if not isinstance(factor, int) or not isinstance(extent, int):
            # Extents that are arguments: only what is read whole is known to fit.
            return isinstance(form.offset, int) and form.offset == 0 and _covers(form, axes)
        low, high = (low + min(0, factor * (extent - 1)), high + max(0, factor * (extent - 1)))
    (space,) = load.attr.shape
    if not all(isinstance(n, int) for n in (low, high, space)):
        return False
    return bool(low >= 0 and high < space)


def _covers(form: scalar_visit.Linear, axes: Axes) -> bool:
    """Whether the index is a permutation of a row-major one over all axes."""
    left = list(axes)
    expected: Expr = s.index(1)
    while left:
        found = [a for a in left if s.index(form.coefficients.get(a[0], 0)) is expected]
        if len(found) != 1:
            return False
        left.remove(found[0])
        expected = expected * s.index(found[0][1])
    return True


# ---- one block -----------------------------------------------------------------------------------
@dataclass
class _Cut:
    """An axis cut into blocks of at most ``most`` squares.

    A square that would reach over the end starts earlier and is turned once more in part; what it
    has in common with its neighbour is evaluated once.
    """

    axis: Expr
    extent: int
    side: int
    most: int

    def __post_init__(self) -> None:
        name = self.axis.attr
        squares = -(-self.extent // self.side)
        self.most = min(self.most, squares)
        self.step = self.most * self.side
        self.blocks = -(-squares // self.most)
        self.block, self.square = s.var(f"{name}.b"), s.var(f"{name}.q")
        self.first = self.block * self.step
        self.count = s.index(self.step)
        if self.extent % self.step:
            self.count = s.minimum(self.count, s.index(self.extent) - self.first)
        #: where the block's buffer begins on the axis
        self.origin = self._kept_inside(self.first)
        self.squares = scalar_visit.plain((self.count + (self.side - 1)) // self.side)
        if self.blocks == 1:
            self.squares = squares
        #: of the current square, from the buffer's beginning
        self.offset = self._kept_inside(self.first + self.square * self.side) - self.origin
        self.rest = self.extent % self.side

    def _kept_inside(self, start: Expr) -> Expr:
        if self.extent % self.side == 0:
            return start
        return s.minimum(start, s.index(self.extent - self.side))


def _block(body: Body, operands: Sequence[Operand], rows: _Cut, columns: _Cut) -> Body:
    """Turn the squares of every operand, then evaluate the rows of the block."""
    wide, side = columns.step, rows.side
    squares: dict[Expr, Buffer] = {}
    turns: list[Call] = []
    corner = {rows.axis: rows.origin + rows.offset, columns.axis: columns.origin + columns.offset}
    for n, (load, apart) in enumerate(operands):
        square = Buffer(f"square{n}", load.attr.dtype, (rows.step * wide,), "stack")
        squares[load] = square
        start = scalar_visit.substitute(load.args[0], corner)
        turns.append(
            Call("transpose", (square, rows.offset * wide + columns.offset, s.index(wide),
                               load.attr, start, s.index(apart), s.index(side)))
        )  # fmt: skip
    row = s.var(f"{rows.axis.attr}.r")
    here = rows.first + row

    def vector(position: Expr) -> Body:
        def read(expr: Expr) -> Expr | None:
            square = squares.get(expr)
            if square is None:
                return None
            at = (here - rows.origin) * wide + (position - columns.origin)
            return s.load(square, at)

        own = loop_visit.map_expressions(body, lambda e: scalar_visit.transform(e, read))
        return loop_visit.substitute_vars(own, {rows.axis: here, columns.axis: position})

    sweep = (*_hints(body, rows, columns, here), *_sweep(columns, vector))
    result: Body = (
        *nest([(rows.square, rows.squares), (columns.square, columns.squares)], tuple(turns)),
        For(row, scalar_visit.plain(rows.count), SERIAL, sweep),
    )
    for square in reversed(squares.values()):
        result = (Alloc(square, result),)
    direct = _moved(body, operands, rows, columns)
    if direct is None:
        return result
    whole = [c.block < c.blocks - 1 for c in (rows, columns) if c.rest]
    return (If(functools.reduce(operator.and_, whole), direct, result),) if whole else direct


def _sweep(columns: _Cut, vector: Callable[[Expr], Body]) -> Body:
    """One row of the block, by vectors; lanes of the last one that are not its own are masked."""
    side, lane, number = columns.side, s.var("lane.j"), s.var(f"{columns.axis.attr}.v")
    full: Body = (For(lane, side, VECTORIZE, vector(columns.first + number * side + lane)),)
    sweep: Body = (For(number, scalar_visit.plain(columns.count // side), SERIAL, full),)
    if not columns.rest:
        return sweep
    end = s.var("lane.e")
    own = s.index(side - columns.rest) <= end
    last: Body = (
        For(end, side, VECTORIZE, (If(own, vector(end + (columns.extent - side))),)),
    )
    if columns.blocks > 1:
        last = (If(columns.block.equal(columns.blocks - 1), last),)
    return sweep + last


def _hints(body: Body, rows: _Cut, columns: _Cut, row: Expr) -> Body:
    """Ask for the lines that the next block writes: rows are too far apart for the hardware."""
    calls = []
    next_block = {rows.axis: row, columns.axis: columns.first + columns.step}
    for stmt in loop_visit.collect(body, Store):
        if stmt.buffer.scope == "param":
            at = scalar_visit.substitute(stmt.indices[0], next_block)
            line = CACHE_LINE // stmt.buffer.dtype.size_bytes
            calls += [Call("prefetch", (stmt.buffer, at + k)) for k in range(0, columns.step, line)]
    return tuple(calls)


def _moved(body: Body, operands: Sequence[Operand], rows: _Cut, columns: _Cut) -> Body | None:
    """A mere transposition of whole squares needs no buffer; None for anything else."""
    (load, apart), *others = operands
    stmt = body[0]
    if others or len(body) != 1 or not isinstance(stmt, Store) or stmt.value is not load:
        return None
    form = scalar_visit.linear(stmt.indices[0], (rows.axis, columns.axis))
    if form is None or form.coefficients.get(columns.axis) != 1:
        return None
    corner = {c.axis: c.first + c.square * c.side for c in (rows, columns)}
    at, start = (scalar_visit.substitute(e, corner) for e in (stmt.indices[0], load.args[0]))
    below = s.index(form.coefficients.get(rows.axis, 0))
    turn = Call("transpose", (stmt.buffer, at, below, load.attr, start, s.index(apart),
                              s.index(rows.side)))  # fmt: skip
    hints = tuple([Call("prefetch", (stmt.buffer, at + columns.step + below * k))
                   for k in range(rows.side)])  # fmt: skip
    return nest([(rows.square, rows.squares), (columns.square, columns.squares)], (*hints, turn))
