"""Ops that move elements without arithmetic: reshape, transpose, broadcast, tile, reverse.

Main types: ``Reshape``, ``Transpose``, ``BroadcastTo``, ``Tile``; ``unbroadcast`` and the other
``*_like`` of the gradients come from like.py. May import ops.base. See also slicing.py, joining.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow import te
from tinyflow.core.error import ShapeError
from tinyflow.core.shape import (
    Dim,
    Dimension,
    broadcast_shapes,
    exact_quotient,
    is_static,
    normalize_axes,
    normalize_axis,
    show,
    size_of,
)
from tinyflow.ops.base import Extents, Op, Sample, TensorType, Value, emit, emit_shaped, floats


def prefer_int(extent: Any) -> Any:
    """A Python int for a constant index expression."""
    return extent.attr if getattr(extent, "op", None) == "const" else extent


@dataclass(frozen=True)
class Reshape(Op):
    """y = x with other extents, row-major order kept.

    tensor: any[...]   shape: extents, at most one -1 that takes what is left
    y: same dtype, extents ``shape``      Gradient: dx = reshape(dy, shape of x)
    Errors: ShapeError when the numbers of elements differ, two extents are -1, or one is below -1
    """

    shape: Extents
    is_view = True
    onnx = "Reshape"

    def infer(self, tensor: TensorType) -> TensorType:
        wanted = self.shape
        unknown = [i for i, d in enumerate(wanted) if type(d) is int and d < 0]
        if any(wanted[i] != -1 for i in unknown):
            raise ShapeError("an extent is negative", expected=f"extents >= -1, got {show(wanted)}")
        if len(unknown) > 1:
            raise ShapeError("more than one extent is -1", expected=f"one -1, got {show(wanted)}")
        if tensor.shape is None:
            return tensor.with_shape(self._left_open(unknown))
        total = size_of(tensor.shape)
        known = size_of([d for d in wanted if d != -1])
        if not unknown:
            if type(total) is int and type(known) is int and total != known:
                raise self._mismatch(tensor, total, known)
            return tensor.with_shape(wanted)
        quotient = exact_quotient(total, known)
        if quotient is None:
            if type(total) is int and type(known) is int:
                # TensorFlow, too, refuses to guess -1 when another extent is 0.
                raise self._mismatch(tensor, total, known)
            quotient = total // known if known else self._left_open(unknown)[unknown[0]]
        return tensor.with_shape(tuple(quotient if d == -1 else d for d in wanted))

    def _left_open(self, unknown: list[int]) -> tuple[Dimension, ...]:
        return tuple(
            Dim.symbol("rest") if i in unknown else d for i, d in enumerate(self.shape)
        )

    def _mismatch(self, tensor: TensorType, total: int, known: int) -> ShapeError:
        divisor = "a multiple of " if -1 in self.shape else ""
        hint = None
        if tensor.rank and -1 not in self.shape and total and known and total % known == 0:
            hint = f"did you mean shape [-1, {', '.join(map(str, self.shape))}]?"
        return ShapeError(
            f"cannot reshape {show(tensor.shape)} to {show(self.shape)}",
            expected=f"{divisor}{known} elements, got {total}",
            hint=hint,
        )

    def reference(self, x: Any) -> Any:
        return np.reshape(x, self.shape)

    def compute(self, x: te.Tensor) -> te.Tensor:
        total = _product(x.shape)
        known = _product([d for d in self.shape if d != -1])
        shape = [prefer_int(_floordiv(total, known)) if d == -1 else d for d in self.shape]
        return te.compute(shape, lambda *axes: x[reshaped_index(x.shape, shape, axes)], "reshape")

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (reshape_like(dy, x),)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for before, after in (
            ((3, 4), (4, 3)), ((2, 3, 4), (6, -1)), ((2, 3, 4), (2, 12)), ((), (1, 1)),
            ((0, 3), (3, 0)), ((5, 1, 7), (7, 5)), ((6,), (2, -1)), ((1,), ()),
        ):  # fmt: skip
            yield Sample((floats(rng, *before),), Reshape(after))
        yield Sample((rng.integers(0, 9, (2, 6)).astype(np.int32),), Reshape((3, 4)))

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 3), np.float32)
        for shape in ((4, 2), (-1, -1), (5, -1), (-2, 3)):
            yield Sample((x,), Reshape(shape)), ShapeError


def _product(extents: Sequence[Any]) -> Any:
    total: Any = 1
    for extent in extents:
        total = extent * total if not isinstance(extent, int) else total * extent
    return prefer_int(total)


def _floordiv(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int):
        return a // b if b else 0
    return te.as_index(a) // te.as_index(b)


def reshaped_index(
    source: Sequence[Any], target: Sequence[Any], axes: Sequence[Any]
) -> tuple[Any, ...]:
    """Index into a ``source``-shaped array of element ``axes`` of its reshape to ``target``.

    Extents are paired into the smallest groups with equal products, so that axes which a reshape
    leaves alone keep their plain index and no division is spent on them.
    """
    indices: list[Any] = []
    i = j = 0
    while i < len(source) or j < len(target):
        left, right = [], []
        m: Any = 1
        n: Any = 1
        if i < len(source):
            left, m, i = [source[i]], source[i], i + 1
        if j < len(target):
            right, n, j = [j], target[j], j + 1
        while m is not n and m != n:
            symbolic = not (isinstance(m, int) and isinstance(n, int))
            if i < len(source) and (symbolic or m < n or j == len(target)):
                left.append(source[i])
                m, i = _product([m, source[i]]), i + 1
            elif j < len(target):
                right.append(j)
                n, j = _product([n, target[j]]), j + 1
            else:
                break
        indices += _group_index(left, [target[d] for d in right], [axes[d] for d in right])
    return tuple(indices)


def _group_index(source: list[Any], target: list[Any], axes: list[Any]) -> list[Any]:
    """Row-major position over ``target``, taken apart again over ``source``."""
    pairs = [(e, a) for e, a in zip(target, axes, strict=True) if not _is_one(e)]
    wide = [d for d, e in enumerate(source) if not _is_one(e)]
    if len(pairs) == len(wide) == 1:
        return [pairs[0][1] if d == wide[0] else te.index(0) for d in range(len(source))]
    position = te.index(0)
    for extent, axis in pairs:
        position = position * te.as_index(extent) + axis
    indices = [te.index(0)] * len(source)
    for n, d in enumerate(reversed(wide)):
        last = n == len(wide) - 1
        extent = te.as_index(source[d])
        indices[d] = position if last else position % extent
        position = position // extent
    return indices


def _is_one(extent: Any) -> bool:
    return isinstance(extent, int) and extent == 1


def reshape(tensor: Any, shape: Any, name: str | None = None) -> Any:
    """The same elements with other extents; shape may be computed. See Reshape."""
    return emit_shaped(Reshape(()), "shape", shape, tensor, node_name=name)


@dataclass(frozen=True)
class Transpose(Op):
    """y[i_perm[0], ...]: axis d of y is axis perm[d] of x; None reverses the axes.

    x: any[...]    y: same dtype     Gradient: dx = transpose(dy, inverse of perm)
    Errors: ShapeError when perm is not a permutation of the axes
    """

    perm: tuple[int, ...] | None = None
    onnx = "Transpose"

    def axes(self, rank: int) -> tuple[int, ...]:
        """perm with axes counted from the front."""
        if self.perm is None:
            return tuple(reversed(range(rank)))
        if len(self.perm) != rank:
            raise ShapeError(
                f"perm {self.perm} does not fit a rank {rank} input",
                expected=f"a permutation of {tuple(range(rank))}",
            )
        axes = tuple(normalize_axis(a, rank, "perm") for a in self.perm)
        if len(set(axes)) != rank:
            raise ShapeError(
                f"perm {self.perm} names an axis twice",
                expected=f"a permutation of {tuple(range(rank))}",
            )
        return axes

    def infer(self, x: TensorType) -> TensorType:
        shape = x.shape
        return x if shape is None else x.with_shape(tuple(shape[a] for a in self.axes(len(shape))))

    def reference(self, x: Any) -> Any:
        return np.transpose(x, self.perm)

    def compute(self, x: te.Tensor) -> te.Tensor:
        perm = self.axes(x.rank)
        inverse = [perm.index(d) for d in range(x.rank)]
        shape = [x.shape[a] for a in perm]
        return te.compute(shape, lambda *axes: x[tuple(axes[d] for d in inverse)], "transpose")

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        if self.perm is None:
            return (transpose(dy),)
        perm = self.axes(len(self.perm))
        return (transpose(dy, [perm.index(d) for d in range(len(perm))]),)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, perm in (
            ((3, 4), None), ((2, 3, 4), (1, 2, 0)), ((2, 3, 4), (0, 2, 1)), ((), ()),
            ((0, 5), (1, 0)), ((1, 6), None), ((2, 3, 4, 5), (0, -2, -1, 1)),
        ):  # fmt: skip
            yield Sample((floats(rng, *shape),), Transpose(perm))

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 3), np.float32)
        for perm in ((0,), (0, 0), (0, 2)):
            yield Sample((x,), Transpose(perm)), ShapeError


def transpose(a: Any, perm: Any = None, name: str | None = "transpose") -> Any:
    """Axes in another order; reversed without ``perm``. See Transpose."""
    if perm is None:
        return emit(Transpose(None), a, name=name)
    return emit_shaped(Transpose(()), "perm", perm, a, node_name=name)


@dataclass(frozen=True)
class ExpandDims(Op):
    """y = x with a new axis of extent 1 at position ``axis`` of y.

    input: any[...]   y: same dtype, one more axis    Gradient: dx = reshape(dy, shape of x)
    Errors: AxisError when axis is outside [-rank-1, rank]
    """

    axis: int
    is_view = True
    onnx = "Unsqueeze"

    def infer(self, input: TensorType) -> TensorType:
        shape = input.shape
        if shape is None:
            return input
        at = normalize_axis(self.axis, len(shape) + 1)
        return input.with_shape(shape[:at] + (1,) + shape[at:])

    def reference(self, x: Any) -> Any:
        return np.expand_dims(x, self.axis)

    def compute(self, x: te.Tensor) -> te.Tensor:
        at = normalize_axis(self.axis, x.rank + 1)
        shape = x.shape[:at] + (1,) + x.shape[at:]
        return te.compute(shape, lambda *axes: x[axes[:at] + axes[at + 1 :]], "expand_dims")

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (squeeze(dy, self.axis),)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, axis in (((3, 4), 1), ((2, 3), -1), ((), 0), ((0, 5), 0), ((1, 2), -3)):
            yield Sample((floats(rng, *shape),), ExpandDims(axis))

    def bad_samples(self) -> Iterable[Any]:
        yield Sample((np.zeros((2, 3), np.float32),), ExpandDims(3)), ShapeError


def expand_dims(input: Any, axis: int, name: str | None = None) -> Any:
    """A new axis of extent 1. See ExpandDims."""
    return emit(ExpandDims(int(axis)), input, name=name)


def add_last_axes(x: Any, count: int) -> Any:
    """``x`` with ``count`` axes of extent 1 behind its own: one number for all of a row."""
    for _ in range(count):
        x = expand_dims(x, -1)
    return x


@dataclass(frozen=True)
class Squeeze(Op):
    """y = x without the given axes of extent 1; without any axis of extent 1 if none is given.

    input: any[...]   y: same dtype     Gradient: dx = reshape(dy, shape of x)
    Errors: ShapeError when a given axis has another extent; AxisError outside the rank
    """

    axes: tuple[int, ...] = ()
    is_view = True
    onnx = "Squeeze"

    def infer(self, input: TensorType) -> TensorType:
        shape = input.shape
        if shape is None:
            return input
        if not self.axes and not is_static(shape):
            return input.with_shape(None)  # an unknown extent may be 1
        gone = self._gone(shape)
        for a in gone:
            if type(shape[a]) is int and shape[a] != 1:
                raise ShapeError(
                    f"axis {a} has extent {shape[a]}", expected=f"extent 1 on axes {self.axes}"
                )
        return input.with_shape(tuple(d for a, d in enumerate(shape) if a not in gone))

    def _gone(self, shape: Sequence[Any]) -> tuple[int, ...]:
        if self.axes:
            return normalize_axes(self.axes, len(shape))
        return tuple(a for a, d in enumerate(shape) if _is_one(d))

    def reference(self, x: Any) -> Any:
        return np.squeeze(x, self.axes or None)

    def compute(self, x: te.Tensor) -> te.Tensor:
        gone = self._gone(x.shape)
        shape = [d for a, d in enumerate(x.shape) if a not in gone]

        def element(*axes: Any) -> Any:
            rest = iter(axes)
            return x[tuple(te.index(0) if a in gone else next(rest) for a in range(x.rank))]

        return te.compute(shape, element, "squeeze")

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (reshape_like(dy, x),)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, axes in (((3, 1, 4), (1,)), ((1, 2, 1), ()), ((1,), (-1,)), ((1, 0), (0,))):
            yield Sample((floats(rng, *shape),), Squeeze(axes))

    def bad_samples(self) -> Iterable[Any]:
        yield Sample((np.zeros((2, 1), np.float32),), Squeeze((0,))), ShapeError
        yield Sample((np.zeros((2, 1), np.float32),), Squeeze((2,))), ShapeError


def squeeze(input: Any, axis: Any = None, name: str | None = None) -> Any:
    """Without axes of extent 1. See Squeeze."""
    axes = () if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
    return emit(Squeeze(tuple(int(a) for a in axes)), input, name=name)


@dataclass(frozen=True)
class BroadcastTo(Op):
    """y = x stretched to ``shape`` by NumPy's rule (trailing extents equal, or 1 in x).

    input: any[...]   y: same dtype, extents ``shape``    Gradient: dx = dy summed over the
    stretched axes    Errors: ShapeError when x does not broadcast to ``shape``
    """

    shape: Extents
    onnx = "Expand"

    def infer(self, input: TensorType) -> TensorType:
        if input.shape is not None:
            together = broadcast_shapes(input.shape, self.shape)
            unequal = is_static(together) and is_static(self.shape) and together != self.shape
            if unequal or len(input.shape) > len(self.shape):
                raise ShapeError(
                    f"cannot broadcast {show(input.shape)} to {show(self.shape)}",
                    expected="trailing extents equal, or 1 in the input",
                )
        return input.with_shape(self.shape)

    def reference(self, x: Any) -> Any:
        return np.broadcast_to(x, self.shape)

    def compute(self, x: te.Tensor) -> te.Tensor:
        return te.compute(self.shape, lambda *axes: te.broadcast_read(x, axes), "broadcast_to")

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (unbroadcast(dy, x),)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, target in (
            ((3, 1), (3, 4)), ((4,), (2, 3, 4)), ((), (2, 5)), ((1, 3), (0, 3)), ((2, 3), (2, 3)),
        ):  # fmt: skip
            yield Sample((floats(rng, *shape),), BroadcastTo(target))

    def bad_samples(self) -> Iterable[Any]:
        yield Sample((np.zeros((2, 3), np.float32),), BroadcastTo((2, 4))), ShapeError
        yield Sample((np.zeros((2, 3), np.float32),), BroadcastTo((3,))), ShapeError


def broadcast_to(input: Any, shape: Any, name: str | None = None) -> Any:
    """Stretched to ``shape``. See BroadcastTo."""
    return emit_shaped(BroadcastTo(()), "shape", shape, input, node_name=name)


@dataclass(frozen=True)
class Tile(Op):
    """y = x repeated multiples[d] times along axis d: y[i, ...] = x[i mod n, ...].

    input: any[...]    y: same dtype, extents n * multiples    Gradient: dx = dy summed over copies
    Errors: ShapeError when multiples has not one number >= 0 per axis
    """

    multiples: Extents
    onnx = "Tile"

    def infer(self, input: TensorType) -> TensorType:
        if any(type(m) is int and m < 0 for m in self.multiples):
            raise ShapeError("a multiple is negative", expected=f"all >= 0, got {self.multiples}")
        if input.shape is None:
            return input
        if len(input.shape) != len(self.multiples):
            raise ShapeError(
                f"{len(self.multiples)} multiples for a rank {len(input.shape)} input",
                expected="one multiple per axis",
            )
        return input.with_shape(
            tuple(d * m for d, m in zip(input.shape, self.multiples, strict=True))
        )

    def reference(self, x: Any) -> Any:
        return np.tile(x, self.multiples) if self.multiples else x

    def compute(self, x: te.Tensor) -> te.Tensor:
        shape = [d * m for d, m in zip(x.shape, self.multiples, strict=True)]

        def element(*axes: Any) -> Any:
            return x[
                tuple(
                    axis if _is_one(m) else axis % te.as_index(d)
                    for axis, d, m in zip(axes, x.shape, self.multiples, strict=True)
                )
            ]

        return te.compute(shape, element, "tile")

    def adjoint(self, dy: Value, x: Value) -> tuple[Op, tuple[Any, ...]]:
        from tinyflow.ops.like import TileGrad

        return TileGrad(self.multiples), (dy, x)

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        op, arguments = self.adjoint(dy, x)
        return (emit(op, *arguments),)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, multiples in (
            ((3, 4), (2, 1)), ((2, 3), (3, 2)), ((), ()), ((0, 5), (2, 2)), ((1, 3), (4, 0)),
        ):  # fmt: skip
            yield Sample((floats(rng, *shape),), Tile(multiples))

    def bad_samples(self) -> Iterable[Any]:
        yield Sample((np.zeros((2, 3), np.float32),), Tile((2,))), ShapeError
        yield Sample((np.zeros((2, 3), np.float32),), Tile((2, -1))), ShapeError


def tile(input: Any, multiples: Any, name: str | None = None) -> Any:
    """Repeated along each axis. See Tile."""
    return emit_shaped(Tile(()), "multiples", multiples, input, node_name=name)


@dataclass(frozen=True)
class ReverseV2(Op):
    """y = x with the order of elements reversed along the given axes.

    tensor: any[...]   y: same type     Gradient: dx = reverse(dy)    Errors: AxisError
    """

    axes: tuple[int, ...]

    def infer(self, tensor: TensorType) -> TensorType:
        if tensor.shape is not None:
            normalize_axes(self.axes, len(tensor.shape))
        return tensor

    def reference(self, x: Any) -> Any:
        return np.flip(x, self.axes)

    def compute(self, x: te.Tensor) -> te.Tensor:
        flipped = normalize_axes(self.axes, x.rank)

        def element(*axes: Any) -> Any:
            return x[
                tuple(
                    te.as_index(x.shape[d]) - 1 - axis if d in flipped else axis
                    for d, axis in enumerate(axes)
                )
            ]

        return te.compute(x.shape, element, "reverse")

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (emit(self, dy),)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, axes in (((3, 4), (0,)), ((2, 3, 5), (-1, 0)), ((0, 2), (1,)), ((4,), ())):
            yield Sample((floats(rng, *shape),), ReverseV2(axes))

    def bad_samples(self) -> Iterable[Any]:
        yield Sample((np.zeros((2, 3), np.float32),), ReverseV2((2,))), ShapeError


def reverse(tensor: Any, axis: Any, name: str | None = None) -> Any:
    """Reversed along axes. See ReverseV2."""
    axes = (axis,) if isinstance(axis, int) else tuple(int(a) for a in axis)
    return emit(ReverseV2(axes), tensor, name=name)


# The gradients above need these, and these build on the ops above.
from tinyflow.ops.like import broadcast_like, reshape_like, unbroadcast  # noqa: E402
from tinyflow.ops.shape import pack_nested, symbolic_value  # noqa: E402

__all__ = [
    "BroadcastTo", "ExpandDims", "Reshape", "ReverseV2", "Squeeze", "Tile", "Transpose",
    "broadcast_like", "broadcast_to", "expand_dims", "floats", "pack_nested", "prefer_int",
    "reshape", "reshape_like", "reshaped_index", "reverse", "squeeze", "symbolic_value", "tile",
    "transpose", "unbroadcast",
]  # fmt: skip
