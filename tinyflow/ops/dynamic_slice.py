"""Slices whose bounds only a run knows: ``x[i : i + 3]`` with i computed in the graph.

Main types: ``DynamicSlice``, ``PlaceSlice``, ``SliceAdd``. Main functions: ``computed_slice``,
``told_slice``, ``placed_slice``. May import core, ir, te, ops.base, indexing, padding,
tensor_array, counted.

Where the end follows the begin at a constant distance, the extent is known and a slice is one
kernel, in loops too - as long as it lies inside the tensor (``assumes_inside``). A run in which it
does not makes the step be compiled again, with slices whose extent Python tells, as it does for
every computed size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tinyflow import te
from tinyflow.core.error import DTypeError, InvalidArgumentError, ShapeError
from tinyflow.core.shape import Dim
from tinyflow.ir.graph.nodes import Node
from tinyflow.ir.loop.nodes import Body, Buffer, Store
from tinyflow.ir.scalar import nodes as scalar
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ops.base import Extents, Op, Sample, TensorType, Value, emit, emit_shaped, floats
from tinyflow.ops.indexing import checked_position
from tinyflow.ops.padding import inside_all, zeros_if_empty
from tinyflow.ops.tensor_array import ArrayWrite, each

#: what a negative begin means: an error, an element from the end, a range that ends before the end
#: (and which Python would cut short if it left the tensor)
NEVER, FROM_END, RANGE = "never", "from_end", "range"


@dataclass(frozen=True)
class DynamicSlice(Op):
    """y = x[begin_a : begin_a + size_a * step_a : step_a] along each axis a of ``axes``.

    x: any[...]    begin: integer[len(axes)]    y: dtype of x, extents ``size`` along ``axes``
    negative: per axis, what a negative begin means (see above)
    Gradient: dx = zeros with dy there
    Errors: InvalidArgumentError at run time for a slice that leaves x, ShorterSlice where it may;
    ShapeError, DTypeError
    """

    axes: tuple[int, ...]
    size: Extents
    steps: tuple[int, ...] = ()
    negative: tuple[str, ...] = ()
    same_dtype = False

    @property
    def assumes_inside(self) -> bool:
        """Whether a place outside is no error but a shorter slice; see the module's header."""
        return RANGE in self.negative

    def infer(self, x: TensorType, begin: TensorType) -> TensorType:
        begin.require_integer().require_rank(1)
        if len(self.size) != len(self.axes):
            raise ShapeError(f"{len(self.size)} sizes for the axes {self.axes}")
        if x.shape is None:
            return x
        shape = list(x.shape)
        for axis, n, step in zip(self.axes, self.size, self._steps, strict=True):
            d = shape[axis]
            if isinstance(n, int) and isinstance(d, int) and not 0 <= _span(n, step) <= d:
                raise ShapeError(f"{n} elements do not fit into axis {axis} of extent {d}")
            shape[axis] = n
        if self.assumes_inside and 0 in shape:
            raise ShapeError("a slice without elements does not tell whether it lies inside")
        return x.with_shape(tuple(shape))

    @property
    def _steps(self) -> tuple[int, ...]:
        return self.steps or (1,) * len(self.axes)

    def _rule(self, k: int) -> str:
        return self.negative[k] if self.negative else NEVER

    def reference(self, x: Any, begin: Any) -> Any:
        index: list[Any] = [slice(None)] * np.ndim(x)
        for k, (axis, n, step) in enumerate(zip(self.axes, self.size, self._steps, strict=True)):
            d, first = np.shape(x)[axis], int(begin[k])
            if first < 0 and self._counts_from_end(k, first + n * step < 0):
                first += d
            last = first + (n - 1) * step
            if n and not (0 <= first < d and 0 <= last < d):
                raise InvalidArgumentError(
                    f"DynamicSlice: {n} elements from {int(begin[k])} leave axis {axis} of {d}"
                )
            index[axis] = first + np.arange(n) * step
        for axis in self.axes:
            x = np.take(x, index[axis], axis)
        return np.array(x)

    def _counts_from_end(self, k: int, ends_before: Any) -> Any:
        rule = self._rule(k)
        return rule == FROM_END or (ends_before if rule == RANGE else False)

    def first(self, begin: te.Tensor, k: int, extent: Any, n: Any) -> Expr:
        """The checked position of the first element along axis number ``k``."""
        return self.position(begin[(k,)], k, extent, n)

    def position(self, begin: Expr, k: int, extent: Any, n: Any) -> Expr:
        """As ``first``, of the begin itself."""
        step, d = self._steps[k], te.as_index(extent)
        at = te.as_index(begin)
        if self._rule(k) != NEVER:
            ends_before = at + te.as_index(n) * step < te.index(0)
            wraps = at < te.index(0)
            if self._rule(k) == RANGE:
                wraps = wraps & ends_before
            at = te.select(wraps, at + d, at)
        reach = (te.as_index(n) - 1) * abs(step)
        low = reach if step < 0 else te.index(0)
        return checked_position(at - low, d - reach) + low

    def compute(self, x: te.Tensor, begin: te.Tensor) -> te.Tensor:
        shape = list(x.shape)
        for axis, n in zip(self.axes, self.size, strict=True):
            shape[axis] = n
        firsts = {
            axis: (self.first(begin, k, x.shape[axis], self.size[k]), self._steps[k])
            for k, axis in enumerate(self.axes)
        }

        def element(*at: Expr) -> Expr:
            return x[
                tuple(
                    firsts[a][0] + i * firsts[a][1] if a in firsts else i
                    for a, i in enumerate(at)
                )
            ]

        return zeros_if_empty(te.compute(shape, element, "dynamic_slice"), x)

    def vjp(self, dy: Value, y: Value, x: Value, begin: Value) -> tuple[Any, ...]:
        from tinyflow.ops.shape import shape

        extents = shape(x)
        place = PlaceSlice((), self.axes, self._steps, self.negative)
        return emit_shaped(place, "extents", extents, dy, begin), None

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, axes, size, steps, begin in (
            ((5, 4), (0,), (2,), (), (3,)), ((5, 4), (0, 1), (1, 4), (), (4, 0)),
            ((2, 7, 3), (1,), (3,), (2,), (1,)), ((6,), (0,), (3,), (-2,), (5,)),
            ((5, 40), (1,), (33,), (), (6,)), ((3, 2), (0,), (0,), (), (3,)),
        ):  # fmt: skip
            op = DynamicSlice(axes, size, steps)
            yield Sample((floats(rng, *shape), np.array(begin, np.int32)), op)
        x = floats(rng, 7, 3)
        for negative, at in ((RANGE, -4), (RANGE, 2), (FROM_END, -2)):
            op = DynamicSlice((0,), (2,), (), (negative,))
            yield Sample((x, np.array([at], np.int64)), op)

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((3, 2), np.float32)
        yield Sample((x, np.zeros(1, np.int32)), DynamicSlice((0,), (4,))), ShapeError
        yield Sample((x, np.zeros(1, np.float32)), DynamicSlice((0,), (2,))), DTypeError


def _span(n: int, step: int) -> int:
    return (n - 1) * abs(step) + 1 if n > 0 else n


@dataclass(frozen=True)
class PlaceSlice(Op):
    """y = zeros of ``extents`` with x where ``DynamicSlice`` (same attributes) reads.

    x: any[...]    begin: integer[len(axes)]    y: dtype of x    Gradient: the slice of dy
    Errors: InvalidArgumentError at run time for a place outside; ShapeError, DTypeError
    """

    extents: Extents
    axes: tuple[int, ...]
    steps: tuple[int, ...]
    negative: tuple[str, ...] = ()
    same_dtype = False
    assumes_inside = DynamicSlice.assumes_inside

    def infer(self, x: TensorType, begin: TensorType) -> TensorType:
        begin.require_integer().require_rank(1)
        x.require_rank(len(self.extents))
        if x.shape is not None:
            for axis, (n, d) in enumerate(zip(x.shape, self.extents, strict=True)):
                known = isinstance(n, int) and isinstance(d, int)
                if known and (n > d if axis in self.axes else n != d):  # type: ignore[operator]
                    raise ShapeError(f"{n} elements along axis {axis} of extent {d}")
        return x.with_shape(self.extents)

    def slice_of(self, shape: Sequence[Any]) -> DynamicSlice:
        """The slice that reads what this places, of an x of this shape."""
        size = tuple(shape[a] for a in self.axes)
        return DynamicSlice(self.axes, size, self.steps, self.negative)

    def reference(self, x: Any, begin: Any) -> Any:
        y = np.zeros(self.extents, np.asarray(x).dtype)  # type: ignore[arg-type]
        positions = np.arange(y.size).reshape(y.shape)
        y.reshape(-1)[self.slice_of(np.shape(x)).reference(positions, begin)] = x
        return y

    def compute(self, x: te.Tensor, begin: te.Tensor) -> te.Tensor:
        whole = self.slice_of(x.shape)
        firsts = {
            axis: (whole.first(begin, k, self.extents[axis], x.shape[axis]), self.steps[k])
            for k, axis in enumerate(self.axes)
        }

        def element(*at: Expr) -> Expr:
            conditions, indices = [], []
            for axis, i in enumerate(at):
                if axis in firsts:
                    first, step = firsts[axis]
                    offset = i - first if step > 0 else first - i
                    i = offset if abs(step) == 1 else offset // abs(step)
                    conditions += [te.index(0) <= offset, i < te.as_index(x.shape[axis])]
                    if abs(step) > 1:
                        conditions.append((offset % abs(step)).equal(0))
                indices.append(i)
            return te.select(inside_all(conditions), x[tuple(indices)], 0)

        return zeros_if_empty(te.compute(self.extents, element, "place_slice"), x)

    def vjp(self, dy: Value, y: Value, x: Value, begin: Value) -> tuple[Any, ...]:
        from tinyflow.ops.shape import shape

        whole = self.slice_of((0,) * (max(self.axes, default=-1) + 1))
        sizes = [shape(x)[a] for a in self.axes]
        return emit_shaped(whole, "size", sizes, dy, begin), None

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for inner, outer, axes, steps, begin in (
            ((2, 4), (5, 4), (0,), (1,), (3,)), ((3, 2), (7, 6), (0, 1), (2, -1), (1, 4)),
            ((2, 33), (2, 40), (1,), (1,), (5,)), ((0, 2), (3, 2), (0,), (1,), (1,)),
        ):  # fmt: skip
            op = PlaceSlice(outer, axes, steps)
            yield Sample((floats(rng, *inner), np.array(begin, np.int32)), op)

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((3, 2), np.float32)
        op = PlaceSlice((2, 2), (0,), (1,))
        yield Sample((x, np.zeros(1, np.int32)), op), ShapeError
        yield Sample((x, np.zeros(1, np.float32)), PlaceSlice((5, 2), (0,), (1,))), DTypeError


@dataclass(frozen=True)
class SliceAdd(ArrayWrite):
    """y = array, with piece added where ``DynamicSlice`` (same attributes) reads; in its memory.

    array: number[...]    begin: integer[len(axes)]    piece: extents of the slice    y: as array
    Gradient: of array dy, of piece the slice of dy
    Errors: InvalidArgumentError at run time for a place outside; ShapeError, DTypeError
    """

    axes: tuple[int, ...] = (0,)
    steps: tuple[int, ...] = (1,)
    negative: tuple[str, ...] = ()
    assumes_inside = DynamicSlice.assumes_inside

    def infer(self, array: TensorType, begin: TensorType, piece: TensorType) -> TensorType:
        if array.dtype is not piece.dtype:
            raise DTypeError(f"the array holds {array.dtype}, the piece {piece.dtype}")
        array.require_number()
        self._place(array.shape or ()).infer(piece, begin)
        return array

    def _place(self, extents: Any) -> PlaceSlice:
        return PlaceSlice(tuple(extents), self.axes, self.steps, self.negative)

    def reference(self, array: Any, begin: Any, piece: Any) -> Any:
        return array + self._place(np.shape(array)).reference(piece, begin)

    def lower_loops(self, inputs: tuple[Buffer, ...], outputs: tuple[Buffer, ...]) -> Body:
        _, begin, piece = inputs
        (y,) = outputs
        whole = self._place(y.shape).slice_of(piece.shape)
        firsts = {
            axis: whole.position(
                scalar.load(begin, te.index(k)), k, y.shape[axis], piece.shape[axis]
            )
            for k, axis in enumerate(self.axes)
        }

        def add(*at: Expr) -> Body:
            places = [
                firsts[a] + i * self.steps[self.axes.index(a)] if a in firsts else i
                for a, i in enumerate(at)
            ]
            return (Store(y, tuple(places), scalar.load(y, *places) + scalar.load(piece, *at)),)

        return each(piece.shape, add)

    def vjp(self, dy: Value, y: Value, *inputs: Value) -> tuple[Any, ...]:
        _, begin, piece = inputs
        return dy, None, self._place(y.type.shape).vjp(dy, y, piece, begin)[0]

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for inner, outer, axes, steps, begin in (
            ((2, 4), (5, 4), (0,), (1,), (3,)), ((3, 2), (7, 6), (0, 1), (2, 1), (1, 4)),
            ((2, 33), (2, 40), (1,), (1,), (5,)),
        ):  # fmt: skip
            arrays = floats(rng, *outer), np.array(begin, np.int32), floats(rng, *inner)
            yield Sample(arrays, SliceAdd(True, axes, steps))

    def bad_samples(self) -> Iterable[Any]:
        x, at, piece = np.zeros((3, 2), np.float32), np.zeros(1, np.int32), np.zeros((4, 2))
        yield Sample((x, at, piece.astype(np.float32)), SliceAdd(True)), ShapeError
        yield Sample((x, at, piece), SliceAdd(True)), DTypeError


# ---- from the bounds of a slice -----------------------------------------------------------------


class Cut(NamedTuple):
    """One axis of x in a slice: first element and number of elements, ints or scalars.

    count None: only a run tells it.   shrinks: a position, whose axis disappears.
    """

    axis: int
    first: Any
    count: Any
    step: int = 1
    negative: str = NEVER
    shrinks: bool = False


def constant_difference(end: Any, begin: Any) -> int | None:
    """``end - begin`` where it is the same in every run: ``i + 3`` and ``i``."""
    a, b = _linear(end), _linear(begin)
    for atom, factor in b.items():
        a[atom] = a.get(atom, 0) - factor
    constant = a.pop(None, 0)
    return None if any(a.values()) else constant


def _linear(value: Any, depth: int = 32) -> dict[Any, int]:
    """An integer as a sum of multiples of values; None stands for 1."""
    if not isinstance(value, Value):
        return {None: int(value)}
    node = value.node
    name = node.op.type_name
    if name == "Constant" and value.type.size == 1:
        return {None: int(np.asarray(node.op.reference()).reshape(()))}
    if not depth or value.type.shape not in ((), (1,)):
        return {value: 1}
    if name in ("Identity", "Cast", "Reshape", "ExpandDims", "Squeeze") and (
        node.inputs[0].dtype.is_integer
    ):
        return _linear(node.inputs[0], depth - 1)
    if name in ("Add", "Sub", "Mul"):
        a, b = (_linear(v, depth - 1) for v in node.inputs)
        if name == "Mul":
            if set(a) - {None}:
                a, b = b, a
            factor = a.get(None, 0)
            return {value: 1} if set(a) - {None} else {k: factor * n for k, n in b.items()}
        sign = 1 if name == "Add" else -1
        return {k: a.get(k, 0) + sign * b.get(k, 0) for k in {**a, **b}}
    return {value: 1}


def known_number(value: Any) -> Any:
    """A bound as an int where it is constant, else the scalar."""
    if isinstance(value, Value) and value.node.op.type_name == "Constant":
        return int(np.asarray(value.node.op.reference()).reshape(()))
    return value


def computed_slice(x: Value, cuts: Sequence[Cut]) -> Value | None:
    """The slice as one kernel; None where an extent is not known."""
    if any(not isinstance(c.count, (int, Dim)) for c in cuts):
        return None
    moving = [c for c in cuts if not _is_whole(c, x)]
    count = {c.axis: c.count for c in cuts}
    extents = [count.get(axis, d) for axis, d in enumerate(x.type.shape or ())]
    if 0 in extents and any(c.negative == RANGE for c in cuts):
        return None  # nothing is read, so nothing tells whether it lies inside
    for c in moving:
        d = x.type.shape[c.axis]  # type: ignore[index]
        if isinstance(d, int) and isinstance(c.count, int) and _span(c.count, c.step) > d:
            return None  # it is cut short wherever it begins: its extent is not constant
    op = DynamicSlice(
        tuple(c.axis for c in moving), tuple(c.count for c in moving),
        tuple(c.step for c in moving), tuple(c.negative for c in moving),
    )  # fmt: skip
    return emit(op, x, _packed([c.first for c in moving])) if moving else x


def place_key(node: Node) -> Any:
    """What a slice, or the place of one, counts on: equal keys lie inside in the same runs."""
    op: Any = node.op
    whole, _, *piece = [v.type.shape or () for v in node.inputs]
    if isinstance(op, DynamicSlice):
        size, steps = op.size, op._steps
    else:
        inner: Any = piece[0] if piece else whole
        size, steps = tuple(inner[a] for a in op.axes), op.steps
        whole = whole if piece else op.extents
    begin = node.inputs[1]
    firsts = begin.node.inputs if begin.node.op.type_name == "Pack" else (begin,)
    places = [frozenset(_linear(first).items()) for first in firsts]
    return op.axes, size, steps, op.negative, tuple(whole[a] for a in op.axes), tuple(places)


def told_slice(x: Value, cuts: Sequence[Cut]) -> Value:
    """The slice where Python tells the extents that only a run knows."""
    from tinyflow.ops.counted import told_numbers

    op = DynamicSlice(
        tuple(c.axis for c in cuts), (), tuple(c.step for c in cuts),
        tuple(c.negative for c in cuts),
    )  # fmt: skip
    sizes = told_numbers(_packed([c.count for c in cuts]))
    return emit_shaped(op, "size", sizes, x, _packed([c.first for c in cuts]))  # type: ignore[no-any-return]


def placed_slice(dy: Value, like: Value, cuts: Sequence[Cut]) -> Value:
    """Zeros in the shape of ``like`` with ``dy``, whose extents are the counts, at the cuts."""
    from tinyflow.ops.shape import shape

    op = PlaceSlice(
        (), tuple(c.axis for c in cuts), tuple(c.step for c in cuts),
        tuple(c.negative for c in cuts),
    )  # fmt: skip
    return emit_shaped(op, "extents", shape(like), dy, _packed([c.first for c in cuts]))  # type: ignore[no-any-return]


def _is_whole(cut: Cut, x: Value) -> bool:
    extent = x.type.shape[cut.axis]  # type: ignore[index]
    return isinstance(cut.first, int) and cut.first == 0 and cut.count == extent and cut.step == 1


def _packed(numbers: Sequence[Any]) -> Value:
    from tinyflow.core.dtype import int64
    from tinyflow.ops.convert import cast
    from tinyflow.ops.creation import constant
    from tinyflow.ops.joining import stack

    values = [
        cast(n, int64) if isinstance(n, Value) else constant(np.int64(n)) for n in numbers
    ]
    return stack(values) if values else constant(np.zeros(0, np.int64))  # type: ignore[no-any-return]


__all__ = [
    "FROM_END", "NEVER", "RANGE", "Cut", "DynamicSlice", "PlaceSlice", "SliceAdd", "computed_slice",
    "constant_difference", "known_number", "place_key", "placed_slice", "told_slice",
]  # fmt: skip
