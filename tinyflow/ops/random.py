"""Random tensors: stateless (keyed by a seed) and stateful (a new draw every run).

Main types: StatelessRandomUniform / Normal / TruncatedNormal / UniformInt, and the stateful
RandomUniform / RandomStandardNormal / TruncatedNormal / RandomUniformInt. May import ops.base,
random_bits, special.

Element n of draw d is a function of (seed, n, d): Philox4x32-10 under the key (seed, seed2) of the
counter (n, d), both 64 bits. A stateful op is the stateless one whose draw number counts its runs.
So results are the same for every number of threads, vector width and fusion, and the first elements
do not depend on the shape.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from tinyflow import te
from tinyflow.core.dtype import DType, as_dtype, float32, float64, int32, int64, uint32, uint64
from tinyflow.core.error import DTypeError, InvalidArgumentError, ShapeError
from tinyflow.core.shape import opaque
from tinyflow.ir.scalar import nodes as scalar
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ops.base import Effect, Op, Sample, TensorType, Value, emit, emit_shaped
from tinyflow.ops.creation import constant, constant_value
from tinyflow.ops.random_bits import (
    Words,
    flat_index,
    high_word,
    low_word,
    philox,
    philox_reference,
    require_pair,
)
from tinyflow.ops.shape import pack_nested, symbolic_value
from tinyflow.ops.special import inverse_erf

#: P(|z| < 2) of a standard normal: the quantiles a truncated draw is taken from
WITHIN_TWO = math.erf(math.sqrt(2.0))
_SPREAD = 0x9E3779B9  # folds the upper half of a 64-bit seed into the key


def key_word(seed: Expr) -> Expr:
    """32 key bits of a seed; distinct seeds of 32 bits have distinct keys."""
    if seed.dtype.size_bytes == 4:
        return te.cast(seed, uint32)
    return low_word(seed) + high_word(seed) * scalar.const(_SPREAD, uint32)


def key_words_reference(seed: Any) -> tuple[Any, ...]:
    seed = np.asarray(seed)
    if seed.dtype.itemsize == 4:
        return tuple(seed.astype(np.uint32))
    wide = seed.astype(np.uint64)
    high = (wide >> np.uint64(32)) * np.uint64(_SPREAD)
    return tuple((wide + high).astype(np.uint32))


@dataclass(frozen=True)
class StatelessRandom(Op, abstract=True):
    """y[n] = f(four random words of element n).

    seed: int32[2] or int64[2]; draw: optional uint64 scalar    y: ``dtype`` of ``shape``
    A subclass defines ``element`` (words -> value) and ``reference_element`` (the same in NumPy).
    Gradient: none with respect to the seed    Errors: DTypeError, ShapeError
    """

    shape: tuple[Any, ...] = ()
    dtype: DType = float32
    same_dtype = False
    not_differentiable = "a random draw does not vary smoothly with its seed"
    dtypes: ClassVar[tuple[DType, ...]] = (float32, float64)

    def infer(self, seed: TensorType, *draw: TensorType) -> TensorType:
        self.check(seed)
        return TensorType(self.dtype, self.shape)

    def check(self, seed: TensorType) -> None:
        if seed.dtype not in (int32, int64):
            raise DTypeError(f"the seed has dtype {seed.dtype}", expected="a seed of int32[2]")
        require_pair(seed, "seed")
        check_draw(self.shape, self.dtype, self.dtypes)

    def reference(self, seed: Any, *draw: Any) -> Any:
        return self.reference_element(self.words_reference(seed, draw)).reshape(self.shape)

    def words_reference(self, seed: Any, draw: Sequence[Any]) -> tuple[np.ndarray, ...]:
        n = np.arange(int(np.prod(self.shape, dtype=np.int64)), dtype=np.uint64)
        d = np.asarray(draw[0] if draw else 0, np.uint64)
        shift, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
        return philox_reference(
            (n & mask, n >> shift, d & mask, d >> shift), key_words_reference(seed)
        )

    def compute(self, seed: te.Tensor, *draw: te.Tensor) -> te.Tensor:
        return te.compute(
            self.shape, lambda *i: self.element(self.words(i, seed, draw)), "random"
        )

    def words(self, axes: Sequence[Expr], seed: te.Tensor, draw: Sequence[te.Tensor]) -> Words:
        n = flat_index(self.shape, axes)
        d = draw[0][()] if draw else scalar.const(0, uint64)
        key = (key_word(seed[0]), key_word(seed[1]))
        return philox((low_word(n), high_word(n), low_word(d), high_word(d)), key)

    def element(self, words: Words) -> Expr:
        raise NotImplementedError

    def reference_element(self, words: tuple[np.ndarray, ...]) -> Any:
        raise NotImplementedError

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        seed = np.array([5, -9], np.int32)
        for shape in ((3, 4), (), (0, 5), (1, 37)):
            yield Sample((seed,), type(self)(shape))
        yield Sample((np.array([2**40 + 1, -(2**50)]),), type(self)((7,)), note="int64 seed")
        yield Sample((seed, np.uint64(2**33 + 5)), type(self)((7,)), note="later draw")
        yield Sample((seed,), type(self)((7,), self.dtypes[1]))

    def bad_samples(self) -> Iterable[Any]:
        yield Sample((np.zeros(2, np.float32),)), DTypeError
        yield Sample((np.zeros(3, np.int32),)), ShapeError
        yield Sample((np.zeros(2, np.int32),), type(self)((2,), uint32)), DTypeError
        yield Sample((np.zeros(2, np.int32),), type(self)((-2,))), ShapeError


def check_draw(shape: tuple[Any, ...], dtype: DType, dtypes: tuple[DType, ...]) -> None:
    """Errors: DTypeError, ShapeError."""
    if dtype not in dtypes:
        raise DTypeError(f"cannot draw {dtype}", choices=[f"tf.{known}" for known in dtypes])
    for extent in shape:
        if isinstance(extent, int) and extent < 0:
            raise ShapeError(f"extent {extent} is negative", expected="extents of 0 or more")


# Words to uniform numbers. A float has as many random bits as its significand: every result is a
# multiple of 2**-24 (2**-53), all equally likely, and 1.0 cannot come out by rounding.


def wide_word(words: Words) -> Expr:
    """64 random bits."""
    return (te.cast(words[0], uint64) << 32) | te.cast(words[1], uint64)


def wide_word_reference(words: Sequence[np.ndarray]) -> np.ndarray:
    return (words[0].astype(np.uint64) << np.uint64(32)) | words[1].astype(np.uint64)


def unit(words: Words, dtype: DType) -> Expr:
    """Uniform in [0, 1)."""
    if dtype is float64:
        return te.cast(wide_word(words) >> 11, float64) * 2.0**-53
    return te.cast(words[0] >> 8, float32) * 2.0**-24


def unit_reference(words: Sequence[np.ndarray], dtype: DType) -> np.ndarray:
    if dtype is float64:
        return (wide_word_reference(words) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return (words[0] >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def symmetric(words: Words, dtype: DType) -> Expr:
    """Uniform in (-1, 1), odd multiples of 2**-24 (2**-53): symmetric and never 0."""
    if dtype is float64:
        whole = te.cast((wide_word(words) >> 11) | 1, float64)
        return whole * 2.0**-52 - 1.0
    return te.cast((words[0] >> 8) | 1, float32) * 2.0**-23 - 1.0


def symmetric_reference(words: Sequence[np.ndarray], dtype: DType) -> np.ndarray:
    if dtype is float64:
        whole = ((wide_word_reference(words) >> np.uint64(11)) | np.uint64(1)).astype(np.float64)
        return whole * 2.0**-52 - 1.0
    whole = ((words[0] >> np.uint32(8)) | np.uint32(1)).astype(np.float32)
    return whole * np.float32(2.0**-23) - np.float32(1.0)


def _quantiles(level: np.ndarray, dtype: DType) -> np.ndarray:
    """sqrt(2) * erf^-1(level), in the dtype's own arithmetic."""
    inverse = np.array([inverse_erf(float(v)) for v in level], np.float64).astype(dtype.numpy)
    return inverse * dtype.numpy.type(math.sqrt(2.0))


@dataclass(frozen=True)
class StatelessRandomUniform(StatelessRandom):
    """y uniform in [0, 1), multiples of 2**-24 (float64: 2**-53). See StatelessRandom."""

    def element(self, words: Words) -> Expr:
        return unit(words, self.dtype)

    def reference_element(self, words: tuple[np.ndarray, ...]) -> Any:
        return unit_reference(words, self.dtype)


@dataclass(frozen=True)
class StatelessRandomNormal(StatelessRandom):
    """y normal with mean 0 and deviation 1: sqrt(2) * erf^-1(u), u uniform in (-1, 1).

    The largest float32 is 5.3 deviations from 0 (float64: 8.2). See StatelessRandom.
    """

    def element(self, words: Words) -> Expr:
        return te.erfinv(symmetric(words, self.dtype)) * math.sqrt(2.0)

    def reference_element(self, words: tuple[np.ndarray, ...]) -> Any:
        return _quantiles(symmetric_reference(words, self.dtype), self.dtype)


@dataclass(frozen=True)
class StatelessTruncatedNormal(StatelessRandom):
    """y standard normal under the condition |y| <= 2. See StatelessRandom.

    sqrt(2) * erf^-1(u * erf(sqrt(2))), u uniform in (-1, 1): no draw is rejected.
    """

    def element(self, words: Words) -> Expr:
        level = symmetric(words, self.dtype) * WITHIN_TWO
        y = te.erfinv(level) * math.sqrt(2.0)
        two = scalar.const(2, self.dtype)
        return te.minimum(te.maximum(y, -two), two)

    def reference_element(self, words: tuple[np.ndarray, ...]) -> Any:
        number = self.dtype.numpy.type
        level = symmetric_reference(words, self.dtype) * number(WITHIN_TWO)
        return np.clip(_quantiles(level, self.dtype), number(-2), number(2))


@dataclass(frozen=True)
class StatelessRandomUniformInt(StatelessRandom):
    """y uniform in [minval, maxval), integers.

    seed: int[2]; minval, maxval: scalars of ``dtype``; draw: optional uint64
    64 random bits are scaled to the range (int64: their remainder), so a value's probability is off
    by at most range / 2**64. Not meaningful unless minval < maxval.
    """

    dtype: DType = int32
    dtypes: ClassVar[tuple[DType, ...]] = (int32, int64)

    def infer(  # type: ignore[override]
        self, seed: TensorType, minval: TensorType, maxval: TensorType, *draw: TensorType
    ) -> TensorType:
        self.check(seed)
        check_bounds(self.dtype, minval, maxval)
        return TensorType(self.dtype, self.shape)

    def reference(self, seed: Any, minval: Any, maxval: Any, *draw: Any) -> Any:
        bits = wide_word_reference(self.words_reference(seed, draw))
        low, high = (np.asarray(v).astype(np.int64).astype(np.uint64) for v in (minval, maxval))
        span = high - low
        if self.dtype is int32:
            span &= np.uint64(0xFFFFFFFF)
            shift, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
            offset = ((bits >> shift) * span + (((bits & mask) * span) >> shift)) >> shift
        else:
            offset = bits % span if span else bits * np.uint64(0)
        return (low + offset).astype(self.dtype.numpy).reshape(self.shape)

    def compute(  # type: ignore[override]
        self, seed: te.Tensor, minval: te.Tensor, maxval: te.Tensor, *draw: te.Tensor
    ) -> te.Tensor:
        def element(*axes: Expr) -> Expr:
            words = self.words(axes, seed, draw)
            low, high = minval[()], maxval[()]
            if self.dtype is int64:
                start = te.cast(low, uint64)
                return te.cast(start + wide_word(words) % (te.cast(high, uint64) - start), int64)
            # The upper half of a 64 x 32 bit product scales 64 random bits to the range.
            span = te.cast(te.cast(high, uint32) - te.cast(low, uint32), uint64)
            carry = (te.cast(words[1], uint64) * span) >> 32
            offset = (te.cast(words[0], uint64) * span + carry) >> 32
            return te.cast(te.cast(low, uint32) + te.cast(offset, uint32), int32)

        return te.compute(self.shape, element, "random")

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        seed = np.array([5, -9], np.int32)
        least, most = -(2**31), 2**31 - 1
        for shape, low, high in (((3, 4), 0, 9), ((), -5, 5), ((0, 5), 0, 2), ((64,), least, most)):
            yield Sample((seed, np.int32(low), np.int32(high)), type(self)(shape))
        wide = (seed, np.int64(-(2**40)), np.int64(2**62))
        yield Sample((*wide, np.uint64(3)), type(self)((7,), int64))

    def bad_samples(self) -> Iterable[Any]:
        seed, low = np.zeros(2, np.int32), np.int32(0)
        yield Sample((seed, low, np.int64(4))), DTypeError
        yield Sample((seed, np.zeros(2, np.int32), low)), ShapeError


def check_bounds(dtype: DType, *bounds: TensorType) -> None:
    """Errors: DTypeError, ShapeError unless scalars of ``dtype``."""
    for bound in bounds:
        if bound.dtype is not dtype:
            raise DTypeError(f"a bound has dtype {bound.dtype}", expected=f"bounds of {dtype}")
        bound.require_rank(0)


# ---------------------------------------------------------------------------------------------
# Stateful: a new draw in every run


@dataclass(frozen=True)
class StatefulRandom(Op, abstract=True):
    """y = a new draw in every run of the node.

    inputs: the bounds of RandomUniformInt; with ``computed`` then the shape as an int vector
    y: ``dtype`` of ``shape``, which for a computed shape is what construction knows of it (or None)
    (seed, seed2) is the key: two ops with equal seeds draw equal numbers. (0, 0) means unseeded:
    the runtime starts the node's counter at a random place.    Gradient: none
    Errors: DTypeError, ShapeError
    """

    shape: tuple[Any, ...] | None = ()
    dtype: DType = float32
    seed: int = 0
    seed2: int = 0
    computed: bool = False
    effect = Effect.RANDOM
    same_dtype = False
    not_differentiable = "a random draw has no inputs that it varies with"
    stateless: ClassVar[type[StatelessRandom]]
    bounds: ClassVar[int] = 0

    def infer(self, *inputs: TensorType) -> TensorType:
        check_draw(self.shape or (), self.dtype, self.stateless.dtypes)
        check_bounds(self.dtype, *inputs[: self.bounds])
        if self.computed:
            inputs[-1].require_integer().require_rank(1)
        return TensorType(self.dtype, self.shape)

    def functionalize(self, state: Any, *inputs: Value) -> Value:
        """The stateless op under this op's key; its draw number is the node's run counter."""
        key = constant(np.array([self.seed, self.seed2], np.int64))
        arguments = (key, *inputs[: self.bounds], state.counter(state.node))
        shape = inputs[-1] if self.computed else self.shape
        pure = self.stateless((), self.dtype)
        return emit_shaped(pure, "shape", shape, *arguments)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class RandomUniform(StatefulRandom):
    """y uniform in [0, 1), a new draw in every run. See StatefulRandom, StatelessRandomUniform."""

    stateless = StatelessRandomUniform
    onnx = "RandomUniform"


@dataclass(frozen=True)
class RandomStandardNormal(StatefulRandom):
    """y standard normal, a new draw in every run. See StatefulRandom, StatelessRandomNormal."""

    stateless = StatelessRandomNormal
    onnx = "RandomNormal"


@dataclass(frozen=True)
class TruncatedNormal(StatefulRandom):
    """y normal within two deviations, a new draw in every run. See StatelessTruncatedNormal."""

    stateless = StatelessTruncatedNormal


@dataclass(frozen=True)
class RandomUniformInt(StatefulRandom):
    """y uniform integers in [minval, maxval), a new draw in every run.

    minval, maxval: scalars of ``dtype``. See StatefulRandom, StatelessRandomUniformInt.
    """

    dtype: DType = int32
    stateless = StatelessRandomUniformInt
    bounds = 2


_tags = itertools.count(1)


def draw(op: StatefulRandom, shape: Any, bounds: Sequence[Any], name: str | None) -> Any:
    """``op`` with a known shape as its attribute, or a computed one as its last input."""
    known: Any = known_extents(shape)
    if known is None:
        shape = pack_nested(shape)
        known = symbolic_value(shape)
    if known is None or not all(isinstance(extent, int) for extent in known):
        tag = next(_tags)
        partial = None if known is None else tuple(
            opaque(f"draw{tag}_{axis}") if isinstance(extent, str) else extent
            for axis, extent in enumerate(known)
        )  # fmt: skip
        op = replace(op, shape=partial, computed=True)
        return emit(op, *bounds, shape, name=name)
    return emit(replace(op, shape=tuple(known)), *bounds, name=name)


def known_extents(shape: Any) -> tuple[int, ...] | None:
    """The shape as ints, or None when a tensor is involved. Errors: DTypeError for fractions."""
    if isinstance(shape, Value) or hasattr(shape, "as_value"):
        return None
    extents = tuple(shape) if hasattr(shape, "__iter__") else (shape,)
    try:
        return tuple(operator.index(extent) for extent in extents)
    except TypeError:
        if any(isinstance(extent, Value) or hasattr(extent, "as_value") for extent in extents):
            return None
        raise DTypeError(f"a shape needs integers, got {shape!r}", expected="integers") from None


def random_uniform(
    shape: Any, dtype: Any = float32, seed: int = 0, seed2: int = 0, name: str | None = None
) -> Any:
    """Uniform in [0, 1), new in every run; (seed, seed2) is the key. See RandomUniform."""
    return draw(RandomUniform((), as_dtype(dtype), seed, seed2), shape, (), name)


def random_normal(
    shape: Any, dtype: Any = float32, seed: int = 0, seed2: int = 0, name: str | None = None
) -> Any:
    """Standard normal, new in every run. See RandomStandardNormal."""
    return draw(RandomStandardNormal((), as_dtype(dtype), seed, seed2), shape, (), name)


def truncated_normal(
    shape: Any, dtype: Any = float32, seed: int = 0, seed2: int = 0, name: str | None = None
) -> Any:
    """Standard normal within two deviations, new in every run. See TruncatedNormal."""
    return draw(TruncatedNormal((), as_dtype(dtype), seed, seed2), shape, (), name)


def random_uniform_int(
    shape: Any, minval: Any, maxval: Any, dtype: Any = int32, seed: int = 0, seed2: int = 0,
    name: str | None = None,
) -> Any:  # fmt: skip
    """Integers in [minval, maxval), new in every run. See RandomUniformInt.

    Errors: InvalidArgumentError where the bounds are known and leave nothing to draw
    """
    dtype = as_dtype(dtype)
    bounds = integer_bounds(minval, maxval, dtype)
    return draw(RandomUniformInt((), dtype, seed, seed2), shape, bounds, name)


def integer_bounds(minval: Any, maxval: Any, dtype: DType) -> tuple[Value, Value]:
    """Both as values of ``dtype``. Errors: InvalidArgumentError unless minval < maxval."""
    low, high = (v if isinstance(v, Value) else constant(v, dtype) for v in (minval, maxval))
    known = [constant_value(v) for v in (low, high)]
    if known[0] is not None and known[1] is not None and not np.all(known[0] < known[1]):
        raise InvalidArgumentError(
            f"random_uniform: no integer lies in [{known[0]}, {known[1]})",
            expected="minval < maxval",
        )
    return low, high


def stateless_random_uniform(
    shape: Any, seed: Any, dtype: Any = float32, name: str | None = None
) -> Any:
    """Uniform in [0, 1), a function of ``seed``: int[2]. See StatelessRandomUniform."""
    return emit_shaped(
        StatelessRandomUniform((), as_dtype(dtype)), "shape", shape, seed, node_name=name
    )


def stateless_random_normal(
    shape: Any, seed: Any, dtype: Any = float32, name: str | None = None
) -> Any:
    """Standard normal, a function of ``seed``: int[2]. See StatelessRandomNormal."""
    return emit_shaped(
        StatelessRandomNormal((), as_dtype(dtype)), "shape", shape, seed, node_name=name
    )


def stateless_truncated_normal(
    shape: Any, seed: Any, dtype: Any = float32, name: str | None = None
) -> Any:
    """Standard normal within two deviations, a function of ``seed``: int[2]."""
    return emit_shaped(
        StatelessTruncatedNormal((), as_dtype(dtype)), "shape", shape, seed, node_name=name
    )


def stateless_random_uniform_int(
    shape: Any, seed: Any, minval: Any, maxval: Any, dtype: Any = int32, name: str | None = None
) -> Any:
    """Integers in [minval, maxval), a function of ``seed``: int[2]."""
    dtype = as_dtype(dtype)
    op = StatelessRandomUniformInt((), dtype)
    bounds = integer_bounds(minval, maxval, dtype)
    return emit_shaped(op, "shape", shape, seed, *bounds, node_name=name)
