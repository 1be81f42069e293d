"""What all optimizers share: gradients, slots, hyper-parameters, updates of whole tensors or rows.

Main type: ``Optimizer``. May import core, gradients, variables.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from tinyflow.core.error import InvalidArgumentError
from tinyflow.core.frames import public_methods
from tinyflow.core.garbage import collections_paused
from tinyflow.core.source import Source, user_frame
from tinyflow.frontends.tf1.control import group
from tinyflow.frontends.tf1.convert import convert_to_tensor, is_tensor, tensor
from tinyflow.frontends.tf1.elements import Operation
from tinyflow.frontends.tf1.gradients import gradients
from tinyflow.frontends.tf1.graph import get_default_graph
from tinyflow.frontends.tf1.graph_keys import GraphKeys
from tinyflow.frontends.tf1.indexed_slices import IndexedSlices
from tinyflow.frontends.tf1.initializers import Constant
from tinyflow.frontends.tf1.variable_scope import get_variable, variable_scope
from tinyflow.frontends.tf1.variables import Variable, as_variable, trainable_variables
from tinyflow.ir.graph.nodes import Value
from tinyflow.ops.creation import setting

__all__ = ["Optimizer"]

#: what an update reads: hyper-parameter name -> tensor of the variable's dtype
Hyper = Callable[[str], Any]


@public_methods()
class Optimizer:
    """Base of the optimizers: ``minimize`` adds gradients and updates to the graph.

    An optimizer of this package states its formula once, in ``_update``; it serves whole tensors
    and, for gradients that touch some rows only, those rows. A subclass in a user's program may
    override ``_create_slots``, ``_prepare``, ``_apply_dense`` and ``_finish`` as in TensorFlow.
    """

    GATE_NONE, GATE_OP, GATE_GRAPH = 0, 1, 2

    #: slot name -> initial value, in the order in which the slots are made
    slots: ClassVar[dict[str, float]] = {}

    def __init__(self, use_locking: bool, name: str, **hyper: Any) -> None:
        if not name:
            raise InvalidArgumentError("Must specify the optimizer name")
        self._use_locking = use_locking
        self._name = name
        self._hyper = hyper
        self._slots: dict[str, dict[Variable, Variable]] = {}
        self._non_slots: dict[str, Variable] = {}
        self._tensors: dict[tuple[str, Any], Any] = {}
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
        with collections_paused(), graph.as_default():
            with graph.control_dependencies(None), self._at_one_line(graph):
                self._create_slots([v for _, v in used])
            with graph.name_scope(name or self._name) as scope:
                self._tensors = {}
                self._scope = scope
                self._prepare()
                with self._at_one_line(graph):
                    updates = [self._updated(g, v) for g, v in used]
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

    def _at_one_line(self, graph: Any) -> Any:
        """A block in which the user's line is known: it is looked for once, not for every node.

        Not for optimizers that users wrote, whose nodes are made on lines of their own.
        """
        if graph.source is not None or not type(self).__module__.startswith("tinyflow."):
            return contextlib.nullcontext()
        return graph.on_behalf_of(user_frame(2), graph.origin)

    def _updated(self, gradient: Any, variable: Variable) -> Operation:
        """The update of one variable, its constraint applied to the result."""
        graph = variable.graph
        sparse = isinstance(gradient, IndexedSlices)
        with graph.name_scope(f"update_{variable.op.name}"):
            if sparse:
                done = self._apply_sparse(gradient, variable)
            else:
                done = self._apply_dense(convert_to_tensor(gradient), variable)
            if variable.constraint is None:
                return done
            with graph.control_dependencies([done]), graph.on_behalf_of(None, graph.origin):
                return variable.assign(variable.constraint(variable.read_value())).node  # type: ignore[no-any-return]

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

    # ------------------------------------------------------------------ the formula

    def _update(
        self, gradient: Any, value: Any, slots: dict[str, Any], hyper: Hyper
    ) -> tuple[Any, dict[str, Any]]:
        """(new - old value) negated, and the new slots, for elements that a gradient touches.

        hyper(name): a hyper-parameter as a tensor of the variable's dtype.
        """
        raise NotImplementedError(type(self).__name__)

    def _apply_dense(self, gradient: Any, variable: Variable) -> Operation:
        old = {name: self._slots[name][variable].value() for name in self.slots}
        step, new = self._update(gradient, variable.value(), old, self._hyper_of(variable))
        written = [self._slots[name][variable].assign(new[name]) for name in self.slots]
        last = variable.assign_sub(step, name=self._op_name)
        return _together([*written, last])

    def _apply_sparse(self, gradient: IndexedSlices, variable: Variable) -> Operation:
        """The formula on the rows that the gradient touches; other rows and slots stay.

        Rows that occur several times get the sum of their gradients, at each occurrence: all of
        them then write the same new row.
        """
        from tinyflow.frontends.tf1.state import scatter_update
        from tinyflow.ops.indexing import gather
        from tinyflow.ops.segment import sum_of_equal

        rows = gradient.indices
        total = sum_of_equal(gradient.values, rows)
        old = {name: gather(self._slots[name][variable].value(), rows) for name in self.slots}
        value = gather(variable.value(), rows)
        step, new = self._update(total, value, old, self._hyper_of(variable))
        written = [scatter_update(self._slots[n][variable], rows, new[n]) for n in self.slots]
        last = scatter_update(variable, rows, value - step, name="Sparse" + self._op_name)
        return _together([*written, last])

    @property
    def _op_name(self) -> str:
        """TensorFlow's name of the operation that changes the variable."""
        return "Apply" + type(self).__name__.removesuffix("Optimizer")

    # ------------------------------------------------------------------ for subclasses

    def _create_slots(self, var_list: list[Variable]) -> None:
        """Makes what the optimizer remembers per variable."""
        for variable in var_list:
            for slot, initial in self.slots.items():
                self._make_slot(variable, slot, initial, self._name)

    def _make_slot(self, variable: Variable, slot: str, initial: Any, op_name: str) -> Variable:
        """A variable of the shape of ``variable``, named after it, made once."""
        made = self._slots.setdefault(slot, {})
        if variable not in made:
            with variable_scope(None, f"{variable.op.name}/{op_name}"):
                made[variable] = get_variable(
                    "", variable.shape, dtype=variable.dtype, trainable=False,
                    initializer=Constant(initial, dtype=variable.dtype),
                )  # fmt: skip
        return made[variable]

    def _zeros_slot(self, var: Variable, slot_name: str, op_name: str) -> Variable:
        return self._make_slot(var, slot_name, 0.0, op_name)

    def _make_non_slot(self, initial: Any, name: str) -> Variable:
        """A variable of the optimizer that belongs to no other one."""
        if name not in self._non_slots:
            self._non_slots[name] = Variable(initial, trainable=False, name=name)
        return self._non_slots[name]

    def _prepare(self) -> None:
        """Makes tensors of the hyper-parameters."""
        for name, value in self._hyper.items():
            value = self._call_if_callable(value)
            if is_tensor(value):
                self._tensors[name, None] = tensor(value)
            elif name == "learning_rate" and isinstance(value, (float, np.floating)):
                self._tensors[name, None] = setting(value, name)  # changes between programs
            else:
                self._tensors[name, None] = convert_to_tensor(value, name=name)

    def _hyper_of(self, variable: Variable) -> Hyper:
        """Hyper-parameters in the variable's dtype, made once per ``apply_gradients``.

        Python numbers are float32 first: that is what TensorFlow computes with.
        """
        from tinyflow.frontends.tf1.array_functions import cast

        def found(name: str) -> Any:
            key = name, variable.dtype
            if key not in self._tensors:
                with variable.graph.name_scope(self._scope):
                    self._tensors[key] = cast(self._tensors[name, None], variable.dtype)
            return self._tensors[key]

        return found

    def _finish(self, updates: list[Operation], scope: str) -> Operation:
        return group(*updates, name=scope)

    def _call_if_callable(self, value: Any) -> Any:
        return value() if callable(value) and not isinstance(value, Value) else value

    def get_slot_names(self) -> list[str]:
        return sorted(self._slots)

    def get_slot(self, var: Variable, name: str) -> Variable | None:
        return self._slots.get(name, {}).get(as_variable(var, "get_slot"))

    def variables(self) -> list[Variable]:
        """What the optimizer remembers, in the default graph, by name."""
        graph = get_default_graph()
        slots = [v for slot in self._slots.values() for v in slot.values()]
        own = [v for v in [*self._non_slots.values(), *slots] if v.graph is graph]
        return sorted(own, key=lambda v: v.name)


def _together(writes: list[Any]) -> Operation:
    """One operation that runs all the writes."""
    if len(writes) == 1:
        return writes[0].node  # type: ignore[no-any-return]
    return group(*writes)
