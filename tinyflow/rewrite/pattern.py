"""Patterns: small graphs with holes, made by running ordinary op functions.

Main types: ``Hole``, ``Literal``, ``Apply`` (what a pattern is made of), ``PatternBuilder``.
May import core and ir.graph.

Under a ``PatternBuilder`` an op function returns ``Apply(op, arguments)`` instead of a node. A hole
matches any value; the same hole again, the same value. A hole may also stand for an attribute
(``emit(Softmax(axis), x)``). A number matches a constant all of whose elements are that number;
``0.0`` and ``-0.0`` are different numbers here, because x + 0.0 and x + -0.0 differ at x = -0.0.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import numpy as np

from tinyflow.core.error import InternalError
from tinyflow.ir.graph.builder import Builder, building, emit
from tinyflow.ir.graph.nodes import REGISTRY, Op, Value


class Pattern(Value):
    """A value inside a pattern; it has no type."""

    __slots__ = ()

    def __init__(self) -> None:
        pass

    @property
    def type(self) -> NoReturn:
        raise InternalError("a pattern has no type: use emit(Op(attributes), x) in this rule")

    dtype = type

    # Operators of patterns, so that tables read like arithmetic whatever a front end installs.
    def __add__(self, other: Any) -> Any:
        return _apply("Add", self, other)

    def __radd__(self, other: Any) -> Any:
        return _apply("Add", other, self)

    def __sub__(self, other: Any) -> Any:
        return _apply("Sub", self, other)

    def __rsub__(self, other: Any) -> Any:
        return _apply("Sub", other, self)

    def __mul__(self, other: Any) -> Any:
        return _apply("Mul", self, other)

    def __rmul__(self, other: Any) -> Any:
        return _apply("Mul", other, self)

    def __truediv__(self, other: Any) -> Any:
        return _apply("RealDiv", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return _apply("RealDiv", other, self)

    def __pow__(self, other: Any) -> Any:
        return _apply("Pow", self, other)

    def __neg__(self) -> Any:
        return _apply("Neg", self)


def _apply(op_name: str, *arguments: Any) -> Any:
    return emit(REGISTRY[op_name](), *arguments)


class Hole(Pattern):
    """Matches anything; ``name`` is how the rule refers to it."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


class Literal(Pattern):
    """Matches a constant whose elements all are ``number``."""

    __slots__ = ("number",)

    def __init__(self, number: Any) -> None:
        self.number = number

    def __repr__(self) -> str:
        return repr(self.number)


class Apply(Pattern):
    """Matches a node of ``op``'s class with equal attributes whose inputs match."""

    __slots__ = ("arguments", "attributes", "op")

    def __init__(self, op: Op, arguments: tuple[Pattern, ...]) -> None:
        self.op = op
        self.arguments = arguments
        self.attributes = tuple(op.attributes.items())

    def __repr__(self) -> str:
        shown = [repr(a) for a in self.arguments]
        shown += [f"{name}={value!r}" for name, value in self.attributes]
        return f"{self.op.type_name}({', '.join(shown)})"


class PatternBuilder(Builder):
    """``emit`` under this builder makes patterns."""

    def emit(self, op: Op, arguments: tuple[Any, ...], name: str | None = None) -> Any:
        return Apply(op, tuple(a if isinstance(a, Pattern) else Literal(a) for a in arguments))

    def constant(self, value: Any, dtype: Any, name: str | None) -> Value:
        return Literal(value)


def holes_of(function: Callable[..., Any]) -> list[Hole]:
    """One hole per parameter of a pattern function."""
    return [Hole(name) for name in inspect.signature(function).parameters]


def trace_pattern(function: Callable[..., Any]) -> Any:
    """What ``function`` makes of holes; a pattern or whatever structure of patterns it returns."""
    with building(PatternBuilder()):
        return function(*holes_of(function))


#: two inputs may be exchanged while matching
COMMUTATIVE = frozenset({
    "Add", "Mul", "Maximum", "Minimum", "Equal", "NotEqual", "LogicalAnd", "LogicalOr",
    "LogicalXor", "SquaredDifference",
})  # fmt: skip


def variants(pattern: Apply) -> Iterator[Apply]:
    """The pattern with the inputs of commutative ops in every order that can make a difference.

    Expanding here keeps matching a plain walk without backtracking; patterns are a few ops big.
    """
    choices = [list(variants(a)) if isinstance(a, Apply) else [a] for a in pattern.arguments]
    seen = set()
    for arguments in itertools.product(*choices):
        orders = [arguments]
        if pattern.op.type_name in COMMUTATIVE and len(arguments) == 2:
            orders.append(arguments[::-1])
        for order in orders:
            shown = repr(order)
            if shown not in seen:
                seen.add(shown)
                yield Apply(pattern.op, order)


def match(pattern: Apply, value: Value) -> tuple[dict[str, Any], list[Value]] | None:
    """Bindings of the holes and the interior values (without the root), or None."""
    bindings: dict[str, Any] = {}
    interior: list[Value] = []
    return (bindings, interior) if _match(pattern, value, bindings, interior) else None


def _match(
    pattern: Any, value: Value, bindings: dict[str, Any], interior: list[Value]
) -> bool:
    node = value.node
    op = node.op
    if type(op) is not type(pattern.op) or len(node.inputs) != len(pattern.arguments):
        return False
    for name, wanted in pattern.attributes:
        got = getattr(op, name)
        if isinstance(wanted, Hole):
            if bindings.setdefault(wanted.name, got) != got:
                return False
        elif wanted != got:
            return False
    for part, argument in zip(pattern.arguments, node.inputs, strict=True):
        if isinstance(part, Hole):
            known = bindings.get(part.name)
            if known is None:
                bindings[part.name] = argument
            elif known is not argument:
                return False
        elif isinstance(part, Literal):
            if not is_number(argument, part.number):
                return False
        else:
            if not _match(part, argument, bindings, interior):
                return False
            interior.append(argument)
    return True


def is_number(value: Value, number: Any) -> bool:
    """Whether every element of ``value`` is known to be exactly ``number``."""
    found = uniform(value)
    if found is None:
        return False
    if isinstance(number, bool) or found.dtype.kind == "b":
        return isinstance(number, bool) and found.dtype.kind == "b" and bool(found) == number
    if found.dtype.kind in "iu":
        return float(number).is_integer() and int(found) == number
    number = float(number)
    if float(found) != number and number.is_integer() and abs(number) <= 256:
        return False  # the usual end: small integers are exact in every floating dtype
    same_sign = math.copysign(1.0, number) == float(np.copysign(1.0, found))
    # A literal is rounded to the tensor's dtype, as it is when a program uses it.
    return bool(found == found.dtype.type(number)) and same_sign


#: ops whose result repeats or moves the elements of their first input
_SPREADING = frozenset({
    "Fill", "BroadcastTo", "Reshape", "ExpandDims", "Squeeze", "Tile", "Transpose", "Identity",
    "BroadcastLike", "ReshapeLike", "StopGradient",
})  # fmt: skip


def may_be_uniform(op_class: type[Op]) -> bool:
    """Whether ``uniform`` can find a number for a result of such an op: a quick answer."""
    name = op_class.__name__
    return name in ("Constant", "ZerosLike", "OnesLike") or name in _SPREADING


def uniform(value: Value) -> Any:
    """The number that all elements of ``value`` are, as a NumPy scalar, or None if not known."""
    for _ in range(16):
        node = value.node
        name = node.op.type_name
        if name == "Constant":
            return node.op.number  # type: ignore[attr-defined]
        if name in ("ZerosLike", "OnesLike"):
            return node.types[0].dtype.numpy.type(name == "OnesLike")
        if name not in _SPREADING or not node.inputs:
            return None
        value = node.inputs[0]
    return None


def uniform_array(array: Any) -> Any:
    """The number that all elements of ``array`` are, bit for bit, or None."""
    array = np.asarray(array)
    if array.size == 0:
        return None
    first = array.reshape(-1)[:1]
    if array.size > 1:
        if array.flat[-1] != first[0]:  # the usual way out, without looking at all elements
            return None
        content = np.ascontiguousarray(array).reshape(-1)
        unsigned = np.dtype(f"u{array.dtype.itemsize}")
        bits = content.view(unsigned)  # bits, because 0.0 == -0.0 and NaN != NaN
        if not (bits == bits[0]).all():
            return None
    return first[0]


def instantiate(pattern: Any, bindings: Mapping[str, Any]) -> Any:
    """The values of a right-hand side: its ops emitted in the current builder."""
    if isinstance(pattern, Hole):
        return bindings[pattern.name]
    if isinstance(pattern, Literal):
        return pattern.number
    arguments = [instantiate(a, bindings) for a in pattern.arguments]
    changed = {n: bindings[v.name] for n, v in pattern.attributes if isinstance(v, Hole)}
    op = dataclasses.replace(pattern.op, **changed) if changed else pattern.op
    return emit(op, *arguments)
