"""The bisecting tool finds a planted bad pass and a planted bad rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.ir.graph.helpers import function
from tinyflow.core.error import InvalidArgumentError
from tinyflow.ir.graph import interp
from tinyflow.ir.graph.nodes import Function
from tinyflow.ops.elementwise import Add, absolute, add, exp, multiply, negative, subtract
from tinyflow.passes.base import GraphPass, Step
from tinyflow.passes.bisect import bisect
from tinyflow.passes.pipeline import PIPELINE
from tinyflow.passes.simplify import rule_pass
from tinyflow.rewrite import Bitwise, RuleSet, rules

ARRAYS = [np.array([1.0, -2.0, 3.0]), np.array([0.5, 0.25, -1.0])]


def model() -> Function:
    def body(x: Any, y: Any) -> Any:
        return add(multiply(absolute(x), negative(negative(y))), exp(subtract(y, x)), name="out")

    return function(body, ("float32", (3,)), ("float32", (3,)))


def good(fn: Function) -> bool:
    expected = interp.run(model(), ARRAYS)
    return np.allclose(interp.run(fn, ARRAYS), expected, rtol=1e-5)


def swap_add(fn: Function) -> Function:
    node = fn.outputs[0].node
    return fn.with_outputs(node.replaced(inputs=(node.inputs[0],) * 2).outputs)


def test_a_good_pipeline_has_no_culprit() -> None:
    assert bisect(model(), good) is None


@pytest.mark.parametrize("position", [0, 3, 7, len(PIPELINE)])
def test_a_bad_pass_is_found(position: int) -> None:
    planted = Step(GraphPass("swap_add", swap_add), "planted")
    culprit = bisect(model(), good, [*PIPELINE[:position], planted, *PIPELINE[position:]])
    assert culprit is not None and culprit.record.name == "swap_add"
    assert culprit.rewrite is None and good(culprit.before)
    assert isinstance(culprit.before.outputs[0].node.op, Add)


def test_a_bad_rule_is_found_among_good_ones() -> None:
    planted = RuleSet(
        "planted",
        rules(contract=Bitwise)(
            lambda x, y: [
                ("double_negation", negative(-x), x),
                ("forget_absolute", absolute(x), x),
                ("minus_is_plus_negative", x - y, x + (-y)),
            ]
        ),
    )
    culprit = bisect(model(), good, [*PIPELINE[:1], Step(rule_pass("extra", planted, ""), "p")])
    assert culprit is not None and culprit.rewrite is not None
    assert culprit.rewrite.rule == "forget_absolute"
    assert "TINYFLOW_DISABLE=forget_absolute" in str(culprit)


def test_a_function_that_is_bad_from_the_start() -> None:
    with pytest.raises(InvalidArgumentError, match="bad before the first pass"):
        bisect(model(), lambda fn: False)
