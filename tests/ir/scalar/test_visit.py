"""Walks, substitution, affine form; simplify_index keeps values (fuzzed) and is idempotent."""

import random

import pytest

from tinyflow.core.dtype import float32, int64
from tinyflow.ir.loop.nodes import Buffer
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar.interp import evaluate
from tinyflow.ir.scalar.text import parse, show
from tinyflow.ir.scalar.visit import (
    Linear,
    free_vars,
    interval,
    linear,
    loads,
    postorder,
    reads,
    simplify_index,
    substitute,
    transform,
)
from tinyflow.te.tensor import placeholder

i, j, k, N, H = (s.var(name) for name in ("i", "j", "k", "N", "H"))
A = Buffer("A", float32, (N,))
T = placeholder((N,), float32, "T")
NAMES = {"i": i, "j": j, "k": k, "N": N, "H": H, "A": A, "T": T}


def test_postorder_visits_shared_nodes_once_and_arguments_first():
    e = (i + j) * (i + j)
    assert list(postorder(e)) == [i, j, i + j, e]


def test_transform_rebuilds_through_the_constructors():
    e = s.select(i < N, i * 4, j)
    assert transform(e, lambda x: s.index(2) if x is i else None) is s.select(
        s.index(2) < N, s.index(8), j
    )
    assert transform(e, lambda x: None) is e


def test_substitute_is_simultaneous():
    assert substitute(i - j, {i: j, j: i}) is j - i
    assert substitute(s.load(A, i + 1), {i: i * 4}) is s.load(A, i * 4 + 1)


def test_substitute_respects_reduce_axes():
    e = s.reduce("sum", ((k, N),), s.read(T, k + i))
    got = substitute(e, {k: j, i: s.index(5), N: s.index(9)})
    assert show(got) == "sum(T[k + 5], axis=[k:9])"
    assert set(free_vars(e)) == {i, N}


def test_free_vars_loads_reads():
    e = s.load(A, i) + s.read(T, j)
    assert free_vars(e, e * s.load(A, k)) == (i, j, k)
    assert loads(e) == (s.load(A, i),)
    assert reads(e) == (s.read(T, j),)


def test_walks_of_deep_expressions_do_not_recurse():
    e = s.load(A, i)
    for _ in range(5000):
        e = e * e + 1.0
    assert substitute(e, {i: j}) is substitute(e, {i: j})
    assert free_vars(e) == (i,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("i * 4 + j + 3", Linear({i: 4, j: 1}, 3)),
        ("i * N + j * 2 + N", Linear({i: N, j: 2}, N)),
        ("(i + j) * N - i * N", Linear({j: N}, 0)),
        ("-(i - 2) * 3", Linear({i: -3}, 6)),
        ("N // 2", Linear({}, N // 2)),
        ("i * j", None),
        ("i // 2", None),
        ("min(i, j)", None),
    ],
)
def test_linear(text, expected):
    assert linear(parse(text, NAMES), (i, j)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(i * 8 + j) // 8", "i"),
        ("(i * 8 + j) % 8", "j"),
        ("(i * 16 + j * 2 + 1) // 2", "i * 8 + j"),
        ("(i * 28 + j) // 28 * 28 + (i * 28 + j) % 28", "i * 28 + j"),
        ("k // 4 * 4 + k % 4", "k"),
        ("k // 2 // 3", "k // 6"),
        ("k % 6 % 3", "k % 3"),
        ("(k * 6 + 5) % 3", "2"),
        ("(i * 8 + j + 8) // 8", "i + 1"),
        ("min(i, 40)", "i"),
        ("max(j - 8, 0)", "0"),
        ("i < 32", "true"),
        ("i * 8 + j < 256", "true"),
        ("j < 7", "j < 7"),
        ("j - j", "0"),
        ("select(j < 8, i, k)", "i"),
        ("A[(i * 8 + j) // 8] + 0.5", "A[i] + 0.5"),
        ("(i * N + j) // N", "(i * N + j) // N"),
    ],
)
def test_simplify_index(text, expected):
    bounds = {i: (0, 31), j: (0, 7), N: (1, None)}
    assert show(simplify_index(parse(text, NAMES), bounds)) == expected


def test_simplify_index_with_symbolic_extents():
    bounds = {i: (0, None), j: (0, N - 1), N: (1, None)}
    assert simplify_index((i * N + j) // N, bounds) is i
    assert simplify_index((i * N + j) % N, bounds) is j
    assert simplify_index(((i * H + k) * N) // N, bounds) is i * H + k


OPS = ("add", "add", "sub", "mul", "mul", "floordiv", "mod", "min", "max", "select", "neg")


def random_index(rng, depth, leaves):
    if depth == 0:
        return rng.choice(leaves) if rng.random() < 0.8 else s.index(rng.randint(-9, 40))
    op = rng.choice(OPS)
    a = random_index(rng, depth - 1, leaves)
    if op == "neg":
        return -a
    if op == "mul" or op in ("floordiv", "mod"):
        b = (
            s.index(rng.choice((1, 2, 3, 4, 6, 8, 28)))
            if rng.random() < 0.9
            else rng.choice(leaves)
        )
        return s.binary(op, a, b)
    b = random_index(rng, depth - 1, leaves)
    if op == "select":
        return s.select(s.compare(rng.choice(("lt", "le", "eq", "ne")), a, b), b, a)
    return s.binary(op, a, b)


@pytest.mark.parametrize("seed", range(300))
def test_simplified_index_has_the_same_value(seed):
    rng = random.Random(seed)
    ranges = {i: (0, 7), j: (0, 27), k: (-3, 12)}
    e = random_index(rng, rng.randint(1, 4), list(ranges))
    simple = simplify_index(e, ranges)
    assert simplify_index(simple, ranges) is simple
    for _ in range(20):
        env = {v: rng.randint(*ends) for v, ends in ranges.items()}
        assert evaluate(e, env) == evaluate(simple, env), f"{show(e)}  ->  {show(simple)}  at {env}"
    assert simple.dtype is int64


def test_an_interval_follows_the_types():
    """Short integers are bounded by what they hold, also after they wrapped around."""
    i, byte = s.var("i"), s.read(placeholder((4,), "uint8", name="byte"), 0)
    bounds = {i: (0, 9)}
    infinite = (-float("inf"), float("inf"))
    assert interval(i * 3 - i, bounds) == (0, 18)
    assert interval(s.cast(byte, int64) * 2, bounds) == (0, 510)
    assert interval(s.cast(s.cast(i - 4, byte.dtype), int64), bounds) == (0, 255)
    assert interval(s.cast(s.cast(i + 1, byte.dtype), int64), bounds) == (1, 10)
    assert interval(s.cast(byte + 250, int64), bounds) == (0, 255)
    wide = s.read(placeholder((4,), "uint64", name="wide"), 0)
    assert interval(s.cast(wide, int64), bounds) == infinite  # 2**63 becomes negative
    assert interval(s.cast(s.read(placeholder((4,), name="x"), 0), int64), bounds) == infinite
    assert interval(s.cast(i < 4, int64), bounds) == (0, 1)
