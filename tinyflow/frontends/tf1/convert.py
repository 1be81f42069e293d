"""Python values to tensors: ``tf.convert_to_tensor`` and what every function does to its inputs.

Main functions: ``convert_to_tensor``, ``tensor``, ``scoped``. May import core, ops, graph.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np

from tinyflow.core.dtype import as_dtype
from tinyflow.core.error import DTypeError, InvalidArgumentError
from tinyflow.frontends.tf1.graph import Graph, get_default_graph
from tinyflow.frontends.tf1.tensor_shape import Dimension, TensorShape
from tinyflow.ir.graph.builder import current_builder
from tinyflow.ir.graph.nodes import Value
from tinyflow.ops.joining import Pack

__all__ = [
    "convert_to_tensor", "extents", "graph_of", "is_tensor", "pack_nested", "scoped", "tensor",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])


def convert_to_tensor(
    value: Any,
    dtype: Any = None,
    name: str | None = None,
    preferred_dtype: Any = None,
    dtype_hint: Any = None,
) -> Any:
    """``value`` (a tensor, variable, array, number or nested list of them) as a tensor.

    Errors: DTypeError when a tensor of another dtype is given, InvalidArgumentError for an
    operation. A literal of a dtype that ``preferred_dtype`` cannot hold keeps its own.
    """
    hint = preferred_dtype if dtype_hint is None else dtype_hint
    if not isinstance(value, Value):
        if isinstance(value, (TensorShape, Dimension)):
            value = _static(value)
        if dtype is None and hint is not None and not hasattr(value, "as_value"):
            try:
                return current_builder().constant(value, as_dtype(hint), name or "Const")
            except (TypeError, ValueError):
                pass
        wanted = None if dtype is None or hasattr(value, "as_value") else as_dtype(dtype)
        value = current_builder().constant(value, wanted, name or "Const")
    if dtype is not None and value.dtype is not as_dtype(dtype):
        raise DTypeError(
            f"Tensor conversion requested dtype {as_dtype(dtype)} for Tensor with dtype "
            f"{value.dtype}: {value}",
            source=value.node.source,
            hint=f"convert it with tf.cast(..., tf.{as_dtype(dtype)})",
        )
    return value


def _static(shape: TensorShape | Dimension) -> Any:
    """A shape or dimension as numbers. Errors: InvalidArgumentError when it is not known."""
    if isinstance(shape, Dimension):
        if shape.value is None:
            raise InvalidArgumentError(
                "Cannot convert an unknown Dimension to a Tensor: ?",
                hint="tf.shape(x)[i] is known in every run",
            )
        return shape.value
    if not shape.is_fully_defined():
        raise InvalidArgumentError(
            f"Cannot convert a partially known TensorShape to a Tensor: {shape}",
            hint="tf.shape(x) is known in every run",
        )
    return np.array(shape.as_list(), np.int32)


def is_tensor(value: Any) -> bool:
    """Whether it has a dtype of its own: a tensor or a variable, no literal."""
    return isinstance(value, Value) or hasattr(value, "as_value")


def tensor(value: Any, name: str | None = None) -> Any:
    """``convert_to_tensor`` that leaves tensors alone, for use inside this package."""
    return value if isinstance(value, Value) else convert_to_tensor(value, name=name)


def pack_nested(items: Any, dtype: Any, name: str | None) -> Any:
    """A (nested) list with tensors in it as one tensor: literals take the tensors' dtype."""
    if dtype is None:
        dtype = _dtype_inside(items)
    builder = current_builder()
    parts = [
        item
        if isinstance(item, Value)
        else pack_nested(item, dtype, None)
        if isinstance(item, (list, tuple)) and _dtype_inside(item) is not None
        else builder.constant(item, None if hasattr(item, "as_value") else dtype, str(i))
        for i, item in enumerate(items)
    ]
    return builder.emit(Pack(0), tuple(parts), name or "packed")


def _dtype_inside(items: Any) -> Any:
    """The dtype of the first tensor in a nested list, or None."""
    for item in items:
        if isinstance(item, Value) or hasattr(item, "as_value"):
            return item.dtype
        if isinstance(item, (list, tuple)):
            found = _dtype_inside(item)
            if found is not None:
                return found
    return None


def extents(shape: Any, allow_tensor: bool = True) -> Any:
    """A user's shape as the ops take it: a tuple of ints (and tensors), or an integer tensor."""
    if isinstance(shape, (TensorShape, Dimension)):
        static = _static(shape)
        return (static,) if isinstance(static, int) else tuple(static.tolist())
    if hasattr(shape, "as_value"):
        shape = shape.as_value()
    if isinstance(shape, Value):
        return shape
    if isinstance(shape, np.ndarray):
        return tuple(np.atleast_1d(shape).tolist())
    if isinstance(shape, Iterable):
        return tuple(_static(d) if isinstance(d, Dimension) else d for d in shape)
    return (shape,)


def graph_of(*values: Any) -> Graph:
    """The graph of the given tensors and variables (lists are looked into), else the default."""
    flat: list[Any] = []
    for value in values:
        if isinstance(value, (list, tuple)):
            flat += value
        else:
            flat.append(value)
    return get_default_graph()._owner(flat)


def scoped(default: str) -> Callable[[F], F]:
    """A function whose nodes live in a name scope, its result under the scope's own name.

    ``tf.truediv(x, 2.)`` makes ``truediv/y`` and ``truediv``. The function's ``name`` argument,
    given by position or by keyword, receives the scope ("truediv/"), which the node that is the
    result takes as its name.
    """

    def decorate(function: F) -> F:
        place = function.__code__.co_varnames.index("name")

        @functools.wraps(function)
        def wrapper(*args: Any, **keywords: Any) -> Any:
            graph = graph_of(*args, *keywords.values())
            by_position = len(args) > place
            name = args[place] if by_position else keywords.get("name")
            with graph.as_default(), graph.name_scope(name or default) as scope:
                if by_position:
                    args = (*args[:place], scope, *args[place + 1 :])
                else:
                    keywords["name"] = scope
                return function(*args, **keywords)

        return wrapper  # type: ignore[return-value]

    return decorate
