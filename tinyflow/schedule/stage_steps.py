"""The steps of one tensor's loops in a schedule, under TVM's names.

Main type: ``Stage``, which ``schedule[tensor]`` gives. May import core, ir, te and schedule.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tinyflow.core.error import InvalidArgumentError, Unsupported
from tinyflow.core.source import user_frame
from tinyflow.ir.loop import visit
from tinyflow.ir.loop.nodes import (
    PARALLEL,
    SERIAL,
    VECTORIZE,
    Alloc,
    For,
    Store,
)
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.schedule import placement, tensorize
from tinyflow.schedule.regions import stores_to
from tinyflow.schedule.schedule import ScheduleError, reduction_of
from tinyflow.schedule.stages import Computed, StageSchedule
from tinyflow.schedule.stripes import accumulates
from tinyflow.te.tensor import Axis, Operation

#: Most elements of a loop that runs as one vector, and iterations of one that is unrolled.
VECTOR_LIMIT, UNROLL_LIMIT = 64, 256
#: What a step takes for a loop: its name, an axis of the tensor, or the axis's variable.
Loop = str | Axis | Expr
#: how a step of the base class names itself in a message
_OWN_NAME = re.compile(r"^\w+\([^)]*\): ")


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
