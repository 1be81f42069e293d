"""Open schedules: results are those of the plain nest, bit for bit; what is refused, and why."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tinyflow import te
from tinyflow.core.error import InvalidArgumentError, ShapeError, Unsupported
from tinyflow.ir.loop import interp


def normal(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def run(schedule, tensors, *arrays, checked=True):
    """The result of the native code; the loop interpreter (no race, no wild access) agrees."""
    out = tensors[-1]
    known = {d: n for t, a in zip(tensors, arrays, strict=False)
             for d, n in zip(t.shape, a.shape, strict=True) if not isinstance(d, int)}  # fmt: skip
    shape = tuple(d if isinstance(d, int) else known[d] for d in out.shape)
    got = np.full(shape, np.nan, np.float32)
    function = te.build(schedule, list(tensors))
    function(*arrays, got)
    if checked:
        nest = function.nest
        memory = dict(zip([p.name for p in nest.parameters], [*arrays, np.zeros_like(got)],
                          strict=True))  # fmt: skip
        memory.update((b.name, np.zeros(b.shape, b.dtype.numpy)) for b in nest.scratch)
        for kernel in nest.kernels:
            interp.run(kernel, {b.name: memory[b.name] for b in kernel.buffers},
                       {str(e.attr): known[e] for e in kernel.extents})  # fmt: skip
        np.testing.assert_array_equal(memory[out.name], got)
    return got


def product(m=9, n=21, h=6):
    """C = A @ B.T with its schedule."""
    a, b = te.placeholder((m, h), name="A"), te.placeholder((n, h), name="B")
    k = te.reduce_axis((0, h), name="k")
    c = te.compute((m, n), lambda i, j: te.dot(a[i, k], b[j, k], axis=k), name="C")
    return te.create_schedule(c.op), a, b, c, k


def chain(a, b):
    """One fma per term, k ascending: products in float64 are exact, one rounding per step."""
    out = np.zeros((len(a), len(b)), np.float32)
    for k in range(a.shape[1]):
        exact = np.outer(a[:, k].astype(np.float64), b[:, k].astype(np.float64))
        out = (exact + out).astype(np.float32)
    return out


def tile(s, c, k):
    io, jo, ii, ji = s[c].tile(c.op.axis[0], c.op.axis[1], 4, 8)
    ko, ki = s[c].split(k, factor=4)
    s[c].reorder(io, jo, ko, ii, ki, ji)
    s[c].vectorize(ji)
    s[c].unroll(ki)
    s[c].parallel(io)


def fused(s, c, k):
    f = s[c].fuse(*c.op.axis)
    o, _i = s[c].split(f, nparts=7)
    s[c].parallel(o)


def reduction_outside(s, c, k):
    s[c].reorder(k, *c.op.axis)


def inner_parts_swapped(s, c, k):
    io, ii = s[c].split(c.op.axis[0], 6)
    jo, ji = s[c].split(c.op.axis[1], 16)
    s[c].reorder(jo, io, ji, ii)


SCHEDULES = {f.__name__: f for f in (tile, fused, reduction_outside, inner_parts_swapped)}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_change_no_bit_of_a_product(name):
    s, a, b, c, k = product()
    SCHEDULES[name](s, c, k)
    x, y = normal(9, 6), normal(21, 6)
    np.testing.assert_array_equal(run(s, (a, b, c), x, y), chain(x, y))
    assert len(s.history) == len(s.steps) + 1
    assert s.trace().count("# ") == len(s.history)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (5, 9, 3), (8, 16, 12)])
def test_symbolic_extents_are_arguments(sizes):
    m, n, h = te.var("m"), te.var("n"), te.var("h")
    s, a, b, c, k = product(m, n, h)
    tile(s, c, k)
    x, y = normal(sizes[0], sizes[2]), normal(sizes[1], sizes[2])
    np.testing.assert_array_equal(run(s, (a, b, c), x, y), chain(x, y))


def test_one_function_serves_all_sizes():
    m, n, h = te.var("m"), te.var("n"), te.var("h")
    s, a, b, c, k = product(m, n, h)
    tile(s, c, k)
    function = te.build(s, [a, b, c])
    for size in range(1, 12):
        x, y = normal(size, 2 * size), normal(size + 3, 2 * size)
        out = np.empty((size, size + 3), np.float32)
        function(x, y, out)
        np.testing.assert_array_equal(out, chain(x, y))


def test_text_before_and_after_a_step():
    a = te.placeholder((10,), name="A")
    b = te.compute((10,), lambda i: a[i] * 2.0, name="B")
    s = te.create_schedule(b)
    assert str(s) == "for i in serial(10):\n  B[i] = A[i] * 2.0"
    outer, inner = s[b].split(b.op.axis[0], factor=4)
    assert (outer, inner) == ("i.o", "i.i")
    assert str(s) == (
        "for i.o in serial(3):\n"
        "  for i.i in serial(4):\n"
        "    if i.o * 4 + i.i < 10:\n"
        "      B[i.o * 4 + i.i] = A[i.o * 4 + i.i] * 2.0"
    )
    assert s.steps == ["split(i, 4)"]


def test_nparts_is_the_number_of_parts():
    a = te.placeholder((10,), name="A")
    b = te.compute((10,), lambda i: a[i] * 2.0, name="B")
    s = te.create_schedule(b)
    s[b].split("i", nparts=7)
    assert str(s).startswith("for i.o in serial(7):\n  for i.i in serial(2):\n    if ")
    x = normal(10)
    np.testing.assert_array_equal(run(s, (a, b), x), x * 2)


# ---- several stages ------------------------------------------------------------------------------


def blurred(n=22):
    """C[y, x] = B[y, x] + B[y+1, x] + B[y+2, x],  B[y, x] = A[y, x] * 0.5 + A[y, x+1]"""
    a = te.placeholder((n + 2, n + 1), name="A")
    b = te.compute((n + 2, n), lambda y, x: a[y, x] * 0.5 + a[y, x + 1], name="B")
    c = te.compute((n, n), lambda y, x: b[y, x] + b[y + 1, x] + b[y + 2, x], name="C")
    return te.create_schedule(c), a, b, c


def expected_blur(x):
    rows = x[:, :-1] * np.float32(0.5) + x[:, 1:]
    return rows[:-2] + rows[1:-1] + rows[2:]


def at_row(s, b, c):
    s[b].compute_at(s[c], c.op.axis[0])


def at_tile(s, b, c):
    yo, xo, _yi, xi = s[c].tile(*c.op.axis, 5, 8)
    s[b].compute_at(s[c], xo)
    s[c].vectorize(xi)
    s[b].vectorize(b.op.axis[1])
    s[c].parallel(yo)


def inline(s, b, c):
    s[b].compute_inline()
    s[c].vectorize(s[c].split(c.op.axis[1], 8)[1])


def as_it_is(s, b, c):
    s[b].parallel(b.op.axis[0])
    s[c].parallel(c.op.axis[0])


def at_unrolled_row(s, b, c):
    """A local buffer inside an unrolled loop: every copy of the body must use the same memory."""
    s[b].compute_at(s[c], c.op.axis[0])
    s[c].unroll(c.op.axis[0])
    s[c].unroll(s[c].split(c.op.axis[1], 11)[1])


PLACES = [at_row, at_tile, at_unrolled_row, inline, as_it_is]


@pytest.mark.parametrize("place", PLACES, ids=lambda f: f.__name__)
def test_places_of_a_producer(place):
    s, a, b, c = blurred()
    place(s, b, c)
    x = normal(24, 23)
    np.testing.assert_array_equal(run(s, (a, c), x), expected_blur(x))


def test_compute_at_keeps_only_what_an_iteration_reads():
    s, _a, b, c = blurred()
    at_row(s, b, c)
    assert "with B.part: stack float32[3, 22]:" in str(s)


def test_caches():
    s, a, b, c, _k = product(16, 24, 32)
    local = s.cache_write(c, "local")
    _io, jo, _ii, ji = s[c].tile(c.op.axis[0], c.op.axis[1], 4, 8)
    s[local].compute_at(s[c], jo)
    i, j = local.op.axis
    ko, ki = s[local].split(local.op.reduce_axis[0], 8)
    s[local].reorder(ko, i, ki, j)
    s[local].vectorize(j)
    rows = s.cache_read(a, "rows", [local])
    s[rows].compute_at(s[local], ko)
    s[c].vectorize(ji)
    text = str(s)
    assert "with C.local.part: stack float32[4, 8]:" in text
    assert "with A.rows.part: stack float32[4, 8]:" in text
    x, y = normal(16, 32), normal(24, 32)
    np.testing.assert_array_equal(run(s, (a, b, c), x, y), chain(x, y))


def test_reductions_in_chains_of_stages():
    """A softmax without shift: total[i] = sum exp(x[i, j]); y = exp(x) / total."""
    n, m = 9, 30
    x = te.placeholder((n, m), name="x")
    e = te.compute((n, m), lambda i, j: te.exp(x[i, j]), name="e")
    r = te.reduce_axis(m, name="r")
    total = te.compute((n,), lambda i: te.sum(e[i, r], axis=r), name="total")
    y = te.compute((n, m), lambda i, j: e[i, j] / total[i], name="y")
    s = te.create_schedule(y)
    array = normal(n, m)
    plain = run(s, (x, y), array)
    s = te.create_schedule(y)
    i = y.op.axis[0]
    s[total].compute_at(s[y], i)
    s[e].compute_inline()
    s[y].parallel(i)
    np.testing.assert_array_equal(run(s, (x, y), array), plain)
    want = np.exp(array) / np.exp(array).sum(1, keepdims=True)
    np.testing.assert_allclose(plain, want, rtol=2e-6)


def test_stripe_is_the_order_of_the_graph_compiler():
    import tinyflow as tf

    x = te.placeholder((5, 100), name="x")
    r = te.reduce_axis(100, name="r")
    total = te.compute((5,), lambda i: te.sum(x[i, r], axis=r), name="total")
    s = te.create_schedule(total)
    s[total].stripe(r)
    array = normal(5, 100)
    with tf.Graph().as_default(), tf.Session() as session:
        fed = tf.placeholder(tf.float32, [5, 100])
        graph = session.run(tf.reduce_sum(fed, axis=1), {fed: array})
    np.testing.assert_array_equal(run(s, (x, total), array), graph)


@pytest.mark.parametrize("fold, reference", [(te.max, np.max), (te.min, np.min), (te.prod, None)])
def test_only_an_order_free_reduction_may_be_reordered(fold, reference):
    x = te.placeholder((6, 8, 10), name="x")
    p, q = te.reduce_axis(8, name="p"), te.reduce_axis(10, name="q")
    y = te.compute((6,), lambda i: fold(x[i, p, q], axis=[p, q]), name="y")
    s = te.create_schedule(y)
    if reference is None:
        with pytest.raises(InvalidArgumentError, match="would be added up in another order"):
            s[y].reorder(q, p)
        assert s.steps == []
    else:
        s[y].reorder(q, p)
        array = normal(6, 8, 10)
        np.testing.assert_array_equal(run(s, (x, y), array), reference(array, axis=(1, 2)))


# ---- hardware instructions -----------------------------------------------------------------------


def matrix_unit(size=8):
    """An 8x8x8 matrix unit: fill, multiply-accumulate; its simulation in loop IR."""
    from tinyflow.ir.loop.nodes import For

    a = te.placeholder((size, size), name="a")
    b = te.placeholder((size, size), name="b")
    k = te.reduce_axis(size, name="k")
    c = te.compute((size, size), lambda i, j: te.dot(a[i, k], b[j, k], axis=k), name="c")

    def lower(inputs, outputs):
        left, right = inputs
        (out,) = outputs
        u, v, w = (te.var(f"unit.{n}") for n in "uvw")

        def over(*loops, body):
            for variable, kind in reversed(loops):
                body = (For(variable, size, kind, body),)
            return body

        zero = out.store((u, v), te.const(0.0, out.buffer.dtype))
        step = out.store((u, v), te.fma(left[u, w], right[v, w], out[u, v]))
        fill = over((u, "serial"), (v, "vectorize"), body=(zero,))
        multiply = over((w, "serial"), (u, "unroll"), (v, "vectorize"), body=(step,))
        return fill + multiply, fill, multiply

    return te.decl_tensor_intrin(c.op, lower, "matrix_unit")


def test_tensorize_runs_on_the_unit():
    s, a, b, c, k = product(16, 24, 32)
    io, jo, ii, ji = s[c].tile(c.op.axis[0], c.op.axis[1], 8, 8)
    ko, ki = s[c].split(k, 8)
    s[c].reorder(io, jo, ko, ii, ji, ki)
    s[c].tensorize(ii, matrix_unit())
    text = str(s)
    assert text.count("unit.w") >= 1 and "i.i" not in text
    x, y = normal(16, 32), normal(24, 32)
    np.testing.assert_array_equal(run(s, (a, b, c), x, y), chain(x, y))


def test_tensorize_says_what_does_not_fit():
    s, _, _, c, k = product(16, 24, 32)
    io, jo, ii, ji = s[c].tile(c.op.axis[0], c.op.axis[1], 4, 8)
    ko, ki = s[c].split(k, 8)
    s[c].reorder(io, jo, ko, ii, ji, ki)
    with pytest.raises(InvalidArgumentError, match=r"computes \[8, 8, 8\], the loops are i.i: 4"):
        s[c].tensorize(ii, matrix_unit())
    s, _a, _b, c, k = product(16, 20, 32)
    io, jo, ii, ji = s[c].tile(c.op.axis[0], c.op.axis[1], 8, 8)
    ko, ki = s[c].split(k, 8)
    s[c].reorder(io, jo, ko, ii, ji, ki)
    with pytest.raises(InvalidArgumentError, match="stands a guard"):
        s[c].tensorize(ii, matrix_unit())


def test_tensorize_compares_the_access():
    a, b = te.placeholder((8, 8), name="A"), te.placeholder((8, 8), name="B")
    k = te.reduce_axis(8, name="k")
    c = te.compute((8, 8), lambda i, j: te.dot(a[i, k], b[k, j], axis=k), name="C")
    s = te.create_schedule(c)
    s[c].reorder(*c.op.axis, k)
    j = s[c].split(c.op.axis[1], 8)
    s[c].reorder(c.op.axis[0], *j, k)
    with pytest.raises(InvalidArgumentError):
        s[c].tensorize(c.op.axis[0], matrix_unit())


# ---- errors --------------------------------------------------------------------------------------


def refused(step, text, kind=InvalidArgumentError):
    s, _a, _b, c, k = product()
    before = str(s)
    with pytest.raises(kind, match=re.escape(text)) as caught:
        step(s, c, k)
    assert "created at test_stages.py" in str(caught.value)
    assert str(s) == before


@pytest.mark.parametrize(
    "step, text",
    [
        (lambda s, c, k: s[c].split("x", 4), "x is no loop of C\n"),
        (lambda s, c, k: s[c].split("i", 0), "must be a positive integer, got 0"),
        (lambda s, c, k: s[c].split("i", factor=2, nparts=2), "either factor= or nparts="),
        (lambda s, c, k: s[c].vectorize(k), "every iteration of k writes C[i, j]"),
        (lambda s, c, k: s[c].parallel(k), "every iteration of k writes C[i, j]"),
        (lambda s, c, k: s[c].parallel("j"), "only an outermost loop can be parallel"),
        (lambda s, c, k: s[c].fuse("j", "i"), "not nested alone"),
        (lambda s, c, k: s[c].reorder("i", "i"), "a loop is named twice"),
        (lambda s, c, k: s[c].compute_inline(), "C is a result"),
        (lambda s, c, k: s[c].tile("i", "j", 4, -1), "must be a positive integer, got -1"),
    ],
)
def test_steps_that_are_refused_change_nothing(step, text):
    refused(step, text)


def test_a_step_does_not_undo_another():
    s, _, _, c, _k = product()
    s[c].parallel("i")
    with pytest.raises(InvalidArgumentError, match="i runs as parallel already"):
        s[c].split("i", 2)
    with pytest.raises(InvalidArgumentError, match="i is parallel and must stay outermost"):
        s[c].reorder("j", "i")
    assert s.steps == ["parallel(i)"]


def test_a_fold_is_not_fused_with_a_loop_that_is_none():
    """Lanes of the fused loop would add to one element at once, which no index shows."""
    s, _, _, c, k = product()
    s[c].reorder("i", k, "j")
    with pytest.raises(InvalidArgumentError, match="k folds its iterations into one element"):
        s[c].fuse(k, "j")


def test_bind_is_for_gpus():
    thread = te.thread_axis("threadIdx.x")
    refused(lambda s, c, k: s[c].bind("i", thread), "this target is a CPU", Unsupported)


def test_a_loop_that_was_split_is_gone():
    s, _a, _b, c, _k = product()
    s[c].split(c.op.axis[0], 4)
    with pytest.raises(InvalidArgumentError, match="i is no loop of C") as caught:
        s[c].parallel(c.op.axis[0])
    assert "choices: i.o, i.i, j, k" in str(caught.value)


def test_wrong_arrays_are_refused():
    m, n, h = te.var("m"), te.var("n"), te.var("h")
    s, a, b, c, _k = product(m, n, h)
    function = te.build(s, [a, b, c])
    out = np.empty((3, 4), np.float32)
    with pytest.raises(ShapeError, match=r"B's h is 6, but h is 5"):
        function(normal(3, 5), normal(4, 6), out)
    with pytest.raises(TypeError, match="A holds float32, got float64"):
        function(normal(3, 5).astype(np.float64), normal(4, 5), out)
    with pytest.raises(InvalidArgumentError, match="expected 3 arguments, got 2"):
        function(normal(3, 5), normal(4, 5))
    with pytest.raises(InvalidArgumentError, match="C must be contiguous"):
        function(normal(3, 5), normal(4, 5), np.empty((4, 3), np.float32).T)


def test_arguments_must_be_complete():
    s, a, b, c, _k = product()
    with pytest.raises(InvalidArgumentError, match="B is read and not among args"):
        te.lower(s, [a, c])
    with pytest.raises(InvalidArgumentError, match="C is a result and not among args"):
        te.lower(s, [a, b])


# ---- random schedules ----------------------------------------------------------------------------


def random_steps(s, c, numbers, count):
    """Steps drawn at random; what is refused must leave the schedule as it was."""
    for _ in range(count):
        loops = s[c].loops
        if len(loops) < 2:
            return
        pick = numbers.choice
        before = str(s)
        try:
            match numbers.randrange(7):
                case 0:
                    s[c].split(pick(loops), factor=numbers.randint(1, 9))
                case 1:
                    s[c].split(pick(loops), nparts=numbers.randint(1, 9))
                case 2:
                    s[c].reorder(*numbers.sample(loops, numbers.randint(2, min(4, len(loops)))))
                case 3:
                    s[c].fuse(pick(loops), pick(loops))
                case 4:
                    s[c].unroll(pick(loops))
                case 5:
                    s[c].vectorize(pick(loops))
                case 6:
                    s[c].parallel(pick(loops))
        except InvalidArgumentError:
            assert str(s) == before


@pytest.mark.parametrize("seed", range(12))
def test_random_schedules_change_no_bit(seed):
    import random

    numbers = random.Random(seed)
    m, n, h = (numbers.randint(1, 8) for _ in range(3))
    s, a, b, c, _k = product(m, n, h)
    random_steps(s, c, numbers, 8)
    x, y = normal(m, h), normal(n, h)
    np.testing.assert_array_equal(run(s, (a, b, c), x, y), chain(x, y), err_msg=s.trace())


@pytest.mark.parametrize("seed", range(12))
def test_random_places_change_no_bit(seed):
    import random

    numbers = random.Random(seed)

    def place(stage, consumer):
        loops = s[consumer].loops
        try:
            s[stage].compute_at(s[consumer], numbers.choice(loops))
        except InvalidArgumentError:
            assert s[consumer].loops == loops

    if seed % 2:
        n = numbers.randint(3, 9)
        s, a, b, c = blurred(n)
        tensors, arrays = (a, c), (normal(n + 2, n + 1),)
        want, rows = expected_blur(*arrays), None
    else:
        m, n, h = (numbers.randint(1, 8) for _ in range(3))
        s, a, other, c, _k = product(m, n, h)
        tensors, arrays = (a, other, c), (normal(m, h), normal(n, h))
        want, b = chain(*arrays), s.cache_write(c, "local")
        rows = s.cache_read(a, "rows", [b])
    random_steps(s, c, numbers, 3)
    place(b, c)
    random_steps(s, b, numbers, 3)
    if rows is not None:
        place(rows, b)
        random_steps(s, rows, numbers, 3)
    random_steps(s, c, numbers, 3)
    np.testing.assert_array_equal(run(s, tensors, *arrays), want, err_msg=s.trace())
