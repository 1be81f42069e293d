"""When a kernel is recomputed inside the expressions of the one that reads it.

Main functions: ``why_stored``, ``absorb``. May import ir.scalar and fusion's items, groups, cost
and joining.

A value that one item reads need not be stored if computing it there costs less than moving it:
the producer of a reduction, a transposed operand of a contraction.
"""

from __future__ import annotations

from collections.abc import Iterable

from tinyflow.ir.graph.nodes import Value
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.passes.fusion import joining
from tinyflow.passes.fusion.cost import (
    elements,
    evaluations,
    recomputed_bytes,
    size_bytes,
)
from tinyflow.passes.fusion.groups import Group
from tinyflow.passes.fusion.items import Item, has_unit_stride

#: A reader's expression grows by what it recomputes: at most so many items of it.
MAX_INLINED = 16
#: Operations per element that may be spent on computing a value again instead of loading it.
MAX_REPEATED = 32


def why_stored(
    items: joining.Items,
    users: dict[Value, list[Item]],
    outputs: frozenset[Value],
    group: Group,
    item: Item,
) -> str | None:
    """Why the whole group cannot be recomputed inside the item's expression; None if it pays."""
    if group.kind != "map":
        return f"a {group.kind} kernel is not recomputed"
    if len(group.items) >= joining.MAX_ITEMS:
        return "the group is full"
    root = group.items[-1]
    for member in group.items:
        if member.value in outputs:
            return "its result is fetched"
        outside = [u for u in users.get(member.value, ()) if u.group is not group]
        if outside and (member is not root or outside != [item]):
            return "others read it, too"
    if item.combiner == "dot":
        return why_not_in_operand(group.items, item)
    reads = sum(1 for v, _ in item.reads if v is root.value)
    if evaluations(item) <= elements(root.shape) and reads == 1:
        return None
    expensive = any(m.expensive for m in group.items)
    times = max(1, reads * evaluations(item) // max(1, elements(root.shape)))
    if (
        not expensive
        and len(group.items) <= 4
        and sum(m.work for m in group.items) * times <= MAX_REPEATED
    ):
        return None
    extra = recomputed_bytes(group.items, item, reads)
    if len(group.items) <= MAX_INLINED and extra < 2 * size_bytes(root.value):
        return None
    return "computing it again costs more than storing it"


def why_not_in_operand(members: Iterable[Item], user: Item) -> str | None:
    """Why a contraction cannot read its operand through these items; None if it can.

    It reads every operand many times: only renamed indices come for free, and only while the
    elements that lie side by side stay side by side.
    """
    values = set()
    for member in members:
        if not member.is_renaming:
            return "a contraction reads it many times: it is computed once"
        source, indices = member.reads[0]
        if not has_unit_stride(indices, source.type.shape or (), member.own_axes):
            return "neighbouring elements would not lie side by side"
        values.add(member.value)
    for value, indices in user.reads:
        if value in values and any(scalar_visit.linear(i, user.all_axes) is None for i in indices):
            return "its indices are not evenly spaced"
    return None


def absorb(producer: Group, group: Group) -> None:
    """Recompute ``producer`` inside ``group``'s expressions."""
    members = {m.value for m in producer.items}
    joining.merge(producer, group)
    group.inlined |= members
