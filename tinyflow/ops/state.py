"""Variables: reading, assigning, updating in place.

Main types: ``VariableRef`` (what a variable is to the graph), ``VariableRead``, ``Assign`` and its
kin. May import ops.base and arithmetic families. These ops live in the user's graph only: the pass
``functionalize`` asks each for its pure meaning (see passes/functionalize.py for the order of reads
and writes).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tinyflow.core.dtype import bool_
from tinyflow.core.error import DTypeError, InvalidArgumentError, OutOfRangeError, ShapeError
from tinyflow.core.shape import merge_shapes, show
from tinyflow.core.source import UNKNOWN, Source
from tinyflow.ops.base import Effect, Op, Sample, TensorType, Value, emit, floats
from tinyflow.ops.indexing import TensorScatter


@dataclass(frozen=True, eq=False)
class VariableRef:
    """A variable: two refs are the same variable only if they are one object.

    type: of its value; the shape may be partial. source: the user's line that made it.
    """

    name: str
    type: TensorType
    source: Source = UNKNOWN
    trainable: bool = True

    def __repr__(self) -> str:
        return f"<variable {self.name}: {self.type}>"


@dataclass(frozen=True)
class StateOp(Op, abstract=True):
    """Reads or writes the variable ``ref``."""

    ref: VariableRef

    def functionalize(self, state: Any, *inputs: Value) -> Any:
        """The pure meaning: ``state`` offers read(ref), write(ref, value), initialized(ref)."""
        raise NotImplementedError(f"{self.type_name}.functionalize")

    def next_value(self, old: Any, *arrays: Any) -> Any:
        """In NumPy: the variable's value after the op (an op that only reads: the value)."""
        raise NotImplementedError(f"{self.type_name}.next_value")

    def _check_dtype(self, value: TensorType) -> None:
        if value.dtype is not self.ref.type.dtype:
            raise DTypeError(
                f"{value.dtype} value for variable '{self.ref.name}' of {self.ref.type.dtype}",
                expected=f"dtype {self.ref.type.dtype}",
                hint=f"convert it with tf.cast(value, tf.{self.ref.type.dtype})",
            )

    def _check_shape(self, value: TensorType) -> Any:
        try:
            return merge_shapes(self.ref.type.shape, value.shape)
        except ShapeError as error:
            own = self.ref.type.shape
            given = show(value.shape)
            error.what = f"variable '{self.ref.name}' is {show(own)}, the value is {given}"
            error.expected = f"a value of shape {show(own)}"
            error.hint = self._shape_hint(value)
            error.located("variable created at", self.ref.source)
            raise

    def _shape_hint(self, value: TensorType) -> str | None:
        own, given = self.ref.type.shape or (), value.shape or ()
        if given == tuple(reversed(own)):
            return "did you mean to transpose the value (tf.transpose)?"
        if not given:
            return "to set every element use tf.fill(tf.shape(variable), value)"
        if len(given) == len(own) + 1 and given[1:] == own:
            return "the value has one more leading axis: reduce it (tf.reduce_mean(value, 0)) first"
        return None


def _sample_ref(*shape: int, dtype: Any = "float32") -> VariableRef:
    return VariableRef("v", TensorType(dtype, shape))


@dataclass(frozen=True)
class VariableRead(StateOp):
    """y = the variable's value as this node sees it.    Gradient: none (it has no inputs)"""

    effect = Effect.READ
    not_differentiable = "it has no inputs"

    def infer(self) -> TensorType:
        return self.ref.type

    def functionalize(self, state: Any) -> Value:  # type: ignore[override]
        return state.read(self.ref)  # type: ignore[no-any-return]

    def next_value(self, old: Any) -> Any:  # type: ignore[override]
        return old

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape in ((3, 4), (), (0, 2)):
            yield Sample((), VariableRead(_sample_ref(*shape)))


@dataclass(frozen=True)
class LaterRead(VariableRead):
    """y = the variable's value as this node sees it, for gradients the same as ``first``.

    first: another read of the variable    Gradient: dfirst = dy
    Errors: ShapeError and DTypeError where it is of something else
    """

    not_differentiable = None  # type: ignore[assignment]

    def infer(self, first: TensorType) -> TensorType:  # type: ignore[override]
        self._check_dtype(first)
        self._check_shape(first)
        return self.ref.type

    def functionalize(self, state: Any, first: Value) -> Value:  # type: ignore[override]
        return state.read(self.ref)  # type: ignore[no-any-return]

    def next_value(self, old: Any, first: Any) -> Any:  # type: ignore[override]
        return old

    def vjp(self, dy: Value, y: Value, first: Value) -> tuple[Any, ...]:
        return (dy,)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape in ((3, 4), (), (0, 2)):
            yield Sample((floats(rng, *shape),), LaterRead(_sample_ref(*shape)))

    def bad_samples(self) -> Iterable[Any]:
        yield from _bad_updates(LaterRead)


def read_variable(ref: VariableRef, name: str | None = None) -> Any:
    """The value of a variable. See VariableRead."""
    return emit(VariableRead(ref), name=name)


@dataclass(frozen=True)
class IsVariableInitialized(StateOp):
    """y = whether the variable has a value.    y: bool []"""

    effect = Effect.READ
    not_differentiable = "the result is boolean"

    def infer(self) -> TensorType:
        return TensorType(bool_, ())

    def functionalize(self, state: Any) -> Value:  # type: ignore[override]
        return state.initialized(self.ref)  # type: ignore[no-any-return]

    def next_value(self, old: Any) -> Any:  # type: ignore[override]
        return np.array(old is not None)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        yield Sample((), IsVariableInitialized(_sample_ref(3)))


def is_variable_initialized(ref: VariableRef, name: str | None = None) -> Any:
    """Whether a variable has a value. See IsVariableInitialized."""
    return emit(IsVariableInitialized(ref), name=name)


@dataclass(frozen=True)
class Assign(StateOp):
    """variable = value; y = value.

    value: dtype and shape of the variable (any shape with validate_shape=False)
    Errors: ShapeError and DTypeError when the node is made    Gradient: none, it is a write
    """

    validate_shape: bool = True
    effect = Effect.WRITE
    not_differentiable = "it writes a variable"

    def infer(self, value: TensorType) -> TensorType:
        self._check_dtype(value)
        return value.with_shape(self._check_shape(value)) if self.validate_shape else value

    def functionalize(self, state: Any, value: Value) -> Value:  # type: ignore[override]
        if self.validate_shape and value.type != self.ref.type:
            value = emit(AssignedValue(self.ref), value)  # known to fit only in a run
        state.write(self.ref, value)
        return value

    def next_value(self, old: Any, value: Any) -> Any:  # type: ignore[override]
        return np.asarray(value)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape in ((3, 4), (), (0, 2)):
            yield Sample((floats(rng, *shape),), Assign(_sample_ref(*shape)))

    def bad_samples(self) -> Iterable[Any]:
        yield from _bad_updates(Assign)


@dataclass(frozen=True)
class AssignedValue(Op):
    """y = value, whose shape must turn out to be the variable's.    Gradient: dvalue = dy

    Errors: ShapeError when the shapes of a run are known
    """

    ref: VariableRef

    def infer(self, value: TensorType) -> TensorType:  # type: ignore[override]
        return Assign(self.ref).infer(value)

    def reference(self, value: Any) -> Any:  # type: ignore[override]
        return value

    def decompose(self, value: Value) -> Value:  # type: ignore[override]
        return value

    def vjp(self, dy: Value, y: Value, value: Value) -> tuple[Any, ...]:  # type: ignore[override]
        return (dy,)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        yield Sample((floats(rng, 3, 4),), AssignedValue(_sample_ref(3, 4)))

    def bad_samples(self) -> Iterable[Any]:
        yield from _bad_updates(AssignedValue)


def _bad_updates(op: Any) -> Iterable[Any]:
    ref = _sample_ref(2, 3)
    yield Sample((np.zeros((3, 2), np.float32),), op(ref)), ShapeError
    yield Sample((np.zeros((2, 3), np.float64),), op(ref)), DTypeError


def assign(
    ref: VariableRef, value: Any, validate_shape: bool = True, name: str | None = None
) -> Any:
    """Give a variable a new value. See Assign."""
    return emit(Assign(ref, validate_shape), _of_ref(ref, value), name=name)


def _of_ref(ref: VariableRef, value: Any) -> Any:
    """A literal takes the variable's dtype."""
    if isinstance(value, Value) or hasattr(value, "as_value"):
        return value
    from tinyflow.ops.base import to_value

    return to_value(value, ref.type.dtype)


@dataclass(frozen=True)
class Update(StateOp, abstract=True):
    """variable = old (op) value; y = the new value. The shapes are equal: no broadcasting."""

    effect = Effect.WRITE
    not_differentiable = "it writes a variable"
    #: the NumPy function of (old, value)
    function: ClassVar[Any] = None

    def infer(self, value: TensorType) -> TensorType:
        self._check_dtype(value)
        value.require_number()
        return value.with_shape(self._check_shape(value))

    def combine(self, old: Value, value: Value) -> Value:
        raise NotImplementedError(f"{self.type_name}.combine")

    def functionalize(self, state: Any, value: Value) -> Value:  # type: ignore[override]
        new = self.combine(state.read(self.ref), value)
        state.write(self.ref, new)
        return new

    def next_value(self, old: Any, value: Any) -> Any:  # type: ignore[override]
        return np.asarray(type(self).function(old, value))

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape in ((3, 4), (), (0, 2), (1, 19)):
            yield Sample((floats(rng, *shape),), type(self)(_sample_ref(*shape)))
        yield Sample((np.array([1, 2], np.int64),), type(self)(_sample_ref(2, dtype="int64")))

    def bad_samples(self) -> Iterable[Any]:
        yield from _bad_updates(type(self))


@dataclass(frozen=True)
class AssignAdd(Update):
    """variable = old + value; y = the new value.

    value: dtype and shape of the variable    Errors: ShapeError, DTypeError when the node is made
    """

    function = np.add

    def combine(self, old: Value, value: Value) -> Value:
        from tinyflow.ops.elementwise import add

        return add(old, value)  # type: ignore[no-any-return]


def assign_add(ref: VariableRef, value: Any, name: str | None = None) -> Any:
    """Add to a variable. See AssignAdd."""
    return emit(AssignAdd(ref), _of_ref(ref, value), name=name)


@dataclass(frozen=True)
class AssignSub(Update):
    """variable = old - value; y = the new value.

    value: dtype and shape of the variable    Errors: ShapeError, DTypeError when the node is made
    """

    function = np.subtract

    def combine(self, old: Value, value: Value) -> Value:
        from tinyflow.ops.elementwise import subtract

        return subtract(old, value)  # type: ignore[no-any-return]


def assign_sub(ref: VariableRef, value: Any, name: str | None = None) -> Any:
    """Subtract from a variable. See AssignSub."""
    return emit(AssignSub(ref), _of_ref(ref, value), name=name)


@dataclass(frozen=True)
class ScatterWrite(StateOp, abstract=True):
    """variable[indices[i]] = combine(old, updates[i]) for every i in order; y = the new value.

    indices: integer[i...]    updates: dtype of the variable, [i..., rest of the variable's shape]
    Errors: ShapeError, DTypeError; InvalidArgumentError at run time for an index out of range
    """

    effect = Effect.WRITE
    not_differentiable = "it writes a variable"
    same_dtype = False
    kind: ClassVar[str] = "update"

    def infer(self, indices: TensorType, updates: TensorType) -> TensorType:
        self._check_dtype(updates)
        return TensorScatter(self.kind).infer(self.ref.type, indices, updates)

    def functionalize(self, state: Any, indices: Value, updates: Value) -> Value:  # type: ignore[override]
        new: Value = emit(TensorScatter(self.kind), state.read(self.ref), indices, updates)
        state.write(self.ref, new)
        return new

    def next_value(self, old: Any, indices: Any, updates: Any) -> Any:  # type: ignore[override]
        return TensorScatter(self.kind).reference(old, indices, updates)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, count in (((5, 3), 3), ((4,), 2)):
            indices = rng.permutation(shape[0])[:count].astype(np.int32)
            updates = rng.uniform(0.5, 2.0, (count, *shape[1:])).astype(np.float32)
            yield Sample((indices, updates), type(self)(_sample_ref(*shape)), scale=4.0)

    def bad_samples(self) -> Iterable[Any]:
        op, rows = type(self)(_sample_ref(5, 3)), np.zeros(2, np.int32)
        yield Sample((rows, np.zeros((2, 2), np.float32)), op), ShapeError
        yield Sample((rows, np.zeros((2, 3), np.float64)), op), DTypeError
        yield Sample((rows.astype(np.float32), np.zeros((2, 3), np.float32)), op), DTypeError


#: kind of TensorScatter -> (TensorFlow's name of the op, what it does to each row)
_SCATTER_TABLE = {
    "update": ("ScatterUpdate", "= updates"),
    "add": ("ScatterAdd", "+= updates"),
    "sub": ("ScatterSub", "-= updates"),
    "mul": ("ScatterMul", "*= updates"),
    "div": ("ScatterDiv", "/= updates, floats only"),
    "min": ("ScatterMin", "= min(variable[indices], updates)"),
    "max": ("ScatterMax", "= max(variable[indices], updates)"),
}


def _scatter_class(kind: str, name: str, action: str) -> type[ScatterWrite]:
    parts = {
        "kind": kind,
        "__doc__": f"variable[indices] {action}. See ScatterWrite.",
        "__module__": __name__,
    }
    return dataclass(frozen=True)(type(name, (ScatterWrite,), parts))


SCATTERS: dict[str, type[ScatterWrite]] = {
    kind: _scatter_class(kind, *row) for kind, row in _SCATTER_TABLE.items()
}


def scatter(
    kind: str, ref: VariableRef, indices: Any, updates: Any, name: str | None = None
) -> Any:
    """Combine rows of a variable with updates; kind as in TensorScatter. See ScatterWrite."""
    if kind not in SCATTERS:
        raise InvalidArgumentError(f"scatter: unknown kind {kind!r}", choices=tuple(SCATTERS))
    return emit(SCATTERS[kind](ref), indices, _of_ref(ref, updates), name=name)


@dataclass(frozen=True)
class NextCount(Op):
    """y = x + 1, after making sure that x < limit.    Runs in Python: the end is an exception.

    x: integer []    y: same type    Errors: OutOfRangeError at run time when x >= limit
    """

    limit: int
    effect = Effect.HOST
    runs_on_host: ClassVar[bool] = True
    not_differentiable = "it counts"

    def infer(self, x: TensorType) -> TensorType:
        return x.require_integer().require_rank(0)

    def reference(self, x: Any) -> Any:
        if int(x) >= self.limit:
            raise OutOfRangeError(f"Reached limit of {self.limit}")
        return np.asarray(x) + np.asarray(x).dtype.type(1)

    def call_host(self, x: Any) -> tuple[Any, ...]:
        return (np.asarray(self.reference(x)),)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        yield Sample((np.int32(3),), NextCount(5))
        yield Sample((np.int64(0),), NextCount(1))

    def bad_samples(self) -> Iterable[Any]:
        yield Sample((np.float32(3),), NextCount(5)), DTypeError
        yield Sample((np.zeros(2, np.int32),), NextCount(5)), ShapeError


@dataclass(frozen=True)
class CountUpTo(StateOp):
    """y = old value; variable = old + 1.    variable: integer []

    Errors: OutOfRangeError at run time when the old value is ``limit``; DTypeError, ShapeError
    """

    limit: int = 0
    effect = Effect.WRITE
    not_differentiable = "it writes a variable"

    def infer(self) -> TensorType:
        return self.ref.type.require_integer().require_rank(0)

    def functionalize(self, state: Any) -> Value:  # type: ignore[override]
        old: Value = state.read(self.ref)
        state.write(self.ref, emit(NextCount(self.limit), old))
        return old

    def next_value(self, old: Any) -> Any:  # type: ignore[override]
        return NextCount(self.limit).reference(old)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        yield Sample((), CountUpTo(_sample_ref(dtype="int32"), 7))

    def bad_samples(self) -> Iterable[Any]:
        yield Sample((), CountUpTo(_sample_ref(dtype="float32"), 7)), DTypeError
        yield Sample((), CountUpTo(_sample_ref(2, dtype="int32"), 7)), ShapeError


def count_up_to(ref: VariableRef, limit: int, name: str | None = None) -> Any:
    """The value, which then grows by one until ``limit``. See CountUpTo."""
    return emit(CountUpTo(ref, int(limit)), name=name)
