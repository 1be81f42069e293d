"""Variables and their life: creation, initialisation, reading, assignment.

Main type: ``Variable``. May import core, ops, graph, convert.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tinyflow.core.dtype import DType, as_dtype, bool_
from tinyflow.core.error import FailedPreconditionError, InvalidArgumentError, Unsupported
from tinyflow.core.frames import boundary, public_methods
from tinyflow.core.shape import is_static
from tinyflow.core.source import user_frame
from tinyflow.core.titled import titled
from tinyflow.frontends.tf1.control import group
from tinyflow.frontends.tf1.convert import convert_to_tensor, is_tensor
from tinyflow.frontends.tf1.elements import Operation, Tensor, _session_for
from tinyflow.frontends.tf1.graph import Graph, get_default_graph
from tinyflow.frontends.tf1.graph_keys import GraphKeys
from tinyflow.frontends.tf1.state import InitializedValue
from tinyflow.frontends.tf1.tensor_shape import TensorShape, text_of
from tinyflow.ir.graph.builder import emit
from tinyflow.ir.graph.nodes import TensorType, Value
from tinyflow.ops import operators
from tinyflow.ops import state as ops
from tinyflow.ops.convert import identity

__all__ = [
    "Variable", "all_variables", "assert_variables_initialized", "assign", "assign_add",
    "assign_sub", "global_variables", "global_variables_initializer", "initialize_all_tables",
    "is_variable_initialized", "local_variables", "local_variables_initializer", "model_variables",
    "moving_average_variables", "report_uninitialized_variables", "tables_initializer",
    "trainable_variables", "variables_initializer",
]  # fmt: skip


@public_methods()
class Variable:
    """State that outlives a run; every session has its own value.

    ``Variable(initial_value, trainable=True, collections=None, validate_shape=True, name=None,
    dtype=None)``; ``initial_value`` is a tensor, anything that converts to one, or a function
    without arguments that makes it. Used in an expression it is its value at the start of the
    step; ``read_value`` obeys the control dependencies it is made under.
    Errors: InvalidArgumentError without an initial value, Unsupported for an unknown shape.
    """

    def __init__(
        self,
        initial_value: Any = None,
        trainable: bool | None = None,
        collections: Iterable[str] | None = None,
        validate_shape: bool = True,
        caching_device: Any = None,
        name: str | None = None,
        variable_def: Any = None,
        dtype: Any = None,
        expected_shape: Any = None,
        import_scope: str | None = None,
        constraint: Any = None,
        use_resource: bool | None = None,
        synchronization: Any = None,
        aggregation: Any = None,
        shape: Any = None,
    ) -> None:
        if initial_value is None:
            raise InvalidArgumentError(
                "initial_value must be specified.",
                hint="tf.Variable(tf.zeros([784, 10])), or tf.get_variable(name, shape)",
            )
        graph = get_default_graph()
        self.graph: Graph = graph
        self.trainable = True if trainable is None else bool(trainable)
        self.constraint = constraint
        self._in_graph_mode = True
        # An initial value that is a tensor of another graph brings the variable there, as any op.
        with graph.control_dependencies(None), graph.name_scope(name or "Variable") as scope:
            value = self._convert(initial_value, dtype)
            self._check_shape(value, shape)
            self._build(value, scope)
        keys = [GraphKeys.GLOBAL_VARIABLES] if collections is None else list(collections)
        if not isinstance(keys, (list, tuple, set)) or isinstance(collections, str):
            raise InvalidArgumentError(
                f"collections argument to Variable constructor must be a list, tuple, or set. "
                f"Got {collections!r}"
            )
        if self.trainable and GraphKeys.TRAINABLE_VARIABLES not in keys:
            keys.append(GraphKeys.TRAINABLE_VARIABLES)
        graph.add_to_collections(keys, self)

    def _convert(self, initial_value: Any, dtype: Any) -> Tensor:
        if callable(initial_value) and not isinstance(initial_value, Value):
            with self.graph.name_scope("Initializer"):
                return convert_to_tensor(initial_value(), dtype, name="initial_value")  # type: ignore[no-any-return]
        return convert_to_tensor(initial_value, dtype, name="initial_value")  # type: ignore[no-any-return]

    def _check_shape(self, value: Tensor, shape: Any) -> None:
        if is_static(value.type.shape):
            return
        if value.type.shape is None:
            what = f"initial_value must have a shape specified: {value}"
        else:
            what = f"initial_value has the shape {text_of(value.type.shape)}, not all of it known"
        raise Unsupported(
            what,
            source=value.node.source,
            hint="a variable's shape is fixed when it is made: give the placeholder a full shape, "
            "or initial_value.set_shape([...])",
        )

    def _build(self, value: Tensor, scope: str) -> None:
        self._initial_value = value
        ref_type = TensorType(value.dtype, value.type.shape)
        self.ref = ops.VariableRef(scope[:-1], ref_type, user_frame(1), self.trainable)
        self._variable: Tensor = emit(ops.VariableRead(self.ref), name=scope)
        self.initializer: Operation = emit(ops.Assign(self.ref), value, name="Assign").node
        self._snapshot: Tensor = identity(self._variable, name="read")
        variables_of(self.graph)[self._variable] = self

    # ------------------------------------------------------------------ what it is

    @property
    def name(self) -> str:
        return self._variable.name

    @property
    def _shared_name(self) -> str:
        return self._variable.node.name

    @property
    def op(self) -> Operation:
        return self._variable.node

    @property
    def dtype(self) -> DType:
        return self.ref.type.dtype  # type: ignore[no-any-return]

    @property
    def shape(self) -> TensorShape:
        return TensorShape(self.ref.type.shape)

    def get_shape(self) -> TensorShape:
        return self.shape

    @property
    def type(self) -> TensorType:
        return self.ref.type  # type: ignore[no-any-return]

    @property
    def device(self) -> str:
        return self._variable.device

    @property
    def source(self) -> Any:
        return self.ref.source

    @property
    def initial_value(self) -> Tensor:
        return self._initial_value

    def __repr__(self) -> str:
        return f"<tf.Variable '{self.name}' shape={self.shape} dtype={self.dtype}_ref>"

    # ------------------------------------------------------------------ reading

    def as_value(self) -> Tensor:
        """What an operation on this variable reads: its value at the start of the step.

        Under ``control_dependencies`` it is read after them, so that it shows their writes.
        """
        graph = self.graph
        if graph._controls and graph.finalized is False:
            with graph.name_scope(self.op.name + "/"):
                return graph.emit(ops.LaterRead(self.ref), (self._snapshot,), "read")  # type: ignore[no-any-return]
        return self._snapshot

    def value(self) -> Tensor:
        return self._snapshot

    def _ref(self) -> Tensor:
        return self._variable

    def _as_graph_element(self) -> Tensor:
        return self._variable

    def read_value(self) -> Tensor:
        """The value as seen after the control dependencies in force now."""
        with self.graph.as_default():
            return emit(ops.LaterRead(self.ref), self._snapshot, name="read")  # type: ignore[no-any-return]

    def initialized_value(self) -> Tensor:
        """The variable's value, or its initial value while it has none."""
        with self.graph.as_default(), self.graph.name_scope("cond") as scope:
            return emit(InitializedValue(self.ref), self._initial_value, name=scope)  # type: ignore[no-any-return]

    def eval(self, session: Any = None) -> Any:
        return self._variable.eval(session=session)

    # ------------------------------------------------------------------ writing

    def assign(
        self, value: Any, use_locking: bool = False, name: str | None = None,
        read_value: bool = True,
    ) -> Any:  # fmt: skip
        """An operation that stores ``value``; as a tensor it is the new value."""
        return _written(self, ops.Assign(self.ref), value, name, read_value)

    def assign_add(
        self, delta: Any, use_locking: bool = False, name: str | None = None,
        read_value: bool = True,
    ) -> Any:  # fmt: skip
        return _written(self, ops.AssignAdd(self.ref), delta, name, read_value)

    def assign_sub(
        self, delta: Any, use_locking: bool = False, name: str | None = None,
        read_value: bool = True,
    ) -> Any:  # fmt: skip
        return _written(self, ops.AssignSub(self.ref), delta, name, read_value)

    def count_up_to(self, limit: int) -> Tensor:
        from tinyflow.frontends.tf1.state import count_up_to

        return count_up_to(self, limit)  # type: ignore[no-any-return]

    def load(self, value: Any, session: Any = None) -> None:
        """Stores an array in the variable of ``session`` without building operations."""
        session = _session_for(self.graph, session, "run")
        array = np.asarray(value, dtype=self.dtype.numpy)
        if array.shape != self.ref.type.shape:
            raise InvalidArgumentError(
                f"load: value of shape {array.shape} for variable '{self.name}' of shape "
                f"{self.shape}",
                source=self.ref.source,
            )
        with session._lock:
            session._store().write(self.ref, array)

    def __iter__(self) -> Any:
        raise TypeError("'Variable' object is not iterable.")

    __array_priority__ = 100


_OPERATORS = (
    *operators.COMPARE, *operators.UNARY, *operators.BINARY, *(f"r{m}" for m in operators.BINARY),
    "getitem", "bool", "float", "int", "len",
)  # fmt: skip


def _delegate(operator: str) -> None:
    """Operators act on the variable's value at the start of the step."""
    name = f"__{operator}__"

    @titled(name)
    def method(self: Variable, *operands: Any) -> Any:
        return getattr(self.as_value(), name)(*operands)

    setattr(Variable, name, boundary(method))


for _operator in _OPERATORS:
    _delegate(_operator)


def variables_of(graph: Graph) -> dict[Tensor, Variable]:
    """The graph's variables by their tensor; kept with the graph."""
    found = getattr(graph, "variables_by_tensor", None)
    if found is None:
        found = graph.variables_by_tensor = {}  # type: ignore[attr-defined]
    return found


def as_variable(ref: Any, what: str) -> Variable:
    """The variable that a function was given. Errors: InvalidArgumentError for anything else."""
    if isinstance(ref, Variable):
        return ref
    if isinstance(ref, Tensor):
        found = variables_of(ref.graph).get(ref)
        if found is not None:
            return found
        op = ref.node.op
        written = getattr(op, "ref", None)
        if written is not None:  # the result of an assignment stands for its variable
            for variable in variables_of(ref.graph).values():
                if variable.ref is written:
                    return variable
    raise InvalidArgumentError(
        f"{what}: the first argument must be a variable, got {ref}",
        source=ref.node.source if isinstance(ref, Tensor) else None,
        hint="tensors are values without a store; make it a tf.Variable",
    )


def _written(variable: Variable, op: Any, value: Any, name: str | None, read_value: bool) -> Any:
    graph = variable.graph
    with graph.as_default():
        full = graph.claim(name, op)
        with graph.name_scope(full + "/"):
            value = convert_to_tensor(value, _dtype_for(value, variable), name="value")
        result = graph.emit(op, (value,), full + "/")
    return result if read_value else result.node


def _dtype_for(value: Any, variable: Variable) -> Any:
    """Literals take the variable's dtype; tensors are checked by the op."""
    return None if is_tensor(value) else variable.dtype


def assign(
    ref: Any, value: Any, validate_shape: Any = None, use_locking: Any = None,
    name: str | None = None,
) -> Any:  # fmt: skip
    """Stores ``value`` in the variable ``ref``; the result is the new value."""
    return as_variable(ref, "assign").assign(value, name=name)


def assign_add(ref: Any, value: Any, use_locking: Any = None, name: str | None = None) -> Any:
    """ref += value; the result is the new value."""
    return as_variable(ref, "assign_add").assign_add(value, name=name)


def assign_sub(ref: Any, value: Any, use_locking: Any = None, name: str | None = None) -> Any:
    """ref -= value; the result is the new value."""
    return as_variable(ref, "assign_sub").assign_sub(value, name=name)


# ---------------------------------------------------------------------- collections of variables


def _collection(key: str, scope: str | None) -> list[Any]:
    return get_default_graph().get_collection(key, scope)


def global_variables(scope: str | None = None) -> list[Variable]:
    """All variables that a session shares with others, in order of creation."""
    return _collection(GraphKeys.GLOBAL_VARIABLES, scope)


all_variables = global_variables


def local_variables(scope: str | None = None) -> list[Variable]:
    """Variables of the collection LOCAL_VARIABLES."""
    return _collection(GraphKeys.LOCAL_VARIABLES, scope)


def trainable_variables(scope: str | None = None) -> list[Variable]:
    """Variables that optimizers change."""
    return _collection(GraphKeys.TRAINABLE_VARIABLES, scope)


def model_variables(scope: str | None = None) -> list[Variable]:
    """Variables of the collection MODEL_VARIABLES."""
    return _collection(GraphKeys.MODEL_VARIABLES, scope)


def moving_average_variables(scope: str | None = None) -> list[Variable]:
    """Variables whose moving averages are kept."""
    return _collection(GraphKeys.MOVING_AVERAGE_VARIABLES, scope)


# ---------------------------------------------------------------------- initialisation


def variables_initializer(var_list: Sequence[Variable], name: str = "init") -> Operation:
    """An operation that gives every variable of ``var_list`` its initial value."""
    initializers = [v.initializer for v in var_list]
    return group(*initializers, name=name)


def global_variables_initializer() -> Operation:
    """Initialises all global variables made so far."""
    return variables_initializer(global_variables())


def local_variables_initializer() -> Operation:
    """Initialises all local variables made so far."""
    return variables_initializer(local_variables(), name="init")


def tables_initializer(name: str = "init_all_tables") -> Operation:
    """Runs what the collection TABLE_INITIALIZERS holds."""
    return group(*get_default_graph().get_collection(GraphKeys.TABLE_INITIALIZERS), name=name)


initialize_all_tables = tables_initializer


def is_variable_initialized(ref: Any, name: str | None = None) -> Tensor:
    """bool[]: whether the variable has a value in this session."""
    variable = as_variable(ref, "is_variable_initialized")
    with variable.graph.as_default():
        return emit(ops.IsVariableInitialized(variable.ref), name=name)  # type: ignore[no-any-return]


def report_uninitialized_variables(
    var_list: Sequence[Variable] | None = None, name: str = "report_uninitialized_variables"
) -> Uninitialized:
    """Fetched, it gives the names of the variables that have no value yet (an object array)."""
    if var_list is None:
        var_list = global_variables() + local_variables()
    graph = get_default_graph()
    with graph.name_scope(name):
        flags = [is_variable_initialized(v) for v in var_list]
    return Uninitialized(graph, list(var_list), flags)


class Uninitialized:
    """A fetch whose result is names: strings stay outside the compiled graph."""

    def __init__(self, graph: Graph, variables: list[Variable], flags: list[Tensor]) -> None:
        self.graph = graph
        self.fetched = flags
        self.names = [v.op.name for v in variables]

    def finish(self, results: Sequence[Any]) -> np.ndarray:
        missing = [n.encode() for n, ready in zip(self.names, results, strict=True) if not ready]
        return np.array(missing, dtype=object)

    def eval(self, feed_dict: Any = None, session: Any = None) -> Any:
        return _session_for(self.graph, session, "eval").run(self, feed_dict)


def assert_variables_initialized(var_list: Sequence[Variable] | None = None) -> Operation:
    """An operation that fails unless all variables have values; old programs run it once."""
    from tinyflow.frontends.tf1.host import py_func

    if var_list is None:
        var_list = global_variables() + local_variables()
    names = [v.op.name for v in var_list]
    graph = get_default_graph()

    def check(*ready: Any) -> bool:
        missing = [n for n, r in zip(names, ready, strict=True) if not r]
        if missing:
            raise FailedPreconditionError(
                f"Attempting to use uninitialized value {missing[0]}",
                hint="run sess.run(tf.global_variables_initializer()) first",
            )
        return True

    with graph.name_scope("assert_variables_initialized"):
        flags = [is_variable_initialized(v) for v in var_list]
        return group(py_func(check, flags, as_dtype(bool_)))


initialize_variables = variables_initializer
initialize_all_variables = global_variables_initializer
initialize_local_variables = local_variables_initializer
