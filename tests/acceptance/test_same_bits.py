"""One hash of the weights after 100 training steps, however the steps are run.

Four models: a perceptron, a convolutional network, an LSTM in a loop, a transformer block. They run
with any number of threads, any vector width, fused and op by op, for one batch size and for all, in
this process and in another one with an empty kernel cache. May import the public face, core.options
and runtime.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyflow as tf
from tinyflow.core import options
from tinyflow.runtime.thread_pool import available_cores, set_num_threads

ROOT = Path(__file__).resolve().parents[2]
STEPS, BATCH, CLASSES = 100, 13, 7
#: sizes with tails for every vector width; large enough that threads share the work
PIXELS, HIDDEN, SIDE, TIME, WIDTH, WORDS = 70, 130, 12, 9, 24, 40

WAYS: tuple[dict[str, Any], ...] = (
    {"threads": 1}, {"threads": 2}, {"lanes": 16}, {"lanes": 8}, {"lanes": 4}, {"fuse": False},
    {"fuse": False, "lanes": 4, "threads": 1}, {"fuse": False, "lanes": 8, "threads": 2},
    {"lanes": 4, "threads": 2},
)  # fmt: skip


class Weights:
    """Variables with fixed start values."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(5)

    def __call__(self, *shape: int) -> Any:
        fan_in = int(np.prod(shape[:-1])) or 1
        start = self.rng.normal(size=shape) / np.sqrt(fan_in)
        return tf.Variable(start.astype(np.float32))


def cross_entropy(logits: Any, labels: Any) -> Any:
    return tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    )


def mlp(w: Weights, x: Any) -> Any:
    h = tf.nn.relu(tf.matmul(x, w(PIXELS, HIDDEN)) + w(HIDDEN))
    return tf.matmul(h, w(HIDDEN, CLASSES)) + w(CLASSES)


def cnn(w: Weights, x: Any) -> Any:
    h = tf.reshape(x, [-1, SIDE, SIDE, 1])
    h = tf.nn.relu(tf.nn.conv2d(h, w(3, 3, 1, 6), strides=[1, 1, 1, 1], padding="SAME") + w(6))
    h = tf.nn.max_pool(h, ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="SAME")
    h = tf.nn.relu(tf.nn.conv2d(h, w(3, 3, 6, 10), strides=[1, 2, 2, 1], padding="VALID"))
    mean, variance = tf.nn.moments(h, axes=[0, 1, 2])
    h = tf.nn.batch_normalization(h, mean, variance, w(10), w(10), 1e-3)
    return tf.matmul(tf.reshape(h, [-1, 2 * 2 * 10]), w(40, CLASSES))


def lstm(w: Weights, x: Any) -> Any:
    kernel = tf.constant_initializer(w.rng.normal(size=(2 * WIDTH, 4 * WIDTH)) / 7)
    cell = tf.nn.rnn_cell.LSTMCell(WIDTH, initializer=kernel)
    rows = tf.reshape(x, [-1, TIME, WIDTH])
    outputs, _ = tf.nn.dynamic_rnn(cell, rows, dtype=tf.float32)
    return tf.matmul(outputs[:, -1], w(WIDTH, CLASSES))


def layer_norm(w: Weights, h: Any) -> Any:
    mean, variance = tf.nn.moments(h, axes=[-1], keepdims=True)
    return (h - mean) * tf.rsqrt(variance + 1e-5) * (1.0 + w(WIDTH)) + w(WIDTH)


def transformer(w: Weights, x: Any) -> Any:
    h = tf.nn.embedding_lookup(w(WORDS, WIDTH), x) + w(TIME, WIDTH)
    n = layer_norm(w, h)
    flat = tf.reshape(n, [-1, WIDTH])
    q, k, v = (
        tf.transpose(tf.reshape(tf.matmul(flat, w(WIDTH, WIDTH)), [-1, TIME, 3, 8]), [0, 2, 1, 3])
        for _ in "qkv"
    )
    scores = tf.matmul(q, k, transpose_b=True) * 8**-0.5
    mixed = tf.transpose(tf.matmul(tf.nn.softmax(scores), v), [0, 2, 1, 3])
    h += tf.reshape(tf.matmul(tf.reshape(mixed, [-1, WIDTH]), w(WIDTH, WIDTH)), [-1, TIME, WIDTH])
    up = tf.matmul(tf.reshape(layer_norm(w, h), [-1, WIDTH]), w(WIDTH, 4 * WIDTH))
    up = 0.5 * up * (1.0 + tf.erf(up * 0.5**0.5))
    h += tf.reshape(tf.matmul(up, w(4 * WIDTH, WIDTH)), [-1, TIME, WIDTH])
    return tf.matmul(tf.reduce_mean(layer_norm(w, h), axis=1), w(WIDTH, CLASSES))


Model = tuple[Callable[[Weights, Any], Any], tuple[int, ...], Callable[[], Any]]
MODELS: dict[str, Model] = {
    "mlp": (mlp, (PIXELS,), lambda: tf.train.AdamOptimizer(0.01)),
    "cnn": (cnn, (SIDE * SIDE,), lambda: tf.train.MomentumOptimizer(0.05, 0.9)),
    "lstm": (lstm, (TIME * WIDTH,), lambda: tf.train.RMSPropOptimizer(0.005)),
    "transformer": (transformer, (TIME,), lambda: tf.train.AdamOptimizer(0.005)),
}


def batch(shape: tuple[int, ...], size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, *shape)).astype(np.float32)
    if shape == (TIME,):
        x = rng.integers(0, WORDS, (size, TIME))
    return x, rng.integers(0, CLASSES, size)


def weights_after(model: str, first_sizes: tuple[int, ...] = ()) -> list[np.ndarray]:
    """All variables after the steps. first_sizes: batch sizes of another session before them."""
    make, shape, optimizer = MODELS[model]
    with tf.Graph().as_default() as graph:
        x = tf.placeholder(tf.int64 if model == "transformer" else tf.float32, [None, *shape])
        labels = tf.placeholder(tf.int64, [None])
        loss = cross_entropy(make(Weights(), x), labels)
        step = optimizer().minimize(loss)
        init = tf.global_variables_initializer()
        if first_sizes:
            with tf.Session() as other:
                other.run(init)
                for size in first_sizes:
                    pictures, classes = batch(shape, size, 0)
                    other.run(step, {x: pictures, labels: classes})
        with tf.Session() as session:
            session.run(init)
            before = session.run(loss, dict(zip((x, labels), batch(shape, BATCH, 0))))
            for n in range(STEPS):
                pictures, classes = batch(shape, BATCH, n % 3)
                session.run(step, {x: pictures, labels: classes})
            after = session.run(loss, dict(zip((x, labels), batch(shape, BATCH, 0))))
            assert after < 0.8 * before  # it trains: the hash is not one of standing weights
            found = session.run(tf.global_variables())
        if first_sizes:
            assert any(family.symbolic for family in graph.steps.values())
    return found


def hash_of(model: str, first_sizes: tuple[int, ...] = ()) -> str:
    arrays = weights_after(model, first_sizes)
    assert all(np.isfinite(a).all() for a in arrays)
    return hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in arrays)).hexdigest()


@pytest.fixture(scope="module")
def expected() -> dict[str, str]:
    return {model: hash_of(model) for model in MODELS}


@pytest.fixture
def _threads_restored() -> Iterator[None]:
    yield
    set_num_threads(available_cores())


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.usefixtures("_threads_restored")
def test_one_hash_for_every_way_to_run(
    model: str, way: dict[str, Any], expected: dict[str, str]
) -> None:
    with options.override(**way):
        assert hash_of(model) == expected[model]


@pytest.mark.parametrize("model", ["mlp", "cnn", "transformer"])  # a loop's sizes stay numbers
def test_one_hash_for_a_step_that_serves_all_batch_sizes(
    model: str, expected: dict[str, str]
) -> None:
    assert hash_of(model, first_sizes=(5, 8)) == expected[model]


def test_one_hash_in_another_process(expected: dict[str, str], tmp_path: Path) -> None:
    """Everything is compiled anew, for one thread."""
    program = (
        "from tests.acceptance.test_same_bits import MODELS, hash_of\n"
        "for model in MODELS: print(model, hash_of(model))"
    )
    environment = dict(
        os.environ, TINYFLOW_CACHE=str(tmp_path), TINYFLOW_NUM_THREADS="1", PYTHONPATH=str(ROOT)
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert dict(line.split() for line in result.stdout.splitlines()) == expected
