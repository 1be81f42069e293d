"""``x[index]`` by Python's rules, also with integers of the graph in the index.

Main function: ``get_item``. May import ops.base, strided; others when called.
"""

from __future__ import annotations

from typing import Any

from tinyflow.ops.base import Value, emit, emit_shaped
from tinyflow.ops.strided import index_op


def get_item(x: Any, index: Any, name: str | None = "strided_slice") -> Any:
    """``x[index]`` by Python's rules; entries may be integer scalars of the graph."""
    parts = index if isinstance(index, tuple) else (index,)
    if not any(_is_value(b) for p in parts for b in _bounds_of(p)):
        return emit(index_op(index), x, name=name)
    return _dynamic_item(x, parts, name)


def _is_value(part: Any) -> bool:
    return isinstance(part, Value) or hasattr(part, "as_value")


def _bounds_of(part: Any) -> tuple[Any, ...]:
    return (part.start, part.stop, part.step) if isinstance(part, slice) else (part,)


def _dynamic_item(x: Any, parts: tuple[Any, ...], name: str | None) -> Any:
    """Bounds from the graph: those known by now become attributes, the others an operand.

    A position that only a run knows is a gather: no shape depends on it, so nothing is recompiled.
    """
    from tinyflow.ops.creation import constant_value
    from tinyflow.ops.indexing import gather

    for i in range(len(parts)):
        at = parts[i]
        if not isinstance(at, slice) and _is_value(at) and constant_value(_value(at)) is None:
            if Ellipsis in parts[:i] or any(not isinstance(p, slice) for p in parts[:i]):
                break  # the axis of the position is not simply i
            rest = get_item(x, (*parts[:i], slice(None), *parts[i + 1 :]))
            return gather(rest, _from_front(_value(at), x, i), axis=i, name=name)

    def number(bound: Any) -> Any:
        return 0 if _is_value(bound) else bound

    plain = tuple(
        slice(number(p.start), number(p.stop), number(p.step) or 1)
        if isinstance(p, slice)
        else number(p)
        for p in parts
    )
    op = index_op(plain)
    bounds: list[Any] = [*op.begin, *op.end, *op.strides]
    for i, part in enumerate(parts):
        if _is_value(part):
            from tinyflow.ops.elementwise import add

            bounds[i], bounds[len(parts) + i] = part, add(part, 1)
        elif isinstance(part, slice):
            for row, bound in enumerate((part.start, part.stop, part.step)):
                if _is_value(bound):
                    bounds[row * len(parts) + i] = bound
    return emit_shaped(op, "bounds", bounds, x, node_name=name)


def _value(part: Any) -> Value:
    return part if isinstance(part, Value) else part.as_value()  # type: ignore[no-any-return]


def _from_front(position: Value, x: Value, axis: int) -> Any:
    """``position`` with negative numbers counted from the end."""
    from tinyflow.ops.comparison import less
    from tinyflow.ops.elementwise import add, select
    from tinyflow.ops.shape import shape

    extent = get_item(shape(x, out_type=position.dtype), axis)
    return select(less(position, 0), add(position, extent), position)
