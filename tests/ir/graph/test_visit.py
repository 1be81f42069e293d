"""Rebuilding and asking about functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.ir.graph.helpers import chain, function
from tinyflow.core.error import InternalError
from tinyflow.ir.graph import interp, visit
from tinyflow.ir.graph.builder import Builder
from tinyflow.ir.graph.nodes import Node, Value
from tinyflow.ops.elementwise import Exp, Neg, add, exp, negative


def test_unchanged_functions_stay_the_same_object() -> None:
    fn = function(lambda x: add(exp(x), x), ("float32", (2,)))
    assert visit.rebuild(fn, lambda node, inputs: None) is fn


def test_only_what_depends_on_a_change_is_rebuilt() -> None:
    fn = function(lambda x: (add(exp(x, name="e"), x, name="a"), negative(x)), ("float32", (2,)))
    builder = Builder()

    def change(node: Node, inputs: tuple[Value, ...]) -> Any:
        return builder.emit(Neg(), inputs) if isinstance(node.op, Exp) else None

    new = visit.rebuild(fn, change)
    assert new.outputs[1] is fn.outputs[1]
    assert new.outputs[0] is not fn.outputs[0] and new.outputs[0].node.name == "a"
    np.testing.assert_array_equal(interp.run(new, [np.ones(2)])[0], np.zeros(2))


def test_a_change_must_replace_every_result() -> None:
    fn = function(exp, ("float32", (2,)))
    with pytest.raises(InternalError, match="1 results, got 2"):
        visit.rebuild(fn, lambda node, inputs: node.outputs * 2 if node.inputs else None)


def test_substitute() -> None:
    fn = function(lambda x, y: add(exp(x), y), ("float32", ()), ("float32", ()))
    y = fn.inputs[1]
    e = fn.outputs[0].node.inputs[0]
    new = visit.substitute(fn, {e: y})
    assert interp.run(new, [1.0, 3.0]) == [6.0]


def test_users_and_counts() -> None:
    fn = function(lambda x: add(exp(x), exp(x)), ("float32", ()))
    (x,) = fn.inputs
    assert [n.op.type_name for n in visit.users(fn)[x]] == ["Exp", "Exp"]
    counts = visit.use_counts(fn)
    assert counts[x] == 2 and counts[fn.outputs[0]] == 1


def test_ancestors_stop() -> None:
    fn = function(lambda x: exp(negative(exp(x))), ("float32", ()))
    middle = fn.outputs[0].node.inputs[0]
    names = [n.op.type_name for n in visit.ancestors([fn.outputs[0].node], stop=[middle])]
    assert names == ["Exp"]
    assert len(visit.ancestors([fn.outputs[0].node])) == 4


def test_deep_rebuild() -> None:
    fn = chain(100_000)
    fresh = visit.rebuild(
        fn, lambda node, inputs: node.replaced().outputs if not node.inputs else None
    )
    assert len(fresh.nodes) == len(fn.nodes) and fresh.outputs[0] is not fn.outputs[0]
