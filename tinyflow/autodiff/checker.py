"""Checks gradients against finite differences in float64, of first and second order.

Main function: ``check_gradients(function, arrays)``. May import core, ir, autodiff.reverse.

For a random direction v and random weights w of the results, <v, J^T w> from reverse mode must
equal the derivative of <w, f(x + h v)> at h = 0, taken by the five-point central difference (error
of order h**4). One direction sees every entry of the Jacobian, since v and w are dense.
Source: Abramowitz and Stegun, 25.3.6 (five-point formula).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinyflow.autodiff.reverse import gradients
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.interp import run
from tinyflow.ir.graph.nodes import Function, Input, Op, TensorType, Value
from tinyflow.ir.graph.visit import result_values

#: relative step; with the five-point formula truncation and rounding meet near here
STEP = 1e-3


class GradientError(AssertionError):
    """Reverse mode and finite differences disagree."""


def check_gradients(
    function: Callable[..., Any],
    arrays: Sequence[Any],
    order: int = 2,
    rtol: float = 1e-5,
    atol: float = 1e-7,
    seed: int = 0,
) -> None:
    """Raises GradientError unless the gradients of ``function`` at ``arrays`` are right.

    function: takes values, returns a value or several, built from ops. arrays: its arguments;
    floating ones are taken as float64 and differentiated, others are held fixed.
    order: 1 checks the gradient, 2 also the gradient of the gradient.
    """
    points = [_as_double(a) for a in arrays]
    floating = [i for i, p in enumerate(points) if p.dtype == np.float64]
    rng = np.random.default_rng(seed)
    current = function
    for level in range(1, order + 1):
        forward, weights = _forward(current, points, rng)
        if not weights or not floating:
            return
        backward = _backward(current, points, weights, floating)
        found = run(backward, points)
        for position, gradient in zip(floating, found, strict=True):
            _compare(forward, points, weights, position, gradient, rng, (rtol, atol, level))
        current = _gradient_function(current, weights, floating)


def check_op(op: Op, arrays: Sequence[Any], **keywords: Any) -> None:
    """``check_gradients`` of one op."""
    from tinyflow.ir.graph.builder import emit

    check_gradients(lambda *values: emit(op, *values), arrays, **keywords)


def _as_double(array: Any) -> np.ndarray[Any, Any]:
    array = np.asarray(array)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _inputs(builder: Builder, points: Sequence[np.ndarray[Any, Any]]) -> list[Value]:
    return [builder.emit(Input(TensorType(p.dtype, p.shape)), ()) for p in points]


def _float_results(result: Any) -> list[Value]:
    return [v for v in result_values(result) if v.dtype.is_floating]


def _forward(
    function: Callable[..., Any], points: Sequence[np.ndarray[Any, Any]], rng: Any
) -> tuple[Function, list[np.ndarray[Any, Any]]]:
    """The function with its floating results, and a random weight for each."""
    builder = Builder()
    with building(builder):
        inputs = _inputs(builder, points)
        results = _float_results(function(*inputs))
    fn = Function("forward", inputs, results)
    return fn, [rng.uniform(0.5, 1.5, np.shape(y)) for y in run(fn, points)]


def _weighted_gradients(
    function: Callable[..., Any], weights: Sequence[Any], floating: Sequence[int], inputs: Any
) -> list[Value | None]:
    results = _float_results(function(*inputs))
    xs = [inputs[i] for i in floating]
    seeds = [np.asarray(w, y.dtype.numpy) for w, y in zip(weights, results, strict=True)]
    return gradients(results, xs, grad_ys=seeds)


def _backward(
    function: Callable[..., Any],
    points: Sequence[np.ndarray[Any, Any]],
    weights: Sequence[Any],
    floating: Sequence[int],
) -> Function:
    from tinyflow.ops.creation import zeros_like

    builder = Builder()
    with building(builder):
        inputs = _inputs(builder, points)
        found = _weighted_gradients(function, weights, floating, inputs)
        outputs = [
            zeros_like(inputs[i]) if g is None else g
            for i, g in zip(floating, found, strict=True)
        ]
    return Function("backward", inputs, outputs)


def _gradient_function(
    function: Callable[..., Any], weights: Sequence[Any], floating: Sequence[int]
) -> Callable[..., Any]:
    """The gradients that exist, as a function: what the next order differentiates."""

    def gradient(*inputs: Value) -> list[Value]:
        found = _weighted_gradients(function, weights, floating, inputs)
        return [g for g in found if g is not None]

    return gradient


def _compare(
    forward: Function,
    points: Sequence[np.ndarray[Any, Any]],
    weights: Sequence[Any],
    position: int,
    gradient: np.ndarray[Any, Any],
    rng: Any,
    limits: tuple[float, float, int],
) -> None:
    rtol, atol, level = limits
    point = points[position]
    direction = rng.uniform(0.5, 1.5, point.shape) * rng.choice([-1.0, 1.0], point.shape)
    expected = float(np.sum(direction * gradient))
    step = STEP * max(1.0, float(np.max(np.abs(point), initial=0.0)))

    def along(multiple: float) -> float:
        moved = list(points)
        moved[position] = point + multiple * step * direction
        return sum(
            float(np.sum(w * y)) for w, y in zip(weights, run(forward, moved), strict=True)
        )

    slope = (8 * (along(1) - along(-1)) - (along(2) - along(-2))) / (12 * step)
    # Cancellation: the sum may be far smaller than its terms.
    scale = float(np.sum(np.abs(direction * gradient)))
    if not abs(expected - slope) <= atol + rtol * max(abs(slope), scale):
        raise GradientError(
            f"order {level}, input {position} of shape {point.shape}: reverse mode says "
            f"{expected:.12g} along a random direction, finite differences {slope:.12g}"
        )
