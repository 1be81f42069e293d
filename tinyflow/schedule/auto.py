"""The automatic scheduler: a loop nest and schedule steps for each kind of group.

Main function: ``lower_group``. May import core, ir, te, passes.fusion and schedule.

Limits that the choices follow from: element-wise and row kernels are bound by memory bandwidth
(elementwise.py, rows.py, reductions.py), contractions by the fused multiply-add units
(contraction/).
"""

from __future__ import annotations

import math
from dataclasses import replace

from tinyflow.ir.graph.nodes import Value
from tinyflow.ir.loop.nodes import Buffer
from tinyflow.passes.fusion import Group, Grouping
from tinyflow.schedule.attention import lower_attention
from tinyflow.schedule.contraction import lower_dot
from tinyflow.schedule.elementwise import lower_map
from tinyflow.schedule.grain import PARALLEL_ELEMENTS
from tinyflow.schedule.horizontal import lower_batch
from tinyflow.schedule.lowering import GroupExpressions, LoweredKernel, Scratch, loop_extent
from tinyflow.schedule.multi_reduce import lower_reductions
from tinyflow.schedule.nontemporal import with_nontemporal_results
from tinyflow.schedule.offsets import with_offsets_as_arguments
from tinyflow.schedule.reductions import lower_reduce
from tinyflow.schedule.rows import lower_rows
from tinyflow.schedule.targets import Target


def lower_group(
    grouping: Grouping, group: Group, target: Target, generic: bool = False
) -> list[LoweredKernel]:
    """The kernels of one group, in order (one, or two for a reduction that threads share).

    generic: element-wise kernels take their length as an argument, so that one serves all shapes.
    """
    kernels = _scheduled(grouping, group, target, generic)
    return [with_offsets_as_arguments(_past_caches(one, target)) for one in kernels]


def _past_caches(one: LoweredKernel, target: Target) -> LoweredKernel:
    """The kernel with its results stored past the caches if these cannot hold what it touches."""
    large = not one.kernel.extents and one.bytes >= target.l3_bytes
    return with_nontemporal_results(one) if large else one


def _scheduled(
    grouping: Grouping, group: Group, target: Target, generic: bool
) -> list[LoweredKernel]:
    if group.parts:
        return [lower_batch(grouping, group, lambda part: lower_map(part, target, False))]
    if group.kind == "attention":
        return lower_attention(grouping, group, target)
    expressions = GroupExpressions(grouping, group)
    if group.kind == "map":
        return [lower_map(expressions, target, generic)]
    if group.kind == "row":
        return [lower_rows(expressions, target)]
    if group.kind == "reduce":
        several = sum(i.combiner is not None for i in group.live_items) > 1
        return (lower_reductions if several else lower_reduce)(expressions, target)
    if group.kind == "dot":
        return lower_dot(expressions, target)
    return [lower_loops(expressions)]


def lower_loops(x: GroupExpressions) -> LoweredKernel:
    node = x.group.items[0].value.node

    def shaped(value: Value) -> Buffer:
        """The parameter with one dimension per axis: such ops index by axis."""
        found, shape = x.buffer(value), tuple([loop_extent(n) for n in value.type.shape or ()])
        if found.shape != shape:
            found = x.buffers[value] = replace(found, shape=shape)
        return found

    inputs = tuple(shaped(v) for v in node.inputs)
    outputs = tuple(shaped(v) for v in node.outputs)
    needs = node.op.scratch(inputs) if hasattr(node.op, "scratch") else []
    scratch = [(b, Scratch(b.dtype, math.prod(b.shape))) for b in needs]  # type: ignore[arg-type]
    body = node.op.lower_loops(inputs, outputs, *needs)  # type: ignore[attr-defined]
    work = sum(math.prod(b.shape) for b in inputs)  # type: ignore[arg-type]
    least = (work, PARALLEL_ELEMENTS) if x.sizes else (0, 0)
    return x.kernel(body, ["loops written by the op"], 0, 1, scratch, work=least)
