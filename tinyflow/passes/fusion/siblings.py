"""Kernels that read the same arrays become one: an array is read from memory once.

Main function: ``join_siblings``. May import fusion's items, groups, order, cost and joining.

Neither of two siblings needs the other. They merge when they run over the same domain and an array
of at least ``WORTH`` bytes is read by both, at the same places:

* map and row groups of one domain: gradients with respect to both factors of a product, two
  normalisations of one input;
* reductions over the same axes of the same array: the gradients of a normalisation's scale and
  offset, a sum and a sum of squares.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tinyflow.ir.graph.nodes import Value
from tinyflow.passes.fusion import order
from tinyflow.passes.fusion.cost import size_bytes
from tinyflow.passes.fusion.decisions import Decision
from tinyflow.passes.fusion.groups import Group
from tinyflow.passes.fusion.joining import MAX_ITEMS, Items, merge

#: Smaller arrays stay in the first-level cache between two kernels.
WORTH = 16 * 1024
#: Kernels further apart in the order do not merge: what they read and make would live longer.
NEAR = 64
#: Siblings that one group is compared with.
TRIES = 4
#: Reductions of one kernel: each has its partial results in registers.
MAX_REDUCTIONS = 4


def join_siblings(items: Items, groups: Sequence[Group]) -> list[Decision]:
    """Merges siblings, and says which."""
    readers: dict[tuple[Any, Value], list[Group]] = {}
    for group in groups:
        if not group.items:
            continue
        key = domain_key(group)
        if key is None:
            continue
        for value in dict.fromkeys(_arrays(items, group)):
            readers.setdefault((key, value), []).append(group)
    done = []
    for (_, value), found in readers.items():
        if size_bytes(value) < WORTH:
            continue
        for n, first in enumerate(found):
            for second in found[n + 1 : n + 1 + TRIES]:
                if first.items and second.items and _may_merge(items, first, second):
                    ends = first.items[-1].value, second.items[-1].value
                    done.append(Decision(*ends, True, "both read an array", size_bytes(value)))
                    _merge(first, second)
    return done


def domain_key(group: Group) -> Any:
    """What siblings have in common; None for kinds that have none."""
    if group.kind in ("map", "row"):
        return ("map", group.domain)
    if group.kind == "reduce":
        item = group.reduction
        assert item is not None
        extents = group.outer + tuple([n for _, n in item.reduce_axes])
        if all(isinstance(n, int) for n in extents):
            return ("reduce", group.outer, extents)
    return None


def _arrays(items: Items, group: Group) -> Iterator[Value]:
    """Values from outside that are read at the point of the domain."""
    copies = sorted((items[v] for v in group.copied), key=lambda i: i.number)
    for item in (*group.items, *copies):
        axes = item.all_axes
        for value, indices in item.reads:
            producer = items.get(value)
            if value in group.copied or (producer is not None and producer.group is group):
                continue
            if len(indices) and len([i for i in indices if i in axes]) == len(axes):
                yield value


def _may_merge(items: Items, first: Group, second: Group) -> bool:
    if first is second or abs(first.rank - second.rank) > NEAR:
        return False
    if any(items[v].group in (first, second) for v in first.copied | second.copied):
        return False
    if len(first.items) + len(second.items) > MAX_ITEMS:
        return False
    if "row" in (first.kind, second.kind):
        whole, other = (first, second) if first.kind == "row" else (second, first)
        if other.kind == "row" and (other.outer, other.inner) != (whole.outer, whole.inner):
            return False
    if first.kind == "reduce":
        reductions = [i for g in (first, second) for i in g.live_items if i.combiner]
        if len(reductions) > MAX_REDUCTIONS or len({i.value.dtype for i in reductions}) > 1:
            return False
    return not (order.reaches(first, second) or order.reaches(second, first))


def _merge(first: Group, second: Group) -> None:
    if first.kind == "row" and second.kind == "map":
        second.kind, second.outer, second.inner = "row", first.outer, first.inner
    merge(first, second)
