"""Fusion: which nodes share a kernel, what is recomputed, and that groups can be ordered."""

import numpy as np
import pytest

from tests.fuzz.random_graphs import random_function
from tinyflow import ops
from tinyflow.autodiff.reverse import gradients
from tinyflow.compile import compile_function
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Function, Input, Node, TensorType
from tinyflow.passes.fusion import MAX_ITEMS, fuse_groups, recompute, siblings, squeeze
from tinyflow.passes.pipeline import optimize


def grouping_of(build, *shapes, fuse=True):
    with building(Builder()):
        types = [TensorType("float32", shape) for shape in shapes]
        inputs = [Node(Input(t), (), (t,)).outputs[0] for t in types]
        outputs = build(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    fn, _ = optimize(Function("f", inputs, outputs))
    return fuse_groups(fn, fuse)


def shape_of(grouping):
    return [(g.kind, len(grouping.results(g))) for g in grouping.groups]


def test_an_elementwise_tree_is_one_kernel_with_one_result():
    def build(x, y):
        return ops.add(ops.exp(x), ops.multiply(ops.tanh(y), x))

    assert shape_of(grouping_of(build, (5, 7), (5, 7))) == [("map", 1)]
    # tanh of a row is worth a kernel of its own: stretched first, it would be computed five times
    assert shape_of(grouping_of(build, (5, 7), (7,))) == [("map", 1), ("map", 1)]


def test_a_shared_value_is_not_computed_by_two_kernels():
    def build(x):
        e = ops.exp(x)
        return ops.reduce_sum(e, axis=0), ops.add(e, 1.0)

    grouping = grouping_of(build, (50, 7))
    assert shape_of(grouping) == [("map", 2), ("reduce", 1)]
    assert any("reduces other axes" in d.reason for d in grouping.decisions)


def test_softmax_and_what_follows_share_a_kernel():
    def build(x, y):
        p = ops.softmax(x)
        return ops.reduce_sum(ops.multiply(p, y), axis=-1), ops.subtract(p, y)

    assert shape_of(grouping_of(build, (20, 9), (20, 9))) == [("row", 2)]


def test_an_epilogue_joins_the_contraction_and_a_transposed_use_does_not():
    def build(x, w, b):
        h = ops.relu(ops.add(ops.matmul(x, w), b))
        return h, ops.multiply(ops.transpose(h), 2.0)

    assert shape_of(grouping_of(build, (6, 8), (8, 5), (5,))) == [("dot", 1), ("map", 1)]


def test_a_cycle_of_kernels_is_never_made():
    """b needs the matmul of a, c needs a and b: c must not join a's kernel."""

    def build(x, w):
        a = ops.tanh(x)
        b = ops.matmul(a, w)
        return ops.add(a, b)

    grouping = grouping_of(build, (6, 6), (6, 6))
    assert shape_of(grouping) == [("map", 1), ("dot", 1)]


def test_views_have_no_kernel():
    grouping = grouping_of(lambda x: ops.reshape(ops.exp(x), (21, 2)), (6, 7))
    assert [g.kind for g in grouping.groups] == ["map", "view"]


def test_long_chains_are_cut():
    def build(x, y):
        for _ in range(3 * MAX_ITEMS):
            x = ops.add(ops.tanh(x), y)
        return x

    grouping = grouping_of(build, (4,), (4,))
    assert all(len(g.items) <= MAX_ITEMS for g in grouping.groups)
    assert len({grouping.signature(g)[0] for g in grouping.groups}) <= 3


def test_op_by_op_is_one_node_per_kernel():
    grouping = grouping_of(lambda x: ops.add(ops.exp(x), 1.0), (5,), fuse=False)
    assert all(len(g.items) == 1 for g in grouping.groups)


def check_grouping(fn, grouping):
    """Groups come after what they read, and what they read is in memory by then, or computed at
    the very point where it is read.
    """
    stored = set(fn.inputs)
    done = set()
    for group in grouping.groups:
        assert group.sources - {group} <= done | {group}
        done |= {group, *group.parts}
        for part in group.parts or (group,):
            own = {item.value for item in part.items}
            stack, seen = list(own), set()
            while stack:
                value = stack.pop()
                item = grouping.items.get(value)
                if value in seen or item is None:  # inputs and constants
                    continue
                seen.add(value)
                if value in own or value in part.copied:
                    stack += [v for v, _ in item.reads]
                else:
                    assert value in stored, (group, value)
            assert all(item.group is part for item in part.items)
            for value in part.inlined | part.copied:  # such expressions read anywhere
                read = {v for v, _ in grouping.items[value].reads}
                assert not read & (own - part.inlined - part.copied), (group, value)
        stored |= {item.value for item in grouping.results(group)}
    for value in fn.outputs:
        assert value in stored or grouping.items.get(value) is None


@pytest.mark.parametrize("worth", [None, 0])
@pytest.mark.parametrize("seed", range(40))
def test_order_and_membership_on_random_graphs(seed, worth, monkeypatch):
    if worth is not None:  # whatever the sizes are
        monkeypatch.setattr(recompute, "WORTH", worth)
        monkeypatch.setattr(siblings, "WORTH", worth)
    fn, _ = random_function(seed)
    fn, _ = optimize(fn)
    check_grouping(fn, fuse_groups(fn))


@pytest.mark.parametrize("seed", range(100, 112))
def test_bits_of_gradients_when_everything_is_worth_sharing(seed, monkeypatch):
    monkeypatch.setattr(recompute, "WORTH", 0)
    monkeypatch.setattr(recompute, "bytes_per_element", lambda item: 0)
    monkeypatch.setattr(siblings, "WORTH", 0)
    monkeypatch.setattr(siblings, "NEAR", 1 << 30)
    fn, arrays = random_function(seed)
    with building(Builder()):
        loss = [ops.reduce_sum(ops.multiply(y, y)) for y in fn.outputs]
        found = [g for g in gradients(loss, list(fn.inputs)) if g is not None]
    fn = Function("f", fn.inputs, (*fn.outputs, *found))
    with np.errstate(all="ignore"):
        together = compile_function(fn, fuse=True)(*arrays)
        alone = compile_function(fn, fuse=False)(*arrays)
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("summed", [False, True])
def test_what_is_inlined_reads_other_places(summed):
    """Both ends of a row are added inside the expression of a concatenation: the kernel that makes
    the row, point by point, is another one.
    """
    x = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    with building(Builder()):
        type_ = TensorType("float32", x.shape)
        value = Node(Input(type_), (), (type_,)).outputs[0]
        e = ops.exp(value)
        ends = ops.add(e[:, 0:1], e[:, 2:3])
        y = ops.multiply(ops.concat([ends, ops.zeros((2, 1, 5)), ends], 1), e)
        fn = Function("f", [value], [ops.reduce_sum(y, axis=2) if summed else y])
    check_grouping(fn, fuse_groups(fn))
    (together,) = compile_function(fn, fuse=True)(x)
    (alone,) = compile_function(fn, fuse=False)(x)
    np.testing.assert_array_equal(together, alone)
    sides = np.exp(x[:, :1]) + np.exp(x[:, 2:])
    wanted = np.concatenate([sides, 0 * sides, sides], 1) * np.exp(x)
    np.testing.assert_allclose(alone, wanted.sum(2) if summed else wanted, rtol=1e-5)


def test_an_unrolled_recurrent_network_is_consistent():
    """Many values go to one kernel and are dropped at different times."""

    def build(w, u, b, *steps):
        h = c = ops.zeros((64, 96))
        for x in steps:
            z = ops.add(ops.add(ops.matmul(x, w), ops.matmul(h, u)), b)
            i, f, g, o = ops.split(z, 4, axis=1)
            c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
            h = ops.sigmoid(o) * ops.tanh(c)
        return tuple(gradients([ops.reduce_sum(ops.square(h))], [w, u, b]))

    shapes = [(96, 384), (96, 384), (384,), *[(64, 96)] * 12]
    with building(Builder()):
        types = [TensorType("float32", shape) for shape in shapes]
        inputs = [Node(Input(t), (), (t,)).outputs[0] for t in types]
        fn, _ = optimize(Function("f", inputs, build(*inputs)))
    grouping = fuse_groups(fn)
    check_grouping(fn, grouping)
    assert any(g.copied for g in grouping.groups)


def test_squeeze():
    assert squeeze((1, 3, 1, 2)) == (3, 2)
    assert squeeze(np.zeros((1, 1)).shape) == ()


def test_equal_layers_are_looked_at_once():
    """The form of an element is shared; the expression itself is made when somebody looks."""

    def build(x, w):
        for _ in range(3):
            x = ops.tanh(ops.add(ops.matmul(x, w), x))
        return x

    grouping = grouping_of(build, (5, 5), (5, 5))
    for name in ("MatMul", "Add", "Tanh"):
        items = [i for v, i in grouping.items.items() if v.node.op.type_name == name]
        assert len(items) == 3
        assert len({i.form for i in items}) == 1, name
        assert len({i.tensor for i in items}) == 3
        for item in items:  # of its own inputs, not of the layer that was looked at first
            read = {grouping.placeholders[t] for t in item.tensor.op.input_tensors}
            assert read == {v for v, _ in item.reads}


def test_an_index_that_is_read_is_no_part_of_a_form():
    def build(x, i, j):
        return ops.gather(x, i), ops.gather(x, j)

    with building(Builder()):
        rows = TensorType("int32", (4,))
        types = [TensorType("float32", (6, 3)), rows, rows]
        inputs = [Node(Input(t), (), (t,)).outputs[0] for t in types]
        outputs = build(*inputs)
    grouping = fuse_groups(optimize(Function("f", inputs, outputs))[0])
    first, second = (grouping.items[v] for v in grouping.items if v.node.op.type_name == "GatherV2")
    assert first.form is not second.form
    assert inputs[1] in {v for v, _ in first.reads} and inputs[2] in {v for v, _ in second.reads}


def test_free_values_that_differ_make_different_forms():
    def build(x, y):
        return ops.exp(ops.multiply(x, 2.0)), ops.exp(ops.multiply(y, 3.0))

    grouping = grouping_of(build, (40, 40), (40, 40))
    items = [i for v, i in grouping.items.items() if v.node.op.type_name == "Mul"]
    assert len({i.form for i in items}) == len(items) == 2
