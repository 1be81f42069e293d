"""The public face: TensorFlow-1's names. ``import tinyflow as tf`` shows this module.

Names are found by ``namespace.resolve`` through the table in ``symbols`` when they are first used,
so that importing costs nothing. May import all of this package.
"""

from __future__ import annotations

from typing import Any

from tinyflow.frontends.tf1.namespace import hide_frames, install_import_hook, names_in, resolve

install_import_hook()


def __getattr__(name: str) -> Any:
    try:
        return resolve(name)
    except AttributeError as error:
        hide_frames(error)
        raise


def __dir__() -> list[str]:
    return sorted(names_in(""))
