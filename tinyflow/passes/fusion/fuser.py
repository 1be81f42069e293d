"""The partition of a function into kernels.

Main function: ``fuse_groups``. May import core, ir, te and the parts of fusion.

Nodes are placed in order. A value joins the kernel of one of its producers where the rules of
``joining`` allow; kernels that it also reads from are merged into that one, or recomputed inside
it (``absorption``). Then kernels that read the same arrays become one (``siblings``), and small
updates of variables one launch (``batches``).
"""

from __future__ import annotations

from tinyflow.ir.graph.nodes import Function, Value
from tinyflow.passes.fusion import absorption, joining, order
from tinyflow.passes.fusion.arrange import arrange, execution_order
from tinyflow.passes.fusion.attention import fuse_attention
from tinyflow.passes.fusion.batches import batch_updates
from tinyflow.passes.fusion.cost import size_bytes
from tinyflow.passes.fusion.decisions import Decision, decisions_of
from tinyflow.passes.fusion.groups import Group, Grouping
from tinyflow.passes.fusion.items import (
    Extents,
    Item,
    ItemTable,
    is_reshaping_view,
    is_view,
    opaque_kind,
    squeeze,
    stretched,
)
from tinyflow.passes.fusion.recompute import recompute_values
from tinyflow.passes.fusion.siblings import join_siblings


class _Fuser:
    """Places nodes in groups. noted: what was decided, refusals among it."""

    def __init__(self, fn: Function, fuse: bool) -> None:
        self.fn, self.fuse = fn, fuse
        self.table = ItemTable(fn, fuse)
        self.items, self.users = self.table.items, self.table.users
        self.outputs = self.table.outputs
        self.groups: list[Group] = []
        self.noted: list[Decision] = []

    # ---- groups --------------------------------------------------------------------------------
    def new_group(self, kind: str, outer: Extents = (), inner: Extents = ()) -> Group:
        count = len(self.groups)
        group = Group(kind, count, outer, inner, rank=count)
        self.groups.append(group)
        return group

    def add(self, group: Group, item: Item, producers: list[Group] | None = None) -> None:
        """producers: ``self.producers(item)`` where it is known."""
        item.group = group
        group.items.append(item)
        for producer in self.producers(item) if producers is None else producers:
            order.link(producer, group)

    def producers(self, item: Item) -> list[Group]:
        """Groups that the item reads from, latest first, without repetition."""
        found: dict[Group, None] = {}
        for value, _ in item.reads:
            producer = self.items.get(value)
            if producer is not None and producer.group is not None:
                found[producer.group] = None
        return sorted(found, key=lambda g: -g.index) if len(found) > 1 else list(found)

    # ---- placing -------------------------------------------------------------------------------
    def place_node(self, items: list[Item]) -> None:
        node = items[0].value.node
        kind = opaque_kind(node)
        if kind is None:
            for item in items:
                if not item.free:
                    self.place(item)
            return
        group = self.new_group(kind)
        for item in items:
            self.add(group, item)
        for control in node.control_inputs:
            for value in control.outputs:
                producer = self.items.get(value)
                if producer is not None and producer.group is not None:
                    order.link(producer.group, group)

    def place(self, item: Item) -> None:
        if is_view(item.value.node) and self.shows_memory(item):
            self.add(self.new_group("view"), item)
            return
        others = self.producers(item) if self.fuse else []
        for group in others:
            reason = joining.why_apart(self.items, item, group, others)
            if reason is None:
                self.join(item, group, others)
                return
            self.refuse(item, group, reason)
        group = self.start(item)
        for producer in others:
            if producer.kind != "map":
                continue  # why it was not joined has been said
            reason = absorption.why_stored(self.items, self.users, self.outputs, producer, item)
            if reason is None and any(
                order.reaches(o, producer) for o in self.producers(item) if o is not producer
            ):
                reason = "another of its inputs waits for the same kernel"
            if reason is None:
                absorption.absorb(producer, group)
            else:
                self.refuse(item, producer, reason)
        self.add(group, item)

    def refuse(self, item: Item, group: Group, reason: str) -> None:
        value = next(v for v, _ in item.reads if self.is_made_in(v, group))
        self.noted.append(Decision(value, item.value, False, reason, size_bytes(value)))

    def is_made_in(self, value: Value, group: Group) -> bool:
        producer = self.items.get(value)
        return producer is not None and producer.group is group

    def start(self, item: Item) -> Group:
        """A new group for the item alone."""
        outer, inner = item.extents, tuple([n for _, n in item.reduce_axes])
        if item.combiner is None:
            return self.new_group("map", outer)
        if item.combiner == "dot":
            return self.new_group("dot", outer)
        rows = (
            inner
            and self.rows_are_contiguous(item)
            and not joining.is_one_long_row(outer, inner)
        )
        return self.new_group("row" if rows else "reduce", outer, inner if rows else ())

    def rows_are_contiguous(self, item: Item) -> bool:
        """Whether the reduced axes are the trailing axes of what is read."""
        wanted = item.all_axes
        return any(
            stretched(indices, value.type.shape or ()) == wanted for value, indices in item.reads
        )

    def shows_memory(self, item: Item) -> bool:
        """Whether a view's source exists in memory (it may be an expression inlined here)."""
        if is_reshaping_view(item.value.node):
            return True
        source = item.reads[0][0] if len(item.reads) == 1 else None
        return (
            source is not None
            and item.is_renaming
            and squeeze(source.type.shape or ()) == item.extents
        )

    def join(self, item: Item, group: Group, others: list[Group]) -> None:
        if item.combiner is not None and group.kind == "map":
            group.kind = "row"
            group.outer = item.extents
            group.inner = tuple([n for _, n in item.reduce_axes])
        turn = joining.turn_of(self.items, item, group) if item.combiner is None else None
        if turn is not None:
            group.turned[item.value] = turn
        self.add(group, item, others)
        for other in others:
            if other is not group and joining.merge_is_legal(self.items, other, group):
                joining.merge(other, group)

    # ---- the whole -----------------------------------------------------------------------------
    def run(self) -> Grouping:
        for items in self.table.make_items():
            self.place_node(items)
        live = [g for g in self.groups if g.items]
        grouping = Grouping(
            live, self.items, self.users, self.outputs, [], self.table.placeholders
        )
        if self.fuse:
            self.noted += fuse_attention(grouping)
            self.noted += recompute_values(grouping)
            self.noted += join_siblings(self.items, grouping.groups)
            grouping.groups = [g for g in grouping.groups if g.items]
            self.noted += batch_updates(grouping)
        update_after_reading(self.fn, grouping)
        grouping.groups = arrange(self.fn, grouping, execution_order(grouping.groups))
        grouping.decisions = decisions_of(grouping, self.noted)
        return grouping


def update_after_reading(fn: Function, grouping: Grouping) -> None:
    """A variable's new value is made after the last kernel that reads the old one, so that it goes
    straight into the variable's memory."""
    batch_of = {part: g for g in grouping.groups for part in g.parts}
    old_of = {v.node.op.key: v for v in fn.inputs if v.node.op.role == "variable"}  # type: ignore[attr-defined]
    shows: dict[Value, Value] = {}
    readers: dict[Value, dict[Group, None]] = {}
    for group in grouping.groups:
        for item in (*group.items, *(grouping.items[v] for v in group.copied)):
            for value, _ in item.reads:
                root = shows.get(value, value)
                readers.setdefault(root, {})[group] = None
                if group.kind == "view":
                    shows[item.value] = root
    for key, position in fn.updates.items():
        old, new = old_of.get(key), grouping.items.get(fn.outputs[position])
        if old is None or new is None or new.group is None:
            continue
        for reader in readers.get(old, ()):
            update = batch_of.get(new.group, new.group)
            if reader is not update and reader.kind != "view" and not order.reaches(reader, update):
                order.link(reader, update)


def fuse_groups(fn: Function, fuse: bool = True) -> Grouping:
    """Groups of ``fn`` (composites decomposed) in execution order.

    fuse=False gives every node its own group: the op-by-op mode, bit for bit the same results.
    """
    return _Fuser(fn, fuse).run()

