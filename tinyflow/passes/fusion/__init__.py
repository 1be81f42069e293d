"""Fusion: which nodes share a kernel. See ``fuser`` for how, ``groups`` for the kinds.

Main names: ``fuse_groups``, ``Grouping``, ``Group``, ``Item``, ``Decision``. May import core, ir
and te.
"""

from tinyflow.passes.fusion.decisions import Decision
from tinyflow.passes.fusion.fuser import fuse_groups
from tinyflow.passes.fusion.groups import Group, Grouping
from tinyflow.passes.fusion.items import Item, in_memory, is_one, squeeze, stretched
from tinyflow.passes.fusion.joining import MAX_ITEMS, MAX_ROW

__all__ = [
    "MAX_ITEMS",
    "MAX_ROW",
    "Decision",
    "Group",
    "Grouping",
    "Item",
    "fuse_groups",
    "in_memory",
    "is_one",
    "squeeze",
    "stretched",
]
