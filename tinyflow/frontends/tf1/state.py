"""Operations on variables beyond assignment: scatter updates, counters, guarded reads.

Main types: ``InitializedValue``; the user functions. May import core, ops, elements, convert.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinyflow.core.error import ShapeError
from tinyflow.core.titled import titled
from tinyflow.frontends.tf1.convert import convert_to_tensor, is_tensor, tensor
from tinyflow.ir.graph.builder import emit
from tinyflow.ir.graph.nodes import Effect, Op, TensorType, Value
from tinyflow.ops import state as ops
from tinyflow.ops.logical import select

__all__ = [
    "InitializedValue", "count_up_to", "scatter_add", "scatter_div", "scatter_max", "scatter_min",
    "scatter_mul", "scatter_sub", "scatter_update",
]  # fmt: skip


@dataclass(frozen=True)
class InitializedValue(Op):
    """The variable's value when it has one, else ``initial``.

    initial: the variable's type       Gradient: to ``initial`` only through its own path (none)
    """

    ref: Any
    effect = Effect.READ
    not_differentiable = "it reads a variable"

    def infer(self, initial: TensorType) -> TensorType:  # type: ignore[override]
        if initial != self.ref.type:
            raise ShapeError(f"initial value of {self.ref.name}", expected=str(self.ref.type))
        return initial

    def functionalize(self, state: Any, initial: Value) -> Value:
        return select(state.initialized(self.ref), state.read(self.ref), initial)  # type: ignore[no-any-return]


def count_up_to(ref: Any, limit: int, name: str | None = None) -> Any:
    """The value before adding 1; OutOfRangeError in the run that would go past ``limit``."""
    from tinyflow.frontends.tf1.variables import as_variable

    variable = as_variable(ref, "count_up_to")
    with variable.graph.as_default():
        return emit(ops.CountUpTo(variable.ref, limit), name=name)


def _scatter(kind: str) -> Any:
    class_name = ops.SCATTERS[kind].__name__

    @titled(
        f"scatter_{kind}", f"{class_name} on rows of a variable; the result is the new value."
    )
    def function(
        ref: Any, indices: Any, updates: Any, use_locking: Any = None, name: str | None = None
    ) -> Any:
        from tinyflow.frontends.tf1.variables import as_variable

        variable = as_variable(ref, class_name)
        op = ops.SCATTERS[kind](variable.ref)
        graph = variable.graph
        with graph.as_default():
            full = graph.claim(name, op)
            with graph.name_scope(full + "/"):
                indices = tensor(indices, "indices")
                updates = convert_to_tensor(
                    updates, None if is_tensor(updates) else variable.dtype, name="updates"
                )
            return graph.emit(op, (indices, updates), full + "/")

    return function


scatter_update = _scatter("update")
scatter_add = _scatter("add")
scatter_sub = _scatter("sub")
scatter_mul = _scatter("mul")
scatter_div = _scatter("div")
scatter_min = _scatter("min")
scatter_max = _scatter("max")
