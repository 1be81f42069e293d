"""The reference interpreter: runs a function node by node through ``op.reference`` (NumPy).

Main function: ``run(fn, arrays)``. It is the oracle of the tests, never a back end.
May import core and ir.graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tinyflow.core.dtype import NARROW, as_dtype
from tinyflow.core.error import InternalError, TinyFlowError
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Function, Input, Node, Op, TensorType, Value
from tinyflow.ir.graph.visit import result_values


def run(fn: Function, arrays: Sequence[Any]) -> list[np.ndarray[Any, Any]]:
    """The outputs of ``fn`` for one array per input. Dead values are freed on the way.

    Errors: those of the references, with the node's line; InternalError when a reference returns
    another dtype than ``infer`` promised.
    """
    if len(arrays) != len(fn.inputs):
        raise InternalError(f"interp: {fn.name} has {len(fn.inputs)} inputs, got {len(arrays)}")
    found: dict[Value, Any] = {}
    for value, array in zip(fn.inputs, arrays, strict=True):
        found[value] = np.asarray(array, value.dtype.numpy)
    remaining = _reads(fn)
    with np.errstate(all="ignore"):
        for node in fn.nodes:
            if isinstance(node.op, Input):
                continue
            results = evaluate(node, [found[v] for v in node.inputs])
            for value, array in zip(node.outputs, results, strict=True):
                if remaining.get(value):
                    found[value] = array  # noqa: PERF403
            for value in node.inputs:
                left = remaining[value] - 1
                remaining[value] = left
                if not left:
                    found.pop(value, None)
    return [found[v] for v in fn.outputs]


def _reads(fn: Function) -> dict[Value, int]:
    counts: dict[Value, int] = {}
    for node in fn.nodes:
        for value in node.inputs:
            counts[value] = counts.get(value, 0) + 1
    for value in fn.outputs:
        counts[value] = counts.get(value, 0) + 1
    return counts


def evaluate(node: Node, arrays: Sequence[Any]) -> Sequence[np.ndarray[Any, Any]]:
    """The results of one node. Errors get the node's line."""
    try:
        result = apply(node.op, arrays, node.types)
    except TinyFlowError as error:
        raise error.located("created at", node.source) from None
    results = result if isinstance(result, (tuple, list)) else (result,)
    out = []
    for array, declared in zip(results, node.types, strict=True):
        array = np.asarray(array)
        if array.dtype != declared.dtype.numpy:
            raise InternalError(
                f"{node.op.type_name}.reference returned {array.dtype}, infer says {declared}",
                source=node.source,
            )
        out.append(array)
    return out


def has_reference(op: Op) -> bool:
    return type(op).reference is not Op.reference


def is_composite(op: Op) -> bool:
    """Whether the op is defined by other ops (overrides ``decompose``)."""
    return type(op).decompose is not Op.decompose


def apply(op: Op, arrays: Sequence[Any], types: Sequence[TensorType] = ()) -> Any:
    """``op`` on arrays: its reference, or its decomposition when it has none.

    types: of the results. With them 16-bit floats are computed in float32 and rounded at the end,
    which is the same for one operation and what sums need (passes/widen.py).
    """
    if any(t.dtype in NARROW for t in types):
        wide = [a.astype(np.float32) if as_dtype(a.dtype) in NARROW else a
                for a in map(np.asarray, arrays)]  # fmt: skip
        found = apply(op, wide)
        results = found if isinstance(found, (tuple, list)) else (found,)
        return tuple(
            [np.asarray(r).astype(t.dtype.numpy) for r, t in zip(results, types, strict=True)]
        )
    if has_reference(op):
        return op.reference(*arrays)
    if not is_composite(op):
        call_host = getattr(op, "call_host", None)
        if call_host is not None:
            return call_host(*arrays)
        raise InternalError(f"interp: {op.type_name} has neither reference nor decompose")
    types = tuple(TensorType(a.dtype, a.shape) for a in map(np.asarray, arrays))
    results = run(decomposition(op, types), arrays)
    return results[0] if len(results) == 1 else tuple(results)


@lru_cache(maxsize=1024)
def decomposition(op: Op, types: tuple[TensorType, ...]) -> Function:
    """The composite ``op`` as a function of inputs of these types."""
    builder = Builder()
    with building(builder):
        inputs = [builder.emit(Input(t), ()) for t in types]
        results = result_values(op.decompose(*inputs))
    return Function(op.type_name, inputs, results)
