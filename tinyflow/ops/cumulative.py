"""Running sums and products, and rows reversed up to their length.

Main types: ``Cumsum``, ``Cumprod``, ``ReverseSequence``. May import ops.base and loop_nests.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tinyflow import te
from tinyflow.core.error import AxisError, DTypeError, ShapeError
from tinyflow.core.shape import merge_dim, normalize_axis
from tinyflow.ir.loop.nodes import SERIAL, Body, Buffer, For, If, Stmt, Store
from tinyflow.ir.scalar import nodes as scalar
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ops.base import Op, Sample, TensorType, Value, emit, emit_shaped, floats
from tinyflow.ops.elementwise import divide, multiply
from tinyflow.ops.loop_nests import integer, lanes, nest, nest_rows

__all__ = ["Cumprod", "Cumsum", "ReverseSequence", "cumprod", "cumsum", "reverse_sequence"]


@dataclass(frozen=True)
class Cumulative(Op, abstract=True):
    """y[.., j, ..] = x[.., 0, ..] o ... o x[.., j, ..] along one axis, in order.

    exclusive: without x[j], the neutral element first.    reverse: from the end.
    """

    axis: int = 0
    exclusive: bool = False
    reverse: bool = False
    function: ClassVar[Any] = None
    fold: ClassVar[Any] = None
    neutral: ClassVar[int] = 0

    def infer(self, x: TensorType) -> TensorType:
        x.require_number()
        if x.shape is not None:
            normalize_axis(self.axis, len(x.shape))
        return x

    def reference(self, x: Any) -> Any:
        x = np.asarray(x)
        ordered = np.flip(x, self.axis) if self.reverse else x
        y = type(self).function.accumulate(ordered, self.axis, x.dtype)
        if self.exclusive:
            first = np.full_like(np.take(y, [0] if y.shape[self.axis] else [], self.axis),
                                 self.neutral)  # fmt: skip
            last = np.take(y, range(y.shape[self.axis] - 1), self.axis)
            y = np.concatenate([first, last], self.axis) if y.shape[self.axis] else y
        return np.flip(y, self.axis) if self.reverse else y

    def lower_loops(
        self, inputs: tuple[Buffer, ...], outputs: tuple[Buffer, ...]
    ) -> tuple[Stmt, ...]:
        (x,), (y,) = inputs, outputs
        shape: Any = x.shape
        axis = normalize_axis(self.axis, len(shape))
        n, trail = shape[axis], shape[axis + 1 :]
        if 0 in shape:
            return ()
        j = scalar.var("j")

        def at(step: Expr) -> Expr:
            return te.index(n - 1) - step if self.reverse else step

        def row(lead: tuple[Expr, ...]) -> Body:
            def one(rest: tuple[Expr, ...]) -> Body:
                here, before = ((*lead, at(s), *rest) for s in (j, j - 1))
                taken = before if self.exclusive else here
                first = (
                    scalar.const(self.neutral, x.dtype) if self.exclusive else scalar.load(x, *here)
                )
                later = type(self).fold(scalar.load(y, *before), scalar.load(x, *taken))
                return (
                    If(te.index(0) < j, (Store(y, here, later),), (Store(y, here, first),)),
                )

            if not trail:
                inner = one(())
            else:
                width = integer(trail[-1])
                inner = nest(
                    trail[:-1], "t", lambda r: lanes(width, "c", lambda c: one((*r, c)))
                )
            return (For(j, n, SERIAL, inner),)

        return nest_rows(shape[:axis], math.prod(shape), row)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        make = type(self)
        for shape, op in (
            ((7,), make()), ((3, 4), make(1)), ((3, 4), make(0, True)), ((2, 5, 19), make(1)),
            ((5,), make(0, False, True)), ((2, 6), make(-1, True, True)), ((0, 3), make(0, True)),
            ((1, 2), make(0, True)),
        ):  # fmt: skip
            x = rng.uniform(0.5, 1.5, shape).astype(np.float32)
            yield Sample((x,), op, ulp=16.0)
        yield Sample((rng.integers(-3, 4, (3, 4)).astype(np.int32),), make(1))

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 3), np.float32)
        yield Sample((x,), type(self)(2)), AxisError
        yield Sample((x > 0,), type(self)(0)), DTypeError


@dataclass(frozen=True)
class Cumsum(Cumulative):
    """y[j] = x[0] + ... + x[j] along ``axis``. See Cumulative.

    x: number[...]    y: same type    Gradient: the same sum of dy from the other end
    Errors: AxisError, DTypeError
    """

    onnx = "CumSum"
    function = np.add
    fold = staticmethod(lambda old, new: old + new)

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (emit(Cumsum(self.axis, self.exclusive, not self.reverse), dy),)


@dataclass(frozen=True)
class Cumprod(Cumulative):
    """y[j] = x[0] * ... * x[j] along ``axis``. See Cumulative.

    x: number[...]    y: same type
    Gradient: sum of dy * y from the other end, divided by x (NaN where x is 0, as TensorFlow's)
    Errors: AxisError, DTypeError
    """

    function = np.multiply
    fold = staticmethod(lambda old, new: old * new)
    neutral = 1

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        total = emit(Cumsum(self.axis, self.exclusive, not self.reverse), multiply(dy, y))
        return (divide(total, x),)


def cumsum(
    x: Any, axis: Any = 0, exclusive: bool = False, reverse: bool = False, name: str | None = None
) -> Any:
    """Running sums along an axis. See Cumsum."""
    return emit_shaped(
        Cumsum(0, bool(exclusive), bool(reverse)), "axis", axis, x, node_name=name or "Cumsum"
    )


def cumprod(
    x: Any, axis: Any = 0, exclusive: bool = False, reverse: bool = False, name: str | None = None
) -> Any:
    """Running products along an axis. See Cumprod."""
    return emit_shaped(
        Cumprod(0, bool(exclusive), bool(reverse)), "axis", axis, x, node_name=name or "Cumprod"
    )


@dataclass(frozen=True)
class ReverseSequence(Op):
    """y[b, t] = x[b, lengths[b] - 1 - t] for t < lengths[b], else x[b, t]; other axes alike.

    x: any[...]    lengths: integer[extent of batch_dim]    y: type of x
    Gradient: reversed again    Errors: ShapeError, DTypeError, AxisError
    """

    seq_dim: int
    batch_dim: int = 0
    onnx = "ReverseSequence"
    same_dtype = False

    def infer(self, x: TensorType, lengths: TensorType) -> TensorType:
        lengths.require_integer().require_rank(1)
        if x.shape is None:
            return x
        time, batch = (normalize_axis(a, len(x.shape)) for a in (self.seq_dim, self.batch_dim))
        if time == batch:
            raise ShapeError(f"seq_dim and batch_dim are both {time}", expected="two axes")
        if lengths.shape is not None and merge_dim(lengths.shape[0], x.shape[batch]) is None:
            raise ShapeError(
                f"{lengths.shape[0]} lengths for {x.shape[batch]} rows",
                expected=f"seq_lengths of shape [{x.shape[batch]}]",
            )
        return x

    def reference(self, x: Any, lengths: Any) -> Any:
        moved = np.moveaxis(np.asarray(x), (self.batch_dim, self.seq_dim), (0, 1))
        y = moved.copy()
        for row, length in enumerate(np.asarray(lengths)):
            y[row, :length] = moved[row, :length][::-1]
        return np.ascontiguousarray(np.moveaxis(y, (0, 1), (self.batch_dim, self.seq_dim)))

    def compute(self, x: te.Tensor, lengths: te.Tensor) -> te.Tensor:
        time, batch = (normalize_axis(a, x.rank) for a in (self.seq_dim, self.batch_dim))

        def element(*axes: Expr) -> Expr:
            length, t = te.as_index(lengths[axes[batch]]), axes[time]
            source = list(axes)
            mirrored = te.select(t < length, length - 1 - t, t)
            # A length beyond the axis must not read outside; kernels have no way to report it here.
            source[time] = te.maximum(te.minimum(mirrored, te.as_index(x.shape[time]) - 1), 0)
            return x[tuple(source)]

        return te.compute(x.shape, element, "reverse_sequence")

    def vjp(self, dy: Value, y: Value, x: Value, lengths: Value) -> tuple[Any, ...]:
        return emit(self, dy, lengths), None

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, time, batch in (((3, 5), 1, 0), ((5, 3, 2), 0, 1), ((2, 3, 4), 2, 0)):
            lengths = rng.integers(0, shape[time] + 1, shape[batch]).astype(np.int32)
            yield Sample((floats(rng, *shape), lengths), ReverseSequence(time, batch))

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 3), np.float32)
        yield Sample((x, np.zeros(3, np.int32)), ReverseSequence(1, 0)), ShapeError
        yield Sample((x, np.zeros(2, np.float32)), ReverseSequence(1, 0)), DTypeError
        yield Sample((x, np.zeros(2, np.int32)), ReverseSequence(0, 0)), ShapeError


def reverse_sequence(
    x: Any, seq_lengths: Any, seq_axis: int, batch_axis: int = 0,
    name: str | None = "ReverseSequence",
) -> Any:  # fmt: skip
    """Rows reversed up to their length. See ReverseSequence."""
    return emit(ReverseSequence(int(seq_axis), int(batch_axis)), x, seq_lengths, name=name)
