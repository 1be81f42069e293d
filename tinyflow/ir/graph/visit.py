"""Walking and rebuilding functions of the tensor graph; every walk is iterative.

Main functions: ``rebuild``, ``users``, ``ancestors``, ``substitute``.
May import core, ir.graph.nodes and ir.graph.builder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tinyflow.core.error import InternalError
from tinyflow.core.order import producers_first
from tinyflow.ir.graph.nodes import Function, Node, Value

#: ``change(node, inputs)``: None keeps the node (on its new inputs), else what replaces its results
Change = Callable[[Node, tuple[Value, ...]], Any]


def rebuild(fn: Function, change: Change) -> Function:
    """``fn`` with every node that ``change`` replaces; untouched nodes stay the same objects.

    Nodes come in topological order, ``inputs`` are the already rebuilt values. Types are kept as
    they are: a change that alters a type must rebuild the consumers itself (see passes.specialize).
    The result is ``fn`` itself when nothing changed. One walk: O(nodes + edges).
    """
    new_values: dict[Value, Value] = {}  # only values that changed
    lookup = new_values.get
    for node in fn.nodes:
        inputs = node.inputs
        if new_values:
            for value in inputs:
                if value in new_values:
                    inputs = tuple([lookup(v, v) for v in inputs])
                    break
        result = change(node, inputs)
        if result is None:
            controls = node.control_inputs
            if controls and new_values:
                controls = map_controls(controls, new_values)
            if inputs is not node.inputs or controls is not node.control_inputs:
                result = node.moved(inputs, controls).outputs
            else:
                continue
        if result is not node.outputs:
            bind(node, result, new_values)
    return remap(fn, new_values) if new_values else fn


def bind(node: Node, result: Any, new_values: dict[Value, Value]) -> None:
    """Records that ``result`` (a value or one per output) stands for the outputs of ``node``."""
    outputs = node.outputs
    if isinstance(result, Value):
        result = (result,)
    if len(result) != len(outputs):
        raise InternalError(
            f"rebuild: {node.op.type_name} has {len(outputs)} results, got {len(result)} new ones",
            source=node.source,
        )
    for old, new in zip(outputs, result):  # noqa: B905 - lengths have been compared
        if new is not old:
            new_values[old] = new  # noqa: PERF403


def map_controls(
    controls: tuple[Node, ...], new_values: Mapping[Value, Value]
) -> tuple[Node, ...]:
    """Control inputs with replaced nodes followed; the same tuple when nothing changed."""
    mapped: list[Node] = []
    for control in controls:
        new = new_values.get(control.outputs[0]) if control.outputs else None
        node = control if new is None else new.node
        if node not in mapped:
            mapped.append(node)
    return controls if tuple(mapped) == controls else tuple(mapped)


def remap(fn: Function, new_values: Mapping[Value, Value]) -> Function:
    """``fn`` with inputs, outputs and effects looked up in ``new_values``."""
    lookup = new_values.get
    return Function(
        fn.name,
        [lookup(v, v) for v in fn.inputs],
        [lookup(v, v) for v in fn.outputs],
        fn.updates,
        map_controls(fn.effects, new_values),
    )


def substitute(fn: Function, new_values: Mapping[Value, Value]) -> Function:
    """``fn`` reading ``new_values[v]`` wherever it read ``v`` (values of the same type)."""

    def change(node: Node, inputs: tuple[Value, ...]) -> Any:
        if any(v in new_values for v in node.outputs):
            return tuple(new_values.get(v, v) for v in node.outputs)
        return None

    return rebuild(fn, change)


def users(fn: Function) -> dict[Value, list[Node]]:
    """Which nodes read each value (a node appears once per reading input). Outputs do not count."""
    readers: dict[Value, list[Node]] = {}
    for node in fn.nodes:
        for value in node.inputs:
            readers.setdefault(value, []).append(node)
    return readers


def use_counts(fn: Function) -> dict[Value, int]:
    """How often each value is read by nodes, by control edges (all results) and as an output."""
    counts: dict[Value, int] = {}
    get = counts.get
    for node in fn.nodes:
        for value in node.inputs:
            counts[value] = get(value, 0) + 1
        for control in node.control_inputs:
            for value in control.outputs:
                counts[value] = get(value, 0) + 1
    for value in fn.outputs:
        counts[value] = get(value, 0) + 1
    for node in fn.effects:
        for value in node.outputs:
            counts[value] = get(value, 0) + 1
    return counts


def ancestors(roots: Iterable[Node], stop: Iterable[Value] = ()) -> list[Node]:
    """Nodes that ``roots`` need through data edges, not looking behind the values in ``stop``.

    Producers come first; the order is that of ``nodes.topological`` and equally deterministic.
    """
    stopped = set(stop)
    return producers_first(
        roots, lambda node: [v.node for v in node.inputs if v not in stopped]
    )


def result_values(result: Any) -> Sequence[Value]:
    """What an op function returned, always as a sequence."""
    return (result,) if isinstance(result, Value) else tuple(result)
