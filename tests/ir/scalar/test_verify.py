"""Each rule of the grammar, broken once."""

import pytest

from tinyflow.core.dtype import bool_, float32, float64, int32, int64
from tinyflow.core.error import InternalError
from tinyflow.ir.loop.nodes import Buffer
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar.verify import verify

i, x, y = s.var("i"), s.var("x", float32), s.var("y", float64)
A = Buffer("A", float32, (4, 5))

BROKEN = {
    "unknown operation": s.make("sinh2", (x,), float32),
    "wrong arity": s.make("add", (x,), float32),
    "one dtype": s.make("add", (x, y), float32),
    "expected float": s.make("sqrt", (i,), int64),
    "expected int or uint": s.make("mod", (x, x), float32),
    "compared values": s.make("lt", (x, y), bool_),
    "must be bool": s.make("lt", (x, x), float32),
    "condition must be bool": s.make("select", (i, x, x), float32),
    "sizes in bytes": s.make("bitcast", (x,), int64),
    "indices must be int64": s.make("load", (x, i), float32, A),
    "must be float32": s.make("load", (i, i), float64, A),
    "a int32 holds int": s.make("const", (), int32, 1.0),
    "outside int32": s.make("const", (), int32, 2**31),
    "combiner must be one of": s.reduce("mean", ((i, 4),), x),
    "axes must be": s.reduce("sum", ((x, 4),), x),
    "top of a tensor expression": s.reduce("sum", ((i, 4),), x) + 1.0,
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken(message):
    with pytest.raises(InternalError, match=message):
        verify(BROKEN[message])


def test_names_the_inner_expression():
    with pytest.raises(InternalError, match=r"in: x \+ y"):
        verify(s.select(i < 3, s.make("add", (x, y), float32), x))


def test_legal():
    verify(s.checked(s.load(A, i, i + 1) * x, i < 4, i, s.index(4), 1))
    verify(s.reduce("dot", ((i, 4),), s.load(A, i, i), s.call("exp", x)))
