"""Gradients through loops and branches against finite differences in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyflow as tf
from tinyflow.core.error import Unsupported
from tinyflow.passes.functionalize import functionalize
from tinyflow.passes.pipeline import optimize
from tinyflow.passes.specialize import specialize

RNG = np.random.default_rng(5)
X0, W0, E0 = RNG.uniform(0.2, 0.9, 3), 0.3 * RNG.uniform(size=(3, 3)), RNG.uniform(size=(4, 3))


def placeholders() -> tuple[Any, Any, Any, Any, Any]:
    return (
        tf.placeholder(tf.float64, [3]), tf.placeholder(tf.float64, [3, 3]),
        tf.placeholder(tf.float64, [4, 3]), tf.placeholder(tf.int32, []),
        tf.placeholder(tf.bool, []),
    )  # fmt: skip


def check(y: Any, xs: list[Any], feed: dict[Any, Any], step: float = 1e-6) -> None:
    """Twice, so that the second run finds the memory that the first one left."""
    gradients = tf.gradients(y, xs)
    with tf.Session() as session:
        for _ in range(2):
            found = session.run(gradients, feed)
        for x, gradient in zip(xs, found, strict=True):
            numeric = np.zeros_like(feed[x])
            for place in np.ndindex(feed[x].shape):
                values = []
                for sign in (1, -1):
                    changed = np.array(feed[x])
                    changed[place] += sign * step
                    values.append(np.sum(session.run(y, {**feed, x: changed})))
                numeric[place] = (values[0] - values[1]) / (2 * step)
            np.testing.assert_allclose(gradient, numeric, rtol=2e-5, atol=1e-6)


def loop(n: Any, step: Callable[[Any, Any], Any], start: Any, **keywords: Any) -> Any:
    return tf.while_loop(
        lambda i, s: i < n, lambda i, s: (i + 1, step(i, s)), (0, start), **keywords
    )[1]


@pytest.mark.parametrize("trips", [0, 1, 4])
def test_trip_count_known_only_at_run_time(trips: int) -> None:
    x, w, _, n, _ = placeholders()
    y = loop(
        n,
        lambda i, s: tf.tanh(s * x + 1.0) * s + tf.squeeze(tf.matmul(w, tf.expand_dims(s, 1)), 1),
        x,
    )
    check(y, [x, w], {x: X0, w: W0, n: trips})


@pytest.mark.parametrize("limit", [1, 5])
def test_trip_count_known_when_compiled(limit: int) -> None:
    x, _, _, _, _ = placeholders()
    check(loop(limit, lambda i, s: tf.sin(s) * x + s * s, x), [x], {x: X0})
    bounded = loop(100, lambda i, s: tf.sin(s) * x, x, maximum_iterations=limit)
    check(bounded, [x], {x: X0})


def test_newton_iteration() -> None:
    """The square root by Newton iteration until it converges: the gradient is 1 / (2 sqrt(a))."""
    a = tf.placeholder(tf.float64, [])
    root = tf.while_loop(lambda g: tf.abs(g * g - a) > 1e-12, lambda g: (g + a / g) / 2.0, [a])
    (gradient,) = tf.gradients(root, a)
    with tf.Session() as session:
        for value in (2.0, 9.0, 0.3, 700.0):
            found = session.run([root, gradient], {a: value})
            np.testing.assert_allclose(found, [value**0.5, 0.5 / value**0.5], rtol=1e-6)


@pytest.mark.parametrize("chosen", [True, False])
def test_cond(chosen: bool) -> None:
    x, w, _, _, p = placeholders()
    y = tf.cond(p, lambda: x * x * 2.0, lambda: tf.exp(x) + w[0])
    check(y, [x, w], {x: X0, w: W0, p: chosen})


def test_loops_over_rows() -> None:
    x, _, e, _, _ = placeholders()
    feed = {x: X0, e: E0}
    check(tf.map_fn(lambda r: tf.sin(r) * x, e), [x, e], feed)
    check(tf.scan(lambda s, r: tf.tanh(s * r + x), e), [x, e], feed)
    check(tf.scan(lambda s, r: tf.tanh(s * r), e, reverse=True, initializer=x), [x, e], feed)
    check(tf.foldl(lambda s, r: tf.tanh(s * r + x), e), [x, e], feed)
    check(tf.foldr(lambda s, r: tf.tanh(s * r), e, initializer=x), [x, e], feed)


def test_array_read_in_another_order_than_written() -> None:
    x, _, e, _, _ = placeholders()
    array = tf.TensorArray(tf.float64, size=4)
    rows = tf.TensorArray(tf.float64, size=4).unstack(e)
    _, array = tf.while_loop(
        lambda i, a: i < 4, lambda i, a: (i + 1, a.write(3 - i, rows.read(i) * x)), (0, array)
    )
    y = loop(4, lambda i, s: tf.sin(s * array.read(i) + array.read(0)), x)
    check(y, [x, e], {x: X0, e: E0})


@pytest.mark.parametrize("trips", [0, 1, 3])
def test_nested(trips: int) -> None:
    x, _, _, n, _ = placeholders()

    def body(i: Any, s: Any) -> Any:
        inner = tf.while_loop(
            lambda j, z: j <= i, lambda j, z: (j + 1, z * x + tf.sin(z)), (0, s)
        )[1]
        chosen = tf.cond(tf.equal(i % 2, 0), lambda: inner * x, lambda: tf.sin(inner) + x)
        return tf.tanh(s + chosen)

    check(loop(n, body, x), [x], {x: X0, n: trips})


def test_loop_in_a_branch() -> None:
    x, _, _, n, p = placeholders()
    y = tf.cond(p, lambda: loop(n, lambda i, s: s * x, x), lambda: x)
    for chosen in (True, False):
        check(y, [x], {x: X0, n: 3, p: chosen})


@pytest.mark.parametrize("trips", [0, 1, 3])
def test_second_order(trips: int) -> None:
    x, _, _, n, _ = placeholders()
    for limit in (n, trips):
        y = loop(limit, lambda i, s: s * s * x + tf.sin(s), x)
        (first,) = tf.gradients(y, x)
        check(first, [x], {x: X0, n: trips})


def test_what_is_not_saved() -> None:
    """Invariant values and counters are read again, not saved in every iteration."""
    x, w, _, _, _ = placeholders()
    y = loop(6, lambda i, s: tf.squeeze(tf.matmul(w, tf.expand_dims(s, 1)), 1), x)
    (gradient,) = tf.gradients(y, x)
    written = functionalize([gradient], (), [x, w])
    fn, _ = optimize(specialize(written, [x.type, w.type]))
    (backward,) = [n for n in fn.nodes if n.op.type_name == "While"]
    assert len(backward.inputs) == 3, "a counter, the gradient, the matrix"


def test_back_prop_false_is_respected() -> None:
    x, _, _, _, _ = placeholders()
    y = loop(3, lambda i, s: s * x, x, back_prop=False)
    with pytest.raises(Unsupported, match="back_prop=False"):
        tf.gradients(y, x)
