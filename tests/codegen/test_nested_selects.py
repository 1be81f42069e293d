"""Chains of selects over one load stay linear in native code."""

import numpy as np

from tests.codegen.harness import check
from tinyflow.codegen.llvm import lower_to_llvm
from tinyflow.core.dtype import int32
from tinyflow.ir.loop.nodes import Buffer, For, Kernel, Store
from tinyflow.ir.scalar import nodes as s
from tinyflow.schedule.targets import host_target


def test_powers_by_squaring_are_written_once_per_bit():
    x, y, z = (Buffer(n, int32, (64,)) for n in "xyz")
    i = s.var("i")
    base, exponent, result = s.load(x, i), s.load(y, i), s.const(1, int32)
    for bit in range(31):
        take = ((exponent >> bit) & 1).not_equal(0)
        result = s.select(take, result * base, result)
        base = base * base
    body = (For(i, 64, "serial", (Store(z, (i,), result),)),)
    kernel = Kernel("power", (x, y, z), (), body, ("z",))
    text = lower_to_llvm(kernel, host_target())
    assert text.count("select") < 100
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-5, 6, 64).astype(np.int32), rng.integers(0, 9, 64).astype(np.int32)]
    check(kernel, [*arrays, np.zeros(64, np.int32)])

