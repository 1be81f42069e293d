"""The steps of one request, by the sizes of its feeds: specialised ones, then one for all sizes.

Main type: ``Family``. May import compile.symbolic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tinyflow.compile.symbolic import Pattern, Shapes, SymbolicStep
from tinyflow.core.error import Unsupported
from tinyflow.ir.graph.nodes import TensorType

#: Patterns that are tried before every further set of sizes gets a step of its own.
MOST_PATTERNS = 8


class Family:
    """Chooses, and compiles when needed, what runs feeds of given types.

    declared: the feeds' types as the graph knows them.   exact(types), symbolic(pattern, sizes):
    compile.   reasons: why patterns did not become steps.
    """

    def __init__(
        self,
        declared: Sequence[TensorType],
        exact: Callable[[Sequence[TensorType]], Any],
        symbolic: Callable[[Pattern, Mapping[str, int]], SymbolicStep],
    ) -> None:
        self.declared = tuple(declared)
        self._compile_exact, self._compile_symbolic = exact, symbolic
        self.exact: dict[Shapes, Any] = {}
        self.symbolic: list[SymbolicStep] = []
        self.reasons: dict[tuple[TensorType, ...], str] = {}

    def at(self, types: Sequence[TensorType]) -> tuple[Any, dict[str, int] | None]:
        """The step for feeds of these types, and the sizes it takes if it serves all."""
        shapes: Shapes = tuple([t.shape for t in types])  # type: ignore[misc]
        found = self.exact.get(shapes)
        if found is not None:
            return found, None
        for step in self.symbolic:
            sizes = step.pattern.match(shapes)
            if sizes is not None and self._serves(step, sizes):
                return step, sizes
        if self.exact and len(self.symbolic) + len(self.reasons) < MOST_PATTERNS:
            made = self._generalized(shapes)
            if made is not None:
                return made
        found = self.exact[shapes] = self._compile_exact(types)
        return found, None

    def _serves(self, step: SymbolicStep, sizes: Mapping[str, int]) -> bool:
        try:
            step.plan_at(sizes)
        except Unsupported as error:
            self.reasons.setdefault(tuple(step.pattern.types), error.what)
            return False
        return True

    def _generalized(self, shapes: Shapes) -> tuple[SymbolicStep, dict[str, int]] | None:
        """A step for all sizes that differ as these do from some specialised step's."""
        for seen in reversed(self.exact):
            pattern = Pattern.between(seen, shapes, self.declared)
            if pattern is None or tuple(pattern.types) in self.reasons:
                continue
            sizes = pattern.match(shapes)
            assert sizes is not None
            try:
                step = self._compile_symbolic(pattern, sizes)
            except Unsupported as error:
                self.reasons[tuple(pattern.types)] = error.what
                continue
            self.symbolic.append(step)
            return step, sizes
        return None
