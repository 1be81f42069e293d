"""``tf.logging``: messages of programs, on Python's ``logging`` under the name "tensorflow".

Main functions: ``info``, ``set_verbosity``. Imports the standard library.
"""

from __future__ import annotations

import logging as _logging
import sys
from typing import Any

__all__ = [
    "DEBUG", "ERROR", "FATAL", "INFO", "WARN", "debug", "error", "fatal", "get_verbosity", "info",
    "log", "set_verbosity", "warn", "warning",
]  # fmt: skip

DEBUG, INFO, WARN, ERROR, FATAL = (
    _logging.DEBUG, _logging.INFO, _logging.WARNING, _logging.ERROR, _logging.CRITICAL,
)  # fmt: skip

_logger = _logging.getLogger("tensorflow")


def _ready() -> _logging.Logger:
    """The logger, with a handler of its own unless the program has configured logging."""
    if not _logger.handlers and not _logging.getLogger().handlers:
        handler = _logging.StreamHandler(sys.stderr)
        handler.setFormatter(_logging.Formatter("%(levelname)s:%(name)s:%(message)s"))
        _logger.addHandler(handler)
        if _logger.level == _logging.NOTSET:
            _logger.setLevel(WARN)
    return _logger


def debug(message: Any, *args: Any, **keywords: Any) -> None:
    _ready().debug(message, *args, **keywords)


def info(message: Any, *args: Any, **keywords: Any) -> None:
    _ready().info(message, *args, **keywords)


def warning(message: Any, *args: Any, **keywords: Any) -> None:
    _ready().warning(message, *args, **keywords)


warn = warning


def error(message: Any, *args: Any, **keywords: Any) -> None:
    _ready().error(message, *args, **keywords)


def fatal(message: Any, *args: Any, **keywords: Any) -> None:
    _ready().critical(message, *args, **keywords)


def log(level: int, message: Any, *args: Any, **keywords: Any) -> None:
    _ready().log(level, message, *args, **keywords)


def set_verbosity(level: Any) -> None:
    """The lowest level that is written; ``tf.logging.ERROR`` or its name."""
    _logger.setLevel(level)


def get_verbosity() -> int:
    return _logger.getEffectiveLevel()
