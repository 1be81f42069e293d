"""Loops that Python drives, and slices with computed bounds: what is compiled, and what fails."""

from __future__ import annotations

import numpy as np
import pytest

import tinyflow as tf
from tinyflow.compile.staged import StagedStep
from tinyflow.compile.step import Step
from tinyflow.core.error import InvalidArgumentError, Unsupported


@pytest.fixture
def session():
    graph = tf.Graph()
    with graph.as_default(), tf.Session(graph=graph) as sess:
        yield sess


def steps_of(session):
    return [s for family in session.graph.steps.values() for s in family.exact.values()]


def grown(x, n, step):
    return tf.while_loop(
        lambda i, rows: i < n, lambda i, rows: (i + 1, tf.concat([rows, step(rows[-1:])], 0)),
        [0, x], shape_invariants=[tf.TensorShape([]), tf.TensorShape([None, 3])],
    )[1]  # fmt: skip


def test_a_growing_value_compiles_a_few_times_not_per_iteration(session):
    x, n = tf.placeholder(tf.float32, [1, 3]), tf.placeholder(tf.int32, [])
    rows = grown(x, n, lambda last: tf.sin(last) + 1.0)
    slope = tf.gradients(tf.reduce_sum(rows), x)[0]
    for count in (1, 30, 7):
        found, _ = session.run([rows, slope], {x: np.ones((1, 3)), n: count})
        assert found.shape == (count + 1, 3)
    (staged,) = steps_of(session)
    assert len(staged.parts) == 4  # condition and body, forwards and backwards
    for part in staged.parts.values():
        for stage in part.stages.values():
            assert not stage.reasons
            assert len(stage.exact) + len(stage.symbolic) <= 3


def test_what_was_native_is_native(session):
    x, n = tf.constant(np.ones((6, 3), np.float32)), tf.placeholder(tf.int32, [])
    total = tf.while_loop(
        lambda i, a: i < n, lambda i, a: (i + 1, a + tf.reduce_sum(x[i : i + 2] * x[i + 1])),
        [0, 0.0],
    )[1]
    array = tf.while_loop(
        lambda i, array: i < 4, lambda i, array: (i + 1, array.write(i, tf.cast(i, tf.float32))),
        [0, tf.TensorArray(tf.float32, size=0, dynamic_size=True)],
    )[1].stack()
    slope = tf.gradients(total, x)[0]
    y = tf.placeholder(tf.float32, [2, 3])
    kept = tf.while_loop(
        lambda i, y: i < n, lambda i, y: (i + 1, tf.sin(y)), [0, y],
        shape_invariants=[tf.TensorShape([]), tf.TensorShape([None, 3])],
    )[1]  # fmt: skip
    assert kept.shape.as_list() == [None, 3]
    session.run([total, slope], {n: 5})
    assert session.run(array).tolist() == [0, 1, 2, 3]
    session.run(kept, {n: 2, y: np.ones((2, 3))})
    assert [type(step) for step in steps_of(session)] == [Step, Step, Step]


def test_gradients_of_slices_add_up_in_place(session):
    """An iteration touches the rows that it read, not the whole tensor."""
    rows = np.arange(40.0).reshape(10, 4) / 10
    x = tf.placeholder(tf.float64, [10, 4])
    total = tf.while_loop(
        lambda i, a: i < 4, lambda i, a: (i + 1, a + tf.reduce_sum(x[i : i + 3] ** 2)),
        [0, tf.constant(0.0, tf.float64)],
    )[1]
    (slope,) = session.run(tf.gradients(total, x), {x: rows})
    weights = np.array([1, 2, 3, 3, 2, 1, 0, 0, 0, 0.0])
    np.testing.assert_allclose(slope, 2 * rows * weights[:, None], rtol=1e-12)
    (step,) = steps_of(session)
    bodies = [n.op.body for n in step.fn.nodes if n.op.type_name == "While"]
    names = [n.op.type_name for body in bodies for n in body.nodes]
    assert "SliceAdd" in names and "PlaceSlice" not in names


#: index of x[rows, 6], rows fed or not, by computed numbers i and j
SLICES = {
    "three": lambda i, j: np.s_[i : i + 3],
    "of four every other": lambda i, j: np.s_[i : i + 4 : 2],
    "the last one": lambda i, j: np.s_[i - 1 : i],
    "an end before the begin": lambda i, j: np.s_[i : i - 3],
    "backwards": lambda i, j: np.s_[i : i + 4 : -1],
    "any": lambda i, j: np.s_[i:j],
    "no end": lambda i, j: np.s_[i:],
    "no begin": lambda i, j: np.s_[:j],
    "any backwards": lambda i, j: np.s_[j:i:-2],
    "columns": lambda i, j: np.s_[::2, i : i + 2],
    "a new axis": lambda i, j: np.s_[np.newaxis, i : i + 2, 1:-1],
    "more than there is": lambda i, j: np.s_[..., j : j + 9],
    "columns of no row": lambda i, j: np.s_[1:-5, i : i + 2],
    "none": lambda i, j: np.s_[i:i, j:],
}


@pytest.mark.parametrize("rows", [7, 1])
@pytest.mark.parametrize("name", SLICES)
def test_slices_are_as_long_as_what_there_is(session, name, rows):
    """As in TensorFlow, which follows Python; so do the gradient and what is asked of the shape."""
    x = tf.placeholder(tf.float64, [None, 6])
    i, j = tf.placeholder(tf.int32, []), tf.placeholder(tf.int32, [])
    array = np.arange(rows * 6.0).reshape(rows, 6) + 1
    index = SLICES[name]
    y = x[index(i, j)]
    shape = tf.shape(y)
    fetches = [y, shape, tf.gradients(tf.reduce_sum(y * y), x)[0]]
    for a, b in ((1, 2), (0, 5), (-3, 9), (6, -1), (-9, -8), (2, 2)):
        wanted = array[index(a, b)]
        slope = np.zeros_like(array)
        slope[index(a, b)] = 2 * wanted
        found = session.run(fetches, {x: array, i: a, j: b})
        np.testing.assert_array_equal(found[0], wanted)
        assert found[0].shape == wanted.shape == tuple(found[1])
        np.testing.assert_array_equal(found[2], slope)
        assert tuple(session.run(shape, {x: array, i: a, j: b})) == wanted.shape


def test_slices_in_loops_are_native_until_one_is_shorter(session):
    array = np.arange(12.0).reshape(6, 2)
    x, start = tf.constant(array), tf.placeholder(tf.int32, [])
    total = tf.while_loop(
        lambda i, a: i < start + 3,
        lambda i, a: (i + 1, a + tf.reduce_sum(x[i : i + 2] ** 2)), [start, np.float64(0)],
    )[1]
    fetches = [total, tf.gradients(total, x)[0]]
    kinds = []
    for first in (0, 2, 3, 1):
        found, slope = session.run(fetches, {start: first})
        pieces = [array[k : k + 2] for k in range(first, first + 3)]
        assert found == sum((piece**2).sum() for piece in pieces)
        wanted = np.zeros_like(array)
        for k in range(first, first + 3):
            wanted[k : k + 2] += 2 * array[k : k + 2]
        np.testing.assert_array_equal(slope, wanted)
        kinds.append([type(step) for step in steps_of(session)])
    assert kinds == [[Step], [Step], [StagedStep], [StagedStep]]


def test_a_shorter_slice_updates_variables_once(session):
    """The step that finds out has changed nothing, though it could have, kernel by kernel."""
    w, count = tf.Variable(np.zeros(4)), tf.Variable(0)
    x, i = tf.placeholder(tf.float64, [5, 4]), tf.placeholder(tf.int32, [])
    early = tf.assign_add(count, 1)
    with tf.control_dependencies([early]):
        step = tf.assign_add(w, tf.reduce_sum(x[i : i + 2], 0))
    session.run(tf.global_variables_initializer())
    for n, (first, rows) in enumerate([(0, 2), (4, 1), (5, 0), (2, 2)]):
        before = session.run(w)
        session.run([step, early], {x: np.ones((5, 4)), i: first})
        np.testing.assert_array_equal(session.run(w), before + rows)
        assert session.run(count) == n + 1


def test_python_functions_run_once_though_a_slice_is_shorter(session):
    calls = []
    x, i = tf.placeholder(tf.float64, [5]), tf.placeholder(tf.int32, [])
    logged = tf.py_func(lambda a: calls.append(1) or a, [x * 2], tf.float64)
    logged.set_shape([5])
    y = logged[i : i + 2]
    for first, wanted in ((1, [2, 2]), (4, [2]), (7, [])):
        assert session.run(y, {x: np.ones(5), i: first}).tolist() == wanted
    assert len(calls) == 3


def test_parts_that_leave_the_tensor_are_errors(session):
    """``tf.slice`` takes what it is asked for, or nothing."""
    x, i, n = tf.constant(np.arange(5.0)), *(tf.placeholder(tf.int32, []) for _ in range(2))
    fixed, rest, free = tf.slice(x, [i], [2]), tf.slice(x, [i], [-1]), tf.slice(x, [i], [n])
    assert session.run(fixed, {i: 3}).tolist() == [3, 4]
    assert session.run(rest, {i: 3}).tolist() == session.run(free, {i: 3, n: -1}).tolist() == [3, 4]
    assert session.run(free, {i: 1, n: 2}).tolist() == [1, 2]
    for y, at in ((fixed, 4), (fixed, -3), (fixed, -1), (free, 4), (free, -3), (rest, -2)):
        with pytest.raises(InvalidArgumentError) as caught:
            session.run(y, {i: at, n: 2})
        assert "test_driven.py" in str(caught.value)


def test_shapes_that_are_none(session):
    n = tf.placeholder(tf.int32, [])
    y = tf.fill([n, 2], 1.0)
    assert session.run(y, {n: 0}).shape == (0, 2)
    with pytest.raises(InvalidArgumentError, match="computed shape"):
        session.run(y, {n: -2})


def test_shapes_of_unknown_length(session):
    """Even the rank is fed."""
    shape, x = tf.placeholder(tf.int32, [None]), tf.constant(np.arange(12.0))
    y = tf.reshape(x, shape)
    slope = tf.gradients(tf.reduce_sum(y * y), x)[0]
    for wanted in ([3, 4], [2, -1], [12], [2, 3, 2], [4, 3]):
        found, gradient = session.run([y, slope], {shape: wanted})
        np.testing.assert_array_equal(found, np.arange(12.0).reshape(wanted))
        np.testing.assert_array_equal(gradient, 2 * np.arange(12.0))
    with pytest.raises(InvalidArgumentError, match="computed shape"):
        session.run(y, {shape: [-3, 4]})


def test_python_in_a_branch_has_no_gradient(session):
    x = tf.placeholder(tf.float32, [])

    def then():
        y = tf.py_func(lambda v: v * 2, [x], tf.float32)
        y.set_shape([])
        return y * x

    y = tf.cond(x > 0.0, then, lambda: x)
    assert session.run(y, {x: 3.0}) == 18
    with pytest.raises(Unsupported, match=r"PyFunc.* in a branch") as caught:
        tf.gradients(y, x)
    assert "test_driven.py" in str(caught.value)


def test_second_derivatives_of_a_driven_loop_are_refused(session):
    x = tf.placeholder(tf.float32, [1, 3])
    rows = grown(x, 3, lambda last: last * x)
    first = tf.gradients(tf.reduce_sum(rows), x)[0]
    second = tf.gradients(tf.reduce_sum(first * first), x)[0]
    assert session.run(first, {x: np.full((1, 3), 2.0)}).tolist() == [[49, 49, 49]]
    with pytest.raises(Unsupported, match="second derivatives"):
        session.run(second, {x: np.ones((1, 3))})


def test_errors_inside_name_the_line(session):
    n = tf.placeholder(tf.int32, [])

    def body(i, rows):
        rows = tf.py_func(lambda r: r, [rows], tf.float32)
        return i + 1, tf.concat([rows, tf.ones([1, 4])], 0)

    rows = tf.while_loop(
        lambda i, rows: i < n, body, [0, tf.ones([1, 3])],
        shape_invariants=[tf.TensorShape([]), tf.TensorShape(None)],
    )[1]  # fmt: skip
    with pytest.raises(InvalidArgumentError, match="ConcatV2") as caught:
        session.run(rows, {n: 2})
    assert "test_driven.py" in str(caught.value)


def test_exceptions_of_the_function_pass_through(session):
    def fail(i):
        if i == 2:
            raise KeyError("two")
        return i

    y = tf.while_loop(lambda i: i < 4, lambda i: tf.py_func(fail, [i], tf.int32) + 1, [0],
                      shape_invariants=[tf.TensorShape(None)])  # fmt: skip
    with pytest.raises(KeyError, match="two"):
        session.run(y)


def test_every_run_draws_other_numbers(session):
    """Also where only a stage before the last one draws; as a native loop draws them."""
    shapes = [tf.TensorShape([]), tf.TensorShape([None, 2])]
    driven = tf.while_loop(
        lambda i, m: i < 3,
        lambda i, m: (i + 1, tf.concat([m, tf.random_uniform([1, 2], seed=4)], 0)),
        [0, tf.zeros([0, 2])], shape_invariants=shapes,
    )[1]  # fmt: skip
    native = tf.while_loop(
        lambda i, t: i < 3, lambda i, t: (i + 1, t.write(i, tf.random_uniform([2], seed=4))),
        [0, tf.TensorArray(tf.float32, 3)],
    )[1].stack()
    runs = [session.run(driven) for _ in range(3)]
    assert len(np.unique(runs)) == 18
    np.testing.assert_array_equal(runs, [session.run(native) for _ in range(3)])


def test_sessions_share_what_is_compiled():
    graph = tf.Graph()
    with graph.as_default():
        n = tf.placeholder(tf.int32, [])
        rows = grown(tf.ones([1, 3]), n, lambda last: last + 1.0)
        for _ in range(2):
            with tf.Session(graph=graph) as sess:
                assert sess.run(rows, {n: 3}).sum() == 30
    ((staged,),) = [list(family.exact.values()) for family in graph.steps.values()]
    assert isinstance(staged, StagedStep)
    assert len(staged.parts) == 2


def test_slices_at_large_offsets_in_steps_for_all_sizes(session):
    """The kernel of a part that no size enters has arguments of its own."""
    x, w = tf.placeholder(tf.float32, [None, 3]), tf.placeholder(tf.float32, [4, 128])
    fetches = [tf.exp(x), w[:, 64:] * 2.0, tf.reduce_sum(x * 3.0, 0)]
    weights = np.arange(512.0).reshape(4, 128)
    for n in (2, 5, 9):
        found = session.run(fetches, {x: np.ones((n, 3)), w: weights})
        np.testing.assert_array_equal(found[1], weights[:, 64:] * 2)
