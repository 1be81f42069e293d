"""Hints to the memory system in scheduled loops. They change no value.

Main functions: ``prefetch_stream`` (arrays in order), ``prefetch_rows`` (row kernels) and
``column_hints`` (strided rows). May import ir, te.canonical and schedule.
"""

from __future__ import annotations

from collections.abc import Iterable

from tinyflow.ir.loop import visit as loop_visit
from tinyflow.ir.loop.nodes import Buffer, Call, For, Stmt, Store
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.schedule.lowering import operations, roots_of
from tinyflow.schedule.schedule import Schedule
from tinyflow.te.canonical import STRIPE

CACHE_LINE = 64
#: Shorter rows come close enough to one stream for the hardware's own prefetching.
PREFETCH_COLUMNS = 256
#: Arrays from here on come from beyond the second-level cache.
STREAM_ELEMENTS = 1 << 18
#: Bytes between a hint and the access it is for: hardware prefetchers stop at each page's end.
AHEAD = 4096
#: More arrays than this are not all streams: a concatenation reads one of its parts at a time.
MAX_STREAMS = 16
#: The point in a row kernel before its loops have names.
ROW, COLUMN = s.var("i"), s.var("r")


def prefetch_stream(schedule: Schedule, inner: str, lanes: int) -> None:
    """Ask for what the loop over vectors will touch AHEAD bytes later, in arrays read in order."""
    loops = [x for x in loop_visit.collect(schedule.body, For) if x.var.attr == f"{inner}.o"]
    if not loops or not isinstance(loops[0].body[0], For):
        return  # one vector per row
    loop, vector = loops[0], loops[0].body[0]
    accesses = [
        *(("prefetch_read", e.attr, e.args[0]) for e in scalar_visit.loads(*roots_of(vector.body))),
        *(("prefetch", st.buffer, st.indices[0]) for st in loop_visit.collect(vector.body, Store)),
    ]
    calls: list[Stmt] = []
    if len(accesses) > MAX_STREAMS:
        return
    for function, buffer, index in dict.fromkeys(accesses):
        form = scalar_visit.linear(index, (vector.var, loop.var))
        size = buffer.dtype.size_bytes
        if buffer.scope != "param" or form is None or lanes * size < CACHE_LINE:
            continue
        if form.coefficients.get(vector.var) == 1 and form.coefficients.get(loop.var) == lanes:
            first = scalar_visit.substitute(index, {vector.var: s.index(0)})
            calls += [
                Call(function, (buffer, first + (AHEAD + start) // size))
                for start in range(0, lanes * size, CACHE_LINE)
            ]
    if calls:
        schedule.replace(loop, (For(loop.var, loop.extent, loop.kind, (*calls, *loop.body)),))
        schedule.note(f"prefetch({inner})")


def busiest_sweep(nests: Iterable[Stmt]) -> str | None:
    """The sweep over a row, after the first, that computes most."""
    loops = [loop for nest in nests for loop in nest.body if isinstance(loop, For)]  # type: ignore[attr-defined]
    if len(loops) < 2:
        return None
    return str(max(loops[1:], key=lambda loop: operations(loop.body)).var.attr)


def row_hints(nests: Iterable[Stmt], host: str) -> list[tuple[str, Buffer, Expr]]:
    """What the sweep ``host`` can ask for: (hint, buffer, index at ROW and COLUMN).

    The next row's inputs, and the place of this row's results (of the next one's if written here).
    """
    hints: dict[tuple[str, Buffer, Expr], None] = {}
    reached = False
    for sweep in nests:
        assert isinstance(sweep, For)
        loop = sweep.body[-1]
        if not isinstance(loop, For):
            continue
        accesses = [
            *(("prefetch_read", e.attr, e.args[0], ROW + 1)
              for e in scalar_visit.loads(*roots_of(loop.body))),
            *(("prefetch", st.buffer, st.indices[0], ROW if reached else ROW + 1)
              for st in loop_visit.collect(loop.body, Store)),
        ]  # fmt: skip
        reached = reached or loop.var.attr == host
        for function, buffer, index, row in accesses:
            form = scalar_visit.linear(index, (sweep.var, loop.var))
            if buffer.scope != "param" or form is None:
                continue
            if form.coefficients.get(loop.var) == 1 and form.coefficients.get(sweep.var):
                there = scalar_visit.substitute(index, {sweep.var: row, loop.var: COLUMN})
                hints[function, buffer, there] = None
    return list(hints)


def prefetch_rows(
    schedule: Schedule, row_name: str, host: str, hints: Iterable[tuple[str, Buffer, Expr]]
) -> None:
    """One hint per cache line in the loop over a row that computes most.

    Sweeps alternate between memory and arithmetic; without hints each waits for the other.
    """
    row, loop = schedule.loop(row_name).var, schedule.loop(f"{host}.o")
    calls: list[Stmt] = []
    vector = loop.body[0]
    assert isinstance(vector, For) and isinstance(vector.extent, int)
    lanes = vector.extent
    for function, buffer, index in hints:
        for part in range(0, lanes, max(1, CACHE_LINE // buffer.dtype.size_bytes)):
            here = {ROW: row, COLUMN: loop.var * lanes + part}
            calls.append(Call(function, (buffer, scalar_visit.substitute(index, here))))
    schedule.replace(loop, (For(loop.var, loop.extent, loop.kind, (*calls, *loop.body)),))
    schedule.note(f"prefetch({row_name})")


def column_hints(
    value: Expr, here: dict[Expr, Expr], var: Expr, column: Expr, width: int
) -> tuple[Stmt, ...]:
    """Hints for later rows: no hardware prefetcher follows a stride of many lines.

    Half of AHEAD: rows at such a stride share few sets of the first-level cache.
    """
    calls: list[Stmt] = []
    for load in scalar_visit.loads(value):
        index, dtype = load.args[0], load.attr.dtype
        form = scalar_visit.linear(index, (var, column))
        if load.attr.scope != "param" or form is None or form.coefficients.get(var) != 1:
            continue
        if not form.coefficients.get(column):
            continue
        rows = max(1, AHEAD // 2 // (width * dtype.size_bytes)) * STRIPE
        ahead = scalar_visit.substitute(index, {**here, column: here[column] + rows})
        line = max(1, CACHE_LINE // dtype.size_bytes)
        calls += [Call("prefetch_read", (load.attr, ahead + n)) for n in range(0, width, line)]
    return tuple(calls)
