"""The verifier: legal functions pass, each kind of damage is found and located."""

from __future__ import annotations

import pytest

from tests.ir.graph.helpers import chain, function
from tinyflow.core.error import InternalError
from tinyflow.ir.graph.nodes import Function, Input, Node, TensorType
from tinyflow.ir.graph.verify import verify
from tinyflow.ops.elementwise import Add, Exp, add, exp


def test_legal_functions_pass() -> None:
    verify(function(lambda x: exp(add(x, 1.0)), ("float32", (2, 3))))
    verify(chain(10_000))


def test_a_wrong_type_is_shown_with_its_surroundings() -> None:
    fn = function(lambda x: exp(x, name="e"), ("float32", (2, 3)))
    (x,) = fn.inputs
    bad = Node(Exp(), (x,), (TensorType("float32", (3, 2)),), "e", source=fn.outputs[0].node.source)
    with pytest.raises(InternalError) as caught:
        verify(Function("f", [x], bad.outputs), after="some_pass")
    message = str(caught.value)
    assert "after pass some_pass" in message and "Exp e" in message
    assert "recorded float32[3, 2], inferred float32[2, 3]" in message
    assert "> %1 = Exp(%0)" in message and "test_verify.py" in message


def test_a_cycle_is_found() -> None:
    fn = function(lambda x: add(exp(x), x), ("float32", ()))
    inner, (x,) = fn.outputs[0].node.inputs[0].node, fn.inputs
    inner.inputs = (fn.outputs[0],)
    with pytest.raises(InternalError, match="a cycle"):
        verify(Function("f", [x], fn.outputs))


def test_an_unlisted_input_is_found() -> None:
    fn = function(lambda x, y: add(x, y), ("float32", ()), ("float32", ()))
    with pytest.raises(InternalError, match="not among the function's inputs"):
        verify(Function("f", fn.inputs[:1], fn.outputs))


def test_a_failing_infer_is_found() -> None:
    fn = function(lambda x, y: add(x, y), ("float32", (2,)), ("float32", (2,)))
    x, y = fn.inputs
    other = Node(Input(TensorType("float32", (3,))), (), (TensorType("float32", (3,)),)).outputs[0]
    bad = Node(Add(), (x, other), (TensorType("float32", (2,)),))
    with pytest.raises(InternalError, match="infer fails"):
        verify(Function("f", [x, y, other], bad.outputs))


def test_an_update_must_name_an_output() -> None:
    fn = function(exp, ("float32", ()))
    with pytest.raises(InternalError, match="names output 3"):
        verify(Function("f", fn.inputs, fn.outputs, {"v": 3}))


def test_state_may_not_be_left() -> None:
    from tinyflow.ops.state import VariableRead, VariableRef

    ref = VariableRef("v", TensorType("float32", ()))
    node = Node(VariableRead(ref), (), (ref.type,))
    with pytest.raises(InternalError, match="effect read"):
        verify(Function("f", [], node.outputs))
    verify(Function("f", [], node.outputs), pure=False)
