"""Rows of arrays that kernels write in place: which ones, and that nobody can tell."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import tinyflow as tf
from tests.compile.test_unknown_sizes import check, compiled  # noqa: F401
from tinyflow.compile.binding import observers
from tinyflow.compile.loops import LoopAction
from tinyflow.compile.program import Plan
from tinyflow.compile.rows import RowPlace
from tinyflow.core.error import InvalidArgumentError


@pytest.fixture
def steps():
    tf.reset_default_graph()
    found: list[Any] = []
    observers.append(found.append)
    yield found
    observers.remove(found.append)


def actions_in(plan: Plan) -> list[Any]:
    """All actions, those of loops and branches included."""
    found = []
    for action in plan.actions:
        for part in getattr(action, "parts", ()):
            found += actions_in(part.plan)
        found.append(action)
    return found


def counts(steps: list[Any]) -> tuple[int, int]:
    """(rows in place, copies of rows) in the last step."""
    found = actions_in([s for s in steps if hasattr(s, "store")][-1].program.plan)
    copies = [a for a in found if getattr(getattr(a, "kernel", None), "name", "").startswith(
        "loops_arraywrite")]  # fmt: skip
    return sum(isinstance(a, RowPlace) for a in found), len(copies)


def run(fetches: Any, feed: Any = None) -> Any:
    with tf.Session() as session:
        return session.run(fetches, feed)


def squares(n: Any, size: int, index=lambda i: i, value=lambda i, x: x * x):
    """size rows, of which a loop of n iterations writes row index(i)."""
    x = tf.placeholder(tf.float32, [3])

    def body(i, x, a):
        return i + 1, x + 1.0, a.write(index(i), value(i, x))

    array = tf.TensorArray(tf.float32, size)
    return x, tf.while_loop(lambda i, *_: i < n, body, [0, x, array])[2].stack()


X = np.array([1.0, -2.0, 0.5], np.float32)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_rows_are_written_in_place(steps, n):
    x, y = squares(n, 5)
    got = run(y, {x: X})
    wanted = np.zeros((5, 3), np.float32)
    for i in range(n):
        wanted[i] = (X + i) ** 2
    assert got.tobytes() == wanted.tobytes()
    assert n == 0 or counts(steps) == (1, 0)


def test_the_number_of_iterations_may_be_unknown(steps):
    n = tf.placeholder(tf.int32, [])
    x, y = squares(n, 5)
    with tf.Session() as session:
        for count in (3, 0, 5, 1):
            got = session.run(y, {x: X, n: count})
            wanted = np.zeros((5, 3), np.float32)
            for i in range(count):
                wanted[i] = (X + i) ** 2
            assert got.tobytes() == wanted.tobytes()
    assert counts(steps) == (1, 0)


def test_an_index_out_of_range_names_the_write(steps):
    n = tf.placeholder(tf.int32, [])
    x, y = squares(n, 5)
    with tf.Session() as session:
        with pytest.raises(InvalidArgumentError, match=r"ArrayWrite.*index 5 is out of range") as e:
            session.run(y, {x: X, n: 6})
        assert "[0, 5)" in str(e.value) and "test_rows.py" in str(e.value)
        assert session.run(y, {x: X, n: 5})[4].tobytes() == ((X + 4) ** 2).tobytes()
    assert counts(steps) == (1, 0)


def test_a_computed_number_of_a_row_is_not_known_in_time(steps):
    x, y = squares(4, 4, index=lambda i: 3 - i)
    np.testing.assert_array_equal(run(y, {x: X}), [(X + 3 - i) ** 2 for i in range(4)])
    assert counts(steps) == (0, 1)


def test_carried_values_and_second_copies_stay_where_they_are(steps):
    x = tf.placeholder(tf.float32, [3])

    def body(i, x, a, b, c):
        y = x * 2.0
        z = y + tf.exp(x)
        return i + 1, y, a.write(i, y), b.write(i, z), c.write(i, z)

    arrays = [tf.TensorArray(tf.float32, 3) for _ in range(3)]
    out = tf.while_loop(lambda i, *_: i < 3, body, [0, x, *arrays])
    a, b, c = run([o.stack() for o in out[2:]], {x: X})
    np.testing.assert_array_equal(a, [X * 2, X * 4, X * 8])
    np.testing.assert_allclose(b, [X * 2 + np.exp(X), X * 4 + np.exp(X * 2), X * 8 + np.exp(X * 4)],
                               rtol=1e-6)  # fmt: skip
    assert b.tobytes() == c.tobytes()
    assert counts(steps) == (1, 2)


def test_an_array_that_the_iteration_reads_keeps_its_old_row(steps):
    x = tf.placeholder(tf.float32, [3])

    def body(i, a, total):
        new = tf.exp(tf.cast(i, tf.float32)) * x
        old = a.read(tf.maximum(i - 1, 0))
        return i + 1, a.write(i, new), total + old * new

    array = tf.TensorArray(tf.float32, 4, clear_after_read=False).write(0, x)
    _, a, total = tf.while_loop(lambda i, *_: i < 4, body, [1, array, tf.zeros([3])])
    rows, total = run([a.stack(), total], {x: X})
    wanted = [X] + [np.exp(np.float32(i)) * X for i in (1, 2, 3)]
    np.testing.assert_allclose(rows, wanted, rtol=1e-6)
    products = [a * b for a, b in pairwise(wanted)]
    np.testing.assert_allclose(total, sum(products), rtol=1e-5)
    assert counts(steps)[0] == 0


def test_loops_in_loops_have_rows_of_their_own(steps):
    x = tf.placeholder(tf.float32, [3])

    def outer(i, x, rows):
        def inner(j, x, own):
            return j + 1, x + 1.0, own.write(j, tf.tanh(x))

        own = tf.while_loop(lambda j, *_: j < 4, inner, [0, x, tf.TensorArray(tf.float32, 4)])
        return i + 1, x * 1.5, rows.write(i, own[2].stack() * 2.0)

    start = [0, x, tf.TensorArray(tf.float32, 3)]
    y = tf.while_loop(lambda i, *_: i < 3, outer, start)[2].stack()
    wanted = [[2 * np.tanh(X * 1.5**i + j) for j in range(4)] for i in range(3)]
    np.testing.assert_allclose(run(y, {x: X}), wanted, rtol=1e-5)
    assert counts(steps)[0] == 2


def test_a_branch_makes_a_row_that_is_copied(steps):
    x, y = squares(
        4, 4, value=lambda i, x: tf.cond(i < 2, lambda: tf.exp(x), lambda: tf.tanh(x) * x)
    )
    wanted = [np.exp(X + i) if i < 2 else np.tanh(X + i) * (X + i) for i in range(4)]
    np.testing.assert_allclose(run(y, {x: X}), wanted, rtol=1e-6)
    assert counts(steps) == (0, 1)


@pytest.mark.parametrize("kind", [tf.float64, tf.int32])
def test_gradients_and_other_types(steps, kind):
    """Newton's iteration: how often it runs is seen while it runs; saved rows are reserved."""
    a = tf.placeholder(tf.float64, [2])
    root = tf.while_loop(
        lambda g, k: tf.reduce_max(abs(g * g - a)) > 1e-12, lambda g, k: ((g + a / g) / 2, k + 1),
        [a, tf.constant(0, kind)],
    )[0]  # fmt: skip
    (slope,) = tf.gradients(tf.sin(root), a)
    for value in ([2.0, 9.0], [700.0, 0.5]):
        got = run(slope, {a: value})
        np.testing.assert_allclose(got, np.cos(np.sqrt(value)) / 2 / np.sqrt(value), rtol=1e-9)


def test_a_recurrent_step_copies_no_gate(steps):
    x = tf.placeholder(tf.float32, [5, 9, 6])
    y, _ = tf.nn.dynamic_rnn(tf.nn.rnn_cell.LSTMCell(8), x, dtype=tf.float32)
    train = tf.train.AdamOptimizer(0.01).minimize(tf.reduce_mean(tf.square(y)))
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        session.run(train, {x: np.ones((5, 9, 6))})
    in_place, copies = counts(steps)
    assert in_place > copies


def test_loops_for_all_sizes(monkeypatch):
    def build():
        x, n = tf.placeholder(tf.float32, [None, 3]), tf.placeholder(tf.int32, [])

        def body(i, h, a):
            h = tf.tanh(h + x)
            return i + 1, h * 0.5, a.write(i, h)

        start = [0, tf.zeros_like(x), tf.TensorArray(tf.float32, 6)]
        y = tf.while_loop(lambda i, *_: i < n, body, start)[2].stack()
        return [x, n], [y, *tf.gradients(y, [x])]

    rng = np.random.default_rng(0)
    sizes = ((4, 3), (1, 6), (9, 0), (2, 5))
    check(build, [(rng.normal(size=(b, 3)).astype(np.float32), np.int32(n)) for b, n in sizes],
          monkeypatch)  # fmt: skip


def test_a_row_in_place_is_part_of_no_arena(steps):
    x, y = squares(5, 5)
    run(y, {x: X})
    plan = [s for s in steps if hasattr(s, "store")][-1].program.plan
    (loop,) = [a for a in plan.actions if isinstance(a, LoopAction)]
    kinds = [p.kind for p in loop.body.plan.memory.places.values()]
    assert kinds.count("row") == 1
