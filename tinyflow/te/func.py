"""Funcs in the manner of Halide: ``f[y, x] = ...``, then updates such as ``f[y, r.x] += ...``.

Main types: ``Func``, ``RDom``, ``Update``; ``Var`` makes variables. Imports core, ir.scalar and te.

A Func is defined for every integer coordinate; which part is computed follows from what is asked
for (bounds.py). Indices stand as in NumPy: the last one moves fastest in memory, and the last
dimension of an RDom runs innermost.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tinyflow.core.dtype import DType, bool_
from tinyflow.core.error import AxisError, DTypeError, InvalidArgumentError
from tinyflow.core.source import user_frame
from tinyflow.ir.scalar import nodes as scalar
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.te.tensor import Axis, Tensor, _free, as_index

#: letters of the dimensions of an RDom, the last one is x
_LETTERS = "wzyx"


class _Point(str):
    """The name of an RDom's variable: each RDom has its own, whatever others are called."""

    domain: weakref.ref[RDom]
    __eq__, __hash__ = object.__eq__, object.__hash__
    __ne__ = object.__ne__


def _domain_of(variable: Expr) -> RDom | None:
    return variable.attr.domain() if isinstance(variable.attr, _Point) else None


def Var(name: str) -> Expr:
    """A coordinate of a Func. Errors: InvalidArgumentError for i0, i1, ... (te.compute's axes)."""
    return scalar.var(_free(name))


class RDom(Axis):
    """The points that an update visits, in order, the last dimension fastest.

    RDom(n) is 0 .. n-1, RDom((low, n), m) is [low, low + n) x [0, m). Coordinates are ``r.x`` for
    the last dimension, ``r.y``, ``r.z``, ``r.w`` for those before it, or ``r[0]``, ``r[1]``, ...;
    with one dimension ``r`` stands for ``r.x``. Keep it in a variable while its Funcs are defined.
    """

    __slots__ = ("extents", "variables", "coordinates", "condition", "__weakref__")

    def __init__(self, *ranges: int | tuple[int, int], name: str = "r") -> None:
        spans = [(0, x) if isinstance(x, int) else tuple(x) for x in ranges]
        for span in spans:
            if len(span) != 2 or not all(type(n) is int for n in span) or span[1] < 0:
                raise InvalidArgumentError(
                    f"RDom: {name}: a range is an extent or (low, extent), got {span}",
                    source=user_frame(),
                )
        if not spans:
            raise InvalidArgumentError(f"RDom: {name} has no range", source=user_frame())
        self.extents = tuple(span[1] for span in spans)
        self.variables = tuple(scalar.var(self._named(n)) for n in _names(name, len(spans)))
        self.coordinates = tuple(v + span[0] for v, span in zip(self.variables, spans, strict=True))
        self.condition: Expr | None = None
        super().__init__(self.variables[-1], self.extents[-1], name)

    def _named(self, name: str) -> _Point:
        point = _Point(name)
        point.domain = weakref.ref(self)
        return point

    @property
    def expr(self) -> Expr:
        if len(self.coordinates) != 1:
            raise InvalidArgumentError(
                f"{self.name} has {len(self.coordinates)} dimensions and is no index",
                source=user_frame(), hint=f"use {self.name}.x or {self.name}[0]",
            )  # fmt: skip
        return self.coordinates[0]

    def __getitem__(self, position: int) -> Expr:
        return self.coordinates[position]

    def __iter__(self) -> Iterator[Expr]:
        return iter(self.coordinates)

    def _letter(self, letter: str) -> Expr:
        position = _LETTERS.index(letter) - len(_LETTERS)
        if -position > len(self.coordinates):
            raise AxisError(f"{self.name} has {len(self.coordinates)} dimensions and no {letter}")
        return self.coordinates[position]

    x = property(lambda self: self._letter("x"))
    y = property(lambda self: self._letter("y"))
    z = property(lambda self: self._letter("z"))
    w = property(lambda self: self._letter("w"))

    def where(self, condition: Expr) -> None:
        """Only points where the condition holds take part in updates defined from now on."""
        if not isinstance(condition, Expr) or condition.dtype is not bool_:
            raise InvalidArgumentError(
                f"{self.name}.where: got {condition!r}", expected="a condition on expressions",
                source=user_frame(), hint="a < b, a <= b, a.equal(b), a.not_equal(b), &, |, ~",
            )  # fmt: skip
        self.condition = condition if self.condition is None else self.condition & condition

    def __repr__(self) -> str:
        return f"rdom({self.name}: {'x'.join(map(str, self.extents))})"


def _names(name: str, rank: int) -> list[str]:
    letters = _LETTERS[-rank:] if rank <= len(_LETTERS) else [str(d) for d in range(rank)]
    return [f"{name}.{letter}" for letter in letters]


@dataclass(frozen=True, eq=False)
class Value:
    """One of the values that a Func has at every point; expressions read it."""

    name: str
    dtype: DType
    func: Func
    position: int


@dataclass(frozen=True, eq=False)
class Update:
    """``func[indices] = values`` at every point of the domain where the condition holds.

    pure: variables of the Func that stand at their own place in ``indices``: the update runs over
    all coordinates there, each by itself.
    """

    indices: tuple[Expr, ...]
    values: tuple[Expr, ...]
    pure: tuple[Expr, ...]
    domain: RDom | None = None
    condition: Expr | None = None

    @property
    def folded(self) -> tuple[tuple[Expr, int], ...]:
        """(variable, extent) of the domain's loops, outermost first."""
        if self.domain is None:
            return ()
        return tuple(zip(self.domain.variables, self.domain.extents, strict=True))

    @property
    def expressions(self) -> tuple[Expr, ...]:
        own = (*self.indices, *self.values)
        return own if self.condition is None else (*own, self.condition)


class Func:
    """A function of integer coordinates; its definitions are applied in order.

    The first one is pure: ``f[y, x] = expression of y and x``. Each later one is an update and may
    read what the Func was before: ``f[y, 0] = 1``, ``hist[image[r.y, r.x]] += 1``,
    ``f[r] = f[r - 1] + g[r]``. A Func may have several values: ``f[x] = (a, b)``; ``f[x]`` is then
    a tuple. Errors: InvalidArgumentError, AxisError or DTypeError, at the definition.
    """

    def __init__(self, name: str = "f") -> None:
        self.name = name
        self.vars: tuple[Expr, ...] = ()
        self.values: tuple[Value, ...] = ()
        self.pure: tuple[Expr, ...] = ()
        self.updates: list[Update] = []

    @property
    def rank(self) -> int:
        return len(self.vars)

    @property
    def dtypes(self) -> tuple[DType, ...]:
        return tuple(value.dtype for value in self.values)

    def __repr__(self) -> str:
        return f"func({self.name}[{', '.join(str(v.attr) for v in self.vars)}])"

    def __getitem__(self, indices: Any) -> Any:
        if not self.values:
            raise self._error("is read before it is defined", hint="f[x] = ... comes first")
        at = self._indices(indices)
        found = tuple(scalar.read(value, *at) for value in self.values)
        return found if len(found) > 1 else found[0]

    def __setitem__(self, indices: Any, values: Any) -> None:
        given = values if isinstance(values, tuple) else (values,)
        at = self._indices(indices)
        if self.values:
            self.updates.append(self._update(at, given))
        else:
            self._define(at, given)

    def _error(self, text: str, kind: Any = InvalidArgumentError, **parts: Any) -> Exception:
        return kind(f"{self.name} {text}", source=user_frame(), **parts)  # type: ignore[no-any-return]

    def _indices(self, indices: Any) -> tuple[Expr, ...]:
        given = indices if isinstance(indices, tuple) else (indices,)
        if self.values and len(given) != self.rank:
            raise self._error(f"has {self.rank} coordinates, got {len(given)}", AxisError)
        return tuple(as_index(i.expr if isinstance(i, Axis) else i) for i in given)

    def _define(self, at: tuple[Expr, ...], given: tuple[Any, ...]) -> None:
        plain = all(i.op == "var" and _domain_of(i) is None for i in at)
        if not plain or len(set(at)) != len(at):
            raise self._error(
                f"has no pure definition yet: its first one is at different Vars, got "
                f"[{', '.join(map(repr, at))}]", hint="f[x, y] = 0 gives it a start value",
            )  # fmt: skip
        values = tuple(scalar.as_expr(v) for v in given)
        if len(values) > 1 and any(v.op == "reduce" for v in values):
            raise self._error("has several values, none of which can be a sum",
                              hint="an update over an RDom folds several at once")  # fmt: skip
        unknown = [v for v in scalar_visit.free_vars(*values) if v not in at]
        if unknown:
            summed = isinstance(unknown[0].attr, _Point)
            raise self._error(
                f"is defined with {unknown[0].attr}, which is none of its coordinates",
                hint="f[x] = 0, then f[x] += ... in an update sums over an RDom" if summed
                else "a Func is a function of its coordinates only",
            )  # fmt: skip
        self.vars, self.pure = at, values
        self.values = tuple(
            Value(self.name if len(values) == 1 else f"{self.name}.{n}", v.dtype, self, n)
            for n, v in enumerate(values)
        )

    def _update(self, at: tuple[Expr, ...], given: tuple[Any, ...]) -> Update:
        if len(given) != len(self.values):
            raise self._error(f"has {len(self.values)} values, the update gives {len(given)}")
        values = []
        for value, new in zip(self.values, given, strict=True):
            found = new if isinstance(new, Expr) else scalar.const(new, value.dtype)
            if found.dtype is not value.dtype:
                raise self._error(
                    f"has {value.dtype.name} values, the update gives {found.dtype.name}",
                    DTypeError, hint=f"te.cast(value, {value.dtype.name})",
                )  # fmt: skip
            values.append(found)
        if any(e.op == "reduce" for e in scalar_visit.postorder(*at, *values)):
            raise self._error("is updated by a reduction", hint="f[x] += ... over an RDom")
        pure = tuple(v for v, i in zip(self.vars, at, strict=True) if v is i)
        used = scalar_visit.free_vars(*at, *values)
        domain = self._domain([v for v in used if v not in pure])
        condition = None if domain is None else domain.condition
        if condition is not None:
            self._domain([v for v in scalar_visit.free_vars(condition) if v not in pure])
        update = Update(at, tuple(values), pure, domain, condition)
        self._check_own_reads(update)
        return update

    def _domain(self, variables: list[Expr]) -> RDom | None:
        """The one RDom that the variables belong to."""
        found: RDom | None = None
        for variable in variables:
            domain = _domain_of(variable)
            if domain is None:
                raise self._error(
                    f"is updated with {variable.attr}, which stands at no place of its own",
                    expected="Vars at the place where the pure definition has them, or variables "
                    "of an RDom that is kept alive",
                )
            if found is not None and domain is not found:
                raise self._error(
                    f"is updated over two RDoms, {found.name} and {domain.name}",
                    hint="one RDom with the dimensions of both",
                )
            found = domain
        return found

    def _check_own_reads(self, update: Update) -> None:
        """Each coordinate that an update leaves free is by itself: no order is defined there."""
        if len(self.values) > 1 and self._own(*update.indices):
            raise self._error("has several values, so the place of an update must not read it")
        for read in self._own(*update.expressions):
            for var, index in zip(self.vars, read.args, strict=True):
                if var in update.pure and index is not var:
                    raise self._error(
                        f"is updated at {var.attr} from {read!r}: in which order, nothing says",
                        hint=f"use an RDom in the place of {var.attr}: its points have an order",
                    )

    def _own(self, *roots: Expr) -> list[Expr]:
        return [r for r in scalar_visit.reads(*roots) if r.attr in self.values]

    @property
    def inputs(self) -> tuple[Func | Tensor, ...]:
        """What its definitions read besides itself, in order of first use."""
        roots = [*self.pure, *(e for u in self.updates for e in u.expressions)]
        reads = [r.attr for r in scalar_visit.reads(*roots)]
        found = dict.fromkeys(r.func if isinstance(r, Value) else r for r in reads)
        return tuple(x for x in found if x is not self)


def clamp(value: Any, low: Any, high: Any) -> Expr:
    """min(max(value, low), high): an index that stays inside."""
    found = value.expr if isinstance(value, Axis) else value
    return scalar.minimum(scalar.maximum(found, low), high)


def _at_the_edge(image: Tensor) -> tuple[list[Expr], Expr]:
    variables = [Var(f"{image.name}.{d}") for d in range(image.rank)]
    sizes: list[int] = []
    for extent in image.shape:
        if not isinstance(extent, int) or extent < 1:
            raise InvalidArgumentError(
                f"the edge of {image.name}: its shape must be known and not empty, got {image!r}",
                source=user_frame(),
            )
        sizes.append(extent)
    inside = [clamp(v, 0, n - 1) for v, n in zip(variables, sizes, strict=True)]
    return variables, image[tuple(inside)]


def repeat_edge(image: Tensor) -> Func:
    """The image at every coordinate: outside, its nearest element."""
    variables, element = _at_the_edge(image)
    func = Func(f"{image.name}.edge")
    func[tuple(variables)] = element
    return func


def constant_exterior(image: Tensor, value: Any = 0) -> Func:
    """The image at every coordinate: outside, ``value``."""
    variables, element = _at_the_edge(image)
    inside: Expr | None = None
    for v, n in zip(variables, image.shape, strict=True):
        here = (v >= 0) & (v < scalar.index(n))
        inside = here if inside is None else inside & here
    func = Func(f"{image.name}.padded")
    func[tuple(variables)] = element if inside is None else scalar.select(inside, element, value)
    return func
