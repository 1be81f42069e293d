"""Sums of 16-bit floats are made in float32.

May import core, ir.graph, te, ops and passes.base.
"""

from __future__ import annotations

from tinyflow import te
from tinyflow.core.dtype import NARROW, float32
from tinyflow.core.error import DTypeError
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Function, Node, Op, TensorType, Value
from tinyflow.ir.graph.visit import bind, map_controls, remap
from tinyflow.ops.cumulative import Cumulative
from tinyflow.ops.indexing import TensorScatter, UnsortedSegmentSum
from tinyflow.ops.segment import SegmentExtremum
from tinyflow.ops.sorting import TakeAlongGrad
from tinyflow.ops.sparse import SparseTensorDenseMatMul
from tinyflow.passes.base import graph_pass
from tinyflow.passes.decompose import is_decomposed

#: ops with a loop nest of their own that add or multiply many values
SUMS = (Cumulative, SparseTensorDenseMatMul, TakeAlongGrad, TensorScatter, UnsortedSegmentSum)


@graph_pass(needs={"static_types"}, provides=set(), level=0)
def widen(fn: Function) -> Function:
    """What adds up many 16-bit floats works in float32 and rounds once, at the end.

    A sum of 4,096 ones in float16 would stop at 2,048. Element-wise ops stay as they are: they
    round after each operation, as NumPy does.

    Before: %1 = MatMul(%a, %b): bfloat16[2, 3]
    After:  %2 = Cast(%a): float32; %3 = Cast(%b): float32; %4 = MatMul(%2, %3); %1 = Cast(%4)
    """
    if not any(v.dtype in NARROW for node in fn.nodes for v in node.outputs):
        return fn
    from tinyflow.ops.convert import cast

    new_values: dict[Value, Value] = {}
    builder = Builder()
    with building(builder):
        for node in fn.nodes:
            inputs = tuple([new_values.get(v, v) for v in node.inputs])
            if _adds_up(node):
                with builder.on_behalf_of(node.source, node.origin):
                    wide = [cast(v, float32) if v.dtype in NARROW else v for v in inputs]
                    made = node.replaced(
                        inputs=tuple(wide), types=tuple(_widened(t) for t in node.types)
                    )
                    results = [
                        cast(v, old.dtype) if v.dtype is not old.dtype else v
                        for v, old in zip(made.outputs, node.outputs, strict=True)
                    ]
                bind(node, results, new_values)
            elif inputs != node.inputs or node.control_inputs:
                controls = map_controls(node.control_inputs, new_values)
                made = node.moved(inputs, controls)
                bind(node, made.outputs, new_values)
    return remap(fn, new_values)


def _widened(type_: TensorType) -> TensorType:
    return TensorType(float32, type_.shape) if type_.dtype in NARROW else type_


def _adds_up(node: Node) -> bool:
    """Whether the op reduces 16-bit floats, itself or in what it decomposes into.

    Reductions to other types are among them: the place of the largest of bfloat16 values.
    """
    if not any(v.dtype in NARROW for v in node.inputs):
        return False
    try:
        same = node.op.infer(*[_widened(v.type) for v in node.inputs])
    except DTypeError:
        return False
    types = same if isinstance(same, tuple) else (same,)
    if types != tuple(_widened(t) for t in node.types):
        return False  # the op names its type
    if is_decomposed(node.op):
        return True
    if hasattr(node.op, "lower_loops"):
        return isinstance(node.op, SUMS) and not isinstance(node.op, SegmentExtremum)
    if type(node.op).compute is Op.compute:
        return False
    shapes = [v.type.shape for v in node.inputs]
    tensors = node.op.compute(
        *[te.placeholder(s, v.dtype) for s, v in zip(shapes, node.inputs, strict=True)]  # type: ignore[arg-type]
    )
    found = tensors if isinstance(tensors, tuple) else (tensors,)
    return any(t.reduction is not None for t in found)
