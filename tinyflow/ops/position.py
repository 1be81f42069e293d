"""Positions of the extreme elements.

Main types: ArgMax, ArgMin. May import ops.base, comparison, convert, logical, reduction, sequence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tinyflow.core.dtype import DType, as_dtype, int32, int64
from tinyflow.core.error import AxisError, DTypeError, ShapeError
from tinyflow.core.shape import normalize_axis
from tinyflow.ops.base import Op, Sample, TensorType, Value, emit, emit_shaped
from tinyflow.ops.comparison import equal, not_equal
from tinyflow.ops.convert import cast
from tinyflow.ops.logical import logical_or, select
from tinyflow.ops.reduction import reduce_max, reduce_min
from tinyflow.ops.sequence import Range


@dataclass(frozen=True)
class ArgExtremum(Op, abstract=True):
    """y = position of the largest (smallest) element along one axis.

    x: number[...]    y: ``output_type``, without the axis
    Of equal elements the first; NaN counts as the extreme value, the first one wins.
    Errors: AxisError; ShapeError when the axis is known to have no elements
    """

    axis: int = 0
    output_type: DType = int64
    not_differentiable = "the result is a position"
    numpy_function: ClassVar[Any] = None

    def infer(self, x: TensorType) -> TensorType:
        x.require_number()
        if self.output_type not in (int32, int64):
            raise DTypeError(
                f"output_type is {self.output_type}", expected="tf.int32 or tf.int64"
            )
        if x.shape is None:
            return TensorType(self.output_type, None)
        axis = normalize_axis(self.axis, len(x.shape))
        if x.shape[axis] == 0:
            raise ShapeError(
                f"axis {axis} has no elements", expected="at least one element along the axis"
            )
        return TensorType(self.output_type, x.shape[:axis] + x.shape[axis + 1 :])

    def reference(self, x: Any) -> Any:
        positions = type(self).numpy_function(x, axis=self.axis)
        return np.asarray(positions).astype(self.output_type.numpy)

    def extremum(self, x: Value, axis: tuple[int, ...]) -> Value:
        raise NotImplementedError

    def decompose(self, x: Value) -> Any:
        from tinyflow.ops.movement import reshape

        shape: Any = x.type.shape  # static: a composite is taken apart after specialisation
        axis = normalize_axis(self.axis, len(shape))
        extent = shape[axis]
        attained = equal(x, self.extremum(x, (axis,)))
        if x.dtype.is_floating:
            # A NaN makes the extremum NaN, which equals nothing: then the NaNs are meant.
            attained = logical_or(attained, not_equal(x, x))
        along = [extent if a == axis else 1 for a in range(len(shape))]
        positions = reshape(emit(Range(0, extent, 1, int64)), along)
        first = reduce_min(select(attained, positions, extent), (axis,))
        return cast(first, self.output_type)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, axis in (((3, 4), 0), ((3, 4), 1), ((2, 3, 5), -2), ((7,), 0), ((0, 3), 1)):
            yield Sample((rng.normal(size=shape).astype(np.float32),), type(self)(axis))
        yield Sample((rng.integers(0, 3, (4, 9)).astype(np.int32),), type(self)(1, int32))
        x = np.array([[1, np.nan, 3, np.nan], [2, 2, 1, 1]], np.float32)
        yield Sample((x,), type(self)(1), note="NaN and ties")

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 0), np.float32)
        yield Sample((x,), type(self)(2)), AxisError
        yield Sample((x,), type(self)(1)), ShapeError
        yield Sample((x == 0,), type(self)(0)), DTypeError


@dataclass(frozen=True)
class ArgMax(ArgExtremum):
    """y = position of the largest element along ``axis``; see ArgExtremum."""

    onnx = "ArgMax"
    numpy_function = staticmethod(np.argmax)

    def extremum(self, x: Value, axis: tuple[int, ...]) -> Value:
        return reduce_max(x, axis, True)  # type: ignore[no-any-return]


def argmax(
    x: Any, axis: Any = 0, output_type: Any = int64, name: str | None = None
) -> Any:
    """Position of the largest element along ``axis``. See ArgMax."""
    return emit_shaped(
        ArgMax(0, as_dtype(output_type)), "axis", 0 if axis is None else axis, x, node_name=name
    )


@dataclass(frozen=True)
class ArgMin(ArgExtremum):
    """y = position of the smallest element along ``axis``; see ArgExtremum."""

    onnx = "ArgMin"
    numpy_function = staticmethod(np.argmin)

    def extremum(self, x: Value, axis: tuple[int, ...]) -> Value:
        return reduce_min(x, axis, True)  # type: ignore[no-any-return]


def argmin(
    x: Any, axis: Any = 0, output_type: Any = int64, name: str | None = None
) -> Any:
    """Position of the smallest element along ``axis``. See ArgMin."""
    return emit_shaped(
        ArgMin(0, as_dtype(output_type)), "axis", 0 if axis is None else axis, x, node_name=name
    )
