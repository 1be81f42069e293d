"""Sequences and patterns of numbers: ranges, evenly spaced points, the identity matrix.

Main types: Range, DynamicRange, LinSpace, Eye. May import ops.base, convert, creation, elementwise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow import te
from tinyflow.core.dtype import DType, as_dtype, bool_, float32, float64, int32, int64
from tinyflow.core.error import DTypeError, InvalidArgumentError, ShapeError, Unsupported
from tinyflow.core.shape import Dim, at_most, opaque
from tinyflow.ir.scalar import nodes as scalar
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ops.base import Op, Sample, TensorType, Value, emit, emit_shaped
from tinyflow.ops.convert import cast
from tinyflow.ops.creation import constant, constant_value, make_constant
from tinyflow.ops.elementwise import multiply
from tinyflow.ops.shape import symbolic_value


def range_length(start: Any, limit: Any, delta: Any) -> Any:
    """Number of elements of start, start + delta, ... before limit, which may be extents that a run
    tells. Errors: delta 0."""
    if delta == 0:
        raise InvalidArgumentError("the step is 0", expected="a step other than 0")
    if isinstance(start, Dim) or isinstance(limit, Dim):
        way, step = (limit - start, delta) if delta > 0 else (start - limit, -delta)
        return 0 if at_most(way, -1) else (way + (step - 1)) // step
    if isinstance(start, int) and isinstance(limit, int) and isinstance(delta, int):
        return max(0, -((start - limit) // delta))
    return max(0, math.ceil((limit - start) / delta))


@dataclass(frozen=True)
class Range(Op):
    """y[i] = start + i * delta while that is before limit.

    start, limit, delta: numbers    y: ``dtype``[n], n = max(0, ceil((limit - start) / delta))
    Errors: InvalidArgumentError for delta = 0
    """

    start: Any = 0  # a number, or a Dim in a step that serves all sizes, as the next one
    limit: Any = 0
    delta: int | float = 1
    dtype: DType = int32
    onnx = "Range"
    not_differentiable = "it has no inputs"

    def infer(self) -> TensorType:
        return TensorType(self.dtype, (range_length(self.start, self.limit, self.delta),))

    def _ends(self) -> tuple[Any, Any]:
        number = self.dtype.numpy.type
        return number(self.start), number(self.delta)

    def reference(self) -> Any:
        start, delta = self._ends()
        n = range_length(self.start, self.limit, self.delta)
        return np.arange(n).astype(self.dtype.numpy) * delta + start

    def compute(self) -> te.Tensor:
        n = range_length(self.start, self.limit, self.delta)
        return te.compute(
            (n,), lambda i: te.cast(i, self.dtype) * self.delta + self.start, "range"
        )

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for op in (
            Range(0, 7), Range(3, -8, -3), Range(5, 5), Range(0.5, 2.0, 0.25, float32),
            Range(-(2**40), 2**40, 2**38, int64), Range(1.0, 0.0, -0.125, float64),
        ):  # fmt: skip
            yield Sample((), op)

    def bad_samples(self) -> Iterable[Any]:
        yield Sample((), Range(0, 5, 0)), InvalidArgumentError


def _number(end: Any) -> Any:
    return end if isinstance(end, Dim) else np.asarray(end).item()


@dataclass(frozen=True)
class DynamicRange(Op):
    """``Range`` whose ends are scalar inputs, which must be constant once shapes are known.

    start, limit, delta: one number dtype, scalars    y: that dtype[length]    Errors: as Range
    length: a symbolic extent, different for every node unless algebra knows better
    """

    length: Any = None
    static_inputs = (0, 1, 2)
    not_differentiable = "its inputs decide the shape of the result"

    def infer(self, start: TensorType, limit: TensorType, delta: TensorType) -> TensorType:
        for end in (start, limit, delta):
            end.require_number().require_rank(0)
        if not start.dtype is limit.dtype is delta.dtype:
            raise DTypeError(
                f"start, limit and delta differ in dtype: {start.dtype}, {limit.dtype}, "
                f"{delta.dtype}",
                expected="one dtype",
            )
        length = opaque("range") if self.length is None else self.length
        return start.with_shape((length,))

    def _resolved(self, dtype: DType, *ends: Any) -> Range:
        start, limit, delta = map(_number, ends)
        return Range(start, limit, delta, dtype)

    def reference(self, start: Any, limit: Any, delta: Any) -> Any:
        return self._resolved(as_dtype(np.asarray(start).dtype), start, limit, delta).reference()

    def specialize(self, types: Any, constants: Any) -> Op | None:
        """The ``Range`` without inputs, once the ends are known."""
        if any(end is None for end in constants) or isinstance(constants[2], Dim):
            return None  # of unknown direction
        return self._resolved(types[0].dtype, *constants)

    def told(self, start: Value, limit: Value, delta: Value) -> Any:
        """The range where only a run tells its ends: Python tells its length."""
        from tinyflow.ops.counted import extent_of
        from tinyflow.ops.elementwise import maximum
        from tinyflow.ops.rounding import ceil

        if start.dtype.is_floating:
            count = cast(ceil((limit - start) / delta), int64)  # type: ignore[operator]
        else:
            count = -cast((start - limit) // delta, int64)  # type: ignore[operator]
        positions = arange(0, extent_of(maximum(count, constant(np.int64(0)))))
        return cast(positions, start.dtype) * delta + start

    def decompose(self, start: Value, limit: Value, delta: Value) -> Any:
        ends = [constant_value(end) for end in (start, limit, delta)]
        if any(end is None for end in ends):
            raise Unsupported(
                "the ends of the range depend on computed data",
                expected="ends that follow from constants and shapes",
                hint="compute the range in NumPy and feed it",
            )
        return emit(self._resolved(start.dtype, *ends))

    def bad_samples(self) -> Iterable[Any]:
        yield (np.int32(0), np.zeros(2, np.int32), np.int32(1)), ShapeError
        yield (np.int32(0), np.float32(2), np.int32(1)), DTypeError


_range_count = itertools.count(1)


def arange(
    start: Any, limit: Any = None, delta: Any = 1, dtype: Any = None, name: str | None = "range"
) -> Any:
    """start, start + delta, ... before limit; with one argument from 0. See Range.

    dtype: that of the arguments; if they differ, the first of int32, int64, float32, float64 that
    holds them all. Arguments may be tensors.
    """
    if limit is None:
        start, limit = 0, start
    ends = (start, limit, delta)
    wanted = as_dtype(dtype) if dtype is not None else _common_dtype(ends)
    known = [constant_value(end) for end in map(_as_value, ends)]
    if all(k is not None and k.shape == () for k in known):
        numbers = [k.item() for k in known if k is not None]
        if not wanted.is_floating and any(isinstance(n, float) for n in numbers):
            make_constant(next(n for n in numbers if isinstance(n, float)), wanted)
        if wanted.is_floating:
            numbers = [float(n) for n in numbers]
        first, beyond, step = numbers
        return emit(Range(first, beyond, step, wanted), name=name)
    values = [cast(end, wanted) if isinstance(end, Value) else constant(end, wanted)
              for end in map(_as_value, ends)]  # fmt: skip
    return emit(DynamicRange(_length(known, values)), *values, name=name)


def _length(known: list[Any], values: list[Value]) -> Any:
    """The number of elements as far as algebra knows it: tf.range(tf.shape(x)[0]) has N."""
    if known[2] is not None and known[2] == 1:
        start, limit = symbolic_value(values[0]), symbolic_value(values[1])
        if isinstance(start, (int, Dim)) and isinstance(limit, (int, Dim)):
            return limit - start
    return opaque(f"range{next(_range_count)}")


def _as_value(end: Any) -> Any:
    return end.as_value() if hasattr(end, "as_value") else end


def _common_dtype(ends: tuple[Any, ...]) -> DType:
    order = [int32, int64, float32, float64]
    found = [
        end.dtype if isinstance(end, Value) else make_constant(end).dtype
        for end in map(_as_value, ends)
    ]
    ranks = [order.index(d) for d in found if d in order]
    return order[max(ranks)] if len(ranks) == len(found) else found[0]


@dataclass(frozen=True)
class LinSpace(Op):
    """y[i] = start + i * (stop - start) / (num - 1); the last element is stop exactly.

    start, stop: float scalars of one dtype    y: that dtype[num]; num = 1 gives [start]
    Gradient: dstart = sum(dy * (1 - t)), dstop = sum(dy * t), t = i / (num - 1)
    Errors: DTypeError, ShapeError, InvalidArgumentError for num < 1
    """

    num: int = 1

    def infer(self, start: TensorType, stop: TensorType) -> TensorType:
        for end in (start, stop):
            end.require_float().require_rank(0)
        if isinstance(self.num, int) and self.num < 1:
            raise InvalidArgumentError(f"num is {self.num}", expected="num of 1 or more")
        return start.with_shape((self.num,))

    def reference(self, start: Any, stop: Any) -> Any:
        start, stop = np.asarray(start), np.asarray(stop)
        steps = np.arange(self.num).astype(start.dtype)
        if self.num == 1:
            return steps + start
        line = start + steps * ((stop - start) / start.dtype.type(self.num - 1))
        line[-1] = stop
        return line

    def compute(self, start: te.Tensor, stop: te.Tensor) -> te.Tensor:
        last = self.num - 1

        def element(i: Expr) -> Expr:
            low, high = start[()], stop[()]
            if last == 0:
                return low
            step = (high - low) / scalar.const(last, low.dtype)
            return te.select(i.equal(last), high, low + te.cast(i, low.dtype) * step)

        return te.compute((self.num,), element, "linspace")

    def vjp(self, dy: Value, y: Value, start: Value, stop: Value) -> tuple[Any, ...]:
        from tinyflow.ops.reduction import reduce_sum

        t = np.arange(self.num) / max(self.num - 1, 1)
        return (
            reduce_sum(multiply(dy, constant(1 - t, start.dtype))),
            reduce_sum(multiply(dy, constant(t, start.dtype))),
        )

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for num in (1, 2, 7):
            yield Sample((np.float32(-1.3), np.float32(2.1)), LinSpace(num))

    def bad_samples(self) -> Iterable[Any]:
        yield Sample((np.float32(0), np.float32(1)), LinSpace(0)), InvalidArgumentError
        yield Sample((np.int32(0), np.int32(1)), LinSpace(3)), DTypeError


def linspace(start: Any, stop: Any, num: int, name: str | None = None) -> Any:
    """``num`` evenly spaced numbers from start to stop. See LinSpace."""
    return emit_shaped(LinSpace(), "num", num, start, stop, node_name=name)


@dataclass(frozen=True)
class Eye(Op):
    """y[i, j] = 1 where i = j, else 0.    y: ``dtype``[rows, columns]"""

    rows: int = 1
    columns: int = 1
    dtype: DType = float32
    onnx = "EyeLike"
    not_differentiable = "it has no inputs"

    def infer(self) -> TensorType:
        for extent in (self.rows, self.columns):
            if extent < 0:
                raise ShapeError(f"extent {extent} is negative", expected="extents of 0 or more")
        return TensorType(self.dtype, (self.rows, self.columns))

    def reference(self) -> Any:
        return np.eye(self.rows, self.columns, dtype=self.dtype.numpy)

    def compute(self) -> te.Tensor:
        one, zero = scalar.const(1, self.dtype), scalar.const(0, self.dtype)
        return te.compute(
            (self.rows, self.columns), lambda i, j: te.select(i.equal(j), one, zero), "eye"
        )

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for op in (Eye(3, 5), Eye(4, 2, int32), Eye(1, 1), Eye(0, 3), Eye(2, 2, bool_)):
            yield Sample((), op)

    def bad_samples(self) -> Iterable[Any]:
        yield Sample((), Eye(-1, 2)), ShapeError


def eye(num_rows: int, num_columns: int | None = None, dtype: Any = float32,
        name: str | None = None) -> Any:  # fmt: skip
    """The identity matrix, or its upper left part. See Eye."""
    columns = num_rows if num_columns is None else num_columns
    return emit(Eye(int(num_rows), int(columns), as_dtype(dtype)), name=name)
