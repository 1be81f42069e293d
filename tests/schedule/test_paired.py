"""Products and convolutions of int8 and int16: exact, by pairs of terms where that pays."""

from __future__ import annotations

import numpy as np
import pytest

import tinyflow as tf
from tests.codegen.harness import check
from tinyflow.codegen.llvm import lower_to_llvm
from tinyflow.compile import compile_function
from tinyflow.core import options
from tinyflow.core.dtype import as_dtype, int32
from tinyflow.core.error import InternalError
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Function, Input, TensorType
from tinyflow.ir.loop.nodes import SERIAL, VECTORIZE, Buffer, For, Kernel, Store
from tinyflow.ir.loop.text import show
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import text
from tinyflow.ir.scalar.verify import verify
from tinyflow.ops import add, cast, conv, matmul
from tinyflow.schedule.targets import host_target


def integers(rng, shape, dtype):
    low = np.iinfo(dtype)
    return rng.integers(low.min, low.max + 1, shape, dtype=dtype)


def compiled(build, *arrays):
    with building(Builder()) as builder:
        inputs = [
            builder.emit(Input(TensorType(as_dtype(a.dtype), a.shape), "argument", f"a{n}"), (),
                         f"x{n}")
            for n, a in enumerate(arrays)
        ]  # fmt: skip
        result = build(*inputs)
    return compile_function(Function("f", inputs, [result]))


def kernels_of(program):
    return [show(lowered.kernel) for lowered in program.plan.kernels]


PRODUCTS = [
    ((70, 33, 40), ("int8", "int8"), 4), ((70, 33, 40), ("int8", "int8"), 8),
    ((70, 33, 40), ("int8", "int8"), 16), ((57, 1031, 19), ("uint8", "int8"), 16),
    ((130, 40, 3), ("int16", "int16"), 16), ((1, 65, 70), ("int8", "int8"), 16),
    ((66, 65, 70), ("int8", "int32"), 16), ((6, 4, 5), ("int8", "int8"), 16),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "dtypes", "lanes"), PRODUCTS)
def test_products_are_exact(shape, dtypes, lanes):
    m, k, n = shape
    rng = np.random.default_rng(m)
    for flip_a, flip_b in ((False, False), (True, False), (False, True)):
        a = integers(rng, (k, m) if flip_a else (m, k), dtypes[0])
        b = integers(rng, (n, k) if flip_b else (k, n), dtypes[1])
        want = (a.T if flip_a else a).astype(np.int64) @ (b.T if flip_b else b).astype(np.int64)

        def build(x, y, flips=(flip_a, flip_b)):
            return add(matmul(cast(x, "int32"), cast(y, "int32"), *flips), 1)

        with options.override(lanes=lanes):
            (got,) = compiled(build, a, b)(a, b)
        np.testing.assert_array_equal(got, (want + 1).astype(np.int32))


@pytest.mark.parametrize("case", [
    ((2, 9, 8, 17), (3, 2, 17, 33), (1, 1), "SAME"), ((1, 8, 9, 16), (3, 3, 16, 5), (2, 1), "SAME"),
    ((2, 7, 7, 32), (1, 1, 32, 8), (1, 1), "VALID"), ((1, 9, 8, 3), (5, 3, 3, 40), (1, 2), "VALID"),
    ((1, 6, 7, 24), (3, 3, 8, 12), (1, 1), "SAME"),
])  # fmt: skip
def test_convolutions_are_exact(case):
    x_shape, w_shape, strides, padding = case
    rng = np.random.default_rng(1)
    x, w = integers(rng, x_shape, "int8"), integers(rng, w_shape, "int8")

    def build(a, b):
        return conv(cast(a, "int32"), cast(b, "int32"), strides, padding)

    (got,) = compiled(build, x, w)(x, w)
    wide = tf.nn.conv2d(x.astype(np.float64), w.astype(np.float64), strides, padding)
    with tf.Session() as session:
        np.testing.assert_array_equal(got, session.run(wide))


@pytest.mark.parametrize("stretched", [False, True])
def test_batches_are_exact(stretched):
    rng = np.random.default_rng(5)
    a = integers(rng, (3, 66, 41), "int8")
    b = integers(rng, (41, 50) if stretched else (3, 41, 50), "uint8")
    (got,) = compiled(lambda x, y: matmul(cast(x, "int32"), cast(y, "int32")), a, b)(a, b)
    np.testing.assert_array_equal(got, a.astype(np.int32) @ b.astype(np.int32))


def test_operands_stay_as_they_are_in_memory():
    """One kernel packs, one multiplies pairs; no widened copy, not even of the padded image."""
    rng = np.random.default_rng(2)
    x, w = integers(rng, (1, 20, 20, 32), "int8"), integers(rng, (3, 3, 32, 32), "int8")

    def build(a, b):
        return conv(cast(a, "int32"), cast(b, "int32"), (1, 1), "SAME")

    texts = kernels_of(compiled(build, x, w))
    assert any("dot_pairs" in t for t in texts) == (host_target().pair_product is not None)
    assert not any(t.startswith("kernel map_") and "int32" in t.splitlines()[0] for t in texts)


def test_unknown_sizes():
    x = tf.placeholder(tf.int8, [None, 70])
    w = tf.constant(integers(np.random.default_rng(3), (70, 40), "int8"))
    y = tf.matmul(x, w, output_type=tf.int32)
    with tf.Session() as session:
        weights = session.run(w).astype(np.int32)
        for rows in (65, 3, 130, 0, 1, 64):
            values = integers(np.random.default_rng(rows), (rows, 70), "int8")
            np.testing.assert_array_equal(
                session.run(y, {x: values}), values.astype(np.int32) @ weights
            )


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_the_operation_means_the_same_everywhere(lanes):
    """Interpreter, text, native code: as vectors with the instruction, and as a scalar."""
    extremes = np.array([[-32768, 32767], [-1, 1], [127, -128], [-32768, -32768]], np.int16)
    rng = np.random.default_rng(4)
    halves = np.concatenate([extremes, integers(rng, (60, 2), "int16")])
    a, b = halves.copy().view(np.int32).ravel(), halves[::-1].copy().view(np.int32).ravel()
    c = integers(rng, (64,), "int32")
    wide = halves.astype(np.int64)
    want = ((wide * wide[::-1]).sum(1) + c).astype(np.int32)
    buffers = [Buffer(n, int32, (64,)) for n in ("a", "b", "c", "y")]
    i, lane = s.var("i"), s.var("lane")
    for kind in (SERIAL, VECTORIZE):
        at = i * lanes + lane
        value = s.dot_pairs(*(s.load(buffer, at) for buffer in buffers[:3]))
        inner = For(lane, lanes, kind, (Store(buffers[3], (at,), value),))
        kernel = Kernel("k", tuple(buffers), (), (For(i, 64 // lanes, SERIAL, (inner,)),), ("y",))
        found = check(kernel, [a, b, c, np.zeros(64, np.int32)], lanes=lanes)
        np.testing.assert_array_equal(found[3], want)
        used = ".pmadd" in lower_to_llvm(kernel, host_target().with_lanes(lanes))
        has = host_target().with_lanes(lanes).pair_product is not None
        assert used == (kind == VECTORIZE and has)


def test_the_operation_is_text():
    names = {n: s.var(n) for n in "i"}
    value = s.dot_pairs(*(s.cast(names["i"] + n, int32) for n in range(3)))
    assert text.parse(text.show(value), names) is value
    with pytest.raises(InternalError, match="int32"):
        verify(s.dot_pairs(*[names["i"]] * 3))
