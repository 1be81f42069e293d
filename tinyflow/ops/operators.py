"""Python's operators on values: ``x + 1``, ``x @ w``, ``x[1:]``.

Main function: ``install``; runs when ``tinyflow.ops`` is imported. May import all op families.
Default node names are TensorFlow's. ``==`` stays identity: values are dictionary keys (feeds).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from tinyflow.core.error import SymbolicValueError
from tinyflow.ir.graph.nodes import Value
from tinyflow.ops import comparison, division, elementwise, logical, special
from tinyflow.ops.contraction import matmul
from tinyflow.ops.python_index import get_item

#: method -> (function, node name); each also has its reflected form
BINARY: dict[str, tuple[Callable[..., Any], str | None]] = {
    "add": (elementwise.add, "add"),
    "sub": (elementwise.subtract, "sub"),
    "mul": (elementwise.multiply, "mul"),
    "truediv": (elementwise.truediv, "truediv"),
    "floordiv": (division.floordiv, "floordiv"),
    "mod": (division.floormod, "mod"),
    "pow": (special.power, "pow"),
    "matmul": (matmul, "matmul"),
    "and": (logical.logical_and, "and"),
    "or": (logical.logical_or, "or"),
    "xor": (logical.logical_xor, "xor"),
}
#: Python reflects these itself (x < y is y > x)
COMPARE: dict[str, tuple[Callable[..., Any], str | None]] = {
    "lt": (comparison.less, None),
    "le": (comparison.less_equal, None),
    "gt": (comparison.greater, None),
    "ge": (comparison.greater_equal, None),
}
UNARY: dict[str, Callable[..., Any]] = {
    "neg": elementwise.negative,
    "abs": elementwise.absolute,
    "invert": logical.logical_not,
}


def _forward(function: Callable[..., Any], name: str | None) -> Callable[[Any, Any], Any]:
    def operator(self: Any, other: Any) -> Any:
        return function(self, other, name=name)

    return operator


def _reflected(function: Callable[..., Any], name: str | None) -> Callable[[Any, Any], Any]:
    def operator(self: Any, other: Any) -> Any:
        return function(other, self, name=name)

    return operator


def _unary(function: Callable[..., Any]) -> Callable[[Any], Any]:
    def operator(self: Any) -> Any:
        return function(self)

    return operator


def _no_number(use: str, hint: str) -> Callable[..., NoReturn]:
    def operator(self: Value, *arguments: Any) -> NoReturn:
        raise SymbolicValueError(
            f"{self.node.name or self.node.op.type_name}: cannot use a value of the graph {use}",
            received={"value": self.type},
            expected="a number or array; this value has no number yet",
            source=self.node.source if self.node.source.line else None,
            hint=hint,
        )

    return operator


_RUN = "run it in a Session (sess.run(value))"


def install(target: type) -> None:
    """Give ``target`` the operators of values. Its ``==`` and hash stay identity."""
    for method, (function, name) in BINARY.items():
        setattr(target, f"__{method}__", _forward(function, name))
        setattr(target, f"__r{method}__", _reflected(function, name))
    for method, (function, name) in COMPARE.items():
        setattr(target, f"__{method}__", _forward(function, name))
    for method, unary in UNARY.items():
        setattr(target, f"__{method}__", _unary(unary))
    setattr(target, "__getitem__", lambda self, index: get_item(self, index))  # noqa: B010
    # NumPy leaves ``array + value`` to the value instead of adding element by element.
    target.__array_priority__ = 100  # type: ignore[attr-defined]
    target.__array_ufunc__ = None  # type: ignore[attr-defined]


def install_refusals(target: type) -> None:
    """Uses of a value that need its number say so."""
    choose = "for a choice inside the graph use tf.where or tf.cond; else " + _RUN
    setattr(target, "__bool__", _no_number("as a Python bool", choose))  # noqa: B010
    setattr(target, "__float__", _no_number("as a Python float", _RUN))  # noqa: B010
    setattr(target, "__int__", _no_number("as a Python int", _RUN))  # noqa: B010
    setattr(target, "__array__", _no_number("as a NumPy array", _RUN))  # noqa: B010
    setattr(  # noqa: B010
        target, "__iter__", _no_number("in a Python loop", "use tf.unstack(value) for a list")
    )
    setattr(  # noqa: B010
        target, "__len__", _no_number("in len()", "use tf.shape(value)[0], or value.shape[0]")
    )


install(Value)
install_refusals(Value)
