"""What a contraction group computes, in the terms its schedules think in.

Main type: ``Problem``; ``problem_of`` finds rows, columns, terms and the tile's shape.
May import core, ir, te and schedule.lowering.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tinyflow.ir.loop.nodes import Buffer, Store
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.schedule.lowering import Axes, GroupExpressions, merge_axes, single_axis
from tinyflow.schedule.targets import Target
from tinyflow.te.canonical import is_striped_dot

Element = Callable[[Expr, Expr], Expr]


@dataclass
class Problem:
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


def problem_of(x: GroupExpressions, target: Target) -> Problem:
    item = next(
        i
        for i in x.group.items
        if i.value not in x.group.inlined and i.tensor is not None and i.tensor.reduction
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
    shape: Any = item.tensor.shape  # type: ignore[union-attr]  # static by now
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
        stride_along(a, k_var) != 1
        if striped
        else _fills_lanes(m_extent, n_extent, lanes) and stride_along(a, row) == 1
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

    contiguous = column is None or stride_along(b, column) in (0, 1)
    return Problem(
        x, element(a, row, k_var), element(b, k_var, column), m_extent, n_extent, k_extent, item,
        outer, row, column, mapping, lanes, rows, vectors, contiguous, swapped, striped,
    )  # fmt: skip


def _fills_lanes(m: int, n: int, lanes: int) -> bool:
    """Whether vectors along the rows fill their lanes where vectors along the columns do not.

    The results are then scattered, which pays for narrow products only.
    """
    return n * 4 <= lanes * 3 and m >= 2 * lanes


def stride_along(expr: Expr, var: Expr) -> int | None:
    """How far the loads of an operand move per step of ``var``; None unless evenly and alike."""
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
