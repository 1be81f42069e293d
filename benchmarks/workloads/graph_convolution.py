"""Workload: a training step of a two-layer graph convolution at the sizes of Cora, with Adam.

logits = A relu(A x W0 + b0) W1 + b1 (Kipf and Welling 2016); A: the symmetrically normalised
adjacency with self loops, sparse; x: dense rows that are mostly zero. The loss looks at the
labelled nodes. XLA has no sparse product: there and in JAX and torch.compile the product is a
gather, a scale and a segment sum. May import: see benchmarks.worker.
"""

from __future__ import annotations

import numpy as np

from benchmarks.training import Program

TITLE = "Graph convolution, Cora's sizes, Adam: one training step"
UNIT = "ms"
CASES = {
    "2708 nodes": {
        "nodes": 2708,
        "edges": 5278,
        "features": 1433,
        "hidden": 16,
        "classes": 7,
        "labelled": 140,
    }
}
TINY = {"nodes": 12, "edges": 14, "features": 9, "hidden": 5, "classes": 3, "labelled": 6}


def _weights(case, rng):
    def glorot(rows, columns):
        bound = (6 / (rows + columns)) ** 0.5
        return rng.uniform(-bound, bound, (rows, columns)).astype(np.float32)

    return {
        "w0": glorot(case["features"], case["hidden"]),
        "b0": np.zeros(case["hidden"], np.float32),
        "w1": glorot(case["hidden"], case["classes"]),
        "b1": np.zeros(case["classes"], np.float32),
    }


def _constants(case, rng):
    """The graph: its entries sorted by row, then column, each undirected edge in both ways."""
    nodes = case["nodes"]
    pairs = set()
    while len(pairs) < case["edges"]:
        a, b = (int(node) for node in rng.integers(nodes, size=2))
        if a != b:
            pairs.add((min(a, b), max(a, b)))
    both = sorted(pairs | {(b, a) for a, b in pairs} | {(node, node) for node in range(nodes)})
    places = np.array(both, np.int64)
    degree = np.bincount(places[:, 0], minlength=nodes)
    values = 1 / np.sqrt(degree[places[:, 0]] * degree[places[:, 1]])
    present = rng.random((nodes, case["features"])) < 0.0127
    features = present / np.maximum(present.sum(1, keepdims=True), 1)
    return {
        "places": places,
        "values": values.astype(np.float32),
        "features": features.astype(np.float32),
    }


def _batch(case, rng):
    labelled = case["labelled"]
    return {
        "labelled": rng.permutation(case["nodes"])[:labelled].astype(np.int32),
        "labels": rng.integers(case["classes"], size=labelled).astype(np.int32),
    }


def _flops(case):
    nodes, hidden, classes = case["nodes"], case["hidden"], case["classes"]
    entries = 2 * case["edges"] + nodes
    # The features need no gradient.
    dense = 2 * nodes * hidden * (2 * case["features"] + 3 * classes)
    return dense + 2 * 2 * entries * (hidden + classes)


def _loss_of(spread, tf, case, w, x):
    """spread(h) = A h."""
    h = tf.nn.relu(spread(tf.matmul(x["features"], w["w0"])) + w["b0"])
    logits = tf.gather(spread(tf.matmul(h, w["w1"])) + w["b1"], x["labelled"])
    return tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=x["labels"], logits=logits)
    )


def _tf_loss(tf, case, w, x):
    nodes = case["nodes"]
    adjacency = tf.SparseTensor(x["places"], x["values"], [nodes, nodes])
    return _loss_of(lambda h: tf.sparse_tensor_dense_matmul(adjacency, h), tf, case, w, x)


def _xla_loss(tf, case, w, x):
    rows, columns = x["places"][:, 0], x["places"][:, 1]

    def spread(h):
        terms = tf.gather(h, columns) * x["values"][:, None]
        return tf.math.unsorted_segment_sum(terms, rows, case["nodes"])

    return _loss_of(spread, tf, case, w, x)


def _torch_head(torch, spread, w, x):
    f = torch.nn.functional
    h = torch.relu(spread(x["features"] @ w["w0"]) + w["b0"])
    logits = spread(h @ w["w1"]) + w["b1"]
    return f.cross_entropy(logits[x["labelled"]], x["labels"])


def _torch_loss(torch, case, w, x):
    nodes = case["nodes"]
    if "adjacency" not in x:
        x["adjacency"] = torch.sparse_coo_tensor(
            x["places"].t(), x["values"], (nodes, nodes), is_coalesced=True
        )
    return _torch_head(torch, lambda h: torch.sparse.mm(x["adjacency"], h), w, x)


def _torch_gathered(torch, case, w, x):
    rows, columns = x["places"].unbind(1)

    def spread(h):
        terms = h[columns] * x["values"][:, None]
        return torch.zeros(case["nodes"], h.shape[1]).index_add(0, rows, terms)

    return _torch_head(torch, spread, w, x)


def _jax_loss(jax, case, w, x):
    jnp = jax.numpy
    rows, columns = x["places"][:, 0], x["places"][:, 1]

    def spread(h):
        terms = h[columns] * x["values"][:, None]
        return jax.ops.segment_sum(terms, rows, case["nodes"], indices_are_sorted=True)

    h = jax.nn.relu(spread(x["features"] @ w["w0"]) + w["b0"])
    logs = jax.nn.log_softmax((spread(h @ w["w1"]) + w["b1"])[x["labelled"]])
    return -jnp.take_along_axis(logs, x["labels"][:, None], 1).mean()


PROGRAM = Program(
    _weights,
    _batch,
    _tf_loss,
    _torch_loss,
    _jax_loss,
    _flops,
    optimizer="adam",
    rate=1e-2,
    constants=_constants,
    torch_compiled_loss=_torch_gathered,
    xla_loss=_xla_loss,
)
CONTESTANTS, work = PROGRAM.contestants(), PROGRAM.work
