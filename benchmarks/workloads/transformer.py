"""Workload: a training step of a decoder-only transformer with Adam.

Layer normalisation before each half, causal attention, GELU (exact), learned positions, no biases
in the attention's projections. May import: see benchmarks.worker.
"""

from __future__ import annotations

import math

import numpy as np

from benchmarks.training import Program

TITLE = "Transformer, decoder only, d 256, 8 x 128 tokens, Adam: one training step"
UNIT = "ms"
_SIZES = {"batch": 8, "tokens": 128, "width": 256, "heads": 4, "vocabulary": 256}
CASES = {"4 layers": dict(_SIZES, layers=4)}
TINY = {"batch": 2, "tokens": 5, "width": 8, "heads": 2, "vocabulary": 11, "layers": 2}
_EPSILON = 1e-5


def _weights(case, rng):
    width = case["width"]

    def normal(*shape):
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(width**-0.5)

    made = {
        "embedding": normal(case["vocabulary"], width),
        "positions": normal(case["tokens"], width),
    }
    for layer in range(case["layers"]):
        made["{}/qkv".format(layer)] = normal(width, 3 * width)
        made["{}/projection".format(layer)] = normal(width, width)
        made["{}/up".format(layer)] = normal(width, 4 * width)
        made["{}/up_bias".format(layer)] = np.zeros(4 * width, np.float32)
        made["{}/down".format(layer)] = normal(4 * width, width)
        made["{}/down_bias".format(layer)] = np.zeros(width, np.float32)
        for norm in ("norm1", "norm2"):
            made["{}/{}_scale".format(layer, norm)] = np.ones(width, np.float32)
            made["{}/{}_offset".format(layer, norm)] = np.zeros(width, np.float32)
    made["norm_scale"] = np.ones(width, np.float32)
    made["norm_offset"] = np.zeros(width, np.float32)
    made["output"] = normal(width, case["vocabulary"])
    return made


def _batch(case, rng):
    text = rng.integers(case["vocabulary"], size=(case["batch"], case["tokens"] + 1))
    return {
        "inputs": text[:, :-1].astype(np.int32),
        "targets": np.ascontiguousarray(text[:, 1:].reshape(-1)).astype(np.int32),
    }


def _flops(case):
    """Of the attention only the part below the diagonal is counted; nobody needs the rest."""
    width, tokens = case["width"], case["tokens"]
    each = case["layers"] * (2 * 12 * width**2 + 2 * (tokens + 1) * width)
    return 3 * case["batch"] * tokens * (each + 2 * width * case["vocabulary"])


def _tf_loss(tf, case, w, x):
    batch, tokens, width, heads = (case[key] for key in ("batch", "tokens", "width", "heads"))
    size = width // heads
    rows = batch * tokens
    mask = tf.constant(np.triu(np.full((tokens, tokens), -1e9, np.float32), 1))

    def norm(h, name):
        mean = tf.reduce_mean(h, axis=-1, keepdims=True)
        variance = tf.reduce_mean(tf.squared_difference(h, mean), axis=-1, keepdims=True)
        normal = (h - mean) * tf.rsqrt(variance + _EPSILON)
        return normal * w[name + "_scale"] + w[name + "_offset"]

    def gelu(h):
        return 0.5 * h * (1.0 + tf.erf(h * math.sqrt(0.5)))

    def attention(h, layer):
        qkv = tf.matmul(h, w[layer + "/qkv"])
        qkv = tf.transpose(tf.reshape(qkv, [batch, tokens, 3, heads, size]), [2, 0, 3, 1, 4])
        q, k, v = tf.unstack(qkv, num=3)
        scores = tf.matmul(q, k, transpose_b=True) * size**-0.5 + mask
        mixed = tf.matmul(tf.nn.softmax(scores), v)
        mixed = tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [rows, width])
        return tf.matmul(mixed, w[layer + "/projection"])

    h = tf.nn.embedding_lookup(w["embedding"], x["inputs"]) + w["positions"]
    h = tf.reshape(h, [rows, width])
    for layer in map(str, range(case["layers"])):
        h += attention(norm(h, layer + "/norm1"), layer)
        up = tf.matmul(norm(h, layer + "/norm2"), w[layer + "/up"]) + w[layer + "/up_bias"]
        h += tf.matmul(gelu(up), w[layer + "/down"]) + w[layer + "/down_bias"]
    logits = tf.matmul(norm(h, "norm"), w["output"])
    return tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=x["targets"], logits=logits)
    )


def _torch_loss(torch, case, w, x):
    batch, tokens, width, heads = (case[key] for key in ("batch", "tokens", "width", "heads"))
    size = width // heads
    f = torch.nn.functional

    def norm(h, name):
        return f.layer_norm(h, (width,), w[name + "_scale"], w[name + "_offset"], _EPSILON)

    def attention(h, layer):
        qkv = (h @ w[layer + "/qkv"]).reshape(batch, tokens, 3, heads, size)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = f.scaled_dot_product_attention(q, k, v, is_causal=True)
        return mixed.transpose(1, 2).reshape(batch * tokens, width) @ w[layer + "/projection"]

    h = f.embedding(x["inputs"], w["embedding"]) + w["positions"]
    h = h.reshape(batch * tokens, width)
    for layer in map(str, range(case["layers"])):
        h = h + attention(norm(h, layer + "/norm1"), layer)
        up = torch.addmm(w[layer + "/up_bias"], norm(h, layer + "/norm2"), w[layer + "/up"])
        h = h + torch.addmm(w[layer + "/down_bias"], f.gelu(up), w[layer + "/down"])
    return f.cross_entropy(norm(h, "norm") @ w["output"], x["targets"])


def _jax_loss(jax, case, w, x):
    batch, tokens, width, heads = (case[key] for key in ("batch", "tokens", "width", "heads"))
    size = width // heads
    jnp = jax.numpy
    mask = np.triu(np.full((tokens, tokens), -1e9, np.float32), 1)

    def norm(h, name):
        mean, variance = h.mean(-1, keepdims=True), h.var(-1, keepdims=True)
        normal = (h - mean) * jax.lax.rsqrt(variance + _EPSILON)
        return normal * w[name + "_scale"] + w[name + "_offset"]

    def attention(h, layer):
        qkv = (h @ w[layer + "/qkv"]).reshape(batch, tokens, 3, heads, size)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)
        scores = jnp.einsum("bhqd,bhkd->bhqk", q, k) * size**-0.5 + mask
        mixed = jnp.einsum("bhqk,bhkd->bqhd", jax.nn.softmax(scores), v)
        return mixed.reshape(batch * tokens, width) @ w[layer + "/projection"]

    h = (w["embedding"][x["inputs"]] + w["positions"]).reshape(batch * tokens, width)
    for layer in map(str, range(case["layers"])):
        h = h + attention(norm(h, layer + "/norm1"), layer)
        up = norm(h, layer + "/norm2") @ w[layer + "/up"] + w[layer + "/up_bias"]
        gelu = jax.nn.gelu(up, approximate=False)
        h = h + gelu @ w[layer + "/down"] + w[layer + "/down_bias"]
    logs = jax.nn.log_softmax(norm(h, "norm") @ w["output"])
    return -jnp.take_along_axis(logs, x["targets"][:, None], 1).mean()


PROGRAM = Program(
    _weights, _batch, _tf_loss, _torch_loss, _jax_loss, _flops, optimizer="adam", rate=1e-3
)
CONTESTANTS, work = PROGRAM.contestants(), PROGRAM.work
