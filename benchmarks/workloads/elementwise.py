"""Workload: chains of element-wise operations on 8M float32 elements.

Counted traffic: each input read once, the result written once, whatever a system really moves.
May import: see benchmarks.worker.
"""

from __future__ import annotations

import numpy as np

from benchmarks.kernels import contestants
from benchmarks.work import Work

TITLE = "Element-wise chains, 8M float32"
UNIT = "ms"
_ELEMENTS = 8 * 1024 * 1024
CASES = {
    "x*y+z": {"chain": "triad", "elements": _ELEMENTS},
    "tanh(x)*y+z": {"chain": "tanh", "elements": _ELEMENTS},
    "exp(-x*x)*y/(1+z*z)": {"chain": "bell", "elements": _ELEMENTS},
}
TINY = {"chain": "bell", "elements": 1000}


def work(case):
    return Work(0, 4 * 4 * case["elements"])


def _inputs(case):
    rng = np.random.default_rng(7)
    return tuple(rng.standard_normal(case["elements"], np.float32) for _ in range(3))


def _numpy(np, case, x, y, z, out):
    if case["chain"] == "triad":
        np.multiply(x, y, out=out)
        np.add(out, z, out=out)
    elif case["chain"] == "tanh":
        np.tanh(x, out=out)
        np.multiply(out, y, out=out)
        np.add(out, z, out=out)
    else:
        np.multiply(x, x, out=out)
        np.negative(out, out=out)
        np.exp(out, out=out)
        np.multiply(out, y, out=out)
        np.divide(out, 1 + z * z, out=out)


def _torch(torch, case, x, y, z, out):
    if case["chain"] == "triad":
        torch.addcmul(z, x, y, out=out)
    elif case["chain"] == "tanh":
        torch.addcmul(z, torch.tanh(x, out=out), y, out=out)
    else:
        torch.mul(x, x, out=out).neg_().exp_().mul_(y).div_(1 + z * z)


def _chain(maths, case, x, y, z):
    if case["chain"] == "triad":
        return x * y + z
    if case["chain"] == "tanh":
        return maths.tanh(x) * y + z
    return maths.exp(-x * x) * y / (1 + z * z)


CONTESTANTS = contestants(
    _inputs,
    {
        "numpy": _numpy,
        "torch": _torch,
        "tensorflow": _chain,
        "compile": _chain,
        "jax": lambda jax, case, *values: _chain(jax.numpy, case, *values),
    },
    lambda case: [(case["elements"],)],
)
