"""Reductions: their combiners, and the canonical order (te/canonical.py) as loops.

Main functions: ``combine``, ``neutral``, ``reduction_of``, ``striped``. May import core, ir and
te.canonical.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tinyflow.ir.loop import visit
from tinyflow.ir.loop.nodes import (
    SERIAL,
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
from tinyflow.te.canonical import CHUNK, STRIPE

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


def accumulates(store: Store) -> str | None:
    """The combiner of a reduction's step, chains ``A[i] = fma(x, y, A[i])`` included ("dot")."""
    last = store.value.args[2] if store.value.op == "fma" else None
    if last is not None and last.op == "load" and last.attr is store.buffer:
        return "dot" if last.args == store.indices else None
    return reduction_of(store)


def takes_any_order(store: Store) -> bool:
    """Whether the order of a reduction's steps changes no bit: all but float sums and products."""
    return accumulates(store) in ("max", "min", "all", "any") or store.buffer.dtype.kind != "float"


def striped(loop: For, longest: int | None = None) -> tuple[Body, list[Store]]:
    """What Schedule.stripe puts in the place of a loop, and the reductions it found.

    longest: the most iterations, where only a run tells how many there are.
    """
    name = str(loop.var.attr)
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
    n = s.index(loop.extent)
    long = n.attr > CHUNK if n.is_const else longest is None or longest > CHUNK
    result: Body = _striped_sweep(loop.var, lane, body, n, partials, name)
    if long:
        result = _chunked(loop.var, body, lane, n, partials, name)
    else:
        result += tuple(
            Store(st.buffer, st.indices, s.fold(c, acc)) for st, c, acc in partials
        )
        for _, _, acc in reversed(partials):
            result = (Alloc(acc, result),)
    return result, [store for store, _, _ in partials]


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
    gathers = _takes_any_order(body, partials)
    main = visit.substitute_vars(body, {var: base + outer * STRIPE + lane})
    vector: Body = (For(lane, STRIPE, VECTORIZE, main),)
    if gathers and not (full.is_const and full.attr % GATHER):
        gathered = _gathered(var, lane, body, partials[0], base, outer)
        out += (For(outer, scalar_visit.plain(full // GATHER), SERIAL, (gathered,)),)
        if not full.is_const:
            one, first = s.var(f"{name}.g"), full // GATHER * GATHER
            rest = visit.substitute_vars(vector, {outer: first + one})
            out += (For(one, scalar_visit.plain(full - first), SERIAL, rest),)
    elif full.is_const and full.attr == 1:
        out += visit.substitute_vars(vector, {outer: s.index(0)})
    elif not (full.is_const and full.attr == 0):
        out += (For(outer, scalar_visit.plain(full), SERIAL, vector),)
    if not (n.is_const and n.attr % STRIPE == 0):
        rest = visit.substitute_vars(body, {var: base + done + lane})
        tail: Body = (For(lane, STRIPE, VECTORIZE, (If(done + lane < n, rest),)),)
        out += tail if n.is_const else (If(done < n, tail),)
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
