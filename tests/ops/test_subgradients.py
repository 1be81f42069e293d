"""The conventions of docs/subgradients.md, row by row."""

import numpy as np
import pytest

from tinyflow.autodiff.reverse import gradients
from tinyflow.core.dtype import as_dtype
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.interp import run
from tinyflow.ir.graph.nodes import Function, Input, TensorType
from tinyflow.ops.activation import elu, leaky_relu, relu, relu6, selu
from tinyflow.ops.comparison import greater
from tinyflow.ops.division import floormod
from tinyflow.ops.elementwise import (
    absolute,
    clip_by_value,
    divide,
    log,
    maximum,
    minimum,
    multiply,
    rsqrt,
    sign,
    sqrt,
)
from tinyflow.ops.logical import select
from tinyflow.ops.reduction import (
    reduce_euclidean_norm,
    reduce_logsumexp,
    reduce_max,
    reduce_min,
    reduce_prod,
    reduce_sum,
)
from tinyflow.ops.rounding import floor, round
from tinyflow.ops.special import power, xlogy

NAN, INF = np.nan, np.inf

ROWS = {
    "relu at 0": (relu, [0], [0]),
    "relu at NaN": (relu, [NAN], [0]),
    "relu6 at its kinks": (relu6, [[0, 6]], [[0, 0]]),
    "leaky_relu at 0": (lambda x: leaky_relu(x, 0.2), [0], [0.2]),
    "elu at 0": (elu, [0], [1]),
    "selu at 0": (selu, [0], [1.0507009873554805]),
    "abs at 0": (absolute, [0], [0]),
    "sign at 0": (sign, [0], [0]),
    "floor": (floor, [1.5], [None]),
    "round": (round, [1.5], [None]),
    "maximum tie": (maximum, [2, 2], [1, 0]),
    "minimum tie": (minimum, [2, 2], [1, 0]),
    "clip at its limits": (lambda x: clip_by_value(x, 0, 1), [[0, 1]], [[1, 1]]),
    "reduce_max tie": (reduce_max, [[2, 2, 1]], [[0.5, 0.5, 0]]),
    "reduce_min tie": (reduce_min, [[1, 1, 2]], [[0.5, 0.5, 0]]),
    "sqrt at 0": (sqrt, [0], [INF]),
    "guarded sqrt at 0": (lambda x: select(greater(x, 0), sqrt(x), 0), [0], [0]),
    "rsqrt at 0": (rsqrt, [0], [-INF]),
    "guarded rsqrt at 0": (lambda x: select(greater(x, 0), rsqrt(x), 0), [0], [0]),
    "norm at 0": (reduce_euclidean_norm, [[0, 0]], [[0, 0]]),
    "log at 0": (log, [0], [INF]),
    "x**0 at 0": (power, [0, 0], [0, 0]),
    "0**1": (power, [0, 1], [1, 0]),
    "0**2": (power, [0, 2], [0, 0]),
    "0**0.5": (power, [0, 0.5], [INF, 0]),
    "(-2)**2": (power, [-2, 2], [-4, 0]),
    "xlogy(0, 0)": (xlogy, [0, 0], [0, 0]),
    "xlogy(0, 2)": (xlogy, [0, 2], [0, 0]),
    "xlogy(2, 0)": (xlogy, [2, 0], [-INF, INF]),
    "0/0": (divide, [0, 0], [INF, NAN]),
    "prod with one zero": (reduce_prod, [[0, 2, 3]], [[6, 0, 0]]),
    "prod with two zeros": (reduce_prod, [[0, 0, 3]], [[0, 0, 0]]),
    "logsumexp of -inf": (reduce_logsumexp, [[-INF, -INF]], [[0, 0]]),
    "floormod at a step": (floormod, [2, 1], [1, -2]),
}


def gradient_of(function, points, dtype, order=1):
    """d function / d points, by the reference interpreter; None where unconnected."""
    arrays = [np.array(p, dtype) for p in points]
    builder = Builder()
    with building(builder):
        inputs = [
            builder.emit(Input(TensorType(as_dtype(a.dtype), a.shape)), ()) for a in arrays
        ]
        y = function(*inputs)
        for _ in range(order - 1):
            parts = [g for g in gradients([y], inputs) if g is not None]
            y = reduce_sum(parts[0])
        found = gradients([y], inputs)
    wanted = [g for g in found if g is not None]
    values = iter(run(Function("gradient", inputs, wanted), arrays))
    return [None if g is None else next(values) for g in found]


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("row", ROWS)
def test_convention(row, dtype):
    function, points, expected = ROWS[row]
    found = gradient_of(function, points, dtype)
    for got, want in zip(found, expected):
        if want is None:
            assert got is None
        else:
            assert got.dtype == dtype
            np.testing.assert_allclose(got, np.array(want, dtype), rtol=1e-6)


@pytest.mark.parametrize("power_of", [0, 1, 2, 3])
def test_higher_derivatives_of_a_power_at_zero(power_of):
    """x**n differentiates n times at 0 without a NaN."""
    found = gradient_of(lambda x: power(x, float(power_of)), [[0.0, 1.0]], np.float64, order=2)
    want = power_of * (power_of - 1) * np.array([0.0, 1.0]) ** max(power_of - 2, 0)
    np.testing.assert_allclose(found[0], want)


def test_a_guarded_root_has_a_finite_second_derivative():
    """The mask of sqrt's gradient must not hide a 0/0 from the next gradient."""
    found = gradient_of(
        lambda x: select(greater(x, 0), multiply(sqrt(x), x), 0), [[0.0, 4.0]], np.float64, order=2
    )
    np.testing.assert_allclose(found[0], [0.0, 0.75 / 2.0])


def test_the_table_of_the_docs_is_complete():
    """Every row of the table has at least one line here (they are grouped differently)."""
    from pathlib import Path

    text = (Path(__file__).parents[2] / "docs" / "subgradients.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "TinyFlow" not in line]
    assert 30 <= len(rows) <= len(ROWS)
