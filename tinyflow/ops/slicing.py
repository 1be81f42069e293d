"""Ops that cut out a box, ``x[begin : begin + size]``, and their gradients.

Main types: ``Slice``, ``SliceGrad``. May import ops.base, ops.movement, ops.padding, slice_bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinyflow import te
from tinyflow.core.error import ShapeError
from tinyflow.core.shape import Dim, merge_shapes
from tinyflow.ops.base import Extents, Op, Sample, TensorType, Value, emit, emit_shaped
from tinyflow.ops.like import LikeOp
from tinyflow.ops.movement import floats, prefer_int
from tinyflow.ops.padding import Pad
from tinyflow.ops.slice_bounds import CutsOut, Part, PlacesBack


@dataclass(frozen=True)
class Box:
    """Where a slice lies: a number of ``begin`` and of ``size`` per axis; -1 is up to the end."""

    begin: Extents
    size: Extents

    def with_attribute(self, name: str, value: Any) -> Any:
        """``bounds`` is begin followed by size."""
        if name != "bounds":
            return replace(self, **{name: value})
        half = len(value) // 2
        return replace(self, begin=value[:half], size=value[half:])

    def entries(self, rank: int) -> list[Any]:
        """The slice as parts of axes; for bounds that only a run knows."""
        return [Part(a, b, s) for a, (b, s) in enumerate(zip(self.begin, self.size, strict=True))]


@dataclass(frozen=True)
class Slice(CutsOut, Box, Op):
    """y = x[begin : begin + size] along every axis; size -1 means up to the end.

    input: any[...]   begin, size: one number per axis    y: same dtype, extents ``size``
    Gradient: dx = dy padded with zeros    Errors: ShapeError when the slice leaves x
    """

    onnx = "Slice"

    def infer(self, input: TensorType) -> TensorType:
        begin, size = self.begin, self.size
        if len(begin) != len(size):
            raise ShapeError(f"begin {begin} and size {size} differ in length")
        if input.shape is None:
            fresh = tuple(Dim.symbol("rest") if s == -1 else s for s in size)
            return input.with_shape(fresh)
        if len(begin) != len(input.shape):
            raise ShapeError(
                f"begin has {len(begin)} numbers for a rank {len(input.shape)} input",
                expected="one number per axis",
            )
        extents = []
        for axis, (b, s, d) in enumerate(zip(begin, size, input.shape, strict=True)):
            extent = d - b if s == -1 else s
            known = all(type(n) is int for n in (b, s, d))
            if known and not (0 <= b <= d and 0 <= extent <= d - b):  # type: ignore[operator]
                raise ShapeError(
                    f"begin {b}, size {s} leaves axis {axis} of extent {d}",
                    expected=f"0 <= begin and begin + size <= {d}",
                )
            extents.append(extent)
        return input.with_shape(tuple(extents))

    def reference(self, x: Any) -> Any:
        return x[
            tuple(
                slice(b, d if s == -1 else b + s)  # type: ignore[operator]
                for b, s, d in zip(self.begin, self.size, np.shape(x), strict=True)
            )
        ]

    def compute(self, x: te.Tensor) -> te.Tensor:
        shape = [
            prefer_int(te.as_index(d) - b) if s == -1 else s
            for b, s, d in zip(self.begin, self.size, x.shape, strict=True)
        ]
        return te.compute(
            shape,
            lambda *axes: x[tuple(a + b for a, b in zip(axes, self.begin, strict=True))],
            "slice",
        )

    def adjoint(self, dy: Value, x: Value) -> tuple[Op, tuple[Any, ...]]:
        return SliceGrad(self.begin, self.size), (dy, x)

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (emit(SliceGrad(self.begin, self.size), dy, x),)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, begin, size in (
            ((3, 4), (1, 0), (2, 3)), ((2, 3, 5), (0, 1, 2), (-1, 1, -1)), ((), (), ()),
            ((4, 5), (2, 5), (0, -1)), ((1, 6), (0, 2), (1, 3)),
        ):  # fmt: skip
            yield Sample((floats(rng, *shape),), Slice(begin, size))

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 3), np.float32)
        for begin, size in (((0,), (1,)), ((1, 0), (2, 1)), ((-1, 0), (1, 1)), ((0, 4), (1, -1))):
            yield Sample((x,), Slice(begin, size)), ShapeError


def slice_(input: Any, begin: Any, size: Any, name: str | None = None) -> Any:
    """``size`` elements from ``begin`` on, along every axis (``tf.slice``). See Slice."""
    from tinyflow.ops.joining import concat_vectors

    return emit_shaped(
        Slice((), ()), "bounds", concat_vectors((begin, size)), input, node_name=name
    )


@dataclass(frozen=True)
class SliceGrad(PlacesBack, Box, LikeOp):
    """dx = zeros in the shape of x with dy at [begin : begin + size].

    dy: any[size], like: x[...]    dx: dtype of dy, shape of x    Gradient: the slice again
    Errors: ShapeError when the slice leaves x or dy has another shape
    """

    def infer(self, dy: TensorType, like: TensorType) -> TensorType:
        merge_shapes(Slice(self.begin, self.size).infer(like).shape, dy.shape)
        return dy.with_shape(like.shape)

    def reference(self, dy: Any, like: Any) -> Any:
        paddings = self._paddings(np.shape(dy), np.shape(like))
        return np.pad(dy, paddings) if paddings else dy

    def _paddings(self, inner: Sequence[int], outer: Sequence[int]) -> tuple[Any, ...]:
        return tuple((b, d - b - n) for b, n, d in zip(self.begin, inner, outer, strict=True))

    def build(self, dy: Value, shape: tuple[int, ...]) -> Value:
        paddings = self._paddings(dy.type.shape, shape)  # type: ignore[arg-type]
        return emit(Pad(paddings), dy) if paddings else dy

    def adjoint(self, dz: Value, dy: Value, like: Value) -> tuple[Op, tuple[Any, ...]]:
        return Slice(self.begin, self.size), (dz,)

    def vjp(self, dz: Value, z: Value, dy: Value, like: Value) -> tuple[Any, ...]:
        return emit(Slice(self.begin, self.size), dz), None

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for inner, outer, begin, size in (
            ((2, 3), (3, 4), (1, 0), (2, 3)), ((2,), (5,), (3,), (-1,)), ((), (), (), ()),
            ((0, 1), (2, 6), (1, 2), (0, 1)),
        ):  # fmt: skip
            yield Sample((floats(rng, *inner), floats(rng, *outer)), SliceGrad(begin, size))

    def bad_samples(self) -> Iterable[Any]:
        arrays = np.zeros(2, np.float32), np.zeros(5, np.float32)
        yield Sample(arrays, SliceGrad((3,), (1,))), ShapeError
