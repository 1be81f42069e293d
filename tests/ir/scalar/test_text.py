"""show and parse are inverse, for every operation of the grammar."""

import time

import numpy as np
import pytest

from tinyflow.core.dtype import (
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int8,
    int32,
    int64,
    uint8,
    uint64,
)
from tinyflow.core.error import InternalError
from tinyflow.ir.loop.nodes import Buffer
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar.text import parse, show, show_let
from tinyflow.ir.scalar.visit import postorder
from tinyflow.te.tensor import placeholder

i, j, N, k, m = (s.var(name) for name in ("i", "j", "N", "k", "m"))
A = Buffer("A", float32, (4, N))
SCALAR = Buffer("scalar", float32, ())
LANES = Buffer("layer/lanes:0", float64, (16,))
T = placeholder((4, N), float32, "T")
NAMES = {"i": i, "j": j, "N": N, "A": A, "scalar": SCALAR, LANES.name: LANES, "T": T}
x, y = s.load(A, i, j), s.read(T, i, j)
p, q = x < y, x.equal(y)
n = s.cast(x, int32)

CASES = {
    "i * 8 - 1": i * 8 - 1,
    "(i + j) * N": (i + j) * N,
    "i + j * N": i + j * N,
    "i - (j - N)": i - (j - N),
    "i - j - N": (i - j) - N,
    "i // N % j": (i // N) % j,
    "i // (N % j)": i // (N % j),
    "i << 1 >> j": (i << 1) >> j,
    "i & j ^ N | i": ((i & j) ^ N) | i,
    "-i": -i,
    "-(-i)": s.unary("neg", -i),
    "~i": ~i,
    "i + -9223372036854775808": i + s.const(-(2**63), int64),
    "truncdiv(i, j)": s.binary("truncdiv", i, j),
    "rem(i, j)": s.binary("rem", i, j),
    "min(i, max(j, N))": s.minimum(i, s.maximum(j, N)),
    "A[i, j] / T[i, j]": x / y,
    "A[i, j] < T[i, j]": p,
    "A[i, j] <= T[i, j]": x <= y,
    "A[i, j] != T[i, j]": x.not_equal(y),
    "(A[i, j] < T[i, j]) == (A[i, j] == T[i, j])": p.equal(q),
    "(A[i, j] < T[i, j]) & ~(A[i, j] == T[i, j])": p & ~q,
    "select(A[i, j] < T[i, j], A[i, j], 1.0)": s.select(p, x, 1.0),
    "fma(A[i, j], T[i, j], 0.1)": s.fma(x, y, s.const(0.1, float32)),
    "f64(A[i, j])": s.cast(x, float64),
    "bitcast_i32(A[i, j]) + 3i32": s.bitcast(x, int32) + 3,
    "i32(A[i, j]) * 2i32": n * 2,
    "exp(A[i, j])": s.call("exp", x),
    "pow(A[i, j], T[i, j])": s.call("pow", x, y),
    "scalar[]": s.load(SCALAR),
    "fold_max(`layer/lanes:0`)": s.fold("max", LANES),
    "checked(i, i < N, i, N, 1)": s.checked(i, i < N, i, N, 1),
    "sum(T[k, m], axis=[k:784, m:N])": s.reduce("sum", ((k, 784), (m, N)), s.read(T, k, m)),
    "dot(T[i, k], T[k, j], axis=[k:N * 2])": s.reduce(
        "dot", ((k, N * 2),), s.read(T, i, k), s.read(T, k, j)
    ),
    "max(T[i, k], axis=[k:3])": s.reduce("max", ((k, 3),), s.read(T, i, k)),
    "true": s.const(True, bool_),
    "7u8": s.const(7, uint8),
    "-7i8": s.const(-7, int8),
    "18446744073709551615u64": s.const(2**64 - 1, uint64),
    "0.1": s.const(0.1, float32),
    "0.1f64": s.const(0.1, float64),
    "-0.0": s.const(-0.0, float32),
    "-inf": s.const(-np.inf, float32),
    "nan_f64": s.const(np.nan, float64),
    "1e-45": s.const(1e-45, float32),
    "5e-324f64": s.const(5e-324, float64),
    "0.333984375bf16": s.const(1 / 3, bfloat16),
    "65504.0f16": s.const(65504, float16),
}
for _op in ("abs", "sqrt", "floor", "ceil", "rint", "trunc"):
    CASES[f"{_op}(A[i, j])"] = s.unary(_op, x)


@pytest.mark.parametrize("text", CASES)
def test_show_and_parse(text):
    assert show(CASES[text]) == text
    assert parse(text, NAMES) is CASES[text]
    assert repr(CASES[text]) == text


def test_every_operation_has_a_case():
    """Fails when the grammar grows and the text does not."""
    seen = {e.op for root in CASES.values() for e in postorder(root)}
    assert seen >= {*s.BINARY, *s.UNARY, *s.COMPARE} | {"fold", "reduce", "checked"}


def test_float_constants_keep_their_bits():
    rng = np.random.default_rng(0)
    for bits in rng.integers(0, 2**32, 3000, dtype=np.uint32):
        value = bits.view(np.float32)
        if np.isfinite(value):
            e = s.const(float(value), float32)
            assert parse(show(e)) is e
    for bits in rng.integers(0, 2**64, 3000, dtype=np.uint64):
        value = bits.view(np.float64)
        if np.isfinite(value):
            e = s.const(float(value), float64)
            assert parse(show(e)) is e


def test_names_of_variables_may_look_like_literals():
    odd = s.var("inf")
    assert show(odd + 1) == "`inf` + 1"
    assert parse("`inf` + 1", {"inf": odd}) is odd + 1


def test_shared_subexpressions_are_printed_once():
    lines, roots = show_let([x * x + x, x * x], prefix="v")
    assert lines == ["v0 = A[i, j]", "v1 = v0 * v0"]
    assert roots == ["v1 + v0", "v1"]


def test_let_names_avoid_variables():
    t0 = s.var("t0")
    lines, roots = show_let([(t0 + j) * (t0 + j)])
    assert (lines, roots) == (["t1 = t0 + j"], ["t1 * t1"])


@pytest.mark.parametrize("grow", [lambda e: e * e + e, lambda e: s.call("exp", -(e + x))])
def test_deep_expressions(grow):
    e = x
    for _ in range(2000):
        e = grow(e)
    start = time.perf_counter()
    assert parse(show(e), NAMES) is e
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    "text", ["", "i +", "(i", "i)", "unknown", "fma(i, j)", "i $ j", "A[i", "select()", "1 2"]
)
def test_bad_text(text):
    with pytest.raises(InternalError, match="scalar text"):
        parse(text, NAMES)
