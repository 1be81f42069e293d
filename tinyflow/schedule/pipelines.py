"""Schedules of Funcs: boxes by bounds inference, loops for updates, and the order that they keep.

Main types: ``FuncSchedule``, ``FuncStage``; ``pipeline`` makes a schedule. May import core, ir, te
and schedule.

The first definition of a Func becomes a nest like that of any tensor, each update a nest of its
own after it: loops over the coordinates it leaves free, then over its RDom. Steps may change the
order of iterations only where no element notices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tinyflow.core.error import InvalidArgumentError
from tinyflow.core.source import user_frame
from tinyflow.ir.loop import visit
from tinyflow.ir.loop.nodes import SERIAL, Alloc, Body, Buffer, Extent, For, If, Stmt, Store
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.schedule.regions import inside_bounds
from tinyflow.schedule.schedule import ScheduleError
from tinyflow.schedule.stage_steps import Loop, Stage
from tinyflow.schedule.stages import Computed, StageSchedule
from tinyflow.schedule.stripes import accumulates, takes_any_order
from tinyflow.te.bounds import Box, FuncTensor, as_box, cut, infer
from tinyflow.te.func import Func, Update
from tinyflow.te.tensor import Tensor


def pipeline(funcs: Func | Sequence[Func], box: Sequence[Any]) -> FuncSchedule:
    """A schedule that computes the Funcs on a box, and what they read as far as it is needed.

    box: an extent or (low, extent) per dimension; with several Funcs a list of boxes or one for
    all. Every Func is computed as a whole, in serial loops, until steps say otherwise.
    Errors: those of te.bounds.infer.
    """
    results = [funcs] if isinstance(funcs, Func) else list(funcs)
    for func in results:
        if not isinstance(func, Func) or not func.values:
            raise InvalidArgumentError(
                f"pipeline: there is nothing to compute for {func!r}",
                expected="Funcs with a definition", source=user_frame(),
            )  # fmt: skip
    several = bool(box) and all(isinstance(b, list) for b in box)
    boxes = list(box) if several else [box] * len(results)
    if len(boxes) != len(results):
        raise InvalidArgumentError(
            f"pipeline: {len(results)} Funcs, {len(boxes)} boxes", source=user_frame()
        )
    asked = {f: as_box(f, b) for f, b in zip(results, boxes, strict=True)}
    return FuncSchedule(asked)


class FuncSchedule(StageSchedule):
    """The nests of some Funcs on their boxes. ``schedule[func]`` has the steps, as for tensors."""

    def __init__(self, asked: Mapping[Func, Box]) -> None:
        self.boxes = infer(asked)
        self.tensors = cut(self.boxes)
        self.update_loops: dict[Buffer, list[dict[Expr, str]]] = {}
        #: buffer -> all buffers of its Func, for Funcs with updates
        self.ordered: dict[Buffer, tuple[Buffer, ...]] = {}
        order = [self.tensors[x] if isinstance(x, Func) else x for x in self.boxes]
        super().__init__([t for f in asked for t in self.tensors[f].values], order)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The tensors that the Funcs read, in order of first use."""
        return tuple(x for x in self.boxes if isinstance(x, Tensor))

    def bounds(self) -> str:
        """What bounds inference decided, a line for each Func and input."""
        width = max(len(x.name) for x in self.boxes)
        return "\n".join(f"{x.name:<{width}}  {box}" for x, box in self.boxes.items())

    def tensors_of(self, argument: Any) -> tuple[Any, ...]:
        found = self.tensors.get(argument) if isinstance(argument, Func) else None
        return super().tensors_of(argument) if found is None else found.values

    def __getitem__(self, what: Any) -> FuncStage:
        tensor: Any = self.tensors.get(what, what) if isinstance(what, Func) else what
        return FuncStage(self, super().__getitem__(tensor).stage)

    # ---- nests ---------------------------------------------------------------------------------
    def new_stage(self, tensor: Tensor) -> Computed:
        stage = super().new_stage(tensor)
        for other in _others(tensor):
            self.buffers[other] = self._buffer(other)
        self._remember(stage)
        return stage

    def _remember(self, stage: Computed) -> None:
        tensor = stage.tensor
        if isinstance(tensor, FuncTensor) and tensor.updates:
            together = self.buffers_of(stage)
            self.ordered.update((buffer, together) for buffer in together)

    def buffers_of(self, stage: Computed) -> tuple[Buffer, ...]:
        return (stage.buffer, *(self.buffers[t] for t in _others(stage.tensor)))

    def fresh_nest(
        self,
        stage: Computed,
        spans: Sequence[tuple[Expr, Extent]] | None = None,
        around: Sequence[For] = (),
    ) -> Body:
        tensor = stage.tensor
        nest = super().fresh_nest(stage, spans, around)
        if not isinstance(tensor, FuncTensor):
            return nest
        self._remember(stage)
        if spans is None:
            spans = [(s.index(0), extent) for extent in tensor.shape]
        names = self.update_loops[stage.buffer] = [{} for _ in tensor.updates]
        for number, update in enumerate(tensor.updates):
            nest += self._update_nest(stage, update, spans, around, names[number])
        return nest

    def _element(self, stage: Computed, at: tuple[Expr, ...], mapping: dict[Expr, Expr]) -> Body:
        body = super()._element(stage, at, mapping)
        for other in _others(stage.tensor):
            assert other.body is not None
            value = self.resolved(scalar_visit.substitute(other.body, mapping))
            body += (Store(self.buffers[other], at, value),)
        return body

    def _update_nest(
        self,
        stage: Computed,
        update: Update,
        spans: Sequence[tuple[Expr, Extent]],
        around: Sequence[For],
        names: dict[Expr, str],
    ) -> Body:
        tensor, lows = stage.tensor, [low for low, _ in spans]
        loops: list[tuple[Expr, Extent]] = []
        mapping: dict[Expr, Expr] = {}
        free = zip(tensor.axes, tensor.names, spans, strict=True)
        wanted = [(a, n, low, size) for a, n, (low, size) in free if a in update.pure]
        wanted += [(v, str(v.attr), s.index(0), n) for v, n in update.folded]
        for axis, name, low, size in wanted:
            taken = {*stage.loops.values()}.union(*(d.values() for d in self._own_names(stage)))
            names[axis] = self.unused(stage, name, taken)
            loops.append((s.var(names[axis]), size))
            mapping[axis] = low + loops[-1][0]
        own = dict(zip((stage.origin, *_others(tensor)), self.buffers_of(stage), strict=True))

        def placed(expr: Expr) -> Expr:
            def one(e: Expr) -> Expr | None:
                if e.op != "read" or e.attr not in own:
                    return None
                return s.load(own[e.attr], *_shifted(e.args, lows))

            moved = scalar_visit.substitute(expr, mapping)
            return self.resolved(scalar_visit.transform(moved, one))

        indices = _shifted([placed(i) for i in update.indices], lows)
        body = _stores(list(own.values()), indices, [placed(v) for v in update.values])
        if update.condition is not None:
            body = (If(placed(update.condition), body),)
        for variable, size in reversed(loops):
            body = (For(variable, size, SERIAL, body),)
        if not around:
            return body
        free_dims = [d for d, axis in enumerate(tensor.axes) if axis in update.pure]
        inside = inside_bounds(
            [mapping[tensor.axes[d]] for d in free_dims], [tensor.shape[d] for d in free_dims],
            [*around, *visit.collect(body, For)],
        )  # fmt: skip
        return body if inside is None else _guarded(body, inside)

    def _own_names(self, stage: Computed) -> list[dict[Expr, str]]:
        return self.update_loops.get(stage.buffer, [])

    # ---- what the order of updates allows ------------------------------------------------------
    def whole_dims(self, stage: Computed) -> Iterable[int]:
        tensor = stage.tensor
        return tensor.whole_dims if isinstance(tensor, FuncTensor) else ()

    def is_updated(self, stage: Computed) -> bool:
        tensor = stage.tensor
        return isinstance(tensor, FuncTensor) and bool(tensor.updates or tensor.others)

    def why_not_independent(self, loop: For) -> str | None:
        for group in self._groups(loop):
            refused = self._why_they_meet(loop, group)
            if refused is not None:
                return refused
        return super().why_not_independent(loop)

    def why_not_swapped(self, outer: For, inner: For) -> str | None:
        if isinstance(inner.extent, Expr) and outer.var in scalar_visit.free_vars(inner.extent):
            return super().why_not_swapped(outer, inner)
        groups = self._groups(inner)
        if not groups:
            return super().why_not_swapped(outer, inner)
        for group in groups:
            refused = self._why_they_meet(outer, group)
            if refused is None or self._why_they_meet(inner, group) is None:
                continue
            stores = [x for x in visit.collect(inner.body, Store) if x.buffer in group]
            places = {x.indices for x in stores}
            loads = {e.args for e in _loads(inner.body, group)}
            if not (all(map(accumulates, stores)) and all(map(takes_any_order, stores))
                    and loads <= places and len(stores) == 1):  # fmt: skip
                return f"{refused}; the order of its updates belongs to its definition"
        return None

    def _groups(self, loop: For) -> list[tuple[Buffer, ...]]:
        """Buffers with updates that the loop writes, together with those of the same Func."""
        local = set(visit.allocated(loop.body))
        written = [b for b in visit.buffers_written(loop.body) if b not in local]
        return list(dict.fromkeys(self.ordered[b] for b in written if b in self.ordered))

    def _why_they_meet(self, loop: For, group: tuple[Buffer, ...]) -> str | None:
        """Why two iterations of the loop may use the same element, None if they never do.

        They do not if one index of all stores and loads is the same sum of multiples of loops, a
        different number for each of their iterations, and moves with this loop.
        """
        stores = [x for x in visit.collect(loop.body, Store) if x.buffer in group]
        loads = _loads(loop.body, group)
        extents = {x.var: x.extent for x in visit.collect(self.body, For)}
        places = [x.indices for x in stores] + [e.args for e in loads]
        for d, index in enumerate(stores[0].indices):
            same = all(place[d] is index for place in places)
            if same and _tells_apart(index, loop.var, extents):
                return None
        name = loop.var.attr
        for load in loads:
            if load.args != stores[0].indices:
                return f"an iteration of {name} reads {load}, which another one may write"
        at = ", ".join(map(repr, stores[0].indices))
        return f"iterations of {name} may meet in one element, {stores[0].buffer}[{at}]"


def _others(tensor: Tensor) -> tuple[Tensor, ...]:
    return tensor.others if isinstance(tensor, FuncTensor) else ()


def _shifted(indices: Sequence[Expr], lows: Sequence[Expr]) -> tuple[Expr, ...]:
    return tuple(
        scalar_visit.simplify_index(i - low, {}) for i, low in zip(indices, lows, strict=True)
    )


def _loads(body: Body, group: tuple[Buffer, ...]) -> list[Expr]:
    return [e for e in visit.all_expressions(body) if e.op == "load" and e.attr in group]


def _guarded(body: Body, condition: Expr) -> Body:
    """What stands inside all the loops of one nest, under the condition."""
    if len(body) == 1 and isinstance(body[0], For):
        loop = body[0]
        return (For(loop.var, loop.extent, loop.kind, _guarded(loop.body, condition)),)
    return (If(condition, body),)


def _tells_apart(index: Expr, variable: Expr, extents: Mapping[Expr, Extent]) -> bool:
    """Whether the index moves with the variable and no two points of its loops share a number."""
    form = scalar_visit.linear(index, extents)
    if form is None or variable not in form.coefficients:
        return False
    reach = 0
    steps = [(abs(c), extents[v]) for v, c in form.coefficients.items() if isinstance(c, int)]
    if len(steps) != len(form.coefficients):
        return False
    for step, extent in sorted(steps, key=lambda x: x[0]):
        if step <= reach or not isinstance(extent, int):
            return False
        reach += step * max(0, extent - 1)
    return True


def _stores(buffers: Sequence[Buffer], indices: tuple[Expr, ...], values: Sequence[Expr]) -> Body:
    """All values are those from before the update: who reads another's buffer goes first."""
    left = dict(zip(buffers, values, strict=True))
    body: list[Stmt] = []
    while left:
        read = {b: {e.attr for e in scalar_visit.loads(value)} for b, value in left.items()}
        free = [b for b in left if not any(b in read[other] for other in left if other is not b)]
        if not free:
            break
        body.append(Store(free[0], indices, left.pop(free[0])))
    if not left:
        return tuple(body)
    kept = {b: Buffer(f"{b.name}.new", b.dtype, (1,), "stack") for b in left}
    zero = (s.index(0),)
    body += [Store(kept[b], zero, value) for b, value in left.items()]
    body += [Store(b, indices, s.load(kept[b], *zero)) for b in left]
    for buffer in kept.values():
        body = [Alloc(buffer, tuple(body))]
    return tuple(body)


class FuncStage(Stage):
    """The steps of a Func's first definition; ``update(n)`` has those of its updates."""

    schedule: FuncSchedule

    def update(self, number: int = 0) -> UpdateStage:
        """The loops of the n-th update."""
        count = len(self.schedule.update_loops.get(self.stage.buffer, ()))
        if not 0 <= number < count:
            raise InvalidArgumentError(
                f"{self.stage.origin.name} has {count} updates, none is number {number}",
                source=user_frame(),
            )
        return UpdateStage(self.schedule, self.stage, number)

    def _must_be_new(self) -> None:
        super()._must_be_new()
        if _others(self.stage.tensor):
            raise ScheduleError(
                f"{self.stage.tensor.name} is one of several values",
                hint="a Func with several values is computed as a whole",
            )

    def compute_inline(self) -> None:
        """Recomputes the element wherever it is read. Errors: the Func has updates."""
        tensor = self.stage.tensor
        with self._step("compute_inline()", False):
            if isinstance(tensor, FuncTensor) and tensor.updates:
                raise ScheduleError(
                    f"{tensor.name} has updates and no expression per element",
                    hint="use compute_at",
                )
        super().compute_inline()


    def stripe(self, loop: Loop) -> None:
        """As for tensors. Errors: an update folds into what was there, in the order of its RDom."""
        self._must_have_no_updates(f"stripe({loop})", "te.sum over te.reduce_axis can be striped")
        super().stripe(loop)

    def tensorize(self, loop: Loop, intrinsic: Any) -> None:
        """As for tensors. Errors: an instruction's reset would undo what an update starts from."""
        self._must_have_no_updates("tensorize()", "te.dot over te.reduce_axis can be tensorized")
        super().tensorize(loop, intrinsic)

    def _must_have_no_updates(self, step: str, hint: str) -> None:
        with self._step(step, False):
            if self.schedule.is_updated(self.stage):
                name = self.stage.tensor.name
                raise ScheduleError(f"the updates of {name} start from what was there", hint=hint)


class UpdateStage(FuncStage):
    """The steps of one update's loops."""

    def __init__(self, schedule: FuncSchedule, stage: Computed, number: int) -> None:
        super().__init__(schedule, stage)
        self.number = number

    @property
    def _names(self) -> dict[Expr, str]:
        return self.schedule.update_loops[self.stage.buffer][self.number]

    def _must_be_new(self) -> None:
        raise ScheduleError("an update is computed where its Func is", hint="place the Func itself")
