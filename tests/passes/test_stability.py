"""Losses with saturated logits: right values and gradients where the naive forms give NaN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import special

from tinyflow.autodiff import gradients
from tinyflow.core import options
from tinyflow.ir.graph import interp
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Function, Input, TensorType
from tinyflow.ops import elementwise as ew
from tinyflow.ops.activation import sigmoid
from tinyflow.ops.contraction import matmul
from tinyflow.ops.elementwise import add, divide, exp, log, multiply, negative, square, subtract
from tinyflow.ops.nn import softmax
from tinyflow.ops.reduction import reduce_mean, reduce_sum
from tinyflow.passes.pipeline import optimize

LOGITS = np.array(
    [[200.0, -200.0, 0.0], [-200.0, 200.0, 199.0], [1.0, 2.0, 3.0], [0.0, 0.0, -710.0]], np.float32
)
LABELS = np.eye(3, dtype=np.float32)[[1, 0, 2, 2]]


def steps(
    body: Callable[..., Any], *arrays: Any, wrt: int = 1
) -> tuple[list[np.ndarray], Function, Any]:
    """Values and gradients with respect to the first ``wrt`` arguments, optimised together."""
    builder = Builder()
    with building(builder):
        inputs = [builder.emit(Input(TensorType("float32", np.shape(a))), ()) for a in arrays]
        values = body(*inputs)
        values = list(values) if isinstance(values, tuple) else [values]
        found = gradients(values[0], inputs[:wrt])
    fn = Function("loss", inputs, [*values, *found])
    with options.override(verify=True):
        new, records = optimize(fn)
    return interp.run(new, arrays), new, records


def stability_rules() -> Any:
    from tinyflow.passes.rules.stability import RULES

    return RULES


def fired(records: Any) -> set[str]:
    return {e.rule for r in records if r.trace for e in r.trace.rewrites}


def test_cross_entropy_written_out() -> None:
    """The lecture's loss; its gradient divides by a softmax of 0 and multiplies by it again."""

    def body(x: Any, y: Any) -> Any:
        p = softmax(x)
        return negative(reduce_sum(multiply(y, log(p)))), p

    (loss, p, dx), _, records = steps(body, LOGITS, LABELS)
    expected = -np.sum(LABELS * special.log_softmax(LOGITS.astype(np.float64), axis=1))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(dx, special.softmax(LOGITS, axis=1) - LABELS, atol=1e-6)
    np.testing.assert_allclose(p, special.softmax(LOGITS, axis=1), atol=1e-6)
    assert {"LogOfSoftmax", "CancelDenominator"} <= fired(records)


def test_cross_entropy_through_a_matmul_with_mean_and_regularisation() -> None:
    """Further terms beside the division: another loss on y, a penalty on W, a mean over rows."""
    w = np.array([[100.0, -100.0, 3.0], [7.0, 100.0, -100.0]], np.float32)
    x = np.array([[2.0, 0.0], [0.0, 2.0], [-2.0, 1.0], [1.0, 1.0]], np.float32)

    def body(w: Any, x: Any, y: Any) -> Any:
        p = softmax(matmul(x, w))
        entropy = reduce_mean(negative(reduce_sum(multiply(y, log(p)), [1])))
        return add(add(entropy, reduce_sum(square(p))), multiply(reduce_sum(square(w)), 0.01))

    (loss, dw), _, _ = steps(body, w, x, LABELS)
    z = x.astype(np.float64) @ w
    p = special.softmax(z, axis=1)
    value = -np.mean(np.sum(LABELS * special.log_softmax(z, axis=1), 1)) + (p**2).sum()
    np.testing.assert_allclose(loss, value + 0.01 * (w.astype(np.float64) ** 2).sum(), rtol=1e-5)
    dz = (p - LABELS) / 4 + p * (2 * p - np.sum(2 * p * p, 1, keepdims=True))
    np.testing.assert_allclose(dw, x.T @ dz + 0.02 * w, rtol=1e-5, atol=1e-5)


def test_second_order_of_the_cross_entropy_has_no_nan() -> None:
    def body(x: Any, y: Any) -> Any:
        loss = negative(reduce_sum(multiply(y, log(softmax(x)))))
        (dx,) = gradients(loss, x)
        return reduce_sum(square(dx))

    moderate = np.array([[1.0, -2.0, 0.5], [3.0, 0.0, 1.0]], np.float32)
    (value, dx), _, _ = steps(body, moderate, LABELS[:2])
    p = special.softmax(moderate.astype(np.float64), axis=1)
    residual = p - LABELS[:2]
    np.testing.assert_allclose(value, (residual**2).sum(), rtol=1e-5)
    expected = 2 * p * (residual - np.sum(residual * p, 1, keepdims=True))
    np.testing.assert_allclose(dx, expected, rtol=1e-4, atol=1e-6)


def test_labels_are_differentiated_too() -> None:
    (_, _, dy), _, _ = steps(
        lambda x, y: negative(reduce_sum(multiply(y, log(softmax(x))))), LOGITS, LABELS, wrt=2
    )
    np.testing.assert_allclose(dy, -special.log_softmax(LOGITS, axis=1), rtol=1e-5)


def test_softmax_written_out() -> None:
    """exp(x) / sum(exp(x)) and the log of it, value and gradient."""

    def body(x: Any, y: Any) -> Any:
        e = exp(x)
        p = divide(e, reduce_sum(e, [1], keepdims=True))
        return negative(reduce_sum(multiply(y, log(p)))), p

    (loss, p, dx), _, records = steps(body, LOGITS, LABELS)
    np.testing.assert_allclose(
        loss, -np.sum(LABELS * special.log_softmax(LOGITS, axis=1)), rtol=1e-6
    )
    np.testing.assert_allclose(p, special.softmax(LOGITS, axis=1), atol=1e-6)
    np.testing.assert_allclose(dx, special.softmax(LOGITS, axis=1) - LABELS, atol=1e-6)
    assert "QuotientIsSoftmax" in fired(records)


@pytest.mark.parametrize("keepdims", [False, True])
def test_log_sum_exp(keepdims: bool) -> None:
    def body(x: Any) -> Any:
        return reduce_sum(log(reduce_sum(exp(x), [1], keepdims=keepdims)))

    (value, dx), _, records = steps(body, LOGITS)
    np.testing.assert_allclose(value, special.logsumexp(LOGITS, axis=1).sum(), rtol=1e-6)
    np.testing.assert_allclose(dx, special.softmax(LOGITS, axis=1), atol=1e-6)
    assert {"LogOfSumOfExp", "CancelDenominator"} <= fired(records)


X = np.array(
    [-710.0, -200.0, -104.0, -88.0, -20.0, -1e-8, 0.0, 1e-8, 3.0, 17.0, 88.0, 89.0, 200.0, 709.0,
     710.0], np.float32,
)  # fmt: skip
X64 = X.astype(np.float64)


@pytest.mark.parametrize(
    ("body", "value", "slope"),
    [
        (lambda x: log(add(1.0, exp(x))), np.logaddexp(0, X64), special.expit(X64)),
        (lambda x: log(add(exp(negative(x)), 1.0)), np.logaddexp(0, -X64), -special.expit(-X64)),
        (lambda x: log(sigmoid(x)), special.log_expit(X64), special.expit(-X64)),
        (
            lambda x: log(subtract(1.0, sigmoid(x))),
            special.log_expit(-X64),
            -special.expit(X64),
        ),
        (
            lambda x: divide(1.0, add(1.0, exp(negative(x)))),
            special.expit(X64),
            None,  # the gradient is that of the quotient, not of sigmoid
        ),
        (lambda x: subtract(1.0, sigmoid(x)), special.expit(-X64), None),
        (lambda x: subtract(exp(ew.minimum(x, 1.0)), 1.0), np.expm1(np.minimum(X64, 1)), None),
        (lambda x: log(add(1.0, square(x))), np.log1p(X64**2), None),
    ],
    ids=["softplus", "softplus of -x", "log sigmoid", "log(1-sigmoid)", "sigmoid", "1-sigmoid",
         "expm1", "log1p"],
)  # fmt: skip
def test_scalar_forms(body: Any, value: Any, slope: Any) -> None:
    (got, *grads), _, _ = steps(lambda x: body(x), X)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(got, value, rtol=1e-5, atol=1e-37)
    if slope is not None:
        np.testing.assert_allclose(grads[0], slope, rtol=1e-5, atol=1e-37)


def test_exactly_where_float32_ends() -> None:
    """x = 88 -> 88, x = 89 -> 89, also at 709 and 710 (the naive form is inf)."""
    (got, _), _, _ = steps(lambda x: log(add(1.0, exp(x))), X)
    for x in (88.0, 89.0, 709.0, 710.0):
        assert got[list(X).index(x)] == x


def test_sigmoid_cross_entropy_written_out() -> None:
    labels = np.linspace(0, 1, X.size).astype(np.float32)

    def body(x: Any, z: Any) -> Any:
        p = sigmoid(x)
        terms = add(
            multiply(z, log(p)), multiply(subtract(1.0, z), log(subtract(1.0, p)))
        )
        return negative(reduce_sum(terms))

    (loss, dx), _, _ = steps(body, X, labels)
    expected = -(labels * special.log_expit(X64) + (1 - labels) * special.log_expit(-X64)).sum()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(dx, special.expit(X64) - labels, rtol=1e-4, atol=1e-6)


def test_entropy_at_zero() -> None:
    x = np.array([0.0, 0.25, 1.0], np.float32)
    (value, dx), _, records = steps(lambda p: negative(multiply(p, log(p))), x)
    np.testing.assert_allclose(value, special.entr(x), rtol=1e-6)
    np.testing.assert_allclose(dx, [np.inf, -np.log(0.25) - 1, -1.0], rtol=1e-6)
    assert {"EntropyTerm", "GradientOfEntropyTerm"} <= fired(records)


def test_a_product_with_another_log_is_left_alone() -> None:
    """0 * log(0) with labels and a y that is no softmax: NaN, as IEEE and TensorFlow say."""
    y, p = np.array([0.0, 1.0], np.float32), np.array([0.0, 1.0], np.float32)
    (value, *_), _, records = steps(lambda p, y: multiply(y, log(p)), p, y)
    assert np.isnan(value[0]) and value[1] == 0.0
    assert not fired(records) & {r.name for r in stability_rules()}


def test_what_the_user_wrote_as_0_over_0_stays() -> None:
    x = np.array([0.0, 2.0], np.float32)
    (value, *_), _, _ = steps(lambda x: divide(multiply(x, x), x), x)
    assert np.isnan(value[0])
    (value, *_), _, _ = steps(lambda x, g: divide(multiply(g, x), x), x, x)
    assert np.isnan(value[0]) and value[1] == 2.0


def test_the_naive_gradient_parts_are_gone() -> None:
    """After optimising nothing divides by the softmax: the one reciprocal is its own."""

    def body(x: Any, y: Any) -> Any:
        return negative(reduce_sum(multiply(y, log(softmax(x)))))

    _, new, _ = steps(body, LOGITS, LABELS)
    names = [n.op.type_name for n in new.nodes]
    assert "RealDiv" not in names
    assert [names.count(n) for n in ("Reciprocal", "Exp", "Max")] == [1, 1, 1]


def test_level_one_leaves_the_forms_alone() -> None:
    with options.override(level=1):
        (value, *_), _, records = steps(lambda x: log(add(1.0, exp(x))), X)
    assert np.isinf(value).any()
    assert "log_of_one_plus_exp" not in fired(records)
