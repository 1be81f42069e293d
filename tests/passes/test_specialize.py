"""From partly known types to static ones; run-time shape errors name line and feeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tinyflow.autodiff import gradients
from tinyflow.core.error import ShapeError, Unsupported
from tinyflow.core.shape import Dim
from tinyflow.ir.graph import interp
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Function, TensorType, Value
from tinyflow.ir.graph.verify import verify
from tinyflow.ops.contraction import matmul
from tinyflow.ops.elementwise import add, square
from tinyflow.ops.host import py_func
from tinyflow.ops.movement import reshape
from tinyflow.ops.placeholder import placeholder
from tinyflow.ops.python_index import get_item
from tinyflow.ops.reduction import reduce_mean, reduce_sum
from tinyflow.ops.sequence import arange
from tinyflow.ops.shape import shape, size
from tinyflow.passes.functionalize import functionalize
from tinyflow.passes.specialize import specialize

N = Dim.symbol("N")


@pytest.fixture(autouse=True)
def graph() -> Any:
    with building(Builder()) as builder:
        yield builder


def special(fetches: Sequence[Value], feeds: Sequence[Value], *shapes: tuple[int, ...]) -> Function:
    fn = functionalize(fetches, [], feeds)
    types = [TensorType(v.dtype, s) for v, s in zip(feeds, shapes)]
    new = specialize(fn, types)
    verify(new)
    assert all(t.is_static for n in new.nodes for t in n.types)
    return new


def ops(fn: Function) -> list[str]:
    return [n.op.type_name for n in fn.nodes]


def test_types_follow_from_the_feeds() -> None:
    x = placeholder("float32", (N, 3), name="x")
    new = special([square(x)], [x], (5, 3))
    assert str(new.outputs[0].type) == "float32[5, 3]"
    assert new.inputs[0].node.op.key is x and new.inputs[0].node.name == "x"


def test_static_functions_stay_the_same_object() -> None:
    x = placeholder("float32", (5, 3))
    fn = functionalize([square(x)], [], [x])
    assert specialize(fn, [TensorType("float32", (5, 3))]) is fn


def test_shape_arithmetic_folds_and_dynamic_attributes_resolve() -> None:
    x = placeholder("float32", (N, 6))
    y = reshape(x, [get_item(shape(x), 0), 2, 3])
    z = reshape(y, [get_item(shape(y), 0) * 2 if False else -1, 6])
    new = special([y, z, size(x), arange(0, get_item(shape(x), 0))], [x], (4, 6))
    assert [str(v.type) for v in new.outputs] == [
        "float32[4, 2, 3]", "float32[4, 6]", "int32[]", "int32[4]"
    ]  # fmt: skip
    assert not {"Shape", "DynamicShape", "StridedSlice", "Pack", "Size"} & set(ops(new))
    results = interp.run(new, [np.zeros((4, 6))])
    assert results[2] == 24 and list(results[3]) == [0, 1, 2, 3]


def test_unknown_rank() -> None:
    x = placeholder("float32", None)
    loss = reduce_sum(square(x))
    (dx,) = gradients(loss, [x])
    new = special([loss, dx], [x], (2, 2))
    assert "BroadcastLike" not in ops(new)
    np.testing.assert_array_equal(interp.run(new, [np.ones((2, 2))])[1], np.full((2, 2), 2.0))


def test_gradients_of_broadcasts_resolve() -> None:
    x, b = placeholder("float32", (N, 3)), placeholder("float32", (Dim.symbol("M"),))
    found = gradients(reduce_mean(add(x, b)), [x, b])
    for width in (3, 1):
        new = special(found, [x, b], (4, 3), (width,))
        assert not {"UnbroadcastLike", "BroadcastLike", "OnesLike"} & set(ops(new))
        assert new.outputs[1].type.shape == (width,)


def test_a_shape_error_at_run_time_names_line_origin_and_feeds() -> None:
    x, w = placeholder("float32", (N, N * 1), name="x"), placeholder("float32", None, name="w")
    y = matmul(x, w, name="product")
    fn = functionalize([y], [], [x, w])
    with pytest.raises(ShapeError) as caught:
        specialize(fn, [TensorType("float32", (2, 2)), TensorType("float32", (3, 4))])
    message = str(caught.value)
    assert "inner dimensions differ" in message and "(node 'product')" in message
    assert "test_specialize.py" in message
    assert "fed x: float32[2, 2]" in message and "fed w: float32[3, 4]" in message
    assert "float32[3, 4]" in message


def test_an_error_in_a_gradient_names_the_forward_line() -> None:
    x, g = placeholder("float32", None, name="x"), placeholder("float32", None, name="g")
    (dx,) = gradients(square(x), x, grad_ys=[g])
    fn = functionalize([dx], [], [x, g])
    with pytest.raises(ShapeError) as caught:
        specialize(fn, [TensorType("float32", (2,)), TensorType("float32", (3,))])
    assert "gradient of test_specialize.py" in str(caught.value)


def test_a_feed_that_contradicts_its_declared_shape() -> None:
    x = placeholder("float32", (N, 3), name="x")
    with pytest.raises(ShapeError, match="fed for x"):
        special([square(x)], [x], (2, 4))


def test_shapes_from_computed_values_are_unsupported() -> None:
    x, n = placeholder("float32", (N,)), placeholder("int32", (2,), name="n")
    y = reshape(x, n)
    with pytest.raises(Unsupported, match="depends on computed data"):
        special([y], [x, n], (6,), (2,))


def test_host_calls_may_leave_shapes_open_where_nothing_is_compiled() -> None:
    x = placeholder("float32", (N,))
    y = py_func(lambda a: a, [square(x)], "float32")
    fn = functionalize([y], [], [x])
    new = specialize(fn, [TensorType("float32", (3,))])
    assert new.outputs[0].type.shape is None
    with pytest.raises(Unsupported, match="set_shape"):
        specialize(functionalize([square(y)], [], [x]), [TensorType("float32", (3,))])


def test_types_recorded_by_set_shape_count() -> None:
    x = placeholder("float32", (N,))
    y = py_func(lambda a: a, [x], "float32")
    y.node.types = (TensorType("float32", (N,)),)
    new = special([square(y)], [x], (3,))
    assert new.outputs[0].type.shape == (3,)


def test_variables_of_open_shape_take_the_type_they_hold() -> None:
    from tinyflow.ops.state import VariableRef, read_variable

    ref = VariableRef("v", TensorType("float32", None))
    fn = functionalize([square(read_variable(ref))])
    new = specialize(fn, [], {ref: TensorType("float32", (2, 5))})
    assert new.outputs[0].type.shape == (2, 5)
