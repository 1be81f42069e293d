"""Into a driven loop or branch goes how sizes are computed, not what they came to.

Main function: ``sink_shapes``. May import core, ir.graph, ops.

Before                                         After
  %1 = Shape(%0)                                 %3 = Driven(%2, %0) {body: ... Shape(%0) ...}
  %3 = Driven(%2, %1) {body: ... %1 ...}

A step of the body is compiled for shapes; a size that arrives as a number would be data to it.
Small constants go inside too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tinyflow.ir.graph.nodes import Function, Node, Value
from tinyflow.ir.graph.visit import rebuild, substitute
from tinyflow.ops.control import If, new_input
from tinyflow.ops.driven import Driven
from tinyflow.ops.shape import ShapeReader, shape_expression


def sink_shapes(fn: Function) -> Function:
    """``fn`` with the sizes that its driven loops and branches read computed inside them."""

    def change(node: Node, inputs: tuple[Value, ...]) -> Any:
        return _sunk(node, node.op, inputs) if isinstance(node.op, Driven) else None

    return rebuild(fn, change)


def _sunk(node: Node, op: Driven, inputs: tuple[Value, ...]) -> Any:
    control: Any = op.control
    lead = 1 if isinstance(control, If) else 0  # the condition is no input of the branches
    carried = 0 if lead else control.n_carried
    own, outer = list(inputs[:lead]), list(inputs[lead:])
    sunk = {}
    for j in range(carried, len(outer)):
        expression = shape_expression(outer[j])
        if expression is not None:
            sunk[j] = expression
    if not sunk:
        return None
    leaves = dict.fromkeys(leaf for nodes in sunk.values() for leaf in _leaves(nodes))
    kept = [j for j in range(len(outer)) if j not in sunk]
    position = {outer[j]: j for j in reversed(kept) if j >= carried}
    added = [leaf for leaf in leaves if leaf not in position]
    functions = []
    for one in control.functions:
        fresh = {leaf: new_input(leaf.type) for leaf in added}
        inside = {
            leaf: fresh[leaf] if leaf in fresh else one.inputs[position[leaf]] for leaf in leaves
        }
        copies = {one.inputs[j]: _copied(outer[j], nodes, inside) for j, nodes in sunk.items()}
        changed = substitute(one, copies)
        functions.append(
            Function(
                one.name, [*[one.inputs[j] for j in kept], *fresh.values()], changed.outputs,
                None, changed.effects,
            )
        )  # fmt: skip
    made = node.replaced(
        op=replace(op, control=control.with_functions(functions)),
        inputs=(*own, *[outer[j] for j in kept], *added),
    )
    return made.outputs


def _leaves(nodes: list[Node]) -> list[Value]:
    return [node.inputs[0] for node in nodes if isinstance(node.op, ShapeReader)]


def _copied(value: Value, nodes: list[Node], inside: dict[Value, Value]) -> Value:
    """The expression over the values inside that stand for the ones whose shapes it reads."""
    copies: dict[Value, Value] = {}
    for node in nodes:
        known = inside if isinstance(node.op, ShapeReader) else copies
        inputs = tuple(known.get(v, v) for v in node.inputs)
        again = node if inputs == node.inputs else node.replaced(inputs=inputs)
        copies[node.outputs[0]] = again.outputs[0]
    return copies[value]


__all__ = ["sink_shapes"]
