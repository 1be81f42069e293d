"""Nested structures of tensors: lists, tuples, named tuples, dictionaries (by sorted key).

Main functions: ``flatten``, ``pack_as``, ``same_structure``. Imports core only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tinyflow.core.error import InvalidArgumentError

__all__ = ["flatten", "is_nested", "map_structure", "pack_as", "same_structure"]


def is_nested(structure: Any) -> bool:
    return isinstance(structure, (list, tuple, dict))


def _children(structure: Any) -> list[Any]:
    if isinstance(structure, dict):
        return [structure[key] for key in sorted(structure)]
    return list(structure)


def flatten(structure: Any) -> list[Any]:
    """The leaves from left to right; something that is no structure is its own leaf."""
    if not is_nested(structure):
        return [structure]
    return [leaf for child in _children(structure) for leaf in flatten(child)]


def pack_as(structure: Any, leaves: Sequence[Any]) -> Any:
    """Something shaped like ``structure`` with these leaves."""
    remaining = iter(leaves)
    packed = _pack(structure, remaining)
    if next(remaining, remaining) is not remaining:
        raise InvalidArgumentError(f"{len(leaves)} leaves are too many for {structure}")
    return packed


def _pack(structure: Any, leaves: Iterator[Any]) -> Any:
    if not is_nested(structure):
        try:
            return next(leaves)
        except StopIteration:
            raise InvalidArgumentError(f"too few leaves for {structure}") from None
    children = [_pack(child, leaves) for child in _children(structure)]
    if isinstance(structure, dict):
        by_key = dict(zip(sorted(structure), children, strict=True))
        return type(structure)((key, by_key[key]) for key in structure)
    if hasattr(structure, "_fields"):
        return type(structure)(*children)
    return type(structure)(children)


def map_structure(function: Any, *structures: Any) -> Any:
    """``function`` of the leaves at equal places, in the first one's structure."""
    columns = zip(*map(flatten, structures), strict=True)
    return pack_as(structures[0], [function(*leaves) for leaves in columns])


def same_structure(one: Any, other: Any) -> bool:
    """Whether both have leaves at the same places (list and tuple are the same here)."""
    if is_nested(one) != is_nested(other):
        return False
    if not is_nested(one):
        return True
    if isinstance(one, dict) != isinstance(other, dict):
        return False
    if isinstance(one, dict) and sorted(one) != sorted(other):
        return False
    a, b = _children(one), _children(other)
    return len(a) == len(b) and all(map(same_structure, a, b))
