"""Ops that cut out: slice, strided slice (Python's ``x[1:, ::2]``) and their gradients.

Main types: ``Slice``, ``StridedSlice``, ``Spread``. May import ops.base, ops.movement, ops.padding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinyflow import te
from tinyflow.core.error import AxisError, DTypeError, ShapeError
from tinyflow.core.shape import Dim, Dimension, least, merge_shapes, opaque
from tinyflow.ops.base import Extents, Op, Sample, TensorType, Value, emit, emit_shaped
from tinyflow.ops.like import LikeOp
from tinyflow.ops.movement import Reshape, floats, prefer_int, reverse
from tinyflow.ops.padding import Pad, inside_all, zeros_if_empty
from tinyflow.ops.slice_bounds import NEW, At, CutsOut, Part, PlacesBack, Range


@dataclass(frozen=True)
class Slice(CutsOut, Op):
    """y = x[begin : begin + size] along every axis; size -1 means up to the end.

    input: any[...]   begin, size: one number per axis    y: same dtype, extents ``size``
    Gradient: dx = dy padded with zeros    Errors: ShapeError when the slice leaves x
    """

    begin: Extents
    size: Extents
    onnx = "Slice"

    def with_attribute(self, name: str, value: Any) -> Slice:
        """``bounds`` is begin followed by size."""
        if name != "bounds":
            return replace(self, **{name: value})
        half = len(value) // 2
        return Slice(value[:half], value[half:])

    def entries(self, rank: int) -> list[Any]:
        """The slice as parts of axes; for bounds that only a run knows."""
        return [Part(a, b, s) for a, (b, s) in enumerate(zip(self.begin, self.size, strict=True))]

    def infer(self, input: TensorType) -> TensorType:
        begin, size = self.begin, self.size
        if len(begin) != len(size):
            raise ShapeError(f"begin {begin} and size {size} differ in length")
        if input.shape is None:
            fresh = tuple(Dim.symbol("rest") if s == -1 else s for s in size)
            return input.with_shape(fresh)
        if len(begin) != len(input.shape):
            raise ShapeError(
                f"begin has {len(begin)} numbers for a rank {len(input.shape)} input",
                expected="one number per axis",
            )
        extents = []
        for axis, (b, s, d) in enumerate(zip(begin, size, input.shape, strict=True)):
            extent = d - b if s == -1 else s
            known = all(type(n) is int for n in (b, s, d))
            if known and not (0 <= b <= d and 0 <= extent <= d - b):  # type: ignore[operator]
                raise ShapeError(
                    f"begin {b}, size {s} leaves axis {axis} of extent {d}",
                    expected=f"0 <= begin and begin + size <= {d}",
                )
            extents.append(extent)
        return input.with_shape(tuple(extents))

    def reference(self, x: Any) -> Any:
        return x[
            tuple(
                slice(b, d if s == -1 else b + s)  # type: ignore[operator]
                for b, s, d in zip(self.begin, self.size, np.shape(x), strict=True)
            )
        ]

    def compute(self, x: te.Tensor) -> te.Tensor:
        shape = [
            prefer_int(te.as_index(d) - b) if s == -1 else s
            for b, s, d in zip(self.begin, self.size, x.shape, strict=True)
        ]
        return te.compute(
            shape,
            lambda *axes: x[tuple(a + b for a, b in zip(axes, self.begin, strict=True))],
            "slice",
        )

    def adjoint(self, dy: Value, x: Value) -> tuple[Op, tuple[Any, ...]]:
        return SliceGrad(self.begin, self.size), (dy, x)

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (emit(SliceGrad(self.begin, self.size), dy, x),)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, begin, size in (
            ((3, 4), (1, 0), (2, 3)), ((2, 3, 5), (0, 1, 2), (-1, 1, -1)), ((), (), ()),
            ((4, 5), (2, 5), (0, -1)), ((1, 6), (0, 2), (1, 3)),
        ):  # fmt: skip
            yield Sample((floats(rng, *shape),), Slice(begin, size))

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 3), np.float32)
        for begin, size in (((0,), (1,)), ((1, 0), (2, 1)), ((-1, 0), (1, 1)), ((0, 4), (1, -1))):
            yield Sample((x,), Slice(begin, size)), ShapeError


def slice_(input: Any, begin: Any, size: Any, name: str | None = None) -> Any:
    """``size`` elements from ``begin`` on, along every axis (``tf.slice``). See Slice."""
    from tinyflow.ops.joining import concat_vectors

    return emit_shaped(
        Slice((), ()), "bounds", concat_vectors((begin, size)), input, node_name=name
    )


@dataclass(frozen=True)
class SliceGrad(PlacesBack, LikeOp):
    """dx = zeros in the shape of x with dy at [begin : begin + size].

    dy: any[size], like: x[...]    dx: dtype of dy, shape of x    Gradient: the slice again
    Errors: ShapeError when the slice leaves x or dy has another shape
    """

    begin: Extents
    size: Extents
    with_attribute = Slice.with_attribute
    entries = Slice.entries

    def infer(self, dy: TensorType, like: TensorType) -> TensorType:
        merge_shapes(Slice(self.begin, self.size).infer(like).shape, dy.shape)
        return dy.with_shape(like.shape)

    def reference(self, dy: Any, like: Any) -> Any:
        paddings = self._paddings(np.shape(dy), np.shape(like))
        return np.pad(dy, paddings) if paddings else dy

    def _paddings(self, inner: Sequence[int], outer: Sequence[int]) -> tuple[Any, ...]:
        return tuple((b, d - b - n) for b, n, d in zip(self.begin, inner, outer, strict=True))

    def build(self, dy: Value, shape: tuple[int, ...]) -> Value:
        paddings = self._paddings(dy.type.shape, shape)  # type: ignore[arg-type]
        return emit(Pad(paddings), dy) if paddings else dy

    def adjoint(self, dz: Value, dy: Value, like: Value) -> tuple[Op, tuple[Any, ...]]:
        return Slice(self.begin, self.size), (dz,)

    def vjp(self, dz: Value, z: Value, dy: Value, like: Value) -> tuple[Any, ...]:
        return emit(Slice(self.begin, self.size), dz), None

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for inner, outer, begin, size in (
            ((2, 3), (3, 4), (1, 0), (2, 3)), ((2,), (5,), (3,), (-1,)), ((), (), (), ()),
            ((0, 1), (2, 6), (1, 2), (0, 1)),
        ):  # fmt: skip
            yield Sample((floats(rng, *inner), floats(rng, *outer)), SliceGrad(begin, size))

    def bad_samples(self) -> Iterable[Any]:
        arrays = np.zeros(2, np.float32), np.zeros(5, np.float32)
        yield Sample(arrays, SliceGrad((3,), (1,))), ShapeError


@dataclass(frozen=True)
class StridedSlice(CutsOut, Op):
    """y = x[begin:end:strides], Python's indexing with slices, numbers, newaxis and ``...``.

    input: any[...]     begin, end, strides: one number per entry of the index
    Bit i of a mask speaks of entry i: begin_mask, end_mask: that bound is left out;
    ellipsis_mask: the entry is ``...``; new_axis_mask: it is newaxis; shrink_axis_mask: it is the
    number begin[i], and the axis disappears.
    Gradient: dx = zeros with dy at the same index
    Errors: ShapeError for too many entries or a stride of 0; AxisError for a number out of range
    Source: the attributes are those of TensorFlow's StridedSlice
    """

    begin: Extents
    end: Extents
    strides: tuple[int, ...]
    begin_mask: int = 0
    end_mask: int = 0
    ellipsis_mask: int = 0
    new_axis_mask: int = 0
    shrink_axis_mask: int = 0

    def with_attribute(self, name: str, value: Any) -> Any:
        """``bounds`` is begin, end and strides, one after the other."""
        if name != "bounds":
            return replace(self, **{name: value})
        n = len(value) // 3
        return replace(self, begin=value[:n], end=value[n : 2 * n], strides=value[2 * n :])

    def entries(self, rank: int) -> list[Any]:
        """Range, At or NEW per entry, ``...`` spelt out, for an input of this rank."""
        count = len(self.begin)
        if not len(self.end) == len(self.strides) == count:
            raise ShapeError(f"begin, end and strides differ in length: {self.begin}, {self.end}, "
                             f"{self.strides}")  # fmt: skip
        consumed = sum(
            not (self.new_axis_mask | self.ellipsis_mask) >> i & 1 for i in range(count)
        )
        if consumed > rank:
            raise ShapeError(
                f"too many indices: {consumed} for a rank {rank} input",
                expected=f"at most {rank} entries",
            )
        found: list[Any] = []
        axis = 0
        for i in range(count):
            if self.ellipsis_mask >> i & 1:
                found += [Range(a, None, None, 1) for a in range(axis, axis + rank - consumed)]
                axis += rank - consumed
            elif self.new_axis_mask >> i & 1:
                found.append(NEW)
            else:
                found.append(self._entry(i, axis))
                axis += 1
        return found + [Range(a, None, None, 1) for a in range(axis, rank)]

    def _entry(self, i: int, axis: int) -> Range | At:
        if self.shrink_axis_mask >> i & 1:
            return At(axis, self.begin[i])
        stride = self.strides[i]
        if stride == 0:
            raise ShapeError(f"the stride of entry {i} is 0", expected="a stride other than 0")
        begin = None if self.begin_mask >> i & 1 else self.begin[i]
        end = None if self.end_mask >> i & 1 else self.end[i]
        return Range(axis, begin, end, stride)

    def infer(self, input: TensorType) -> TensorType:
        shape = input.shape
        if shape is None:
            return input
        extents: list[Dimension] = []
        for entry in self.entries(len(shape)):
            if entry is NEW:
                extents.append(1)
            elif isinstance(entry, At):
                _check_position(entry, shape[entry.axis])
            else:
                extents.append(_range_extent(shape[entry.axis], entry))
        return input.with_shape(tuple(extents))

    def python_index(self, rank: int) -> tuple[Any, ...]:
        """The index for NumPy."""
        return tuple(
            None if e is NEW else e.position if isinstance(e, At) else slice(*e[1:])
            for e in self.entries(rank)
        )

    def reference(self, x: Any) -> Any:
        return x[self.python_index(np.ndim(x))]

    def compute(self, x: te.Tensor) -> te.Tensor:
        shape: list[Any] = []
        reads: list[Any] = []  # per axis of x: (position of the result's axis or None, begin, step)
        for entry in self.entries(x.rank):
            if entry is NEW:
                shape.append(1)
            elif isinstance(entry, At):
                extent = te.as_index(x.shape[entry.axis])
                first = entry.position + (extent if entry.position < 0 else te.index(0))
                reads.append((None, first, 0))
            else:
                first, count = _range_bounds(x.shape[entry.axis], entry)
                reads.append((len(shape), first, entry.stride))
                shape.append(count)

        def element(*axes: Any) -> Any:
            return x[
                tuple(
                    first if d is None else te.as_index(first) + axes[d] * step
                    for d, first, step in reads
                )
            ]

        return te.compute(shape, element, "strided_slice")

    def _gradient(self) -> StridedSliceGrad:
        return StridedSliceGrad(**self.attributes)

    def adjoint(self, dy: Value, x: Value) -> tuple[Op, tuple[Any, ...]]:
        return self._gradient(), (dy, x)

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (emit(self._gradient(), dy, x),)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, index in _INDEX_SAMPLES:
            yield Sample((floats(rng, *shape),), index_op(index))

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 3), np.float32)
        yield Sample((x,), index_op(np.s_[0, 0, 0])), ShapeError
        yield Sample((x,), index_op(np.s_[2])), AxisError
        yield Sample((x,), index_op(np.s_[:, -4])), AxisError
        yield Sample((x,), StridedSlice((0,), (1,), (0,))), ShapeError


_INDEX_SAMPLES: tuple[Any, ...] = (
    ((5, 4), np.s_[1:4, 2]), ((7, 3), np.s_[::2]), ((7, 3), np.s_[::-3, 1:]),
    ((2, 3, 5), np.s_[..., -1]), ((2, 3, 5), np.s_[1:, np.newaxis, ..., ::2]), ((4,), np.s_[2]),
    ((6, 5), np.s_[-2:0:-1, 3:1]), ((0, 3), np.s_[1:, ::-1]), ((1, 6), np.s_[:, -100:100:4]),
    ((), np.s_[np.newaxis]), ((9,), np.s_[7:2:-2]),
)  # fmt: skip


def _check_position(entry: At, extent: Dimension) -> None:
    position = entry.position
    if type(extent) is int and type(position) is int and not -extent <= position < extent:
        valid = f"an index from {-extent} to {extent - 1}" if extent else "no index: it is empty"
        raise AxisError(
            f"index {position} is outside axis {entry.axis} of extent {extent}", expected=valid
        )


def _range_extent(extent: Dimension, entry: Range) -> Dimension:
    """Number of elements of the range; a polynomial of ``extent`` where its ends follow it."""
    _, begin, end, stride = entry
    bounds_known = all(b is None or type(b) is int for b in (begin, end))
    if type(extent) is int and bounds_known and type(stride) is int:
        return len(range(*slice(begin, end, stride).indices(extent)))
    if begin is None and end is None and type(stride) is int and stride:
        return (extent + (abs(stride) - 1)) // abs(stride)
    starts_near_front = begin is None or (type(begin) is int and begin >= 0)
    ends_near_back = end is None or (type(end) is int and end < 0)
    if stride == 1 and starts_near_front and ends_near_back:
        return extent - (begin or 0) + (end or 0)
    if type(begin) is int and end is None and stride == 1:
        return least(extent, -begin)
    if type(end) is int and begin in (None, 0) and stride == 1:
        return least(extent, end)
    return opaque(f"slice({extent},{begin},{end},{stride})")


def _range_bounds(extent: Any, entry: Range) -> tuple[Any, Any]:
    """First index and number of elements, by Python's rules for slices out of range."""
    _, begin, end, stride = entry
    if isinstance(extent, Dim) and stride == 1:
        if begin is not None and begin < 0 and end is None:
            return te.as_index(extent) + begin, -begin  # see shape.least
        if begin in (None, 0) and end is not None and end > 0:
            return 0, end
    d = te.as_index(extent)
    low, high = (te.index(0), d) if stride > 0 else (te.index(-1), d - 1)

    def clamp(bound: Any, default: Any) -> Any:
        if bound is None:
            return default
        at = d + bound if bound < 0 else te.index(bound)
        return te.minimum(te.maximum(at, low), high)

    first = clamp(begin, low if stride > 0 else high)
    last = clamp(end, high if stride > 0 else low)
    span = last - first if stride > 0 else first - last
    step = abs(stride)
    return prefer_int(first), prefer_int(te.maximum((span + (step - 1)) // step, te.index(0)))


@dataclass(frozen=True)
class StridedSliceGrad(PlacesBack, LikeOp):
    """dx = zeros in the shape of x with dy at the index of ``StridedSlice`` (same attributes).

    dy: any[...], like: x[...]    dx: dtype of dy, shape of x    Gradient: the strided slice again
    Errors: ShapeError when dy is not of the slice's shape
    """

    begin: Extents
    end: Extents
    strides: tuple[int, ...]
    begin_mask: int = 0
    end_mask: int = 0
    ellipsis_mask: int = 0
    new_axis_mask: int = 0
    shrink_axis_mask: int = 0
    with_attribute = StridedSlice.with_attribute
    entries, _entry = StridedSlice.entries, StridedSlice._entry

    def _slice(self) -> StridedSlice:
        return StridedSlice(**self.attributes)

    def infer(self, dy: TensorType, like: TensorType) -> TensorType:
        merge_shapes(self._slice().infer(like).shape, dy.shape)
        return dy.with_shape(like.shape)

    def reference(self, dy: Any, like: Any) -> Any:
        dx = np.zeros(np.shape(like), np.asarray(dy).dtype)
        dx[self._slice().python_index(np.ndim(like))] = dy
        return dx

    def build(self, dy: Value, shape: tuple[int, ...]) -> Value:
        begin, counts, strides = [], [], []
        for entry in self._slice().entries(len(shape)):
            if entry is NEW:
                continue
            extent = shape[entry.axis]
            if isinstance(entry, At):
                begin.append(entry.position % extent)
                counts.append(1)
                strides.append(1)
            elif isinstance(extent, Dim):
                first, count = _known_part(extent, entry)
                begin.append(first)
                counts.append(count)
                strides.append(entry.stride)
            else:
                chosen = range(*slice(*entry[1:]).indices(extent))
                begin.append(chosen.start if chosen else 0)
                counts.append(len(chosen))
                strides.append(entry.stride)
        full = dy if dy.type.shape == tuple(counts) else emit(Reshape(tuple(counts)), dy)
        flipped = tuple(a for a, n in enumerate(counts) if strides[a] < 0 and n not in (0, 1))
        if flipped:
            full = reverse(full, flipped)
            for a in flipped:
                begin[a] += (counts[a] - 1) * strides[a]
        steps = tuple(
            1 if isinstance(n, int) and n <= 1 else abs(s)
            for s, n in zip(strides, counts, strict=True)
        )
        return _spread(full, tuple(begin), steps, shape)

    def adjoint(self, dz: Value, dy: Value, like: Value) -> tuple[Op, tuple[Any, ...]]:
        return self._slice(), (dz,)

    def vjp(self, dz: Value, z: Value, dy: Value, like: Value) -> tuple[Any, ...]:
        return emit(self._slice(), dz), None

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, index in _INDEX_SAMPLES:
            x = floats(rng, *shape)
            yield Sample((np.array(x[index]), x), index_op(index)._gradient())

    def bad_samples(self) -> Iterable[Any]:
        arrays = np.zeros(3, np.float32), np.zeros(5, np.float32)
        yield Sample(arrays, index_op(np.s_[1:3])._gradient()), ShapeError


def _known_part(extent: Dim, entry: Range) -> tuple[Any, Any]:
    """(first, count) of a range over an extent that only a run tells."""
    _, begin, end, stride = entry
    if stride == 1 and (begin is None or begin >= 0) and (end is None or end < 0):
        return begin or 0, extent - (begin or 0) + (end or 0)
    if stride == 1 and begin is not None and begin < 0 and end is None:
        return extent + begin, -begin  # see shape.least
    if stride == 1 and begin in (None, 0) and end is not None and end > 0:
        return 0, end
    if begin is None and end is None and stride > 0:
        return 0, (extent + (stride - 1)) // stride
    raise TypeError(f"where the elements [{begin}:{end}:{stride}] of {extent} lie")


def _spread(x: Value, begin: tuple[int, ...], steps: tuple[int, ...], shape: Any) -> Value:
    """Zeros of ``shape`` with ``x`` at begin, begin + step, ... : a pad when all steps are 1."""
    own = x.type.shape
    if own == shape:
        return x
    if all(s == 1 for s in steps):
        paddings = tuple((b, d - b - n) for b, n, d in zip(begin, own, shape, strict=True))  # type: ignore[arg-type]
        return emit(Pad(paddings), x)  # type: ignore[no-any-return]
    return emit(Spread(begin, steps, tuple(shape)), x)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Spread(Op):
    """y = zeros of ``shape`` with y[begin + k * steps] = x[k].

    x: any[...]   steps: >= 1     y: same dtype    Gradient: dx = dy[begin :: steps]
    Errors: ShapeError when the last element falls outside ``shape``
    """

    begin: tuple[int, ...]
    steps: tuple[int, ...]
    shape: tuple[int, ...]

    def infer(self, x: TensorType) -> TensorType:
        x.require_rank(len(self.shape))
        if x.is_static:
            for b, s, n, d in zip(self.begin, self.steps, x.shape, self.shape, strict=True):  # type: ignore[arg-type]
                if n and not 0 <= b <= b + (n - 1) * s < d:  # type: ignore[operator]
                    raise ShapeError("elements fall outside", expected=f"positions below {d}")
        return x.with_shape(self.shape)

    def _index(self, own: Sequence[int]) -> tuple[slice, ...]:
        return tuple(
            slice(b, b + (n - 1) * s + 1 if n else b, s)
            for b, s, n in zip(self.begin, self.steps, own, strict=True)
        )

    def reference(self, x: Any) -> Any:
        y = np.zeros(self.shape, np.asarray(x).dtype)
        y[self._index(np.shape(x))] = x
        return y

    def compute(self, x: te.Tensor) -> te.Tensor:
        def element(*axes: Any) -> Any:
            conditions, indices = [], []
            for axis, b, s, n, d in zip(
                axes, self.begin, self.steps, x.shape, self.shape, strict=True
            ):
                offset = axis - b
                k = offset // s
                if not (b == 0 and n == d and s == 1):
                    conditions += [te.index(0) <= offset, k < n]
                if s > 1:
                    conditions.append((offset % s).equal(0))
                indices.append(k)
            return te.select(inside_all(conditions), x[tuple(indices)], 0)

        return zeros_if_empty(te.compute(self.shape, element, "spread"), x)

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        if x.type.is_static:
            return (get_item(dy, self._index(x.type.shape)),)  # type: ignore[arg-type]
        from tinyflow.ops.shape import shape

        reached = tuple(slice(b, None, s) for b, s in zip(self.begin, self.steps, strict=True))
        return (slice_(get_item(dy, reached), [0] * len(reached), shape(x)),)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for own, begin, steps, shape in (
            ((3, 4), (1, 0), (2, 1), (7, 4)), ((2,), (0,), (3,), (4,)), ((0,), (0,), (2,), (3,)),
            ((2, 1, 3), (1, 2, 0), (1, 1, 2), (4, 5, 6)),
        ):  # fmt: skip
            yield Sample((floats(rng, *own),), Spread(begin, steps, shape))

    def bad_samples(self) -> Iterable[Any]:
        yield Sample((np.zeros(3, np.float32),), Spread((0,), (2,), (4,))), ShapeError


def index_op(index: Any) -> StridedSlice:
    """The ``StridedSlice`` of a Python index: ints, slices, newaxis and at most one ``...``."""
    begin: list[Any] = []
    end: list[Any] = []
    strides: list[Any] = []
    masks = dict.fromkeys(("begin", "end", "ellipsis", "new_axis", "shrink_axis"), 0)
    for i, part in enumerate(index if isinstance(index, tuple) else (index,)):
        entry = (0, 0, 1)
        if part is Ellipsis:
            if masks["ellipsis"]:
                raise ShapeError("an index has more than one '...'")
            masks["ellipsis"] = 1 << i
        elif part is None:
            masks["new_axis"] |= 1 << i
        elif isinstance(part, slice):
            masks["begin"] |= (part.start is None) << i
            masks["end"] |= (part.stop is None) << i
            step = 1 if part.step is None else part.step
            entry = (_bound(part.start), _bound(part.stop), _bound(step))
        else:
            masks["shrink_axis"] |= 1 << i
            position = _bound(part)
            entry = (position, position + 1, 1)
        for bounds, number in zip((begin, end, strides), entry, strict=True):
            bounds.append(number)
    return StridedSlice(
        tuple(begin), tuple(end), tuple(strides), *[masks[k] for k in masks]
    )


def _bound(value: Any) -> Any:
    if value is None:
        return 0
    try:
        return value.__index__()
    except (AttributeError, TypeError):
        raise DTypeError(
            f"cannot index with {value!r}",
            expected="integers, slices, newaxis, '...' or integer scalars",
            hint="to pick by a list of positions use tf.gather(x, positions)",
        ) from None


def strided_slice(
    input_: Any, begin: Any, end: Any, strides: Any = None, begin_mask: int = 0, end_mask: int = 0,
    ellipsis_mask: int = 0, new_axis_mask: int = 0, shrink_axis_mask: int = 0,
    name: str | None = None,
) -> Any:  # fmt: skip
    """x[begin:end:strides] with TensorFlow's masks. See StridedSlice."""
    from tinyflow.ops.joining import concat_vectors

    if strides is None:
        count: Any = begin.type.shape[0] if isinstance(begin, Value) else len(begin)  # type: ignore[index]
        strides = [1] * count
    masks = begin_mask, end_mask, ellipsis_mask, new_axis_mask, shrink_axis_mask
    bounds = concat_vectors((begin, end, strides))
    return emit_shaped(
        StridedSlice((), (), (), *masks), "bounds", bounds, input_, node_name=name
    )


def get_item(x: Any, index: Any, name: str | None = "strided_slice") -> Any:
    """``x[index]`` by Python's rules; entries may be integer scalars of the graph."""
    parts = index if isinstance(index, tuple) else (index,)
    if not any(_is_value(b) for p in parts for b in _bounds_of(p)):
        return emit(index_op(index), x, name=name)
    return _dynamic_item(x, parts, name)


def _is_value(part: Any) -> bool:
    return isinstance(part, Value) or hasattr(part, "as_value")


def _bounds_of(part: Any) -> tuple[Any, ...]:
    return (part.start, part.stop, part.step) if isinstance(part, slice) else (part,)


def _dynamic_item(x: Any, parts: tuple[Any, ...], name: str | None) -> Any:
    """Bounds from the graph: those known by now become attributes, the others an operand.

    A position that only a run knows is a gather: no shape depends on it, so nothing is recompiled.
    """
    from tinyflow.ops.creation import constant_value
    from tinyflow.ops.indexing import gather

    for i in range(len(parts)):
        at = parts[i]
        if not isinstance(at, slice) and _is_value(at) and constant_value(_value(at)) is None:
            if Ellipsis in parts[:i] or any(not isinstance(p, slice) for p in parts[:i]):
                break  # the axis of the position is not simply i
            rest = get_item(x, (*parts[:i], slice(None), *parts[i + 1 :]))
            return gather(rest, _from_front(_value(at), x, i), axis=i, name=name)

    def number(bound: Any) -> Any:
        return 0 if _is_value(bound) else bound

    plain = tuple(
        slice(number(p.start), number(p.stop), number(p.step) or 1)
        if isinstance(p, slice)
        else number(p)
        for p in parts
    )
    op = index_op(plain)
    bounds: list[Any] = [*op.begin, *op.end, *op.strides]
    for i, part in enumerate(parts):
        if _is_value(part):
            from tinyflow.ops.elementwise import add

            bounds[i], bounds[len(parts) + i] = part, add(part, 1)
        elif isinstance(part, slice):
            for row, bound in enumerate((part.start, part.stop, part.step)):
                if _is_value(bound):
                    bounds[row * len(parts) + i] = bound
    return emit_shaped(op, "bounds", bounds, x, node_name=name)


def _value(part: Any) -> Value:
    return part if isinstance(part, Value) else part.as_value()  # type: ignore[no-any-return]


def _from_front(position: Value, x: Value, axis: int) -> Any:
    """``position`` with negative numbers counted from the end."""
    from tinyflow.ops.comparison import less
    from tinyflow.ops.elementwise import add, select
    from tinyflow.ops.shape import shape

    extent = get_item(shape(x, out_type=position.dtype), axis)
    return select(less(position, 0), add(position, extent), position)
