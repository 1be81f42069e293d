"""Element-wise groups: one loop over vectors, cut into tasks.

Main function: ``lower_map``. May import ir, passes.fusion and schedule. Such kernels are bound
by memory bandwidth: each value is read and written once.
"""

from __future__ import annotations

from dataclasses import replace

from tinyflow.ir.loop import visit as loop_visit
from tinyflow.ir.loop.nodes import VECTORIZE, Alloc, Body, Buffer, For, If, Stmt, Store
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.passes.fusion import Item
from tinyflow.schedule.grain import (
    BLOCK_ELEMENTS,
    PARALLEL_ELEMENTS,
    lanes_for,
    nest,
    size,
    tasks_per_claim,
    weight_of,
)
from tinyflow.schedule.lowering import (
    GroupExpressions,
    LoweredKernel,
    merge_axes,
    operations,
    roots_of,
)
from tinyflow.schedule.prefetch import STREAM_ELEMENTS, prefetch_stream
from tinyflow.schedule.schedule import Schedule
from tinyflow.schedule.targets import Target
from tinyflow.schedule.transposed import across
from tinyflow.schedule.tuning import sweep_signature, sweep_tuning_for


def lower_map(
    x: GroupExpressions, target: Target, generic: bool, far: bool | None = None
) -> LoweredKernel:
    """generic: the length is an argument.   far: the arrays come from memory, where that is known
    besides their extents."""
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
    tuning = sweep_tuning_for(
        sweep_signature("map", x.group.domain, roots_of(statements)), target
    )
    lanes = tuning.lanes or lanes_for(statements, target)
    weight = 1 if x.sizes or generic or total >= PARALLEL_ELEMENTS else weight_of(statements)
    block = tuning.block or BLOCK_ELEMENTS >> weight.bit_length() - 1
    axes, mapping = merge_axes(roots_of(statements), x.outer)
    body = loop_visit.substitute_vars(statements, mapping)
    flops = operations(statements) * total
    work = (total, PARALLEL_ELEMENTS) if x.sizes else (0, 0)
    if not axes:
        return x.kernel(_with_registers(body, registers, s.index(0), 1), ["scalar"], flops)
    extents: tuple[tuple[Expr, int], ...] = ()
    if generic and len(axes) == 1:
        extents = ((s.var("n"), total),)
        body = x.generalize(body, total, extents[0][0])
        axes = [(axes[0][0], extents[0][0])]
    side = lanes_for(statements, target)
    turned = across(body, axes, side, bool(x.sizes))
    if turned is not None:
        body = _bind_registers(turned.body, registers, side)
        return x.kernel(body, turned.steps, flops, turned.chunk, work=work)
    schedule = Schedule(nest(axes, body))
    names = [str(v.attr) for v, _ in axes]
    sized = bool(extents or x.sizes)  # the length is an argument
    parallel = sized or total * weight >= PARALLEL_ELEMENTS
    if len(names) > 2 or (len(names) == 2 and parallel):
        while len(names) > 2:
            names[:2] = [schedule.fuse(names[0], names[1])]
    chunk = 0
    inner = names[-1]
    if parallel:
        if len(names) == 1:
            outer, inner = schedule.block(inner, block)
            chunk = 1
        else:
            outer = names[0]
            chunk = tasks_per_claim(axes[-1][1], block)
        schedule.vectorize(inner, lanes)
        if far is None:
            far = not extents and total >= STREAM_ELEMENTS
        if far if tuning.prefetch is None else tuning.prefetch == 1 and not extents:
            prefetch_stream(schedule, inner, lanes)
        schedule.parallel(outer)
    else:
        schedule.vectorize(inner, lanes)
    schedule.body = _bind_registers(_branched(schedule.body), registers, lanes)
    return x.kernel(schedule.body, schedule.steps, flops, chunk, extents=extents, work=work)


def _branched(body: Body) -> Body:
    """A choice that all lanes of a vector share is a branch around it: of 64 parts of a
    concatenation one is read, not each of them under a mask."""

    def one(stmt: Stmt) -> Stmt | Body:
        if not (isinstance(stmt, For) and stmt.kind == VECTORIZE and len(stmt.body) == 1):
            return stmt
        (store,) = stmt.body
        if not isinstance(store, Store) or store.value.op != "select":
            return stmt
        condition, then, orelse = store.value.args
        if stmt.var in scalar_visit.free_vars(condition):
            return stmt
        arms = [
            For(stmt.var, stmt.extent, stmt.kind, (replace(store, value=value),))
            for value in (then, orelse)
        ]
        return If(condition, *(_branched((arm,)) for arm in arms))

    return loop_visit.map_statements(body, one)


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
