"""Sizes that only the run tells: the positions of true elements, and what follows from them.

Main types: ``CountedExtent``, ``TruePositions``. May import ops.base, host and arithmetic families.

The number of results is computed by a kernel; a host call turns it into the *shape* of an empty
tensor, so that everything behind it is compiled for shapes, as always. Results themselves never
pass through Python.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tinyflow import te
from tinyflow.core.dtype import bool_, int8, int64
from tinyflow.core.error import DTypeError, InvalidArgumentError, ShapeError, Unsupported
from tinyflow.core.shape import opaque
from tinyflow.ir.graph.visit import result_values
from tinyflow.ir.loop.nodes import Alloc, Buffer, If, Stmt, Store
from tinyflow.ir.scalar import nodes as scalar
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ops.base import Op, Sample, TensorType, Value, emit
from tinyflow.ops.comparison import equal, not_equal
from tinyflow.ops.convert import cast
from tinyflow.ops.host import HostOp
from tinyflow.ops.indexing import gather
from tinyflow.ops.loop_nests import counter, nest
from tinyflow.ops.reduction import reduce_sum
from tinyflow.ops.shape import shape_expression

__all__ = [
    "CountedExtent", "ToldNumbers", "ToldShape", "TruePositions", "counted", "extent_of",
    "numbers_of", "told_numbers", "true_positions",
]  # fmt: skip


@dataclass(frozen=True)
class CountedExtent(HostOp):
    """y = an empty tensor whose extent is the value of ``count``; its elements do not matter.

    count: integer []    y: int8[count]    Runs in Python: what follows is compiled for its shape.
    Errors: DTypeError, ShapeError
    """

    #: what follows can be compiled only when this has run (see compile/staged.py)
    tells_shapes: ClassVar[bool] = True
    not_differentiable = "a size has no gradient"

    def infer(self, count: TensorType) -> TensorType:
        count.require_integer().require_rank(0)
        return TensorType(int8, (opaque("counted"),))

    def call_host(self, count: Any) -> tuple[Any, ...]:
        return (np.zeros(max(int(count), 0), np.int8),)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        return ()  # its type follows from a value: sums over masks in tests use it

    def bad_samples(self) -> Iterable[Any]:
        yield (np.float32(3),), DTypeError
        yield (np.zeros(2, np.int32),), ShapeError


@dataclass(frozen=True)
class ToldNumbers(HostOp):
    """y_i = an empty tensor whose extent is x_i + 1; its elements do not matter.

    x: integer [], each at least -1    y: int8[x_i + 1]    Runs in Python, as CountedExtent does.
    Errors: InvalidArgumentError for a number below -1; DTypeError, ShapeError
    """

    tells_shapes: ClassVar[bool] = True
    not_differentiable = "a size has no gradient"

    def infer(self, *x: TensorType) -> tuple[TensorType, ...]:
        for one in x:
            one.require_integer().require_rank(0)
        return tuple([TensorType(int8, (opaque(f"told{n}"),)) for n in range(len(x))])

    def call_host(self, *x: Any) -> tuple[Any, ...]:
        numbers = [int(one) for one in x]
        if min(numbers, default=0) < -1:
            raise InvalidArgumentError(
                f"a computed shape is {numbers}", expected="extents of 0 or more"
            )
        return tuple([np.zeros(n + 1, np.int8) for n in numbers])

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        return ()  # its types follow from values; computed shapes in tests use it

    def bad_samples(self) -> Iterable[Any]:
        yield (np.float32(3),), DTypeError
        yield (np.zeros(2, np.int32),), ShapeError


@dataclass(frozen=True)
class ToldShape(HostOp):
    """y = a tensor whose extents are x + 1; its elements do not matter.

    x: integer[n], each at least -1    y: int8[x + 1]    As ToldNumbers, for n that a run tells.
    Errors: InvalidArgumentError for a number below -1; DTypeError, ShapeError
    """

    tells_shapes: ClassVar[bool] = True
    not_differentiable = "a size has no gradient"

    def infer(self, x: TensorType) -> TensorType:
        x.require_integer().require_rank(1)
        return TensorType(int8, None)

    def call_host(self, x: Any) -> tuple[Any, ...]:
        ToldNumbers().call_host(*x[x < -1])  # its error
        return (np.empty(tuple(x.astype(int) + 1), np.int8),)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        return ()  # its type follows from values; computed shapes in tests use it

    def bad_samples(self) -> Iterable[Any]:
        yield (np.zeros(2, np.float32),), DTypeError
        yield (np.int32(3),), ShapeError


@dataclass(frozen=True)
class TruePositions(Op):
    """y = the positions of the true elements of x, ascending.

    x: bool[n]    like: any[count], read for its shape only    y: int64[count]
    Errors: ShapeError, DTypeError
    """

    same_dtype = False
    not_differentiable = "the result is a position"

    def infer(self, x: TensorType, like: TensorType) -> TensorType:
        x.require_bool().require_rank(1)
        like.require_rank(1)
        return TensorType(int64, like.shape)

    def reference(self, x: Any, like: Any) -> Any:
        return np.flatnonzero(x)[: np.shape(like)[0]].astype(np.int64)

    def lower_loops(
        self, inputs: tuple[Buffer, ...], outputs: tuple[Buffer, ...]
    ) -> tuple[Stmt, ...]:
        x, _ = inputs
        (y,) = outputs
        found, zero = counter("found"), te.index(0)
        if y.shape[0] == 0:
            return ()

        def one(axes: tuple[Expr, ...]) -> tuple[Stmt, ...]:
            known = scalar.load(found, zero)
            fits = known < te.as_index(y.shape[0])
            store = Store(y, (known,), axes[0]), Store(found, (zero,), known + 1)
            return (If(scalar.load(x, *axes), (If(fits, store),)),)

        return (Alloc(found, (Store(found, (zero,), zero), *nest(x.shape, "i", one))),)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for n in (9, 70, 1, 0):
            x = rng.integers(0, 2, n).astype(bool)
            yield Sample((x, np.zeros(int(x.sum()), np.int8)))

    def bad_samples(self) -> Iterable[Any]:
        yield (np.zeros((2, 2), bool), np.zeros(3, np.int8)), ShapeError
        yield (np.zeros(2, np.int32), np.zeros(3, np.int8)), DTypeError


def counted(count: Any) -> Value:
    """An empty tensor of ``count`` elements; its shape is what is wanted."""
    return emit(CountedExtent(), count)  # type: ignore[no-any-return]


def extent_of(count: Any) -> Any:
    """An integer of the graph as an extent for shapes: itself when it is known already."""
    from tinyflow.ops.creation import constant_value
    from tinyflow.ops.shape import shape as shape_of

    if not isinstance(count, Value):
        return count
    known = constant_value(count)
    return int(known) if known is not None else shape_of(counted(count))[0]


def told_numbers(x: Value) -> Value:
    """The same integers, of which Python tells those that are computed from data: what follows is
    compiled for them as for shapes.
    """
    from tinyflow.ops.joining import stack
    from tinyflow.ops.movement import reshape
    from tinyflow.ops.shape import shape as shape_of

    if not x.type.is_static:
        if x.type.rank != 1:
            raise Unsupported("a computed shape or list of axes of unknown rank",
                              received={"it": x.type}, expected="a vector")  # fmt: skip
        return shape_of(emit(ToldShape(), x), x.dtype) - 1  # type: ignore[no-any-return]
    pieces = numbers_of(x)
    asked = [p for p in pieces if shape_expression(p) is None]
    told = dict(zip(asked, result_values(emit(ToldNumbers(), *asked)), strict=True))
    known = [shape_of(told[p], x.dtype)[0] - 1 if p in told else p for p in pieces]
    return reshape(stack(known), x.type.shape) if known else x  # type: ignore[no-any-return]


def numbers_of(x: Value) -> list[Value]:
    """The elements of a small integer tensor, row-major, looked up where they were packed."""
    from tinyflow.ops.creation import constant
    from tinyflow.ops.movement import reshape

    node, type_ = x.node, x.type
    name = node.op.type_name
    if not type_.shape:
        return [x]
    if name == "Constant":
        return [constant(n, x.dtype) for n in np.asarray(node.op.reference()).ravel()]
    if name == "Pack" and node.op.axis == 0:  # type: ignore[attr-defined]
        return [piece for v in node.inputs for piece in numbers_of(v)]
    if name == "ConcatV2" and len(type_.shape) == 1:
        return [piece for v in node.inputs for piece in numbers_of(v)]
    if name in ("Identity", "Reshape", "ExpandDims", "Squeeze"):
        return numbers_of(node.inputs[0])
    flat = reshape(x, (-1,))
    return [flat[n] for n in range(type_.size)]


def true_positions(mask: Any) -> Any:
    """Positions of the true (or non-zero) elements of a vector."""
    hit = mask if mask.dtype is bool_ else not_equal(mask, 0)
    return emit(TruePositions(), hit, counted(reduce_sum(cast(hit, int64))))


def where_true(x: Any, name: str | None = None) -> Any:
    """int64[count, rank]: the index of every true (or non-zero) element, in row-major order."""
    from tinyflow.ops.joining import stack
    from tinyflow.ops.movement import reshape
    from tinyflow.ops.shape import shape as shape_of

    flat = true_positions(reshape(x, (-1,)))
    rank = x.type.rank
    if rank is None or rank == 0:
        raise ShapeError("where: needs a condition of known rank 1 or more",
                         received={"condition": x.type})  # fmt: skip
    extents = [d if type(d) is int else cast(shape_of(x)[n], int64)
               for n, d in enumerate(x.type.shape)]  # fmt: skip
    columns: list[Any] = []
    for extent in reversed(extents[1:]):
        columns.append(flat % extent)
        flat = flat // extent
    return stack([flat, *reversed(columns)], 1, name=name)


def unique(x: Any) -> tuple[Any, Any, Any]:
    """(values in order of first appearance, position of each element's value, how often each)."""
    from tinyflow.ops.base import to_value
    from tinyflow.ops.creation import ones_like
    from tinyflow.ops.cumulative import cumsum
    from tinyflow.ops.indexing import unsorted_segment_sum
    from tinyflow.ops.segment import first_of_equal
    from tinyflow.ops.sequence import arange
    from tinyflow.ops.shape import shape as shape_of

    x = to_value(x)
    first = first_of_equal(x)
    is_first = equal(first, arange(0, shape_of(x)[0]))
    number = cumsum(cast(is_first, first.dtype)) - 1
    inverse = gather(number, first)
    positions = true_positions(is_first)
    counts = unsorted_segment_sum(ones_like(inverse), inverse, shape_of(positions)[0])
    return gather(x, positions), inverse, counts

