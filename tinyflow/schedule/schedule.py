"""Schedule steps: verified rewrites of a loop nest that never change what it computes.

Main type: ``Schedule``. Every step appends one line to ``steps``; ``explain`` prints them.
May import core, ir and schedule.stripes.

A loop is named by its variable. Steps that make loops name them after the old one: splitting ``i``
gives ``i.o`` (outer), ``i.i`` (inner) and ``i.t`` (the tail). stages.py adds what a schedule of
tensor expressions has on top of this.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

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
    Call,
    Extent,
    For,
    If,
    Stmt,
    Store,
)
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.schedule.stripes import (
    accumulates,
    combine,
    neutral,
    reduction_of,
    striped,
    takes_any_order,
)
from tinyflow.te.canonical import STRIPE

__all__ = ["Schedule", "ScheduleError", "combine", "neutral", "reduction_of"]


class ScheduleError(InternalError):
    """A step whose legality condition does not hold."""


def _expr(extent: Extent) -> Expr:
    return s.index(extent)


def _stride(index: Expr, var: Expr) -> Extent | None:
    """How far an index moves per iteration; None when it does not move evenly."""
    form = scalar_visit.linear(index, (var,))
    return None if form is None else form.coefficients.get(var, 0)


def guarded(body: Body, condition: Expr) -> Body:
    """Every store and call of the body under the condition; loops stay as they are."""

    def one(stmt: Stmt) -> Stmt:
        return If(condition, (stmt,)) if isinstance(stmt, (Store, Call)) else stmt

    return visit.map_statements(body, one)


def _why_not_swapped(outer: For, inner: For) -> str | None:
    """The dependence that swapping two loops would break, if there is one."""
    extent = inner.extent
    if isinstance(extent, Expr) and outer.var in scalar_visit.free_vars(extent):
        return f"the extent of {inner.var.attr} depends on {outer.var.attr}"
    body = inner.body
    local = set(visit.allocated(body))
    read = set(visit.buffers_read(body))
    for store in visit.collect(body, Store):
        if store.buffer in local:
            continue
        if accumulates(store) is None:
            if store.buffer in read and not _own_element(body, store, outer.var, inner.var):
                return f"{store.buffer} is read and written"
            continue
        over = {outer.var, inner.var} - set(scalar_visit.free_vars(*store.indices))
        if len(over) == 2 and not takes_any_order(store):
            return (
                f"both fold into {store.buffer}, whose {store.buffer.dtype} "
                f"{accumulates(store)} would be added up in another order"
            )
    return None


def _own_element(body: Body, store: Store, *variables: Expr) -> bool:
    """Whether each iteration of the loops over ``variables`` uses one element, and no other does.

    A nest writes each element of a tensor once, so indices with all the variables differ.
    """
    loads = [e for e in visit.all_expressions(body) if e.op == "load" and e.attr is store.buffer]
    used = {e.args for e in loads} | {store.indices}
    return len(used) == 1 and set(variables) <= set(scalar_visit.free_vars(*store.indices))


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
                last: Body = (For(tail, factor, SERIAL, (If(done + tail < n, rest),)),)
                new += last if n.is_const else (If(done < n, last),)
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

        Legal when the loops are nested alone, no iteration reads what another one writes, and no
        element gets the steps of a floating-point sum in another order.
        """
        outer, inner = self.loop(outer_name), self.loop(inner_name)
        if outer.body != (inner,):
            raise ScheduleError(f"reorder({outer_name}, {inner_name}): not nested alone")
        refused = self.why_not_swapped(outer, inner)
        if outer.kind == PARALLEL:
            refused = f"{outer_name} is parallel and must stay outermost"
        if refused is not None:
            raise ScheduleError(f"reorder({outer_name}, {inner_name}): {refused}")
        swapped = For(
            inner.var,
            inner.extent,
            inner.kind,
            (For(outer.var, outer.extent, outer.kind, inner.body),),
        )
        self.replace(outer, (swapped,))
        self.note(f"reorder({inner_name}, {outer_name})")

    def order(self, names: Sequence[str]) -> None:
        """The loops of one nest in this order, outermost first; other loops keep their places.

        Where a loop is not alone in the one outside it (the start value of a reduction stands
        before its loop), the outer one is distributed first. Legal as the swaps it takes.
        """
        chain = self.nest_of(names)
        places = [n for n, name in enumerate(chain) if name in names]
        wanted = list(chain)
        for place, name in zip(places, names, strict=True):
            wanted[place] = name
        before, count = self.body, len(self.steps)
        try:
            for position, name in enumerate(wanted):
                for n in range(chain.index(name), position, -1):
                    self._alone(chain[n - 1], chain[n])
                    self.reorder(chain[n - 1], chain[n])
                    chain[n - 1 : n + 1] = chain[n], chain[n - 1]
        except ScheduleError:
            self.body = before
            del self.steps[count:]
            raise
        del self.steps[count:]
        self.note(f"reorder({', '.join(names)})")

    def nest_of(self, names: Sequence[str]) -> list[str]:
        """The loops from the outermost to the innermost of the named ones, one inside the other.

        Errors: ScheduleError when they do not stand in one another.
        """
        if len(set(names)) != len(names):
            raise ScheduleError(f"reorder({', '.join(names)}): a loop is named twice")
        inside = {name: self._loops_inside(name) for name in names}
        ordered = sorted(names, key=lambda name: -len(inside[name]))
        for first, second in itertools.pairwise(ordered):
            if second not in inside[first]:
                raise ScheduleError(
                    f"reorder({', '.join(names)}): {second} does not stand inside {first}",
                    choices=inside[first],
                )
        last = ordered[-1]
        between = [x for x in inside[ordered[0]] if x == last or last in self._loops_inside(x)]
        return [ordered[0], *between]

    def _loops_inside(self, name: str) -> list[str]:
        return [str(x.var.attr) for x in visit.collect(self.loop(name).body, For)]

    def _alone(self, outer_name: str, inner_name: str) -> None:
        """Distributes the outer loop until the inner one is all there is in it."""
        outer, inner = self.loop(outer_name), self.loop(inner_name)
        if outer.body == (inner,):
            return
        if inner not in outer.body or outer.body[-1] is not inner:
            raise ScheduleError(
                f"reorder({outer_name}, {inner_name}): something is computed inside {outer_name} "
                f"that {inner_name} needs"
            )
        self.distribute(outer_name)

    def why_not_swapped(self, outer: For, inner: For) -> str | None:
        """The dependence that swapping two loops would break, if there is one."""
        return _why_not_swapped(outer, inner)

    def distribute(self, name: str) -> str:
        """for i: A(i); B(i)  ->  for i.init: A(i.init);  for i: B(i).  B is the last statement.

        Legal when every iteration of A writes its own elements and A reads nothing that B writes.
        """
        loop = self.loop(name)
        first, last = loop.body[:-1], loop.body[-1:]
        for store in visit.collect(first, Store):
            if loop.var not in scalar_visit.free_vars(*store.indices):
                raise ScheduleError(
                    f"distribute({name}): {store.buffer} gets a new value in every iteration"
                )
        common = set(visit.buffers_read(first)) & set(visit.buffers_written(last))
        if common:
            raise ScheduleError(
                f"distribute({name}): {', '.join(sorted(b.name for b in common))} is read before "
                "another iteration writes it"
            )
        own = s.var(self.fresh(f"{name}.init"))
        front = visit.substitute_vars(first, {loop.var: own})
        self.replace(
            loop,
            (
                For(own, loop.extent, SERIAL, front),
                For(loop.var, loop.extent, loop.kind, last),
            ),
        )
        self.note(f"distribute({name})")
        return str(own.attr)

    def taken(self) -> set[str]:
        """Names that a new loop must not have."""
        return {str(x.var.attr) for x in visit.collect(self.body, For)}

    def fresh(self, name: str) -> str:
        """The name, or with a number if something has it."""
        taken = self.taken()
        candidate, count = name, 1
        while candidate in taken:
            count += 1
            candidate = f"{name}{count}"
        return candidate

    def guarded_split(
        self, name: str, factor: int, parts: int | None = None
    ) -> tuple[str, str]:
        """for i in n  ->  for i.o in ceil(n/factor): for i.i in factor: if i < n: ...

        parts: iterations of the outer loop, if more than needed.
        The guard stands at the innermost statements, so that the loops stay nested alone.
        Legal always: the order of iterations is kept.
        """
        loop = self.loop(name)
        outer, inner = (s.var(self.fresh(f"{name}.{part}")) for part in "oi")
        n = _expr(loop.extent)
        at = outer * factor + inner
        body = visit.substitute_vars(loop.body, {loop.var: at})
        count = scalar_visit.plain((n + (factor - 1)) // factor) if parts is None else parts
        if not (n.is_const and isinstance(count, int) and count * factor == n.attr):
            body = guarded(body, at < n)
        self.replace(loop, (For(outer, count, SERIAL, (For(inner, factor, SERIAL, body),)),))
        self.note(f"split({name}, {factor})")
        return str(outer.attr), str(inner.attr)

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
    def stripe(self, name: str, longest: int | None = None) -> None:
        """Give every reduction of a loop its canonical order (te/canonical.py), vectorised.

        A = init; for r in R: A = A + x[r]
          ->  acc[0:16] = init; for r.o in R//16: acc[l] = acc[l] + x[r.o*16 + l], l = 0..15;
              the masked tail;  A = fold(acc)
        Other statements of the loop come along, 16 iterations at a time.
        longest: the most iterations of a loop whose extent only a run tells.
        """
        loop = self.loop(name)
        result, reductions = striped(loop, longest)
        self.replace(loop, result)
        for store in reductions:
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
