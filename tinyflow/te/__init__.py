"""Tensor expressions: ``te.compute((m, n), lambda i, j: te.dot(a[i, k], b[k, j], axis=k))``.

Main types: ``Tensor``, ``ReduceAxis``, and Halide's ``Func``, ``RDom``. Imports core and
ir.scalar. Names of the floors above that belong to this public face (``create_schedule``,
``pipeline``, ``lower``, ``build`` ...) are looked up when used.
"""

from __future__ import annotations

import importlib
from typing import Any

from tinyflow.core.titled import titled as _titled
from tinyflow.ir.scalar import nodes as _scalar
from tinyflow.ir.scalar.nodes import (
    bitcast,
    cast,
    checked,
    const,
    fma,
    index,
    maximum,
    minimum,
    select,
)
from tinyflow.te.func import Func, RDom, Var, clamp, constant_exterior, repeat_edge
from tinyflow.te.tensor import (
    ReduceAxis,
    Tensor,
    as_index,
    broadcast_read,
    compute,
    dot,
    elementwise,
    placeholder,
    reduce,
    reduce_axis,
    reduction,
    var,
)

map = elementwise  # the word of the op pattern: te.map(te.tanh, x)


def call(name: str, *args: _scalar.Expr) -> _scalar.Expr:
    """An elementary function of ir.scalar.math by name."""
    return _scalar.call(name, *args)


def _elementary(name: str) -> Any:
    @_titled(name, f"{name} of scalar expressions; expanded by ir.scalar.math.")
    def function(*args: _scalar.Expr) -> _scalar.Expr:
        return _scalar.call(name, *args)

    return function


def _unary(name: str) -> Any:
    @_titled(name, f"{name} of a scalar expression.")
    def function(x: _scalar.Expr) -> _scalar.Expr:
        return _scalar.unary(name, x)

    return function


exp, log, expm1, log1p, tanh, sigmoid, softplus, sin, cos, erf, erfc, erfinv = (
    _elementary(n)
    for n in ("exp", "log", "expm1", "log1p", "tanh", "sigmoid", "softplus", "sin", "cos",
              "erf", "erfc", "erfinv")
)  # fmt: skip
power = _elementary("pow")
sqrt, floor, ceil, rint, trunc, abs, negative, logical_not = (
    _unary(n) for n in ("sqrt", "floor", "ceil", "rint", "trunc", "abs", "neg", "not")
)


def sum(body: _scalar.Expr, axis: Any) -> _scalar.Expr:  # TVM's name
    """Sum over reduce axes, canonical order."""
    return reduce("sum", axis, body)


def max(body: _scalar.Expr, axis: Any) -> _scalar.Expr:
    return reduce("max", axis, body)


def min(body: _scalar.Expr, axis: Any) -> _scalar.Expr:
    return reduce("min", axis, body)


def prod(body: _scalar.Expr, axis: Any) -> _scalar.Expr:
    return reduce("prod", axis, body)


def thread_axis(tag: str) -> str:
    """A thread of a GPU, for ``stage.bind``."""
    return tag


#: public name -> where it lives; nothing in this package uses them
_ABOVE = {
    "create_schedule": "tinyflow.schedule.stages",
    "pipeline": "tinyflow.schedule.pipelines",
    "decl_tensor_intrin": "tinyflow.schedule.tensorize",
    "lower": "tinyflow.compile.nests",
    "build": "tinyflow.compile.nests",
    "realize": "tinyflow.compile.nests",
}


def __getattr__(name: str) -> Any:
    module = _ABOVE.get(name)
    if module is None:
        raise AttributeError(f"module 'tinyflow.te' has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(module), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_ABOVE})
