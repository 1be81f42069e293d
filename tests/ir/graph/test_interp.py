"""The reference interpreter."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from tests.ir.graph.helpers import chain, function
from tinyflow.core.error import InternalError, InvalidArgumentError
from tinyflow.ir.graph import interp
from tinyflow.ir.graph.nodes import Op, TensorType
from tinyflow.ops.base import emit
from tinyflow.ops.elementwise import add, exp, multiply
from tinyflow.ops.nn import softmax
from tinyflow.ops.special import power


def test_runs_and_returns_declared_types() -> None:
    fn = function(lambda x: (exp(x), add(x, 1.0), x), ("float32", (2, 3)))
    x = np.arange(6.0).reshape(2, 3)
    results = interp.run(fn, [x])
    assert [r.dtype for r in results] == [np.float32] * 3
    np.testing.assert_allclose(results[0], np.exp(x), rtol=1e-6)
    np.testing.assert_array_equal(results[2], x)


def test_composites_without_reference_run_their_decomposition(monkeypatch: Any) -> None:
    from tinyflow.ops.nn import Softmax

    fn = function(softmax, ("float32", (2, 3)))
    x = np.random.default_rng(0).normal(size=(2, 3))
    (expected,) = interp.run(fn, [x])
    monkeypatch.setattr(Softmax, "reference", Op.reference)
    np.testing.assert_allclose(interp.run(fn, [x])[0], expected, rtol=1e-6)


def test_a_reference_of_another_dtype_is_our_bug(monkeypatch: Any) -> None:
    from tinyflow.ops.elementwise import Exp

    fn = function(exp, ("float32", ()))
    monkeypatch.setattr(Exp, "reference", lambda self, x: np.float64(x))
    with pytest.raises(InternalError, match=r"Exp.reference returned float64"):
        interp.run(fn, [1.0])


def test_errors_carry_the_users_line() -> None:
    fn = function(lambda x, y: power(x, y), ("int32", ()), ("int32", ()))
    with pytest.raises(InvalidArgumentError, match=r"test_interp\.py"):
        interp.run(fn, [2, -1])


def test_dead_values_are_freed() -> None:
    alive: list[int] = []

    class Spy(np.ndarray):
        def __del__(self) -> None:
            alive.pop()

    class Make(Op, abstract=True):
        def infer(self, x: TensorType) -> TensorType:
            return x

        def reference(self, x: Any) -> Any:
            gc.collect(0)
            assert len(alive) <= 3
            alive.append(1)
            return (np.asarray(x) + 0).view(Spy)

    def body(x: Any) -> Any:
        for _ in range(20):
            x = emit(Make(), x)
        return multiply(x, 1.0)

    interp.run(function(body, ("float32", (4,))), [np.ones(4)])


def test_deep_graphs() -> None:
    fn = chain(100_000)
    (result,) = interp.run(fn, [np.ones((2, 3))])
    assert result[0, 0] == 100_001
    # Deleting a long chain must not run into the C stack.
    del fn, result
    gc.collect()
