"""What every op family shares.

Main types: ``Unary``, ``Binary``, ``Comparison`` (abstract ops), ``DynamicShape``, ``Sample``.
May import core, ir, te; no other op file (``unbroadcast`` is imported where it is used).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from tinyflow import te
from tinyflow.core.dtype import bool_
from tinyflow.core.error import DTypeError, ShapeError, Unsupported
from tinyflow.core.shape import Dim, broadcast_shapes, opaque
from tinyflow.ir.graph.builder import current_builder, emit
from tinyflow.ir.graph.nodes import Effect, Op, TensorType, Value
from tinyflow.ir.scalar.nodes import Expr

#: ints of an attribute; symbols (``Dim``) stand among them only inside a ``DynamicShape``
Extents = tuple[Any, ...]

__all__ = [
    "Binary", "Comparison", "DynamicShape", "Effect", "Extents", "Op", "Sample", "TensorType",
    "Unary", "Value", "emit", "emit_shaped", "floats", "ranged", "require_same_dtype", "to_value",
]  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """One input of the conformance suite.

    arrays: the inputs.   op: the op with attributes (the class's default instance when None).
    ulp: allowed error of the result in units in the last place; None takes the family's bound.
    check_gradient: False where the point lies on a kink or outside the domain.
    scale: results smaller than this are held to the absolute error of one of this size (where
    large terms cancel).
    """

    arrays: tuple[Any, ...]
    op: Op | None = None
    ulp: float | None = None
    check_gradient: bool = True
    note: str = field(default="", compare=False)
    scale: float = 0.0


def to_value(x: Any, dtype: Any = None) -> Value:
    """A literal as a value of the current graph; values as they are."""
    return x if isinstance(x, Value) else current_builder().constant(x, dtype, None)


def require_same_dtype(*types: TensorType) -> None:
    """Errors: DTypeError naming both types."""
    first = types[0].dtype
    for other in types[1:]:
        if other.dtype is not first:
            raise DTypeError(
                f"inputs differ in dtype: {first} and {other.dtype}",
                expected="one dtype for all inputs",
                hint=f"convert one of them with tf.cast(..., tf.{other.dtype})",
            )


def broadcast_types(x: TensorType, y: TensorType) -> TensorType:
    require_same_dtype(x, y)
    if x.shape == y.shape:
        return x
    try:
        return TensorType(x.dtype, broadcast_shapes(x.shape, y.shape))
    except ShapeError as error:
        error.expected = "trailing dimensions that are equal or 1"
        error.hint = _broadcast_hint(x, y)
        raise


def _broadcast_hint(x: TensorType, y: TensorType) -> str | None:
    a, b = x.shape or (), y.shape or ()
    if len(a) == len(b) and a == tuple(reversed(b)):
        return "did you mean to transpose one of them (tf.transpose)?"
    if len(a) == 1 and len(b) >= 1 and a[0] == b[0]:
        return "did you mean tf.expand_dims(x, 1), one value per row?"
    if len(b) == 1 and len(a) >= 1 and b[0] == a[0]:
        return "did you mean tf.expand_dims(y, 1), one value per row?"
    return None


@dataclass(frozen=True)
class Unary(Op, abstract=True):
    """y = f(x), element-wise, same shape and dtype.

    A subclass sets ``element`` (scalar expression of the result) and ``reference``; ``needs`` is
    "float", "number", "integer", "bool" or "any".
    """

    needs: ClassVar[str] = "float"
    #: points of the domain for the conformance suite
    domain: ClassVar[tuple[float, float]] = (-3.0, 3.0)

    def infer(self, x: TensorType) -> TensorType:
        if self.needs != "any":
            getattr(x, f"require_{self.needs}")()
        return x

    def element(self, x: Expr) -> Expr:
        raise NotImplementedError

    def compute(self, x: te.Tensor) -> te.Tensor:
        return te.map(self.element, x, name=self.type_name.lower())

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape in ((3, 4), (), (0, 5), (1, 37)):
            yield Sample((ranged(rng, shape, self.needs, *self.domain),))

    def bad_samples(self) -> Iterable[Any]:
        if self.needs in ("float", "number"):
            bad = np.array([True]) if self.needs == "number" else np.array([1, 2])
            yield (bad,), DTypeError
        elif self.needs in ("bool", "integer"):
            yield (np.array([1.5], np.float32),), DTypeError


def ranged(
    rng: np.random.Generator, shape: tuple[int, ...], needs: str, low: float, high: float
) -> np.ndarray:
    """Random values of the kind an op needs, within [low, high]."""
    if needs == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if needs == "integer":
        return rng.integers(int(low), int(high) + 1, shape).astype(np.int32)
    return rng.uniform(low, high, shape).astype(np.float32)


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """A float32 sample array."""
    return ranged(rng, shape, "float", -3.0, 3.0)


@dataclass(frozen=True)
class Binary(Op, abstract=True):
    """z = f(x, y), element-wise with NumPy broadcasting; both inputs have one dtype."""

    needs: ClassVar[str] = "number"
    domain: ClassVar[tuple[float, float]] = (-3.0, 3.0)

    def infer(self, x: TensorType, y: TensorType) -> TensorType:
        result = broadcast_types(x, y)
        if self.needs != "any":
            getattr(x, f"require_{self.needs}")()
        return result

    def element(self, x: Expr, y: Expr) -> Expr:
        raise NotImplementedError

    def compute(self, x: te.Tensor, y: te.Tensor) -> te.Tensor:
        return te.map(self.element, x, y, name=self.type_name.lower())

    def vjp(self, dz: Value, z: Value, x: Value, y: Value) -> tuple[Any, ...]:
        """Each input's gradient summed over the axes that were stretched for it."""
        from tinyflow.ops.movement import unbroadcast

        dx, dy = self.partials(dz, z, x, y)
        return (
            None if dx is None else unbroadcast(dx, x),
            None if dy is None else unbroadcast(dy, y),
        )

    def partials(self, dz: Value, z: Value, x: Value, y: Value) -> tuple[Any, Any]:
        """Gradients at the broadcast shape."""
        raise NotImplementedError(f"{self.type_name}.partials")

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        shapes = (((3, 4),) * 2, ((2, 3, 5), (3, 1)), ((), (4,)), ((0, 3), (3,)), ((1, 5), (7, 1)))
        for a, b in shapes:
            yield Sample(
                (ranged(rng, a, self.needs, *self.domain), ranged(rng, b, self.needs, *self.domain))
            )

    def bad_samples(self) -> Iterable[Any]:
        dtype = {"bool": np.bool_, "integer": np.int32}.get(self.needs, np.float32)
        yield (np.zeros((2, 3), dtype), np.zeros((4,), dtype)), ShapeError
        yield (np.zeros((2,), dtype), np.zeros((2,), np.float64)), DTypeError


@dataclass(frozen=True)
class Comparison(Binary, abstract=True):
    """z = x ? y, element-wise with broadcasting; the result is bool."""

    not_differentiable = "the result is boolean"

    def infer(self, x: TensorType, y: TensorType) -> TensorType:
        return Binary.infer(self, x, y).with_dtype(bool_)


@dataclass(frozen=True)
class DynamicShape(Op):
    """``inner`` with attribute ``field`` taken from the last input, an integer tensor.

    Stands for a shape, multiples, paddings ... that is computed in the graph. The pass
    ``specialize`` replaces the node by ``resolve(value)`` once the operand is constant.
    known: what construction knows of the operand: int or Dim per element, "?" where nothing is
    known; None when not even its shape is. tag: makes the unknown extents of two nodes differ.
    Gradient: that of the inner op; an inner op whose gradient needs the attribute has ``adjoint``.
    Errors: those of ``inner.infer``; Unsupported when the operand depends on computed data.
    """

    inner: Op
    field: str
    known: Any = None
    tag: int = 0
    same_dtype = False
    static_inputs = (-1,)

    def infer(self, *inputs: TensorType) -> TensorType:
        inputs[-1].require_integer()
        if self.known is not None:
            try:
                return self._guess().infer(*inputs[:-1])  # type: ignore[return-value]
            except TypeError as error:  # a rule that cannot compute with unknown extents
                if isinstance(error, DTypeError):
                    raise
        dtype = getattr(self.inner, "dtype", None)
        return TensorType(inputs[0].dtype if dtype is None else dtype, None)

    def _guess(self) -> Op:
        """The inner op with a symbolic extent for each element that is not known."""
        position = itertools.count()

        def fill(part: Any) -> Any:
            if isinstance(part, tuple):
                return tuple(fill(p) for p in part)
            serial = next(position)
            return opaque(f"dynamic{self.tag}_{serial}") if part == "?" else part

        return with_attribute(self.inner, self.field, fill(self.known))

    def resolve(self, value: Any) -> Op:
        """The inner op once the operand is the array ``value``."""
        return with_attribute(self.inner, self.field, _as_attribute(value))

    def reference(self, *arrays: Any) -> Any:
        return self.resolve(arrays[-1]).reference(*arrays[:-1])

    def decompose(self, *values: Value) -> Any:
        from tinyflow.ops.creation import constant_value

        operand = constant_value(values[-1])
        if operand is None:
            raise Unsupported(
                f"{self.inner.type_name}: {self.field} depends on computed data",
                expected=f"{self.field} to follow from constants, shapes and fed values",
                hint="compute it in NumPy and feed it",
            )
        return emit(self.resolve(operand), *values[:-1])

    def told(self, *inputs: Value) -> Any:
        """The same where Python tells the operand, which depends on computed data."""
        from tinyflow.ops.counted import told_numbers

        own = getattr(self.inner, "told", None)
        if own is not None:
            return own(*inputs)
        return emit_shaped(self.inner, self.field, told_numbers(inputs[-1]), *inputs[:-1])

    def vjp(self, dy: Value, y: Value, *inputs: Value) -> tuple[Any, ...]:
        if self.inner.not_differentiable is not None:
            return (None,) * len(inputs)
        adjoint = getattr(self.inner, "adjoint", None)
        if adjoint is None:
            return (*self.inner.vjp(dy, y, *inputs[:-1]), None)
        op, arguments = adjoint(dy, *inputs[:-1])
        dx = emit(replace(self, inner=op), *arguments, inputs[-1])
        return (dx, *[None] * (len(inputs) - 1))

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        from tinyflow.ops.movement import BroadcastTo, Reshape, Tile

        x = ranged(rng, (2, 3), "float", -1, 1)
        for op, name, operand in (
            (Reshape(()), "shape", (3, -1)),
            (BroadcastTo(()), "shape", (4, 2, 3)),
            (Tile(()), "multiples", (2, 1)),
        ):
            dynamic = DynamicShape(op, name, ("?",) * len(operand))
            yield Sample((x, np.array(operand, np.int32)), dynamic)

    def bad_samples(self) -> Iterable[Any]:
        from tinyflow.ops.movement import Reshape

        yield Sample((np.zeros(6, np.float32), np.array([5, 2], np.int32)),
                     DynamicShape(Reshape(()), "shape", (5, 2))), ShapeError  # fmt: skip


def with_attribute(op: Op, name: str, value: Any) -> Op:
    """``op`` with one attribute changed; ``op.with_attribute`` may know compound names."""
    own = getattr(op, "with_attribute", None)
    return replace(op, **{name: value}) if own is None else own(name, value)  # type: ignore[type-var]


_tags = itertools.count(1)


def emit_shaped(
    op: Op, name: str, operand: Any, *arguments: Any, node_name: str | None = None
) -> Any:
    """``op`` applied to ``arguments`` with attribute ``name`` taken from ``operand``.

    operand: an int or (nested) sequence of ints, or values among them, or an integer value. What is
    known now becomes the attribute; else the node is a ``DynamicShape``.
    """
    if not isinstance(operand, Value) and _has_value(operand):
        from tinyflow.ops.movement import pack_nested

        operand = pack_nested(operand)
    if not isinstance(operand, Value):
        return emit(with_attribute(op, name, _as_attribute(operand)), *arguments, name=node_name)
    from tinyflow.ops.movement import symbolic_value

    known = symbolic_value(operand)
    if known is not None and _all_int(known):
        return emit(with_attribute(op, name, known), *arguments, name=node_name)
    dynamic = DynamicShape(op, name, known, next(_tags))
    return emit(dynamic, *arguments, operand, name=node_name or op.type_name)


def _has_value(operand: Any) -> bool:
    if isinstance(operand, (tuple, list)):
        return any(_has_value(part) for part in operand)
    return isinstance(operand, Value) or hasattr(operand, "as_value")


def _all_int(known: Any) -> bool:
    if isinstance(known, tuple):
        return all(_all_int(part) for part in known)
    return isinstance(known, int)


def _as_attribute(operand: Any) -> Any:
    """Nested tuples of Python ints (one int for a scalar). Symbolic extents pass through."""
    if isinstance(operand, Dim):
        return operand
    if isinstance(operand, np.ndarray):
        if operand.size and operand.dtype.kind not in "iu":
            raise DTypeError(f"needs integers, got {operand.dtype}", expected="an integer dtype")
        return _as_attribute(operand.tolist())
    if isinstance(operand, (tuple, list)):
        return tuple(_as_attribute(part) for part in operand)
    try:
        return int(operand.__index__())
    except (AttributeError, TypeError):
        raise DTypeError(f"needs integers, got {operand!r}", expected="an integer") from None
