"""How the rows of an attention are cut: tiles, blocks of tiles, lengths that share a kernel.

Main types: ``Blocks``; ``blocks_of``, ``longest_for``. May import ir and schedule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ir.scalar.visit import plain
from tinyflow.schedule.attention_rows import FIRST, ROWS
from tinyflow.schedule.targets import Target

#: Rows of a block: each reads all of k and v from the second-level cache.
BLOCK_ROWS = 32
#: Rows of up to so many columns share a kernel where their number is an argument; or twice, four
#: times ... as many: a row has memory for the longest, and must not lie far from the next.
SHORTEST = 256
#: The task; the block, and how many tiles of rows it has.
TASK, BLOCK, TILES = s.var("task"), s.var("block"), s.var("tiles")


@dataclass
class Blocks:
    """``rows`` per register tile, ``tiles`` of them per block, ``count`` blocks of ``m`` rows.

    m may be an argument of the kernel.   lower: heights of the last tile where that is so.
    """

    m: Any
    rows: int
    tiles: int
    vectors: int
    lower: tuple[int, ...] = ()

    @property
    def height(self) -> int:
        return self.rows * self.tiles

    @property
    def count(self) -> Any:
        return _parts(self.m, self.height)

    def bound(self, block: Expr) -> dict[Expr, Expr]:
        """FIRST, ROWS and TILES of a block."""
        first = block * self.height
        return {
            FIRST: first,
            ROWS: _at_most(self.height, self.m, first),
            TILES: _at_most(self.tiles, _parts(self.m, self.rows), block * self.tiles),
        }


def _parts(total: Any, step: int) -> Any:
    """How many steps make the total, the last one perhaps shorter."""
    return plain((total + (step - 1)) // step) if isinstance(total, Expr) else -(-total // step)


def _at_most(step: int, total: Any, start: Expr) -> Expr:
    full = s.index(step)
    if isinstance(total, int) and total % step == 0:
        return full
    return s.minimum(full, s.index(total) - start)


def most_rows(target: Target) -> int:
    """Rows of a tile of two vectors that fills the registers."""
    return max(1, (target.vector_registers - 3) // 2)


def blocks_of(m: Any, fit: int, target: Target) -> Blocks:
    """At most ``fit`` rows, in tiles that fill the registers, blocks as equal as they can be."""
    most = most_rows(target)
    if not isinstance(m, int):
        lower = (-(-most // 3), -(-most * 2 // 3))
        return Blocks(m, most, max(1, min(fit, BLOCK_ROWS) // most), 2, lower)
    if fit < most:
        rows = min(fit, m)
        return Blocks(m, rows, 1, max(2, (target.vector_registers - 4) // (rows + 1)))
    rows = -(-m // -(-m // most))
    all_tiles = -(-m // rows)
    tiles = max(1, min(fit, BLOCK_ROWS) // rows)
    return Blocks(m, rows, -(-all_tiles // -(-all_tiles // tiles)), 2)


def longest_for(columns: int) -> int:
    """The most columns that a kernel for so many serves."""
    longest = SHORTEST
    while longest < columns:
        longest *= 2
    return longest
