"""A square block turned in registers.

Main function: ``transpose_block``. Imports nothing.

Source: the recursive transposition of Eklundh (1972): log2(lanes) steps, each of which exchanges
the off-diagonal halves of blocks of 2, 4, 8 ... rows; lanes * log2(lanes) two-input shuffles.
"""

from __future__ import annotations

from collections.abc import Callable

Emit = Callable[[str], str]


def transpose_block(emit: Emit, rows: list[str], ty: str) -> list[str]:
    """The columns of ``rows`` (vectors of type ``ty``, as many as they have lanes)."""
    lanes = len(rows)
    rows = list(rows)
    step = lanes // 2
    while step:
        low = [n if not n & step else lanes + n - step for n in range(lanes)]
        high = [n + step if not n & step else lanes + n for n in range(lanes)]
        for n in range(lanes):
            if not n & step:
                a, b = rows[n], rows[n + step]
                rows[n], rows[n + step] = (
                    emit(f"shufflevector {ty} {a}, {ty} {b}, <{lanes} x i32> {_order(order)}")
                    for order in (low, high)
                )
        step //= 2
    return rows


def _order(lanes: list[int]) -> str:
    return "<" + ", ".join(f"i32 {n}" for n in lanes) + ">"
