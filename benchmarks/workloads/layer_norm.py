"""Workload: layer normalisation of a float32[4096, 1024], forward and backward.

y = (x - mean) / sqrt(variance + eps) * scale + offset over rows; results: y and, for a given dy,
dx, dscale, doffset. Counted traffic: x and dy read once, y and dx written once.
May import: see benchmarks.worker.
"""

from __future__ import annotations

import numpy as np

from benchmarks.kernels import contestants
from benchmarks.work import Work

TITLE = "Layer normalisation, forward and backward"
UNIT = "ms"
CASES = {"4096x1024": {"rows": 4096, "columns": 1024}}
TINY = {"rows": 6, "columns": 40}
_EPSILON = 1e-5


def work(case):
    return Work(0, 4 * 4 * case["rows"] * case["columns"])


def _inputs(case):
    rng = np.random.default_rng(7)
    shape, row = (case["rows"], case["columns"]), (case["columns"],)
    return tuple(rng.standard_normal(each, np.float32) for each in (shape, row, row, shape))


def _shapes(case):
    shape, row = (case["rows"], case["columns"]), (case["columns"],)
    return [shape, shape, row, row]


def _tensorflow(tf, case, x, scale, offset, dy):
    mean = tf.reduce_mean(x, axis=1, keepdims=True)
    variance = tf.reduce_mean(tf.squared_difference(x, mean), axis=1, keepdims=True)
    y = (x - mean) * tf.rsqrt(variance + _EPSILON) * scale + offset
    return [y, *tf.gradients(y, [x, scale, offset], grad_ys=[dy])]


def _layer_norm(torch, x, scale, offset):
    return torch.nn.functional.layer_norm(x, scale.shape, scale, offset, _EPSILON)


def _torch(torch, case, x, scale, offset, dy, *out):
    leaves = [value.requires_grad_() for value in (x, scale, offset)]
    y = _layer_norm(torch, *leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, dy)]


def _compile(torch, case, x, scale, offset, dy):
    y, back = torch.func.vjp(lambda *values: _layer_norm(torch, *values), x, scale, offset)
    return [y, *back(dy)]


def _jax(jax, case, x, scale, offset, dy):
    def layer_norm(x, scale, offset):
        mean, variance = x.mean(1, keepdims=True), x.var(1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(variance + _EPSILON) * scale + offset

    y, back = jax.vjp(layer_norm, x, scale, offset)
    return [y, *back(dy)]


CONTESTANTS = contestants(
    _inputs,
    {"tensorflow": _tensorflow, "torch": _torch, "compile": _compile, "jax": _jax},
    _shapes,
)
