"""Loops that grow and sizes that are computed, as TensorFlow-1 programs.

For test_growing.py and for TensorFlow itself. ``results(tf, names)`` runs them with the given
module: {case: the fetched values, flat}. A program gives its fetches and its runs' feeds.
"""

from __future__ import annotations

import collections
from typing import Any

import numpy as np

Pair = collections.namedtuple("Pair", "ids score")


def line(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (scale * np.sin(np.arange(np.prod(shape)) * 1.3 + 0.4)).reshape(shape).astype(np.float32)


def open_shape(tf: Any, *extents: Any) -> Any:
    return tf.TensorShape(extents)


# ---- growing variables --------------------------------------------------------------------------


def doubled(tf: Any) -> Any:
    i0, m0 = tf.constant(0), tf.ones([2, 2])
    found = tf.while_loop(
        lambda i, m: i < 4, lambda i, m: [i + 1, tf.concat([m, m * 2.0], axis=0)],
        loop_vars=[i0, m0],
        shape_invariants=[i0.get_shape(), tf.TensorShape([None, 2])],
    )  # fmt: skip
    return list(found), [{}]


def fibonacci(tf: Any) -> Any:
    n = tf.placeholder(tf.int32, [])
    found = tf.while_loop(
        lambda row: tf.shape(row)[0] < n, lambda row: tf.concat([row, [row[-1] + row[-2]]], 0),
        [tf.constant([1, 1])], shape_invariants=[tf.TensorShape([None])],
    )  # fmt: skip
    return [found], [{n: 5}, {n: 9}, {n: 2}]


def grown_gradient(tf: Any) -> Any:
    x = tf.placeholder(tf.float32, [2, 3])
    w = tf.constant(line(3, 3, scale=0.5))

    def body(i: Any, m: Any) -> Any:
        return i + 1, tf.concat([m, tf.tanh(tf.matmul(m[-2:], w)) * x], 0)

    _, rows = tf.while_loop(
        lambda i, m: i < 4, body, [0, x],
        shape_invariants=[open_shape(tf), open_shape(tf, None, 3)],
    )  # fmt: skip
    loss = tf.reduce_sum(rows * rows)
    return [loss, rows, *tf.gradients(loss, [x, w])], [{x: line(2, 3)}, {x: line(2, 3) * 2}]


def greedy_decoder(tf: Any) -> Any:
    """ids of a batch until all have the end mark, or eight of them."""
    table, w = tf.constant(line(7, 4)), tf.constant(line(8, 4))
    out, end = tf.constant(line(4, 7) * 3), 2
    state = tf.placeholder(tf.float32, [None, 4])
    batch = tf.shape(state)[0]

    def body(ids: Any, h: Any, done: Any) -> Any:
        h = tf.tanh(tf.matmul(tf.concat([tf.gather(table, ids[:, -1]), h], 1), w))
        best = tf.argmax(tf.matmul(h, out), 1, output_type=tf.int32)
        best = tf.where(done, tf.fill([batch], end), best)
        return tf.concat([ids, best[:, None]], 1), h, tf.logical_or(done, tf.equal(best, end))

    ids, h, done = tf.while_loop(
        lambda ids, h, done: tf.logical_and(tf.shape(ids)[1] < 8, tf.logical_not(
            tf.reduce_all(done))),
        body, [tf.ones([batch, 1], tf.int32), state, tf.zeros([batch], tf.bool)],
        shape_invariants=[
            open_shape(tf, None, None), open_shape(tf, None, 4), open_shape(tf, None)
        ],
    )  # fmt: skip
    return [ids, h, done], [{state: line(3, 4)}, {state: line(5, 4)}, {state: line(1, 4)}]


def beams(tf: Any) -> Any:
    """Three beams grow by the best continuations."""
    step = tf.constant(line(5, 5))

    def body(i: Any, beam: Any) -> Any:
        scores = tf.expand_dims(beam.score, 1) + tf.gather(step, beam.ids[:, -1])
        score, flat = tf.nn.top_k(tf.reshape(scores, [-1]), 3)
        ids = tf.concat([tf.gather(beam.ids, flat // 5), tf.expand_dims(flat % 5, 1)], 1)
        return i + 1, Pair(ids, score)

    start = Pair(tf.zeros([1, 1], tf.int32), tf.zeros([1]))
    shapes = Pair(open_shape(tf, None, None), open_shape(tf, None))
    _, beam = tf.while_loop(
        lambda i, beam: i < 5, body, (0, start), shape_invariants=(open_shape(tf), shapes)
    )
    return [beam.ids, beam.score], [{}]


def in_a_dictionary(tf: Any) -> Any:
    found = tf.while_loop(
        lambda state: tf.size(state["row"]) < 6,
        lambda state: [{"row": tf.concat([state["row"], [state["last"]]], 0),
                        "last": state["last"] * 2.0}],
        [{"row": tf.zeros([1]), "last": tf.constant(1.5)}],
        shape_invariants=[{"row": open_shape(tf, None), "last": open_shape(tf)}],
    )  # fmt: skip
    return [found[0]["row"], found[0]["last"]], [{}]


def nested(tf: Any) -> Any:
    """The inner loop grows a row, the outer one joins rows of different lengths."""
    x = tf.placeholder(tf.float32, [])

    def inner(i: Any) -> Any:
        return tf.while_loop(
            lambda j, row: j < i, lambda j, row: (j + 1, tf.concat([row, [row[-1] * x]], 0)),
            [0, tf.ones([1])], shape_invariants=[open_shape(tf), open_shape(tf, None)],
        )[1]  # fmt: skip

    _, row = tf.while_loop(
        lambda i, row: i < 4, lambda i, row: (i + 1, tf.concat([row, inner(i) * x], 0)),
        [0, tf.zeros([0])], shape_invariants=[open_shape(tf), open_shape(tf, None)],
    )  # fmt: skip
    return [row, *tf.gradients(tf.reduce_sum(row * row), [x])], [{x: 0.9}, {x: 1.2}]


def native_loop_inside(tf: Any) -> Any:
    x = tf.placeholder(tf.float32, [3])

    def body(i: Any, rows: Any) -> Any:
        root = tf.while_loop(
            lambda j, y: j < 3, lambda j, y: (j + 1, tf.sin(y) + x), [0, rows[-1]]
        )[1]
        return i + 1, tf.concat([rows, [root]], 0)

    _, rows = tf.while_loop(
        lambda i, rows: i < 3, body, [0, tf.expand_dims(x, 0)],
        shape_invariants=[open_shape(tf), open_shape(tf, None, 3)],
    )  # fmt: skip
    return [rows, *tf.gradients(tf.reduce_sum(rows), [x])], [{x: line(3)}]


def variable_in_a_growing_loop(tf: Any) -> Any:
    v = tf.Variable(1.0, name="v")

    def body(i: Any, row: Any) -> Any:
        with tf.control_dependencies([tf.assign_add(v, 2.0)]):
            return i + 1, tf.concat([row, [tf.cast(i, tf.float32)]], 0)

    _, row = tf.while_loop(
        lambda i, row: i < 3, body, [0, tf.zeros([1])],
        shape_invariants=[open_shape(tf), open_shape(tf, None)],
    )  # fmt: skip
    with tf.control_dependencies([row]):
        after = v.read_value()
    return [row, after], [{}, {}]


def masked_in_a_loop(tf: Any) -> Any:
    """What is left of a row shrinks by its own values."""
    x = tf.placeholder(tf.float32, [None])

    def body(i: Any, row: Any) -> Any:
        return i + 1, tf.boolean_mask(row, row > tf.reduce_mean(row) - 0.2) * 1.1

    _, row = tf.while_loop(
        lambda i, row: i < 3, body, [0, x],
        shape_invariants=[open_shape(tf), open_shape(tf, None)],
    )  # fmt: skip
    return [row, *tf.gradients(tf.reduce_sum(row * row), [x])], [{x: line(9)}, {x: line(14)}]


def ranks(tf: Any) -> Any:
    return [tf.while_loop(
        lambda i, m: i < 3, lambda i, m: (i + 1, tf.expand_dims(m, 0)), [0, tf.ones([2])],
        shape_invariants=[open_shape(tf), tf.TensorShape(None)],
    )[1]], [{}]  # fmt: skip


def different_shapes_in_branches(tf: Any) -> Any:
    x = tf.placeholder(tf.float32, [None, 3])
    w = tf.constant(line(3, 3))

    def body(i: Any, m: Any) -> Any:
        last = m[-1:]
        new = tf.cond(
            tf.equal(i % 2, 0), lambda: tf.matmul(last, w),
            lambda: tf.concat([last, tf.nn.relu(last) + 0.5], 0),
        )
        return i + 1, tf.concat([m, new], 0)

    _, y = tf.while_loop(
        lambda i, m: i < 4, body, [0, x],
        shape_invariants=[open_shape(tf), open_shape(tf, None, 3)],
    )
    z = tf.cond(tf.reduce_sum(y) > 0, lambda: y[:2], lambda: y)
    return [z, *tf.gradients(tf.reduce_sum(z * z), [x, w])], [
        {x: line(2, 3)}, {x: -line(3, 3)}, {x: line(4, 3)}
    ]


def masks_in_a_map(tf: Any) -> Any:
    x = tf.placeholder(tf.float32, [None, 4])
    y = tf.map_fn(lambda row: tf.reduce_sum(tf.boolean_mask(row, row > 0.0) ** 2), x)
    return [y, *tf.gradients(y, x)], [{x: line(3, 4)}, {x: line(5, 4)}]


# ---- Python inside loops and branches -----------------------------------------------------------


def python_in_a_loop(tf: Any) -> Any:
    """Side effects in the order that control edges ask for; a gradient around the call."""
    calls: list[int] = []

    def note(i: Any, y: Any) -> Any:
        calls.append(int(i))
        return np.float32(len(calls)), np.float32(np.sum(y))

    x = tf.placeholder(tf.float32, [2])

    def body(i: Any, y: Any) -> Any:
        count, total = tf.py_func(note, [i, y], [tf.float32, tf.float32])
        count.set_shape([])
        total.set_shape([])
        return i + 1, y * x + total * 0.1

    _, y = tf.while_loop(lambda i, y: i < 4, body, [0, x], parallel_iterations=1)
    seen = tf.py_func(lambda y: np.array(calls, np.int32), [y], tf.int32)
    return [y, seen, *tf.gradients(tf.reduce_sum(y), [x])], [{x: line(2)}, {x: line(2) + 1}]


def python_in_a_branch(tf: Any) -> Any:
    p = tf.placeholder(tf.bool, [])
    called: list[int] = []

    def note(x: Any) -> Any:
        called.append(1)
        return x * np.float32(3)

    def then() -> Any:
        y = tf.py_func(note, [tf.constant(line(3))], tf.float32)
        y.set_shape([3])
        return y

    y = tf.cond(p, then, lambda: tf.zeros([3]))
    count = tf.py_func(lambda y: np.int32(len(called)), [y], tf.int32)
    return [y, count], [{p: True}, {p: False}, {p: True}]


def python_in_a_map(tf: Any) -> Any:
    def twice(row: Any) -> Any:
        y = tf.py_func(lambda r: r[::-1] * 2, [row], tf.float32)
        y.set_shape([3])
        return y

    return [tf.map_fn(twice, tf.constant(line(4, 3)))], [{}]


def printed_in_a_loop(tf: Any) -> Any:
    x = tf.placeholder(tf.float32, [])

    def body(i: Any, y: Any) -> Any:
        return i + 1, tf.Print(y, [i], "", first_n=0) * x

    _, y = tf.while_loop(lambda i, y: i < 3, body, [0, x])
    return [y, *tf.gradients(y, [x])], [{x: 1.5}]


# ---- arrays of dynamic size ---------------------------------------------------------------------


def dynamic_arrays(tf: Any) -> Any:
    """States of a recurrence, as many as only running tells, or more than declared."""
    x, n = tf.placeholder(tf.float64, [3]), tf.placeholder(tf.int32, [])

    def states(size: int, n: Any) -> Any:
        def body(i: Any, h: Any, array: Any) -> Any:
            h = tf.tanh(h * x + 0.1)
            return i + 1, h, array.write(i, h)

        start = tf.TensorArray(tf.float64, size=size, dynamic_size=True)
        return tf.while_loop(lambda i, h, array: i < n, body, [0, x, start])[2]

    fetches: list[Any] = []
    for size, limit in ((0, n), (2, n), (0, 5), (5, tf.minimum(n, 5))):
        array = states(size, limit)
        rows = array.stack()
        fetches += [rows, array.size(), *tf.gradients(tf.reduce_sum(rows**2), [x])]
    outside = tf.TensorArray(tf.float64, size=0, dynamic_size=True, element_shape=[3])
    rows = outside.write(n, x).stack()
    fetches += [rows, *tf.gradients(tf.reduce_sum(rows**2), [x])]
    return fetches, [{x: line(3), n: 4}, {x: line(3) * 0.5, n: 6}, {x: line(3), n: 1}]


def ids_until_the_end(tf: Any) -> Any:
    n = tf.placeholder(tf.int32, [])
    array = tf.TensorArray(tf.int32, size=0, dynamic_size=True)
    _, array, last = tf.while_loop(
        lambda i, array, last: last < 100,
        lambda i, array, last: (i + 1, array.write(i, last), last * 2 + i), [0, array, n],
    )
    return [array.stack(), last], [{n: 4}, {n: 1}]


# ---- computed sizes -----------------------------------------------------------------------------


def computed_ranges(tf: Any) -> Any:
    n = tf.placeholder(tf.int32, [])
    x = tf.placeholder(tf.float32, [None, 3])
    best = tf.stack([tf.range(tf.shape(x)[0]), tf.argmax(x, 1, output_type=tf.int32)], 1)
    total = tf.reduce_sum(x)
    return [
        tf.range(n), tf.range(n, 0, -2), tf.range(0.0, total, 0.5), tf.gather_nd(x, best),
        tf.gather(x, tf.range(n)),
    ], [{n: 2, x: line(4, 3)}, {n: 3, x: line(5, 3) + 0.2}, {n: 0, x: line(1, 3)}]  # fmt: skip


def computed_shapes(tf: Any) -> Any:
    k = tf.placeholder(tf.int32, [])
    x, w = tf.constant(line(12)), tf.constant(line(2))
    rows = tf.reshape(x, [k, -1])
    tiled, padded = tf.tile(w, [k]), tf.pad(w, [[k, 1]])
    loss = tf.reduce_sum(rows[0] ** 2) * w[0] + tf.reduce_sum(tiled**3) + tf.reduce_sum(padded**2)
    return [
        tf.fill([k, 2], 1.5), tf.zeros([2, k]), tf.ones([k + 1], tf.int32), rows, tiled, padded,
        tf.one_hot([0, 1, 2], k), *tf.gradients(loss, [x, w]),
    ], [{k: 2}, {k: 3}, {k: 4}, {k: 6}]  # fmt: skip


def computed_slices(tf: Any) -> Any:
    i = tf.placeholder(tf.int32, [])
    x = tf.constant(line(8, 5))
    pieces = [
        x[i : i + 2], x[:, i : i + 1], x[i * 2 : (i + 1) * 2, ::2], x[i : i + 4 : 2, tf.newaxis],
        tf.slice(x, [i, 0], [2, -1]), x[i, i : i + 2], x[i:], x[:i], x[i:-1, 1], x[6:i:-1],
        x[i : i + 9], tf.slice(x, [i, 1], [-1, i]), x[i : tf.minimum(i + 6, 8)],
        tf.strided_slice(x, tf.stack([i, 0]), tf.stack([i + 2, 4]), [1, 2]),
    ]  # fmt: skip
    loss = tf.add_n([tf.reduce_sum(p**3) * (n + 1.0) for n, p in enumerate(pieces)])
    return [*pieces, *tf.gradients(loss, [x])], [{i: 0}, {i: 3}, {i: 1}]


def slices_in_loops(tf: Any) -> Any:
    x = tf.placeholder(tf.float32, [None, 5])
    w = tf.constant(line(5, 1))

    def over(piece: Any, n: Any) -> Any:
        return tf.while_loop(
            lambda i, a: i < n,
            lambda i, a: (i + 1, a * 0.5 + tf.reduce_sum(tf.tanh(tf.matmul(piece(i), w)))),
            [0, 0.0],
        )[1]

    n = tf.shape(x)[0]
    totals = [
        over(lambda i: x[i * 2 : (i + 1) * 2], n // 2),
        over(lambda i: tf.slice(x, [i, 0], [2, -1]), n - 1), over(lambda i: x[i:], n),
    ]  # fmt: skip
    gradients = tf.gradients(tf.add_n(totals), [x, w])
    return [*totals, *map(tf.convert_to_tensor, gradients)], [{x: line(4, 5)}, {x: line(6, 5)}]


CASES = {
    f.__name__: f for f in (
        doubled, fibonacci, grown_gradient, greedy_decoder, beams, in_a_dictionary, nested,
        native_loop_inside, variable_in_a_growing_loop, masked_in_a_loop, python_in_a_loop,
        python_in_a_branch, python_in_a_map, printed_in_a_loop, computed_ranges, computed_shapes,
        ranks, different_shapes_in_branches, masks_in_a_map, computed_slices, slices_in_loops,
        dynamic_arrays, ids_until_the_end,
    )
}  # fmt: skip


def run(tf: Any, name: str) -> list[Any]:
    """The fetched values of all runs, each as [shape, rounded elements]."""
    tf.reset_default_graph()
    fetches, runs = CASES[name](tf)
    found = []
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for feeds in runs:
            for value in session.run(fetches, feeds):
                array = np.asarray(value)
                flat = [float(f"{v:.5g}") for v in array.astype(np.float64).ravel()]
                found.append([list(array.shape), flat])
    return found


if __name__ == "__main__":  # with TensorFlow 1.15: writes growing_numbers.json
    import json
    import sys

    import tensorflow

    chosen = sys.argv[2:] or list(CASES)
    text = [f'"{name}": {json.dumps(run(tensorflow, name))}' for name in chosen]
    with open(sys.argv[1], "w") as file:
        file.write("{\n" + ",\n".join(text) + "\n}\n")
