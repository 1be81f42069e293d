"""Schedules of tensor expressions: one loop nest per computed tensor, changed by verified steps.

Main types: ``StageSchedule`` (a ``Schedule`` that knows which loops compute which tensor),
``Stage`` (the steps of one tensor, TVM's names); ``create_schedule`` makes one. May import core,
ir, te and schedule.

Every step takes effect at once, so ``print(schedule)`` between two steps shows what the step did.
A reduction runs its axes in ascending order, the first slowest, one chain per element; steps may
change that order only where it changes no bit (maximum, minimum, integers). ``stripe`` gives a sum
the order that the graph compiler uses (te/canonical.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinyflow.core.error import InvalidArgumentError, Unsupported
from tinyflow.core.order import producers_first
from tinyflow.core.source import user_frame
from tinyflow.ir.loop import visit
from tinyflow.ir.loop.nodes import (
    PARALLEL,
    SERIAL,
    VECTORIZE,
    Alloc,
    Body,
    Buffer,
    Extent,
    For,
    Stmt,
    Store,
)
from tinyflow.ir.loop.text import show_body
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.schedule import placement, tensorize
from tinyflow.schedule.regions import stores_to
from tinyflow.schedule.schedule import Schedule, ScheduleError, combine, neutral, reduction_of
from tinyflow.schedule.stripes import accumulates
from tinyflow.te.tensor import Axis, Operation, Tensor

#: Most elements of a loop that runs as one vector, and iterations of one that is unrolled.
VECTOR_LIMIT, UNROLL_LIMIT = 64, 256
#: What a step takes for a loop: its name, an axis of the tensor, or the axis's variable.
Loop = str | Axis | Expr
#: how a step of the base class names itself in a message
_OWN_NAME = re.compile(r"^\w+\([^)]*\): ")


@dataclass(eq=False)
class Computed:
    """A computed tensor: its buffer, the loop of each axis, and whether steps changed its nest.

    origin: the author's tensor.   tensor: what computes it now; caches and inlining change that.
    """

    origin: Tensor
    tensor: Tensor
    buffer: Buffer
    loops: dict[Expr, str] = field(default_factory=dict)
    touched: bool = False


class StageSchedule(Schedule):
    """The loop nests of some outputs and of everything they are computed from."""

    def __init__(
        self, outputs: Sequence[Tensor], tensors: Sequence[Tensor] | None = None
    ) -> None:
        """tensors: everything the outputs need, inputs first, where the caller knows."""
        super().__init__(())
        self.outputs = tuple(outputs)
        self.history: list[tuple[str, Body]] = []
        self.buffers: dict[Tensor, Buffer] = {}
        self.stages: dict[Tensor, Computed] = {}
        tensors = _in_order(self.outputs) if tensors is None else tensors
        shapes = [d for t in tensors for d in t.shape if isinstance(d, Expr)]
        folded = [e for t in tensors for a in t.op.reduce_axis if isinstance(e := a.extent, Expr)]
        #: variables that are known when the kernel starts
        self.extents = scalar_visit.free_vars(*shapes, *folded)
        for tensor in tensors:
            self._add(tensor)
        self.history.append(("create_schedule", self.body))

    def _add(self, tensor: Tensor) -> None:
        if tensor.body is not None:
            self.body += self.fresh_nest(self.new_stage(tensor))
        else:
            self.buffers[tensor] = self._buffer(tensor)

    def new_stage(self, tensor: Tensor) -> Computed:
        """The tensor with a buffer of its own; its nest is up to the caller."""
        self.buffers[tensor] = buffer = self._buffer(tensor)
        stage = self.stages[tensor] = Computed(tensor, tensor, buffer)
        return stage

    def _buffer(self, tensor: Tensor) -> Buffer:
        taken = {b.name for b in self.buffers.values()}
        name, count = tensor.name, 1
        while name in taken:
            count += 1
            name = f"{tensor.name}{count}"
        return Buffer(name, tensor.dtype, tensor.shape)

    # ---- what the base class does, with more to know -------------------------------------------
    def taken(self) -> set[str]:
        names = {str(e.attr) for e in self.extents} | {b.name for b in self.buffers.values()}
        return names | super().taken()

    def note(self, text: str) -> None:
        super().note(text)
        # Steps that a larger step was made of are dropped from both lists.
        self.history[len(self.steps) :] = [(text, self.body)]

    def __str__(self) -> str:
        return show_body(self.body)

    def trace(self) -> str:
        """Every step with the nests it left behind."""
        return "\n\n".join(f"# {step}\n{show_body(body)}" for step, body in self.history)

    def __getitem__(self, what: Tensor | Operation) -> Stage:
        tensor = what.tensor if isinstance(what, Operation) else what
        found = self.stages.get(tensor)
        if found is None:
            raise InvalidArgumentError(
                f"schedule: {getattr(tensor, 'name', tensor)} is not computed here",
                source=user_frame(), choices=[t.name for t in self.stages],
            )  # fmt: skip
        return Stage(self, found)

    # ---- copies --------------------------------------------------------------------------------
    def cache_read(self, tensor: Tensor, scope: str, readers: Sequence[Any]) -> Tensor:
        """A copy of ``tensor`` that the readers read instead; give its loops a place.

        scope: a name for the copy. Where it lies follows from compute_at.
        """
        stages = [self[reader].stage for reader in readers]
        with self[stages[0].origin]._step(f"cache_read({tensor.name}, {scope})"):
            return placement.cache_read(self, tensor, scope, stages)

    def cache_write(self, tensor: Tensor, scope: str) -> Tensor:
        """``tensor`` is computed into a copy first; its own loops then only copy."""
        with self[tensor]._step(f"cache_write({tensor.name}, {scope})"):
            return placement.cache_write(self, self[tensor].stage, scope)

    # ---- nests of tensors ----------------------------------------------------------------------
    def fresh_nest(
        self,
        stage: Computed,
        spans: Sequence[tuple[Expr, Extent]] | None = None,
        around: Sequence[For] = (),
    ) -> Body:
        """The loops that compute the stage's tensor, or only the part ``low .. low + size``.

        around: the loops in which a part is computed; it may reach over the tensor's edge there.
        """
        tensor = stage.tensor
        if spans is None:
            return self._nest(stage, [(s.index(0), extent) for extent in tensor.shape])
        nest = self._nest(stage, spans)
        return placement.guarded_part(nest, [low for low, _ in spans], tensor.shape, around)

    def _nest(self, stage: Computed, spans: Sequence[tuple[Expr, Extent]]) -> Body:
        tensor = stage.tensor
        names = [axis.name for axis in tensor.op.axis]
        loops = [
            (self._loop_name(stage, axis, name), size)
            for axis, name, (_, size) in zip(tensor.axes, names, spans, strict=True)
        ]
        variables = [s.var(name) for name, _ in loops]
        at = {a: low + v for a, v, (low, _) in zip(tensor.axes, variables, spans, strict=True)}
        body = self._element(stage, tuple(variables), at)
        for variable, (_, size) in zip(reversed(variables), reversed(loops), strict=True):
            body = (For(variable, size, SERIAL, body),)
        return body

    def _loop_name(self, stage: Computed, axis: Expr, name: str) -> str:
        stage.loops[axis] = found = self.unused(stage, name, set(stage.loops.values()))
        return found

    def unused(self, stage: Computed, name: str, taken: set[str]) -> str:
        """The name of a new loop of the stage."""
        found = name if self.fresh(name) == name else self.fresh(f"{stage.buffer.name}.{name}")
        while found in taken:
            found += "_"
        return found

    def _element(self, stage: Computed, at: tuple[Expr, ...], mapping: dict[Expr, Expr]) -> Body:
        """The statements for one element, stored at ``at`` of the stage's buffer."""
        body = stage.tensor.body
        assert body is not None
        if body.op != "reduce":
            value = self.resolved(scalar_visit.substitute(body, mapping))
            return (Store(stage.buffer, at, value),)
        combiner, axes = body.attr
        for variable, _ in axes:
            name = self._loop_name(stage, variable, str(variable.attr))
            mapping = {**mapping, variable: s.var(name)}
        terms = [self.resolved(scalar_visit.substitute(term, mapping)) for term in body.args]
        total = s.load(stage.buffer, *at)
        if combiner != "dot":
            value = combine(combiner, total, terms[0])
        elif terms[0].dtype.kind == "float":
            value = s.fma(terms[0], terms[1], total)
        else:
            value = total + terms[0] * terms[1]
        update: Body = (Store(stage.buffer, at, value),)
        for variable, extent in reversed(axes):
            extent = scalar_visit.substitute(s.index(extent), mapping)
            update = (For(mapping[variable], scalar_visit.plain(extent), SERIAL, update),)
        return (Store(stage.buffer, at, neutral(combiner, stage.buffer)), *update)

    def resolved(self, expr: Expr) -> Expr:
        """Reads of tensors as loads from their buffers."""

        def one(e: Expr) -> Expr | None:
            return s.load(self.buffers[e.attr], *e.args) if e.op == "read" else None

        return scalar_visit.transform(expr, one)

    # ---- facts about nests ---------------------------------------------------------------------
    def whole_dims(self, stage: Computed) -> Iterable[int]:
        """Dimensions of which compute_at cannot compute a part."""
        return ()

    def is_updated(self, stage: Computed) -> bool:
        """Whether the tensor is more than its element expression says."""
        return False

    def tensors_of(self, argument: Any) -> tuple[Any, ...]:
        """What an argument of ``lower`` stands for."""
        return (argument,)

    def why_not_independent(self, loop: For) -> str | None:
        """Why the iterations of a loop may not run at the same time, if so."""
        local = set(visit.allocated(loop.body))
        for store in visit.collect(loop.body, Store):
            if store.buffer in local:
                continue
            if loop.var not in scalar_visit.free_vars(*store.indices):
                return (
                    f"every iteration of {loop.var.attr} writes {store.buffer}"
                    f"[{', '.join(map(repr, store.indices))}]"
                )
        return None

    def enclosing(self, target: For) -> list[For]:
        """The loops around ``target``, outermost first, and itself."""
        return [x for x in visit.collect(self.body, For)
                if x is target or any(stmt is target for stmt in visit.walk(x.body))]  # fmt: skip

    def top(self, buffer: Buffer) -> list[Stmt]:
        """The outermost statements that write the buffer."""
        return [stmt for stmt in self.body if buffer in visit.buffers_written((stmt,))]


def _in_order(outputs: Sequence[Tensor]) -> list[Tensor]:
    """Everything the outputs are computed from, inputs before users."""
    return producers_first(outputs, lambda tensor: tensor.op.input_tensors)


def create_schedule(ops: Any) -> StageSchedule:
    """A schedule for one or several tensors (or their ``.op``): every axis a serial loop.

    Errors: InvalidArgumentError when there is nothing to compute.
    """
    given = ops if isinstance(ops, (list, tuple)) else [ops]
    tensors = [x.tensor if isinstance(x, Operation) else x for x in given]
    for tensor in tensors:
        if not isinstance(tensor, Tensor) or tensor.body is None:
            raise InvalidArgumentError(
                f"create_schedule: there is nothing to compute for {tensor!r}",
                expected="tensors from te.compute", source=user_frame(),
            )  # fmt: skip
    return StageSchedule(tensors)


class _Step:
    """A step that cannot be done is the author's mistake, and leaves the nests as they were.

    No generator: the first frame outside this package must be the author's.
    """

    def __init__(self, stage: Stage, text: str, changes: bool) -> None:
        self.stage, self.text, self.changes = stage, text, changes
        self.schedule = stage.schedule

    def __enter__(self) -> None:
        self.before = self.schedule.body, len(self.schedule.steps)

    def __exit__(self, kind: Any, error: BaseException | None, frames: Any) -> None:
        if isinstance(error, (ScheduleError, InvalidArgumentError)):
            self.schedule.body, steps = self.before
            del self.schedule.steps[steps:], self.schedule.history[steps + 1 :]
            if isinstance(error, ScheduleError):
                what = _OWN_NAME.sub("", error.what)
                raise InvalidArgumentError(
                    f"schedule of {self.stage.stage.origin.name}: {self.text}: {what}",
                    source=user_frame(), choices=error.choices, hint=error.hint,
                ) from None  # fmt: skip
        elif error is None and self.changes:
            self.stage.stage.touched = True


class Stage:
    """The steps of one tensor's loops. Each returns the names of the loops it makes."""

    def __init__(self, schedule: StageSchedule, stage: Computed) -> None:
        self.schedule = schedule
        self.stage = stage

    @property
    def op(self) -> Operation:
        return self.stage.tensor.op

    @property
    def loops(self) -> list[str]:
        """The loops around the tensor's elements, outermost first, those of start values last."""
        own = self.stage.buffer
        return [
            str(x.var.attr)
            for x in visit.collect(self.schedule.body, For)
            if stores_to(x.body, own)
        ]

    @property
    def leaf_iter_vars(self) -> list[str]:  # TVM's name
        return self.loops

    def __repr__(self) -> str:
        return f"stage({self.stage.tensor.name}: {', '.join(self.loops)})"

    @property
    def _names(self) -> dict[Expr, str]:
        """axis -> its loop"""
        return self.stage.loops

    def _step(self, text: str, changes: bool = True) -> _Step:
        return _Step(self, text, changes)

    def _loop(self, loop: Loop) -> str:
        """Its name. Errors: ScheduleError when it is no loop of this tensor."""
        if isinstance(loop, Axis):
            loop = loop.var
        name = self._names.get(_variable(loop)) if isinstance(loop, Expr) else str(loop)
        own = self.loops
        if name is None or name not in own:
            shown = loop.attr if isinstance(loop, Expr) and name is None else name
            raise ScheduleError(
                f"{shown} is no loop of {self.stage.tensor.name}", choices=own,
                hint="a loop that was split or fused has become others" if own else None,
            )  # fmt: skip
        return name

    def _serial(self, loop: Loop) -> str:
        """Its name, if nothing says yet how it runs: a later step must not undo an earlier one."""
        name = self._loop(loop)
        kind = self.schedule.loop(name).kind
        if kind != SERIAL:
            raise ScheduleError(f"{name} runs as {kind} already", hint="do this step before that")
        return name

    # ---- loop structure ------------------------------------------------------------------------
    def split(
        self, loop: Loop, factor: int | None = None, nparts: int | None = None
    ) -> tuple[str, str]:
        """for i in n -> for i.o: for i.i in factor, or for i.o in nparts: for i.i.

        Where the factor does not divide n, the innermost statements are guarded by ``i < n``.
        """
        if (factor is None) == (nparts is None):
            raise InvalidArgumentError(
                "split: give either factor= or nparts=", source=user_frame()
            )
        with self._step(f"split({_shown(loop)}, {'nparts' if factor is None else 'factor'}="
                        f"{nparts if factor is None else factor})"):  # fmt: skip
            name = self._serial(loop)
            number = factor if factor is not None else nparts
            if type(number) is not int or number < 1:
                raise ScheduleError(f"the number must be a positive integer, got {number!r}")
            extent = self.schedule.loop(name).extent
            if factor is not None:
                return self.schedule.guarded_split(name, factor)
            if isinstance(extent, Expr):
                raise ScheduleError(
                    f"nparts needs an extent that is known, {name} runs over {extent}",
                    hint="split by factor",
                )
            return self.schedule.guarded_split(name, max(1, -(-extent // number)), number)

    def tile(
        self, x: Loop, y: Loop, x_factor: int, y_factor: int
    ) -> tuple[str, str, str, str]:
        """Splits both loops and brings the inner parts inside: x.o, y.o, x.i, y.i."""
        with self._step(f"tile({_shown(x)}, {_shown(y)}, {x_factor}, {y_factor})"):
            xo, xi = self.split(x, x_factor)
            yo, yi = self.split(y, y_factor)
            self.schedule.order([xo, yo, xi, yi])
            return xo, yo, xi, yi

    def reorder(self, *loops: Loop) -> None:
        """The given loops in this order, outermost first; others stay where they are.

        The start values of a reduction move into loops of their own where the order needs it.
        Errors: InvalidArgumentError when a floating-point sum would be added up differently.
        """
        with self._step(f"reorder({', '.join(map(_shown, loops))})"):
            self.schedule.order([self._loop(x) for x in loops])

    def fuse(self, outer: Loop, inner: Loop) -> str:
        """One loop over outer x inner; the inner one must be all there is in the outer one."""
        with self._step(f"fuse({_shown(outer)}, {_shown(inner)})"):
            names = self._serial(outer), self._serial(inner)
            folding = [name for name in names if any(_folded(self.schedule.loop(name)))]
            if len(folding) == 1:
                # Otherwise some iterations of the fused loop would meet in one element.
                raise ScheduleError(
                    f"{folding[0]} folds its iterations into one element, the other loop does not"
                )
            return self.schedule.fuse(*names)

    # ---- how a loop runs -----------------------------------------------------------------------
    def unroll(self, loop: Loop) -> None:
        """The body repeated for every value."""
        with self._step(f"unroll({_shown(loop)})"):
            name = self._serial(loop)
            extent = self.schedule.loop(name).extent
            if isinstance(extent, int) and extent > UNROLL_LIMIT:
                raise ScheduleError(
                    f"{name} has {extent} iterations, more than {UNROLL_LIMIT}", hint="split it"
                )
            self.schedule.unroll(name)

    def vectorize(self, loop: Loop) -> None:
        """All iterations at once: one vector operation per statement."""
        with self._step(f"vectorize({_shown(loop)})"):
            name = self._serial(loop)
            found = self.schedule.loop(name)
            if not isinstance(found.extent, int) or found.extent > VECTOR_LIMIT:
                raise ScheduleError(
                    f"a vector needs a known extent of at most {VECTOR_LIMIT}, {name} runs over "
                    f"{found.extent}", hint="split it and vectorise the inner part",
                )  # fmt: skip
            self._must_be_independent(found)
            inner = [x for x in visit.walk(found.body) if isinstance(x, Alloc)
                     or (isinstance(x, For) and x.kind in (VECTORIZE, PARALLEL))]  # fmt: skip
            if inner:
                raise ScheduleError(f"inside {name} there is another vector or a local buffer")
            if any(loop.kind == VECTORIZE for loop in self.schedule.enclosing(found)):
                raise ScheduleError(f"{name} stands in a vectorised loop")
            self.schedule.vectorize(name, found.extent)

    def parallel(self, loop: Loop) -> None:
        """Iterations on several threads; outermost loops only."""
        with self._step(f"parallel({_shown(loop)})"):
            name = self._serial(loop)
            self._must_be_independent(self.schedule.loop(name))
            self.schedule.parallel(name)

    def _must_be_independent(self, loop: For) -> None:
        refused = self.schedule.why_not_independent(loop)
        if refused is not None:
            raise ScheduleError(
                refused, hint="a loop can whose iterations have elements of their own; one over a "
                "reduce axis folds them into one",
            )

    def stripe(self, loop: Loop) -> None:
        """Gives a sum the order of te/canonical.py: 16 partial sums, folded by a tree."""
        with self._step(f"stripe({_shown(loop)})"):
            name = self._loop(loop)
            found = self.schedule.loop(name)
            if found.kind != SERIAL or visit.collect(found.body, For):
                raise ScheduleError(f"{name} must be a serial loop with no other inside")
            if not any(reduction_of(store) for store in _folded(found)):
                raise ScheduleError(f"{name} is no loop over a reduce axis")
            self.schedule.stripe(name)

    def bind(self, loop: Loop, thread: Any) -> None:
        """GPU threads. Errors: Unsupported on a CPU."""
        raise Unsupported(
            f"bind({_shown(loop)}, {thread}): loops are bound to the threads of a GPU; this target "
            "is a CPU", source=user_frame(), hint="parallel(loop) hands an outermost loop to "
            "threads, vectorize(loop) fills the lanes of a vector",
        )  # fmt: skip

    # ---- where things happen -------------------------------------------------------------------
    def compute_at(self, consumer: Stage, loop: Loop) -> None:
        """Computes, in each iteration of a consumer's loop, only the part that iteration reads.

        The part lies in a buffer of its own. Comes before the tensor's other steps, which then
        apply to the smaller loops. Errors: InvalidArgumentError, see the messages.
        """
        with self._step(f"compute_at({consumer.stage.tensor.name}, {_shown(loop)})", False):
            self._must_be_new()
            placement.attach(self.schedule, self.stage, consumer._loop(loop))
            consumer.stage.touched = True

    def compute_root(self) -> None:
        """The whole tensor before its readers: where it is anyway. Errors: it was moved already."""
        with self._step("compute_root()", False):
            if not self.schedule.top(self.schedule.buffers[self.stage.origin]):
                raise ScheduleError(f"{self.stage.tensor.name} is computed elsewhere already")
            self.schedule.note("compute_root()")

    def compute_inline(self) -> None:
        """Recomputes the element wherever it is read; the tensor is never stored."""
        with self._step("compute_inline()"):
            self._must_be_new()
            placement.inline(self.schedule, self.stage)

    def _must_be_new(self) -> None:
        name = self.stage.tensor.name
        if self.stage.touched:
            raise ScheduleError(f"{name} has other steps already; this one comes first")
        if self.stage.origin in self.schedule.outputs:
            raise ScheduleError(f"{name} is a result and must be in memory")

    def tensorize(self, loop: Loop, intrinsic: Any) -> None:
        """Replaces the loop and all inside it by a declared hardware instruction."""
        with self._step(f"tensorize({_shown(loop)}, {intrinsic.name})"):
            tensorize.replace_nest(self.schedule, self.stage.buffer, self._loop(loop), intrinsic)


def _folded(loop: For) -> Iterator[Store]:
    """The reductions whose steps the iterations of a loop are."""
    for store in visit.collect(loop.body, Store):
        if accumulates(store) and loop.var not in scalar_visit.free_vars(*store.indices):
            yield store


def _variable(loop: Expr) -> Expr:
    """What a coordinate such as ``r.x + 1`` moves with."""
    free = scalar_visit.free_vars(loop)
    return free[0] if len(free) == 1 else loop


def _shown(loop: Loop) -> str:
    if isinstance(loop, Axis):
        return loop.name
    return str(_variable(loop).attr) if isinstance(loop, Expr) else str(loop)
