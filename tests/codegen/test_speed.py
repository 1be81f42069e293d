"""Speed of the generator and of what it generates; `pytest -m slow`."""

import time

import numpy as np
import pytest

from tests.codegen.harness import compiled
from tests.codegen.test_microkernel import HOST, avx512, tile
from tests.ir.loop.programs import i, k, lane
from tinyflow.codegen.llvm import lower_to_llvm
from tinyflow.core.dtype import float32
from tinyflow.ir.loop.nodes import Alloc, Buffer, For, Kernel, Store
from tinyflow.ir.scalar import nodes as s

DEPTH, REPEATS = 256, 2000
pytestmark = pytest.mark.slow


def seconds(function, rounds=15):
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def repeated(kernel):
    """The kernel's body once per task."""
    again = s.var("again")
    body = (For(again, REPEATS, "parallel", kernel.body),)
    return Kernel(kernel.name, kernel.buffers, kernel.extents, body, kernel.outputs, REPEATS)


def flops_per_second(kernel, arrays, flops):
    native = compiled(repeated(kernel))
    return flops * REPEATS / seconds(lambda: native(arrays, (), 0, REPEATS))


def only_fma():
    """24 independent chains of fma: what the core can do at most."""
    x, y = Buffer("x", float32, (2,)), Buffer("y", float32, (16,))
    acc = Buffer("acc", float32, (24, 16), "register")

    def nest(statement):
        return For(i, 24, "unroll", (For(lane, 16, "vectorize", (statement,)),))

    value = s.fma(s.load(acc, i, lane), s.load(x, s.index(0)), s.load(x, s.index(1)))
    body = Alloc(acc, (
        nest(Store(acc, (i, lane), s.const(0, float32))),
        For(k, DEPTH, "serial", (nest(Store(acc, (i, lane), value)),)),
        nest(Store(y, (lane,), s.load(y, lane) + s.load(acc, i, lane))),
    ))  # fmt: skip
    return Kernel("only_fma", (x, y), (), (body,), ("y",))


@avx512
def test_microkernel_reaches_the_peak():
    arrays = [np.ones(2, np.float32), np.zeros(16, np.float32)]
    peak = flops_per_second(only_fma(), arrays, 2 * 24 * 16 * DEPTH)
    panels = [np.ones(shape, np.float32) for shape in ((DEPTH, 12), (DEPTH, 32), (12, 32))]
    speed = flops_per_second(tile(12, 32, 16, DEPTH), panels, 2 * 12 * 32 * DEPTH)
    assert speed > 0.85 * peak, f"{speed / 1e9:.0f} of {peak / 1e9:.0f} GFLOP/s"


def test_emission_is_cheap():
    kernel = tile(12, 32, 16)
    lines = lower_to_llvm(kernel, HOST).count("\n")
    per_line = seconds(lambda: lower_to_llvm(kernel, HOST)) / lines
    assert per_line < 10e-6, f"{per_line * 1e6:.1f} us per instruction"
