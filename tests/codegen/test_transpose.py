"""Squares turned in registers: the same bytes as the interpreter's."""

import numpy as np
import pytest

from tests.codegen.harness import check
from tinyflow.core.dtype import float32, int32
from tinyflow.ir.loop.nodes import Buffer, Call, For, Kernel
from tinyflow.ir.loop.visit import buffers_read, buffers_written
from tinyflow.ir.scalar import nodes as s


@pytest.mark.parametrize("lanes", [16, 8, 4])
@pytest.mark.parametrize("dtype", [float32, int32], ids=str)
def test_blocks_of_a_matrix(dtype, lanes):
    rows, columns = 3 * lanes, 2 * lanes
    source = Buffer("in0", dtype, (rows * columns,))
    target = Buffer("out0", dtype, (rows * columns,))
    i, j = s.var("i"), s.var("j")
    turn = Call(
        "transpose",
        (target, (j * lanes) * rows + i * lanes, s.index(rows),
         source, (i * lanes) * columns + j * lanes, s.index(columns), s.index(lanes)),
    )  # fmt: skip
    body = (For(i, 3, "serial", (For(j, 2, "serial", (turn,)),)),)
    assert buffers_read(body) == (source,) and buffers_written(body) == (target,)
    kernel = Kernel("turn", (source, target), (), body, ("out0",))
    matrix = np.arange(rows * columns, dtype=dtype.numpy)
    _, turned = check(kernel, [matrix, np.zeros_like(matrix)])
    expected = matrix.reshape(rows, columns).T
    np.testing.assert_array_equal(turned.reshape(columns, rows), expected)
