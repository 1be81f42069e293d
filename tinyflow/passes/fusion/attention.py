"""Attention: contractions joined through rows that never leave the cache.

Main functions: ``fuse_attention``, ``reading_of``, ``are_few``. May import core, te and fusion's
items, groups, order and decisions.

``p = softmax(q @ k^T * scale + mask); out = p @ v`` goes through several tensors of rows x columns
("squares": queries x keys). Found by structure, not by the names of ops: contractions that make
squares, row and map groups over the same domain, and contractions that read a square::

    rows    out[.., row, c] = sum over columns of square[.., row, column] * b      (p @ v, ds @ k)
    terms   out[.., column, c] = sum over rows of square[.., row, column] * b      (dk, dv),
            or out[.., c, column]

If no square is read by anything else, one kernel does all of it for a few rows at a time and memory
grows with the length of a row, not with its square. A gradient reads the squares of the forward
pass, which is over by then: its kernel computes them once more (same expressions, same bits), or
finds them in memory where they are few. If only a run tells, a group has both forms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinyflow.core.shape import evaluate
from tinyflow.ir.graph.nodes import Value
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.passes.fusion import order
from tinyflow.passes.fusion.cost import elements, evaluations, size_bytes
from tinyflow.passes.fusion.decisions import Decision
from tinyflow.passes.fusion.groups import Group, Grouping, Member
from tinyflow.passes.fusion.items import Extents, Item, stretched
from tinyflow.te.canonical import LONG, NARROW, is_striped_dot

#: Memory for a task's rows of squares on its stack (where tasks are few, they may have more).
BLOCK_BYTES = 224 << 10
#: Fewer rows at a time than this are not worth a kernel of their own.
LEAST_ROWS = 2
#: A square of fewer bytes stays in the second-level cache between two kernels.
WORTH_BYTES = 1 << 19
#: From here on a gradient computes squares again that would wait in memory since the forward pass.
AGAIN_BYTES = 4 << 20
#: Rows are longer by this factor than the vectors whose products they are, or there is little to
#: gain: a layer of a network is a product of rows, too.
STRETCH = 2
#: Kernels that may compute a square: the forward pass and its gradient.
MOST_TIMES = 2


def reading_of(item: Item, value: Value) -> str:
    """How a contraction reads a square: "rows", "terms" (see above) or "" for any other way."""
    reads = [indices for v, indices in item.reads if v is value]
    if item.combiner != "dot" or len(reads) != 1 or len(item.reduce_axes) != 1:
        return ""
    own, axes = stretched(reads[0], value.type.shape or ()), item.own_axes
    term = item.reduce_axes[0][0]
    shared = len(axes) - 2
    if shared < 0 or len(own) != len(axes) or own[:shared] != axes[:shared]:
        return ""
    if own[-1] is term and own[-2] is axes[-2]:
        return "rows"
    if own[-2] is term and own[-1] in axes[-2:]:
        return "terms"
    return ""


def _depth_of(item: Item, square: Value) -> Any:
    """How long the vectors are that a contraction makes of a square."""
    own = next(stretched(i, square.type.shape or ()) for v, i in item.reads if v is square)
    return item.extents[-2 if own[-1] is item.own_axes[-1] else -1]


@dataclass(eq=False)
class _Cluster:
    """Contractions that read squares, and what makes these squares: one kernel.

    needed: all makers that the readers depend on.   makers: those that run in this kernel.
    """

    readers: list[Group]
    needed: set[Group]
    makers: set[Group]

    @property
    def members(self) -> set[Group]:
        return self.makers | set(self.readers)


@dataclass(eq=False)
class _Squares:
    """All groups that are connected through squares of one domain.

    makers: groups over the domain.   readers: contractions that read a square -> the value.
    """

    grouping: Grouping
    domain: Extents
    makers: set[Group] = field(default_factory=set)
    readers: dict[Group, Value] = field(default_factory=dict)

    @property
    def in_order(self) -> list[Group]:
        """The makers."""
        return sorted(self.makers, key=lambda g: g.rank)

    @property
    def squares(self) -> tuple[Value, ...]:
        """Those that contractions read."""
        return tuple(dict.fromkeys(self.readers.values()))

    def is_maker(self, group: Group) -> bool:
        if group.kind == "row":
            return (group.outer, group.inner) == (self.domain[:-1], self.domain[-1:])
        return group.kind in ("dot", "map") and group.outer == self.domain and not group.turned

    def collect(self, seed: Group) -> str | None:
        """Fills makers and readers; why there is no attention here, or None."""
        self.makers.add(seed)
        stack, reason = [seed], None
        while stack:
            group = stack.pop()
            found = self.makers_read(group)
            for item in group.items:
                if item.extents == self.domain and item.value not in group.inlined:
                    reason = self.visit_readers(item, found) or reason
            stack += [g for g in found if g not in self.makers]
            self.makers.update(found)
        return reason or self.why_not()

    def makers_read(self, group: Group) -> dict[Group, None]:
        """Groups whose squares the group reads."""
        found: dict[Group, None] = {}
        for item in group.items:
            for value, _ in item.reads:
                made = self.grouping.items.get(value)
                if made is None or made.group is None or made.extents != self.domain:
                    continue
                if self.is_maker(made.group) and made.group not in self.readers:
                    found[made.group] = None
        return found

    def visit_readers(self, item: Item, found: dict[Group, None]) -> str | None:
        """Sorts the readers of a square into ``found`` and ``readers``."""
        fetched = item.value in self.grouping.outputs
        reason = "all of the rows are fetched" if fetched else None
        for user in self.grouping.users.get(item.value, ()):
            reader = user.group
            if reader is None or reader is item.group:
                continue
            if user.combiner == "dot" and reader.kind == "dot" and reader.reduction is user:
                if not reading_of(user, item.value):
                    reason = "a contraction reads its rows in another way"
                elif self.readers.setdefault(reader, item.value) is not item.value:
                    reason = "a contraction reads rows twice"
            elif self.is_maker(reader):
                found[reader] = None
            else:
                reason = f"a {reader.kind} kernel reads its rows, too"
        return reason

    def why_not(self) -> str | None:
        if not self.readers or not any(g.kind == "dot" for g in self.makers):
            return "no contraction on both sides"
        if not self.makers.isdisjoint(self.readers):
            return "a contraction makes rows of the length that it reads"
        for group in self.in_order:
            reason = self.why_no_maker(group)
            if reason is not None:
                return reason
        for group, value in self.readers.items():
            reason = self.why_no_reader(group, value)
            if reason is not None:
                return reason
        return None

    def is_inside(self, value: Value) -> bool:
        item = self.grouping.items.get(value)
        return item is not None and item.group in self.makers

    def why_no_maker(self, group: Group) -> str | None:
        for item in group.items:
            for value, indices in item.reads:
                made = self.grouping.items.get(value)
                if made is None or made.group is group or made.group not in self.makers:
                    continue
                own = stretched(indices, made.shape)
                rank = len(self.domain) - (made.extents != self.domain)
                axes = item.all_axes[:rank]
                if own != axes or item.value in group.inlined or item.combiner == "dot":
                    return "it reads elements of the rows at other positions"
        if group.kind != "dot":
            return None
        depth = 1
        for _, n in group.reduction.reduce_axes if group.reduction else ():
            depth *= n
        return _why_no_product(group) or self.why_too_deep(depth)

    def why_no_reader(self, group: Group, value: Value) -> str | None:
        item = group.reduction
        assert item is not None
        if sum(self.is_inside(v) for i in group.items for v, _ in i.reads) > 1:
            return "a contraction reads rows twice"
        shared = self.domain[:-2]
        if reading_of(item, value) == "terms" and elements(shared) < 2:
            return "sums over all rows leave nothing for threads to share"
        return _why_no_order(item) or self.why_too_deep(_depth_of(item, value))

    def why_too_deep(self, depth: Any) -> str | None:
        """The vectors are short, the rows long; of an unknown length that is presumed."""
        if not isinstance(depth, int):
            return "the length of its vectors is known only at run time"
        columns = self.domain[-1]
        if isinstance(columns, int) and depth * STRETCH > columns:
            return "its rows are not much longer than the vectors that make them"
        return None

    def closure(self, group: Group) -> set[Group]:
        """The makers that a reader needs."""
        found: set[Group] = set()
        stack = [group]
        while stack:
            for item in stack.pop().items:
                for value, _ in item.reads:
                    made = self.grouping.items.get(value)
                    if made is not None and made.group in self.makers and made.group not in found:
                        found.add(made.group)
                        stack.append(made.group)
        return found

    # ---- which of them share a kernel --------------------------------------------------------
    def clusters(self, kept: bool) -> list[_Cluster] | str:
        """Readers that can run at once, earliest first, or why there is no legal order.

        kept: whether squares of the forward pass wait in memory for the gradient.
        """
        found: list[_Cluster] = []
        for reader in sorted(self.readers, key=lambda g: g.rank):
            needed = self.closure(reader)
            for n, one in enumerate(found):
                taken = _taken(found[:n]) if kept else set()
                joined = _Cluster(
                    [*one.readers, reader], one.needed | needed, (one.needed | needed) - taken
                )
                if one.needed & needed and not _waits(joined, joined):
                    found[n] = joined
                    break
            else:
                taken = _taken(found) if kept else set()
                found.append(_Cluster([reader], needed, needed - taken))
        if set().union(*[c.makers for c in found]) != self.makers:
            return "something else reads its rows"
        found = [c for c in found if c.makers]
        if any(sum(g in c.makers for c in found) > MOST_TIMES for g in self.makers):
            return "too many kernels would compute its rows again"
        if any(_waits(c, c) for c in found):
            return "it would wait for a kernel that waits for this one"
        for n, cluster in enumerate(found):
            if any(_waits(cluster, later) for later in found[n + 1 :]):
                return "its parts wait for each other"
        return found

    def hidden(self, clusters: Sequence[_Cluster]) -> set[Value]:
        """Values of makers that every kernel which reads them computes itself."""
        return {
            item.value
            for maker in self.makers
            for item in self.grouping.results(maker)
            if item.value not in self.grouping.outputs
            and all(
                any(u.group in c.members for c in clusters)
                and all(maker in c.makers for c in clusters if u.group in c.members)
                for u in self.grouping.users[item.value]
            )
        }

    def results(self, cluster: _Cluster, squares: bool) -> list[Item]:
        """What the makers of a cluster hand to other groups: squares, or values per row."""
        return [
            item
            for group in self.in_order
            if group in cluster.makers
            for item in self.grouping.results(group)
            if (item.extents == self.domain) is squares
        ]


def _why_no_product(group: Group) -> str | None:
    """Why a contraction is not rows times columns; None if it is."""
    item = group.reduction
    assert item is not None and item.form.tensor is not None
    assert item.form.tensor.body is not None
    if len(item.reduce_axes) != 1:
        return "it sums over several axes"
    row, column = item.own_axes[-2:]
    free = [scalar_visit.free_vars(e) for e in item.form.tensor.body.args]
    if not any(row in a and column not in a and column in b and row not in b
               for a, b in (free, free[::-1])):  # fmt: skip
        return "its operands are not rows and columns"
    return _why_no_order(item)


def _why_no_order(item: Item) -> str | None:
    """Why its canonical order is not one chain per element; None if it is."""
    assert item.form.tensor is not None and item.form.tensor.reduction is not None
    if item.value.dtype.name not in ("float32", "float64"):
        return f"not for {item.value.dtype.name}"
    last, terms = item.shape[-1], item.reduce_axes[0][1]
    if not isinstance(last, int):
        last = NARROW + 1  # if it is narrow after all, the kernel refuses
    if not isinstance(terms, int):
        terms = LONG
    if is_striped_dot(last, terms, len(item.form.tensor.reduction.axes)):
        return "a narrow contraction is summed in stripes"
    return None


def _taken(earlier: Sequence[_Cluster]) -> set[Group]:
    """Makers whose results an earlier kernel leaves in memory."""
    return set().union(*[c.makers for c in earlier])


def _sources(members: set[Group]) -> set[Group]:
    return {s for g in members for s in g.sources} - members


def _waits(cluster: _Cluster, other: _Cluster) -> bool:
    """Whether something that ``cluster`` reads needs a result of ``other``."""
    if any(s in other.readers for g in cluster.members for s in g.sources):
        return True
    return any(
        order.reaches(source, r) for source in _sources(cluster.members) for r in other.readers
    )


# ---- all of it -----------------------------------------------------------------------------------
def fuse_attention(grouping: Grouping) -> list[Decision]:
    """Replaces the groups of every attention by groups of kind "attention"; says what was done."""
    decisions: list[Decision] = []
    seen: set[Group] = set()
    for seed in sorted(grouping.groups, key=lambda g: g.rank):
        if seed.kind != "row" or seed in seen or len(seed.inner) != 1 or not seed.outer:
            continue
        found = _Squares(grouping, seed.domain)
        reason = found.collect(seed)
        seen |= found.makers
        if not found.readers or not any(g.kind == "dot" for g in found.makers):
            continue  # nothing like attention: not worth a word
        reader, value = next(iter(found.readers.items()))
        item = reader.reduction
        assert item is not None
        known = all(isinstance(n, int) for n in seed.domain)
        reason = reason or _why_too_small(found, value)
        clusters = reason or _legal(found, known and are_few(found.squares, {}))
        if isinstance(clusters, str):
            decisions.append(Decision(value, item.value, False, clusters, 2 * size_bytes(value)))
        else:
            decisions += _apply(found, clusters, [] if known else _kept_forms(found, clusters))
    return decisions


def are_few(squares: Sequence[Value], sizes: Mapping[str, int]) -> bool:
    """Whether the squares may wait in memory for the gradient.

    sizes: of the extents that are arguments of the kernels.
    """
    found = [evaluate(v.type.size_bytes, sizes) for v in squares]
    return all(n is not None and n < AGAIN_BYTES for n in found)


def _legal(found: _Squares, kept: bool) -> list[_Cluster] | str:
    """The clusters, or why there is none."""
    clusters = found.clusters(kept)
    if not isinstance(clusters, str):
        clusters = _why_too_long(found, clusters) or clusters
    return clusters


def _kept_forms(found: _Squares, clusters: Sequence[_Cluster]) -> list[Group]:
    """What the clusters' groups are for sizes whose squares are few; none if that is the same."""
    kept = _legal(found, True)
    if isinstance(kept, str) or [c.readers for c in kept] != [c.readers for c in clusters]:
        return []
    if [c.makers for c in kept] == [c.makers for c in clusters]:
        return []
    hidden = found.hidden(kept)
    return [_joined(found, cluster, hidden) for cluster in kept]


def _why_too_small(found: _Squares, value: Value) -> str | None:
    is_open = not all(isinstance(n, int) for n in found.domain[-2:])  # the rows may be many
    if size_bytes(value) < WORTH_BYTES and not is_open:
        return "its rows stay in the cache between two kernels"
    return None


def _why_too_long(found: _Squares, clusters: Sequence[_Cluster]) -> str | None:
    users, outputs = found.grouping.users, found.grouping.outputs
    for cluster in clusters:
        columns = found.domain[-1] if isinstance(found.domain[-1], int) else 0
        row_bytes = sum(columns * i.value.dtype.size_bytes
                        for i in found.results(cluster, squares=True))  # fmt: skip
        items = [(g.reduction, found.readers[g]) for g in cluster.readers]
        over_rows = any(i is not None and reading_of(i, v) == "terms" for i, v in items)
        if row_bytes * LEAST_ROWS > BLOCK_BYTES and not over_rows:
            return "a row does not fit the cache"
        for item in found.results(cluster, squares=False):
            readers = {u.group for u in users.get(item.value, ())} - {item.group}
            outside = readers - found.makers
            if readers & cluster.members and (outside or item.value in outputs):
                return "a value per row is needed inside and outside"
    return None


def _apply(
    found: _Squares, clusters: Sequence[_Cluster], forms: Sequence[Group]
) -> list[Decision]:
    """Makes one group per cluster. A maker that several need belongs to the first of them.

    forms: of the groups, for sizes whose squares are few.
    """
    grouping = found.grouping
    decisions = []
    sources_of = [_sources(c.members) for c in clusters]
    readers = {g: set(g.readers) for c in clusters for g in c.members}
    hidden = found.hidden(clusters)
    owner: dict[Group, Group] = {}
    made: list[Group] = []
    for cluster in clusters:
        made.append(_joined(found, cluster, hidden))
        decisions += _decisions_of(found, cluster, owner)
        for member, _ in made[-1].members:
            owner.setdefault(member, made[-1])
    for member in owner:
        for source in member.sources:
            source.readers.discard(member)
        for one in member.readers:
            one.sources.discard(member)
    for member, group in owner.items():
        for item in member.items:
            item.group = group
    for group, sources in zip(made, sources_of, strict=True):
        for source in sorted(sources, key=lambda g: g.rank):
            order.link(owner.get(source, source), group)
    for member, group in owner.items():
        for one in sorted(readers[member], key=lambda g: g.rank):
            if one not in owner:
                order.link(group, one)
    for group, form in zip(made, forms or (), strict=bool(forms)):
        group.kept, group.squares, form.form_of = form, found.squares, group
        for earlier in made[: made.index(group)]:
            order.link(earlier, group)
    grouping.groups = [g for g in grouping.groups if g not in owner] + made
    return decisions


def _joined(found: _Squares, cluster: _Cluster, hidden: set[Value]) -> Group:
    members = sorted(cluster.members, key=lambda g: g.rank)
    return Group(
        "attention",
        members[-1].index,
        found.domain[:-1],
        found.domain[-1:],
        items=sorted((i for g in members for i in g.items), key=lambda i: i.number),
        inlined=set().union(*[g.inlined for g in members]),
        members=tuple(Member(g, found.readers.get(g)) for g in members),
        hidden=hidden,
        rank=max(g.rank for g in cluster.readers),
    )


def _decisions_of(
    found: _Squares, cluster: _Cluster, earlier: dict[Group, Group]
) -> list[Decision]:
    """One per square: the bytes that stay inside, the operations that run again."""
    repeated = [i for g in cluster.makers if g in earlier for i in g.items]
    again = sum(evaluations(i) * max(1, i.work) for i in repeated)
    decisions = []
    for square in found.results(cluster, squares=True):
        for user in found.grouping.users.get(square.value, ()):
            if user.group in cluster.members and user.group is not square.group:
                how = "a few rows at a time, never all of them in memory"
                saved = 2 * size_bytes(square.value)
                decisions.append(Decision(square.value, user.value, True, how, saved, again))
                again = 0
    return decisions
