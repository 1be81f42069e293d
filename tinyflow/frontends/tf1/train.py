"""``tf.train``: optimizers as graph operations, and the global step.

Main types: ``Optimizer``, ``GradientDescentOptimizer``. May import core, gradients, variables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinyflow.core.dtype import int64
from tinyflow.core.error import GraphError, InvalidArgumentError
from tinyflow.core.frames import public_methods
from tinyflow.core.source import Source, user_frame
from tinyflow.frontends.tf1.control import group
from tinyflow.frontends.tf1.convert import convert_to_tensor, is_tensor, tensor
from tinyflow.frontends.tf1.elements import Operation
from tinyflow.frontends.tf1.gradients import gradients
from tinyflow.frontends.tf1.graph import Graph, get_default_graph
from tinyflow.frontends.tf1.graph_keys import GraphKeys
from tinyflow.frontends.tf1.initializers import Zeros
from tinyflow.frontends.tf1.variable_scope import get_variable
from tinyflow.frontends.tf1.variables import Variable, as_variable, trainable_variables
from tinyflow.ir.graph.nodes import Value

__all__ = [
    "GradientDescentOptimizer", "Optimizer", "assert_global_step", "create_global_step",
    "get_global_step", "get_or_create_global_step", "global_step",
]  # fmt: skip


@public_methods()
class Optimizer:
    """Base of the optimizers: ``minimize`` adds gradients and updates to the graph.

    A subclass makes its tensors in ``_prepare`` and an update per variable in ``_apply_dense``.
    """

    GATE_NONE, GATE_OP, GATE_GRAPH = 0, 1, 2

    def __init__(self, use_locking: bool, name: str) -> None:
        if not name:
            raise InvalidArgumentError("Must specify the optimizer name")
        self._use_locking = use_locking
        self._name = name
        self._slots: dict[str, dict[Variable, Variable]] = {}
        self._minimized: list[tuple[Operation, Source]] = []

    def get_name(self) -> str:
        return self._name

    def minimize(
        self, loss: Any, global_step: Any = None, var_list: Any = None, gate_gradients: int = 1,
        aggregation_method: Any = None, colocate_gradients_with_ops: bool = False,
        name: str | None = None, grad_loss: Any = None,
    ) -> Operation:  # fmt: skip
        """An operation that takes one step of every variable against its gradient of ``loss``.

        The gradient of a loss that is no scalar is that of the sum of its elements.
        Errors: InvalidArgumentError when no variable is connected to the loss.
        """
        pairs = self.compute_gradients(
            loss, var_list, gate_gradients, aggregation_method, colocate_gradients_with_ops,
            grad_loss,
        )  # fmt: skip
        if all(gradient is None for gradient, _ in pairs):
            names = [str(variable) for _, variable in pairs]
            raise InvalidArgumentError(
                "No gradients provided for any variable, check your graph for ops that do not "
                f"support gradients, between variables {names} and loss {loss}.",
                source=tensor(loss).node.source,
                hint="the loss does not depend on these variables in a differentiable way",
            )
        return self.apply_gradients(pairs, global_step, name)

    def compute_gradients(
        self, loss: Any, var_list: Any = None, gate_gradients: int = 1,
        aggregation_method: Any = None, colocate_gradients_with_ops: bool = False,
        grad_loss: Any = None,
    ) -> list[tuple[Any, Variable]]:  # fmt: skip
        """Pairs (gradient or None, variable) for ``var_list``, by default all trainable ones."""
        if callable(loss) and not isinstance(loss, Value):
            loss = loss()
        loss = tensor(loss)
        self._note_vector_loss(loss)
        if isinstance(var_list, Variable):
            var_list = [var_list]
        graph = loss.node.graph
        with graph.as_default():
            variables = trainable_variables() if var_list is None else list(var_list)
            if not variables:
                raise InvalidArgumentError(
                    "No variables to optimize.", hint="make parameters with tf.Variable"
                )
            variables = [as_variable(v, "minimize") for v in variables]
            found = gradients(loss, variables, grad_loss)
        return list(zip(found, variables, strict=True))

    @staticmethod
    def _note_vector_loss(loss: Any) -> None:
        if loss.type.shape != ():
            loss.node.graph.note(
                f"the loss {loss.name} has shape {loss.shape}, not (): the gradient is that of "
                "the SUM of its elements, so the step grows with the batch; did you mean "
                "tf.reduce_mean?"
            )

    def apply_gradients(
        self, grads_and_vars: Sequence[tuple[Any, Any]], global_step: Any = None,
        name: str | None = None,
    ) -> Operation:  # fmt: skip
        """An operation that applies the gradients and, after them, counts up ``global_step``."""
        pairs = [(g, as_variable(v, "apply_gradients")) for g, v in grads_and_vars]
        if not pairs:
            raise InvalidArgumentError("No variables provided.")
        used = [(g, v) for g, v in pairs if g is not None]
        if not used:
            raise InvalidArgumentError(
                f"No gradients provided for any variable: {[str(v) for _, v in pairs]}."
            )
        graph = used[0][1].graph
        with graph.as_default():
            with graph.control_dependencies(None):
                self._create_slots([v for _, v in used])
            with graph.name_scope(name or self._name) as scope:
                self._prepare()
                updates = []
                for gradient, variable in used:
                    gradient = convert_to_tensor(gradient)
                    with graph.name_scope(f"update_{variable.op.name}"):
                        updates.append(self._apply_dense(gradient, variable))
                done = self._finish(updates, "update" if global_step is not None else scope)
                if global_step is not None:
                    with graph.control_dependencies([done]):
                        counted = as_variable(global_step, "minimize").assign_add(1, name=scope)
                    done = counted.node
        train_ops = graph.get_collection_ref(GraphKeys.TRAIN_OP)
        if done not in train_ops:
            train_ops.append(done)
        self._minimized.append((done, user_frame(1)))
        return done  # type: ignore[no-any-return]

    def _as_graph_element(self) -> Operation:
        """Fetched bare, an optimizer means its only ``minimize`` (the lecture writes it so)."""
        if len(self._minimized) == 1:
            return self._minimized[0][0]
        if not self._minimized:
            raise InvalidArgumentError(
                f"the optimizer {self._name} was fetched, but its minimize() was never called",
                hint="train_op = optimizer.minimize(loss)",
            )
        places = {f"minimize {i + 1} at": s for i, (_, s) in enumerate(self._minimized)}
        raise InvalidArgumentError(
            f"the optimizer {self._name} was fetched, but it has {len(places)} minimize() calls",
            sources=places,
            hint="fetch the result of one of them: train_op = optimizer.minimize(loss)",
        )

    # ------------------------------------------------------------------ for subclasses

    def _create_slots(self, var_list: list[Variable]) -> None:
        """Makes what the optimizer remembers per variable."""

    def _prepare(self) -> None:
        """Makes tensors of the hyper-parameters."""

    def _apply_dense(self, gradient: Any, variable: Variable) -> Operation:
        raise NotImplementedError(type(self).__name__)

    def _finish(self, updates: list[Operation], scope: str) -> Operation:
        return group(*updates, name=scope)

    def _call_if_callable(self, value: Any) -> Any:
        return value() if callable(value) and not isinstance(value, Value) else value

    def get_slot_names(self) -> list[str]:
        return sorted(self._slots)

    def get_slot(self, var: Variable, name: str) -> Variable | None:
        return self._slots.get(name, {}).get(var)

    def variables(self) -> list[Variable]:
        return [v for slot in self._slots.values() for v in slot.values()]


@public_methods()
class GradientDescentOptimizer(Optimizer):
    """w := w - learning_rate * gradient. ``learning_rate``: a number, a tensor or a function."""

    def __init__(
        self, learning_rate: Any, use_locking: bool = False, name: str = "GradientDescent"
    ) -> None:
        super().__init__(use_locking, name)
        self._learning_rate = learning_rate
        self._rates: dict[Any, Any] = {}

    def _prepare(self) -> None:
        self._rate = self._call_if_callable(self._learning_rate)
        self._rates = {}
        self._scope = get_default_graph().get_name_scope() + "/"

    def _rate_for(self, variable: Variable) -> Any:
        """The rate as a tensor of the variable's dtype, made once per ``apply_gradients``."""
        from tinyflow.frontends.tf1.array_functions import cast

        found = self._rates.get(variable.dtype)
        if found is None:
            rate = self._rate
            with variable.graph.name_scope(self._scope):
                found = (
                    cast(tensor(rate), variable.dtype)
                    if is_tensor(rate)
                    else convert_to_tensor(rate, variable.dtype, name="learning_rate")
                )
            self._rates[variable.dtype] = found
        return found

    def _apply_dense(self, gradient: Any, variable: Variable) -> Operation:
        step = gradient * self._rate_for(variable)
        return variable.assign_sub(step, name="ApplyGradientDescent").node  # type: ignore[no-any-return]


# ---------------------------------------------------------------------- the global step


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
