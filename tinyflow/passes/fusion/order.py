"""An order of the groups in which each comes after what it reads, kept while groups are joined.

Main functions: ``link``, ``reaches``, ``needs_through_another``, ``absorb_edges``. Imports nothing
but groups.

Every group has a ``rank``, above those of its sources. A new edge against the order moves only the
groups between its ends (Pearce and Kelly, "A dynamic topological sort algorithm for directed
acyclic graphs", 2006), and a question about reachability looks only at ranks between the two, so
that thousands of groups in a chain cost thousands of steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyflow.core.error import InternalError

if TYPE_CHECKING:
    from tinyflow.passes.fusion.groups import Group

#: Groups looked at before "it may depend on it" is the answer: fusion stays near linear.
SEARCH_LIMIT = 2000


def link(source: Group, group: Group) -> None:
    """``group`` reads what ``source`` makes."""
    if source is group or source in group.sources:
        return
    group.sources.add(source)
    source.readers.add(group)
    if source.rank > group.rank:
        _reorder(source, group)


def _reorder(source: Group, group: Group) -> None:
    """Move ``group`` and what depends on it behind ``source`` and what that depends on."""
    later = _collect(group, forward=True, low=group.rank, high=source.rank)
    if source in later:
        raise InternalError("fusion made kernels that wait for each other")
    earlier = _collect(source, forward=False, low=group.rank, high=source.rank)
    moved = sorted(earlier, key=_rank) + sorted(later, key=_rank)
    for one, rank in zip(moved, sorted(g.rank for g in moved), strict=True):
        one.rank = rank


def _rank(group: Group) -> int:
    return group.rank


def _collect(start: Group, forward: bool, low: int, high: int) -> set[Group]:
    found, stack = {start}, [start]
    while stack:
        group = stack.pop()
        for other in group.readers if forward else group.sources:
            if other not in found and low <= other.rank <= high:
                found.add(other)
                stack.append(other)
    return found


def reaches(group: Group, target: Group) -> bool:
    """Whether ``group`` needs ``target``, directly or through others (or the search is long)."""
    return _search(group.sources, target)


def needs_through_another(group: Group, other: Group) -> bool:
    """Whether ``group`` needs ``other`` through a third group."""
    return _search(group.sources - {other}, other)


def _search(start: set[Group], target: Group) -> bool:
    if target in start:
        return True
    stack = [g for g in start if g.rank > target.rank]
    seen = set(stack)
    while stack:
        if len(seen) > SEARCH_LIMIT:
            return True
        for source in stack.pop().sources:
            if source is target:
                return True
            if source.rank > target.rank and source not in seen:
                seen.add(source)
                stack.append(source)
    return False


def absorb_edges(other: Group, group: Group) -> None:
    """``group`` takes over the edges of ``other``, which is no longer a group of its own."""
    sources, readers = other.sources - {group}, other.readers - {group}
    for source in other.sources:
        source.readers.discard(other)
    for reader in other.readers:
        reader.sources.discard(other)
    other.sources, other.readers = set(), set()
    for source in sorted(sources, key=_rank):
        link(source, group)
    for reader in sorted(readers, key=_rank):
        link(group, reader)
