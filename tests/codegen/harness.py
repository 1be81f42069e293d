"""Runs a kernel natively and in the interpreter and compares every byte."""

import ctypes

import numpy as np

from tinyflow.codegen.llvm import lower_to_llvm
from tinyflow.codegen.machine import PASSES, target_machine
from tinyflow.ir.loop.interp import run as interpret
from tinyflow.ir.loop.verify import verify
from tinyflow.runtime import jit
from tinyflow.schedule.targets import host_target

_SIGNATURE = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64
)


def compiled(kernel, lanes=0, passes=PASSES):
    """A function of (arrays, extents, begin, end)."""
    verify(kernel)
    target = host_target().with_lanes(lanes)
    text = lower_to_llvm(kernel, target)
    image = jit.compile_object(text, target_machine(target), passes=passes)
    native = _SIGNATURE(jit.load_object(image, kernel.name))

    def call(arrays, extents=(), begin=0, end=1):
        pointers = (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
        numbers = (ctypes.c_int64 * max(1, len(extents)))(*extents)
        native(pointers, numbers, begin, end)

    return call


def assembly(kernel, passes=PASSES):
    target = host_target()
    return jit.assembly(lower_to_llvm(kernel, target), target_machine(target), passes=passes)


def same_bits(a, b):
    """Equal bytes, except that a NaN equals every NaN: payloads are not part of the meaning."""
    if a.dtype.kind == "f":
        both = np.isnan(a) & np.isnan(b)
        a, b = np.where(both, 0, a), np.where(both, 0, b)
    np.testing.assert_array_equal(a.view(np.uint8), b.view(np.uint8))


def check(kernel, arrays, extents=(), lanes=0, begin=0, end=1):
    """Native code and interpreter leave the same bytes in all arrays."""
    expected = [a.copy() for a in arrays]
    actual = [a.copy() for a in arrays]
    interpret(kernel, expected, extents, begin, end)
    compiled(kernel, lanes)(actual, extents, begin, end)
    for a, b in zip(actual, expected, strict=True):
        same_bits(a, b)
    return actual
