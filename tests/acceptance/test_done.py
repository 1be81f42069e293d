"""What the system promises, tried through public calls: one native call, same bits, no growth.

Limits are ratios and counts, never milliseconds of one machine. Slow versions: `pytest -m slow`.
May import everything below the tools.
"""

from __future__ import annotations

import functools
import hashlib
import json
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
from tinyflow.runtime.native_ir import runtime_ir
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


def test_a_training_step_is_one_native_call_of_few_kernels():
    with Recording() as recording:
        program = listing()
        program.train(3)
        step = recording.choose("train_step", {"train_step": program.train_step})
        before, arena = step_times(step.program), step.program.arena.address
        program.train(100)
        after = step_times(step.program)
    assert len(step.programs) == 1 and step.program.arena.address == arena
    assert after.native_calls - before.native_calls == after.runs - before.runs == 100
    assert (after.segments, after.host_calls) == (1, 0)
    assert 1 <= len(after.kernels) <= 6
    assert all(kernel.calls == after.runs for kernel in after.kernels)
    for lowered in step.step.plan.kernels:
        text = kernel_llvm(lowered.kernel, step.step.plan.target)
        assert [name for name in functions_of(text) if not name.startswith("llvm.")] == []


def test_the_native_driver_takes_no_memory():
    assert "pthread_create" in functions_of(runtime_ir())
    assert [name for name in functions_of(runtime_ir()) if "alloc" in name] == []


def functions_of(llvm: str) -> list[str]:
    """What a module takes from elsewhere."""
    return re.findall(r"^declare [^@]*@([\w.]+)\(", llvm, re.MULTILINE)


# ---- the same bits ---------------------------------------------------------------------------

WAYS: list[dict[str, Any]] = [
    {}, {"threads": 1}, {"threads": 2}, {"lanes": 16}, {"lanes": 8}, {"lanes": 4},
    {"fuse": False}, {"fuse": False, "lanes": 4, "threads": 1}, {"lanes": 4, "threads": 2},
]  # fmt: skip


@functools.cache
def weights_after_50_steps() -> str:
    with tf.Graph().as_default():
        return hashlib.sha256(listing().train(50).tobytes()).hexdigest()


@pytest.fixture
def _threads_restored() -> Iterator[None]:
    yield
    set_num_threads(available_cores())


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.usefixtures("_threads_restored")
def test_the_same_bits(way: dict[str, Any]) -> None:
    with options.override(**way):
        weights = listing().train(50)
    assert np.abs(weights).max() > 0.01
    assert hashlib.sha256(weights.tobytes()).hexdigest() == weights_after_50_steps()


# ---- special inputs --------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [False, True])
def test_saturated_logits_give_no_nan(optimizer: bool) -> None:
    program = listing()
    logits = np.where(np.arange(PIXELS * CLASSES).reshape(PIXELS, CLASSES) % 2, 200.0, -200.0)
    program.session.run(program.weights.assign(logits.astype(np.float32)))
    images = np.eye(BATCH, PIXELS, dtype=np.float32)  # so every logit is 200 or -200
    labels = np.eye(CLASSES, dtype=np.float32)[np.arange(BATCH) % CLASSES]
    feeds = {program.x: images, program.labels: labels}
    if optimizer:
        train_step = tf.train.GradientDescentOptimizer(0.5).minimize(program.loss)
        program.session.run(train_step, feeds)
        assert np.isfinite(program.session.run(program.weights)).all()
        return
    loss, gradient = program.session.run([program.loss, program.gradient], feeds)
    rows = images.astype(np.float64) @ logits
    shifted = rows - rows.max(1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    np.testing.assert_allclose(loss, -(labels * log_softmax).sum(1).mean(), rtol=1e-6)
    expected = images.T @ (np.exp(log_softmax) - labels) / BATCH
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-9)


# log(1 + exp(x)), written so, is inf from 89 (float32) and 710 (float64)
SOFTPLUS = [("float32", 88.0), ("float32", 89.0), ("float64", 709.0), ("float64", 710.0)]


@pytest.mark.parametrize(("dtype", "at"), SOFTPLUS)
def test_softplus_written_naively_is_stable(dtype: str, at: float) -> None:
    x = tf.placeholder(dtype, [3])
    y = tf.log(1.0 + tf.exp(x))
    value, slope = tf.Session().run([y, tf.gradients(y, [x])[0]], {x: [at, 0.0, -at]})
    np.testing.assert_allclose(value[:2], [at, np.log(2.0)], rtol=1e-6)
    np.testing.assert_allclose(slope[:2], [1.0, 0.5], rtol=1e-6)
    assert 0 <= value[2] < 1e-37 and 0 <= slope[2] < 1e-37


# ---- many calls, many threads, long chains ---------------------------------------------------


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads Linux's /proc")
@pytest.mark.parametrize("way", ["run", "make_callable"])
def test_a_hundred_thousand_calls_do_not_grow_memory(way: str) -> None:
    a, b = tf.placeholder(tf.float32, []), tf.placeholder(tf.float32, [])
    y = a * b + 3.0
    session = tf.Session()
    fast = session.make_callable(y, [a, b])
    values = np.float32(2.0), np.float32(5.0)
    feeds = dict(zip((a, b), values))
    call: Callable[[], Any] = {
        "run": lambda: session.run(y, feeds), "make_callable": lambda: fast(*values)
    }[way]  # fmt: skip
    for _ in range(5_000):
        call()
    before = resident_bytes()
    for _ in range(100_000):
        call()
    assert resident_bytes() - before < 1 << 20
    assert call() == 13.0


def test_eight_threads_share_a_session_and_a_plan():
    program = listing()
    count = tf.Variable(0.0)
    add = tf.assign_add(count, 1.0, use_locking=True)
    program.session.run(count.initializer)
    program.train(1)
    feeds = [dict(zip((program.x, program.labels), batch(k))) for k in range(8)]
    expected = [program.session.run(program.loss, feed) for feed in feeds]
    wrong: list[int] = []

    def work(k: int) -> None:
        for _ in range(100):
            program.session.run(add)
            if program.session.run(program.loss, feeds[k]) != expected[k]:
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and program.session.run(count) == 800.0


@pytest.mark.parametrize(
    "length", [20_000, pytest.param(100_000, marks=pytest.mark.slow)], ids="{:,}".format
)
def test_a_long_chain(length: int) -> None:
    x = tf.placeholder(tf.float32, [])
    y = x
    for _ in range(length):
        y = y + x
    session = tf.Session()
    value, slope = session.run([y, tf.gradients(y, [x])[0]], {x: 2.0})
    assert (value, slope) == (2.0 * (length + 1), length + 1)


# ---- compilation, the cache, import ----------------------------------------------------------

FIRST_STEP = """
import json, os, sys, time
import numpy as np
import tinyflow as tf
import tinyflow.compile
from tinyflow.runtime.kernel_cache import default_cache
tf.placeholder, tf.Variable, tf.Session, tf.gradients  # loading modules is not compiling
started = time.perf_counter()
x = tf.placeholder(tf.float32, [None, 784])
weights = tf.Variable(tf.zeros([784, 10]))
y = tf.nn.softmax(tf.matmul(x, weights))
labels = tf.placeholder(tf.float32, [None, 10])
loss = tf.reduce_mean(-tf.reduce_sum(labels * tf.log(y), reduction_indices=[1]))
train_step = tf.assign(weights, weights - 0.5 * tf.gradients(loss, [weights])[0])
session = tf.Session()
session.run(tf.global_variables_initializer())
rng = np.random.default_rng(0)
feeds = {x: rng.random((100, 784), np.float32), labels: np.eye(10, dtype=np.float32)[[3] * 100]}
value = session.run(train_step, feeds)
stats = default_cache().stats
print(json.dumps({
    "ms": 1e3 * (time.perf_counter() - started), "hits": stats.hits, "disk": stats.disk_hits,
    "misses": stats.misses, "sum": float(np.abs(value).sum()),
}))
"""


def python(code: str, cache: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, text=True, stdout=subprocess.PIPE,
        env={**os.environ, "TINYFLOW_CACHE": str(cache)},
    )  # fmt: skip


def result_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return json.loads(out)


def test_compiling_from_the_cache(tmp_path: Path) -> None:
    cold = result_of(python(FIRST_STEP, tmp_path))
    warm = min((result_of(python(FIRST_STEP, tmp_path)) for _ in range(3)), key=lambda r: r["ms"])
    print(f"first step: {cold['ms']:.0f} ms with an empty cache, {warm['ms']:.0f} ms with a full")
    assert cold["misses"] > 0 and cold["disk"] == 0
    # Who finds the whole step asks for its kernels only, not for what each group became.
    assert warm["misses"] == 0 and 0 < warm["disk"] == warm["hits"] < cold["misses"]
    assert warm["ms"] < cold["ms"] and warm["sum"] == cold["sum"] > 0


def test_processes_share_a_cold_cache(tmp_path: Path) -> None:
    results = [result_of(p) for p in [python(FIRST_STEP, tmp_path) for _ in range(4)]]
    assert len({r["sum"] for r in results}) == 1
    assert all(r["misses"] + r["disk"] > 0 for r in results)
    again = result_of(python(FIRST_STEP, tmp_path))
    assert again["misses"] == 0 and again["sum"] == results[0]["sum"]


def test_import_costs_little_more_than_numpy(tmp_path: Path) -> None:
    # Byte code may be kept, as on every machine that has not forbidden it.
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    kept["PYTHONPYCACHEPREFIX"] = str(tmp_path)

    def seconds(code: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=kept)
        return time.perf_counter() - started

    plain = "import sys, tinyflow; assert 'llvmlite' not in sys.modules"
    used = "import tinyflow as tf; tf.placeholder; tf.Variable; tf.Session"
    codes = (plain, used, "import numpy")
    rounds = [[seconds(code) for code in codes] for _ in range(6)]
    ours, with_ops, numpys = (min(column) for column in zip(*rounds[1:]))
    print(
        f"import numpy {1e3 * numpys:.0f} ms, tinyflow {1e3 * ours:.0f} ms, "
        f"and its first names {1e3 * with_ops:.0f} ms"
    )
    assert ours <= 2.5 * numpys
    assert with_ops <= 4 * numpys


# ---- against NumPy at the benchmarks' shapes ---------------------------------------------------

PRODUCTS = [(512, 512, 512), (1024, 1024, 1024), (100, 784, 10), (128, 784, 256), (64, 512, 512)]


@pytest.mark.parametrize(("m", "k", "n"), PRODUCTS)
def test_products(m: int, k: int, n: int) -> None:
    rng = np.random.default_rng(m + k + n)
    left, right = (rng.random(shape, np.float32) - np.float32(0.5) for shape in ((m, k), (k, n)))
    a, b = tf.placeholder(tf.float32, [m, k]), tf.placeholder(tf.float32, [k, n])
    product = tf.Session().run(tf.matmul(a, b), {a: left, b: right})
    exact = left.astype(np.float64) @ right.astype(np.float64)
    # One chain of fma: the bound of its rounding, and far below it in practice.
    bound = k * np.finfo(np.float32).eps * (np.abs(left) @ np.abs(right))
    assert (np.abs(product - exact) <= bound).all()
    assert np.abs(product - exact).max() < 1e-4


CHAINS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "triad": (lambda x, y, z: x * y + z, lambda x, y, z: x * y + z),
    "tanh": (lambda x, y, z: tf.tanh(x) * y + z, lambda x, y, z: np.tanh(x) * y + z),
    "bell": (
        lambda x, y, z: tf.exp(-x * x) * y / (1.0 + z * z),
        lambda x, y, z: np.exp(-x * x) * y / (1.0 + z * z),
    ),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_elementwise_chains(chain: str) -> None:
    rng = np.random.default_rng(7)
    values = [rng.standard_normal(1 << 20, np.float32) for _ in range(3)]
    ours, numpys = CHAINS[chain]
    xs = [tf.placeholder(tf.float32, [None]) for _ in values]
    result = tf.Session().run(ours(*xs), dict(zip(xs, values)))
    np.testing.assert_allclose(
        result, numpys(*(v.astype(np.float64) for v in values)), rtol=2e-6, atol=1e-6
    )


def test_row_softmax():
    values = np.random.default_rng(7).standard_normal((1024, 1024), np.float32)
    x = tf.placeholder(tf.float32, [None, 1024])
    exact = np.exp(values.astype(np.float64) - values.max(1, keepdims=True))
    exact /= exact.sum(1, keepdims=True)
    np.testing.assert_allclose(tf.Session().run(tf.nn.softmax(x), {x: values}), exact, rtol=2e-6)
