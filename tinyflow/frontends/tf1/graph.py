"""The graph that TensorFlow-1 programs build: names, scopes, control edges, collections.

Main types: ``Graph`` (a builder), ``get_default_graph``. May import core, ir.graph, elements.
"""

from __future__ import annotations

import contextlib
import re
import reprlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tinyflow.core.error import (
    GraphError,
    InvalidArgumentError,
    NameNotFoundError,
    TinyFlowError,
)
from tinyflow.core.frames import public_methods
from tinyflow.core.source import Source, user_frame
from tinyflow.frontends.tf1.devices import merge_devices, normal_device
from tinyflow.frontends.tf1.elements import Operation, Tensor, find_graph
from tinyflow.frontends.tf1.naming import Naming
from tinyflow.frontends.tf1.spelling import closest
from tinyflow.ir.graph import builder as builders
from tinyflow.ir.graph.builder import Builder
from tinyflow.ir.graph.nodes import Effect, Op, TensorType, Value

__all__ = ["Graph", "get_default_graph", "reset_default_graph"]

DEFAULT_SEED = 87654321


class _Controls:
    """One ``control_dependencies`` block: what it waits for and what was made inside it."""

    def __init__(self, inputs: list[Operation], clears: bool) -> None:
        self.inputs = inputs
        self.clears = clears
        self.seen: set[Operation] = set(inputs)


@public_methods(
    "as_graph_element",
    "get_operation_by_name",
    "get_tensor_by_name",
    "prevent_feeding",
    "prevent_fetching",
    "is_feedable",
    "is_fetchable",
    "consumers_of",
)
class Graph(Naming, Builder):
    """A graph under construction. Thread-safe for naming; blocks (scopes) are per graph.

    lint_notes: remarks about the program that are no errors, shown by ``tinyflow explain``.
    """

    node_class = Operation

    def __init__(self) -> None:
        super().__init__()
        self._operations: list[Operation] = []
        self._by_name: dict[str, Operation] = {}
        self._controls: list[_Controls] = []
        self._devices: list[str | Callable[[Operation], Any] | None] = []
        self._collections: dict[Any, list[Any]] = {}
        self._finalized: Source | None = None
        self._unfeedable: set[Tensor] = set()
        self._unfetchable: set[Any] = set()
        self._consumers: dict[Tensor, list[Operation]] = {}
        self._consumers_upto = 0
        self.seed: int | None = None
        self.lint_notes: list[tuple[str, Source]] = []
        #: compiled steps by what was asked for; shared by all sessions of the graph
        self.steps: dict[Any, Any] = {}

    # ------------------------------------------------------------------ building

    def emit(self, op: Op, arguments: tuple[Any, ...], name: str | None = None) -> Any:
        """As ``Builder.emit``; values of one other graph take the new node to that graph.

        The node's name is claimed before those of the constants made from literals, which live
        in its scope: ``x * 2`` makes ``mul/y`` and ``mul``.
        """
        for a in arguments:
            if type(a) is not Tensor or a.node.graph is not self:
                owner = self._owner(arguments)
                if owner is not self:
                    return owner.emit(op, arguments, name)
                full = self._claim_result(name, op)
                outer, self._scope = self._scope, full
                try:
                    arguments = self.convert(op, arguments, name)
                except TinyFlowError as error:
                    raise self._about_literal(error, op, arguments) from None
                finally:
                    self._scope = outer
                break
        else:
            full = self._claim_result(name, op)
        node = self._append(op, arguments, self.infer(op, arguments), full)
        outputs = node.outputs
        return outputs[0] if len(outputs) == 1 else outputs

    def _about_literal(
        self, error: TinyFlowError, op: Op, arguments: tuple[Any, ...]
    ) -> TinyFlowError:
        """An error about a literal, completed with its operation and the operands beside it."""
        if not error.received:
            error.what = f"{op.type_name}: {error.what}"
            error.args = (error.what,)
            for i, a in enumerate(arguments):
                shown = a.type if hasattr(a, "type") else reprlib.repr(a)
                error.received[builders.argument_name(op, i, len(arguments))] = shown
        return error.located("created at", self.place())

    def make_node(
        self, op: Op, values: tuple[Value, ...], types: tuple[TensorType, ...], name: str | None
    ) -> Operation:
        return self._append(op, values, types, self.claim(name, op))

    def _append(
        self, op: Op, values: tuple[Any, ...], types: tuple[TensorType, ...], full_name: str
    ) -> Operation:
        if self._finalized is not None:
            raise GraphError(
                "Graph is finalized and cannot be modified.",
                sources={"finalized at": self._finalized, f"'{full_name}' added at": self.place()},
                hint="build everything before the first step, or do not call finalize()",
            )
        controls = self._control_inputs(values) if self._controls else ()
        node = Operation(op, values, types, full_name, controls, "", self.place(), self.origin)
        node.graph = self
        if self._devices:
            node.device = self._device_of(node)
        with self._lock:
            if full_name in self._by_name:  # e.g. two nodes that both take a scope's own name
                node.name = full_name = self._absolute_unique(full_name)
            node.serial = len(self._operations)
            self._operations.append(node)
            self._by_name[full_name] = node
        for block in self._controls:
            block.seen.add(node)
        return node

    def _owner(self, arguments: Iterable[Any]) -> Graph:
        """The graph of the given values; this one when there are none.

        Errors: GraphError when they belong to two graphs, with both lines.
        """
        owner: Graph | None = None
        first: Any = None
        for a in arguments:
            graph = find_graph(a)
            if graph is None:
                continue
            if owner is None:
                owner, first = graph, a
            elif graph is not owner:
                raise mixed_graphs(a, first, self.place())
        return self if owner is None else owner

    def constant(self, value: Any, dtype: Any, name: str | None) -> Value:
        if getattr(value, "as_value", None) is None and isinstance(value, Operation):
            raise InvalidArgumentError(
                f"Can't convert Operation '{value.name}' to Tensor",
                hint="an operation without results has no value; use it in sess.run or in "
                "tf.control_dependencies",
                source=value.source,
            )
        if isinstance(value, (list, tuple)) and _holds_tensor(value):
            from tinyflow.frontends.tf1.convert import pack_nested

            return pack_nested(value, dtype, name)
        return super().constant(value, dtype, name)

    # ------------------------------------------------------------------ control edges, devices

    @contextlib.contextmanager
    def control_dependencies(self, control_inputs: Any) -> Iterator[None]:
        """Nodes made inside run after ``control_inputs``; None clears the enclosing blocks."""
        inputs: list[Operation] = []
        for item in control_inputs if control_inputs is not None else ():
            element = self.as_graph_element(item)
            operation = element.node if isinstance(element, Tensor) else element
            if operation not in inputs:
                inputs.append(operation)
        block = _Controls(inputs, control_inputs is None)
        outer = self._controls
        # A fresh list: blocks that a None hides come back when it ends.
        self._controls = [block] if block.clears else [*outer, block]
        # Functional loops and branches do not exist here, but names stay: the scope is kept.
        try:
            yield
        finally:
            self._controls = outer

    def _control_inputs(self, values: tuple[Tensor, ...]) -> tuple[Operation, ...]:
        """Edges of a new node: none for a block that one of its inputs already waits for."""
        found: dict[Operation, None] = {}
        for block in self._controls:
            if block.inputs and block.seen.isdisjoint([v.node for v in values]):
                found.update(dict.fromkeys(block.inputs))
        return tuple(found)

    @contextlib.contextmanager
    def device(self, device_name_or_function: Any) -> Iterator[None]:
        """Nodes made inside carry the device; a function is asked for each node."""
        if isinstance(device_name_or_function, str):
            device_name_or_function = normal_device(device_name_or_function)
        self._devices.append(device_name_or_function)
        try:
            yield
        finally:
            self._devices.pop()

    def _device_of(self, node: Operation) -> str:
        merged = ""
        for entry in self._devices:
            if entry is None:
                merged = ""
            elif callable(entry):
                node.device = merged
                merged = merge_devices(merged, normal_device(entry(node) or ""))
            else:
                merged = merge_devices(merged, entry)
        return merged

    @contextlib.contextmanager
    def colocate_with(self, op: Any, ignore_existing: bool = False) -> Iterator[None]:
        """Accepted; a graph is placed as a whole."""
        yield

    # ------------------------------------------------------------------ looking things up

    def get_operations(self) -> list[Operation]:
        """All operations in the order of their creation."""
        return list(self._operations)

    @property
    def version(self) -> int:
        return len(self._operations)

    def get_operation_by_name(self, name: str) -> Operation:
        if not isinstance(name, str):
            raise TypeError(f"Operation names are strings (or similar), not {type(name).__name__}.")
        return self.as_graph_element(name, allow_tensor=False)  # type: ignore[return-value]

    def get_tensor_by_name(self, name: str) -> Tensor:
        if not isinstance(name, str):
            raise TypeError(f"Tensor names are strings (or similar), not {type(name).__name__}.")
        return self.as_graph_element(name, allow_operation=False)  # type: ignore[return-value]

    def as_graph_element(
        self, element: Any, allow_tensor: bool = True, allow_operation: bool = True
    ) -> Tensor | Operation:
        """The tensor or operation that ``element`` (itself, a variable, or a name) means.

        Errors: NameNotFoundError (a KeyError and ValueError) with the closest name, TypeError,
        GraphError for an element of another graph.
        """
        wanted = " or ".join(
            kind for kind, allowed in (("Tensor", allow_tensor), ("Operation", allow_operation))
            if allowed
        )  # fmt: skip
        convert = getattr(element, "_as_graph_element", None)
        if convert is not None:
            element = convert()
        if isinstance(element, str):
            return self._by_text(element, wanted, allow_tensor, allow_operation)
        if isinstance(element, Tensor) and allow_tensor:
            if element.node.graph is not self:
                raise self._foreign("Tensor", element, element.node.source)
            return element
        if isinstance(element, Operation) and allow_operation:
            if element.graph is not self:
                raise self._foreign("Operation", element, element.source)
            return element
        raise TypeError(f"Can not convert a {type(element).__name__} into a {wanted}.")

    def _foreign(self, kind: str, element: Any, source: Source) -> GraphError:
        return GraphError(
            f"{kind} {element} is not an element of this graph.",
            sources={"created at": source, "used at": user_frame(2)},
            hint="it belongs to another tf.Graph: open the session with tf.Session(graph=g), or "
            "build everything under one `with g.as_default():`",
        )

    def _by_text(
        self, name: str, wanted: str, allow_tensor: bool, allow_operation: bool
    ) -> Tensor | Operation:
        quoted = f"The name {name!r} refers to"
        if ":" in name and allow_tensor:
            op_name, _, position = name.rpartition(":")
            if not position.isdigit():
                raise NameNotFoundError(
                    f"The name {name!r} looks like a Tensor name, but is not a valid one. "
                    'Tensor names must be of the form "<op_name>:<output_index>".'
                )
            node = self._by_name.get(op_name)
            if node is None:
                raise NameNotFoundError(
                    f"{quoted} a Tensor which does not exist. The operation, {op_name!r}, does "
                    "not exist in the graph.",
                    hint=self._name_hint(op_name, f":{position}"),
                )
            if int(position) >= len(node.outputs):
                raise NameNotFoundError(
                    f"{quoted} a Tensor which does not exist. The operation, {op_name!r}, exists "
                    f"but only has {len(node.outputs)} outputs.",
                    source=node.source,
                )
            return node.outputs[int(position)]
        if ":" in name:
            raise NameNotFoundError(
                f"{quoted} a Tensor, not an Operation.",
                hint=f"did you mean {name.rpartition(':')[0]!r}?",
            )
        node = self._by_name.get(name)
        if node is None:
            raise NameNotFoundError(
                f"{quoted} an Operation not in the graph.", hint=self._name_hint(name)
            )
        if not allow_operation:
            raise NameNotFoundError(
                f"{quoted} an Operation, not a {wanted}. "
                'Tensor names must be of the form "<op_name>:<output_index>".',
                hint=f"did you mean {name + ':0'!r}?",
            )
        return node

    def _name_hint(self, name: str, suffix: str = "") -> str | None:
        match = closest(name, self._by_name)
        return None if match is None else f"did you mean {match + suffix!r}?"

    def consumers_of(self, tensor: Tensor) -> list[Operation]:
        with self._lock:
            for node in self._operations[self._consumers_upto :]:
                for value in dict.fromkeys(node.inputs):
                    self._consumers.setdefault(value, []).append(node)
            self._consumers_upto = len(self._operations)
        return self._consumers.get(tensor, [])

    def readers_of(self, tensor: Tensor) -> list[Operation]:
        """The other operations that read the variable of which ``tensor`` is a read; else none."""
        op = tensor.node.op
        if op.effect is not Effect.READ or tensor.node.inputs:
            return []
        ref, kind = getattr(op, "ref", None), type(op)
        return [
            n for n in self._operations
            if isinstance(n.op, kind) and getattr(n.op, "ref", None) == ref and n is not tensor.node
        ]  # fmt: skip

    # ------------------------------------------------------------------ collections

    def add_to_collection(self, name: str, value: Any) -> None:
        self._collections.setdefault(name, []).append(value)

    def add_to_collections(self, names: Any, value: Any) -> None:
        for name in [names] if isinstance(names, str) else dict.fromkeys(names):
            self.add_to_collection(name, value)

    def get_collection_ref(self, name: str) -> list[Any]:
        return self._collections.setdefault(name, [])

    def get_collection(self, name: str, scope: str | None = None) -> list[Any]:
        items = self._collections.get(name, [])
        if scope is None:
            return list(items)
        pattern = re.compile(scope)
        return [item for item in items if pattern.match(getattr(item, "name", None) or "\n")]

    @property
    def collections(self) -> list[Any]:
        return self.get_all_collection_keys()

    def get_all_collection_keys(self) -> list[Any]:
        return [key for key in self._collections if isinstance(key, str)]

    def clear_collection(self, name: str) -> None:
        self._collections.pop(name, None)

    # ------------------------------------------------------------------ life

    @contextlib.contextmanager
    def as_default(self) -> Iterator[Graph]:
        """``with g.as_default():`` operations of this thread go to ``g``."""
        with builders.building(self):
            yield self

    def finalize(self) -> None:
        """Makes the graph read-only: adding an operation is an error from here on."""
        if self._finalized is None:
            self._finalized = user_frame(2)

    @property
    def finalized(self) -> bool:
        return self._finalized is not None

    def _unsafe_unfinalize(self) -> None:
        self._finalized = None

    def is_feedable(self, tensor: Any) -> bool:
        return self.as_graph_element(tensor, allow_operation=False) not in self._unfeedable

    def prevent_feeding(self, tensor: Any) -> None:
        self._unfeedable.add(self.as_graph_element(tensor, allow_operation=False))  # type: ignore[arg-type]

    def is_fetchable(self, tensor_or_op: Any) -> bool:
        return self.as_graph_element(tensor_or_op) not in self._unfetchable

    def prevent_fetching(self, op: Any) -> None:
        self._unfetchable.add(self.as_graph_element(op))

    def seeds(self, op_seed: int | None) -> tuple[int, int]:
        """TensorFlow's table of (graph seed, operation seed) -> the pair that an op carries.

        (0, 0) means that every session draws a start of its own.
        """
        if self.seed is None and op_seed is None:
            return 0, 0
        first = DEFAULT_SEED if self.seed is None else self.seed
        second = len(self._operations) if op_seed is None else op_seed
        # 0, 0 would mean "no seed"; TensorFlow takes this pair instead.
        return (0, 2**31 - 1) if (first, second) == (0, 0) else (first, second)

    def note(self, text: str) -> None:
        """Records a remark with the user's line, once."""
        entry = (text, user_frame(2))
        if entry not in self.lint_notes:
            self.lint_notes.append(entry)


def mixed_graphs(one: Any, other: Any, used: Source) -> GraphError:
    sources = {}
    for item in (other, one):
        node = getattr(item, "node", None) or item
        sources[f"{getattr(item, 'name', item)} created at"] = node.source
    return GraphError(
        f"{one} must be from the same graph as {other}.",
        sources={**sources, "used together at": used},
        hint="build both under one `with g.as_default():`",
    )


def _holds_tensor(items: Any) -> bool:
    return any(
        isinstance(i, Value)
        or hasattr(i, "as_value")
        or (isinstance(i, (list, tuple)) and _holds_tensor(i))
        for i in items
    )


_default_graph: Graph | None = None
_default_lock = threading.Lock()


def _bottom_graph() -> Graph:
    global _default_graph
    if _default_graph is None:
        with _default_lock:
            if _default_graph is None:
                _default_graph = Graph()
    return _default_graph


builders.set_default_builder(_bottom_graph)


def get_default_graph() -> Graph:
    """The innermost graph entered in this thread, else the process's default graph."""
    builder = builders.current_builder()
    return builder if isinstance(builder, Graph) else _bottom_graph()


def reset_default_graph() -> None:
    """Starts an empty default graph. Errors: GraphError inside ``with g.as_default():``."""
    global _default_graph
    if builders.entered():
        raise GraphError(
            "Do not use tf.reset_default_graph() to clear nested graphs. If you need a cleared "
            "graph, exit the nesting and create a new graph."
        )
    _default_graph = Graph()
