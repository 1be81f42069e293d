"""Funcs: what a definition may say, and the boxes that follow from what is asked for."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tinyflow import te
from tinyflow.core.error import AxisError, DTypeError, InvalidArgumentError, Unsupported
from tinyflow.te.bounds import as_box, infer

x, y = te.Var("x"), te.Var("y")


def boxes(func, *asked):
    return {f.name: str(box) for f, box in infer({func: as_box(func, asked)}).items()}


def defined(name="f", value=0.0, at=(y, x)):
    func = te.Func(name)
    func[at] = value
    return func


def refused(text, kind=InvalidArgumentError):
    return pytest.raises(kind, match=re.escape(text))


# ---- definitions ---------------------------------------------------------------------------------


def test_a_definition_is_pure_and_an_update_is_not():
    f = te.Func("f")
    f[y, x] = te.cast(y + x, te.const(0.0, te.placeholder((1,)).dtype).dtype)
    r = te.RDom(4, (1, 5))
    f[y, r.x] += f[y, r.x - 1]
    assert f.rank == 2 and f.dtypes[0].name == "float32"
    (update,) = f.updates
    assert update.pure == (y,) and update.domain is r
    assert [n for _, n in update.folded] == [4, 5]


def test_an_rdom_has_letters_from_the_last_dimension_on():
    r = te.RDom((2, 3), 4, name="k")
    assert (r.y, r.x) == (r[0], r[1]) == tuple(r)
    assert repr(r.y) == "k.y + 2" and repr(r.x) == "k.x"
    with pytest.raises(AxisError, match="has 2 dimensions and no z"):
        r.z
    with refused("has 2 dimensions and is no index"):
        r + 1


def test_rdoms_of_one_name_are_not_mixed_up():
    a, b = te.RDom(3, name="twin"), te.RDom(4, name="twin")
    assert f"{a.x} {b.x}" == "twin.x twin.x" and a.x is not b.x
    f, g = defined("f", at=(x,)), defined("g", at=(x,))
    f[a], g[b] = 1.0, 1.0
    assert [h.updates[0].folded[0][1] for h in (f, g)] == [3, 4]
    with refused("f is updated over two RDoms, twin and twin"):
        f[a] = f[a + b.x]


def test_a_condition_is_one_on_expressions():
    r = te.RDom(3)
    with refused("r.where: got True"):
        r.where(r.x % 2 != 0)
    r.where((r.x % 2).not_equal(0))


def test_what_a_definition_refuses():
    image = te.placeholder((9,), name="image")
    r, q = te.RDom(4, name="dr"), te.RDom(4, name="dq")
    with refused("f is read before it is defined"):
        te.Func("f")[x]
    with refused("f has no pure definition yet: its first one is at different Vars, got [x, x]"):
        te.Func("f")[x, x] = 1
    with refused("f has no pure definition yet"):
        te.Func("f")[r] = 1
    with refused("f is defined with dr.x, which is none of its coordinates"):
        te.Func("f")[x] = image[r]
    f = defined()
    with refused("f has 2 coordinates, got 1", AxisError):
        f[x] = 1.0
    with refused("f is updated over two RDoms, dr and dq"):
        f[r.x, q.x] = 1.0
    with refused("f is updated with x, which stands at no place of its own"):
        f[x, y] = 1.0
    with refused("f has float32 values, the update gives int64", DTypeError):
        f[y, x] = y
    with refused("f is updated at y from f[y - 1, x]: in which order, nothing says"):
        f[y, x] = f[y - 1, x]
    k = te.reduce_axis(9, name="k")
    with refused("f is updated by a reduction"):
        f[y, x] = te.sum(image[k], axis=k)
    with refused("h has several values, none of which can be a sum"):
        te.Func("h")[x] = (0.0, te.sum(image[k], axis=k))
    g = te.Func("g")
    g[x] = (1, 2.0)
    with refused("g has 2 values, the update gives 1"):
        g[r] = 1
    with refused("g has several values, so the place of an update must not read it"):
        g[g[r][0]] = (1, 1.0)
    with refused("RDom: r: a range is an extent or (low, extent), got (0, -3)"):
        te.RDom(-3)
    with refused("the name i0 is taken"):
        te.Var("i0")
    assert not f.updates and not g.updates


# ---- bounds --------------------------------------------------------------------------------------


def test_boxes_of_a_stencil():
    image = te.placeholder((40, 30), name="image")
    a, b = te.Func("a"), te.Func("b")
    a[y, x] = image[y, x + 2] - image[y, x]
    b[y, x] = a[2 * y, x] + a[2 * y + 3, x + 1]
    assert boxes(b, (1, 6), 20) == {
        "image": "[2, 16) x [0, 23)",
        "a": "[2, 16) x [0, 21)",
        "b": "[1, 7) x [0, 20)",
    }


@pytest.mark.parametrize(
    "index, low, high",
    [
        (lambda v: 3 - v, -6, 3),
        (lambda v: v // 4, 0, 2),
        (lambda v: v % 4, 0, 3),
        (lambda v: te.clamp(v - 5, 0, 2), 0, 2),
        (lambda v: te.minimum(v, 6 - v), -3, 6),
        (lambda v: te.select(v < 3, v, v * 2), 0, 18),
        (lambda v: (v + 1) - v, 1, 1),
    ],
)
def test_an_interval_holds_all_indices(index, low, high):
    g, f = defined("g", at=(x,)), te.Func("f")
    f[x] = g[index(x)]
    assert boxes(f, 10)["g"] == f"[{low}, {high + 1})"


def test_values_bound_an_index_by_their_type():
    image = te.placeholder((7,), "uint8", name="image")
    table, f = defined("table", at=(x,)), te.Func("f")
    f[x] = table[image[x]]
    assert boxes(f, 7)["table"] == "[0, 256)"
    wide = te.placeholder((7,), "int32", name="wide")
    g = te.Func("g")
    g[x] = table[wide[x]]
    with refused("g: the index i64(wide[x]) of table, dimension 0, has no bounds"):
        boxes(g, 7)
    h = te.Func("h")
    h[x] = table[te.clamp(wide[x], 2, 5)]
    assert boxes(h, 7)["table"] == "[2, 6)"


def test_updates_widen_a_box_where_they_have_no_free_coordinate():
    r = te.RDom((3, 5), name="wr")
    f = defined()
    f[y, r] = f[y, r - 2] + 1.0
    g = te.Func("g")
    g[y, x] = f[y + 1, x]
    assert boxes(g, 4, (6, 3))["f"] == "[1, 5) x [1, 9)"
    with refused("f is asked for [0, 4) x [6, 9), its updates use [0, 4) x [1, 9)"):
        boxes(f, 4, (6, 3))


def test_updates_that_chase_each_other_are_refused():
    f = defined("f", 0.0)
    r = te.RDom(1, name="cr")
    f[y, y + 1 + r.x] = 1.0
    f[x + 1 + r.x, x] = 2.0
    g = te.Func("g")
    g[y, x] = f[y, x]
    with refused("the updates of f widen each other's box without end", Unsupported):
        boxes(g, 2, 2)


def test_an_input_is_not_read_outside():
    image = te.placeholder((8, 9), name="image")
    f = te.Func("f")
    f[y, x] = image[y, x + 1]
    with refused("image is [0, 8) x [0, 9), it is read at [0, 8) x [1, 10)") as caught:
        boxes(f, 8, 9)
    assert "te.repeat_edge(image)" in str(caught.value)
    assert boxes(f, 8, 8)["image"] == "[0, 8) x [1, 9)"
    with refused("has extents that are not known", Unsupported):
        g, free = te.Func("g"), te.placeholder((te.var("n"),), name="free")
        g[x] = free[x]
        boxes(g, 3)


def test_nothing_is_asked_for_nothing():
    image = te.placeholder((8,), name="image")
    f, g = te.Func("f"), te.Func("g")
    f[x] = image[x - 1]
    g[x] = f[x]
    assert boxes(g, 0) == {"image": "[0, 0)", "f": "[0, 0)", "g": "[0, 0)"}
    assert te.realize(te.pipeline(g, (0,)), {image: np.zeros(8, np.float32)}).shape == (0,)


def test_a_box_has_the_rank_of_its_func():
    with refused("f has 2 coordinates, it is asked for (3,)", AxisError):
        boxes(defined(), 3)
