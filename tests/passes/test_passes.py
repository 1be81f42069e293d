"""The single passes, text in and text out, and the runner."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.ir.graph.helpers import chain, function
from tinyflow.core import options
from tinyflow.core.error import InternalError
from tinyflow.core.garbage import collections_paused
from tinyflow.ir.graph import interp, text
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Function, Input, Node, TensorType, Value
from tinyflow.ops.creation import constant, fill
from tinyflow.ops.elementwise import add, add_n, exp, multiply, negative, square, subtract
from tinyflow.ops.host import py_func
from tinyflow.ops.movement import broadcast_to
from tinyflow.ops.nn import softmax, softmax_cross_entropy_with_logits
from tinyflow.ops.random import random_uniform
from tinyflow.ops.reduction import reduce_mean, reduce_sum
from tinyflow.passes.base import GraphPass, Step, graph_pass, run_passes
from tinyflow.passes.cse import cse
from tinyflow.passes.decompose import decompose, is_decomposed
from tinyflow.passes.fold_constants import fold_constants
from tinyflow.passes.functionalize import functionalize
from tinyflow.passes.pipeline import PIPELINE, optimize
from tinyflow.passes.prune import prune

MATRIX = ("float32", (2, 3))


def ops(fn: Function) -> list[str]:
    return [n.op.type_name for n in fn.nodes if not isinstance(n.op, Input)]


# ------------------------------------------------------------------------------------------ cse


def test_cse_text() -> None:
    fn = function(lambda x, y: multiply(add(x, y), add(y, x)), MATRIX, MATRIX)
    assert text.canonical(cse(fn)) == (
        '  %0 = Input() {type=float32[2, 3], role="argument"} : float32[2, 3]\n'
        '  %1 = Input() {type=float32[2, 3], role="argument"} : float32[2, 3]\n'
        "  %2 = Add(%0, %1) : float32[2, 3]\n"
        "  %3 = Mul(%2, %2) : float32[2, 3]\n"
        "inputs %0, %1\noutputs %3\n"
    )


def test_cse_compares_attributes_and_constants() -> None:
    def body(x: Any) -> Any:
        return (reduce_sum(x, 0), reduce_sum(x, 0), reduce_sum(x, 1), add(x, 1.0), add(x, 1.0),
                add(x, 2.0))  # fmt: skip

    new = cse(function(body, MATRIX))
    assert new.outputs[0] is new.outputs[1] and new.outputs[3] is new.outputs[4]
    assert ops(new).count("Sum") == 2 and ops(new).count("Constant") == 2


def test_cse_keeps_random_draws_and_host_calls_apart() -> None:
    with building(Builder()):
        draws = random_uniform((3,), seed=1), random_uniform((3,), seed=1)
        calls = [py_func(np.ones, [2], TensorType("float64", (2,))) for _ in range(2)]
        new = cse(functionalize([*draws, *calls]))
    assert new.outputs[0] is not new.outputs[1] and new.outputs[2] is not new.outputs[3]


def test_cse_returns_the_same_function_when_nothing_is_equal() -> None:
    fn = function(lambda x: add(exp(x), x), MATRIX)
    assert cse(fn) is fn


# ------------------------------------------------------------------------------ fold_constants


def test_folding_chains_of_constants() -> None:
    def body(x: Any) -> Any:
        c = constant(np.array([1.0, 2.0], np.float32))
        for _ in range(50):
            c = multiply(c, np.float32(1.5))
        return add(x, c, name="sum")

    new = fold_constants(function(body, ("float32", (2,))))
    assert ops(new) == ["Constant", "Add"]
    np.testing.assert_allclose(
        interp.run(new, [np.zeros(2)])[0], np.array([1, 2]) * 1.5**50, rtol=1e-5
    )


def test_a_repeated_number_stays_a_scalar() -> None:
    new = fold_constants(function(lambda x: add(x, square(fill((2, 3), 3.0))), MATRIX))
    (folded,) = [n for n in new.nodes if n.op.type_name == "Constant"]
    assert folded.op.value.shape == () and folded.op.value == 9.0
    assert fold_constants(new) is new


def test_big_results_are_not_folded() -> None:
    table = np.arange(20_000, dtype=np.float32)
    fn = function(lambda x: add(x, square(constant(table))), ("float32", (20_000,)))
    assert "Square" in ops(fold_constants(fn))


def test_what_fails_is_left_to_the_run() -> None:
    from tinyflow.ops.division import floordiv

    fn = function(lambda x: add(x, floordiv(constant(1), constant(0))), ("int32", ()))
    assert "FloorDiv" in ops(fold_constants(fn))


# ------------------------------------------------------------------------------------ decompose


def test_decompose_reaches_composites_inside_composites() -> None:
    fn = function(
        lambda x, y: softmax_cross_entropy_with_logits(y, x, name="loss"), MATRIX, MATRIX
    )
    new = decompose(fn)
    assert not any(is_decomposed(n.op) for n in new.nodes)
    assert new.outputs[0].node.name == "loss"
    assert all(n.source == fn.outputs[0].node.source for n in new.nodes if n.inputs)
    arrays = [np.random.default_rng(0).normal(size=(2, 3)) for _ in range(2)]
    np.testing.assert_allclose(interp.run(new, arrays), interp.run(fn, arrays), rtol=1e-5)


def test_composites_that_rules_bring_back_are_decomposed() -> None:
    """Of integers, square(x) - x * x is zeros_like(x) once square is decomposed, and no kernel."""
    fn = function(lambda x: subtract(add_n([x, x]), add(x, x)), ("int32", (2, 3)))
    done, _ = optimize(fn)
    assert not any(is_decomposed(n.op) for n in done.nodes)
    x = np.arange(6, dtype=np.int32).reshape(2, 3)
    np.testing.assert_array_equal(interp.run(done, [x] * len(done.inputs))[0], 0 * x)


def test_the_most_derived_definition_counts() -> None:
    """Mean inherits compute from the reductions and overrides it by its decomposition."""
    assert is_decomposed(function(reduce_mean, MATRIX).outputs[0].node.op)
    assert not is_decomposed(function(reduce_sum, MATRIX).outputs[0].node.op)


# ---------------------------------------------------------------------------------------- prune


def test_prune_drops_state_inputs_that_nothing_reads_and_keeps_feeds() -> None:
    def make(role: str) -> Value:
        t = TensorType("float32", ())
        return Node(Input(t, role, role), (), (t,)).outputs[0]

    feed, variable, counter = make("feed"), make("variable"), make("counter")
    with building(Builder()):
        out = exp(counter)
    fn = Function("f", [feed, variable, counter], [out])
    assert prune(fn).inputs == (feed, counter)
    assert prune(prune(fn)).inputs == (feed, counter)


# ------------------------------------------------------------------------------------ the runner


def model() -> Function:
    def body(x: Any, w: Any) -> Any:
        return reduce_mean(square(softmax(add(multiply(x, w), 0.0)))), exp(negative(negative(x)))

    return function(body, MATRIX, MATRIX)


def test_records_say_what_happened() -> None:
    fn, records = optimize(model())
    assert [r.name for r in records] == [s.graph_pass.name for s in PIPELINE]
    by_name = {r.name: r for r in records if r.changed}
    assert "decompose" in by_name and "simplify" in by_name
    assert by_name["simplify"].trace.rewrites
    assert all(r.time_us > 0 and r.reason for r in records)
    unchanged = next(r for r in records if not r.changed)
    assert unchanged.text == "unchanged\n" and str(unchanged).endswith("unchanged")
    assert records[-1].fn is fn


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_every_level_gives_a_verified_equal_function(level: int) -> None:
    source = model()
    arrays = [np.random.default_rng(s).normal(size=(2, 3)) for s in (1, 2)]
    expected = interp.run(source, arrays)
    with options.override(level=level, verify=True):
        fn, _ = optimize(source)
    for got, want in zip(interp.run(fn, arrays), expected):
        np.testing.assert_allclose(got, want, rtol=1e-5)
    assert not any(is_decomposed(n.op) for n in fn.nodes)


def test_the_pipeline_is_idempotent() -> None:
    fn, _ = optimize(model())
    again, records = optimize(fn)
    assert again is fn, [str(r) for r in records if r.changed]


def test_passes_can_be_switched_off_and_stopped() -> None:
    with options.override(disabled_passes=frozenset({"cse", "double_negation"})):
        fn, records = optimize(model())
    assert "cse" not in {r.name for r in records} and ops(fn).count("Neg") == 2
    with options.override(stop_after="fold_constants"):
        assert optimize(model())[1][-1].number == 2
    with options.override(stop_after="5"):
        assert optimize(model())[1][-1].number == 5


def test_dumps(tmp_path: Path) -> None:
    with options.override(dump=str(tmp_path)):
        fn, records = optimize(model())
    names = sorted(os.listdir(tmp_path))
    assert names[0] == "000_input.txt" and len(names) == len(records) + 1
    last = max((r for r in records if r.changed), key=lambda r: r.number)
    dumped = (tmp_path / f"{last.number:03d}_{last.name}.txt").read_text()
    assert text.canonical(text.parse(dumped)) == text.canonical(fn)
    assert "unchanged" in "".join((tmp_path / n).read_text() for n in names)


def bad_type(fn: Function) -> Function:
    out = fn.outputs[0].node
    wrong = out.replaced(types=(TensorType("float64", (9,)),))
    return fn.with_outputs(wrong.outputs)


def test_an_illegal_result_names_the_pass() -> None:
    broken = GraphPass("broken", bad_type)
    with options.override(verify=True), pytest.raises(InternalError, match="after pass broken"):
        run_passes(function(exp, MATRIX), [Step(broken, "to break")])


def test_an_exception_in_a_pass_names_it_and_the_way_out() -> None:
    def fails(fn: Function) -> Function:
        raise KeyError("x")

    with pytest.raises(InternalError, match=r"pass fails failed: KeyError") as caught:
        run_passes(function(exp, MATRIX), [Step(GraphPass("fails", fails), "to fail")])
    assert "TINYFLOW_DISABLE=fails" in str(caught.value)


def test_needs_are_checked() -> None:
    @graph_pass(needs={"moonlight"})
    def howl(fn: Function) -> Function:
        return fn

    with pytest.raises(InternalError, match="howl needs moonlight"):
        run_passes(function(exp, MATRIX), [Step(howl, "no reason")])


def test_cost_per_node_of_the_whole_pipeline() -> None:
    """About 15 us per node for all passes on an idle core; the bound is for a busy one."""
    fn = chain(10_000)
    optimize(function(exp, MATRIX))
    with collections_paused():  # as in a compilation; the heap of a whole test run is large
        _, records = optimize(fn)
    assert sum(r.time_us for r in records) / len(fn.nodes) < 200


def test_a_broadcast_number_is_read_as_a_scalar() -> None:
    fn, _ = optimize(function(lambda x: multiply(x, broadcast_to(constant(2.0), (2, 3))), MATRIX))
    assert ops(fn) == ["Constant", "Mul"]
