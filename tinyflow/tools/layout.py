"""Text for a terminal of 100 columns: headings, tables, wrapped lines, quantities.

Main functions: ``heading``, ``table``, ``wrapped``, ``shortened``. Imports the standard library.
Everything is ASCII, so that it can be piped anywhere.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

WIDTH = 100


def heading(title: str, note: str = "") -> list[str]:
    """A blank line and ``== title ========== note ==``."""
    right = f" {note} ==" if note else ""
    left = f"== {title} "
    return ["", left + "=" * max(2, WIDTH - len(left) - len(right)) + right]


def shortened(text: str, width: int) -> str:
    """The text on one line of at most ``width`` characters; "..." stands for what is cut."""
    text = text.replace("\n", " ").rstrip()
    return text if len(text) <= width else text[: max(0, width - 3)].rstrip() + "..."


def wrapped(text: str, indent: str = "", hanging: str | None = None) -> list[str]:
    """The text in lines of at most WIDTH; lines after the first start with ``hanging``."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + "    " if hanging is None else hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )


def table(
    rows: Iterable[Sequence[str]],
    align: str,
    header: Sequence[str] = (),
    indent: str = "  ",
    flexible: Sequence[int] = (),
    wrap: bool = False,
) -> list[str]:
    """Rows in aligned columns, two blanks apart.

    align: "l" or "r" per column. flexible: columns that give way, the widest first, when a line
    would be longer than WIDTH; their cells are shortened, or continued on further lines (wrap).
    """
    cells = [list(map(str, row)) for row in rows]
    everything = [list(header), *cells] if header else cells
    if not everything:
        return []
    widths = [max(len(row[n]) for row in everything) for n in range(len(align))]
    for _ in range(len(indent) + sum(widths) + 2 * (len(align) - 1) - WIDTH):
        widest = max(flexible, key=lambda n: widths[n], default=None)
        if widest is None or widths[widest] <= 12:
            break
        widths[widest] -= 1
    if wrap:
        everything = [part for row in everything for part in _continued(row, widths)]
    else:
        everything = [list(map(shortened, row, widths)) for row in everything]
    lines = [indent + "  ".join(map(_aligned, row, widths, align)) for row in everything]
    if header:
        lines.insert(1, indent + "  ".join("-" * w for w in widths))
    return [line.rstrip() for line in lines]


def _aligned(cell: str, width: int, how: str) -> str:
    return cell.rjust(width) if how == "r" else cell.ljust(width)


def _continued(row: Sequence[str], widths: Sequence[int]) -> list[list[str]]:
    """The row as several, where a cell is longer than its column."""
    parts = [textwrap.wrap(c, max(1, w)) or [""] for c, w in zip(row, widths, strict=True)]
    height = max(map(len, parts))
    return [[part[n] if n < len(part) else "" for part in parts] for n in range(height)]


def cut(lines: Sequence[str], limit: int, how_to_see: str) -> list[str]:
    """At most ``limit`` lines, then one that says how many are missing."""
    if len(lines) <= limit + 1:
        return list(lines)
    return [*lines[:limit], f"  ... {len(lines) - limit:,} more lines: {how_to_see}"]


def size(size_bytes: float) -> str:
    """1536 -> "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.4g} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.4g} GiB"


def duration(seconds: float) -> str:
    """Seconds in the unit that a person would choose: us, ms or s."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} us"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.2f} s"


def plural(count: int, noun: str, several: str | None = None) -> str:
    """(1, "kernel") -> "1 kernel", (3, "kernel") -> "3 kernels"."""
    return f"{count:,} {noun if count == 1 else several or noun + 's'}"
