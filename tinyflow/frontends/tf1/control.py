"""Scopes, control edges and grouping: ``name_scope``, ``control_dependencies``, ``group``.

Main types: ``name_scope``, ``NoOp``. May import core, ops, graph, convert.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from tinyflow.core.error import InvalidArgumentError
from tinyflow.core.frames import public_methods
from tinyflow.frontends.tf1.convert import graph_of, tensor
from tinyflow.frontends.tf1.elements import Operation, Tensor
from tinyflow.frontends.tf1.fetches import FetchTypeError
from tinyflow.frontends.tf1.graph import Graph, get_default_graph
from tinyflow.ir.graph.nodes import Op
from tinyflow.ops.convert import Identity

__all__ = [
    "NoOp", "colocate_with", "control_dependencies", "device", "group", "identity", "name_scope",
    "no_op", "op_scope", "tuple_",
]  # fmt: skip


@dataclass(frozen=True)
class NoOp(Op):
    """Nothing; a point that control edges lead to and from."""

    not_differentiable = "it has no results"

    def infer(self) -> Any:  # type: ignore[override]
        return ()

    def reference(self) -> Any:
        return ()

    def functionalize(self, state: Any) -> Any:
        return ()


@public_methods("__init__", "__enter__")
class name_scope:
    """``with tf.name_scope("layer1") as scope:`` names of operations made inside start with it."""

    def __init__(self, name: str | None, default_name: str | None = None, values: Any = None):
        if name is not None and not isinstance(name, str):
            raise TypeError(f"`name` for name_scope must be a string, got {name!r}")
        self._name = default_name if name is None else name
        if name is None and default_name is None and values is not None:
            raise InvalidArgumentError(
                "At least one of name (None) and default_name (None) must be provided."
            )
        self._values = values
        self._block = contextlib.ExitStack()

    @property
    def name(self) -> str | None:
        return self._name

    def __enter__(self) -> str:
        graph = graph_of(*(self._values or ()))
        block = contextlib.ExitStack()
        block.enter_context(graph.as_default())
        scope = block.enter_context(graph.name_scope(self._name))
        self._block = block
        return scope

    def __exit__(self, *exception: Any) -> None:
        self._block.close()


def op_scope(values: Any, name: str | None, default_name: str | None = None) -> name_scope:
    """The argument order of 2016."""
    return name_scope(name, default_name, values)


def control_dependencies(control_inputs: Any) -> Any:
    """``with tf.control_dependencies([a]):`` operations made inside run after ``a``."""
    if control_inputs is not None and not isinstance(control_inputs, (list, tuple)):
        raise FetchTypeError(
            f"control_dependencies takes a list, got {control_inputs}",
            hint="write tf.control_dependencies([op])",
        )
    return get_default_graph().control_dependencies(control_inputs)


def device(device_name_or_function: Any) -> Any:
    """``with tf.device("/cpu:0"):`` operations made inside carry the device."""
    return get_default_graph().device(device_name_or_function)


def colocate_with(op: Any, ignore_existing: bool = False) -> Any:
    """Accepted; a graph is placed as a whole."""
    return get_default_graph().colocate_with(op, ignore_existing)


def no_op(name: str | None = None) -> Operation:
    """An operation that computes nothing."""
    return _no_op(get_default_graph(), name)


def _no_op(graph: Graph, name: str | None) -> Operation:
    return graph.make_node(NoOp(), (), (), name)


def _operations(graph: Graph, items: Any) -> list[Operation]:
    """The operations behind tensors, variables, operations and (nested) lists of them."""
    found: dict[Operation, None] = {}
    for item in items:
        if isinstance(item, (list, tuple)):
            found.update(dict.fromkeys(_operations(graph, item)))
            continue
        if item is None:
            raise FetchTypeError(
                "Expected tf.group() expected Tensor objects not None with type '<class "
                "'NoneType'>'",
                hint="one of the grouped entries is None: a tf.gradients result without a path?",
            )
        element = graph.as_graph_element(item)
        found[element.node if isinstance(element, Tensor) else element] = None
    return list(found)


def group(*inputs: Any, name: str | None = None) -> Operation:
    """One operation that runs all ``inputs``."""
    graph = graph_of(*[i for i in inputs if i is not None])
    operations = _operations(graph, inputs)
    with graph.control_dependencies(operations):
        return _no_op(graph, name or "group_deps")


def tuple_(tensors: Any, name: str | None = None, control_inputs: Any = None) -> list[Any]:
    """The same tensors, none of which is available before all are computed."""
    graph = graph_of(tensors)
    kept = [t for t in tensors if t is not None]
    if not kept:
        raise InvalidArgumentError(f"Must have at least one Tensor: {tensors}")
    with graph.as_default(), graph.name_scope(name or "tuple"):
        gate = group(*kept, *(control_inputs or ()))
        with graph.control_dependencies([gate]):
            return [
                None if t is None
                else t if isinstance(t, Operation)
                else graph.emit(Identity(), (tensor(t),), "control_dependency")
                for t in tensors
            ]  # fmt: skip


def identity(input: Any, name: str | None = None) -> Any:
    """The same value; under ``control_dependencies`` it waits for them."""
    graph = graph_of(input)
    return graph.emit(Identity(), (input,), name)
