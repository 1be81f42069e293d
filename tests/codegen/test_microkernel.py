"""A register-tiled matmul in loop IR becomes the code one would write by hand."""

import re

import numpy as np
import pytest

from tests.codegen.harness import assembly, check
from tests.ir.loop.programs import i, j, k, lane
from tinyflow.codegen.llvm import lower_module, lower_to_llvm
from tinyflow.codegen.machine import PASSES, target_machine
from tinyflow.core.dtype import float32
from tinyflow.core.error import InternalError
from tinyflow.ir.loop.nodes import Alloc, Barrier, Buffer, For, Kernel, Store
from tinyflow.ir.scalar import nodes as s
from tinyflow.runtime import jit
from tinyflow.schedule.targets import host_target

HOST = host_target()
avx512 = pytest.mark.skipif(HOST.lanes != 16, reason="the expected code is for AVX-512")


def tile(rows, columns, lanes, depth=None):
    """C[rows, columns] += A.T @ B on packed panels A[K, rows], B[K, columns]."""
    depth = s.var("K") if depth is None else depth
    a = Buffer("A", float32, (depth, rows))
    b = Buffer("B", float32, (depth, columns))
    c = Buffer("C", float32, (rows, columns))
    acc = Buffer("acc", float32, (rows, columns), "register")

    def nest(statement):
        vector = For(lane, lanes, "vectorize", (statement(j * lanes + lane),))
        return For(i, rows, "unroll", (For(j, columns // lanes, "unroll", (vector,)),))

    read = nest(lambda at: Store(acc, (i, at), s.load(c, i, at)))
    step = nest(lambda at: Store(acc, (i, at), s.fma(
        s.load(a, k, i), s.load(b, k, at), s.load(acc, i, at))))  # fmt: skip
    write = nest(lambda at: Store(c, (i, at), s.load(acc, i, at)))
    body = (Alloc(acc, (read, For(k, depth, "serial", (step,)), write)),)
    extents = (depth,) if isinstance(depth, s.Expr) else ()
    return Kernel(f"tile{rows}x{columns}", (a, b, c), extents, body, ("C",))


@pytest.mark.parametrize("lanes", [16, 8, 4])
def test_values(lanes):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in ((9, 3), (9, 32), (3, 32))]
    expected = arrays[2] + arrays[0].T.astype(np.float64) @ arrays[1]
    c = check(tile(3, 32, lanes), arrays, (9,), lanes)[2]
    np.testing.assert_allclose(c, expected, rtol=1e-5, atol=1e-5)


@avx512
@pytest.mark.parametrize("rows, columns", [(12, 32), (14, 32), (6, 64), (28, 16)])
def test_accumulators_stay_in_registers(rows, columns):
    code = assembly(tile(rows, columns, 16))
    assert code.count("vfmadd231ps") == rows * columns // 16
    assert not re.search(r"\(%r[sb]p\)", code), "spills"
    # With one vector per row the broadcast is an operand of the fma, otherwise fma share it.
    assert code.count("vbroadcastss") + code.count("{1to16}") == rows


def test_text_is_deterministic():
    assert lower_to_llvm(tile(6, 32, 16), HOST) == lower_to_llvm(tile(6, 32, 16), HOST)


def test_several_kernels_share_a_module():
    text = lower_module((tile(2, 16, 16), tile(3, 16, 16)), HOST)
    image = jit.compile_object(text, target_machine(HOST), passes=PASSES)
    assert len(set(jit.load_symbols(image, ("tile2x16", "tile3x16")).values())) == 2


def test_statements_of_other_targets_are_refused():
    with pytest.raises(InternalError, match="Barrier"):
        lower_to_llvm(Kernel("k", (), (), (Barrier(),), ()), HOST)


def test_lane_variants():
    assert HOST.with_lanes(0) is HOST and HOST.with_lanes(HOST.lanes) is HOST
    narrow = HOST.with_lanes(4)
    assert (narrow.lanes, narrow.cpu, narrow.vector_bits) == (4, HOST.cpu, 128)
