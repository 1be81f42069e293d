"""Kernels that run at the same time: independent ones, each too small for more than one thread.

Main type: ``Gang``; main function: ``form_gangs``. May import ir, passes.plan_memory and schedule.

A kernel with much work for all threads takes all threads. One that is a single task leaves the
others idle, and one of a few microseconds loses in sharing what it gains; such a kernel takes later
ones of that sort along which need neither it nor anything between. For the memory plan a gang is
one use: what its members read stays, what they write is apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinyflow.ir.graph.nodes import Function, Value
from tinyflow.passes.plan_memory import Use
from tinyflow.schedule.lowering import LoweredKernel

#: How many kernels ahead partners are looked for, and how many run together at most.
AHEAD, MOST = 64, 16
#: Handing work to another thread takes about this long.
HANDOVER_US = 2.0
#: A kernel of less time runs on one thread where it has partners to run beside it.
SHORT_US = 20.0
#: A partner's results wait in memory from its new place to its old one.
MOST_BYTES = 1 << 19


@dataclass(eq=False)
class Gang:
    """members: kernels without order among them, the longest first."""

    members: list[LoweredKernel]


def estimated_us(kernel: LoweredKernel) -> float:
    """Time on one thread, roughly: 60 GFLOP/s, 10 GB/s."""
    return max(kernel.flops / 60e3, kernel.bytes / 10e3)


def splits(kernel: LoweredKernel) -> bool:
    """Whether the kernel alone has tasks for several threads."""
    return kernel.chunk > 0 and kernel.tasks > kernel.chunk


def may_join(kernel: LoweredKernel) -> bool:
    """Whether one thread should run it whole; it must report no errors (their launch is named)."""
    return (
        isinstance(kernel.tasks, int)
        and isinstance(kernel.flops, int)
        and isinstance(kernel.bytes, int)
        and not kernel.extents
        and None not in kernel.arguments
        and isinstance(kernel.chunk, int)
        and (not splits(kernel) or estimated_us(kernel) < SHORT_US)
    )


def form_gangs(
    fn: Function,
    actions: Sequence[Any],
    uses: Sequence[Use],
    kernel_of: Mapping[int, LoweredKernel],
    views: Mapping[Value, Value],
) -> tuple[list[Any], list[Use]]:
    """Actions and uses with gangs in place of their first members.

    kernel_of: number of a use -> its kernel; uses without one are neither moved nor passed.
    """
    former = _Former(fn, uses, kernel_of, views)
    gangs = former.run()
    if not gangs:
        return list(actions), list(uses)
    first = {kernel_of[numbers[0]]: numbers for numbers in gangs}
    moved = {kernel_of[n] for numbers in gangs for n in numbers}
    made: list[Any] = []
    for action in actions:
        if action in first:
            members = [kernel_of[n] for n in first[action]]
            made.append(Gang(sorted(members, key=lambda k: -estimated_us(k))))
        elif action not in moved:
            made.append(action)
    gone = {n for numbers in gangs for n in numbers[1:]}
    joined = {numbers[0]: former.joined(numbers) for numbers in gangs}
    return made, [joined.get(n, use) for n, use in enumerate(uses) if n not in gone]


class _Former:
    def __init__(
        self,
        fn: Function,
        uses: Sequence[Use],
        kernel_of: Mapping[int, LoweredKernel],
        views: Mapping[Value, Value],
    ) -> None:
        self.uses, self.kernel_of, self.views = uses, kernel_of, views
        self.reads = [{self.root(v) for v in use.reads} for use in uses]
        self.writes = [{self.root(v) for v in use.writes} for use in uses]
        old_of = {v.node.op.key: v for v in fn.inputs if v.node.op.role == "variable"}  # type: ignore[attr-defined]
        #: new value of a variable -> its old one, which it may overwrite
        self.overwrites = {
            self.root(fn.outputs[n]): old_of[key] for key, n in fn.updates.items() if key in old_of
        }

    def root(self, value: Any) -> Any:
        while value in self.views:
            value = self.views[value]
        return value

    def run(self) -> list[list[int]]:
        gangs: list[list[int]] = []
        taken: set[int] = set()
        for n in range(len(self.uses)):
            if n in taken or not self.fits(n):
                continue
            numbers = self.partners(n, taken)
            if self.pays(numbers):
                gangs.append(numbers)
                taken.update(numbers)
        return gangs

    def pays(self, numbers: Sequence[int]) -> bool:
        """Whether two threads finish sooner than with one kernel after the other."""
        kernels = [self.kernel_of[m] for m in numbers]
        times = [estimated_us(k) for k in kernels]
        balanced = 2 * max(times) <= 1.2 * sum(times)
        return sum(times) - max(times) > HANDOVER_US and (
            balanced or not any(map(splits, kernels))
        )

    def fits(self, n: int) -> bool:
        kernel = self.kernel_of.get(n)
        return kernel is not None and may_join(kernel)

    def partners(self, n: int, taken: set[int]) -> list[int]:
        numbers = [n]
        read, written = set(self.reads[n]), set(self.writes[n])
        for m in range(n + 1, min(n + 1 + AHEAD, len(self.uses))):
            if m not in self.kernel_of or len(numbers) == MOST:
                break
            if m in taken:  # runs earlier, with another gang
                continue
            overwritten = {self.overwrites[v] for v in self.writes[m] if v in self.overwrites}
            if (
                self.fits(m)
                and not (self.reads[m] | self.writes[m]) & written
                and not overwritten & read
                and self.kernel_of[m].bytes <= MOST_BYTES
            ):
                numbers.append(m)
            read |= self.reads[m]
            written |= self.writes[m]
        return numbers

    def joined(self, numbers: Sequence[int]) -> Use:
        """One use for all: in place only what no other member reads."""
        uses = [self.uses[n] for n in numbers]
        readers: dict[Any, int] = {}
        for n in numbers:
            for value in self.reads[n]:
                readers[value] = readers.get(value, 0) + 1
        return Use(
            tuple(dict.fromkeys(v for use in uses for v in use.reads)),
            tuple(dict.fromkeys(v for use in uses for v in use.writes)),
            tuple(p for use in uses for p in use.in_place if readers[self.root(p[0])] == 1),
            any(use.may_stop for use in uses),
        )
