"""The legality of graph functions: what every pass may rely on and must keep.

Main function: ``verify(fn, after)``. May import core and ir.graph.

Checked: producers before consumers (no cycle), inputs are ``Input`` nodes and no ``Input`` node is
missing from them, value indices exist, types equal re-inference (a recorded type may be more
definite than the inferred one), updates point at outputs, no op with state or a hidden random
stream is left (functions are pure; host calls are listed in ``effects``).
"""

from __future__ import annotations

from typing import Any

from tinyflow.core import shape as shapes
from tinyflow.core.error import InternalError, ShapeError, TinyFlowError
from tinyflow.ir.graph.nodes import Effect, Function, Input, Node, TensorType, Value
from tinyflow.ir.graph.text import outline

_IMPURE = (Effect.READ, Effect.WRITE, Effect.RANDOM)


def verify(fn: Function, after: str = "", pure: bool = True) -> None:
    """Raises InternalError with the failing node, ten lines around it and the user's line.

    after: name of the pass that made ``fn``. pure: False for graphs before ``functionalize``.
    """
    known: set[Value] = set()
    inputs = set(fn.inputs)
    for node in fn.nodes:
        problem = _problem(node, known, inputs, pure)
        if problem is not None:
            raise _failure(fn, node, problem, after)
        known.update(node.outputs)
    for value in (*fn.inputs, *fn.outputs):
        if value not in known:
            raise _failure(fn, value.node, "an input or output is no result of its node", after)
    for value in fn.inputs:
        if not isinstance(value.node.op, Input):
            raise _failure(fn, value.node, "an input is not an Input node", after)
    for key, position in fn.updates.items():
        if not 0 <= position < len(fn.outputs):
            raise InternalError(f"verify: the update of {key} names output {position}, no such one")


def _problem(node: Node, known: set[Value], inputs: set[Value], pure: bool) -> str | None:
    for value in node.inputs:
        if value not in known:
            if value not in value.node.outputs:
                return f"input {value!r} is no result of its node"
            return f"input {value!r} is computed after the node that reads it (a cycle)"
    if pure and node.op.effect in _IMPURE:
        return f"an op with effect {node.op.effect.value} is left in a pure function"
    if isinstance(node.op, Input):
        if node.outputs[0] not in inputs:
            return "an Input node is not among the function's inputs"
        return None
    return _type_problem(node)


def _type_problem(node: Node) -> str | None:
    try:
        inferred: Any = node.op.infer(*[v.type for v in node.inputs])
    except TinyFlowError as error:
        return f"infer fails: {error.what}"
    types = inferred if type(inferred) is tuple else (inferred,)
    if types == node.types:
        return None
    if len(types) != len(node.types) or not all(map(_refines, node.types, types)):
        return f"types differ: recorded {_show(node.types)}, inferred {_show(types)}"
    return None


def _refines(recorded: TensorType, inferred: TensorType) -> bool:
    """Whether ``recorded`` may stand where ``infer`` says ``inferred`` (set_shape, feeds)."""
    if recorded.dtype is not inferred.dtype:
        return False
    try:
        shapes.merge_shapes(recorded.shape, inferred.shape)
    except ShapeError:
        return False
    return True


def _show(types: tuple[TensorType, ...]) -> str:
    return ", ".join(map(str, types))


def _failure(fn: Function, node: Node, problem: str, after: str) -> InternalError:
    where = f" after pass {after}" if after else ""
    error = InternalError(
        f"verify{where}: {node.op.type_name} {node.name or ''}".rstrip() + f": {problem}",
        source=node.source if node.source.line else None,
        sources=dict(node.origin),
        hint="set TINYFLOW_DUMP=<folder> to see the function after every pass; "
        "tinyflow.passes.bisect finds the pass",
    )
    error.expected = "a legal function; around the node:\n" + excerpt(fn, node)
    return error


def excerpt(fn: Function, node: Node, lines: int = 10) -> str:
    """The node's line marked with ``>`` and about ten lines around it."""
    position = next((i for i, n in enumerate(fn.nodes) if n is node), 0) + 1  # after the header
    text = outline(fn).splitlines()
    first = max(0, position - lines // 2)
    shown = text[first : position + lines // 2 + 1]
    return "\n".join(
        ("  > " if first + i == position else "    ") + line.strip()
        for i, line in enumerate(shown)
    )
