"""How much a workload has to do, and how long that takes at best.

Main types: Work. May import: nothing. Runs under the rivals' Pythons, 3.7 and up.
"""

from __future__ import annotations

from collections import namedtuple


class Work(namedtuple("Work", "flops size_bytes")):
    """Least amounts of one step: a fused multiply-add is two operations; bytes from or to memory.

    Each limit alone is a lower bound: the two may overlap in time.
    """

    __slots__ = ()

    def seconds(self, flops_per_second, bytes_per_second):
        """The roofline: the time below which no program can be."""
        return max(self.flops / flops_per_second, self.size_bytes / bytes_per_second)

    def is_arithmetic(self, flops_per_second, bytes_per_second):
        """Whether arithmetic, not memory, sets that time."""
        return self.flops * bytes_per_second >= self.size_bytes * flops_per_second
