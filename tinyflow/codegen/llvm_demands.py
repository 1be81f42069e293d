"""Masked parts of an expression that several branches need: each is computed once.

Main function: ``compute_shared``. Imports ir.scalar and llvm_expr's writer (as an argument).

A load in a branch of a guarded select happens only where the branch is chosen. A part that two
branches need would be written twice, and a chain of selects that each use their predecessor twice
would double with every link. Here every part gets a *demand*, the union of the lanes in which
anybody needs it, and is computed once, for those lanes::

    demand(root) = all lanes in use
    demand(part) = OR over its users u:  demand(u), in a branch  demand(u) & condition  (or & not)

A demand needs values of conditions, and these need demands. Where that is a circle, the caller
writes the branches one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyflow.ir.scalar.nodes import Expr

if TYPE_CHECKING:
    from tinyflow.codegen.llvm_expr import ExpressionWriter
    from tinyflow.codegen.writer import Value

#: (user, whether the condition must hold); None: whatever the condition says, or no condition
Use = tuple[Expr, bool | None]


def compute_shared(w: ExpressionWriter, root: Expr) -> None:
    """Puts the parts of ``root`` with loads or checks into the memo, if some are shared."""
    parts = _parts(w, root)
    uses = _uses(w, parts)
    if all(len(found) < 2 for found in uses.values()):
        return
    _Demands(w, root, parts, uses).run()


def _parts(w: ExpressionWriter, root: Expr) -> list[Expr]:
    """Unknown sub-expressions with loads or checks, arguments before users."""
    order: list[Expr] = []
    entered: set[Expr] = set()
    finished: set[Expr] = set()
    stack = [root]
    while stack:
        expr = stack[-1]
        if expr in entered:
            stack.pop()
            if expr not in finished:
                finished.add(expr)
                order.append(expr)
            continue
        entered.add(expr)
        if expr.op == "fold":
            continue  # evaluates its body itself
        stack += [
            a for a in expr.args[::-1]
            if a not in entered and w.facts[a].effects and a not in w.memo
        ]  # fmt: skip
    return order


def _uses(w: ExpressionWriter, parts: list[Expr]) -> dict[Expr, dict[Use, None]]:
    uses: dict[Expr, dict[Use, None]] = {part: {} for part in parts}
    for user in parts:
        guarded = w.is_guarded(user)
        for position, arg in enumerate(user.args):
            if arg in uses and user.op != "fold":
                uses[arg][user, position == 1 if guarded and position else None] = None
    for found in uses.values():
        for user, holds in list(found):
            if holds and (user, False) in found:  # both branches
                found[user, None] = None
        for user, holds in list(found):
            if holds is not None and (user, None) in found:
                del found[user, holds]
    return uses


class _Demands:
    """One evaluation; ``free``: parts that are needed wherever the root is."""

    def __init__(
        self, w: ExpressionWriter, root: Expr, parts: list[Expr],
        uses: dict[Expr, dict[Use, None]],
    ) -> None:  # fmt: skip
        self.w, self.root, self.parts, self.uses = w, root, parts, uses
        self.free = {root}
        for part in reversed(parts):
            if any(holds is None and user in self.free for user, holds in uses[part]):
                self.free.add(part)
        self.masks: dict[Expr, Value | None] = dict.fromkeys(self.free, w.mask)
        self.branches: dict[Use, Value] = {}

    def run(self) -> None:
        """Depth first through masks and values; a circle ends it."""
        w, mark, outer = self.w, self.w.mark(), self.w.mask
        stack: list[tuple[Expr, bool]] = [(self.root, True)]
        open_tasks: set[tuple[Expr, bool]] = set()
        while stack:
            task = stack[-1]
            if self.is_done(task):
                stack.pop()
                continue
            missing = [t for t in self.needs(task) if not self.is_done(t)]
            if missing:
                open_tasks.add(task)
                if any(t in open_tasks for t in missing):
                    break
                stack += missing[::-1]
                continue
            part, wants_value = task
            if wants_value:
                w.mask = self.masks[part]
                w.value(part)
                w.mask = outer
            else:
                self.masks[part] = self.mask(part)
        circle = bool(stack)
        drop = {
            k for k in w.trail[mark:]
            if isinstance(k, Expr) and w.facts[k].effects and (circle or k not in self.free)
        }  # fmt: skip
        w.forget_expressions(mark, drop)

    def is_done(self, task: tuple[Expr, bool]) -> bool:
        part, wants_value = task
        return part in self.w.memo if wants_value else part in self.masks

    def needs(self, task: tuple[Expr, bool]) -> list[tuple[Expr, bool]]:
        part, wants_value = task
        if wants_value:
            return [(part, False), *((a, True) for a in part.args if a in self.uses)]
        found: list[tuple[Expr, bool]] = []
        for user, holds in self.uses[part]:
            found.append((user, False))
            if holds is not None and user.args[0] in self.uses:
                found.append((user.args[0], True))
        return found

    def mask(self, part: Expr) -> Value | None:
        found: Value | None = None
        for n, use in enumerate(self.uses[part]):
            one = self.branch(use)
            if one is None:
                return None
            found = one if not n or found is None else self.w.disjunction(found, one)
        return found

    def branch(self, use: Use) -> Value | None:
        """The lanes in which a user needs its argument."""
        user, holds = use
        if holds is None:
            return self.masks[user]
        if use not in self.branches:
            condition = self.w.value(user.args[0])
            chosen = condition if holds else self.w.negation(condition)
            self.branches[use] = self.w.conjunction(self.masks[user], chosen)
        return self.branches[use]
