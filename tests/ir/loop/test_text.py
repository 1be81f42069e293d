"""ir/loop/text.py: printing, parsing back, and use as a cache key."""

import pytest

from tests.ir.loop.programs import N, i, lane, row_sums, scale
from tinyflow.core.dtype import bool_, float32, int64
from tinyflow.core.error import InternalError
from tinyflow.ir.loop import text
from tinyflow.ir.loop.nodes import Alloc, Barrier, Buffer, Call, For, If, Kernel, Store
from tinyflow.ir.scalar import nodes as s


def same(a: Kernel, b: Kernel) -> None:
    """Equal up to the identity of buffers."""
    assert text.show(a) == text.show(b)
    assert (a.name, a.outputs, a.tasks, a.extents) == (b.name, b.outputs, b.tasks, b.extents)
    assert [(x.name, x.dtype, x.shape, x.scope) for x in a.buffers] == [
        (x.name, x.dtype, x.shape, x.scope) for x in b.buffers
    ]


def test_readable():
    assert text.show(scale()) == (
        "kernel scale(x: float32[N], y: float32[N]; N) -> y, tasks=(N + 15) // 16:\n"
        "  for i in parallel((N + 15) // 16):\n"
        "    for lane in vectorize(16):\n"
        "      if i * 16 + lane < N:\n"
        "        y[i * 16 + lane] = x[i * 16 + lane] * 2.0\n"
    )


@pytest.mark.parametrize("kernel", [scale(), scale(8), row_sums()])
def test_round_trip(kernel):
    same(kernel, text.parse(text.show(kernel)))


def test_every_statement_round_trips():
    x = Buffer("x y", float32, (s.minimum(N, s.index(9)), 4))
    flag = Buffer("flag", bool_, ())
    local = Buffer("local", int64, (3,), "stack")
    body = (
        Alloc(local, (
            Store(local, (s.index(0),), i * 2),
            Barrier(),
        )),
        Call("prefetch", (x, i + 1)),
        If(s.load(flag), (), (Store(flag, (), s.const(False, bool_)),)),
        If(s.load(flag), (If(s.load(flag), (Barrier(),)),), (Barrier(),)),
    )  # fmt: skip
    past = Buffer("past", float32, (8,), nontemporal=True)
    kernel = Kernel("k", (x, flag, past), (N,), (For(i, 4, "serial", body), Barrier()), ("flag",))
    same(kernel, text.parse(text.show(kernel)))


def test_sharing_stays_linear():
    x = Buffer("x", float32, (4,))
    value = s.load(x, lane)
    for _ in range(200):
        value = value * value + value
    kernel = Kernel(
        "deep", (x,), (), (For(lane, 4, "vectorize", (Store(x, (lane,), value),)),), ("x",)
    )
    shown = text.show(kernel)
    assert len(shown) < 20_000
    again = text.parse(shown)
    same(kernel, again)


def test_key_tells_types_and_scopes_apart():
    def kernel(dtype, scope):
        b = Buffer("b", dtype, (2,), scope)
        return Kernel("k", (), (), (Alloc(b, (Store(b, (s.index(0),), s.const(1, dtype)),)),), ())

    keys = {text.show(kernel(d, c)) for d in (float32, int64) for c in ("stack", "register")}
    assert len(keys) == 4


@pytest.mark.parametrize("bad", ["", "kernel k(", "kernel k() -> , tasks=1:\n  nonsense ?\n"])
def test_bad_text(bad):
    with pytest.raises(InternalError):
        text.parse(bad)
