"""Loops and branches in steps that serve all sizes: the bits of specialised steps, and as fast."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinyflow as tf
from tests.compile.test_unknown_sizes import Build, check, compiled, floats  # noqa: F401
from tinyflow.compile import family as families

CELLS = {
    "rnn": tf.nn.rnn_cell.BasicRNNCell, "lstm": tf.nn.rnn_cell.BasicLSTMCell,
    "gru": tf.nn.rnn_cell.GRUCell,
}  # fmt: skip


def recurrent(cell: str, steps: int | None, lengths: bool = False) -> Build:
    """A training step of a recurrent network over [batch, steps, 6]."""

    def build():
        tf.set_random_seed(1)
        x = tf.placeholder(tf.float32, [None, steps, 6])
        given = tf.placeholder(tf.int32, [None]) if lengths else None
        y, _ = tf.nn.dynamic_rnn(CELLS[cell](8), x, sequence_length=given, dtype=tf.float32)
        loss = tf.reduce_mean(tf.square(y))
        step = tf.train.AdamOptimizer(0.01).minimize(loss)
        return [x, given] if lengths else [x], [loss, y, step]

    return build


def sequences(sizes: list[tuple[int, int]], lengths: bool = False) -> list[tuple[Any, ...]]:
    found = []
    for n, steps in sizes:
        own = (np.arange(n) % (steps + 1)).astype(np.int32)
        found.append((floats(n, steps, 6), own) if lengths else (floats(n, steps, 6),))
    return found


@pytest.mark.parametrize(("cell", "lengths"), [("rnn", False), ("lstm", True), ("gru", False)])
def test_recurrent_training_over_unknown_batches(cell, lengths, monkeypatch):
    sizes = [(n, 5) for n in (4, 6, 1, 33, 130)]
    check(recurrent(cell, 5, lengths), sequences(sizes, lengths), monkeypatch)


@pytest.mark.parametrize("lengths", [False, True])
def test_recurrent_training_over_unknown_batches_and_lengths(lengths, monkeypatch):
    """The number of iterations, and with it the rows of all stacks, follows from the feeds."""
    sizes = [(4, 5), (6, 7), (1, 3), (2, 2), (33, 1), (5, 40), (130, 4)]
    check(recurrent("lstm", None, lengths), sequences(sizes, lengths), monkeypatch)


def test_a_length_that_stays_is_a_number(monkeypatch):
    """Only the batch changed: the loop runs as often as the shape says, which is known."""
    sizes = [(n, 5) for n in (4, 6, 1, 33)]
    check(recurrent("gru", None), sequences(sizes), monkeypatch)


def test_a_language_model_over_unknown_batches_and_lengths(monkeypatch):
    def build():
        tf.set_random_seed(1)
        ids, lengths = tf.placeholder(tf.int32, [None, None]), tf.placeholder(tf.int32, [None])
        table = tf.get_variable("table", [20, 6])
        (forward, back), _ = tf.nn.bidirectional_dynamic_rnn(
            CELLS["lstm"](8), CELLS["rnn"](8), tf.nn.embedding_lookup(table, ids[:, :-1]),
            sequence_length=lengths, dtype=tf.float32,
        )  # fmt: skip
        logits = tf.layers.dense(tf.concat([forward, back], 2), 20)
        mask = tf.sequence_mask(lengths, tf.shape(ids)[1] - 1, dtype=tf.float32)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=ids[:, 1:], logits=logits)
        loss = tf.reduce_sum(losses * mask) / tf.reduce_sum(mask)
        optimizer = tf.train.AdamOptimizer(0.01)
        found, variables = zip(*optimizer.compute_gradients(loss), strict=True)
        clipped, norm = tf.clip_by_global_norm(found, 1.0)
        step = optimizer.apply_gradients(zip(clipped, variables, strict=True))
        return [ids, lengths], [loss, logits, norm, step]

    rng = np.random.default_rng(3)
    feeds = [
        (rng.integers(0, 20, (n, t + 1), np.int32), (1 + np.arange(n) % t).astype(np.int32))
        for n, t in ((4, 5), (6, 7), (1, 3), (5, 20))
    ]
    check(build, feeds, monkeypatch)


def counted(steps: int | None, sizes: list[tuple[int, int]], compiled: list[Any]) -> int:  # noqa: F811
    graph = tf.Graph()
    with graph.as_default(), tf.Session(graph=graph) as sess:
        (x,), fetches = recurrent("lstm", steps)()
        sess.run(tf.global_variables_initializer())
        compiled.clear()
        for (array,) in sequences(sizes):
            assert np.isfinite(sess.run(fetches, {x: array})[0])
    return len(compiled)


def test_two_hundred_batch_sizes_of_a_loop_take_two_compilations(compiled):  # noqa: F811
    order = np.random.default_rng(5).permutation(200) + 1
    assert counted(4, [(int(n), 4) for n in order], compiled) == 2


def test_two_hundred_lengths_of_a_loop_take_two_compilations(compiled):  # noqa: F811
    rng = np.random.default_rng(6)
    order = zip(rng.permutation(200) + 1, rng.permutation(200) + 201, strict=True)
    sizes = [(int(n), int(steps) - 200) for n, steps in order]
    assert counted(None, [(n, t) for n, t in sizes if n != t], compiled) == 2


def test_kernels_of_loops_are_shared_by_sizes():
    """After some sizes no further size makes a kernel."""
    from tinyflow.compile import kernels

    graph = tf.Graph()
    with graph.as_default(), tf.Session(graph=graph) as sess:
        (x,), fetches = recurrent("lstm", None)()
        sess.run(tf.global_variables_initializer())

        def run(sizes):
            for (array,) in sequences(sizes):
                sess.run(fetches, {x: array})

        run([(5, 4), *[(n, 1 + n % 9) for n in range(1, 70)]])
        before = len(kernels._addresses)
        run([(n, 1 + n % 7) for n in range(1, 90)])
        assert len(kernels._addresses) == before


def trained(function: Any, columns: int = 6) -> Build:
    """``function(x, w)``, a loss of it, and the gradients of both."""

    def build():
        x = tf.placeholder(tf.float32, [None, columns])
        w = tf.Variable(floats(columns, columns) * 0.3)
        y = function(x, w)
        loss = tf.reduce_sum(y * y)
        return [x], [loss, y, *tf.gradients(loss, [x, w])]

    return build


def nested(x, w):
    def inner(j, a):
        return j + 1, tf.tanh(tf.matmul(a, w) + x)

    def outer(i, a):
        return i + 1, tf.while_loop(lambda j, _: j < 3, inner, [0, a])[1] * 0.5

    return tf.while_loop(lambda i, _: i < 2, outer, [0, x])[1]


FUNCTIONS = {
    "while": lambda x, w: tf.while_loop(
        lambda i, _: i < 5, lambda i, a: (i + 1, tf.tanh(tf.matmul(a, w))), [0, x]
    )[1],
    "as often as there are rows": lambda x, w: tf.while_loop(
        lambda i, _: i < tf.shape(x)[0], lambda i, a: (i + 1, tf.tanh(tf.matmul(a, w) + x[i])),
        [0, tf.ones([2, 6])],
    )[1],
    "every second row": lambda x, w: tf.while_loop(
        lambda i, _: i < tf.shape(x)[0],
        lambda i, a: (i + 2, tf.tanh(tf.matmul(a, w) + x[i])), [0, tf.ones([2, 6])],
    )[1],
    "until it is small": lambda x, w: tf.while_loop(
        lambda a: tf.reduce_sum(a * a) > 0.1, lambda a: tf.tanh(tf.matmul(a, w)) * 0.7, [x]
    ),
    "nested": nested,
    "branch": lambda x, w: tf.cond(
        tf.reduce_sum(x) > 0.0, lambda: tf.matmul(x, w) * 2.0, lambda: x - tf.reduce_sum(w)
    ),
    "branch in a loop": lambda x, w: tf.while_loop(
        lambda i, _: i < 4,
        lambda i, a: (
            i + 1, tf.cond(tf.equal(i % 2, 0), lambda: tf.matmul(a, w), lambda: tf.tanh(a))
        ),
        [0, x],
    )[1],
    "map": lambda x, w: tf.map_fn(lambda e: tf.tanh(e) * tf.reduce_sum(e * w), x),
    "scan": lambda x, w: tf.scan(
        lambda a, e: tf.tanh(a + tf.squeeze(tf.matmul([e], w), 0)), x, tf.zeros([6])
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_loops_over_unknown_rows(name, monkeypatch):
    sizes = [4, 6, 1, 2, 33, 8, 17] + [0] * (name != "scan")
    check(trained(FUNCTIONS[name]), [(floats(n, 6),) for n in sizes], monkeypatch)


def test_a_decision_that_depends_on_sizes_holds_for_those_that_decide_alike(monkeypatch):
    """Saved rows up to a limit make one product of many; beyond it the loop adds up. A step for
    all sizes is one for the sizes on its side of the limit."""
    from tinyflow.passes import hoist_invariants

    monkeypatch.setattr(hoist_invariants, "MOST_BYTES", 3000)
    feeds = sequences([(n, 5) for n in (4, 6, 9, 30, 3, 33)])
    found, expected = [], []
    for most in (families.MOST_PATTERNS, 0):
        monkeypatch.setattr(families, "MOST_PATTERNS", most)
        graph = tf.Graph()
        with graph.as_default(), tf.Session(graph=graph) as sess:
            (x,), fetches = recurrent("rnn", 5)()
            sess.run(tf.global_variables_initializer())
            graph.steps.clear()
            for (array,) in feeds:
                (found if most else expected).append(sess.run(fetches[:2], {x: array}))
                sess.run(fetches[-1], {x: array})
            if most:
                train = list(graph.steps.values())[-1]
                assert len(train.symbolic) == 1 and any("<=" in r for r in train.reasons.values())
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
