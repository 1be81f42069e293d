"""Drops inputs that nothing reads any more. May import core, ir.graph and passes.base.

Nodes that no output needs vanish by themselves: a function's nodes are those its outputs reach.
What stays is what the caller binds: feeds and arguments keep their positions, needed or not.
"""

from __future__ import annotations

from tinyflow.ir.graph.nodes import Function
from tinyflow.passes.base import graph_pass

_BOUND_BY_POSITION = ("feed", "argument")


@graph_pass(provides={"no_dead_inputs"}, level=0)
def prune(fn: Function) -> Function:
    """Inputs with role variable, counter or initialized stay only where something reads them.

    Before: inputs %0 (feed), %1 (variable W, unread)      After: inputs %0
    """
    read = {value for node in fn.nodes for value in node.inputs}
    read.update(fn.outputs)
    kept = [
        v for v in fn.inputs
        if v in read or v.node.op.role in _BOUND_BY_POSITION  # type: ignore[attr-defined]
    ]  # fmt: skip
    if len(kept) == len(fn.inputs):
        return fn
    return Function(fn.name, kept, fn.outputs, fn.updates, fn.effects)
