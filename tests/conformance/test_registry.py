"""Every op says what it is, how it runs, what it has for a gradient, and how to test it."""

from __future__ import annotations

import inspect

import pytest

from tests.conformance.cases import NO_SAMPLES, bad_samples_of, classes, samples_of
from tinyflow.ir.graph.nodes import Effect, Op

HOW_IT_RUNS = (
    "compute", "decompose", "lower_loops", "functionalize", "call_host", "specialize", "told",
)  # fmt: skip
#: ops that take any input: there is no bad sample of the right number of inputs
TAKES_ANYTHING = {
    "Again", "Cast", "CopyArray", "Identity", "IsVariableInitialized", "OnesLike",
    "PreventGradient", "Print", "PyFunc", "StopGradient", "Stored", "VariableRead", "ZerosLike",
}  # fmt: skip


def overrides(op_class: type[Op], method: str) -> bool:
    return getattr(op_class, method, None) not in (None, getattr(Op, method, None))


@pytest.mark.parametrize("op_class", classes(), ids=lambda c: c.__name__)
def test_op_is_complete(op_class: type[Op]) -> None:
    name = op_class.__name__
    own_text = inspect.getdoc(op_class) or ""
    assert own_text and not own_text.startswith(f"{name}("), f"{name} has no docstring of its own"
    assert overrides(op_class, "infer"), f"{name} has no infer"
    if name != "Input":
        assert any(overrides(op_class, m) for m in HOW_IT_RUNS), (
            f"{name} cannot run: give it one of {', '.join(HOW_IT_RUNS)}"
        )
    # Loops and branches are differentiated by autodiff.control.
    differentiable = overrides(op_class, "vjp") or hasattr(op_class, "is_control")
    reason = op_class.not_differentiable
    assert differentiable or reason, f"{name}: write vjp, or not_differentiable with the reason"
    assert reason is None or len(str(reason).split()) > 1, f"{name}: {reason!r} is no reason"


@pytest.mark.parametrize("op_class", classes(), ids=lambda c: c.__name__)
def test_op_has_samples(op_class: type[Op]) -> None:
    name = op_class.__name__
    samples = list(samples_of(op_class))
    if name in NO_SAMPLES:
        assert not samples, f"{name} has samples: remove it from NO_SAMPLES"
        return
    assert samples, f"{name} has no samples"
    takes_inputs = any(s.arrays for s in samples)
    if takes_inputs and name not in TAKES_ANYTHING:
        assert list(bad_samples_of(op_class)), f"{name} has no bad_samples"


def test_effects_have_hooks() -> None:
    """What is not pure is translated (functionalize) or runs in Python (call_host)."""
    for op_class in classes():
        if op_class.effect in (Effect.READ, Effect.WRITE, Effect.RANDOM):
            assert hasattr(op_class, "functionalize"), op_class.__name__
        if op_class.effect is Effect.HOST:
            assert hasattr(op_class, "call_host"), op_class.__name__
            assert getattr(op_class, "runs_on_host", False), op_class.__name__


def test_no_sample_exceptions_exist() -> None:
    names = {c.__name__ for c in classes()}
    assert set(NO_SAMPLES) <= names, set(NO_SAMPLES) - names
    assert names >= TAKES_ANYTHING, TAKES_ANYTHING - names
