"""The identity of a group: what it computes, without names and lines.

Main function: ``signature_of``. May import ir.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinyflow.ir.graph.nodes import Value

if TYPE_CHECKING:
    from tinyflow.passes.fusion.groups import Group, Grouping


def signature_of(grouping: Grouping, group: Group) -> tuple[Any, list[Value], list[Value]]:
    """(key, values read, values made); see ``Grouping.signature``."""
    external: dict[Value, int] = {}
    made: list[Value] = []
    keys = []
    for part in group.parts or (group,):
        results = [i.value for i in grouping.results(part)]
        keys.append(_key(grouping, part, external, results))
        made += results
    return (group.kind, tuple(keys)), list(external), made


def _key(
    grouping: Grouping, group: Group, external: dict[Value, int], results: list[Value]
) -> Any:
    inside = {item.value: n for n, item in enumerate(group.items)}

    def reference(value: Value) -> Any:
        own = inside.get(value)
        if own is not None:
            return own
        item = grouping.items.get(value)
        if value in group.copied or (item is not None and item.free):
            return node_key(value)
        return ("in", external.setdefault(value, len(external)), value.type)

    def node_key(value: Value) -> Any:
        # Recurses through free and copied items only; those are shallow.
        node = value.node
        return node.op, value.index, value.type, tuple([reference(v) for v in node.inputs])

    return (
        group.kind,
        group.outer,
        group.inner,
        tuple([node_key(item.value) for item in group.items]),
        tuple([inside[v] for v in results]),
        tuple([n for n, item in enumerate(group.items) if item.value in group.inlined]),
        len(group.copied),
        tuple([(m.kind, tuple([inside[i.value] for i in m.items])) for m, _ in group.members]),
    )
