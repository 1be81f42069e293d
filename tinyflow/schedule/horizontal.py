"""Several independent element-wise groups as one kernel: the updates of small variables.

Main function: ``lower_batch``. May import ir, passes.fusion and schedule. The work of all parts is
cut into one range of tasks; a task finds its part by comparing numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tinyflow.ir.graph.nodes import Value
from tinyflow.ir.loop import visit as loop_visit
from tinyflow.ir.loop.nodes import PARALLEL, Body, Buffer, For, If
from tinyflow.ir.scalar import nodes as s
from tinyflow.passes.fusion import Group, Grouping
from tinyflow.schedule.grain import PARALLEL_ELEMENTS, size
from tinyflow.schedule.lowering import GroupExpressions, LoweredKernel

LowerPart = Callable[[GroupExpressions], LoweredKernel]


def lower_batch(grouping: Grouping, group: Group, lower: LowerPart) -> LoweredKernel:
    """One kernel for all parts of a batch; ``lower`` makes the kernel of one part.

    if task < t0: part 0 else if task < t1: part 1 ...   Each part keeps the loops that it would
    have as a kernel of its own, so that batching changes no bit.
    """
    parts = [_renamed(lower(GroupExpressions(grouping, p)), n) for n, p in enumerate(group.parts)]
    work = sum(size(p.domain) for p in group.parts)
    task = s.var("task")
    bodies = [_tasks_of(part, task) for part in parts]
    parallel = work >= PARALLEL_ELEMENTS or any(count > 1 for count, _ in bodies)
    if parallel:
        total = sum(count for count, _ in bodies)
        body: Body = (For(task, total, PARALLEL, _choose(bodies, task)),)
    else:
        total = 1
        body = tuple(st for part in parts for st in part.kernel.body)
    buffers: list[Buffer] = []
    arguments: list[Any] = []
    for part in parts:
        for buffer, argument in zip(part.kernel.buffers, part.arguments, strict=True):
            if argument is not None:
                buffers.append(buffer)
                arguments.append(argument)
    status = next((b for p in parts for b in p.kernel.buffers if b.name == "status"), None)
    if status is not None:
        buffers.insert(0, status)
        arguments.insert(0, None)
    first = parts[0]
    kernel = replace(
        first.kernel,
        name=f"batch_{len(parts)}_{group.label}"[:48],
        buffers=tuple(buffers),
        body=body,
        outputs=tuple(name for p in parts for name in p.kernel.outputs),
        tasks=total,
        sources=tuple(dict.fromkeys(source for p in parts for source in p.kernel.sources)),
        ops=tuple(dict.fromkeys(op for p in parts for op in p.kernel.ops)),
    )
    return replace(
        first,
        kernel=kernel,
        arguments=tuple(arguments),
        steps=(f"batch({len(parts)} parts)", *[f"{n}: {st}" for n, p in enumerate(parts)
                                               for st in p.steps]),
        flops=sum(p.flops for p in parts),
        bytes=sum(p.bytes for p in parts),
        chunk=1 if parallel else 0,
        group=group,
        in_place=_in_place(grouping, parts),
        tasks=total,
        addresses={},
    )  # fmt: skip


def _renamed(part: LoweredKernel, number: int) -> LoweredKernel:
    """The part with parameter names of its own."""
    mapping = {
        b: Buffer(f"p{number}_{b.name}", b.dtype, b.shape, b.scope)
        for b in part.kernel.buffers
        if b.name != "status"
    }
    kernel = replace(
        part.kernel,
        buffers=tuple(mapping.get(b, b) for b in part.kernel.buffers),
        body=loop_visit.substitute_buffers(part.kernel.body, mapping),
        outputs=tuple(f"p{number}_{name}" for name in part.kernel.outputs),
    )
    return replace(part, kernel=kernel)


def _tasks_of(part: LoweredKernel, task: s.Expr) -> tuple[int, Body]:
    """(number of tasks, the body of one) in terms of the part's own task number."""
    body = part.kernel.body
    loop = body[0] if len(body) == 1 else None
    if isinstance(loop, For) and loop.kind == PARALLEL and isinstance(loop.extent, int):
        return loop.extent, loop_visit.substitute_vars(loop.body, {loop.var: task})
    return 1, body


def _choose(bodies: list[tuple[int, Body]], task: s.Expr) -> Body:
    """The body of the part that the task belongs to, by halving."""
    if len(bodies) == 1:
        return bodies[0][1]
    half = len(bodies) // 2
    before = sum(count for count, _ in bodies[:half])
    rest = loop_visit.substitute_vars(_choose(bodies[half:], task), {task: task - before})
    return (If(task < before, _choose(bodies[:half], task), rest),)


def _in_place(
    grouping: Grouping, parts: list[LoweredKernel]
) -> tuple[tuple[Value, Value], ...]:
    """Pairs of the parts, without inputs whose memory another part reads as well."""
    readers: dict[Value, set[int]] = {}
    for n, part in enumerate(parts):
        for argument in part.arguments:
            if isinstance(argument, Value):
                readers.setdefault(_root(grouping, argument), set()).add(n)
    return tuple(
        (old, new)
        for part in parts
        for old, new in part.in_place
        if len(readers[_root(grouping, old)]) == 1
    )


def _root(grouping: Grouping, value: Value) -> Value:
    """The value whose memory a view shows."""
    item = grouping.items.get(value)
    while item is not None and item.group is not None and item.group.kind == "view":
        value = item.reads[0][0]
        item = grouping.items.get(value)
    return value
