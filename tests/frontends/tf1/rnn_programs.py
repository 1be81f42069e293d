"""Recurrent networks as TensorFlow-1 programs, for test_rnn.py and for TensorFlow itself.

``results(tf)`` runs them all with the given module: {case: [loss, sums of the gradients]}.
"""

from __future__ import annotations

from typing import Any

import numpy as np

LENGTHS = np.array([5, 2, 3], np.int32)
CELLS = {
    "basic": lambda c: c.BasicLSTMCell(6),
    "lstm": lambda c: c.LSTMCell(6, use_peepholes=True, num_proj=3, cell_clip=0.5),
    "gru": lambda c: c.GRUCell(6),
    "rnn": lambda c: c.BasicRNNCell(6),
    "multi": lambda c: c.MultiRNNCell([c.BasicLSTMCell(6), c.GRUCell(5)]),
}
MODES = ("dynamic", "lengths", "static", "both")


def inputs() -> np.ndarray:
    return np.sin(np.arange(60.0)).reshape(3, 5, 4).astype(np.float32)


def weight(n: int, shape: Any) -> np.ndarray:
    return (0.4 * np.cos(np.arange(np.prod(shape)) * (n + 1.3))).reshape(shape).astype(np.float32)


def build(tf: Any, cell: str, mode: str) -> tuple[Any, Any]:
    """The input placeholder and the output [batch, time, features]."""

    def make() -> Any:
        return CELLS[cell](tf.nn.rnn_cell)

    steps = 5 if mode == "static" else None
    x = tf.placeholder(tf.float32, [None, steps, 4])
    if mode == "static":
        rows, _ = tf.nn.static_rnn(make(), tf.unstack(x, 5, 1), dtype=tf.float32)
        return x, tf.stack(rows, 1)
    if mode == "both":
        (a, b), _ = tf.nn.bidirectional_dynamic_rnn(
            make(), make(), x, sequence_length=tf.constant(LENGTHS), dtype=tf.float32
        )
        return x, tf.concat([a, b], 2)
    lengths = tf.constant(LENGTHS) if mode == "lengths" else None
    y, _ = tf.nn.dynamic_rnn(make(), x, dtype=tf.float32, sequence_length=lengths)
    return x, y


def run(tf: Any, cell: str, mode: str) -> tuple[list[str], list[float]]:
    """Names of the variables; the loss and the weighted sum of every gradient."""
    tf.reset_default_graph()
    x, y = build(tf, cell, mode)
    variables = tf.trainable_variables()
    loss = tf.reduce_sum(y * y)
    gradients = tf.gradients(loss, [*variables, x])
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for n, v in enumerate(variables):
            session.run(tf.assign(v, weight(n, v.get_shape().as_list())))
        found = session.run([loss, *gradients], {x: inputs()})
    sums = [float(np.sum(g * np.cos(np.arange(g.size)).reshape(g.shape))) for g in found[1:]]
    return [v.name for v in variables], [float(found[0]), *sums]
