"""Python's operators on values: results, names, and what has no number."""

from __future__ import annotations

import numpy as np
import pytest

from tinyflow.core.error import SymbolicValueError
from tinyflow.ir.graph import interp
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Function, Input, TensorType

X = np.array([[1.5, -2.0, 3.0]], np.float32)
K = np.array([7, -7, 4], np.int32)
P = np.array([True, False, True])

EXPRESSIONS = {
    "x + 1": "add", "1 - x": "sub", "x * x": "mul", "x / 2": "truediv", "x // 2": "floordiv",
    "x % 2": "mod", "x ** 2": "pow", "2 ** x": "pow", "-x": None, "abs(x)": None,
    "x < 1": None, "x >= 1": None, "1 > x": None, "k // 3": "floordiv", "k % 3": "mod",
    "p & p": "and", "p | ~p": "or", "p ^ p": "xor", "x[0]": "strided_slice",
    "np.float32(2) * x": "mul", "np.ones((2, 1), np.float32) + x": "add",
}  # fmt: skip


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_operator_is_numpys(text):
    builder = Builder()
    arrays = {"x": X, "k": K, "p": P}
    with building(builder):
        values = {
            n: builder.emit(Input(TensorType(a.dtype, a.shape)), (), n) for n, a in arrays.items()
        }
        result = eval(text, {"np": np}, values)  # noqa: S307 - the table above
    found = interp.run(Function("f", list(values.values()), [result]), list(arrays.values()))[0]
    np.testing.assert_allclose(found, eval(text, {"np": np}, arrays), rtol=1e-6)  # noqa: S307
    assert result.node.name == EXPRESSIONS[text]


def test_integer_quotient_is_float64():
    builder = Builder()
    with building(builder):
        k = builder.emit(Input(TensorType("int32", (3,))), (), "k")
        assert (k / 2).dtype == "float64"


def test_matmul_operator():
    builder = Builder()
    with building(builder):
        x = builder.emit(Input(TensorType("float32", (2, 3))), (), "x")
        w = builder.emit(Input(TensorType("float32", (3, 4))), (), "w")
        assert (x @ w).node.name == "matmul" and (x @ w).type.shape == (2, 4)


def test_equality_is_identity():
    builder = Builder()
    with building(builder):
        x = builder.emit(Input(TensorType("float32", ())), (), "x")
        y = builder.emit(Input(TensorType("float32", ())), (), "y")
    assert x == x and x != y and {x: 1}[x] == 1


@pytest.mark.parametrize(
    "use",
    [bool, float, int, len, list, np.asarray, lambda x: x or 1, lambda x: [i + 1 for i in x]],
    ids=["bool", "float", "int", "len", "list", "asarray", "or", "loop"],
)
def test_no_number_yet(use):
    builder = Builder()
    with building(builder):
        x = builder.emit(Input(TensorType("float32", (3,))), (), "logits")
    with pytest.raises(SymbolicValueError) as caught:
        use(x)
    text = str(caught.value)
    assert "logits" in text and "no number yet" in text and "float32[3]" in text
    assert "test_operators.py" in text and "hint:" in text
