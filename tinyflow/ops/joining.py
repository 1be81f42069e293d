"""Ops that join and take apart: concat, stack, unstack, split.

Main types: ``ConcatV2``, ``Pack``, ``ConcatPart``. May import ops.base, movement, slicing, like.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow import te
from tinyflow.core.dtype import int32
from tinyflow.core.error import DTypeError, InvalidArgumentError, ShapeError
from tinyflow.core.shape import merge_dim, normalize_axis, opaque, show
from tinyflow.ops.base import Op, Sample, TensorType, Value, emit, require_same_dtype
from tinyflow.ops.movement import floats, prefer_int
from tinyflow.ops.python_index import get_item
from tinyflow.ops.slicing import Slice


def _chosen(index: Any, elements: Sequence[Any], starts: Sequence[Any]) -> Any:
    """The element whose range, from its start to the next, holds ``index``: a tree of selects, so
    that 64 parts cost 6 comparisons."""
    if len(elements) == 1:
        return elements[0]
    half = len(elements) // 2
    first = _chosen(index, elements[:half], starts[:half])
    return te.select(index < starts[half], first, _chosen(index, elements[half:], starts[half:]))


def _known_shapes(values: Sequence[TensorType]) -> list[Any]:
    """Errors: InvalidArgumentError without values, DTypeError for values that differ."""
    if not values:
        raise InvalidArgumentError("needs at least one value", expected="one or more values")
    require_same_dtype(*values)
    return [v.shape for v in values if v.shape is not None]


@dataclass(frozen=True)
class ConcatV2(Op):
    """y = the values one after the other along ``axis``.

    values: one or more any[...], equal in dtype, rank and all extents but that of ``axis``
    y: same dtype, extents of ``axis`` added up     Gradient: each value gets its part of dy
    Errors: ShapeError, DTypeError, AxisError; InvalidArgumentError without values
    """

    axis: int
    onnx = "Concat"

    def infer(self, *values: TensorType) -> TensorType:
        known = _known_shapes(values)
        if not known:
            return values[0]
        axis = normalize_axis(self.axis, len(known[0]))
        merged = list(known[0])
        for shape in known[1:]:
            if len(shape) != len(merged):
                raise ShapeError(f"ranks differ: {len(merged)} and {len(shape)}",
                                 hint=_join_hint(len(merged), len(shape)))  # fmt: skip
            for d, extent in enumerate(shape):
                same = extent if d == axis else merge_dim(merged[d], extent)
                if same is None:
                    raise ShapeError(
                        f"extents of axis {d} differ: {merged[d]} and {extent}",
                        expected=f"equal extents on every axis but {axis}",
                    )
                merged[d] = same
        merged[axis] = self._total(values, axis)
        return values[0].with_shape(tuple(merged))

    def _total(self, values: Sequence[TensorType], axis: int) -> Any:
        total: Any = 0
        for v in values:
            if v.shape is None:
                return opaque("concat(" + ",".join(show(t.shape) for t in values) + ")")
            total = total + v.shape[axis]
        return total

    def reference(self, *arrays: Any) -> Any:
        return np.concatenate(arrays, self.axis)

    def compute(self, *values: te.Tensor) -> te.Tensor:
        axis = normalize_axis(self.axis, values[0].rank)
        shape = list(values[0].shape)
        parts: list[tuple[te.Tensor, Any]] = []  # each with where it begins
        begin: Any = 0
        for v in values:
            extent = v.shape[axis]
            if not (isinstance(extent, int) and extent == 0):
                parts.append((v, begin))
            begin = prefer_int(te.as_index(begin) + extent)
        shape[axis] = begin

        def element(*axes: Any) -> Any:
            def read(part: te.Tensor, start: Any) -> Any:
                return part[(*axes[:axis], axes[axis] - start, *axes[axis + 1 :])]

            if not parts:
                return te.const(0, values[0].dtype)
            elements = [read(part, start) for part, start in parts]
            return _chosen(axes[axis], elements, [start for _, start in parts])

        return te.compute(shape, element, "concat")

    def vjp(self, dy: Value, y: Value, *values: Value) -> tuple[Any, ...]:
        if len(values) == 1:
            return (dy,)
        return tuple(
            emit(ConcatPart(self.axis, i), dy, *values) for i in range(len(values))
        )

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shapes, axis in (
            (((2, 3), (2, 5)), 1), (((2, 3), (4, 3), (1, 3)), 0), (((3, 2, 4), (3, 5, 4)), -2),
            (((0, 3), (2, 3)), 0), (((2, 0), (2, 0)), 1), (((5,),), 0),
        ):  # fmt: skip
            yield Sample(tuple(floats(rng, *s) for s in shapes), ConcatV2(axis))

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 3), np.float32)
        yield Sample((x, np.zeros((3, 3), np.float32)), ConcatV2(1)), ShapeError
        yield Sample((x, x[0]), ConcatV2(0)), ShapeError
        yield Sample((x, x), ConcatV2(2)), ShapeError
        yield Sample((x, x.astype(np.float64)), ConcatV2(0)), DTypeError


def _join_hint(a: int, b: int) -> str | None:
    return "did you mean tf.expand_dims of the smaller one?" if abs(a - b) == 1 else None


@dataclass(frozen=True)
class ConcatPart(Op):
    """y = the part of dy that belongs to value number ``position`` of ``concat(values, axis)``.

    dy: any[...]; values: read for their shapes only       y: dtype of dy, shape of that value
    Gradient: ddy = dy' with zeros for the other values     Errors: ShapeError
    """

    axis: int
    position: int
    same_dtype = False

    def infer(self, dy: TensorType, *values: TensorType) -> TensorType:
        whole = ConcatV2(self.axis).infer(*values)
        if dy.is_static and whole.is_static and dy.shape != whole.shape:
            raise ShapeError("dy is not a concatenation of the values", expected=show(whole.shape))
        return dy.with_shape(values[self.position].shape)

    def reference(self, dy: Any, *values: Any) -> Any:
        axis = normalize_axis(self.axis, np.ndim(dy))
        ends = np.cumsum([0] + [np.shape(v)[axis] for v in values])
        index = [slice(None)] * np.ndim(dy)
        index[axis] = slice(ends[self.position], ends[self.position + 1])
        return dy[tuple(index)]

    def decompose(self, dy: Value, *values: Value) -> Value:
        shape = values[self.position].type.shape
        axis = normalize_axis(self.axis, len(shape))  # type: ignore[arg-type]
        begin = [0] * len(shape)  # type: ignore[arg-type]
        begin[axis] = sum(v.type.shape[axis] for v in values[: self.position])  # type: ignore[index, misc]
        return emit(Slice(tuple(begin), shape), dy)  # type: ignore[arg-type, no-any-return]

    def vjp(self, dz: Value, z: Value, dy: Value, *values: Value) -> tuple[Any, ...]:
        from tinyflow.ops.convert import cast
        from tinyflow.ops.creation import zeros_like

        parts = [
            dz if i == self.position else cast(zeros_like(v), dz.dtype)
            for i, v in enumerate(values)
        ]
        return (emit(ConcatV2(self.axis), *parts), *[None] * len(values))

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shapes, axis, position in ((((2, 3), (2, 5)), 1, 1), (((2, 3), (4, 3)), 0, 0)):
            values = tuple(floats(rng, *s) for s in shapes)
            dy = np.concatenate(values, axis)
            yield Sample((dy, *values), ConcatPart(axis, position))

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 3), np.float32)
        yield Sample((x, x, x), ConcatPart(0, 1)), ShapeError


def concat(values: Any, axis: int = 0, name: str | None = "concat") -> Any:
    """Joined along an existing axis. See ConcatV2."""
    parts = [values] if isinstance(values, Value) else list(values)
    return emit(ConcatV2(int(axis)), *parts, name=name)


def concat_vectors(parts: Sequence[Any]) -> Any:
    """Vectors of ints, one after the other: a list, or a value if one of them is computed."""
    if not any(isinstance(p, Value) for p in parts):
        joined = []
        for part in parts:
            part = part.tolist() if isinstance(part, np.ndarray) else part
            joined += list(part) if isinstance(part, (list, tuple)) else [part]
        return joined
    from tinyflow.ops.shape import pack_nested

    dtype = next((p.dtype for p in parts if isinstance(p, Value)), int32)
    vectors = []
    for part in parts:
        if not isinstance(part, Value):
            packed = pack_nested(part) if _mixed(part) else np.array(part, dtype.numpy)
            part = packed
        vectors.append(part)
    return concat(vectors, 0, name=None)


def _mixed(part: Any) -> bool:
    return isinstance(part, (list, tuple)) and any(isinstance(p, Value) for p in part)


@dataclass(frozen=True)
class Pack(Op):
    """y[..., i, ...] = values[i], along a new axis.

    values: one or more any[...] of one type      y: same dtype, one more axis of extent len(values)
    Gradient: each value gets its slice of dy      Errors: ShapeError, DTypeError, AxisError
    """

    axis: int = 0

    def infer(self, *values: TensorType) -> TensorType:
        known = _known_shapes(values)
        if not known:
            return values[0]
        merged = list(known[0])
        for shape in known[1:]:
            together = (
                [merge_dim(a, b) for a, b in zip(merged, shape, strict=True)]
                if len(shape) == len(merged)
                else [None]
            )
            if None in together:
                raise ShapeError(f"shapes differ: {show(tuple(merged))} and {show(shape)}",
                                 expected="values of one shape",
                                 hint="tf.concat joins along an existing axis")  # fmt: skip
            merged = together  # type: ignore[assignment]
        at = normalize_axis(self.axis, len(merged) + 1)
        return values[0].with_shape((*merged[:at], len(values), *merged[at:]))

    def reference(self, *arrays: Any) -> Any:
        return np.stack(arrays, self.axis)

    def compute(self, *values: te.Tensor) -> te.Tensor:
        rank = values[0].rank
        at = normalize_axis(self.axis, rank + 1)
        shape = (*values[0].shape[:at], len(values), *values[0].shape[at:])

        def element(*axes: Any) -> Any:
            rest = axes[:at] + axes[at + 1 :]
            return _chosen(axes[at], [v[rest] for v in values], range(len(values)))

        return te.compute(shape, element, "stack")

    def vjp(self, dy: Value, y: Value, *values: Value) -> tuple[Any, ...]:
        return tuple(unstack(dy, len(values), self.axis))

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, count, axis in (((3, 4), 2, 0), ((2, 3), 5, 1), ((4,), 3, -1), ((), 2, 0),
                                   ((0, 2), 2, 1), ((3,), 1, 0)):  # fmt: skip
            yield Sample(tuple(floats(rng, *shape) for _ in range(count)), Pack(axis))

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 3), np.float32)
        yield Sample((x, x[:1]), Pack(0)), ShapeError
        yield Sample((x, x[0]), Pack(0)), ShapeError
        yield Sample((x, x), Pack(4)), ShapeError
        yield Sample((x, x.astype(np.int32)), Pack(0)), DTypeError


def stack(values: Any, axis: int = 0, name: str | None = "stack") -> Any:
    """Joined along a new axis. See Pack."""
    return emit(Pack(int(axis)), *values, name=name)


def unstack(
    value: Any, num: int | None = None, axis: int = 0, name: str | None = "unstack"
) -> list[Any]:
    """The slices of ``value`` along ``axis``, without that axis; ``num`` of them.

    Errors: InvalidArgumentError when the extent is unknown and ``num`` is not given, or differs.
    """
    count = _axis_extent(value, axis, "unstack")
    if type(count) is not int:
        count = num
    if count is None:
        raise InvalidArgumentError(
            f"unstack: the extent of axis {axis} is unknown",
            received={"value": value.type},
            expected="the number of slices",
            hint="pass num=...",
        )
    if num is not None and num != count:
        raise ShapeError(f"unstack: num is {num}, the extent is {count}",
                         received={"value": value.type}, expected=f"num == {count}")  # fmt: skip
    return [get_item(value, _along(axis, value, i), name=name) for i in range(count)]


def split(
    value: Any, num_or_size_splits: Any, axis: int = 0, name: str | None = "split"
) -> list[Any]:
    """``value`` cut along ``axis`` into equal parts (a number) or parts of given sizes (a list).

    One size may be -1: what is left. Errors: ShapeError when the parts do not fill the axis.
    """
    extent = _axis_extent(value, axis, "split")
    if isinstance(num_or_size_splits, int):
        if type(extent) is not int or num_or_size_splits < 1 or extent % num_or_size_splits:
            raise ShapeError(
                f"split: cannot cut axis {axis} of extent {extent} into {num_or_size_splits}",
                received={"value": value.type},
                expected="a known extent and equal parts",
                hint="give the sizes as a list",
            )
        sizes = [extent // num_or_size_splits] * num_or_size_splits
    else:
        sizes = [int(s) for s in num_or_size_splits]
        if sizes.count(-1) == 1 and type(extent) is int:
            sizes[sizes.index(-1)] = extent - sum(sizes) - 1
        if min(sizes, default=0) < 0 or (type(extent) is int and sum(sizes) != extent):
            raise ShapeError(f"split: sizes {sizes} do not fill axis {axis} of extent {extent}",
                             received={"value": value.type},
                             expected=f"sizes that add up to {extent}")  # fmt: skip
    ends = np.cumsum([0, *sizes]).tolist()
    return [
        get_item(value, _along(axis, value, slice(b, e)), name=name)
        for b, e in itertools.pairwise(ends)
    ]


def _axis_extent(value: Any, axis: int, op: str) -> Any:
    shape = value.type.shape
    return None if shape is None else shape[normalize_axis(axis, len(shape), op)]


def _along(axis: int, value: Any, part: Any) -> tuple[Any, ...]:
    """An index that applies ``part`` to one axis."""
    shape = value.type.shape
    if axis < 0 and shape is None:
        return (Ellipsis, part, *[slice(None)] * (-axis - 1))
    at = axis if shape is None else normalize_axis(axis, len(shape))
    return (*[slice(None)] * at, part)
