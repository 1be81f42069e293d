"""Slices with computed bounds as cuts along axes, for ``Slice`` and ``StridedSlice``.

Main types: ``CutsOut``, ``PlacesBack``: what the ops and their gradients inherit. May import
ops.base and ops.dynamic_slice.

The pass ``specialize`` asks ``computed`` where bounds are no constants. It answers with a kernel if
every extent follows all the same, else ``told`` says what Python has to tell. A strided slice that
leaves the tensor is cut short, so its extent follows from ``end - begin`` only while it lies
``inside``; a ``Slice`` that leaves the tensor is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tinyflow.core.dtype import int64
from tinyflow.core.error import Unsupported
from tinyflow.ops.base import Value, emit
from tinyflow.ops.dynamic_slice import (
    FROM_END,
    RANGE,
    Cut,
    computed_slice,
    constant_difference,
    known_number,
    placed_slice,
    told_slice,
)


class Range(NamedTuple):
    """Elements begin, begin + stride, ... of one axis; None where Python's slice has none."""

    axis: int
    begin: Any
    end: Any
    stride: int


class Part(NamedTuple):
    """``size`` elements of one axis from ``begin`` on, all of them inside; -1: up to the end."""

    axis: int
    begin: Any
    size: Any


class At(NamedTuple):
    """One element of an axis, which disappears."""

    axis: int
    position: Any


NEW = "new"  # an axis of extent 1 that the result gains


class CutsOut:
    """What a slice does with bounds that only a run knows; it has ``entries`` and ``bounds``."""

    def computed(self, x: Value, operand: Value, inside: bool) -> Value | None:
        """The slice as one kernel; None where an extent depends on computed data.

        inside: whether slices may be compiled to lie inside the tensor.
        """
        entries = _entries(self, x, operand)
        shape: Any = x.type.shape
        cuts = [_direct(e, shape[e.axis], inside) for e in entries if e is not NEW]
        found = computed_slice(x, cuts)
        return None if found is None else _shaped(found, entries)

    def told(self, x: Value, operand: Value) -> Value:
        """The slice where Python tells its extents."""
        entries = _entries(self, x, operand)
        cuts = [_general(e, _extent(x, e.axis)) for e in entries if e is not NEW]
        return _shaped(told_slice(x, cuts), entries)


class PlacesBack:
    """The same for the gradient of a slice: the extents are those of ``dy``."""

    def computed(self, dy: Value, like: Value, operand: Value, inside: bool) -> Value:
        """Zeros with ``dy`` where the slice reads."""
        entries = _entries(self, like, operand)
        shape: Any = like.type.shape
        cuts = []
        for entry in [e for e in entries if e is not NEW]:
            cut = _direct(entry, shape[entry.axis], inside)
            known = cut.count is not None
            cuts.append(cut if known else _general(entry, _extent(like, entry.axis)))
        return placed_slice(_unshaped(dy, entries), like, cuts)


def _entries(op: Any, x: Value, operand: Value) -> list[Any]:
    """Range, At or NEW per entry, with scalars of the graph for the bounds that are computed."""
    from tinyflow.ops.counted import numbers_of

    if x.type.shape is None or not operand.type.is_static:
        raise Unsupported(
            f"{op.type_name}: computed bounds of a tensor whose rank is unknown",
            received={"input": x.type, "bounds": operand.type},
            expected="a known rank", hint="say it with set_shape(...)",
        )  # fmt: skip
    numbers = tuple(_wide(known_number(n)) for n in numbers_of(operand))
    return op.with_attribute("bounds", numbers).entries(len(x.type.shape))  # type: ignore[no-any-return]


def _wide(number: Any) -> Any:
    from tinyflow.ops.convert import cast

    return cast(number, int64) if isinstance(number, Value) else number


def _extent(x: Value, axis: int) -> Any:
    from tinyflow.ops.shape import shape

    extent = x.type.shape[axis]  # type: ignore[index]
    return extent if isinstance(extent, int) else shape(x, int64)[axis]


def _direct(entry: Any, extent: Any, inside: bool) -> Cut:
    """A cut whose count is known without running, else with the count None."""
    if isinstance(entry, At):
        return Cut(entry.axis, entry.position, 1, 1, FROM_END, True)
    if isinstance(entry, Part):
        return _part(entry, extent)
    axis, begin, end, stride = entry
    plain = all(b is None or isinstance(b, int) for b in (begin, end, stride))
    if plain and isinstance(extent, int):
        chosen = range(*slice(begin, end, stride).indices(extent))
        return Cut(axis, chosen.start if chosen else 0, len(chosen), stride)
    if begin in (None, 0) and end is None and stride == 1:
        return Cut(axis, 0, extent)
    if begin is None or end is None or not isinstance(stride, int):
        return Cut(axis, 0, None)
    length = constant_difference(end, begin)
    if length == 0:
        return Cut(axis, 0, 0)
    if length is None or length < 0 or stride < 1 or not inside:
        return Cut(axis, 0, None)  # x[1 : -2] runs forwards, and so may x[i : i - 3]
    return Cut(axis, begin, -(-length // stride), stride, RANGE)


def _part(entry: Part, extent: Any) -> Cut:
    """A cut of a ``Slice``; the count None where only a run tells it."""
    axis, begin, size = entry
    if isinstance(size, int) and size >= 0:
        return Cut(axis, begin, size)
    if isinstance(size, int) and isinstance(begin, int):
        return Cut(axis, begin, extent - begin)
    return Cut(axis, begin, None)


def _general(entry: Any, extent: Any) -> Cut:
    """A cut by Python's rules for bounds out of range, computed in the graph where need be."""
    from tinyflow.ops.comparison import equal
    from tinyflow.ops.creation import constant
    from tinyflow.ops.elementwise import select, subtract

    if isinstance(entry, At):
        return Cut(entry.axis, entry.position, 1, 1, FROM_END, True)
    if isinstance(entry, Part):
        axis, begin, size = entry
        if isinstance(size, Value):
            whole: Any = extent if isinstance(extent, Value) else constant(extent, int64)
            rest = subtract(whole, begin)
            return Cut(axis, begin, select(equal(size, -1), rest, size))
        return Cut(axis, begin, size if size >= 0 else extent - begin)
    axis, begin, end, stride = entry
    if not isinstance(stride, int):
        raise Unsupported("a slice with a computed stride", expected="strides that are numbers",
                          hint="use tf.gather(x, tf.range(begin, end, stride))")  # fmt: skip
    low, high = (0, extent) if stride > 0 else (-1, extent - 1)
    first = _clamped(begin, low if stride > 0 else high, extent, low, high)
    last = _clamped(end, high if stride > 0 else low, extent, low, high)
    span = (last - first if stride > 0 else first - last) + (abs(stride) - 1)
    count = span // abs(stride)
    return Cut(axis, first, _larger(count, 0), stride)


def _clamped(bound: Any, default: Any, extent: Any, low: Any, high: Any) -> Any:
    from tinyflow.ops.comparison import less
    from tinyflow.ops.elementwise import select

    if bound is None:
        return default
    if isinstance(bound, Value):
        at: Any = select(less(bound, 0), bound + extent, bound)  # type: ignore[operator]
    else:
        at = bound + extent if bound < 0 else bound
    return _smaller(_larger(at, low), high)


def _smaller(a: Any, b: Any) -> Any:
    from tinyflow.ops.elementwise import minimum

    return minimum(a, b) if isinstance(a, Value) or isinstance(b, Value) else min(a, b)


def _larger(a: Any, b: Any) -> Any:
    from tinyflow.ops.elementwise import maximum

    return maximum(a, b) if isinstance(a, Value) or isinstance(b, Value) else max(a, b)


def _shaped(y: Value, entries: Sequence[Any]) -> Value:
    """Without the axes of positions and with the new ones."""
    from tinyflow.ops.movement import ExpandDims, Squeeze

    gone = tuple(e.axis for e in entries if isinstance(e, At))
    if gone:
        y = emit(Squeeze(gone), y)
    place = 0
    for entry in entries:
        if entry is NEW:
            y = emit(ExpandDims(place), y)
        place += not isinstance(entry, At)
    return y


def _unshaped(dy: Value, entries: Sequence[Any]) -> Value:
    """The reverse of ``_shaped``."""
    from tinyflow.ops.movement import ExpandDims, Squeeze

    kept = [e for e in entries if not isinstance(e, At)]
    added = tuple(place for place, e in enumerate(kept) if e is NEW)
    if added:
        dy = emit(Squeeze(added), dy)
    for entry in entries:
        if isinstance(entry, At):
            dy = emit(ExpandDims(entry.axis), dy)
    return dy


__all__ = ["NEW", "At", "CutsOut", "Part", "PlacesBack", "Range"]
