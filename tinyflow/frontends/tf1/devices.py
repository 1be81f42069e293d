"""Device names: ``/cpu:0``, ``/job:worker/task:1/device:GPU:0``.

Main functions: ``normal_device``, ``merge_devices``. May import core only.
"""

from __future__ import annotations

from functools import lru_cache

from tinyflow.core.error import InvalidArgumentError

_ORDER = ("job", "replica", "task", "device")


@lru_cache(maxsize=256)
def _parse(name: str) -> dict[str, str]:
    """Parts of a device name. Errors: InvalidArgumentError naming the forms that are known."""
    parts: dict[str, str] = {}
    for piece in filter(None, name.split("/")):
        key, *rest = piece.split(":")
        lower = key.lower()
        if lower in ("job", "replica", "task") and len(rest) == 1:
            parts[lower] = rest[0]
        elif lower in ("cpu", "gpu") and len(rest) == 1 and (rest[0].isdigit() or rest[0] == "*"):
            parts["device"] = f"{key.upper()}:{rest[0]}"
        elif lower == "device" and len(rest) in (1, 2):
            parts["device"] = ":".join([rest[0].upper(), *rest[1:]])
        else:
            raise InvalidArgumentError(
                f"Unknown attribute: '{piece}' in device name '{name}'",
                choices=["/cpu:0", "/gpu:0", "/job:worker/task:0/cpu:0"],
            )
    return parts


def _join(parts: dict[str, str]) -> str:
    return "".join(f"/{key}:{parts[key]}" for key in _ORDER if key in parts)


def normal_device(name: str | None) -> str:
    """``/cpu:0`` as TensorFlow records it: ``/device:CPU:0``."""
    return _join(_parse(name)) if name else ""


def merge_devices(outer: str, inner: str) -> str:
    """The inner name with the parts that it leaves open taken from the outer one."""
    return _join({**_parse(outer), **_parse(inner)})
