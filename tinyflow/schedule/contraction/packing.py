"""All of an operand b in panels, before the kernel that reads it.

Main function: ``packed_panels``. May import core, ir and contraction's problem
and sized.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tinyflow.ir.loop import visit as loop_visit
from tinyflow.ir.loop.nodes import (
    PARALLEL,
    SERIAL,
    UNROLL,
    VECTORIZE,
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
from tinyflow.schedule.contraction.problem import Problem, stride_along
from tinyflow.schedule.contraction.sized import Sized
from tinyflow.schedule.contraction.tile import LANE, TERM, VECTOR
from tinyflow.schedule.lowering import (
    GroupExpressions,
    LoweredKernel,
    Scratch,
    single_axis,
)

#: Bytes between two terms of b from which on its rows lie in pages of their own.
FAR_BYTES = 1024


class Panels(NamedTuple):
    """kernel: packs.   element: b at TERM from (panel, column within it)."""

    kernel: LoweredKernel
    scratch: tuple[Buffer, Scratch]
    element: Callable[[Expr, Expr], Expr]


def packed_panels(q: Sized, b: Expr, x: GroupExpressions, name: str) -> Panels | None:
    """Panels of b, an expression of TERM and ``q.p.column``; None where b is read well as it is.

    x: whose kernel it is.   name: of the panels among its parameters.
    """
    p = q.p
    along = p.column
    assert along is not None
    apart = stride_along(b, TERM)
    near = isinstance(apart, int) and apart * p.dtype.size_bytes < FAR_BYTES
    if p.b_stride == 1 and near:
        return None
    around = [axis for axis in p.shared if axis[0] in scalar_visit.free_vars(b)]
    panel = s.var("jt")
    extents = [*[n for _, n in around], q.panels, q.k, p.width]
    size: Any = 1
    for n in extents:
        size *= n
    packed = Buffer(name, p.dtype, (size,))
    scratch = (packed, Scratch(p.dtype, size, "b_packed"))

    def place(at_panel: Expr, term: Expr, column: Expr) -> Expr:
        at = s.index(0)
        for index, n in zip([*[v for v, _ in around], at_panel, term, column], extents,
                            strict=True):  # fmt: skip
            at = at * s.index(n) + index
        return at

    def pack_row(term: Expr) -> Body:
        column = VECTOR * p.lanes + LANE
        value = scalar_visit.substitute(b, {TERM: term, along: panel * p.width + column})
        at = (place(panel, term, column),)
        store: Body = (Store(packed, at, value),)
        if not isinstance(q.n, int) or q.n % p.width:
            zero = Store(packed, at, s.const(0, p.dtype))
            store = (If(panel * p.width + column < q.n, store, (zero,)),)
        return (For(VECTOR, p.vectors, UNROLL, (For(LANE, p.lanes, VECTORIZE, store),)),)

    body: Body = (For(TERM, q.k, SERIAL, pack_row(TERM)),)
    if _turns(p, b):
        full = q.n // p.width
        turned = _turned(q, b, packed, panel, place) + _rest(q, pack_row)
        whole = isinstance(full, int) and full == p.panels
        body = turned if whole else (If(panel < full, turned, body),)
    task, extent, change = single_axis([*around, (panel, q.panels)], "task")
    body = (For(task, extent, PARALLEL, loop_visit.substitute_vars(body, change)),)
    steps = ["cache_read(b, panels)", "parallel(j.o)"]
    kernel = x.kernel(body, steps, 0, 1, [scratch], "_pack")
    return Panels(kernel, scratch, lambda j, column: s.load(packed, place(j, TERM, column)))


def _turns(p: Problem, b: Expr) -> bool:
    """Whether b's terms lie side by side, so that squares of it can be turned in registers."""
    return (
        b.op == "load"
        and b.attr.dtype.size_bytes == 4
        and stride_along(b, TERM) == 1
        and p.b_stride not in (0, None)
        and p.k >= p.lanes
        and p.n >= p.width
    )


def _turned(
    q: Sized, b: Expr, packed: Buffer, panel: Expr, place: Callable[[Expr, Expr, Expr], Expr]
) -> Body:
    """Squares of lanes x lanes elements."""
    p = q.p
    assert p.column is not None and p.b_stride is not None
    square, vector = s.var("kq"), s.var("v")
    first = scalar_visit.substitute(
        b, {TERM: square * p.lanes, p.column: panel * p.width + vector * p.lanes}
    )
    turn = Call("transpose", (packed, place(panel, square * p.lanes, vector * p.lanes),
                              s.index(p.width), first.attr, first.args[0],
                              s.index(p.b_stride), s.index(p.lanes)))  # fmt: skip
    squares = plain(s.index(q.k) // p.lanes)
    return (For(square, squares, SERIAL, (For(vector, p.vectors, SERIAL, (turn,)),)),)


def _rest(q: Sized, pack_row: Callable[[Expr], Body]) -> Body:
    lanes = q.p.lanes
    done = q.k // lanes * lanes
    if isinstance(done, int) and done == q.k:
        return ()
    tail = s.var("kt")
    return (For(tail, plain(s.index(q.k) - done), SERIAL, pack_row(tail + done)),)
