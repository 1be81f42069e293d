"""State semantics, feeds, host order: the user's graph against the pure function."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyflow.core.error import InvalidArgumentError
from tinyflow.core.shape import Dim
from tinyflow.ir.graph import interp
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Function, Node, TensorType, Value
from tinyflow.ir.graph.verify import verify
from tinyflow.ops.elementwise import add, exp, multiply
from tinyflow.ops.host import py_func
from tinyflow.ops.placeholder import placeholder, placeholder_with_default
from tinyflow.ops.random import random_uniform
from tinyflow.ops.state import (
    VariableRef,
    assign,
    assign_add,
    is_variable_initialized,
    read_variable,
)
from tinyflow.passes.functionalize import functionalize

SCALAR = TensorType("float32", ())


class Numbered(Node):
    """Nodes with their number in the order of creation, as a front end's operations have."""

    __slots__ = ("number",)
    count = 0

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        Numbered.count += 1
        self.number = Numbered.count


class Graph(Builder):
    node_class = Numbered


@pytest.fixture(autouse=True)
def graph() -> Any:
    made = Graph()
    with building(made):
        yield made


def after(value: Value, *controls: Value) -> Value:
    """``value`` computed after ``controls``, as under tf.control_dependencies."""
    node = value.node
    node.control_inputs = tuple(c.node for c in controls)
    return value


def run(fn: Function, feeds: tuple[Any, ...] = (), **variables: float) -> tuple[list[Any], dict]:
    """Outputs asked for, and the new values of variables by name."""
    arrays = []
    fed = iter(feeds)
    for value in fn.inputs:
        op = value.node.op
        if op.role == "feed":
            arrays.append(next(fed))
        elif op.role == "variable":
            arrays.append(variables[op.key.name])
        elif op.role == "initialized":
            arrays.append(op.key.name in variables)
        else:
            arrays.append(variables.get("counter", 0))
    verify(fn)
    results = interp.run(fn, arrays)
    new = {ref.name: float(results[at]) for ref, at in fn.updates.items()}
    return [float(r) for r in results[: len(results) - len(new)]], new


def variable(name: str = "v") -> VariableRef:
    return VariableRef(name, SCALAR)


def test_feeds_are_inputs_in_order_needed_or_not() -> None:
    x, y = placeholder("float32", (), name="x"), placeholder("float32", (2,), name="y")
    fn = functionalize([exp(x)], [], [y, x])
    assert [v.node.op.key for v in fn.inputs] == [y, x]
    assert [v.node.op.role for v in fn.inputs] == ["feed", "feed"]
    assert fn.inputs[1].node.name == "x"


def test_an_unfed_placeholder_names_itself_its_type_and_line() -> None:
    x = placeholder("float32", (Dim.symbol("?"), 784), name="x")
    with pytest.raises(InvalidArgumentError) as caught:
        functionalize([exp(x)], [], [])
    message = str(caught.value)
    assert message.startswith(
        "You must feed a value for placeholder tensor 'x' with dtype float32 and shape [?,784]"
    )
    assert "test_functionalize.py" in message and "feed_dict={x: ...}" in message


def test_only_what_is_needed_runs() -> None:
    x, unfed = placeholder("float32", ()), placeholder("float32", ())
    exp(unfed)
    assert run(functionalize([multiply(x, 2.0)], [], [x]), (3.0,))[0] == [6.0]


def test_feeding_an_intermediate_value_cuts_the_graph() -> None:
    unfed = placeholder("float32", ())
    hidden = exp(unfed)
    assert run(functionalize([add(hidden, 1.0), hidden], [], [hidden]), (4.0,))[0] == [5.0, 4.0]


def test_feeding_a_variable_read() -> None:
    ref = variable()
    read = read_variable(ref)
    fn = functionalize([add(read, 1.0)], [], [read])
    assert run(fn, (4.0,))[0] == [5.0]
    assert len(fn.inputs) == 1


def test_a_fetched_feed_and_fetches_twice() -> None:
    x = placeholder("float32", ())
    y = exp(x)
    assert run(functionalize([x, y, x, y], [], [x]), (0.0,))[0] == [0.0, 1.0, 0.0, 1.0]


def test_a_default_is_used_unless_fed() -> None:
    x = placeholder_with_default(np.float32(2.0), ())
    assert run(functionalize([add(x, 1.0)]))[0] == [3.0]
    assert run(functionalize([add(x, 1.0)], [], [x]), (5.0,))[0] == [6.0]


def test_assign_returns_the_new_value_and_updates() -> None:
    ref = variable()
    old = read_variable(ref)
    written = assign(ref, add(old, 10.0))
    assert run(functionalize([written, old]), v=1.0) == ([11.0, 1.0], {"v": 11.0})


def test_reads_see_the_start_of_the_step() -> None:
    """Also a read made after the write: nothing orders it."""
    ref = variable()
    write = assign_add(ref, 1.0)
    late = read_variable(ref)
    assert run(functionalize([late], [write.node]), v=5.0) == ([5.0], {"v": 6.0})


def test_control_edges_order_a_read_after_a_write() -> None:
    ref = variable()
    write = assign_add(ref, 1.0)
    late = after(read_variable(ref), write)
    assert run(functionalize([late]), v=5.0) == ([6.0], {"v": 6.0})


def test_data_edges_order_a_read_through_other_nodes() -> None:
    """first -> exp -> (control) -> read: the order is inherited along the whole path."""
    ref = variable()
    first = assign(ref, np.float32(3.0))
    between = exp(first)
    read = after(read_variable(ref), between)
    assert run(functionalize([read]), v=0.0)[0] == [3.0]


def test_an_ordered_read_sees_the_latest_write_before_it_not_a_later_one() -> None:
    ref = variable()
    first = assign_add(ref, 1.0)
    second = after(assign_add(ref, 10.0), first)
    read = after(read_variable(ref), first)
    assert run(functionalize([read, second]), v=0.0) == ([1.0, 11.0], {"v": 11.0})


def test_writes_form_a_chain_in_order_of_creation_whatever_is_fetched_first() -> None:
    ref = variable()
    first, second = assign_add(ref, 1.0), assign(ref, np.float32(100.0))
    third = assign_add(ref, 2.0)
    for fetches in ([first, second, third], [third, first, second]):
        results, new = run(functionalize(fetches), v=5.0)
        assert dict(zip(map(id, fetches), results)) == {
            id(first): 6.0, id(second): 100.0, id(third): 102.0
        }  # fmt: skip
        assert new == {"v": 102.0}


def test_two_variables_do_not_disturb_each_other() -> None:
    a, b = variable("a"), variable("b")
    swap = assign(a, read_variable(b)), assign(b, read_variable(a))
    assert run(functionalize(swap), a=1.0, b=2.0) == ([2.0, 1.0], {"a": 2.0, "b": 1.0})


def test_is_initialized() -> None:
    ref = variable()
    asked = is_variable_initialized(ref)
    fn = functionalize([asked])
    assert run(fn)[0] == [0.0] and run(fn, v=1.0)[0] == [1.0]
    write = assign(ref, np.float32(1.0))
    assert run(functionalize([after(is_variable_initialized(ref), write)]))[0] == [1.0]


def test_initialising_reads_nothing() -> None:
    ref = variable()
    fn = functionalize([], [assign(ref, np.float32(7.0)).node])
    assert fn.inputs == () and run(fn)[1] == {"v": 7.0}


def test_each_random_node_has_its_own_counter() -> None:
    one, two = random_uniform((3,), seed=1), random_uniform((3,), seed=1)
    fn = functionalize([one, two])
    roles = [v.node.op for v in fn.inputs]
    assert [op.role for op in roles] == ["counter", "counter"]
    assert {op.key.op.type_name for op in roles} == {"RandomUniform"}
    assert roles[0].key != roles[1].key
    assert str(fn.inputs[0].type) == "uint64[]"


def test_host_calls_keep_the_order_of_control_edges() -> None:
    calls: list[str] = []

    def call(name: str, *controls: Value) -> Value:
        def function() -> Any:
            calls.append(name)
            return np.float32(0.0)

        value = py_func(function, [], "float32")
        return after(value, *controls) if controls else value

    first = call("first")
    between = after(exp(np.float32(1.0)), first)
    second = call("second", between)
    fn = functionalize([], [second.node])
    assert [n.op.type_name for n in fn.effects] == ["PyFunc", "PyFunc"]
    assert fn.effects[1].control_inputs == (fn.effects[0],)
    interp.run(fn, [])
    assert calls == ["first", "second"]


def test_control_edges_of_pure_nodes_are_gone() -> None:
    ref = variable()
    write = assign(ref, np.float32(1.0))
    y = after(exp(np.float32(0.0)), write)
    fn = functionalize([y])
    assert all(not n.control_inputs for n in fn.nodes)
    assert run(fn) == ([1.0], {"v": 1.0})


def test_untouched_nodes_stay_the_same_objects() -> None:
    constant = exp(np.float32(1.0))
    x = placeholder("float32", ())
    fn = functionalize([add(constant, x)], [], [x])
    assert constant.node in fn.nodes


def test_long_chains() -> None:
    x = y = placeholder("float32", ())
    for _ in range(30_000):
        y = add(y, 1.0) if y is x else add(y, x)
    assert run(functionalize([y], [], [x]), (1.0,))[0] == [30_001.0]
