"""Addresses, masks, registers and folds: native code == interpreter, bit for bit."""

import numpy as np
import pytest

from tests.codegen.harness import check, compiled
from tests.ir.loop.programs import N, i, j, k, lane, row_sums, scale
from tinyflow.codegen.llvm import STACK_LIMIT_BYTES, lower_to_llvm
from tinyflow.core.dtype import bool_, float32, float64, int32, int64
from tinyflow.core.error import InternalError
from tinyflow.ir.loop.nodes import Alloc, Buffer, For, If, Kernel, Store
from tinyflow.ir.scalar import nodes as s
from tinyflow.schedule.targets import host_target

LANES = pytest.mark.parametrize("lanes", [16, 8, 4])
rng = np.random.default_rng(7)


def floats(*shape, dtype=np.float32):
    return rng.normal(size=shape).astype(dtype)


def kernel_of(body, buffers, outputs=("y",), extents=()):
    return Kernel("k", tuple(buffers), tuple(extents), tuple(body), outputs)


def vector(lanes, *body):
    return For(lane, lanes, "vectorize", body)


@LANES
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 50])
def test_masked_tail(size, lanes):
    tasks = -(-size // lanes)
    check(scale(lanes), [floats(size), floats(size)], (size,), lanes, 0, tasks)


def test_begin_and_end_are_respected():
    y = check(scale(), [floats(50), floats(50)], (50,), 0, 1, 3)[1]
    assert (y[16:48] != 0).all()


@LANES
def test_row_sums(lanes):
    check(row_sums(lanes=lanes), [floats(5, 37), floats(5)], (37,), lanes, 0, 5)


@LANES
@pytest.mark.parametrize("dtype", [bool_, float32, float64, int32, int64], ids=str)
def test_strides(dtype, lanes):
    """Contiguous, backwards, strided by a constant, by an extent, transposed, broadcast."""
    x = Buffer("x", dtype, (3, N))
    y = Buffer("y", dtype, (6, lanes))
    rows = [
        s.load(x, i, lane),
        s.load(x, i, s.index(lanes - 1) - lane),
        s.load(x, i, lane * 3 + 1),
        s.load(x, lane % 3, lane),
        s.load(x, i, s.index(5)),
        s.load(x, lane // 8 + i, j + 2),
    ]
    stores = [Store(y, (s.index(n), lane), value) for n, value in enumerate(rows)]
    body = For(i, 1, "serial", (For(j, 2, "serial", (vector(lanes, *stores),)),))
    values = (rng.normal(size=(3, 61)) > 0) if dtype is bool_ else rng.integers(-9, 9, (3, 61))
    arrays = [values.astype(dtype.numpy), np.zeros((6, lanes), dtype.numpy)]
    check(kernel_of([body], [x, y], extents=(N,)), arrays, (61,), lanes)


@LANES
def test_gather_and_scatter(lanes):
    x, y = Buffer("x", float32, (50,)), Buffer("y", float32, (N,))
    at = Buffer("at", int32, (lanes,))
    index = s.cast(s.load(at, lane), int64)
    body = vector(
        lanes,
        Store(y, (index,), s.load(x, index + 3) + s.cast(lane, float32)),
        If((lane % 3).equal(0), (Store(y, (index + 20,), s.load(x, index)),)),
        Store(y, (lane * 2 + 40,), s.load(x, lane)),
    )
    positions = rng.integers(0, 12, lanes).astype(np.int32)  # some equal: the last lane wins
    arrays = [floats(50), positions, floats(80)]
    check(kernel_of([body], [x, at, y], extents=(N,)), arrays, (80,), lanes)


@LANES
def test_quotients_of_the_lane_stay_contiguous(lanes):
    x, y = Buffer("x", float32, (4, 2 * lanes)), Buffer("y", float32, (8 * lanes,))
    at = i * lanes + lane
    value = s.load(x, at // (2 * lanes), at % (2 * lanes))
    kernel = kernel_of([For(i, 8, "serial", (vector(lanes, Store(y, (at,), value)),))], [x, y])
    check(kernel, [floats(4, 2 * lanes), floats(8 * lanes)], (), lanes)
    assert "gather" not in lower_to_llvm(kernel, host_target())


@LANES
def test_unaligned_quotients(lanes):
    x, y = Buffer("x", float32, (60, 3)), Buffer("y", float32, (10 * lanes,))
    at = i * lanes + lane
    value = s.load(x, at // 3, at % 3)
    body = For(i, 10, "serial", (vector(lanes, If(at < N, (Store(y, (at,), value),))),))
    kernel = kernel_of([body], [x, y], extents=(N,))
    check(kernel, [floats(60, 3), floats(10 * lanes)], (39,), lanes)


@LANES
@pytest.mark.parametrize("operation", ["lt", "le", "eq", "ne"])
def test_lane_conditions(operation, lanes):
    """Comparisons of the lane variable, both ways round, with else, nested, and in select."""
    x, y = Buffer("x", float32, (8 * lanes,)), Buffer("y", float32, (4, 8, lanes))
    at = i * lanes + lane
    one, two = s.load(x, at), s.load(x, s.index(8 * lanes - 1) - at)
    forward, backward = s.compare(operation, at, j), s.compare(operation, j, at)
    body = For(i, 8, "serial", (vector(
        lanes,
        If(forward, (Store(y, (s.index(0), i, lane), one),)),
        If(backward, (Store(y, (s.index(1), i, lane), one),), (
            Store(y, (s.index(1), i, lane), two),)),
        If(forward, (If(one < 0.0, (Store(y, (s.index(2), i, lane), two),)),)),
        Store(y, (s.index(3), i, lane), s.select(backward & (two < 0.5), one, two)),
    ),))  # fmt: skip
    kernel = kernel_of([For(j, 5 * lanes, "serial", (body,))], [x, y])
    check(kernel, [floats(8 * lanes), floats(4, 8, lanes)], (), lanes)


@LANES
def test_select_does_not_load_outside(lanes):
    """A padded window: memory before and after x must not be touched (check mode sees it too)."""
    x, y = Buffer("x", float32, (N,)), Buffer("y", float32, (3, 4, lanes))
    at = i * lanes + lane - 2
    inside = (s.index(0) <= at) & (at < N)
    flag = s.index(3) < i
    body = For(i, 4, "serial", (vector(
        lanes,
        Store(y, (s.index(0), i, lane), s.select(inside, s.load(x, at), 0.0)),
        Store(y, (s.index(1), i, lane), s.select(flag, s.load(x, i * 10_000_000 + lane), 1.0)),
        Store(y, (s.index(2), i, lane), s.select(flag, s.load(x, i * 10_000_000), 1.0)),
    ),))  # fmt: skip
    for size in (0, 1, lanes, 3 * lanes + 1):
        kernel = kernel_of([body], [x, y], extents=(N,))
        check(kernel, [floats(size), floats(3, 4, lanes)], (size,), lanes)


@LANES
def test_scalar_select_does_not_load_outside(lanes):
    x, y = Buffer("x", float32, (4,)), Buffer("y", float32, (9,))
    value = s.select(i < 4, s.load(x, i) + 1.0, s.load(y, i))
    body = For(i, 9, "serial", (Store(y, (i,), value),))
    check(kernel_of([body], [x, y]), [floats(4), floats(9)], (), lanes)


@LANES
def test_masked_scalar_accesses(lanes):
    """One element for all lanes: loaded if some lane is active, stored by the last active one."""
    x, y = Buffer("x", float32, (N,)), Buffer("y", float32, (5,))
    acc = Buffer("acc", float32, (3,), "register")
    zero = s.index(0)
    clear = For(k, 3, "unroll", (Store(acc, (k,), s.const(0, float32)),))
    body = For(i, 6, "serial", (vector(
        lanes,
        If(lane + i * 3 < N, (
            Store(y, (s.index(1),), s.cast(lane + i, float32)),
            Store(y, (s.index(2),), s.load(x, i * 3)),
            Store(acc, (zero,), s.cast(lane, float32) + s.load(x, i * 3)),
            Store(acc, (s.index(1),), s.load(x, i * 3)),
        )),
        Store(acc, (s.index(2),), s.cast(lane * i, float32)),
    ),))  # fmt: skip
    save = For(k, 3, "unroll", (Store(y, (k + 2,), s.load(acc, k)),))
    kernel = kernel_of([Alloc(acc, (clear, body, save))], [x, y], extents=(N,))
    check(kernel, [floats(11), floats(5)], (11,), lanes)


@LANES
@pytest.mark.parametrize("combiner", ["sum", "prod", "max", "min"])
@pytest.mark.parametrize("size", [16, 64, 8, 4, 12, 1])
def test_fold(size, combiner, lanes):
    x, y = Buffer("x", float32, (size,)), Buffer("y", float32, (1,))
    acc = Buffer("acc", float32, (size,), "register")
    if size % lanes:
        fill = For(k, size, "unroll", (Store(acc, (k,), s.load(x, k)),))
    else:
        at = k * lanes + lane
        fill = For(k, size // lanes, "unroll", (vector(lanes, Store(acc, (at,), s.load(x, at))),))
    body = Alloc(acc, (fill, Store(y, (s.index(0),), s.fold(combiner, acc))))
    check(kernel_of([body], [x, y]), [floats(size), floats(1)], (), lanes)
    special = floats(size)
    special[size // 2] = np.nan
    check(kernel_of([body], [x, y]), [special, floats(1)], (), lanes)


@pytest.mark.parametrize("combiner", ["all", "any"])
def test_fold_bool(combiner):
    x, y = Buffer("x", float32, (16,)), Buffer("y", bool_, (1,))
    acc = Buffer("acc", bool_, (16,), "register")
    fill = vector(16, Store(acc, (lane,), s.load(x, lane) > 0.0))
    body = Alloc(acc, (fill, Store(y, (s.index(0),), s.fold(combiner, acc))))
    for values in (floats(16), np.ones(16, np.float32), -np.ones(16, np.float32)):
        check(kernel_of([body], [x, y]), [values, np.zeros(1, bool)])


@LANES
def test_register_widths_mix(lanes):
    """Whole vectors, halves, single elements, shifted and permuted lanes of one register buffer."""
    x, y = Buffer("x", float32, (4 * lanes,)), Buffer("y", float32, (4 * lanes,))
    acc = Buffer("acc", float32, (2, lanes), "register")
    half = lanes // 2
    body = Alloc(acc, (
        For(k, 2, "unroll", (vector(lanes, Store(acc, (k, lane), s.load(x, k * lanes + lane))),)),
        vector(half, Store(acc, (s.index(1), lane), s.load(x, lane + 5))),
        Store(acc, (s.index(0), s.index(1)), s.load(acc, s.index(1), s.index(2)) * 2.0),
        vector(half, Store(acc, (s.index(0), lane + 1), s.load(acc, s.index(1), lane * 2))),
        vector(lanes, If((lane % 3).equal(1), (Store(acc, (s.index(1), lane), s.load(x, lane)),))),
        vector(lanes, Store(y, (lane,), s.load(acc, lane % 2, lane // 2))),
        vector(2 * lanes, Store(y, (lane + lanes,), s.load(acc, lane // lanes, lane % lanes))),
    ))  # fmt: skip
    check(kernel_of([body], [x, y]), [floats(4 * lanes), floats(4 * lanes)], (), lanes)


@LANES
def test_hoisting_respects_stores(lanes):
    """Values of a buffer that a loop writes are read again; the others may be kept."""
    x, y = Buffer("x", float32, (8,)), Buffer("y", float32, (8,))
    body = For(i, 8, "serial", (
        Store(y, (i,), s.load(y, s.index(3)) + s.load(x, s.index(2))),
        For(j, 4, "serial", (
            Store(y, (s.index(3),), s.load(y, s.index(3)) * 0.5 + s.load(y, i)),
            If(j < 2, (Store(y, (i,), s.load(y, s.index(3)) + 1.0),)),
            Store(y, (s.index(4),), s.load(y, i) + s.load(y, s.index(3))),
        )),
        Store(y, (s.index(5),), s.load(y, s.index(3)) + s.load(y, i)),
    ))  # fmt: skip
    check(kernel_of([body], [x, y]), [floats(8), floats(8)], (), lanes)


def test_hoisted_load_of_an_empty_loop():
    x, y = Buffer("x", float32, (N,)), Buffer("y", float32, (4,))
    body = For(i, 4, "serial", (
        For(j, N, "serial", (Store(y, (i,), s.load(y, i) + s.load(x, s.index(0))),)),
    ))  # fmt: skip
    for size in (0, 3):
        check(kernel_of([body], [x, y], extents=(N,)), [floats(size), floats(4)], (size,))


def test_stack_buffer_and_inner_loops():
    x, y = Buffer("x", float32, (N, 6)), Buffer("y", float32, (6,))
    part = Buffer("part", float32, (6,), "stack")
    body = Alloc(part, (
        For(j, 6, "serial", (Store(part, (j,), s.const(0, float32)),)),
        For(i, N, "serial", (
            For(j, 6, "serial", (Store(part, (j,), s.load(part, j) + s.load(x, i, j)),)),
        )),
        For(j, 6, "serial", (Store(y, (j,), s.load(part, s.index(5) - j)),)),
    ))  # fmt: skip
    check(kernel_of([body], [x, y], extents=(N,)), [floats(9, 6), floats(6)], (9,))


def test_in_place():
    x, y = Buffer("x", float32, (40,)), Buffer("y", float32, (40,))
    at = i * 8 + lane
    store = Store(y, (at,), s.load(x, at) * 2.0 + s.load(x, at))
    body = For(i, 5, "serial", (vector(8, store),))
    a = floats(40)
    expected = a * 2 + a
    compiled(kernel_of([body], [x, y]))([a, a])
    np.testing.assert_array_equal(a, expected)


@LANES
def test_unrolled_conditions_and_indices(lanes):
    x, y = Buffer("x", float32, (4, N)), Buffer("y", float32, (4, N))
    acc = Buffer("acc", float32, (4,), "register")
    body = Alloc(acc, (
        For(i, 4, "unroll", (Store(acc, (i * 3 % 4,), s.load(x, i, i // 2)),)),
        For(i, 4, "unroll", (
            If(i < 2, (Store(y, (i, i % 3), s.load(acc, i)),),
               (Store(y, (i, i + 1), s.load(acc, s.index(5) - i)),)),
        )),
    ))  # fmt: skip
    arrays = [floats(4, 7), floats(4, 7)]
    check(kernel_of([body], [x, y], extents=(N,)), arrays, (7,), lanes)


def test_big_stack_buffers_are_refused():
    big = Buffer("big", float32, (STACK_LIMIT_BYTES,), "stack")
    with pytest.raises(InternalError, match="belongs in a parameter"):
        check(kernel_of([Alloc(big, ())], [], ()), [])


@LANES
def test_checked(lanes):
    status = Buffer("status", int64, (4,))
    x, y = Buffer("x", float32, (9,)), Buffer("y", float32, (4 * lanes,))
    at = Buffer("at", int64, (4 * lanes,))
    where = i * lanes + lane
    index = s.load(at, where)
    ok = (s.index(0) <= index) & (index < 9)
    safe = s.checked(s.select(ok, index, 0), ok, index, s.index(9), s.INDEX_OUT_OF_RANGE)
    store = Store(y, (where,), s.load(x, safe))
    kernel = kernel_of(
        [For(i, 4, "serial", (vector(lanes, If(where < N, (store,))),))],
        [status, x, at, y], ("status", "y"), (N,),
    )  # fmt: skip
    size = 3 * lanes + 2
    good = rng.integers(0, 9, 4 * lanes)
    good[size:] = 99  # masked off: not reported
    for bad in ({}, {1: -3}, {lanes + 2: 9, lanes + 1: 12, 3 * lanes: 77}):
        values = good.copy()
        for place, value in bad.items():
            values[place] = value
        arrays = [np.zeros(4, np.int64), floats(9), values, floats(4 * lanes)]
        state = check(kernel, arrays, (size,), lanes)[0]
        assert state[0] == (1 if bad else 0)
        assert state[2] == {0: 0, 1: -3, 3: 12}[len(bad)]


def test_checked_scalar_and_in_an_arm():
    status, y = Buffer("status", int64, (4,)), Buffer("y", int64, (5,))
    value = s.checked(i, i < 2, i, s.index(2), 3)
    body = For(i, 5, "serial", (Store(y, (i,), s.select(i < 2, value, s.index(7))),))
    kernel = kernel_of([body], [status, y], ("status", "y"))
    assert check(kernel, [np.zeros(4, np.int64), np.zeros(5, np.int64)])[0][0] == 0
    body = For(i, 5, "serial", (Store(y, (i,), s.select(i < 3, value, s.index(7))),))
    kernel = kernel_of([body], [status, y], ("status", "y"))
    assert check(kernel, [np.zeros(4, np.int64), np.zeros(5, np.int64)])[0].tolist() == [3, 0, 2, 2]


@LANES
def test_deep_expressions(lanes):
    x, y = Buffer("x", float32, (lanes,)), Buffer("y", float32, (lanes,))
    value = s.load(x, lane)
    for n in range(3000):
        value = value * 0.5 + float(n % 7)
    kernel = kernel_of([vector(lanes, Store(y, (lane,), value))], [x, y])
    check(kernel, [floats(lanes), floats(lanes)], (), lanes)
