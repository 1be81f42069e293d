"""What ties compiled steps to a caller's feeds and a session's variables, and who watches them.

Main names: ``binding``, ``check_initialized``, ``observers``. May import compile.program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinyflow.compile.program import Program
from tinyflow.core.error import FailedPreconditionError
from tinyflow.ir.graph.nodes import Function, Value
from tinyflow.runtime.variables import VariableStore

#: called with every new step, and with a bound step whenever it has a new program; for tools
observers: list[Callable[[Any], None]] = []


def binding(value: Value) -> Any:
    """What identifies an input before and after optimisation."""
    key = value.node.op.key  # type: ignore[attr-defined]
    return value.node if key is None else key


def check_initialized(fn: Function, program: Program, store: VariableStore) -> None:
    """Errors: FailedPreconditionError for a variable that the function reads without a value."""
    # A step that asks whether a variable has a value chooses by the answer.
    guarded = {
        v.node.op.key  # type: ignore[attr-defined]
        for v in fn.inputs
        if v.node.op.role == "initialized"  # type: ignore[attr-defined]
    }
    for ref in program.reads:
        if ref not in guarded and not store.is_initialized(ref):
            raise FailedPreconditionError(
                f"Attempting to use uninitialized value {ref.name}",
                received={ref.name: ref.type},
                expected="a variable that has been initialised in this session",
                source=ref.source,
                hint="run sess.run(tf.global_variables_initializer()) first",
            )
