"""Hands to Python what native code cannot do before a size is known.

Main functions: ``given_to_host``, ``with_readers``. May import core, ir.graph, ops.

Before                                           After
  %4 = While(%2, %3)        (a growing value)      %4 = Driven(%2, %3) {control=While}
  %6 = DynamicShape(%1, %5) {Reshape, "shape"}     %7 = ToldNumbers(%5)       runs in Python
                                                   %8 = told_numbers(%7)      from its shape
                                                   %6 = DynamicShape(%1, %8)

Only what a compilation has refused comes here: a step without such parts stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinyflow.core.error import NeedsHost
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Function, Node, Value
from tinyflow.ir.graph.visit import rebuild, result_values
from tinyflow.ops.control import ControlOp, While
from tinyflow.ops.driven import Driven


def given_to_host(fn: Function, refusal: NeedsHost) -> Function:
    """``fn`` with the op that the refusal names run by Python, or told its sizes by Python.

    Errors: the refusal itself where the op is none that Python can take over.
    """
    taken = _taken(fn, refusal)
    builder = Builder()

    def change(node: Node, inputs: tuple[Value, ...]) -> Any:
        if node not in taken:
            return None
        op: Any = node.op
        if isinstance(op, ControlOp):
            return node.replaced(op=Driven(op, refusal.what), inputs=inputs).outputs
        with building(builder), builder.on_behalf_of(node.source, node.origin):
            results = result_values(op.told(*inputs))
        for value in results:
            if value.node.name is None:
                value.node.name = node.name
        return results

    return rebuild(fn, change)


def with_readers(fn: Function) -> Function:
    """``fn`` in which loops that read what a driven loop saved, row by row, are driven too."""

    def change(node: Node, inputs: tuple[Value, ...]) -> Any:
        if not isinstance(node.op, While) or not any(map(_is_saved, inputs)):
            return None
        op = Driven(node.op, "it reads, backwards, what such a loop saved")
        return node.replaced(op=op, inputs=inputs).outputs

    return rebuild(fn, change)


def _is_saved(value: Value) -> bool:
    op = value.node.op
    control = op.control if isinstance(op, Driven) else None
    return isinstance(control, While) and value.index >= control.n_carried


def _taken(fn: Function, refusal: NeedsHost) -> set[Node]:
    """The nodes to take over: loops that save values and those that read them go together."""
    taken = {n for n in fn.nodes if n.op is refusal.op}
    if not taken or not all(isinstance(n.op, ControlOp) or hasattr(n.op, "told") for n in taken):
        raise refusal
    pairs = list(_saving_and_reading(fn.nodes))
    before = 0
    while len(taken) > before:
        before = len(taken)
        for saving, reading in pairs:
            if saving in taken or reading in taken:
                taken |= {saving, reading}
    return {n for n in taken if not isinstance(n.op, Driven)}


def _saving_and_reading(nodes: Sequence[Node]) -> Any:
    for node in nodes:
        if not isinstance(node.op, While):
            continue
        for value in node.inputs:
            maker = value.node.op
            if isinstance(maker, While) and value.index >= maker.n_carried:
                yield value.node, node


__all__ = ["given_to_host", "with_readers"]
