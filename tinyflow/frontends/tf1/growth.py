"""Warns when a loop of runs keeps adding operations: the usual reason of slow, growing programs.

Main type: ``GrowthWatch``. May import core only.
"""

from __future__ import annotations

import warnings
from typing import Any

from tinyflow.core.source import Source, user_frame

__all__ = ["GraphGrowthWarning", "GrowthWatch"]

#: runs in a row before which the same line added operations
PATIENCE = 20


class GraphGrowthWarning(UserWarning):
    """The same line adds operations before every run."""


class GrowthWatch:
    """Counts, per user line, between how many runs it has added operations to a graph."""

    __slots__ = ("graph", "rounds", "seen", "warned")

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.seen = 0
        self.rounds: dict[Source, int] = {}
        self.warned = False

    def look(self) -> None:
        """Called by a run that finds new operations."""
        operations = self.graph._operations
        fresh = {node.source for node in operations[self.seen :]}
        self.seen = len(operations)
        # A line that stops adding is no loop: only lines seen in this very round stay.
        self.rounds = {line: self.rounds.get(line, 0) + 1 for line in fresh}
        if self.warned:
            return
        worst = max(self.rounds, key=lambda line: self.rounds[line])
        if self.rounds[worst] < PATIENCE:
            return
        self.warned = True
        caller = user_frame(2)
        warnings.warn_explicit(
            f"the graph grew before each of the last {PATIENCE} runs: {worst} adds operations "
            f"every time ({self.seen} by now), and each new operation is compiled anew. Build it "
            "once before the loop and feed what changes (tf.placeholder); graph.finalize() finds "
            "such lines.",
            GraphGrowthWarning,
            caller.file,
            caller.line,
        )
