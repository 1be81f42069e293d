"""Small updates of variables share one launch.

Main function: ``batch_updates``. May import fusion's groups, decisions and cost.

A kernel of a few thousand elements runs in the time that it takes to start one. Element-wise
groups that nothing in the step reads (new values of variables, their moments) never wait for each
other, so up to ``MAX_PARTS`` of them become the parts of one kernel, whose tasks are those of all
parts.
"""

from __future__ import annotations

from tinyflow.passes.fusion.cost import elements
from tinyflow.passes.fusion.decisions import Decision
from tinyflow.passes.fusion.groups import Group, Grouping

#: A larger part takes much longer than a launch; and what the parts read (gradients) has to wait in
#: memory for the last of them.
SMALL = 1 << 14
#: More parts would make one large function to compile.
MAX_PARTS = 16


def batch_updates(grouping: Grouping) -> list[Decision]:
    """Puts small element-wise groups without readers together; changes ``grouping.groups``."""
    small = [
        g for g in grouping.groups
        if g.kind == "map" and not g.readers and _is_small(g)
    ]  # fmt: skip
    if len(small) < 2:
        return []
    alike: dict[object, list[Group]] = {}
    for group in small:
        alike.setdefault(grouping.signature(group)[0], []).append(group)
    rest: list[Group] = []
    batches: list[Group] = []
    for groups in alike.values():
        # Full batches of equal parts are one kernel, however many layers there are.
        whole = len(groups) - len(groups) % MAX_PARTS
        batches += [_batch(groups[n : n + MAX_PARTS]) for n in range(0, whole, MAX_PARTS)]
        rest += groups[whole:]
    starts = range(0, len(rest) - 1, MAX_PARTS)  # one that is left over stays alone
    batches += [_batch(rest[n : n + MAX_PARTS]) for n in starts]
    replaced = {part for batch in batches for part in batch.parts}
    grouping.groups = [g for g in grouping.groups if g not in replaced] + batches
    return [
        Decision(b.parts[0].items[-1].value, p.items[-1].value, True, "one launch for both")
        for b in batches
        for p in b.parts[1:]
    ]


def _is_small(group: Group) -> bool:
    return (
        all(isinstance(n, int) for n in group.domain) and 0 < elements(group.domain) <= SMALL
    )


def _batch(parts: list[Group]) -> Group:
    return Group(
        "batch",
        max(p.index for p in parts),
        items=[item for part in parts for item in part.items],
        inlined=set().union(*[part.inlined for part in parts]),
        copied=set().union(*[part.copied for part in parts]),
        sources=set().union(*[part.sources for part in parts]),
        rank=max(p.rank for p in parts),
        parts=tuple(parts),
    )
