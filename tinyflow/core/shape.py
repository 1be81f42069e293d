"""Static shapes: known, partly known, or of unknown rank.

A dimension is an ``int`` or a ``Dim``, a polynomial with integer coefficients over named unknown
extents (``N``, ``2*N+1``). A shape is a tuple of dimensions, or None when the rank is unknown.
May be imported by everything; imports core.error only.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tinyflow.core.error import AxisError, ShapeError

Monomial = tuple[str, ...]  # the sorted names of the factors; () is the constant term


class Dim:
    """An extent that is not known yet: a polynomial over symbols, e.g. ``2*N+1``.

    Equal polynomials are equal dimensions; different ones may still turn out equal at run time.
    """

    __slots__ = ("terms",)

    def __init__(self, terms: dict[Monomial, int]) -> None:
        self.terms = tuple(sorted((m, c) for m, c in terms.items() if c))

    @staticmethod
    def symbol(name: str) -> Dim:
        return Dim({(name,): 1})

    @property
    def symbols(self) -> frozenset[str]:
        return frozenset(name for monomial, _ in self.terms for name in monomial)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dim) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(self.terms)

    def __add__(self, other: Dimension) -> Dimension:
        if _stands_for_itself(other):
            return NotImplemented
        terms = dict(self.terms)
        for monomial, coefficient in _terms(other):
            terms[monomial] = terms.get(monomial, 0) + coefficient
        return _simplest(terms)

    __radd__ = __add__

    def __neg__(self) -> Dimension:
        return _simplest({m: -c for m, c in self.terms})

    def __sub__(self, other: Dimension) -> Dimension:
        return NotImplemented if _stands_for_itself(other) else self + (-other)

    def __rsub__(self, other: Dimension) -> Dimension:
        return (-self) + other

    def __mul__(self, other: Dimension) -> Dimension:
        if _stands_for_itself(other):
            return NotImplemented
        terms: dict[Monomial, int] = {}
        for m1, c1 in self.terms:
            for m2, c2 in _terms(other):
                key = tuple(sorted(m1 + m2))
                terms[key] = terms.get(key, 0) + c1 * c2
        return _simplest(terms)

    __rmul__ = __mul__

    def __floordiv__(self, other: Dimension) -> Dimension:
        if _stands_for_itself(other):
            return NotImplemented
        if other == 1:
            return self
        quotient = exact_quotient(self, other)
        if quotient is not None:
            return quotient
        name = f"({self}//{other})"
        _quotients[name] = self, other
        return opaque(name)

    def __rfloordiv__(self, other: Dimension) -> Dimension:
        return opaque(f"({other}//{self})")

    def __str__(self) -> str:
        parts = []
        for monomial, coefficient in sorted(self.terms, key=lambda t: (-len(t[0]), t[0])):
            name = "*".join(monomial)
            if not monomial:
                parts.append(f"{coefficient:+d}")
            elif abs(coefficient) == 1:
                parts.append(("+" if coefficient > 0 else "-") + name)
            else:
                parts.append(f"{coefficient:+d}*{name}")
        return "".join(parts).removeprefix("+")

    __repr__ = __str__


def _stands_for_itself(other: Any) -> bool:
    """A scalar expression: it knows how to compute with extents, not the other way round."""
    return hasattr(other, "is_const")


#: opaque quotients by name: (dividend, divisor)
_quotients: dict[str, tuple[Any, Any]] = {}


#: opaque results of ``broadcast_dim`` by name: the two extents
_broadcasts: dict[str, tuple[Any, Any]] = {}


def broadcast_parts(symbol: str) -> tuple[Any, Any] | None:
    """The two extents that broadcast to the one that a symbol stands for."""
    return _broadcasts.get(symbol)


def quotient_parts(symbol: str) -> tuple[Any, Any] | None:
    """(dividend, divisor) of a symbol that stands for ``dividend // divisor``."""
    return _quotients.get(symbol)


def evaluate(dim: Any, sizes: Mapping[str, int]) -> int | None:
    """The extent for these values of the symbols; None when one of them is not among them."""
    if not isinstance(dim, Dim):
        return int(dim)
    total = 0
    for monomial, coefficient in dim.terms:
        product = coefficient
        for symbol in monomial:
            value = sizes.get(symbol)
            if value is None:
                parts = _quotients.get(symbol)
                if parts is None:
                    return None
                dividend, divisor = (evaluate(part, sizes) for part in parts)
                if dividend is None or not divisor:
                    return None
                value = dividend // divisor
            product *= value
        total += product
    return total


def symbols_of(attribute: Any) -> frozenset[str]:
    """The symbols that an attribute (nested tuples of extents) depends on, through quotients."""
    if type(attribute) is tuple:
        return frozenset().union(*map(symbols_of, attribute))
    if not isinstance(attribute, Dim):
        return frozenset()
    parts = [_quotients.get(symbol) for symbol in attribute.symbols]
    own = {x for x in attribute.symbols if x not in _quotients}
    return frozenset(own).union(*(symbols_of(p) for p in parts if p is not None))


def substituted(attribute: Any, sizes: Mapping[str, int]) -> Any:
    """An attribute (nested tuples of extents) with the known symbols replaced by numbers."""
    if isinstance(attribute, Dim):
        extent = evaluate(attribute, sizes)
        return attribute if extent is None else extent
    if type(attribute) is tuple:
        return tuple([substituted(part, sizes) for part in attribute])
    return attribute


class Condition(NamedTuple):
    """That ``dim`` is at most ``limit`` (or is not): a decision that a step for all sizes took."""

    dim: Dim
    limit: int
    holds: bool

    def is_met(self, sizes: Mapping[str, int]) -> bool:
        extent = evaluate(self.dim, sizes)
        return extent is not None and (extent <= self.limit) is self.holds

    def __str__(self) -> str:
        return f"{self.dim} {'<=' if self.holds else '>'} {self.limit}"


class _Strict(threading.local):
    on = False
    sizes: Mapping[str, int] = {}
    conditions: list[Condition] = []


_strict = _Strict()


@contextlib.contextmanager
def strictly(sizes: Mapping[str, int] | None = None) -> Iterator[list[Condition]]:
    """Inside, no extent is taken to be another one: what only some run could tell is an error.

    Outside, an unknown extent that meets a known one is presumed to agree with it, which a run
    checks; a step that serves all sizes is built inside. sizes: some of a run; what is decided by
    them (``at_most``) is noted in the list, for all other sizes to be held against.
    """
    before = _strict.on, _strict.sizes, _strict.conditions
    _strict.on, _strict.sizes, _strict.conditions = True, sizes or {}, []
    try:
        yield _strict.conditions
    finally:
        _strict.on, _strict.sizes, _strict.conditions = before


def _refuse(a: Any, b: Any) -> None:
    if _strict.on and (isinstance(a, Dim) or isinstance(b, Dim)):
        raise ShapeError(f"only a run can tell whether {a} and {b} agree")


def at_most(a: Dimension, b: Dimension) -> bool:
    """Whether a <= b, for extents of at least 0.

    Where only a run can tell: what is true of the sizes that a step for all sizes is made with,
    which becomes a condition of it. Errors: ShapeError where there are no such sizes.
    """
    beyond = a - b
    if not isinstance(beyond, Dim):
        return beyond <= 0
    if _never_negative(-beyond):
        return True
    if _never_negative(beyond - 1):
        return False
    (limit, *_), rest = [-c for m, c in beyond.terms if not m] or [0], dict(beyond.terms)
    rest.pop((), None)
    dim = Dim(rest)
    extent = evaluate(dim, _strict.sizes)
    if extent is None:
        raise ShapeError(f"only a run can tell whether {a} is at most {b}")
    _strict.conditions.append(Condition(dim, limit, extent <= limit))
    return extent <= limit


def are_equal(a: Dimension, b: Dimension) -> bool:
    """Whether a == b; decided as ``at_most`` decides."""
    return a == b or (at_most(a, b) and at_most(b, a))


def _never_negative(dim: Dimension) -> bool:
    """Whether this is at least 0 because all symbols are."""
    return all(c >= 0 and all(map(_is_count, monomial)) for monomial, c in _terms(dim))


def _is_count(symbol: str) -> bool:
    return all(map(_never_negative, _quotients.get(symbol, ())))


def least(extent: Any, number: Any) -> Any:
    """``min(extent, number)``; a step for all sizes is one for extents of ``number`` or more.

    The pass ``specialize`` checks that for every set of sizes (``fits``). A number that is an
    extent itself is compared as ``at_most`` does.
    """
    if isinstance(number, Dim):
        if _strict.on and at_most(0, number):
            return number if at_most(number, extent) else extent
    elif isinstance(extent, int):
        return min(extent, number)
    elif _strict.on:
        return number
    return opaque(f"min({extent},{number})")


Dimension = int | Dim
Shape = tuple[Dimension, ...] | None


def _terms(dim: Dimension) -> Iterable[tuple[Monomial, int]]:
    return dim.terms if isinstance(dim, Dim) else (((), dim),)


def _simplest(terms: dict[Monomial, int]) -> Dimension:
    dim = Dim(terms)
    if not dim.terms:
        return 0
    if len(dim.terms) == 1 and dim.terms[0][0] == ():
        return dim.terms[0][1]
    return dim


def opaque(name: str) -> Dim:
    """An unknown extent that is no polynomial of the others (``N//2``, ``max(N, M)``)."""
    return Dim.symbol(name)


def exact_quotient(dividend: Dimension, divisor: Dimension) -> Dimension | None:
    """``dividend / divisor`` when it is a polynomial with integer coefficients, else None."""
    if isinstance(dividend, int) and isinstance(divisor, int):
        return dividend // divisor if divisor and dividend % divisor == 0 else None
    if dividend == divisor:
        return 1
    divisor_terms = list(_terms(divisor))
    if len(divisor_terms) != 1:
        return None
    (names, coefficient), quotient = divisor_terms[0], {}
    if coefficient == 0:
        return None
    for monomial, c in _terms(dividend):
        rest = list(monomial)
        for name in names:
            if name not in rest:
                return None
            rest.remove(name)
        if c % coefficient:
            return None
        quotient[tuple(rest)] = c // coefficient
    return _simplest(quotient)


def is_static(shape: Shape) -> bool:
    """Whether rank and all extents are known."""
    if shape is None:
        return False
    for d in shape:  # noqa: SIM110 - asked for every value by every pass: no generator
        if type(d) is not int:
            return False
    return True


def size_of(shape: Sequence[Dimension]) -> Dimension:
    """Number of elements."""
    total: Dimension = 1
    for dim in shape:
        total = total * dim
    return total


def normalize_axis(axis: int, rank: int, op: str = "") -> int:
    """``axis`` counted from the front. Errors: AxisError outside [-rank, rank)."""
    if not -rank <= axis < rank:
        valid = "none (the input is a scalar)" if rank == 0 else f"{-rank} to {rank - 1}"
        raise AxisError(
            f"{op and op + ': '}axis {axis} is outside a rank {rank} input",
            expected=f"an axis out of: {valid}, got {axis}",
        )
    return axis + rank if axis < 0 else axis


def normalize_axes(axes: Any, rank: int, op: str = "") -> tuple[int, ...]:
    """Sorted distinct axes counted from the front; None means all. Errors: AxisError."""
    if axes is None:
        return tuple(range(rank))
    if not isinstance(axes, (tuple, list)):
        axes = (axes,)
    normal = [normalize_axis(int(a), rank, op) for a in axes]
    if len(set(normal)) != len(normal):
        raise AxisError(f"{op and op + ': '}axes {tuple(axes)} name one axis twice")
    return tuple(sorted(normal))


def broadcast_dim(a: Dimension, b: Dimension) -> Dimension | None:
    """The extent of one broadcast axis; None when the two can never agree."""
    if a == b:
        return a
    if a == 1:
        return b
    if b == 1:
        return a
    if isinstance(a, int) and isinstance(b, int):
        return None
    _refuse(a, b)
    # An unknown extent against a known one above 1 must be that extent (or 1) at run time.
    if isinstance(a, int):
        return a
    if isinstance(b, int):
        return b
    joined = opaque(f"max({a},{b})")
    _broadcasts[str(joined)] = a, b
    return joined


def broadcast_shapes(a: Shape, b: Shape) -> Shape:
    """NumPy's broadcast of two shapes. Errors: ShapeError."""
    if a is None or b is None:
        return None
    rank = max(len(a), len(b))
    out = []
    for i in range(-rank, 0):
        da = a[i] if -i <= len(a) else 1
        db = b[i] if -i <= len(b) else 1
        dim = broadcast_dim(da, db)
        if dim is None:
            raise ShapeError(f"shapes {show(a)} and {show(b)} do not broadcast: {da} against {db}")
        out.append(dim)
    return tuple(out)


def merge_dim(a: Dimension, b: Dimension) -> Dimension | None:
    """The more definite of two extents that must be equal; None when they cannot be."""
    if a == b:
        return a
    if isinstance(a, int) and isinstance(b, int):
        return None
    _refuse(a, b)
    return a if isinstance(a, int) else b if isinstance(b, int) else a


def merge_shapes(a: Shape, b: Shape) -> Shape:
    """The more definite of two shapes that must be equal. Errors: ShapeError."""
    if a is None or b is None:
        return b if a is None else a
    if len(a) != len(b):
        raise ShapeError(f"shapes {show(a)} and {show(b)} differ in rank")
    merged = tuple(merge_dim(x, y) for x, y in zip(a, b, strict=True))
    if None in merged:
        raise ShapeError(f"shapes {show(a)} and {show(b)} differ")
    return merged  # type: ignore[return-value]


def show(shape: Shape) -> str:
    """``[32, 784]``, ``[N, 10]``, ``[...]`` for an unknown rank."""
    return "[...]" if shape is None else "[" + ", ".join(map(str, shape)) + "]"
