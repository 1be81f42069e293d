"""Attention: the bits of separate kernels, memory that grows with the length, what is refused."""

import itertools

import numpy as np
import pytest

import tinyflow as tf
from tinyflow import ops
from tinyflow.autodiff.reverse import gradients
from tinyflow.compile import compile_function
from tinyflow.compile import step as step_module
from tinyflow.core import options
from tinyflow.ir.graph import interp
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Function, Input, Node, TensorType
from tinyflow.passes.fusion import attention


@pytest.fixture
def eager(monkeypatch):
    """Any square is worth it, and none waits in memory for the gradient."""
    monkeypatch.setattr(attention, "STRETCH", 0)
    monkeypatch.setattr(attention, "WORTH_BYTES", 0)
    monkeypatch.setattr(attention, "AGAIN_BYTES", 0)


def normal(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng((seed, *shape)).normal(size=shape).astype(dtype)


def function(build, arrays):
    with building(Builder()):
        types = [TensorType(a.dtype, a.shape) for a in arrays]
        inputs = [Node(Input(t), (), (t,)).outputs[0] for t in types]
        outputs = build(*inputs)
    return Function("f", inputs, outputs if isinstance(outputs, tuple) else (outputs,))


def kinds(compiled):
    return [g.kind for g in compiled.plan.grouping.groups if g.kind != "view"]


def attend(q, k, v, change=lambda scores: scores, after=lambda p: p, scale=0.125):
    scores = ops.matmul(q, k, transpose_b=True)
    if scale is not None:
        scores = ops.multiply(scores, scale)
    return ops.matmul(after(ops.softmax(change(scores))), v)


def with_gradients(q, k, v, *rest, **how):
    """out and the gradients of a function of it, whose weight depends on out."""
    out = attend(q, k, v, **how)
    return (out, *gradients(ops.tanh(out), [q, k, v]))


def check(build, arrays, kinds_wanted=None, rtol=1e-4):
    """The kinds of kernels; bits as op by op; values as the reference interpreter."""
    fn = function(build, arrays)
    with options.override(verify=True):
        fused = compile_function(fn)
    got = fused(*arrays)
    if kinds_wanted is not None:
        assert kinds(fused) == kinds_wanted
    for one, alone in zip(got, compile_function(fn, fuse=False)(*arrays), strict=True):
        np.testing.assert_array_equal(one.view(np.uint8), alone.view(np.uint8))
    for one, want in zip(got, interp.run(fn, arrays), strict=True):
        np.testing.assert_allclose(one, want, rtol=rtol, atol=rtol)
    return fused


def heads(rows, columns, depth, batch=(2, 3), dtype=np.float32):
    return [
        normal(*batch, rows, depth, dtype=dtype, seed=1),
        normal(*batch, columns, depth, dtype=dtype, seed=2),
        normal(*batch, columns, depth, dtype=dtype, seed=3),
    ]


@pytest.mark.parametrize(
    ("rows", "columns", "depth"),
    [(64, 64, 32), (37, 70, 24), (13, 129, 40), (100, 33, 64), (30, 48, 48), (64, 64, 64),
     (15, 300, 20)],
)  # fmt: skip
def test_one_kernel_forward(eager, rows, columns, depth):
    check(attend, heads(rows, columns, depth), ["attention"])


@pytest.mark.parametrize(
    ("rows", "columns", "depth"), [(64, 64, 32), (37, 70, 24), (61, 50, 40), (150, 33, 33)]
)
def test_one_kernel_forward_and_one_backward(eager, rows, columns, depth):
    check(with_gradients, heads(rows, columns, depth), ["attention", "attention"])


def test_float64(eager):
    arrays = heads(37, 70, 24, dtype=np.float64)
    check(with_gradients, arrays, ["attention", "attention"], 1e-12)


def test_short_vectors(eager):
    """Another shape of tile, the same bits."""
    arrays = heads(45, 52, 24)
    fn = function(with_gradients, arrays)
    wide = compile_function(fn)(*arrays)
    with options.override(lanes=4):
        narrow = compile_function(fn)(*arrays)
    for one, other in zip(wide, narrow, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("shape", [(40, 56), (2, 1, 1, 56), (2, 3, 40, 56), (3, 1, 56)])
def test_masks(eager, shape):
    mask = np.where(normal(*shape) > 0.5, -1e9, 0).astype(np.float32)

    def build(q, k, v, m):
        return with_gradients(q, k, v, change=lambda scores: ops.add(scores, m))

    check(build, [*heads(40, 56, 32), mask], ["attention", "attention"])


def test_rows_that_are_masked_altogether(eager):
    """-inf minus -inf is NaN, in the same elements as in separate kernels."""
    mask = np.zeros((40, 56), np.float32)
    mask[3], mask[7, :50] = -np.inf, -np.inf

    def build(q, k, v, m):
        return attend(q, k, v, change=lambda scores: ops.add(scores, m))

    (out,) = check(build, [*heads(40, 56, 32), mask])(*heads(40, 56, 32), mask)
    assert np.isnan(out[:, :, 3]).all()
    assert np.isfinite(np.delete(out, 3, axis=2)).all()


def test_a_causal_mask_from_comparisons(eager):
    def causal(scores):
        columns = ops.arange(48)
        seen = ops.less_equal(columns, ops.reshape(columns, (48, 1)))
        everywhere = ops.broadcast_to(seen, (2, 3, 48, 48))
        return ops.select(everywhere, scores, ops.fill((2, 3, 48, 48), np.float32(-1e9)))

    def build(q, k, v):
        return with_gradients(q, k, v, change=causal)

    found = check(build, heads(48, 48, 32))
    assert kinds(found).count("attention") == 2


def test_weights_between_softmax_and_sum(eager):
    """What a dropout mask does."""
    keep = (normal(2, 3, 40, 40) > -1).astype(np.float32)

    def build(q, k, v, m):
        return with_gradients(q, k, v, after=lambda p: ops.multiply(p, m))

    check(build, [*heads(40, 40, 32), keep], ["attention", "attention"])


def test_dropout(eager):
    """Random bits are computed per element, the same ones in both kernels."""
    plans = []

    def observe(step):
        if isinstance(step, step_module.BoundStep):
            plans.append(step.program.plan)

    def run(fuse):
        arrays = heads(40, 40, 32)
        with tf.Graph().as_default(), tf.Session() as session, options.override(fuse=fuse):
            q, k, v = (tf.placeholder(tf.float32, a.shape) for a in arrays)
            p = tf.nn.dropout(tf.nn.softmax(tf.matmul(q, k, transpose_b=True)), 0.9, seed=5)
            out = tf.matmul(p, v)
            fetches = [out, *tf.gradients(tf.tanh(out), [q, k, v])]
            return session.run(fetches, dict(zip((q, k, v), arrays, strict=True)))

    step_module.observers.append(observe)
    try:
        fused, single = run(True), run(False)
    finally:
        step_module.observers.remove(observe)
    assert [g.kind for g in plans[0].grouping.groups].count("attention") == 2
    for one, alone in zip(fused, single, strict=True):
        np.testing.assert_array_equal(one, alone)


def test_heads_beside_each_other(eager):
    """Projections split into heads: operands and results are transposed."""

    def split(x):
        return ops.transpose(ops.reshape(x, (2, 50, 3, 32)), (0, 2, 1, 3))

    def build(x, w):
        q, k, v = (split(ops.tensordot(x, w[n], 1)) for n in range(3))
        merged = ops.reshape(ops.transpose(attend(q, k, v), (0, 2, 1, 3)), (2, 50, 96))
        return merged, *gradients(ops.tanh(merged), [x, w])

    found = check(build, [normal(2, 50, 96), normal(3, 96, 96) / 10], rtol=1e-3)
    assert kinds(found).count("attention") == 2


def test_one_head(eager):
    """Two-dimensional: forward in one kernel; sums over all rows stay apart."""
    arrays = heads(70, 60, 32, batch=())
    check(attend, arrays, ["attention"])
    fn = compile_function(function(with_gradients, arrays))
    assert "attention" not in kinds(fn)
    assert any("nothing for threads to share" in d.reason for d in fn.plan.grouping.decisions)


def test_keys_that_heads_share(eager):
    arrays = [normal(4, 40, 32), normal(1, 56, 32), normal(4, 56, 32)]
    check(with_gradients, arrays, rtol=1e-3)


def with_turned_keys(q, k, v):
    """The gradient of keys whose columns are the positions is a sum over rows, turned."""
    p = ops.softmax(ops.multiply(ops.matmul(q, k), 0.2))
    out = ops.matmul(p, v)
    return (out, *gradients(ops.tanh(out), [q, k, v]))


def turned_keys(rows, columns, depth, batch):
    q, k, v = heads(rows, columns, depth, batch)
    return [q, np.ascontiguousarray(np.swapaxes(k, -1, -2)), v]


def test_keys_whose_columns_are_positions(eager):
    found = check(with_turned_keys, turned_keys(45, 77, 24, (2, 3)))
    assert kinds(found).count("attention") == 2


def test_squares_of_the_forward_pass_may_wait_in_memory(monkeypatch):
    monkeypatch.setattr(attention, "WORTH_BYTES", 0)
    found = check(with_gradients, heads(64, 80, 32), ["attention", "attention"])
    first, second = (g for g in found.plan.grouping.groups if g.kind == "attention")
    stored = [i.value for i in found.plan.grouping.results(first)]
    assert any(v.type.shape == (2, 3, 64, 80) for v in stored)
    assert len([m for m in second.members if m.square is None]) == 2  # dp and ds


def test_a_row_longer_than_the_rule_for_short_reductions(eager):
    check(attend, heads(3, 8200, 24, batch=(2,)), ["attention"])


def test_rows_too_long_for_a_stack_wait_in_the_arena(eager):
    """The gradient's kernel, whose tasks are few."""
    arrays = heads(33, 2500, 24)
    found = check(with_gradients, arrays, ["attention", "attention"])
    assert "in the arena" in found.plan.kernels[-1].steps[0]
    assert "in the stack" in found.plan.kernels[1].steps[0]


@pytest.mark.parametrize("build", [attend, with_gradients])
def test_memory_grows_with_the_length(build):
    """Twice the length: twice the memory, not four times."""

    def planned(length):
        arrays = heads(length, length, 32, batch=(8, 2))
        plan = compile_function(function(build, arrays)).plan
        assert "attention" in [g.kind for g in plan.grouping.groups]
        return plan.memory.arena_bytes

    small, middle, large = planned(256), planned(512), planned(1024)
    assert middle <= 2 * small
    assert large <= 2 * middle
    assert large < 16 * 1024 * 1024 * 4 / 4  # a quarter of one square


def test_threads_do_not_change_a_bit(eager):
    from tinyflow.runtime.thread_pool import default_pool, set_num_threads

    arrays = heads(80, 96, 32, batch=(3, 4))
    compiled = compile_function(function(with_gradients, arrays))
    before = default_pool().n_threads
    try:
        set_num_threads(1)
        alone = compiled(*arrays)
        set_num_threads(4)
        for one, other in zip(alone, compiled(*arrays), strict=True):
            np.testing.assert_array_equal(one, other)
    finally:
        set_num_threads(before)


@pytest.mark.parametrize("seed", range(12))
def test_random_graphs(eager, seed):
    """Any element-wise work and any row reductions between two contractions."""
    random = np.random.default_rng(seed)
    rows, columns, depth = (int(n) for n in random.integers(17, 60, 3))
    batch = [(2,), (2, 3), (1, 4)][seed % 3]
    unary = (ops.tanh, ops.exp, ops.sigmoid, ops.square, ops.relu, ops.negative)
    choices = random.integers(0, 6, 6)

    def normal_rows(x):
        kind = choices[0] % 3
        if kind == 0:
            return ops.softmax(x)
        x = ops.subtract(x, ops.reduce_mean(x, axis=-1, keepdims=True))
        if kind == 1:
            return x
        spread = ops.reduce_sum(ops.square(x), axis=-1, keepdims=True)
        return ops.multiply(x, ops.rsqrt(ops.add(spread, 1.0)))

    def build(q, k, v, m):
        scores = ops.multiply(unary[choices[1]](ops.multiply(ops.matmul(q, k), 0.1)), m)
        p = unary[choices[2]](normal_rows(ops.tanh(scores)))
        out = ops.matmul(p, v)
        if choices[3] % 2:
            out = ops.add(unary[choices[4]](out), 1.0)
        return (out, *gradients(ops.sigmoid(out), [q, k, v]))

    q, k, v = heads(rows, columns, depth, batch)
    k = np.ascontiguousarray(np.swapaxes(k, -1, -2))
    mask = normal(rows, columns) if choices[5] % 2 else normal(*batch, rows, columns)
    found = check(build, [q, k, v, mask], rtol=1e-3)
    assert "attention" in kinds(found)


def test_a_batch_of_unknown_size(eager):
    """Kernels whose number of sequences is an argument: two compilations for all of them."""
    steps = []
    step_module.observers.append(steps.append)
    try:
        with tf.Graph().as_default(), tf.Session() as session:
            q, k, v = (tf.placeholder(tf.float32, [None, 3, 45, 32]) for _ in range(3))
            out = tf.matmul(tf.nn.softmax(tf.matmul(q, k, transpose_b=True)), v)
            fetches = [out, *tf.gradients(tf.tanh(out), [q, k, v])]
            for batch in (2, 5, 3, 1, 4):
                arrays = heads(45, 45, 32, (batch, 3))
                got = session.run(fetches, dict(zip((q, k, v), arrays, strict=True)))
                fn = function(lambda *x: with_gradients(*x, scale=None), arrays)
                want = compile_function(fn, fuse=False)(*arrays)
                for one, alone in zip(got, want, strict=True):
                    np.testing.assert_array_equal(one, alone)
    finally:
        step_module.observers.remove(steps.append)
    compiled = [s.grouping if hasattr(s, "grouping") else s.plan.grouping
                for s in steps if not hasattr(s, "step")]  # fmt: skip
    assert [[g.kind for g in one.groups] for one in compiled] == [["attention", "attention"]] * 2


# ---- sizes that only a run tells -----------------------------------------------------------------
def open_step(build, feeds, open_axes=None):
    """The step that serves all of the feeds but the first, which has one of its own. Every result
    has the bits of separate kernels.

    build(*values) -> values.   open_axes: per value, those whose extents only a run tells; else
    the first and the third of four ([None, heads, None, d]).
    """
    steps = []
    step_module.observers.append(steps.append)
    open_axes = open_axes or [(0, 2)] * len(feeds[0])
    try:
        with tf.Graph().as_default(), tf.Session() as session:
            places = []
            for array, axes in zip(feeds[0], open_axes, strict=True):
                shape = [None if n in axes else d for n, d in enumerate(array.shape)]
                places.append(tf.placeholder(array.dtype, shape))
            fetches = build(*places)
            fetches = list(fetches) if isinstance(fetches, tuple) else [fetches]
            for arrays in feeds:
                got = session.run(fetches, dict(zip(places, arrays, strict=True)))
                want = compile_function(function(build, arrays), fuse=False)(*arrays)
                for one, alone in zip(got, want, strict=True):
                    np.testing.assert_array_equal(one.view(np.uint8), alone.view(np.uint8))
    finally:
        step_module.observers.remove(steps.append)
    compiled = [s for s in steps if not hasattr(s, "step") and not hasattr(s, "store")]
    assert len(compiled) == 2
    return compiled[1]


def causal(scores):
    places = tf.range(tf.shape(scores)[-1])
    later = tf.greater(places, tf.expand_dims(places, 1))
    return scores + tf.cast(later, tf.float32) * -1e9


#: (batch, length): below, at and above the edges of tiles, blocks and lengths that share kernels
PAIRS = [(2, 40), (3, 33), (1, 1), (2, 29), (2, 257)]


@pytest.mark.parametrize("again", [0, 4 << 20])
def test_unknown_batches_and_lengths(monkeypatch, again):
    """Two compilations for all of them; with squares that wait for the gradient or do not."""
    monkeypatch.setattr(attention, "AGAIN_BYTES", again)

    def build(q, k, v):
        return with_gradients(q, k, v, change=causal)

    feeds = [heads(n, n, 24, (batch, 3)) for batch, n in PAIRS]
    step = open_step(build, feeds)
    assert kinds_of(step).count("attention") == 2
    last = step.plan_at({"size0": 2, "size1": 257})
    assert any(v.type.shape[-2:] == v.type.shape[-1:] * 2 for v in values_in(last)) is bool(again)
    memory = [step.plan_at({"size0": 8, "size1": n}).memory.arena_bytes
              for n in (128, 256, 512, 1024)]  # fmt: skip
    for one, twice in itertools.pairwise(memory):
        assert twice <= 2 * one  # grows with the length, not with its square


def kinds_of(step):
    return [g.kind for g in step.plan.grouping.groups if g.kind != "view"]


def values_in(plan):
    """What has a place in memory, squares as [size0, 3, size1, size1] among it."""
    return [v for k in plan.kernels for v in k.arguments if hasattr(v, "type") and v.type.rank == 4]


def test_masks_of_unknown_extents():
    def masks(batch, n):
        one = np.where(normal(batch, 1, 1, n) > 0.5, -np.inf, 0).astype(np.float32)
        return [normal(n, n), one]

    def build(q, k, v, m, hidden):
        return with_gradients(q, k, v, change=lambda x: ops.add(ops.add(x, m), hidden))

    pairs = [(2, 40), (3, 33), (1, 61)]
    feeds = [[*heads(n, n, 24, (b, 2)), *masks(b, n)] for b, n in pairs]
    step = open_step(build, feeds, [(0, 2)] * 3 + [(0, 1), (0, 3)])
    assert kinds_of(step).count("attention") == 2


def test_rows_and_columns_of_different_unknown_extents():
    shapes = [(2, 40, 52), (3, 33, 18), (2, 5, 70)]
    feeds = [heads(m, n, 20, (b, 2), np.float64) for b, m, n in shapes]
    assert kinds_of(open_step(with_gradients, feeds)).count("attention") == 2


def test_turned_keys_of_unknown_lengths():
    feeds = [turned_keys(n, n, 20, (b, 2)) for b, n in ((2, 40), (3, 33), (1, 61))]
    assert kinds_of(open_step(with_turned_keys, feeds, [(0, 2), (0, 3), (0, 2)]))[-1] == "attention"


@pytest.mark.slow
def test_short_vectors_and_unknown_lengths():
    with options.override(lanes=4):
        open_step(with_gradients, [heads(n, n, 20, (2, 2)) for n in (40, 33)])


@pytest.mark.slow
def test_rows_of_unknown_length_too_long_for_a_stack():
    feeds = [heads(n, n, 20, (1, 2)) for n in (40, 33, 2100)]
    kernels = open_step(with_gradients, feeds).plan_at({"size0": 2100}).kernels
    assert sum("in the arena" in k.steps[0] for k in kernels) == 2


def test_narrow_products_of_unknown_lengths_have_steps_of_their_own():
    """Rows of 16 and vectors of 128: summed in stripes, where longer rows are not."""
    feeds = [heads(n, n, 130, (2, 2)) for n in (40, 33, 50)]
    assert "attention" in kinds_of(open_step(attend, feeds))
    with pytest.raises(AssertionError, match="3"):
        open_step(attend, [*feeds, heads(16, 16, 130, (2, 2))])


# ---- what stays as it was ------------------------------------------------------------------------
def refusal(build, arrays):
    fn = function(build, arrays)
    compiled = compile_function(fn)
    for one, alone in zip(compiled(*arrays), compile_function(fn, fuse=False)(*arrays),
                          strict=True):  # fmt: skip
        np.testing.assert_array_equal(one, alone)
    assert "attention" not in kinds(compiled)
    return [d.reason for d in compiled.plan.grouping.decisions if not d.fused]


def test_small_squares_stay_in_the_cache():
    assert any("stay in the cache" in r for r in refusal(attend, heads(64, 64, 24)))


def test_weights_that_are_fetched(eager):
    def build(q, k, v):
        p = ops.softmax(ops.matmul(q, k, transpose_b=True))
        return p, ops.matmul(p, v)

    assert any("fetched" in r for r in refusal(build, heads(40, 48, 32)))


def test_weights_that_something_else_reads(eager):
    def build(q, k, v):
        p = ops.softmax(ops.matmul(q, k, transpose_b=True))
        return ops.matmul(p, v), ops.reduce_sum(p, axis=0)

    assert refusal(build, heads(40, 48, 32))


def test_narrow_sums_have_an_order_of_their_own(eager):
    assert any("stripes" in r for r in refusal(attend, heads(40, 200, 8)))


def test_rows_longer_than_the_stack(eager):
    arrays = heads(2, 40000, 24, batch=(2,))
    assert any("does not fit" in r for r in refusal(attend, arrays))


def test_layers_of_a_network(monkeypatch):
    """A product, normalised rows and a product: as structure an attention, but nothing is saved."""
    monkeypatch.setattr(attention, "WORTH_BYTES", 0)

    def build(x, first, second):
        h = ops.matmul(x, first)
        h = ops.subtract(h, ops.reduce_mean(h, axis=-1, keepdims=True))
        return ops.matmul(h, second)

    reasons = refusal(build, [normal(90, 48), normal(48, 64, seed=1), normal(64, 50)])
    assert any("not much longer" in r for r in reasons)


def test_a_loss_over_classes_is_no_attention(eager):
    """logits, softmax and two gradients look alike, but nothing is shared: threads would wait."""

    def build(x, w, labels):
        logits = ops.matmul(x, w)
        loss = ops.reduce_sum(ops.multiply(labels, ops.log_softmax(logits)))
        return (loss, *gradients(loss, [x, w]))

    refusal(build, [normal(60, 40), normal(40, 50), abs(normal(60, 50))])
