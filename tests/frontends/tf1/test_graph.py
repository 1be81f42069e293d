"""Graphs: defaults, look-up, control edges, devices, collections, finalize (A08, A10-A14)."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import tinyflow as tf


def test_default_graph_stack():
    outer = tf.get_default_graph()
    g, h = tf.Graph(), tf.Graph()
    with g.as_default() as entered:
        assert entered is g is tf.get_default_graph()
        a = tf.constant(1.0)
        with h.as_default(), g.as_default():
            assert tf.constant(2.0).graph is g
        assert tf.get_default_graph() is g
    assert tf.get_default_graph() is outer
    assert a.graph is g and not outer.get_operations()


def test_reset_default_graph():
    tf.constant(1.0)
    tf.reset_default_graph()
    assert tf.get_default_graph().get_operations() == []
    with tf.Graph().as_default(), pytest.raises(RuntimeError, match="nested graphs"):
        tf.reset_default_graph()


def test_default_graph_is_per_thread():
    seen = []
    with tf.Graph().as_default():
        thread = threading.Thread(target=lambda: seen.append(tf.get_default_graph()))
        thread.start()
        thread.join()
        assert seen[0] is not tf.get_default_graph()


def test_operations_go_to_the_graph_of_their_inputs():
    g = tf.Graph()
    with g.as_default():
        a = tf.placeholder(tf.float32, [2])
        v = tf.Variable([1.0, 2.0])
    for result in (a + 1.0, tf.add(a, 1.0), tf.reduce_sum(a), tf.matmul([[1.0]], [[1.0]]), v + 1.0,
                   tf.concat([a, a], 0), tf.gradients(a * 2.0, a)[0]):  # fmt: skip
        expected = tf.get_default_graph() if result.op.type == "MatMul" else g
        assert result.graph is expected


def test_mixed_graphs_name_both_lines():
    with tf.Graph().as_default():
        a = tf.constant(1.0, name="a")
    with tf.Graph().as_default():
        b = tf.constant(2.0, name="b")
    with pytest.raises(ValueError, match="must be from the same graph") as caught:
        tf.add(a, b)
    text = str(caught.value)
    line = test_mixed_graphs_name_both_lines.__code__.co_firstlineno
    assert f"a:0 created at test_graph.py:{line + 2}" in text
    assert f"b:0 created at test_graph.py:{line + 4}" in text
    assert f"used together at test_graph.py:{line + 6}" in text


def test_session_refuses_a_tensor_of_another_graph():
    with tf.Graph().as_default():
        a = tf.constant(1.0, name="a")
    tf.constant(2.0)
    with pytest.raises(ValueError, match="is not an element of this graph") as caught:
        tf.Session().run(a)
    assert "test_graph.py" in str(caught.value)


def test_finalize():
    x = tf.constant(1.0)
    tf.get_default_graph().finalize()
    assert tf.get_default_graph().finalized
    with pytest.raises(RuntimeError, match="Graph is finalized and cannot be modified") as caught:
        tf.add(x, x)
    assert "finalized at test_graph.py" in str(caught.value)
    assert tf.Session().run(x) == 1.0


def test_lookup_by_name():
    g = tf.get_default_graph()
    with tf.name_scope("layer"):
        x = tf.placeholder(tf.float32, [None, 3], name="x")
        y = tf.matmul(x, tf.ones([3, 2]), transpose_b=False, name="y")
    assert g.get_tensor_by_name("layer/y:0") is y
    assert g.get_operation_by_name("layer/y") is y.op
    assert g.as_graph_element("layer/x:0") is x and g.as_graph_element("layer/x") is x.op
    assert y.op.type == "MatMul" and y.op.inputs[0] is x and y.op.outputs[0] is y
    assert y.op.get_attr("transpose_b") is False and y.op.get_attr("T") == tf.float32
    assert x.consumers() == [y.op] and y.consumers() == []
    z = x + 1.0
    assert x.consumers() == [y.op, z.op]
    assert [op.name for op in g.get_operations()][:1] == ["layer/x"]
    assert "MatMul" in str(y.op.node_def) and y.op.node_def.input[0] == "layer/x"


@pytest.mark.parametrize(
    ("call", "error", "texts"),
    [
        (lambda g: g.get_tensor_by_name("weight:0"), KeyError, ["does not exist", "'weights:0'?"]),
        (lambda g: g.get_tensor_by_name("weights:1"), KeyError, ["only has 1 outputs"]),
        (lambda g: g.get_tensor_by_name("weights"), ValueError, ["an Operation, not a Tensor",
                                                                 "did you mean 'weights:0'?"]),
        (lambda g: g.get_operation_by_name("wieghts"), KeyError,
         ["not in the graph", "'weights'?"]),
        (lambda g: g.get_operation_by_name("weights:0"), ValueError, ["not an Operation"]),
        (lambda g: g.get_tensor_by_name(3), TypeError, ["Tensor names are strings"]),
        (lambda g: g.as_graph_element(3), TypeError, ["Can not convert a int into a Tensor"]),
        (lambda g: g.get_operation_by_name("weights").get_attr("strides"), ValueError,
         ["No attr named 'strides'"]),
    ],
)  # fmt: skip
def test_lookup_errors(call, error, texts):
    tf.constant([1.0], name="weights")
    with pytest.raises(error) as caught:
        call(tf.get_default_graph())
    for text in texts:
        assert text in str(caught.value)


def test_name_scopes():
    with tf.name_scope("a") as scope:
        assert scope == "a/"
        with tf.name_scope("b"):
            assert tf.constant(1.0, name="c").name == "a/b/c:0"
        with tf.name_scope(None):
            assert tf.constant(1.0, name="c").name == "c:0"
    with tf.name_scope("a") as second:
        assert second == "a_1/"
    with tf.name_scope(scope):
        assert tf.constant(1.0, name="c").name == "a/c:0"
    with tf.name_scope(None, "default", [tf.constant(1.0)]) as third:
        assert third == "default/"


def test_control_dependencies_edges():
    a, b = tf.constant(1.0), tf.constant(2.0)
    with tf.control_dependencies([a, b.op]):
        c = tf.constant(3.0)
        d = tf.identity(c)  # c is in the block: d follows from it
        with tf.control_dependencies(None):
            e = tf.constant(4.0)
        with tf.control_dependencies([c]):
            f = tf.constant(5.0)
    assert c.op.control_inputs == (a.op, b.op)
    assert d.op.control_inputs == () and e.op.control_inputs == ()
    assert set(f.op.control_inputs) >= {c.op}


def test_order_is_forced_a_thousand_times():
    log: list[str] = []

    def logger(name):
        return lambda x: (log.append(name), x)[1]

    x = tf.placeholder(tf.float32, [])
    first = tf.py_func(logger("a"), [x], tf.float32)
    with tf.control_dependencies([first]):
        second = tf.py_func(logger("b"), [x], tf.float32)
    with tf.control_dependencies([second]):
        result = tf.identity(x)
    sess = tf.Session()
    for _ in range(1000):
        sess.run(result, {x: 1.0})
    assert log == ["a", "b"] * 1000


def test_group_tuple_no_op():
    v, w = tf.Variable(1.0), tf.Variable(2.0)
    both = tf.group(v.assign(10.0), w.assign(20.0), name="both")
    assert both.name == "both" and both.type == "NoOp" and both.outputs == ()
    first, second = tf.tuple([v + 1.0, w + 1.0])
    nothing = tf.no_op()
    sess = tf.Session()
    sess.run(tf.global_variables_initializer())
    assert sess.run([first, second]) == [2.0, 3.0]
    assert sess.run([both, nothing]) == [None, None]
    assert sess.run([v, w]) == [10.0, 20.0]
    assert first.op.control_inputs[0].type == "NoOp"


def test_devices():
    with tf.device("/job:ps/task:1"):
        a = tf.constant(1.0)
        with tf.device("/cpu:0"):
            b = tf.constant(1.0)
        with tf.device(None):
            c = tf.constant(1.0)
        with tf.device(lambda op: "/gpu:2" if op.type == "Const" else ""):
            d = tf.constant(1.0)
            e = a + 1.0
    assert [t.device for t in (a, b, c, d)] == [
        "/job:ps/task:1", "/job:ps/task:1/device:CPU:0", "", "/job:ps/task:1/device:GPU:2",
    ]  # fmt: skip
    assert e.device == "/job:ps/task:1"
    with pytest.raises(ValueError, match="Unknown attribute: 'cpux:0'"), tf.device("/cpux:0"):
        pass


def test_collections():
    keys = tf.GraphKeys
    with tf.variable_scope("a"):
        w = tf.get_variable("w", [2])
        step = tf.Variable(0, trainable=False, name="step")
    with tf.variable_scope("b"):
        tf.get_variable("w", [2], regularizer=lambda v: tf.reduce_sum(v * v))
        mine = tf.Variable(1.0, collections=[keys.LOCAL_VARIABLES, "mine"], trainable=False)
    assert tf.get_collection(keys.GLOBAL_VARIABLES, scope="a") == [w, step]
    assert tf.get_collection(keys.TRAINABLE_VARIABLES, "a/") == [w] == tf.trainable_variables("a")
    assert tf.get_collection(keys.LOCAL_VARIABLES) == [mine] == tf.get_collection("mine")
    assert len(tf.get_collection(keys.REGULARIZATION_LOSSES)) == 1
    assert tf.get_collection(keys.REGULARIZATION_LOSSES, "nothing") == []
    for key in (keys.LOSSES, keys.SUMMARIES, keys.UPDATE_OPS, keys.MODEL_VARIABLES,
                keys.TABLE_INITIALIZERS, keys.QUEUE_RUNNERS):  # fmt: skip
        assert tf.get_collection(key) == []
        tf.add_to_collection(key, w)
        assert tf.get_collection(key) == [w]
        tf.get_collection(key).append(step)  # a copy
        assert tf.get_collection_ref(key) == [w]
    graph = tf.get_default_graph()
    assert "mine" in graph.get_all_collection_keys()
    graph.clear_collection("mine")
    assert tf.get_collection("mine") == []


def test_seed_table():
    graph = tf.get_default_graph()
    assert graph.seeds(None) == (0, 0)
    assert graph.seeds(5) == (87654321, 5)
    tf.set_random_seed(7)
    assert graph.seeds(5) == (7, 5)
    first = graph.seeds(None)
    tf.constant(1.0)
    assert first[0] == 7 and graph.seeds(None) != first
    tf.set_random_seed(0)
    assert graph.seeds(0) == (0, 2**31 - 1)


def test_seeded_streams_repeat_and_differ():
    def draw():
        with tf.Graph().as_default():
            tf.set_random_seed(1)
            a, b = tf.random_uniform([4]), tf.random_uniform([4])
            c = tf.random_normal([4], seed=3)
            sess = tf.Session()
            return [sess.run([a, b, c]), sess.run([a, b, c])]

    one, two = draw(), draw()
    np.testing.assert_array_equal(one, two)
    flat = np.concatenate([np.ravel(part) for part in one])
    assert len(np.unique(flat)) == flat.size  # every draw is new


def test_feedable():
    g = tf.get_default_graph()
    x = tf.constant(1.0)
    assert g.is_feedable(x) and g.is_fetchable(x)
    g.prevent_feeding(x)
    g.prevent_fetching(x.op)
    assert not g.is_feedable(x) and not g.is_fetchable(x.op)
    with pytest.raises(ValueError, match="may not be fed"):
        tf.Session().run(x + 1.0, {x: 2.0})
    with pytest.raises(ValueError, match="marked as not fetchable"):
        tf.Session().run(x.op)


def test_text_of_tensors_and_operations():
    x = tf.placeholder(tf.float32, [None, 784], name="x")
    assert str(x) == 'Tensor("x:0", shape=(?, 784), dtype=float32)'
    assert repr(x) == "<tf.Tensor 'x:0' shape=(?, 784) dtype=float32>"
    assert repr(x.op) == "<tf.Operation 'x' type=Placeholder>"
    assert str(tf.placeholder(tf.int32, name="u")) == 'Tensor("u:0", dtype=int32)'
