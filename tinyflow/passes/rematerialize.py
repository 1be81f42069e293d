"""Computing again instead of keeping: by function (``tf.recompute_grad``) and by a byte budget.

Main functions: ``rematerialize`` (the pass), ``fit``. May import core, ir and passes.

What a budget may cost, in this order: first values that element-wise work, reductions and pools
make from other values in memory (the largest first, no more than needed); then whole segments of
the forward part, contractions included, each computed again from the values at its start. The more
segments, the less memory, until the values at their starts outweigh what they save (Chen et al.,
Training deep nets with sublinear memory cost, 2016). Every candidate is measured by the lifetimes
that the plan will see.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tinyflow.core import options
from tinyflow.ir.graph.nodes import Function, Input, Node, Value
from tinyflow.passes.base import graph_pass
from tinyflow.passes.fusion import in_memory
from tinyflow.passes.pack_intervals import Range, most_live_bytes
from tinyflow.passes.recomputation import (
    Choice,
    Timeline,
    is_gradient,
    is_mark,
    may_repeat,
    timeline,
    with_copies,
)

#: Smaller values are not worth a kernel.
WORTH = 4096
#: How many segments are tried.
SEGMENTS = (2, 3, 4, 6, 8, 12, 16, 24, 32)


@graph_pass(level=0)
def rematerialize(fn: Function) -> Function:
    """Recomputes what ``tf.recompute_grad`` marked, then what ``options.memory_budget`` asks for.

    Before: %2 = Relu(%1); ... %9 = Mul(%8, %2)
    After:  %2 = Relu(%1); ... %8; %9 = Again(%1); %10 = Relu(%9); %11 = Mul(%8, %10)
    Bitwise: the same ops on the same inputs.
    """
    budget = options.current().memory_budget
    return fit(fn, budget) if budget and is_step(fn) else recompute_marked(fn)


def is_step(fn: Function) -> bool:
    """Not the body of a loop, which lives inside a step, and of known sizes."""
    roles = {v.node.op.role for v in fn.inputs if isinstance(v.node.op, Input)}
    static = all(t.is_static for node in fn.nodes for t in node.types)
    return static and bool(roles & {"feed", "variable"})


# ---- by function --------------------------------------------------------------------------------
def mark_of(node: Node) -> str | None:
    """Which call of a ``recompute_grad`` function made the node; the outermost of nested ones."""
    return next((label for label, _ in node.origin if is_mark(label)), None)


def recompute_marked(fn: Function) -> Function:
    """Values that marked nodes hand to gradients are computed again from the marked inputs."""
    if not any(mark_of(node) for node in fn.nodes):
        return fn
    line = timeline(fn)
    marks = {node: mark_of(node) for node in fn.nodes if may_repeat(node)}
    needed: set[Value] = set(fn.outputs)  # by the forward part outside of their call
    for node in fn.nodes:
        if not is_gradient(node) and line.is_early(node):
            needed |= {v for v in node.inputs if marks.get(v.node) != marks.get(node)}
    dropped = {
        v
        for node, mark in marks.items()
        if mark is not None and line.is_early(node)
        for v in node.outputs
        if v not in needed
    }
    if not dropped:
        return fn

    def is_kept(value: Value) -> bool:
        return value in needed or (marks.get(value.node) is None and not is_gradient(value.node))

    return with_copies(line, Choice(dropped, is_kept))


# ---- by a budget --------------------------------------------------------------------------------
def fit(fn: Function, budget: int) -> Function:
    """``fn`` with the fewest recomputations found that bring the peak to ``budget`` bytes, or with
    the lowest peak found. What is marked is recomputed anyway."""
    fn = recompute_marked(fn)
    if peak_bytes(fn) <= budget:
        return fn
    search = _Search(fn, budget)
    best = search.cheap()
    if best is None or search.peak_of(best) > budget:
        best = search.segments(best)
    return fn if best is None else best


def peak_bytes(fn: Function) -> int:
    """Bytes in use at the worst moment: arena, variables, feeds, fetches and constants."""
    return own_bytes(fn) + arena_bytes(timeline(fn))


def own_bytes(fn: Function) -> int:
    """Bytes outside of the arena."""
    split = len(fn.outputs) - len(fn.updates)
    results = set(fn.outputs[:split]) - set(fn.inputs)
    constants = {v for n in fn.nodes if in_memory(n) for v in n.outputs}
    return sum(v.type.size_bytes for v in {*fn.inputs, *results, *constants})


def arena_bytes(line: Timeline) -> int:
    return most_live_bytes(list(lifetimes(line).values()))


def lifetimes(line: Timeline) -> dict[Value, Range]:
    """The arena's values; a result takes over an equally large input that dies in its kernel."""
    traffic, groups = line.traffic, line.grouping.groups
    last: dict[Value, int] = {}
    for n, group in enumerate(groups):
        for value in traffic.reads[group]:
            last[value] = n
    results = {traffic.root(v) for v in line.fn.outputs}
    ranges: dict[Value, Range] = {}
    for n, group in enumerate(groups):
        dying = [v for v in traffic.reads[group] if last[v] == n and v in ranges]
        for value in traffic.makes[group]:
            size = traffic.cost(value)
            if value in results or size == 0:
                continue
            begin = n
            if group.kind in ("map", "row", "batch"):
                old = next((v for v in dying if ranges[v].size_bytes == size), None)
                if old is not None:  # one range until now, another from here on
                    dying.remove(old)
                    ranges[old] = ranges[old]._replace(last=n - 1)
            ranges[value] = Range(size, begin, max(n, last.get(value, n)))
    return ranges


@dataclass(eq=False)
class _Candidate:
    value: Value
    size: int
    position: int


class _Search:
    def __init__(self, fn: Function, budget: int) -> None:
        self.fn, self.budget = fn, budget
        self.line = timeline(fn)
        self.ranges = lifetimes(self.line)
        self.own = own_bytes(fn)
        self.known: dict[Function, int] = {}
        if self.line.turn < 0:  # no gradients: what waits longest waits at the peak
            self.line.turn = self._peak_position()
        self.candidates = list(self._candidates())
        self.items = self.line.grouping.items
        self.in_memory = {c.value for c in self.candidates}

    def _peak_position(self) -> int:
        live = [0] * (len(self.line.grouping.groups) + 2)
        for one in self.ranges.values():
            live[one.first] += one.size_bytes
            live[one.last + 1] -= one.size_bytes
        most = now = at = 0
        for n, change in enumerate(live):
            now += change
            if now > most:
                most, at = now, n
        return at

    def _candidates(self) -> Iterator[_Candidate]:
        """Values in memory across the turn that could be computed again."""
        for value, one in self.ranges.items():
            waits = one.first <= self.line.turn < one.last and one.size_bytes >= WORTH
            if waits and may_repeat(value.node) and self.line.is_early(value.node):
                yield _Candidate(value, one.size_bytes, one.first)

    def peak_of(self, fn: Function) -> int:
        if fn not in self.known:
            self.known[fn] = self.own + arena_bytes(timeline(fn))
        return self.known[fn]

    def without(self, dropped: set[Value], kept: set[Value]) -> Function:
        staying = (self.in_memory - dropped) | kept

        def is_kept(value: Value) -> bool:
            return value in staying or self._is_late_anyway(value)

        return with_copies(self.line, Choice(dropped - kept, is_kept))

    def _is_late_anyway(self, value: Value) -> bool:
        one = self.ranges.get(value)
        return one is not None and one.last > self.line.turn and value not in self.in_memory

    # ---- what is cheap ---------------------------------------------------------------------------
    def cheap(self) -> Function | None:
        """Without values that need no contraction: as many of the largest as it takes."""
        chosen = sorted(self._cheap_values(), key=lambda c: (-c.size, c.position))
        if not chosen:
            return None
        best = self._dropping(chosen)
        if self.peak_of(best) > self.budget:
            return best if self.peak_of(best) < self.peak_of(self.fn) else None
        few, enough = 0, len(chosen)
        while enough - few > 1:
            middle = (few + enough) // 2
            tried = self._dropping(chosen[:middle])
            if self.peak_of(tried) <= self.budget:
                best, enough = tried, middle
            else:
                few = middle
        return best

    def _dropping(self, chosen: list[_Candidate]) -> Function:
        return self.without({c.value for c in chosen}, set())

    def _cheap_values(self) -> list[_Candidate]:
        """Candidates that follow from other values in memory without a contraction."""
        verdicts: dict[Value, bool] = {}
        return [
            one
            for one in sorted(self.candidates, key=lambda c: c.position)
            if self._is_cheap_node(one.value.node)
            and all(self._is_within_reach(v, verdicts) for v in one.value.node.inputs)
        ]

    def _is_within_reach(self, wanted: Value, verdicts: dict[Value, bool]) -> bool:
        stack = [wanted]
        while stack:
            value = stack[-1]
            if value in verdicts:
                stack.pop()
                continue
            if value in self.in_memory or not may_repeat(value.node):
                verdicts[value] = True
            elif not self._is_cheap_node(value.node):
                verdicts[value] = False
            else:
                waiting = [v for v in value.node.inputs if v not in verdicts]
                if waiting:
                    stack += waiting
                    continue
                verdicts[value] = all(verdicts[v] for v in value.node.inputs)
            stack.pop()
        return verdicts[wanted]

    def _is_cheap_node(self, node: Node) -> bool:
        if hasattr(node.op, "lower_loops"):
            return False
        items = [self.items.get(v) for v in node.outputs]
        return all(i is None or i.combiner != "dot" for i in items)

    # ---- whole segments --------------------------------------------------------------------------
    def segments(self, best: Function | None) -> Function | None:
        """The first of several segmentations that fits, else the one with the lowest peak."""
        size = sum(c.size for c in self.candidates)
        lowest = self.peak_of(best or self.fn)
        cheap = {c.value for c in self._cheap_values()}
        worse = 0
        for count in SEGMENTS:
            dropped, kept = self._segmented(size // count)
            tried = self.without(dropped | cheap, kept)
            peak = self.peak_of(tried)
            worse = 0 if peak < lowest else worse + 1
            if peak < lowest:
                best, lowest = tried, peak
            if peak <= self.budget:
                alone = self.without(dropped, kept)
                return alone if self.peak_of(alone) <= self.budget else tried
            if worse == 2:
                break
        return best

    def _segmented(self, size: int) -> tuple[set[Value], set[Value]]:
        """(values inside of segments of about ``size`` bytes, values kept between them)."""
        crossing = self._crossing()
        cuts: list[int] = []
        start, collected = 0, 0
        for one in sorted(self.candidates, key=lambda c: c.position):
            collected += one.size
            if collected >= size and one.position > start:
                window = range((start + one.position + 1) // 2, one.position + 1)
                cut = min(window, key=lambda p: (sum(v[1] for v in crossing[p]), -p))
                cuts.append(cut)
                collected = sum(
                    c.size for c in self.candidates if cut < c.position <= one.position
                )
                start = one.position
        kept = {value for cut in cuts for value, _ in crossing[cut]}
        inside = {c.value for c in self.candidates if cuts and c.position <= cuts[-1]}
        return inside - kept, kept

    def _crossing(self) -> list[list[tuple[Value, int]]]:
        """Per kernel of the forward part: the values that later ones of it read."""
        traffic, turn = self.line.traffic, self.line.turn
        last: dict[Value, int] = {}
        groups = self.line.grouping.groups[: turn + 1]
        for n, group in enumerate(groups):
            for value in traffic.reads[group]:
                last[value] = n
        found: list[list[tuple[Value, int]]] = [[] for _ in range(turn + 1)]
        for value, one in self.ranges.items():
            for n in range(one.first, min(last.get(value, -1), turn + 1)):
                found[n].append((value, one.size_bytes))
        return found
