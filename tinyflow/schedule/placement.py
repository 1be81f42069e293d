"""Where a tensor of a schedule is computed: inside another's loop, at every use, into a copy.

Main functions: ``attach``, ``inline``, ``cache_read``, ``cache_write``, each on the loops of a
``StageSchedule`` (stages.py and stage_steps.py have the public methods). May import core, ir, te
and schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tinyflow.ir.loop import visit
from tinyflow.ir.loop.nodes import (
    VECTORIZE,
    Alloc,
    Body,
    Buffer,
    Extent,
    For,
    If,
    Stmt,
    Store,
)
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.schedule.regions import (
    Span,
    Unbounded,
    inside_bounds,
    loads_of,
    needed_region,
)
from tinyflow.schedule.schedule import ScheduleError
from tinyflow.te.tensor import Tensor

if TYPE_CHECKING:
    from tinyflow.schedule.stages import Computed, StageSchedule

#: Memory of one loop iteration that lies on the stack.
STACK_BYTES = 128 << 10


def attach(schedule: StageSchedule, stage: Computed, at: str) -> None:
    """``Stage.compute_at`` on loops: B's nest, cut to what one iteration reads, moves there."""
    loop, whole = schedule.loop(at), stage.buffer
    own = schedule.top(whole)
    if any(any(y is loop for y in visit.walk((x,))) for x in own):
        raise ScheduleError(f"{at} is a loop of {whole.name} itself")
    for outer in schedule.enclosing(loop):
        if outer.kind == VECTORIZE:
            raise ScheduleError(f"{outer.var.attr} is vectorised; nothing can be computed inside")
    elsewhere = set(loads_of(schedule.body, whole)) - set(loads_of(loop.body, whole))
    for stmt in own:
        elsewhere -= set(loads_of((stmt,), whole))
    if elsewhere or not loads_of(loop.body, whole):
        raise ScheduleError(
            f"{whole.name} is read outside {at}" if elsewhere else f"{at} does not read it"
        )
    try:
        spans = needed_region(loop.body, whole)
    except Unbounded as error:
        raise ScheduleError(f"the part of {whole.name} that {at} reads: {error}") from None
    for d in schedule.whole_dims(stage):
        spans[d] = Span(s.index(0), int(whole.shape[d]))  # type: ignore[arg-type]
    size_bytes = whole.dtype.size_bytes
    for span in spans:
        size_bytes *= span.size
    if size_bytes > STACK_BYTES:
        raise ScheduleError(
            f"one iteration of {at} reads {size_bytes} bytes of it, more than {STACK_BYTES}",
            hint="choose a loop further inside",
        )
    part = Buffer(f"{whole.name}.part", whole.dtype, tuple(x.size for x in spans), "stack")
    around = schedule.enclosing(loop)
    for stmt in own:
        schedule.replace(stmt, ())
    stage.buffer = part
    stage.loops.clear()
    nest = schedule.fresh_nest(stage, [(x.low, x.size) for x in spans], around)

    def local(expr: Expr) -> Expr | None:
        if expr.op != "load" or expr.attr is not whole:
            return None
        moved = [scalar_visit.simplify_index(i - x.low, {})
                 for i, x in zip(expr.args, spans, strict=True)]  # fmt: skip
        return s.load(part, *moved)

    body = visit.map_expressions(loop.body, lambda e: scalar_visit.transform(e, local))
    inside = (Alloc(part, nest + body),)
    schedule.replace(loop, (For(loop.var, loop.extent, loop.kind, inside),))
    schedule.note(f"compute_at({whole.name}, {at})")


def guarded_part(
    nest: Body, lows: Sequence[Expr], shape: Sequence[Extent], around: Sequence[For]
) -> Body:
    """A part may reach over the edge of the tensor: what is outside is not computed."""
    inside = visit.collect(nest, For)
    variables = [x.var for x in inside[: len(lows)]]
    indices = [low + v for low, v in zip(lows, variables, strict=True)]
    condition = inside_bounds(indices, shape, [*around, *inside])
    if condition is None:
        return nest

    def one(stmt: Stmt) -> Stmt:
        return If(condition, (stmt,)) if isinstance(stmt, Store) else stmt

    return visit.map_statements(nest, one)


def redefine(stage: Computed, change: Callable[[Expr], Expr | None]) -> None:
    """The tensor's element expression with its reads changed; nests made later follow it."""
    stage.tensor = stage.tensor.changed(change)


def inline(schedule: StageSchedule, stage: Computed) -> None:
    """``Stage.compute_inline`` on loops."""
    body, buffer = stage.tensor.body, stage.buffer
    assert body is not None
    if body.op == "reduce":
        raise ScheduleError("a reduction has no expression per element; use compute_at")

    def element(indices: Sequence[Expr]) -> Expr:
        return scalar_visit.substitute(body, dict(zip(stage.tensor.axes, indices, strict=True)))

    def load(expr: Expr) -> Expr | None:
        found = expr.op == "load" and expr.attr is buffer
        return schedule.resolved(element(expr.args)) if found else None

    def read(expr: Expr) -> Expr | None:
        return element(expr.args) if expr.op == "read" and expr.attr is stage.origin else None

    for stmt in schedule.top(buffer):
        schedule.replace(stmt, ())
    schedule.body = visit.map_expressions(
        schedule.body, lambda e: scalar_visit.transform(e, load)
    )
    del schedule.stages[stage.origin]
    for other in schedule.stages.values():
        redefine(other, read)
    schedule.note(f"compute_inline({buffer.name})")


def cache_read(
    schedule: StageSchedule, tensor: Tensor, scope: str, readers: Sequence[Computed]
) -> Tensor:
    """``StageSchedule.cache_read`` on loops."""
    buffer = schedule.buffers.get(tensor)
    if buffer is None or (tensor in schedule.stages and not schedule.top(buffer)):
        raise ScheduleError(f"{tensor.name} is not in memory as a whole")
    own = {r.buffer for r in readers}
    where = [
        stmt for stmt in schedule.body
        if any(x.buffer in own and loads_of((x,), buffer) for x in visit.collect((stmt,), Store))
    ]  # fmt: skip
    if not where:
        names = ", ".join(r.origin.name for r in readers)
        raise ScheduleError(f"{tensor.name} is not read by {names}")
    axis_names = tensor.names or tuple(f"a{d}" for d in range(tensor.rank))
    axes = tensor.axes or tuple(s.var(f"i{d}") for d in range(tensor.rank))
    copy = Tensor(f"{tensor.name}.{scope}", tensor.shape, tensor.dtype, axes,
                  s.read(tensor, *axes), axis_names)  # fmt: skip
    stage = schedule.new_stage(copy)

    def statement(stmt: Stmt) -> Stmt:
        if not isinstance(stmt, Store) or stmt.buffer not in own:
            return stmt
        value = visit.rename_buffers_in(stmt.value, {buffer: stage.buffer})
        return Store(stmt.buffer, stmt.indices, value)

    first = schedule.body.index(where[0])
    nest = schedule.fresh_nest(stage)
    schedule.body = schedule.body[:first] + nest + schedule.body[first:]
    start = first + len(nest)
    schedule.body = schedule.body[:start] + visit.map_statements(
        schedule.body[start:], statement
    )
    for r in readers:
        redefine(r, lambda e: s.read(copy, *e.args) if e.op == "read" and e.attr is tensor
                 else None)  # fmt: skip
    schedule.note(f"cache_read({tensor.name}, {scope})")
    return copy


def cache_write(schedule: StageSchedule, stage: Computed, scope: str) -> Tensor:
    """``StageSchedule.cache_write`` on loops."""
    if stage.touched:
        raise ScheduleError(f"{stage.origin.name} has other steps already; this one comes first")
    if schedule.is_updated(stage):
        raise ScheduleError(f"{stage.origin.name} has updates, which a copy would not see")
    old = stage.tensor
    copy = Tensor(f"{old.name}.{scope}", old.shape, old.dtype, old.axes, old.body, old.names)
    inner = schedule.new_stage(copy)
    stage.tensor = Tensor(old.name, old.shape, old.dtype, old.axes,
                          s.read(copy, *old.axes), old.names)  # fmt: skip
    own = schedule.top(stage.buffer)
    for stmt in own[1:]:
        schedule.replace(stmt, ())
    schedule.replace(own[0], ())
    stage.loops.clear()
    place = 0 if not schedule.body else len(schedule.body)
    for n, stmt in enumerate(schedule.body):
        if loads_of((stmt,), stage.buffer):
            place = n
            break
    after = schedule.body[place:]
    schedule.body = schedule.body[:place]
    schedule.body += schedule.fresh_nest(inner)
    schedule.body += schedule.fresh_nest(stage)
    schedule.body += after
    schedule.note(f"cache_write({old.name}, {scope})")
    return copy
