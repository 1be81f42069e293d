"""The few switches of the system, typed, in one place (listed in docs/options.md).

Main types: ``Options``; ``current()`` reads, ``override(...)`` scopes. Imports core.error only.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from tinyflow.core.error import InvalidArgumentError

#: forms of convolutions
CONVOLUTIONS = ("auto", "direct", "im2col", "winograd", "fft")


def _environment_flag(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


def _environment_list(name: str) -> frozenset[str]:
    return frozenset(filter(None, os.environ.get(name, "").split(",")))


@dataclass(frozen=True)
class Options:
    """level: optimisation level (0 none, 1 bitwise rules only, 2 default, 3 approximate too).

    convolution: the form of convolutions and their gradients, one of CONVOLUTIONS: "auto" is the
    direct form, and at level 3 what is faster; another one is taken wherever it is possible.
    fuse: whole-step compilation; False runs op by op through generic kernels.
    lanes: elements of 4 bytes per vector in generated code; 0 takes the target's width.
    threads: worker threads including the caller; 0 takes all available cores.
    verify: run the verifier after every pass and every schedule.
    dump: directory for numbered dumps of every stage, or None.
    disabled_passes: names of passes and rules that are switched off.
    memory_budget: bytes that a step may have in use at its worst moment; 0 for any number.
    stop_after: name of the last pass to run (bisecting), or None.
    show_internal_frames: keep our own frames in tracebacks.
    """

    level: int = 2
    convolution: str = "auto"
    fuse: bool = True
    lanes: int = 0
    threads: int = 0
    verify: bool = field(default_factory=lambda: _environment_flag("TINYFLOW_VERIFY"))
    dump: str | None = field(default_factory=lambda: os.environ.get("TINYFLOW_DUMP") or None)
    disabled_passes: frozenset[str] = field(
        default_factory=lambda: _environment_list("TINYFLOW_DISABLE")
    )
    memory_budget: int = 0
    stop_after: str | None = None
    show_internal_frames: bool = field(
        default_factory=lambda: _environment_flag("TINYFLOW_INTERNAL_FRAMES")
    )

    def __post_init__(self) -> None:
        if self.convolution not in CONVOLUTIONS:
            raise InvalidArgumentError(
                f"options: unknown convolution {self.convolution!r}", choices=CONVOLUTIONS
            )


_default = Options()
_local = threading.local()


def current() -> Options:
    """The options in force in this thread."""
    return getattr(_local, "options", None) or _default


def set_default(**changes: Any) -> None:
    """Change the process-wide options."""
    global _default
    _default = replace(_default, **changes)


@contextlib.contextmanager
def override(**changes: Any) -> Iterator[Options]:
    """``with override(fuse=False): ...`` changes options in this thread and block only."""
    before = getattr(_local, "options", None)
    _local.options = replace(current(), **changes)
    try:
        yield _local.options
    finally:
        _local.options = before
