"""``tf.recompute_grad``: gradients that compute a function's values again instead of keeping them.

Main functions: ``recompute_grad``, ``recompute_sequential``. May import core, ir and passes'
word for a mark.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tinyflow.core.error import InvalidArgumentError
from tinyflow.core.source import user_frame
from tinyflow.ir.graph.builder import current_builder
from tinyflow.passes.recomputation import MARK

_calls: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


def recompute_grad(f: Callable[..., Any], *_: Any, **__: Any) -> Callable[..., Any]:
    """``f``, whose inner values gradients compute again: less memory for one more forward pass.

    f: any function of tensors; a call of the result gives what a call of ``f`` gives. Of each call
    only arguments and results (and what other code reads) stay in memory until the gradient. Same
    ops on the same inputs: values and gradients keep their bits, dropout its random numbers.
    Values inside of a ``while_loop`` or ``cond`` are kept. Further arguments (``use_data_dep``,
    ``tupleize_grads`` of ``tf.contrib.layers``) are accepted and change nothing.
    """
    if not callable(f):
        raise InvalidArgumentError(
            f"recompute_grad: {f!r} is not callable", expected="a function of tensors"
        )

    @functools.wraps(f)
    def call(*args: Any, **kwargs: Any) -> Any:
        with _marked():
            return f(*args, **kwargs)

    return call


def recompute_sequential(layers: Iterable[Callable[[Any], Any]], x: Any, every: int = 1) -> Any:
    """``layers[-1](... layers[0](x))``; only the input of every ``every``-th layer is kept.

    With ``every`` near the square root of the number of layers the memory for a chain of n equal
    layers grows with sqrt(n). Errors: InvalidArgumentError for ``every`` below 1.
    """
    if every < 1:
        raise InvalidArgumentError(f"recompute_sequential: every={every}", expected="1 or more")
    functions = list(layers)

    def run(part: list[Callable[[Any], Any]], value: Any) -> Any:
        for layer in part:
            value = layer(value)
        return value

    for n in range(0, len(functions), every):
        x = recompute_grad(functools.partial(run, functions[n : n + every]))(x)
    return x


@contextmanager
def _marked() -> Iterator[None]:
    """Nodes made inside carry the mark of one call."""
    builder = current_builder()
    _calls[builder] = _calls.get(builder, 0) + 1
    before = builder.origin
    builder.origin = (*before, (f"{MARK}{_calls[builder]}", user_frame(2)))
    try:
        yield
    finally:
        builder.origin = before
