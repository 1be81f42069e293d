"""Rows of arrays as the places of values: a kernel writes what a loop saves where it is saved.

Main type: ``RowPlace``; main function: ``place_rows``. May import core, ir.graph, ops and passes.

A loop that saves a value per iteration writes it into row t of an array. Where the value is made by
a kernel of the same iteration, the array's row is its memory: before the first kernel one record
lets the value's slot show that row, and the copy into the array is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tinyflow.core.shape import evaluate
from tinyflow.ir.graph.nodes import Function, Input, Node, Value
from tinyflow.ir.graph.visit import users
from tinyflow.ops.tensor_array import ArrayWrite
from tinyflow.passes.loops import CarriedSlot
from tinyflow.passes.plan_memory import Place, Use


@dataclass(eq=False)
class RowPlace:
    """Lets the slot of ``place`` show row ``index`` of ``array``.

    write: the node whose copy it stands for, to which an index out of range belongs.
    """

    write: Node
    place: Place

    @property
    def array(self) -> Value:
        return self.write.inputs[0]

    @property
    def index(self) -> Value:
        return self.write.inputs[1]

    @property
    def row(self) -> Value:
        return self.write.inputs[2]


def place_rows(
    fn: Function,
    actions: Sequence[Any],
    uses: Sequence[Use],
    views: Mapping[Value, Value],
    writes_of: Callable[[Any], Iterable[Any]],
    sizes: Mapping[str, int] = MappingProxyType({}),
) -> tuple[list[Any], list[Use], dict[Any, Place]]:
    """Actions and uses without the copies of rows that can be made in place, and their places.

    writes_of: what an action's kernel makes, nothing for actions of another kind.
    """
    writes = [node for node in fn.nodes if isinstance(node.op, ArrayWrite)]
    if not writes:
        return list(actions), list(uses), {}

    def root(value: Value) -> Value:
        while value in views:
            value = views[value]
        return value

    made = {value for action in actions for value in writes_of(action)}
    free = made - {root(v) for v in fn.outputs}
    readers = users(fn)
    placed: dict[Any, RowPlace] = {}
    for write in writes:
        row = root(write.inputs[2])
        size, whole = (_bytes(v, sizes) for v in (write.inputs[2], row))
        fits = row in free and row not in placed and size == whole and size
        if fits and _is_alone(fn, write, readers):
            placed[row] = RowPlace(write, Place("row", row))
    if not placed:
        return list(actions), list(uses), {}
    gone = {one.write for one in placed.values()}
    kept = [a for a in actions if _node_of(a) not in gone]
    # A copy's use has its node's own inputs, which no other use has.
    given = {id(one.write.inputs) for one in placed.values()}
    first = [Use((one.array, one.index), ()) for one in placed.values()]
    left = [*first, *[u for u in uses if id(u.reads) not in given]]
    return [*placed.values(), *kept], left, {row: one.place for row, one in placed.items()}


def _is_alone(fn: Function, write: Node, readers: Mapping[Value, Sequence[Node]]) -> bool:
    """Whether the loop's own array is read by this write only, its result not at all, and the row's
    number is known when the iteration begins: then nobody sees that the row is written early."""
    array, index, _ = write.inputs
    result = write.outputs[0]
    assert isinstance(write.op, ArrayWrite)
    if write.op.adds or write.control_inputs or result not in fn.outputs:
        return False
    if not isinstance(array.node.op, Input) or not isinstance(array.node.op.key, CarriedSlot):
        return False
    if array in fn.outputs or readers.get(array) != [write] or readers.get(result):
        return False
    signed = index.dtype.size_bytes in (4, 8) and not index.dtype.is_unsigned
    return isinstance(index.node.op, Input) and signed


def _bytes(value: Value, sizes: Mapping[str, int]) -> Any:
    size = value.type.size_bytes
    return size if isinstance(size, int) else evaluate(size, sizes)  # type: ignore[arg-type]


def _node_of(action: Any) -> Node | None:
    """The node of a kernel that is alone in its group."""
    group = getattr(action, "group", None)
    return group.items[0].value.node if group is not None and group.items else None
