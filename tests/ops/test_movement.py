"""What samples cannot say of reshape, slicing, joining: user functions, symbols, dynamic shapes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyflow import ops, te
from tinyflow.core.error import AxisError, DTypeError, ShapeError, Unsupported
from tinyflow.core.shape import Dim
from tinyflow.ir.graph import interp
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Function, Input, TensorType, Value
from tinyflow.ops.base import DynamicShape
from tinyflow.ops.movement import BroadcastTo, Reshape, reshaped_index
from tinyflow.ops.placeholder import placeholder
from tinyflow.ops.python_index import get_item
from tinyflow.ops.shape import shape as shape_of
from tinyflow.ops.shape import symbolic_value
from tinyflow.ops.strided import index_op
from tinyflow.passes.functionalize import functionalize
from tinyflow.passes.specialize import specialize

N, M = Dim.symbol("N"), Dim.symbol("M")


@pytest.fixture(autouse=True)
def own_builder():
    with building(Builder()):
        yield


def feed(*shape, dtype="float32", name="x"):
    return placeholder(dtype, shape, name=name)


def shape_after(function, *types):
    return function(*[feed(*t) for t in types]).type.shape


def run(value: Value, **arrays: np.ndarray) -> np.ndarray:
    """The value for feeds by placeholder name, through functionalize and specialize."""
    feeds = {}
    stack = [value.node]
    while stack:
        node = stack.pop()
        if node.name in arrays:
            feeds[node.name] = node.outputs[0]
        stack.extend(v.node for v in node.inputs)
    fn = functionalize([value], (), list(feeds.values()))
    given_arrays = [arrays[n] for n in feeds]
    static = specialize(fn, [TensorType(a.dtype, a.shape) for a in given_arrays])
    return interp.run(static, given_arrays)[0]


def test_symbols_are_carried_through():
    assert shape_after(lambda x: ops.reshape(x, (-1,)), (N, 3)) == (N * 3,)
    assert shape_after(lambda x: ops.reshape(x, (-1, 6)), (N * 2, 3)) == (N, 6)
    assert shape_after(lambda x, y: ops.concat([x, y], 0), (N, 3), (M, 3)) == (N + M, 3)
    assert shape_after(lambda x: ops.concat([x, x], 0), (N, 3)) == (N * 2, 3)
    assert shape_after(lambda x: ops.stack([x, x], 1), (N, 3)) == (N, 2, 3)
    assert shape_after(lambda x: ops.pad(x, [[1, 2], [0, 0]]), (N, 3)) == (N + 3, 3)
    assert shape_after(lambda x: ops.tile(x, [2, 4]), (N, 3)) == (N * 2, 12)
    assert shape_after(lambda x: x[1:], (N, 3)) == (N - 1, 3)
    assert shape_after(lambda x: x[:, ::-1], (N, M)) == (N, M)
    assert shape_after(lambda x: ops.transpose(x), (N, M)) == (M, N)
    assert shape_after(lambda x, y: ops.matmul(x, y), (N, 3), (3, M)) == (N, M)


def test_a_shape_computed_from_shapes_is_symbolic():
    x = feed(N, 3)
    rows = shape_of(x)[0]
    assert ops.reshape(x, [rows, 3]).type.shape == (N, 3)
    assert ops.reshape(x, [rows * 3]).type.shape == (N * 3,)
    assert ops.reshape(x, ops.concat([shape_of(x), [1]], 0)).type.shape == (N, 3, 1)
    assert symbolic_value(shape_of(x)) == (N, 3)


def test_unknown_operands_give_distinct_extents():
    x, n = feed(4, 3), feed(2, dtype="int32", name="n")
    a, b = ops.broadcast_to(x, n), ops.broadcast_to(x, n)
    assert len(a.type.shape) == 2 and a.type.shape != b.type.shape
    assert isinstance(a.node.op, DynamicShape)


def test_static_operands_become_attributes():
    x, y = feed(4, 3), feed(3, 4, name="y")
    assert ops.reshape(x, shape_of(y)).node.op == Reshape((3, 4))
    assert ops.reshape(x, np.array([6, 2])).node.op == Reshape((6, 2))
    assert ops.broadcast_to(x, [2, 4, 3]).node.op == BroadcastTo((2, 4, 3))


def test_dynamic_shapes_run():
    x = feed(N, 3)
    array = np.arange(12, dtype=np.float32).reshape(4, 3)
    flat = ops.reshape(x, [shape_of(x)[0] * 3])
    np.testing.assert_array_equal(run(flat, x=array), array.ravel())
    first = x[: shape_of(x)[0] - 1]
    np.testing.assert_array_equal(run(first, x=array), array[:-1])
    hot = ops.one_hot([0, 2], shape_of(x)[0])
    np.testing.assert_array_equal(run(hot, x=array), np.eye(4, dtype=np.float32)[[0, 2]])


def test_shape_from_data_is_unsupported():
    x, n = feed(4), feed(1, dtype="int32", name="n")
    with pytest.raises(Unsupported, match="depends on computed data"):
        run(ops.reshape(x, n * 2), x=np.zeros(4, np.float32), n=np.array([2], np.int32))


INDICES = [
    np.s_[1], np.s_[-1], np.s_[1:3], np.s_[::-1], np.s_[..., 2], np.s_[:, np.newaxis, 1:],
    np.s_[-3:, ::2, ...], np.s_[5:2:-2, 3:0:-1], np.s_[100:], np.s_[..., np.newaxis],
]  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_indexing_is_pythons(index):
    array = np.arange(7 * 5 * 4, dtype=np.float32).reshape(7, 5, 4)
    x = feed(7, 5, 4)
    np.testing.assert_array_equal(run(x[index], x=array), array[index])


def test_index_of_the_graph():
    x, i = feed(5, 4), feed(dtype="int32", name="i")
    array = np.arange(20, dtype=np.float32).reshape(5, 4)
    for position in (0, 3, -1):
        at = np.array(position, np.int32)
        np.testing.assert_array_equal(run(x[i], x=array, i=at), array[position])
        np.testing.assert_array_equal(run(x[1:, i], x=array, i=at), array[1:, position])


@pytest.mark.parametrize("index", ["a", 1.5, [0, 1], (slice(None), "b")])
def test_bad_index(index):
    with pytest.raises(DTypeError, match="cannot index"):
        get_item(feed(5, 4), index)


def test_two_ellipses():
    with pytest.raises(ShapeError, match=r"more than one '\.\.\.'"):
        index_op((Ellipsis, 0, Ellipsis))


def test_stack_split_unstack_round_trip():
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    x = feed(2, 3, 4)
    for axis in (0, 1, 2, -1):
        again = ops.stack(ops.unstack(x, axis=axis), axis)
        np.testing.assert_array_equal(run(again, x=array), array)
        again = ops.concat(ops.split(x, array.shape[axis], axis), axis)
        np.testing.assert_array_equal(run(again, x=array), array)
    parts = ops.split(x, [1, -1], 2)
    assert [p.type.shape for p in parts] == [(2, 3, 1), (2, 3, 3)]


def test_split_errors():
    with pytest.raises(ShapeError, match="cannot cut axis 0 of extent 7"):
        ops.split(feed(7), 2)
    with pytest.raises(ShapeError, match="do not fill"):
        ops.split(feed(7), [2, 3])
    with pytest.raises(ShapeError, match="num is 2, the extent is 3"):
        ops.unstack(feed(3), num=2)
    with pytest.raises(AxisError):
        ops.split(feed(6), 2, axis=1)


SIZES = st.lists(st.integers(1, 4), min_size=0, max_size=4)


@settings(max_examples=60, deadline=None)
@given(SIZES, st.randoms())
def test_reshape_index_is_row_major(shape, random):
    """Any regrouping of the extents: the index computed per group is NumPy's."""
    from tinyflow.ir.scalar.interp import evaluate

    factors = [f for n in shape for f in ([n] if n < 4 else [2, 2])]
    target, group = [], 1
    for f in factors:
        group *= f
        if random.random() < 0.5:
            target.append(group)
            group = 1
    target += [group] if group > 1 or random.random() < 0.3 else []
    x = te.placeholder(tuple(shape), "float32")
    assert int(np.prod(shape)) == int(np.prod(target))
    source = np.arange(int(np.prod(shape))).reshape(shape)
    for position in np.ndindex(*target):
        axes = [te.index(p) for p in position]
        found = tuple(
            int(evaluate(te.as_index(i), {})) for i in reshaped_index(x.shape, target, axes)
        )
        assert source[found] == source.reshape(target)[position]


def test_hints():
    with pytest.raises(ShapeError, match=r"did you mean shape \[-1, 3\]"):
        ops.reshape(feed(4, 3), [3])
    with pytest.raises(ShapeError, match=r"did you mean matmul\(a, b, transpose_b=True\)"):
        ops.matmul(feed(32, 784), feed(512, 784))
    with pytest.raises(ShapeError, match=r"tf.expand_dims\(b, 1\) for a column"):
        ops.matmul(feed(3, 4), feed(4))
    with pytest.raises(ShapeError, match=r"tf.expand_dims of the smaller"):
        ops.concat([feed(3, 4), feed(4)], 0)


def test_function_of_inputs_only():
    """Gradient ops with static types need nothing but dy: ``like`` is not kept alive."""
    from tinyflow.autodiff import gradients

    with building(Builder()) as builder:
        x = builder.emit(Input(TensorType("float32", (5, 4))), (), "x")
        (dx,) = gradients([x[1:4, 2]], [x])
    from tinyflow.passes.pipeline import optimize

    fn, _ = optimize(Function("f", [x], [dx]))
    assert not any(v.node.op.type_name == "Input" for n in fn.nodes for v in n.inputs)
