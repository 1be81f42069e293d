"""Kernels for extents that are arguments: one schedule, or a few to choose from by size.

Main types: ``Alternatives``; ``lower_symbolic``. May import core, ir, passes.fusion and schedule.

A size decides two things that a kernel cannot leave open: the canonical order of a reduction
(te/canonical.py: one chain or stripes, chunks or none) and what is worth its cost (keeping a row,
packing a factor). So a group has kernels for ranges of one count, and each run takes those that its
sizes fall into; a kernel is compiled when it is first taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from tinyflow.core.shape import symbols_of
from tinyflow.ir.graph.nodes import Value
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.passes.fusion import Group, Grouping
from tinyflow.schedule.attention import lower_symbolic_attention
from tinyflow.schedule.auto import lower_group, lower_loops
from tinyflow.schedule.contraction.symbolic import lower_symbolic_dot
from tinyflow.schedule.elementwise import lower_map
from tinyflow.schedule.grain import size
from tinyflow.schedule.lowering import GroupExpressions, LoweredKernel, Scratch, value_at
from tinyflow.schedule.multi_reduce import lower_reductions
from tinyflow.schedule.nontemporal import with_nontemporal_results
from tinyflow.schedule.prefetch import STREAM_ELEMENTS
from tinyflow.schedule.reductions import lower_reduce
from tinyflow.schedule.rows import ROW_BYTES, lower_rows
from tinyflow.schedule.targets import Target
from tinyflow.te.canonical import CHUNK, STRIPE

#: Elements of a row up to which its values are kept in memory of this length.
KEPT_ROW = 4096


Kernels = list[LoweredKernel]


class Alternatives:
    """The kernels of a group by size. choose: what the sizes select; make: the kernels for that.

    Made when a run first selects them; there are a few kinds at most, whatever the sizes.
    """

    def __init__(
        self, choose: Callable[[Mapping[str, int]], Any], make: Callable[[Any], Kernels]
    ) -> None:
        self.choose, self.make = choose, make
        self.made: dict[Any, Kernels] = {}

    def at(self, sizes: Mapping[str, int]) -> Kernels:
        """The kernels for these sizes."""
        kind = self.choose(sizes)
        kernels = self.made.get(kind)
        if kernels is None:
            kernels = self.made[kind] = self.make(kind)
        scratch: dict[Scratch, Scratch] = {}
        chosen = [k.at(sizes, scratch) for k in kernels]
        return [k for k in chosen if k.tasks]


def always(kernels: Kernels) -> Alternatives:
    return Alternatives(lambda sizes: None, lambda kind: kernels)


def by_count(
    count: Any, limits: tuple[int | None, ...], make: Callable[[Any], Kernels]
) -> Alternatives:
    """One kind per range of ``count``: up to each of the limits, None for the rest."""

    def choose(sizes: Mapping[str, int]) -> int | None:
        number = value_at(count, sizes)
        return next(most for most in limits if most is None or number <= most)

    return Alternatives(choose, make)


def is_symbolic(grouping: Grouping, group: Group, names: Iterable[str]) -> bool:
    """Whether anything the group reads, computes or folds depends on one of the extents."""
    sizes = {s.var(name) for name in names}
    items = [i for part in group.parts or (group,) for i in part.items]
    bodies = [i.tensor.body for i in items if i.tensor is not None and i.tensor.body is not None]
    if any(not sizes.isdisjoint(_free(body)) for body in bodies):
        return True
    shapes: list[Any] = [i.value.type.shape for i in items]
    shapes += [v.type.shape for i in items for v, _ in i.reads]
    shapes += [tuple(n for _, n in i.reduce_axes) for i in items if i.tensor is not None]
    shapes += [tuple(i.value.node.op.attributes.values()) for i in items]
    return bool(symbols_of(tuple(shapes)))


def _free(body: Expr) -> Iterable[Expr]:
    return scalar_visit.free_vars(*(body.args if body.op == "reduce" else (body,)))


def lower_symbolic(
    grouping: Grouping, group: Group, target: Target, sizes: Mapping[str, int]
) -> list[Alternatives]:
    """The group's kernels for all sizes; ``sizes``: those seen, for estimates.

    Errors: TypeError where a schedule needs a number.
    """
    if not is_symbolic(grouping, group, sizes):
        return [always(lower_group(grouping, group, target))]
    if group.parts and group.kind != "batch":
        raise TypeError(f"a kernel of kind {group.kind} needs sizes")
    if group.parts:
        fixed = tuple(p for p in group.parts if not is_symbolic(grouping, p, sizes))
        others = [p for p in group.parts if p not in fixed]
        found = [a for part in others for a in lower_symbolic(grouping, part, target, sizes)]
        if fixed:
            one = replace(group, parts=fixed) if len(fixed) > 1 else fixed[0]
            found.append(always(lower_group(grouping, one, target)))
        return found

    if group.kind == "attention":
        return [Alternatives(*lower_symbolic_attention(grouping, group, target, sizes))]

    found = _by_sizes(grouping, group, target, sizes)
    values = [*(v for i in group.items for v, _ in i.reads), *(i.value for i in group.live_items)]
    return [_past_caches(one, tuple(dict.fromkeys(values)), target) for one in found]


def _past_caches(plain: Alternatives, values: tuple[Value, ...], target: Target) -> Alternatives:
    """The same kernels, with a kind more of each for sizes that the caches cannot hold."""

    def choose(sizes: Mapping[str, int]) -> tuple[Any, bool]:
        touched = sum(value_at(v.type.size_bytes, sizes) for v in values)
        return plain.choose(sizes), touched >= target.l3_bytes

    def make(kind: tuple[Any, bool]) -> Kernels:
        kernels = plain.make(kind[0])
        return [with_nontemporal_results(one) for one in kernels] if kind[1] else kernels

    return Alternatives(choose, make)


def _by_sizes(
    grouping: Grouping, group: Group, target: Target, sizes: Mapping[str, int]
) -> list[Alternatives]:
    def fresh() -> GroupExpressions:
        return GroupExpressions(grouping, group, sizes)

    if group.kind == "map":
        limits: tuple[int | None, ...] = (STREAM_ELEMENTS - 1, None)
        return [
            by_count(
                size(group.domain), limits,
                lambda most: [lower_map(fresh(), target, False, far=most is None)],
            )
        ]  # fmt: skip
    if group.kind == "dot":
        return [Alternatives(*lower_symbolic_dot(fresh, target))]
    if group.kind == "row":
        columns = size(group.inner)
        if isinstance(columns, int):
            return [always([lower_rows(fresh(), target)])]
        return [
            by_count(
                columns, (KEPT_ROW, None),
                lambda most: [lower_rows(fresh(), target, most or ROW_BYTES + 1)],
            )
        ]  # fmt: skip
    if group.kind == "reduce":
        reductions = [i for i in group.live_items if i.combiner]
        lower = lower_reductions if len(reductions) > 1 else lower_reduce
        count = size(n for _, n in reductions[0].reduce_axes)
        limits = (None,) if isinstance(count, int) else (4 * STRIPE, CHUNK, None)
        return [by_count(count, limits, lambda most: lower(fresh(), target, most))]
    if group.kind == "loops":
        return [always([lower_loops(fresh())])]
    raise TypeError(f"a kernel of kind {group.kind} needs sizes")
