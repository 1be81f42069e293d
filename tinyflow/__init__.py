"""TinyFlow: TensorFlow-1 graphs, differentiated, optimised and compiled to native code.

``import tinyflow as tf``: the names of ``tinyflow.frontends.tf1``, and nothing else.
"""

import importlib
import os
from typing import Any

from tinyflow.frontends import tf1

__version__ = "0.1.0"

_HERE = os.path.dirname(__file__)


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module 'tinyflow' has no attribute '{name}'")
    if os.path.isdir(os.path.join(_HERE, name)):  # a real sub-package, such as tinyflow.te
        return importlib.import_module(f"tinyflow.{name}")
    try:
        found = globals()[name] = tf1.resolve(name)
    except AttributeError as error:
        tf1.hide_frames(error)
        raise
    return found


def __dir__() -> list[str]:
    return tf1.__dir__()
