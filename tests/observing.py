"""Looking at the steps that a program is compiled to while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tinyflow.compile import step as step_module


@contextmanager
def steps_made(is_wanted: Callable[[Any], bool] = lambda step: True) -> Iterator[list[Any]]:
    """Steps that are compiled, and bound to a session, in the ``with`` block; in order."""
    seen: list[Any] = []

    def observe(step: Any) -> None:
        if is_wanted(step):
            seen.append(step)

    step_module.observers.append(observe)
    try:
        yield seen
    finally:
        step_module.observers.remove(observe)


def is_bound(step: Any) -> bool:
    """Whether it is the step of a session: that one has memory."""
    return isinstance(step, step_module.BoundStep)
