"""Merges nodes that compute the same. May import core, ir.graph and passes.base."""

from __future__ import annotations

import functools
from dataclasses import fields, is_dataclass
from typing import Any

from tinyflow.ir.graph.nodes import Effect, Function, Input, Node, Op, Value
from tinyflow.ir.graph.visit import rebuild
from tinyflow.passes.base import graph_pass

#: the result does not depend on the order of the two inputs, bit for bit
COMMUTATIVE = frozenset({
    "Add", "Mul", "Equal", "NotEqual", "LogicalAnd", "LogicalOr", "LogicalXor",
    "BitwiseAnd", "BitwiseOr", "BitwiseXor",
})  # fmt: skip


@functools.cache
def has_attributes(op_class: type[Op]) -> bool:
    """Whether two ops of the class may differ: by a field, or by an equality of its own."""
    if not is_dataclass(op_class) or fields(op_class):
        return True
    return not op_class.__dataclass_params__.eq  # type: ignore[attr-defined]


@graph_pass(provides={"no_common_subexpressions"}, level=1)
def cse(fn: Function) -> Function:
    """One node for equal ops on equal inputs; the first in the order stays.

    Before: %2 = Add(%0, %1); %3 = Add(%1, %0); %4 = Mul(%2, %3)
    After:  %2 = Add(%0, %1); %4 = Mul(%2, %2)
    Random draws differ by their counter inputs; host calls are never merged.
    """
    known: dict[Any, Node] = {}

    def change(node: Node, inputs: tuple[Value, ...]) -> Any:
        op = node.op
        if op.effect is not Effect.NONE or node.control_inputs or isinstance(op, Input):
            return None
        # Hashing an op is a call of Python: spared where the class says all.
        attributes = op if has_attributes(type(op)) else None  # type: ignore[arg-type]
        if len(inputs) == 2 and op.type_name in COMMUTATIVE and id(inputs[0]) > id(inputs[1]):
            key: Any = (type(op), attributes, inputs[1], inputs[0], node.device)
        else:
            key = (type(op), attributes, *inputs, node.device)
        first = known.get(key)
        if first is None:
            if inputs is not node.inputs:
                node = node.moved(inputs, ())
            known[key] = node
            return node.outputs
        if first.types == node.types:
            return first.outputs
        return None

    return rebuild(fn, change)
