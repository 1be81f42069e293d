"""ir/loop/interp.py: semantics of loops, lanes and masks; what check mode finds."""

import numpy as np
import pytest

from tests.ir.loop.programs import i, j, lane, row_sums, scale
from tinyflow.core.dtype import float32, int64
from tinyflow.core.error import InternalError
from tinyflow.ir.loop.interp import run
from tinyflow.ir.loop.nodes import Alloc, Buffer, For, If, Kernel, Store
from tinyflow.ir.scalar import nodes as s


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 50])
def test_masked_tail(size):
    x = np.arange(size, dtype=np.float32)
    y = np.zeros(size, np.float32)
    run(scale(), (x, y), {"N": size})
    np.testing.assert_array_equal(y, 2 * x)


def test_begin_end():
    x, y = np.ones(50, np.float32), np.zeros(50, np.float32)
    run(scale(), (x, y), (50,), begin=1, end=3)
    np.testing.assert_array_equal(y, [0] * 16 + [2] * 32 + [0] * 2)


def test_fold_is_the_tree():
    x = np.random.default_rng(0).normal(size=(5, 19)).astype(np.float32)
    y = np.zeros(5, np.float32)
    run(row_sums(), (x, y), (19,))
    lanes = np.zeros((5, 8), np.float32)
    for start in (0, 8, 16):
        part = x[:, start : start + 8]
        lanes[:, : part.shape[1]] += part
    four = lanes[:, :4] + lanes[:, 4:]
    two = four[:, :2] + four[:, 2:]
    np.testing.assert_array_equal(y, two[:, 0] + two[:, 1])


def kernel_of(body, buffers, outputs=("y",), tasks=1):
    return Kernel("k", buffers, (), body, outputs, tasks)


def test_lanes_of_one_statement_run_before_the_next():
    x = Buffer("x", int64, (8,))
    y = Buffer("y", int64, (8,))
    reverse = Store(x, (lane,), s.load(x, s.index(7) - lane))
    copy = Store(y, (lane,), s.load(x, s.index(7) - lane))
    a, b = np.arange(8), np.zeros(8, np.int64)
    run(kernel_of((For(lane, 8, "vectorize", (reverse, copy)),), (x, y), ("x", "y")), (a, b))
    np.testing.assert_array_equal(a, np.arange(8)[::-1])
    np.testing.assert_array_equal(b, np.arange(8))


def test_else_lanes_and_last_lane_wins():
    y = Buffer("y", int64, (4,))
    last = Buffer("last", int64, (1,))
    body = For(lane, 4, "vectorize", (
        If(lane < 1, (Store(y, (lane,), lane + 10),), (Store(y, (lane,), lane),)),
        If(lane < 3, (Store(last, (s.index(0),), lane),)),
    ))  # fmt: skip
    a, b = np.zeros(4, np.int64), np.zeros(1, np.int64)
    run(kernel_of((body,), (y, last), ("y", "last")), (a, b))
    assert a.tolist() == [10, 1, 2, 3] and b.tolist() == [2]


def test_select_guards_its_loads():
    x = Buffer("x", float32, (3,))
    y = Buffer("y", float32, (8,))
    value = s.select(lane < 3, s.load(x, lane), 0.0)
    out = np.ones(8, np.float32)
    run(kernel_of((For(lane, 8, "vectorize", (Store(y, (lane,), value),)),), (x, y)),
        (np.array([1, 2, 3], np.float32), out))  # fmt: skip
    assert out.tolist() == [1, 2, 3, 0, 0, 0, 0, 0]


def test_float_conditions_do_not_guard():
    x = Buffer("x", float32, (3,))
    y = Buffer("y", float32, (8,))
    value = s.select(s.load(y, lane) < 0.0, s.load(x, lane), 0.0)
    body = (For(lane, 8, "vectorize", (Store(y, (lane,), value),)),)
    with pytest.raises(InternalError, match=r"outside shape"):
        run(kernel_of(body, (x, y)), (np.zeros(3, np.float32), np.zeros(8, np.float32)))


def test_checked_reports_the_first_lane():
    status = Buffer("status", int64, (4,))
    y = Buffer("y", int64, (8,))
    value = s.checked(lane, lane < 5, lane * 7, s.index(5), s.INDEX_OUT_OF_RANGE)
    body = (For(lane, 8, "vectorize", (Store(y, (lane,), value),)),)
    state, out = np.zeros(4, np.int64), np.zeros(8, np.int64)
    run(kernel_of(body, (status, y)), (state, out))
    assert state.tolist() == [1, 0, 35, 5] and out.tolist() == list(range(8))


@pytest.mark.parametrize(
    "statement, message",
    [
        (lambda x, y, a: Store(y, (i + 1,), s.load(x, i)), "outside shape"),
        (lambda x, y, a: Store(y, (s.index(0),), s.load(x, i)), "races"),
        (lambda x, y, a: Store(y, (i,), s.load(y, s.index(0))), "races|reads what another"),
        (lambda x, y, a: Alloc(a, (Store(y, (i,), s.load(a, i // 4)),)), "before it is written"),
    ],
)
def test_check_mode_finds(statement, message):
    x, y = Buffer("x", float32, (4,)), Buffer("y", float32, (4,))
    a = Buffer("a", float32, (2,), "stack")
    kernel = kernel_of((For(i, 4, "parallel", (statement(x, y, a),)),), (x, y), tasks=4)
    with pytest.raises(InternalError, match=message):
        run(kernel, (np.zeros(4, np.float32), np.zeros(4, np.float32)))


def test_in_place_is_no_race():
    x, y = Buffer("x", float32, (4,)), Buffer("y", float32, (4,))
    kernel = kernel_of((For(i, 4, "parallel", (Store(y, (i,), s.load(x, i) + 1.0),)),), (x, y),
                       tasks=4)  # fmt: skip
    a = np.zeros(4, np.float32)
    run(kernel, (a, a))
    assert a.tolist() == [1, 1, 1, 1]


def test_serial_and_unroll_nest():
    y = Buffer("y", int64, (3, 4))
    body = For(i, 3, "serial", (For(j, 4, "unroll", (Store(y, (i, j), i * 4 + j),)),))
    out = np.zeros((3, 4), np.int64)
    run(kernel_of((body,), (y,)), (out,))
    assert out.tolist() == np.arange(12).reshape(3, 4).tolist()
