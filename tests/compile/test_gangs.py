"""Independent small kernels run at the same time: the lecture's B = A + 1 beside C = A + 2."""

import time

import numpy as np
import pytest

import tinyflow as tf
from tinyflow.compile.gangs import Gang
from tinyflow.compile.step import compile_step
from tinyflow.core import options
from tinyflow.ir.graph.visit import ancestors
from tinyflow.runtime.thread_pool import available_cores, default_pool, set_num_threads
from tinyflow.runtime.variables import VariableStore


@pytest.fixture
def threads():
    before = default_pool().n_threads
    yield set_num_threads
    set_num_threads(before)


def wide(branches=6, depth=4, size=64):
    """Branches of small products that meet in one sum."""
    tf.reset_default_graph()
    x = tf.placeholder(tf.float32, [size, size])
    rng = np.random.default_rng(0)
    ends = []
    for _ in range(branches):
        h = x
        for _ in range(depth):
            w = tf.constant(rng.normal(size=(size, size)).astype(np.float32) / 8)
            h = tf.tanh(tf.matmul(h, w))
        ends.append(h)
    return compile_step([tf.add_n(ends)], [], [x], [x.type])


def gangs_of(plan):
    return [a for a in plan.actions if isinstance(a, Gang)]


def lecture(slow):
    """D = B * C of B = A + 1 and C = A + 2, each through ``slow``: [12 ...] for A = 1 ..."""
    tf.reset_default_graph()
    a = tf.placeholder(tf.float64, [40, 40])
    b, c = slow(a + 1.0), slow(a + 2.0)
    return compile_step([b * c], [], [a], [a.type])


def through_products(value):
    """The same value after a few microseconds of work: products with the unit matrix."""
    unit = tf.constant(np.eye(40))
    for _ in range(4):
        value = tf.matmul(value, unit)
    return value


def test_the_lectures_example_gives_12_and_its_two_sides_overlap(threads):
    if available_cores() < 2:
        pytest.skip("one core")
    threads(2)
    bound = lecture(through_products).bind(VariableStore())
    ten = np.full((40, 40), 2.0)
    assert gangs_of(bound.step.plan)
    bound.program.profile(True)
    overlapped = False
    for _ in range(2000):  # the other core may be busy with something else
        (result,) = bound.run([ten])
        np.testing.assert_array_equal(result, 12.0)
        spans = [s for lst in bound.program.launch_lists for s in lst.gang_spans()]
        for (_, begin_1, end_1), (_, begin_2, end_2) in (s for s in spans if len(s) == 2):
            assert end_1 > begin_1 > 0 and end_2 > begin_2 > 0
            overlapped = overlapped or max(begin_1, begin_2) < min(end_1, end_2)
        if overlapped:
            break
    assert overlapped


def test_the_result_waits_for_both_sides():
    plan = lecture(through_products).plan
    last = plan.kernels[-1]
    assert not any(last in g.members for g in gangs_of(plan))
    for gang in gangs_of(plan):
        for one in gang.members:
            own = {i.value.node for i in one.group.items}
            needed = set(ancestors(own)) - own
            for other in gang.members:
                if other is not one:
                    assert not needed & {i.value.node for i in other.group.items}


def test_gangs_change_no_bit(threads):
    step = wide()
    assert len(gangs_of(step.plan)) >= 3
    feed = np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32)
    found = []
    for count in (1, 2, 3):
        threads(count)
        bound = step.bind(VariableStore())
        found += [bound.run([feed])[0].tobytes() for _ in range(20)]
    with options.override(fuse=False):
        found.append(wide().bind(VariableStore()).run([feed])[0].tobytes())
    assert len(set(found)) == 1


def test_members_share_no_memory_that_one_of_them_writes():
    plan = wide().plan
    for gang in gangs_of(plan):
        written = []
        for one in gang.members:
            for buffer, value in zip(one.kernel.buffers, one.arguments, strict=True):
                place = plan.memory.places[value]
                if buffer.name in one.kernel.outputs and place.kind == "arena":
                    written.append((place.key, place.key + plan.bytes_of(value), one))
        for begin, end, owner in written:
            for one in gang.members:
                if one is owner:
                    continue
                for value in one.arguments:
                    place = plan.memory.places[value]
                    if place.kind == "arena":
                        assert place.key >= end or place.key + plan.bytes_of(value) <= begin


def test_one_thread_runs_a_gang_alone(threads):
    threads(1)
    bound = wide().bind(VariableStore())
    feed = np.ones((64, 64), np.float32)
    bound.run([feed])
    assert default_pool().n_started == 0


def test_a_variable_is_not_overwritten_beside_its_reader():
    tf.reset_default_graph()
    v = tf.Variable(np.arange(4096.0, dtype=np.float32).reshape(64, 64) / 4096)
    x = tf.placeholder(tf.float32, [64, 64])
    read = tf.matmul(x, v)
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        start = sess.run(v)
        feed = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
        expected = sess.run(read, {x: feed})
        with tf.control_dependencies([read]):
            update = tf.assign(v, tf.matmul(x, x))
        got, _ = sess.run([read, update], {x: feed})
        np.testing.assert_array_equal(got, expected)
        np.testing.assert_allclose(sess.run(v), feed @ feed, rtol=1e-4, atol=1e-3)
        assert not np.array_equal(start, sess.run(v))


def test_profiles_name_the_members_and_count_their_time_once():
    bound = wide().bind(VariableStore())
    feed = np.ones((64, 64), np.float32)
    bound.program.profile(True)
    for _ in range(5):
        bound.run([feed])
    (record,) = bound.program.record()
    gangs = [p for p in record.launches if p.name == "gang"]
    members = [p for p in record.launches if p.name.startswith("dot")]
    assert gangs and all(p.median_ns > 0 for p in members)
    assert len(members) == len(bound.program.launch_actions) - sum(
        not a.kernel.name.startswith("dot") for a in bound.program.launch_actions
    )


def test_a_step_with_gangs_takes_no_longer_to_plan_than_seconds():
    begin = time.thread_time()
    wide(branches=24, depth=8, size=16)
    assert time.thread_time() - begin < 20
