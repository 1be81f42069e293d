"""Reductions over leading axes or over very many elements.

Main function: ``lower_reduce``. May import ir, passes.fusion, te.canonical and schedule.
"""

from __future__ import annotations

from typing import Any

from tinyflow.ir.loop import visit as loop_visit
from tinyflow.ir.loop.nodes import SERIAL, UNROLL, VECTORIZE, Alloc, Body, Buffer, For, If, Store
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


def lower_reduce(
    x: GroupExpressions, target: Target, most: int | None = None
) -> list[LoweredKernel]:
    """A reduction over leading or very many elements.

    Up to CHUNK elements: one kernel. More: chunks in parallel into scratch, then their fold.
    most: of the elements, where their number is an argument.
    """
    item = next(
        i for i in x.group.items
        if i.value not in x.group.inlined and i.tensor is not None and i.tensor.reduction
    )  # fmt: skip
    assert item.tensor is not None and item.tensor.reduction is not None
    combiner = item.tensor.reduction.combiner
    reduce_axes: Axes = [
        (s.var(f"r{n}"), loop_extent(e)) for n, (_, e) in enumerate(item.reduce_axes)
    ]
    (value,) = x.reduction_body(item, reduce_axes)
    statements = _pseudo(x, item, (value,))
    x.find_in_place(statements)
    outer, mapping = merge_axes(
        roots_of(statements), x.outer + reduce_axes, frozenset({len(x.outer)})
    )
    own = {v for v, _ in x.outer}
    inner = [(v, n) for v, n in outer if v not in own]
    outer = [(v, n) for v, n in outer if v in own]
    value = scalar_visit.substitute(value, mapping)
    column, count, inner_map = single_axis(inner, "r")
    value = scalar_visit.substitute(value, inner_map)
    total = loop_extent(size(x.group.outer)) * count
    flops = total * (1 + operations((Store(_scratch_like(item), (_ZERO,), value),)))
    reducer = _Reducer(x, item, combiner, outer, mapping, target)
    work = (total, PARALLEL_ELEMENTS) if x.sizes else (0, 0)
    if (count if isinstance(count, int) else most or CHUNK + 1) <= CHUNK:
        reducer.most = most
        body, steps = reducer.nest(value, column, count, None, total)
        return [x.kernel(body, steps, flops, reducer.chunk, work=work)]
    chunks = chunk_count(count) if isinstance(count, int) else (count + (CHUNK - 1)) // CHUNK
    outputs = loop_extent(size(x.group.outer))
    partial = Buffer("partial", item.value.dtype, (chunks * outputs,))
    scratch = [(partial, Scratch(item.value.dtype, chunks * outputs, "partial"))]
    chunk_var = s.var("c")
    shifted = scalar_visit.substitute(value, {column: chunk_var * CHUNK + column})
    length = (
        s.index(CHUNK) if isinstance(count, int) and count % CHUNK == 0
        else s.minimum(s.index(CHUNK), s.index(count) - chunk_var * CHUNK)
    )  # fmt: skip
    first, steps = reducer.nest(shifted, column, length, (chunk_var, chunks, partial), total)
    kernels = [x.kernel(first, steps, flops, 1, scratch, "_chunks", work=work)]
    at = reducer.flat_output()
    folded = s.load(partial, column * outputs + at)
    body, steps = reducer.nest(folded, column, chunks, None, chunks * outputs)
    work = (chunks * outputs, PARALLEL_ELEMENTS) if x.sizes else (0, 0)
    kernels.append(
        x.kernel(body, steps, chunks * outputs, reducer.chunk, scratch, "_fold", work=work)
    )
    return kernels


_ZERO = s.index(0)


def _pseudo(x: GroupExpressions, item: Item, bodies: tuple[Expr, ...]) -> list[Store]:
    """The group as statements before scheduling: the reduction, then the results."""
    buffer = _scratch_like(item)
    first = [Store(buffer, (_ZERO,), body) for body in bodies]
    x.temporaries[item.value] = s.load(buffer, _ZERO)
    x.forget()
    x.order_results()
    stores = [x.store_result(i) for i in x.results]
    del x.temporaries[item.value]
    x.forget()
    return first + stores


def _scratch_like(item: Item) -> Buffer:
    return Buffer("cost", item.value.dtype, (1,), "stack")


class _Reducer:
    """Loop nests of one reduction whose outputs are walked by ``outer``."""

    def __init__(
        self,
        x: GroupExpressions,
        item: Item,
        combiner: str,
        outer: Axes,
        mapping: dict[Expr, Expr],
        target: Target,
    ) -> None:
        self.x, self.item, self.combiner, self.mapping = x, item, combiner, mapping
        self.outer, self.target = outer, target
        self.chunk: Any = 1
        self.most: int | None = None

    def flat_output(self) -> Expr:
        position = _ZERO
        for var, extent in self.outer:
            position = position * s.index(extent) + var
        return position

    def finish(self, reduced: Expr, destination: tuple[Any, Any, Buffer] | None) -> Body:
        """Stores of the results, or of the partial result of one chunk."""
        if destination is not None:
            chunk_var, _, partial = destination
            outputs = loop_extent(size(self.x.group.outer))
            return (Store(partial, (chunk_var * outputs + self.flat_output(),), reduced),)
        self.x.temporaries[self.item.value] = reduced
        self.x.forget()
        stores = tuple(self.x.store_result(i) for i in self.x.results)
        return loop_visit.substitute_vars(stores, self.mapping)

    def nest(
        self, value: Expr, column: Expr, count: Any, destination: Any, total: int
    ) -> tuple[Body, list[str]]:
        """``value`` reduced over ``column`` < count for every output."""
        parallel = not isinstance(total, int) or total >= PARALLEL_ELEMENTS
        wide = bool(self.outer) and self.x.seen(self.outer[-1][1]) > 1
        if wide and _stride(value, self.outer[-1][0]) == 1:
            body, axes, steps = self.across_columns(value, column, count, destination)
        else:
            body, axes, steps = self.along_row(value, column, count, destination)
        if destination is not None:
            axes = [(destination[0], destination[1]), *axes]
        if not axes:
            return body, steps
        schedule = Schedule(nest(axes, body))
        schedule.steps = steps
        names = [str(v.attr) for v, _ in axes]
        while parallel and len(names) > 1:
            names[:2] = [schedule.fuse(names[0], names[1])]
        if parallel:
            schedule.parallel(names[0])
            tasks = size(n for _, n in axes)
            self.chunk = (
                max(1, tasks * BLOCK_ELEMENTS // max(1, total)) if isinstance(total, int)
                else s.maximum(s.index(tasks) * BLOCK_ELEMENTS // s.maximum(total, 1), 1)
            )  # fmt: skip
        return schedule.body, schedule.steps

    def along_row(
        self, value: Expr, column: Expr, count: Any, destination: Any
    ) -> tuple[Body, Axes, list[str]]:
        """One output at a time; vectors run along the reduction."""
        result = Buffer("result", self.item.value.dtype, (1,), "register")
        at = (_ZERO,)
        update = combine(self.combiner, s.load(result, _ZERO), value)
        extent = count if not isinstance(count, Expr) or not count.is_const else count.attr
        schedule = Schedule(
            (
                Store(result, at, neutral(self.combiner, result)),
                For(column, extent, SERIAL, (Store(result, at, update),)),
            )
        )
        schedule.stripe(str(column.attr))
        body = schedule.body + self.finish(s.load(result, _ZERO), destination)
        return (Alloc(result, body),), list(self.outer), schedule.steps

    def across_columns(
        self, value: Expr, column: Expr, count: Any, destination: Any
    ) -> tuple[Body, Axes, list[str]]:
        """Vectors of neighbouring outputs at a time."""
        n = s.index(count)
        narrow = self.x.seen(self.outer[-1][1]) * self.item.value.dtype.size_bytes <= NARROW_ROW
        if narrow or (n.attr if n.is_const else self.most or CHUNK) <= 4 * STRIPE:
            return self.all_stripes(value, column, count, destination)
        return self.stripe_by_stripe(value, column, n, destination)

    def stripe_by_stripe(
        self, value: Expr, column: Expr, n: Expr, destination: Any
    ) -> tuple[Body, Axes, list[str]]:
        """Stripe l of many outputs: rows l, l + STRIPE, ...; then the next stripe; then the tree.

        So many outputs that each row visited gives several neighbouring cache lines, and so few
        that one stripe's partial results stay in registers.
        """
        dtype = self.item.value.dtype
        lanes = max(2, self.target.lanes * 4 // max(4, dtype.size_bytes))
        var, extent = self.outer[-1]
        vectors = self.vectors_per_row(value, -(-self.x.seen(extent) // lanes))
        width = vectors * lanes
        block, vector, lane = (s.var(f"{var.attr}.{part}") for part in "ovi")
        inside = vector * lanes + lane
        position = block * width + inside
        stripe, step = s.var("l"), s.var("k")
        partials = Buffer("stripes", dtype, (STRIPE * width,), "stack")
        acc = Buffer("acc", dtype, (width,), "register")

        def each(body: Body, masked: bool = False) -> For:
            if masked and not (isinstance(extent, int) and extent % width == 0):
                body = (If(position < extent, body),)
            body = loop_visit.substitute_vars(body, {var: position})
            return For(vector, vectors, UNROLL, (For(lane, lanes, VECTORIZE, body),))

        def update(row: Expr) -> For:
            new = scalar_visit.substitute(value, {column: row})
            new = combine(self.combiner, s.load(acc, inside), new)
            return each((Store(acc, (inside,), new),), True)

        full = n // STRIPE
        row = step * STRIPE + stripe
        hints = column_hints(value, {column: row, var: block * width}, var, column, width)
        run: Body = (each((Store(acc, (inside,), neutral(self.combiner, acc)),)),)
        run += (For(step, full.attr if full.is_const else full, SERIAL, (*hints, update(row))),)
        if not (n.is_const and n.attr % STRIPE == 0):
            last = full * STRIPE + stripe
            run += (If(last < n, (update(last),)),)
        run += (each((Store(partials, (stripe * width + inside,), s.load(acc, inside)),)),)
        body: Body = (For(stripe, STRIPE, SERIAL, (Alloc(acc, run),)),)
        half = STRIPE // 2
        while half:
            low, high = (stripe * width + inside,), ((stripe + half) * width + inside,)
            both = combine(self.combiner, s.load(partials, *low), s.load(partials, *high))
            body += (For(stripe, half, SERIAL, (each((Store(partials, low, both),)),)),)
            half //= 2
        body += (each(self.finish(s.load(partials, inside), destination), True),)
        steps = [f"split({var.attr}, {width}, {lanes})", f"unroll({vector.attr})",
                 f"vectorize({lane.attr}, {lanes})", f"stripe(r, {STRIPE})"]  # fmt: skip
        if hints:
            steps.append("prefetch(k)")
        blocks = (extent + (width - 1)) // width
        return (Alloc(partials, body),), [*self.outer[:-1], (block, blocks)], steps

    def vectors_per_row(self, value: Expr, available: int) -> int:
        """Up to 8, while the tasks are enough for some threads and the loop body stays short."""
        cost = operations((Store(_scratch_like(self.item), (_ZERO,), value),))
        tasks = size(self.x.seen(n) for _, n in self.outer[:-1])
        vectors = 8
        while vectors > 1 and (
            vectors * cost > 64 or vectors > available or tasks * available // vectors < 8
        ):
            vectors //= 2
        return vectors

    def all_stripes(
        self, value: Expr, column: Expr, count: Any, destination: Any
    ) -> tuple[Body, Axes, list[str]]:
        """A vector of neighbouring outputs at a time; STRIPE of them hold the partial results."""
        dtype = self.item.value.dtype
        lanes = max(2, self.target.lanes * 4 // max(4, dtype.size_bytes))
        var, extent = self.outer[-1]
        block, lane = s.var(f"{var.attr}.o"), s.var(f"{var.attr}.i")
        acc = Buffer("acc", dtype, (STRIPE * lanes,), "register")
        blocks = (extent + (lanes - 1)) // lanes
        position = block * lanes + lane
        masked = not (isinstance(extent, int) and extent % lanes == 0)
        here = {var: position}
        stripe, step = s.var("l"), s.var("k")
        n = s.index(count)
        full = n // STRIPE

        def guarded(body: Body) -> Body:
            return (If(position < extent, body),) if masked else body

        def update(stripe_index: Expr, r: Expr) -> Body:
            at = (stripe_index * lanes + lane,)
            new = scalar_visit.substitute(value, {column: r, **here})
            return guarded((Store(acc, at, combine(self.combiner, s.load(acc, *at), new)),))

        def vector(body: Body) -> For:
            return For(lane, lanes, VECTORIZE, body)

        start = Store(acc, (stripe * lanes + lane,), neutral(self.combiner, acc))
        body: Body = (For(stripe, STRIPE, UNROLL, (vector((start,)),)),)
        main = For(stripe, STRIPE, UNROLL, (vector(update(stripe, step * STRIPE + stripe)),))
        if not (full.is_const and full.attr == 0):
            body += (For(step, full.attr if full.is_const else full, SERIAL, (main,)),)
        if n.is_const:
            rest = n.attr % STRIPE
            if rest:
                done = n.attr - rest
                body += (For(stripe, rest, UNROLL, (vector(update(stripe, done + stripe)),)),)
        else:
            tail = vector(update(stripe, full * STRIPE + stripe))
            body += (
                For(stripe, STRIPE, UNROLL, (If(full * STRIPE + stripe < n, (tail,)),)),
            )
        half = STRIPE // 2
        while half:
            low, high = (stripe * lanes + lane,), ((stripe + half) * lanes + lane,)
            both = combine(self.combiner, s.load(acc, *low), s.load(acc, *high))
            body += (For(stripe, half, UNROLL, (vector((Store(acc, low, both),)),)),)
            half //= 2
        stores = self.finish(s.load(acc, lane), destination)
        body += (vector(guarded(loop_visit.substitute_vars(stores, here))),)
        steps = [f"split({var.attr}, {lanes})", f"vectorize({lane.attr}, {lanes})",
                 f"stripe(r, {STRIPE})", f"unroll({stripe.attr})"]  # fmt: skip
        return (Alloc(acc, body),), [*self.outer[:-1], (block, blocks)], steps


_LONG = 1 << 30


def _stride(value: Expr, var: Expr) -> int | None:
    """Stride of the load that walks the most memory along ``var``."""
    best: tuple[int, int] | None = None
    for load in scalar_visit.loads(value):
        form = scalar_visit.linear(load.args[0], (var,))
        if form is None:
            return None
        stride = form.coefficients.get(var, 0)
        length = load.attr.shape[0]
        if not isinstance(length, int):
            length = _LONG  # an argument
        if isinstance(stride, int):
            best = max(best or (0, 0), (length, stride))
    return best[1] if best else None
