"""What to say about a public name that does not exist, or not yet.

Main function: ``missing``. Imported only on the way to an error.
"""

from __future__ import annotations

import difflib

from tinyflow.core.error import NotFoundError, TinyFlowError, Unsupported
from tinyflow.frontends.tf1.namespace import names_in
from tinyflow.frontends.tf1.spelling import closest
from tinyflow.frontends.tf1.symbols import TARGETS

__all__ = ["MissingNameError", "UnsupportedNameError", "missing"]

#: what works in place of a known name that is not here
_INSTEAD = {
    "while_loop": "a Python loop builds the steps into the graph; or loop around sess.run",
    "cond": "tf.where(condition, x, y) computes both sides and chooses",
    "case": "nested tf.where",
    "map_fn": "write the operation for the whole batch: most functions broadcast",
    "train.Saver": "np.savez(path, **dict(zip(names, sess.run(variables)))) and var.load(array)",
    "layers.dense": "tf.matmul(x, w) + b with w and b from tf.get_variable",
    "enable_eager_execution": "a graph and a tf.Session",
}


class MissingNameError(NotFoundError, AttributeError):
    """No such public name."""


class UnsupportedNameError(Unsupported, AttributeError):
    """A public name of TensorFlow 1.15 that TinyFlow does not have yet."""


def missing(path: str) -> TinyFlowError:
    """The error for ``tf.<path>``: unsupported if TensorFlow has it, else unknown."""
    from tinyflow.frontends.tf1.known_symbols import is_known

    space, _, name = path.rpartition(".")
    if is_known(path):
        return UnsupportedNameError(
            f"tf.{path} is part of TensorFlow 1.15 but not supported yet",
            hint=_INSTEAD.get(path) or "docs list what there is, so does dir(tf)",
        )
    return MissingNameError(
        f"module 'tinyflow{'.' + space if space else ''}' has no attribute '{name}'",
        hint=_suggestion(space, name),
        choices=_nearby(space, name) or None,
    )


def _suggestion(space: str, name: str) -> str | None:
    match = closest(name, names_in(space))
    if match is not None:
        return f"did you mean tf.{space + '.' if space else ''}{match}?"
    elsewhere = [p for p in TARGETS if p.rpartition(".")[2] == name]
    return f"did you mean tf.{elsewhere[0]}?" if elsewhere else None


def _nearby(space: str, name: str) -> list[str]:
    """All names of a small namespace; of a big one those that look alike."""
    names = sorted(names_in(space))
    if len(names) <= 40:
        return names
    lower = {n.lower(): n for n in names}
    return [lower[n] for n in difflib.get_close_matches(name.lower(), lower, n=8, cutoff=0.45)]
