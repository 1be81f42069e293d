"""Workload: the gradients of a chain of element-wise operations on 8M float32 elements.

f = sum(exp(-x x) y / (1 + z z)); results: df/dx, df/dy, df/dz. Counted traffic: three inputs read
once, three results written once. May import: see benchmarks.worker.
"""

from __future__ import annotations

import numpy as np

from benchmarks.kernels import contestants
from benchmarks.work import Work

TITLE = "Gradients of an element-wise chain, 8M float32"
UNIT = "ms"
CASES = {"exp(-x*x)*y/(1+z*z)": {"elements": 8 * 1024 * 1024}}
TINY = {"elements": 1000}


def work(case):
    return Work(0, 4 * 6 * case["elements"])


def _inputs(case):
    rng = np.random.default_rng(7)
    return tuple(rng.standard_normal(case["elements"], np.float32) for _ in range(3))


def _chain(maths, x, y, z):
    return maths.exp(-x * x) * y / (1 + z * z)


def _tensorflow(tf, case, x, y, z):
    return tf.gradients(tf.reduce_sum(_chain(tf, x, y, z)), [x, y, z])


def _torch(torch, case, x, y, z, *out):
    leaves = [value.requires_grad_() for value in (x, y, z)]
    return torch.autograd.grad(_chain(torch, *leaves).sum(), leaves)


def _compile(torch, case, x, y, z):
    return torch.func.grad(lambda *values: _chain(torch, *values).sum(), (0, 1, 2))(x, y, z)


def _jax(jax, case, x, y, z):
    return jax.grad(lambda *values: _chain(jax.numpy, *values).sum(), (0, 1, 2))(x, y, z)


CONTESTANTS = contestants(
    _inputs,
    {"tensorflow": _tensorflow, "torch": _torch, "compile": _compile, "jax": _jax},
    lambda case: [(case["elements"],)] * 3,
)
