"""Groups of values that become one kernel each, and the partition of a function into them.

Main types: ``Group``, ``Grouping``. May import ir, te and fusion's items, decisions and signature.

A group has a *domain*, the extents its loops run over, and every value inside is either *full*
(one element per point of the domain), *per row* (one per point of the leading part ``outer`` of a
row group's domain), or *inlined* (recomputed where it is read). Kinds of groups::

    map       element-wise over the domain
    row       reductions over the trailing part ``inner`` of the domain, and what surrounds them:
              softmax, layer norm, their gradients - one pass over memory per row
    reduce    reductions over other axes (leading axes, whole tensors), all over the same domain,
              with element-wise work before and after them
    dot       one contraction, with element-wise work on its result
    loops     an op that writes its own loop nest (gather gradients, scatter)
    attention contractions joined through rows that stay in the cache; see ``attention``
    batch     several independent map groups of different domains: small updates of variables
    view      no kernel: the input's bytes under another shape
    host      a call back into Python
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tinyflow import te
from tinyflow.ir.graph.nodes import Value
from tinyflow.passes.fusion.decisions import Decision
from tinyflow.passes.fusion.items import Extents, Item
from tinyflow.passes.fusion.signature import signature_of


@dataclass(eq=False)
class Group:
    """Items of one kernel, producers first. See the module's header for the kinds.

    inlined: values recomputed by their readers.   copied: values of other groups whose expressions
    this one evaluates itself.   turned: transposed results -> dimension of the domain per own axis.
    parts: the map groups of a batch.   members: the groups that an attention joins (two may join
    the same one: both compute it).   hidden: values that exist only inside of attentions.
    kept: what the group is for sizes at which ``squares`` wait in memory for the gradient, a form
    of this group that has no items of its own.
    sources, readers: groups it reads from and that read from it.   rank: see ``order``.
    """

    kind: str
    index: int
    outer: Extents = ()
    inner: Extents = ()
    items: list[Item] = field(default_factory=list)
    inlined: set[Value] = field(default_factory=set)
    copied: set[Value] = field(default_factory=set)
    turned: dict[Value, tuple[int, ...]] = field(default_factory=dict)
    sources: set[Group] = field(default_factory=set)
    readers: set[Group] = field(default_factory=set)
    rank: int = 0
    parts: tuple[Group, ...] = ()
    members: tuple[Member, ...] = ()
    hidden: set[Value] = field(default_factory=set)
    kept: Group | None = None
    squares: tuple[Value, ...] = ()
    form_of: Group | None = None

    def __repr__(self) -> str:
        return f"<{self.kind} {self.label} {self.outer}{self.inner or ''}>"

    @property
    def domain(self) -> Extents:
        return self.outer + self.inner

    @property
    def live_items(self) -> Iterator[Item]:
        """Those that are computed at a point of the domain."""
        return (i for i in self.items if i.value not in self.inlined)

    def position(self, item: Item) -> str:
        """ "full", "row", "turned" or "" (fits nowhere in the domain)."""
        if item.value in self.turned:
            return "turned"
        extents = item.extents
        if extents == self.domain:
            return "full"
        return "row" if self.kind == "row" and extents == self.outer else ""

    @property
    def reduction(self) -> Item | None:
        """The first reduction that is computed at a point of the domain."""
        return next((i for i in self.live_items if i.combiner), None)

    @property
    def label(self) -> str:
        return "_".join(
            dict.fromkeys(i.value.node.op.type_name.lower() for i in self.items[-4:])
        )


class Member(NamedTuple):
    """A group in an attention; square: the one that its contraction reads, None if it makes one."""

    group: Group
    square: Value | None


@dataclass(eq=False)
class Grouping:
    """The result: groups in execution order and every value's item.

    decisions: what was fused and what stayed apart, with reasons and bytes, in order.
    """

    groups: list[Group]
    items: dict[Value, Item]
    users: dict[Value, list[Item]]
    outputs: frozenset[Value]
    decisions: list[Decision]
    placeholders: dict[te.Tensor, Value]

    def results(self, group: Group) -> list[Item]:
        """Items of the group whose values must exist in memory."""
        if group.parts:
            return [item for part in group.parts for item in self.results(part)]
        opaque = group.kind in ("view", "host", "loops", "control")
        found, own = [], group.form_of or group
        for item in group.items:
            value = item.value
            if group.members and (item.group is not own or value in group.hidden):
                continue
            if value in self.outputs:
                found.append(item)
                continue
            for user in self.users.get(value, ()):
                if user.group is not own or opaque:
                    found.append(item)
                    break
        return found

    def signature(self, group: Group) -> tuple[Any, list[Value], list[Value]]:
        """A key that equal groups share, and the values it numbers: what is read, what is made.

        Two groups with one key differ only in names and lines, so one schedule serves both.
        """
        return signature_of(self, group)
