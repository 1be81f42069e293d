"""TinyFlow: TensorFlow-1 graphs, differentiated, optimised and compiled to native code.

``import tinyflow as tf``: the names of ``tinyflow.frontends.tf1``, and nothing else.
"""

from typing import Any

from tinyflow.frontends import tf1

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    found = tf1.__getattr__(name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return tf1.__dir__()
