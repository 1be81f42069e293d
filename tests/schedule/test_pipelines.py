"""Pipelines of Funcs: ports of Halide's examples against NumPy, and the order that updates keep.

A schedule never changes a bit: every scheduled result is compared with the plain nests' exactly,
and with the loop interpreter, which also finds races and wild accesses.
"""

from __future__ import annotations

import random
import re

import numpy as np
import pytest

from tinyflow import te
from tinyflow.core.error import InvalidArgumentError
from tinyflow.ir.loop import interp

x, y, i = te.Var("x"), te.Var("y"), te.Var("i")


def normal(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def levels(*shape):
    return np.random.default_rng(sum(shape)).integers(0, 200, shape).astype(np.uint8)


def realize(schedule, arrays):
    """All results; the interpreter's agree."""
    got = te.realize(schedule, arrays)
    results = got if isinstance(got, tuple) else (got,)
    nest = te.lower(schedule, [*schedule.inputs, *schedule.outputs])
    memory = {schedule.buffers[t].name: arrays[t] for t in schedule.inputs}
    memory.update((schedule.buffers[t].name, np.zeros_like(a))
                  for t, a in zip(schedule.outputs, results, strict=True))  # fmt: skip
    memory.update((b.name, np.zeros(b.shape, b.dtype.numpy)) for b in nest.scratch)
    for kernel in nest.kernels:
        interp.run(kernel, {b.name: memory[b.name] for b in kernel.buffers})
    for tensor, array in zip(schedule.outputs, results, strict=True):
        np.testing.assert_array_equal(memory[schedule.buffers[tensor].name], array)
    return got


# ---- blur: Halide's first example ----------------------------------------------------------------


def blur(height=19, width=37):
    image = te.placeholder((height, width), name="image")
    edge = te.repeat_edge(image)
    rows, out = te.Func("rows"), te.Func("blur")
    rows[y, x] = (edge[y, x - 1] + edge[y, x] + edge[y, x + 1]) * (1 / 3)
    out[y, x] = (rows[y - 1, x] + rows[y, x] + rows[y + 1, x]) * (1 / 3)
    return te.pipeline(out, (height, width)), image, edge, rows, out


def blurred(a):
    third = np.float32(1 / 3)
    p = np.pad(a, 1, mode="edge")
    h = (p[:, :-2] + p[:, 1:-1] + p[:, 2:]) * third
    return (h[:-2] + h[1:-1] + h[2:]) * third


def tiled(s, edge, rows, out):
    s[edge].compute_inline()
    yo, xo, _yi, xi = s[out].tile(y, x, 8, 16)
    s[rows].compute_at(s[out], xo)
    s[rows].vectorize(x)
    s[out].vectorize(xi)
    s[out].parallel(yo)


def per_line(s, edge, rows, out):
    s[rows].compute_at(s[out], y)
    s[edge].compute_at(s[rows], y)
    _xo, xi = s[out].split(x, 8)
    s[out].unroll(xi)
    s[out].parallel(y)


def inlined(s, edge, rows, out):
    s[rows].compute_inline()
    s[edge].compute_inline()
    s[out].parallel(s[out].fuse(y, x))


def at_root(s, edge, rows, out):
    s[rows].compute_root()
    s[edge].compute_root()


@pytest.mark.parametrize("schedule", [tiled, per_line, inlined, at_root], ids=lambda f: f.__name__)
def test_blur(schedule):
    s, image, *funcs = blur()
    a = normal(19, 37)
    schedule(s, *funcs)
    np.testing.assert_array_equal(realize(s, {image: a}), blurred(a))


def test_loops_of_the_blur_before_and_after():
    s, image, edge, rows, out = blur(16, 32)
    s[edge].compute_inline()
    assert str(s).count("for ") == 4 and "rows[by.y" not in str(s)
    assert s.bounds() == (
        "image       [0, 16) x [0, 32)\n"
        "image.edge  [-1, 17) x [-1, 33)\n"
        "rows        [-1, 17) x [0, 32)\n"
        "blur        [0, 16) x [0, 32)"
    )
    s, image, edge, rows, out = blur(16, 32)
    tiled(s, edge, rows, out)
    assert [line.split(" in ")[0].strip() for line in str(te.lower(s, [image, out])).splitlines()
            if "for " in line] == [
        "for blur.y.o", "for blur.x.o", "for y", "for x", "for blur.y.i", "for blur.x.i",
    ]  # fmt: skip
    assert "with rows.part: stack float32[10, 16]:" in str(s)


def test_a_box_may_start_anywhere():
    image = te.placeholder((9, 12), name="image")
    padded, f = te.constant_exterior(image, 7), te.Func("f")
    f[y, x] = padded[y, x - 1]
    a = normal(9, 12)
    got = realize(te.pipeline(f, ((-2, 13), (1, 15))), {image: a})
    want = np.pad(a, ((2, 2), (0, 3)), constant_values=7)
    np.testing.assert_array_equal(got, want)


# ---- updates -------------------------------------------------------------------------------------


def histogram(height=11, width=13):
    image = te.placeholder((height, width), "uint8", name="image")
    r = te.RDom(height, width)
    hist = te.Func("hist")
    hist[i] = 0
    hist[image[r.y, r.x]] += 1
    return image, r, hist


def test_histogram():
    image, r, hist = histogram()
    a = levels(11, 13)
    s = te.pipeline(hist, (256,))
    want = np.bincount(a.ravel(), minlength=256)
    np.testing.assert_array_equal(realize(s, {image: a}), want)
    s[hist].vectorize(s[hist].split(i, 16)[1])
    s[hist].update().reorder(r.x, r.y)  # integers: no order changes a count
    s[hist].update().split(r.y, 4)
    np.testing.assert_array_equal(realize(s, {image: a}), want)


def test_histogram_in_parts_runs_in_parallel():
    """What rfactor would do: a histogram per row, each row by itself, and their sum."""
    image = te.placeholder((11, 13), "uint8", name="image")
    r, q = te.RDom(13, name="r"), te.RDom(11, name="q")
    part, hist = te.Func("part"), te.Func("hist")
    part[y, i] = 0
    part[y, image[y, r]] += 1
    hist[i] = 0
    hist[i] += part[q, i]
    s = te.pipeline(hist, (256,))
    s[part].parallel(y)
    s[part].update().parallel(y)
    s[hist].update().reorder(q, i)
    s[hist].update().vectorize(s[hist].update().split(i, 8)[1])
    a = levels(11, 13)
    np.testing.assert_array_equal(realize(s, {image: a}), np.bincount(a.ravel(), minlength=256))


def test_prefix_sum():
    a = te.placeholder((5, 40), name="a")
    r = te.RDom((1, 39))
    total = te.Func("total")
    total[y, x] = a[y, x]
    total[y, r] += total[y, r - 1]
    s = te.pipeline(total, (5, 40))
    s[total].update().reorder(r, y)  # columns outside: each row keeps its order
    s[total].update().split(r, 8)
    array = normal(5, 40)
    np.testing.assert_array_equal(realize(s, {a: array}), np.cumsum(array, axis=1))
    s = te.pipeline(total, (5, 40))
    s[total].update().parallel(y)
    np.testing.assert_array_equal(realize(s, {a: array}), np.cumsum(array, axis=1))


def test_histogram_equalisation():
    image, _r, hist = histogram(24, 31)
    cdf, equal = te.Func("cdf"), te.Func("equal")
    q = te.RDom((1, 255), name="q")
    cdf[i] = hist[i]
    cdf[q] += cdf[q - 1]
    equal[y, x] = te.cast(cdf[image[y, x]] * 255 // (24 * 31), image.dtype)
    s = te.pipeline(equal, (24, 31))
    s[equal].parallel(y)
    a = levels(24, 31)
    counts = np.cumsum(np.bincount(a.ravel(), minlength=256))
    np.testing.assert_array_equal(realize(s, {image: a}), (counts * 255 // (24 * 31))[a])


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_matrix_product(dtype):
    a, b = te.placeholder((9, 6), dtype, name="a"), te.placeholder((6, 20), dtype, name="b")
    r = te.RDom(6, name="k")
    c = te.Func("c")
    c[y, x] = te.const(1, a.dtype)
    c[y, x] += a[y, r] * b[r, x]
    s = te.pipeline(c, (9, 20))
    left, right = (normal(9, 6) * 8).astype(dtype), (normal(6, 20) * 8).astype(dtype)
    plain = realize(s, {a: left, b: right})
    np.testing.assert_allclose(plain, left @ right + 1, rtol=1e-5, atol=1e-4)
    update = s[c].update()
    yo, xo, yi, xi = update.tile(y, x, 4, 8)
    update.reorder(yo, xo, r, yi, xi)
    update.vectorize(xi)
    update.unroll(yi)
    update.parallel(yo)
    np.testing.assert_array_equal(realize(s, {a: left, b: right}), plain)


def test_several_values_are_those_from_before():
    """argmax, and two values that change places."""
    a = te.placeholder((6, 17), name="a")
    r = te.RDom(17)
    best = te.Func("best")
    best[y] = (0, float("-inf"))
    place, value = best[y]
    best[y] = (te.select(a[y, r] > value, te.cast(r.x, place.dtype), place),
               te.maximum(value, a[y, r]))  # fmt: skip
    array = normal(6, 17)
    s = te.pipeline(best, (6,))
    s[best].update().parallel(y)
    places, values = realize(s, {a: array})
    np.testing.assert_array_equal(places, array.argmax(1))
    np.testing.assert_array_equal(values, array.max(1))
    pair, steps = te.Func("pair"), te.RDom((1, 10))
    pair[()] = (0, 1)
    first, second = pair[()]
    pair[()] = (second, first + second * te.cast(steps.x, first.dtype))
    want = (0, 1)
    for n in range(1, 11):
        want = (want[1], want[0] + want[1] * n)
    assert tuple(map(int, realize(te.pipeline(pair, ()), {}))) == want


def test_only_points_of_the_domain_take_part():
    a = te.placeholder((9, 9), name="a")
    r = te.RDom(9, 9)
    r.where(r.x <= r.y)
    low = te.Func("low")
    low[i] = 0.0
    low[r.y] += a[r.y, r.x]
    s = te.pipeline(low, (9,))
    s[low].update().parallel(r.y)
    array = normal(9, 9)
    want = np.array([np.cumsum(row[: n + 1])[-1] for n, row in enumerate(array)])
    np.testing.assert_array_equal(realize(s, {a: array}), want)


def test_a_sum_in_a_definition():
    a = te.placeholder((8, 12), name="a")
    k = te.reduce_axis(3, name="k")
    f, g = te.Func("f"), te.Func("g")
    f[y, x] = te.sum(a[y, x + k], axis=k)
    g[y, x] = f[y, x] - f[y + 1, x]
    s = te.pipeline(g, (7, 10))
    s[f].compute_at(s[g], y)
    array = normal(8, 12)
    sums = array[:, :-2] + array[:, 1:-1] + array[:, 2:]
    np.testing.assert_array_equal(realize(s, {a: array}), sums[:-1] - sums[1:])


def test_a_func_with_updates_at_its_reader():
    """Rows are computed where they are read; along an updated dimension always whole rows."""
    a = te.placeholder((10, 14), name="a")
    r = te.RDom((1, 13))
    scan, f = te.Func("scan"), te.Func("f")
    scan[y, x] = a[y, x] * 2.0
    scan[y, r] += scan[y, r - 1]
    scan[y, 0] = 0.0
    f[y, x] = scan[y, x + 4] - scan[y, x]
    s = te.pipeline(f, (10, 10))
    yo, xo, _yi, _xi = s[f].tile(y, x, 4, 3)
    s[scan].compute_at(s[f], xo)
    s[scan].update(0).unroll(y)
    s[f].parallel(yo)
    assert "with scan.part: stack float32[4, 14]:" in str(s)
    array = normal(10, 14)
    sums = np.cumsum(array * 2, axis=1)
    sums[:, 0] = 0
    np.testing.assert_array_equal(realize(s, {a: array}), sums[:, 4:] - sums[:, :-4])


# ---- what is refused -----------------------------------------------------------------------------


def scatter(value):
    """f[place[r]] = value of r and of f there."""
    place, v = te.placeholder((6, 4), "uint8", name="place"), te.placeholder((6, 4), name="v")
    r = te.RDom(6, 4)
    f = te.Func("f")
    f[i] = 0.0
    f[place[r.y, r.x]] = value(f[place[r.y, r.x]], v[r.y, r.x])
    return te.pipeline(f, (256,)), f, r


def refused(step, text):
    with pytest.raises(InvalidArgumentError, match=re.escape(text)) as caught:
        step()
    assert "created at test_pipelines.py" in str(caught.value)


@pytest.mark.parametrize(
    "value", [lambda old, new: new, lambda old, new: old + new, lambda old, new: new - old]
)
def test_the_order_of_a_scatter_is_kept(value):
    s, f, r = scatter(value)
    before, update = str(s), s[f].update()
    meet = "iterations of r.y may meet in one element, f[i64(place[r.y, r.x])]"
    refused(lambda: update.reorder(r.x, r.y), f"{meet}; the order of its updates belongs to")
    refused(lambda: update.parallel(r.y), f"schedule of f: parallel(r.y): {meet}")
    refused(lambda: update.vectorize(r.x), "iterations of r.x may meet in one element")
    assert str(s) == before


def test_a_maximum_may_be_scattered_in_any_order():
    s, f, r = scatter(te.maximum)
    s[f].update().reorder(r.x, r.y)
    refused(lambda: s[f].update().parallel(r.x), "iterations of r.x may meet in one element")


def test_the_order_of_a_scan_is_kept():
    f = te.Func("f")
    r = te.RDom((1, 8), (1, 8))
    f[y, x] = te.cast(x, te.placeholder((1,)).dtype)
    f[r.y, r.x] += f[r.y - 1, r.x] * f[r.y, r.x - 1]
    s = te.pipeline(f, (9, 9))
    update = s[f].update()
    reads = "an iteration of r.y reads f[r.y, r.x + 1], which another one may write"
    refused(lambda: update.reorder(r.x, r.y), reads)
    refused(lambda: update.parallel(r.y), reads)
    inner = update.split(r.y, 4)[1]
    refused(lambda: update.vectorize(inner), "an iteration of r.y.i reads f[")


def test_sums_that_meet_are_not_injective():
    """f[r.y + r.x]: two points share an element; f[r.y * 4 + r.x] with r.x < 4: none do."""
    for step, allowed in ((1, False), (3, False), (4, True)):
        a = te.placeholder((5, 4), name="a")
        f, r = te.Func("f"), te.RDom(5, 4)
        f[i] = 0.0
        f[r.y * step + r.x] = a[r.y, r.x]
        s = te.pipeline(f, (4 * step + 4,))
        update = s[f].update()
        if allowed:
            update.reorder(r.x, r.y)
            update.parallel(r.x)
            array = normal(5, 4)
            np.testing.assert_array_equal(realize(s, {a: array}), array.ravel())
        else:
            refused(lambda u=update, r=r: u.parallel(r.y), "may meet in one element")
            refused(lambda u=update, r=r: u.reorder(r.x, r.y), "may meet in one element")


def test_steps_that_an_update_has_not():
    _image, r, hist = histogram()
    g = te.Func("g")
    g[i] = hist[i]
    s = te.pipeline(g, (256,))
    refused(lambda: s[hist].compute_inline(), "hist has updates and no expression per element")
    refused(lambda: s[hist].update().compute_at(s[g], i), "an update is computed where its Func is")
    refused(lambda: s[hist].update(1), "hist has 1 updates, none is number 1")
    refused(lambda: s[hist].update().stripe(r.x), "the updates of hist start from what was there")
    refused(lambda: s[hist].stripe("r.x"), "the updates of hist start from what was there")
    refused(lambda: s[hist].update().parallel(i), "i is no loop of hist")
    refused(lambda: s.cache_write(s[hist].stage.tensor, "local"), "hist has updates, which a copy")
    refused(lambda: te.realize(s, {}), "realize: expected arrays for image, got none")
    pair = te.Func("pair")
    pair[i] = (1, 2)
    h = te.Func("h")
    h[i] = pair[i][0] + pair[i][1]
    t = te.pipeline(h, (8,))
    refused(lambda: t[pair].compute_at(t[h], i), "pair.0 is one of several values")
    refused(lambda: te.pipeline(te.Func("empty"), ()), "pipeline: there is nothing to compute")
    np.testing.assert_array_equal(realize(t, {}), np.full(8, 3))


# ---- any schedule that is accepted gives the same bits -------------------------------------------


def waves():
    a = te.placeholder((7, 6), name="a")
    r = te.RDom((1, 5), (2, 4), name="wr")
    f, g = te.Func("f"), te.Func("g")
    f[y, x] = a[y, x] * 2.0
    f[y, r.x] += f[y, r.x - 2] * a[r.y, r.x]
    f[r.y, x] = f[r.y - 1, x] - f[r.y, x]
    f[r.y, r.x] = f[r.y, r.x] * 0.5 + a[r.y, r.x]
    g[y, x] = f[y, x] + f[y + 1, x]
    return te.pipeline(g, (6, 6)), [(f, 3), (g, 0)], {a: normal(7, 6)}


def bins():
    v, place = te.placeholder((5, 8), name="v"), te.placeholder((5, 8), "uint8", name="place")
    r = te.RDom(5, 8, name="br")
    r.where(((r.x + r.y) % 3).not_equal(0))
    f, count = te.Func("f"), te.Func("count")
    f[y, i] = 1.0
    f[y, place[r.y, r.x]] += v[r.y, r.x] * te.cast(y, v.dtype)
    count[i] = (0, 0.0)
    number, total = count[place[r.y, r.x]]
    count[place[r.y, r.x]] = (number + 1, total + f[1, r.x])
    return te.pipeline([count, f], [[256], [3, 256]]), [(f, 1), (count, 1)], {
        v: normal(5, 8), place: levels(5, 8) % 5,
    }  # fmt: skip


def random_step(s, funcs, rng):
    func, updates = rng.choice(funcs)
    number = rng.randrange(-1, updates)
    stage = s[func] if number < 0 else s[func].update(number)
    loops = stage.loops
    pick = rng.choice(loops)
    kind = rng.randrange(6)
    if kind == 0:
        stage.split(pick, rng.choice((2, 3, 4)))
    elif kind == 1:
        stage.reorder(*rng.sample(loops, min(len(loops), 2)))
    elif kind == 2:
        stage.parallel(pick)
    elif kind == 3:
        stage.vectorize(pick)
    elif kind == 4:
        stage.fuse(*rng.sample(loops, min(len(loops), 2)))
    else:
        s[funcs[0][0]].compute_at(s[funcs[1][0]], rng.choice(s[funcs[1][0]].loops))


@pytest.mark.parametrize("make", [waves, bins], ids=lambda f: f.__name__)
def test_accepted_steps_change_no_bit(make):
    s, _funcs, arrays = make()
    plain = realize(s, arrays)
    taken = 0
    for seed in range(4):
        rng = random.Random(seed)
        s, funcs, arrays = make()
        for _ in range(40):
            try:
                random_step(s, funcs, rng)
            except (InvalidArgumentError, TypeError):
                continue
            taken += 1
        got = realize(s, arrays)
        for a, b in zip(got if isinstance(got, tuple) else (got,),
                        plain if isinstance(plain, tuple) else (plain,)):  # fmt: skip
            np.testing.assert_array_equal(a, b, err_msg=f"seed {seed}: {s.steps}")
    assert taken > 20
