"""Order of reads and writes, and the hints of wrong assignments."""

from __future__ import annotations

import numpy as np
import pytest

from tinyflow import ops
from tinyflow.compile import compile_step
from tinyflow.core.error import ShapeError
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import TensorType
from tinyflow.ops import state
from tinyflow.ops.placeholder import placeholder
from tinyflow.runtime.variables import VariableStore


def variable(*shape):
    return state.VariableRef("w", TensorType("float32", shape))


def run(store, *fetches):
    values = list(fetches)
    return compile_step(values, [], [], []).bind(store).run([])


def test_a_read_sees_the_start_of_the_step():
    ref, store = variable(2), VariableStore()
    store.write(ref, np.array([1, 2], np.float32))
    with building(Builder()):
        read = state.read_variable(ref)
        written = state.assign(ref, read * 10)
    before, after = run(store, read, written)
    np.testing.assert_array_equal(before, [1, 2])
    np.testing.assert_array_equal(after, [10, 20])
    np.testing.assert_array_equal(store.read(ref), [10, 20])


def test_updates_build_on_each_other():
    ref, store = variable(), VariableStore()
    store.write(ref, np.float32(1))
    with building(Builder()):
        first = state.assign_add(ref, 2)
        second = state.assign_sub(ref, first * 0 + 10)
    results = run(store, first, second)
    assert [float(r) for r in results] == [3, -7] and store.read(ref) == -7


def test_literals_take_the_variables_dtype():
    ref = state.VariableRef("w", TensorType("float64", ()))
    with building(Builder()):
        assert state.assign(ref, 3).dtype == "float64"


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ((3, 2), r"tf\.transpose"), ((), r"tf\.fill"), ((7, 2, 3), r"tf\.reduce_mean\(value, 0\)"),
    ],
)  # fmt: skip
def test_assign_hints(value, hint):
    with building(Builder()), pytest.raises(ShapeError, match=hint) as caught:
        state.assign(variable(2, 3), placeholder("float32", value, name="v"))
    assert "'w'" in str(caught.value)


def test_print_and_assert(capsys):
    store = VariableStore()
    with building(Builder()):
        x = ops.constant(np.arange(6, dtype=np.float32).reshape(2, 3))
        shown = ops.print_(x * 2, [x], message="x is ", summarize=4)
        holds = ops.assert_(ops.reduce_all(x < 5), [x])
    (doubled,) = run(store, shown)
    assert doubled[1, 2] == 10
    assert capsys.readouterr().err == "x is [[0 1 2][3...]]\n"
    with pytest.raises(ValueError, match="assertion failed"):
        run(store, holds)


def test_py_func_checks_what_comes_back():
    with building(Builder()):
        wrong = ops.py_func(lambda: np.zeros(2), [], "float32")
    with pytest.raises(TypeError, match=r"astype\(np\.float32\)"):
        run(VariableStore(), wrong)
