"""Order: argsort, sort, the largest k elements, elements at positions along the last axis.

Main types: ``ArgSort``, ``TopKV2``, ``TakeAlong``. May import ops.base, like, movement, indexing.
Ops work on rows: x is [rows, n]; the user functions bring other ranks to that. NaN comes last.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow import te
from tinyflow.core.dtype import int32, int64
from tinyflow.core.error import DTypeError, InvalidArgumentError, ShapeError
from tinyflow.core.shape import merge_shapes
from tinyflow.ir.loop.nodes import SERIAL, Alloc, Body, Buffer, For, If, Stmt, Store
from tinyflow.ir.scalar import nodes as scalar
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ops.base import Op, Sample, TensorType, Value, emit, emit_shaped, floats
from tinyflow.ops.indexing import checked_position, require_inside
from tinyflow.ops.like import LikeOp
from tinyflow.ops.loop_nests import counter, held, integer, nest, nest_rows
from tinyflow.ops.movement import reshape

__all__ = ["ArgSort", "TakeAlong", "TakeAlongGrad", "TopKV2", "argsort", "sort", "take_along",
           "top_k"]  # fmt: skip

#: up to this many of the largest elements are kept by insertion, more by sorting the row
INSERTION = 64
#: what sorting costs per element, next to an addition
SORT_COST = 32


def _before(a: Expr, b: Expr, descending: bool) -> Expr:
    """Whether a stands strictly before b."""
    strictly = b < a if descending else a < b
    if a.dtype.kind != "float":
        return strictly
    return strictly | (b.not_equal(b) & a.equal(a))


def _passes(n: Any) -> Expr:
    """How often runs of 1, 2, 4 ... elements are merged until one is left."""
    steps = te.index(0)
    for p in range(31):  # positions are int32
        steps = steps + scalar.cast(te.index(1 << p) < te.as_index(n), int64)
    return steps


def _order(x: Any, descending: bool) -> Any:
    """The reference's stable order along the last axis."""
    x = np.asarray(x)
    if descending:
        x = -x if x.dtype.kind == "f" else np.invert(x)
    return np.argsort(x, -1, kind="stable").astype(np.int32)


@dataclass(frozen=True)
class ArgSort(Op):
    """y[r, :] = positions that bring x[r, :] into order, ties by position.

    x: number[rows, n]    y: int32[rows, n]    NaN comes last in both orders
    Errors: ShapeError for another rank, DTypeError for bool
    Source: Knuth, The Art of Computer Programming 3, section 5.2.4, merging from the bottom.
    """

    descending: bool = False
    not_differentiable = "the result is a position"

    def infer(self, x: TensorType) -> TensorType:
        return x.require_number().require_rank(2).with_dtype(int32)

    def reference(self, x: Any) -> Any:
        return _order(x, self.descending)

    def scratch(self, inputs: tuple[Buffer, ...]) -> list[Buffer]:
        """Two orders per row: each pass reads one and writes the other."""
        rows, n = inputs[0].shape
        return [Buffer("passes", int32, (rows, 2, n))]

    def lower_loops(
        self, inputs: tuple[Buffer, ...], outputs: tuple[Buffer, ...], passes: Buffer
    ) -> tuple[Stmt, ...]:
        (x,), (y,) = inputs, outputs
        rows, n = x.shape
        if 0 in (rows, n):
            return ()
        steps = _passes(n)

        def row(axes: tuple[Expr, ...]) -> Body:
            (r,) = axes
            t, p = scalar.var("t"), scalar.var("pass")
            fill = For(t, n, SERIAL, (Store(passes, (r, te.index(0), t), scalar.cast(t, int32)),))
            merge = self._merge(x, passes, r, p, n)
            done = scalar.load(passes, r, steps % te.index(2), t)
            copy = For(t, n, SERIAL, (Store(y, (r, t), done),))
            return (fill, For(p, steps, SERIAL, merge), copy)

        return nest_rows((rows,), rows * n * SORT_COST, row)

    def _merge(self, x: Buffer, passes: Buffer, r: Expr, p: Expr, n: Any) -> Body:
        """Pass p: neighbouring runs of 2**p elements become one of twice the length."""
        q, t, zero = scalar.var("pair"), scalar.var("t"), te.index(0)
        width, parity = te.index(1) << p, p % te.index(2)
        start = q * (width + width)
        left = scalar.minimum(te.index(n) - start, width)
        right = scalar.minimum(scalar.maximum(te.index(n) - start - width, zero), width)
        taken, seen = counter("taken"), counter("seen")  # of the left and of the right run

        def at(position: Expr) -> Expr:
            return scalar.cast(scalar.load(passes, r, parity, position), int64)

        def choose(heads: tuple[Expr, ...]) -> Body:
            own, other, i, j = heads
            mine, theirs = scalar.load(x, r, own), scalar.load(x, r, other)
            # In the left run an element goes before its equals of the right run.
            first = (right <= j) | ((i < left) & ~_before(theirs, mine, self.descending))
            target = (r, te.index(1) - parity, start + t)
            step = scalar.cast(first, int64)
            return (
                Store(passes, target, scalar.cast(te.select(first, own, other), int32)),
                Store(taken, (zero,), i + step),
                Store(seen, (zero,), j + (te.index(1) - step)),
            )

        i, j = scalar.load(taken, zero), scalar.load(seen, zero)
        # Beyond a run's end its last element is looked at, and not taken.
        own = at(start + scalar.minimum(i, left - 1))
        behind = start + width + scalar.minimum(j, right - 1)
        other = at(te.select(zero < right, behind, start))
        merge = For(t, left + right, SERIAL, held((own, other, i, j), "held", choose))
        clear = Store(taken, (zero,), zero), Store(seen, (zero,), zero)
        pairs = (te.index(n) + (width + width - 1)) >> (p + 1)
        return (For(q, pairs, SERIAL, (Alloc(taken, (Alloc(seen, (*clear, merge)),)),)),)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape in ((3, 7), (1, 64), (5, 1), (2, 0), (0, 4), (2, 33)):
            for descending in (False, True):
                yield Sample((floats(rng, *shape),), ArgSort(descending))
        ties = rng.integers(-3, 3, (3, 40)).astype(np.int32)
        yield Sample((ties,), ArgSort())
        yield Sample((ties,), ArgSort(True))
        special = np.array([[np.nan, 1, -np.inf, np.inf, np.nan, -1, 0, -0.0]], np.float32)
        yield Sample((special,), ArgSort())
        yield Sample((special,), ArgSort(True))

    def bad_samples(self) -> Iterable[Any]:
        yield (np.zeros(3, np.float32),), ShapeError
        yield (np.zeros((2, 3), bool),), DTypeError


@dataclass(frozen=True)
class TakeAlong(Op):
    """y[r, j] = x[r, positions[r, j]].

    x: any[rows, n]    positions: integer[rows, k]    y: dtype of x, [rows, k]
    Gradient: dx[r, i] = sum of dy[r, j] over the j with positions[r, j] = i
    Errors: ShapeError, DTypeError; InvalidArgumentError at run time for a position outside [0, n)
    """

    same_dtype = False

    def infer(self, x: TensorType, positions: TensorType) -> TensorType:
        x.require_rank(2)
        positions.require_integer().require_rank(2)
        if x.shape is not None and positions.shape is not None:
            merge_shapes(x.shape[:1], positions.shape[:1])
        return x.with_shape(positions.shape)

    def reference(self, x: Any, positions: Any) -> Any:
        require_inside(positions, np.shape(x)[1], "TakeAlong")
        return np.take_along_axis(np.asarray(x), np.asarray(positions, np.int64), 1)

    def compute(self, x: te.Tensor, positions: te.Tensor) -> te.Tensor:
        def element(r: Expr, j: Expr) -> Expr:
            return x[r, checked_position(positions[r, j], x.shape[1])]

        return te.compute(positions.shape, element, "take_along")

    def vjp(self, dy: Value, y: Value, x: Value, positions: Value) -> tuple[Any, ...]:
        return emit(TakeAlongGrad(), dy, positions, x), None

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, k in (((3, 7), 4), ((1, 5), 9), ((4, 3), 0)):
            positions = rng.integers(0, shape[1], (shape[0], k)).astype(np.int32)
            yield Sample((floats(rng, *shape), positions), TakeAlong())

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((3, 2), np.float32)
        yield (x, x), DTypeError
        yield (x, np.zeros((2, 2), np.int32)), ShapeError


@dataclass(frozen=True)
class TakeAlongGrad(LikeOp):
    """dx of ``TakeAlong``: zeros like x, with dy added at its positions, in order.

    dy: number[rows, k]    positions: integer[rows, k]    x: read for its shape only
    Gradient: TakeAlong again    Errors: ShapeError, DTypeError
    """

    def infer(self, dy: TensorType, positions: TensorType, x: TensorType) -> TensorType:  # type: ignore[override]
        dy.require_number()
        merge_shapes(TakeAlong().infer(x, positions).shape, dy.shape)
        return dy.with_shape(x.shape)

    def reference(self, dy: Any, positions: Any, x: Any) -> Any:
        dx = np.zeros(np.shape(x), np.asarray(dy).dtype)
        rows = np.arange(np.shape(x)[0])[:, None]
        np.add.at(dx, (np.broadcast_to(rows, np.shape(positions)), np.asarray(positions)), dy)
        return dx

    # The base class is a composite; this one writes its own loops.
    decompose = Op.decompose  # type: ignore[assignment]

    def lower_loops(
        self, inputs: tuple[Buffer, ...], outputs: tuple[Buffer, ...]
    ) -> tuple[Stmt, ...]:
        dy, positions, _ = inputs
        (dx,) = outputs
        rows, n = dx.shape[0], integer(dx.shape[1])
        k = integer(dy.shape[1])

        def row(axes: tuple[Expr, ...]) -> Body:
            (r,) = axes

            def clear(at: tuple[Expr, ...]) -> Body:
                return (Store(dx, (r, *at), scalar.const(0, dx.dtype)),)

            def add(at: tuple[Expr, ...]) -> Body:
                target = (r, checked_position(scalar.load(positions, r, *at), n))
                return (Store(dx, target, scalar.load(dx, *target) + scalar.load(dy, r, *at)),)

            cleared = nest((n,), "z", clear)
            return cleared if type(n) is int and n == 0 else cleared + nest((k,), "j", add)

        return nest_rows((rows,), rows * (n + k), row)

    def vjp(self, dz: Value, z: Value, dy: Value, positions: Value, x: Value) -> tuple[Any, ...]:  # type: ignore[override]
        return take_along(dz, positions), None, None

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, k in (((3, 7), 4), ((1, 5), 9), ((4, 3), 0)):
            positions = rng.integers(0, shape[1], (shape[0], k)).astype(np.int32)
            arrays = floats(rng, shape[0], k), positions, floats(rng, *shape)
            yield Sample(arrays, TakeAlongGrad(), scale=9.0)

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((3, 2), np.float32)
        yield (x, np.zeros((3, 1), np.int32), x), ShapeError


@dataclass(frozen=True)
class TopKV2(Op):
    """values[r, :] = the k largest elements of x[r, :], largest first; indices = where they stand.

    x: number[rows, n]    values: dtype of x, [rows, k]    indices: int32[rows, k]
    Of equal elements the first comes first; NaN comes last.
    Gradient: dx is dvalues at the indices, 0 elsewhere
    Errors: ShapeError when k is negative or more than n, DTypeError for bool
    """

    k: Any = 1

    def infer(self, x: TensorType) -> Any:
        x.require_number().require_rank(2)
        n = None if x.shape is None else x.shape[1]
        if type(self.k) is int and (self.k < 0 or (type(n) is int and self.k > n)):
            raise ShapeError(
                f"input must have at least k columns. Had {n}, needed {self.k}",
                expected=f"0 <= k <= {n}",
            )
        shape = None if x.shape is None else (x.shape[0], self.k)
        return x.with_shape(shape), TensorType(int32, shape)

    def reference(self, x: Any) -> Any:
        order = _order(x, True)[:, : self.k]
        return np.take_along_axis(np.asarray(x), order, 1), order

    def lower_loops(
        self, inputs: tuple[Buffer, ...], outputs: tuple[Buffer, ...]
    ) -> tuple[Stmt, ...]:
        (x,) = inputs
        values, positions = outputs
        rows, n = x.shape[0], integer(x.shape[1])
        k = integer(values.shape[1])
        if rows == 0 or k == 0:
            return ()
        e, q, zero = scalar.var("e"), scalar.var("q"), te.index(0)

        def row(axes: tuple[Expr, ...]) -> Body:
            (r,) = axes

            def insert(kept: tuple[Expr, ...]) -> Body:
                (own,) = kept
                filled = scalar.minimum(e, k)  # places in use so far
                slot = te.index(k - 1) - q
                left = scalar.maximum(slot - 1, 0)
                is_open = filled <= slot
                here = is_open | _before(own, scalar.load(values, r, slot), True)
                shifts = (zero < slot) & _before(own, scalar.load(values, r, left), True)

                def stores(position: Expr, value: Expr) -> Body:
                    return (Store(positions, (r, slot), position), Store(values, (r, slot), value))

                shift = stores(scalar.load(positions, r, left), scalar.load(values, r, left))
                place = stores(scalar.cast(e, int32), own)
                move = (If(shifts, shift, (If(here, place),)),)
                wanted = (e < te.index(k)) | _before(
                    own, scalar.load(values, r, te.index(k - 1)), True
                )
                inside = If(slot <= filled, move)
                return (If(wanted, (For(q, k, SERIAL, (inside,)),)),)

            return (For(e, n, SERIAL, held((scalar.load(x, r, e),), "own", insert)),)

        return nest_rows((rows,), rows * n * 4, row)

    def vjp(self, grads: Any, results: Any, x: Value) -> tuple[Any, ...]:
        return (None if grads[0] is None else emit(TakeAlongGrad(), grads[0], results[1], x),)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, k in (((3, 7), 2), ((1, 5), 5), ((4, 3), 0), ((2, 40), 7), ((0, 3), 1)):
            spread = rng.permutation(shape[0] * shape[1]).reshape(shape).astype(np.float32)
            yield Sample((spread,), TopKV2(k))
        yield Sample((rng.integers(-3, 3, (3, 20)).astype(np.int32),), TopKV2(9))
        special = np.array([[np.nan, 1, -np.inf, np.inf, np.nan, -1, 0, -0.0]], np.float32)
        yield Sample((special,), TopKV2(7), check_gradient=False)

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 3), np.float32)
        yield Sample((x,), TopKV2(4)), ShapeError
        yield Sample((x[0],), TopKV2(1)), ShapeError
        yield Sample((x > 0,), TopKV2(1)), DTypeError


# ---------------------------------------------------------------------- functions of any rank


def _rows(x: Value) -> Value:
    """``x`` with all axes but the last as one."""
    from tinyflow.ops.shape import shape as shape_of

    if x.type.rank == 2:
        return x
    if x.type.shape is None or not x.type.shape:
        raise ShapeError("needs an input of rank 1 or more", received={"x": x.type})
    last = x.type.shape[-1]
    if type(last) is int and last > 0:
        return reshape(x, (-1, last))  # type: ignore[no-any-return]
    lead = x.type.shape[:-1]
    if all(type(d) is int for d in lead):
        return reshape(x, (math.prod(lead), shape_of(x)[-1]))  # type: ignore[no-any-return, arg-type]
    from tinyflow.ops.reduction import reduce_prod

    extents = shape_of(x)
    return reshape(x, (reduce_prod(extents[:-1]), extents[-1]))  # type: ignore[no-any-return]


def _unrowed(rows: Value, x: Value) -> Value:
    """Rows of results with the leading axes of ``x`` again."""
    from tinyflow.ops.shape import shape as shape_of

    if x.type.rank == 2:
        return rows
    extents = shape_of(x)
    lead: Any = x.type.shape[:-1]  # type: ignore[index]
    known = [d if type(d) is int else extents[n] for n, d in enumerate(lead)]
    last = rows.type.shape[1] if rows.type.shape is not None else None
    known.append(last if type(last) is int else shape_of(rows)[1])
    return reshape(rows, known)  # type: ignore[no-any-return]


def argsort(x: Any, descending: bool = False, name: str | None = None) -> Any:
    """Positions that sort the last axis, stable. See ArgSort."""
    from tinyflow.ops.base import to_value
    from tinyflow.ops.convert import identity

    x = to_value(x)
    found = _unrowed(emit(ArgSort(bool(descending)), _rows(x)), x)
    return found if name is None else identity(found, name=name)


def take_along(x: Any, positions: Any) -> Any:
    """Elements of the last axis at ``positions``; the leading axes agree. See TakeAlong."""
    if x.type.rank == 2:
        return emit(TakeAlong(), x, positions)
    return _unrowed_like(emit(TakeAlong(), _rows(x), _rows(positions)), positions)


def _unrowed_like(rows: Value, like: Value) -> Value:
    from tinyflow.ops.like import reshape_like

    return reshape_like(rows, like)


def sort(x: Any, descending: bool = False) -> Any:
    """The last axis in order, stable, NaN last; differentiable."""
    return take_along(x, argsort(x, descending))


def top_k(x: Any, k: Any = 1, name: str | None = "TopKV2") -> tuple[Any, Any]:
    """The k largest elements of the last axis and their positions. See TopKV2."""
    from tinyflow.ops.base import to_value

    x = to_value(x)
    last = x.type.shape[-1] if x.type.shape else None
    if type(k) is int and k > INSERTION and (type(last) is not int or k <= last):
        order = argsort(x, True)[..., :k]
        return take_along(x, order), order
    if type(k) is int and type(last) is int and not 0 <= k <= last:
        raise InvalidArgumentError(
            f"input must have at least k columns. Had {last}, needed {k}",
            received={"x": x.type}, expected=f"0 <= k <= {last}",
        )  # fmt: skip
    values, positions = emit_shaped(TopKV2(), "k", k, _rows(x), node_name=name)
    return _unrowed(values, x), _unrowed(positions, x)
