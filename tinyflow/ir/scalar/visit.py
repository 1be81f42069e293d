"""Walks over scalar expressions: order, rebuilding, variables, affine form, index simplification.

Main functions: ``postorder``, ``transform``, ``substitute``, ``linear``, ``simplify_index``.
Imports core and ir.scalar.nodes. All walks are iterative and visit a shared expression once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from tinyflow.core.dtype import bool_
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar.nodes import Expr, Reduction


def postorder(*roots: Expr) -> Iterator[Expr]:
    """Every sub-expression of the roots once, arguments before users, left to right.

    Extents of a ``reduce`` are part of its attribute and are not visited.
    """
    entered: set[Expr] = set()
    finished: set[Expr] = set()
    stack = list(roots[::-1])
    while stack:
        expr = stack[-1]
        args = expr.args
        if not args or expr in entered:
            stack.pop()
            if expr not in finished:
                finished.add(expr)
                yield expr
            continue
        entered.add(expr)
        stack += [arg for arg in args[::-1] if arg not in finished]


def rebuild(expr: Expr, args: tuple[Expr, ...]) -> Expr:
    """The same operation on other arguments, through the simplifying constructors of nodes.py."""
    if args == expr.args:
        return expr
    builder = _BUILDERS.get(expr.op)
    if builder is not None:
        return builder(expr, *args)
    return s.make(expr.op, args, args[0].dtype if _follows_first(expr) else expr.dtype, expr.attr)


def _follows_first(expr: Expr) -> bool:
    return expr.op in ("call", "fma", "dot_pairs", "checked", "reduce", "fold") and bool(expr.args)


_BUILDERS: dict[str, Callable[..., Expr]] = {
    **dict.fromkeys(s.BINARY, lambda e, a, b: s.binary(e.op, a, b)),
    **dict.fromkeys(s.COMPARE, lambda e, a, b: s.compare(e.op, a, b)),
    **dict.fromkeys(s.UNARY, lambda e, a: s.unary(e.op, a)),
    "select": lambda e, c, a, b: s.select(c, a, b),
    "cast": lambda e, a: s.cast(a, e.dtype),
    "bitcast": lambda e, a: s.bitcast(a, e.dtype),
}


def transform(expr: Expr, fn: Callable[[Expr], Expr | None]) -> Expr:
    """``expr`` rebuilt bottom-up; ``fn`` sees each rebuilt node, None from it means "keep"."""
    return transform_all((expr,), fn)[0]


def transform_all(roots: Iterable[Expr], fn: Callable[[Expr], Expr | None]) -> list[Expr]:
    """``transform`` of several expressions that share sub-expressions."""
    roots = tuple(roots)
    new: dict[Expr, Expr] = {}
    for node in postorder(*roots):
        rebuilt = rebuild(node, tuple([new[a] for a in node.args]))
        replacement = fn(rebuilt)
        new[node] = rebuilt if replacement is None else replacement
    return [new[root] for root in roots]


def substitute(expr: Expr, mapping: Mapping[Expr, Expr]) -> Expr:
    """``expr`` with every key of ``mapping`` (variables or any sub-expression) replaced at once.

    Axes of a ``reduce`` are bound: inside it they are not replaced; its extents are.
    """
    if not expr.args:
        return mapping.get(expr, expr)
    if not mapping:
        return expr
    if expr.op == "reduce":
        return _substitute_reduce(expr, mapping)
    new: dict[Expr, Expr] = {}
    for node in postorder(expr):
        found = mapping.get(node)
        if found is None:
            found = rebuild(node, tuple([new[a] for a in node.args]))
        new[node] = found
    return new[expr]


def _substitute_reduce(expr: Expr, mapping: Mapping[Expr, Expr]) -> Expr:
    if expr in mapping:
        return mapping[expr]
    reduction: Reduction = expr.attr
    bound = {axis for axis, _ in reduction.axes}
    inner = {key: value for key, value in mapping.items() if key not in bound}
    axes = tuple(
        (axis, substitute(extent, mapping) if isinstance(extent, Expr) else extent)
        for axis, extent in reduction.axes
    )
    return s.reduce(reduction.combiner, axes, *(substitute(a, inner) for a in expr.args))


def free_vars(*roots: Expr) -> tuple[Expr, ...]:
    """The variables that are needed, in order of first use; axes of a ``reduce`` are bound."""
    found: dict[Expr, None] = {}
    for root in roots:
        if root.op == "reduce":
            bound = {axis for axis, _ in root.attr.axes}
            inside = [v for v in free_vars(*root.args) if v not in bound]
            extents = [e for _, e in root.attr.axes if isinstance(e, Expr)]
            found.update(dict.fromkeys((*inside, *free_vars(*extents))))
        else:
            found.update((node, None) for node in postorder(root) if node.op == "var")
    return tuple(found)


def is_checked(expr: Expr) -> bool:
    """Whether computing it may report an error."""
    return bool(expr.args) and any(node.op == "checked" for node in postorder(expr))


def put_in(body: Expr, mapping: Mapping[Expr, Expr]) -> Expr:
    """``substitute``, where what replaces a variable is checked even if the body has no use for it:
    a constant has no element at an index out of range, either.
    """
    found = substitute(body, mapping)
    checked = {var: new for var, new in mapping.items() if is_checked(new)}
    if checked:
        for var in set(checked).difference(free_vars(body)):
            for check in [node for node in postorder(checked[var]) if node.op == "checked"]:
                _, ok, got, limit = check.args
                found = s.checked(found, ok, got, limit, check.attr)
    return found


def loads(*roots: Expr) -> tuple[Expr, ...]:
    """All ``load`` sub-expressions, in order of first use."""
    return tuple(node for node in postorder(*roots) if node.op == "load")


def reads(*roots: Expr) -> tuple[Expr, ...]:
    """All ``read`` sub-expressions, in order of first use."""
    return tuple(node for node in postorder(*roots) if node.op == "read")


# --- affine form ----------------------------------------------------------------------------------


class Linear(NamedTuple):
    """offset + sum(coefficient * variable); ints where known, else free of the variables.

    coefficients: only variables that occur; a coefficient is never the int 0.
    """

    coefficients: dict[Expr, Expr | int]
    offset: Expr | int


def plain(value: Expr) -> Any:
    """A literal's number; any other expression as it is."""
    return value.attr if value.op == "const" else value


def linear(expr: Expr, variables: Iterable[Expr]) -> Linear | None:
    """``expr`` as an affine function of ``variables``, or None when it is not one.

    linear(i*N + 4*j + m, (i, j)) == Linear({i: N, j: 4}, m). Index arithmetic does not wrap.
    """
    wanted = frozenset(variables)
    forms: dict[Expr, tuple[dict[Expr, Expr], Expr] | None] = {}
    for node in postorder(expr):
        forms[node] = _linear_node(node, wanted, forms)
    form = forms[expr]
    if form is None:
        return None
    coefficients = {v: plain(c) for v, c in form[0].items() if not (c.is_const and c.attr == 0)}
    return Linear(coefficients, plain(form[1]))


_Form = tuple[dict[Expr, Expr], Expr]


def _linear_node(
    node: Expr, wanted: frozenset[Expr], forms: Mapping[Expr, _Form | None]
) -> _Form | None:
    if node in wanted:
        return {node: s.const(1, node.dtype)}, s.const(0, node.dtype)
    parts = [forms[a] for a in node.args]
    if all(part is not None and not part[0] for part in parts):
        return {}, node
    if node.op in ("add", "sub"):
        a, b = parts
        if a is None or b is None:
            return None
        combine = s.add if node.op == "add" else s.sub
        zero = s.const(0, node.dtype)
        names = dict.fromkeys((*a[0], *b[0]))
        sums = {v: combine(a[0].get(v, zero), b[0].get(v, zero)) for v in names}
        return sums, combine(a[1], b[1])
    if node.op == "neg" and parts[0] is not None:
        return _scaled(parts[0], s.const(-1, node.dtype))
    if node.op == "mul":
        for form, factor in (parts, parts[::-1]):
            if form is not None and factor is not None and not factor[0]:
                return _scaled(form, factor[1])
    return None


def _scaled(form: _Form, factor: Expr) -> _Form:
    return {v: s.mul(c, factor) for v, c in form[0].items()}, s.mul(form[1], factor)


# --- index simplification -------------------------------------------------------------------------

Bound = tuple[int | None, "int | Expr | None"]
_Terms = tuple[dict[Expr, int], int]  # atom -> coefficient, and the constant term


def simplify_index(expr: Expr, bounds: Mapping[Expr, Bound]) -> Expr:
    """An equal, usually shorter, integer or bool expression, given ``lo <= v <= hi`` for variables.

    bounds: v -> (lo, hi), both inclusive, None for "unknown"; hi may be an expression (``N - 1``).

    (i*c + j) // c -> i and (i*c + j) % c -> j       when 0 <= j < c
    (x // a) // b  -> x // (a*b)                      a, b constants > 0
    (x // a)*a + x % a -> x
    min, max, comparisons, select                     when the intervals decide
    Sub-expressions that are not index arithmetic (loads, floats) are kept, their arguments
    simplified. Index arithmetic does not wrap, so this is for indices, not for user integers.
    """
    return _Simplifier(bounds).run(expr)


def interval(expr: Expr, bounds: Mapping[Expr, Bound]) -> tuple[float, float]:
    """Numbers that an integer expression lies between, both inclusive; infinite where unknown."""
    simplifier = _Simplifier(bounds)
    low, high = simplifier.range_of(expr)
    other_low, other_high = simplifier.range_of_terms(simplifier.sum_of(expr))
    return max(low, other_low), min(high, other_high)


class _Simplifier:
    """One run of simplify_index: sums in normal form and intervals, each computed once."""

    def __init__(self, bounds: Mapping[Expr, Bound]) -> None:
        self.bounds = bounds
        self.terms: dict[Expr, _Terms] = {}
        self.ranges: dict[Expr, tuple[float, float]] = {}

    def run(self, expr: Expr) -> Expr:
        return transform(expr, self.visit)

    def visit(self, node: Expr) -> Expr | None:
        if node.op in s.COMPARE and node.args[0].dtype.name == "int64":
            return self.compare(node)
        if node.dtype.name != "int64":
            return None
        if node.op in ("add", "sub", "mul", "neg"):
            return self.build(self.sum_of(node))
        if node.op in ("floordiv", "mod"):
            return self.divide(node)
        if node.op in ("min", "max"):
            a, b = node.args
            lo, hi = self.range_of_terms(_plus(self.sum_of(a), self.sum_of(b), -1))
            if hi <= 0 or lo >= 0:
                return a if (hi <= 0) == (node.op == "min") else b
        return None

    def compare(self, node: Expr) -> Expr | None:
        a, b = node.args
        lo, hi = self.range_of_terms(_plus(self.sum_of(a), self.sum_of(b), -1))
        yes, no = {
            "lt": (hi < 0, lo >= 0),
            "le": (hi <= 0, lo > 0),
            "eq": (lo == hi == 0, lo > 0 or hi < 0),
            "ne": (lo > 0 or hi < 0, lo == hi == 0),
        }[node.op]
        return s.const(bool(yes), bool_) if yes or no else None

    # Normal form: a sum of integer multiples of atoms (anything that is not + - * by a constant).

    def sum_of(self, expr: Expr) -> _Terms:
        found = self.terms.get(expr)
        if found is None:
            for node in postorder(expr):
                if node not in self.terms:
                    self.terms[node] = self._sum_of_node(node)
            found = self.terms[expr]
        return found

    def _sum_of_node(self, node: Expr) -> _Terms:
        if node.op == "const":
            return {}, node.attr
        if node.dtype.name == "int64":
            if node.op in ("add", "sub"):
                sign = 1 if node.op == "add" else -1
                return _plus(self.terms[node.args[0]], self.terms[node.args[1]], sign)
            if node.op == "neg":
                return _plus(({}, 0), self.terms[node.args[0]], -1)
            if node.op == "mul":
                return self._product(node)
        return {node: 1}, 0

    def _product(self, node: Expr) -> _Terms:
        a, b = (self.terms[arg] for arg in node.args)
        if not a[0]:
            return _plus(({}, 0), b, a[1])
        if not b[0]:
            return _plus(({}, 0), a, b[1])
        # Distribute over a symbolic factor, so that (i*H + h)*N and i*H*N + h*N are one sum.
        if len(b[0]) > 1 or b[1]:
            a, b = b, a
        if len(b[0]) > 1 or b[1]:
            return {node: 1}, 0
        ((factor, scale),) = b[0].items()
        total: _Terms = ({factor: a[1] * scale} if a[1] else {}, 0)
        for atom, c in a[0].items():
            total = _plus(total, ({s.mul(atom, factor): c * scale}, 0), 1)
        return total

    def build(self, terms: _Terms) -> Expr:
        """The sum as an expression; atoms keep the order in which they first appeared."""
        atoms, constant = _recombined(*terms)
        total: Expr | None = None
        for atom, c in atoms.items():
            if total is None:
                total = s.mul(atom, s.index(c))
            elif c < 0:
                total = s.sub(total, s.mul(atom, s.index(-c)))
            else:
                total = s.add(total, s.mul(atom, s.index(c)))
        return s.index(constant) if total is None else s.add(total, s.index(constant))

    def divide(self, node: Expr) -> Expr | None:
        """a // b or a % b: the multiples of b leave the remainder."""
        a, b = node.args
        if b.op != "const":
            return self._divide_symbolic(node)
        c = b.attr
        if c <= 0:
            return None
        atoms, constant = _recombined(*self.sum_of(a))
        whole = {t: k // c for t, k in atoms.items() if k % c == 0}
        part = {t: k for t, k in atoms.items() if k % c}
        rest: _Terms = (part, constant % c)
        lo, hi = self.range_of_terms(rest)
        # The constant may belong to either side: i*8 + (j - 1) with 1 <= j <= 8.
        if not 0 <= lo <= hi < c:
            other: _Terms = (part, constant)
            low, high = self.range_of_terms(other)
            if 0 <= low <= high < c:
                rest, lo, hi = other, low, high
        quotient: _Terms = (whole, (constant - rest[1]) // c)
        if 0 <= lo <= hi < c:
            return self.build(quotient) if node.op == "floordiv" else self.build(rest)
        inner = self.build(rest)
        if node.op == "mod":
            return s.mod(self._without_multiple(inner, c), b)
        if inner.op == "floordiv" and inner.args[1].op == "const" and inner.args[1].attr > 0:
            inner, c = inner.args[0], c * inner.args[1].attr
        return s.add(self.build(quotient), s.floordiv(inner, s.index(c)))

    @staticmethod
    def _without_multiple(expr: Expr, c: int) -> Expr:
        """x % (k*c), taken mod c again, is x."""
        if expr.op == "mod" and expr.args[1].op == "const":
            outer = expr.args[1].attr
            if outer > 0 and outer % c == 0:
                return expr.args[0]
        return expr

    def _divide_symbolic(self, node: Expr) -> Expr | None:
        a, b = node.args
        atoms, constant = self.sum_of(a)
        quotient: _Terms = ({}, 0)
        rest: dict[Expr, int] = {}
        for atom, c in atoms.items():
            if atom is b:
                quotient = _plus(quotient, ({}, c), 1)
            elif atom.op == "mul" and b in atom.args:
                other = atom.args[0] if atom.args[1] is b else atom.args[1]
                quotient = _plus(quotient, self.sum_of(other), c)
            else:
                rest[atom] = c
        if not self._below(rest, constant, b):
            return None
        return self.build(quotient if node.op == "floordiv" else (rest, constant))

    def _below(self, rest: dict[Expr, int], constant: int, limit: Expr) -> bool:
        """Whether 0 <= rest + constant < limit is known for a symbolic limit (>= 1 by itself)."""
        if not rest:
            return constant == 0 and self.range_of(limit)[0] >= 1
        if len(rest) > 1 or constant:
            return False
        ((atom, c),) = rest.items()
        lo, hi = self.bounds.get(atom, (None, None))
        return c == 1 and lo is not None and lo >= 0 and isinstance(hi, Expr) and hi + 1 is limit

    # Intervals: floats only for the infinities; finite bounds stay ints.

    def range_of(self, expr: Expr) -> tuple[float, float]:
        found = self.ranges.get(expr)
        if found is None:
            for node in postorder(expr):
                if node not in self.ranges:
                    self.ranges[node] = self._range_of_node(node)
            found = self.ranges[expr]
        return found

    def range_of_terms(self, terms: _Terms) -> tuple[float, float]:
        low: float = terms[1]
        high: float = terms[1]
        for atom, c in terms[0].items():
            lo, hi = self.range_of(atom)
            low += _times(lo if c > 0 else hi, c)
            high += _times(hi if c > 0 else lo, c)
        return low, high

    def _range_of_node(self, node: Expr) -> tuple[float, float]:
        if node.op == "const" and node.dtype.kind != "float":
            return int(node.attr), int(node.attr)
        if node in self.bounds:
            low, high = self.bounds[node]
            return (
                -_INF if low is None else low,
                _INF if high is None or isinstance(high, Expr) else high,
            )
        kind = node.dtype.kind
        if kind not in ("int", "uint"):
            return (0, 1) if kind == "bool" else (-_INF, _INF)
        rule = _RANGES.get(node.op)
        known = (-_INF, _INF)
        if rule is not None:
            known = rule(node, *(self.ranges[a] for a in node.args))
        is_index = node.dtype.name == "int64"
        fits = node.dtype.min <= known[0] and known[1] <= node.dtype.max
        if fits or (is_index and node.op != "cast"):
            return known
        # It may have wrapped around; what a short integer can hold bounds it all the same.
        return (-_INF, _INF) if is_index else (node.dtype.min, node.dtype.max)


_INF = float("inf")


def _plus(a: _Terms, b: _Terms, factor: int) -> _Terms:
    """a + factor * b"""
    atoms = dict(a[0])
    if factor:
        for atom, c in b[0].items():
            total = atoms.get(atom, 0) + c * factor
            if total:
                atoms[atom] = total
            else:
                del atoms[atom]
    return atoms, a[1] + b[1] * factor


def _recombined(atoms: dict[Expr, int], constant: int) -> _Terms:
    """k*a*(x // a) + k*(x % a) -> k*x, the inverse of splitting an index."""
    for atom, k in list(atoms.items()):
        if atom.op == "mod" and atom.args[1].op == "const" and atom in atoms:
            x, divisor = atom.args
            quotient = s.floordiv(x, divisor)
            if divisor.attr > 0 and atoms.get(quotient) == k * divisor.attr:
                rest = {t: c for t, c in atoms.items() if t is not atom and t is not quotient}
                atoms, constant = _plus((rest, constant), ({x: k}, 0), 1)
    return atoms, constant


def _times(a: float, b: float) -> float:
    return 0 if a == 0 or b == 0 else a * b  # an unknown bound times zero is zero, not NaN


def _range_mul(node: Expr, a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    corners = [_times(x, y) for x in a for y in b]
    return min(corners), max(corners)


def _range_floordiv(
    node: Expr, a: tuple[float, float], b: tuple[float, float]
) -> tuple[float, float]:
    if b[0] <= 0:
        return -_INF, _INF
    corners = [x if abs(x) == _INF else x // y for x in a for y in b if y != _INF]
    if b[1] == _INF:
        corners += [0 if x >= 0 else -1 for x in a]
    return min(corners), max(corners)


def _range_mod(node: Expr, a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    if b[0] <= 0:
        return -_INF, _INF
    if a[0] >= 0 and a[1] < b[0]:
        return a
    return 0, min(b[1] - 1, a[1]) if a[0] >= 0 else b[1] - 1


_RANGES: dict[str, Callable[..., tuple[float, float]]] = {
    "add": lambda n, a, b: (a[0] + b[0], a[1] + b[1]),
    "sub": lambda n, a, b: (a[0] - b[1], a[1] - b[0]),
    "neg": lambda n, a: (-a[1], -a[0]),
    "mul": _range_mul,
    "floordiv": _range_floordiv,
    "mod": _range_mod,
    "min": lambda n, a, b: (min(a[0], b[0]), min(a[1], b[1])),
    "max": lambda n, a, b: (max(a[0], b[0]), max(a[1], b[1])),
    "select": lambda n, c, a, b: (min(a[0], b[0]), max(a[1], b[1])),
    "cast": lambda n, a: a,
}
