"""Workload: a training step of a switch layer, a mixture of experts with one expert per token.

Router, softmax, the best expert; each expert takes the first `capacity` of its tokens and the rest
pass by (Fedus, Zoph and Shazeer 2021, section 2). y = x + gate * expert(x); loss: squared distance
to a target and 0.01 times the balance loss. Dispatch sums rows into the experts' slots, combine
gathers them. May import: see benchmarks.worker.
"""

from __future__ import annotations

import numpy as np

from benchmarks.training import Program

TITLE = "Mixture of experts, 1,024 tokens, 8 experts, Adam: one training step"
UNIT = "ms"
CASES = {
    "top 1": {"tokens": 1024, "width": 256, "experts": 8, "hidden": 512, "capacity": 160},
}
TINY = {"tokens": 12, "width": 6, "experts": 3, "hidden": 8, "capacity": 5}
_BALANCE = 0.01


def _weights(case, rng):
    width, experts, hidden = case["width"], case["experts"], case["hidden"]
    shapes = {
        "router": (width, experts),
        "up": (experts, width, hidden),
        "down": (experts, hidden, width),
    }
    made = {
        name: rng.standard_normal(shape, dtype=np.float32) * np.float32(shape[-2] ** -0.5)
        for name, shape in shapes.items()
    }
    made["up_bias"] = np.zeros((experts, 1, hidden), np.float32)
    made["down_bias"] = np.zeros((experts, 1, width), np.float32)
    return made


def _batch(case, rng):
    shape = (case["tokens"], case["width"])
    return {name: rng.standard_normal(shape, dtype=np.float32) for name in ("inputs", "targets")}


def _flops(case):
    width = case["width"]
    # The inputs need no gradient, but what reaches the second product does.
    experts = 2 * case["experts"] * case["capacity"] * width * case["hidden"]
    router = 2 * case["tokens"] * width * case["experts"]
    return 2 * router + (2 + 3) * experts


def _tf_loss(tf, case, w, x):
    tokens, width, experts, capacity = (
        case[key] for key in ("tokens", "width", "experts", "capacity")
    )
    inputs = x["inputs"]
    shares = tf.nn.softmax(tf.matmul(inputs, w["router"]))
    chosen = tf.argmax(shares, axis=1, output_type=tf.int32)
    is_chosen = tf.one_hot(chosen, experts)
    gate = tf.reduce_sum(shares * is_chosen, axis=1)
    # Place of each token among those of its expert, from 0.
    place = tf.reduce_sum(tf.cumsum(is_chosen, axis=0) * is_chosen, axis=1) - 1.0
    fits = place < capacity
    slot = chosen * capacity + tf.cast(place, tf.int32)
    # A token without a slot goes to one more, which no expert reads.
    spill = tf.fill([tokens], experts * capacity)
    slot = tf.where(fits, slot, spill)
    slots = tf.unsorted_segment_sum(inputs, slot, experts * capacity + 1)
    sent = tf.reshape(slots[:-1], [experts, capacity, width])
    hidden = tf.nn.relu(tf.matmul(sent, w["up"]) + w["up_bias"])
    returned = tf.reshape(
        tf.matmul(hidden, w["down"]) + w["down_bias"], [experts * capacity, width]
    )
    weight = gate * tf.cast(fits, tf.float32)
    back = tf.gather(returned, tf.minimum(slot, experts * capacity - 1))
    y = inputs + back * weight[:, None]
    balance = experts * tf.reduce_sum(
        tf.reduce_mean(is_chosen, axis=0) * tf.reduce_mean(shares, axis=0)
    )
    return tf.reduce_mean(tf.squared_difference(y, x["targets"])) + _BALANCE * balance


def _torch_loss(torch, case, w, x):
    width, experts, capacity = (case[key] for key in ("width", "experts", "capacity"))
    inputs = x["inputs"]
    shares = torch.softmax(inputs @ w["router"], 1)
    gate, chosen = shares.max(1)
    is_chosen = torch.nn.functional.one_hot(chosen, experts)
    place = (is_chosen.cumsum(0) * is_chosen).sum(1) - 1
    fits = place < capacity
    slot = torch.where(fits, chosen * capacity + place, experts * capacity)
    slots = torch.zeros(experts * capacity + 1, width).index_add(0, slot, inputs)
    sent = slots[:-1].reshape(experts, capacity, width)
    hidden = torch.relu(torch.baddbmm(w["up_bias"], sent, w["up"]))
    returned = torch.baddbmm(w["down_bias"], hidden, w["down"]).reshape(-1, width)
    back = returned[slot.clamp(max=experts * capacity - 1)]
    y = inputs + back * (gate * fits)[:, None]
    balance = experts * (is_chosen.float().mean(0) * shares.mean(0)).sum()
    return torch.nn.functional.mse_loss(y, x["targets"]) + _BALANCE * balance


def _jax_loss(jax, case, w, x):
    jnp = jax.numpy
    width, experts, capacity = (case[key] for key in ("width", "experts", "capacity"))
    inputs = x["inputs"]
    shares = jax.nn.softmax(inputs @ w["router"])
    chosen = shares.argmax(1)
    is_chosen = jax.nn.one_hot(chosen, experts)
    gate = (shares * is_chosen).sum(1)
    place = ((is_chosen.cumsum(0) * is_chosen).sum(1) - 1).astype(jnp.int32)
    fits = place < capacity
    slot = jnp.where(fits, chosen * capacity + place, experts * capacity)
    # JAX leaves out what is out of range.
    sent = jnp.zeros((experts * capacity, width)).at[slot].add(inputs, mode="drop")
    sent = sent.reshape(experts, capacity, width)
    hidden = jax.nn.relu(sent @ w["up"] + w["up_bias"])
    returned = (hidden @ w["down"] + w["down_bias"]).reshape(-1, width)
    back = returned[jnp.minimum(slot, experts * capacity - 1)]
    y = inputs + back * (gate * fits)[:, None]
    balance = experts * (is_chosen.mean(0) * shares.mean(0)).sum()
    return ((y - x["targets"]) ** 2).mean() + _BALANCE * balance


PROGRAM = Program(
    _weights, _batch, _tf_loss, _torch_loss, _jax_loss, _flops, optimizer="adam", rate=1e-3
)
CONTESTANTS, work = PROGRAM.contestants(), PROGRAM.work
