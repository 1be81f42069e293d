"""Ops that run in Python between native segments: user functions, printing, assertions.

Main types: ``PyFunc``, ``Print``, ``Assert``. May import ops.base. The runtime calls
``call_host(*arrays) -> tuple of arrays``; arrays are the runtime's own and must not be kept.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from tinyflow.core.dtype import as_dtype, float32, int32
from tinyflow.core.error import DTypeError, InvalidArgumentError, ShapeError
from tinyflow.core.shape import merge_shapes
from tinyflow.ops.base import Effect, Op, Sample, TensorType, Value, emit, floats


@dataclass(frozen=True)
class HostOp(Op, abstract=True):
    """Runs in Python; never merged, moved or dropped once needed."""

    effect = Effect.HOST
    same_dtype = False
    runs_on_host: ClassVar[bool] = True

    def call_host(self, *arrays: Any) -> tuple[Any, ...]:
        """The results for these inputs."""
        raise NotImplementedError(f"{self.type_name}.call_host")

    def reference(self, *arrays: Any) -> Any:
        results = self.call_host(*map(np.asarray, arrays))
        return results[0] if len(results) == 1 else results


@dataclass(frozen=True)
class PyFunc(HostOp):
    """y_0, y_1, ... = function(x_0, x_1, ...), a Python function of NumPy arrays.

    types: of the results; the shapes may be partial or unknown
    Errors: DTypeError, ShapeError or InvalidArgumentError at run time when the function returns
    something else; its own exceptions pass through     Gradient: none
    """

    function: Callable[..., Any]
    types: tuple[TensorType, ...]
    not_differentiable = "a Python function has no gradient; use stop_gradient or built-in ops"

    def infer(self, *inputs: TensorType) -> Any:
        return self.types

    def call_host(self, *arrays: Any) -> tuple[Any, ...]:
        returned = self.function(*arrays)
        if returned is None:
            results: tuple[Any, ...] = ()
        else:
            results = tuple(returned) if isinstance(returned, (tuple, list)) else (returned,)
        if len(results) != len(self.types):
            raise InvalidArgumentError(
                f"PyFunc: {self._name} returned {len(results)} values",
                expected=f"{len(self.types)}, one per entry of Tout",
            )
        return tuple(
            self._converted(i, result, type_)
            for i, (result, type_) in enumerate(zip(results, self.types, strict=True))
        )

    @property
    def _name(self) -> str:
        return getattr(self.function, "__name__", "the function")

    def _converted(self, i: int, result: Any, type_: TensorType) -> np.ndarray:
        array = np.asarray(result)
        if type(result) in (bool, int, float):  # Python's numbers have no width of their own
            array = array.astype(type_.dtype.numpy)
        if array.dtype != type_.dtype.numpy:
            raise DTypeError(
                f"PyFunc: value {i} returned by {self._name} is {array.dtype}",
                expected=f"{type_.dtype}, as Tout says",
                hint=f"return it with .astype(np.{type_.dtype})",
            )
        try:
            merge_shapes(array.shape, type_.shape)
        except ShapeError as error:
            error.what = f"PyFunc: value {i} returned by {self._name}: {error.what}"
            raise
        return np.ascontiguousarray(array).reshape(array.shape)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        one = TensorType(float32, (3, 4))
        yield Sample((floats(rng, 3, 4),), PyFunc(_twice, (one,)))
        two = one, TensorType(int32, (2,))
        yield Sample((floats(rng, 3, 4),), PyFunc(_twice_and_shape, two))

    def bad_samples(self) -> Iterable[Any]:
        return ()  # any inputs will do; what the function returns is known at run time


def _twice(x: Any) -> Any:
    return x * x.dtype.type(2)


def _twice_and_shape(x: Any) -> Any:
    return _twice(x), np.array(x.shape, np.int32)


def py_func(
    func: Callable[..., Any], inp: Any, Tout: Any, stateful: bool = True, name: str | None = None
) -> Any:
    """A Python function of arrays as an op; a value, or a list of values if Tout is a list.

    A function that is not stateful is called as often as one that is. See PyFunc.
    """
    listed = isinstance(Tout, (list, tuple))
    types = tuple(
        t if isinstance(t, TensorType) else TensorType(as_dtype(t), None)
        for t in (Tout if listed else [Tout])
    )
    results = emit(PyFunc(func, types), *inp, name=name)
    if not listed:
        return results
    return [results] if isinstance(results, Value) else list(results)


class PrintCount:
    """How often a ``Print`` has run; part of the op, so that it outlives graph rewriting."""

    def __init__(self) -> None:
        self.value = 0


@dataclass(frozen=True)
class Print(HostOp):
    """y = x, after writing ``message`` and the first elements of each value to stderr.

    x, values: any[...]    y: type of x    first_n: how many times to write, -1 for always
    summarize: elements per value, -1 for all    Gradient: dx = dy
    """

    message: str = ""
    first_n: int = -1
    summarize: int = 3
    count: PrintCount = field(default_factory=PrintCount, compare=False, repr=False)

    def infer(self, x: TensorType, *values: TensorType) -> TensorType:
        return x

    def call_host(self, x: Any, *values: Any) -> tuple[Any, ...]:
        self.count.value += 1
        if self.first_n < 0 or self.count.value <= self.first_n:
            shown = "".join(f"[{summary(v, self.summarize)}]" for v in values)
            print(f"{self.message}{shown}", file=sys.stderr, flush=True)
        return (np.asarray(x),)

    def vjp(self, dy: Value, y: Value, x: Value, *values: Value) -> tuple[Any, ...]:
        return (dy, *[None] * len(values))

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        yield Sample((floats(rng, 3, 4), np.arange(5)), Print("sample ", 0), check_gradient=False)


def _text(element: Any) -> str:
    """As TensorFlow prints it: six digits of a float, 0 and 1 for booleans."""
    return f"{element:g}" if isinstance(element, float) else str(int(element))


def summary(array: Any, limit: int = 3) -> str:
    """The first ``limit`` elements, row-major, rows in brackets: ``[1 2][3...``."""
    array = np.asarray(array)
    if array.ndim == 0:
        return _text(array.item())
    left = array.size if limit < 0 else limit
    parts: list[str] = []

    def rows(part: Any) -> None:
        nonlocal left
        if part.ndim == 1:
            shown = part[:left].tolist()
            cut = "..." if len(shown) < len(part) else ""
            parts.append(" ".join(map(_text, shown)) + cut)
            left -= len(shown)
            return
        for row in part:
            if left <= 0:
                parts.append("...")
                return
            parts.append("[")
            rows(row)
            parts.append("]")

    rows(array)
    return "".join(parts)


def print_(
    input_: Any, values: Any, message: str | None = None, first_n: int | None = None,
    summarize: int | None = None, name: str | None = None,
) -> Any:  # fmt: skip
    """``input_``, printing ``values`` whenever it is computed (``tf.Print``). See Print."""
    op = Print(
        message or "", -1 if first_n is None else first_n, 3 if summarize is None else summarize
    )
    return emit(op, input_, *values, name=name)


@dataclass(frozen=True)
class Assert(HostOp):
    """y = condition; an error with the values of ``data`` when it is false.

    condition: bool []    data: any[...]    y: bool []    summarize: elements shown per value
    Errors: InvalidArgumentError at run time; DTypeError, ShapeError
    """

    summarize: int = 3
    not_differentiable = "the result is boolean"

    def infer(self, condition: TensorType, *values: TensorType) -> TensorType:
        return condition.require_bool().require_rank(0)

    def call_host(self, condition: Any, *values: Any) -> tuple[Any, ...]:
        if not bool(condition):
            shown = " ".join(f"[{summary(v, self.summarize)}]" for v in values)
            raise InvalidArgumentError(f"assertion failed: {shown}".rstrip())
        return (np.asarray(condition),)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        yield Sample((np.array(True), np.arange(5)), Assert())

    def bad_samples(self) -> Iterable[Any]:
        yield (np.float32(1), np.arange(5)), DTypeError
        yield (np.array([True, False]), np.arange(5)), ShapeError


def assert_(
    condition: Any, data: Any, summarize: int | None = None, name: str | None = None
) -> Any:
    """An error at run time unless the condition holds (``tf.Assert``). See Assert."""
    op = Assert(3 if summarize is None else summarize)
    return emit(op, condition, *data, name=name)
