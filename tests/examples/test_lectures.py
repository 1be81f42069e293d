"""The lectures' listings run as printed and compute what they should.

The MNIST files are used where there are some (TINYFLOW_DATA or the cache); else the digits of the
package, blown up to 28x28, stand in, and only the claims about MNIST are left out.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import tinyflow as tf
from tinyflow import datasets
from tinyflow.datasets.batches import ImageDataset, ImageSplit
from tinyflow.datasets.mnist import _FILES as MNIST_FILES
from tinyflow.datasets.store import find_file

ROOT = Path(__file__).resolve().parents[2]
LECTURES = ROOT / "examples" / "lectures"
LOSS_LINE = "cross_entropy = tf.reduce_mean("


@pytest.fixture(autouse=True)
def fresh_graph():
    with tf.Graph().as_default():
        yield


def stretched_digits() -> ImageDataset:
    """The package's 8x8 digits as 28x28 pictures: 3x3 blocks with a border of two."""

    def stretch(split: ImageSplit) -> ImageSplit:
        pictures = split.images.reshape(-1, 8, 8).repeat(3, axis=1).repeat(3, axis=2)
        pictures = np.pad(pictures, ((0, 0), (2, 2), (2, 2)))
        return ImageSplit(np.ascontiguousarray(pictures.reshape(len(pictures), 784)), split.labels)

    digits = datasets.get_digits(flatten=True, onehot=True)
    return ImageDataset(stretch(digits.train), stretch(digits.test))


@pytest.fixture(scope="module")
def pictures() -> tuple[ImageDataset, bool]:
    """The data set, and whether it is MNIST."""
    if all(find_file(file.name, "mnist") is not None for file in MNIST_FILES):
        return datasets.get_mnist(flatten=True, onehot=True), True
    return stretched_digits(), False


@pytest.fixture
def mnist(pictures, monkeypatch) -> ImageDataset:
    """What the listings' get_mnist gives: always from the first batch on, decoded only once."""

    def get_mnist(flatten: bool = False, onehot: bool = False) -> ImageDataset:
        assert flatten and onehot
        return ImageDataset(*(ImageSplit(split.images, split.labels) for split in pictures[0]))

    monkeypatch.setattr(datasets, "get_mnist", get_mnist)
    return pictures[0]


def run(name: str) -> SimpleNamespace:
    """The listing's global names after it ran."""
    return SimpleNamespace(**runpy.run_path(str(LECTURES / name)))


def accuracy(split: ImageSplit, weights: np.ndarray) -> float:
    return float(np.mean((split.images @ weights).argmax(1) == split.labels.argmax(1)))


def test_l1_and_l2_reach_the_same_weights(mnist):
    by_hand = run("l01_softmax_regression_numpy.py")
    graph = run("l02_softmax_regression.py")
    weights = graph.sess.run(graph.W)
    assert weights.shape == (784, 10) and weights.dtype == np.float32
    np.testing.assert_allclose(weights, by_hand.W, rtol=0, atol=1e-3)
    # The accuracy moves by 0.004 from step to step. After step 1,000, in the order of get_mnist, it
    # is 0.9092 for both; the official split of MNIST gives 0.9141.
    assert accuracy(mnist.test, weights) >= 0.905
    assert accuracy(mnist.test, by_hand.W) >= 0.905


@pytest.mark.parametrize(
    ("name", "variable"),
    [("l02_softmax_regression_small_w.py", "w"), ("l02_softmax_regression_2024.py", "W")],
)
def test_copies_of_l2_give_the_same_bits(mnist, name, variable):
    first = run("l02_softmax_regression.py")
    with tf.Graph().as_default():
        copy = run(name)
        weights = copy.sess.run(getattr(copy, variable))
    np.testing.assert_array_equal(weights, first.sess.run(first.W))


def test_l3_is_refused_on_its_line_with_the_hint(mnist):
    path = LECTURES / "l03_misplaced_parenthesis.py"
    line = 1 + next(
        n for n, text in enumerate(path.read_text().splitlines()) if text.startswith(LOSS_LINE)
    )
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        run(path.name)
    text = str(caught.value)
    assert f"created at l03_misplaced_parenthesis.py:{line}" in text
    assert "axis 1 is outside a rank 0 input" in text
    assert "none (the input is a scalar)" in text
    assert "did you mean it for the inner reduce_sum?" in text
    assert isinstance(caught.value, (ValueError, IndexError))


def test_l3_fails_before_anything_runs():
    """In a program of its own: the traceback ends with our message and the user's line."""
    done = subprocess.run(
        [sys.executable, str(LECTURES / "l03_misplaced_parenthesis.py")],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode != 0
    assert "did you mean it for the inner reduce_sum?" in done.stderr
    assert "l03_misplaced_parenthesis.py" in done.stderr
    assert done.stdout == ""


# ---- L4: the graph by step -----------------------------------------------------------------------


def nodes_by_statement(name: str) -> dict[str, list[tf.Operation]]:
    """Source of each statement -> the operations it added."""
    repl = runpy.run_path(str(LECTURES / "repl.py"))
    return {source: run() for source, run in repl["statements"](str(LECTURES / name))}


def types_of(operations: list[tf.Operation]) -> list[str]:
    return [operation.type for operation in operations]


@pytest.mark.parametrize("name", ["l04_graph_by_step.py", "l04_graph_by_step_2024.py"])
def test_l4_node_lists_after_each_statement(mnist, name):
    added = nodes_by_statement(name)
    loss = "cross_entropy = tf.reduce_mean(-tf.reduce_sum(y_ * tf.log(y), reduction_indices=[1]))"
    assert types_of(added["x = tf.placeholder(tf.float32, [None, 784])"]) == ["Placeholder"]
    assert [o.name for o in added["y = tf.nn.softmax(tf.matmul(x, W))"]] == ["MatMul", "Softmax"]
    assert [o.name for o in added["y_ = tf.placeholder(tf.float32, [None, 10])"]] == [
        "Placeholder_1"
    ]
    # TensorFlow 1.15 adds the axes as nodes too (Sum/reduction_indices, Const); here they are
    # attributes. The names of what the drawing shows are its names.
    drawn = [o.name for o in added[loss] if o.type != "Const"]
    assert drawn == ["Log", "mul", "Sum", "Neg", "Mean"]
    gradient = added["W_grad = tf.gradients(cross_entropy, [W])[0]"]
    assert gradient and all(o.name.startswith("gradients/") for o in gradient)
    assert gradient[-1].type == "MatMul"
    update = added["train_step = tf.assign(W, W - learning_rate * W_grad)"]
    assert [o.name for o in update if o.type not in ("Const", "Identity")][-1] == "Assign"
    assert {"mul_1", "sub", "Assign"} <= {o.name for o in update}
    variable = [o.name for o in added["W = tf.Variable(tf.zeros([784, 10]))"]]
    assert {"Variable", "Variable/Assign"} <= set(variable)
    # Looking at a graph adds nothing to it, running it neither.
    assert added["sess.run(train_step, feed_dict={x: batch_xs, y_:batch_ys})"] == []


def test_l4_two_lectures_one_graph(mnist):
    def listing(name: str) -> list[tuple[str, str]]:
        with tf.Graph().as_default():
            return [(o.name, o.type) for ops in nodes_by_statement(name).values() for o in ops]

    assert listing("l04_graph_by_step.py") == listing("l04_graph_by_step_2024.py")


def test_l4_a_times_b_plus_3(capsys):
    added = nodes_by_statement("l04_a_times_b_plus_3.py")
    assert capsys.readouterr().out == "13.0\n"
    operations = [operation for part in added.values() for operation in part]
    assert [o.name for o in operations if o.type == "Placeholder"] == ["a", "b"]
    constants = [o for o in operations if o.type == "Const"]
    assert len(constants) == 1
    product, total = (o for o in operations if o.type not in ("Placeholder", "Const"))
    assert (product.type, total.type) in (("Mul", "Add"), ("Mul", "AddV2"))
    assert [t.op.name for t in product.inputs] == ["a", "b"]
    assert [t.op for t in total.inputs] == [product, constants[0]]


def test_repl_prints_statements_and_nodes():
    done = subprocess.run(
        [sys.executable, str(LECTURES / "repl.py"), str(LECTURES / "l04_a_times_b_plus_3.py")],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )  # fmt: skip
    assert ">>> c = a * b + 3" in done.stdout
    assert "    mul = Mul(a, b)" in done.stdout


# ---- the TensorFlow lecture ----------------------------------------------------------------------


def test_l28_builds_and_runs():
    listing = run("l28_programming_the_graph.py")
    assert listing.h.shape.as_list() == [1, 100] and listing.h.op.type == "Relu"
    add = listing.h.op.inputs[0].op
    assert add.type in ("Add", "AddV2") and add.inputs[0].op.type == "MatMul"
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        picture = np.random.default_rng(1).uniform(size=(1, 784)).astype(np.float32)
        hidden, weights = sess.run([listing.h, listing.W], {listing.x: picture})
    assert weights.min() >= -1 and weights.max() < 1
    np.testing.assert_allclose(hidden, np.maximum(picture @ weights, 0), rtol=1e-4, atol=1e-4)


def test_l29_prints_3_75_and_names_its_nodes():
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        listing = run("l29_running_the_graph.py")
    assert printed.getvalue() == "3.75\n"
    assert listing.out.dtype == np.float64
    names = [operation.name for operation in tf.get_default_graph().get_operations()]
    assert {"a", "b", "Multiply", "Add", "Divide"} <= set(names)


def test_l30_loss_is_a_vector():
    listing = run("l30_defining_loss.py")
    assert listing.cross_entropy.shape.as_list() == [100]
    rng = np.random.default_rng(2)
    labels = np.eye(10, dtype=np.float32)[rng.integers(0, 10, 100)]
    pictures = rng.uniform(size=(100, 784)).astype(np.float32)
    weights = rng.normal(size=(784, 10)).astype(np.float32) * 0.05
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        loss = sess.run(
            listing.cross_entropy,
            {listing.x: pictures, listing.label: labels, listing.W: weights},
        )
    logits = pictures.astype(np.float64) @ weights
    expected = np.log(np.exp(logits).sum(1)) - (logits * labels).sum(1)
    np.testing.assert_allclose(loss, expected, rtol=1e-4, atol=1e-5)


def test_l31_trains_at_its_rate_without_nan(mnist):
    """TensorFlow 1.15 has NaN in the loss and in W after the second step of this program."""
    listing = run("l31_gradient_computation.py")
    weights, bias = listing.sess.run([listing.W, listing.b])
    assert np.isfinite(weights).all() and np.isfinite(bias).all()
    loss = listing.sess.run(
        listing.cross_entropy, {listing.x: listing.batch_xs, listing.label: listing.batch_ys}
    )
    assert loss.shape == (100,) and np.isfinite(loss).all()
    assert accuracy(mnist.test, weights) > 0.8  # the rate is wrong, the arithmetic is not


# ---- the files themselves ------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(LECTURES.glob("l*.py")), ids=lambda p: p.name)
def test_header_names_lecture_lines_and_repairs(path):
    header = [line for line in path.read_text().splitlines() if line.startswith("# ")]
    assert header[0].startswith(("# L", "# L2 "))
    assert any(line.startswith("# Lecture: ") for line in header)
    assert any(line.startswith("# Deck ") and "line" in line for line in header)
    assert any(line.startswith("# Repairs:") for line in header)
    ast.parse(path.read_text())
