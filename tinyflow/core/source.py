"""Where the user's code is.

Main type: ``Source``; ``user_frame`` finds the innermost frame outside this package.
May be imported by everything; imports the standard library only.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class Source(NamedTuple):
    """A place in the user's program."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        where = f"{os.path.basename(self.file)}:{self.line}"
        return where if self.function in ("<module>", "") else f"{where} in {self.function}()"


UNKNOWN = Source("<unknown>", 0, "")


_internal_code: dict[str, bool] = {}


def _is_internal(filename: str) -> bool:
    known = _internal_code.get(filename)
    if known is None:
        # Dataclasses and exec'd helpers of this package have pseudo file names ("<string>").
        known = filename.startswith(_PACKAGE) or filename.startswith("<frozen")
        if known and filename.startswith(_PACKAGE + "examples" + os.sep):
            known = False
        _internal_code[filename] = known
    return known


def user_frame(depth: int = 1) -> Source:
    """The innermost calling frame that is not inside this package."""
    frame = sys._getframe(depth)
    while frame is not None:
        code = frame.f_code
        if not _is_internal(code.co_filename):
            return Source(code.co_filename, frame.f_lineno, code.co_name)
        frame = frame.f_back  # type: ignore[assignment]
    return UNKNOWN
