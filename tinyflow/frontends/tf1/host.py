"""Operations that call back into Python: ``tf.py_func``, ``tf.Print``, ``tf.Assert``.

Main functions: ``py_func``. May import core, ops, convert, control.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyflow.core.error import InvalidArgumentError
from tinyflow.core.titled import titled
from tinyflow.frontends.tf1.control import group
from tinyflow.frontends.tf1.convert import graph_of, tensor
from tinyflow.frontends.tf1.elements import Operation
from tinyflow.ops import comparison, host, reduction

__all__ = [
    "Assert", "Print", "assert_equal", "assert_greater", "assert_greater_equal", "assert_less",
    "assert_less_equal", "assert_none_equal", "assert_positive", "assert_rank", "py_func",
]  # fmt: skip


def py_func(
    func: Callable[..., Any], inp: Any, Tout: Any, stateful: bool = True, name: str | None = None
) -> Any:
    """``func(*arrays)`` as an operation; ``Tout`` is the dtype of its result, or a list of them."""
    graph = graph_of(inp)
    with graph.as_default():
        full = graph.claim(name or "PyFunc", _NAMED)
        with graph.name_scope(full + "/"):
            values = [tensor(v, f"input_{i}") for i, v in enumerate(inp)]
        return host.py_func(func, values, Tout, stateful, full + "/")


_NAMED = host.Assert()  # any op: the name is given


def Print(
    input_: Any, data: Any, message: str | None = None, first_n: int | None = None,
    summarize: int | None = None, name: str | None = None,
) -> Any:  # fmt: skip
    """``input_``; whenever it is computed, ``data`` is written to standard error."""
    graph = graph_of(input_, data)
    with graph.as_default():
        full = graph.claim(name or "Print", _NAMED)
        with graph.name_scope(full + "/"):
            shown = [tensor(d, f"data_{i}") for i, d in enumerate(data)]
            value = tensor(input_, "input")
        return host.print_(value, shown, message, first_n, summarize, full + "/")


def Assert(
    condition: Any, data: Any, summarize: int | None = None, name: str | None = None
) -> Operation:
    """An operation that fails with the values of ``data`` unless ``condition`` holds."""
    graph = graph_of(condition, data)
    with graph.as_default(), graph.name_scope(name or "Assert"):
        condition = tensor(condition, "Condition")
        if condition.type.shape != ():
            condition = reduction.reduce_all(condition)
        shown = [tensor(d, f"data_{i}") for i, d in enumerate(data) if not isinstance(d, str)]
        return host.assert_(condition, shown, summarize, "Assert").node  # type: ignore[no-any-return]


def _assertion(name: str, relation: Callable[[Any, Any], Any], sign: str) -> Callable[..., Any]:
    @titled(name, f"An operation that fails unless x {sign} y for all elements.")
    def check(
        x: Any, y: Any, data: Any = None, summarize: int | None = None,
        message: str | None = None, name: str | None = None,
    ) -> Operation:  # fmt: skip
        graph = graph_of(x, y)
        with graph.as_default(), graph.name_scope(name or check.__name__):
            x, y = tensor(x, "x"), tensor(y, "y")
            holds = reduction.reduce_all(relation(x, y))
            return group(Assert(holds, [x, y] if data is None else data, summarize))

    return check


assert_equal = _assertion("assert_equal", comparison.equal, "==")
assert_none_equal = _assertion("assert_none_equal", comparison.not_equal, "!=")
assert_less = _assertion("assert_less", comparison.less, "<")
assert_less_equal = _assertion("assert_less_equal", comparison.less_equal, "<=")
assert_greater = _assertion("assert_greater", comparison.greater, ">")
assert_greater_equal = _assertion("assert_greater_equal", comparison.greater_equal, ">=")


def assert_positive(
    x: Any, data: Any = None, summarize: int | None = None, message: str | None = None,
    name: str | None = None,
) -> Operation:  # fmt: skip
    """An operation that fails unless all elements are above 0."""
    return assert_greater(x, np.zeros((), tensor(x).dtype.numpy), data, summarize, message, name)  # type: ignore[no-any-return]


def assert_rank(x: Any, rank: int, **ignored: Any) -> Operation:
    """Checked when the graph is built. Errors: InvalidArgumentError."""
    x = tensor(x)
    if x.type.rank not in (None, rank):
        raise InvalidArgumentError(
            f"Tensor {x.name} must have rank {rank}. Received rank {x.type.rank}, shape {x.shape}",
            source=x.node.source,
        )
    return group(x)
