"""Planned bytes are the bytes a step takes, and later steps allocate nothing."""

import ctypes
import gc
import importlib
import tracemalloc

import numpy as np
import pytest

import tinyflow as tf
from tinyflow.compile.memory import memory_report
from tinyflow.compile.program import Program
from tinyflow.compile.step import compile_step
from tinyflow.core import options
from tinyflow.runtime.arena import Arena
from tinyflow.runtime.variables import VariableStore

GUARD = 1 << 16
FILL = 0xA5


def training_step(case=None):
    """(step, feeds) of the benchmark suite's small AlexNet, or of the case given."""
    module = importlib.import_module("benchmarks.workloads.alexnet")
    program, case = module.PROGRAM, case or module.TINY
    rng = np.random.default_rng(0)
    with tf.Graph().as_default():
        weights = {
            name: tf.Variable(tf.placeholder(a.dtype, a.shape), name=name)
            for name, a in program._weights(case, rng).items()
        }
        batch = {k: tf.placeholder(a.dtype, a.shape) for k, a in program._batch(case, rng).items()}
        loss = program._tf_loss(tf, case, weights, batch)
        train = tf.train.GradientDescentOptimizer(0.01).minimize(loss)
        feeds = list(batch.values())
        return compile_step([loss], [train], feeds, [f.type for f in feeds])


def random_feeds(values):
    rng = np.random.default_rng(1)
    return [
        rng.integers(0, 9, v.type.shape).astype(v.dtype.numpy)
        if v.dtype.kind == "int"
        else rng.normal(size=v.type.shape).astype(v.dtype.numpy)
        for v in values
    ]


@pytest.mark.parametrize("budget", [0, 2_000_000])
@pytest.mark.filterwarnings("ignore:memory_budget")
def test_the_arena_is_as_large_as_planned_and_nothing_is_written_behind_it(budget):
    with options.override(memory_budget=budget):
        plan = training_step().plan
    planned = plan.memory.arena_bytes
    assert planned == memory_report(plan).arena
    assert Program(plan, VariableStore()).arena.size_bytes == planned
    larger = Arena(planned + GUARD)
    everything = larger.view(0, (planned + GUARD,), np.uint8)
    everything[...] = FILL
    program = Program(plan, VariableStore(), larger)
    program.run(random_feeds(program.feed_values))
    written = np.flatnonzero(everything != FILL)
    assert written.max() < planned
    assert written.max() > planned - 0.1 * planned
    touched = len(np.unique(written // 64)) * 64
    assert touched > 0.8 * planned, "most of what is planned is needed"


def test_alexnet_training_takes_less_than_half_of_naive_and_the_least_possible():
    module = importlib.import_module("benchmarks.workloads.alexnet")
    report = memory_report(training_step({**module.CASES["batch 4"], "hidden": 64}).plan)
    assert report.arena <= 0.5 * report.naive
    assert report.arena <= 1.05 * report.live


class _MallInfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
        "fordblks", "keepcost",
    )]  # fmt: skip


def native_bytes():
    """Bytes in use of malloc's heap and of its own mappings."""
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        pytest.skip("this C library has no mallinfo2")
    mallinfo.restype = _MallInfo
    found = mallinfo()
    return found.uordblks + found.hblkhd


def test_from_the_second_step_on_nothing_is_allocated():
    step = training_step()
    program = Program(step.plan, VariableStore())
    feeds = random_feeds(program.feed_values)
    for _ in range(3):
        program.run(feeds)
    native_bytes()  # what the first call of it needs
    gc.collect()
    tracemalloc.start()
    try:
        program.run(feeds)
        native, before = native_bytes(), tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in range(50):
            program.run(feeds)
        now, peak = tracemalloc.get_traced_memory()
        grown = native_bytes() - native
    finally:
        tracemalloc.stop()
    assert now - before < 1024
    assert peak - before < 8192, "the results' arrays and a few Python objects"
    assert grown < 16384
