"""Schedule steps: verified rewrites of a loop nest that never change what it computes.

Main type: ``Schedule``. Every step appends one line to ``steps``; ``explain`` prints them.
May import core, ir and te.canonical.

A loop is named by its variable. Steps that make loops name them after the old one: splitting ``i``
gives ``i.o`` (outer), ``i.i`` (inner) and ``i.t`` (the tail).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tinyflow.core.error import InternalError
from tinyflow.ir.loop import visit
from tinyflow.ir.loop.nodes import (
    PARALLEL,
    SERIAL,
    UNROLL,
    VECTORIZE,
    Alloc,
    Body,
    Buffer,
    Extent,
    For,
    If,
    Stmt,
    Store,
)
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.te.canonical import CHUNK, STRIPE


class ScheduleError(InternalError):
    """A step whose legality condition does not hold."""


def _expr(extent: Extent) -> Expr:
    return s.index(extent)


def _stride(index: Expr, var: Expr) -> Extent | None:
    """How far an index moves per iteration; None when it does not move evenly."""
    form = scalar_visit.linear(index, (var,))
    return None if form is None else form.coefficients.get(var, 0)


_COMBINE: dict[str, Callable[[Expr, Expr], Expr]] = {
    "sum": s.add,
    "prod": s.mul,
    "max": s.maximum,
    "min": s.minimum,
    "all": lambda a, b: s.binary("and", a, b),
    "any": lambda a, b: s.binary("or", a, b),
}
_COMBINER_OF = {"add": "sum", "mul": "prod", "max": "max", "min": "min", "and": "all", "or": "any"}


def combine(combiner: str, a: Expr, b: Expr) -> Expr:
    """One step of a reduction."""
    return _COMBINE[combiner](a, b)


def neutral(combiner: str, like: Buffer) -> Expr:
    """The value that a reduction starts from."""
    dtype = like.dtype
    if combiner in ("sum", "dot", "any"):
        return s.const(0, dtype)
    if combiner in ("prod", "all"):
        return s.const(1, dtype)
    if dtype.kind == "float":
        return s.const(float("-inf") if combiner == "max" else float("inf"), dtype)
    return s.const(dtype.min if combiner == "max" else dtype.max, dtype)


def reduction_of(store: Stmt) -> str | None:
    """The combiner of ``A[i] = combine(A[i], ...)``; None for any other statement."""
    if not isinstance(store, Store) or len(store.value.args) != 2:
        return None
    first = store.value.args[0]
    if first.op == "load" and first.attr is store.buffer and first.args == store.indices:
        return _COMBINER_OF.get(store.value.op)
    return None


class Schedule:
    """A loop nest under construction.

    >>> from tinyflow.core.dtype import float32
    >>> from tinyflow.ir.loop.text import show_body
    >>> A, i = Buffer("A", float32, (10,)), s.var("i")
    >>> schedule = Schedule((For(i, 10, "serial", (Store(A, (i,), s.const(0, float32)),)),))
    >>> print(show_body(schedule.body))
    for i in serial(10):
      A[i] = 0.0
    >>> schedule.split("i", 4)
    ('i.o', 'i.i', 'i.t')
    >>> print(show_body(schedule.body))
    for i.o in serial(2):
      for i.i in serial(4):
        A[i.o * 4 + i.i] = 0.0
    for i.t in serial(2):
      A[i.t + 8] = 0.0
    """

    def __init__(self, body: Body) -> None:
        self.body = body
        self.steps: list[str] = []

    # ---- finding and replacing -----------------------------------------------------------------
    def loop(self, name: str) -> For:
        """The loop over the variable of that name. Errors: ScheduleError lists what there is."""
        names = []
        for stmt in visit.walk(self.body):
            if isinstance(stmt, For):
                if stmt.var.attr == name:
                    return stmt
                names.append(stmt.var.attr)
        raise ScheduleError(f"there is no loop {name}", choices=names)

    def replace(self, target: Stmt, new: Body) -> None:
        """Put ``new`` where the statement ``target`` (this very object) stands."""

        def inside(body: Body) -> tuple[Body, bool]:
            for n, stmt in enumerate(body):
                if stmt is target:
                    return body[:n] + new + body[n + 1 :], True
                parts = visit.bodies(stmt)
                for k, part in enumerate(parts):
                    changed, found = inside(part)
                    if found:
                        rebuilt = visit.with_bodies(
                            stmt, parts[:k] + (changed,) + parts[k + 1 :]
                        )
                        return body[:n] + (rebuilt,) + body[n + 1 :], True
            return body, False

        self.body, found = inside(self.body)
        if not found:
            raise ScheduleError("the statement to replace is not in the nest")

    def note(self, text: str) -> None:
        self.steps.append(text)

    # ---- loop structure ------------------------------------------------------------------------
    def split(
        self, name: str, factor: int, masked: bool = False
    ) -> tuple[str, str, str | None]:
        """for i in n  ->  for i.o in n//factor: for i.i in factor;  and the tail for i.t.

        masked: the tail runs ``factor`` times under ``if i < n`` so that it can be vectorised.
        Legal always: the order of iterations is kept.
        """
        loop = self.loop(name)
        outer, inner, tail = (s.var(f"{name}.{part}") for part in "oit")
        n = _expr(loop.extent)
        full = n // factor
        done = full * factor
        main = visit.substitute_vars(loop.body, {loop.var: outer * factor + inner})
        new: list[Stmt] = []
        if not (full.is_const and full.attr == 0):
            body: Body = (For(inner, factor, SERIAL, main),)
            if full.is_const and full.attr == 1:
                new += visit.substitute_vars(body, {outer: s.index(0)})
            else:
                new.append(For(outer, scalar_visit.plain(full), SERIAL, body))
        has_tail = not (n.is_const and n.attr % factor == 0)
        if has_tail:
            rest = visit.substitute_vars(loop.body, {loop.var: done + tail})
            if masked:
                new.append(For(tail, factor, SERIAL, (If(done + tail < n, rest),)))
            else:
                new.append(For(tail, scalar_visit.plain(n - done), SERIAL, rest))
        self.replace(loop, tuple(new))
        self.note(f"split({name}, {factor})")
        return str(outer.attr), str(inner.attr), str(tail.attr) if has_tail else None

    def block(self, name: str, size: int) -> tuple[str, str]:
        """for i in n  ->  for i.o in ceil(n/size): for i.i in min(size, n - i.o*size).

        Like split, with one inner loop of varying extent instead of a separate tail: for loops
        whose outer part is handed to threads.
        """
        loop = self.loop(name)
        outer, inner = s.var(f"{name}.o"), s.var(f"{name}.i")
        n = _expr(loop.extent)
        count = (n + (size - 1)) // size
        extent = (
            s.index(size)
            if n.is_const and n.attr % size == 0
            else s.minimum(s.index(size), n - outer * size)
        )
        body = visit.substitute_vars(loop.body, {loop.var: outer * size + inner})
        self.replace(
            loop,
            (
                For(
                    outer,
                    scalar_visit.plain(count),
                    SERIAL,
                    (For(inner, scalar_visit.plain(extent), SERIAL, body),),
                ),
            ),
        )
        self.note(f"block({name}, {size})")
        return str(outer.attr), str(inner.attr)

    def fuse(self, outer_name: str, inner_name: str) -> str:
        """for i in m: for j in n  ->  for i.j in m*n,  i = i.j // n,  j = i.j % n.

        Legal when the inner loop is all there is in the outer one.
        """
        outer, inner = self.loop(outer_name), self.loop(inner_name)
        if outer.body != (inner,):
            raise ScheduleError(f"fuse({outer_name}, {inner_name}): the loops are not nested alone")
        fused = s.var(f"{outer_name}_{inner_name}")
        n = _expr(inner.extent)
        body = visit.substitute_vars(
            inner.body, {outer.var: fused // n, inner.var: fused % n}
        )
        extent = scalar_visit.plain(_expr(outer.extent) * n)
        self.replace(outer, (For(fused, extent, SERIAL, body),))
        self.note(f"fuse({outer_name}, {inner_name})")
        return str(fused.attr)

    def reorder(self, outer_name: str, inner_name: str) -> None:
        """for i: for j: body  ->  for j: for i: body.

        Legal when the loops are perfectly nested and no iteration reads what another one writes.
        """
        outer, inner = self.loop(outer_name), self.loop(inner_name)
        if outer.body != (inner,):
            raise ScheduleError(f"reorder({outer_name}, {inner_name}): not nested alone")
        for store in visit.collect(inner.body, Store):
            if reduction_of(store) is None and store.buffer in visit.buffers_read(inner.body):
                raise ScheduleError(
                    f"reorder({outer_name}, {inner_name}): {store.buffer} is read and written"
                )
        swapped = For(
            inner.var,
            inner.extent,
            inner.kind,
            (For(outer.var, outer.extent, outer.kind, inner.body),),
        )
        self.replace(outer, (swapped,))
        self.note(f"reorder({inner_name}, {outer_name})")

    def tile(self, i: str, j: str, rows: int, columns: int) -> tuple[str, str, str, str]:
        """split both loops and bring the inner parts inside: i.o, j.o, i.i, j.i.

        Legal as reorder; extents must be multiples of the tile.
        """
        io, ii, it = self.split(i, rows)
        jo, ji, jt = self.split(j, columns)
        if it or jt:
            raise ScheduleError(f"tile({i}, {j}): extents must be multiples of {rows}, {columns}")
        self.reorder(ii, jo)
        return io, jo, ii, ji

    # ---- how a loop runs -----------------------------------------------------------------------
    def _mark(self, name: str, kind: str) -> None:
        loop = self.loop(name)
        self.replace(loop, (For(loop.var, loop.extent, kind, loop.body),))

    def unroll(self, name: str) -> None:
        """Repeat the body for every value. Legal for constant extents."""
        if isinstance(self.loop(name).extent, Expr):
            raise ScheduleError(f"unroll({name}): its extent is known only at run time")
        self._mark(name, UNROLL)
        self.note(f"unroll({name})")

    def parallel(self, name: str) -> None:
        """Hand the iterations to threads. Legal outermost, when iterations are independent."""
        if self.loop(name) not in self.body:
            raise ScheduleError(f"parallel({name}): only an outermost loop can be parallel")
        self._mark(name, PARALLEL)
        self.note(f"parallel({name})")

    def vectorize(self, name: str, lanes: int) -> None:
        """Run ``lanes`` iterations at once; the tail is masked.

        for i in n: body  ->  for i.o in n//lanes: for i.i in vectorize(lanes): body; masked i.t
        """
        loop = self.loop(name)
        if loop.extent == lanes:
            self._mark(name, VECTORIZE)
        else:
            count = len(self.steps)
            _, inner, tail = self.split(name, lanes, masked=True)
            if isinstance(loop.extent, Expr) or loop.extent >= lanes:
                self._mark(inner, VECTORIZE)
            if tail is not None:
                self._mark(tail, VECTORIZE)
            del self.steps[count:]
        self.note(f"vectorize({name}, {lanes})")

    # ---- where things happen -------------------------------------------------------------------
    def compute_at(self, producer: str, consumer: str) -> None:
        """Run the body of one loop at the start of each iteration of a later one.

        for i: A(i);  for j: B(j)   ->   for j: A(j); B(j)
        Legal when the extents agree and B(j) reads of A's results only what A(j) wrote.
        """
        first, second = self.loop(producer), self.loop(consumer)
        if first.extent != second.extent:
            raise ScheduleError(
                f"compute_at({producer}, {consumer}): extents {first.extent}, {second.extent}"
            )
        moved = visit.substitute_vars(first.body, {first.var: second.var})
        strides = {
            (stmt.buffer, _stride(stmt.indices[0], first.var))
            for stmt in visit.collect(first.body, Store)
        }
        written = {buffer for buffer, _ in strides}
        for expr in visit.all_expressions((second,)):
            for load in scalar_visit.loads(expr):
                if load.attr not in written or first.extent == 1:
                    continue
                if (load.attr, _stride(load.args[0], second.var)) not in strides:
                    raise ScheduleError(
                        f"compute_at({producer}, {consumer}): {load} is another iteration's result"
                    )
        self.replace(first, ())
        self.replace(
            self.loop(consumer), (For(second.var, second.extent, second.kind, moved + second.body),)
        )
        self.note(f"compute_at({producer}, {consumer})")

    def shrink(self, buffer: Buffer, name: str, scope: str) -> Buffer:
        """Keep only the part of a temporary buffer that one iteration of a loop uses.

        Legal when every access is inside the loop with its variable as the first index.
        """
        loop = self.loop(name)
        smaller = Buffer(buffer.name, buffer.dtype, buffer.shape[1:] or (1,), scope)

        def trimmed(indices: tuple[Expr, ...]) -> tuple[Expr, ...]:
            if indices[0] is not loop.var:
                raise ScheduleError(f"shrink({buffer.name}, {name}): used across iterations")
            return indices[1:] or (s.index(0),)

        def expression(expr: Expr) -> Expr:
            def one(e: Expr) -> Expr | None:
                if e.op == "load" and e.attr is buffer:
                    return s.load(smaller, *trimmed(e.args))
                return None

            return scalar_visit.transform(expr, one)

        def statement(stmt: Stmt) -> Stmt:
            if isinstance(stmt, Store) and stmt.buffer is buffer:
                return Store(smaller, trimmed(stmt.indices), stmt.value)
            return stmt

        body = visit.map_statements(visit.map_expressions(loop.body, expression), statement)
        self.replace(loop, (For(loop.var, loop.extent, loop.kind, (Alloc(smaller, body),)),))
        self.note(f"shrink({buffer.name}, {name}, {scope})")
        return smaller

    # ---- canonical reductions ------------------------------------------------------------------
    def stripe(self, name: str) -> None:
        """Give every reduction of a loop its canonical order (te/canonical.py), vectorised.

        A = init; for r in R: A = A + x[r]
          ->  acc[0:16] = init; for r.o in R//16: acc[l] = acc[l] + x[r.o*16 + l], l = 0..15;
              the masked tail;  A = fold(acc)
        Other statements of the loop come along, 16 iterations at a time.
        """
        loop = self.loop(name)
        lane = s.var(f"{name}.l")
        partials: list[tuple[Store, str, Buffer]] = []

        def statement(stmt: Stmt) -> Stmt:
            combiner = reduction_of(stmt)
            if combiner is None:
                return stmt
            assert isinstance(stmt, Store)
            acc = Buffer(f"{stmt.buffer.name}.acc", stmt.buffer.dtype, (STRIPE,), "register")
            partials.append((stmt, combiner, acc))
            value = combine(combiner, s.load(acc, lane), stmt.value.args[1])
            return Store(acc, (lane,), value)

        body = tuple(statement(stmt) for stmt in loop.body)
        n = _expr(loop.extent)
        long = not n.is_const or n.attr > CHUNK
        result: Body = _striped_sweep(loop.var, lane, body, n, partials, name)
        if long:
            result = _chunked(loop.var, body, lane, n, partials, name)
        else:
            result += tuple(
                Store(st.buffer, st.indices, s.fold(c, acc)) for st, c, acc in partials
            )
            for _, _, acc in reversed(partials):
                result = (Alloc(acc, result),)
        self.replace(loop, result)
        for store, _, _ in partials:
            self._drop_initial(store)
        self.note(f"stripe({name}, {STRIPE})")

    def _drop_initial(self, store: Store) -> None:
        """Remove ``A = init`` of a reduction that now ends with ``A = fold(acc)``."""
        for stmt in visit.collect(self.body, Store):
            if (
                stmt.buffer is store.buffer
                and stmt.indices == store.indices
                and stmt.value.op == "const"
            ):
                self.replace(stmt, ())
                return


def _init(partials: Iterable[tuple[Store, str, Buffer]], lane: Expr) -> Body:
    return tuple(
        For(lane, STRIPE, VECTORIZE, (Store(acc, (lane,), neutral(c, acc)),))
        for _, c, acc in partials
    )


def _striped_sweep(
    var: Expr,
    lane: Expr,
    body: Body,
    n: Expr,
    partials: list[tuple[Store, str, Buffer]],
    name: str,
    start: Expr | None = None,
) -> Body:
    """acc = init, then the loop over ``start .. start+n`` in steps of STRIPE with a masked tail."""
    outer = s.var(f"{name}.o")
    base = s.index(0) if start is None else start
    full = n // STRIPE
    done = full * STRIPE
    out: Body = _init(partials, lane)
    if _takes_any_order(body, partials) and full.is_const and full.attr % GATHER == 0:
        gathered = _gathered(var, lane, body, partials[0], base, outer)
        out += (For(outer, full.attr // GATHER, SERIAL, (gathered,)),)
    elif not (full.is_const and full.attr == 0):
        main = visit.substitute_vars(body, {var: base + outer * STRIPE + lane})
        vector: Body = (For(lane, STRIPE, VECTORIZE, main),)
        if full.is_const and full.attr == 1:
            out += visit.substitute_vars(vector, {outer: s.index(0)})
        else:
            out += (For(outer, scalar_visit.plain(full), SERIAL, vector),)
    if not (n.is_const and n.attr % STRIPE == 0):
        rest = visit.substitute_vars(body, {var: base + done + lane})
        out += (For(lane, STRIPE, VECTORIZE, (If(done + lane < n, rest),)),)
    return out


#: Vectors that a maximum takes from memory before it goes on from the accumulator.
GATHER = 4


def _takes_any_order(body: Body, partials: list[tuple[Store, str, Buffer]]) -> bool:
    """Whether the loop is one maximum or minimum: no order changes a bit of it."""
    return len(body) == 1 and len(partials) == 1 and partials[0][1] in ("max", "min")


def _gathered(
    var: Expr, lane: Expr, body: Body, partial: tuple[Store, str, Buffer], base: Expr, outer: Expr
) -> For:
    """acc = max(acc, max(max(x0, x1), max(x2, x3))): one step of acc for GATHER vectors.

    A maximum with NaN and signed zeros is several instructions long, and in a row that lies in the
    cache each would wait for the one before.
    """
    _, combiner, acc = partial
    (update,) = body
    assert isinstance(update, Store)
    terms = [
        scalar_visit.substitute(
            update.value.args[1], {var: base + (outer * GATHER + n) * STRIPE + lane}
        )
        for n in range(GATHER)
    ]
    while len(terms) > 1:
        terms = [combine(combiner, *terms[n : n + 2]) for n in range(0, len(terms), 2)]
    step = Store(acc, (lane,), combine(combiner, s.load(acc, lane), terms[0]))
    return For(lane, STRIPE, VECTORIZE, (step,))


def _chunked(
    var: Expr,
    body: Body,
    lane: Expr,
    n: Expr,
    partials: list[tuple[Store, str, Buffer]],
    name: str,
) -> Body:
    """The rule for more than CHUNK elements: chunk results are striped and folded once more."""
    chunk = s.var(f"{name}.c")
    count = (n + (CHUNK - 1)) // CHUNK
    length = s.minimum(s.index(CHUNK), n - chunk * CHUNK)
    totals = [
        Buffer(f"{store.buffer.name}.sum", acc.dtype, (STRIPE,), "stack")
        for store, _, acc in partials
    ]
    inner = _striped_sweep(var, lane, body, length, partials, name, chunk * CHUNK)
    inner += tuple(
        Store(total, (chunk % STRIPE,), combine(c, s.load(total, chunk % STRIPE), s.fold(c, acc)))
        for (_, c, acc), total in zip(partials, totals, strict=True)
    )
    for _, _, acc in reversed(partials):
        inner = (Alloc(acc, inner),)
    out: Body = tuple(
        For(lane, STRIPE, VECTORIZE, (Store(total, (lane,), neutral(c, total)),))
        for (_, c, _), total in zip(partials, totals, strict=True)
    )
    out += (For(chunk, scalar_visit.plain(count), SERIAL, inner),)
    for (store, c, acc), total in zip(partials, totals, strict=True):
        final = Buffer(acc.name, acc.dtype, (STRIPE,), "register")
        out += (
            Alloc(
                final,
                (
                    For(lane, STRIPE, VECTORIZE, (Store(final, (lane,), s.load(total, lane)),)),
                    Store(store.buffer, store.indices, s.fold(c, final)),
                ),
            ),
        )
    for total in reversed(totals):
        out = (Alloc(total, out),)
    return out
