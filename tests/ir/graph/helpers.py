"""Small graphs for the tests of the graph IR."""

from __future__ import annotations

from typing import Any

from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Function, Input, TensorType
from tinyflow.ir.graph.visit import result_values


def function(body: Any, *types: Any, name: str = "main") -> Function:
    """``body`` as a function of inputs of these types: ``("float32", (2, 3))`` or TensorType."""
    builder = Builder()
    with building(builder):
        inputs = [
            builder.emit(Input(t if isinstance(t, TensorType) else TensorType(*t)), (), f"x{i}")
            for i, t in enumerate(types)
        ]
        return Function(name, inputs, result_values(body(*inputs)))


def chain(length: int) -> Function:
    """x + x + x ..., ``length`` adds deep."""
    from tinyflow.ops.elementwise import add

    def body(x: Any) -> Any:
        y = x
        for _ in range(length):
            y = add(y, x)
        return y

    return function(body, ("float32", (2, 3)))
