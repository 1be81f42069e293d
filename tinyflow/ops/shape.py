"""Ops that read a tensor's shape, and what construction can know of a shape computed in the graph.

Main types: ``Shape``, ``Size``, ``Rank``, ``Extent``; ``symbolic_value``. May import ops.base.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow import te
from tinyflow.core.dtype import DType, as_dtype, int32, int64
from tinyflow.core.error import DTypeError
from tinyflow.core.order import producers_first
from tinyflow.core.shape import Dim, opaque, size_of
from tinyflow.ir.graph.nodes import Effect, Node
from tinyflow.ops.base import Op, Sample, TensorType, Value, emit, ranged


@dataclass(frozen=True)
class ShapeReader(Op, abstract=True):
    """An integer that follows from the input's shape alone; its elements are never read."""

    dtype: DType = int32
    not_differentiable = "a shape does not change with the elements"

    def of_shape(self, shape: tuple[Any, ...]) -> Any:
        """The result for a known shape, as a Python int or tuple (extents may be symbols)."""
        raise NotImplementedError

    def _check(self) -> None:
        if self.dtype not in (int32, int64):
            raise DTypeError(f"cannot give a shape as {self.dtype}", expected="int32 or int64")

    def reference(self, x: Any) -> Any:
        return np.array(self.of_shape(np.shape(x)), self.dtype.numpy)

    def specialize(self, types: Any, constants: Any = None) -> Op | None:
        """The constant that the op is once its input's type is static."""
        if not types[0].is_static:
            return None
        from tinyflow.ops.creation import make_constant

        result = np.array(self.of_shape(types[0].shape), self.dtype.numpy)
        return make_constant(result, self.dtype)  # type: ignore[no-any-return]

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, dtype in (((3, 4), int32), ((), int64), ((0, 5, 1), int32), ((2, 3, 4), int64)):
            yield Sample((ranged(rng, shape, "float", -1, 1),), type(self)(dtype))

    def bad_samples(self) -> Iterable[Any]:
        yield Sample((np.zeros(3, np.float32),), type(self)(as_dtype("float32"))), DTypeError


@dataclass(frozen=True)
class Shape(ShapeReader):
    """y[d] = extent of axis d of x.    x: any[...]    y: int32 or int64 [rank]"""

    onnx = "Shape"

    def infer(self, input: TensorType) -> TensorType:
        self._check()
        rank = opaque("rank") if input.shape is None else len(input.shape)
        return TensorType(self.dtype, (rank,))

    def of_shape(self, shape: tuple[Any, ...]) -> Any:
        return shape

    def compute(self, x: te.Tensor) -> te.Tensor:
        def element(d: Any) -> Any:
            result = te.const(0, self.dtype)
            for axis, extent in enumerate(x.shape):
                result = te.select(
                    d.equal(axis), te.cast(te.as_index(extent), self.dtype), result
                )
            return result

        return te.compute((x.rank,), element, "shape")


@dataclass(frozen=True)
class Size(ShapeReader):
    """y = number of elements of x.    x: any[...]    y: int32 or int64 []"""

    onnx = "Size"

    def infer(self, input: TensorType) -> TensorType:
        self._check()
        return TensorType(self.dtype, ())

    def of_shape(self, shape: tuple[Any, ...]) -> Any:
        return size_of(shape)

    def compute(self, x: te.Tensor) -> te.Tensor:
        total = te.index(1)
        for extent in x.shape:
            total = total * te.as_index(extent)
        return te.compute((), lambda: te.cast(total, self.dtype), "size")


@dataclass(frozen=True)
class Rank(ShapeReader):
    """y = number of axes of x.    x: any[...]    y: int32 or int64 []"""

    def infer(self, input: TensorType) -> TensorType:
        self._check()
        return TensorType(self.dtype, ())

    def of_shape(self, shape: tuple[Any, ...]) -> Any:
        return len(shape)

    def compute(self, x: te.Tensor) -> te.Tensor:
        return te.compute((), lambda: te.const(x.rank, self.dtype), "rank")


@dataclass(frozen=True)
class Extent(Op):
    """y = a number that follows from the sizes of a run.    y: int32 or int64 []

    extent: an int, or a polynomial of the symbols of a step that serves all sizes
    Made by ``specialize`` from what a graph computes from shapes.
    """

    extent: Any = 0
    dtype: DType = int32
    not_differentiable = "it has no inputs"

    def infer(self) -> TensorType:
        return TensorType(self.dtype, ())

    def reference(self) -> Any:
        return np.array(self.extent, self.dtype.numpy)

    def compute(self) -> te.Tensor:
        return te.compute((), lambda: te.cast(te.index(self.extent), self.dtype), "extent")

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        yield Sample((), type(self)(7))
        yield Sample((), type(self)(0, int64))


def shape(input: Any, out_type: Any = int32, name: str | None = None) -> Any:
    """The extents as a vector. See Shape."""
    return emit(Shape(as_dtype(out_type)), input, name=name)


def size(input: Any, out_type: Any = int32, name: str | None = None) -> Any:
    """The number of elements. See Size."""
    return emit(Size(as_dtype(out_type)), input, name=name)


def rank(input: Any, name: str | None = None) -> Any:
    """The number of axes. See Rank."""
    return emit(Rank(), input, name=name)


class _Unknown:
    """An element nobody knows; arithmetic with it stays unknown."""

    is_const = False  # for core.shape: extents leave arithmetic with it to it

    def _same(self, *others: Any) -> _Unknown:
        return self

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _same
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __neg__ = __pow__ = _same


_UNKNOWN = _Unknown()
_LIMIT = 256  # elements; shapes, paddings and multiples are small
_DEPTH = 64  # of the arithmetic on shapes that is followed

#: ops whose NumPy reference computes with Python objects as well as with numbers
_FOLLOWED = frozenset({
    "Add", "ConcatV2", "ExpandDims", "FloorDiv", "GatherV2", "Identity", "Mul", "Neg", "Pack",
    "Prod", "Reshape", "ReverseV2", "Slice", "Squeeze", "StridedSlice", "Sub", "Sum", "Transpose",
})  # fmt: skip


def symbolic_value(value: Value) -> Any:
    """What construction knows of an integer value: nested tuples of int, Dim (of the shapes it was
    computed from) and "?" for elements that only a run knows; None for a value of unknown shape.

    ``[tf.shape(x)[0] * 2, 10]`` with x: float32[N, 3] is (2*N, 10).
    """
    elements = _elements(value, _DEPTH)
    if elements is None:
        return None

    def plain(part: Any) -> Any:
        if isinstance(part, list):
            return tuple(map(plain, part))
        return "?" if part is _UNKNOWN else part

    return plain(elements.tolist())


def _elements(value: Value, depth: int) -> Any:
    """The value as an array of Python objects, or None."""
    node, type_ = value.node, value.type
    if not type_.dtype.is_integer:
        return None
    name = node.op.type_name
    found: Any = None
    if depth and name == "Constant":
        found = np.asarray(node.op.reference())
    elif isinstance(node.op, Extent):
        found = np.array(node.op.extent, object)
    elif depth and isinstance(node.op, ShapeReader) and node.inputs[0].type.shape is not None:
        found = node.op.of_shape(node.inputs[0].type.shape)
    elif depth and (name in _FOLLOWED or name == "Cast"):
        arrays = [_elements(v, depth - 1) for v in node.inputs]
        if all(a is not None for a in arrays):
            try:
                found = arrays[0] if name == "Cast" else node.op.reference(*arrays)
            except (TypeError, ValueError, AttributeError, IndexError):
                found = None
    if found is None:
        if not type_.is_static or type_.size > _LIMIT:
            return None
        found = np.full(type_.shape, _UNKNOWN, object)  # type: ignore[arg-type]
    return _objects(found)


def _objects(found: Any) -> Any:
    """An object array of int, Dim and _UNKNOWN; None when it is too big."""
    array = found if isinstance(found, np.ndarray) else np.array(found, object)
    if array.size > _LIMIT:
        return None
    result = np.empty(array.shape, object)
    for i, part in np.ndenumerate(array):
        if isinstance(part, (int, np.integer)):
            result[i] = int(part)
        elif isinstance(part, Dim) and all(type(c) is int for _, c in part.terms):
            result[i] = part
        else:  # unknown, or a polynomial that has met an unknown
            result[i] = _UNKNOWN
    return result


_LONGEST = 64  # nodes of an expression of sizes


def shape_expression(value: Value) -> list[Node] | None:
    """The nodes that compute an integer from constants and shapes, producers first; else None."""
    count = 0

    def needs(node: Node) -> list[Node]:
        nonlocal count
        count += 1
        if count > _LONGEST or not _is_size(node):
            raise _NotAShapeError
        return [] if isinstance(node.op, ShapeReader) else [v.node for v in node.inputs]

    try:
        return producers_first([value.node], needs)
    except _NotAShapeError:
        return None


class _NotAShapeError(Exception):
    """Ends the walk of ``shape_expression``: most graphs are large, and few of them are shapes."""


def _is_size(node: Node) -> bool:
    op = node.op
    if op.effect is not Effect.NONE or node.control_inputs or len(node.types) != 1:
        return False
    if (not node.inputs and op.type_name != "Constant") or hasattr(op, "is_control"):
        return False
    type_ = node.types[0]
    return isinstance(op, ShapeReader) or (
        type_.is_static and type_.size <= _LONGEST
        and (type_.dtype.is_integer or op.type_name == "Constant")
    )


def pack_nested(operand: Any) -> Value:
    """A list of ints and integer values, one or two levels deep, as one integer value."""
    from tinyflow.ops.joining import stack

    as_value = getattr(operand, "as_value", None)
    if as_value is not None:
        return as_value()  # type: ignore[no-any-return]
    if isinstance(operand, (list, tuple)):
        parts = [pack_nested(part) for part in operand]
        dtype = next((p.dtype for p in parts if isinstance(p, Value)), int32)
        typed = [p if isinstance(p, Value) else np.array(p, dtype.numpy) for p in parts]
        return stack(typed, name=None)  # type: ignore[no-any-return]
    return operand  # type: ignore[no-any-return]
