"""Row groups (softmax, normalisation, their gradients): all sweeps over a row, then the next row.

Main function: ``lower_rows``. May import ir, passes.fusion, te.canonical and schedule. Rows
stay in the first-level cache, so that memory is read and written once.
"""

from __future__ import annotations

from typing import Any

from tinyflow.core.shape import Dim
from tinyflow.ir.loop import visit as loop_visit
from tinyflow.ir.loop.nodes import SERIAL, Body, Buffer, For, Stmt, Store
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.passes.fusion import Item
from tinyflow.schedule.grain import (
    PARALLEL_ELEMENTS,
    lanes_for,
    size,
    tasks_per_claim,
)
from tinyflow.schedule.lowering import (
    GroupExpressions,
    LoweredKernel,
    loop_extent,
    merge_axes,
    operations,
    roots_of,
    single_axis,
)
from tinyflow.schedule.prefetch import (
    COLUMN,
    PREFETCH_COLUMNS,
    ROW,
    busiest_sweep,
    prefetch_rows,
    row_hints,
)
from tinyflow.schedule.schedule import Schedule, combine, neutral
from tinyflow.schedule.targets import Target
from tinyflow.schedule.tuning import sweep_signature, sweep_tuning_for
from tinyflow.te.canonical import CHUNK, STRIPE

#: Row temporaries up to this size in all are kept; beyond it values are computed again.
ROW_BYTES = 131072


class RowPlan:
    """Which sweep over a row computes what; see ``lower_rows``."""

    def __init__(self, x: GroupExpressions, longest: int) -> None:
        self.x = x
        self.longest = longest
        group = x.group
        self.items = [i for i in group.items if i.value not in group.inlined]
        self.level: dict[Item, int] = {}  # first sweep in which the value can be used
        for item in self.items:
            level = max((self.level[p] for p in self.inside(item)), default=0)
            self.level[item] = level + (1 if self.is_reduction(item) else 0)
        self.sweeps = 1 + max(
            (self.sweep(i) for i in self.items if not self.is_row(i) or self.is_reduction(i)),
            default=0,
        )
        self.kept = self.stored_rows()

    def inside(self, item: Item) -> list[Item]:
        """Producers in the group, through what is inlined."""
        found, stack = [], [item]
        while stack:
            for value, _ in stack.pop().reads:
                producer = self.x.grouping.items.get(value)
                if producer is None or not self.x.contains(producer):
                    continue
                if value in self.x.group.inlined:
                    stack.append(producer)
                else:
                    found.append(producer)
        return found

    def is_reduction(self, item: Item) -> bool:
        return item.tensor is not None and item.tensor.reduction is not None

    def is_row(self, item: Item) -> bool:
        return self.is_reduction(item) or self.x.group.position(item) == "row"

    def sweep(self, item: Item) -> int:
        """The sweep whose loop over the row computes the item."""
        return self.level[item] - (1 if self.is_reduction(item) else 0)

    def stored_rows(self) -> list[Item]:
        """Full values worth a row of scratch: costly, and needed by several statements."""
        uses: dict[Item, set[Item]] = {}
        for root in self.roots():
            stack, seen = [root], {root}
            while stack:
                for producer in self.inside(stack.pop()):
                    if producer in seen or self.is_row(producer):
                        continue
                    seen.add(producer)
                    uses.setdefault(producer, set()).add(root)
                    stack.append(producer)
        results = set(self.x.results)
        kept = [
            i
            for i in self.items
            if i.expensive and not self.is_row(i)
            and len(uses.get(i, set())) + (i in results) > 1
        ]  # fmt: skip
        columns = size(self.x.group.inner)
        if isinstance(columns, Dim):
            columns = self.longest
        bytes_per_row = sum(columns * i.value.dtype.size_bytes for i in kept if i not in results)
        return kept if bytes_per_row <= ROW_BYTES else [i for i in kept if i in results]

    def roots(self) -> list[Item]:
        results = set(self.x.results)
        return [
            i for i in self.items if self.is_reduction(i) or (i in results and not self.is_row(i))
        ]


def lower_rows(x: GroupExpressions, target: Target, longest: int = ROW_BYTES) -> LoweredKernel:
    """All sweeps over one row, then the next row: every external value is read from memory once.

    Sweep k holds the reductions that need the results of sweep k-1 and the full values computable
    then; softmax is max | exp and sum | divide.
    longest: the most elements of a row whose length is an argument; for long ones, values are
    computed again instead of kept.
    """
    plan = RowPlan(x, longest)
    rows, columns = loop_extent(size(x.group.outer)), loop_extent(size(x.group.inner))
    temporaries: list[Buffer] = []
    for item in plan.items:
        if plan.is_row(item):
            name = f"{item.value.node.op.type_name.lower()}{len(temporaries)}"
            temporaries.append(Buffer(name, item.value.dtype, (rows,), "stack"))
    row_buffer = dict(
        zip([i.value for i in plan.items if plan.is_row(i)], temporaries, strict=True)
    )
    kept_buffer: dict[Any, Buffer] = {}
    results = set(x.results)
    for item in plan.kept:
        if item in results:
            continue
        n = len(kept_buffer)
        name = f"{item.value.node.op.type_name.lower()}_row{n}"
        # A row that fits one vector of the reduction stays in a register.
        width = max(columns, STRIPE) if isinstance(columns, int) else longest
        kept_buffer[item.value] = Buffer(name, item.value.dtype, (rows, width), "stack")
    sweeps = [row_sweep(x, plan, k, row_buffer, kept_buffer) for k in range(plan.sweeps + 1)]
    body, steps = _assemble_rows(x, sweeps, rows, columns, row_buffer, kept_buffer, target)
    flops = sum(
        operations(loops) * rows * columns + operations(before) * rows
        for before, loops, _ in sweeps
    )
    tuning = sweep_tuning_for(sweep_signature("row", x.group.domain, roots_of(body)), target)
    return x.kernel(body, steps, flops, tasks_per_claim(columns, tuning.block))


def row_sweep(
    x: GroupExpressions,
    plan: RowPlan,
    k: int,
    row_buffer: dict[Any, Buffer],
    kept_buffer: dict[Any, Buffer],
) -> tuple[list[Stmt], list[Stmt], list[Stmt]]:
    """Statements of sweep k: before its loop (per row), inside it, and initial values."""
    before: list[Stmt] = []
    initial: list[Stmt] = []
    inside: list[Stmt] = []
    results = set(x.results)
    for item in plan.items:
        if plan.is_row(item) and not plan.is_reduction(item) and plan.level[item] == k:
            buffer = row_buffer[item.value]
            before.append(Store(buffer, (ROW,), x.at_point(item)))
            x.temporaries[item.value] = s.load(buffer, ROW)
            x.forget()
        if plan.is_row(item) and plan.level[item] == k and item in results:
            before.append(x.store_result(item))
    for item in plan.items:
        if plan.sweep(item) != k:
            continue
        if plan.is_reduction(item):
            buffer = row_buffer[item.value]
            combiner = item.tensor.reduction.combiner  # type: ignore[union-attr]
            (value,) = x.reduction_body(item, x.inner)
            initial.append(Store(buffer, (ROW,), neutral(combiner, buffer)))
            inside.append(
                Store(buffer, (ROW,), combine(combiner, s.load(buffer, ROW), value))
            )
            # What later sweeps read; x.forget() waits until the sweep is complete.
        elif not plan.is_row(item):
            if item.value in kept_buffer:
                buffer = kept_buffer[item.value]
                inside.append(Store(buffer, (ROW, COLUMN), x.at_point(item)))
                x.temporaries[item.value] = s.load(buffer, ROW, COLUMN)
                x.forget()
            elif item in results:
                inside.append(x.store_result(item))
                if item in plan.kept:
                    x.temporaries[item.value] = s.load(x.buffer(item.value), x.position(item))
                    x.forget()
    for item in plan.items:
        if plan.is_reduction(item) and plan.sweep(item) == k:
            x.temporaries[item.value] = s.load(row_buffer[item.value], ROW)
    x.forget()
    return before, inside, initial


def _assemble_rows(
    x: GroupExpressions,
    sweeps: list[tuple[list[Stmt], list[Stmt], list[Stmt]]],
    rows: int,
    columns: int,
    row_buffer: dict[Any, Buffer],
    kept_buffer: dict[Any, Buffer],
    target: Target,
) -> tuple[Body, list[str]]:
    """One nest per sweep over (row, column), then the steps that bring them into one row loop."""
    everything = [st for b, inside, first in sweeps for st in (*b, *first, *inside)]
    known = isinstance(columns, int)
    if not known or columns % STRIPE == 0 or columns > 8 * STRIPE:
        # In short rows a masked store overlaps the vector that the next row loads: the load would
        # wait for the store, and rows could not overlap in time.
        x.find_in_place(everything)
    axes, mapping = merge_axes(
        roots_of(everything), x.outer + x.inner, frozenset({len(x.outer)})
    )
    own = {v for v, _ in x.outer}
    outer = [(v, n) for v, n in axes if v in own]
    inner = [(v, n) for v, n in axes if v not in own]
    _, _, outer_map = single_axis(outer, "i")
    _, _, inner_map = single_axis(inner, "r")
    mapping = {**mapping, **outer_map, **inner_map}
    nests: list[Stmt] = []
    names: list[tuple[str, str | None, bool]] = []
    for k, (before, inside, initial) in enumerate(sweeps):
        if not before and not inside:
            continue
        row, column = s.var(f"i{k}"), s.var(f"r{k}")
        change = {**{old: scalar_visit.substitute(new, {ROW: row, COLUMN: column})
                     for old, new in mapping.items()}, ROW: row, COLUMN: column}  # fmt: skip
        loops = loop_visit.substitute_vars(tuple(inside), change)
        body = loop_visit.substitute_vars((*before, *initial), change)
        if loops:
            body += (For(column, columns, SERIAL, loops),)
        nests.append(For(row, rows, SERIAL, body))
        names.append((f"i{k}", f"r{k}" if loops else None, bool(initial)))
    several = not isinstance(rows, int) or rows > 1
    prefetched = known and several and PREFETCH_COLUMNS <= columns <= CHUNK
    host = busiest_sweep(nests) if prefetched else None
    hints = row_hints(nests, host) if host else []
    schedule = Schedule(tuple(nests))
    last = names[-1][0]
    for name, _, _ in reversed(names[:-1]):
        schedule.compute_at(name, last)
    for buffer in row_buffer.values():
        schedule.shrink(buffer, last, "register")
    in_register = known and columns <= STRIPE
    for buffer in kept_buffer.values():
        schedule.shrink(buffer, last, "register" if in_register else "stack")
    lanes = STRIPE if in_register else lanes_for(everything, target)
    for _, column_name, reduces in names:
        if column_name is None:
            continue
        if reduces:
            schedule.stripe(column_name)
        else:
            schedule.vectorize(column_name, lanes)
    if host and hints:
        prefetch_rows(schedule, last, host, hints)
    if several and (x.sizes or rows * columns >= PARALLEL_ELEMENTS // 2):
        schedule.parallel(last)
    return schedule.body, schedule.steps
