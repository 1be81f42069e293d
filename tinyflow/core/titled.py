"""The face of a function that another function makes: one of a table's many.

Main function: ``titled``. Imports the standard library.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def titled(name: str, doc: str | None = None) -> Callable[[F], F]:
    """The name, and the docstring if any, that ``help`` and tracebacks show of the function."""

    def decorate(function: F) -> F:
        function.__name__ = function.__qualname__ = name
        function.__doc__ = doc
        return function

    return decorate
