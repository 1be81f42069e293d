"""Computes what does not depend on any input.

May import core, ir.graph, ops, rewrite, passes.base.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyflow.core.error import TinyFlowError
from tinyflow.ir.graph.builder import Builder, building, emit
from tinyflow.ir.graph.interp import apply
from tinyflow.ir.graph.nodes import Effect, Function, Input, Node, Value
from tinyflow.ir.graph.visit import rebuild
from tinyflow.ops.creation import Constant, constant
from tinyflow.ops.movement import BroadcastTo
from tinyflow.passes.base import graph_pass
from tinyflow.rewrite.pattern import uniform_array

#: a bigger result is cheaper to compute in every step than to carry in the program
LIMIT_BYTES = 64 * 1024


@graph_pass(needs={"static_types"}, provides={"constants_folded"}, level=1)
def fold_constants(fn: Function) -> Function:
    """A Constant for every node whose inputs are constants, up to 64 KiB, by its reference.

    Before: %0 = Constant {2.0}; %1 = Constant {3.0}; %2 = Mul(%0, %1)
    After:  %2 = Constant {6.0}
    A result of one repeated number becomes a scalar Constant and a BroadcastTo.
    A node whose reference fails stays: the error belongs to the run that needs the value.
    """
    arrays: dict[Value, Any] = {}
    builder = Builder()

    def change(node: Node, inputs: tuple[Value, ...]) -> Any:
        op = node.op
        if type(op) is Constant:  # what is made from a Setting stays out of the code with it
            arrays[node.outputs[0]] = op.value
            return None
        if isinstance(op, BroadcastTo) and inputs[0] in arrays:
            # A stretched number stays one: element-wise kernels read it without memory traffic.
            array = arrays[inputs[0]]
            if array.ndim == 0 and node.types[0].is_static:
                shape: Any = node.types[0].shape
                arrays[node.outputs[0]] = np.broadcast_to(array, shape)
                return None
        for value in inputs:
            if value not in arrays:
                return None
        if (
            not inputs
            or op.effect is not Effect.NONE
            or isinstance(op, Input)
            or hasattr(op, "is_control")  # a loop may be long
            or node.control_inputs
        ):
            return None
        if not all(t.is_static for t in node.types):
            return None
        if sum(t.size_bytes for t in node.types) > LIMIT_BYTES:
            return None
        return _folded(node, [arrays[v] for v in inputs], builder, arrays)

    return rebuild(fn, change)


def _folded(
    node: Node, arguments: list[Any], builder: Builder, arrays: dict[Value, Any]
) -> list[Value] | None:
    try:
        with np.errstate(all="ignore"):
            result = apply(node.op, arguments, node.types)
    except (TinyFlowError, ArithmeticError, ValueError, IndexError):
        return None
    results = result if isinstance(result, (tuple, list)) else (result,)
    folded = []
    for array, declared in zip(results, node.types, strict=True):
        array = np.asarray(array)
        if array.dtype != declared.dtype.numpy or array.shape != declared.shape:
            return None
        value = constant_like(array, node, builder)
        arrays[value] = array
        folded.append(value)
    return folded


def constant_like(array: Any, node: Node, builder: Builder) -> Value:
    """A Constant with the name and places of ``node``; one number repeated stays a scalar."""
    number = uniform_array(array) if array.size > 1 else None
    with building(builder), builder.on_behalf_of(node.source, node.origin):
        if number is None:
            folded: Value = constant(array, name=node.name)
        else:
            scalar = constant(np.asarray(number))
            folded = emit(BroadcastTo(array.shape), scalar, name=node.name)
    return folded
