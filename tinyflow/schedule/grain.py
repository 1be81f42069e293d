"""How finely work is cut: tasks for threads, lanes of vectors.

Main functions: ``lanes_for``, ``weight_of``, ``nest``; constants: elements per task. May import ir
and lowering.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tinyflow.ir.loop.nodes import SERIAL, Body, For, Stmt, Store
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.schedule.lowering import Axes, operations, roots_of
from tinyflow.schedule.targets import Target

#: Elements below which a kernel is not worth waking a thread for (about 5 us of work).
PARALLEL_ELEMENTS = 32768
#: Elements per task of an element-wise kernel: large enough to amortise a claim, small enough that
#: two threads finish together.
BLOCK_ELEMENTS = 8192
#: Arrays of a sum of two, and the operations that take as long as moving an element of each.
SUM_STREAMS, SUM_OPERATIONS = 3, 10
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


def weight_of(statements: Iterable[Stmt]) -> int:
    """What an element costs, in elements of a sum of two arrays: by the arrays that it moves, or by
    its arithmetic (a call counts as 10)."""
    statements = list(statements)
    moved = [st.buffer.dtype for st in statements if isinstance(st, Store) and _is_array(st)]
    moved += [
        e.dtype for e in scalar_visit.loads(*roots_of(statements))
        if _is_array(e) and scalar_visit.free_vars(e)
    ]  # fmt: skip
    streams = sum(max(1, dtype.size_bytes // 4) for dtype in moved)
    return max(1, streams // SUM_STREAMS, operations(statements) // SUM_OPERATIONS)


def _is_array(access: Store | Expr) -> bool:
    buffer = access.buffer if isinstance(access, Store) else access.attr
    return bool(buffer.scope == "param")


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
