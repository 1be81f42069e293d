"""The automatic scheduler: a loop nest and schedule steps for each kind of group.

Main function: ``lower_group``. May import core, ir, te, passes.fuse_groups and schedule.

Limits that the choices follow from: element-wise and row kernels are bound by memory bandwidth, so
each value is read and written once and rows stay in the first-level cache; contractions are bound
by the fused multiply-add units (contraction/).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from tinyflow.ir.graph.nodes import Value
from tinyflow.ir.loop import visit as loop_visit
from tinyflow.ir.loop.nodes import (
    PARALLEL,
    SERIAL,
    UNROLL,
    VECTORIZE,
    Alloc,
    Body,
    Buffer,
    For,
    If,
    Stmt,
    Store,
)
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.passes.fuse_groups import Group, Grouping, Item
from tinyflow.schedule.contraction import lower_dot
from tinyflow.schedule.lowering import (
    Axes,
    GroupExpressions,
    LoweredKernel,
    Scratch,
    merge_axes,
    operations,
    roots_of,
    single_axis,
)
from tinyflow.schedule.schedule import Schedule, combine, neutral
from tinyflow.schedule.targets import Target
from tinyflow.te.canonical import CHUNK, STRIPE, chunk_count

#: Elements below which a kernel is not worth waking a thread for (about 5 us of work).
PARALLEL_ELEMENTS = 32768
#: Elements per task of an element-wise kernel: large enough to amortise a claim, small enough that
#: two threads finish together.
BLOCK_ELEMENTS = 8192
#: Row temporaries up to this size in all are kept; beyond it values are computed again.
ROW_BYTES = 131072


def lower_group(
    grouping: Grouping, group: Group, target: Target, generic: bool = False
) -> list[LoweredKernel]:
    """The kernels of one group, in order (one, or two for a reduction that threads share).

    generic: element-wise kernels take their length as an argument, so that one serves all shapes.
    """
    expressions = GroupExpressions(grouping, group)
    if group.kind == "map":
        return [_lower_map(expressions, target, generic)]
    if group.kind == "row":
        return [_lower_rows(expressions, target)]
    if group.kind == "reduce":
        return _lower_reduce(expressions, target)
    if group.kind == "dot":
        return lower_dot(expressions, target)
    return [_lower_loops(expressions)]


def size(extents: Iterable[Any]) -> int:
    total = 1
    for n in extents:
        total *= n
    return total


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


# ---- element-wise ------------------------------------------------------------------------------
def _lower_map(x: GroupExpressions, target: Target, generic: bool) -> LoweredKernel:
    total = size(x.group.domain)
    shared = _shared_items(x, x.results)
    before: list[Store] = []
    registers: list[Buffer] = []
    for item in shared:
        register = Buffer(f"t{len(registers)}", item.value.dtype, (1,), "register")
        before.append(Store(register, (_LANE,), x.at_point(item)))
        x.temporaries[item.value] = s.load(register, _LANE)
        registers.append(register)
        x.forget()
    statements: Body = (*before, *(x.store_result(i) for i in x.results))
    x.find_in_place(statements)
    lanes = lanes_for(statements, target)
    axes, mapping = merge_axes(roots_of(statements), x.outer)
    body = loop_visit.substitute_vars(statements, mapping)
    flops = operations(statements) * total
    if not axes:
        return x.kernel(_with_registers(body, registers, s.index(0), 1), ["scalar"], flops)
    extents: tuple[tuple[Expr, int], ...] = ()
    if generic and len(axes) == 1:
        extents = ((s.var("n"), total),)
        body = x.generalize(body, total, extents[0][0])
        axes = [(axes[0][0], extents[0][0])]
    schedule = Schedule(nest(axes, body))
    names = [str(v.attr) for v, _ in axes]
    parallel = total >= PARALLEL_ELEMENTS or bool(extents)
    if len(names) > 2 or (len(names) == 2 and parallel):
        while len(names) > 2:
            names[:2] = [schedule.fuse(names[0], names[1])]
    chunk = 0
    inner = names[-1]
    if parallel:
        if len(names) == 1:
            outer, inner = schedule.block(inner, BLOCK_ELEMENTS)
            chunk = 1
        else:
            outer = names[0]
            chunk = max(1, BLOCK_ELEMENTS // max(1, axes[-1][1]))
        schedule.vectorize(inner, lanes)
        schedule.parallel(outer)
    else:
        schedule.vectorize(inner, lanes)
    schedule.body = _bind_registers(schedule.body, registers, lanes)
    return x.kernel(schedule.body, schedule.steps, flops, chunk, extents=extents)


_LANE = s.var("lane")


def _with_registers(body: Body, registers: list[Buffer], lane: Expr, lanes: int) -> Body:
    body = loop_visit.substitute_vars(body, {_LANE: lane})
    mapping = {r: Buffer(r.name, r.dtype, (lanes,), "register") for r in registers}
    body = loop_visit.substitute_buffers(body, mapping)
    for register in reversed(mapping.values()):
        body = (Alloc(register, body),)
    return body


def _bind_registers(body: Body, registers: list[Buffer], lanes: int) -> Body:
    """Per-lane temporaries inside each vector loop: one register of ``lanes`` elements each."""
    if not registers:
        return body

    def one(stmt: Stmt) -> Stmt | Body:
        if isinstance(stmt, For) and stmt.kind == VECTORIZE:
            return _with_registers((stmt,), registers, stmt.var, lanes)
        return stmt

    return loop_visit.map_statements(body, one)


def _shared_items(x: GroupExpressions, roots: list[Item]) -> list[Item]:
    """Items that more than one statement needs: results others read, and common producers."""
    needed: dict[Item, int] = {}
    for root in roots:
        stack, seen = [root], {root}
        while stack:
            item = stack.pop()
            needed[item] = needed.get(item, 0) + 1
            for value, _ in item.reads:
                producer = x.grouping.items.get(value)
                if (
                    producer is not None
                    and producer.group is x.group
                    and value not in x.group.inlined
                    and producer not in seen
                ):
                    seen.add(producer)
                    stack.append(producer)
    return [i for i in x.group.items if needed.get(i, 0) > 1]


# ---- rows ----------------------------------------------------------------------------------------
_ROW, _COLUMN = s.var("i"), s.var("r")


class _RowPlan:
    """Which sweep over a row computes what; see ``_lower_rows``."""

    def __init__(self, x: GroupExpressions) -> None:
        self.x = x
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
                if producer is None or producer.group is not self.x.group:
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
        kept: list[Item] = []
        for item in self.items:
            users = uses.get(item, set())
            if item.expensive and not self.is_row(item) and len(users) + (item in results) > 1:
                kept.append(item)
        columns = size(self.x.group.inner)
        bytes_per_row = sum(columns * i.value.dtype.size_bytes for i in kept if i not in results)
        return kept if bytes_per_row <= ROW_BYTES else [i for i in kept if i in results]

    def roots(self) -> list[Item]:
        results = set(self.x.results)
        return [
            i for i in self.items if self.is_reduction(i) or (i in results and not self.is_row(i))
        ]


def _lower_rows(x: GroupExpressions, target: Target) -> LoweredKernel:
    """All sweeps over one row, then the next row: every external value is read from memory once.

    Sweep k holds the reductions that need the results of sweep k-1 and the full values computable
    then; softmax is max | exp and sum | divide.
    """
    plan = _RowPlan(x)
    rows, columns = size(x.group.outer), size(x.group.inner)
    temporaries: list[Buffer] = []
    scratch: list[tuple[Buffer, Scratch]] = []
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
        width = max(columns, STRIPE)
        kept_buffer[item.value] = Buffer(name, item.value.dtype, (rows, width), "stack")
    sweeps: list[tuple[list[Stmt], list[Stmt], list[Stmt]]] = []
    for k in range(plan.sweeps + 1):
        sweeps.append(_row_sweep(x, plan, k, row_buffer, kept_buffer))
    body, steps = _assemble_rows(x, sweeps, rows, columns, row_buffer, kept_buffer, target)
    flops = sum(
        operations(loops) * rows * columns + operations(before) * rows
        for before, loops, _ in sweeps
    )
    chunk = max(1, BLOCK_ELEMENTS // max(1, columns))
    return x.kernel(body, steps, flops, chunk, scratch)


def _row_sweep(
    x: GroupExpressions,
    plan: _RowPlan,
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
            before.append(Store(buffer, (_ROW,), x.at_point(item)))
            x.temporaries[item.value] = s.load(buffer, _ROW)
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
            initial.append(Store(buffer, (_ROW,), neutral(combiner, buffer)))
            inside.append(
                Store(buffer, (_ROW,), combine(combiner, s.load(buffer, _ROW), value))
            )
            # What later sweeps read; x.forget() waits until the sweep is complete.
        elif not plan.is_row(item):
            if item.value in kept_buffer:
                buffer = kept_buffer[item.value]
                inside.append(Store(buffer, (_ROW, _COLUMN), x.at_point(item)))
                x.temporaries[item.value] = s.load(buffer, _ROW, _COLUMN)
                x.forget()
            elif item in results:
                inside.append(x.store_result(item))
                if item in plan.kept:
                    x.temporaries[item.value] = s.load(x.buffer(item.value), x.position(item))
                    x.forget()
    for item in plan.items:
        if plan.is_reduction(item) and plan.sweep(item) == k:
            x.temporaries[item.value] = s.load(row_buffer[item.value], _ROW)
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
    if columns % STRIPE == 0 or columns > 8 * STRIPE:
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
    mapping = {**{v: v for v in ()}, **mapping, **outer_map, **inner_map}
    nests: list[Stmt] = []
    names: list[tuple[str, str | None, bool]] = []
    for k, (before, inside, initial) in enumerate(sweeps):
        if not before and not inside:
            continue
        row, column = s.var(f"i{k}"), s.var(f"r{k}")
        change = {**{old: scalar_visit.substitute(new, {_ROW: row, _COLUMN: column})
                     for old, new in mapping.items()}, _ROW: row, _COLUMN: column}  # fmt: skip
        loops = loop_visit.substitute_vars(tuple(inside), change)
        body = loop_visit.substitute_vars((*before, *initial), change)
        if loops:
            body += (For(column, columns, SERIAL, loops),)
        nests.append(For(row, rows, SERIAL, body))
        names.append((f"i{k}", f"r{k}" if loops else None, bool(initial)))
    schedule = Schedule(tuple(nests))
    last = names[-1][0]
    for name, _, _ in reversed(names[:-1]):
        schedule.compute_at(name, last)
    for buffer in row_buffer.values():
        schedule.shrink(buffer, last, "register")
    in_register = columns <= STRIPE
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
    swept = [column_name for _, column_name, _ in names if column_name is not None]
    if rows > 1 and columns >= PREFETCH_COLUMNS and len(swept) > 1:
        _prefetch_rows(schedule, last, swept)
    if rows > 1 and rows * columns >= PARALLEL_ELEMENTS // 2:
        schedule.parallel(last)
    return schedule.body, schedule.steps


#: Shorter rows come close enough to one stream for the hardware's own prefetching.
PREFETCH_COLUMNS = 256


def _prefetch_rows(schedule: Schedule, row_name: str, sweeps: list[str]) -> None:
    """In the sweep that computes most, ask for the next row's inputs and this row's results.

    Sweeps alternate between memory and arithmetic; each would wait for the other's end.
    """
    row = schedule.loop(row_name).var
    vectors = [loop for name in sweeps if (loop := _vector_loop(schedule, name)) is not None]
    if len(vectors) < 2:
        return
    first, host = vectors[0], max(vectors[:-1], key=lambda loop: operations(loop.body))
    step = host.var
    hints: list[Stmt] = []
    for loop in vectors:
        (lanes,) = loop.body
        assert isinstance(lanes, For)
        for stmt in lanes.body:
            ...
    schedule.note(f"prefetch({row_name} + 1)")


# ---- other reductions ----------------------------------------------------------------------------
def _lower_reduce(x: GroupExpressions, target: Target) -> list[LoweredKernel]:
    """A reduction over leading or very many elements.

    Up to CHUNK elements: one kernel. More: chunks in parallel into scratch, then their fold.
    """
    item = next(
        i for i in x.group.items
        if i.value not in x.group.inlined and i.tensor is not None and i.tensor.reduction
    )  # fmt: skip
    assert item.tensor is not None and item.tensor.reduction is not None
    combiner = item.tensor.reduction.combiner
    reduce_axes: Axes = [(s.var(f"r{n}"), e) for n, (_, e) in enumerate(item.reduce_axes)]
    (value,) = x.reduction_body(item, reduce_axes)
    x.find_in_place(_pseudo(x, item, (value,)))
    outer, mapping = merge_axes(
        [value] + [x.position(i) for i in x.results], x.outer + reduce_axes,
        frozenset({len(x.outer)}),
    )  # fmt: skip
    own = {v for v, _ in x.outer}
    inner = [(v, n) for v, n in outer if v not in own]
    outer = [(v, n) for v, n in outer if v in own]
    value = scalar_visit.substitute(value, mapping)
    column, count, inner_map = single_axis(inner, "r")
    value = scalar_visit.substitute(value, inner_map)
    total = size(x.group.outer) * count
    flops = total * (1 + operations((Store(_scratch_like(item), (_ZERO,), value),)))
    reducer = _Reducer(x, item, combiner, outer, mapping, target)
    if count <= CHUNK:
        body, steps = reducer.nest(value, column, count, None, total)
        return [x.kernel(body, steps, flops, reducer.chunk)]
    chunks = chunk_count(count)
    outputs = size(x.group.outer)
    partial = Buffer("partial", item.value.dtype, (chunks * outputs,))
    scratch = [(partial, Scratch(item.value.dtype, chunks * outputs, "partial"))]
    chunk_var = s.var("c")
    shifted = scalar_visit.substitute(value, {column: chunk_var * CHUNK + column})
    length = (
        s.index(CHUNK) if count % CHUNK == 0
        else s.minimum(s.index(CHUNK), s.index(count) - chunk_var * CHUNK)
    )  # fmt: skip
    first, steps = reducer.nest(shifted, column, length, (chunk_var, chunks, partial), total)
    kernels = [x.kernel(first, steps, flops, 1, scratch, "_chunks")]
    at = reducer.flat_output()
    folded = s.load(partial, column * outputs + at)
    body, steps = reducer.nest(folded, column, chunks, None, chunks * outputs)
    kernels.append(x.kernel(body, steps, chunks * outputs, reducer.chunk, scratch, "_fold"))
    return kernels


_ZERO = s.index(0)


def _pseudo(x: GroupExpressions, item: Item, bodies: tuple[Expr, ...]) -> list[Store]:
    """The group as statements before scheduling: the reduction, then the results."""
    buffer = _scratch_like(item)
    first = [Store(buffer, (_ZERO,), body) for body in bodies]
    x.temporaries[item.value] = s.load(buffer, _ZERO)
    x.forget()
    stores = [x.store_result(i) for i in x.results]
    del x.temporaries[item.value]
    x.forget()
    return first + stores


def _scratch_like(item: Item) -> Buffer:
    return Buffer("cost", item.value.dtype, (1,), "stack")


class _Reducer:
    """Loop nests of one reduction whose outputs are walked by ``outer``."""

    def __init__(
        self,
        x: GroupExpressions,
        item: Item,
        combiner: str,
        outer: Axes,
        mapping: dict[Expr, Expr],
        target: Target,
    ) -> None:
        self.x, self.item, self.combiner, self.mapping = x, item, combiner, mapping
        self.outer, self.target = outer, target
        self.chunk = 1

    def flat_output(self) -> Expr:
        position = _ZERO
        for var, extent in self.outer:
            position = position * s.index(extent) + var
        return position

    def finish(self, reduced: Expr, destination: tuple[Any, Any, Buffer] | None) -> Body:
        """Stores of the results, or of the partial result of one chunk."""
        if destination is not None:
            chunk_var, _, partial = destination
            outputs = size(self.x.group.outer)
            return (Store(partial, (chunk_var * outputs + self.flat_output(),), reduced),)
        self.x.temporaries[self.item.value] = reduced
        self.x.forget()
        stores = tuple(self.x.store_result(i) for i in self.x.results)
        return loop_visit.substitute_vars(stores, self.mapping)

    def nest(
        self, value: Expr, column: Expr, count: Any, destination: Any, total: int
    ) -> tuple[Body, list[str]]:
        """``value`` reduced over ``column`` < count for every output."""
        parallel = total >= PARALLEL_ELEMENTS
        if self.outer and _stride(value, self.outer[-1][0]) == 1 and self.outer[-1][1] > 1:
            body, axes, steps = self.across_columns(value, column, count, destination)
        else:
            body, axes, steps = self.along_row(value, column, count, destination)
        if destination is not None:
            axes = [(destination[0], destination[1]), *axes]
        if not axes:
            return body, steps
        schedule = Schedule(nest(axes, body))
        schedule.steps = steps
        names = [str(v.attr) for v, _ in axes]
        while parallel and len(names) > 1:
            names[:2] = [schedule.fuse(names[0], names[1])]
        if parallel:
            schedule.parallel(names[0])
            tasks = size(n for _, n in axes)
            self.chunk = max(1, tasks * BLOCK_ELEMENTS // max(1, total))
        return schedule.body, schedule.steps

    def along_row(
        self, value: Expr, column: Expr, count: Any, destination: Any
    ) -> tuple[Body, Axes, list[str]]:
        """One output at a time; vectors run along the reduction."""
        result = Buffer("result", self.item.value.dtype, (1,), "register")
        at = (_ZERO,)
        update = combine(self.combiner, s.load(result, _ZERO), value)
        extent = count if not isinstance(count, Expr) or not count.is_const else count.attr
        schedule = Schedule(
            (
                Store(result, at, neutral(self.combiner, result)),
                For(column, extent, SERIAL, (Store(result, at, update),)),
            )
        )
        schedule.stripe(str(column.attr))
        body = schedule.body + self.finish(s.load(result, _ZERO), destination)
        return (Alloc(result, body),), list(self.outer), schedule.steps

    def across_columns(
        self, value: Expr, column: Expr, count: Any, destination: Any
    ) -> tuple[Body, Axes, list[str]]:
        """A vector of neighbouring outputs at a time; STRIPE of them hold the partial results."""
        dtype = self.item.value.dtype
        lanes = max(2, self.target.lanes * 4 // max(4, dtype.size_bytes))
        var, extent = self.outer[-1]
        block, lane = s.var(f"{var.attr}.o"), s.var(f"{var.attr}.i")
        acc = Buffer("acc", dtype, (STRIPE * lanes,), "register")
        blocks = -(-extent // lanes)
        position = block * lanes + lane
        masked = extent % lanes != 0
        here = {var: position}
        stripe, step = s.var("l"), s.var("k")
        n = s.index(count)
        full = n // STRIPE

        def guarded(body: Body) -> Body:
            return (If(position < extent, body),) if masked else body

        def update(stripe_index: Expr, r: Expr) -> Body:
            at = (stripe_index * lanes + lane,)
            new = scalar_visit.substitute(value, {column: r, **here})
            return guarded((Store(acc, at, combine(self.combiner, s.load(acc, *at), new)),))

        def vector(body: Body) -> For:
            return For(lane, lanes, VECTORIZE, body)

        start = Store(acc, (stripe * lanes + lane,), neutral(self.combiner, acc))
        body: Body = (For(stripe, STRIPE, UNROLL, (vector((start,)),)),)
        main = For(stripe, STRIPE, UNROLL, (vector(update(stripe, step * STRIPE + stripe)),))
        if not (full.is_const and full.attr == 0):
            body += (For(step, full.attr if full.is_const else full, SERIAL, (main,)),)
        if n.is_const:
            rest = n.attr % STRIPE
            if rest:
                done = n.attr - rest
                body += (For(stripe, rest, UNROLL, (vector(update(stripe, done + stripe)),)),)
        else:
            tail = vector(update(stripe, full * STRIPE + stripe))
            body += (
                For(stripe, STRIPE, UNROLL, (If(full * STRIPE + stripe < n, (tail,)),)),
            )
        half = STRIPE // 2
        while half:
            low, high = (stripe * lanes + lane,), ((stripe + half) * lanes + lane,)
            both = combine(self.combiner, s.load(acc, *low), s.load(acc, *high))
            body += (For(stripe, half, UNROLL, (vector((Store(acc, low, both),)),)),)
            half //= 2
        stores = self.finish(s.load(acc, lane), destination)
        body += (vector(guarded(loop_visit.substitute_vars(stores, here))),)
        steps = [f"split({var.attr}, {lanes})", f"vectorize({lane.attr}, {lanes})",
                 f"stripe(r, {STRIPE})", f"unroll({stripe.attr})"]  # fmt: skip
        return (Alloc(acc, body),), [*self.outer[:-1], (block, blocks)], steps


def _stride(value: Expr, var: Expr) -> int | None:
    """Stride of the load that walks the most memory along ``var``."""
    best: tuple[int, int] | None = None
    for load in scalar_visit.loads(value):
        form = scalar_visit.linear(load.args[0], (var,))
        if form is None:
            return None
        stride = form.coefficients.get(var, 0)
        length = load.attr.shape[0]
        if isinstance(stride, int) and isinstance(length, int):
            best = max(best or (0, 0), (length, stride))
    return best[1] if best else None


# ---- ops that write their own loops --------------------------------------------------------------
def _lower_loops(x: GroupExpressions) -> LoweredKernel:
    node = x.group.items[0].value.node

    def shaped(value: Value) -> Buffer:
        """The parameter with one dimension per axis: such ops index by axis."""
        found, shape = x.buffer(value), value.type.shape or ()
        if found.shape != shape:
            found = x.buffers[value] = replace(found, shape=shape)
        return found

    inputs = tuple(shaped(v) for v in node.inputs)
    outputs = tuple(shaped(v) for v in node.outputs)
    body = node.op.lower_loops(inputs, outputs)  # type: ignore[attr-defined]
    return x.kernel(body, ["loops written by the op"], 0)


__all__ = ["PARALLEL", "Group", "lower_group"]
