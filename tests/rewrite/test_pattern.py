"""Patterns: made by ordinary op functions, matched with holes, literals and exchanged inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.ir.graph.helpers import function
from tinyflow.core.error import InternalError
from tinyflow.ir.graph.builder import emit
from tinyflow.ir.graph.nodes import Value
from tinyflow.ops.creation import constant, fill, zeros_like
from tinyflow.ops.elementwise import add, exp, log, multiply, negative, subtract
from tinyflow.ops.movement import BroadcastTo, broadcast_to, reshape
from tinyflow.ops.nn import Softmax, softmax
from tinyflow.rewrite.pattern import Hole, is_number, match, trace_pattern, uniform, variants


def value_of(body: Any, *types: Any) -> Value:
    return function(body, *(types or [("float32", (2, 3))])).outputs[0]


def matches(pattern: Any, value: Value) -> dict[str, Any] | None:
    for variant in variants(trace_pattern(pattern)):
        found = match(variant, value)
        if found is not None:
            return found[0]
    return None


def test_a_pattern_prints_like_the_code_that_made_it() -> None:
    assert repr(trace_pattern(lambda x, axis: log(emit(Softmax(axis), x)))) == (
        "Log(Softmax(x, axis=axis))"
    )


def test_holes_bind_values_and_attributes() -> None:
    y = value_of(lambda x: log(softmax(x, axis=0)))
    found = matches(lambda x, axis: log(emit(Softmax(axis), x)), y)
    assert found is not None and found["axis"] == 0
    assert found["x"] is y.node.inputs[0].node.inputs[0]
    assert matches(lambda x: log(emit(Softmax(-1), x)), y) is None


def test_a_hole_is_one_value() -> None:
    same = value_of(lambda x: multiply(x, exp(x)))
    other = value_of(lambda x: multiply(x, exp(negative(x))))
    assert matches(lambda x: x * exp(x), same) is not None
    assert matches(lambda x: x * exp(x), other) is None


def test_commutative_inputs_match_both_ways() -> None:
    left = value_of(lambda x: add(log(x), exp(x)))
    right = value_of(lambda x: add(exp(x), log(x)))
    assert matches(lambda x, y: exp(x) + log(y), left) is not None
    assert matches(lambda x, y: exp(x) + log(y), right) is not None
    other = value_of(lambda x: subtract(log(x), exp(x)))
    assert matches(lambda x, y: exp(x) - log(y), other) is None


def test_literals_match_by_value() -> None:
    assert matches(lambda x: x + 0.5, value_of(lambda x: add(x, 0.5))) is not None
    assert matches(lambda x: x + 0.5, value_of(lambda x: add(0.5, x))) is not None
    assert matches(lambda x: x + 0.5, value_of(lambda x: add(x, 0.25))) is None
    # A literal is rounded to the tensor's dtype, as in a program.
    assert matches(lambda x: x + 0.1, value_of(lambda x: add(x, 0.1))) is not None
    whole = value_of(lambda x: add(x, constant(np.full((2, 3), 0.5, np.float32))))
    assert matches(lambda x: x + 0.5, whole) is not None


def test_the_sign_of_zero_counts() -> None:
    assert is_number(value_of(lambda x: constant(0.0)), 0.0)
    assert not is_number(value_of(lambda x: constant(-0.0)), 0.0)
    assert is_number(value_of(lambda x: constant(-0.0)), -0.0)
    assert not is_number(value_of(lambda x: constant(np.array([0.0, -0.0]))), 0.0)


def test_dtypes_of_literals() -> None:
    assert is_number(value_of(lambda x: constant(1)), 1)
    assert not is_number(value_of(lambda x: constant(1)), True)
    assert is_number(value_of(lambda x: constant(True)), True)
    assert not is_number(value_of(lambda x: constant(1)), 0.5)


@pytest.mark.parametrize(
    "body",
    [
        lambda x: fill((2, 3), 7.0), lambda x: broadcast_to(constant(7.0), (2, 3)),
        lambda x: reshape(fill((2, 3), 7.0), (6,)), lambda x: constant(np.full((4,), 7.0)),
    ],
)  # fmt: skip
def test_uniform_looks_through_spreading_ops(body: Any) -> None:
    assert uniform(value_of(body)) == 7.0


def test_uniform_is_none_when_not_known() -> None:
    assert uniform(value_of(lambda x: x)) is None
    assert uniform(value_of(lambda x: constant(np.array([1.0, 2.0])))) is None
    assert uniform(value_of(lambda x: constant(np.zeros((0, 3))))) is None
    assert uniform(value_of(zeros_like)) == 0.0


def test_asking_a_pattern_for_its_type_names_the_way_out() -> None:
    with pytest.raises(InternalError, match="use emit"):
        trace_pattern(lambda x: x.type)
    assert trace_pattern(lambda x, shape: emit(BroadcastTo(shape), x)).op.shape.name == "shape"
    assert isinstance(trace_pattern(lambda x: x), Hole)
