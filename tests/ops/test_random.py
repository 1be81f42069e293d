"""Random ops: published vectors of the generators, distributions, streams."""

import numpy as np
import pytest
from scipy import stats

from tinyflow.core.dtype import float32, float64, int32, int64, uint64
from tinyflow.core.error import DTypeError, InvalidArgumentError
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.interp import run
from tinyflow.ir.graph.nodes import Effect, Input, TensorType
from tinyflow.ir.scalar.interp import evaluate_all
from tinyflow.ops.random import (
    StatelessRandomNormal,
    StatelessRandomUniform,
    StatelessRandomUniformInt,
    StatelessTruncatedNormal,
    random_uniform,
    random_uniform_int,
)
from tinyflow.ops.random_bits import (
    ThreefryBits,
    philox,
    philox_reference,
    threefry,
    threefry_reference,
    word,
)
from tinyflow.passes.functionalize import functionalize
from tinyflow.passes.specialize import specialize

ONES = 0xFFFFFFFF
PI = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0)

# The known-answer file of Random123 1.14: counter, key, result.
PHILOX = [
    ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (PI[:4], PI[4:], (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]
THREEFRY = [
    ((0,) * 2, (0,) * 2, (0x6B200159, 0x99BA4EFE)),
    ((ONES,) * 2, (ONES,) * 2, (0x1CB996FC, 0xBB002BE7)),
    (PI[:2], PI[2:4], (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize("counter, key, want", PHILOX)
def test_philox_vectors(counter, key, want):
    assert tuple(map(int, philox_reference(counter, key))) == want
    words = philox(tuple(map(word, counter)), tuple(map(word, key)))
    assert tuple(map(int, evaluate_all(words))) == want


@pytest.mark.parametrize("counter, key, want", THREEFRY)
def test_threefry_vectors(counter, key, want):
    assert tuple(map(int, threefry_reference(counter, key))) == want
    words = threefry(tuple(map(word, counter)), tuple(map(word, key)))
    assert tuple(map(int, evaluate_all(words))) == want


def test_threefry_bits_are_those_of_jax():
    """jax.random.bits of jax.random.key(0) and key(42), JAX 0.10."""
    zero, answer = np.array([0, 0], np.uint32), np.array([0, 42], np.uint32)
    bits = ThreefryBits((5,)).reference(zero)
    assert bits.tolist() == [4070199207, 4202968722, 1427181096, 2012915765, 2447653815]
    assert ThreefryBits((2, 3)).reference(answer).tolist() == [
        [2098992034, 2919706841, 2646866425],
        [2409546199, 1935504149, 2516274904],
    ]
    assert ThreefryBits((2,), uint64).reference(zero).tolist() == [
        7719171245655871230, 3989946895414531357,
    ]  # fmt: skip


SEED = np.array([20, 26], np.int32)
N = 40_000


@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
@pytest.mark.parametrize(
    "op_class, distribution",
    [
        (StatelessRandomUniform, stats.uniform()),
        (StatelessRandomNormal, stats.norm()),
        (StatelessTruncatedNormal, stats.truncnorm(-2, 2)),
    ],
)
def test_distribution(op_class, distribution, dtype):
    x = op_class((N,), dtype).reference(SEED)
    assert x.dtype == dtype.numpy
    assert stats.kstest(x, distribution.cdf).pvalue > 0.01
    error = 4 / np.sqrt(N)
    assert abs(x.mean() - distribution.mean()) < error * distribution.std()
    assert abs(x.std() - distribution.std()) < error * distribution.std()
    # neighbours are independent
    assert abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < error


def test_uniform_stays_below_one_and_uses_all_bits():
    x = StatelessRandomUniform((N,)).reference(SEED)
    assert x.min() >= 0 and x.max() < 1
    whole = x.astype(np.float64) * 2**24
    assert (whole == np.round(whole)).all() and (whole % 2 == 1).any()


def test_truncated_normal_stays_within_two():
    assert np.abs(StatelessTruncatedNormal((N,)).reference(SEED)).max() <= 2


@pytest.mark.parametrize("dtype", [int32, int64], ids=str)
@pytest.mark.parametrize("low, high", [(0, 10), (-3, 4), (5, 6)])
def test_integers_are_equally_likely(low, high, dtype):
    op = StatelessRandomUniformInt((N,), dtype)
    x = op.reference(SEED, dtype.numpy.type(low), dtype.numpy.type(high))
    assert x.min() == low and x.max() == high - 1
    counts = np.bincount(x - low)
    assert high - low == 1 or stats.chisquare(counts).pvalue > 0.01


def test_seeds_draws_and_prefixes():
    op = StatelessRandomUniform((100,))
    first = op.reference(SEED)
    assert (op.reference(SEED) == first).all()
    assert (StatelessRandomUniform((4, 50)).reference(SEED).ravel()[:100] == first).all()
    others = [
        op.reference(np.array([20, 27], np.int32)), op.reference(np.array([21, 26], np.int32)),
        op.reference(SEED, np.uint64(1)), op.reference(SEED, np.uint64(2**32)),
    ]  # fmt: skip
    for other in others:
        assert not np.isin(other, first).any()
    # the same small seed in 64 bits is the same key
    assert (op.reference(SEED.astype(np.int64)) == first).all()


def draws(node_value, runs=2, feeds=(), arrays=()):
    """The values of a stateful op in successive runs of one function."""
    fn = functionalize([node_value], feeds=feeds)
    counters = [v for v in fn.inputs if v.node.op.role == "counter"]
    assert len(counters) == 1
    fn = specialize(fn, [TensorType(a.dtype, a.shape) for a in arrays])
    return [run(fn, [*arrays, np.uint64(n)])[0] for n in range(runs)]


def test_a_stateful_op_draws_anew_in_every_run():
    builder = Builder()
    with building(builder):
        x = random_uniform((3, 4), seed=7, seed2=8)
    assert x.node.op.effect is Effect.RANDOM
    first, second = draws(x)
    assert not np.isin(second, first).any()
    stateless = StatelessRandomUniform((3, 4))
    key = np.array([7, 8], np.int64)
    assert (first == stateless.reference(key)).all()
    assert (second == stateless.reference(key, np.uint64(1))).all()


def test_a_shape_computed_in_the_graph():
    from tinyflow.core.shape import Dim
    from tinyflow.ops.shape import shape

    builder = Builder()
    with building(builder):
        x = builder.emit(Input(TensorType(float32, (Dim.symbol("N"), 3)), "feed"), ())
        y = random_uniform(shape(x), seed=1)
        rows = builder.emit(Input(TensorType(int32, ()), "feed"), ())
        z = random_uniform_int([rows, 2], 0, 5)
    assert y.type.shape == (Dim.symbol("N"), 3)
    assert z.type.shape[1] == 2
    array = np.zeros((5, 3), np.float32)
    first, _ = draws(y, feeds=[x], arrays=[array])
    assert first.shape == (5, 3)


def test_impossible_bounds_are_refused_at_construction():
    with building(Builder()), pytest.raises(InvalidArgumentError, match="no integer lies in"):
        random_uniform_int((2,), 5, 5)


def test_a_fractional_shape_is_refused():
    with building(Builder()), pytest.raises(DTypeError, match="a shape needs integers"):
        random_uniform((2.5,))


