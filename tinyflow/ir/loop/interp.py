"""The meaning of kernels, in NumPy: the oracle for schedules and generated code.

Main function: ``run``. Imports core, ir.scalar and ir.loop; NumPy.

One statement at a time; inside a vectorised loop all lanes of a statement at once. With
``check=True`` it also finds what native code would do silently: an access outside a buffer, a read
of local memory before it is written, and two parallel iterations that touch one element.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinyflow.core.dtype import bool_
from tinyflow.core.error import InternalError
from tinyflow.ir.loop.nodes import (
    HINTS,
    PARALLEL,
    VECTORIZE,
    Alloc,
    Barrier,
    Body,
    Buffer,
    Call,
    Extent,
    For,
    If,
    Kernel,
    Stmt,
    Store,
)
from tinyflow.ir.loop.text import show_head
from tinyflow.ir.loop.visit import bounds_condition
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar.interp import evaluate_all
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ir.scalar.visit import postorder, substitute

Array = Any
Arrays = Mapping[str, Array] | Sequence[Array]
_TRUE = s.const(True, bool_)


def run(
    kernel: Kernel,
    arrays: Arrays,
    extents: Mapping[str, int] | Sequence[int] = (),
    begin: int = 0,
    end: int | None = None,
    check: bool = True,
    functions: Mapping[str, Callable[..., None]] | None = None,
) -> None:
    """Run the kernel on ``arrays`` in place.

    arrays: one C-contiguous array per buffer, in order or by name; extents likewise.
    begin, end: the range of the parallel loop, by default all of it.
    functions: what a ``Call`` statement calls.
    Errors: InternalError naming kernel and statement (check only).
    """
    if not isinstance(arrays, Mapping):
        arrays = {b.name: a for b, a in zip(kernel.buffers, arrays, strict=True)}
    if not isinstance(extents, Mapping):
        extents = {str(e.attr): n for e, n in zip(kernel.extents, extents, strict=True)}
    env: dict[Expr, Any] = {e: np.int64(extents[str(e.attr)]) for e in kernel.extents}
    machine = _Machine(kernel, env, check, functions or {})
    for buffer in kernel.buffers:
        machine.bind(buffer, arrays[buffer.name])
    machine.run(begin, end)


class _Step(NamedTuple):
    """One load, fold or checked of a statement: its value becomes variable ``place``.

    args: index expressions, or the arguments of checked; reached: where it takes effect.
    """

    node: Expr
    place: Expr
    args: tuple[Expr, ...]
    reached: Expr


class _Plan(NamedTuple):
    steps: tuple[_Step, ...]
    roots: tuple[Expr, ...]


def _plan(roots: tuple[Expr, ...]) -> _Plan:
    """Loads and checks of a statement in an order in which each has what it needs."""
    reached = {effects: _reached(roots, effects) for effects in ("load", "checked")}
    nodes = [n for n in postorder(*roots) if n.op in ("load", "fold", "checked")]
    places = {n: s.var(f"${k}", n.dtype) for k, n in enumerate(nodes)}
    steps: list[_Step] = []
    for node in nodes:
        where = reached["checked" if node.op == "checked" else "load"][node]
        inner = {n: p for n, p in places.items() if n is not node}
        args = tuple(substitute(a, inner) for a in node.args)
        steps.append(_Step(node, places[node], args, substitute(where, inner)))
    return _Plan(_ordered(steps), tuple(substitute(r, places) for r in roots))


def _ordered(steps: list[_Step]) -> tuple[_Step, ...]:
    """A condition may use a load that stands later in the text: what is needed goes first."""
    places = {step.place for step in steps}
    done: set[Expr] = set()
    out: list[_Step] = []
    while len(out) < len(steps):
        for step in steps:
            needs = {n for n in postorder(*step.args, step.reached) if n in places}
            if step.place not in done and needs <= done:
                out.append(step)
                done.add(step.place)
                break
        else:
            raise InternalError("loop interp: loads that guard each other")
    return tuple(out)


def _reached(roots: tuple[Expr, ...], effects: str) -> dict[Expr, Expr]:
    """For every sub-expression, the condition under which its effects happen.

    A load in an arm of a select happens where the select takes it (see ``bounds_condition``).
    """
    reached: dict[Expr, Expr] = dict.fromkeys(roots, _TRUE)

    def reach(node: Expr, condition: Expr) -> None:
        before = reached.get(node)
        reached[node] = condition if before is None else s.binary("or", before, condition)

    for node in reversed(list(postorder(*roots))):
        here = reached[node]
        arms = node.args
        if node.op == "select" and (effects == "checked" or bounds_condition(node.args[0])):
            condition = node.args[0]
            reach(condition, here)
            reach(node.args[1], s.binary("and", here, condition))
            reach(node.args[2], s.binary("and", here, s.unary("not", condition)))
            arms = ()
        for arg in arms:
            reach(arg, here)
    return reached


class _Memory:
    """One buffer's array, flat, and in check mode who touched which element."""

    def __init__(self, buffer: Buffer, array: Array, shape: tuple[int, ...], local: bool) -> None:
        self.buffer, self.shape = buffer, shape
        self.flat = array.reshape(-1)
        self.written = np.zeros(self.flat.size, bool) if local else None
        self.strides = np.cumprod([1, *shape[:0:-1]])[::-1] if shape else np.zeros(0, np.int64)


class _Trace:
    """Who read and wrote each element of one array: iteration numbers, -1 nobody, -2 several."""

    def __init__(self, size: int) -> None:
        self.writer = np.full(size, -1)
        self.reader = np.full(size, -1)


class _Machine:
    """The state while a kernel runs: variables, memory, the lane mask."""

    def __init__(
        self,
        kernel: Kernel,
        env: dict[Expr, Any],
        check: bool,
        functions: Mapping[str, Callable[..., None]],
    ) -> None:
        self.kernel, self.env, self.check, self.functions = kernel, env, check, functions
        self.memory: dict[Buffer, _Memory] = {}
        self.traces: dict[int, _Trace] = {}  # by address: an output may be an input's memory
        self.plans: dict[int, tuple[Stmt, _Plan]] = {}
        self.iteration = 0
        self.stmt: Stmt = Barrier()

    def bind(self, buffer: Buffer, array: Array) -> None:
        shape = tuple(self.extent(d) for d in buffer.shape)
        same = array.shape == shape and array.dtype == buffer.dtype.numpy
        if not same or not array.flags.c_contiguous:
            raise InternalError(
                f"loop interp: {self.kernel.name}: buffer {buffer.name} does not fit",
                received={"array": f"{array.dtype}{list(array.shape)}"},
                expected=f"a contiguous {buffer.dtype.name}{list(shape)}",
            )
        self.memory[buffer] = _Memory(buffer, array, shape, local=False)
        self.traces.setdefault(array.ctypes.data, _Trace(array.size))

    def run(self, begin: int, end: int | None) -> None:
        body = self.kernel.body
        if len(body) == 1 and isinstance(body[0], For) and body[0].kind == PARALLEL:
            loop = body[0]
            stop = self.extent(loop.extent) if end is None else end
            for value in range(begin, stop):
                self.iteration = value
                self.env[loop.var] = np.int64(value)
                self.body(loop.body, None)
        elif end is None or begin < end:
            self.body(body, None)

    def fail(self, what: str) -> InternalError:
        return InternalError(
            f"loop interp: kernel {self.kernel.name}: {what}",
            received={"statement": show_head(self.stmt)},
        )

    def extent(self, extent: Extent) -> int:
        if isinstance(extent, int):
            return extent
        return int(evaluate_all((extent,), self.env)[0])

    # Statements: ``mask`` is None (all lanes) or a bool array.

    def body(self, body: Body, mask: Array | None) -> None:
        for stmt in body:
            self.statement(stmt, mask)

    def statement(self, stmt: Stmt, mask: Array | None) -> None:
        if isinstance(stmt, Store):
            self.store(stmt, mask)
        elif isinstance(stmt, For):
            self.loop(stmt, mask)
        elif isinstance(stmt, If):
            self.condition(stmt, mask)
        elif isinstance(stmt, Alloc):
            shape = tuple(self.extent(d) for d in stmt.buffer.shape)
            array = np.zeros(shape, stmt.buffer.dtype.numpy)
            self.memory[stmt.buffer] = _Memory(stmt.buffer, array, shape, local=True)
            self.body(stmt.body, mask)
        elif isinstance(stmt, Call):
            self.call(stmt)

    def loop(self, stmt: For, mask: Array | None) -> None:
        (extent,) = self.values(stmt, (s.index(stmt.extent),), mask)
        if stmt.kind == VECTORIZE:
            self.env[stmt.var] = np.arange(int(extent))
            self.body(stmt.body, mask)
        else:
            for value in range(int(extent)):
                self.env[stmt.var] = np.int64(value)
                self.body(stmt.body, mask)
        self.env.pop(stmt.var, None)

    def condition(self, stmt: If, mask: Array | None) -> None:
        (condition,) = self.values(stmt, (stmt.condition,), mask)
        if np.ndim(condition) == 0:
            self.body(stmt.then if condition else stmt.orelse, mask)
            return
        for lanes, body in ((condition, stmt.then), (~condition, stmt.orelse)):
            active = lanes if mask is None else lanes & mask
            if np.any(active):
                self.body(body, active)

    def store(self, stmt: Store, mask: Array | None) -> None:
        *indices, value = self.values(stmt, (*stmt.indices, stmt.value), mask)
        memory = self.memory[stmt.buffer]
        position, active = self.position(memory, indices, mask)
        lanes = np.broadcast_shapes(np.shape(position), np.shape(value), np.shape(active))
        where = np.broadcast_to(position, lanes)[np.broadcast_to(active, lanes)]
        # Lanes that store to one element: the last wins, as NumPy does it.
        memory.flat[where] = np.broadcast_to(value, lanes)[np.broadcast_to(active, lanes)]
        if memory.written is not None:
            memory.written[where] = True
        elif self.check:
            self.trace_write(memory, where)

    def call(self, stmt: Call) -> None:
        if stmt.function in HINTS:
            return
        if stmt.function == "transpose":
            self.transpose(stmt)
            return
        function = self.functions.get(stmt.function)
        if function is None:
            raise self.fail(f"no function {stmt.function}")
        function(
            *(
                self.memory[a].flat.reshape(self.memory[a].shape)
                if isinstance(a, Buffer)
                else self.values(stmt, (a,), None)[0]
                for a in stmt.arguments
            )
        )

    def transpose(self, stmt: Call) -> None:
        target, at, wide, source, start, apart, lanes = stmt.arguments
        assert isinstance(target, Buffer) and isinstance(source, Buffer)
        numbers = [a for a in (at, wide, start, apart, lanes) if isinstance(a, Expr)]
        first, across, begin, down, count = (
            int(self.values(stmt, (number,), None)[0]) for number in numbers
        )
        i, j = np.indices((count, count))
        memory, where = self.memory[target], first + i * across + j
        memory.flat[where] = self.memory[source].flat[begin + j * down + i]
        if memory.written is not None:
            memory.written[where] = True
        elif self.check:
            self.trace_write(memory, where)

    # Expressions.

    def values(self, stmt: Stmt, roots: Iterable[Expr], mask: Array | None) -> list[Any]:
        roots = tuple(roots)
        self.stmt = stmt
        # Keyed by identity: the entry keeps its statement alive, so no id is used twice.
        entry = self.plans.get(id(stmt))
        if entry is None or isinstance(stmt, Call):
            entry = (stmt, _plan(roots))
            self.plans[id(stmt)] = entry
        plan = entry[1]
        env = dict(self.env)
        for step in plan.steps:
            if step.node.op == "fold":
                (env[step.place],) = evaluate_all(
                    (step.node,), env, load=lambda b, i: self.load(self.memory[b], list(i), None)
                )
                continue
            *args, reached = evaluate_all((*step.args, step.reached), env)
            active = None if np.ndim(reached) == 0 and reached else reached
            if mask is not None:
                active = mask if active is None else active & mask
            if step.node.op == "load":
                env[step.place] = self.load(self.memory[step.node.attr], args, active)
            else:
                env[step.place] = args[0]
                self.report(step.node.attr, args[1:], active)
        return evaluate_all(plan.roots, env)

    def load(self, memory: _Memory, indices: list[Any], mask: Array | None) -> Any:
        position, active = self.position(memory, indices, mask)
        if self.check:
            lanes = np.broadcast_shapes(np.shape(position), np.shape(active))
            where = np.broadcast_to(position, lanes)[np.broadcast_to(active, lanes)]
            if memory.written is not None and not memory.written[where].all():
                raise self.fail(f"{memory.buffer.name} is read before it is written")
            if memory.written is None:
                self.trace_read(memory, where)
        if memory.flat.size == 0:
            return np.zeros(np.shape(position), memory.flat.dtype)
        return memory.flat[position]

    def position(
        self, memory: _Memory, indices: list[Any], mask: Array | None
    ) -> tuple[Any, Array]:
        """(flat positions, active lanes); lanes that are masked off get position 0."""
        active: Any = np.asarray(True) if mask is None else np.asarray(mask)
        position: Any = np.int64(0)
        inside: Any = np.asarray(True)
        for index, extent, stride in zip(indices, memory.shape, memory.strides, strict=True):
            inside = inside & (np.asarray(index) >= 0) & (np.asarray(index) < extent)
            position = position + index * stride
        if self.check and np.any(active & ~inside):
            bad = [np.unique(np.asarray(i)).tolist()[:8] for i in indices]
            raise self.fail(
                f"{memory.buffer.name}{bad} is outside shape {list(memory.shape)}"
            )
        return np.where(active & inside, position, 0), active & inside

    def report(self, code: int, args: list[Any], mask: Array | None) -> None:
        ok, got, limit = args
        failed = ~np.asarray(ok) if mask is None else ~np.asarray(ok) & mask
        status = self.memory[self.kernel.buffers[0]].flat
        if np.any(failed) and status[0] == 0:
            failed, got, limit = np.broadcast_arrays(failed, got, limit)
            first = int(np.argmax(failed))
            status[0], status[2], status[3] = code, got.flat[first], limit.flat[first]

    # Races: an element that one iteration writes and another one touches.

    def trace_write(self, memory: _Memory, where: Array) -> None:
        trace = self.traces[memory.flat.ctypes.data]
        me = self.iteration
        for seen in (trace.writer[where], trace.reader[where]):
            if np.any((seen != -1) & (seen != me)):
                raise self.fail(f"iteration {me} races with another one for {memory.buffer.name}")
        trace.writer[where] = me

    def trace_read(self, memory: _Memory, where: Array) -> None:
        trace = self.traces[memory.flat.ctypes.data]
        me = self.iteration
        writer = trace.writer[where]
        if np.any((writer != -1) & (writer != me)):
            raise self.fail(f"iteration {me} reads what another one writes: {memory.buffer.name}")
        before = trace.reader[where]
        trace.reader[where] = np.where((before == -1) | (before == me), me, -2)
