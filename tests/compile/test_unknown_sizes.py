"""Steps that serve all sizes: at most two compilations, and the bits of specialised steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

import tinyflow as tf
from tests.observing import steps_made
from tinyflow.compile import family as families
from tinyflow.core.error import ShapeError

Build = Callable[[], tuple[list[Any], list[Any]]]


@pytest.fixture
def compiled():
    """The steps that are compiled during a test."""
    with steps_made(lambda step: not hasattr(step, "store")) as steps:  # a bound step has one
        yield steps


def run_all(build: Build, feeds: Iterable[tuple[Any, ...]]) -> tuple[list[Any], list[Any]]:
    """Every run's results in a session of its own, and the families of steps it took."""
    graph = tf.Graph()
    with graph.as_default(), tf.Session(graph=graph) as sess:
        placeholders, fetches = build()
        sess.run(tf.global_variables_initializer())
        graph.steps.clear()
        found = [sess.run(fetches, dict(zip(placeholders, f, strict=True))) for f in feeds]
        return found, list(graph.steps.values())


def check(
    build: Build, feeds: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, steps: int = 2
) -> None:
    """Few compilations, and in every run the bits of a step specialised to its sizes."""
    found, (family,) = run_all(build, feeds)
    assert not family.reasons
    assert len(family.exact) + len(family.symbolic) <= steps
    assert family.symbolic
    monkeypatch.setattr(families, "MOST_PATTERNS", 0)
    expected, (family,) = run_all(build, feeds)
    assert not family.symbolic
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(one, other, strict=True):
            if b is not None:
                assert a.shape == b.shape and a.dtype == b.dtype
                np.testing.assert_array_equal(a, b)


#: below, at and above the lengths of vectors, tiles, stripes and chunks
SIZES = [7, 16, 1, 0, 2, 3, 13, 17, 40, 127, 128, 129, 300]


def floats(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(sum(shape) + len(shape))
    return rng.normal(size=shape).astype(np.float32)


def mlp(optimizer: Any, hidden: int = 24) -> Build:
    def build():
        x = tf.placeholder(tf.float32, [None, 12])
        labels = tf.placeholder(tf.int32, [None])
        w1 = tf.Variable(floats(12, hidden) * 0.3)
        b1 = tf.Variable(tf.zeros([hidden]))
        w2 = tf.Variable(floats(hidden, 10) * 0.3)
        b2 = tf.Variable(tf.zeros([10]))
        logits = tf.matmul(tf.nn.relu(tf.matmul(x, w1) + b1), w2) + b2
        loss = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        )
        return [x, labels], [loss, logits, optimizer().minimize(loss)]

    return build


def batch(n: int) -> tuple[np.ndarray, np.ndarray]:
    return floats(n, 12), np.arange(n, dtype=np.int32) * 7 % 10


@pytest.mark.parametrize("optimizer", [
    lambda: tf.train.GradientDescentOptimizer(0.1),
    lambda: tf.train.AdamOptimizer(0.01),
])  # fmt: skip
def test_a_training_step_has_the_bits_of_specialised_steps(optimizer, monkeypatch):
    sizes = [n for n in SIZES if n]  # the mean over no rows is NaN, which every weight would be
    check(mlp(optimizer), [batch(n) for n in sizes], monkeypatch)


def test_two_hundred_batch_sizes_take_two_compilations(compiled):
    build = mlp(lambda: tf.train.AdamOptimizer(0.01))
    order = np.random.default_rng(5).permutation(200) + 1
    graph = tf.Graph()
    with graph.as_default(), tf.Session(graph=graph) as sess:
        placeholders, fetches = build()
        sess.run(tf.global_variables_initializer())
        compiled.clear()
        for n in order:
            loss = sess.run(fetches, dict(zip(placeholders, batch(int(n)), strict=True)))[0]
            assert np.isfinite(loss)
    assert len(compiled) == 2


def test_kernels_are_shared_by_sizes():
    """After some sizes no further size makes a kernel: only launches are packed anew."""
    from tinyflow.compile import kernels

    build = mlp(lambda: tf.train.GradientDescentOptimizer(0.1))
    graph = tf.Graph()
    with graph.as_default(), tf.Session(graph=graph) as sess:
        placeholders, fetches = build()
        sess.run(tf.global_variables_initializer())

        def run(sizes):
            for n in sizes:
                sess.run(fetches, dict(zip(placeholders, batch(n), strict=True)))

        run([5, *range(1, 161, 3)])
        before = len(kernels._addresses)
        run(range(1, 161))
        assert len(kernels._addresses) == before


def rows_of(function: Callable[..., Any], columns: int = 37) -> Build:
    def build():
        x = tf.placeholder(tf.float32, [None, columns])
        return [x], [function(x)]

    return build


def columns_of(function: Callable[..., Any], rows: int = 5) -> Build:
    def build():
        x = tf.placeholder(tf.float32, [rows, None])
        return [x], [function(x)]

    return build


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "map": lambda x: tf.tanh(x * 2.0 + 1.0),
    "transpose": lambda x: tf.transpose(x) * 2.0,
    "softmax": tf.nn.softmax,
    "softmax along the first axis": lambda x: tf.nn.softmax(x, axis=0),
    "sum of rows": lambda x: tf.reduce_sum(x, 1),
    "sum of columns": lambda x: tf.reduce_sum(tf.square(x), 0),
    "sum of all": lambda x: tf.reduce_sum(x),
    "mean of all": lambda x: tf.reduce_mean(tf.exp(x)),
    "mean of columns": lambda x: tf.reduce_mean(x, 0, keepdims=True),
    "moments": lambda x: (x - tf.reduce_mean(x, 1, keepdims=True)) * tf.rsqrt(
        tf.reduce_mean(tf.square(x), 1, keepdims=True) + 1.0
    ),
    "centred": lambda x: x - tf.reduce_mean(x, 0),
    "shape": lambda x: tf.shape(x),
    "scaled by the shape": lambda x: x / tf.cast(tf.shape(x)[0], tf.float32),
    "reshape": lambda x: tf.reshape(x, [-1]) + 1.0,
    "reshape by shape": lambda x: tf.reshape(tf.transpose(x), [tf.shape(x)[0], -1]) * 3.0,
    "concat": lambda x: tf.concat([x, x * 2.0], 0),
    "concat with a constant": lambda x: tf.concat([x, tf.ones([1, tf.shape(x)[1]])], 0),
    "stack": lambda x: tf.stack([x, -x], axis=1),
    "zeros like": lambda x: tf.zeros_like(x) + tf.ones([tf.shape(x)[0], 1]),
    "tile": lambda x: tf.tile(x, [2, 1]),
    "comparison": lambda x: tf.where(x > 0.0, x, tf.zeros_like(x)),
    "gradient": lambda x: tf.gradients(tf.reduce_mean(tf.nn.softmax(x) * x), x)[0],
    "gram": lambda x: tf.matmul(x, x, transpose_a=True),
    "cumulative": lambda x: tf.cumsum(x, axis=1),
    "arg max": lambda x: tf.argmax(x, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_rows(name, monkeypatch):
    sizes = [n for n in [*SIZES, 9000] if n or name != "reshape by shape"]  # -1 of 0 is an error
    check(rows_of(FUNCTIONS[name]), [(floats(n, 37),) for n in sizes], monkeypatch)


@pytest.mark.parametrize("name", ["map", "softmax", "sum of rows", "sum of columns", "mean of all",
                                  "moments", "transpose", "gradient", "concat"])  # fmt: skip
def test_columns(name, monkeypatch):
    sizes = [*SIZES, 5000, 9000] if name != "gradient" else SIZES
    check(columns_of(FUNCTIONS[name]), [(floats(5, n),) for n in sizes], monkeypatch)


def test_two_symbols(monkeypatch):
    def build():
        a = tf.placeholder(tf.float32, [None, 24])
        b = tf.placeholder(tf.float32, [24, None])
        shift = tf.placeholder(tf.float32, [None])
        y = tf.reduce_mean(tf.nn.softmax(tf.transpose(a)), 0) * tf.reduce_sum(shift)
        return [a, b, shift], [y, tf.tanh(b) + shift]

    feeds = [(floats(m, 24), floats(24, n), floats(n)) for m, n in (
        (3, 5), (8, 17), (1, 2), (40, 40), (40, 1), (17, 100), (0, 3),
    )]  # fmt: skip
    check(build, feeds, monkeypatch, steps=3)  # two sizes that happen to agree share a symbol


def test_sizes_that_agree_may_part_again(monkeypatch):
    """Extents that were equal in two runs share a symbol; a run where they differ gets its own."""

    def build():
        a, b = (tf.placeholder(tf.float32, [None]) for _ in range(2))
        return [a, b], [tf.reduce_sum(a) + tf.reduce_sum(b)]

    feeds = [(floats(m), floats(n)) for m, n in ((3, 3), (5, 5), (7, 7), (2, 9), (4, 4), (6, 2))]
    check(build, feeds, monkeypatch, steps=3)


def test_a_mismatch_is_the_users_error_whatever_ran_before():
    x, y = (np.zeros((n, 3), np.float32) for n in (4, 5))
    graph = tf.Graph()
    with graph.as_default(), tf.Session(graph=graph) as sess:
        a, b = (tf.placeholder(tf.float32, [None, 3]) for _ in range(2))
        total = a + b
        for n in (2, 3, 6):
            sess.run(total, {a: floats(n, 3), b: floats(n, 3)})
        with pytest.raises(ShapeError, match="broadcast"):
            sess.run(total, {a: x, b: y})
        assert sess.run(total, {a: x, b: floats(1, 3)}).shape == (4, 3)


def test_a_batch_of_one_is_not_stretched_wrongly():
    """Where one size broadcasts and others do not, each run means what the arrays say."""
    graph = tf.Graph()
    with graph.as_default(), tf.Session(graph=graph) as sess:
        a = tf.placeholder(tf.float32, [None, 3])
        y = a + tf.constant(floats(5, 3))
        for n in (5, 1, 5, 1):
            np.testing.assert_array_equal(
                sess.run(y, {a: floats(n, 3)}), floats(n, 3) + floats(5, 3)
            )
        with pytest.raises(ShapeError):
            sess.run(y, {a: floats(4, 3)})


def test_squeezing_whatever_is_one():
    graph = tf.Graph()
    with graph.as_default(), tf.Session(graph=graph) as sess:
        a = tf.placeholder(tf.float32, [None, 1, 3])
        y = tf.squeeze(a) * 2.0
        for n in (4, 6, 1, 7, 1):
            assert sess.run(y, {a: floats(n, 1, 3)}).shape == ((n, 3) if n > 1 else (3,))


def test_embedding_and_its_gradient(monkeypatch):
    def build():
        ids = tf.placeholder(tf.int32, [None, None])
        table = tf.Variable(floats(30, 8))
        rows = tf.nn.embedding_lookup(table, ids)
        loss = tf.reduce_sum(tf.square(rows))
        return [ids], [loss, tf.train.GradientDescentOptimizer(0.01).minimize(loss), rows]

    rng = np.random.default_rng(1)
    feeds = [(rng.integers(0, 30, shape, np.int32),) for shape in (
        (3, 4), (5, 7), (1, 2), (8, 1), (2, 30),
    )]  # fmt: skip
    check(build, feeds, monkeypatch)


def test_indices_out_of_range_are_reported_for_any_size():
    graph = tf.Graph()
    with graph.as_default(), tf.Session(graph=graph) as sess:
        ids = tf.placeholder(tf.int32, [None])
        rows = tf.gather(tf.constant(floats(6, 2)), ids)
        for n in (2, 3, 5):
            sess.run(rows, {ids: np.zeros(n, np.int32)})
        with pytest.raises(tf.errors.InvalidArgumentError, match="out of range"):
            sess.run(rows, {ids: np.array([0, 9, 0, 0], np.int32)})


@pytest.mark.parametrize("rank", [2, 3])
def test_products(rank, monkeypatch):
    """Rows, terms and the batch of a product that are arguments, above and below every tile."""

    def build():
        x = tf.placeholder(tf.float32, [None, 140] if rank == 2 else [None, 6, 140])
        w = tf.constant(floats(140, 50))
        narrow = tf.constant(floats(140, 9))
        flat = tf.reshape(x, [-1, 140])
        wide = tf.nn.relu(tf.matmul(flat, w) + 1.0)
        few = tf.matmul(flat, narrow)
        return [x], [
            wide, few, tf.matmul(flat, wide, transpose_a=True),
            tf.matmul(flat, few, transpose_a=True), tf.matmul(wide, w, transpose_b=True),
        ]  # fmt: skip

    shape = (140,) if rank == 2 else (6, 140)
    check(build, [(floats(n, *shape),) for n in [*SIZES, 513]], monkeypatch)


def test_attention_over_unknown_batches_and_lengths(monkeypatch):
    def build():
        x = tf.placeholder(tf.float32, [None, None, 16])
        weights = [tf.Variable(floats(16, 16 + n)[:, :16] * 0.3) for n in range(4)]

        def projected(a, w):
            flat = tf.matmul(tf.reshape(a, [-1, 16]), w)
            return tf.reshape(flat, [tf.shape(a)[0], tf.shape(a)[1], 16])

        def heads(a):
            split = tf.reshape(a, [tf.shape(a)[0], tf.shape(a)[1], 4, 4])
            return tf.transpose(split, [0, 2, 1, 3])

        q, k, v = (heads(projected(x, w)) for w in weights[:3])
        scores = tf.nn.softmax(tf.matmul(q, k, transpose_b=True) * 0.5)
        mixed = tf.transpose(tf.matmul(scores, v), [0, 2, 1, 3])
        y = x + projected(tf.reshape(mixed, [tf.shape(x)[0], tf.shape(x)[1], 16]), weights[3])
        loss = tf.reduce_mean(tf.square(y))
        return [x], [loss, y, tf.train.GradientDescentOptimizer(0.1).minimize(loss)]

    feeds = [(floats(n, length, 16),) for n, length in (
        (2, 5), (3, 7), (1, 2), (4, 40), (5, 17), (130, 2), (2, 140),
    )]  # fmt: skip
    check(build, feeds, monkeypatch)


def transformer(layers: int, width: int = 40, heads: int = 2) -> Build:
    """The loss of a small decoder-only transformer, and its gradients."""

    def build():
        ids, targets = (tf.placeholder(tf.int32, [None, None]) for _ in range(2))
        batch, tokens = tf.shape(ids)[0], tf.shape(ids)[1]
        weights = [tf.Variable(floats(31, width)), tf.Variable(floats(90, width) * 0.1)]
        causal = tf.cast(tf.sequence_mask(tf.range(1, tokens + 1), tokens), tf.float32)

        def dense(x, columns):
            weights.append(tf.Variable(floats(width, columns) * 0.2))
            return tf.matmul(x, weights[-1])

        def normal(x):
            mean, variance = tf.nn.moments(x, [1], keep_dims=True)
            return (x - mean) * tf.rsqrt(variance + 1e-5)

        def attention(x):
            qkv = tf.reshape(dense(x, 3 * width), [batch, tokens, 3, heads, width // heads])
            q, k, v = tf.unstack(tf.transpose(qkv, [2, 0, 3, 1, 4]), num=3)
            scores = tf.matmul(q, k, transpose_b=True) * 0.2 + (causal - 1.0) * 1e9
            mixed = tf.transpose(tf.matmul(tf.nn.softmax(scores), v), [0, 2, 1, 3])
            return dense(tf.reshape(mixed, [-1, width]), width)

        h = tf.nn.embedding_lookup(weights[0], ids) + weights[1][:tokens]
        h = tf.reshape(h, [-1, width])
        for _ in range(layers):
            h += attention(normal(h))
            h += dense(tf.nn.relu(dense(normal(h), width)), width)
        logits = dense(normal(h), 31)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=tf.reshape(targets, [-1]), logits=logits))  # fmt: skip
        return [ids, targets], [loss, *map(tf.convert_to_tensor, tf.gradients(loss, weights))]

    return build


def sentences(batch: int, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    text = np.random.default_rng((batch, tokens)).integers(0, 31, (batch, tokens + 1), np.int32)
    return text[:, :-1], text[:, 1:]


def test_a_transformer_over_thirty_batches_and_lengths(monkeypatch):
    """Attention never makes its squares, and has the bits of steps that do: these are small."""
    pairs = [(1 + n * 5 % 7, 1 + n * 37 % 89) for n in range(30)]
    assert len(set(pairs)) == 30
    found, (family,) = run_all(transformer(1), [sentences(*pair) for pair in pairs])
    assert (len(family.exact), len(family.symbolic), family.reasons) == (1, 1, {})
    (step,) = family.symbolic
    assert [g.kind for g in step.plan.grouping.groups].count("attention") == 2
    monkeypatch.setattr(families, "MOST_PATTERNS", 0)
    chosen = [1, 8, 19]
    expected, _ = run_all(transformer(1), [sentences(*pairs[n]) for n in chosen])
    for n, other in zip(chosen, expected, strict=True):
        for a, b in zip(found[n], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_deeper_transformer_in_every_run(monkeypatch):
    pairs = [(4, 40), (2, 70), (1, 1), (3, 14), (5, 29), (2, 88)]
    check(transformer(3), [sentences(*pair) for pair in pairs], monkeypatch)


def test_the_first_rows_of_a_table(monkeypatch):
    """As many as a sequence is long: learned positions."""

    def build():
        x = tf.placeholder(tf.float32, [None, None, 6])
        table = tf.Variable(floats(50, 6))
        y = tf.tanh(x + table[: tf.shape(x)[1]])
        return [x], [y, tf.gradients(y, table)[0]]

    check(build, [(floats(n, k, 6),) for n, k in ((3, 5), (2, 9), (1, 50), (4, 1))], monkeypatch)
    _, (family,) = run_all(rows_of(lambda x: tf.concat([x, x], 0)[: tf.shape(x)[0]]),
                           [(floats(n, 37),) for n in (4, 6, 9)])  # fmt: skip
    assert not family.reasons


def test_products_with_unknown_columns(monkeypatch):
    """Rows that are narrow for once are summed in stripes: by a step of their own."""

    def build():
        x = tf.placeholder(tf.float32, [None, 140])
        return [x], [tf.matmul(tf.constant(floats(20, 140)), x, transpose_b=True)]

    feeds = [(floats(n, 140),) for n in (40, 17, 33, 130)]
    check(build, feeds, monkeypatch)
    monkeypatch.undo()
    found, (family,) = run_all(build, [*feeds, (floats(16, 140),)])
    assert len(family.exact) == 2
    monkeypatch.setattr(families, "MOST_PATTERNS", 0)
    np.testing.assert_array_equal(found[-1][0], run_all(build, [(floats(16, 140),)])[0][0][0])


def test_a_convolutional_step(monkeypatch):
    """Unknown batch, height and width. The filter's gradient is a sum in parts of the batch, of
    equal lengths or not, fewer or more than there are."""

    def build():
        x = tf.placeholder(tf.float32, [None, None, None, 3])
        w = tf.Variable(floats(3, 3, 3, 8) * 0.2)
        h = tf.nn.relu(tf.nn.conv2d(x, w, [1, 1, 1, 1], "SAME"))
        pooled = tf.nn.max_pool(h, [1, 2, 2, 1], [1, 2, 2, 1], "VALID")
        loss = tf.reduce_sum(tf.reduce_mean(tf.square(pooled), [1, 2]))
        return [x], [loss, pooled, *tf.gradients(loss, [x, w])]

    for shapes in (
        [(4, 8, 8), (6, 8, 8), (1, 8, 8), (17, 8, 8), (8, 8, 8), (24, 8, 8)],
        [(2, 8, 8), (3, 10, 6), (1, 4, 12), (11, 6, 4)],
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            check(build, [(floats(*shape, 3),) for shape in shapes], patch)


def test_an_unrolled_lstm(monkeypatch):
    def build():
        x = tf.placeholder(tf.float32, [None, 3, 6])
        w = tf.Variable(floats(14, 32) * 0.3)
        c = h = tf.zeros([tf.shape(x)[0], 8])
        for t in range(3):
            i, j, f, o = tf.split(tf.matmul(tf.concat([x[:, t], h], 1), w), 4, 1)
            c = c * tf.sigmoid(f) + tf.sigmoid(i) * tf.tanh(j)
            h = tf.tanh(c) * tf.sigmoid(o)
        loss = tf.reduce_mean(h * h)
        return [x], [loss, h, tf.train.GradientDescentOptimizer(0.1).minimize(loss)]

    check(build, [(floats(n, 3, 6),) for n in (4, 6, 1, 2, 33)], monkeypatch)


def test_a_loop_and_a_branch(monkeypatch):
    def build():
        x = tf.placeholder(tf.float32, [None, 6])
        _, y = tf.while_loop(lambda i, a: i < 5, lambda i, a: (i + 1, tf.tanh(a * 1.1)), [0, x])
        z = tf.cond(tf.reduce_sum(x) > 0.0, lambda: x * 2.0, lambda: x - 1.0)
        return [x], [y, z]

    check(build, [(floats(n, 6),) for n in (4, 6, 1, 0, 33, 9)], monkeypatch)


def test_slices_and_pads(monkeypatch):
    def build():
        x = tf.placeholder(tf.float32, [None, 6])
        parts = [x[1:], x[:-1] * 2.0, x[::2], tf.reverse(x, [0]), tf.pad(x, [[1, 2], [0, 0]])]
        return [x], [*parts, tf.gradients([tf.reduce_sum(tf.square(p)) for p in parts], x)[0]]

    check(build, [(floats(n, 6),) for n in (4, 6, 1, 33, 9)], monkeypatch)


def test_ends_of_an_unknown_extent(monkeypatch):
    """The last two rows are two wherever there are two; fewer rows are another step."""
    def build():
        x = tf.placeholder(tf.float32, [None, 6])
        parts = [x[-2:], x[:3] * 2.0, tf.exp(x)]
        return [x], [*parts, tf.gradients([tf.reduce_sum(tf.square(p)) for p in parts], x)[0]]

    check(build, [(floats(n, 6),) for n in (4, 6, 33, 3, 9)], monkeypatch)
    few = [floats(n, 6) for n in (4, 6, 1, 2, 0, 9)]
    for x, (last, first, _, slope) in zip(few, run_all(build, [(x,) for x in few])[0], strict=True):
        np.testing.assert_array_equal(last, x[-2:])
        np.testing.assert_array_equal(first, x[:3] * 2)
        wanted = 2 * np.exp(2 * x.astype(np.float64))
        wanted[-2:] += 2 * x[-2:]
        wanted[:3] += 8 * x[:3]
        np.testing.assert_allclose(slope, wanted, rtol=1e-5)


def test_counts_that_only_a_run_tells_recompile_nothing():
    """Behind a mask, each stage has a step for the first count and one for all others."""
    from tinyflow.compile.staged import StagedStep

    graph = tf.Graph()
    with graph.as_default(), tf.Session(graph=graph) as sess:
        x = tf.placeholder(tf.float32, [None, 4])
        kept = tf.boolean_mask(x, x[:, 0] > 0.0)
        fetches = [tf.reduce_sum(tf.exp(kept), 0), tf.nn.softmax(kept)]
        for n in (6, 9, 1, 4, 20, 30, 2, 100):
            array = floats(n, 4)
            total, soft = sess.run(fetches, {x: array})
            wanted = array[array[:, 0] > 0]
            np.testing.assert_allclose(total, np.exp(wanted).sum(0), rtol=1e-5)
            assert soft.shape == wanted.shape
        ((family,),) = [list(graph.steps.values())]
        (staged,) = family.exact.values()
        assert isinstance(staged, StagedStep)
        assert len(staged.stages) > 1
        for stage in staged.stages.values():
            assert not stage.reasons
            assert len(stage.exact) + len(stage.symbolic) <= 3


def test_one_size_keeps_its_specialised_step(compiled):
    graph = tf.Graph()
    with graph.as_default(), tf.Session(graph=graph) as sess:
        x = tf.placeholder(tf.float32, [None, 3])
        y = tf.exp(x)
        for _ in range(3):
            sess.run(y, {x: floats(4, 3)})
    assert len(compiled) == 1
    assert compiled[0].specialized.inputs[0].type.shape == (4, 3)


def test_declared_extents_never_become_symbols(compiled):
    graph = tf.Graph()
    with graph.as_default(), tf.Session(graph=graph) as sess:
        x = tf.placeholder(tf.float32, [None, 3])
        y = tf.exp(x)
        for n in (4, 5):
            sess.run(y, {x: floats(n, 3)})
    rows, columns = compiled[1].specialized.inputs[0].type.shape
    assert columns == 3 and not isinstance(rows, int)


def test_results_that_are_empty_at_every_size():
    """Some group has no elements whatever is fed; no kernel is made for it."""
    with tf.Graph().as_default(), tf.Session() as session:
        x, y = tf.placeholder(tf.float32, [0, 33, None]), tf.placeholder(tf.float32, [None, 3])
        products = tf.nn.relu(tf.matmul(x, x, transpose_b=True))
        fetches = [tf.reduce_prod(products, [1, 2]), products, tf.reduce_sum(y)]
        for rows in (13, 16, 20):
            feeds = {x: np.zeros((0, 33, rows)), y: np.ones((rows, 3))}
            found = session.run(fetches, feeds)
            assert [a.shape for a in found] == [(0,), (0, 33, 33), ()]
            assert found[2] == 3 * rows
        (family,) = session.graph.steps.values()
        assert not family.reasons and len(family.symbolic) == 1
