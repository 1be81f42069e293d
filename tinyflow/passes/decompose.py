"""Replaces composite ops by what they are made of. May import core, ir.graph and passes.base."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

from tinyflow.core.error import InternalError
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Function, Node, Op, Value
from tinyflow.ir.graph.visit import ancestors, bind, map_controls, remap, result_values
from tinyflow.passes.base import graph_pass

#: composites inside composites; a deeper nest is an op that decomposes into itself
DEEPEST = 32


def is_decomposed(op: Op) -> bool:
    """Whether ``op`` has no kernel of its own: ``decompose`` is its most derived definition.

    ``Mean`` inherits ``compute`` from the reductions and overrides it by its ``decompose``.
    """
    return _is_decomposed(type(op))  # type: ignore[arg-type]


@cache
def _is_decomposed(op_class: type[Op]) -> bool:
    for base in op_class.__mro__:
        if base is Op:
            break
        if "compute" in base.__dict__ or "lower_loops" in base.__dict__:
            return False
        if "decompose" in base.__dict__:
            return True
    return False


@graph_pass(needs={"static_types"}, provides={"no_composites"}, level=0)
def decompose(fn: Function) -> Function:
    """Every composite op becomes its parts, which carry its line; the result carries its name.

    Before: %1 = Softmax(%0) {axis=-1}
    After:  %1 = Max(%0); %2 = Sub(%0, %1); %3 = Exp(%2); %4 = Sum(%3); %5 = RealDiv(%3, %4)
    """
    if not any(is_decomposed(node.op) for node in fn.nodes):
        return fn
    new_values: dict[Value, Value] = {}
    builder = Builder()
    with building(builder):
        for node in fn.nodes:
            inputs = tuple([new_values.get(v, v) for v in node.inputs])
            if is_decomposed(node.op):
                results = expand(node, inputs, builder)
            elif inputs != node.inputs or node.control_inputs:
                controls = map_controls(node.control_inputs, new_values)
                if inputs == node.inputs and controls == node.control_inputs:
                    continue
                results = node.moved(inputs, controls).outputs
            else:
                continue
            bind(node, results, new_values)
    return remap(fn, new_values)


def expand(node: Node, inputs: tuple[Value, ...], builder: Builder) -> Sequence[Value]:
    """The parts of one composite node, expanded until none of them is composite."""
    known = set(inputs)
    with builder.on_behalf_of(node.source, node.origin):
        results = list(result_values(node.op.decompose(*inputs)))
        for _ in range(DEEPEST):
            mapping: dict[Value, Value] = {}
            found = False
            for part in _parts(results, known):
                own = tuple([mapping.get(v, v) for v in part.inputs])
                if is_decomposed(part.op):
                    found = True
                    bind(part, part.op.decompose(*own), mapping)
                elif own != part.inputs:
                    bind(part, part.replaced(inputs=own).outputs, mapping)
            results = [mapping.get(v, v) for v in results]
            if not found:
                break
        else:
            raise InternalError(
                f"decompose: {node.op.type_name} is still composite after {DEEPEST} rounds",
                source=node.source,
            )
    for old, new in zip(node.outputs, results, strict=True):
        if old.type != new.type:
            raise InternalError(
                f"decompose: {node.op.type_name} gives {new.type} instead of {old.type}",
                source=node.source,
            )
        if new not in known and new.node.name is None:
            new.node.name = node.name
    if node.device:
        for part in _parts(results, known):
            part.device = node.device
    return results


def _parts(results: Iterable[Value], known: set[Value]) -> list[Node]:
    """The nodes between the composite's inputs and its results, producers first."""
    return ancestors([v.node for v in results if v not in known], stop=known)
