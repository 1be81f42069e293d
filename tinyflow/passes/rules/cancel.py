# mypy: disable-error-code="misc, override"
"""Cancelling a positive factor against a denominator: (g / y) * y -> g, through sums and products.

Main type: ``CancelDenominator``. May import core, ir.graph, ops and rewrite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tinyflow.core.shape import normalize_axes
from tinyflow.ir.graph.builder import emit
from tinyflow.ir.graph.nodes import Value
from tinyflow.ops import activation as act
from tinyflow.ops import elementwise as ew
from tinyflow.ops import nn
from tinyflow.ops.movement import BroadcastTo, Reshape
from tinyflow.ops.reduction import LogSumExp, Sum
from tinyflow.passes.rules.conditions import is_positive
from tinyflow.rewrite.pattern import is_number
from tinyflow.rewrite.rule import Match, RealEqual, Rule

#: how deep sums and products are searched for the denominator
DEPTH = 8

Term = tuple[int, Callable[[], Value]]  # a sign, and how to make the value once it is needed


class Split(NamedTuple):
    """e = sum(over) / denominator + sum(rest)."""

    over: list[Term]
    rest: list[Term]


class Plan(NamedTuple):
    """How e * y is rewritten, where y = positive * other.

    ratio: makes positive / denominator, or None where that is 1.
    """

    split: Split
    positive: Value
    ratio: Callable[[], Value] | None
    other: Value | None


class CancelDenominator(Rule):
    """(g / y - s) * y -> g - s * y, for y > 0 over the reals: softmax, sigmoid, exp

    Why: y may underflow to 0 (or exp(x) overflow), and 0 / 0 * 0 is NaN. Autodiff makes this form:
    the gradient of log(y) divides by y, and that of y = softmax(x), sigmoid(x) or exp(x) multiplies
    by it. Also for 1 / (1 + exp(x)) against exp(x), and 1 / sum(exp(x)) against exp(x).
    """

    contract = RealEqual
    tags = {"stability"}
    shared = True

    def example(x="float32[5]", g="float32[5]"):  # type: ignore[no-untyped-def]
        y = act.sigmoid(x)
        return ew.multiply(ew.divide(g, y), y)

    def pattern(e, y):  # type: ignore[no-untyped-def]
        return e * y

    def check(m: Match) -> str | None:
        # Most products are none of this; their ops tell.
        e, y = m.e.node.op.type_name, m.y.node.op.type_name
        if {e, y} == _SOFTMAX and (
            _is_shifted_softmax(m.e, m.y) or _is_shifted_softmax(m.y, m.e)
        ):
            return "a softmax that cannot overflow already"
        if e not in _DIVIDED or not (y in _DIRECT or y == "Mul"):
            return ""
        return "" if plan(m.e, m.y) is None else None

    def rewrite(m: Match) -> Any:
        chosen = plan(m.e, m.y)
        assert chosen is not None
        terms = [(sign, _with_ratio(make(), chosen)) for sign, make in chosen.split.over]
        terms += [
            (sign, ew.multiply(make(), chosen.positive)) for sign, make in chosen.split.rest
        ]
        result = signed_sum(terms)
        if chosen.other is not None:
            result = ew.multiply(result, _accurate(chosen.other))
        shape = m.root.type.shape
        return result if result.type.shape == shape else emit(BroadcastTo(shape), result)


def _is_shifted_softmax(e: Value, inverse: Value) -> bool:
    """exp(x - max(x)) * (1 / sum of that): what Softmax decomposes into."""

    def is_op(value: Value, name: str) -> bool:
        return value.node.op.type_name == name

    if not (is_op(e, "Exp") and is_op(inverse, "Reciprocal")):
        return False
    (total,), (exponent,) = inverse.node.inputs, e.node.inputs
    if not (is_op(total, "Sum") and total.node.inputs[0] is e and is_op(exponent, "Sub")):
        return False
    x, largest = exponent.node.inputs
    return is_op(largest, "Max") and largest.node.inputs[0] is x


def _with_ratio(value: Value, chosen: Plan) -> Value:
    return value if chosen.ratio is None else ew.multiply(value, chosen.ratio())


def _accurate(other: Value) -> Value:
    """1 - sigmoid(x) as sigmoid(-x): beside y it was one cheap product, alone it would cancel."""
    if other.node.op.type_name == "Sub":
        one, y = other.node.inputs
        if is_number(one, 1.0) and y.node.op.type_name == "Sigmoid":
            return act.sigmoid(ew.negative(y.node.inputs[0]))  # type: ignore[no-any-return]
    return other


def signed_sum(terms: list[tuple[int, Value]]) -> Value:
    """The sum of signed values, starting with a positive one if there is one."""
    ordered = sorted(terms, key=lambda term: -term[0])
    sign, result = ordered[0]
    if sign < 0:
        result = ew.negative(result)
    for sign, value in ordered[1:]:
        result = ew.add(result, value) if sign > 0 else ew.subtract(result, value)
    return result


def plan(e: Value, y: Value) -> Plan | None:
    """How to cancel in e * y; None when no denominator of e fits a positive factor of y."""
    for positive, other in _positive_factors(y):
        for denominator, ratio in _denominators(e, positive):
            split = split_by(e, denominator, DEPTH)
            if split is not None:
                return Plan(split, positive, ratio, other)
    return None


def _positive_factors(y: Value) -> Iterator[tuple[Value, Value | None]]:
    """Factors of y that are positive, each with the rest of the product."""
    if y.node.op.type_name in _DIRECT and _positive(y):
        yield y, None
    elif y.node.op.type_name == "Mul":
        a, b = y.node.inputs
        if _positive(a):
            yield a, b
        if _positive(b):
            yield b, a


#: a factor that is worth cancelling as a whole
_DIRECT = frozenset({"Softmax", "Sigmoid", "Exp", "Softplus", "Sub", "Reshape", "BroadcastTo"})


def _positive(value: Value) -> bool:
    node = value.node
    if node.op.type_name == "Sub":  # 1 - sigmoid(x)
        one, rest = node.inputs
        return is_number(one, 1.0) and rest.node.op.type_name in ("Sigmoid", "Softmax")
    return node.op.type_name not in ("Constant", "Fill") and is_positive(value)


def _denominators(
    e: Value, positive: Value
) -> Iterator[tuple[Value, Callable[[], Value] | None]]:
    """Values that e divides by and whose ratio to ``positive`` has a stable form."""
    found = dict.fromkeys(_divisors(e, DEPTH))
    if positive in found:
        yield positive, None
    if positive.node.op.type_name != "Exp":
        return
    (x,) = positive.node.inputs
    for denominator in found:
        node = denominator.node
        if node.op.type_name == "Add":
            a, b = node.inputs
            if (a is positive and is_number(b, 1.0)) or (b is positive and is_number(a, 1.0)):
                yield denominator, lambda: act.sigmoid(x)
        elif type(node.op) is Sum and node.inputs[0] is positive:
            yield denominator, lambda op=node.op: _weights(x, op)  # type: ignore[misc]


def _weights(x: Value, op: Sum) -> Value:
    """exp(x) / sum(exp(x)) without overflow."""
    axes = normalize_axes(op.axis, len(x.type.shape))  # type: ignore[arg-type]
    if len(axes) == 1:
        return emit(nn.Softmax(axes[0]), x)  # type: ignore[no-any-return]
    return ew.exp(ew.subtract(x, emit(LogSumExp(axes, True), x)))  # type: ignore[no-any-return]


def _divisors(e: Value, depth: int) -> Iterator[Value]:
    """Denominators inside the sums and products of e."""
    node = e.node
    name = node.op.type_name
    if depth == 0:
        return
    if name in ("RealDiv", "Reciprocal"):
        yield node.inputs[-1]
    if name in _LINEAR or name == "RealDiv":
        for value in node.inputs[:1] if name == "RealDiv" else node.inputs:
            yield from _divisors(value, depth - 1)


_LINEAR = frozenset({"Add", "Sub", "AddN", "Neg", "Mul", "BroadcastTo", "Reshape", "Sum"})
#: what may hold a denominator
_DIVIDED = _LINEAR | {"RealDiv", "Reciprocal"}
_SOFTMAX = {"Exp", "Reciprocal"}


def split_by(e: Value, d: Value, depth: int) -> Split | None:
    """e as n / d + rest, or None when e does not divide by d (or not in a form that is seen)."""
    node = e.node
    name = node.op.type_name
    if depth == 0:
        return None
    if name == "RealDiv" and node.inputs[1] is d:
        return Split([(1, lambda: _full(node.inputs[0], e))], [])
    if name == "Reciprocal" and node.inputs[0] is d:
        return Split([(1, lambda: _one(e))], [])
    part = _SPLITS.get(name)
    return None if part is None else part(e, d, depth)


def _one(e: Value) -> Value:
    import numpy as np

    from tinyflow.ops.creation import Fill, constant

    return emit(Fill(e.type.shape), constant(np.ones((), e.dtype.numpy)))  # type: ignore


def _full(value: Value, like: Value) -> Value:
    """``value`` at the shape that dividing gave it."""
    shape = like.type.shape
    return value if value.type.shape == shape else emit(BroadcastTo(shape), value)  # type: ignore


def _split_sum(e: Value, d: Value, depth: int) -> Split | None:
    signs = (1, -1) if e.node.op.type_name == "Sub" else (1,) * len(e.node.inputs)
    over: list[Term] = []
    rest: list[Term] = []
    for sign, value in zip(signs, e.node.inputs, strict=True):
        part = split_by(value, d, depth - 1)
        if part is None:
            rest.append((sign, lambda value=value: value))  # type: ignore[misc]
        else:
            over += [(sign * s, _stretched(make, value, e)) for s, make in part.over]
            rest += [(sign * s, make) for s, make in part.rest]
    return Split(over, rest) if over else None


def _stretched(make: Callable[[], Value], part: Value, whole: Value) -> Callable[[], Value]:
    """A term of a smaller summand is as big as the sum once it is multiplied by y."""
    return make if part.type.shape == whole.type.shape else lambda: _full(make(), whole)


def _split_product(e: Value, d: Value, depth: int) -> Split | None:
    a, b = e.node.inputs
    for value, factor in ((a, b), (b, a)):
        part = split_by(value, d, depth - 1)
        if part is not None:
            return _mapped(part, lambda v, factor=factor: ew.multiply(v, factor))
    return None


def _split_quotient(e: Value, d: Value, depth: int) -> Split | None:
    part = split_by(e.node.inputs[0], d, depth - 1)
    if part is None:
        return None
    divisor = e.node.inputs[1]
    return _mapped(part, lambda v: ew.divide(v, divisor))


def _split_negation(e: Value, d: Value, depth: int) -> Split | None:
    part = split_by(e.node.inputs[0], d, depth - 1)
    if part is None:
        return None
    return Split([(-s, make) for s, make in part.over], [(-s, make) for s, make in part.rest])


def _split_broadcast(e: Value, d: Value, depth: int) -> Split | None:
    part = split_by(e.node.inputs[0], d, depth - 1)
    shape: Any = e.type.shape
    if part is None:
        return None
    return _mapped(part, lambda v: v if v.type.shape == shape else emit(BroadcastTo(shape), v))


def _split_reshape(e: Value, d: Value, depth: int) -> Split | None:
    """Only where the reshape puts back the axes that the sum d folded away."""
    shape: Any = e.type.shape
    if type(d.node.op) is not Sum or e.node.inputs[0].type.shape != d.type.shape:
        return None
    if Sum(d.node.op.axis, True).infer(d.node.inputs[0].type).shape != shape:
        return None
    part = split_by(e.node.inputs[0], d, depth - 1)
    return None if part is None else _mapped(part, lambda v: emit(Reshape(shape), v))


def _split_reduction(e: Value, d: Value, depth: int) -> Split | None:
    """A sum over axes along which d does not change: sum(n / d) = sum(n) / d."""
    op, (value,) = e.node.op, e.node.inputs
    shape, own = value.type.shape, d.type.shape
    assert isinstance(op, Sum) and shape is not None and own is not None
    if not op.keepdims or len(own) != len(shape):
        return None
    if any(own[a] != 1 for a in normalize_axes(op.axis, len(shape))):
        return None
    part = split_by(value, d, depth - 1)
    return None if part is None else _mapped(part, lambda v: emit(op, _full(v, value)))


def _mapped(part: Split, change: Callable[[Value], Value]) -> Split:
    """Every term after a linear operation."""
    return Split(
        [(s, lambda make=make: change(make())) for s, make in part.over],  # type: ignore[misc]
        [(s, lambda make=make: change(make())) for s, make in part.rest],  # type: ignore[misc]
    )


_SPLITS: dict[str, Any] = {
    "Add": _split_sum,
    "Sub": _split_sum,
    "AddN": _split_sum,
    "Mul": _split_product,
    "RealDiv": _split_quotient,
    "Neg": _split_negation,
    "BroadcastTo": _split_broadcast,
    "Reshape": _split_reshape,
    "Sum": _split_reduction,
}
