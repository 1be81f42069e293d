"""cond, case, while_loop, TensorArray, map_fn, scan and folds, as TensorFlow 1.15 has them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

import tinyflow as tf
from tinyflow.core.error import InvalidArgumentError, ShapeError, TinyFlowError


def run(fetches: Any, feed: Any = None) -> Any:
    """The second run's values; the first one must give the same."""
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        first, again = (tf.Session.run(session, fetches, feed) for _ in range(2))
        flat = zip(np.ravel(np.array(first, object)), np.ravel(np.array(again, object)))
        assert all(np.array_equal(a, b) for a, b in flat)
        return again


# ---- while_loop ---------------------------------------------------------------------------------


@pytest.mark.parametrize("trips", [0, 1, 2, 9])
def test_fed_trip_count(trips: int) -> None:
    n = tf.placeholder(tf.int32, [])
    i, x = tf.while_loop(lambda i, x: i < n, lambda i, x: (i + 1, x * 2.0), (0, tf.ones([3])))
    found = run([i, x], {n: trips})
    assert found[0] == trips
    np.testing.assert_array_equal(found[1], np.full(3, 2.0**trips))


def test_two_loops_from_the_same_start_stay_two() -> None:
    long, short = (
        tf.while_loop(lambda i, x, n=n: i < n, lambda i, x: (i + 1, x * 2.0), (0, tf.ones([2])))[1]
        for n in (3, 2)
    )
    assert [r.tolist() for r in run([long, short])] == [[8.0, 8.0], [4.0, 4.0]]


def test_one_variable_comes_back_alone_unless_asked() -> None:
    alone = tf.while_loop(lambda i: i < 5, lambda i: i + 1, [tf.constant(0)])
    assert isinstance(alone, tf.Tensor) and alone.name == "while/Exit:0"
    listed = tf.while_loop(lambda i: i < 5, lambda i: [i + 1], [0], return_same_structure=True)
    assert isinstance(listed, list)
    assert run([alone, listed[0]]) == [5, 5]


def test_structures() -> None:
    start = {"a": tf.constant(1.0), "b": (tf.constant([1, 2]), [tf.constant(2.0)])}

    def body(i: Any, s: Any) -> Any:
        (b, (c,)) = s["b"]
        return i + 1, {"a": s["a"] + c, "b": (b + 1, [c * 2.0])}

    _, last = tf.while_loop(lambda i, s: i < 3, body, (tf.constant(0), start))
    with tf.Session() as session:
        found = session.run(last)
    assert found["a"] == 1 + 2 + 4 + 8
    np.testing.assert_array_equal(found["b"][0], [4, 5])
    assert found["b"][1] == [16.0]


def test_maximum_iterations() -> None:
    limit = tf.placeholder(tf.int32, [])
    always = tf.while_loop(lambda i: i < 100, lambda i: i + 1, [0], maximum_iterations=7)
    fed = tf.while_loop(lambda i: i < 100, lambda i: i + 1, [0], maximum_iterations=limit)
    assert run([always, fed], {limit: 3}) == [7, 3]


def test_nested_loops() -> None:
    def body(i: Any, s: Any) -> Any:
        inner = tf.while_loop(lambda j, q: j < i, lambda j, q: (j + 1, q + j), (0, 0))[1]
        return i + 1, s + inner

    assert run(tf.while_loop(lambda i, s: i < 5, body, (0, 0))[1]) == sum(
        j for i in range(5) for j in range(i)
    )


def test_assignments_in_a_body() -> None:
    v = tf.Variable(1.0)

    def body(i: Any) -> Any:
        with tf.control_dependencies([tf.assign_add(v, 2.0)]):
            return i + 1

    loop = tf.while_loop(lambda i: i < 4, body, [0])
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        assert session.run(loop) == 4
        assert session.run(v) == 9.0
        session.run(loop)
        assert session.run(v) == 17.0


def test_a_loop_waits_for_what_it_is_told_to() -> None:
    v = tf.Variable(1.0)
    with tf.control_dependencies([tf.assign(v, 5.0)]):
        after = tf.while_loop(lambda i, s: i < 3, lambda i, s: (i + 1, s + v), (0, 0.0))[1]
        chosen = tf.cond(tf.constant(3) > 2, lambda: v * 2.0, lambda: v)
    before = tf.while_loop(lambda i, s: i < 3, lambda i, s: (i + 1, s + v), (0, 0.0))[1]
    with tf.Session() as session:
        session.run(v.initializer)
        assert session.run([after, chosen, before]) == [15.0, 10.0, 3.0]


def test_variables_made_in_a_body() -> None:
    def body(i: Any, x: Any) -> Any:
        w = tf.get_variable("w", [3], initializer=tf.constant_initializer(2.0))
        return i + 1, x * w

    _, y = tf.while_loop(lambda i, x: i < 3, body, (0, tf.ones([3])))
    (gradient,) = tf.gradients(y, tf.trainable_variables())
    found = run([y, gradient])
    np.testing.assert_array_equal(found[0], np.full(3, 8.0))
    np.testing.assert_array_equal(found[1], np.full(3, 12.0))


def test_random_numbers_are_drawn_anew() -> None:
    rows = tf.map_fn(lambda i: tf.random_uniform([8], seed=3), tf.range(5), dtype=tf.float32)
    with tf.Session() as session:
        draws = np.concatenate([session.run(rows), session.run(rows)])
    assert len({row.tobytes() for row in draws}) == 10
    assert draws.min() >= 0 and draws.max() < 1


def test_a_million_iterations() -> None:
    """An iteration is one small kernel and a jump: a few nanoseconds, no Python."""
    loop = tf.while_loop(lambda i: i < 1_000_000, lambda i: i + 1, [0])
    with tf.Session() as session:
        times = []
        for _ in range(4):
            start = time.thread_time()
            assert session.run(loop) == 1_000_000
            times.append(time.thread_time() - start)
    assert min(times) < 0.1  # 6 ms on the machine this was written on


def test_shape_that_changes_is_an_error() -> None:
    with pytest.raises(ShapeError, match="is not an invariant for the loop"):
        tf.while_loop(
            lambda i, x: i < 3, lambda i, x: (i + 1, tf.concat([x, x], 0)), (0, tf.ones([2]))
        )
    grown = tf.while_loop(
        lambda i, x: i < 3, lambda i, x: (i + 1, tf.concat([x, x], 0)), (0, tf.ones([2])),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None])),
    )  # fmt: skip
    assert run(grown[1]).shape == (16,)


def test_wrong_bodies() -> None:
    with pytest.raises(TypeError, match="body must be callable"):
        tf.while_loop(lambda i: i < 3, 3, [0])
    with pytest.raises(InvalidArgumentError, match="No loop variables"):
        tf.while_loop(lambda: True, lambda: (), [])
    with pytest.raises(TinyFlowError, match="comes back as float32"):
        tf.while_loop(lambda i: i < 3, lambda i: tf.cast(i, tf.float32), [0])
    with pytest.raises(InvalidArgumentError, match="same nested structure"):
        tf.while_loop(lambda i: i < 3, lambda i: (i, i), [0])


def test_values_inside_cannot_be_fetched() -> None:
    inside = []

    def body(i: Any) -> Any:
        inside.append(i * 2)
        return i + 1

    tf.while_loop(lambda i: i < 3, body, [0])
    with pytest.raises(InvalidArgumentError, match="inside a loop or branch"):
        run(inside[0])


def test_python_functions_in_a_body() -> None:
    loop = tf.while_loop(
        lambda x: x < 3.0, lambda x: tf.py_func(lambda v: v + 1, [x], tf.float32), [0.0],
        shape_invariants=[tf.TensorShape(None)],
    )  # fmt: skip
    assert run(loop) == 3.0


# ---- cond and case ------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [True, False])
def test_cond(value: bool) -> None:
    p, x = tf.placeholder(tf.bool, []), tf.constant([1.0, 2.0])
    y = tf.cond(p, lambda: x * 2.0, lambda: x - 1.0)
    assert y.name == "cond/Merge:0"
    np.testing.assert_array_equal(run(y, {p: value}), [2, 4] if value else [0, 1])


def test_only_the_chosen_branch_assigns() -> None:
    v, p = tf.Variable(1.0), tf.placeholder(tf.bool, [])
    change = tf.cond(p, lambda: tf.assign(v, 5.0), lambda: tf.identity(v))
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        assert session.run(change, {p: False}) == 1.0
        assert session.run(v) == 1.0
        assert session.run(change, {p: True}) == 5.0
        assert session.run(v) == 5.0


def test_branches_of_operations() -> None:
    v, p = tf.Variable(1.0), tf.placeholder(tf.bool, [])
    step = tf.cond(p, lambda: tf.assign_add(v, 1.0).op, lambda: tf.no_op())
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for value, expected in ((True, 2.0), (False, 2.0), (True, 3.0)):
            session.run(step, {p: value})
            assert session.run(v) == expected


def test_cond_errors() -> None:
    with pytest.raises(TypeError, match="pred must not be a Python bool"):
        tf.cond(True, lambda: 1, lambda: 2)
    p = tf.placeholder(tf.bool, [])
    with pytest.raises(InvalidArgumentError, match="must have a return value"):
        tf.cond(p, lambda: None, lambda: 2)
    with pytest.raises(TinyFlowError, match="same type"):
        tf.cond(p, lambda: 1, lambda: 2.0)
    with pytest.raises(InvalidArgumentError, match="same nested structure"):
        tf.cond(p, lambda: (1, 2), lambda: 1)


def test_case() -> None:
    x = tf.placeholder(tf.int32, [])
    y = tf.case(
        [(x < 0, lambda: tf.constant(-1)), (x > 10, lambda: tf.constant(10))], default=lambda: x
    )
    assert [run(y, {x: v}) for v in (-5, 4, 11)] == [-1, 4, 10]


# ---- TensorArray --------------------------------------------------------------------------------


def test_array_written_in_a_loop() -> None:
    array = tf.TensorArray(tf.float32, size=4)
    x = tf.constant([1.0, 2.0])
    _, array = tf.while_loop(
        lambda i, a: i < 4, lambda i, a: (i + 1, a.write(i, x * tf.cast(i, tf.float32))),
        (0, array),
    )  # fmt: skip
    whole = np.outer(np.arange(4), [1, 2])
    np.testing.assert_array_equal(run(array.stack()), whole)
    np.testing.assert_array_equal(run(array.gather([3, 0])), whole[[3, 0]])
    np.testing.assert_array_equal(run(array.concat()), whole.ravel())
    np.testing.assert_array_equal(run(array.read(2)), whole[2])
    assert run(array.size()) == 4


def test_array_outside_loops() -> None:
    array = tf.TensorArray(tf.float32, size=3).write(0, [1.0, 2.0]).write(2, [5.0, 6.0])
    np.testing.assert_array_equal(run(array.stack()), [[1, 2], [0, 0], [5, 6]])
    pieces = tf.TensorArray(tf.float32, size=2).split(tf.range(6.0), [3, 3])
    np.testing.assert_array_equal(run(pieces.read(1)), [3, 4, 5])
    rows = tf.TensorArray(tf.float32, size=3).unstack(tf.constant([[1.0], [2.0], [3.0]]))
    scattered = rows.scatter([2, 0], [[7.0], [8.0]]).stack()
    np.testing.assert_array_equal(run(scattered), [[8], [2], [7]])
    old = rows.write(1, [9.0])
    np.testing.assert_array_equal(run([old.stack(), rows.stack()])[1], [[1], [2], [3]])


def test_array_errors() -> None:
    with pytest.raises(InvalidArgumentError, match="element_shape is unknown"):
        tf.TensorArray(tf.float32, size=3).stack()
    array = tf.TensorArray(tf.float32, size=3).write(0, [1.0])
    with pytest.raises(ShapeError, match="elements of different shapes"):
        array.write(1, [1.0, 2.0])
    with pytest.raises(InvalidArgumentError, match="index 3 is out of range"):
        run(array.read(tf.constant(3)) + 1.0)


# ---- loops over rows ----------------------------------------------------------------------------


def test_map_scan_and_folds() -> None:
    rows = tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    numbers = tf.constant([1.0, 2.0, 3.0, 4.0])
    squares = tf.map_fn(lambda r: r * r, rows)
    np.testing.assert_array_equal(run(squares), [[1, 4], [9, 16], [25, 36]])
    kinds = (tf.float32, tf.int32)
    a, b = tf.map_fn(
        lambda t: (t[0] + t[1], tf.cast(t[1], tf.int32)), (numbers, numbers), dtype=kinds
    )
    np.testing.assert_array_equal(run([a, b])[1], [1, 2, 3, 4])
    np.testing.assert_array_equal(run(tf.scan(lambda s, r: s + r, numbers)), [1, 3, 6, 10])
    np.testing.assert_array_equal(
        run(tf.scan(lambda s, r: s + r, numbers, initializer=10.0, reverse=True)), [20, 19, 17, 14]
    )
    assert run(tf.foldl(lambda s, r: s - r, numbers)) == -8
    assert run(tf.foldr(lambda s, r: s - r, numbers)) == -2
    assert run(tf.foldl(lambda s, r: s - r, numbers, initializer=1.0)) == -9


def test_rows_of_unknown_number() -> None:
    x = tf.placeholder(tf.float32, [None, 2])
    y = tf.map_fn(lambda r: r * 2.0, x)
    for n in (1, 4, 2):
        rows = np.arange(2.0 * n).reshape(n, 2)
        np.testing.assert_array_equal(run(y, {x: rows}), rows * 2)


def test_fibonacci() -> None:
    start = (np.array(1), np.array(0))
    a, _ = tf.scan(lambda s, _: (s[0] + s[1], s[0]), tf.zeros([10]), initializer=start)
    assert run(a).tolist() == [1, 2, 3, 5, 8, 13, 21, 34, 55, 89]
