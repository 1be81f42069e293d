"""Programs: one native call, fresh results, host calls between segments, errors with lines."""

import numpy as np
import pytest

import tinyflow as tf
from tests.observing import is_bound, steps_made
from tinyflow.core import options
from tinyflow.core.error import InvalidArgumentError
from tinyflow.runtime.result_memory import LARGE_BYTES, result_empty


@pytest.fixture
def session():
    with tf.Graph().as_default(), tf.Session() as sess:
        yield sess


@pytest.fixture
def bound():
    """The BoundSteps that a test's sessions make."""
    with steps_made(is_bound) as seen:
        yield seen


def test_a_step_is_one_native_call(session, bound):
    x = tf.placeholder(tf.float32, [None, 6])
    w = tf.Variable(tf.ones([6, 3]))
    loss = tf.reduce_mean(tf.square(tf.matmul(x, w)))
    train = tf.assign(w, w - 0.1 * tf.gradients(loss, [w])[0])
    session.run(tf.global_variables_initializer())
    for _ in range(5):
        session.run(train, {x: np.ones((4, 6), np.float32)})
    program = bound[-1].program
    assert program.native_calls == 5
    assert len(program.launch_lists) == 1
    assert len(program.plan.kernels) <= 5


def test_without_feeds_the_first_run_goes_op_by_op(session, bound):
    value = tf.reduce_sum(
        tf.exp(tf.Variable(np.arange(10.0, dtype=np.float32)).initialized_value()) * 2.0
    )
    first = session.run(value)
    single = len(bound[-1].program.plan.kernels)
    second = session.run(value)
    assert first == second
    assert len(bound[-1].program.plan.kernels) <= single


def test_results_are_fresh_and_the_callers_own(session):
    x = tf.placeholder(tf.float32, [None])
    y = x * 2.0
    a = session.run(y, {x: [1.0, 2.0]})
    b = session.run(y, {x: [3.0, 4.0]})
    np.testing.assert_array_equal(a, [2.0, 4.0])
    assert a.flags.writeable and not np.shares_memory(a, b)


def test_host_calls_stand_between_segments(session, bound):
    calls = []

    def log(v):
        calls.append(v.copy())
        return v + np.float32(1)

    x = tf.placeholder(tf.float32, [3])
    y = tf.py_func(log, [x * 2.0], tf.float32)
    z = y * 10.0
    np.testing.assert_array_equal(session.run(z, {x: [1, 2, 3]}), [30, 50, 70])
    assert len(calls) == 1


def test_a_kernels_error_names_the_op_and_the_line(session):
    indices = tf.placeholder(tf.int32, [None])
    rows = tf.gather(tf.constant(np.eye(4, dtype=np.float32)), indices)
    with pytest.raises(InvalidArgumentError, match=r"index 7 .*out of range") as caught:
        session.run(rows, {indices: [1, 7]})
    assert "test_program.py" in str(caught.value)
    session.run(rows, {indices: [1, 3]})  # the session goes on


def test_large_results_reuse_memory():
    shape = (LARGE_BYTES // 4 + 5,)
    first = result_empty(shape, np.dtype(np.float32))
    view = first[3:]
    address = first.__array_interface__["data"][0]
    del first
    assert result_empty(shape, np.dtype(np.float32)).__array_interface__["data"][0] != address
    del view
    again = result_empty(shape, np.dtype(np.float32))
    assert again.__array_interface__["data"][0] == address


def test_empty_tensors_run(session):
    x = tf.placeholder(tf.float32, [None, 3])
    empty = np.zeros((0, 3), np.float32)
    total, rows = session.run([tf.reduce_sum(x), tf.nn.softmax(x)], {x: empty})
    assert total == 0 and rows.shape == (0, 3)


#: what is computed of x[0, 3], and the result's shape
EMPTY = {
    "unique": (lambda x: tf.size(tf.unique(tf.reshape(x, [-1]))[0]), ()),
    "sort": (lambda x: tf.reshape(tf.sort(x, axis=0), [3, -1]), (3, 0)),
    "sort rows": (lambda x: tf.reshape(tf.sort(x), [-1]), (0,)),
    "sorted again": (lambda x: tf.sort(tf.reshape(tf.sort(x, axis=0), [-1])), (0,)),
    "argsort": (lambda x: tf.expand_dims(tf.argsort(tf.transpose(x)), 0) + 1, (1, 3, 0)),
    "top k": (lambda x: tf.reshape(tf.nn.top_k(x, 2)[1], [2, -1]), (2, 0)),
    "cumsum": (lambda x: tf.squeeze(tf.expand_dims(tf.cumsum(x, 0), 1), 1), (0, 3)),
    "loop": (lambda x: tf.while_loop(
        lambda i, v: i < 2, lambda i, v: (i + 1, tf.reshape(tf.sort(v), [-1, 3])), [0, x]
    )[1], (0, 3)),
    "branch": (lambda x: tf.cond(
        tf.size(x) > 0, lambda: x, lambda: tf.reshape(tf.sort(tf.reshape(x, [-1])), [-1, 3])
    ), (0, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", EMPTY)
@pytest.mark.parametrize("rows", [0, None])
def test_views_of_results_without_elements(session, name, rows):
    """Their kernels do nothing, and yet readers and views ask where they are."""
    make, shape = EMPTY[name]
    x = tf.placeholder(tf.float32, [rows, 3])
    y = make(x)
    fetches = [y, tf.reduce_sum(y)]
    for n in (4, 2) if rows is None else ():  # from the second size on, one step serves all
        session.run(fetches, {x: np.ones((n, 3))})
    found, total = session.run(fetches, {x: np.zeros((0, 3))})
    assert found.shape == shape and total == 0


def test_variables_without_elements_train(session):
    v, w = tf.Variable(np.zeros((2, 0), np.float32)), tf.Variable(tf.ones([2, 3]))
    loss = tf.reduce_sum(tf.sort(tf.concat([v, w], 1)) ** 2)
    for make in (tf.train.AdamOptimizer, tf.train.RMSPropOptimizer, tf.train.FtrlOptimizer):
        train = make(0.1).minimize(loss)
        session.run(tf.global_variables_initializer())
        before, _ = session.run([loss, train])
        assert before == 6 and session.run(loss) < 6 and session.run(v).shape == (2, 0)


def test_options_choose_the_code(session, bound):
    x = tf.placeholder(tf.float32, [40])
    y = tf.tanh(x) * 3.0
    values = np.linspace(-2, 2, 40, dtype=np.float32)
    expected = session.run(y, {x: values})
    for changes in ({"lanes": 4}, {"fuse": False}, {"threads": 1}):
        with options.override(**changes):
            np.testing.assert_array_equal(session.run(y, {x: values}), expected)
