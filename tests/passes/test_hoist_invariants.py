"""What leaves a loop, and that the results stay what they were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from tinyflow.compile.step import compile_function
from tinyflow.core import options
from tinyflow.ir.graph import interp
from tinyflow.ir.graph.nodes import Function, Node, TensorType, Value
from tinyflow.ops import concat, constant, exp, matmul, reduce_sum, tanh, zeros
from tinyflow.ops.base import emit
from tinyflow.ops.control import While, outputs_of, sub_function
from tinyflow.ops.tensor_array import ArrayWrite, array_read
from tinyflow.passes.pipeline import optimize

N, ROWS, WIDTH = 6, 4, 8
INT = TensorType("int32", ())
X = TensorType("float32", (N, ROWS, WIDTH))
H, W = TensorType("float32", (ROWS, WIDTH)), TensorType("float32", (WIDTH, WIDTH))
BOTH = TensorType("float32", (2 * WIDTH, WIDTH))


def loop(
    step: Callable[..., list[Any]], carried: list[TensorType], invariant: list[TensorType],
    trips: int = N, backwards: bool = False, filled: Sequence[TensorType] = (),
) -> Function:  # fmt: skip
    """``step(t, *values)`` for every t, as a function of the values' starts and the invariants.

    filled: values that start as zeros, behind the carried ones."""
    types = [INT, *carried, *filled, *invariant]
    change = -1 if backwards else 1
    op = While(
        sub_function("cond", types, lambda i, *_: [i >= 0] if backwards else [i < trips]),
        sub_function("body", types, lambda i, *v: [i + change, *step(i, *v)]),
        1 + len(carried) + len(filled),
    )
    first = trips - 1 if backwards else 0

    def make(*values: Value) -> list[Value]:
        starts, rest = values[: len(carried)], values[len(carried) :]
        arrays = [zeros(f.shape, f.dtype) for f in filled]
        return list(outputs_of(emit(op, constant(np.int32(first)), *starts, *arrays, *rest)))[1:]

    return sub_function("f", [*carried, *invariant], make)


def check(fn: Function, level: int = 2) -> tuple[Function, Node]:
    """The optimised function and its loop, after its results were compared."""
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(-0.5, 0.5, v.type.shape).astype(np.float32) for v in fn.inputs]
    with options.override(level=level):
        compiled = compile_function(fn)
        found, _ = optimize(fn)
    for got, wanted in zip(compiled(*arrays), interp.run(fn, arrays), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-5)
    (node,) = [n for n in found.nodes if isinstance(n.op, While)]
    return found, node


def count(fn: Function, name: str) -> int:
    return sum(n.op.type_name == name for n in fn.nodes)


def test_invariant_work_leaves_the_loop() -> None:
    fn = loop(lambda t, h, w: [tanh(h * reduce_sum(exp(w)))], [H], [W])
    found, node = check(fn)
    assert count(found, "Exp") == 1 and count(node.op.body, "Exp") == 0


def test_work_that_may_fail_stays() -> None:
    """A loop that does not run must not report an index that it never reads by."""

    def step(t: Value, h: Value, x: Value, i: Value) -> list[Value]:
        return [h + array_read(x, i)]

    fn = loop(step, [H], [X, INT], trips=0)
    compiled = compile_function(fn)
    h, x = np.ones((ROWS, WIDTH), np.float32), np.zeros((N, ROWS, WIDTH), np.float32)
    np.testing.assert_array_equal(compiled(h, x, np.int32(99))[0], h)


def test_rows_times_a_matrix_become_one_product() -> None:
    fn = loop(lambda t, h, x, w, v: [tanh(matmul(array_read(x, t), w) + matmul(h, v))],
              [H], [X, W, W])  # fmt: skip
    found, node = check(fn)
    assert count(node.op.body, "MatMul") == 1
    (product,) = [n for n in found.nodes if n.op.type_name == "MatMul"]
    assert product.types[0].shape == (N * ROWS, WIDTH)


@pytest.mark.parametrize(("level", "inside"), [(1, 1), (2, 1)])
def test_products_of_joined_rows_are_split(level: int, inside: int) -> None:
    """Only where sums may be taken in another order (level 2) does the input's part leave."""

    def step(t: Value, h: Value, x: Value, w: Value) -> list[Value]:
        return [tanh(matmul(concat([array_read(x, t), h], 1), w))]

    found, node = check(loop(step, [H], [X, BOTH]), level)
    assert count(node.op.body, "MatMul") == inside
    assert count(node.op.body, "ConcatV2") == (1 if level < 2 else 0)
    assert count(found, "MatMul") == (0 if level < 2 else 1)


@pytest.mark.parametrize("backwards", [False, True])
def test_sums_of_products_become_one_product(backwards: bool) -> None:
    def step(t: Value, h: Value, total: Value, x: Value) -> list[Value]:
        d = tanh(h * 1.5)
        return [d, total + matmul(array_read(x, t), d, transpose_a=True)]

    found, node = check(loop(step, [H, W], [X], backwards=backwards))
    assert count(node.op.body, "MatMul") == 0
    (product,) = [n for n in found.nodes if n.op.type_name == "MatMul"]
    assert product.inputs[0].type.shape == (N * ROWS, WIDTH)


def test_sums_that_skip_rows_stay() -> None:
    def step(t: Value, h: Value, total: Value, x: Value) -> list[Value]:
        d = tanh(h * 1.5)
        return [d, total + matmul(array_read(x, t), d, transpose_a=True)]

    _, node = check(loop(step, [H, W], [X], trips=N - 2))
    assert count(node.op.body, "MatMul") == 1


def test_a_sum_that_the_loop_reads_stays() -> None:
    def step(t: Value, h: Value, total: Value, x: Value) -> list[Value]:
        d = tanh(h + reduce_sum(total))
        return [d, total + matmul(array_read(x, t), d, transpose_a=True)]

    _, node = check(loop(step, [H, W], [X]))
    assert count(node.op.body, "MatMul") == 1


def row_added(adds: bool, shift: int = 0) -> Callable[..., list[Any]]:
    def step(t: Value, h: Value, a: Value) -> list[Value]:
        h = tanh(h * 1.5)
        return [h, emit(ArrayWrite(adds), a, t + shift if shift else t, h)]

    return step


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("adds", "level"), [(False, 1), (False, 2), (True, 2)])
def test_zeros_that_a_loop_fills_are_not_written(adds: bool, level: int, backwards: bool) -> None:
    found, node = check(loop(row_added(adds), [H], [], filled=[X], backwards=backwards), level)
    assert count(found, "NewArray") == 1 and count(found, "Fill") == 0
    (write,) = [n for n in node.op.body.nodes if isinstance(n.op, ArrayWrite)]
    assert not write.op.adds


@pytest.mark.parametrize(
    ("fn", "level"),
    [
        (loop(row_added(False), [H], [], filled=[X], trips=N - 1), 2),  # a row is left
        (loop(row_added(True), [H], [], filled=[X]), 1),  # -0 + 0 is 0
        (loop(row_added(False, shift=1), [H], [], filled=[X], trips=N - 1), 2),
        (loop(lambda t, h, a: [tanh(h), emit(ArrayWrite(), a, t, h + array_read(a, t))],
              [H], [], filled=[X]), 2),
        (loop(lambda t, h, a: [tanh(h), emit(ArrayWrite(), emit(ArrayWrite(), a, t, h), t, -h)],
              [H], [], filled=[X]), 2),
    ],
)  # fmt: skip
def test_zeros_that_somebody_sees_stay(fn: Function, level: int) -> None:
    found, _ = check(fn, level)
    assert count(found, "NewArray") == 0


def test_a_factor_that_is_saved_anyway_is_saved_once() -> None:
    def step(t: Value, h: Value, total: Value, a: Value, x: Value) -> list[Value]:
        d = tanh(h * 1.5)
        product = matmul(array_read(x, t), d, transpose_a=True)
        return [d, total + product, emit(ArrayWrite(adds=True), a, t, d)]

    found, node = check(loop(step, [H, W], [X], filled=[X]))
    assert count(node.op.body, "MatMul") == 0 and count(found, "MatMul") == 1
    assert count(node.op.body, "ArrayWrite") == 1 and count(found, "NewArray") == 1


def test_what_nobody_reads_is_trimmed() -> None:
    """An unread result, an unread input, and a value that the body leaves alone."""
    fn = loop(
        lambda t, h, unread, same, w, unused: [tanh(matmul(h, w)) + same, unread * 2.0, same],
        [H, H, H], [W, W],
    )  # fmt: skip
    only = Function(fn.name, fn.inputs, [fn.outputs[0]])
    found, _ = optimize(only)
    (node,) = [n for n in found.nodes if isinstance(n.op, While)]
    assert node.op.n_carried == 2, "the counter and h"
    assert len(node.inputs) == 4, "and as invariant inputs same and w"


def test_zeros_stay_zeros() -> None:
    fn = loop(lambda t, h, x: [h + zeros([ROWS, WIDTH])], [H], [X])
    check(fn)
