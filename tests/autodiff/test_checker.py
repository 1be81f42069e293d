"""The gradient checker finds wrong gradients and accepts right ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyflow.autodiff.checker import GradientError, check_gradients, check_op
from tinyflow.ir.graph.nodes import TensorType, Value
from tinyflow.ops.base import Op, emit
from tinyflow.ops.contraction import matmul
from tinyflow.ops.elementwise import Exp, add, log, multiply, square
from tinyflow.ops.indexing import gather
from tinyflow.ops.nn import softmax
from tinyflow.ops.reduction import reduce_sum

RNG = np.random.default_rng(0)


class WrongSquare(Op, abstract=True):
    """x * x with a gradient that is right to the given order only."""

    right_first = False

    def infer(self, x: TensorType) -> TensorType:
        return x

    def reference(self, x: Any) -> Any:
        return x * x

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (multiply(dy, multiply(x, 2.0 if self.right_first else 2.001)),)


class HalfRightSquare(WrongSquare, abstract=True):
    right_first = True

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        from tinyflow.ops.convert import stop_gradient

        return (multiply(dy, multiply(stop_gradient(x), 2.0)),)


def test_right_gradients_pass() -> None:
    check_op(Exp(), [RNG.normal(size=(3, 4))])
    check_gradients(
        lambda x, w, y: reduce_sum(multiply(y, log(softmax(matmul(x, w))))),
        [RNG.normal(size=(5, 4)), RNG.normal(size=(4, 3)), RNG.uniform(size=(5, 3))],
    )


def test_wrong_gradients_fail_and_say_where() -> None:
    with pytest.raises(GradientError, match=r"order 1, input 1 of shape \(3,\)"):
        check_gradients(
            lambda a, b: add(square(a), emit(WrongSquare(), b)),
            [RNG.normal(size=3), RNG.normal(size=3)],
        )


def test_a_wrong_second_order_is_found() -> None:
    x = [RNG.normal(size=3)]
    check_op(HalfRightSquare(), x, order=1)
    with pytest.raises(GradientError, match="order 2"):
        check_op(HalfRightSquare(), x)


def test_integer_inputs_are_held_fixed() -> None:
    check_gradients(lambda x, i: gather(x, i), [RNG.normal(size=(5, 2)), np.array([3, 0, 3])])


def test_float32_points_are_taken_as_float64() -> None:
    check_gradients(square, [np.float32(1.1)])


def test_empty_and_unconnected_inputs() -> None:
    check_gradients(square, [np.zeros((0, 3))])
    check_gradients(lambda x, y: square(x), [np.ones(2), np.ones(2)])
