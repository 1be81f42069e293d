"""Pooling by the p-norm of every window.

Main type: ``LpPool``. May import ops.base, pooling, comparison, elementwise, logical.
Shapes as in ops.pooling: x: [n, h.., c], y: [n, o.., c]; channels second for NCHW.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow.core.error import InvalidArgumentError
from tinyflow.ops.base import Sample, TensorType, Value, emit, ranged
from tinyflow.ops.comparison import greater
from tinyflow.ops.creation import ones_like, zeros_like
from tinyflow.ops.elementwise import absolute, divide, multiply, sign, sqrt, square
from tinyflow.ops.logical import select
from tinyflow.ops.pool_windows import PoolOp
from tinyflow.ops.pooling import CASES, AvgPool, AvgPoolGrad, MaxPool
from tinyflow.ops.special import power
from tinyflow.ops.windows import from_last


@dataclass(frozen=True)
class LpPool(PoolOp):
    """y[n, o, c] = (sum of |x[n, h, c]| ** p over the positions h of window o) ** (1 / p).

    x: float[n, h.., c]   y: float[n, o.., c]; p >= 1, inf for the largest magnitude
    Gradient: sign(x) * |x| ** (p - 1) * sum over the windows o that hold h of dy / y ** (p - 1);
    0 where y is 0
    Errors: ShapeError, DTypeError, InvalidArgumentError
    Source: ONNX LpPool. torch's LPPool leaves out the magnitude, which differs for odd p
    """

    p: float = 2.0
    onnx = "LpPool"

    def infer(self, x: TensorType) -> TensorType:
        if not self.p >= 1:
            raise InvalidArgumentError(f"p is {self.p}", expected="a number >= 1, or inf")
        return self.output_type(x.require_float())

    def reference(self, x: Any) -> Any:
        padded, sizes = self.arrays(np.abs(x), 0)
        parts = [self.seen(padded, sizes, tap) for tap in self.taps]
        if math.isinf(self.p):
            return from_last(np.max(parts, axis=0), self.data_format)
        p = padded.dtype.type(self.p)
        return from_last(sum(part**p for part in parts) ** (1 / p), self.data_format)

    def decompose(self, x: Value) -> Value:
        size = absolute(x)
        if math.isinf(self.p):
            return emit(self.over_same_windows(MaxPool), size)  # type: ignore[no-any-return]
        total = emit(self.over_same_windows(AvgPool, 1), _powered(size, self.p))
        return sqrt(total) if self.p == 2 else _powered(total, 1 / self.p)  # type: ignore[no-any-return]

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        if math.isinf(self.p):
            (slope,) = self.over_same_windows(MaxPool).vjp(dy, y, absolute(x))
            return (multiply(slope, sign(x)),)
        here = greater(y, zeros_like(y))
        safe = select(here, y, ones_like(y))
        share = select(here, divide(dy, _powered(safe, self.p - 1)), zeros_like(y))
        spread = emit(self.over_same_windows(AvgPoolGrad, 1), share, x)
        # 0 ** (p - 1) has an infinite slope for p < 2: the power is of a number that is not 0.
        rest = absolute(x)
        away = greater(rest, zeros_like(rest))
        grown = _powered(select(away, rest, ones_like(rest)), self.p - 1)
        return (multiply(multiply(sign(x), select(away, grown, zeros_like(rest))), spread),)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for number, (shape, own) in enumerate(CASES):
            p = (2.0, 1.0, 3.0, 1.5)[number % 4]
            size = ranged(rng, shape, "float", 0.3, 2)
            x = (size * rng.choice([-1, 1], shape)).astype(np.float32)
            op = MaxPool(*own).over_same_windows(LpPool, p)
            yield Sample((x,), op, ulp=32.0, scale=2.0)
        x = (rng.permutation(2 * 5 * 4 * 3).reshape(2, 5, 4, 3) - 60.4).astype(np.float32) / 20
        yield Sample((x,), LpPool((3, 2), (2, 2), "SAME", p=math.inf))
        yield Sample((np.zeros((1, 4, 4, 2), np.float32),), LpPool(), check_gradient=False)

    def bad_samples(self) -> Iterable[Any]:
        yield from self.bad_types()
        yield Sample((np.zeros((2, 5, 4, 3), np.float32),), LpPool(p=0.5)), InvalidArgumentError


def _powered(x: Value, p: float) -> Value:
    if p == 1:
        return x
    return square(x) if p == 2 else power(x, p)  # type: ignore[no-any-return]


def lp_pool(
    x: Any, size: Any = (2, 2), strides: Any = (2, 2), padding: Any = "VALID",
    dilations: Any = (1, 1), data_format: str = "NHWC", p: float = 2.0, ceil: bool = False,
    name: str | None = "LpPool",
) -> Any:  # fmt: skip
    """The p-norm of every window. See LpPool."""
    op = LpPool(
        tuple(size), tuple(strides), padding, tuple(dilations), data_format, ceil, float(p)
    )
    return emit(op, x, name=name)
