"""Where new nodes go: a thread-local stack of builders; ``emit`` asks the innermost one.

Main types: ``Builder`` (type check, source location), ``emit``, ``current_builder``.
Imports core and ir.graph.nodes.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from tinyflow.core.error import InternalError, TinyFlowError
from tinyflow.core.source import UNKNOWN, Source, user_frame
from tinyflow.ir.graph.nodes import Node, Op, TensorType, Value

#: makes the op of a literal: ``constant_op(value, dtype) -> Op``; set by ops.creation, which is
#: above this floor.
_make_constant: Callable[[Any, Any], Op] | None = None


def set_constant_maker(make: Callable[[Any, Any], Op]) -> None:
    global _make_constant
    _make_constant = make


@cache
def argument_names(op_class: type[Op]) -> tuple[str, ...]:
    """Names of an op's inputs, from the signature of its ``infer``."""
    parameters = list(inspect.signature(op_class.infer).parameters.values())[1:]
    return tuple(p.name for p in parameters)


def argument_name(op: Op, position: int, count: int) -> str:
    # mypy takes the dataclasses' __hash__ for that of the class.
    names = argument_names(type(op))  # type: ignore[arg-type]
    if count <= len(names) and (position < len(names) - 1 or count == len(names)):
        return names[position]
    # A variadic op, ``infer(self, *values)``: values_0, values_1 ...
    stem = names[-1] if names else "x"
    return f"{stem}_{position - len(names) + 1}"


class Builder:
    """Makes plain nodes: converts literals, checks types, records the user's line."""

    node_class: type[Node] = Node
    #: set while a pass or the gradient code builds nodes on behalf of an existing one
    source: Source | None = None
    origin: tuple[tuple[str, Source], ...] = ()
    #: the node whose gradient is being built, for builders that name nodes after it
    forward: Node | None = None

    def emit(self, op: Op, arguments: tuple[Any, ...], name: str | None = None) -> Any:
        """The value (or tuple of values) of ``op`` applied to ``arguments``."""
        values = self.convert(op, arguments, name)
        node = self.make_node(op, values, self.infer(op, values), name)
        return node.outputs[0] if len(node.outputs) == 1 else node.outputs

    def convert(self, op: Op, arguments: tuple[Any, ...], name: str | None) -> tuple[Value, ...]:
        """Arguments as values; a literal takes the dtype of the tensors beside it."""
        for a in arguments:
            if not isinstance(a, Value):
                break
        else:
            return arguments
        dtype = None
        if op.same_dtype:
            for a in arguments:
                if isinstance(a, Value):
                    dtype = a.dtype
                    break
                found = getattr(a, "dtype", None)
                if dtype is None and found is not None and not isinstance(a, Value):
                    dtype = found
        return tuple(
            a
            if isinstance(a, Value)
            else self.constant(a, dtype, argument_name(op, i, len(arguments)))
            for i, a in enumerate(arguments)
        )

    def constant(self, value: Any, dtype: Any, name: str | None) -> Value:
        """A literal as a value. Objects with ``as_value()`` (variables) convert themselves."""
        as_value = getattr(value, "as_value", None)
        if as_value is not None:
            return as_value()  # type: ignore[no-any-return]
        if _make_constant is None:
            raise InternalError("no constant op is registered")
        op = _make_constant(value, dtype)
        return self.make_node(op, (), self.infer(op, ()), name).outputs[0]

    def infer(self, op: Op, values: tuple[Value, ...]) -> tuple[TensorType, ...]:
        try:
            result = op.infer(*[v.node.types[v.index] for v in values])
        except TinyFlowError as error:
            raise describe(error, op, values, self.place()) from None
        return result if isinstance(result, tuple) else (result,)

    def make_node(
        self, op: Op, values: tuple[Value, ...], types: tuple[TensorType, ...], name: str | None
    ) -> Node:
        return self.node_class(
            op, values, types, name, (), "", self.place(), self.origin
        )

    def place(self) -> Source:
        return user_frame(2) if self.source is None else self.source

    @contextlib.contextmanager
    def on_behalf_of(
        self, source: Source | None, origin: tuple[tuple[str, Source], ...] = ()
    ) -> Iterator[None]:
        """New nodes carry these places instead of the calling line."""
        before = self.source, self.origin
        self.source, self.origin = source, origin
        try:
            yield
        finally:
            self.source, self.origin = before


def describe(
    error: TinyFlowError, op: Op, values: tuple[Value, ...], source: Source
) -> TinyFlowError:
    """Completes an error from ``infer``: the op's name, the inputs' types, the user's line."""
    if not error.received:
        error.what = f"{op.type_name}: {error.what}"
        error.received = {
            argument_name(op, i, len(values)): v.type for i, v in enumerate(values)
        }
        error.args = (error.what,)
    error.located("created at", source)
    return error


class _Stack(threading.local):
    def __init__(self) -> None:
        self.builders: list[Builder] = []


_stack = _Stack()
_bottom: Callable[[], Builder] = Builder


def set_default_builder(make: Callable[[], Builder]) -> None:
    """What ``current_builder`` answers when nothing was entered (a front end's default graph)."""
    global _bottom
    _bottom = make


def current_builder() -> Builder:
    builders = _stack.builders
    return builders[-1] if builders else _bottom()


def entered() -> bool:
    """Whether this thread is inside a ``building`` block."""
    return bool(_stack.builders)


@contextlib.contextmanager
def building(builder: Builder) -> Iterator[Builder]:
    """``with building(b):`` ops go to ``b`` in this thread."""
    _stack.builders.append(builder)
    try:
        yield builder
    finally:
        # The last entry of this builder: blocks of two graphs may be interleaved.
        position = len(_stack.builders) - 1 - _stack.builders[::-1].index(builder)
        del _stack.builders[position]


def emit(op: Op, *arguments: Any, name: str | None = None) -> Any:
    """Apply ``op`` to values (or literals) in the current builder; its value or tuple of values."""
    return current_builder().emit(op, arguments, name)


__all__ = [
    "UNKNOWN", "Builder", "argument_name", "building", "current_builder", "describe", "emit",
    "entered", "set_constant_maker", "set_default_builder",
]  # fmt: skip
