"""ir/loop/verify.py: every rule has a kernel that breaks it."""

import pytest

from tests.ir.loop.programs import N, i, j, lane, row_sums, scale
from tinyflow.core.dtype import float32, int32
from tinyflow.core.error import InternalError
from tinyflow.ir.loop.nodes import Alloc, Buffer, For, If, Kernel, Store
from tinyflow.ir.loop.verify import verify
from tinyflow.ir.scalar import nodes as s

x = Buffer("x", float32, (4, 4))
y = Buffer("y", float32, (4,))
r = Buffer("r", float32, (4,), "register")
ONE = s.const(1, float32)


@pytest.mark.parametrize("kernel", [scale(), scale(4), row_sums()])
def test_legal(kernel):
    verify(kernel)


def put(*indices, value=ONE, buffer=y):
    return Store(buffer, indices, value)


BROKEN = {
    "variable j is not in scope": put(j),
    "x has rank 2, got 1": put(i, value=s.load(x, i)),
    "y holds float32, the value is int32": put(i, value=s.const(1, int32)),
    "x is written but is not an output": put(i, i, buffer=x),
    "buffer r is not in scope": put(i, buffer=r),
    "which is no unroll or vectorize variable": Alloc(r, (put(i, buffer=r),)),
    "the name i is already taken": For(i, 2, "serial", ()),
    "a parallel loop stands only outermost": For(j, 2, "parallel", ()),
    "must be constant": For(j, N, "vectorize", ()),
    "stands in another one": For(j, 2, "vectorize", (For(lane, 2, "vectorize", ()),)),
    "depends on a vectorize variable": For(j, 2, "vectorize", (For(lane, j, "serial", ()),)),
    "the condition must be bool": If(i, ()),
    "has scope stack or register": Alloc(Buffer("p", float32, (1,)), ()),
    "the name x is already taken": Alloc(Buffer("x", float32, (1,), "stack"), ()),
    "needs a constant shape": Alloc(Buffer("q", float32, (N,), "register"), ()),
    "is allocated inside a vectorize loop": For(j, 2, "vectorize", (Alloc(r, ()),)),
    "fold needs a register buffer": put(i, value=s.fold("sum", y)),
    "unknown kind of loop": For(j, 2, "sideways", ()),
    "arguments and result must have one dtype": put(i, value=s.make("add", (ONE, i), float32)),
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken(message):
    body = (For(i, 4, "parallel", (BROKEN[message],)),)
    with pytest.raises(InternalError, match=r"kernel k: ") as error:
        verify(Kernel("k", (x, y), (N,), body, ("y",), 4))
    assert message in str(error.value) and "statement: " in str(error.value)


def test_parallel_must_be_alone():
    body = (For(i, 4, "parallel", ()), put(s.index(0)))
    with pytest.raises(InternalError, match="only outermost statement"):
        verify(Kernel("k", (x, y), (), body, ("y",), 4))
