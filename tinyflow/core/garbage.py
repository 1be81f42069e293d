"""Python's cycle collector, which has nothing to find while a graph is made or compiled.

Main functions: ``without_collections`` (a decorator), ``collections_paused`` (a block). Imports the
standard library only.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])

_lock = threading.Lock()
_pauses = 0
_was_enabled = False


def without_collections(function: Function) -> Function:
    """A decorator: the cycle collector rests while the function runs, in whatever thread.

    Compilation makes hundreds of thousands of objects that live until its end. Every collection
    walks all of them and frees nothing: a third of the time of a graph of 15,000 nodes.
    """

    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        with collections_paused():
            return function(*arguments, **keywords)

    return cast(Function, call)


@contextlib.contextmanager
def collections_paused() -> Iterator[None]:
    """``with collections_paused():`` see ``without_collections``."""
    _pause()
    try:
        yield
    finally:
        _resume()


def _pause() -> None:
    global _pauses, _was_enabled
    with _lock:
        if not _pauses:
            _was_enabled = gc.isenabled()
            gc.disable()
        _pauses += 1


def _resume() -> None:
    global _pauses
    with _lock:
        _pauses -= 1
        if not _pauses and _was_enabled:
            if not gc.get_freeze_count():  # else the user has frozen something, which stays so
                # There and back, what was made is among the old objects without being walked;
                # as young ones the very next collection would walk them all.
                gc.freeze()
                gc.unfreeze()
            gc.enable()
