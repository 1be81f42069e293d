# mypy: disable-error-code="misc, override"
"""Forms that keep their value where the naive one overflows, underflows or cancels.

Main name: ``RULES``. May import core, ir.graph, ops and rewrite; cancelling is in cancel.py.

Both the forward form and the gradient that autodiff made of the naive form are covered: the
gradient of log(softmax(x)) divides by a softmax that may be 0, and multiplies by it again.
"""

from __future__ import annotations

from typing import Any

from tinyflow.ir.graph.builder import emit
from tinyflow.ir.graph.nodes import Value
from tinyflow.ops import activation as act
from tinyflow.ops import elementwise as ew
from tinyflow.ops import nn
from tinyflow.ops import special as sp
from tinyflow.ops.reduction import LogSumExp, Sum
from tinyflow.passes.rules.cancel import CancelDenominator
from tinyflow.passes.rules.conditions import is_float
from tinyflow.rewrite.rule import Match, RealEqual, Rule, rules


def is_gradient(m: Match) -> bool:
    """Whether autodiff made the root."""
    return any(label == "gradient of" for label, _ in m.node.origin)


def written_by_user(m: Match) -> str | None:
    """For forms that gradients have, too, but that CancelDenominator knows better there."""
    return "autodiff made it" if is_gradient(m) else is_float(m)


# Equal over the reals; the right side is exact where the left loses everything. Other readers of
# the inside (the gradient, a fetched softmax) do not matter: the stable form pays off all the same.
FORMS = rules(contract=RealEqual, when=is_float, tags={"stability"}, shared=True)(lambda x: [
    # exp overflows above 88.7 in float32; log(1 + exp(x)) is x there
    ("log_of_one_plus_exp", ew.log(1.0 + ew.exp(x)), act.softplus(x)),
    ("log1p_of_exp", sp.log1p(ew.exp(x)), act.softplus(x)),
    # sigmoid underflows below -103, its log is x there
    ("log_of_sigmoid", ew.log(act.sigmoid(x)), -act.softplus(-x)),
    ("log_of_one_minus_sigmoid", ew.log(1.0 - act.sigmoid(x)), -act.softplus(x)),
    ("log1p_of_minus_sigmoid", sp.log1p(-act.sigmoid(x)), -act.softplus(x)),
    # 1 + x rounds away what is below 6e-8
    ("log_of_one_plus", ew.log(1.0 + x), sp.log1p(x)),
    ("log_of_one_minus", ew.log(1.0 - x), sp.log1p(-x)),
    ("exp_minus_one", ew.exp(x) - 1.0, sp.expm1(x)),
])  # fmt: skip

# The quotient itself is right for every x (1 / inf is 0); its derivative inf / inf**2 is not, and
# sigmoid is one op. In gradients the denominator must stay, for the factor exp(x) to cancel.
SIGMOIDS = rules(
    contract=RealEqual, when=written_by_user, tags={"stability"}, shared=True
)(lambda x: [
    ("sigmoid_as_quotient", 1.0 / (1.0 + ew.exp(-x)), act.sigmoid(x)),
    ("sigmoid_as_reciprocal", ew.reciprocal(1.0 + ew.exp(-x)), act.sigmoid(x)),
    ("sigmoid_as_ratio", ew.exp(x) / (1.0 + ew.exp(x)), act.sigmoid(x)),
    ("sigmoid_of_negative", 1.0 / (1.0 + ew.exp(x)), act.sigmoid(-x)),
    ("sigmoid_of_negative_reciprocal", ew.reciprocal(1.0 + ew.exp(x)), act.sigmoid(-x)),
])  # fmt: skip


class LogOfSoftmax(Rule):
    """log(softmax(x, axis)) -> log_softmax(x, axis)

    Why: softmax underflows to 0 about 104 below the largest float32 logit, and log(0) = -inf.
    """

    contract = RealEqual
    tags = {"stability"}
    shared = True

    def example(x="float32[2, 5]"):  # type: ignore[no-untyped-def]
        return ew.log(nn.softmax(x))

    def pattern(x, axis):  # type: ignore[no-untyped-def]
        return ew.log(emit(nn.Softmax(axis), x))

    def rewrite(m: Match) -> Any:
        return emit(nn.LogSoftmax(m.axis), m.x)


class LogOfSumOfExp(Rule):
    """log(sum(exp(x), axis)) -> logsumexp(x, axis)

    Why: exp overflows above 88.7 (float32) and underflows below -103.
    """

    contract = RealEqual
    tags = {"stability"}
    shared = True

    def example(x="float32[2, 5]"):  # type: ignore[no-untyped-def]
        return ew.log(emit(Sum((1,)), ew.exp(x)))

    def pattern(x, axis, keepdims):  # type: ignore[no-untyped-def]
        return ew.log(emit(Sum(axis, keepdims), ew.exp(x)))

    def check(m: Match) -> str | None:
        return _is_shifted(m.x)

    def rewrite(m: Match) -> Any:
        return emit(LogSumExp(m.axis, m.keepdims), m.x)


class QuotientIsSoftmax(Rule):
    """exp(x) / sum(exp(x), axis, keepdims=True) -> softmax(x, axis), for one axis

    Why: exp overflows above 88.7 (float32), and inf / inf is NaN.
    """

    contract = RealEqual
    tags = {"stability"}
    shared = True

    def example(x="float32[2, 5]"):  # type: ignore[no-untyped-def]
        e = ew.exp(x)
        return ew.divide(e, emit(Sum((1,), True), e))

    def pattern(x, axis):  # type: ignore[no-untyped-def]
        return ew.exp(x) / emit(Sum(axis, True), ew.exp(x))

    def check(m: Match) -> str | None:
        one = (m.axis is not None and len(m.axis) == 1) or len(m.x.type.shape) == 1
        return _is_shifted(m.x) if one else "softmax works along one axis"

    def rewrite(m: Match) -> Any:
        return emit(nn.Softmax(0 if m.axis is None else m.axis[0]), m.x)


class OneMinusSigmoid(Rule):
    """1 - sigmoid(x) -> sigmoid(-x)

    Why: above x = 17 sigmoid rounds to 1 in float32 and the difference is 0. Not in gradients:
    there y * (1 - y) is one product, and a second sigmoid would cost more than it gains.
    """

    contract = RealEqual
    tags = {"stability"}
    shared = True

    def example(x="float32[5]"):  # type: ignore[no-untyped-def]
        return ew.subtract(1.0, act.sigmoid(x))

    def pattern(x):  # type: ignore[no-untyped-def]
        return 1.0 - act.sigmoid(x)

    def check(m: Match) -> str | None:
        return "it belongs to the gradient y * (1 - y)" if is_gradient(m) else None

    def rewrite(m: Match) -> Any:
        return act.sigmoid(ew.negative(m.x))


class EntropyTerm(Rule):
    """x * log(x) -> xlogy(x, x)

    Why: the limit at x = 0 is 0, but 0 * log(0) = 0 * -inf is NaN. (y * log(x) stays as it is:
    there 0 * -inf may be what the program means to show.)
    """

    contract = RealEqual
    tags = {"stability"}

    def example(x="float32[5]"):  # type: ignore[no-untyped-def]
        return ew.multiply(x, ew.log(x))

    def pattern(x):  # type: ignore[no-untyped-def]
        return x * ew.log(x)

    shared = True

    def rewrite(m: Match) -> Any:
        return sp.xlogy(m.x, m.x)


class GradientOfEntropyTerm(Rule):
    """(g * x) / x -> g, where autodiff made the division as the gradient of log(x)

    Why: the gradient of x * log(x) is g * log(x) + (g * x) / x, and 0 / 0 at x = 0 is NaN.
    """

    contract = RealEqual
    tags = {"stability"}
    shared = True

    def pattern(g, x):  # type: ignore[no-untyped-def]
        return (g * x) / x

    def check(m: Match) -> str | None:
        if is_gradient(m):
            return None
        return "written by the user, who may mean 0 / 0"

    def rewrite(m: Match) -> Any:
        return m.g


def _is_shifted(x: Value) -> str | None:
    """The reason to leave exp(x - max(x)) alone: it is the stable form (decompose makes it)."""
    node = x.node
    if node.op.type_name == "Sub" and node.inputs[1].node.op.type_name in ("Max", "Select"):
        return "the largest element is taken out already"
    return None


RULES: list[Any] = [
    LogOfSoftmax, LogOfSumOfExp, *FORMS, *SIGMOIDS, QuotientIsSoftmax, OneMinusSigmoid, EntropyTerm,
    GradientOfEntropyTerm, CancelDenominator,
]  # fmt: skip
