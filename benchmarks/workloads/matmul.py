"""Workload: float32 matrix products, squares and the shapes of small models.

a: float32[m, k]   b: float32[k, n]   c = a b. Counted work: 2 m n k floating-point operations.
May import: see benchmarks.worker.
"""

from __future__ import annotations

import numpy as np

from benchmarks.kernels import contestants
from benchmarks.work import Work

TITLE = "Matrix product, float32"
UNIT = "us"
_SHAPES = [
    (512, 512, 512),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (100, 784, 10),
    (128, 784, 256),
    (64, 512, 512),
]
CASES = {"{}x{}x{}".format(m, k, n): {"m": m, "k": k, "n": n} for m, k, n in _SHAPES}
TINY = {"m": 5, "k": 17, "n": 9}


def work(case):
    m, k, n = case["m"], case["k"], case["n"]
    return Work(2 * m * k * n, 4 * (m * k + k * n + m * n))


def _inputs(case):
    rng = np.random.RandomState(7)
    shapes = ((case["m"], case["k"]), (case["k"], case["n"]))
    return tuple((rng.rand(*shape) - 0.5).astype(np.float32) for shape in shapes)


CONTESTANTS = contestants(
    _inputs,
    {
        "numpy": lambda np, case, a, b, out: np.matmul(a, b, out=out),
        "tensorflow": lambda tf, case, a, b: tf.matmul(a, b),
        "torch": lambda torch, case, a, b, out: torch.mm(a, b, out=out),
        "compile": lambda torch, case, a, b: torch.mm(a, b),
        "jax": lambda jax, case, a, b: a @ b,
    },
    lambda case: [(case["m"], case["n"])],
)
