"""Random loop nests: masks, guarded loads, unrolled and nested loops, stores that undo hoisting.

A failure prints its seed: `python -m pytest tests/codegen/test_fuzz.py -k "seed17]"`.
"""

import random

import numpy as np
import pytest

from tests.codegen.harness import check
from tests.ir.loop.programs import N, k, lane
from tinyflow.core.dtype import float32
from tinyflow.ir.loop.nodes import Alloc, Buffer, For, If, Kernel, Store
from tinyflow.ir.loop.text import parse, show
from tinyflow.ir.scalar import nodes as s


class Generator:
    """One random kernel: x is read; y, z and the register buffer acc are read and written."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.lanes = self.random.choice([4, 8, 16])
        self.count = 0
        self.x, self.y = (Buffer(n, float32, (N, N)) for n in "xy")
        self.z = Buffer("z", float32, (N,))
        self.acc = Buffer("acc", float32, (4, self.lanes), "register")

    def kernel(self, name):
        value = s.cast(lane + k, float32)
        clear = For(lane, self.lanes, "vectorize", (Store(self.acc, (k, lane), value),))
        body = (For(k, 4, "unroll", (clear,)), *self.body([], None, 4))
        return Kernel(name, (self.x, self.y, self.z), (N,), (Alloc(self.acc, body),), ("y", "z"))

    def chance(self, probability):
        return self.random.random() < probability

    def index(self, variables):
        e = s.index(self.random.randint(0, 3))
        for v in variables:
            if self.chance(0.6):
                e = e + v * self.random.choice([1, 1, 1, 2, 3, -1])
        if self.chance(0.3):
            e = e // self.random.choice([2, 3, 4, self.lanes])
        return e % N if self.chance(0.7) else s.minimum(s.maximum(e, s.index(0)), N - 1)

    def condition(self, variables):
        chosen = [v * self.random.choice([1, 1, -1, 2]) for v in variables if self.chance(0.7)]
        a = sum(chosen, s.index(self.random.randint(-2, 5)))
        b = self.random.choice([N, s.index(self.random.randint(0, 20)), *variables])
        result = s.compare(self.random.choice(sorted(s.COMPARE)), a, b)
        if self.chance(0.3):
            result = result & self.condition(variables)
        return ~result if self.chance(0.15) else result

    def row(self, unrolled):
        return s.index(self.random.randint(0, 3)) if unrolled is None else unrolled % 4

    def leaf(self, variables, unrolled):
        if lane in variables and self.chance(0.2):
            at = self.random.choice([lane, s.index(1), s.index(self.lanes - 1) - lane])
            return s.load(self.acc, self.row(unrolled), at)
        buffer = self.random.choice([self.x, self.x, self.y, self.z])
        return s.load(buffer, *(self.index(variables) for _ in buffer.shape))

    def expression(self, variables, unrolled, depth):
        def inner():
            return self.expression(variables, unrolled, depth - 1)

        form = self.random.choice(["leaf", "leaf", "guard", "select", "fma", "plain", "plain"])
        if depth == 0 or form == "leaf":
            return self.leaf(variables, unrolled)
        if form == "guard":  # in range only where the condition holds
            signs = [v * self.random.choice([1, -1]) for v in variables]
            at = sum(signs, s.index(self.random.randint(-3, 3)))
            return s.select((s.index(0) <= at) & (at < N), s.load(self.x, at, at), inner())
        if form == "select":
            return s.select(self.condition(variables), inner(), inner())
        if form == "fma":
            return s.fma(inner(), inner(), inner())
        return s.binary(self.random.choice(["add", "sub", "mul", "max", "min"]), inner(), inner())

    def store(self, variables, unrolled):
        value = self.expression(variables, unrolled, 2)
        if lane in variables and self.chance(0.3):
            return Store(self.acc, (self.row(unrolled), lane), value)
        buffer = self.random.choice([self.y, self.z])
        return Store(buffer, tuple(self.index(variables) for _ in buffer.shape), value)

    def body(self, variables, unrolled, depth):
        count = self.random.randint(1, 3)
        return tuple(self.statement(variables, unrolled, depth) for _ in range(count))

    def statement(self, variables, unrolled, depth):
        form = self.random.choice(["store", "store", "if", "vectorize", "unroll", "serial"])
        if depth == 0 or form == "store" or (form == "vectorize" and lane in variables):
            return self.store(variables, unrolled)
        if form == "if":
            orelse = self.body(variables, unrolled, depth - 1) if self.chance(0.4) else ()
            return If(self.condition(variables), self.body(variables, unrolled, depth - 1), orelse)
        if form == "vectorize":
            inside = self.body([*variables, lane], unrolled, depth - 1)
            return For(lane, self.lanes, form, inside)
        self.count += 1
        var = s.var(f"{form[0]}{self.count}")
        if form == "unroll":
            extent, unrolled = self.random.randint(1, 3), var
        else:
            extent = self.random.choice([1, 3, N // 4, N])
        return For(var, extent, form, self.body([*variables, var], unrolled, depth - 1))


@pytest.mark.parametrize("seed", range(40), ids="seed{}".format)
def test_random_nest(seed):
    kernel = Generator(seed).kernel(f"fuzz{seed}")
    assert show(parse(show(kernel))) == show(kernel)
    rng = np.random.default_rng(seed)
    size = int(rng.choice([1, 3, 7, 20]))
    arrays = [
        np.round(rng.normal(size=shape) * 4).astype(np.float32) / 4
        for shape in ((size, size), (size, size), (size,))
    ]
    check(kernel, arrays, (size,), 0)
