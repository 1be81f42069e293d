"""Graph text: what it looks like, that it parses back, what canonical text ignores."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ir.graph.helpers import chain, function
from tinyflow.core.dtype import float32
from tinyflow.core.shape import Dim, opaque
from tinyflow.core.source import Source
from tinyflow.ir.graph import text
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.literals import Literals, Opaque, parse_dim, parse_type
from tinyflow.ir.graph.nodes import Function, Input, TensorType
from tinyflow.ops.convert import cast
from tinyflow.ops.creation import constant
from tinyflow.ops.elementwise import add, exp, multiply
from tinyflow.ops.movement import Reshape
from tinyflow.ops.python_index import get_item


def test_one_line_per_node_with_name_and_place() -> None:
    builder = Builder()
    builder.source = Source("dir/train.py", 6, "<module>")
    with building(builder):
        x = builder.emit(Input(TensorType("float32", (Dim.symbol("N"), 3)), "feed", "x:0"), (), "x")
        y = exp(x, name="e")
    assert text.show(Function("step", [x], [y])) == (
        "function step\n"
        '  %0 = Input() {type=float32[N, 3], role="feed", key="x:0"} : float32[N, 3]'
        "  # x, train.py:6\n"
        "  %1 = Exp(%0) : float32[N, 3]  # e, train.py:6\n"
        "inputs %0\n"
        "outputs %1\n"
    )


def test_parse_gives_the_same_text_again() -> None:
    fn = function(
        lambda x: (
            multiply(add(x, constant(np.arange(6, dtype=np.float32).reshape(2, 3))), 0.1),
            cast(get_item(x, (slice(None, None, -1), 1)), "float64"),
        ),
        ("float32", (2, 3)),
    )
    again = text.parse(text.show(fn))
    assert text.canonical(again) == text.canonical(fn)
    assert [n.name for n in again.nodes] == [n.name for n in fn.nodes]
    assert [n.types for n in again.nodes] == [n.types for n in fn.nodes]
    assert text.show(text.parse(text.show(again))) == text.show(again)


def test_big_constants_go_to_a_table_or_to_the_end() -> None:
    array = np.random.default_rng(0).normal(size=(7, 11)).astype(np.float32)
    fn = function(lambda x: add(x, constant(array)), ("float32", (7, 11)))
    complete = text.show(fn)
    assert "base64" in complete
    back = text.parse(complete)
    (added,) = [n for n in back.nodes if n.op.type_name == "Constant"]
    assert added.op.value.tobytes() == array.tobytes()
    table: dict[str, np.ndarray] = {}
    short = text.show(fn, table)
    assert "base64" not in short and len(table) == 1
    assert text.canonical(text.parse(short, table)) == text.canonical(fn)


@pytest.mark.parametrize(
    "value",
    [
        0, -7, 10**20, 0.1, -0.0, 1e-45, float("inf"), float("-inf"), True, None, "a \"b\" {c}, d",
        (), (1,), (1, (2.5, "x")), [1, 2], float32, TensorType("int64", (2, Dim.symbol("N"))),
        Dim.symbol("N") * 2 + 1, Reshape((2, -1)), Opaque("function f"),
    ],
)  # fmt: skip
def test_attributes_survive(value: object) -> None:
    shown = Literals({}).show(value)
    again = Literals({}).parse(shown)
    assert again == value and repr(again) == repr(value), shown


@pytest.mark.parametrize(
    "array",
    [
        np.array([0.1, -0.0, 1e-45, np.inf], np.float32), np.array([np.nan, 1.0]),
        np.array([True, False]), np.array([], np.int32), np.array(2**63, np.uint64),
        np.zeros((0, 3)), np.float64(1 / 3),
    ],
)  # fmt: skip
def test_arrays_survive_bit_for_bit(array: np.ndarray) -> None:
    array = np.asarray(array)
    table: dict[str, np.ndarray] = {}
    again = Literals(table).parse(Literals(table).show(array))
    assert again.dtype == array.dtype and again.shape == array.shape
    assert again.tobytes() == array.tobytes()


def test_symbolic_dimensions_survive() -> None:
    n, m = Dim.symbol("N"), Dim.symbol("M")
    for dim in (n, n * m * 2 - 1, n // 2, n * n + m, opaque("max(3,N)"), -n + 5, 12):
        assert parse_dim(str(dim)) == dim
    assert parse_type("float32[...]") == TensorType("float32", None)
    assert parse_type("bool[]") == TensorType("bool", ())


def test_canonical_ignores_names_places_and_keys_but_not_constants() -> None:
    def body(bias: float, name: str) -> Function:
        array = np.full(40, bias)
        return function(lambda x: add(x, constant(array), name=name), ("float64", (40,)))

    assert text.canonical(body(1.0, "a")) == text.canonical(body(1.0, "b"))
    assert text.digest(body(1.0, "a")) != text.digest(body(2.0, "a"))


def test_errors_name_the_line() -> None:
    with pytest.raises(text.ParseError, match="line 2"):
        text.parse("function f\n  %0 = NoSuchOp() : float32[]\n")
    with pytest.raises(text.ParseError, match="line 1"):
        text.parse("nonsense here")


def test_long_chains_print_and_parse() -> None:
    fn = chain(20_000)
    assert text.show(text.parse(text.show(fn))).count("\n") == text.show(fn).count("\n")
