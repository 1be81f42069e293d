"""Workload: one training step of the lecture's softmax regression, fed with NumPy batches.

x: float32[100, 784]   W: float32[784, 10]   W <- W - 0.5 * grad(cross entropy)
Each rival is written as its own users would write it. May import: see benchmarks.worker.
"""

from __future__ import annotations

import itertools

import numpy as np

from benchmarks import rivals
from benchmarks.work import Work
from benchmarks.worker import Prepared

TITLE = "Softmax regression: one training step, batch 100 (lecture listing)"
UNIT = "us"
CASES = {"step": {"batch": 100, "features": 784, "classes": 10, "rate": 0.5}}
TINY = CASES["step"]
_CHECKED_STEPS = 10


def work(case):
    """Products of forward and weight gradient; W read forward, read and written by the update."""
    batch, features, classes = case["batch"], case["features"], case["classes"]
    size_bytes = 4 * (3 * features * classes + batch * (features + classes))
    return Work(4 * batch * features * classes, size_bytes)


def batches(case):
    """Twenty batches (float32[n, features], one-hot float32[n, classes]) with MNIST's sparsity."""
    rng = np.random.RandomState(1234)
    made = []
    for _ in range(20):
        shape = (case["batch"], case["features"])
        images = np.where(rng.rand(*shape) < 0.19, rng.rand(*shape), 0).astype(np.float32)
        labels = np.eye(case["classes"], dtype=np.float32)[
            rng.randint(case["classes"], size=case["batch"])
        ]
        made.append((images, labels))
    return made


def _prepare(case, train, weights, finish=None):
    """train(images, labels) does one step; weights() is W as an array."""
    feed = itertools.cycle(batches(case)).__next__

    def step():
        images, labels = feed()
        return train(images, labels)

    def check():
        for _ in range(_CHECKED_STEPS):
            step()
        found = np.asarray(weights(), np.float64)
        return [np.abs(found).sum(), found[100, 3], found[700, 7]]

    return Prepared(step, check, finish)


def numpy_step(case):
    w = np.zeros((case["features"], case["classes"]), np.float32)

    def train(images, labels):
        logits = images @ w
        logits -= logits.max(axis=1, keepdims=True)
        y = np.exp(logits, out=logits)
        y /= y.sum(axis=1, keepdims=True)
        y -= labels
        y *= case["rate"] / case["batch"]
        np.subtract(w, images.T @ y, out=w)

    return _prepare(case, train, lambda: w), np.__version__


def _lecture_script(tf, case):
    """The listing itself; TinyFlow and TensorFlow share it. (session, x, y_, W, train_step)"""
    x = tf.placeholder(tf.float32, [None, case["features"]])
    w = tf.Variable(tf.zeros([case["features"], case["classes"]]))
    y = tf.nn.softmax(tf.matmul(x, w))
    y_ = tf.placeholder(tf.float32, [None, case["classes"]])
    cross_entropy = tf.reduce_mean(-tf.reduce_sum(y_ * tf.log(y), reduction_indices=[1]))
    w_grad = tf.gradients(cross_entropy, [w])[0]
    train_step = tf.assign(w, w - case["rate"] * w_grad)
    sess = tf.Session()
    sess.run(tf.global_variables_initializer())
    return sess, x, y_, w, train_step


def _session_run(tf, case):
    sess, x, y_, w, train_step = _lecture_script(tf, case)

    def train(images, labels):
        return sess.run(train_step, feed_dict={x: images, y_: labels})

    return _prepare(case, train, lambda: sess.run(w)), rivals.version(tf)


def _session_callable(tf, case):
    sess, x, y_, w, train_step = _lecture_script(tf, case)
    train = sess.make_callable(train_step, feed_list=[x, y_])
    return _prepare(case, train, lambda: sess.run(w)), rivals.version(tf)


def tinyflow_run(case):
    return _session_run(rivals.tinyflow(), case)


def tinyflow_callable(case):
    return _session_callable(rivals.tinyflow(), case)


def tensorflow_run(case):
    return _session_run(rivals.tensorflow(), case)


def tensorflow_callable(case):
    return _session_callable(rivals.tensorflow(), case)


def torch_eager(case):
    torch = rivals.torch()
    w = torch.zeros(case["features"], case["classes"], requires_grad=True)
    cross_entropy = torch.nn.functional.cross_entropy

    def train(images, labels):
        loss = cross_entropy(torch.from_numpy(images) @ w, torch.from_numpy(labels))
        loss.backward()
        with torch.no_grad():
            w.sub_(w.grad, alpha=case["rate"])
            w.grad = None

    return _prepare(case, train, lambda: w.detach().numpy()), torch.__version__


def torch_compile(case):
    torch = rivals.torch()
    w = torch.zeros(case["features"], case["classes"])

    def loss(weights, images, labels):
        return torch.nn.functional.cross_entropy(images @ weights, labels)

    # Forward, gradient and update in one compiled function: the most that compile can fuse.
    @torch.compile
    def update(images, labels):
        w.sub_(torch.func.grad(loss)(w, images, labels), alpha=case["rate"])

    def train(images, labels):
        update(torch.from_numpy(images), torch.from_numpy(labels))

    return _prepare(case, train, lambda: w.numpy()), torch.__version__


def jax_jit(case):
    jax = rivals.jax()
    jnp = jax.numpy

    def loss(w, images, labels):
        return -jnp.mean(jnp.sum(labels * jax.nn.log_softmax(images @ w), axis=1))

    def descend(w, images, labels):
        return w - case["rate"] * jax.grad(loss)(w, images, labels)

    update = jax.jit(descend, donate_argnums=0)
    state = [jnp.zeros((case["features"], case["classes"]), jnp.float32)]

    def train(images, labels):
        state[0] = update(state[0], images, labels)

    # JAX runs ahead of Python; the clock stops when the last step is done.
    return _prepare(
        case, train, lambda: state[0], finish=lambda last: state[0].block_until_ready()
    ), jax.__version__


CONTESTANTS = {
    "tinyflow": tinyflow_run,
    "tinyflow make_callable": tinyflow_callable,
    "numpy by hand": numpy_step,
    "torch eager": torch_eager,
    "torch.compile": torch_compile,
    "jax.jit": jax_jit,
    "tensorflow": tensorflow_run,
    "tensorflow make_callable": tensorflow_callable,
    "tensorflow 1.15": tensorflow_run,
}
