"""``vjp`` against finite differences in float64, first and second order, static and dynamic shapes.

For random weights u and directions v: d/dt sum(u * f(x + t v)) = <gradient, v>, with the left side
by central differences of the NumPy reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tests.conformance.cases import Case, cases, graph_of, ids
from tinyflow.autodiff import gradients
from tinyflow.core.shape import Dim
from tinyflow.ir.graph import interp
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Effect, Function, Input, TensorType, Value
from tinyflow.ir.graph.visit import result_values
from tinyflow.ops.placeholder import placeholder
from tinyflow.passes.functionalize import functionalize
from tinyflow.passes.specialize import specialize

RTOL, STEP = 1e-5, 1e-5


def is_checked(case: Case) -> bool:
    return (
        not case.is_state
        and case.sample.check_gradient
        and case.op.not_differentiable is None
        and case.op.effect in (Effect.NONE, Effect.HOST)
        and any(a.dtype == np.float64 for a in case.arrays)
        and not case.id.endswith("int")
    )


SMOOTH = [c for c in cases() if is_checked(c)]


def gradient_function(fn: Function, arrays: Sequence[np.ndarray]) -> tuple[Function, list[int]]:
    """(inputs, weights of the outputs) -> gradients, and to which inputs they belong."""
    floating = [n for n, v in enumerate(fn.inputs) if v.dtype.is_floating]
    with building(Builder()):
        outputs = [y for y in fn.outputs if y.dtype.is_floating]
        weights = [
            Builder().emit(Input(y.type, "argument", f"w{n}"), (), f"w{n}")
            for n, y in enumerate(outputs)
        ]
        found = gradients(outputs, [fn.inputs[n] for n in floating], grad_ys=weights)
    pairs = [(n, g) for n, g in zip(floating, found) if g is not None]
    inputs = [*fn.inputs, *weights]
    return Function("gradient", inputs, [g for _, g in pairs]), [n for n, _ in pairs]


def directional(
    function: Callable[[list[np.ndarray]], float],
    point: list[np.ndarray],
    direction: list[np.ndarray | None],
) -> float:
    """Central difference of ``function`` along ``direction``."""

    def at(step: float) -> float:
        moved = [x if d is None else x + step * d for x, d in zip(point, direction)]
        return function(moved)

    return (at(STEP) - at(-STEP)) / (2 * STEP)


def weighted(fn: Function, weights: list[np.ndarray]) -> Callable[[list[np.ndarray]], float]:
    def value(point: list[np.ndarray]) -> float:
        results = [r for r in interp.run(fn, point) if r.dtype == np.float64]
        return float(sum((r * w).sum() for r, w in zip(results, weights)))

    return value


def random_like(rng: np.random.Generator, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [rng.uniform(-1.0, 1.0, a.shape) for a in arrays]


def check(fn: Function, point: list[np.ndarray], order: int, rng: np.random.Generator) -> None:
    """<gradient, v> against the central difference, then the same for the gradient itself."""
    results = [r for r in interp.run(fn, point) if r.dtype == np.float64]
    weights = random_like(rng, results)
    backward, owners = gradient_function(fn, point)
    found = interp.run(backward, [*point, *weights])
    direction: list[np.ndarray | None] = [
        rng.uniform(-1.0, 1.0, x.shape) if x.dtype == np.float64 else None for x in point
    ]
    analytic = sum(float((g * direction[n]).sum()) for g, n in zip(found, owners))
    numeric = directional(weighted(fn, weights), point, direction)
    # Cancellation in the sum leaves an error of the size of its terms.
    size = 1.0 + sum(float(np.abs(g).sum()) for g in found)
    assert analytic == pytest.approx(numeric, rel=RTOL, abs=RTOL * size * 1e-1), order
    for g, n in zip(found, owners):
        assert g.shape == point[n].shape and g.dtype == point[n].dtype
    if order > 1 and backward.outputs:
        check(backward, [*point, *weights], order - 1, rng)


@pytest.mark.parametrize("case", SMOOTH, ids=ids(SMOOTH))
def test_gradient_and_second_order(case: Case) -> None:
    fn, arrays = graph_of(case)
    check(fn, arrays, 2, np.random.default_rng(0))


def dynamic_gradients(case: Case) -> list[np.ndarray]:
    """Gradients of the sum, built for symbolic shapes and specialised afterwards."""
    builder = Builder()
    with building(builder):
        feeds: list[Value] = []
        arguments: list[Value] = []
        for p, a in enumerate(case.arrays):
            if p in case.static_inputs:
                arguments.append(builder.constant(a, None, None))
                continue
            shape = tuple(Dim.symbol(f"n{n}") if n > 1 else n for n in a.shape)
            feeds.append(placeholder(a.dtype, shape, name=f"x{p}"))
            arguments.append(feeds[-1])
        outputs = result_values(builder.emit(case.op, tuple(arguments), None))
        floating = [v for v in feeds if v.dtype.is_floating]
        found = gradients([y for y in outputs if y.dtype.is_floating], floating)
    fetches = [g for g in found if g is not None]
    fn = functionalize(fetches, (), feeds)
    arrays = [a for p, a in enumerate(case.arrays) if p not in case.static_inputs]
    static = specialize(fn, [TensorType(a.dtype, a.shape) for a in arrays])
    assert all(v.type.is_static for v in static.outputs)
    return interp.run(static, arrays)


@pytest.mark.parametrize("case", SMOOTH, ids=ids(SMOOTH))
def test_gradient_of_unknown_shapes(case: Case) -> None:
    """Gradients never need static shapes, and mean the same without them."""
    fn, arrays = graph_of(case)
    with building(Builder()):
        floating = [v for v in fn.inputs if v.dtype.is_floating]
        found = gradients([y for y in fn.outputs if y.dtype.is_floating], floating)
    static = interp.run(
        Function("static", fn.inputs, [g for g in found if g is not None]), arrays
    )
    for x, y in zip(static, dynamic_gradients(case), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12)
