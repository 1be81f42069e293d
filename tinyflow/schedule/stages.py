"""Schedules of tensor expressions: one loop nest per computed tensor, changed by verified steps.

Main types: ``StageSchedule`` (a ``Schedule`` that knows which loops compute which tensor),
``Computed``; ``create_schedule`` makes one. The steps are those of stage_steps. May import core,
ir, te and schedule.

Every step takes effect at once, so ``print(schedule)`` between two steps shows what the step did.
A reduction runs its axes in ascending order, the first slowest, one chain per element; steps may
change that order only where it changes no bit (maximum, minimum, integers). ``stripe`` gives a sum
the order that the graph compiler uses (te/canonical.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tinyflow.core.error import InvalidArgumentError
from tinyflow.core.order import producers_first
from tinyflow.core.source import user_frame
from tinyflow.ir.loop import visit
from tinyflow.ir.loop.nodes import (
    SERIAL,
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
from tinyflow.schedule import placement
from tinyflow.schedule.schedule import Schedule, combine, neutral
from tinyflow.te.tensor import Operation, Tensor

if TYPE_CHECKING:
    from tinyflow.schedule.stage_steps import Stage


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
        if tensors is None:
            tensors = producers_first(outputs, lambda tensor: tensor.op.input_tensors)
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
        from tinyflow.schedule.stage_steps import Stage

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
