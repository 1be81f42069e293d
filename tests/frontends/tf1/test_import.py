"""Importing is light, silent and leaves nothing behind (issue budget: 2.5 times NumPy's import)."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("llvmlite", "ml_dtypes", "scipy", "tinyflow.compile", "tinyflow.codegen")


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout


def test_import_is_light_and_silent():
    out = python(
        "import sys; import tinyflow as tf; tf.placeholder; tf.Variable; tf.Session; tf.gradients;"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    assert out.strip() == "[]"


def test_import_time():
    """The median of several runs; a loose bound, the benchmark keeps the tight one."""
    code = (
        "import time, subprocess, sys, statistics\n"
        "def t(c):\n"
        "    s = time.perf_counter(); subprocess.run([sys.executable, '-c', c], check=True)\n"
        "    return time.perf_counter() - s\n"
        "pairs = [(t('import tinyflow'), t('import numpy')) for _ in range(5)]\n"
        "print(statistics.median(a for a, b in pairs) / statistics.median(b for a, b in pairs))"
    )
    assert float(python(code)) < 2.5
