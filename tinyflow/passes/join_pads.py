"""Sums of slices' gradients become concatenations.

May import core, ir.graph, ops.creation, ops.elementwise, ops.joining, ops.padding, passes.base.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Function, Node, Value
from tinyflow.ir.graph.visit import rebuild
from tinyflow.passes.base import graph_pass


class _Piece(NamedTuple):
    """The part of a sum that is not zero: [start, stop) of ``axis``."""

    axis: int
    start: int
    stop: int
    value: Value
    position: int


@graph_pass(needs={"static_types"}, level=2)
def join_pads(fn: Function) -> Function:
    """Pads with zeros that do not overlap, added up, are their middles side by side.

    The gradient of x with respect to 64 slices x[:, t] is a sum of 64 arrays of the size of x, each
    zero but for one step. Exact for real numbers: x + 0 differs from x in the sign of a zero only.

    Before: %1 = Pad(%a) {paddings=((0, 3),)}; %2 = Pad(%b) {paddings=((2, 0),)}; %3 = AddN(%1, %2)
    After:  %3 = ConcatV2(%a, %b)
    """
    builder = Builder()

    def change(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if node.op.type_name not in ("AddN", "Add") or len(inputs) < 2:
            return None
        joined = _longest_row(inputs)
        if len(joined) < 2:
            return None
        from tinyflow.ops.elementwise import add_n

        taken = {piece.position for piece in joined}
        first = min(taken)
        with building(builder), builder.on_behalf_of(node.source, node.origin):
            whole = _side_by_side(joined, node.types[0].shape or ())
            terms = [
                whole if n == first else value
                for n, value in enumerate(inputs)
                if n == first or n not in taken
            ]
            result = terms[0] if len(terms) == 1 else add_n(terms)
        if result.node.name is None:
            result.node.name = node.name
        return [result]

    return rebuild(fn, change)


def _longest_row(values: Sequence[Value]) -> list[_Piece]:
    """The most pads along one axis whose middles do not overlap, in order along it."""
    by_axis: dict[int, list[_Piece]] = {}
    for position, value in enumerate(values):
        piece = _piece(value, position)
        if piece is not None:
            by_axis.setdefault(piece.axis, []).append(piece)
    best: list[_Piece] = []
    for pieces in by_axis.values():
        row: list[_Piece] = []
        for piece in sorted(pieces, key=lambda p: (p.start, p.stop)):
            if piece.stop > piece.start and (not row or row[-1].stop <= piece.start):
                row.append(piece)
        if len(row) > len(best):
            best = row
    return best


def _piece(value: Value, position: int) -> _Piece | None:
    op: Any = value.node.op
    if op.type_name != "Pad" or op.value != 0:
        return None
    axes = [d for d, (before, after) in enumerate(op.paddings) if before or after]
    if len(axes) != 1:
        return None
    (axis,) = axes
    start = op.paddings[axis][0]
    source = value.node.inputs[0]
    extent: Any = source.type.shape[axis]  # type: ignore[index]
    if type(start) is not int or type(extent) is not int:
        return None  # their order along the axis is not known
    return _Piece(axis, start, start + extent, source, position)


def _side_by_side(row: Sequence[_Piece], shape: Sequence[Any]) -> Any:
    """The pieces in their places, zeros between them."""
    from tinyflow.ops.creation import zeros
    from tinyflow.ops.joining import concat

    axis = row[0].axis
    parts: list[Any] = []

    def gap(extent: int) -> None:
        if extent:
            between = [extent if d == axis else n for d, n in enumerate(shape)]
            parts.append(zeros(between, row[0].value.dtype))

    end = 0
    for piece in row:
        gap(piece.start - end)
        parts.append(piece.value)
        end = piece.stop
    gap(shape[axis] - end)
    return concat(parts, axis)
