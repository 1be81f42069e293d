"""The order in which kernels run: what shrinks the memory in use runs first.

Main functions: ``execution_order``, ``arrange``. May import core, ir and fusion's groups and cost.

A topological order that follows the program keeps too much alive: with all gradients of all layers
computed before the first update, every one of them waits in memory. Here a kernel that frees at
least what it makes runs as soon as what it reads is there; all others keep the program's order.
The update of a layer then follows its gradient, and the gradient's memory is free for the next.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from tinyflow.core.order import producers_first
from tinyflow.ir.graph.nodes import Function, Value
from tinyflow.passes.fusion.cost import size_bytes
from tinyflow.passes.fusion.groups import Group, Grouping

#: Calls into Python and loops stay in the program's order among themselves.
KEPT = ("host", "control")
#: Growth that does not count: step sizes and statistics that updates wait for.
NEGLIGIBLE = 4096


def execution_order(groups: Sequence[Group]) -> list[Group]:
    """Topological order of the groups, earliest-created first."""
    return producers_first(groups, lambda group: sorted(group.sources, key=lambda g: g.index))


def arrange(fn: Function, grouping: Grouping, groups: Sequence[Group]) -> list[Group]:
    """``groups`` (topologically ordered) with those that free memory moved forward.

    O(groups log groups + edges).
    """
    return _Arranger(fn, grouping, groups).run()


class Traffic:
    """What each group reads and makes in memory.

    reads: group -> roots of the values it needs.   makes: group -> values it allocates.
    shown: value of a view -> the value whose memory it shows.   own: roots outside of the arena.
    """

    def __init__(self, fn: Function, grouping: Grouping, groups: Sequence[Group]) -> None:
        self.own = set(fn.inputs)
        self.shown: dict[Value, Value] = {}
        self.reads: dict[Group, list[Value]] = {}
        self.makes: dict[Group, list[Value]] = {}
        split = len(fn.outputs) - len(fn.updates)
        self.kept = set(fn.outputs)
        items = grouping.items
        for group in groups:
            if group.kind == "view":
                for item in group.items:
                    self.shown[item.value] = self.root(item.reads[0][0])
                self.reads[group], self.makes[group] = [], []
                continue
            makes = [i.value for i in grouping.results(group)]
            read: dict[Value, None] = {}
            inside = {i.value for i in group.items} | set(group.copied)
            for item in (*group.items, *(items[v] for v in group.copied)):
                for value, _ in item.reads:
                    if value not in inside and (value in items or value in self.own):
                        read[self.root(value)] = None
            self.reads[group], self.makes[group] = list(read), makes
        # New values of variables go straight into the variables' memory.
        self.own.update(fn.outputs[split:])
        self.kept = {self.root(v) for v in self.kept}

    def root(self, value: Value) -> Value:
        while value in self.shown:
            value = self.shown[value]
        return value

    def cost(self, value: Value) -> int:
        """Bytes that the value takes in the arena."""
        return 0 if value in self.own else size_bytes(value)


class _Arranger:
    def __init__(self, fn: Function, grouping: Grouping, groups: Sequence[Group]) -> None:
        self.groups = groups
        self.traffic = traffic = Traffic(fn, grouping, groups)
        self.position = {g: n for n, g in enumerate(groups)}
        self.waits = {g: len(g.sources) for g in groups}
        self.left: dict[Value, set[Group]] = {}
        for group in groups:
            for value in traffic.reads[group]:
                self.left.setdefault(value, set()).add(group)
        self.readers: dict[Group, list[Group]] = {g: [] for g in groups}
        for group in groups:
            for source in group.sources:
                self.readers[source].append(group)
        self.eager: list[int] = []
        self.done: set[Group] = set()

    def run(self) -> list[Group]:
        arranged: list[Group] = []
        for group in self.groups:
            if not self.waits[group]:
                self.offer(group)
        following = iter(self.groups)
        while len(arranged) < len(self.groups):
            group = self.next_eager() or next(g for g in following if g not in self.done)
            self.done.add(group)
            arranged.append(group)
            self.finish(group)
        return arranged

    def next_eager(self) -> Group | None:
        while self.eager:
            group = self.groups[heapq.heappop(self.eager)]
            if group not in self.done:
                return group
        return None

    def finish(self, group: Group) -> None:
        for value in self.traffic.reads[group]:
            left = self.left[value]
            left.discard(group)
            if len(left) == 1:
                self.offer(next(iter(left)))
        for reader in self.readers[group]:
            self.waits[reader] -= 1
            if not self.waits[reader]:
                self.offer(reader)

    def offer(self, group: Group) -> None:
        """Queues a group that can run and needs hardly more memory than it frees."""
        if self.waits[group] or group in self.done or group.kind in KEPT:
            return
        if group.kind == "view" or self.growth(group) <= NEGLIGIBLE:
            heapq.heappush(self.eager, self.position[group])

    def growth(self, group: Group) -> int:
        """Bytes in use after the kernel minus those before it."""
        traffic = self.traffic
        made = sum(traffic.cost(v) for v in traffic.makes[group])
        freed = sum(
            traffic.cost(v)
            for v in traffic.reads[group]
            if len(self.left[v]) == 1 and v not in traffic.kept
        )
        return made - freed


__all__ = ["Traffic", "arrange", "execution_order"]

