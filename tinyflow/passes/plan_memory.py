"""Where every value of a step lives: one arena, planned before anything runs.

Main types: ``Place``, ``MemoryPlan``, ``plan_memory``. May import core and ir.

A value lives in a *root*: a feed, variable, constant, fetched result, or a range of the arena.
Views share the root of their input. A result takes over the memory of an input that dies in the
same kernel where the kernel allows it (``in_place`` pairs): a variable's new value its old one's,
another value its input's range. Kernels run in the order given, so every lifetime is known, and
``pack_intervals`` lays the ranges into the arena.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tinyflow.core.shape import evaluate
from tinyflow.ir.graph.nodes import Value
from tinyflow.passes.pack_intervals import Range, pack

ALIGNMENT = 64


class Place(NamedTuple):
    """kind: "feed", "variable", "counter", "initialized", "constant", "fetch", "arena", "reserved"
    or "row" (of an array, another one in every iteration; see compile.rows).

    key: what identifies the root within its kind; for "arena" the byte offset.
    """

    kind: str
    key: Any


@dataclass(eq=False)
class Use:
    """One kernel (or host call) as the plan sees it.

    reads, writes: values and scratch areas (objects with ``size_bytes``).
    in_place: (input, result) pairs that may share memory.
    may_stop: whether the step may stop here and run again, with its variables as they were.
    """

    reads: tuple[Any, ...]
    writes: tuple[Any, ...]
    in_place: tuple[tuple[Any, Any], ...] = ()
    may_stop: bool = False


@dataclass(eq=False)
class Between:
    """Scratch memory of a copy that must not overwrite what another copy still reads."""

    size_bytes: int


class Copy(NamedTuple):
    """A copy after the last kernel: value -> place (or scratch)."""

    source: Any
    target: Any
    size_bytes: int


@dataclass
class MemoryPlan:
    """places: value or scratch -> Place.   arena_bytes: size of the arena.   live_bytes: the most
    that lives at one time, the least that any plan of this order needs.
    copies: results that had to be computed elsewhere.   reused: results that took over an input.
    """

    places: dict[Any, Place] = field(default_factory=dict)
    arena_bytes: int = 0
    live_bytes: int = 0
    copies: list[Copy] = field(default_factory=list)
    reused: list[tuple[Any, Any]] = field(default_factory=list)


def _rounded(size: int) -> int:
    return max(ALIGNMENT, -(-size // ALIGNMENT) * ALIGNMENT)


def plan_memory(
    uses: Sequence[Use],
    fixed: dict[Any, Place],
    views: dict[Any, Any],
    fetches: Sequence[tuple[Hashable, Any]],
    updates: Sequence[tuple[Hashable, Any]],
    reuse: bool = True,
    sizes: Mapping[str, int] | None = None,
) -> MemoryPlan:
    """Places for everything the uses touch.

    fixed: values with a place of their own (feeds, variables' old values, constants).
    views: value -> the value whose memory it shows.
    fetches, updates: (key, value) pairs that must end up in a result array or a variable.
    reuse=False gives every value its own range (for debugging and for tests of in-place).
    sizes: the run's extents, where types have symbols for them.
    """
    return _Planner(uses, fixed, views, fetches, updates, reuse, sizes or {}).run()


class _Planner:
    def __init__(
        self,
        uses: Sequence[Use],
        fixed: dict[Any, Place],
        views: dict[Any, Any],
        fetches: Sequence[tuple[Hashable, Any]],
        updates: Sequence[tuple[Hashable, Any]],
        reuse: bool,
        sizes: Mapping[str, int],
    ) -> None:
        self.sizes = sizes
        self.uses, self.fixed, self.views = uses, fixed, views
        self.fetches, self.updates, self.reuse = fetches, updates, reuse
        self.plan = MemoryPlan(dict(fixed))
        self.last: dict[Any, int] = {}
        self.born: dict[Any, int] = {}
        for n, use in enumerate(uses):
            for value in use.reads:
                self.last[self.root(value)] = n
            for value in use.writes:
                self.born.setdefault(self.root(value), n)
                self.last[self.root(value)] = max(n, self.last.get(self.root(value), n))
        for _, value in (*fetches, *updates):
            if self.root(value) in fixed:  # copied after the last kernel
                self.last[self.root(value)] = len(uses)

    def bytes(self, value: Any) -> int:
        if not isinstance(value, Value):
            return value.size_bytes  # type: ignore[no-any-return]
        size = value.type.size_bytes
        if not isinstance(size, int):
            size = evaluate(size, self.sizes)
        return size  # type: ignore[no-any-return]

    def root(self, value: Any) -> Any:
        while value in self.views:
            value = self.views[value]
        return value

    def run(self) -> MemoryPlan:
        self.place_updates()
        self.place_fetches()
        self.place_arena()
        return self.plan

    def place_updates(self) -> None:
        """A variable's new value goes straight into its memory when nobody reads the old one
        later, or in the very kernel that writes it unless that kernel may work in place, and
        when the step cannot stop any more."""
        stop = max((n for n, use in enumerate(self.uses) if use.may_stop), default=-1)
        old_of = {p.key: v for v, p in self.fixed.items() if p.kind == "variable"}
        for key, value in self.updates:
            target, root = Place("variable", key), self.root(value)
            n = self.born.get(root)
            old = old_of.get(key)
            direct = n is not None and n > stop and root not in self.plan.places
            if direct and old is not None:
                last_read = self.last.get(old, -1)
                in_place = (old, root) in self.uses[n].in_place  # type: ignore[index]
                direct = last_read < n or (last_read == n and in_place and self.reuse)  # type: ignore[operator]
            if direct:
                self.plan.places[root] = target
                if old is not None:
                    self.plan.reused.append((old, root))
            elif self.plan.places.get(root) != target:
                self.plan.copies.append(Copy(value, target, self.bytes(value)))

    def place_fetches(self) -> None:
        for key, value in self.fetches:
            target, root = Place("fetch", key), self.root(value)
            own = root in self.born and root not in self.plan.places
            if own and self.bytes(root) == self.bytes(value):
                self.plan.places[root] = target
            else:
                self.plan.copies.append(Copy(value, target, self.bytes(value)))
        # Copies run after all kernels, and those into variables after those out of them: a fetch
        # of the old value must not see the new one, and a, b = b, a needs a place between.
        before, after = [], []
        for copy in self.plan.copies:
            source = self.plan.places.get(self.root(copy.source))
            if copy.target.kind == "fetch":
                before.append(copy)
            elif source is not None and source.kind == "variable":
                between = Between(copy.size_bytes)
                before.append(Copy(copy.source, between, copy.size_bytes))
                after.append(Copy(between, copy.target, copy.size_bytes))
                self.last[between] = len(self.uses)
            else:
                after.append(copy)
        self.plan.copies = before + after
        for copy in self.plan.copies:
            self.last[self.root(copy.source)] = len(self.uses)

    def place_arena(self) -> None:
        """Ranges of the arena: first what shares one, then where each lies."""
        chains: list[list[Any]] = []
        chain_of: dict[Any, int] = {}
        known: set[Any] = set()
        for n, use in enumerate(self.uses):
            for value in use.writes:
                root = self.root(value)
                if root in self.plan.places or root in known:
                    continue
                known.add(root)
                source = self.inherit(n, use, root, chain_of)
                if source is None:
                    chain_of[root] = len(chains)
                    chains.append([root])
                else:
                    chain_of[root] = chain_of.pop(source)
                    chains[chain_of[root]].append(root)
                    self.plan.reused.append((source, root))
        for root, n in self.last.items():  # scratch of the copies at the end
            if n == len(self.uses) and root not in self.plan.places and root not in known:
                self.born[root] = n
                chains.append([root])
        self.lay_out(chains)

    def lay_out(self, chains: list[list[Any]]) -> None:
        """Offsets for chains of values that take over each other's memory."""
        forever = not self.reuse
        ranges = [
            Range(
                _rounded(self.bytes(chain[0])),
                0 if forever else self.born[chain[0]],
                len(self.uses) if forever else max(self.last[root] for root in chain),
            )
            for chain in chains
        ]
        packing = pack(ranges)
        for chain, offset in zip(chains, packing.offsets, strict=True):
            for root in chain:
                self.plan.places[root] = Place("arena", offset)
        self.plan.arena_bytes, self.plan.live_bytes = packing.total_bytes, packing.live_bytes

    def inherit(self, n: int, use: Use, root: Any, chain_of: dict[Any, int]) -> Any:
        """An input in the arena that dies here and whose memory the result may take over.

        ``chain_of`` has only the newest value of every chain: what was taken over is gone.
        """
        if not self.reuse:
            return None
        for old, new in use.in_place:
            source = self.root(old)
            if (
                new is root
                and source in chain_of
                and self.last.get(source) == n
                and self.born[source] < n
                and _rounded(self.bytes(source)) == _rounded(self.bytes(root))
            ):
                return source
        return None
