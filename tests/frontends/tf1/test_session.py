"""Sessions: fetches, feeds, sub-graphs, state per session, callables (rows A01-A07, A09)."""

from __future__ import annotations

import collections
import gc
import os
import threading
import warnings

import numpy as np
import pytest

import tinyflow as tf


def test_nothing_runs_before_run():
    calls = []
    y = tf.py_func(lambda a: (calls.append(1), a + 1)[1], [tf.constant(1.0)], tf.float32)
    z = y * 2.0
    assert calls == []
    sess = tf.Session()
    assert calls == []
    assert sess.run(z) == 4.0 and calls == [1]


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_shapes_known_in_part_or_not_at_all(dtype):
    x = tf.placeholder(dtype, [None, 784])
    total = tf.reduce_sum(x, 1)
    sess = tf.Session()
    rng = np.random.default_rng(0)
    for rows in (1, 64):
        value = rng.normal(size=(rows, 784)).astype(dtype.as_numpy_dtype)
        np.testing.assert_allclose(sess.run(total, {x: value}), value.sum(1), rtol=1e-4, atol=1e-4)
    free = tf.placeholder(dtype, name="X")
    y = tf.square(free) + 1.0
    assert sess.run(y, {free: 3.0}) == 10.0
    np.testing.assert_array_equal(sess.run(y, {free: [[1.0, 2.0]]}), [[2.0, 5.0]])


Point = collections.namedtuple("Point", "x y")


def test_fetch_structures():
    x = tf.placeholder(tf.float32, [2], name="x")
    s = tf.reduce_sum(x, name="s")
    v = tf.Variable(5.0, name="v")
    op = v.assign(7.0).op
    sess = tf.Session()
    sess.run(v.initializer)
    feed = {x: [1.0, 2.0]}
    assert sess.run(s, feed) == 3.0 and type(sess.run(s, feed)) is np.float32
    assert type(sess.run(x * 1.0, feed)) is np.ndarray
    assert sess.run(op) is None and sess.run(v) == 7.0
    assert sess.run("s:0", feed) == 3.0 and sess.run("Assign") is None
    assert sess.run([s, [v, (s, op)]], feed) == [3.0, [7.0, (3.0, None)]]
    assert sess.run({"a": s, "b": [v, (s, op)]}, feed) == {"a": 3.0, "b": [7.0, (3.0, None)]}
    point = sess.run(Point(s, v), feed)
    assert type(point) is Point and point == (3.0, 7.0)
    ordered = sess.run(collections.OrderedDict([("z", s), ("a", v)]), feed)
    assert type(ordered) is collections.OrderedDict and list(ordered) == ["z", "a"]
    assert sess.run([s, s, s], feed) == [3.0, 3.0, 3.0]
    assert sess.run([]) == [] and sess.run({}) == {} and sess.run(()) == ()
    # The same elements in another structure are another request.
    assert sess.run([(s, s)], feed) == [(3.0, 3.0)]
    nested = sess.run([Point(s, s)], feed)
    assert type(nested[0]) is Point


def test_results_belong_to_the_caller():
    x = tf.placeholder(tf.float32, [3])
    y = x + 1.0
    sess = tf.Session()
    value = np.ones(3, np.float32)
    first = sess.run(y, {x: value})
    first[:] = -1
    second = sess.run(y, {x: value})
    np.testing.assert_array_equal(second, 2.0)
    fed = sess.run(x, {x: value})
    fed[:] = 9
    np.testing.assert_array_equal(value, 1.0)
    v = tf.Variable([1.0, 2.0])
    sess.run(v.initializer)
    sess.run(v)[:] = 5
    np.testing.assert_array_equal(sess.run(v), [1.0, 2.0])


def test_any_tensor_can_be_fed():
    calls = []

    def count(a):
        calls.append(1)
        return a

    x = tf.placeholder(tf.float32, [2, 3])
    w = tf.Variable(tf.ones([3, 4]))
    hidden = tf.matmul(tf.py_func(count, [x], tf.float32), w)
    loss = tf.reduce_sum(hidden)
    sess = tf.Session()
    # Neither the placeholder nor the variable is needed when the product is fed.
    assert sess.run(loss, {hidden: np.full((2, 4), 2.0)}) == 16.0 and calls == []
    value = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(sess.run([w, w + 1.0], {w: value}), [value, value + 1])
    np.testing.assert_array_equal(sess.run(w * 2.0, {w.value(): value}), value * 2)
    c = tf.constant(1.0)
    assert sess.run(c + 1.0, {c: 5.0}) == 6.0 and sess.run(c + 1.0) == 2.0


def test_only_the_needed_subgraph_runs():
    calls = []

    def branch(name):
        return tf.py_func(lambda a: (calls.append(name), a)[1], [tf.constant(1.0)], tf.float32)

    left, right = branch("left"), branch("right") + tf.placeholder(tf.float32, [])
    sess = tf.Session()
    sess.run(left * 2.0)
    assert calls == ["left"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="You must feed a value"):
        sess.run(right)
    assert calls == ["left"]


def test_feed_keys():
    x, y = tf.placeholder(tf.float32, [], name="x"), tf.placeholder(tf.int32, [])
    sess = tf.Session()
    total = x + tf.cast(y, tf.float32)
    assert sess.run(total, {"x:0": 1.5, y: 2}) == 3.5
    assert sess.run(total, feed_dict={(x, y): (1.0, 2)}) == 3.0
    assert sess.run(total, {x: np.float64(1.5), y: np.int64(3)}) == 4.5
    assert sess.run(y * 1, {y: 3.9}) == 3  # as TensorFlow converts
    assert sess.run(total, {x: np.ones((), np.float64), y: True}) == 2.0
    with pytest.raises(ValueError, match="fed twice"):
        sess.run(total, {x: 1.0, "x:0": 2.0, y: 1})


def test_feeds_of_every_layout():
    x = tf.placeholder(tf.float32, [None, 3])
    y = x * 2.0
    sess = tf.Session()
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    for value in (base[:, ::2], base[:, :3].T[:3].T, np.asfortranarray(base[:, :3]),
                  base[::-1, :3], base[:, :3].tolist(), base[:0, :3]):  # fmt: skip
        np.testing.assert_array_equal(sess.run(y, {x: value}), np.asarray(value) * 2)
    sess.run(y, {x: base[:, :3]})
    read_only = base[:, :3].copy()
    read_only.flags.writeable = False
    np.testing.assert_array_equal(sess.run(y, {x: read_only}), read_only * 2)


def test_sessions_own_their_variables():
    w = tf.Variable(1.0)
    add = w.assign_add(1.0)
    one, two = tf.Session(), tf.Session()
    for sess in (one, two):
        sess.run(w.initializer)
    one.run(add)
    one.run(add)
    assert one.run(w) == 3.0 and two.run(w) == 1.0


def test_session_blocks_and_default_sessions():
    g = tf.Graph()
    with tf.Session(graph=g) as sess:
        assert tf.get_default_graph() is g and tf.get_default_session() is sess
        v = tf.Variable(2.0)
        v.initializer.run()
        assert (v * 3.0).eval() == 6.0 == sess.run(v * 3.0)
        x = tf.placeholder(tf.float32, [])
        assert (x + 1.0).eval({x: 1.0}) == 2.0 == (x + 1.0).eval(feed_dict={x: 1.0}, session=sess)
        v.assign(5.0).op.run()
        assert v.eval() == 5.0
        v.load(8.0)
        assert v.eval() == 8.0
    assert tf.get_default_session() is None
    with pytest.raises(RuntimeError, match="Attempted to use a closed Session"):
        sess.run(v)
    with pytest.raises(ValueError, match="No default session is registered"):
        v.eval()


def test_interactive_session():
    sess = tf.InteractiveSession()
    try:
        assert tf.constant(3.0).eval() == 3.0
        assert tf.get_default_session() is sess
    finally:
        sess.close()
    assert tf.get_default_session() is None


def test_an_empty_graph():
    with pytest.raises(RuntimeError, match="The Session graph is empty"):
        tf.Session(graph=tf.Graph()).run([])


def test_config_is_accepted():
    config = tf.ConfigProto(allow_soft_placement=True, inter_op_parallelism_threads=1)
    config.gpu_options.allow_growth = True
    config.gpu_options.per_process_gpu_memory_fraction = 0.4
    with tf.Session(config=config) as sess:
        one = tf.constant(1.0)
        assert sess.run(one, options=tf.RunOptions(), run_metadata=tf.RunMetadata()) == 1


def test_make_callable():
    a, b = tf.placeholder(tf.float32, []), tf.placeholder(tf.float32, [None])
    v = tf.Variable(0.0)
    sess = tf.Session()
    sess.run(v.initializer)
    call = sess.make_callable([a * b + 3.0, v.assign_add(1.0).op, v], [a, b])
    result = call(2.0, [1.0, 2.0])
    np.testing.assert_array_equal(result[0], [5.0, 7.0])
    assert result[1] is None
    np.testing.assert_array_equal(call(1.0, [1.0])[0], [4.0])
    assert sess.run(v) == 2.0
    assert sess.make_callable(v)() == 2.0
    with pytest.raises(ValueError, match="takes 2 values, got 1"):
        call(1.0)
    sess.close()
    with pytest.raises(RuntimeError, match="closed Session"):
        call(1.0, [1.0])


def test_eight_threads_one_session():
    v = tf.Variable(0.0)
    x = tf.placeholder(tf.float32, [None])
    add = tf.assign_add(v, 1.0, use_locking=True)
    total = tf.reduce_sum(x)
    sess = tf.Session()
    sess.run(v.initializer)
    wrong = []

    def work(k):
        for i in range(50):
            sess.run(add)
            value = np.full(k + 1, i, np.float32)
            if sess.run(total, {x: value}) != i * (k + 1):
                wrong.append((k, i))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == [] and sess.run(v) == 400.0


def test_a_graph_growing_inside_a_loop_warns_once_with_the_line():
    x = tf.placeholder(tf.float32, [])
    sess = tf.Session()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i in range(30):
            y = tf.add(x, float(i))  # the line that is named
            sess.run(x, {x: 1.0})
    assert len(caught) == 1 and y is not None
    first = test_a_graph_growing_inside_a_loop_warns_once_with_the_line.__code__.co_firstlineno
    text = str(caught[0].message)
    assert f"test_session.py:{first + 6}" in text and "placeholder" in text
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(30):  # nothing grows: no warning
            sess.run(x, {x: 1.0})


def test_repeated_runs_keep_nothing():
    x = tf.placeholder(tf.float32, [4])
    y = tf.reduce_sum(x * 2.0)
    sess = tf.Session()
    value = np.ones(4, np.float32)
    sess.run(y, {x: value})
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(2000):
        sess.run(y, {x: value})
    gc.collect()
    assert len(gc.get_objects()) - before < 50
    assert len(sess._plans) == 1


def test_partial_runs():
    a, b, c = (tf.placeholder(tf.float32, []) for _ in range(3))
    r1 = a + b
    r2 = r1 * c
    sess = tf.Session()
    handle = sess.partial_run_setup([r1, r2], [a, b, c])
    first = sess.partial_run(handle, r1, feed_dict={a: 1.0, b: 2.0})
    assert first == 3.0
    assert sess.partial_run(handle, r2, feed_dict={c: first * 10}) == 90.0
    assert sess.run(r2, {a: 1.0, b: 2.0, c: 30.0}) == 90.0
    with pytest.raises(ValueError, match="has already been fed"):
        sess.partial_run(handle, r2, feed_dict={a: 1.0})
    with pytest.raises(ValueError, match="not specified in partial_run_setup"):
        sess.partial_run(handle, r1 + 1.0)


def test_a_stateful_operation_runs_once_in_all_parts():
    calls = []
    v = tf.Variable(0.0)
    x, y = tf.placeholder(tf.float32, []), tf.placeholder(tf.float32, [])
    count = v.assign_add(1.0)
    noise = tf.random_uniform([4])
    host = tf.py_func(lambda a: (calls.append(1), a)[1], [x], tf.float32)
    first = (host + count) * noise
    second = (host + count) * noise * y
    sess = tf.Session()
    sess.run(v.initializer)
    handle = sess.partial_run_setup([first, second, count.op], [x, y])
    one = sess.partial_run(handle, first, {x: 1.0})
    two = sess.partial_run(handle, [second, count.op], {y: 3.0})[0]
    np.testing.assert_allclose(two, one * 3.0, rtol=1e-6)
    assert calls == [1] and sess.run(v) == 1.0


def test_a_fed_variable_is_fed_to_all_its_readers():
    v = tf.Variable(1.0)
    with tf.control_dependencies([tf.no_op()]):
        late = v + 0.0
    sess = tf.Session()
    assert sess.run([v, v * 2.0, late, v.read_value()], {v: 5.0}) == [5.0, 10.0, 5.0, 5.0]


def resident_bytes():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads Linux's /proc")
def test_a_hundred_thousand_runs_do_not_grow_memory():
    a, b = tf.placeholder(tf.float32, []), tf.placeholder(tf.float32, [100])
    v = tf.Variable(tf.zeros([100]))
    step = v.assign_add(a * b + 3.0)
    sess = tf.Session()
    sess.run(v.initializer)
    values = np.ones(100, np.float32)
    for _ in range(2000):
        sess.run(step, {a: 1.0, b: values})
    before = resident_bytes()
    for _ in range(100_000):
        sess.run(step, {a: 1.0, b: values})
    assert resident_bytes() - before < 2_000_000
