"""Workload: softmax over the rows of a float32[8192, 1024] array.

Counted traffic: the input read once and the result written once.
May import: see benchmarks.worker.
"""

from __future__ import annotations

import numpy as np

from benchmarks.kernels import contestants
from benchmarks.work import Work

TITLE = "Row softmax, 8M float32"
UNIT = "ms"
CASES = {"8192x1024": {"rows": 8192, "columns": 1024}}
TINY = {"rows": 7, "columns": 33}


def work(case):
    return Work(0, 4 * 2 * case["rows"] * case["columns"])


def _inputs(case):
    rng = np.random.default_rng(7)
    return (rng.standard_normal((case["rows"], case["columns"]), np.float32),)


def _numpy(np, case, x, out):
    np.subtract(x, x.max(axis=1, keepdims=True), out=out)
    np.exp(out, out=out)
    np.divide(out, out.sum(axis=1, keepdims=True), out=out)


CONTESTANTS = contestants(
    _inputs,
    {
        "numpy": _numpy,
        "tensorflow": lambda tf, case, x: tf.nn.softmax(x),
        "torch": lambda torch, case, x, out: torch.softmax(x, 1, out=out),
        "compile": lambda torch, case, x: torch.softmax(x, 1),
        "jax": lambda jax, case, x: jax.nn.softmax(x, axis=1),
    },
    lambda case: [(case["rows"], case["columns"])],
)
