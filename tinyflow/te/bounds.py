"""Bounds inference: from the box that is asked of some Funcs to the boxes of all they read.

Main types: ``Box``, ``FuncTensor`` (a Func cut to its box); main functions ``infer``, ``cut``.
Imports core, ir.scalar and te.

Intervals are exact for sums of multiples of variables; ``te.clamp``, min, max, quotients and the
ranges of small integer types bound what depends on values. The condition of an RDom makes no box
smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from tinyflow.core.error import AxisError, InvalidArgumentError, Unsupported
from tinyflow.core.order import producers_first
from tinyflow.core.source import user_frame
from tinyflow.ir.scalar import nodes as scalar
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.te.func import Func, Update, Value
from tinyflow.te.tensor import Tensor

Change = Callable[[Expr], Expr | None]
#: An index that may be further out than this has no bounds to speak of (any int32 may).
_FAR = 2**31 - 2
#: Rounds after which updates that widen each other's box are given up.
_ROUNDS = 8


class Box(NamedTuple):
    """[low, low + size) of every dimension."""

    lows: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def is_empty(self) -> bool:
        return 0 in self.sizes

    def __str__(self) -> str:
        spans = [f"[{a}, {a + n})" for a, n in zip(self.lows, self.sizes, strict=True)]
        return " x ".join(spans) or "one element"

    def ranges(self) -> list[scalar_visit.Bound]:
        return [(a, a + n - 1) for a, n in zip(self.lows, self.sizes, strict=True)]


def as_box(func: Func, asked: Sequence[int | tuple[int, int]]) -> Box:
    """Errors: AxisError where the box has not the Func's rank."""
    spans = [(0, x) if isinstance(x, int) else tuple(x) for x in asked]
    if len(spans) != func.rank or not all(len(x) == 2 and x[1] >= 0 for x in spans):
        raise AxisError(
            f"{func.name} has {func.rank} coordinates, it is asked for {asked}",
            expected="an extent or (low, extent) for each", source=user_frame(),
        )  # fmt: skip
    return Box(tuple(low for low, _ in spans), tuple(size for _, size in spans))


def infer(asked: Mapping[Func, Box]) -> dict[Func | Tensor, Box]:
    """The box of everything that the asked Funcs need, inputs first.

    Errors: InvalidArgumentError where an index has no bounds, leaves an input, or where an update
    writes outside what is asked of a result.
    """
    roots: list[Func | Tensor] = [*asked]
    order = producers_first(roots, lambda x: x.inputs if isinstance(x, Func) else ())
    needed: dict[Func | Tensor, Box] = dict(asked.items())
    for func in reversed(order):
        if not isinstance(func, Func):
            continue
        box = needed.get(func, Box((0,) * func.rank, (0,) * func.rank))
        wide = needed[func] = _with_updates(func, box)
        if func in asked and wide != box:
            raise InvalidArgumentError(
                f"{func.name} is asked for {box}, its updates use {wide}", source=user_frame(),
                hint="ask for all of it, or copy the part into another Func",
            )  # fmt: skip
        if not wide.is_empty:
            _ask(func, wide, needed)
    for tensor in order:
        if isinstance(tensor, Tensor):
            _check_input(tensor, needed)
    return {x: needed[x] for x in order}


def _variables(func: Func, box: Box, update: Update | None) -> dict[Expr, scalar_visit.Bound]:
    found = dict(zip(func.vars, box.ranges(), strict=True))
    for body in func.pure if update is None else ():
        if body.op == "reduce":
            found.update((v, _span(func, v, n)) for v, n in body.attr.axes)
    if update is not None:
        found = {v: span for v, span in found.items() if v in update.pure}
        found.update((v, (0, n - 1)) for v, n in update.folded)
    return found


def _span(func: Func, variable: Expr, extent: Any) -> scalar_visit.Bound:
    if not isinstance(extent, int):
        raise Unsupported(
            f"{func.name} sums over {variable.attr}, whose extent is not known",
            source=user_frame(), hint="Funcs are compiled for one size",
        )  # fmt: skip
    return 0, extent - 1


def _runs(func: Func, box: Box, update: Update) -> bool:
    """Whether the update has any point."""
    pure = [n for v, n in zip(func.vars, box.sizes, strict=True) if v in update.pure]
    return 0 not in (*pure, *(n for _, n in update.folded))


def _with_updates(func: Func, box: Box) -> Box:
    """The box with all that its updates write, and read of what was there before."""
    for _ in range(_ROUNDS):
        before = box
        for update in func.updates:
            if not _runs(func, box, update):
                continue
            known = _variables(func, box, update)
            places = [update.indices]
            places += [r.args for r in scalar_visit.reads(*update.expressions)
                       if r.attr in func.values]  # fmt: skip
            for indices in places:
                box = _union(box, _box_of(func.name, indices, known))
        if box == before:
            return box
    raise Unsupported(
        f"the updates of {func.name} widen each other's box without end", source=user_frame(),
        hint="write the second of them as another Func",
    )  # fmt: skip


def _ask(func: Func, box: Box, needed: dict[Func | Tensor, Box]) -> None:
    """Adds what the Func's definitions read."""
    parts: list[tuple[Sequence[Expr], Update | None]] = [(func.pure, None)]
    parts += [(u.expressions, u) for u in func.updates if _runs(func, box, u)]
    for roots, update in parts:
        known = _variables(func, box, update)
        for read in scalar_visit.reads(*roots):
            source = read.attr.func if isinstance(read.attr, Value) else read.attr
            if source is func:
                continue
            asked = _box_of(source.name, read.args, known, func.name)
            needed[source] = _union(needed[source], asked) if source in needed else asked


def _box_of(
    name: str, indices: Sequence[Expr], known: Mapping[Expr, scalar_visit.Bound], by: str = ""
) -> Box:
    lows, sizes = [], []
    for d, index in enumerate(indices):
        low, high = scalar_visit.interval(index, known)
        if max(-low, high) > _FAR:
            raise InvalidArgumentError(
                f"{by or name}: the index {index!r} of {name}, dimension {d}, has no bounds",
                source=user_frame(), hint="te.clamp(index, low, high) gives it some",
            )  # fmt: skip
        lows.append(int(low))
        sizes.append(max(0, int(high) - int(low) + 1))
    return Box(tuple(lows), tuple(sizes))


def _union(a: Box, b: Box) -> Box:
    if a.is_empty or b.is_empty:
        return b if a.is_empty else a
    lows = tuple(map(min, a.lows, b.lows))
    ends = [max(x + m, y + n) for x, m, y, n in zip(a.lows, a.sizes, b.lows, b.sizes, strict=True)]
    return Box(lows, tuple(end - low for end, low in zip(ends, lows, strict=True)))


def _check_input(tensor: Tensor, needed: dict[Func | Tensor, Box]) -> None:
    if not all(isinstance(n, int) for n in tensor.shape):
        raise Unsupported(
            f"{tensor!r} is read by a Func and has extents that are not known", source=user_frame(),
            hint="Funcs are compiled for one size; te.compute takes te.var extents",
        )  # fmt: skip
    whole = Box((0,) * tensor.rank, tuple(int(n) for n in tensor.shape))  # type: ignore[arg-type]
    asked = needed.setdefault(tensor, Box(whole.lows, (0,) * tensor.rank))
    if asked.is_empty:
        return
    if _union(whole, asked) != whole or whole.is_empty:
        raise InvalidArgumentError(
            f"{tensor.name} is {whole}, it is read at {asked}", source=user_frame(),
            hint=f"te.repeat_edge({tensor.name}) and te.constant_exterior({tensor.name}, value) "
            "have every coordinate; te.clamp(index, low, high) keeps an index inside",
        )  # fmt: skip


class FuncTensor(Tensor):
    """A Func cut to its box, counted from 0: the first value's tensor, which knows the rest.

    updates: applied in order after ``body``.   others: tensors of the Func's other values.
    """

    __slots__ = ("updates", "others")

    def __init__(self, plain: Tensor, updates: tuple[Update, ...] = ()) -> None:
        super().__init__(
            plain.name, plain.shape, plain.dtype, plain.axes, plain.body, plain.names
        )
        self.updates = updates
        self.others: tuple[Tensor, ...] = ()

    @property
    def values(self) -> tuple[Tensor, ...]:
        return (self, *self.others)

    @property
    def whole_dims(self) -> frozenset[int]:
        """Dimensions of which no part can be computed by itself: updates have an order there."""
        return frozenset(
            d for d, axis in enumerate(self.axes) for u in self.updates if axis not in u.pure
        )

    def changed(self, change: Change) -> FuncTensor:
        plain = super().changed(change)
        new = FuncTensor(plain, tuple(_changed(u, change) for u in self.updates))
        for other in self.others:  # these keep their identity: expressions read them
            assert other.body is not None
            other.body = scalar_visit.transform(other.body, change)
        new.others = self.others
        return new


def _changed(update: Update, change: Change) -> Update:
    def new(*roots: Expr) -> tuple[Expr, ...]:
        return tuple(scalar_visit.transform_all(roots, change))

    condition = None if update.condition is None else new(update.condition)[0]
    return replace(
        update, indices=new(*update.indices), values=new(*update.values), condition=condition
    )


def cut(boxes: Mapping[Func | Tensor, Box]) -> dict[Func, FuncTensor]:
    """Each Func as a tensor of its box, all indices counted from the box's start."""
    found: dict[Func, FuncTensor] = {}
    for func, box in boxes.items():
        if isinstance(func, Func):
            names = tuple(str(v.attr) for v in func.vars)
            first, *others = (
                Tensor(value.name, box.sizes, value.dtype, func.vars, None, names)
                for value in func.values
            )
            found[func] = FuncTensor(first)
            found[func].others = tuple(others)
    lows = {func: boxes[func].lows for func in found}

    def read(expr: Expr) -> Expr | None:
        if expr.op != "read" or not isinstance(expr.attr, Value):
            return None
        value = expr.attr
        tensor = found[value.func].values[value.position]
        moved = [i - n for i, n in zip(expr.args, lows[value.func], strict=True)]
        return scalar.read(tensor, *moved)

    for func, tensor in found.items():
        start = {v: v + n for v, n in zip(func.vars, lows[func], strict=True)}

        def moved(expr: Expr, start: Mapping[Expr, Expr] = start) -> Expr:
            return scalar_visit.transform(scalar_visit.substitute(expr, start), read)

        for one, body in zip(tensor.values, func.pure, strict=True):
            one.body = moved(body)
        tensor.updates = tuple(
            replace(
                u,
                indices=tuple([moved(i) - n for i, n in zip(u.indices, lows[func], strict=True)]),
                values=tuple(map(moved, u.values)),
                condition=None if u.condition is None else moved(u.condition),
            )
            for u in func.updates
        )
    return found
