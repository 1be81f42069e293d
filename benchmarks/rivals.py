"""Imports of each rival with all cores and no noise, the same for every workload.

Main names: torch, jax, tensorflow, tensorflow2, tinyflow (return the module), INTERPRETERS.
May import: the standard library. Runs under the rivals' Pythons, 3.7 and newer.
"""

from __future__ import annotations

import importlib
import os
import sys

# Which environment variable names the Python of a contestant. The key is a prefix of its name.
INTERPRETERS = {
    "numpy": "TINYFLOW_BENCH_PYTHON_NUMPY",
    "tinyflow": "TINYFLOW_BENCH_PYTHON_TINYFLOW",
    "torch": "TINYFLOW_BENCH_PYTHON_TORCH",
    "jax": "TINYFLOW_BENCH_PYTHON_JAX",
    "tensorflow 1": "TINYFLOW_BENCH_PYTHON_TENSORFLOW1",
    "tensorflow": "TINYFLOW_BENCH_PYTHON_TENSORFLOW",
}


def family(contestant):
    """The longest key of INTERPRETERS that the contestant's name starts with."""
    return max((name for name in INTERPRETERS if contestant.startswith(name)), key=len)


def interpreter(contestant):
    """The Python that runs a contestant; None when it must be named and is not."""
    name = family(contestant)
    fallback = None if name == "tensorflow 1" else sys.executable
    return os.environ.get(INTERPRETERS[name]) or fallback


def load(contestant):
    """Import what the contestant needs; ImportError when it is not there."""
    imports = {
        "numpy": lambda: importlib.import_module("numpy"),
        "tinyflow": tinyflow,
        "torch": torch,
        "jax": jax,
        # A process is in graph mode or not; which of them, the workload says.
        "tensorflow 1": tensorflow2,
        "tensorflow": tensorflow2,
    }
    return imports[family(contestant)]()


def core_count():
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def tinyflow():
    import tinyflow

    # Until the front end is in place the name is an empty package: that counts as absent.
    if not hasattr(tinyflow, "Session"):
        raise ImportError("tinyflow has no Session")
    return tinyflow


def torch():
    import torch

    torch.set_num_threads(core_count())
    return torch


def jax():
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax

    return jax


def tensorflow2():
    """(tensorflow, tensorflow.compat.v1): functions and variables of 2, names of 1."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow

    return tensorflow, tensorflow.compat.v1


def tensorflow():
    """tensorflow.compat.v1 in graph mode."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow

        tf1 = tensorflow.compat.v1
        # As TensorFlow 1 programs had it: graphs, and variables that are read where they stand.
        tf1.disable_v2_behavior()
    return tf1


def version(module):
    """What a table prints for a module."""
    found = getattr(module, "__version__", None) or getattr(module, "VERSION", None)
    return str(found or "source")
