"""Tracebacks that end at the user's line.

Main functions: ``boundary`` (for functions), ``public_methods`` (for classes).
May be imported by everything; imports core.error, core.options and core.source.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType, TracebackType
from typing import Any, TypeVar

from tinyflow.core import options
from tinyflow.core.error import InternalError, TinyFlowError
from tinyflow.core.source import is_internal, user_frame

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)


def trim(error: BaseException) -> None:
    """Takes this package's frames out of an error's traceback; the user's callbacks stay.

    Our own bugs keep all frames, and so does everything under ``options.show_internal_frames``.
    """
    if isinstance(error, InternalError) or options.current().show_internal_frames:
        return
    kept = []
    entry = error.__traceback__
    while entry is not None:
        if not is_internal(entry.tb_frame.f_code.co_filename):
            kept.append(entry)
        entry = entry.tb_next
    inner: TracebackType | None = None
    for entry in reversed(kept):
        inner = TracebackType(inner, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    error.__traceback__ = inner


def boundary(function: F) -> F:
    """``function`` for users: its errors look as if the user's own line had raised them.

    A bare ``raise`` does not add the wrapper's frame to the traceback again, so trimming it away
    just before leaves the caller's frame as the last one.
    """

    @functools.wraps(function)
    def wrapper(*args: Any, **keywords: Any) -> Any:
        try:
            return function(*args, **keywords)
        except TinyFlowError as error:
            place = user_frame(2)
            if place not in error.sources.values():
                error.located("called at", place)
            trim(error)
            raise
        except TypeError as error:
            # Wrong arguments: nothing has run yet, the traceback ends here.
            if error.__traceback__ is not None and error.__traceback__.tb_next is None:
                trim(error)
            raise

    return wrapper  # type: ignore[return-value]


def public_methods(*names: str) -> Callable[[C], C]:
    """Class decorator: ``boundary`` on the named methods, by default on all public ones."""

    def decorate(cls: C) -> C:
        chosen = names or tuple(
            name for name in vars(cls) if not name.startswith("_") or name in ("__init__",)
        )
        for name in chosen:
            method = vars(cls).get(name)
            if isinstance(method, FunctionType):
                setattr(cls, name, boundary(method))
        return cls

    return decorate
