"""The walk that every floor takes over what depends on what: producers before users.

Main function: ``producers_first``. Imports the standard library.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T", bound=Hashable)


def producers_first(roots: Iterable[T], needs: Callable[[T], Sequence[T]]) -> list[T]:
    """``roots`` and all that they need, each thing once and after everything it needs itself.

    needs(x): what x needs directly; asked once for each x, when the walk reaches it. The order is
    that of a depth-first walk, left to right: deterministic. Iterative, so any depth is fine.
    Nothing may need itself through others. O(things + needs).
    """
    order: list[T] = []
    entered: set[T] = set()
    stack = [(root, False) for root in [*roots][::-1]]
    while stack:
        thing, complete = stack.pop()
        if complete:
            order.append(thing)
        elif thing not in entered:
            entered.add(thing)
            stack.append((thing, True))
            stack += [(other, False) for other in needs(thing)[::-1] if other not in entered]
    return order
