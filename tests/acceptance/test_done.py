"""What the system promises, tried through public calls: one native call, same bits, no growth.

Limits are ratios and counts, never milliseconds of one machine. Slow versions: `pytest -m slow`.
May import everything below the tools.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyflow as tf
from tinyflow.compile.kernels import kernel_llvm
from tinyflow.core import options
from tinyflow.runtime.native_ir import __name__ as _native_ir_module
from tinyflow.runtime.thread_pool import available_cores, set_num_threads
from tinyflow.tools.kernel_table import step_times
from tinyflow.tools.recording import Recording

ROOT = Path(__file__).resolve().parents[2]
BATCH, PIXELS, CLASSES = 100, 784, 10


@pytest.fixture(autouse=True)
def fresh_graph() -> Iterator[None]:
    with tf.Graph().as_default():
        yield


@dataclass
class Listing:
    """The lectures' L2 in a session of its own."""

    session: Any
    x: Any
    labels: Any
    weights: Any
    loss: Any
    gradient: Any
    train_step: Any

    def train(self, steps: int) -> np.ndarray[Any, Any]:
        for n in range(steps):
            images, labels = batch(n % 7)
            self.session.run(self.train_step, {self.x: images, self.labels: labels})
        return self.session.run(self.weights)


def listing() -> Listing:
    x = tf.placeholder(tf.float32, [None, PIXELS])
    weights = tf.Variable(tf.zeros([PIXELS, CLASSES]))
    y = tf.nn.softmax(tf.matmul(x, weights))
    labels = tf.placeholder(tf.float32, [None, CLASSES])
    loss = tf.reduce_mean(-tf.reduce_sum(labels * tf.log(y), reduction_indices=[1]))
    gradient = tf.gradients(loss, [weights])[0]
    train_step = tf.assign(weights, weights - 0.5 * gradient)
    session = tf.Session()
    session.run(tf.initialize_all_variables())
    return Listing(session, x, labels, weights, loss, gradient, train_step)


@functools.cache
def batch(seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    images = rng.random((BATCH, PIXELS), np.float32)
    return images, np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, BATCH)]


# ---- one native call -------------------------------------------------------------------------


def test_a_training_step_is_one_native_call_without_allocation():
    with Recording() as recording:
        program_of = listing()
        program_of.train(3)
        step = recording.choose("train_step", {"train_step": program_of.train_step})
        images, labels = batch(0)
        arena = step.program.arena.address if hasattr(step.program.arena, "address") else None
        before = step_times(step.program)
        for _ in range(100):
            program_of.session.run(
                program_of.train_step, {program_of.x: images, program_of.labels: labels}
            )
        after = step_times(step.program)
    assert len(step.programs) == 1
    assert after.native_calls - before.native_calls == after.runs - before.runs == 100
    assert (after.segments, after.host_calls) == (1, 0)
    assert 1 <= len(after.kernels) <= 6
    assert all(kernel.calls == after.runs for kernel in after.kernels)
    for lowered in step.step.plan.kernels:
        text = kernel_llvm(lowered.kernel, step.step.plan.target)
        outside = set(re.findall(r"@([\w.]+)\(", text)) - {"kernel"}
        assert all(name.startswith("llvm.") for name in outside), outside
    if arena is not None:
        assert step.program.arena.address == arena
