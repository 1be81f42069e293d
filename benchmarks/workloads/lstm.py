"""Workload: a training step of a character-level LSTM language model with Adam.

Gates in the order input, forget, cell, output: c' = sigmoid(f) c + sigmoid(i) tanh(g),
h' = sigmoid(o) tanh(c'). One bias. The input projection of all steps is one product everywhere.
"unrolled" repeats the body in the graph; "while" uses the system's loop: while_loop, scan; PyTorch
runs its fused LSTM in both, compiled it is unrolled in both. May import: see benchmarks.worker.
"""

from __future__ import annotations

import numpy as np

from benchmarks.training import Program

TITLE = "LSTM language model, hidden 256, 32 x 64 characters, Adam: one training step"
UNIT = "ms"
_SIZES = {"batch": 32, "steps": 64, "hidden": 256, "vocabulary": 64}
CASES = {kind: dict(_SIZES, kind=kind) for kind in ("unrolled", "while")}
TINY = {"batch": 3, "steps": 4, "hidden": 8, "vocabulary": 7, "kind": "while"}
TINY_UNROLLED = dict(TINY, kind="unrolled")


def _weights(case, rng):
    hidden, vocabulary = case["hidden"], case["vocabulary"]
    shapes = {
        "embedding": (vocabulary, hidden),
        "input": (hidden, 4 * hidden),
        "recurrent": (hidden, 4 * hidden),
        "output": (hidden, vocabulary),
    }
    made = {
        name: rng.standard_normal(shape, dtype=np.float32) * np.float32(shape[0] ** -0.5)
        for name, shape in shapes.items()
    }
    made["bias"] = np.zeros(4 * hidden, np.float32)
    made["output_bias"] = np.zeros(vocabulary, np.float32)
    return made


def _batch(case, rng):
    # Time first: [steps, batch].
    text = rng.integers(case["vocabulary"], size=(case["steps"] + 1, case["batch"]))
    return {"inputs": text[:-1].astype(np.int32), "targets": text[1:].reshape(-1).astype(np.int32)}


def _flops(case):
    hidden = case["hidden"]
    each = 2 * hidden * (8 * hidden + case["vocabulary"])
    return 3 * case["batch"] * case["steps"] * each


def _tf_loss(tf, case, w, x):
    steps, batch, hidden = case["steps"], case["batch"], case["hidden"]
    flat = tf.reshape(x["inputs"], [steps * batch])
    embedded = tf.nn.embedding_lookup(w["embedding"], flat)
    projected = tf.reshape(tf.matmul(embedded, w["input"]) + w["bias"], [steps, batch, 4 * hidden])

    def cell(gates, c, h):
        i, f, g, o = tf.split(gates + tf.matmul(h, w["recurrent"]), 4, axis=1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        return c, tf.sigmoid(o) * tf.tanh(c)

    zero = tf.zeros([batch, hidden])
    if case["kind"] == "unrolled":
        c, h, outputs = zero, zero, []
        for gates in tf.unstack(projected, num=steps):
            c, h = cell(gates, c, h)
            outputs.append(h)
        outputs = tf.concat(outputs, axis=0)
    else:
        gates_of = tf.TensorArray(tf.float32, steps).unstack(projected)

        def body(t, c, h, outputs):
            c, h = cell(gates_of.read(t), c, h)
            return t + 1, c, h, outputs.write(t, h)

        _, _, _, outputs = tf.while_loop(
            lambda t, c, h, outputs: t < steps,
            body,
            [tf.constant(0), zero, zero, tf.TensorArray(tf.float32, steps)],
            maximum_iterations=steps,
        )
        outputs = tf.reshape(outputs.stack(), [steps * batch, hidden])
    logits = tf.matmul(outputs, w["output"]) + w["output_bias"]
    return tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=x["targets"], logits=logits)
    )


def _torch_tensor(torch, name, array):
    """torch.lstm has its matrices [4 hidden, in]."""
    tensor = torch.from_numpy(array)
    return tensor.t().contiguous() if name in ("input", "recurrent") else tensor


def _torch_loss(torch, case, w, x):
    batch, hidden = case["batch"], case["hidden"]
    embedded = torch.nn.functional.embedding(x["inputs"], w["embedding"])
    zero = torch.zeros(1, batch, hidden)
    # It wants a second bias; ours stays zero.
    parameters = [w["input"], w["recurrent"], w["bias"], torch.zeros(4 * hidden)]
    outputs, _, _ = torch.lstm(embedded, (zero, zero), parameters, True, 1, 0.0, True, False, False)
    return _torch_head(torch, w, x, outputs)


def _torch_head(torch, w, x, outputs):
    flat = outputs.reshape(-1, outputs.shape[-1])
    logits = torch.addmm(w["output_bias"], flat, w["output"])
    return torch.nn.functional.cross_entropy(logits, x["targets"])


def _torch_unrolled(torch, case, w, x):
    linear = torch.nn.functional.linear
    embedded = torch.nn.functional.embedding(x["inputs"], w["embedding"])
    projected = linear(embedded, w["input"], w["bias"])
    c = h = torch.zeros(case["batch"], case["hidden"])
    outputs = []
    for t in range(case["steps"]):
        i, f, g, o = (projected[t] + linear(h, w["recurrent"])).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        outputs.append(h)
    return _torch_head(torch, w, x, torch.stack(outputs))


def _jax_loss(jax, case, w, x):
    jnp, sigmoid = jax.numpy, jax.nn.sigmoid
    projected = w["embedding"][x["inputs"]] @ w["input"] + w["bias"]

    def cell(state, gates):
        c, h = state
        i, f, g, o = jnp.split(gates + h @ w["recurrent"], 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
        h = sigmoid(o) * jnp.tanh(c)
        return (c, h), h

    zero = jnp.zeros((case["batch"], case["hidden"]))
    if case["kind"] == "unrolled":
        state, outputs = (zero, zero), []
        for t in range(case["steps"]):
            state, h = cell(state, projected[t])
            outputs.append(h)
        outputs = jnp.stack(outputs)
    else:
        _, outputs = jax.lax.scan(cell, (zero, zero), projected)
    logits = outputs.reshape(-1, case["hidden"]) @ w["output"] + w["output_bias"]
    logs = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(logs, x["targets"][:, None], 1).mean()


PROGRAM = Program(
    _weights,
    _batch,
    _tf_loss,
    _torch_loss,
    _jax_loss,
    _flops,
    optimizer="adam",
    rate=1e-3,
    torch_tensor=_torch_tensor,
    torch_compiled_loss=_torch_unrolled,
)
CONTESTANTS, work = PROGRAM.contestants(), PROGRAM.work
