"""Hardware instructions that compute a small tensor at once, and nests that one of them replaces.

Main types: ``TensorIntrinsic`` (declared by ``decl_tensor_intrin``), ``Window`` (the operand of an
instruction: a part of some buffer). May import core, ir, te and schedule.

An instruction is declared by what it computes (a tensor expression) and by how it does it: a
function that gets windows and returns loop IR. On a machine without such a unit the loop IR is its
simulation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tinyflow.core.error import InvalidArgumentError
from tinyflow.core.source import user_frame
from tinyflow.ir.loop import visit
from tinyflow.ir.loop.nodes import SERIAL, Body, Buffer, For, If, Stmt, Store
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.schedule.regions import stores_to
from tinyflow.schedule.schedule import ScheduleError
from tinyflow.schedule.stripes import accumulates, combine
from tinyflow.te.tensor import Operation, Tensor, as_index

if TYPE_CHECKING:
    from tinyflow.schedule.stages import StageSchedule


@dataclass(frozen=True, eq=False)
class Window:
    """A part of a buffer that starts at ``base``; ``window[i, k]`` reads, ``store`` writes."""

    buffer: Buffer
    base: tuple[Expr, ...]
    rank: int

    def _at(self, indices: Any) -> tuple[Expr, ...]:
        given = indices if isinstance(indices, tuple) else (indices,)
        if len(given) != self.rank:
            raise InvalidArgumentError(
                f"a window of {self.buffer.name} has {self.rank} dimensions, got {len(given)} "
                "indices", source=user_frame(),
            )  # fmt: skip
        leading = len(self.base) - self.rank
        return (
            *self.base[:leading],
            *(b + as_index(i) for b, i in zip(self.base[leading:], given, strict=True)),
        )

    def __getitem__(self, indices: Any) -> Expr:
        return s.load(self.buffer, *self._at(indices))

    def store(self, indices: Any, value: Expr) -> Store:
        """The statement window[indices] = value."""
        return Store(self.buffer, self._at(indices), value)


#: (inputs, outputs) -> statements, or (all of it at once, start values, one accumulation)
Lowering = Callable[[Sequence[Window], Sequence[Window]], Any]


@dataclass(frozen=True, eq=False)
class TensorIntrinsic:
    """A declared instruction: what it computes, and the loop IR that does it."""

    name: str
    tensor: Tensor
    lower: Lowering

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return self.tensor.op.input_tensors


def decl_tensor_intrin(op: Operation | Tensor, lower: Lowering, name: str) -> TensorIntrinsic:
    """Declares a hardware instruction.

    op: what it computes, for fixed extents; a reduction stands for one accumulating step.
    lower: ``lower(inputs, outputs) -> (body, reset, update)``, bodies of loop statements over
    windows: for the first step, for the start value, for a step that accumulates. Without a
    reduction it returns the one body. Errors: InvalidArgumentError for unknown extents.
    """
    tensor = op.tensor if isinstance(op, Operation) else op
    extents = [axis.extent for axis in (*tensor.op.axis, *tensor.op.reduce_axis)]
    if tensor.body is None or not all(isinstance(e, int) for e in extents):
        raise InvalidArgumentError(
            f"decl_tensor_intrin: {name} needs a computed tensor with known extents, got {tensor}",
            source=user_frame(),
        )
    return TensorIntrinsic(name, tensor, lower)


def replace_nest(
    schedule: StageSchedule, buffer: Buffer, at: str, intrinsic: TensorIntrinsic
) -> None:
    """Puts the instruction in the place of loop ``at``, after checking that it computes the same.

    The loops from ``at`` on must be the instruction's axes, then its reduce axes, with the same
    extents, and every access must move with them as the declaration says.
    """
    loop = schedule.loop(at)
    loops, store = _perfect_nest(loop, intrinsic)
    match = _Match(intrinsic, loops, store)
    lowered = intrinsic.lower(match.inputs, [match.output])
    if intrinsic.tensor.reduction is None:
        schedule.replace(loop, _statements(lowered, intrinsic))
    else:
        if not isinstance(lowered, tuple) or len(lowered) != 3:
            raise ScheduleError(
                f"{intrinsic.name} has a reduction: its function returns (body, reset, update)"
            )
        _, _, update = lowered
        _replace_reset(schedule, buffer, store, loops, match)
        schedule.replace(loop, _statements(update, intrinsic))
    schedule.note(f"tensorize({at}, {intrinsic.name})")


def _statements(body: Any, intrinsic: TensorIntrinsic) -> Body:
    found = (body,) if isinstance(body, Stmt) else body
    if not isinstance(found, (tuple, list)) or not all(isinstance(x, Stmt) for x in found):
        raise ScheduleError(f"the function of {intrinsic.name} must return loop statements")
    return tuple(found)


def _perfect_nest(loop: For, intrinsic: TensorIntrinsic) -> tuple[list[For], Store]:
    wanted = [a.extent for a in (*intrinsic.tensor.op.axis, *intrinsic.tensor.op.reduce_axis)]
    loops: list[For] = []
    body: Body = (loop,)
    while len(body) == 1 and isinstance(body[0], For):
        loops.append(body[0])
        body = body[0].body
    got = [x.extent for x in loops]
    shown = ", ".join(f"{x.var.attr}: {x.extent}" for x in loops)
    if len(body) != 1 or not isinstance(body[0], Store):
        what = "a guard" if len(body) == 1 and isinstance(body[0], If) else "several statements"
        raise ScheduleError(
            f"inside the loops {shown} stands {what}, {intrinsic.name} needs one statement",
            hint="choose factors that divide the extents" if what == "a guard" else None,
        )
    if got != wanted or any(x.kind != SERIAL for x in loops):
        raise ScheduleError(f"{intrinsic.name} computes {wanted}, the loops are {shown}")
    return loops, body[0]


class _Match:
    """How the instruction's operands lie in the buffers of a nest. Errors: ScheduleError."""

    def __init__(self, intrinsic: TensorIntrinsic, loops: Sequence[For], store: Store) -> None:
        tensor = intrinsic.tensor
        own = [*tensor.axes, *(a.var for a in tensor.op.reduce_axis)]
        self.intrinsic = intrinsic
        self.variables = [x.var for x in loops]
        self.to_nest = dict(zip(own, self.variables, strict=True))
        self.windows: dict[Tensor, Window] = {}
        self.output = self._window(store.buffer, store.indices, tensor.axes)
        self._same(self._declared(store), store.value)
        self.inputs = [self.windows[t] for t in intrinsic.inputs]

    def _declared(self, store: Store) -> Expr:
        """The instruction's element as the nest would write it, its inputs still read."""
        body = self.intrinsic.tensor.body
        assert body is not None
        if body.op != "reduce":
            return scalar_visit.substitute(body, self.to_nest)
        combiner = body.attr.combiner
        if accumulates(store) != combiner:
            raise ScheduleError(
                f"{self.intrinsic.name} accumulates by {combiner}, the nest by "
                f"{accumulates(store) or 'nothing'}"
            )
        terms = [scalar_visit.substitute(t, self.to_nest) for t in body.args]
        total = s.load(store.buffer, *store.indices)
        if combiner == "dot" and terms[0].dtype.kind == "float":
            return s.fma(terms[0], terms[1], total)
        if combiner == "dot":
            return total + terms[0] * terms[1]
        return combine(combiner, total, terms[0])

    def _same(self, declared: Expr, actual: Expr) -> None:
        if declared.op == "read" and actual.op == "load":
            window = self._window(actual.attr, actual.args, declared.args)
            before = self.windows.setdefault(declared.attr, window)
            if before.buffer is not window.buffer or before.base != window.base:
                raise ScheduleError(f"{declared.attr.name} would lie in two places")
            if declared.dtype is actual.dtype:
                return
        elif declared is actual:
            return
        alike = declared.op == actual.op and declared.dtype is actual.dtype
        if not alike or len(declared.args) != len(actual.args) or declared.op == "load":
            raise ScheduleError(f"{self.intrinsic.name} computes {declared}, the nest {actual}")
        if declared.attr != actual.attr:
            raise ScheduleError(f"{self.intrinsic.name} computes {declared}, the nest {actual}")
        for a, b in zip(declared.args, actual.args, strict=True):
            self._same(a, b)

    def _window(
        self, buffer: Buffer, indices: Sequence[Expr], declared: Sequence[Expr]
    ) -> Window:
        """Where the operand starts: each index is its start plus the declared index."""
        leading = len(indices) - len(declared)
        if leading < 0:
            raise ScheduleError(f"{buffer.name} has fewer dimensions than {self.intrinsic.name}")
        base = []
        for d, index in enumerate(indices):
            form = scalar_visit.linear(index, self.variables)
            if form is None:
                raise ScheduleError(f"the index {index} of {buffer.name} is not affine")
            moves: Mapping[Expr, Any] = {}
            if d >= leading:
                wanted = scalar_visit.linear(
                    scalar_visit.substitute(declared[d - leading], self.to_nest), self.variables
                )
                moves = {} if wanted is None else wanted.coefficients
            if form.coefficients != moves:
                raise ScheduleError(
                    f"dimension {d} of {buffer.name} moves as {index}, "
                    f"which is not how {self.intrinsic.name} reads it"
                )
            base.append(s.index(form.offset))
        return Window(buffer, tuple(base), len(declared))


def _replace_reset(
    schedule: StageSchedule,
    buffer: Buffer,
    update: Store,
    loops: Sequence[For],
    match: _Match,
) -> None:
    """The loops that set the start values become the instruction's reset, where they fit."""
    intrinsic = match.intrinsic
    rank = len(intrinsic.tensor.axes)
    starts = [x for x in stores_to(schedule.body, buffer)
              if x is not update and x.value.op == "const"]  # fmt: skip
    for nest in visit.collect(schedule.body, For):
        inner: list[For] = []
        body: Body = (nest,)
        while len(body) == 1 and isinstance(body[0], For):
            inner.append(body[0])
            body = body[0].body
        fits = len(body) == 1 and any(body[0] is x for x in starts)
        if fits and [x.extent for x in inner] == [x.extent for x in loops[:rank]]:
            (store,) = body
            assert isinstance(store, Store)
            change = {x.var: s.index(0) for x in inner}
            base = tuple(scalar_visit.substitute(i, change) for i in store.indices)
            window = Window(buffer, base, match.output.rank)
            _, again, _ = intrinsic.lower(match.inputs, [window])
            schedule.replace(nest, _statements(again, intrinsic))
            return
