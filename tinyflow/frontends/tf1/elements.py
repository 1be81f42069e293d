"""What a graph is made of, as TensorFlow shows it: operations and tensors.

Main types: ``Operation`` (a node), ``Tensor`` (a value). May import core, ir.graph, tensor_shape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinyflow.core.error import GraphError, NameNotFoundError
from tinyflow.core.frames import boundary, public_methods
from tinyflow.core.shape import merge_shapes
from tinyflow.frontends.tf1.tensor_shape import TensorShape, as_shape, text_of
from tinyflow.ir.graph.nodes import Node, TensorType, Value

if TYPE_CHECKING:
    from tinyflow.frontends.tf1.graph import Graph

__all__ = ["Operation", "Tensor", "find_graph"]

#: op classes whose TensorFlow type name is another
TYPE_NAMES = {
    "Constant": "Const", "Setting": "Const", "VariableRead": "VariableV2", "PyFunction": "PyFunc",
    "TruncatedNormalDraw": "TruncatedNormal", "LaterRead": "Identity",
}  # fmt: skip


@public_methods("set_shape", "consumers", "eval")
class Tensor(Value):
    """A result of an operation; it has a number only inside ``Session.run``."""

    __slots__ = ()

    node: Operation  # type: ignore[assignment]

    @property
    def name(self) -> str:
        return f"{self.node.name}:{self.index}"

    @property
    def op(self) -> Operation:
        return self.node

    @property
    def graph(self) -> Graph:
        return self.node.graph

    @property
    def value_index(self) -> int:
        return self.index

    @property
    def device(self) -> str:
        return self.node.device

    @property
    def shape(self) -> TensorShape:
        return TensorShape(self.type.shape)

    def get_shape(self) -> TensorShape:
        return TensorShape(self.type.shape)

    def set_shape(self, shape: Any) -> None:
        """Adds what the user knows about the static shape. Errors: ShapeError on a contradiction.

        It is a promise about the values fed or computed; the step that is compiled for concrete
        feeds checks shapes anew.
        """
        label = self.node.name.replace("/", "_")
        merged = merge_shapes(self.type.shape, as_shape(shape).core(f"{label}_set"))
        types = list(self.node.types)
        types[self.index] = TensorType(self.dtype, merged)
        self.node.types = tuple(types)

    def consumers(self) -> list[Operation]:
        """The operations that read this tensor, in the order of their creation."""
        return list(self.graph.consumers_of(self))

    def eval(self, feed_dict: Any = None, session: Any = None) -> Any:
        """``session.run(self, feed_dict)`` with the default session unless one is given."""
        return _session_for(self.graph, session, "eval").run(self, feed_dict)

    # Operators that make several operations do so in a scope of their own.
    def __truediv__(self, other: Any) -> Any:
        from tinyflow.frontends.tf1.math_functions import divide

        return divide(self, other)

    def __rtruediv__(self, other: Any) -> Any:
        from tinyflow.frontends.tf1.math_functions import divide

        return divide(other, self)

    def __getitem__(self, index: Any) -> Any:
        from tinyflow.frontends.tf1.array_functions import get_item

        return get_item(self, index)

    def __repr__(self) -> str:
        return f"<tf.Tensor '{self.name}' shape={text_of(self.type.shape)} dtype={self.dtype}>"

    def __str__(self) -> str:
        shape = "" if self.type.shape is None else f", shape={text_of(self.type.shape)}"
        return f'Tensor("{self.name}"{shape}, dtype={self.dtype})'


@public_methods("get_attr", "run")
class Operation(Node):
    """A node of a graph: ``name``, ``type``, ``inputs``, ``outputs``, ``control_inputs``."""

    __slots__ = ("graph", "serial")

    value_class = Tensor

    graph: Graph
    serial: int  # position in the order of creation
    name: str
    inputs: tuple[Tensor, ...]  # type: ignore[assignment]
    outputs: tuple[Tensor, ...]  # type: ignore[assignment]

    @property
    def type(self) -> str:
        """TensorFlow's name of the operation's kind (``MatMul``)."""
        name = self.op.type_name
        return TYPE_NAMES.get(name, name)

    @property
    def _id(self) -> int:
        return self.serial

    @property
    def traceback(self) -> list[tuple[str, int, str, None]]:
        return [(self.source.file, self.source.line, self.source.function, None)]

    def values(self) -> tuple[Tensor, ...]:
        return self.outputs

    def get_attr(self, name: str) -> Any:
        """An attribute by name; also ``dtype``, ``T`` and ``shape`` of the first result.

        Errors: NameNotFoundError (a ValueError).
        """
        attributes = self.op.attributes
        if name in attributes:
            return attributes[name]
        if name in ("T", "dtype", "shape") and self.outputs:
            first = self.outputs[0]
            return first.shape if name == "shape" else first.dtype
        raise NameNotFoundError(
            f"No attr named '{name}' in operation '{self.name}' of type {self.type}",
            source=self.source,
            choices=sorted(attributes) or None,
        )

    @property
    def node_def(self) -> Any:
        return NodeDef(self)

    def run(self, feed_dict: Any = None, session: Any = None) -> None:
        """Runs the operation in the default session unless one is given."""
        _session_for(self.graph, session, "run").run(self, feed_dict)

    def __repr__(self) -> str:
        return f"<tf.Operation '{self.name}' type={self.type}>"

    def __str__(self) -> str:
        return str(NodeDef(self))


class NodeDef:
    """What TensorFlow's NodeDef message says, to read and to print."""

    def __init__(self, operation: Operation) -> None:
        self.name = operation.name
        self.op = operation.type
        self.device = operation.device
        self.input = [t.name.removesuffix(":0") for t in operation.inputs]
        self.input += [f"^{c.name}" for c in operation.control_inputs]
        self.attr = operation.op.attributes

    def __str__(self) -> str:
        lines = [f'name: "{self.name}"', f'op: "{self.op}"']
        lines += [f'input: "{name}"' for name in self.input]
        if self.device:
            lines.append(f'device: "{self.device}"')
        lines += [f'attr {{ key: "{k}" value: {v!r} }}' for k, v in self.attr.items()]
        return "\n".join(lines) + "\n"


def find_graph(candidate: Any) -> Graph | None:
    """The graph of a tensor, an operation, or anything with ``as_value`` (a variable)."""
    if isinstance(candidate, Tensor):
        return candidate.node.graph
    if isinstance(candidate, Operation) or hasattr(candidate, "as_value"):
        return candidate.graph  # type: ignore[no-any-return]
    return None


def _session_for(graph: Graph, session: Any, method: str) -> Any:
    from tinyflow.frontends.tf1.session import get_default_session

    if session is None:
        session = get_default_session()
        if session is None:
            what = "evaluate tensor" if method == "eval" else "execute operation"
            raise GraphError(
                f"Cannot {what} using `{method}()`: No default session is registered. "
                f"Use `with sess.as_default()` or pass an explicit session to "
                f"`{method}(session=sess)`",
                hint="with tf.Session() as sess: ...",
            )
    if session.graph is not graph:
        raise GraphError(
            f"Cannot use the default session to {method}: the tensor's graph is different from "
            "the session's graph. Pass an explicit session to "
            f"`{method}(session=sess)`.",
            hint="open the session on the tensor's graph: tf.Session(graph=t.graph)",
        )
    return session


def _trim_operators() -> None:
    """Operators of values for users: errors end at the user's line (see core.frames)."""
    from tinyflow.ops import operators  # installs them on Value

    methods = [f"__{m}__" for m in (*operators.COMPARE, *operators.UNARY, *operators.BINARY)]
    methods += [f"__r{m}__" for m in operators.BINARY]
    methods += [f"__{m}__" for m in ("getitem", "array", "bool", "float", "int", "iter", "len")]
    for name in methods:
        setattr(Tensor, name, boundary(getattr(Tensor, name)))


_trim_operators()
