"""What is cheaper to compute again than to keep: values that kernels hand to later kernels.

Main function: ``recompute_values``. May import ir and fusion's items, groups, order, cost,
decisions and absorption.

A forward pass leaves many values for its gradient: of ``gelu(x @ w + b)`` half the argument, the
error function, the exponential. All follow from ``x @ w + b``, and a kernel at the speed of memory
has the time to compute them. For each group, the values that others read are traced back, through
what is element-wise, to a *frontier*: values in memory anyway, results of reductions and
contractions. If storing the frontier and computing the rest in the readers moves fewer bytes, the
readers copy the expressions (``Group.copied``). Copies have the same bits.

before: G stores a, b, c of x;  H reads a, b, c      after: G stores x;  H reads x
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tinyflow.ir.graph.nodes import Value
from tinyflow.passes.fusion import order
from tinyflow.passes.fusion.absorption import why_not_in_operand
from tinyflow.passes.fusion.cost import bytes_per_element, elements, size_bytes
from tinyflow.passes.fusion.decisions import Decision
from tinyflow.passes.fusion.groups import Group, Grouping
from tinyflow.passes.fusion.items import Item
from tinyflow.passes.fusion.siblings import domain_key

#: Smaller values stay in the first-level cache.
WORTH = 16 * 1024
#: Values whose expressions one kernel may copy.
MAX_COPIED = 24
KINDS = ("map", "row", "reduce", "dot")


@dataclass
class _Plan:
    """dropped: values no longer stored.   needs: reader group -> values to copy, values to read.

    saved: bytes, what is recomputed already subtracted.
    """

    dropped: list[Value]
    needs: dict[Group, tuple[set[Value], set[Value]]] = field(default_factory=dict)
    saved: int = 0


def recompute_values(grouping: Grouping) -> list[Decision]:
    """Decides for every group, earliest first; changes ``copied``, users and items of groups."""
    done: list[Decision] = []
    for group in sorted(grouping.groups, key=lambda g: g.rank):
        if group.kind in KINDS:
            done += _thin_out(grouping, group)
    grouping.groups = [g for g in grouping.groups if g.items]
    return done


def _thin_out(grouping: Grouping, group: Group) -> list[Decision]:
    candidates = [i for i in grouping.results(group) if _can_move(grouping, group, i)]
    if not candidates:
        return []
    every = _planned(grouping, group, candidates, expensive=True)
    cheap = _planned(grouping, group, candidates, expensive=False)
    best = max((every, cheap), key=lambda p: p.saved)
    if best.saved > 0:
        return _apply(grouping, group, best)
    done: list[Decision] = []
    for item in candidates:
        alone = _planned(grouping, group, [item], expensive=False)
        if alone.saved > 0 and group.items:
            done += _apply(grouping, group, alone)
    return done


def _can_move(grouping: Grouping, group: Group, item: Item) -> bool:
    """Whether every reader outside could compute the value itself."""
    if item.value in grouping.outputs or item.combiner or size_bytes(item.value) < WORTH:
        return False
    if not item.is_smooth:
        return False
    for user in grouping.users.get(item.value, ()):
        if user.group is group:
            continue
        if user.group is None or user.group.kind not in KINDS:
            return False
        if user.combiner == "dot" and (
            not item.is_renaming or why_not_in_operand([item], user) is not None
        ):
            return False
    return True


# ---- what it would be like -----------------------------------------------------------------------
class _Tracer:
    """Walks from values back to what is, or will be, in memory."""

    def __init__(
        self, grouping: Grouping, group: Group, dropped: Iterable[Item], expensive: bool
    ) -> None:
        self.grouping, self.group, self.expensive = grouping, group, expensive
        self.inside = set(group.items)
        self.dropped = {i.value for i in dropped}
        self.stored = {i.value for i in grouping.results(group)} - self.dropped
        #: the frontier that must be stored anew, and whether no such plan works
        self.kept: set[Value] = set()
        self.is_hopeless = False

    def is_memory(self, value: Value) -> bool:
        """Whether a reader finds the value in memory."""
        item = self.grouping.items.get(value)
        if item is None or value in self.kept or value in self.stored:
            return True
        return item not in self.inside and value not in self.group.copied

    def is_barrier(self, item: Item) -> bool:
        return (
            item.combiner is not None
            or (item.expensive and not self.expensive)
            or (item in self.inside and not item.is_smooth)
        )

    def trace(self, values: Iterable[Value]) -> tuple[set[Value], set[Value]]:
        """(values to compute, values to read) for these; barriers are added to ``kept``."""
        computed: set[Value] = set()
        read: set[Value] = set()
        stack = list(values)
        while stack:
            value = stack.pop()
            if value in computed or value in read:
                continue
            if self.is_memory(value):
                read.add(value)
                continue
            item = self.grouping.items[value]
            if self.is_barrier(item):
                if item not in self.inside:  # an earlier group has given up storing it
                    self.is_hopeless = True
                    break
                self.kept.add(value)
                read.add(value)
                continue
            computed.add(value)
            if len(computed) > 2 * MAX_COPIED:
                self.is_hopeless = True
                break
            stack += [v for v, _ in item.reads]
        return computed, read

    def push_down(self, computed: set[Value], wanted: set[Value]) -> None:
        """Store what is computed from a frontier value alone rather than that value, unless some
        reader wants that value itself.
        """
        readers: dict[Value, list[Value]] = {}
        for value in computed:
            for source in dict.fromkeys(v for v, _ in self.grouping.items[value].reads):
                readers.setdefault(source, []).append(value)
        for value in sorted(self.kept - wanted, key=lambda v: self.grouping.items[v].number):
            current = value
            while current not in wanted and len(readers.get(current, ())) == 1:
                (following,) = readers[current]
                if size_bytes(following) > size_bytes(current):
                    break
                current = following
            if current is not value:
                self.kept.discard(value)
                self.kept.add(current)


def _planned(
    grouping: Grouping, group: Group, candidates: list[Item], expensive: bool
) -> _Plan:
    tracer = _Tracer(grouping, group, candidates, expensive)
    wanted = [i.value for i in candidates]
    computed, _ = tracer.trace(wanted)
    if tracer.is_hopeless:
        return _Plan([])
    tracer.push_down(computed, set(wanted))
    frontier = set(tracer.kept)
    plan = _Plan([v for v in wanted if v not in tracer.kept])
    if not plan.dropped:
        return plan
    gone = set(plan.dropped)
    plan.saved = sum(map(size_bytes, plan.dropped)) - sum(
        size_bytes(v) for v in tracer.kept if v not in wanted
    )
    readers: dict[Group, set[Value]] = {}
    for value in plan.dropped:
        for user in grouping.users.get(value, ()):
            if user.group is not group and user.group is not None:
                readers.setdefault(user.group, set()).add(value)
    for reader, values in readers.items():
        copies, reads = tracer.trace(values)
        plan.needs[reader] = copies, reads
        had = {v for i in reader.items for v, _ in i.reads} - gone
        had |= {v for c in reader.copied for v, _ in grouping.items[c].reads}
        plan.saved += sum(size_bytes(v) for v in values)
        plan.saved -= sum(size_bytes(v) for v in reads - had if not _shared(grouping, v, reader))
        plan.saved -= sum(_work(grouping.items[v]) for v in copies)
        if len(copies) + len(reader.copied) > MAX_COPIED or tracer.kept != frontier:
            return _Plan([])
        if tracer.is_hopeless or not _operands_stay_cheap(grouping, tracer, reader, values):
            return _Plan([])
    return plan


def _operands_stay_cheap(
    grouping: Grouping, tracer: _Tracer, reader: Group, values: set[Value]
) -> bool:
    """Whether a contraction would only rename indices: it reads its operands many times."""
    operands = {
        v for v in values
        if any(u.combiner == "dot" and u.group is reader for u in grouping.users[v])
    }  # fmt: skip
    computed, _ = tracer.trace(operands)
    return all(grouping.items[v].is_renaming for v in computed)


def _shared(grouping: Grouping, value: Value, reader: Group) -> bool:
    """Whether a reduction that ``siblings`` will join with this one reads the value anyway."""
    if reader.kind != "reduce":
        return False
    key = domain_key(reader)
    return key is not None and any(
        user.group is not None
        and user.group is not reader
        and user.group.kind == "reduce"
        and domain_key(user.group) == key
        for user in grouping.users.get(value, ())
    )


def _work(item: Item) -> int:
    return round(elements(item.shape) * bytes_per_element(item))


# ---- making it so --------------------------------------------------------------------------------
def _apply(grouping: Grouping, group: Group, plan: _Plan) -> list[Decision]:
    done: list[Decision] = []
    unwritten = set(plan.dropped)
    users = grouping.users
    for reader, (copies, reads) in plan.needs.items():
        first = next(u for v in plan.dropped for u in users[v] if u.group is reader)
        reader.copied |= copies
        for value in plan.dropped:
            if value in copies:
                moved = size_bytes(value) * (1 + (value in unwritten))
                unwritten.discard(value)
                item = grouping.items[value]
                again = elements(item.shape) * item.work
                why = "computed again, not stored"
                done.append(Decision(value, first.value, True, why, moved, again))
        for value in sorted(reads, key=lambda v: _number(grouping, v)):
            users.setdefault(value, []).append(first)
            made = grouping.items.get(value)
            if made is not None and made.group is not None:
                order.link(made.group, reader)
    for value in plan.dropped:
        users[value] = [u for u in users.get(value, ()) if u.group is group]
    for reader in plan.needs:
        if not _still_reads(grouping, reader, group):
            group.readers.discard(reader)
            reader.sources.discard(group)
    _drop_unneeded(grouping, group)
    return done


def _number(grouping: Grouping, value: Value) -> int:
    item = grouping.items.get(value)
    return -1 if item is None else item.number


def _still_reads(grouping: Grouping, reader: Group, group: Group) -> bool:
    members = set(reader.items)
    return any(
        user in members for item in group.items for user in grouping.users.get(item.value, ())
    )


def _drop_unneeded(grouping: Grouping, group: Group) -> None:
    """Takes out items that no result of the group needs any more."""
    own = {i.value: i for i in group.items}
    needed: set[Item] = set()
    stack = list(grouping.results(group))
    while stack:
        item = stack.pop()
        if item not in needed:
            needed.add(item)
            stack += [own[v] for v, _ in item.reads if v in own]
    dead = [i for i in group.items if i not in needed]
    if not dead:
        return
    group.items = [i for i in group.items if i in needed]
    group.inlined -= {i.value for i in dead}
    for item in dead:
        group.turned.pop(item.value, None)
    for item in dead:
        for value in dict.fromkeys(v for v, _ in item.reads):
            users = grouping.users.get(value, [])
            if item in users:
                users.remove(item)
    if not group.items:
        for source in group.sources:
            source.readers.discard(group)
        for reader in group.readers:
            reader.sources.discard(group)
