"""Which part of a buffer the iterations of a loop use, and guards that are always true.

Main functions: ``needed_region``, ``inside_bounds``, ``clean_guards``. May import core and ir.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tinyflow.ir.loop import visit
from tinyflow.ir.loop.nodes import PARALLEL, Body, Buffer, Extent, For, If, Stmt, Store
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr


class Span(NamedTuple):
    """``low .. low + size`` of one dimension; low is free of the inner loops' variables."""

    low: Expr
    size: int


class Unbounded(Exception):
    """The part is not known before the program runs; the text says why."""


def loads_of(body: Iterable[Stmt], buffer: Buffer) -> list[Expr]:
    """Every distinct load from the buffer."""
    return [e for e in visit.all_expressions(body) if e.op == "load" and e.attr is buffer]


def needed_region(body: Body, buffer: Buffer) -> list[Span]:
    """What one run of ``body`` reads of ``buffer``, per dimension. Errors: Unbounded."""
    extents = {loop.var: loop.extent for loop in visit.collect(body, For)}
    spans: list[Span] = []
    loads = loads_of(body, buffer)
    for d in range(len(buffer.shape)):
        parts = [_span(load.args[d], extents) for load in loads]
        span = parts[0]
        for part in parts[1:]:
            span = _union(span, part)
        spans.append(span)
    return spans


def _span(index: Expr, extents: Mapping[Expr, Extent]) -> Span:
    form = scalar_visit.linear(index, extents)
    if form is None:
        raise Unbounded(f"the index {index} is no sum of multiples of loop variables")
    low, size = s.index(form.offset), 1
    for var, coefficient in form.coefficients.items():
        extent = extents[var]
        if not isinstance(coefficient, int) or not isinstance(extent, int):
            raise Unbounded(f"how far the index {index} reaches is known only at run time")
        if coefficient < 0:
            low = low + coefficient * (extent - 1)
        size += abs(coefficient) * max(0, extent - 1)
    return Span(scalar_visit.simplify_index(low, {}), size)


def _union(a: Span, b: Span) -> Span:
    distance = scalar_visit.simplify_index(b.low - a.low, {})
    if not distance.is_const:
        raise Unbounded(f"it reads from {a.low} and from {b.low}, whose distance is not constant")
    shift = int(distance.attr)
    low = a.low if shift >= 0 else b.low
    end = max(a.size, shift + b.size) if shift >= 0 else max(b.size, a.size - shift)
    return Span(low, end)


def bounds_of(loops: Iterable[For]) -> dict[Expr, scalar_visit.Bound]:
    """variable -> (0, extent - 1)"""
    return {
        loop.var: (0, loop.extent - 1 if isinstance(loop.extent, int) else s.index(loop.extent) - 1)
        for loop in loops
    }


def inside_bounds(
    indices: Sequence[Expr], shape: Sequence[Extent], loops: Sequence[For]
) -> Expr | None:
    """The condition under which the indices lie in the shape; None when they always do."""
    bounds = bounds_of(loops)
    extents = {loop.var: loop.extent for loop in loops}
    found: Expr | None = None
    for index, extent in zip(indices, shape, strict=True):
        if index in extents and extents[index] == extent:
            continue  # the loop runs over exactly this dimension, whatever its extent
        for condition in (s.index(0) <= index, index < s.index(extent)):
            known = scalar_visit.simplify_index(condition, bounds)
            if not known.is_const:
                found = known if found is None else found & known
            elif not known.attr:
                return known
    return found


def clean_guards(body: Body) -> Body:
    """Guards that always hold are dropped; the others move out of the loops they do not depend on.

    for i: for k: if i < n: A   ->   for i: if i < n: for k: A
    """
    return _hoisted(_without_true_guards(body, ()))


def _without_true_guards(body: Body, loops: tuple[For, ...]) -> Body:
    out: list[Stmt] = []
    for stmt in body:
        inside = (*loops, stmt) if isinstance(stmt, For) else loops
        parts = tuple(_without_true_guards(part, inside) for part in visit.bodies(stmt))
        if parts:
            stmt = visit.with_bodies(stmt, parts)
        if isinstance(stmt, If):
            known = scalar_visit.simplify_index(stmt.condition, bounds_of(loops))
            if known.is_const:
                out.extend(stmt.then if known.attr else stmt.orelse)
                continue
        out.append(stmt)
    return tuple(out)


def _hoisted(body: Body) -> Body:
    def one(stmt: Stmt) -> Stmt:
        if not isinstance(stmt, For) or stmt.kind == PARALLEL:
            return stmt
        guards, inner = _guards(stmt.body)
        free = [g for g in guards if stmt.var not in scalar_visit.free_vars(g) and _is_pure(g)]
        if not free:
            return stmt
        kept = [g for g in guards if g not in free]
        loop: Stmt = For(stmt.var, stmt.extent, stmt.kind, _under(kept, inner))
        return _under(free, (loop,))[0]

    return visit.map_statements(_merged(body), one)


def _is_pure(condition: Expr) -> bool:
    return not scalar_visit.loads(condition)


def _merged(body: Body) -> Body:
    """Neighbours under one condition share it."""

    def merge(stmts: Body) -> Body:
        out: list[Stmt] = []
        for stmt in stmts:
            parts = visit.bodies(stmt)
            if parts:
                stmt = visit.with_bodies(stmt, tuple(merge(part) for part in parts))
            last = out[-1] if out else None
            if (
                isinstance(stmt, If) and isinstance(last, If)
                and stmt.condition is last.condition and not (stmt.orelse or last.orelse)
                and _is_pure(stmt.condition)
            ):  # fmt: skip
                out[-1] = If(stmt.condition, last.then + stmt.then)
            else:
                out.append(stmt)
        return tuple(out)

    return merge(body)


def _guards(body: Body) -> tuple[list[Expr], Body]:
    """The conditions around all of the body, outermost first, and what they guard."""
    found: list[Expr] = []
    while len(body) == 1 and isinstance(body[0], If) and not body[0].orelse:
        found.append(body[0].condition)
        body = body[0].then
    return found, body


def _under(conditions: Sequence[Expr], body: Body) -> Body:
    for condition in reversed(conditions):
        body = (If(condition, body),)
    return body


def stores_to(body: Iterable[Stmt], buffer: Buffer) -> list[Store]:
    return [store for store in visit.collect(body, Store) if store.buffer is buffer]
