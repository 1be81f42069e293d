"""What a contraction group computes, in the terms its schedules think in.

Main type: ``Problem``; ``problem_of`` finds rows, columns, terms and the tile's shape.
May import core, ir, te and schedule.lowering.

Every axis of the result is in one operand or in both. The last axis is the *column*: vectors run
along it, and b is the operand that has it. Of the axes that only a has, the last is the *row* of a
register tile (the last two, where the last alone would leave registers empty). All others are
loops around the tiles: shared ones first (the batch of a batched product), then what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tinyflow.ir.loop.nodes import Buffer, Store
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.schedule.lowering import Axes, GroupExpressions, loop_extent, merge_axes, roots_of
from tinyflow.schedule.targets import Target
from tinyflow.schedule.tuning import (
    UNTUNED,
    ContractionTuning,
    contraction_signature,
    tuning_for,
)
from tinyflow.te.canonical import is_striped_dot

Position = tuple[Expr, ...]
#: a(position of the row, terms, column), b(terms, column): elements as functions of indices
RowElement = Callable[[Position, Sequence[Expr], Expr], Expr]
ColumnElement = Callable[[Sequence[Expr], Expr], Expr]


@dataclass
class Problem:
    """C[around..., rows..., column] = sum over terms of a * b.

    terms: the summed axes, slowest first; k their product.   row_axes: none, one or two axes of
    the row, m their product.   shared, row_loops, column_loops: axes around the tiles that both
    operands, only a, or only b depend on.   mapping: the group's variables in terms of these.
    rows, vectors: shape of a register tile.   b_stride: of b along the column, a_stride: of a
    along the last summed axis, a_row_stride: of a along its one row axis; None if uneven.
    paired: every term is two products of small integers (contraction.paired).
    """

    x: GroupExpressions
    a: RowElement
    b: ColumnElement
    item: Any
    m: int
    n: int
    k: int
    terms: Axes
    row_axes: Axes
    column: Expr | None
    shared: Axes
    row_loops: Axes
    column_loops: Axes
    mapping: dict[Expr, Expr]
    lanes: int
    rows: int
    vectors: int
    b_stride: int | None
    a_stride: int | None
    swapped: bool = False
    striped: bool = False
    tuning: ContractionTuning = UNTUNED
    a_row_stride: int | None = None
    paired: bool = False

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
    def tile_elements(self) -> int:
        """Elements that the tiles cover, those beyond the edges with them."""
        return self.row_tiles * self.rows * self.panels * self.width

    @property
    def dtype(self) -> Any:
        return self.item.value.dtype

    @property
    def bare(self) -> bool:
        """Whether the product itself is the only result: no epilogue."""
        return len(self.x.results) == 1 and self.x.results[0] is self.item

    @property
    def outer(self) -> Axes:
        """All axes around the tiles."""
        return self.shared + self.row_loops + self.column_loops

    @property
    def is_plain(self) -> bool:
        """A product of two matrices."""
        return not self.outer and len(self.row_axes) <= 1 and len(self.terms) == 1

    @property
    def panel_uses(self) -> int:
        """Tiles along the rows, all of which read one panel of b."""
        return self.row_tiles * extent_of(self.row_loops)

    @property
    def all_rows(self) -> int:
        """Rows that share one matrix b."""
        return self.m * extent_of(self.row_loops)

    def row_at(self, tile: Expr, u: Expr, rows: int = 0) -> Position:
        """The position of row ``u`` of a tile of ``rows`` (those of the problem) rows."""
        if len(self.row_axes) == 2:
            inner = s.index(self.row_axes[1][1])
            return tile * (self.rows // self.row_axes[1][1]) + u // inner, u % inner
        return (tile * (rows or self.rows) + u,)[: len(self.row_axes)]

    def split_term(self, k: Expr) -> list[Expr]:
        """The summed axes' values at term number k."""
        values: list[Expr] = []
        for _, extent in reversed(self.terms[1:]):
            values.insert(0, k % s.index(extent))
            k = k // s.index(extent)
        return [k, *values] if self.terms else []


def problem_of(x: GroupExpressions, target: Target) -> Problem:
    item = next(
        i
        for i in x.group.items
        if i.value not in x.group.inlined and i.tensor is not None and i.tensor.reduction
    )
    declared: Any = item.tensor.body.attr.axes  # type: ignore[union-attr]
    reduce_axes: Axes = [
        (s.var(f"r{n}"), loop_extent(e)) for n, (_, e) in enumerate(item.reduce_axes)
    ]
    a, b = x.reduction_body(item, reduce_axes)
    dummy = Buffer("acc", item.value.dtype, (1,), "stack")
    x.temporaries[item.value] = s.load(dummy, s.index(0))
    x.order_results()
    statements = [Store(dummy, (s.index(0),), e) for e in (a, b)]
    statements += [x.store_result(r) for r in x.results]
    x.find_in_place(statements)
    del x.temporaries[item.value]
    x.forget()
    # All that the epilogue reads counts: a mask may walk the axes unlike the operands.
    roots = roots_of(statements)
    results, split, bounds = panels_of(b, x.outer)
    roots = [_moved(e, split, bounds) for e in roots]
    axes, mapping = merge_axes(roots, results + reduce_axes, frozenset({len(results)}))
    axes = x.estimated(axes)
    own = {v for v, _ in results}
    outer = [(v, n) for v, n in axes if v in own]
    terms = [(v, n) for v, n in axes if v not in own]
    own_axes = list(outer)
    a, b = (scalar_visit.substitute(_moved(e, split, bounds), mapping) for e in (a, b))
    mapping |= {v: scalar_visit.substitute(e, mapping) for v, e in split.items()}
    shape: Any = item.tensor.shape  # type: ignore[union-attr]
    last_extent = x.seen(shape[-1]) if shape else 1
    k_extent = extent_of(terms)
    striped = is_striped_dot(last_extent, k_extent, len(declared))
    if striped and last_extent == 1 and outer:
        outer.append((s.var("j1"), 1))  # the last axis is there, it only has one element
    if outer and _depends(a, outer[-1][0]) and not _depends(b, outer[-1][0]):
        a, b = b, a  # the product commutes exactly; the vector runs along the last output axis
    column: Expr | None = None
    n_extent: Any = 1
    if outer and (_depends(b, outer[-1][0]) or not _depends(a, outer[-1][0])):
        column, n_extent = outer.pop()
    # An axis that neither has (rows of zeros, as states start with) is one of rows that are alike.
    row_loops = [x for x in outer if not _depends(b, x[0])]
    column_loops = [x for x in outer if _depends(b, x[0]) and not _depends(a, x[0])]
    shared = [x for x in outer if x not in row_loops and x not in column_loops]
    lanes = max(2, target.lanes * 4 // max(4, item.value.dtype.size_bytes))
    row_axes = [row_loops.pop()] if row_loops else []
    m_extent = extent_of(row_axes)
    swapped = column is not None and len(row_axes) == 1 and not _depends(a, column) and (
        stride_along(a, terms[-1][0] if terms else None) != 1
        if striped
        else _fills_lanes(m_extent, n_extent, lanes) and stride_along(a, row_axes[0][0]) == 1
    )
    if swapped and column is not None:
        a, b = b, a
        (row, m_extent), (column, n_extent) = (column, n_extent), row_axes[0]
        row_axes, row_loops, column_loops = [(row, m_extent)], column_loops, row_loops
    tuning = tuning_for(contraction_signature(a, b, own_axes, terms), target)
    vectors = tuning.vectors or _vectors(m_extent, n_extent, lanes, target.vector_registers)
    most = tuning.rows or most_rows(vectors, target)
    if row_loops and m_extent * 2 <= most and not striped:
        row_axes.insert(0, row_loops.pop())
        m_extent = extent_of(row_axes)
    rows = _rows(row_axes, most)
    b_stride = 0 if column is None else stride_along(b, column)
    a_stride = stride_along(a, terms[-1][0] if terms else None)
    a_row_stride = stride_along(a, row_axes[-1][0]) if len(row_axes) == 1 else None
    variables = [v for v, _ in row_axes]

    def a_at(position: Position, term: Sequence[Expr], j: Expr) -> Expr:
        change = dict(zip(variables, position, strict=True))
        change |= {v: t for (v, _), t in zip(terms, term, strict=True)}
        if column is not None:
            change[column] = j
        return scalar_visit.substitute(a, change)

    def b_at(term: Sequence[Expr], j: Expr) -> Expr:
        change = {v: t for (v, _), t in zip(terms, term, strict=True)}
        if column is not None:
            change[column] = j
        return scalar_visit.substitute(b, change)

    return Problem(
        x, a_at, b_at, item, m_extent, n_extent, k_extent, terms, row_axes, column, shared,
        row_loops, column_loops, mapping, lanes, rows, vectors, b_stride, a_stride,
        swapped, striped, tuning, a_row_stride,
    )  # fmt: skip


def in_tiles(p: Problem, vectors: int, target: Target) -> Problem | None:
    """The problem in tiles of so many vectors per row; None if whole inner rows are too many."""
    most = most_rows(vectors, target)
    rows = _rows(p.row_axes, most)
    return replace(p, vectors=vectors, rows=rows) if rows <= most else None


def most_rows(vectors: int, target: Target) -> int:
    """Rows of a tile whose accumulators fit into registers, with a row of b and a broadcast."""
    return max(1, (target.vector_registers - vectors - 1) // vectors)


def panels_of(b: Expr, outer: Axes) -> tuple[Axes, dict[Expr, Expr], dict[Expr, Any]]:
    """Axes in which the column of a ``b`` that lies in panels is two: the panel and the column
    within it; what replaces the column, and bounds of the two. As it was for any other b."""
    if not outer:
        return outer, {}, {}
    column, extent = outer[-1]
    widths = {
        e.args[1].attr
        for e in scalar_visit.postorder(b)
        if e.op == "floordiv" and e.args[0] is column and e.args[1].is_const
    }
    width = widths.pop() if len(widths) == 1 else 0
    if not width or not isinstance(extent, int) or extent % width:
        return outer, {}, {}
    panel, within = s.var(f"{column.attr}p"), s.var(f"{column.attr}c")
    bounds = {panel: (0, extent // width - 1), within: (0, width - 1)}
    axes = [*outer[:-1], (panel, extent // width), (within, width)]
    return axes, {column: panel * width + within}, bounds


def _moved(e: Expr, split: dict[Expr, Expr], bounds: dict[Expr, Any]) -> Expr:
    if not split:
        return e
    return scalar_visit.simplify_index(scalar_visit.substitute(e, split), bounds)


def extent_of(axes: Axes) -> Any:
    total: Any = 1
    for _, extent in axes:
        total = total * extent
    return total


def _rows(row_axes: Axes, most: int) -> int:
    """Rows per tile: at most ``most``, tiles as equal as they can be; whole rows of two axes."""
    if not row_axes or not row_axes[0][1]:
        return 1
    inner = row_axes[1][1] if len(row_axes) == 2 else 1
    outer = row_axes[0][1]
    tiles = -(-outer // max(1, most // max(1, inner)))
    return max(1, -(-outer // max(1, tiles)) * inner)


def _fills_lanes(m: int, n: int, lanes: int) -> bool:
    """Whether vectors along the rows fill their lanes where vectors along the columns do not.

    The results are then scattered, which pays for narrow products only.
    """
    return n * 4 <= lanes * 3 and m >= 2 * lanes


def stride_along(expr: Expr, var: Expr | None) -> int | None:
    """How far the loads of an operand move per step of ``var``; None unless evenly and alike."""
    if var is None:
        return 0
    strides: set[Any] = set()
    for load in scalar_visit.loads(expr):
        form = scalar_visit.linear(load.args[0], (var,))
        strides.add(None if form is None else form.coefficients.get(var, 0))
    if len(strides) > 1:
        return None
    return strides.pop() if strides else 0  # type: ignore[no-any-return]


def _depends(expr: Expr, var: Expr) -> bool:
    return var in scalar_visit.free_vars(expr)


def _vectors(m: int, n: int, lanes: int, registers: int) -> int:
    """Vectors per tile row: two, unless n is narrow or m too small to fill the units."""
    needed = -(-n // lanes) if n else 1
    if m <= 4:
        return max(1, min(needed, (registers - 4) // (max(1, m) + 1), 8))
    return needed if needed <= 3 else 2
