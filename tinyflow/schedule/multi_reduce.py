"""Several reductions over the same axes of the same arrays, in one pass over memory.

Main function: ``lower_reductions``. May import ir, passes.fusion, te.canonical and schedule. Each
reduction keeps its canonical order (te/canonical.py): sharing the pass changes no bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinyflow.ir.loop import visit as loop_visit
from tinyflow.ir.loop.nodes import (
    SERIAL,
    UNROLL,
    VECTORIZE,
    Alloc,
    Body,
    Buffer,
    For,
    If,
    Stmt,
    Store,
)
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.passes.fusion import Item
from tinyflow.schedule.grain import (
    BLOCK_ELEMENTS,
    NARROW_ROW,
    PARALLEL_ELEMENTS,
    nest,
    size,
)
from tinyflow.schedule.lowering import (
    Axes,
    GroupExpressions,
    LoweredKernel,
    Scratch,
    loop_extent,
    merge_axes,
    operations,
    roots_of,
    single_axis,
)
from tinyflow.schedule.prefetch import column_hints
from tinyflow.schedule.schedule import Schedule, combine, neutral
from tinyflow.schedule.targets import Target
from tinyflow.te.canonical import CHUNK, STRIPE, chunk_count

_ZERO = s.index(0)
_CHUNK_VAR = s.var("c")


@dataclass
class _One:
    """One of the reductions: its place among them, item, combiner and element expression."""

    number: int
    item: Item
    combiner: str
    value: Expr

    @property
    def dtype(self) -> Any:
        return self.item.value.dtype

    def buffer(self, name: str, length: int, scope: str) -> Buffer:
        return Buffer(f"{name}{self.number}", self.dtype, (length,), scope)


@dataclass
class _Nest:
    """Loops that the reductions share. partials: where chunk results go; None stores results."""

    x: GroupExpressions
    ones: list[_One]
    outer: Axes
    mapping: dict[Expr, Expr]
    column: Expr
    count: Any
    target: Target
    partials: list[Buffer] | None = None

    def flat_output(self) -> Expr:
        position = _ZERO
        for var, extent in self.outer:
            position = position * s.index(extent) + var
        return position

    def finish(self, reduced: Sequence[Expr]) -> Body:
        """Stores of the results, or of the partial results of one chunk."""
        if self.partials is not None:
            at = _CHUNK_VAR * loop_extent(size(self.x.group.outer)) + self.flat_output()
            return tuple(
                Store(p, (at,), value) for p, value in zip(self.partials, reduced, strict=True)
            )
        for one, value in zip(self.ones, reduced, strict=True):
            self.x.temporaries[one.item.value] = value
        self.x.forget()
        stores = tuple(self.x.store_result(i) for i in self.x.results)
        return loop_visit.substitute_vars(stores, self.mapping)

    def lower(self, total: Any) -> tuple[Body, list[str], Any]:
        """(body, steps, tasks per claim)"""
        walks_columns = self.outer and self.x.seen(self.outer[-1][1]) > 1 and all(
            _step(one.value, self.outer[-1][0]) == 1 for one in self.ones
        )  # fmt: skip
        body, axes, steps = self.across_columns() if walks_columns else self.along_row()
        if self.partials is not None:
            axes = [(_CHUNK_VAR, self.chunks), *axes]
        if not axes:
            return body, steps, 0
        schedule = Schedule(nest(axes, body))
        schedule.steps = steps
        names = [str(v.attr) for v, _ in axes]
        chunk: Any = 0
        if not isinstance(total, int) or total >= PARALLEL_ELEMENTS:
            while len(names) > 1:
                names[:2] = [schedule.fuse(names[0], names[1])]
            schedule.parallel(names[0])
            tasks = size(n for _, n in axes)
            chunk = (
                max(1, tasks * BLOCK_ELEMENTS // max(1, total)) if isinstance(total, int)
                else s.maximum(s.index(tasks) * BLOCK_ELEMENTS // s.maximum(total, 1), 1)
            )  # fmt: skip
            if self.partials is not None:
                chunk = 1
        return schedule.body, schedule.steps, chunk

    @property
    def chunks(self) -> Any:
        assert self.partials is not None
        return self.partials[0].shape[0] // loop_extent(size(self.x.group.outer))

    def along_row(self) -> tuple[Body, Axes, list[str]]:
        """One output at a time; vectors run along the reduction."""
        totals = [one.buffer("result", 1, "register") for one in self.ones]
        at = (_ZERO,)
        starts = [
            Store(b, at, neutral(o.combiner, b)) for o, b in zip(self.ones, totals, strict=True)
        ]
        updates = [
            Store(b, at, combine(o.combiner, s.load(b, _ZERO), o.value))
            for o, b in zip(self.ones, totals, strict=True)
        ]
        loop = For(self.column, scalar_visit.plain(s.index(self.count)), SERIAL, tuple(updates))
        schedule = Schedule((*starts, loop))
        schedule.stripe(str(self.column.attr))
        body = schedule.body + self.finish([s.load(b, _ZERO) for b in totals])
        for buffer in totals:
            body = (Alloc(buffer, body),)
        return body, list(self.outer), schedule.steps

    def across_columns(self) -> tuple[Body, Axes, list[str]]:
        """Vectors of neighbouring outputs; stripe l takes rows l, l + STRIPE, ...; then the tree.

        Each row visited gives a few neighbouring cache lines, and one stripe's partial results of
        all reductions stay in registers; of narrow rows several stripes', so that rows are read in
        the order in which they lie.
        """
        lanes = max(2, self.target.lanes * 4 // max(4, *(o.dtype.size_bytes for o in self.ones)))
        var, extent = self.outer[-1]
        vectors, together = self.vectors_per_row(-(-self.x.seen(extent) // lanes)), 1
        size_bytes = max(o.dtype.size_bytes for o in self.ones)
        if self.x.seen(extent) * size_bytes <= NARROW_ROW:
            vectors, together = 1, 1 << (STRIPE // len(self.ones)).bit_length() - 1
        width = vectors * lanes
        block, vector, lane = (s.var(f"{var.attr}.{part}") for part in "ovi")
        inside = vector * lanes + lane
        position = block * width + inside
        pass_, one_stripe, step = s.var("p"), s.var("l"), s.var("k")
        stripe = pass_ * together + one_stripe
        at = one_stripe * width + inside
        stripes = [one.buffer("stripes", STRIPE * width, "stack") for one in self.ones]
        accs = [one.buffer("acc", together * width, "register") for one in self.ones]

        def each(body: Body, masked: bool = False) -> For:
            if masked and not (isinstance(extent, int) and extent % width == 0):
                body = (If(position < extent, body),)
            body = loop_visit.substitute_vars(body, {var: position})
            return For(vector, vectors, UNROLL, (For(lane, lanes, VECTORIZE, body),))

        def each_stripe(*body: Stmt) -> For:
            return For(one_stripe, together, UNROLL, body)

        def update(row: Expr) -> For:
            stores = []
            for one, acc in zip(self.ones, accs, strict=True):
                new = scalar_visit.substitute(one.value, {self.column: row})
                new = combine(one.combiner, s.load(acc, at), new)
                stores.append(Store(acc, (at,), new))
            return each(tuple(stores), True)

        n = s.index(self.count)
        full = n // STRIPE
        row = step * STRIPE + stripe
        hints: Body = ()
        if together == 1:  # rows in order are a stream of their own
            for one in self.ones:
                here = {self.column: step * STRIPE + pass_, var: block * width}
                hints += tuple(column_hints(one.value, here, var, self.column, width))
        hints = tuple(dict.fromkeys(hints))
        starts = [
            Store(a, (at,), neutral(o.combiner, a)) for o, a in zip(self.ones, accs, strict=True)
        ]
        run: Body = (each_stripe(each(tuple(starts))),)
        run += (For(step, scalar_visit.plain(full), SERIAL, (*hints, each_stripe(update(row)))),)
        if not (n.is_const and n.attr % STRIPE == 0):
            last = full * STRIPE + stripe
            run += (each_stripe(If(last < n, (update(last),))),)
        kept = [
            Store(b, (stripe * width + inside,), s.load(a, at))
            for b, a in zip(stripes, accs, strict=True)
        ]
        run += (each_stripe(each(tuple(kept))),)
        for acc in accs:
            run = (Alloc(acc, run),)
        body: Body = (For(pass_, STRIPE // together, SERIAL, run),)
        stripe = one_stripe
        half = STRIPE // 2
        while half:
            low, high = (stripe * width + inside,), ((stripe + half) * width + inside,)
            folds = [
                Store(b, low, combine(o.combiner, s.load(b, *low), s.load(b, *high)))
                for o, b in zip(self.ones, stripes, strict=True)
            ]
            body += (For(stripe, half, SERIAL, (each(tuple(folds)),)),)
            half //= 2
        body += (each(self.finish([s.load(b, inside) for b in stripes]), True),)
        for buffer in stripes:
            body = (Alloc(buffer, body),)
        steps = [f"split({var.attr}, {width}, {lanes})", f"unroll({vector.attr})",
                 f"vectorize({lane.attr}, {lanes})", f"stripe(r, {STRIPE})"]  # fmt: skip
        if hints:
            steps.append("prefetch(k)")
        return body, [*self.outer[:-1], (block, (extent + (width - 1)) // width)], steps

    def vectors_per_row(self, available: int) -> int:
        """Up to 8 in all, while the tasks are enough for some threads and the body stays short."""
        cost = max(1, _operations(self.ones))
        tasks = size(self.x.seen(n) for _, n in self.outer[:-1])
        vectors = 8
        while vectors > 1 and (
            vectors * cost > 64
            or vectors * len(self.ones) > 16
            or vectors > available
            or tasks * available // vectors < 8
        ):
            vectors //= 2
        return vectors


def lower_reductions(
    x: GroupExpressions, target: Target, most: int | None = None
) -> list[LoweredKernel]:
    """A group with several reductions over the same axes.

    Up to CHUNK elements: one kernel. More: chunks in parallel into scratch, then their folds.
    most: of the elements, where their number is an argument.
    """
    items = [i for i in x.group.live_items if i.combiner]
    extents = [e for _, e in items[0].reduce_axes]
    reduce_axes: Axes = [(s.var(f"r{n}"), loop_extent(e)) for n, e in enumerate(extents)]
    bodies = [x.reduction_body(i, reduce_axes)[0] for i in items]
    statements = _unscheduled(x, items, bodies)
    x.find_in_place(statements)
    merged, mapping = merge_axes(
        roots_of(statements), x.outer + reduce_axes, frozenset({len(x.outer)})
    )
    own = {v for v, _ in x.outer}
    outer = [(v, n) for v, n in merged if v in own]
    column, count, inner_map = single_axis([(v, n) for v, n in merged if v not in own], "r")
    ones = []
    for n, (item, element) in enumerate(zip(items, bodies, strict=True)):
        value = scalar_visit.substitute(scalar_visit.substitute(element, mapping), inner_map)
        ones.append(_One(n, item, item.combiner or "", value))
    outputs = loop_extent(size(x.group.outer))
    total = outputs * count
    work = (total, PARALLEL_ELEMENTS) if x.sizes else (0, 0)
    flops = total * (len(ones) + _operations(ones))
    if (count if isinstance(count, int) else most or CHUNK + 1) <= CHUNK:
        body, steps, chunk = _Nest(x, ones, outer, mapping, column, count, target).lower(total)
        return [x.kernel(body, steps, flops, chunk, work=work)]
    chunks = chunk_count(count) if isinstance(count, int) else (count + (CHUNK - 1)) // CHUNK
    partials = [one.buffer("partial", chunks * outputs, "param") for one in ones]
    scratch = [(b, Scratch(b.dtype, chunks * outputs, b.name)) for b in partials]
    shifted = [
        _One(o.number, o.item, o.combiner,
             scalar_visit.substitute(o.value, {column: _CHUNK_VAR * CHUNK + column}))
        for o in ones
    ]  # fmt: skip
    length = (
        CHUNK if isinstance(count, int) and count % CHUNK == 0
        else s.minimum(s.index(CHUNK), s.index(count) - _CHUNK_VAR * CHUNK)
    )  # fmt: skip
    first = _Nest(x, shifted, outer, mapping, column, length, target, partials)
    body, steps, chunk = first.lower(total)
    kernels = [x.kernel(body, steps, flops, chunk, scratch, "_chunks", work=work)]
    at = first.flat_output()
    folds = [
        _One(o.number, o.item, o.combiner, s.load(b, column * outputs + at))
        for o, b in zip(ones, partials, strict=True)
    ]
    body, steps, chunk = _Nest(x, folds, outer, mapping, column, chunks, target).lower(
        chunks * outputs
    )
    work = (chunks * outputs, PARALLEL_ELEMENTS) if x.sizes else (0, 0)
    kernels.append(x.kernel(body, steps, chunks * outputs, chunk, scratch, "_fold", work=work))
    return kernels


def _unscheduled(x: GroupExpressions, items: list[Item], bodies: list[Expr]) -> list[Store]:
    """The group as statements before scheduling: the reductions, then the results."""
    dummies = [Buffer("cost", i.value.dtype, (1,), "stack") for i in items]
    first = [Store(b, (_ZERO,), body) for b, body in zip(dummies, bodies, strict=True)]
    for item, buffer in zip(items, dummies, strict=True):
        x.temporaries[item.value] = s.load(buffer, _ZERO)
    x.forget()
    x.order_results()
    stores = [x.store_result(i) for i in x.results]
    for item in items:
        del x.temporaries[item.value]
    x.forget()
    return first + stores


def _operations(ones: Sequence[_One]) -> int:
    buffer = Buffer("cost", ones[0].dtype, (1,), "stack")
    return operations([Store(buffer, (_ZERO,), one.value) for one in ones])


def _step(value: Expr, var: Expr) -> int | None:
    """Stride along ``var`` of the load that walks the most memory; None if uneven."""
    best: tuple[int, int] | None = None
    for load in scalar_visit.loads(value):
        form = scalar_visit.linear(load.args[0], (var,))
        if form is None:
            return None
        stride, length = form.coefficients.get(var, 0), load.attr.shape[0]
        if isinstance(stride, int):
            # An extent that is an argument counts as long.
            best = max(best or (0, 0), (length if isinstance(length, int) else 1 << 30, stride))
    return best[1] if best else None
