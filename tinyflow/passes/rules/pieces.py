# mypy: disable-error-code="misc, override"
"""Slices, pads and concatenations that meet. Everything here keeps every bit.

Main name: ``RULES``. May import core, ir.graph, ops and rewrite.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tinyflow.core.dtype import SMALL_INTEGERS
from tinyflow.core.shape import is_static, normalize_axes, normalize_axis
from tinyflow.ir.graph.builder import emit
from tinyflow.ir.graph.nodes import Op, Value
from tinyflow.ops import convert, joining, movement, padding, slicing
from tinyflow.ops.slice_bounds import Range
from tinyflow.ops.strided import StridedSlice
from tinyflow.passes.rules.layout import holds, with_holes
from tinyflow.rewrite.rule import Bitwise, Match, Matcher, Rule

Extents = tuple[int, ...]


class Piece(NamedTuple):
    """``source[begin : begin + size]`` along every axis."""

    source: Value
    begin: Extents
    size: Extents


def piece_of(value: Value) -> Piece | None:
    """The piece of another value that a slice takes; None for anything else."""
    node = value.node
    op: Any = node.op
    if not node.inputs:
        return None
    source = node.inputs[0]
    shape, size = source.type.shape, value.type.shape
    if shape is None or size is None or not (is_static(shape) and is_static(size)):
        return None
    if isinstance(op, slicing.Slice):
        begin = op.begin
    elif isinstance(op, padding.PadGrad):
        begin = tuple(before for before, _ in op.paddings)
    elif isinstance(op, StridedSlice):
        entries = op.entries(len(shape))
        if not all(isinstance(e, Range) and e.stride == 1 for e in entries):
            return None
        extents: Any = shape
        begin = tuple(slice(e.begin, e.end).indices(n)[0]
                      for e, n in zip(entries, extents, strict=True))  # fmt: skip
    else:
        return None
    if len(begin) != len(shape) or not is_static(begin):
        return None
    return Piece(source, begin, size)  # type: ignore[arg-type]


def taken(piece: Piece) -> Value:
    """The piece itself, or its source where it is all of it."""
    if piece.size == piece.source.type.shape:
        return piece.source
    return emit(slicing.Slice(piece.begin, piece.size), piece.source)  # type: ignore[no-any-return]


_SLICES: tuple[type[Op], ...] = (slicing.Slice, StridedSlice, padding.PadGrad)


class SliceOfSlice(Rule):
    """slice(slice(x)) -> slice(x)"""

    contract = Bitwise
    shared = True

    def example(x="float32[7, 5]"):  # type: ignore[no-untyped-def]
        return slicing.slice_(slicing.slice_(x, (2, 0), (5, 4)), (1, 1), (3, 3))

    def pattern(x):  # type: ignore[no-untyped-def]
        return [with_holes(kind, x) for kind in _SLICES]

    def check(m: Match) -> str | None:
        return None if piece_of(m.root) and piece_of(m.x) else ""

    def rewrite(m: Match) -> Any:
        outer, inner = piece_of(m.root), piece_of(m.x)
        assert outer is not None and inner is not None
        begin = tuple(a + b for a, b in zip(inner.begin, outer.begin, strict=True))
        return taken(Piece(inner.source, begin, outer.size))


class SliceOfConcat(Rule):
    """slice(concat(..., x, ...)) -> slice(x), where it takes elements of x only

    Why: the gradient of a concatenation cuts it where it was joined.
    """

    contract = Bitwise
    shared = True

    def example(x="float32[2, 5]", y="float32[3, 5]"):  # type: ignore[no-untyped-def]
        return slicing.slice_(joining.concat([x, y], 0), (2, 1), (3, 4))

    def pattern(x):  # type: ignore[no-untyped-def]
        return [with_holes(kind, x) for kind in _SLICES]

    def check(m: Match) -> str | None:
        if not isinstance(m.x.node.op, joining.ConcatV2):
            return ""
        return None if _within_one(m.root) else ""

    def rewrite(m: Match) -> Any:
        found = _within_one(m.root)
        assert found is not None
        return taken(found)


def _within_one(value: Value) -> Piece | None:
    """The piece of the one operand of a concatenation that ``value`` is a piece of."""
    piece = piece_of(value)
    if piece is None:
        return None
    node = piece.source.node
    axis = normalize_axis(node.op.axis, len(piece.begin))  # type: ignore[attr-defined]
    start = piece.begin[axis]
    for operand in node.inputs:
        extent: Any = operand.type.shape[axis]  # type: ignore[index]
        if type(extent) is not int:
            return None
        if start < extent:
            if start + piece.size[axis] > extent:
                return None
            begin = (*piece.begin[:axis], start, *piece.begin[axis + 1 :])
            return Piece(operand, begin, piece.size)
        start -= extent
    return None


class SliceOfPad(Rule):
    """slice(pad(x)) -> slice(x), where it takes elements of x only"""

    contract = Bitwise
    shared = True

    def example(x="float32[3, 5]"):  # type: ignore[no-untyped-def]
        return slicing.slice_(padding.pad(x, ((1, 2), (0, 3))), (1, 1), (3, 4))

    def pattern(x, paddings, value):  # type: ignore[no-untyped-def]
        wide = emit(with_holes(padding.Pad, x, paddings=paddings, value=value).op, x)
        return [with_holes(kind, wide) for kind in _SLICES]

    def check(m: Match) -> str | None:
        piece = piece_of(m.root)
        if piece is None:
            return ""
        inside = all(
            before <= start and start + size <= before + extent
            for start, size, (before, _), extent in zip(
                piece.begin, piece.size, m.paddings, m.x.type.shape, strict=True
            )
        )
        return None if inside else ""

    def rewrite(m: Match) -> Any:
        piece = piece_of(m.root)
        assert piece is not None
        begin = tuple(s - before for s, (before, _) in zip(piece.begin, m.paddings, strict=True))
        return taken(Piece(m.x, begin, piece.size))


class PadOfPad(Rule):
    """pad(pad(x, p), q) -> pad(x, p + q), where both write the same value"""

    contract = Bitwise

    def example(x="float32[3, 5]"):  # type: ignore[no-untyped-def]
        return padding.pad(padding.pad(x, ((1, 2), (0, 3))), ((0, 1), (2, 0)))

    def pattern(x, first, second, value):  # type: ignore[no-untyped-def]
        return emit(padding.Pad(second, value), emit(padding.Pad(first, value), x))

    def rewrite(m: Match) -> Any:
        both = tuple(
            (a + c, b + d) for (a, b), (c, d) in zip(m.first, m.second, strict=True)
        )
        return emit(padding.Pad(both, m.value), m.x)


class PadOfWidened(Rule):
    """pad(cast(x)) -> cast(pad(x)), where an integer becomes a wider one

    Why: the padded copy of an int8 image takes a quarter of the memory, and a convolution of int32
    reads int8 as it lies there.
    """

    contract = Bitwise

    def example(x="int8[2, 3]"):  # type: ignore[no-untyped-def]
        return padding.pad(convert.cast(x, "int32"), ((1, 0), (0, 2)))

    def pattern(x, dtype, paddings, value):  # type: ignore[no-untyped-def]
        return emit(padding.Pad(paddings, value), emit(convert.Cast(dtype), x))

    def check(m: Match) -> str | None:
        narrow, wide = m.x.dtype, m.dtype
        if not (narrow in SMALL_INTEGERS and wide.kind == "int" and wide.bits > narrow.bits):
            return "not from a small integer to a wider one"
        return None if narrow.min <= m.value <= narrow.max else "the value does not fit"

    def rewrite(m: Match) -> Any:
        return emit(convert.Cast(m.dtype), emit(padding.Pad(m.paddings, m.value), m.x))


class CastOfCast(Rule):
    """cast(cast(x, wide), dtype) -> cast(x, dtype), where wide holds every value of x"""

    contract = Bitwise
    shared = True

    def example(x="int32[5]"):  # type: ignore[no-untyped-def]
        return convert.cast(convert.cast(x, "int64"), "float32")

    def pattern(x, wide, dtype):  # type: ignore[no-untyped-def]
        return emit(convert.Cast(dtype), emit(convert.Cast(wide), x))

    def check(m: Match) -> str | None:
        if m.dtype is m.x.dtype:
            return ""  # CastThroughWider
        return None if holds(m.wide, m.x.dtype) else f"{m.wide} does not hold every {m.x.dtype}"

    def rewrite(m: Match) -> Any:
        return emit(convert.Cast(m.dtype), m.x)


class ReverseOfReverse(Rule):
    """reverse(reverse(x, axes), axes) -> x"""

    contract = Bitwise
    shared = True

    def example(x="float32[3, 5]"):  # type: ignore[no-untyped-def]
        return movement.reverse(movement.reverse(x, (0, 1)), (1, 0))

    def pattern(x, outer, inner):  # type: ignore[no-untyped-def]
        return emit(movement.ReverseV2(outer), emit(movement.ReverseV2(inner), x))

    def check(m: Match) -> str | None:
        rank = len(m.x.type.shape)
        same = normalize_axes(m.outer, rank) == normalize_axes(m.inner, rank)
        return None if same else ""

    def rewrite(m: Match) -> Any:
        return m.x


# ---- concatenations have any number of operands --------------------------------------------------
class _AnyOperands(Matcher):
    """Matches every node of one class, whatever it reads."""

    def __init__(self, rule: Rule, op_class: type[Op]) -> None:
        self.rule, self.root_class = rule, op_class
        self.children, self.literals, self.equal = (), (), ()

    def match(self, node: Any) -> tuple[dict[str, Any], list[Value]]:
        return {}, []


class RuleOfNode(Rule):
    """A rule whose ``check`` and ``rewrite`` look at all inputs of a node of class ``root``."""

    root: type[Op]

    def patterns(self) -> list[Any]:
        return []

    def compiled(self) -> list[Matcher]:
        return [_AnyOperands(self, self.root)]


class ConcatOfConcat(RuleOfNode):
    """concat(concat(x, y), z) -> concat(x, y, z), along the same axis"""

    contract = Bitwise
    root = joining.ConcatV2

    def example(x="float32[2, 5]", y="float32[3, 5]"):  # type: ignore[no-untyped-def]
        return joining.concat([y, joining.concat([x, y], 0), x], 0)

    def check(m: Match) -> str | None:
        return None if any(_is_part(v, m) for v in m.node.inputs) else ""

    def rewrite(m: Match) -> Any:
        operands: list[Value] = []
        for value in m.node.inputs:
            operands += value.node.inputs if _is_part(value, m) else (value,)
        return emit(m.node.op, *operands)


def _is_part(value: Value, m: Match) -> bool:
    """Whether the value is a concatenation along the root's axis that nothing else reads."""
    op = value.node.op
    rank = m.root.type.rank
    if not isinstance(op, joining.ConcatV2) or rank is None or value.node.control_inputs:
        return False
    same = normalize_axis(op.axis, rank) == normalize_axis(m.node.op.axis, rank)
    return same and m.uses(value) == m.node.inputs.count(value)


class ConcatOfSlices(RuleOfNode):
    """concat(x[:a], x[a:]) -> x: neighbouring pieces of one value are one piece

    Why: a split whose parts nothing has changed.
    """

    contract = Bitwise
    root = joining.ConcatV2

    def example(x="float32[7, 5]", y="float32[3, 4]"):  # type: ignore[no-untyped-def]
        first = slicing.slice_(x, (1, 0), (2, 4))
        return joining.concat([y, first, slicing.slice_(x, (3, 0), (4, 4))], 0)

    def check(m: Match) -> str | None:
        return None if len(_joined(m)) < len(m.node.inputs) else ""

    def rewrite(m: Match) -> Any:
        parts = [taken(p) if isinstance(p, Piece) else p for p in _joined(m)]
        return parts[0] if len(parts) == 1 else emit(m.node.op, *parts)


def _joined(m: Match) -> list[Value | Piece]:
    """The operands, with neighbours that continue each other in one source made one piece."""
    rank = m.root.type.rank
    if rank is None:
        return list(m.node.inputs)
    axis = normalize_axis(m.node.op.axis, rank)
    found: list[Value | Piece] = []
    last: Piece | None = None
    for value in m.node.inputs:
        piece = piece_of(value)
        if piece is not None and last is not None and _continues(last, piece, axis):
            size = list(last.size)
            size[axis] += piece.size[axis]
            last = Piece(last.source, last.begin, tuple(size))
            found[-1] = last
            continue
        found.append(value)
        last = piece
    return found


def _continues(first: Piece, second: Piece, axis: int) -> bool:
    others = [d for d in range(len(first.begin)) if d != axis]
    return (
        first.source is second.source
        and all(first.begin[d] == second.begin[d] for d in others)
        and first.begin[axis] + first.size[axis] == second.begin[axis]
    )


RULES: list[Any] = [
    SliceOfSlice, SliceOfConcat, SliceOfPad, PadOfPad, PadOfWidened, CastOfCast, ReverseOfReverse,
    ConcatOfConcat, ConcatOfSlices,
]  # fmt: skip
