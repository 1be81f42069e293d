"""Stateful, random and host ops, run as steps: variables in, variables out, counters on."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conformance.cases import Case, cases, ids, reference_results
from tests.conformance.test_native import assert_same_bits
from tinyflow.compile import compile_step
from tinyflow.core.error import FailedPreconditionError, InvalidArgumentError, OutOfRangeError
from tinyflow.ir.graph.builder import Builder, building, emit
from tinyflow.ir.graph.nodes import Effect, TensorType
from tinyflow.ir.graph.visit import result_values
from tinyflow.ops import random, state
from tinyflow.ops.placeholder import placeholder
from tinyflow.runtime.variables import VariableStore

STATE = [c for c in cases() if c.is_state]
HOST = [c for c in cases() if c.is_host]


def step_of(case: Case, store: VariableStore) -> list[np.ndarray]:
    """The op as a step on feeds, run once."""
    with building(Builder()):
        feeds = [placeholder(a.dtype, a.shape, name=f"x{n}") for n, a in enumerate(case.arrays)]
        outputs = list(result_values(emit(case.op, *feeds, name=case.id)))
    step = compile_step(outputs, [outputs[0].node], feeds, list(case.types))
    return step.bind(store).run([np.ascontiguousarray(a).reshape(a.shape) for a in case.arrays])


def old_value(case: Case) -> np.ndarray:
    type_ = case.op.ref.type  # type: ignore[attr-defined]
    rng = np.random.default_rng(1)
    return np.asarray(rng.uniform(1.0, 3.0, type_.shape)).astype(type_.dtype.numpy)


@pytest.mark.parametrize("case", STATE, ids=ids(STATE))
def test_state_op_updates_its_variable(case: Case) -> None:
    op = case.op
    old = old_value(case)
    store = VariableStore()
    store.write(op.ref, old)  # type: ignore[attr-defined]
    (result,) = step_of(case, store)
    expected = op.next_value(old, *case.arrays)  # type: ignore[attr-defined]
    declared = op.infer(*case.types)
    assert (result.dtype, result.shape) == (declared.dtype.numpy, declared.shape)
    if op.effect is Effect.READ:
        np.testing.assert_array_equal(result, expected)
        np.testing.assert_array_equal(store.read(op.ref), old)  # type: ignore[attr-defined]
        return
    after = store.read(op.ref)  # type: ignore[attr-defined]
    np.testing.assert_array_max_ulp(
        after, expected, 1
    ) if after.dtype.kind == "f" else np.testing.assert_array_equal(after, expected)
    before_or_after = old if isinstance(op, state.CountUpTo) else after
    assert_same_bits([result], [before_or_after], "result and variable")


def test_reading_without_a_value_is_refused() -> None:
    ref = state.VariableRef("w", TensorType("float32", (2,)))
    with building(Builder()):
        read = state.read_variable(ref)
        known = state.is_variable_initialized(ref)
    with pytest.raises(FailedPreconditionError, match="w"):
        compile_step([read], [], [], []).bind(VariableStore()).run([])
    (flag,) = compile_step([known], [], [], []).bind(VariableStore()).run([])
    assert not flag


def test_count_up_to_ends_with_an_exception() -> None:
    ref = state.VariableRef("n", TensorType("int32", ()))
    with building(Builder()):
        count = state.count_up_to(ref, 2)
    store = VariableStore()
    store.write(ref, np.int32(0))
    step = compile_step([count], [], [], []).bind(store)
    assert [int(step.run([])[0]) for _ in range(2)] == [0, 1]
    with pytest.raises(OutOfRangeError, match="limit of 2"):
        step.run([])
    assert store.read(ref) == 2


def test_scatter_out_of_range_names_index_and_line() -> None:
    ref = state.VariableRef("w", TensorType("float32", (3,)))
    with building(Builder()):
        positions = placeholder("int32", (1,), name="p")
        written = state.scatter("add", ref, positions, np.ones(1, np.float32))
    store = VariableStore()
    store.write(ref, np.zeros(3, np.float32))
    step = compile_step([written], [], [positions], [TensorType("int32", (1,))]).bind(store)
    with pytest.raises(InvalidArgumentError, match=r"(?s)index 5 .*test_state\.py"):
        step.run([np.array([5], np.int32)])


@pytest.mark.parametrize("case", HOST, ids=ids(HOST))
def test_host_op_runs_between_segments(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    for got, want in zip(
        step_of(case, VariableStore()), reference_results(case.op, case.arrays), strict=True
    ):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)
    capsys.readouterr()


DRAWS = {
    "uniform": lambda: random.random_uniform((4, 5), seed=3, seed2=4),
    "normal": lambda: random.random_normal((4, 5), seed=3, seed2=4),
    "truncated": lambda: random.truncated_normal((4, 5), seed=3, seed2=4),
    "integers": lambda: random.random_uniform_int((4, 5), 0, 1000, seed=3, seed2=4),
}


@pytest.mark.parametrize("draw", DRAWS)
def test_random_op_follows_its_counter(draw: str) -> None:
    """Other numbers in every run, the same sequence in every session."""
    with building(Builder()):
        value = DRAWS[draw]()
    step = compile_step([value], [], [], [])

    def sequence() -> list[np.ndarray]:
        bound = step.bind(VariableStore())
        return [bound.run([])[0] for _ in range(3)]

    first, second = sequence(), sequence()
    assert_same_bits(first, second, "two sessions")
    assert len({x.tobytes() for x in first}) == 3
    assert first[0].shape == (4, 5) and len(set(first[0].ravel().tolist())) > 10
