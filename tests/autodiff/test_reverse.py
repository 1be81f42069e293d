"""Reverse mode: values, None, grad_ys, stops, places, sizes; graphs may be deep."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from tinyflow.autodiff import gradients
from tinyflow.core.error import DTypeError, InvalidArgumentError, ShapeError, Unsupported
from tinyflow.core.source import Source
from tinyflow.ir.graph import interp
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Function, Input, Op, TensorType, Value
from tinyflow.ir.graph.verify import verify
from tinyflow.ops.base import emit
from tinyflow.ops.convert import cast, stop_gradient
from tinyflow.ops.elementwise import add, exp, multiply, square, subtract
from tinyflow.ops.nn import softmax
from tinyflow.ops.reduction import reduce_mean, reduce_sum


class Graph:
    """Inputs, and evaluation of values at them."""

    def __init__(self) -> None:
        self.builder = Builder()
        self.inputs: list[Value] = []

    def input(self, *shape: int, dtype: str = "float64") -> Value:
        value = self.builder.emit(Input(TensorType(dtype, shape)), ())
        self.inputs.append(value)
        return value

    def run(self, values: list[Any], *arrays: Any) -> list[np.ndarray]:
        fn = Function("f", self.inputs, [v for v in values if v is not None])
        verify(fn)
        return interp.run(fn, arrays)


@pytest.fixture
def graph() -> Any:
    made = Graph()
    with building(made.builder):
        yield made


def test_product_rule_and_reuse(graph: Graph) -> None:
    x, y = graph.input(2), graph.input(2)
    z = add(multiply(x, y), multiply(x, x))
    dx, dy = graph.run(gradients(z, [x, y]), [2.0, 3.0], [5.0, 7.0])
    np.testing.assert_array_equal(dx, [9.0, 13.0])
    np.testing.assert_array_equal(dy, [2.0, 3.0])


def test_ys_are_summed(graph: Graph) -> None:
    x = graph.input(2)
    (dx,) = graph.run(gradients([square(x), exp(x)], x), [0.0, 1.0])
    np.testing.assert_allclose(dx, [1.0, 2.0 + np.e])


def test_broadcasting_is_undone(graph: Graph) -> None:
    x, b = graph.input(2, 3), graph.input(3)
    dx, db = graph.run(gradients(multiply(x, b), [x, b]), np.ones((2, 3)), [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(db, [2.0, 2.0, 2.0])
    np.testing.assert_array_equal(dx, [[1.0, 2.0, 3.0]] * 2)


def test_grad_ys_weights(graph: Graph) -> None:
    x = graph.input(2)
    y = square(x)
    (dx,) = graph.run(gradients([y], [x], grad_ys=[np.array([10.0, 1.0])]), [1.0, 2.0])
    np.testing.assert_array_equal(dx, [20.0, 4.0])
    with pytest.raises(ShapeError, match="grad_ys differs from y in shape"):
        gradients(y, x, grad_ys=[np.ones(3)])
    with pytest.raises(DTypeError, match="grad_ys differs from y in dtype"):
        gradients(y, x, grad_ys=[exp(graph.input(2, dtype="float32"))])
    with pytest.raises(InvalidArgumentError, match="2 grad_ys for 1 ys"):
        gradients(y, x, grad_ys=[None, None])


def test_unconnected(graph: Graph) -> None:
    x, other = graph.input(2), graph.input(3)
    assert gradients(square(x), [other]) == [None]
    (zero,) = graph.run(gradients(square(x), other, unconnected="zero"), np.ones(2), np.ones(3))
    np.testing.assert_array_equal(zero, np.zeros(3))
    with pytest.raises(InvalidArgumentError, match="none, zero"):
        gradients(square(x), x, unconnected="maybe")


def test_integers_carry_no_gradient(graph: Graph) -> None:
    n, x = graph.input(2, dtype="int32"), graph.input(2)
    assert gradients(multiply(cast(n, "float64"), x), [n]) == [None]
    assert gradients(n, n) == [None]
    assert gradients(cast(x, "int32"), x) == [None]


def test_nondifferentiable_ops_end_the_path(graph: Graph) -> None:
    x = graph.input(2)
    assert gradients(stop_gradient(square(x)), x) == [None]
    (dx,) = graph.run(gradients(add(square(x), stop_gradient(square(x))), x), [1.0, 2.0])
    np.testing.assert_array_equal(dx, [2.0, 4.0])


def test_intermediate_values_and_chains_of_xs(graph: Graph) -> None:
    """Each x is differentiated in full, also one that depends on another x."""
    a = graph.input()
    b = square(a)
    c = multiply(b, 3.0)
    da, db, dc = graph.run(gradients(c, [a, b, c]), 2.0)
    assert (da, db, dc) == (12.0, 3.0, 1.0)


def test_the_same_x_twice(graph: Graph) -> None:
    x = graph.input()
    assert graph.run(gradients(square(x), [x, x]), 3.0) == [6.0, 6.0]


def test_stop_gradients(graph: Graph) -> None:
    """TensorFlow's documented example: a = 2 with partial derivatives, total ones without stops."""
    a = graph.input()
    b = multiply(a, 2.0)
    y = add(a, b)
    assert graph.run(gradients(y, [a, b], stop_gradients=[a, b]), 1.0) == [1.0, 1.0]
    assert graph.run(gradients(y, [a, b]), 1.0) == [3.0, 1.0]


def test_second_order(graph: Graph) -> None:
    x = graph.input()
    (first,) = gradients(multiply(square(x), x), x)
    (second,) = gradients(first, x)
    assert graph.run([first, second], 2.0) == [12.0, 12.0]


def test_composites_without_vjp_are_differentiated_through_their_parts(graph: Graph) -> None:
    class Cubed(Op, abstract=True):
        def infer(self, x: TensorType) -> TensorType:
            return x

        def decompose(self, x: Value) -> Any:
            return multiply(square(x), x)

    class WithItself(Op, abstract=True):
        def infer(self, x: TensorType, y: TensorType) -> TensorType:
            return x

        def decompose(self, x: Value, y: Value) -> Any:
            return multiply(emit(Cubed(), x), y)

    x = graph.input()
    y = square(x)
    assert graph.run(gradients(emit(Cubed(), y), x), 2.0) == [6.0 * 2.0**5]
    # One value in two inputs, and a composite in a composite: d(x**4).
    assert graph.run(gradients(emit(WithItself(), x, x), x), 2.0) == [4.0 * 2.0**3]
    # y depends on x outside the composite.
    assert graph.run(gradients(emit(WithItself(), x, y), x), 2.0) == [5.0 * 2.0**4]


def test_an_op_without_any_gradient_is_unsupported(graph: Graph) -> None:
    class Opaque(Op, abstract=True):
        def infer(self, x: TensorType) -> TensorType:
            return x

    x = graph.input()
    with pytest.raises(Unsupported, match=r"no gradient is defined for Opaque"):
        gradients(emit(Opaque(), x), x)


def test_new_nodes_say_where_they_come_from(graph: Graph) -> None:
    forward = Source("model.py", 12, "loss")
    graph.builder.source = forward
    x = graph.input()
    y = multiply(exp(x), x)
    graph.builder.source = None
    (dx,) = gradients(y, x)
    made = [n for n in Function("f", [x], [dx]).nodes if n.origin]
    assert len(made) >= 3
    for node in made:
        assert node.source == forward
        (label, where), (asked, line) = node.origin
        assert (label, where, asked) == ("gradient of", forward, "requested at")
        assert line.file.endswith("test_reverse.py")
    assert graph.builder.source is None and graph.builder.origin == ()


def test_gradient_graphs_are_linear_in_size(graph: Graph) -> None:
    """The logistic map l <- 4 l (1 - l): written out, its derivative doubles with every step."""
    sizes = []
    for depth in (10, 100, 500):
        x = level = graph.input()
        for _ in range(depth):
            level = multiply(multiply(level, 4.0), subtract(1.0, level))
        (dx,) = gradients(level, x)
        sizes.append(len(Function("f", graph.inputs, [dx]).nodes) / depth)
    assert max(sizes) < 1.2 * min(sizes)


def test_the_order_of_sums_is_that_of_the_sweep(graph: Graph) -> None:
    def text() -> str:
        from tinyflow.ir.graph.text import canonical

        made = Graph()
        with building(made.builder):
            x = made.input(3)
            y = reduce_sum(softmax(add(add(square(x), exp(x)), multiply(x, 2.0))))
            return canonical(Function("f", [x], gradients(y, x)))

    assert text() == text()


def test_partial_shapes(graph: Graph) -> None:
    """Gradients are built before shapes are known: every reduction and broadcast is a "like" op."""
    x = graph.builder.emit(Input(TensorType("float64", None)), ())
    b = graph.builder.emit(Input(TensorType("float64", None)), ())
    loss = reduce_mean(square(add(x, b)))
    found = gradients(loss, [x, b])
    results = interp.run(
        Function("f", [x, b], found), [np.ones((2, 3)), np.array([1.0, 2.0, 3.0])]
    )
    np.testing.assert_allclose(results[1], np.array([4.0, 6.0, 8.0]) / 3)
    np.testing.assert_allclose(results[0], np.array([[4.0, 6.0, 8.0]] * 2) / 6)


def test_a_chain_of_100_000(graph: Graph) -> None:
    x = y = graph.input()
    for _ in range(100_000):
        y = add(y, 1.0) if y is x else add(y, x)
    start = time.perf_counter()
    (dx,) = gradients(y, x)
    per_node = (time.perf_counter() - start) / 100_000
    assert per_node < 150e-6, f"{per_node * 1e6:.1f} us per node (about 10 when idle)"
    assert graph.run([dx], 0.0) == [100_000.0]
