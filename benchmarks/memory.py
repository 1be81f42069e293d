"""How much memory this process has.

Main functions: resident_bytes, peak_bytes, forget_peak. May import: the standard library.
Runs under the rivals' Pythons, 3.7 and up.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def resident_bytes():
    """Resident now; the peak so far where the system does not say."""
    return _field("VmRSS:") or peak_bytes()


def peak_bytes():
    """The most that was resident at once since the start, or since `forget_peak`."""
    found = _field("VmHWM:")
    if found is None:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return found


def forget_peak():
    """Start anew, where Linux allows it: what a compiler needed for a moment is not counted."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _field(name):
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(name)), None)
