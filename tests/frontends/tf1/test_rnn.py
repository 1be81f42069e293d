"""Recurrent networks: losses, gradients and variable names are those of TensorFlow 1.15."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinyflow as tf
from tests.frontends.tf1.rnn_programs import CELLS, MODES, run

#: names of the variables in a dynamic_rnn, from TensorFlow 1.15
NAMES = {
    "basic": (
        "rnn/basic_lstm_cell/kernel:0",
        "rnn/basic_lstm_cell/bias:0",
    ),
    "lstm": (
        "rnn/lstm_cell/kernel:0",
        "rnn/lstm_cell/bias:0",
        "rnn/lstm_cell/w_f_diag:0",
        "rnn/lstm_cell/w_i_diag:0",
        "rnn/lstm_cell/w_o_diag:0",
        "rnn/lstm_cell/projection/kernel:0",
    ),
    "gru": (
        "rnn/gru_cell/gates/kernel:0",
        "rnn/gru_cell/gates/bias:0",
        "rnn/gru_cell/candidate/kernel:0",
        "rnn/gru_cell/candidate/bias:0",
    ),
    "rnn": (
        "rnn/basic_rnn_cell/kernel:0",
        "rnn/basic_rnn_cell/bias:0",
    ),
    "multi": (
        "rnn/multi_rnn_cell/cell_0/basic_lstm_cell/kernel:0",
        "rnn/multi_rnn_cell/cell_0/basic_lstm_cell/bias:0",
        "rnn/multi_rnn_cell/cell_1/gru_cell/gates/kernel:0",
        "rnn/multi_rnn_cell/cell_1/gru_cell/gates/bias:0",
        "rnn/multi_rnn_cell/cell_1/gru_cell/candidate/kernel:0",
        "rnn/multi_rnn_cell/cell_1/gru_cell/candidate/bias:0",
    ),
}

#: loss, then the weighted sums of the gradients, from TensorFlow 1.15
NUMBERS = {
    ("basic", "dynamic"): [2.10532, -0.0177483, 1.67188, 0.00132821],
    ("basic", "lengths"): [1.18585, -0.500235, 0.971037, -0.0345845],
    ("basic", "static"): [2.10532, -0.0177483, 1.67188, 0.00132821],
    ("basic", "both"): [2.07148, -0.500235, 0.971037, 0.657106, -0.370925, -0.0579878],
    ("lstm", "dynamic"): [
        0.0559607, -0.401225, -0.232597, -0.000306123, 0.0137508, 0.0354493, 0.354959, 0.0200109,
    ],
    ("lstm", "lengths"): [
        0.0351802, -0.20974, -0.0964359, 0.00159375, 0.00834839, 0.0203587, 0.194379, 0.0285352,
    ],
    ("lstm", "static"): [
        0.0559607, -0.401225, -0.232597, -0.000306123, 0.0137508, 0.0354493, 0.354959, 0.0200109,
    ],
    ("lstm", "both"): [
        0.737275, -0.20974, -0.0964359, 0.00159375, 0.00834839, 0.0203587, 0.194379, 1.87255,
        -0.202611, 0.0187469, -0.0143552, -0.0564254, -0.062037, 0.0558224,
    ],
    ("gru", "dynamic"): [7.54904, -8.7969, 0.27574, 1.11938, -0.596486, 0.130257],
    ("gru", "lengths"): [4.73097, -4.67015, 0.259628, 0.98935, 0.0199336, 0.343076],
    ("gru", "static"): [7.54904, -8.7969, 0.27574, 1.11938, -0.596486, 0.130257],
    ("gru", "both"): [
        7.44041, -4.67015, 0.259628, 0.98935, 0.0199336, 0.945098, -0.184418, 2.74445, 0.068874,
        0.182688,
    ],
    ("rnn", "dynamic"): [22.2737, -17.8057, 13.6188, 1.71144],
    ("rnn", "lengths"): [14.2446, -9.21515, 2.26993, 0.901624],
    ("rnn", "static"): [22.2737, -17.8057, 13.6188, 1.71144],
    ("rnn", "both"): [31.0105, -9.21515, 2.26993, 2.29057, -1.08473, 2.55413],
    ("multi", "dynamic"): [
        7.6521, 0.227131, 1.12319, -0.124549, -0.630481, 0.0531215, -1.11922, 0.0754666,
    ],
    ("multi", "lengths"): [
        4.31937, 0.0841267, 0.580756, -0.123603, -0.463657, -0.0167061, -0.646697, 0.0338992,
    ],
    ("multi", "static"): [
        7.6521, 0.227131, 1.12319, -0.124549, -0.630481, 0.0531217, -1.11923, 0.0754666,
    ],
    ("multi", "both"): [
        8.10027, 0.0841267, 0.580756, -0.123603, -0.463657, -0.0167061, -0.646697, 2.13823,
        -0.25358, 0.248695, -0.359359, 0.119932, 1.9985, -0.00396346,
    ],
}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("mode", MODES)
def test_numbers_of_tensorflow(cell: str, mode: str) -> None:
    names, found = run(tf, cell, mode)
    np.testing.assert_allclose(found, NUMBERS[cell, mode], rtol=2e-4, atol=2e-5)
    if mode != "both":
        assert tuple(names) == NAMES[cell]


def train(make: Any, steps: int) -> list[float]:
    tf.reset_default_graph()
    x = tf.placeholder(tf.float32, [4, 6, 3])
    y = make(x)
    loss = tf.reduce_mean(tf.square(y - 0.5))
    update = tf.train.GradientDescentOptimizer(0.5).minimize(loss)
    rng = np.random.default_rng(0)
    batch = rng.normal(size=(4, 6, 3)).astype(np.float32)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        kernel, _ = tf.trainable_variables()
        session.run(tf.assign(kernel, rng.normal(size=(8, 20)).astype(np.float32)))
        return [float(session.run([loss, update], {x: batch})[0]) for _ in range(steps)]


def test_loop_and_unrolled_train_alike() -> None:
    def loop(x: Any) -> Any:
        return tf.nn.dynamic_rnn(tf.nn.rnn_cell.BasicLSTMCell(5), x, dtype=tf.float32)[0]

    def unrolled(x: Any) -> Any:
        cell = tf.nn.rnn_cell.BasicLSTMCell(5)
        return tf.stack(tf.nn.static_rnn(cell, tf.unstack(x, 6, 1), dtype=tf.float32)[0], 1)

    one, other = train(loop, 8), train(unrolled, 8)
    np.testing.assert_allclose(one, other, rtol=1e-5)
    assert one[-1] < one[0]


def test_one_graph_serves_every_length() -> None:
    x = tf.placeholder(tf.float32, [None, None, 3])
    y, last = tf.nn.dynamic_rnn(tf.nn.rnn_cell.GRUCell(4), x, dtype=tf.float32)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        rng = np.random.default_rng(0)
        for batch, steps in ((2, 3), (5, 1), (1, 7)):
            found, state = session.run([y, last], {x: rng.normal(size=(batch, steps, 3))})
            assert found.shape == (batch, steps, 4)
            np.testing.assert_array_equal(found[:, -1], state)


def test_dropout_draws_anew_in_every_step() -> None:
    cell = tf.nn.rnn_cell.DropoutWrapper(tf.nn.rnn_cell.BasicRNNCell(50), output_keep_prob=0.5)
    y, _ = tf.nn.dynamic_rnn(cell, tf.ones([1, 4, 2]), dtype=tf.float32)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        (first,), (again,) = session.run(y) == 0, session.run(y) == 0
    masks = [*first, *again]
    assert all(0.2 < m.mean() < 0.8 for m in masks)
    assert len({m.tobytes() for m in masks}) == len(masks)
