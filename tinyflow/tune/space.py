"""The values that a search may give to the schedule parameters.

Main functions: ``seeds``, ``mutated``, ``drawn``, ``neighbours``. Imports schedule.tuning.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from tinyflow.schedule.targets import Target
from tinyflow.schedule.tuning import FORMS, ORDERS, ContractionTuning, SweepTuning, Tuning, settings

_BLOCKS = (1024, 2048, 4096, 8192, 16384, 32768, 65536)


def choices(kind: type[Tuning], target: Target) -> dict[str, tuple[Any, ...]]:
    """parameter -> values, None (the default) first."""
    if kind is SweepTuning:
        widths = (target.lanes // 2, target.lanes, target.lanes * 2, target.lanes * 4)
        return {"block": (None, *_BLOCKS), "lanes": (None, *widths), "prefetch": (None, 0, 1)}
    most = target.vector_registers
    rows = tuple(n for n in range(1, 17) if n < most)
    return {
        "rows": (None, *rows, 20, 24, 28),
        "vectors": (None, 1, 2, 3, 4, 6),
        "kc": (None, 64, 96, 128, 192, 256, 384, 512, 768, 1024),
        "group": (None, 4, 8, 12, 16, 32),
        "band_bytes": (None, 64 << 10, 96 << 10, 128 << 10, 192 << 10, 256 << 10),
        "form": (None, *FORMS),
        "order": (None, *ORDERS),
    }


def is_sensible(chosen: Tuning, target: Target) -> bool:
    """Whether a tile of this shape fits into the registers."""
    if isinstance(chosen, ContractionTuning) and chosen.rows and chosen.vectors:
        return chosen.rows * chosen.vectors + chosen.vectors < target.vector_registers
    return True


def seeds(kind: type[Tuning], target: Target) -> list[Tuning]:
    """Good first guesses: every form of a contraction, and the tiles that fill the registers."""
    if kind is SweepTuning:
        blocks = [SweepTuning(block=b) for b in (4096, 16384, 32768)]
        return [*blocks, SweepTuning(lanes=target.lanes * 2)]
    tiles = [
        ContractionTuning(rows=(target.vector_registers - v - 1) // v, vectors=v)
        for v in (1, 2, 3, 4)
    ]
    ways = [ContractionTuning(order=order) for order in ORDERS]
    return [*(ContractionTuning(form=form) for form in FORMS), *ways, *tiles]


def mutated(parent: Tuning, target: Target, random_numbers: random.Random) -> Tuning:
    """The parent with one or two parameters changed."""
    options = choices(type(parent), target)
    for _ in range(20):
        child = parent
        for name in random_numbers.sample(list(options), random_numbers.choice((1, 1, 2))):
            child = replace(child, **{name: random_numbers.choice(options[name])})
        if child != parent and is_sensible(child, target):
            return child
    return parent


def drawn(kind: type[Tuning], target: Target, random_numbers: random.Random) -> Tuning:
    """Each parameter by itself: half of the time the default, else any value."""
    for _ in range(20):
        child = kind(**{
            name: _half_default(values, random_numbers)
            for name, values in choices(kind, target).items()
        })  # fmt: skip
        if is_sensible(child, target):
            return child
    return kind()


def _half_default(values: tuple[Any, ...], random_numbers: random.Random) -> Any:
    if values[0] is None and random_numbers.random() < 0.5:
        return None
    return random_numbers.choice(values)


def neighbours(parent: Tuning, target: Target) -> list[Tuning]:
    """The parent with any one parameter changed."""
    found = [
        replace(parent, **{name: value})
        for name, values in choices(type(parent), target).items() for value in values
        if value != getattr(parent, name)
    ]  # fmt: skip
    return [child for child in found if is_sensible(child, target)]


def crossed(a: Tuning, b: Tuning, target: Target, random_numbers: random.Random) -> Tuning:
    """Each parameter from one of two parents."""
    mixed = {n: getattr(random_numbers.choice((a, b)), n) for n in choices(type(a), target)}
    child = type(a)(**mixed)
    return child if is_sensible(child, target) else a


def shown(chosen: Tuning) -> str:
    """``rows=7 vectors=4``; "default" when nothing is set."""
    return " ".join(f"{name}={value}" for name, value in settings(chosen).items()) or "default"
