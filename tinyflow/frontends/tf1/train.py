"""``tf.train``: the global step.

Main functions: ``get_or_create_global_step``, ``global_step``. May import core, variables.
"""

from __future__ import annotations

from typing import Any

from tinyflow.core.dtype import int64
from tinyflow.core.error import GraphError, InvalidArgumentError
from tinyflow.frontends.tf1.graph import Graph, get_default_graph
from tinyflow.frontends.tf1.graph_keys import GraphKeys
from tinyflow.frontends.tf1.initializers import Zeros
from tinyflow.frontends.tf1.variable_scope import get_variable
from tinyflow.frontends.tf1.variables import Variable, as_variable

__all__ = [
    "assert_global_step", "create_global_step", "get_global_step", "get_or_create_global_step",
    "global_step",
]  # fmt: skip


def get_global_step(graph: Graph | None = None) -> Variable | None:
    """The variable that counts training steps, or None."""
    graph = graph or get_default_graph()
    found = graph.get_collection(GraphKeys.GLOBAL_STEP)
    if len(found) > 1:
        raise GraphError("Multiple tensors in global_step collection.")
    if found:
        return found[0]  # type: ignore[no-any-return]
    return next((v for v in graph.get_collection(GraphKeys.GLOBAL_VARIABLES)
                 if v.op.name == "global_step"), None)  # fmt: skip


def create_global_step(graph: Graph | None = None) -> Variable:
    """Makes ``global_step``, an int64 zero. Errors: GraphError when there is one."""
    graph = graph or get_default_graph()
    if get_global_step(graph) is not None:
        raise GraphError('"global_step" already exists.')
    with graph.as_default(), graph.name_scope(None):
        return get_variable(  # type: ignore[no-any-return]
            "global_step", [], dtype=int64, initializer=Zeros(), trainable=False,
            collections=[GraphKeys.GLOBAL_VARIABLES, GraphKeys.GLOBAL_STEP],
        )  # fmt: skip


def get_or_create_global_step(graph: Graph | None = None) -> Variable:
    """The variable that counts training steps, made when there is none."""
    found = get_global_step(graph)
    return create_global_step(graph) if found is None else found


def assert_global_step(global_step_tensor: Any) -> None:
    """Errors: InvalidArgumentError unless it is an integer scalar variable."""
    variable = as_variable(global_step_tensor, "assert_global_step")
    if not variable.dtype.is_integer or variable.shape.as_list() != []:
        raise InvalidArgumentError(f"global_step must be an integer scalar, got {variable}")


def global_step(sess: Any, global_step_tensor: Any) -> int:
    """The number of steps taken in a session."""
    return int(sess.run(global_step_tensor))
