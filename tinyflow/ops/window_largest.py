"""The largest element of a window, and where it lies: for max pooling, positions and dilation.

Main functions: ``first_largest`` (in kernels), ``where_largest`` (in references), ``lowest``.
May import core and te.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tinyflow import te
from tinyflow.core.dtype import DType, int32

#: the largest window whose taps are written out to find a place in it
MOST_TAPS = 1024


def lowest(dtype: Any) -> Any:
    """What is in no way larger than any element."""
    return -np.inf if dtype.is_floating else np.iinfo(dtype.numpy).min


def first_largest(here: Sequence[tuple[Any, Any]], dtype: DType, nan_wins: bool = True) -> Any:
    """The number (int32) of the first largest of (is it inside, element); ``len(here)`` for none.

    nan_wins: NaN is larger than any number; else no element is the largest beside a NaN.
    """
    worst, none = te.const(lowest(dtype), dtype), te.const(len(here), int32)
    inside_only = [(inside, te.select(inside, own, worst)) for inside, own in here]
    most = functools.reduce(te.maximum, [own for _, own in inside_only])
    # The smallest number that attains it: unlike a chain of selects, in which each step uses the
    # one before twice, this is as long as the window.
    numbers = []
    for number, (inside, own) in enumerate(here if nan_wins else inside_only):
        chosen = own.equal(most)
        if nan_wins and dtype.is_floating:
            chosen = chosen | own.not_equal(own)
        numbers.append(te.select(inside & chosen, te.const(number, int32), none))
    return functools.reduce(te.minimum, numbers)


def is_larger(own: Any, best: Any) -> Any:
    """For references: whether ``own`` takes the place of ``best``; NaN of any number's."""
    return own > best or (own != own and best == best)


def where_largest(x: Any, places: Iterable[tuple[int, ...]]) -> tuple[int, ...] | None:
    """For references: the first of ``places`` at which x is largest; None for no places."""
    best: Any = None
    for at in places:
        if best is None or is_larger(x[at], x[best]):
            best = at
    return best  # type: ignore[no-any-return]


def some_nan(rng: np.random.Generator, shape: tuple[int, ...], rest: float = -np.inf) -> Any:
    """For samples: an element in five is NaN, the others are ``rest``."""
    return np.where(rng.uniform(size=shape) < 0.2, np.nan, rest).astype(np.float32)
