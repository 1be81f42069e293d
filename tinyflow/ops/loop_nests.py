"""Pieces of the loop nests that ops write themselves: rows by computed positions, lanes, scans.

Main functions: ``nest``, ``lanes``, ``held``, ``accumulate_rows``. May import core, ir.loop, te.

Rows are combined in the order of the positions, whatever the number of threads: threads share the
columns of the result, never its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tinyflow import te
from tinyflow.core.dtype import int64
from tinyflow.ir.loop.nodes import PARALLEL, SERIAL, VECTORIZE, Alloc, Body, Buffer, For, If, Store
from tinyflow.ir.scalar import nodes as scalar
from tinyflow.ir.scalar.nodes import Expr

#: elements of one vectorised loop
LANES = 16
#: the number of combined elements from which threads pay, and the columns of the smallest task
PARALLEL_WORK, COLUMNS = 1 << 17, 32

Indices = tuple[Expr, ...]


def nest(extents: Sequence[Any], prefix: str, body: Callable[[Indices], Body]) -> Body:
    """Nested serial loops over ``extents`` around ``body(indices)``, first extent outermost."""
    axes = tuple(scalar.var(f"{prefix}{d}") for d in range(len(extents)))
    inner = body(axes)
    for axis, extent in zip(reversed(axes), reversed(extents), strict=True):
        inner = (For(axis, extent, SERIAL, inner),)
    return inner


def lanes(extent: Any, prefix: str, body: Callable[[Expr], Body], start: Any = 0) -> Body:
    """``body(start + i)`` for i in range(extent), in vectors of LANES and one shorter vector; one
    by one beyond the last whole vector if only a run tells the extent."""
    block, lane, last = (scalar.var(f"{prefix}_{part}") for part in ("block", "lane", "last"))
    whole, known = extent // LANES, isinstance(extent, int)
    rest = extent - whole * LANES
    found: Body = ()
    first = te.as_index(start)
    if not (known and whole == 0):
        inner = body(first + block * te.index(LANES) + lane)
        found = (For(block, whole, SERIAL, (For(lane, LANES, VECTORIZE, inner),)),)
    if not (known and rest == 0):
        tail = body(first + te.index(whole * LANES) + last)
        found = (*found, For(last, rest, VECTORIZE if known else SERIAL, tail))
    return found


def held(values: Sequence[Expr], prefix: str, body: Callable[[Indices], Body]) -> Body:
    """``body`` of the values, each computed once and kept in a register."""
    buffers = [Buffer(f"{prefix}{n}", v.dtype, (1,), "register") for n, v in enumerate(values)]
    zero = te.index(0)
    stores = tuple(Store(b, (zero,), v) for b, v in zip(buffers, values, strict=True))
    inner: Body = (*stores, *body(tuple(scalar.load(b, 0) for b in buffers)))
    for buffer in reversed(buffers):
        inner = (Alloc(buffer, inner),)
    return inner


def integer(extent: Any) -> int:
    """An extent that must be a number. Errors: TypeError for a symbolic one."""
    return int(extent)


def counter(name: str) -> Buffer:
    """A register that counts."""
    return Buffer(name, int64, (1,), "register")


def pays(work: Any) -> bool:
    """Whether threads may pay for so many elements; for an unknown number, a run decides."""
    return not isinstance(work, int) or work >= PARALLEL_WORK


def nest_rows(extents: Sequence[Any], work: Any, body: Callable[[Indices], Body]) -> Body:
    """Loops over rows that do not touch each other: threads share them when the work pays."""
    if len(extents) == 0 or not pays(work) or (isinstance(extents[0], int) and extents[0] < 2):
        return nest(extents, "row", body)
    axis = scalar.var("task")
    inner = nest(extents[1:], "row", lambda rest: body((axis, *rest)))
    return (For(axis, extents[0], PARALLEL, inner),)


def accumulate_rows(
    y: Buffer,
    count: Sequence[Any],
    positions: Callable[[Indices], Sequence[Expr]],
    start: Callable[[Indices], Expr] | None,
    combine: Callable[[Expr, Indices, Indices, Indices], Expr],
    keep: Callable[[Indices], Expr] | None = None,
    inside: Callable[[Indices], Expr] | None = None,
) -> Body:
    """y[r, b] = start(r, b), then y[p0, b] = combine(y[p0, b], p, i, b) for i in ``count``'s order.

    positions(i): the row p0 of y, and other expressions that are computed once per i.
    start: None when y holds its start already.
    keep(i): whether i counts at all.    inside(i): whether its row is written; where not,
    ``positions`` reports why.
    """
    rest = y.shape[1:]
    width = integer(rest[-1]) if rest else 1

    def columns(low: Expr, extent: int) -> Body:
        def along(indices: Indices, body: Callable[[Indices], Body], prefix: str) -> Body:
            if not rest:
                return body(())
            return nest(
                rest[:-1], prefix,
                lambda lead: lanes(extent, prefix, lambda c: body((*lead, c)), low),
            )  # fmt: skip

        def clear(row: Indices) -> Body:
            if start is None:
                return ()
            return along(row, lambda b: (Store(y, (*row, *b), start((*row, *b))),), "z")

        def one(i: Indices) -> Body:
            def add(p: Indices) -> Body:
                def element(b: Indices) -> Body:
                    target = (p[0], *b)
                    # Stored where the old value is loaded: one address, no reordering.
                    return (Store(y, target, combine(scalar.load(y, *target), p, i, b)),)

                written = along(i, element, "b")
                return written if inside is None else (If(inside(i), written),)

            body = held(positions(i), "p", add)
            return body if keep is None else (If(keep(i), body),)

        cleared = nest(y.shape[:1], "zrow", clear) if start is not None else ()
        empty = any(type(n) is int and n == 0 for n in (*count, *y.shape))
        return cleared if empty else cleared + nest(count, "i", one)

    work: Any = width
    for n in (*count, *rest[:-1]):
        work = work * n
    if not pays(work) or width < 2 * COLUMNS:
        return columns(te.index(0), width)
    # Few wide tasks: each walks through all positions, and rows are far apart in memory.
    tasks = min(8, max(2, width // 256 * 2), width // COLUMNS)
    share = -(-width // tasks // LANES) * LANES
    whole, tail = divmod(width, share)
    task = scalar.var("task")
    body = columns(task * te.index(share), share)
    if tail:
        last = columns(te.index(whole * share), tail)
        body = (If(task < te.index(whole), body, last),)
    return (For(task, whole + bool(tail), PARALLEL, body),)
