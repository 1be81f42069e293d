"""Workload: seconds that an `import` takes in a fresh process, after a first one warmed the disk.

May import: the neighbours in this folder. Special: its steps are processes, so it measures itself.
"""

from __future__ import annotations

import os
import random
import subprocess

from benchmarks.harness import Contest, Timing
from benchmarks.rivals import interpreter

TITLE = "Import time, fresh process"
UNIT = "ms"
# Contestant -> statement; the contestant's name chooses the Python.
STATEMENTS = {
    "tinyflow": "import tinyflow; tinyflow.Session",
    "numpy": "import numpy",
    "torch": "import torch",
    "jax": "import jax, jax.numpy",
    "tensorflow": "import tensorflow",
    "tensorflow 1.15": "import tensorflow",
}
_CLOCKED = (
    "import time; start = time.perf_counter(); {}; print(); print(time.perf_counter() - start)"
)


def measure(rounds: int) -> Contest:
    timings = [Timing(name) for name in STATEMENTS]
    for timing in timings:
        _import_once(timing)  # not counted: reads the files from disk, writes byte code
        timing.rounds.clear()
    generator = random.Random(0)
    for _ in range(rounds):
        present = [timing for timing in timings if not timing.trouble]
        for timing in generator.sample(present, len(present)):
            _import_once(timing)
    return Contest(TITLE, "import", {}, UNIT, timings, base="numpy")


def _import_once(timing: Timing) -> None:
    python = interpreter(timing.contestant)
    if python is None:
        timing.trouble = "absent"
        return
    command = [python, "-W", "ignore", "-c", _CLOCKED.format(STATEMENTS[timing.contestant])]
    # Installed packages come with byte code; a clone's own must be allowed to be kept.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    if ended.returncode == 0:
        timing.rounds.append(float(ended.stdout.split()[-1]))
    else:
        last_line = (ended.stderr.strip().splitlines() or ["failed"])[-1]
        absent = "ModuleNotFoundError" in last_line or "AttributeError" in last_line
        timing.trouble = "absent" if absent else last_line
