"""Matrices that many small products read: laid out once, with the bits of the plain product."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyflow as tf
from tests.compile.test_unknown_loops import CELLS, sequences
from tests.compile.test_unknown_sizes import check, compiled  # noqa: F401
from tinyflow.compile.step import compile_function
from tinyflow.core import options
from tinyflow.ir.graph.nodes import Function, TensorType, Value
from tinyflow.ops import constant, matmul, tanh
from tinyflow.ops.base import emit
from tinyflow.ops.control import If, While, outputs_of, sub_function
from tinyflow.ops.tensor_array import array_read
from tinyflow.passes.panel_products import FAR_BYTES, LEAST_ROWS, LEAST_USES, MOST_ROWS
from tinyflow.passes.pipeline import optimize

K, N = 96, 128  # 48 KiB of float32
INT = TensorType("int32", ())


def loop(rows: int, dtype: str = "float32", trips: int = 12, shape=(K, N)) -> Function:
    """h = tanh(tanh(h @ W) @ V') for ``trips`` times, W and V of this shape."""
    types = [INT, TensorType(dtype, (rows, shape[0])), *[TensorType(dtype, shape)] * 2]
    op = While(
        sub_function("cond", types, lambda i, *_: [i < trips]),
        sub_function(
            "body", types,
            lambda i, h, w, v: [i + 1, tanh(matmul(tanh(matmul(h, w)), v, transpose_b=True))],
        ),
        2,
    )  # fmt: skip

    def make(*values: Value) -> list[Value]:
        return list(outputs_of(emit(op, constant(np.int32(0)), *values)))[1:]

    return sub_function("f", types[1:], make)


def unrolled(uses: int, rows: int = 11) -> Function:
    types = [TensorType("float32", (rows, K)), *[TensorType("float32", (K, N))] * 2]

    def make(h: Any, w: Any, v: Any) -> list[Any]:
        for _ in range(uses):
            h = tanh(matmul(tanh(matmul(h, w)), v, transpose_b=True))
        return [h]

    return sub_function("f", types, make)


def panels_in(fn: Function) -> list[int]:
    """Numbers of products by panels, and of panels: outside loops and inside."""
    loops = [n.op.body for n in fn.nodes if isinstance(n.op, While)]
    return [
        sum(n.op.type_name == name for n in nodes)
        for nodes in (fn.nodes, [n for body in loops for n in body.nodes])
        for name in ("PanelMatMul", "Stored")
    ]


def arrays_for(fn: Function) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [
        rng.uniform(-0.3, 0.3, v.type.shape).astype(v.dtype.numpy) for v in fn.inputs
    ]


def check_bits(fn: Function) -> list[int]:
    """``panels_in`` the optimised function; its results have the bits of one without panels."""
    arrays = arrays_for(fn)
    with options.override(disabled_passes=frozenset({"panel_products"})):
        plain = compile_function(fn)
    # With one thread, with four lanes, and op by op.
    ways: list[Callable[[], Any]] = [
        contextlib.nullcontext, lambda: options.override(threads=1),
        lambda: options.override(lanes=4),
    ]  # fmt: skip
    for way in ways:
        with way():
            step = compile_function(fn)
            for got, wanted in zip(step(*arrays), plain(*arrays), strict=True):
                assert got.tobytes() == wanted.tobytes()
    (got,) = compile_function(fn, fuse=False)(*arrays)
    assert got.tobytes() == wanted.tobytes()
    w, v = arrays[1:]
    assert np.isfinite(got).all() and np.ptp(got) > 0 and w.any() and v.any()
    return panels_in(optimize(fn)[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [LEAST_ROWS, 13, 32])
def test_matrices_of_a_loop_are_laid_out_before_it(rows, dtype):
    assert check_bits(loop(rows, dtype)) == [0, 2, 2, 0]


def test_results_are_those_of_numpy():
    fn = loop(9, "float64", trips=8)
    h, w, v = arrays_for(fn)
    (got,) = compile_function(fn)(h, w, v)
    for _ in range(8):
        h = np.tanh(np.tanh(h @ w) @ v.T)
    np.testing.assert_allclose(got, h, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("fn", "why"),
    [
        (loop(LEAST_ROWS - 1), "few rows: a wide tile"),
        (loop(MOST_ROWS + 1), "many rows: packing is little beside them"),
        (loop(16, trips=LEAST_USES - 1), "few iterations"),
        (loop(16, shape=(96, 80)), "no whole panels, and too small"),
        (loop(16, shape=(32, 64)), "in the first-level cache anyway"),
        (unrolled(LEAST_USES - 1), "few uses"),
    ],
    ids=lambda p: p if isinstance(p, str) else "",
)
def test_what_gains_little_stays(fn, why):
    assert panels_in(optimize(fn)[0]) == [0, 0, 0, 0], why


def test_a_loop_of_unknown_length_may_run_often_or_not_at_all():
    types = [INT, TensorType("float32", (16, K)), TensorType("float32", (K, K)), INT]
    op = While(
        sub_function("cond", types, lambda i, h, w, n: [i < n]),
        sub_function("body", types, lambda i, h, w, n: [i + 1, tanh(matmul(h, w))]),
        2,
    )
    fn = sub_function(
        "f", types[1:], lambda h, w, n: [outputs_of(emit(op, constant(np.int32(0)), h, w, n))[1]]
    )
    assert panels_in(optimize(fn)[0]) == [0, 1, 1, 0]
    step = compile_function(fn)
    h, w, _ = arrays_for(fn)
    wanted = h
    for count in range(4):
        (got,) = step(h, w, np.int32(count))
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)
        wanted = np.tanh(wanted @ w)


def test_unrolled_products_share_the_panels():
    assert check_bits(unrolled(LEAST_USES)) == [2 * LEAST_USES, 2, 0, 0]


@pytest.mark.parametrize("rows", [20, 200])
def test_rows_of_a_large_array_are_added_behind_the_product(rows):
    """More than a megabyte: the product waits for it, a kernel of its own reads it as a stream."""
    size = rows * 16 * K * 4
    types = [INT, TensorType("float32", (16, K)), TensorType("float32", (K, K)),
             TensorType("float32", (rows, 16, K))]  # fmt: skip
    op = While(
        sub_function("cond", types, lambda i, *_: [i < 9]),
        sub_function(
            "body", types, lambda i, h, w, x: [i + 1, tanh(array_read(x, i) + matmul(h, w))]
        ),
        2,
    )
    fn = sub_function(
        "f", types[1:], lambda *v: [outputs_of(emit(op, constant(np.int32(0)), *v))[1]]
    )
    large = size >= FAR_BYTES
    assert check_bits(fn) == [0, 1, 1, int(large)]
    plan = compile_function(fn).plan
    assert any("arrayread_panelmatmul" in k.kernel.name for k in plan.kernels) != large


def test_slices_of_a_large_array_are_added_behind_the_product():
    types = [TensorType("float32", (16, K)), TensorType("float32", (K, K)),
             TensorType("float32", (16 * 200, K))]  # fmt: skip

    def make(h: Any, w: Any, x: Any) -> list[Any]:
        for n in range(LEAST_USES):
            h = tanh(matmul(h, w) + x[16 * n : 16 * (n + 1)])
        return [h]

    assert check_bits(sub_function("f", types, make)) == [LEAST_USES, 1 + LEAST_USES, 0, 0]


def test_loops_in_loops_and_branches():
    inner = loop(16)
    types = [INT, *[v.type for v in inner.inputs]]

    def body(i: Any, h: Any, w: Any, v: Any) -> list[Any]:
        again = sub_function("again", types[1:], lambda *x: [inner_loop(*x)])
        same = sub_function("same", types[1:], lambda h, w, v: [h * 0.5])
        return [i + 1, outputs_of(emit(If(again, same), i < 2, h, w, v))[0]]

    def inner_loop(*values: Any) -> Any:
        node = next(n for n in inner.nodes if isinstance(n.op, While))
        return outputs_of(emit(node.op, constant(np.int32(0)), *values))[1]

    op = While(
        sub_function("cond", types, lambda i, *_: [i < 3]), sub_function("body", types, body), 2
    )
    fn = sub_function(
        "f", types[1:], lambda *v: [outputs_of(emit(op, constant(np.int32(0)), *v))[1]]
    )
    check_bits(fn)


def test_recurrent_training_over_unknown_batches_reads_panels(monkeypatch):
    def build():
        tf.set_random_seed(1)
        x = tf.placeholder(tf.float32, [None, 9, 6])
        y, _ = tf.nn.dynamic_rnn(CELLS["lstm"](64), x, dtype=tf.float32)
        step = tf.train.AdamOptimizer(0.01).minimize(tf.reduce_mean(tf.square(y)))
        return [x], [y, step]

    check(build, sequences([(n, 9) for n in (4, 1, 33)]), monkeypatch)
