"""``tf.ConfigProto`` and its relatives: settings of a session, as plain objects.

Main type: ``ConfigProto``. Imports nothing of the package.
"""

from __future__ import annotations

from typing import Any


class _Settings:
    """Attributes that may be set freely; unset ones are false. Nested messages come into being."""

    nested: tuple[str, ...] = ()

    def __init__(self, **settings: Any) -> None:
        self.__dict__.update(settings)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in self.nested:
            made = self.__dict__[name] = _Settings()
            return made
        return None

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v!r}" for k, v in self.__dict__.items())
        return f"{type(self).__name__}({shown})"


class GPUOptions(_Settings):
    """Accepted; steps run on the CPU."""


class OptimizerOptions(_Settings):
    """Accepted; the optimisation level is ``tinyflow.core.options``."""

    L0, L1 = -1, 0
    OFF, ON_1, ON_2, DEFAULT = -1, 1, 2, 0


class GraphOptions(_Settings):
    """Accepted."""

    nested = ("optimizer_options", "rewrite_options")


class ConfigProto(_Settings):
    """``tf.Session(config=tf.ConfigProto(allow_soft_placement=True))``: accepted.

    memory_budget: bytes that a step may have in use (see docs/options.md); the one that has effect.
    """

    nested = ("gpu_options", "graph_options", "device_count", "experimental")


class RunOptions(_Settings):
    """Accepted by ``Session.run``."""

    NO_TRACE, SOFTWARE_TRACE, HARDWARE_TRACE, FULL_TRACE = 0, 1, 2, 3


class RunMetadata(_Settings):
    """Accepted by ``Session.run``."""

    nested = ("step_stats",)
