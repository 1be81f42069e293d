"""The rule engine: what it rewrites, what it refuses and why, what it keeps."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from tests.ir.graph.helpers import chain, function
from tinyflow.core import options
from tinyflow.core.error import InternalError
from tinyflow.core.source import Source
from tinyflow.ir.graph import interp, text
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Function, Input, TensorType
from tinyflow.ops.elementwise import Neg, absolute, add, exp, log, multiply, negative, subtract
from tinyflow.rewrite import (
    Approximate,
    Bitwise,
    Finite,
    Match,
    RealEqual,
    Rule,
    RuleSet,
    rules,
)
from tinyflow.rewrite.rule import Matcher

VECTOR = ("float32", (3,))
DOUBLE_NEGATION = rules(contract=Bitwise)(lambda x: [("double_negation", negative(-x), x)])


def ops(fn: Function) -> list[str]:
    return [n.op.type_name for n in fn.nodes if not isinstance(n.op, Input)]


def test_a_table_rewrites() -> None:
    fn = function(lambda x: exp(negative(negative(x))), VECTOR)
    new, trace = RuleSet("t", DOUBLE_NEGATION).apply(fn)
    assert ops(new) == ["Exp"]
    assert [e.rule for e in trace.rewrites] == ["double_negation"]


def test_nothing_to_do_returns_the_same_function() -> None:
    fn = function(lambda x: exp(negative(x)), VECTOR)
    assert RuleSet("t", DOUBLE_NEGATION).apply(fn)[0] is fn


def test_rewrites_feed_each_other_in_one_pass() -> None:
    def body(x: Any) -> Any:
        for _ in range(9):
            x = negative(x)
        return x

    assert ops(RuleSet("t", DOUBLE_NEGATION).apply(function(body, VECTOR))[0]) == ["Neg"]


def test_the_new_root_keeps_name_and_places() -> None:
    class ToAbsolute(Rule):
        """-x -> abs(negative(-x))"""

        contract = Bitwise

        def pattern(x):  # type: ignore[no-untyped-def]
            return log(exp(x))

        def rewrite(m: Match) -> Any:  # type: ignore[misc, override]
            return absolute(negative(m.x))

    builder = Builder()
    with building(builder):
        x = builder.emit(Input(TensorType("float32", (3,))), ())
        builder.source = Source("train.py", 7, "model")
        builder.origin = (("gradient of", Source("train.py", 3, "")),)
        y = log(exp(x), name="result")
    new, trace = RuleSet("t", [ToAbsolute]).apply(Function("f", [x], [y]))
    for node in new.outputs[0].node, new.outputs[0].node.inputs[0].node:
        assert node.source == Source("train.py", 7, "model") and node.origin == builder.origin
    assert new.outputs[0].node.name == "result"
    assert "train.py:7" in str(trace)


def test_interior_nodes_with_other_readers_are_refused_with_the_reason() -> None:
    def body(x: Any) -> Any:
        inner = exp(x)
        return log(inner), inner

    table = rules(contract=Bitwise)(lambda x: [("log_exp", log(exp(x)), x)])
    fn = function(body, VECTOR)
    new, trace = RuleSet("t", table).apply(fn)
    assert new is fn
    assert "has other readers" in trace.refusals[0].reason
    shared = rules(contract=Bitwise, shared=True)(lambda x: [("log_exp", log(exp(x)), x)])
    assert ops(RuleSet("t", shared).apply(fn)[0]) == ["Exp"]


def test_readers_are_counted_as_they_vanish() -> None:
    """The other reader of exp(x) is itself rewritten away before the root is visited."""

    def body(x: Any) -> Any:
        inner = exp(x)
        return log(multiply(subtract(inner, inner), 1.0)), log(inner)

    table = rules(contract=Bitwise)(
        lambda x: [("sub_itself", x - x, x), ("times_one", x * 1, x), ("log_exp", log(exp(x)), x)]
    )
    new, _ = RuleSet("t", table).apply(function(body, VECTOR))
    # Both logs read exp(x) after the rewrites: two readers, so neither may take it away.
    assert ops(new).count("Exp") == 1


def test_a_type_change_is_refused() -> None:
    table = rules(contract=Bitwise)(lambda x: [("add_zero", x + 0.0, x)])
    fn = function(
        lambda x: add(x, np.zeros((2, 3), np.float32)), VECTOR
    )
    new, trace = RuleSet("t", table).apply(fn)
    assert new is fn
    assert "float32[3] instead of float32[2, 3]" in trace.refusals[0].reason


def test_a_condition_gives_its_reason() -> None:
    def never(m: Match) -> str:
        return f"not for {m.root.dtype}"

    table = rules(contract=Bitwise, when=never)(lambda x: [("double_negation", negative(-x), x)])
    _, trace = RuleSet("t", table).apply(function(lambda x: negative(negative(x)), VECTOR))
    assert trace.refusals[0].reason == "not for float32"


@pytest.mark.parametrize(
    ("contract", "lowest"), [(Bitwise, 1), (RealEqual, 2), (Finite, 3), (Approximate, 3)]
)
def test_the_level_selects_by_contract(contract: Any, lowest: int) -> None:
    table = RuleSet("t", rules(contract=contract)(lambda x: [("double_negation", negative(-x), x)]))
    fn = function(lambda x: negative(negative(x)), VECTOR)
    for level in range(4):
        with options.override(level=level):
            assert (table.apply(fn)[0] is not fn) == (level >= lowest), level


def test_rules_and_tags_can_be_switched_off() -> None:
    table = RuleSet(
        "t",
        rules(contract=Bitwise, tags={"group"})(lambda x: [("double_negation", negative(-x), x)]),
    )
    fn = function(lambda x: negative(negative(x)), VECTOR)
    for name in ("double_negation", "group"):
        with options.override(disabled_passes=frozenset({name})):
            assert table.apply(fn)[0] is fn
    assert table.apply(fn)[0] is not fn


def test_rules_that_undo_each_other_are_named() -> None:
    table = rules(contract=Bitwise)(
        lambda x, y: [("there", x - y, x + (-y)), ("back", x + (-y), x - y)]
    )
    fn = function(lambda x, y: subtract(x, y, name="d"), VECTOR, VECTOR)
    with pytest.raises(InternalError, match=r"rules (there and back|back and there) undo"):
        RuleSet("t", table).apply(fn)


def test_a_limit_stops_after_so_many_rewrites() -> None:
    fn = function(
        lambda x: exp(negative(negative(exp(negative(negative(x)))))), VECTOR
    )
    rule_set = RuleSet("t", DOUBLE_NEGATION)
    assert [len(ops(rule_set.apply(fn, limit=n)[0])) for n in (0, 1, 2)] == [6, 4, 2]


def test_two_rules_of_one_name_are_our_bug() -> None:
    with pytest.raises(InternalError, match="double_negation"):
        RuleSet("t", [*DOUBLE_NEGATION, *DOUBLE_NEGATION])


def test_a_text_goes_in_a_text_comes_out() -> None:
    before = text.parse(
        "function f\n"
        '  %0 = Input() {type=float32[3], role="argument", key=none} : float32[3]\n'
        "  %1 = Neg(%0) : float32[3]\n"
        "  %2 = Neg(%1) : float32[3]\n"
        "  %3 = Exp(%2) : float32[3]\n"
        "inputs %0\noutputs %3\n"
    )
    new, _ = RuleSet("t", DOUBLE_NEGATION).apply(before)
    assert text.show(new) == (
        "function f\n"
        '  %0 = Input() {type=float32[3], role="argument", key=none} : float32[3]\n'
        "  %1 = Exp(%0) : float32[3]\n"
        "inputs %0\noutputs %1\n"
    )


def test_cost_per_node() -> None:
    """About 5 us per node on an idle core; the bound leaves room for a busy machine."""
    fn = chain(20_000)
    table = rules(contract=Bitwise)(lambda x: [("n", x + (-x), x), ("z", x + 0.0, x)])
    rule_set = RuleSet("t", table)
    rule_set.apply(function(lambda x: negative(x), VECTOR))
    start = time.perf_counter()
    rule_set.apply(fn)
    assert (time.perf_counter() - start) / len(fn.nodes) < 60e-6


def test_deep_graphs_and_meaning() -> None:
    def body(x: Any) -> Any:
        y = x
        for _ in range(5_000):
            y = add(negative(negative(y)), x)
        return y

    fn = function(body, VECTOR)
    new, trace = RuleSet("t", DOUBLE_NEGATION).apply(fn)
    assert len(trace.rewrites) == 5_000 and Neg not in {type(n.op) for n in new.nodes}
    np.testing.assert_array_equal(interp.run(new, [np.ones(3)])[0], interp.run(fn, [np.ones(3)])[0])


def test_a_full_match_is_tried_only_where_the_ops_around_fit(monkeypatch: Any) -> None:
    tried = []
    full_match = Matcher.match

    def counted(self: Matcher, node: Any) -> Any:
        tried.append(node.op.type_name)
        return full_match(self, node)

    monkeypatch.setattr(Matcher, "match", counted)
    rule_set = RuleSet("t", DOUBLE_NEGATION)
    fn = function(lambda x: negative(exp(negative(x))), VECTOR)
    assert rule_set.apply(fn)[0] is fn
    assert tried == []
    assert ops(rule_set.apply(function(lambda x: exp(negative(negative(x))), VECTOR))[0]) == ["Exp"]
    assert tried == ["Neg"]


def test_a_hole_that_stands_twice_wants_one_value() -> None:
    square = rules(contract=Bitwise)(lambda x: [("nothing", x - x, x), ("twice", x + x, x)])
    rule_set = RuleSet("t", square)
    fn = function(lambda x, y: add(subtract(x, y), y), VECTOR, VECTOR)
    assert rule_set.apply(fn)[0] is fn
    fn = function(lambda x, y: add(subtract(x, x), y), VECTOR, VECTOR)
    assert ops(rule_set.apply(fn)[0]) == ["Add"]
