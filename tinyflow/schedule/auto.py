"""The automatic scheduler: a loop nest and schedule steps for each kind of group.

Main function: ``lower_group``. May import core, ir, te, passes.fuse_groups and schedule.

Limits that the choices follow from: element-wise and row kernels are bound by memory bandwidth
(elementwise.py, rows.py, reductions.py), contractions by the fused multiply-add units
(contraction/).
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from tinyflow.ir.graph.nodes import Value
from tinyflow.ir.loop.nodes import Buffer
from tinyflow.passes.fuse_groups import Group, Grouping
from tinyflow.schedule.contraction import lower_dot
from tinyflow.schedule.elementwise import lower_map
from tinyflow.schedule.lowering import GroupExpressions, LoweredKernel
from tinyflow.schedule.reductions import lower_reduce
from tinyflow.schedule.rows import lower_rows
from tinyflow.schedule.targets import Target


def lower_group(
    grouping: Grouping, group: Group, target: Target, generic: bool = False
) -> list[LoweredKernel]:
    """The kernels of one group, in order (one, or two for a reduction that threads share).

    generic: element-wise kernels take their length as an argument, so that one serves all shapes.
    """
    expressions = GroupExpressions(grouping, group)
    if group.kind == "map":
        return [lower_map(expressions, target, generic)]
    if group.kind == "row":
        return [lower_rows(expressions, target)]
    if group.kind == "reduce":
        return lower_reduce(expressions, target)
    if group.kind == "dot":
        return lower_dot(expressions, target)
    return [_lower_loops(expressions)]


def _lower_loops(x: GroupExpressions) -> LoweredKernel:
    node = x.group.items[0].value.node

    def shaped(value: Value) -> Buffer:
        """The parameter with one dimension per axis: such ops index by axis."""
        found, shape = x.buffer(value), cast("tuple[int, ...]", value.type.shape or ())
        if found.shape != shape:
            found = x.buffers[value] = replace(found, shape=shape)
        return found

    inputs = tuple(shaped(v) for v in node.inputs)
    outputs = tuple(shaped(v) for v in node.outputs)
    body = node.op.lower_loops(inputs, outputs)  # type: ignore[attr-defined]
    return x.kernel(body, ["loops written by the op"], 0)
