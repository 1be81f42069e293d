"""Fusion against memory traffic: what is stored, what is computed again, what shares a pass.

Every graph is compiled fused and op by op: the bits must agree.
"""

from itertools import pairwise

import numpy as np
import pytest

from tinyflow import ops
from tinyflow.autodiff.reverse import gradients
from tinyflow.compile import compile_function
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Function, Input, Node, TensorType
from tinyflow.passes.fusion import fuse_groups
from tinyflow.passes.pipeline import optimize


def function_of(build, *shapes):
    with building(Builder()):
        types = [TensorType("float32", shape) for shape in shapes]
        inputs = [Node(Input(t), (), (t,)).outputs[0] for t in types]
        outputs = build(*inputs)
    return Function("f", inputs, outputs if isinstance(outputs, tuple | list) else (outputs,))


def fused(build, *shapes):
    """The grouping, after checking that it computes the bits of op-by-op execution."""
    fn = function_of(build, *shapes)
    rng = np.random.default_rng(7)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    together, alone = compile_function(fn, fuse=True), compile_function(fn, fuse=False)
    for a, b in zip(together(*arrays), alone(*arrays), strict=True):
        assert a.tobytes() == b.tobytes()
    return together.plan.grouping


def kinds(grouping):
    return [g.kind for g in grouping.groups]


def stored(grouping, shape):
    """Values of that shape that some kernel writes."""
    return [
        item.value
        for group in grouping.groups
        for item in grouping.results(group)
        if item.value.type.shape == shape
    ]


# ---- computed again instead of stored ------------------------------------------------------------
def gelu(x):
    return x * 0.5 * (ops.erf(x * 0.7071067811865476) + 1.0)


def gelu_layer_and_gradients(x, w, b, v, wanted):
    h = gelu(ops.add(ops.matmul(x, w), b))
    loss = ops.reduce_sum(ops.square(ops.subtract(ops.matmul(h, v), wanted)))
    return gradients([loss], [x, w, b, v])


def test_gelu_keeps_its_argument_and_its_result_only():
    """Half the argument, the error function and the density all follow from x @ w + b."""

    shapes = (96, 40), (40, 120), (120,), (120, 30), (96, 30)
    grouping = fused(gelu_layer_and_gradients, *shapes)
    # the argument, gelu of it, and the gradient with respect to the argument
    assert len(stored(grouping, (96, 120))) == 3
    backward = [g for g in grouping.groups if g.copied]
    assert backward and all(g.kind == "dot" for g in backward)
    names = {v.node.op.type_name for g in backward for v in g.copied}
    assert {"Erf", "Exp"} <= names


def test_small_values_are_kept_because_they_stay_in_the_cache():
    grouping = fused(gelu_layer_and_gradients, (6, 4), (4, 12), (12,), (12, 3), (6, 3))
    assert not any(g.copied for g in grouping.groups)


def layer_norm(x, scale, offset):
    mean = ops.reduce_mean(x, axis=-1, keepdims=True)
    centred = ops.subtract(x, mean)
    variance = ops.reduce_mean(ops.square(centred), axis=-1, keepdims=True)
    return centred * ops.rsqrt(variance + 1e-5) * scale + offset


def test_layer_norm_and_its_gradient_are_a_row_kernel_and_one_pass_over_the_columns():
    def build(x, scale, offset, dy):
        y = layer_norm(x, scale, offset)
        loss = ops.reduce_sum(ops.multiply(y, dy))
        return [y, *gradients([loss], [x, scale, offset])]

    grouping = fused(build, (200, 64), (64,), (64,), (200, 64))
    assert kinds(grouping) == ["row", "reduce"]
    # y and dx; the product that the scale's gradient sums up is not stored
    assert len(stored(grouping, (200, 64))) == 2


def test_the_gradient_of_softmax_cross_entropy_is_in_the_row_kernel():
    def build(x, labels):
        loss = ops.softmax_cross_entropy_with_logits(labels=labels, logits=x)
        return [loss, *gradients([ops.reduce_sum(loss)], [x])]

    assert kinds(fused(build, (60, 90), (60, 90))) == ["row"]


def test_what_is_fetched_stays_stored():
    def build(x, y):
        s = ops.add(x, y)
        return s, ops.matmul(ops.transpose(s), s)

    grouping = fused(build, (80, 90), (80, 90))
    assert len(stored(grouping, (80, 90))) == 1


# ---- transposes ----------------------------------------------------------------------------------
def attention(x, wq, wk, wv, wo):
    b, t, h, d = 2, 24, 4, 16

    def heads(w):
        return ops.transpose(ops.reshape(ops.matmul(x, w), (b, t, h, d)), (0, 2, 1, 3))

    scores = ops.matmul(heads(wq), heads(wk), transpose_b=True)
    mixed = ops.matmul(ops.softmax(scores), heads(wv))
    return ops.matmul(ops.reshape(ops.transpose(mixed, (0, 2, 1, 3)), (b * t, h * d)), wo)


def test_attention_moves_no_transposed_copy():
    """q, k, v are read with strides; the result is written where the next product wants it."""
    grouping = fused(attention, (48, 64), *[(64, 64)] * 4)
    assert sorted(kinds(grouping)) == ["dot"] * 6 + ["row"]
    assert sum(len(g.turned) for g in grouping.groups) == 1


def test_a_contraction_does_not_compute_its_operand_again_and_again():
    """The transpose alone would be read in place; what it turns is an exponential."""

    def build(x, w):
        turned = ops.transpose(ops.exp(x), (1, 0, 2))
        return ops.matmul(turned, w), ops.matmul(turned, w * 2.0)

    grouping = fused(build, (20, 6, 64), (6, 64, 50))
    dots = [g for g in grouping.groups if g.kind == "dot"]
    assert len(dots) == 2 and not any(g.copied for g in dots)
    assert len(stored(grouping, (6, 20, 64))) == 1


def test_a_transpose_that_would_scatter_neighbours_has_a_kernel():
    def build(x, w):
        return ops.multiply(ops.transpose(ops.matmul(x, w)), 2.0)

    assert kinds(fused(build, (70, 80), (80, 90))) == ["dot", "map"]


def test_transposed_results_of_equal_extents_are_not_confused():
    def build(x, w):
        m = ops.matmul(x, w)
        t = ops.transpose(m, (0, 2, 1, 3))
        return ops.add(ops.tanh(t), m), t, ops.transpose(m, (1, 0, 2, 3))

    grouping = fused(build, (6, 6, 6, 16), (6, 6, 16, 16))
    assert grouping.groups[0].kind == "dot" and len(grouping.groups[0].turned) == 2


@pytest.mark.parametrize(
    ("build", "shapes"),
    [
        (lambda x, v: ops.reduce_sum(x, axis=0) * v, [(5, 17, 40), (40,)]),
        (lambda x, v: (ops.reduce_sum(x, axis=0) * v, ops.reduce_max(x, axis=0)),
         [(50, 17, 40), (40,)]),
        (lambda x, w, m: ops.matmul(x, w) * m, [(2, 3, 4), (1, 4, 5), (3, 5)]),
        (lambda x, w, m: ops.matmul(x, w) * m, [(2, 3, 4), (1, 4, 5), (2, 1, 5)]),
    ],
)  # fmt: skip
def test_what_follows_may_walk_fewer_axes_than_the_result(build, shapes):
    """Loops that the operands would let become one stay apart for the epilogue's sake."""
    assert len(fused(build, *shapes).groups) == 1


# ---- siblings ------------------------------------------------------------------------------------
def test_reductions_of_one_array_share_a_pass():
    def build(x, y):
        product = ops.multiply(x, y)
        return (
            ops.reduce_sum(x, axis=0), ops.reduce_sum(product, axis=0), ops.reduce_max(x, axis=0)
        )  # fmt: skip

    grouping = fused(build, (120, 70), (120, 70))
    assert kinds(grouping) == ["reduce"]
    assert len(grouping.results(grouping.groups[0])) == 3


def test_batch_statistics_share_a_pass():
    def build(x):
        return ops.reduce_mean(x, axis=(0, 1, 2)), ops.reduce_mean(ops.square(x), axis=(0, 1, 2))

    assert kinds(fused(build, (4, 9, 10, 24))) == ["reduce"]


def test_reductions_over_different_axes_do_not():
    def build(x):
        return ops.reduce_sum(x, axis=0), ops.reduce_sum(x, axis=(0, 1))

    grouping = fused(build, (40, 30, 20))
    assert kinds(grouping).count("reduce") == 2


def test_element_wise_siblings_read_their_common_input_once():
    def build(x, y, w):
        dx, dy = ops.multiply(w, y), ops.multiply(w, x)
        return dx, dy

    grouping = fused(build, (90, 80), (90, 80), (90, 80))
    assert kinds(grouping) == ["map"]
    assert len(grouping.results(grouping.groups[0])) == 2


def test_siblings_that_wait_for_each_other_stay_apart():
    def build(x, w):
        a = ops.tanh(x)
        return a, ops.multiply(ops.matmul(a, w), x)

    grouping = fused(build, (80, 80), (80, 80))
    assert kinds(grouping) == ["map", "dot"]


# ---- updates -------------------------------------------------------------------------------------
def adam(parameter, m, v, gradient):
    m = m + (gradient - m) * 0.1
    v = v + (ops.square(gradient) - v) * 0.001
    return parameter - m * 0.01 / (ops.sqrt(v) + 1e-8), m, v


def test_all_of_adam_for_small_variables_is_one_kernel():
    shapes = [(30, 4), (7,), (6, 6), (5, 5, 3), (100, 20), (33,), (12,)]
    n = len(shapes)

    def build(*v):
        rows = zip(v[:n], v[n : 2 * n], v[2 * n : 3 * n], v[3 * n :], strict=True)
        return [x for row in rows for x in adam(*row)]

    grouping = fused(build, *shapes * 4)
    assert kinds(grouping) == ["batch"]
    (batch,) = grouping.groups
    assert len(batch.parts) == n and len(grouping.results(batch)) == 3 * n


def test_a_large_update_keeps_its_own_kernel():
    def build(a, b, c):
        return a * 0.5, b * 0.5, c * 0.5

    grouping = fused(build, (400, 400), (30,), (40,))
    assert sorted(kinds(grouping)) == ["batch", "map"]


def test_batches_of_equal_layers_have_one_signature():
    def build(*v):
        return [x * 0.5 + 1.0 for x in v]

    grouping = fuse_groups(optimize(function_of(build, *[(7,)] * 48))[0])
    assert {len(g.parts) for g in grouping.groups} == {16}
    assert len({grouping.signature(g)[0] for g in grouping.groups}) == 1


def perceptron(sizes, batch):
    parameters = [s for a, b in pairwise(sizes) for s in ((a, b), (b,))]
    n = len(parameters)

    def build(x, labels, *v):
        h = x
        for k in range(0, n, 2):
            h = ops.add(ops.matmul(h, v[k]), v[k + 1])
            h = ops.relu(h) if k < n - 2 else h
        loss = ops.reduce_mean(ops.softmax_cross_entropy_with_logits(labels=labels, logits=h))
        rows = zip(v[:n], v[n : 2 * n], v[2 * n :], gradients([loss], list(v[:n])), strict=True)
        return [loss, *[x for row in rows for x in adam(*row)]]

    return build, [(batch, sizes[0]), (batch, sizes[-1]), *parameters * 3]


def test_adam_is_inside_the_weight_gradients():
    """No gradient is stored: each product ends in the three new values, so does each bias sum."""
    build, shapes = perceptron((50, 40, 30, 10), 32)
    grouping = fused(build, *shapes)
    for shape in ((50, 40), (40, 30), (30, 10), (40,), (30,), (10,)):
        assert len(stored(grouping, shape)) == 3, shape
    updates = [g for g in grouping.groups if len(grouping.results(g)) >= 3]
    assert {g.kind for g in updates} == {"dot", "reduce"}
    assert not {"map", "batch"} & set(kinds(grouping))


# ---- decisions and time --------------------------------------------------------------------------
def test_decisions_say_what_is_saved_and_why_not():
    def build(x, w):
        h = ops.relu(ops.matmul(x, w))
        return ops.reduce_sum(ops.exp(h), axis=0), h

    decisions = fused(build, (64, 80), (80, 100)).decisions
    joined = next(d for d in decisions if d.consumer.node.op.type_name == "Relu")
    assert joined.fused and joined.saved_bytes == 2 * 64 * 100 * 4
    apart = [d for d in decisions if not d.fused]
    assert apart and all(d.reason and d.saved_bytes >= 0 for d in apart)


@pytest.mark.parametrize("layers", [1, 3])
def test_the_same_decisions_every_time(layers):
    build, shapes = perceptron((30,) * (layers + 1), 64)
    fn, _ = optimize(function_of(build, *shapes))
    texts = set()
    for _ in range(3):
        grouping = fuse_groups(fn)
        texts.add(repr([grouping.groups, grouping.decisions]))
    assert len(texts) == 1


def deep(layers):
    def build(x, *v):
        for n in range(layers):
            w, b, scale, offset = v[4 * n : 4 * n + 4]
            x = gelu(layer_norm(ops.add(ops.matmul(x, w), b), scale, offset))
        return [*gradients([ops.reduce_sum(x)], list(v))]

    return function_of(build, (128, 64), *[(64, 64), (64,), (64,), (64,)] * layers)


def test_deep_networks_repeat_the_kernels_of_shallow_ones():
    counts = []
    for layers in (4, 16):
        grouping = fuse_groups(optimize(deep(layers))[0])
        counts.append(len({grouping.signature(g)[0] for g in grouping.groups}))
    assert counts[0] == counts[1]
