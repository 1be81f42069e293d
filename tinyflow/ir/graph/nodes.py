"""The tensor graph: immutable nodes, typed values, functions.

Main types: ``TensorType``, ``Op`` (base of every operation), ``Node``, ``Value``, ``Function``.
Imports core only; operations themselves live in ``ops``.

Grammar::

    function = Function(name, inputs, outputs)          values of its own nodes
    node     = Node(op, inputs, control_inputs)         op is a frozen dataclass: its attributes
    value    = (node, index)                            the index-th result of a node
    type     = dtype[shape]
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from tinyflow.core import shape as shapes
from tinyflow.core.dtype import DType, as_dtype
from tinyflow.core.error import DTypeError, ShapeError
from tinyflow.core.shape import Dimension, Shape
from tinyflow.core.source import UNKNOWN, Source


class TensorType:
    """An element type and a shape; prints as ``float32[32, 784]``."""

    __slots__ = ("dtype", "shape")

    dtype: DType
    shape: Shape

    def __init__(self, dtype: Any, shape: Sequence[Dimension] | None = ()) -> None:
        self.dtype = dtype if type(dtype) is DType else as_dtype(dtype)
        self.shape = shape if shape is None or type(shape) is tuple else tuple(shape)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, TensorType)
            and self.dtype is other.dtype
            and self.shape == other.shape
        )

    def __hash__(self) -> int:
        return hash((self.dtype.name, self.shape))

    def __str__(self) -> str:
        return f"{self.dtype.name}{shapes.show(self.shape)}"

    __repr__ = __str__

    @property
    def rank(self) -> int | None:
        return None if self.shape is None else len(self.shape)

    @property
    def is_static(self) -> bool:
        return shapes.is_static(self.shape)

    @property
    def size(self) -> int:
        """Number of elements of a static type."""
        total = 1
        for dim in self.shape or ():
            total *= dim  # type: ignore[assignment]
        return total

    @property
    def size_bytes(self) -> int:
        return self.size * self.dtype.size_bytes

    def with_shape(self, shape: Shape) -> TensorType:
        return TensorType(self.dtype, shape)

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape)

    # Requirements return the type, so that a shape rule reads as one expression.
    def require_float(self) -> TensorType:
        if self.dtype.kind != "float":
            raise DTypeError("needs a floating-point input", expected="a floating dtype")
        return self

    def require_number(self) -> TensorType:
        if self.dtype.kind == "bool":
            raise DTypeError("needs a numeric input", expected="a numeric dtype")
        return self

    def require_integer(self) -> TensorType:
        if self.dtype.kind not in ("int", "uint"):
            raise DTypeError("needs an integer input", expected="an integer dtype")
        return self

    def require_bool(self) -> TensorType:
        if self.dtype.kind != "bool":
            raise DTypeError("needs a boolean input", expected="dtype bool")
        return self

    def require_rank(self, rank: int, at_least: bool = False) -> TensorType:
        if self.shape is not None and (
            len(self.shape) < rank if at_least else len(self.shape) != rank
        ):
            wanted = f"rank {rank}" + (" or more" if at_least else "")
            raise ShapeError(f"needs an input of {wanted}", expected=f"{wanted}, got {self.rank}")
        return self


class Effect(enum.Enum):
    """What common-subexpression elimination, pruning and reordering may assume of an op."""

    NONE = "none"  # a pure function of its inputs
    READ = "read"  # reads a variable
    WRITE = "write"  # writes a variable
    RANDOM = "random"  # draws from a stream: never merged, reproducible by its counter
    HOST = "host"  # calls back into Python: never merged, moved or dropped once needed


class Op:
    """Base of every operation: one frozen dataclass per op, its fields are the attributes.

    A concrete op defines ``infer``, ``reference``, one of ``compute`` / ``decompose``, and ``vjp``
    (or sets ``not_differentiable`` to the reason). See docs/howto_op.md.
    """

    effect: ClassVar[Effect] = Effect.NONE
    onnx: ClassVar[str | None] = None
    #: all inputs have one dtype; Python numbers take the dtype of the tensors beside them
    same_dtype: ClassVar[bool] = True
    #: why there is no gradient, or None when ``vjp`` exists
    not_differentiable: ClassVar[str | None] = None
    #: positions of inputs whose *values* must be known when the step is compiled (shapes, axes)
    static_inputs: ClassVar[tuple[int, ...]] = ()
    #: the result is the first input's elements in the same order under another shape
    is_view: ClassVar[bool] = False

    #: name of the class
    type_name: ClassVar[str] = "Op"

    def __init_subclass__(cls, abstract: bool = False, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls.type_name = cls.__name__
        if not abstract:
            REGISTRY[cls.__name__] = cls

    @property
    def attributes(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    # Types in, types out; the only shape rule. One type, or a tuple for several results.
    def infer(self, *types: TensorType) -> TensorType | tuple[TensorType, ...]:
        raise NotImplementedError(f"{self.type_name}.infer")

    def reference(self, *arrays: Any) -> Any:
        """The meaning, in NumPy."""
        raise NotImplementedError(f"{self.type_name}.reference")

    def compute(self, *tensors: Any) -> Any:
        """Tensor expression of the result; ``None`` on the class when the op is composite."""
        raise NotImplementedError(f"{self.type_name}.compute")

    def decompose(self, *values: Value) -> Any:
        """The result built from other ops (composite ops only)."""
        raise NotImplementedError(f"{self.type_name}.decompose")

    def vjp(self, *parts: Any) -> tuple[Any, ...]:
        """``vjp(dy, y, *inputs)``: one gradient value or None per input, built from ops."""
        raise NotImplementedError(f"{self.type_name}.vjp")

    def samples(self, rng: Any) -> Iterable[tuple[Any, ...]]:
        """Input tuples (arrays) for the conformance suite; see ``ops.base.Sample``."""
        return ()

    def bad_samples(self) -> Iterable[Any]:
        """Pairs (inputs, error class) for the conformance suite."""
        return ()


#: every concrete op class by name
REGISTRY: dict[str, type[Op]] = {}


class Value:
    """One result of a node."""

    __slots__ = ("__weakref__", "index", "node")

    node: Node
    index: int

    def __init__(self, node: Node, index: int) -> None:
        self.node = node
        self.index = index

    @property
    def type(self) -> TensorType:
        return self.node.types[self.index]

    @property
    def dtype(self) -> DType:
        return self.node.types[self.index].dtype

    def __repr__(self) -> str:
        label = self.node.name or self.node.op.type_name
        suffix = f":{self.index}" if len(self.node.types) > 1 else ""
        return f"<{label}{suffix} {self.type}>"


class Node:
    """One operation applied to values. Never changed after construction.

    source: the user's line that made it.
    origin: further labelled places, e.g. ("gradient of", Source) on nodes made by autodiff.
    """

    __slots__ = (
        "__weakref__",
        "control_inputs",
        "device",
        "inputs",
        "name",
        "op",
        "origin",
        "outputs",
        "source",
        "types",
    )  # fmt: skip

    value_class: ClassVar[type[Value]] = Value

    def __init__(
        self,
        op: Op,
        inputs: tuple[Value, ...],
        types: tuple[TensorType, ...],
        name: str | None = None,
        control_inputs: tuple[Node, ...] = (),
        device: str = "",
        source: Source = UNKNOWN,
        origin: tuple[tuple[str, Source], ...] = (),
    ) -> None:
        self.op = op
        self.inputs = inputs
        self.types = types
        self.name = name
        self.control_inputs = control_inputs
        self.device = device
        self.source = source
        self.origin = origin
        make = self.value_class
        self.outputs = (
            (make(self, 0),)
            if len(types) == 1
            else tuple([make(self, i) for i in range(len(types))])
        )

    def __repr__(self) -> str:
        return f"<{self.name or ''}={self.op.type_name}({', '.join(map(repr, self.inputs))})>"

    def moved(self, inputs: tuple[Value, ...], control_inputs: tuple[Node, ...]) -> Node:
        """The node on other inputs: most of what passes make, so it skips the constructor."""
        node: Node = object.__new__(Node)
        node.op, node.inputs, node.types = self.op, inputs, self.types
        node.name, node.control_inputs, node.device = self.name, control_inputs, self.device
        node.source, node.origin = self.source, self.origin
        count = len(node.types)
        node.outputs = (
            (Value(node, 0),) if count == 1 else tuple([Value(node, i) for i in range(count)])
        )
        return node

    def replaced(
        self,
        op: Op | None = None,
        inputs: tuple[Value, ...] | None = None,
        types: tuple[TensorType, ...] | None = None,
        control_inputs: tuple[Node, ...] | None = None,
    ) -> Node:
        """A plain node like this one with some parts changed; name and places are kept."""
        return Node(
            self.op if op is None else op,
            self.inputs if inputs is None else inputs,
            self.types if types is None else types,
            self.name,
            self.control_inputs if control_inputs is None else control_inputs,
            self.device,
            self.source,
            self.origin,
        )


@dataclass(frozen=True)
class Input(Op):
    """A parameter of a function: a fed value, the old value of a variable, a random counter.

    role: "feed", "variable", "counter" or "argument". key: what the caller binds it to.
    """

    type: TensorType
    role: str = "argument"
    key: Any = None
    not_differentiable = "a function's parameter has no inputs"

    def infer(self) -> TensorType:
        return self.type


class Function:
    """A closed graph: ``outputs`` computed from ``inputs`` (values of ``Input`` nodes).

    updates: key of a variable or counter -> position in ``outputs`` of its new value.
    """

    __slots__ = ("_nodes", "effects", "inputs", "name", "outputs", "updates")

    def __init__(
        self,
        name: str,
        inputs: Sequence[Value],
        outputs: Sequence[Value],
        updates: dict[Any, int] | None = None,
        effects: Sequence[Node] = (),
    ) -> None:
        self.name = name
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.updates = dict(updates or {})
        self.effects = tuple(effects)  # host calls that run although nothing reads their results
        self._nodes: tuple[Node, ...] | None = None

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes that the outputs need, inputs first, every node after what it reads."""
        if self._nodes is None:
            roots = [v.node for v in self.inputs] + [v.node for v in self.outputs]
            self._nodes = tuple(topological(roots + list(self.effects)))
        return self._nodes

    def with_outputs(self, outputs: Sequence[Value], effects: Sequence[Node] = ()) -> Function:
        return Function(self.name, self.inputs, outputs, self.updates, effects)

    def __repr__(self) -> str:
        from tinyflow.ir.graph.text import show

        return show(self)


def topological(roots: Iterable[Node]) -> list[Node]:
    """Every node reachable from ``roots`` through data and control edges, producers first.

    The order is that of a depth-first walk, inputs left to right: deterministic and iterative.
    It is the walk of core.order written out, because every pass asks for it: 2.5 times as fast.
    """
    order: list[Node] = []
    finished: dict[Node, bool] = {}  # False: entered, True: stands in the order
    state = finished.get
    for root in roots:
        if state(root):
            continue
        stack = [root]
        while stack:
            node = stack[-1]
            known = state(node)
            if known is not None:  # all that it needs stands in the order
                stack.pop()
                if not known:
                    finished[node] = True
                    order.append(node)
                continue
            inputs = node.inputs
            if not inputs and not node.control_inputs:
                stack.pop()
                finished[node] = True
                order.append(node)
                continue
            finished[node] = False
            if node.control_inputs:
                stack += [c for c in node.control_inputs[::-1] if c not in finished]
            for value in inputs[::-1]:
                if value.node not in finished:
                    stack.append(value.node)
    return order
