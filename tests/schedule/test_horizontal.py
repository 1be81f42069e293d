"""Batches: several small element-wise groups in one kernel."""

import numpy as np

from tests.observing import is_bound, steps_made
from tests.schedule.test_auto import compiled, normal
from tinyflow import ops
from tinyflow.ir.loop.nodes import PARALLEL, For


def parts(*arrays):
    return [ops.add(ops.multiply(a, 2.0), 1.0) for a in arrays]


def run(*arrays, **changes):
    function = compiled(lambda *v: tuple(parts(*v)), *arrays, **changes)
    for a, result in zip(arrays, function(*arrays), strict=True):
        np.testing.assert_array_equal(result, a * 2 + 1)
    return function.plan.kernels


def test_small_batches_run_in_the_calling_thread():
    (kernel,) = run(normal(3, 4), normal(17), normal(5, 1, 2))
    assert kernel.group.kind == "batch" and kernel.tasks == 1 and kernel.chunk == 0
    assert kernel.steps[0] == "batch(3 parts)"


def test_large_batches_have_the_tasks_of_all_parts():
    (kernel,) = run(normal(126, 130), normal(17), normal(130, 126), normal(30, 3))
    (loop,) = kernel.kernel.body
    assert isinstance(loop, For) and loop.kind == PARALLEL
    assert loop.extent == kernel.tasks == 4


def test_every_dtype_in_one_batch():
    arrays = [normal(7), normal(9, dtype=np.float64), np.arange(12, dtype=np.int32)]
    function = compiled(lambda a, b, c: (a * 2.0, b * 2.0, c * 2), *arrays)
    for a, result in zip(arrays, function(*arrays), strict=True):
        np.testing.assert_array_equal(result, a * 2)
        assert result.dtype == a.dtype
    assert [k.group.kind for k in function.plan.kernels] == ["batch"]


def test_a_failing_part_reports_its_node():
    import pytest

    from tinyflow.core.error import InvalidArgumentError

    a, b = np.arange(8, dtype=np.int32), np.zeros(5, np.int32)
    function = compiled(lambda a, b: (a * 3, ops.floordiv(7, b)), a, b)
    assert [k.group.kind for k in function.plan.kernels] == ["batch"]
    with pytest.raises(InvalidArgumentError, match="division by zero"):
        function(a, b)


def test_parts_that_read_another_parts_variable_see_its_old_value():
    import tinyflow as tf

    with tf.Graph().as_default(), tf.Session() as sess:
        a, b = tf.Variable(np.ones(5, np.float32)), tf.Variable(np.full(3, 2, np.float32))
        new_a = a.assign(a * 3.0)
        new_b = b.assign(b + a[:3])
        sess.run(tf.global_variables_initializer())
        for _ in range(3):
            old_a, old_b = sess.run([a, b])
            sess.run(tf.group(new_a, new_b))
            np.testing.assert_array_equal(sess.run(a), old_a * 3)
            np.testing.assert_array_equal(sess.run(b), old_b + old_a[:3])


def test_updates_happen_in_place():
    import tinyflow as tf

    with tf.Graph().as_default(), tf.Session() as sess:
        variables = [tf.Variable(np.ones(n, np.float32)) for n in (5, 6, 7)]
        update = tf.group(*[v.assign(v * 0.5) for v in variables])
        sess.run(tf.global_variables_initializer())
        with steps_made(is_bound) as bound:
            for _ in range(3):
                sess.run(update)
        plan = bound[-1].program.plan
        assert [k.group.kind for k in plan.kernels] == ["batch"]
        assert not plan.memory.copies and plan.memory.arena_bytes == 0
        for v in variables:
            np.testing.assert_array_equal(sess.run(v), np.full(v.shape[0].value, 0.125))
