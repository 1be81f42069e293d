"""The sweeps of a row kernel over a block of rows that another kernel holds on its stack.

Main functions: ``row_statements``, ``rows_nest``. May import ir, te.canonical and schedule.

See rows.py for what a sweep is. Here the rows of a block are local: LOCAL counts them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinyflow.ir.loop import visit as loop_visit
from tinyflow.ir.loop.nodes import SERIAL, Body, Buffer, For, Stmt, Store
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ir.scalar.visit import plain
from tinyflow.schedule.grain import lanes_for
from tinyflow.schedule.lowering import GroupExpressions, operations
from tinyflow.schedule.prefetch import COLUMN, ROW
from tinyflow.schedule.rows import RowPlan, row_sweep
from tinyflow.schedule.schedule import Schedule
from tinyflow.schedule.targets import Target
from tinyflow.te.canonical import STRIPE

#: The row within a block, the first row of the block, and how many it has.
LOCAL, FIRST, ROWS = s.var("local"), s.var("first"), s.var("rows")

Sweep = tuple[list[Stmt], list[Stmt], list[Stmt]]


@dataclass
class RowStatements:
    """The sweeps of a member: statements before, in and at the start of each loop over a row.

    row, column: the variables that they are written in terms of.   per_row, kept: temporaries with
    one element, or one row, per row.   columns: of a row; longest: the most there can be.
    """

    sweeps: list[Sweep]
    row: Expr
    column: Expr
    per_row: list[Buffer]
    kept: list[Buffer]
    columns: Any
    longest: int

    @property
    def operations(self) -> Any:
        """Of one row."""
        return sum(operations(loops) * self.columns + operations(before)
                   for before, loops, _ in self.sweeps)  # fmt: skip

    def may_replace(self, old: Buffer, new: Buffer) -> bool:
        """Whether every element of ``old`` has been read when that of ``new`` is written."""
        inside = [st for _, loops, _ in self.sweeps for st in loops]
        stores = [n for n, st in enumerate(inside) if isinstance(st, Store) and st.buffer is new]
        reads = [
            n
            for n, st in enumerate(inside)
            if any(load.attr is old for load in scalar_visit.loads(*loop_visit.expressions(st)))
        ]
        return bool(stores) and (not reads or max(reads) <= min(stores))


def row_statements(x: GroupExpressions, columns: Any, longest: int) -> RowStatements:
    """The statements of a row or map group whose rows are x.outer's last axis.

    longest: the most columns, where their number is an argument of the kernel.
    """
    plan = RowPlan(x, longest)
    row_buffer: dict[Any, Buffer] = {}
    kept_buffer: dict[Any, Buffer] = {}
    for item in plan.items:
        if plan.is_row(item):
            name = f"{item.value.node.op.type_name.lower()}{len(row_buffer)}"
            row_buffer[item.value] = Buffer(name, item.value.dtype, (1,), "stack")
    results = set(x.results)
    for item in plan.kept:
        if item not in results:
            name = f"{item.value.node.op.type_name.lower()}_row{len(kept_buffer)}"
            shape = (1, max(longest, STRIPE))
            kept_buffer[item.value] = Buffer(name, item.value.dtype, shape, "stack")
    sweeps = [row_sweep(x, plan, k, row_buffer, kept_buffer) for k in range(plan.sweeps + 1)]
    return RowStatements(
        sweeps, x.outer[-1][0], x.inner[0][0], list(row_buffer.values()),
        list(kept_buffer.values()), columns, longest,
    )  # fmt: skip


def rows_nest(statements: RowStatements, target: Target) -> Body:
    """for every row of the block: its sweeps, one after the other."""
    columns, longest = statements.columns, statements.longest
    nests: list[Stmt] = []
    names: list[tuple[str, str | None, bool]] = []
    for k, (before, inside, initial) in enumerate(statements.sweeps):
        if not before and not inside:
            continue
        row, column = s.var(f"row{k}"), s.var(f"c{k}")
        change = {statements.row: FIRST + row, LOCAL: row, ROW: row,
                  statements.column: column, COLUMN: column}  # fmt: skip
        loops = loop_visit.substitute_vars(tuple(inside), change)
        body = loop_visit.substitute_vars((*before, *initial), change)
        if loops:
            body += (For(column, columns, SERIAL, loops),)
        nests.append(For(row, plain(ROWS), SERIAL, body))
        names.append((f"row{k}", f"c{k}" if loops else None, bool(initial)))
    schedule = Schedule(tuple(nests))
    last = names[-1][0]
    for name, _, _ in reversed(names[:-1]):
        schedule.compute_at(name, last)
    for buffer in statements.per_row:
        schedule.shrink(buffer, last, "register")
    for buffer in statements.kept:
        schedule.shrink(buffer, last, "register" if longest <= STRIPE else "stack")
    everything = [st for before, inside, first in statements.sweeps
                  for st in (*before, *first, *inside)]  # fmt: skip
    lanes = lanes_for(everything, target)
    for _, column_name, reduces in names:
        if column_name is None:
            continue
        if reduces:
            schedule.stripe(column_name, longest)
        else:
            schedule.vectorize(column_name, lanes)
    return schedule.body
