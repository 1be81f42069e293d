"""When a value may become part of a kernel, and when two kernels may become one.

Main functions: ``why_apart``, ``merge_is_legal``, ``merge``. May import ir and fusion's items,
groups, order and cost.

Every answer keeps two invariants: values of a group are read at the very point of the domain being
computed (or through an inlined expression), and no two groups wait for each other.
"""

from __future__ import annotations

from tinyflow.ir.graph.nodes import Value
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.passes.fusion import order
from tinyflow.passes.fusion.cost import elements
from tinyflow.passes.fusion.groups import Group
from tinyflow.passes.fusion.items import Item, stretched

#: A row longer than this is not one task: it is reduced in chunks by several threads.
MAX_ROW = 65536
#: Fewer rows than this do not keep the threads busy.
FEW_ROWS = 4
#: A group is cut at this many items: expression size, and with it compile time, stays bounded.
MAX_ITEMS = 64

Items = dict[Value, Item]
JOINABLE = ("map", "row", "reduce", "dot")


def why_apart(items: Items, item: Item, group: Group, others: list[Group]) -> str | None:
    """Why the item cannot become part of the group; None if it can.

    others: all groups that the item reads from.
    """
    if group.kind not in JOINABLE:
        return f"its producer is no kernel of ours: {group.kind}"
    if len(group.items) >= MAX_ITEMS:
        return "the group is full"
    reason = why_misfit(items, item, group)
    if reason is None and any(o is not group and order.reaches(o, group) for o in others):
        return "it would wait for a kernel that waits for this one"
    return reason


def why_misfit(items: Items, item: Item, group: Group) -> str | None:
    if item.combiner is None:
        if turn_of(items, item, group) is not None:
            return None
        where = group.position(item)
        if not where:
            return "its shape is not the group's"
        return _why_elsewhere(items, item, group, item.own_axes, where)
    if item.combiner == "dot":
        return "a contraction starts a kernel"
    if group.kind in ("dot", "reduce"):
        return "it sums up results that no single task has"
    outer, inner = item.extents, tuple([n for _, n in item.reduce_axes])
    if is_one_long_row(outer, inner):
        return "its rows are so long that threads must share them"
    if (group.kind == "map" and inner and group.domain == outer + inner) or (
        group.kind == "row" and (group.outer, group.inner) == (outer, inner)
    ):
        return _why_elsewhere(items, item, group, item.all_axes, "full")
    return "it reduces other axes than the group's"


def turn_of(items: Items, item: Item, group: Group) -> tuple[int, ...] | None:
    """The dimension of the domain that each axis of a transposed result walks; None if the item is
    none that a contraction can store by itself: neighbours must stay neighbours.
    """
    if group.kind != "dot" or not item.is_renaming:
        return None
    value, indices = item.reads[0]
    producer = items.get(value)
    if producer is None or producer.group is not group or group.position(producer) != "full":
        return None
    own, axes = stretched(indices, producer.shape), item.own_axes
    if own == axes or len(own) != len(axes) or set(own) != set(axes) or own[-1] is not axes[-1]:
        return None
    return tuple([own.index(a) for a in axes])


def is_one_long_row(outer: tuple[object, ...], inner: tuple[object, ...]) -> bool:
    """Whether rows are so long and so few that threads must share each of them."""
    return elements(inner) > MAX_ROW and elements(outer) < FEW_ROWS


def _why_elsewhere(
    items: Items, item: Item, group: Group, axes: tuple[Expr, ...], where: str
) -> str | None:
    """Values of the group must be read at the very point of the domain being computed."""
    rows = len(group.outer)
    for value, indices in item.reads:
        producer = items.get(value)
        if producer is None or producer.group is not group:
            continue
        if value in group.inlined:
            return "it reads a value that exists only inside another expression"
        own = stretched(indices, producer.shape)
        position = group.position(producer)
        if position == "full" and where == "full" and own == axes:
            continue
        if position == "row" and own == axes[:rows]:
            continue
        return "it reads elements of the group at other positions"
    return None


# ---- two groups become one -----------------------------------------------------------------------
def merge_is_legal(items: Items, other: Group, group: Group) -> bool:
    """Whether all items of ``other`` can become part of ``group``, which reads from it."""
    if other.kind not in ("map", "row") or group.kind not in JOINABLE:
        return False
    if group.kind in ("dot", "reduce") and other.kind != "map":
        return False
    if len(other.items) + len(group.items) > MAX_ITEMS:
        return False
    if other.kind == "row" and (other.outer, other.inner) != (group.outer, group.inner):
        return False
    if any(not group.position(i) for i in other.live_items):
        return False
    if not _is_read_at_the_point(items, other, group):
        return False
    return not (order.needs_through_another(group, other) or order.reaches(other, group))


def _is_read_at_the_point(items: Items, other: Group, group: Group) -> bool:
    """Everything in ``group`` that reads ``other`` must read it at the point being computed.

    What is inlined reads wherever the expression around it asks for: two parts of a concatenation
    are two places of one value.
    """
    for reader in group.items:
        for value, indices in reader.reads:
            producer = items.get(value)
            if producer is None or producer.group is not other:
                continue
            if reader.value in group.inlined:
                return False
            own = stretched(indices, producer.shape)
            axes = reader.all_axes
            full = group.position(producer) == "full"
            if value in other.inlined or own != (axes if full else axes[: len(group.outer)]):
                return False
            if group.kind in ("dot", "reduce") and reader.combiner:
                return False
    return True


def merge(other: Group, group: Group) -> None:
    """All items of ``other`` become part of ``group``."""
    for member in other.items:
        member.group = group
    group.items = sorted(other.items + group.items, key=lambda i: i.number)
    group.inlined |= other.inlined
    group.copied |= other.copied
    group.turned |= other.turned
    other.items = []
    order.absorb_edges(other, group)
