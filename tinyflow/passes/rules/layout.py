# mypy: disable-error-code="misc, override"
"""Redundant casts and movements of elements. Everything here keeps every bit.

Main name: ``RULES``. May import core, ir.graph, ops and rewrite.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tinyflow.core.dtype import DType
from tinyflow.core.shape import normalize_axes
from tinyflow.ir.graph.builder import emit
from tinyflow.ir.graph.nodes import Op, Value
from tinyflow.ops import (
    comparison,
    contraction,
    convert,
    elementwise,
    joining,
    logical,
    movement,
    padding,
    reduction,
    slicing,
)
from tinyflow.ops.movement import BroadcastTo, Reshape, Transpose
from tinyflow.rewrite.pattern import Hole
from tinyflow.rewrite.rule import Bitwise, Match, RealEqual, Rule, rules


def with_holes(op_class: type[Op], *inputs: Any, **known: Any) -> Any:
    """A pattern of ``op_class`` with any attributes: a hole for each field not in ``known``."""
    op = object.__new__(op_class)
    for field in dataclasses.fields(op_class):  # type: ignore[arg-type]
        value = known.get(field.name, Hole(f"{op_class.__name__}_{field.name}"))
        object.__setattr__(op, field.name, value)
    return emit(op, *inputs)


FORWARDED = rules(contract=Bitwise, shared=True)(lambda x: [
    ("identity", emit(convert.Identity(), x), x),
    ("stop_gradient", emit(convert.StopGradient(), x), x),    # gradients are built already
    ("prevent_gradient", with_holes(convert.PreventGradient, x), x),
])  # fmt: skip


class SameType(Rule):
    """reshape, broadcast, cast, tile, slice, pad ... to the type that x has already -> x"""

    contract = Bitwise

    def example(x="float32[5]"):  # type: ignore[no-untyped-def]
        return movement.reshape(x, (5,))

    def pattern(x):  # type: ignore[no-untyped-def]
        # For each of these ops an equal type means that no element has moved.
        kinds = (
            Reshape, BroadcastTo, movement.Squeeze, movement.Tile, convert.Cast, slicing.Slice,
            padding.Pad, joining.ConcatV2,
        )  # fmt: skip
        return [with_holes(kind, x) for kind in kinds]

    def check(m: Match) -> str | None:
        return None if m.x.type == m.root.type else ""

    def rewrite(m: Match) -> Any:
        return m.x


class AsReshape(Rule):
    """expand_dims(x), squeeze(x), reshape(x, [-1, ...]) -> reshape(x, shape)

    Why: one op for one thing; chains then meet in ReshapeOfReshape, and equal ones in cse.
    """

    contract = Bitwise

    def example(x="float32[5]"):  # type: ignore[no-untyped-def]
        return movement.expand_dims(x, 0)

    def pattern(x):  # type: ignore[no-untyped-def]
        kinds = (movement.ExpandDims, movement.Squeeze, Reshape)
        return [with_holes(kind, x) for kind in kinds]

    def check(m: Match) -> str | None:
        op = m.node.op
        return "" if isinstance(op, Reshape) and op.shape == m.root.type.shape else None

    def rewrite(m: Match) -> Any:
        return emit(Reshape(m.root.type.shape), m.x)


class ReshapeOfReshape(Rule):
    """reshape(reshape(x)) -> reshape(x)"""

    contract = Bitwise
    shared = True  # a reshape moves nothing, so another reader of the inner one costs nothing

    def example(x="float32[2, 5]"):  # type: ignore[no-untyped-def]
        return movement.reshape(movement.reshape(x, (5, 2)), (10,))

    def pattern(x, shape, inner):  # type: ignore[no-untyped-def]
        return emit(Reshape(shape), emit(Reshape(inner), x))

    def rewrite(m: Match) -> Any:
        return emit(Reshape(m.root.type.shape), m.x)


class BroadcastOfBroadcast(Rule):
    """broadcast_to(broadcast_to(x)) -> broadcast_to(x)"""

    contract = Bitwise
    shared = True

    def example(x="float32[5]"):  # type: ignore[no-untyped-def]
        return movement.broadcast_to(movement.broadcast_to(x, (2, 5)), (3, 2, 5))

    def pattern(x, shape, inner):  # type: ignore[no-untyped-def]
        return emit(BroadcastTo(shape), emit(BroadcastTo(inner), x))

    def rewrite(m: Match) -> Any:
        return emit(BroadcastTo(m.shape), m.x)


class MovedNumber(Rule):
    """reshape, transpose, tile ... of broadcast_to(x) -> broadcast_to(x), where x is a scalar"""

    contract = Bitwise
    shared = True

    def example(x="float32[]"):  # type: ignore[no-untyped-def]
        return movement.reshape(movement.broadcast_to(x, (2, 5)), (10,))

    def pattern(x, shape):  # type: ignore[no-untyped-def]
        wide = emit(BroadcastTo(shape), x)
        kinds = (Reshape, Transpose, movement.Tile, movement.ExpandDims, movement.Squeeze)
        return [with_holes(kind, wide) for kind in kinds]

    def check(m: Match) -> str | None:
        return None if m.x.type.shape == () else ""

    def rewrite(m: Match) -> Any:
        return emit(BroadcastTo(m.root.type.shape), m.x)


class TransposeOfTranspose(Rule):
    """transpose(transpose(x, p), q) -> transpose(x, p[q]), or x when that moves nothing"""

    contract = Bitwise
    shared = True

    def example(x="float32[2, 3, 4]"):  # type: ignore[no-untyped-def]
        return movement.transpose(movement.transpose(x, (1, 2, 0)), (1, 2, 0))

    def pattern(x, outer, inner):  # type: ignore[no-untyped-def]
        return emit(Transpose(outer), emit(Transpose(inner), x))

    def rewrite(m: Match) -> Any:
        rank = len(m.root.type.shape)
        first, second = Transpose(m.inner).axes(rank), Transpose(m.outer).axes(rank)
        return emit(Transpose(tuple(first[a] for a in second)), m.x)


class TransposeOfNothing(Rule):
    """transpose(x, perm) -> reshape(x), or x, where perm moves axes of extent 1 only"""

    contract = Bitwise

    def example(x="float32[1, 5]"):  # type: ignore[no-untyped-def]
        return movement.transpose(x, (1, 0))

    def pattern(x, perm):  # type: ignore[no-untyped-def]
        return emit(Transpose(perm), x)

    def check(m: Match) -> str | None:
        shape = m.x.type.shape
        moved = [a for a in Transpose(m.perm).axes(len(shape)) if shape[a] != 1]
        return None if moved == sorted(moved) else ""

    def rewrite(m: Match) -> Any:
        return m.x if m.x.type == m.root.type else emit(Reshape(m.root.type.shape), m.x)


def without_transpose(m: Match, first: str, second: str) -> Any:
    """The product at the root reading m.x itself instead of its transpose, by the other flag.

    first, second: the attributes that say whether the first and the second factor are transposed.
    """
    left, right = m.node.inputs
    op = m.node.op
    if isinstance(left.node.op, Transpose) and left.node.inputs[0] is m.x:
        return emit(dataclasses.replace(op, **{first: not getattr(op, first)}), m.x, right)
    return emit(dataclasses.replace(op, **{second: not getattr(op, second)}), left, m.x)


class TransposeIntoMatMul(Rule):
    """matmul(transpose(x), y) -> matmul(x, y, transpose_a=not transpose_a), the same for y

    Why: the kernel packs its operands anyway, so it reads the transposed one for free.
    """

    contract = Bitwise
    shared = True

    def example(x="float32[2, 5]", y="float32[2, 3]"):  # type: ignore[no-untyped-def]
        return contraction.matmul(movement.transpose(x, (1, 0)), y)

    def pattern(x, y, perm, a, b):  # type: ignore[no-untyped-def]
        matmul = with_holes(contraction.MatMul, x, y, transpose_a=a, transpose_b=b).op
        turned = emit(Transpose(perm), x)
        return [emit(matmul, turned, y), emit(matmul, y, turned)]

    def check(m: Match) -> str | None:
        return None if Transpose(m.perm).axes(2) == (1, 0) else ""

    def rewrite(m: Match) -> Any:
        return without_transpose(m, "transpose_a", "transpose_b")


class CastThroughWider(Rule):
    """cast(cast(x, wide), dtype of x) -> x, where wide holds every value of x"""

    contract = Bitwise
    shared = True

    def example(x="float32[5]"):  # type: ignore[no-untyped-def]
        return convert.cast(convert.cast(x, "float64"), "float32")

    def pattern(x, wide, narrow):  # type: ignore[no-untyped-def]
        return emit(convert.Cast(narrow), emit(convert.Cast(wide), x))

    def check(m: Match) -> str | None:
        if m.narrow is not m.x.dtype:
            return ""
        return None if holds(m.wide, m.narrow) else f"{m.wide} does not hold every {m.narrow}"

    def rewrite(m: Match) -> Any:
        return m.x


def holds(wide: DType, narrow: DType) -> bool:
    """Whether every value of ``narrow`` is exact in ``wide``."""
    if wide is narrow or narrow.is_bool:
        return True
    if wide.is_floating:
        digits = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}
        if narrow.is_floating:
            pair = {wide.name, narrow.name}
            return digits[wide.name] >= digits[narrow.name] and pair != {"float16", "bfloat16"}
        return narrow.bits - (narrow.kind == "int") <= digits[wide.name]
    if wide.is_integer and narrow.is_integer:
        spare = wide.bits - narrow.bits
        return spare > 0 and (narrow.is_unsigned or not wide.is_unsigned)
    return False


class BroadcastIntoOperation(Rule):
    """op(broadcast_to(x), y) -> op(x, y), where the op's own broadcasting gives the same type

    Why: gradients of reductions stretch; every element-wise kernel stretches by itself.
    """

    contract = Bitwise
    shared = True

    def example(x="float32[5]", y="float32[2, 5]"):  # type: ignore[no-untyped-def]
        return elementwise.subtract(y, movement.broadcast_to(x, (2, 5)))

    def pattern(x, y, shape):  # type: ignore[no-untyped-def]
        wide = emit(BroadcastTo(shape), x)
        kinds = [
            elementwise.Add, elementwise.Sub, elementwise.Mul, elementwise.RealDiv,
            elementwise.Maximum, elementwise.Minimum, elementwise.SquaredDifference,
            comparison.Less, comparison.LessEqual, comparison.Greater, comparison.GreaterEqual,
            comparison.Equal, comparison.NotEqual, logical.LogicalAnd, logical.LogicalOr,
        ]  # fmt: skip
        pairs = [emit(kind(), wide, y) for kind in kinds]
        pairs += [emit(kind(), y, wide) for kind in kinds if kind.__name__ not in _COMMUTATIVE]
        return pairs

    def check(m: Match) -> str | None:
        kept = m.y.type.shape
        rank = len(m.root.type.shape)
        if all(v is m.y for v in m.node.inputs):
            return ""  # one broadcast is both operands: as y it stays
        # The other operand must have every extent that x lacks: then nothing is lost.
        inner = (1,) * (rank - len(m.x.type.shape)) + m.x.type.shape
        other = (1,) * (rank - len(kept)) + kept
        fits = all(
            want in (a, b) for want, a, b in zip(m.root.type.shape, inner, other, strict=True)
        )
        return None if fits else ""

    def rewrite(m: Match) -> Any:
        op = m.node.op
        return emit(op, *[_unstretched(v, m) for v in m.node.inputs])


_COMMUTATIVE = frozenset({
    "Add", "Mul", "Maximum", "Minimum", "SquaredDifference", "Equal", "NotEqual", "LogicalAnd",
    "LogicalOr",
})  # fmt: skip


def _unstretched(value: Value, m: Match) -> Value:
    """x for the one broadcast that was matched; the operand y as it is, a broadcast or not."""
    is_match = (
        value is not m.y
        and type(value.node.op) is BroadcastTo
        and value.node.inputs[0] is m.x
    )
    return m.x if is_match else value


class BroadcastIntoSelect(Rule):
    """select(c, broadcast_to(x), y) -> select(c, x, y), where the type stays the same"""

    contract = Bitwise
    shared = True

    def example(c="bool[2, 1]", x="float32[5]", y="float32[2, 5]"):  # type: ignore[no-untyped-def]
        return logical.select(c, movement.broadcast_to(x, (2, 5)), y)

    def pattern(c, x, y, shape):  # type: ignore[no-untyped-def]
        wide = emit(BroadcastTo(shape), x)
        return [emit(logical.Select(), c, wide, y), emit(logical.Select(), c, y, wide)]

    def check(m: Match) -> str | None:
        shape = m.root.type.shape
        if m.node.inputs[1] is m.node.inputs[2]:
            return ""  # one broadcast is both operands: as y it stays
        return None if shape in (m.c.type.shape, m.y.type.shape) else ""

    def rewrite(m: Match) -> Any:
        c, first, second = m.node.inputs
        return emit(logical.Select(), c, _unstretched(first, m), _unstretched(second, m))


class NormalAxes(Rule):
    """sum(x, None) or sum(x, [-1]) -> sum(x, sorted axes from the front), for every reduction

    Why: one spelling, so that equal reductions are equal for cse and for the kernel cache.
    """

    contract = Bitwise

    def example(x="float32[2, 5]"):  # type: ignore[no-untyped-def]
        return reduction.reduce_sum(x, (-1,))

    def pattern(x):  # type: ignore[no-untyped-def]
        return [with_holes(kind, x) for kind in _REDUCTIONS]

    def check(m: Match) -> str | None:
        axis = m.node.op.axis
        return "" if axis == normalize_axes(axis, len(m.x.type.shape)) else None

    def rewrite(m: Match) -> Any:
        axes = normalize_axes(m.node.op.axis, len(m.x.type.shape))
        return emit(dataclasses.replace(m.node.op, axis=axes), m.x)


_REDUCTIONS: list[type[Op]] = [
    reduction.Sum, reduction.Mean, reduction.Prod, reduction.Max, reduction.Min, reduction.All,
    reduction.Any, reduction.LogSumExp,
]  # fmt: skip


class ReductionOfNothing(Rule):
    """sum, mean, max ... over axes of extent 1 -> reshape(x)"""

    contract = RealEqual  # a sum starts from 0.0, so it turns -0.0 into 0.0

    def example(x="float32[1, 5]"):  # type: ignore[no-untyped-def]
        return reduction.reduce_max(x, (0,))

    def pattern(x):  # type: ignore[no-untyped-def]
        return [with_holes(kind, x) for kind in _REDUCTIONS if kind is not reduction.LogSumExp]

    def check(m: Match) -> str | None:
        shape = m.x.type.shape
        axes = normalize_axes(m.node.op.axis, len(shape))
        return None if all(shape[a] == 1 for a in axes) else ""

    def rewrite(m: Match) -> Any:
        return emit(Reshape(m.root.type.shape), m.x)


class ReshapeOfReduction(Rule):
    """reshape(sum(x, keepdims=k)) -> sum(x, keepdims=not k), where that gives the same type

    Why: the folded axes come back as extents of 1 without an op between the reduction and its use.
    """

    contract = Bitwise

    def example(x="float32[2, 5]"):  # type: ignore[no-untyped-def]
        return movement.reshape(reduction.reduce_sum(x, (1,)), (2, 1))

    def pattern(x, shape):  # type: ignore[no-untyped-def]
        return [emit(Reshape(shape), with_holes(kind, x)) for kind in _REDUCTIONS]

    def check(m: Match) -> str | None:
        inner = m.node.inputs[0].node.op
        other = dataclasses.replace(inner, keepdims=not inner.keepdims)
        return None if other.infer(m.x.type) == m.root.type else ""

    def rewrite(m: Match) -> Any:
        inner = m.node.inputs[0].node.op
        return emit(dataclasses.replace(inner, keepdims=not inner.keepdims), m.x)


RULES: list[Any] = [
    *FORWARDED, SameType, MovedNumber, ReshapeOfReduction, ReshapeOfReshape, AsReshape,
    BroadcastOfBroadcast, TransposeOfTranspose, TransposeOfNothing, TransposeIntoMatMul,
    CastThroughWider, BroadcastIntoOperation, BroadcastIntoSelect, NormalAxes, ReductionOfNothing,
]  # fmt: skip

