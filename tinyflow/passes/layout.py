"""Image layouts: what asks for channels first runs with channels last, in two phases.

Main names: the passes ``expand_layouts`` and ``collapse_layouts``. May import core, ir.graph, ops,
passes.base, rules.pieces and fusion's cost.

Phase 1 puts a pair of transpositions around every op that knows a data format; phase 2 moves
transpositions down through element-wise ops, reductions, pads and concatenations until they meet
and cancel. What remains stands where the layout is seen: at feeds, fetches and reshapes.

The result keeps its value over the reals but not its bits: a sum over an image adds in the order in
which the image lies in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from tinyflow.core.shape import normalize_axes, normalize_axis
from tinyflow.ir.graph.builder import Builder, building, emit
from tinyflow.ir.graph.nodes import Effect, Function, Node, Op, Value
from tinyflow.ir.graph.visit import bind, map_controls, remap, result_values
from tinyflow.ops.base import Binary, Unary
from tinyflow.ops.conv_grads import ConvFilterGrad, ConvInputGrad
from tinyflow.ops.convert import Cast
from tinyflow.ops.convolution import Conv, ConvOp
from tinyflow.ops.creation import FilledLike
from tinyflow.ops.elementwise import AddN
from tinyflow.ops.joining import ConcatPart, ConcatV2
from tinyflow.ops.logical import Select
from tinyflow.ops.movement import BroadcastTo, Transpose, expand_dims
from tinyflow.ops.nn import BiasAdd
from tinyflow.ops.normalization import FusedBatchNorm
from tinyflow.ops.padding import MirrorPad, MirrorPadGrad, Pad, PadGrad
from tinyflow.ops.pool_windows import PoolOp
from tinyflow.ops.reduction import L2Loss, Reduction
from tinyflow.ops.slicing import Slice
from tinyflow.ops.strided import StridedSlice
from tinyflow.ops.windows import FORMATS, channels_first
from tinyflow.passes.base import graph_pass
from tinyflow.passes.fusion.cost import elements, size_bytes
from tinyflow.passes.rules.pieces import piece_of

#: channels first -> channels last
LAST = {first: last for last, first in FORMATS.values()}

#: Operations of a convolution for which channels last save as much time as a transposition takes
#: per byte. Measured on one core, 3 x 3 and 5 x 5 filters, 32 to 128 channels: 140 operations per
#: nanosecond instead of 50 to 90, forward and for the input's gradient; the filter's gradient, and
#: inputs of few channels, are equally fast in both. Transpositions move 10 bytes per nanosecond.
OPERATIONS_PER_BYTE = 50
#: What 1 x 1 filters gain, as a share of that.
ONE_TAP_SHARE = 6
FEW_CHANNELS = 8


def to_last(rank: int) -> tuple[int, ...]:
    """The permutation that puts axis 1 last."""
    return (0, *range(2, rank), 1)


def to_first(rank: int) -> tuple[int, ...]:
    """Its inverse: the last axis comes second."""
    return (0, rank - 1, *range(1, rank - 1))


# ---- phase 1 -------------------------------------------------------------------------------------
def images(node: Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Which inputs and which results of a node with a data format are images."""
    op = node.op
    if isinstance(op, Conv):
        return (0,), (0,)
    if isinstance(op, ConvInputGrad):
        return (0, 2), (0,)
    if isinstance(op, ConvFilterGrad):
        return (0, 1), ()
    if isinstance(op, PoolOp):
        return tuple(range(len(node.inputs))), (0,)
    return (0,), (0,)


def is_channels_first(node: Node) -> bool:
    op = node.op
    if not isinstance(op, (ConvOp, PoolOp, BiasAdd, FusedBatchNorm)):
        return False
    if isinstance(op, PoolOp) and not op.turns:
        return False
    return channels_first(op.data_format) and (node.inputs[0].type.rank or 0) > 2


@graph_pass(needs={"static_types"}, level=2)
def expand_layouts(fn: Function) -> Function:
    """Pairs of transpositions around every op in a format with channels first, where that pays.

    Before: %1 = Conv(%x, %w) {data_format=NCHW}
    After:  %2 = Transpose(%x) {perm=(0, 2, 3, 1)}; %3 = Conv(%2, %w) {data_format=NHWC}
            %1 = Transpose(%3) {perm=(0, 3, 1, 2)}
    It pays where the convolutions gain more time than the transpositions that phase 2 leaves cost.
    """
    saved = sum(gaining_operations(n) for n in fn.nodes if is_channels_first(n))
    if not saved:
        return fn
    expanded = _expanded(fn)
    extra = moved_bytes(_collapsed(expanded)) - moved_bytes(fn)
    return expanded if saved >= extra * OPERATIONS_PER_BYTE else fn


def gaining_operations(node: Node) -> int:
    """Operations of a convolution or its input's gradient that channels last make faster."""
    op = node.op
    if not isinstance(op, (Conv, ConvInputGrad)):
        return 0
    windows = node.outputs[0] if isinstance(op, Conv) else node.inputs[0]
    taps = node.inputs[1].type.shape or ()
    if not taps or elements(taps[-2:-1]) < FEW_CHANNELS:
        return 0
    work = 2 * elements(windows.type.shape or ()) * elements(taps[:-1])
    return work // ONE_TAP_SHARE if elements(taps[:-2]) == 1 else work


def moved_bytes(fn: Function) -> int:
    """Bytes of all transpositions of images that really move something."""
    return sum(
        size_bytes(n.outputs[0])
        for n in fn.nodes
        if isinstance(n.op, Transpose) and (n.types[0].rank or 0) > 2 and not _is_free(n)
    )


def _is_free(node: Node) -> bool:
    """Whether only extents of 1 change places."""
    shape = node.inputs[0].type.shape or ()
    moved = [a for a in node.op.axes(len(shape)) if shape[a] != 1]  # type: ignore[attr-defined]
    return moved == sorted(moved)


def _expanded(fn: Function) -> Function:
    new_values: dict[Value, Value] = {}
    builder = Builder()
    with building(builder):
        for node in fn.nodes:
            inputs = tuple([new_values.get(v, v) for v in node.inputs])
            if is_channels_first(node):
                with builder.on_behalf_of(node.source, node.origin):
                    bind(node, _around(node, inputs), new_values)
            elif inputs != node.inputs or node.control_inputs:
                controls = map_controls(node.control_inputs, new_values)
                made = node.moved(inputs, controls)
                bind(node, made.outputs, new_values)
    return remap(fn, new_values)


def _around(node: Node, inputs: tuple[Value, ...]) -> list[Value]:
    """The node with channels last between transpositions."""
    op: Any = node.op
    read, made = images(node)
    rank = node.inputs[0].type.rank
    assert rank is not None
    turned = [
        emit(Transpose(to_last(rank)), v) if n in read else v for n, v in enumerate(inputs)
    ]
    results = result_values(emit(replace(op, data_format=LAST[op.data_format]), *turned))
    back = [emit(Transpose(to_first(rank)), v) if n in made else v for n, v in enumerate(results)]
    for value in back:
        value.node.name = node.name
    return back


# ---- phase 2 -------------------------------------------------------------------------------------
@graph_pass(needs={"static_types"}, level=2)
def collapse_layouts(fn: Function) -> Function:
    """Transpositions between channels last and first move down until they meet, and cancel.

    Before: %1 = Transpose(%0) {perm=(0, 3, 1, 2)}; %2 = Relu(%1)
            %3 = Transpose(%2) {perm=(0, 2, 3, 1)}
    After:  %3 = Relu(%0)
    Kept as it was where fewer bytes would not move afterwards.
    """
    turns = (n for n in fn.nodes if isinstance(n.op, Transpose) and (n.types[0].rank or 0) > 2)
    if not any(n.op.axes(n.types[0].rank) == to_first(n.types[0].rank) for n in turns):  # type: ignore[attr-defined, arg-type]
        return fn
    collapsed = _collapsed(fn)
    return collapsed if moved_bytes(collapsed) < moved_bytes(fn) else fn


def _collapsed(fn: Function) -> Function:
    return _Collapse(fn).run()


class _Collapse:
    """One walk over a function. Values of rank r that are transpositions to channels first are not
    made: ``last`` has what they are made from, and consumers take that where they can.

    first: such values that a consumer needs as they are.   turned: transpositions to channels last
    that had to be made.   wanted: values of which such a transposition is needed in the end.
    """

    def __init__(self, fn: Function) -> None:
        self.fn = fn
        self.last: dict[Value, Value] = {}
        self.first: dict[Value, Value] = {}
        self.turned: dict[Value, Value] = {}
        self.new_values: dict[Value, Value] = {}
        self.builder = Builder()
        self.wanted = _wanted(fn)

    def run(self) -> Function:
        with building(self.builder):
            for node in self.fn.nodes:
                with self.builder.on_behalf_of(node.source, node.origin):
                    if not self.moved_through(node):
                        self.keep(node)
            for value in self.fn.outputs:
                if value in self.last:
                    self.new_values[value] = self.plain(value)
        return remap(self.fn, self.new_values)

    # ---- values ------------------------------------------------------------------------------
    def plain(self, value: Value) -> Value:
        """The value as the function wrote it."""
        source = self.last.get(value)
        if source is None:
            return self.new_values.get(value, value)
        if value not in self.first:
            self.first[value] = emit(Transpose(to_first(len(value.type.shape or ()))), source)
        return self.first[value]

    def channels_last(self, value: Value) -> Value:
        """The value with its axis 1 last."""
        if value in self.last:
            return self.last[value]
        if value not in self.turned:
            self.turned[value] = self.stretched(value)
        return self.turned[value]

    def stretched(self, value: Value) -> Value:
        """The value turned; a broadcast is turned before it is made."""
        shape = value.type.shape
        assert shape is not None
        if not isinstance(value.node.op, BroadcastTo):
            return emit(Transpose(to_last(len(shape))), self.plain(value))  # type: ignore[no-any-return]
        narrow = self.narrow(value.node.inputs[0], len(shape))
        return emit(BroadcastTo(tuple(shape[a] for a in to_last(len(shape)))), narrow)  # type: ignore[no-any-return]

    def narrow(self, value: Value, rank: int) -> Value:
        """An operand that broadcasts against values of this rank with channels first."""
        if value in self.last and value.type.rank == rank:
            return self.last[value]
        found = self.plain(value)
        own = value.type.rank
        assert own is not None
        if own == 0:
            return found
        for _ in range(rank - own):
            found = expand_dims(found, 0)
        return emit(Transpose(to_last(rank)), found)  # type: ignore[no-any-return]

    def cost(self, value: Value) -> int:
        """Bytes moved when the value is needed with channels last."""
        if value in self.last or value in self.turned or isinstance(value.node.op, BroadcastTo):
            return 0
        return size_bytes(value)

    def gains(self, node: Node, operands: Sequence[Value]) -> bool:
        """Whether working on the operands with channels last moves fewer bytes."""
        known = [v for v in operands if v in self.last]
        here = sum(self.cost(v) for v in operands)
        otherwise = sum(size_bytes(v) for v in known if v not in self.first)
        if node.outputs[0] in self.wanted:
            otherwise += size_bytes(node.outputs[0])
        return here <= otherwise if known else here < otherwise

    # ---- nodes -------------------------------------------------------------------------------
    def keep(self, node: Node) -> None:
        inputs = tuple([self.plain(v) for v in node.inputs])
        controls = map_controls(node.control_inputs, self.new_values)
        if inputs != node.inputs or controls != node.control_inputs:
            made = node.moved(inputs, controls)
            bind(node, made.outputs, self.new_values)

    def moved_through(self, node: Node) -> bool:
        """Whether the node was done on operands with channels last."""
        if node.control_inputs or node.op.effect is not Effect.NONE or len(node.outputs) != 1:
            return False
        for kinds, method in _MOVES:
            if isinstance(node.op, kinds):
                return bool(method(self, node))
        return False

    def made(self, node: Node, op: Op, *inputs: Value) -> Value:
        """The result of ``op``, under the node's name."""
        result: Value = emit(op, *inputs)
        result.node.name = node.name
        return result

    def delay(self, node: Node, result: Value) -> bool:
        """The node's result is the transposition of ``result``."""
        self.last[node.outputs[0]] = result
        # A control edge to this node is one to what took its place.
        self.new_values[node.outputs[0]] = result
        return True

    def done(self, node: Node, result: Value) -> bool:
        self.new_values[node.outputs[0]] = result
        return True

    def transpose(self, node: Node) -> bool:
        (source,) = node.inputs
        rank = source.type.rank
        if rank is None or rank < 3:
            return False
        axes = node.op.axes(rank)  # type: ignore[attr-defined]
        if source in self.last:
            own = tuple(to_first(rank)[a] for a in axes)
            inner = self.last[source]
        else:
            own, inner = axes, self.plain(source)
        if own == tuple(range(rank)):
            return self.done(node, inner)
        if own == to_first(rank):
            return self.delay(node, inner)
        if own == to_last(rank) and source not in self.last:
            return self.done(node, self.channels_last(source))
        return self.done(node, self.made(node, Transpose(own), inner))

    def elementwise(self, node: Node) -> bool:
        shape = node.types[0].shape
        rank = len(shape) if shape is not None else 0
        if rank < 3:
            return False
        wide = [v for v in dict.fromkeys(node.inputs) if v.type.shape == shape]
        if not self.gains(node, wide):
            return False
        inputs = [
            self.channels_last(v) if v.type.shape == shape else self.narrow(v, rank)
            for v in node.inputs
        ]
        return self.delay(node, self.made(node, node.op, *inputs))

    def filled(self, node: Node) -> bool:
        (source,) = node.inputs
        return source in self.last and self.delay(node, self.made(node, node.op, self.last[source]))

    def broadcast(self, node: Node) -> bool:
        (source,) = node.inputs
        shape = node.types[0].shape
        if source not in self.last or shape is None or len(shape) != source.type.rank:
            return False
        op = BroadcastTo(tuple(shape[a] for a in to_last(len(shape))))
        return self.delay(node, self.made(node, op, self.last[source]))

    def reduction(self, node: Node) -> bool:
        (source,) = node.inputs
        if source not in self.last:
            return False
        op: Any = node.op
        rank = source.type.rank
        assert rank is not None
        folded = normalize_axes(op.axis, rank)
        place = to_first(rank)  # axis of the function's value -> axis of the one with channels last
        op = replace(op, axis=tuple(sorted(place[a] for a in folded)))
        result = self.made(node, op, self.last[source])
        if op.keepdims:
            return self.delay(node, result)
        kept = [place[a] for a in range(rank) if a not in folded]
        order = tuple(sorted(kept).index(a) for a in kept)
        if order != tuple(range(len(kept))):
            result = emit(Transpose(order), result)
        return self.done(node, result)

    def summed(self, node: Node) -> bool:
        (source,) = node.inputs
        return source in self.last and self.done(node, self.made(node, node.op, self.last[source]))

    def padded(self, node: Node) -> bool:
        source = node.inputs[0]
        if source not in self.last:
            return False
        op: Any = node.op
        pairs = tuple(op.paddings[a] for a in to_last(len(op.paddings)))
        return self.delay(node, self.made(node, replace(op, paddings=pairs), self.last[source]))

    def sliced(self, node: Node) -> bool:
        """A slice, or the part of a concatenation's gradient, whose other inputs only have
        shapes."""
        source = node.inputs[0]
        if source not in self.last:
            return False
        whole = node.outputs[0]
        if isinstance(node.op, ConcatPart):
            whole = node.op.decompose(*node.inputs)
        piece = piece_of(whole)
        if piece is None:
            return False
        order = to_last(len(piece.begin))
        bounds = [tuple(part[a] for a in order) for part in (piece.begin, piece.size)]
        return self.delay(node, self.made(node, Slice(*bounds), self.last[source]))

    def joined(self, node: Node) -> bool:
        rank = node.types[0].rank
        if rank is None or rank < 3 or not self.gains(node, list(dict.fromkeys(node.inputs))):
            return False
        op: Any = node.op
        axis = to_first(rank)[normalize_axis(op.axis, rank)]
        inputs = [self.channels_last(v) for v in node.inputs]
        return self.delay(node, self.made(node, replace(op, axis=axis), *inputs))


def _wanted(fn: Function) -> set[Value]:
    """Values that are turned to channels last, themselves or after ops that do not mind."""
    found: set[Value] = set()
    for node in reversed(fn.nodes):
        rank = node.types[0].rank if node.types else None
        if rank is None or rank < 3:
            continue
        if isinstance(node.op, Transpose):
            if node.op.axes(rank) == to_last(rank):
                found.add(node.inputs[0])
        elif node.outputs[0] in found and isinstance(node.op, _SAME_RANK):
            found.update(v for v in node.inputs if v.type.rank == rank)
    return found


_ELEMENTWISE = (Unary, Binary, Cast, Select, AddN)
_PADS = (Pad, PadGrad, MirrorPad, MirrorPadGrad)
_SAME_RANK = (*_ELEMENTWISE, *_PADS, Slice, StridedSlice, ConcatV2)
_Kinds = tuple[type[Op], ...]
_MOVES: Sequence[tuple[_Kinds, Callable[[_Collapse, Node], bool]]] = (
    ((Transpose,), _Collapse.transpose),
    (_ELEMENTWISE, _Collapse.elementwise),
    ((FilledLike,), _Collapse.filled),
    ((BroadcastTo,), _Collapse.broadcast),
    ((Reduction,), _Collapse.reduction),
    ((L2Loss,), _Collapse.summed),
    (_PADS, _Collapse.padded),
    ((Slice, StridedSlice, ConcatPart), _Collapse.sliced),
    ((ConcatV2,), _Collapse.joined),
)
