"""Small kernels that several tests use."""

from tinyflow.core.dtype import float32
from tinyflow.ir.loop.nodes import Alloc, Buffer, For, If, Kernel, Store
from tinyflow.ir.scalar import nodes as s

i, j, k, lane = s.var("i"), s.var("j"), s.var("k"), s.var("lane")
N = s.var("N")


def scale(lanes=16):
    """y = 2 * x for N elements, with a masked tail."""
    x = Buffer("x", float32, (N,))
    y = Buffer("y", float32, (N,))
    at = i * lanes + lane
    body = For(lane, lanes, "vectorize", (If(at < N, (Store(y, (at,), s.load(x, at) * 2.0),)),))
    tasks = (N + (lanes - 1)) // lanes
    return Kernel("scale", (x, y), (N,), (For(i, tasks, "parallel", (body,)),), ("y",), tasks)


def row_sums(rows=5, lanes=8):
    """y[i] = sum of x[i, :] in lanes, folded."""
    x = Buffer("x", float32, (rows, N))
    y = Buffer("y", float32, (rows,))
    acc = Buffer("acc", float32, (lanes,), "register")
    at = k * lanes + lane
    clear = For(lane, lanes, "vectorize", (Store(acc, (lane,), s.const(0, float32)),))
    add = Store(acc, (lane,), s.load(acc, lane) + s.load(x, i, at))
    steps = For(
        k, (N + (lanes - 1)) // lanes, "serial",
        (For(lane, lanes, "vectorize", (If(at < N, (add,)),)),),
    )  # fmt: skip
    inside = Alloc(acc, (clear, steps, Store(y, (i,), s.fold("sum", acc))))
    body = (For(i, rows, "parallel", (inside,)),)
    return Kernel("row_sums", (x, y), (N,), body, ("y",), rows)
