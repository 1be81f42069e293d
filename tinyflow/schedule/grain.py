"""How finely work is cut: tasks for threads, lanes of vectors.

Main functions: ``lanes_for``, ``nest``; constants: elements per task. May import ir and lowering.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tinyflow.ir.loop.nodes import SERIAL, Body, For, Stmt
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.schedule.lowering import Axes, roots_of
from tinyflow.schedule.targets import Target

#: Elements below which a kernel is not worth waking a thread for (about 5 us of work).
PARALLEL_ELEMENTS = 32768
#: Elements per task of an element-wise kernel: large enough to amortise a claim, small enough that
#: two threads finish together.
BLOCK_ELEMENTS = 8192
#: Bytes of a row up to which all its columns fit one or two vectors: column sums read such rows in
#: the order in which they lie.
NARROW_ROW = 128


def size(extents: Iterable[Any]) -> int:
    total = 1
    for n in extents:
        total *= n
    return total


def tasks_per_claim(row: Any, block: int | None = None) -> Any:
    """Rows of so many elements (a number or an expression) that make a block."""
    block = block or BLOCK_ELEMENTS
    if isinstance(row, Expr):
        return s.maximum(s.index(block) // s.maximum(row, 1), 1)
    return max(1, block // max(1, row))


def lanes_for(statements: Iterable[Stmt], target: Target) -> int:
    """Vector length: the target's, halved when 8-byte elements move through memory."""
    widest = 4
    for root in roots_of(statements):
        for expr in scalar_visit.postorder(root):
            if expr.op == "load" or (expr.dtype.kind == "float" and expr.args):
                widest = max(widest, expr.dtype.size_bytes)
    return max(2, target.lanes * 4 // widest)


def nest(axes: Axes, body: Body) -> Body:
    for var, extent in reversed(axes):
        body = (For(var, extent, SERIAL, body),)
    return body
