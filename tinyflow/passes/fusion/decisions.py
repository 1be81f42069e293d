"""What was fused and what stayed apart, with reasons and bytes: what ``explain`` prints.

Main types: ``Decision``; ``decisions_of``. May import ir and fusion's items and cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from tinyflow.ir.graph.nodes import Value
from tinyflow.passes.fusion.cost import elements, evaluations, size_bytes

if TYPE_CHECKING:
    from tinyflow.passes.fusion.groups import Group, Grouping


class Decision(NamedTuple):
    """Why ``producer`` and ``consumer`` share a kernel, or do not.

    reason: how they were joined, or what forbids it.   saved_bytes: memory traffic that is gone, or
    that a fusion would have saved.   extra_operations: executed again because of it.
    """

    producer: Value
    consumer: Value
    fused: bool
    reason: str
    saved_bytes: int = 0
    extra_operations: int = 0


def decisions_of(grouping: Grouping, noted: Iterable[Decision]) -> list[Decision]:
    """Every edge inside a kernel, then what was noted: refusals that were not overcome another way.

    A value that no other kernel reads is not written either; its first reader counts that.
    """
    results = {i.value for g in grouping.groups for i in grouping.results(g)}
    found: list[Decision] = []
    for group in grouping.groups:
        for part in group.parts or (group,):
            found += _inside(grouping, part, results)
    return found + [d for d in noted if d.fused or not _share(grouping, d)]


def _inside(grouping: Grouping, group: Group, results: set[Value]) -> Iterator[Decision]:
    unwritten = {i.value for i in group.items} - results
    for item in group.items:
        for value in dict.fromkeys(v for v, _ in item.reads):
            producer = grouping.items.get(value)
            if producer is None or producer.group is not group:
                continue
            moved = size_bytes(value) * (1 + (value in unwritten))
            unwritten.discard(value)
            if value in group.inlined:
                again = producer.work * max(0, evaluations(item) - elements(producer.shape))
                yield Decision(value, item.value, True, "computed where it is read", moved, again)
            else:
                yield Decision(value, item.value, True, "read where it is made", moved)


def _share(grouping: Grouping, decision: Decision) -> bool:
    """Whether a refused pair came together after all."""
    producer, consumer = (
        grouping.items.get(v) for v in (decision.producer, decision.consumer)
    )
    if producer is None or consumer is None or consumer.group is None:
        return False
    again = consumer.group.copied | consumer.group.hidden
    return producer.group is consumer.group or decision.producer in again
