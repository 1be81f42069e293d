"""Ops of the gradients that take a shape from another tensor: reshape, broadcast, unbroadcast like.

Main types: ``LikeOp`` and its kinds; ``unbroadcast``, ``reshape_like``, ``broadcast_like``.
May import ops.base and ops.movement.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow.core.error import DTypeError, ShapeError
from tinyflow.core.shape import merge_shapes
from tinyflow.ops.base import Extents, Op, Sample, TensorType, Value, emit, floats


@dataclass(frozen=True)
class LikeOp(Op, abstract=True):
    """y = dy brought to the shape of ``like``, whose elements do not matter.

    Gradients are built before shapes are known; these ops stand for a shape that is ``like``'s.
    ``decompose`` runs when types are static and calls ``build``.
    """

    same_dtype = False

    def infer(self, dy: TensorType, like: TensorType) -> TensorType:
        return dy.with_shape(like.shape)

    def build(self, dy: Value, shape: tuple[int, ...]) -> Value:
        """The result from ops with static attributes."""
        raise NotImplementedError(f"{self.type_name}.build")

    def decompose(self, dy: Value, like: Value) -> Value:
        return self.build(dy, like.type.shape)  # type: ignore[arg-type]

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for before, after in self.sample_shapes():
            yield Sample((floats(rng, *before), floats(rng, *after)), self)

    def sample_shapes(self) -> Iterable[tuple[tuple[int, ...], tuple[int, ...]]]:
        return ()


def _shaped(op: LikeOp, dy: Value, like: Value, is_known: bool) -> Value:
    """``dy`` as ``op`` brings it to the shape of ``like``; by static attributes if ``is_known``."""
    shape = like.type.shape
    if shape is not None and dy.type.shape == shape:
        return dy
    if is_known:
        return op.build(dy, shape)  # type: ignore[arg-type]
    return emit(op, dy, like)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class ReshapeLike(LikeOp):
    """y = reshape(dy, shape of like).    Gradient: ddy = reshape(dy', shape of dy)

    dy: any[...], like: any[...] with as many elements     y: dtype of dy, shape of like
    Errors: ShapeError when the numbers of elements differ
    """

    def infer(self, dy: TensorType, like: TensorType) -> TensorType:
        return dy if like.shape is None else movement.Reshape(like.shape).infer(dy)

    def reference(self, dy: Any, like: Any) -> Any:
        return np.reshape(dy, np.shape(like))

    def build(self, dy: Value, shape: tuple[int, ...]) -> Value:
        return emit(movement.Reshape(shape), dy)  # type: ignore[no-any-return]

    def vjp(self, dz: Value, z: Value, dy: Value, like: Value) -> tuple[Any, ...]:
        return reshape_like(dz, dy), None

    def sample_shapes(self) -> Any:
        return ((6,), (2, 3)), ((0, 2), (5, 0)), ((1,), ())

    def bad_samples(self) -> Iterable[Any]:
        yield (np.zeros(6, np.float32), np.zeros((2, 2), np.float32)), ShapeError


def reshape_like(dy: Value, like: Value) -> Value:
    """``dy`` with the shape of ``like``; one with equal static shape is returned as it is."""
    return _shaped(ReshapeLike(), dy, like, like.type.is_static)


@dataclass(frozen=True)
class BroadcastLike(LikeOp):
    """y = broadcast_to(dy, shape of like).    Gradient: dy' summed over the stretched axes

    dy: any[...], like: any[...]      y: dtype of dy, shape of like
    Errors: ShapeError when dy does not broadcast to like
    """

    def infer(self, dy: TensorType, like: TensorType) -> TensorType:
        if like.shape is None:
            return dy.with_shape(None)
        return movement.BroadcastTo(like.shape).infer(dy)

    def reference(self, dy: Any, like: Any) -> Any:
        return np.broadcast_to(dy, np.shape(like))

    def build(self, dy: Value, shape: tuple[int, ...]) -> Value:
        return dy if dy.type.shape == shape else emit(movement.BroadcastTo(shape), dy)

    def vjp(self, dz: Value, z: Value, dy: Value, like: Value) -> tuple[Any, ...]:
        return unbroadcast(dz, dy), None

    def sample_shapes(self) -> Any:
        return ((3, 1), (2, 3, 4)), ((), (5,)), ((2, 3), (2, 3)), ((1,), (0,))

    def bad_samples(self) -> Iterable[Any]:
        yield (np.zeros(3, np.float32), np.zeros((2, 2), np.float32)), ShapeError


def broadcast_like(dy: Value, like: Value) -> Value:
    """``dy`` stretched to the shape of ``like``."""
    return _shaped(BroadcastLike(), dy, like, like.type.is_static)


@dataclass(frozen=True)
class UnbroadcastLike(LikeOp):
    """y = dy summed over the axes along which ``like`` was stretched to the shape of dy.

    dy: number[...], like: any[...] that broadcasts to dy      y: dtype of dy, shape of like
    Gradient: dy' stretched again     Errors: ShapeError when like does not broadcast to dy
    """

    def infer(self, dy: TensorType, like: TensorType) -> TensorType:
        dy.require_number()
        if dy.is_static and like.is_static:
            movement.BroadcastTo(dy.shape).infer(like)  # type: ignore[arg-type]
        return dy.with_shape(like.shape)

    def reference(self, dy: Any, like: Any) -> Any:
        shape = np.shape(like)
        axes = _stretched(np.shape(dy), shape)
        return np.sum(dy, axes, dtype=np.asarray(dy).dtype).reshape(shape)

    def build(self, dy: Value, shape: tuple[int, ...]) -> Value:
        from tinyflow.ops.reduction import reduce_sum

        own = dy.type.shape
        if own == shape:
            return dy
        axes = _stretched(own, shape)  # type: ignore[arg-type]
        lead = len(own) - len(shape)  # type: ignore[arg-type]
        # One reduction; extents of 1 that ``like`` has inside are put back by a reshape.
        summed = reduce_sum(dy, axis=axes, keepdims=not lead) if axes else dy
        return summed if summed.type.shape == shape else emit(movement.Reshape(shape), summed)

    def vjp(self, dz: Value, z: Value, dy: Value, like: Value) -> tuple[Any, ...]:
        return broadcast_like(dz, dy), None

    def sample_shapes(self) -> Any:
        return ((2, 3, 4), (3, 1)), ((3, 4), ()), ((0, 3), (3,)), ((2, 5), (2, 5)), ((1, 3), (3,))

    def bad_samples(self) -> Iterable[Any]:
        yield (np.zeros((2, 3), np.float32), np.zeros(2, np.float32)), ShapeError
        yield (np.zeros((2, 3), bool), np.zeros(3, np.float32)), DTypeError


def _stretched(wide: tuple[int, ...], narrow: tuple[int, ...]) -> tuple[int, ...]:
    """Axes of ``wide`` along which ``narrow`` was stretched by broadcasting."""
    lead = len(wide) - len(narrow)
    inner = (d + lead for d, n in enumerate(narrow) if n == 1 and wide[d + lead] != 1)
    return (*range(lead), *inner)


def unbroadcast(dy: Value, like: Value) -> Value:
    """The gradient of an input that broadcasting stretched: ``dy`` summed to its shape."""
    is_known = like.type.is_static and dy.type.is_static
    return _shaped(UnbroadcastLike(), dy, like, is_known)


@dataclass(frozen=True)
class TileGrad(LikeOp):
    """dx = dy summed over the copies that ``movement.Tile(multiples)`` made of x.

    dy: number[n * multiples], like: x      dx: dtype of dy, shape of x
    Gradient: tile again     Errors: ShapeError when dy is not a tiled x
    """

    multiples: Extents

    def infer(self, dy: TensorType, like: TensorType) -> TensorType:
        dy.require_number()
        merge_shapes(movement.Tile(self.multiples).infer(like).shape, dy.shape)
        return dy.with_shape(like.shape)

    def _split(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(n for pair in zip(self.multiples, shape, strict=True) for n in pair)  # type: ignore[misc]

    def reference(self, dy: Any, like: Any) -> Any:
        split = np.reshape(dy, self._split(np.shape(like)))
        return split.sum(tuple(range(0, split.ndim, 2)), dtype=np.asarray(dy).dtype)

    def build(self, dy: Value, shape: tuple[int, ...]) -> Value:
        from tinyflow.ops.reduction import reduce_sum

        if not shape:
            return dy
        split = emit(movement.Reshape(self._split(shape)), dy)
        return reduce_sum(split, axis=tuple(range(0, 2 * len(shape), 2)))  # type: ignore[no-any-return]

    def adjoint(self, dz: Value, dy: Value, like: Value) -> tuple[Op, tuple[Any, ...]]:
        return movement.Tile(self.multiples), (dz,)

    def vjp(self, dz: Value, z: Value, dy: Value, like: Value) -> tuple[Any, ...]:
        return emit(movement.Tile(self.multiples), dz), None

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, multiples in (((3, 4), (2, 1)), ((2, 3), (3, 2)), ((0, 5), (2, 2)), ((), ())):
            wide = tuple(n * m for n, m in zip(shape, multiples, strict=True))
            yield Sample((floats(rng, *wide), floats(rng, *shape)), TileGrad(multiples), scale=6.0)

    def bad_samples(self) -> Iterable[Any]:
        arrays = np.zeros((4, 4), np.float32), np.zeros((2, 3), np.float32)
        yield Sample(arrays, TileGrad((2, 1))), ShapeError


# Last, because it imports this module in turn.
from tinyflow.ops import movement  # noqa: E402
