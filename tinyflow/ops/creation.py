"""Literals and filled tensors; and which values are known before a run.

Main types: Constant, Fill, ZerosLike, OnesLike; ``make_constant``, ``constant_value``. May import
ops.base, convert; registers the builder's constant maker.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from tinyflow import te
from tinyflow.core.dtype import DType, as_dtype, float32
from tinyflow.core.error import DTypeError, ShapeError, SymbolicValueError
from tinyflow.core.shape import is_static
from tinyflow.ir.graph.builder import set_constant_maker
from tinyflow.ir.graph.nodes import Effect, Input, Node
from tinyflow.ir.scalar import nodes as scalar
from tinyflow.ops.base import Op, Sample, TensorType, Value, emit, emit_shaped
from tinyflow.ops.convert import cast, cast_array


@dataclass(frozen=True, eq=False)
class Constant(Op):
    """y = a fixed array, held read-only.

    value: array of a known dtype; copied unless it is read-only already
    Equal constants have equal dtype, shape and bytes (so NaN equals itself and 0.0 differs from
    -0.0). The hash, of some of the bytes, is computed when it is first asked for.
    """

    value: np.ndarray
    onnx = "Constant"
    not_differentiable = "it has no inputs"

    def __post_init__(self) -> None:
        value = self.value
        owned = isinstance(value, np.ndarray) and not value.flags.writeable
        if not owned or not value.flags.c_contiguous:
            value = np.array(value, order="C")
            value.setflags(write=False)
            object.__setattr__(self, "value", value)

    @property
    def dtype(self) -> DType:
        return as_dtype(self.value.dtype)

    @cached_property
    def number(self) -> Any:
        """What all elements are, bit for bit, as a NumPy scalar; None if they differ."""
        from tinyflow.rewrite.pattern import uniform_array

        return uniform_array(self.value)

    def _key(self) -> tuple[Any, ...]:
        return self.value.dtype.str, self.value.shape

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Constant) or type(other) is not type(self):
            return False
        if self._key() != other._key():
            return False
        if hash(self) != hash(other):
            return False
        return self.value is other.value or _have_equal_bytes(self.value, other.value)

    def __hash__(self) -> int:
        found = self.__dict__.get("_hash")
        if found is None:
            found = hash((*self._key(), *_samples(self.value)))
            object.__setattr__(self, "_hash", found)
        return found  # type: ignore[no-any-return]

    def infer(self) -> TensorType:
        return TensorType(self.dtype, self.value.shape)

    def reference(self) -> Any:
        return self.value

    def compute(self) -> te.Tensor:
        """One element becomes an immediate; larger arrays live in the program's constant pool."""
        if self.value.size != 1:
            raise NotImplementedError("a constant of several elements is memory, not arithmetic")
        literal = scalar.const(self.value.item(), self.dtype)
        return te.compute(self.value.shape, lambda *i: literal, "constant")

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for array in (
            np.float32(1.5), np.array([[1, 2, 3]], np.int32), np.zeros((0, 2)),
            np.array([True, False]), np.array([np.nan, -0.0, np.inf], np.float32),
            rng.normal(size=(5, 7)).astype(np.float32),
        ):  # fmt: skip
            yield Sample((), Constant(np.asarray(array)))


class Setting(Constant):
    """y = a number of the user's that may be another one in the next program: a learning rate.

    value: an array of one element, kept in memory like a weight: it is part of no kernel and is
    folded into no other constant, so that another value needs no other code.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.value.size != 1:
            raise ShapeError(f"Setting: expected one element, got {self.value.size}")

    def compute(self) -> te.Tensor:
        raise NotImplementedError("a setting is memory, not arithmetic")

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        yield Sample((), Setting(np.array(0.1, np.float32)))
        yield Sample((), Setting(np.full((1, 1), 2.5)))

    def bad_samples(self) -> Iterable[Any]:
        return ()


def setting(value: Any, name: str | None = None) -> Any:
    """A Python or NumPy number as a tensor that stays out of the code. See Setting."""
    return emit(Setting(make_constant(value).value), name=name)


#: Elements at each end of an array that its hash looks at; weights have millions.
_SAMPLED = 64


def _samples(array: np.ndarray) -> tuple[bytes, bytes]:
    flat = array.reshape(-1)
    return flat[:_SAMPLED].tobytes(), flat[-_SAMPLED:].tobytes()


def _have_equal_bytes(a: np.ndarray, b: np.ndarray) -> bool:
    """For C-contiguous arrays of one dtype and shape."""
    if a.dtype.hasobject:
        return a.tobytes() == b.tobytes()
    return np.array_equal(a.reshape(-1).view(np.uint8), b.reshape(-1).view(np.uint8))


def make_constant(value: Any, dtype: Any = None) -> Constant:
    """The constant for a literal; ``dtype`` is that of the tensors beside it, or None.

    Without dtype: arrays keep theirs; Python floats are float32, ints int32 (int64 if one does not
    fit), and so are the elements of lists. With dtype: a number of a kind that loses nothing is
    converted; a float beside integers, a number beside bools, or an int out of range is an error.
    """
    array = _as_array(value)
    wanted = None if dtype is None else as_dtype(dtype)
    if wanted is None:
        return Constant(_default_precision(array, value))
    if array.dtype == wanted.numpy:
        return Constant(array)
    kind = array.dtype.kind
    if kind == "f" and not wanted.is_floating:
        _refuse_fraction(array, value, wanted)
    elif wanted.is_bool:
        raise DTypeError(
            f"expected bool, got {_brief(value)} of type {_type_name(value)}",
            expected="a bool, the dtype of the tensor beside it",
            hint="use True or False, or compare with 0",
        )
    elif kind in "iu" and wanted.is_integer and array.size:
        low, high = int(array.min()), int(array.max())
        if low < wanted.min or high > wanted.max:
            raise DTypeError(
                f"{low if low < wanted.min else high} does not fit {wanted}",
                expected=f"{wanted.min} to {wanted.max}",
                hint="convert the tensor beside it with tf.cast(..., tf.int64)",
            )
    return Constant(cast_array(array, wanted))


def _as_array(value: Any) -> np.ndarray:
    """Any literal as an array of a type that tensors have. Errors: DTypeError, ShapeError."""
    if value is None:
        raise DTypeError("None is not a value", hint="a function without `return` gives None")
    try:
        array = np.asarray(value)
    except ValueError:
        raise ShapeError(
            f"a list of unequal lengths is no tensor: {_brief(value)}",
            expected="lists of one length at each depth",
            hint="pad the shorter lists",
        ) from None
    except (OverflowError, SymbolicValueError):
        array = np.empty((), object)
    if array.dtype.kind == "O" and _is_integer(value):
        raise DTypeError(
            f"{_brief(value)} does not fit any integer dtype", expected="at most 64 bits"
        )
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        values = isinstance(value, (list, tuple)) and _contains_value(value)
        raise DTypeError(
            f"cannot make a tensor of {_brief(value)} ({_type_name(value)})",
            expected="numbers, bools, or arrays and lists of them",
            hint="tensors are combined with tf.stack([...])" if values else None,
        )
    return array


def _contains_value(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_contains_value(v) for v in value)
    return isinstance(value, Value) or hasattr(value, "as_value")


def _is_integer(value: Any) -> bool:
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    return isinstance(value, int)


def _default_precision(array: np.ndarray, value: Any) -> np.ndarray:
    """Arrays and NumPy scalars keep their dtype; Python's numbers are 32 bits wide if they fit."""
    if isinstance(value, (np.ndarray, np.generic)) or hasattr(value, "__array__"):
        return array
    if array.dtype == np.float64:
        return array.astype(np.float32)
    if array.dtype == np.int64:
        narrow = array.astype(np.int32)
        return narrow if np.array_equal(narrow, array) else array
    return array


def _refuse_fraction(array: np.ndarray, value: Any, wanted: DType) -> None:
    """A float literal never becomes an integer; an array does when it holds whole numbers."""
    if isinstance(value, (np.ndarray, np.generic)) and not wanted.is_bool:
        # TensorFlow truncates here without a word.
        if np.array_equal(np.trunc(array), array):
            return
        raise DTypeError(
            f"an array of {array.dtype} with fractions beside a tensor of {wanted}",
            expected=f"whole numbers, which {wanted} can hold",
            hint="convert the tensor with tf.cast(..., tf.float32), or the array with astype",
        )
    raise DTypeError(
        f"expected {wanted}, got {_brief(value)} of type {_type_name(value)}",
        expected=f"a value of dtype {wanted}, the dtype of the tensor beside it",
        hint="convert the tensor with tf.cast(..., tf.float32), or write a whole number",
    )


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _type_name(value: Any) -> str:
    return "list" if isinstance(value, (list, tuple)) else type(value).__name__


set_constant_maker(make_constant)


def constant(value: Any, dtype: Any = None, shape: Any = None, name: str | None = None) -> Any:
    """``value`` as a tensor. Arrays convert to ``dtype`` freely, Python numbers as make_constant.

    shape: the last element is repeated to fill it, as in TensorFlow; one of no elements takes none.
    Errors: DTypeError; ShapeError when there are more elements than ``shape`` has room for.
    """
    wanted = None if dtype is None else as_dtype(dtype)
    if wanted is not None and isinstance(value, (np.ndarray, np.generic)):
        array = cast_array(value, wanted)
    else:
        array = make_constant(value, wanted).value
    if shape is not None:
        array = _filled(array, tuple(int(d) for d in shape))
    return emit(Constant(array), name=name or "Const")


def _filled(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    size = math.prod(shape)
    if array.size == size or size == 0:
        return array.ravel()[:size].reshape(shape)
    if not 0 < array.size < size:
        raise ShapeError(
            f"Const: {array.size} elements for shape {list(shape)} of {size}",
            expected="as many elements as the shape has, or fewer",
        )
    elements = array.ravel()
    if not array.dtype.hasobject and not any(elements.tobytes()):
        flat = np.zeros(size, array.dtype)  # takes no memory before somebody reads it
    else:
        flat = np.full(size, elements[-1], array.dtype)
        flat[: array.size] = elements
    flat.setflags(write=False)  # nobody else has it: ``Constant`` need not copy
    return flat.reshape(shape)


# ---------------------------------------------------------------------------------------------
# What is known before a run

_known: WeakKeyDictionary[Value, Any] = WeakKeyDictionary()
#: limits of ``constant_value``: elements of one array, nodes looked at
_SMALL, _NODES = 4096, 1000


def constant_value(value: Value) -> np.ndarray | None:
    """The array that a small subgraph of constants and static shapes computes, or None."""
    if not isinstance(value, Value):
        return np.asarray(value)
    if type(value.node.op) is Constant:
        return value.node.op.value
    return _evaluated(value)


def _evaluated(root: Value) -> np.ndarray | None:
    """``constant_value`` of a computed value: iterative, remembers results, None when in doubt."""
    pending, visited = [root], 0
    while pending:
        value = pending[-1]
        if value in _known:
            pending.pop()
            continue
        visited += 1
        if visited > _NODES:
            return None
        node = value.node
        if _foldable(node) and _from_types(node) is None:
            missing = [v for v in node.inputs if v not in _known]
            if missing:
                pending.extend(missing)
                continue
        pending.pop()
        _known[value] = _fold(value)
    return _known[root]  # type: ignore[no-any-return]


def _foldable(node: Node) -> bool:
    if node.op.effect is not Effect.NONE or isinstance(node.op, Input) or len(node.inputs) > 64:
        return False
    return all(t.is_static and t.size <= _SMALL for t in node.types)


def _from_types(node: Node) -> np.ndarray | None:
    """The result of an op that the types of its inputs decide (a shape, a size, a rank)."""
    if type(node.op) is Constant:
        return node.op.value
    hook = getattr(node.op, "specialize", None)
    if hook is None:
        return None
    special = hook([v.type for v in node.inputs], [None] * len(node.inputs))
    return special.value if type(special) is Constant else None


def _fold(value: Value) -> np.ndarray | None:
    node = value.node
    if not _foldable(node):
        return None
    found = _from_types(node)
    if found is not None:
        return found
    arrays = [_known[v] for v in node.inputs]
    if not arrays or any(a is None for a in arrays):
        return None
    try:
        with np.errstate(all="ignore"):
            result: Any = node.op.reference(*arrays)
    except (NotImplementedError, ArithmeticError, ValueError):
        return None  # the error, if it is one, belongs to the run
    if isinstance(result, (tuple, list)):
        result = result[value.index]
    return np.asarray(result, value.dtype.numpy)


# ---------------------------------------------------------------------------------------------
# Filled tensors


@dataclass(frozen=True)
class Fill(Op):
    """y[i, ...] = value, for every index of ``shape``.

    value: any dtype, scalar    y: that dtype, ``shape``    Gradient: dvalue = sum(dy)
    Errors: ShapeError if value is no scalar or an extent is negative
    """

    shape: tuple[Any, ...] = ()
    onnx = "ConstantOfShape"

    def infer(self, value: TensorType) -> TensorType:
        value.require_rank(0)
        for extent in self.shape:
            if isinstance(extent, int) and extent < 0:
                raise ShapeError(f"extent {extent} is negative", expected="extents of 0 or more")
        return value.with_shape(self.shape)

    def reference(self, value: Any) -> Any:
        return np.full(self.shape, value, np.asarray(value).dtype)

    def compute(self, value: te.Tensor) -> te.Tensor:
        return te.compute(self.shape, lambda *i: value[()], "fill")

    def vjp(self, dy: Value, y: Value, value: Value) -> tuple[Any, ...]:
        from tinyflow.ops.reduction import reduce_sum

        return (reduce_sum(dy),)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape in ((2, 3), (), (0, 4), (1, 17)):
            yield Sample((np.float32(rng.normal()),), Fill(shape))
        yield Sample((np.int32(-3),), Fill((2, 5)))
        yield Sample((np.bool_(True),), Fill((3,)))

    def bad_samples(self) -> Iterable[Any]:
        yield Sample((np.zeros(3, np.float32),), Fill((2,))), ShapeError
        yield Sample((np.float32(0),), Fill((-2,))), ShapeError


def fill(dims: Any, value: Any, name: str | None = None) -> Any:
    """A tensor of shape ``dims`` (static or computed) with ``value`` everywhere. See Fill."""
    return emit_shaped(Fill(), "shape", dims, value, node_name=name)


def zeros(shape: Any, dtype: Any = float32, name: str | None = None) -> Any:
    """A tensor of zeros (False for bool)."""
    return fill(shape, _number(0, dtype), name)


def ones(shape: Any, dtype: Any = float32, name: str | None = None) -> Any:
    """A tensor of ones (True for bool)."""
    return fill(shape, _number(1, dtype), name)


def _number(value: int, dtype: Any) -> np.ndarray:
    return np.array(value, as_dtype(dtype).numpy)


@dataclass(frozen=True)
class FilledLike(Op, abstract=True):
    """y = one number in the shape and dtype of x; nothing of x is read."""

    not_differentiable = "the result does not depend on the elements of x"

    def infer(self, x: TensorType) -> TensorType:
        return x

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape in ((3, 4), (), (0, 5), (1, 37)):
            yield Sample((rng.normal(size=shape).astype(np.float32),))
        yield Sample((np.array([True, False]),))
        yield Sample((np.arange(6).reshape(2, 3),))


@dataclass(frozen=True)
class ZerosLike(FilledLike):
    """y = 0 in the shape and dtype of x (False for bool).    Gradient: none"""

    def reference(self, x: Any) -> Any:
        return np.zeros_like(x)

    def decompose(self, x: Value) -> Any:
        return zeros(x.type.shape, x.dtype)


def zeros_like(x: Any, dtype: Any = None, name: str | None = None) -> Any:
    """Zeros in the shape of ``x``, in its dtype or ``dtype``. See ZerosLike."""
    return _like(ZerosLike(), zeros, x, dtype, name)


@dataclass(frozen=True)
class OnesLike(FilledLike):
    """y = 1 in the shape and dtype of x (True for bool).    Gradient: none"""

    def reference(self, x: Any) -> Any:
        return np.ones_like(x)

    def decompose(self, x: Value) -> Any:
        return ones(x.type.shape, x.dtype)


def ones_like(x: Any, dtype: Any = None, name: str | None = None) -> Any:
    """Ones in the shape of ``x``, in its dtype or ``dtype``. See OnesLike."""
    return _like(OnesLike(), ones, x, dtype, name)


def _like(op: Op, make: Any, x: Any, dtype: Any, name: str | None) -> Any:
    if dtype is None or (isinstance(x, Value) and x.dtype is as_dtype(dtype)):
        return emit(op, x, name=name)
    if isinstance(x, Value) and is_static(x.type.shape):
        return make(x.type.shape, dtype, name)
    return cast(emit(op, x), dtype, name)
