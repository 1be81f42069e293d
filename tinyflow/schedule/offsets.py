"""Large constant offsets of a kernel become arguments: one kernel serves every slice of an array.

Main function: ``with_offsets_as_arguments``. May import ir and schedule.lowering.

The unrolled steps of a recurrent network differ in nothing but the row of the input they read::

    before   out0[i * 4 + j] = in0[(i + 96) * 4 + j]
    after    out0[i * 4 + j] = in0[(i + o0) * 4 + j]        o0 = 96 is an argument of the launch
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tinyflow.core.dtype import int64
from tinyflow.ir.loop import visit as loop_visit
from tinyflow.ir.loop.nodes import Buffer, Call, Store
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.schedule.lowering import LoweredKernel

#: Smaller offsets are those of windows and register tiles, which belong to the kernel.
LEAST_OFFSET = 32


def with_offsets_as_arguments(one: LoweredKernel) -> LoweredKernel:
    """The kernel with an argument for each large offset; the same kernel where there is none."""
    kernel = one.kernel
    if kernel.extents:
        return one  # serves many sizes already
    found: set[int] = set()
    for index in _indices(kernel.body, set(kernel.buffers)):
        found |= _offsets(index)
    if not found:
        return one
    names = {n: s.var(f"o{k}") for k, n in enumerate(sorted(found))}

    def lift(expr: Expr) -> Expr | None:
        offset = _offset(expr)
        return None if offset is None else expr.args[0] + names[offset]

    body = loop_visit.map_expressions(kernel.body, lambda e: scalar_visit.transform(e, lift))
    return replace(
        one,
        kernel=replace(kernel, body=body, extents=tuple(names.values())),
        extents=tuple(names),
    )


def _indices(body: object, parameters: set[Buffer]) -> Iterable[Expr]:
    """Index expressions of accesses to the kernel's parameters."""
    for stmt in loop_visit.walk(body):  # type: ignore[arg-type]
        if isinstance(stmt, Store) and stmt.buffer in parameters:
            yield from stmt.indices
        if isinstance(stmt, Call):
            yield from [a for a in stmt.arguments if isinstance(a, Expr)]
        for root in loop_visit.expressions(stmt):
            for load in scalar_visit.loads(root):
                if load.attr in parameters:
                    yield from load.args


def _offsets(index: Expr) -> set[int]:
    found = {_offset(e) for e in scalar_visit.postorder(index)}
    return {n for n in found if n is not None}


def _offset(expr: Expr) -> int | None:
    """The literal of ``x + literal``, an index, if it is large."""
    if expr.op != "add" or expr.dtype is not int64 or not expr.args[1].is_const:
        return None
    number = expr.args[1].attr
    return number if number >= LEAST_OFFSET and not expr.args[0].is_const else None
