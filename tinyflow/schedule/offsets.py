"""Large constant offsets of a kernel become arguments: one kernel serves every slice of an array.

Main function: ``with_offsets_as_arguments``. May import ir and schedule.lowering.

The unrolled steps of a recurrent network differ in nothing but the row of the input they read::

    before   out0[i * 4 + j] = in0[(i + 96) * 4 + j]
    after    out0[i * 4 + j] = in0[(i + o0) * 4 + j]        o0 = 96 is an argument of the launch
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tinyflow.core.dtype import int64
from tinyflow.ir.loop import visit as loop_visit
from tinyflow.ir.loop.nodes import HINTS, Body, Buffer, Call, Kernel, Stmt, Store
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.schedule.lowering import LoweredKernel

#: Smaller offsets are those of windows and register tiles, which belong to the kernel.
LEAST_OFFSET = 32
#: Buffers of a kernel whose offsets are lifted: arguments take registers.
MOST = 4


def with_offsets_as_arguments(one: LoweredKernel) -> LoweredKernel:
    """The kernel with an argument for each parameter that it reads or writes at a large offset.

    Every access to the parameter must have that offset: then it is a slice, not a register tile.
    The same kernel comes back where there is none.
    """
    kernel = one.kernel
    if kernel.extents:
        return one  # serves many sizes already
    found = _slices(kernel)
    if not found or len(found) > MOST:
        return one
    names = {b: s.var(f"o{n}") for n, b in enumerate(found)}

    def lift_in(buffer: Buffer, index: Expr) -> Expr:
        def lift(expr: Expr) -> Expr | None:
            return None if _offset(expr) is None else expr.args[0] + names[buffer]

        return scalar_visit.transform(index, lift)

    def in_loads(expr: Expr) -> Expr | None:
        if expr.op != "load" or expr.attr not in names:
            return None
        return s.load(expr.attr, *[lift_in(expr.attr, i) for i in expr.args])

    def in_statement(stmt: Stmt) -> Stmt:
        if isinstance(stmt, Store) and stmt.buffer in names:
            return replace(stmt, indices=tuple([lift_in(stmt.buffer, i) for i in stmt.indices]))
        if isinstance(stmt, Call) and stmt.arguments[:1] and stmt.arguments[0] in names:
            buffer = stmt.arguments[0]
            lifted = [lift_in(buffer, a) if isinstance(a, Expr) else a for a in stmt.arguments]  # type: ignore[arg-type]
            return replace(stmt, arguments=tuple(lifted))
        return stmt

    body = loop_visit.map_statements(kernel.body, in_statement)
    body = loop_visit.map_expressions(body, lambda e: scalar_visit.transform(e, in_loads))
    return replace(
        one,
        kernel=replace(kernel, body=body, extents=tuple(names.values())),
        extents=tuple(found.values()),
    )


def _slices(kernel: Kernel) -> dict[Buffer, int]:
    """Parameters all of whose accesses have one and the same large offset."""
    parameters = dict.fromkeys(kernel.buffers)
    offsets: dict[Buffer, set[tuple[int, ...]]] = {}
    for buffer, indices in _accesses(kernel.body):
        if buffer in parameters:
            nodes = scalar_visit.postorder(*indices)
            here = tuple([n for n in map(_offset, nodes) if n is not None])
            offsets.setdefault(buffer, set()).add(here)
    found = {}
    for buffer in parameters:
        ways = list(offsets.get(buffer, ()))
        if len(ways) == 1 and len(ways[0]) == 1:
            found[buffer] = ways[0][0]
    return found


def _accesses(body: Body) -> Iterator[tuple[Buffer, Sequence[Expr]]]:
    """(buffer, indices) of loads, stores and prefetches; () for what another call does."""
    for stmt in loop_visit.walk(body):
        if isinstance(stmt, Store):
            yield stmt.buffer, stmt.indices
        elif isinstance(stmt, Call):
            indices = [a for a in stmt.arguments if isinstance(a, Expr)]
            for argument in stmt.arguments:
                if isinstance(argument, Buffer):
                    yield argument, indices if stmt.function in HINTS else ()
        for load in scalar_visit.loads(*loop_visit.expressions(stmt)):
            yield load.attr, load.args


def _offset(expr: Expr) -> int | None:
    """The literal of ``x + literal``, an index, if it is large."""
    if expr.op != "add" or expr.dtype is not int64 or not expr.args[1].is_const:
        return None
    number = expr.args[1].attr
    return number if number >= LEAST_OFFSET and not expr.args[0].is_const else None
