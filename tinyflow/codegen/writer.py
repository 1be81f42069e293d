"""Where generated instructions go: a stack of open blocks, one per loop level, and what is known.

Main type: ``Writer``. Imports core, ir.scalar.

Every value knows the *level* at which it was computed. Instructions are appended to the open block
of that level, so what does not depend on an inner loop is hoisted out of it by construction, and a
value is computed once per place where it is valid: LLVM needs no LICM, GVN or CSE for our kernels.
"""

from __future__ import annotations

from collections.abc import Hashable

from tinyflow.ir.loop.nodes import Buffer
from tinyflow.ir.scalar.nodes import Expr

#: operand text, lanes (0: scalar), level
Value = tuple[str, int, int]


class Writer:
    """Lines by level, memo with undo, fresh names, declarations."""

    def __init__(self) -> None:
        self.levels: list[list[str]] = [[]]
        self.blocks = ["entry"]  # the label of each level's open block
        self.floors = [0]  # by level: nothing but index arithmetic may be hoisted above this level
        self.header: list[str] = []  # allocas and parameter loads
        self.declarations: dict[str, str] = {}
        self.count = 0
        self.memo: dict[Hashable, Value] = {}
        self.trail: list[Hashable] = []

    @property
    def level(self) -> int:
        return len(self.levels) - 1

    @property
    def floor(self) -> int:
        return self.floors[-1]

    def number(self) -> int:
        self.count += 1
        return self.count

    def emit(self, level: int, text: str) -> str:
        """Append an instruction at a level; returns the name of its result."""
        self.count += 1
        name = f"%v{self.count}"
        self.levels[level].append(f"  {name} = {text}")
        return name

    def line(self, text: str) -> None:
        """Append an instruction without a result at the innermost level."""
        self.levels[-1].append("  " + text)

    def place_label(self, label: str) -> None:
        """Start a new block at the innermost level."""
        self.levels[-1].append(f"{label}:")
        self.blocks[-1] = label

    def open(self, label: str, guarded: bool) -> None:
        """A new innermost level. guarded: it may not be reached, so loads stay below it."""
        self.levels.append([])
        self.blocks.append(label)
        self.floors.append(self.level if guarded else self.floors[-1])

    def close(self) -> tuple[list[str], str]:
        """The innermost level's lines and the label of its last block."""
        self.floors.pop()
        return self.levels.pop(), self.blocks.pop()

    def declare(self, name: str, result: str, *arguments: str) -> str:
        """``@name``, declared in the module."""
        if name not in self.declarations:
            self.declarations[name] = f"declare {result} @{name}({', '.join(arguments)})"
        return "@" + name

    # What is known: keys are expressions and tuples that describe parts of addresses.

    def remember(self, key: Hashable, value: Value) -> Value:
        self.memo[key] = value
        self.trail.append(key)
        return value

    def mark(self) -> int:
        return len(self.trail)

    def forget_level(self, mark: int, level: int) -> None:
        """After leaving ``level``: what was computed there no longer dominates what follows."""
        kept = []
        for key in self.trail[mark:]:
            value = self.memo.get(key)
            if value is None:
                continue
            if value[2] >= level:
                del self.memo[key]
            else:
                kept.append(key)
        self.trail[mark:] = kept

    def forget_expressions(self, mark: int, drop: set[Expr]) -> None:
        for key in drop:
            self.memo.pop(key, None)
        self.trail[mark:] = [k for k in self.trail[mark:] if k not in drop]


class Facts:
    """Static properties of an expression, computed once per kernel.

    variables: bit set of the loop variables it depends on.
    effects: contains a load that may be out of range when masked off, or a ``checked``.
    reads: buffers that the kernel also writes and that the value depends on.
    checks: contains a ``checked``.   guards: contains a select with such effects in a branch that
    may only happen where it is chosen.
    """

    __slots__ = ("checks", "effects", "guards", "reads", "variables")

    def __init__(
        self, variables: int, effects: bool, reads: frozenset[Buffer], checks: bool, guards: bool
    ) -> None:
        self.variables, self.effects, self.reads = variables, effects, reads
        self.checks, self.guards = checks, guards


NO_BUFFERS: frozenset[Buffer] = frozenset()
