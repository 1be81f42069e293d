"""Compiles one small program and compares it with NumPy.

Main functions: ``run``, ``cold_and_warm``: in a process of its own, twice, so that the second one
finds the first one's kernels in the cache. May import everything below tools.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

#: largest difference from float64 NumPy that float32 arithmetic explains here
TOLERANCE = 2e-6


def run() -> dict[str, Any]:
    """softmax(x w + b) for x: float32[64, 48]: seconds of the first run, and the largest error."""
    import tinyflow as tf

    rng = np.random.default_rng(0)
    x, w, b = (rng.normal(size=s).astype(np.float32) for s in ((64, 48), (48, 10), (10,)))
    graph = tf.Graph()
    with graph.as_default(), tf.Session() as sess:
        inputs = [tf.placeholder(tf.float32, a.shape) for a in (x, w, b)]
        y = tf.nn.softmax(tf.matmul(inputs[0], inputs[1]) + inputs[2])
        before = time.perf_counter()
        got = sess.run(y, dict(zip(inputs, (x, w, b), strict=True)))
        compiled = time.perf_counter()
    logits = x.astype(np.float64) @ w + b
    wanted = np.exp(logits - logits.max(axis=1, keepdims=True))
    wanted /= wanted.sum(axis=1, keepdims=True)
    return {
        "first_run_s": compiled - before,
        "error": float(np.abs(got - wanted).max()),
    }


_PROGRAM = """
import json, time
import numpy
start = time.perf_counter()
import tinyflow
import_s = time.perf_counter() - start
from tinyflow.tools.self_test import run
print(json.dumps({**run(), "import_s": import_s}))
"""


def in_fresh_process(cache: str) -> dict[str, Any]:
    """``run()`` in a new interpreter with that cache directory, and the seconds of the import.

    Errors: RuntimeError with the interpreter's last words.
    """
    environment = {**os.environ, "TINYFLOW_CACHE": cache}
    # The interpreter must find the package that is running now, installed or not.
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    paths = [root, *filter(None, [environment.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        capture_output=True, text=True, timeout=120, env=environment, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or f"exit status {done.returncode}")
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def cold_and_warm() -> tuple[dict[str, Any], dict[str, Any]]:
    """Results with an empty cache directory, and again with what the first run left there."""
    with tempfile.TemporaryDirectory(prefix="tinyflow-self-test-") as cache:
        return in_fresh_process(cache), in_fresh_process(cache)
