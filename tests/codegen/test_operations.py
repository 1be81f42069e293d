"""Every scalar operation on every compiled element type: native code == interpreter."""

import numpy as np
import pytest

from tests.codegen.harness import compiled, same_bits
from tinyflow.core.dtype import (
    COMPILED,
    bool_,
    float32,
    float64,
    int32,
    int64,
    uint8,
    uint32,
    uint64,
)
from tinyflow.core.error import InternalError
from tinyflow.ir.loop.interp import run as interpret
from tinyflow.ir.loop.nodes import Buffer, For, If, Kernel, Store
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar.verify import verify as verify_scalar

FLOATS = (float32, float64)
INTEGERS = (int32, int64, uint8, uint32, uint64)
SIZE = 203  # no multiple of any number of lanes
i, lane = s.var("i"), s.var("lane")


def samples(dtype, seed):
    rng = np.random.default_rng(seed)
    if dtype is bool_:
        return rng.integers(0, 2, SIZE).astype(bool)
    if dtype.is_floating:
        special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, 1.5, 2.5, -2.5, 1e30, -1e30,
                   2147483647.0, 2147483648.0, -2147483648.0, 9.3e18, -9.3e18, 4294967296.0,
                   1.8446744073709552e19, 255.5, 256.0, 1e-40, -1e-40]  # fmt: skip
        values = np.concatenate([np.array(special), rng.normal(size=SIZE - len(special)) * 1000])
    else:
        low, high = dtype.min, dtype.max
        special = [0, 1, 2, 3, 7, 31, 32, 63, 64, low, high, high - 1]
        if dtype.kind == "int":
            special += [-1, -2, -7, low + 1]
        small = rng.integers(0 if low == 0 else -9, 9, SIZE).tolist()
        wide = rng.integers(low, high, SIZE, dtype=dtype.numpy).tolist()
        values = np.array((special + small[:80] + wide)[:SIZE], dtype.numpy)
    with np.errstate(over="ignore"):
        return rng.permutation(values).astype(dtype.numpy)


def expressions(dtype, x, y, z):
    """name -> expression over three values of one type, as far as the grammar allows it."""
    two, zero = s.const(2, dtype), s.const(0, dtype)
    found = {op: s.binary(op, x, y) for op in s.BINARY}
    found |= {op: s.compare(op, x, y) for op in s.COMPARE}
    found |= {op: s.unary(op, x) for op in s.UNARY}
    found |= {"select": s.select(s.compare("lt", x, y), x, z), "fma": s.fma(x, y, z)}
    found |= {f"to_{d.name}": s.cast(x, d) for d in COMPILED}
    found |= {
        f"bitcast_{d.name}": s.bitcast(x, d)
        for d in COMPILED
        if d.size_bytes == dtype.size_bytes and d is not bool_ and dtype is not bool_
    }
    for op in ("min", "max"):
        for name, c in (("zero", zero), ("minus", s.unary("neg", zero)), ("two", two)):
            found[f"{op}_{name}"] = s.binary(op, x, c)
            found[f"{op}_{name}_first"] = s.binary(op, c, x)
    if dtype.is_integer:
        for op in ("floordiv", "mod", "truncdiv", "rem", "shl", "shr"):
            for number in (0, 1, 2, 3, 8, 10, -1, -3):
                found[f"{op}_{number}"] = s.binary(op, x, s.const(number, dtype))
    if dtype.is_floating:
        found["clamped"] = s.cast(s.minimum(s.maximum(x, s.const(-100, dtype)), two), int32)
    return {name: e for name, e in found.items() if is_legal(e)}


def is_legal(expr):
    try:
        verify_scalar(expr)
    except InternalError:
        return False
    return True


def elementwise(name, values, inputs, lanes):
    """values: index -> name -> expression; a vectorised loop with a masked tail."""
    at = i * lanes + lane
    found = values(at)
    outputs = {n: Buffer(f"out.{n}", e.dtype, (SIZE,)) for n, e in found.items()}
    stores = tuple(Store(b, (at,), found[n]) for n, b in outputs.items())
    loop = For(lane, lanes, "vectorize", (If(at < SIZE, stores),))
    tasks = -(-SIZE // lanes)
    buffers = (*inputs, *outputs.values())
    body = (For(i, tasks, "parallel", (loop,)),)
    return Kernel(name, buffers, (), body, tuple(b.name for b in outputs.values()), tasks)


def compare(kernel, arrays, lanes):
    arrays = [*arrays, *(np.zeros(SIZE, b.dtype.numpy) for b in kernel.buffers[len(arrays) :])]
    expected = [a.copy() for a in arrays]
    interpret(kernel, expected, check=False)
    compiled(kernel, lanes)(arrays, (), 0, kernel.tasks)
    for buffer, a, b in zip(kernel.buffers, arrays, expected, strict=True):
        try:
            same_bits(a, b)
        except AssertionError as error:
            wrong = np.nonzero(~((a == b) | ((a != a) & (b != b))))[0][:5]
            at = [(n, *(v[n] for v in arrays[:3]), a[n], b[n]) for n in wrong]
            where = f"{kernel.name}: {buffer.name}: (at, x, y, z, native, expected) {at}"
            raise AssertionError(where) from error


@pytest.mark.parametrize("lanes", [16, 8, 4])
@pytest.mark.parametrize("dtype", COMPILED, ids=str)
def test_vectors(dtype, lanes):
    run_operations(dtype, lanes)


@pytest.mark.parametrize("dtype", [bool_, int32, float32], ids=str)
def test_scalars(dtype):
    run_operations(dtype, 1)


def run_operations(dtype, lanes):
    inputs = [Buffer(n, dtype, (SIZE,)) for n in "xyz"]

    def values(at):
        return expressions(dtype, *(s.load(b, at) for b in inputs))

    kernel = elementwise(f"ops.{dtype.name}.{lanes}", values, inputs, lanes)
    compare(kernel, [samples(dtype, seed) for seed in range(3)], lanes)
