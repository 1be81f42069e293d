"""Results that no cache could keep are stored past the caches.

Main function: ``with_nontemporal_results``. May import ir and schedule.lowering.

An ordinary store reads the line from memory first and writes it back later: three transfers for
``out = in`` instead of two, five for ``out = a * b + c`` instead of four. Where kernel and result
are larger than the last cache, the line is gone anyway before its reader comes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from tinyflow.ir.loop import visit as loop_visit
from tinyflow.ir.loop.nodes import HINTS, VECTORIZE, Body, Buffer, Call, For, Stmt, Store
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.schedule.lowering import LoweredKernel

#: Smaller results of a large kernel (a row's sums beside the rows) stay in the caches.
LEAST_SHARE = 8


def with_nontemporal_results(one: LoweredKernel) -> LoweredKernel:
    """A kernel of more than the last cache with its large results marked.

    Marked is a parameter that the kernel never reads, written in whole aligned vectors only. Not
    what a contraction may write in place (an update): its lines are read just before, and the
    choice that code generation leaves open would stand between the vectors of a tile.
    """
    kernel = one.kernel
    read = set(loop_visit.buffers_read(kernel.body))
    if one.group is not None and one.group.kind == "dot":
        places = dict(zip(one.arguments, kernel.buffers, strict=True))
        read.update(places[result] for _, result in one.in_place)
    whole = _stored_whole(kernel.body, (), {})
    least = one.bytes // LEAST_SHARE
    found = [b for b in kernel.buffers if b not in read and whole.get(b) and _is_large(b, least)]
    if not found:
        return one
    marked = {b: replace(b, nontemporal=True) for b in found}

    def without_hint(stmt: Stmt) -> Stmt | Body:
        """Asking for the line of a later store would read it."""
        if isinstance(stmt, Call) and stmt.function in HINTS and stmt.arguments:
            return () if stmt.arguments[0] in marked else stmt
        return stmt

    body = loop_visit.map_statements(kernel.body, without_hint)
    body = loop_visit.substitute_buffers(body, marked)
    buffers = tuple([marked.get(b, b) for b in kernel.buffers])
    return replace(
        one,
        kernel=replace(kernel, buffers=buffers, body=body),
        steps=(*one.steps, *(f"nontemporal({b.name})" for b in found)),
    )


def _is_large(buffer: Buffer, least: Any) -> bool:
    """Whether it has so many bytes; those whose size is an argument are what made the kernel so."""
    known = [extent for extent in buffer.shape if isinstance(extent, int)]
    if len(known) < len(buffer.shape):
        return True
    if not isinstance(least, int):
        return False
    return math.prod(known) * buffer.dtype.size_bytes >= least


def _stored_whole(
    body: Body, loops: tuple[For, ...], found: dict[Buffer, bool]
) -> dict[Buffer, bool]:
    """For each buffer that is written, whether it is by stores of whole aligned vectors only."""
    for stmt in body:
        if isinstance(stmt, Store):
            whole = len(stmt.indices) == 1 and _is_whole(stmt.indices[0], loops)
            found[stmt.buffer] = whole and found.get(stmt.buffer, True)
        elif isinstance(stmt, Call):
            found.update(dict.fromkeys(loop_visit.buffers_written((stmt,)), False))
        inside = (*loops, stmt) if isinstance(stmt, For) else loops
        for inner in loop_visit.bodies(stmt):
            _stored_whole(inner, inside, found)
    return found


def _is_whole(index: Expr, loops: tuple[For, ...]) -> bool:
    if not loops or loops[-1].kind != VECTORIZE:
        return False
    lane, lanes = loops[-1].var, loops[-1].extent
    form = scalar_visit.linear(index, [loop.var for loop in loops])
    if form is None or form.coefficients.get(lane) != 1 or not isinstance(lanes, int):
        return False
    others = [c for v, c in form.coefficients.items() if v is not lane]
    return all(isinstance(c, int) and c % lanes == 0 for c in (*others, form.offset))
