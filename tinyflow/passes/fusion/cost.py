"""What fusion is worth: bytes that no longer move, operations that run again.

Main functions: ``elements``, ``size_bytes``, ``bytes_per_element``, ``recomputed_bytes``. May
import ir and fusion's items.

A kernel that is not a contraction runs at the speed of memory, so a decision compares bytes: a
value that stays inside a kernel is neither written nor read again. Recomputing costs operations,
counted in the bytes that move in the same time: a core that streams 20 bytes per nanosecond
executes about 16 lanes x 8 simple operations in that time, or 5 calls of ``exp``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tinyflow.ir.graph.nodes import Value
from tinyflow.passes.fusion.items import Item

#: What an extent that is known only at run time is taken for.
ASSUMED_EXTENT = 128
#: Memory traffic that takes as long as one simple scalar operation.
BYTES_PER_OPERATION = 0.16
#: The same for a division, root or function call.
BYTES_PER_EXPENSIVE = 4


def elements(extents: Iterable[Any]) -> int:
    """Number of elements; unknown extents are assumed."""
    total = 1
    for n in extents:
        total *= n if isinstance(n, int) else ASSUMED_EXTENT
    return total


def size_bytes(value: Value) -> int:
    type_ = value.node.types[value.index]
    return elements(type_.shape or ()) * type_.dtype.size_bytes


def evaluations(item: Item) -> int:
    """How often the item's expression is evaluated: once per element and reduced element."""
    return elements(item.shape) * elements(n for _, n in item.reduce_axes)


def recomputed_bytes(members: Iterable[Item], reader: Item, reads: int) -> float:
    """Extra operations, in bytes of traffic, when ``reader`` evaluates ``members`` itself."""
    total = 0.0
    times = evaluations(reader) * reads
    for member in members:
        again = max(0, times - elements(member.shape))
        total += again * bytes_per_element(member)
    return total


def bytes_per_element(item: Item) -> float:
    """The traffic that takes as long as computing one element of the item."""
    return item.work * BYTES_PER_OPERATION + (BYTES_PER_EXPENSIVE if item.expensive else 0)
