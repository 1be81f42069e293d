"""Ops that surround: padding with a constant or with mirrored elements, and their gradients.

Main types: ``Pad``, ``MirrorPad``. May import ops.base and ops.movement.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow import te
from tinyflow.core.dtype import bool_
from tinyflow.core.error import DTypeError, InvalidArgumentError, ShapeError
from tinyflow.ops.base import Extents, Op, Sample, TensorType, Value, emit, emit_shaped
from tinyflow.ops.movement import floats, prefer_int, reverse


def inside_all(conditions: Sequence[Any]) -> Any:
    """The conjunction of scalar conditions; true when there are none."""
    result = te.const(True, bool_)
    for condition in conditions:
        result = result & condition
    return result


def zeros_if_empty(result: te.Tensor, x: te.Tensor, fill: Any = 0) -> te.Tensor:
    """``result``, or a constant where ``x`` has no element that could be read."""
    if any(isinstance(d, int) and d == 0 for d in x.shape):
        return te.compute(result.shape, lambda *axes: te.const(fill, x.dtype), result.name)
    return result


@dataclass(frozen=True)
class Pad(Op):
    """y = x with ``paddings[d] = (before, after)`` copies of ``value`` around axis d.

    tensor: any[...]   y: same dtype, extents before + n + after    Gradient: dx = the middle of dy
    Errors: ShapeError when paddings has not one pair >= 0 per axis
    """

    paddings: tuple[Extents, ...]
    value: float | int | bool = 0
    onnx = "Pad"

    def infer(self, tensor: TensorType) -> TensorType:
        return _padded(self.paddings, tensor)

    def reference(self, x: Any) -> Any:
        return np.pad(x, self.paddings, constant_values=self.value) if self.paddings else x

    def compute(self, x: te.Tensor) -> te.Tensor:
        shape = [prefer_int(d + (b + a)) for d, (b, a) in zip(x.shape, self.paddings, strict=True)]

        def element(*axes: Any) -> Any:
            conditions, indices = [], []
            for axis, d, (before, after) in zip(axes, x.shape, self.paddings, strict=True):
                offset = axis - before
                if before:
                    conditions.append(te.index(before) <= axis)
                if after:
                    conditions.append(offset < d)
                indices.append(offset)
            return te.select(inside_all(conditions), x[tuple(indices)], self.value)

        return zeros_if_empty(te.compute(shape, element, "pad"), x, self.value)

    def adjoint(self, dy: Value, x: Value) -> tuple[Op, tuple[Any, ...]]:
        return PadGrad(self.paddings), (dy,)

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (emit(PadGrad(self.paddings), dy),)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, paddings, value in (
            ((3, 4), ((1, 2), (0, 0)), 0), ((2, 3), ((0, 1), (3, 0)), -1.5), ((), (), 0),
            ((0, 3), ((1, 1), (0, 2)), 2.0), ((1, 5), ((0, 0), (2, 2)), 0),
        ):  # fmt: skip
            yield Sample((floats(rng, *shape),), Pad(paddings, value))

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 3), np.float32)
        yield Sample((x,), Pad(((1, 1),))), ShapeError
        yield Sample((x,), Pad(((1, 1), (0, -1)))), ShapeError


def _padded(paddings: Any, tensor: TensorType) -> TensorType:
    if any(len(pair) != 2 for pair in paddings):
        raise ShapeError("paddings are not pairs", expected="(before, after) for each axis")
    if any(type(p) is int and p < 0 for pair in paddings for p in pair):
        raise ShapeError("a padding is negative", expected=f"all >= 0, got {paddings}")
    if tensor.shape is None:
        return tensor
    if len(paddings) != len(tensor.shape):
        raise ShapeError(
            f"{len(paddings)} paddings for a rank {len(tensor.shape)} input",
            expected="one pair (before, after) per axis",
        )
    return tensor.with_shape(
        tuple(d + b + a for d, (b, a) in zip(tensor.shape, paddings, strict=True))
    )


@dataclass(frozen=True)
class PadGrad(Op):
    """dx = dy without the first ``before`` and last ``after`` elements of each axis.

    dy: any[...]   dx: same dtype     Gradient: pad with zeros again
    Errors: ShapeError when an axis is shorter than its paddings
    """

    paddings: tuple[Extents, ...]

    def infer(self, dy: TensorType) -> TensorType:
        if dy.shape is None:
            return dy
        if len(dy.shape) != len(self.paddings):
            raise ShapeError("paddings do not fit", expected="one pair per axis")
        extents = tuple(d - b - a for d, (b, a) in zip(dy.shape, self.paddings, strict=True))
        if any(type(d) is int and d < 0 for d in extents):
            raise ShapeError("an axis is shorter than its paddings", expected=str(self.paddings))
        return dy.with_shape(extents)

    def reference(self, dy: Any) -> Any:
        pairs = zip(np.shape(dy), self.paddings, strict=True)
        return dy[tuple(slice(b, d - a) for d, (b, a) in pairs)]  # type: ignore[misc, operator]

    def decompose(self, dy: Value) -> Value:
        from tinyflow.ops.slicing import Slice

        begin = tuple(b for b, _ in self.paddings)
        return emit(Slice(begin, self.infer(dy.type).shape), dy)  # type: ignore[no-any-return, arg-type]

    def adjoint(self, dz: Value, dy: Value) -> tuple[Op, tuple[Any, ...]]:
        return Pad(self.paddings), (dz,)

    def vjp(self, dz: Value, z: Value, dy: Value) -> tuple[Any, ...]:
        return (emit(Pad(self.paddings), dz),)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, paddings in (((5, 4), ((1, 2), (0, 0))), ((3,), ((1, 2),)), ((), ())):
            yield Sample((floats(rng, *shape),), PadGrad(paddings))

    def bad_samples(self) -> Iterable[Any]:
        yield Sample((np.zeros(3, np.float32),), PadGrad(((2, 2),))), ShapeError


@dataclass(frozen=True)
class MirrorPad(Op):
    """y = x with mirrored elements around each axis.

    tensor: any[...]     mode: "REFLECT" mirrors about the border element, "SYMMETRIC" repeats it
    y: same dtype, extents before + n + after
    Gradient: every element of dy is added to the element it is a copy of
    Errors: ShapeError when a padding exceeds n - 1 (REFLECT) or n (SYMMETRIC)
    """

    paddings: tuple[Extents, ...]
    mode: str = "REFLECT"

    @property
    def border(self) -> int:
        return 1 if self.mode == "REFLECT" else 0

    def infer(self, tensor: TensorType) -> TensorType:
        result = _padded(self.paddings, tensor)
        for axis, (d, pair) in enumerate(zip(tensor.shape or (), self.paddings, strict=False)):
            for p in pair:
                if type(p) is int and type(d) is int and p > d - self.border:
                    raise ShapeError(
                        f"padding {p} exceeds axis {axis} of extent {d}",
                        expected=f"at most {max(d - self.border, 0)} with mode {self.mode}",
                    )
        return result

    def reference(self, x: Any) -> Any:
        mode: Any = self.mode.lower()
        return np.pad(x, self.paddings, mode=mode) if self.paddings else x

    def compute(self, x: te.Tensor) -> te.Tensor:
        shape = [prefer_int(d + (b + a)) for d, (b, a) in zip(x.shape, self.paddings, strict=True)]

        def source(axis: Any, extent: Any, pair: Any) -> Any:
            before, after = pair
            at = axis - before
            if after:
                back = te.as_index(extent) * 2 - (1 + self.border) - at
                at = te.select(at < extent, at, back)
            if before:
                front = te.index(before + self.border - 1) - axis
                at = te.select(axis < before, front, at)
            return at

        return te.compute(
            shape,
            lambda *axes: x[tuple(map(source, axes, x.shape, self.paddings))],
            "mirror_pad",
        )

    def adjoint(self, dy: Value, x: Value) -> tuple[Op, tuple[Any, ...]]:
        return MirrorPadGrad(self.paddings, self.mode), (dy,)

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (emit(MirrorPadGrad(self.paddings, self.mode), dy),)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, paddings, mode in (
            ((3, 4), ((1, 2), (0, 3)), "REFLECT"), ((3, 4), ((3, 0), (1, 4)), "SYMMETRIC"),
            ((), (), "REFLECT"), ((5,), ((4, 4),), "REFLECT"),
        ):  # fmt: skip
            yield Sample((floats(rng, *shape),), MirrorPad(paddings, mode))

    def bad_samples(self) -> Iterable[Any]:
        yield Sample((np.zeros(3, np.float32),), MirrorPad(((3, 0),))), ShapeError


@dataclass(frozen=True)
class MirrorPadGrad(Op):
    """dx[i] = sum of the dy[j] that ``MirrorPad`` copied from x[i].

    dy: number[...]   dx: same dtype     Gradient: mirror pad again
    Errors: those of PadGrad; DTypeError for bool
    """

    paddings: tuple[Extents, ...]
    mode: str = "REFLECT"

    def infer(self, dy: TensorType) -> TensorType:
        return PadGrad(self.paddings).infer(dy.require_number())

    def reference(self, dy: Any) -> Any:
        shape = [d - b - a for d, (b, a) in zip(np.shape(dy), self.paddings, strict=True)]  # type: ignore[operator]
        origin = np.arange(int(np.prod(shape))).reshape(shape)
        target = MirrorPad(self.paddings, self.mode).reference(origin)
        dx = np.zeros(shape, np.asarray(dy).dtype)
        np.add.at(dx.reshape(-1), np.ravel(target), np.ravel(dy))
        return dx

    def decompose(self, dy: Value) -> Value:
        # Axis by axis: the middle, plus each mirrored end reversed and padded back into place.
        for axis, pair in enumerate(self.paddings):
            dy = self._fold(dy, axis, *pair)
        return dy

    def _fold(self, dy: Value, axis: int, before: Any, after: Any) -> Value:
        from tinyflow.ops.elementwise import add
        from tinyflow.ops.slicing import Slice

        shape: tuple[Any, ...] = dy.type.shape  # type: ignore[assignment]
        count = shape[axis] - before - after
        border = 1 if self.mode == "REFLECT" else 0

        def part(begin: int, size: int) -> Value:
            if size == shape[axis]:
                return dy
            starts, sizes = [0] * len(shape), list(shape)
            starts[axis], sizes[axis] = begin, size
            return emit(Slice(tuple(starts), tuple(sizes)), dy)  # type: ignore[no-any-return]

        def placed(end: Value, begin: int, size: int) -> Value:
            if size == count:
                return reverse(end, axis)  # type: ignore[no-any-return]
            paddings = [(0, 0)] * len(shape)
            paddings[axis] = begin, count - begin - size
            return emit(Pad(tuple(paddings)), reverse(end, axis))  # type: ignore[no-any-return]

        total = part(before, count)
        if before:
            total = add(total, placed(part(0, before), border, before))
        if after:
            end = part(before + count, after)
            total = add(total, placed(end, count - border - after, after))
        return total

    def adjoint(self, dz: Value, dy: Value) -> tuple[Op, tuple[Any, ...]]:
        return MirrorPad(self.paddings, self.mode), (dz,)

    def vjp(self, dz: Value, z: Value, dy: Value) -> tuple[Any, ...]:
        return (emit(MirrorPad(self.paddings, self.mode), dz),)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, paddings, mode in (
            ((6, 7), ((1, 2), (0, 3)), "REFLECT"), ((6, 9), ((3, 0), (1, 4)), "SYMMETRIC"),
            ((), (), "REFLECT"), ((13,), ((4, 4),), "REFLECT"),
        ):  # fmt: skip
            yield Sample((floats(rng, *shape),), MirrorPadGrad(paddings, mode), scale=9.0)

    def bad_samples(self) -> Iterable[Any]:
        yield Sample((np.zeros(3, np.float32),), MirrorPadGrad(((2, 2),))), ShapeError
        yield Sample((np.zeros(5, bool),), MirrorPadGrad(((1, 1),))), DTypeError


def pad(
    tensor: Any, paddings: Any, mode: str = "CONSTANT", name: str | None = None,
    constant_values: Any = 0,
) -> Any:  # fmt: skip
    """Extended along each axis; mode CONSTANT, REFLECT or SYMMETRIC. See Pad, MirrorPad."""
    mode = mode.upper()
    if mode not in ("CONSTANT", "REFLECT", "SYMMETRIC"):
        choices = "CONSTANT", "REFLECT", "SYMMETRIC"
        raise InvalidArgumentError(f"pad: unknown mode {mode!r}", choices=choices)
    op = Pad((), constant_values) if mode == "CONSTANT" else MirrorPad((), mode)
    return emit_shaped(op, "paddings", paddings, tensor, node_name=name)
