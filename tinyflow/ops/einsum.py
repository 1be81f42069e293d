"""Einstein summation: products of labelled axes, summed over the labels that the result lacks.

Main functions: ``einsum``, ``contraction_path``. May import ops.base and arithmetic families.

An equation becomes existing ops, so gradients, kernels and types follow: repeated labels of one
operand become a diagonal, labels that nobody else has a sum, and pairs of operands, cheapest first,
a product of matrices whose flags take the place of transposes where the axes stand right.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from tinyflow.core.error import InvalidArgumentError, ShapeError, Unsupported
from tinyflow.core.shape import merge_dim
from tinyflow.ops.base import Value, emit, to_value
from tinyflow.ops.contraction import BatchMatMul, MatMul
from tinyflow.ops.convert import identity
from tinyflow.ops.elementwise import multiply
from tinyflow.ops.movement import reshape, transpose
from tinyflow.ops.reduction import reduce_sum

__all__ = ["contraction_path", "einsum"]

#: stands for an extent nobody knows when costs are compared
TYPICAL_EXTENT = 64
#: up to this many operands every order of pairs is tried, above the cheapest pair is taken first
EXHAUSTIVE = 5

Labels = str


class _Operand:
    """A value and one label per axis."""

    __slots__ = ("labels", "value")

    def __init__(self, value: Value, labels: Labels) -> None:
        self.value = value
        self.labels = labels


# ---------------------------------------------------------------------- the equation


def _parse(equation: str, operands: Sequence[Value]) -> tuple[list[Labels], Labels]:
    """Labels per operand and of the result; the axes of "..." have labels of their own."""
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(operands):
        raise InvalidArgumentError(
            f'einsum: the equation "{equation}" is for {len(terms)} operands, got {len(operands)}'
        )
    letters = left.replace(",", "").replace("...", "")
    if not all(c.isalpha() and c.isascii() for c in letters + right.replace("...", "")):
        raise InvalidArgumentError(
            f'einsum: bad equation "{equation}"', expected="letters, commas, ..., and one ->",
            hint="tf.einsum('ij,jk->ik', a, b)",
        )  # fmt: skip
    widths = [_free_axes(t, x) for t, x in zip(terms, operands, strict=True)]
    wide = max((w for w in widths if w is not None), default=0)
    dots = "".join(map(chr, range(0x100, 0x100 + wide)))  # labels that no equation can contain
    inputs = [
        t.replace("...", dots[wide - (w or 0) :]) for t, w in zip(terms, widths, strict=True)
    ]
    if not arrow:  # every label that occurs once, in alphabetical order
        right = dots + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    result = right.replace("...", dots)
    if len(set(result)) != len(result) or not set(result) <= set("".join(inputs)):
        raise InvalidArgumentError(
            f'einsum: the result "{right}" of "{equation}" repeats a label or has one that no '
            "operand has"
        )
    return inputs, result


def _free_axes(term: str, x: Value) -> int | None:
    """How many axes "..." stands for in this term; None without it."""
    named = term.replace("...", "", 1)
    rank = x.type.rank
    if rank is None:
        raise Unsupported("einsum: a rank is unknown", received={"operand": x.type},
                          hint="tell it with set_shape")  # fmt: skip
    if "..." in term and rank >= len(named):
        return rank - len(named)
    if rank != len(named):
        raise ShapeError(
            f'einsum: "{term}" does not fit an operand of rank {rank}',
            received={"operand": x.type}, expected=f"rank {len(named)}",
        )  # fmt: skip
    return None


def _extents(terms: Sequence[Labels], operands: Sequence[Value]) -> dict[str, Any]:
    """The extent of every label. Errors: ShapeError where operands differ (1 stretches)."""
    found: dict[str, Any] = {}
    for labels, x in zip(terms, operands, strict=True):
        for label, extent in zip(labels, x.type.shape or (), strict=True):
            known = found.get(label, 1)
            if type(known) is int and known == 1:
                found[label] = extent
            elif not (type(extent) is int and extent == 1):
                merged = merge_dim(known, extent)
                if merged is None:
                    raise ShapeError(
                        f"einsum: label '{label}' has the extents {known} and {extent}",
                        received={f"operand {n}": v.type for n, v in enumerate(operands)},
                        expected="one extent per label",
                    )
                found[label] = merged
    return found


# ---------------------------------------------------------------------- the order of pairs


def _size(labels: Any, extents: dict[str, Any]) -> int:
    total = 1
    for label in labels:
        extent = extents[label]
        total *= extent if type(extent) is int else TYPICAL_EXTENT
    return total


def contraction_path(
    terms: Sequence[Labels], result: Labels, extents: dict[str, Any]
) -> list[tuple[int, int]]:
    """Pairs of positions to multiply, in order; the product goes to the end of the list.

    The cost of a pair is the number of its multiplications, then the size of its result: the
    least total of all orders for a few operands, the least next pair for many.
    """
    if len(terms) <= EXHAUSTIVE:
        return _best(tuple(terms), result, extents, {})[1]
    path, pending = [], list(terms)
    while len(pending) > 1:
        pair = min(
            itertools.combinations(range(len(pending)), 2),
            key=lambda p: _pair_cost(pending, p, result, extents),
        )
        path.append(pair)
        pending = _after(pending, pair, result)
    return path


def _after(pending: Sequence[Labels], pair: tuple[int, int], result: Labels) -> list[Labels]:
    rest = [t for n, t in enumerate(pending) if n not in pair]
    needed = set(result).union(*rest)
    both = pending[pair[0]] + pending[pair[1]]
    return [*rest, "".join(c for c in dict.fromkeys(both) if c in needed)]


def _pair_cost(
    pending: Sequence[Labels], pair: tuple[int, int], result: Labels, extents: dict[str, Any]
) -> tuple[int, int]:
    union = set(pending[pair[0]]) | set(pending[pair[1]])
    return _size(union, extents), _size(_after(pending, pair, result)[-1], extents)


def _best(
    terms: tuple[Labels, ...], result: Labels, extents: dict[str, Any], known: dict[Any, Any]
) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    """The least cost and its path. Recurses once per operand: EXHAUSTIVE bounds the depth."""
    if len(terms) < 2:
        return (0, 0), []
    if terms not in known:
        found = []
        for pair in itertools.combinations(range(len(terms)), 2):
            work, size = _pair_cost(terms, pair, result, extents)
            (more, sizes), path = _best(tuple(_after(terms, pair, result)), result, extents, known)
            found.append(((work + more, size + sizes), [pair, *path]))
        known[terms] = min(found, key=lambda f: f[0])
    return known[terms]  # type: ignore[no-any-return]


# ---------------------------------------------------------------------- pieces


def _diagonal(x: _Operand) -> _Operand:
    """Repeated labels: the first two axes of one become its diagonal, until none is left."""
    while len(set(x.labels)) < len(x.labels):
        label = next(c for c in x.labels if x.labels.count(c) > 1)
        first = x.labels.index(label)
        second = x.labels.index(label, first + 1)
        shape: Any = x.value.type.shape
        n = shape[first]
        if type(n) is not int or shape[second] != n:
            raise ShapeError(
                f"einsum: the axes of the repeated label '{label}' have extents {n} and "
                f"{shape[second]}",
                received={"operand": x.value.type}, expected="two equal, known extents",
            )  # fmt: skip
        rest = [d for d in range(len(shape)) if d not in (first, second)]
        moved = transpose(x.value, [first, second, *rest])
        flat = _regrouped(moved, [[0, 1], *[[2 + d] for d in range(len(rest))]])
        labels = label + "".join(x.labels[d] for d in rest)
        x = _Operand(flat[:: n + 1], labels)  # type: ignore[index]
    return x


def _regrouped(x: Value, groups: Sequence[Sequence[int]]) -> Value:
    """``x`` with the axes of each group joined (an empty group is an axis of 1)."""
    if all(len(g) == 1 for g in groups):
        return x
    from tinyflow.ops.shape import shape as shape_of

    shape: Any = x.type.shape
    sizes: list[Any] = []
    for group in groups:
        size: Any = 1
        for d in group:
            extent = shape[d] if type(shape[d]) is int else shape_of(x)[d]
            size = extent if type(size) is int and size == 1 else size * extent
        sizes.append(size)
    unknown = [n for n, size in enumerate(sizes) if isinstance(size, Value)]
    if unknown and all(type(s) is not int or s > 0 for s in sizes):
        sizes[unknown[0]] = -1
    return reshape(x, sizes)  # type: ignore[no-any-return]


def _prepared(x: _Operand, extents: dict[str, Any], needed: set[str]) -> _Operand:
    """Without stretched axes, repeated labels and labels that nothing else has."""
    shape: Any = x.value.type.shape
    stretched = [
        d for d, c in enumerate(x.labels)
        if type(shape[d]) is int and shape[d] == 1 and extents[c] != 1
    ]  # fmt: skip
    if stretched:
        kept = [d for d in range(len(shape)) if d not in stretched]
        flat = transpose(x.value, stretched + kept)
        first = len(stretched) + 1  # the axes of 1 join the first one that stays
        groups = [[*range(first)], *[[d] for d in range(first, len(shape))]]
        value = _regrouped(flat, groups) if kept else reshape(flat, ())
        x = _Operand(value, "".join(x.labels[d] for d in kept))
    x = _diagonal(x)
    lonely = [d for d, c in enumerate(x.labels) if c not in needed]
    if lonely:
        labels = "".join(c for c in x.labels if c in needed)
        x = _Operand(reduce_sum(x.value, tuple(lonely)), labels)
    return x


def _arranged(x: _Operand, order: Labels) -> Value:
    """The value with its axes in this order."""
    if x.labels == order:
        return x.value
    return transpose(x.value, [x.labels.index(c) for c in order])  # type: ignore[no-any-return]


def _broadcast(x: _Operand, order: Labels) -> Value:
    """The value with an axis of 1 for every label that it lacks."""
    own = "".join(c for c in order if c in x.labels)
    place = iter(range(len(own)))
    return _regrouped(_arranged(x, own), [[next(place)] if c in own else [] for c in order])


def _pair(a: _Operand, b: _Operand, needed: set[str], result: Labels) -> _Operand:
    """The product of two operands, summed over the labels that nothing else needs."""
    shared = [c for c in a.labels if c in b.labels]
    summed = "".join(c for c in shared if c not in needed)
    batch = "".join(c for c in shared if c in needed)
    rows = "".join(c for c in a.labels if c not in b.labels)
    columns = "".join(c for c in b.labels if c not in a.labels)
    if not summed or (not rows and not columns):
        order = "".join(c for c in result if c in batch + rows + columns)
        order += "".join(c for c in batch + rows + columns if c not in order)
        product = multiply(_broadcast(a, order + summed), _broadcast(b, order + summed))
        if summed:
            product = reduce_sum(product, tuple(range(len(order), len(order) + len(summed))))
        return _Operand(product, order)
    left, flip_left = _matrix(a, batch, rows, summed)
    right, flip_right = _matrix(b, batch, summed, columns)
    op = BatchMatMul if batch else MatMul
    product = emit(op(flip_left, flip_right), left, right)
    return _Operand(_split(product, (a, b), batch, rows, columns), batch + rows + columns)


def _matrix(x: _Operand, batch: Labels, rows: Labels, columns: Labels) -> tuple[Value, bool]:
    """The operand as [batch..., rows, columns], or with the last two exchanged and True."""
    flip = x.labels == batch + columns + rows and x.labels != batch + rows + columns
    first, second = (columns, rows) if flip else (rows, columns)
    value = _arranged(x, batch + first + second)
    cut = len(batch) + len(first)
    groups = [*[[d] for d in range(len(batch))], [*range(len(batch), cut)],
              [*range(cut, len(x.labels))]]  # fmt: skip
    return _regrouped(value, groups), flip


def _split(
    product: Value, sources: Sequence[_Operand], batch: Labels, rows: Labels, columns: Labels
) -> Value:
    """The product's two joined axes as one axis per label again."""
    if len(rows) == 1 == len(columns):
        return product
    from tinyflow.ops.shape import shape as shape_of

    def extent(label: str) -> Any:
        x = next(s for s in sources if label in s.labels)
        d = x.labels.index(label)
        known = x.value.type.shape[d]  # type: ignore[index]
        return known if type(known) is int else shape_of(x.value)[d]

    return reshape(product, [extent(c) for c in batch + rows + columns])  # type: ignore[no-any-return]


def einsum(equation: str, *inputs: Any, name: str | None = "einsum") -> Any:
    """The sum over all labels that stand left of "->" only of the products of the inputs.

    equation: "ij,jk->ik"; "..." stands for axes without a label, which broadcast; without "->" the
    result has the labels that occur once. A repeated label within an input is its diagonal.
    Errors: InvalidArgumentError for a bad equation, ShapeError for inputs that do not fit it,
    Unsupported for an unknown rank
    """
    operands = [to_value(x) for x in inputs]
    terms, result = _parse(equation, operands)
    extents = _extents(terms, operands)
    pending: list[_Operand] = []
    for n, (labels, value) in enumerate(zip(terms, operands, strict=True)):
        others = set(result).union(*(t for m, t in enumerate(terms) if m != n))
        pending.append(_prepared(_Operand(value, labels), extents, others))
    for first, second in contraction_path([x.labels for x in pending], result, extents):
        a, b = pending[first], pending[second]
        pending = [x for n, x in enumerate(pending) if n not in (first, second)]
        needed = set(result).union(*(x.labels for x in pending))
        if not pending:
            a, b = _in_result_order(a, b, result)
        pending.append(_pair(a, b, needed, result))
    return identity(_arranged(pending[0], result), name=name)


def _in_result_order(a: _Operand, b: _Operand, result: Labels) -> tuple[_Operand, _Operand]:
    """The last pair exchanged where the result has b's own labels before a's."""
    rows = [result.index(c) for c in a.labels if c not in b.labels and c in result]
    columns = [result.index(c) for c in b.labels if c not in a.labels and c in result]
    return (b, a) if rows and columns and max(columns) < min(rows) else (a, b)
