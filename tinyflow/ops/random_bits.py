"""Random bits from counters: Philox4x32-10 and Threefry2x32-20.

Main functions: ``philox``, ``threefry`` (scalar expressions), ``philox_reference``,
``threefry_reference`` (NumPy); op ``ThreefryBits``. May import core, te and ops.base.

A counter-based generator is a keyed bijection: the bits of draw number n are a function of
(key, n) alone, so every element is computed on its own, in any order, with the same result.
Source: Salmon, Moraes, Dror, Shaw, Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow import te
from tinyflow.core.dtype import DType, as_dtype, uint32, uint64
from tinyflow.core.error import DTypeError, ShapeError
from tinyflow.ir.scalar import nodes as scalar
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ops.base import Op, Sample, TensorType, emit_shaped

Words = tuple[Expr, ...]

PHILOX_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
PHILOX_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)  # golden ratio, sqrt(3) - 1
PHILOX_ROUNDS = 10
THREEFRY_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
THREEFRY_PARITY = 0x1BD11BDA
THREEFRY_ROUNDS = 20


def word(value: int) -> Expr:
    return scalar.const(value, uint32)


def low_word(value: Expr) -> Expr:
    return te.cast(value, uint32)


def high_word(value: Expr) -> Expr:
    """Bits 32 to 63 of a 64-bit integer."""
    return te.cast(te.cast(value, uint64) >> 32, uint32)


def philox(counter: Sequence[Expr], key: Sequence[Expr]) -> Words:
    """Four random uint32 from a counter of four and a key of two."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(PHILOX_ROUNDS):
        p0 = te.cast(c0, uint64) * PHILOX_MULTIPLIERS[0]
        p1 = te.cast(c2, uint64) * PHILOX_MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            high_word(p1) ^ c1 ^ k0, low_word(p1), high_word(p0) ^ c3 ^ k1, low_word(p0)
        )  # fmt: skip
        k0, k1 = k0 + PHILOX_KEY_STEPS[0], k1 + PHILOX_KEY_STEPS[1]
    return c0, c1, c2, c3


def philox_reference(counter: Sequence[Any], key: Sequence[Any]) -> tuple[np.ndarray, ...]:
    """``philox`` of uint32 arrays that broadcast together."""
    c0, c1, c2, c3 = (np.asarray(c, np.uint64) for c in counter)
    k0, k1 = (np.asarray(k, np.uint64) for k in key)
    mask, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    for _ in range(PHILOX_ROUNDS):
        p0, p1 = (np.uint64(m) * c for m, c in zip(PHILOX_MULTIPLIERS, (c0, c2), strict=True))
        c0, c1, c2, c3 = (
            (p1 >> shift) ^ c1 ^ k0, p1 & mask, (p0 >> shift) ^ c3 ^ k1, p0 & mask
        )  # fmt: skip
        k0 = (k0 + np.uint64(PHILOX_KEY_STEPS[0])) & mask
        k1 = (k1 + np.uint64(PHILOX_KEY_STEPS[1])) & mask
    return tuple(c.astype(np.uint32) for c in (c0, c1, c2, c3))


def threefry(counter: Sequence[Expr], key: Sequence[Expr]) -> Words:
    """Two random uint32 from a counter of two and a key of two."""
    keys = (key[0], key[1], key[0] ^ key[1] ^ word(THREEFRY_PARITY))
    x0, x1 = counter[0] + keys[0], counter[1] + keys[1]
    for i in range(THREEFRY_ROUNDS):
        turn = THREEFRY_ROTATIONS[i % 8]
        x0 = x0 + x1
        x1 = ((x1 << turn) | (x1 >> (32 - turn))) ^ x0
        if i % 4 == 3:
            step = i // 4 + 1
            x0, x1 = x0 + keys[step % 3], x1 + keys[(step + 1) % 3] + step
    return x0, x1


def threefry_reference(counter: Sequence[Any], key: Sequence[Any]) -> tuple[np.ndarray, ...]:
    """``threefry`` of uint32 arrays that broadcast together."""
    mask = np.uint64(0xFFFFFFFF)
    k0, k1 = (np.asarray(k, np.uint64) for k in key)
    keys = (k0, k1, k0 ^ k1 ^ np.uint64(THREEFRY_PARITY))
    x0, x1 = ((np.asarray(c, np.uint64) + k) & mask for c, k in zip(counter, keys, strict=False))
    for i in range(THREEFRY_ROUNDS):
        turn = np.uint64(THREEFRY_ROTATIONS[i % 8])
        x0 = (x0 + x1) & mask
        x1 = (((x1 << turn) & mask) | (x1 >> (np.uint64(32) - turn))) ^ x0
        if i % 4 == 3:
            step = i // 4 + 1
            x0 = (x0 + keys[step % 3]) & mask
            x1 = (x1 + keys[(step + 1) % 3] + np.uint64(step)) & mask
    return x0.astype(np.uint32), x1.astype(np.uint32)


def flat_index(shape: Sequence[Any], axes: Sequence[Expr]) -> Expr:
    """The row-major position of an element, int64."""
    position: Expr = te.index(0)
    for extent, axis in zip(shape, axes, strict=True):
        position = position * te.as_index(extent) + axis
    return position


@dataclass(frozen=True)
class ThreefryBits(Op):
    """y = random bits, the very ones of ``jax.random.bits(jax.random.wrap_key_data(key), shape)``.

    key: uint32[2]    y: ``dtype`` (uint32 or uint64) of ``shape``
    Element n encrypts the 64-bit counter n; 32-bit results are the two words combined by xor.
    Errors: DTypeError, ShapeError    Source: Salmon et al. 2011; JAX's partitionable layout
    """

    shape: tuple[int, ...] = ()
    dtype: DType = uint32
    same_dtype = False
    not_differentiable = "the result is an integer"

    def infer(self, key: TensorType) -> TensorType:
        if key.dtype is not uint32:
            raise DTypeError(f"the key has dtype {key.dtype}", expected="a key of uint32[2]")
        if self.dtype not in (uint32, uint64):
            raise DTypeError(f"cannot draw {self.dtype}", expected="tf.uint32 or tf.uint64")
        require_pair(key, "key")
        return TensorType(self.dtype, self.shape)

    def reference(self, key: Any) -> Any:
        count = np.arange(int(np.prod(self.shape, dtype=np.int64)), dtype=np.uint64)
        halves = (count >> np.uint64(32), count & np.uint64(0xFFFFFFFF))
        high, low = threefry_reference(halves, (key[0], key[1]))
        if self.dtype is uint32:
            return (high ^ low).reshape(self.shape)
        both = (high.astype(np.uint64) << np.uint64(32)) | low.astype(np.uint64)
        return both.reshape(self.shape)

    def compute(self, key: te.Tensor) -> te.Tensor:
        def element(*axes: Expr) -> Expr:
            n = flat_index(self.shape, axes)
            high, low = threefry((high_word(n), low_word(n)), (key[0], key[1]))
            if self.dtype is uint32:
                return high ^ low
            return (te.cast(high, uint64) << 32) | te.cast(low, uint64)

        return te.compute(self.shape, element, "threefry")

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        key = np.array([7, 0xDEADBEEF], np.uint32)
        for shape, dtype in (((3, 5), uint32), ((), uint32), ((0, 2), uint32), ((17,), uint64)):
            yield Sample((key,), ThreefryBits(shape, dtype))

    def bad_samples(self) -> Iterable[Any]:
        yield (np.zeros(2, np.int32),), DTypeError
        yield (np.zeros(3, np.uint32),), ShapeError


def require_pair(seed: TensorType, what: str) -> None:
    """Errors: ShapeError unless a vector of two."""
    seed.require_rank(1)
    if seed.shape is not None and isinstance(seed.shape[0], int) and seed.shape[0] != 2:
        raise ShapeError(f"the {what} has {seed.shape[0]} elements", expected="2 elements")


def threefry_bits(key: Any, shape: Any, dtype: Any = uint32, name: str | None = None) -> Any:
    """Random bits of a uint32[2] key, equal to JAX's. See ThreefryBits."""
    return emit_shaped(ThreefryBits((), as_dtype(dtype)), "shape", shape, key, node_name=name)


__all__ = [
    "ThreefryBits", "flat_index", "high_word", "low_word", "philox", "philox_reference",
    "require_pair", "threefry", "threefry_bits", "threefry_reference", "word",
]  # fmt: skip
