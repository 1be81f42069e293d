"""Random loops, branches and arrays, and their gradients, against the reference interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyflow import ops
from tinyflow.autodiff.reverse import gradients
from tinyflow.compile.step import compile_function
from tinyflow.core import options
from tinyflow.ir.graph import interp
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Function, TensorType, Value
from tinyflow.ops.base import emit
from tinyflow.ops.control import If, While, new_input, outputs_of, sub_function
from tinyflow.ops.tensor_array import array_read, array_write
from tinyflow.passes.functionalize import functionalize
from tinyflow.passes.specialize import specialize

SEEDS = range(100)
INT = TensorType("int32", ())


class _Maker:
    """One shape for all values of a case, so that any of them may meet."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        shape = tuple(int(e) for e in self.rng.choice([1, 2, 5, 17], int(self.rng.integers(0, 3))))
        self.type = TensorType("float64", shape)
        self.rows = int(self.rng.integers(1, 6))
        self.array = TensorType("float64", (self.rows, *shape))

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def pick(self, values: list[Any]) -> Any:
        return values[int(self.rng.integers(len(values)))]

    def value(self, values: list[Value], depth: int = 2) -> Value:
        """A bounded expression of some of the values."""
        x = self.pick(values)
        for _ in range(int(self.rng.integers(0, depth + 1))):
            y = self.pick(values)
            x = self.pick([
                lambda x=x, y=y: ops.tanh(x * y + 0.3), lambda x=x, y=y: ops.tanh(x - y),
                lambda x=x, y=y: x * 0.5 + y * 0.25, lambda x=x, y=y: ops.sigmoid(x),
            ])()  # fmt: skip
        return x

    def branch(self, values: list[Value]) -> list[Value]:
        types = [v.type for v in values]
        branches = [
            sub_function("branch", types, lambda *v: [self.value(list(v)), self.value(list(v))])
            for _ in range(2)
        ]
        pred = ops.reduce_sum(values[0]) > float(self.rng.normal())
        return list(outputs_of(emit(If(*branches), pred, *values)))

    def loop(self, limit: Any, values: list[Value], array: Value, deep: bool) -> list[Value]:
        """A loop over some values and the array; invariant ones are the others."""
        n = int(self.rng.integers(1, len(values) + 1))
        types = [INT, *[self.type] * n, self.array, INT, *[self.type] * (len(values) - n)]

        def body(i: Value, *rest: Value) -> list[Value]:
            known, a = list(rest[:n]) + list(rest[n + 2 :]), rest[n]
            row = ops.floormod(i, self.rows)
            if self.chance(0.5):
                known.append(array_read(a, row))
            if self.chance(0.3):
                known += self.branch(known)
            if deep and self.chance(0.6):
                known.append(self.loop(2, known[: n + 1], a, False)[0])
            if self.chance(0.7):
                a = array_write(a, row, self.value(known))
            if self.chance(0.3):
                known.append(array_read(a, row) * 0.5)
            return [i + 1, *[self.value(known) for _ in range(n)], a]

        op = While(
            sub_function("cond", types, lambda i, *v: [i < v[n + 1]]),
            sub_function("body", types, body),
            n + 2,
        )
        zero = ops.constant(np.int32(0))
        limit = limit if isinstance(limit, Value) else ops.constant(np.int32(limit))
        found = outputs_of(emit(op, zero, *values[:n], array, limit, *values[n:]))
        return [*found[1 : n + 1], *values[n:], found[n + 1]]


def random_loop(seed: int) -> tuple[Function, list[np.ndarray], _Maker]:
    """limit, values, array -> results and gradients by the values and the array."""
    maker = _Maker(seed)
    with building(Builder()):
        limit = new_input(INT)
        values = [new_input(maker.type) for _ in range(3)]
        array = new_input(maker.array)
        fixed = int(maker.rng.integers(0, 6)) if maker.chance(0.5) else limit
        results = maker.loop(fixed, values, array, maker.chance(0.4))
        total = results[:1] + [results[-1]]
        found = gradients(total, [*values, array])
        outputs = [*results, *[g for g in found if g is not None]]
    inputs = [limit, *values, array]
    written = functionalize(outputs, (), inputs)
    fn = specialize(written, [v.type for v in inputs])
    arrays: list[np.ndarray] = [np.array(int(maker.rng.integers(0, 6)), np.int32)]
    arrays += [maker.rng.uniform(-1, 1, v.type.shape) for v in inputs[1:]]
    return fn, arrays, maker


@pytest.mark.parametrize("seed", SEEDS)
def test_loops_and_their_gradients(seed: int) -> None:
    fn, arrays, maker = random_loop(seed)
    wanted = interp.run(fn, arrays)
    with options.override(level=maker.pick([0, 1, 2, 2])):
        compiled = compile_function(fn, fuse=maker.chance(0.7))
    for _ in range(2):
        for found, expected in zip(compiled(*arrays), wanted, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
