"""Loops, branches and arrays: native code against the reference interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyflow.compile.step import CompiledFunction, compile_function
from tinyflow.ir.graph import interp
from tinyflow.ir.graph.nodes import Function, TensorType, Value
from tinyflow.ops import add, multiply, reduce_sum, tanh
from tinyflow.ops.base import emit
from tinyflow.ops.control import If, While, outputs_of, sub_function
from tinyflow.ops.tensor_array import array_read, array_write, new_array
from tinyflow.passes.control import trip_count
from tinyflow.passes.functionalize import functionalize
from tinyflow.passes.loops import order_arrays
from tinyflow.passes.specialize import specialize

INT, ROW = TensorType("int32", ()), TensorType("float32", (7,))


def apply(op: Any, *inputs: Any) -> list[Value]:
    return list(outputs_of(emit(op, *inputs)))


def check(fn: Function, *arrays: Any, fuse: bool | None = None) -> CompiledFunction:
    compiled = compile_function(fn, fuse)
    expected = interp.run(fn, arrays)
    for _ in range(2):  # the second run finds the arena as the first one left it
        for found, wanted in zip(compiled(*arrays), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-6)
    return compiled


def counting(limit: int, body: Any, types: list[TensorType]) -> While:
    """A loop over i, *values, with the last input invariant."""
    return While(
        sub_function("cond", types, lambda i, *_: [i < limit]),
        sub_function("body", types, body),
        len(types) - 1,
    )


@pytest.mark.parametrize("limit", [0, 1, 2, 13])
@pytest.mark.parametrize("fuse", [True, False])
def test_while(limit: int, fuse: bool) -> None:
    op = counting(limit, lambda i, x, c: [i + 1, tanh(x * c) + x], [INT, ROW, ROW])
    fn = sub_function("f", [INT, ROW, ROW], lambda *v: apply(op, *v))
    check(fn, np.int32(0), np.linspace(-1, 1, 7), np.linspace(0, 2, 7), fuse=fuse)


def test_carried_values_that_change_places() -> None:
    op = counting(5, lambda i, a, b, c: [i + 1, b, a + b * c], [INT, ROW, ROW, ROW])
    fn = sub_function("f", [INT, ROW, ROW, ROW], lambda *v: apply(op, *v))
    check(fn, np.int32(0), np.arange(7.0), np.ones(7), np.full(7, 0.5))


def test_a_start_that_is_read_elsewhere_keeps_its_value() -> None:
    op = counting(3, lambda i, x, c: [i + 1, x + c], [INT, ROW, ROW])

    def make(i: Value, x: Value) -> list[Value]:
        start = x * 2.0
        return [*apply(op, i, start, start), start]

    check(sub_function("f", [INT, ROW], make), np.int32(0), np.arange(7.0))


def test_nested_loops_and_branches() -> None:
    inner = counting(4, lambda j, y, c: [j + 1, y * c + 0.25], [INT, ROW, ROW])
    then = sub_function("then", [ROW, ROW], lambda x, c: [x + c, x])
    orelse = sub_function("orelse", [ROW, ROW], lambda x, c: [x, x])

    def body(i: Value, x: Value, c: Value) -> list[Value]:
        from tinyflow.ops import constant

        y = apply(inner, constant(np.int32(0)), x, c)[1]
        a, b = apply(If(then, orelse), i < 2, y, c)
        return [i + 1, a + b]

    op = counting(5, body, [INT, ROW, ROW])
    fn = sub_function("f", [INT, ROW, ROW], lambda *v: apply(op, *v))
    check(fn, np.int32(0), np.linspace(-1, 1, 7), np.linspace(0, 0.5, 7))


def test_arrays_are_written_in_place() -> None:
    array = TensorType("float32", (6, 7))
    types = [INT, array, ROW]
    op = counting(6, lambda i, a, c: [i + 1, array_write(a, i, c * 2.0)], types)

    def make(i: Value, c: Value) -> list[Value]:
        return apply(op, i, new_array("float32", 6, (7,)), c)[1:]

    compiled = check(sub_function("f", [INT, ROW], make), np.int32(0), np.arange(7.0))
    (loop,) = [a for a in compiled.plan.actions if hasattr(a, "body")]
    copied = [a for a in loop.body.plan.actions if hasattr(a, "size_bytes")]
    assert all(a.size_bytes < 64 for a in copied), "an iteration copies the array"
    assert "CopyArray" not in {n.op.type_name for n in loop.body.plan.fn.nodes}


def test_reads_of_the_old_array_come_first() -> None:
    array = TensorType("float32", (6, 7))

    def body(i: Value, a: Value, c: Value) -> list[Value]:
        return [i + 1, array_write(a, i, c)]

    def reading(i: Value, a: Value, c: Value) -> list[Value]:
        old = array_read(a, i)
        return [i + 1, array_write(a, i, old + c)]

    def late(i: Value, a: Value, s: Value, c: Value) -> list[Value]:
        new = array_write(a, i, c)
        return [i + 1, new, s + array_read(a, i)]

    x = np.random.default_rng(0).normal(size=(6, 7)).astype(np.float32)
    for made in (body, reading):
        op = counting(6, made, [INT, array, ROW])
        fn = sub_function("f", [INT, array, ROW], lambda *v, op=op: apply(op, *v))
        check(fn, np.int32(0), x, np.arange(7.0))
    op = counting(6, late, [INT, array, ROW, ROW])
    fn = sub_function("f", [INT, array, ROW, ROW], lambda *v: apply(op, *v))
    check(fn, np.int32(0), x, np.zeros(7), np.arange(7.0))


def test_two_writes_of_one_array_work_on_copies() -> None:
    array = TensorType("float32", (3, 2))

    def make(a: Value, i: Value) -> list[Value]:
        one = array_write(a, i, np.ones(2, np.float32))
        other = array_write(a, i, np.full(2, 5, np.float32))
        return [one, other, reduce_sum(a)]

    fn = sub_function("f", [array, INT], make)
    assert [n.op.type_name for n in order_arrays(fn).nodes].count("CopyArray") == 2
    check(fn, np.arange(6.0).reshape(3, 2), np.int32(1))


def test_index_out_of_range_is_reported() -> None:
    from tinyflow.core.error import InvalidArgumentError

    fn = sub_function(
        "f", [TensorType("float32", (3, 2)), INT], lambda a, i: [array_read(a, i) * 2.0]
    )
    compiled = compile_function(fn)
    with pytest.raises(InvalidArgumentError, match="index 3 is out of range"):
        compiled(np.zeros((3, 2)), np.int32(3))


@pytest.mark.parametrize(
    ("start", "step", "name", "limit", "trips"),
    [
        (0, 1, "<", 10, 10), (0, 3, "<", 10, 4), (0, 3, "<=", 9, 4), (5, -1, ">", 0, 5),
        (5, -2, ">=", 0, 3), (3, 1, "<", 3, 0), (9, 1, "<", 3, 0), (0, -1, "<", 3, None),
    ],
)  # fmt: skip
def test_trip_counts(start: int, step: int, name: str, limit: int, trips: int | None) -> None:
    compare = {"<": "__lt__", "<=": "__le__", ">": "__gt__", ">=": "__ge__"}[name]
    op = While(
        sub_function("cond", [INT], lambda i: [getattr(i, compare)(limit)]),
        sub_function("body", [INT], lambda i: [i + step]),
        1,
    )

    def make() -> list[Value]:
        from tinyflow.ops import constant

        return apply(op, constant(np.int32(start)))

    node = sub_function("f", [], make).outputs[0].node
    found = trip_count(op, node.inputs)
    assert (None if found is None else found.bound) == trips
    if trips is not None:
        counted, i = 0, start
        while getattr(i, compare)(limit):
            counted, i = counted + 1, i + step
        assert found is not None and found.exact and counted == trips


def test_final_counter_becomes_a_constant() -> None:
    op = counting(8, lambda i, x, c: [i + 2, x + c], [INT, ROW, ROW])

    def make(x: Value) -> list[Value]:
        from tinyflow.ops import constant

        i, y = apply(op, constant(np.int32(1)), x, x)
        return [add(multiply(i, 2), 0), y]

    written = sub_function("f", [ROW], make)
    pure = functionalize(written.outputs, (), written.inputs)
    found = specialize(pure, [ROW])
    assert found.outputs[0].node.op.type_name == "Constant"
    assert int(found.outputs[0].node.op.reference()) == 18
