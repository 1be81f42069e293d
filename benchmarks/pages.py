"""Tables in pages: what stands between `<!-- bench:NAME -->` and `<!-- /bench -->`.

Main functions: write_pages. May import: the neighbours in this folder.
"""

from __future__ import annotations

import functools
import math
import os
import re
import statistics
from collections.abc import Callable
from pathlib import Path

from benchmarks import plot, report
from benchmarks.results import Results

_SECTION = re.compile(r"(<!-- bench:([\w ]+) -->\n)(.*?)(<!-- /bench -->)", re.DOTALL)
_CAPTION = "Time of a step relative to TinyFlow"
_TABLE = re.compile(r"^\|.*\|\n(?:\|.*\|\n)*", re.MULTILINE)


def write_pages(results: Results, folder: Path) -> list[Path]:
    """Renew the tables of README.md and docs/performance.md, and the plot; the files written.

    A section named "plot" gets the picture. Words that a section has before or behind its table
    stay, and so does a section whose workload has not been measured.
    """
    written = []
    picture = folder / "docs" / "performance.svg"
    drawing = plot.speedups([(entry.workload, entry.contest) for entry in results.entries])
    if drawing:
        picture.write_text(drawing, encoding="utf-8")
        written.append(picture)
    for path in (folder / "README.md", folder / "docs" / "performance.md"):
        text = path.read_text(encoding="utf-8")
        shown = os.path.relpath(picture, path.parent) if drawing else ""
        renewed = _SECTION.sub(functools.partial(_renewed, results, shown), text)
        if renewed != text:
            path.write_text(renewed, encoding="utf-8")
            written.append(path)
    return written


def _renewed(results: Results, picture: str, match: re.Match) -> str:
    opening, name, old, closing = match.groups()
    if name == "plot":
        return f"{opening}![{_CAPTION}]({picture})\n{closing}" if picture else match[0]
    new = section(name, results)
    if new is None:
        return match[0]
    tables = list(_TABLE.finditer(old))
    start, end = (tables[0].start(), tables[-1].end()) if tables else (len(old), len(old))
    return f"{opening}{old[:start]}{new}{old[end:]}{closing}"


def section(name: str, results: Results) -> str | None:
    """The table of a section in Markdown; None when there is nothing to show."""
    special: dict[str, Callable[[Results], list[list[str]] | None]] = {
        "summary": _summary,
        "training summary": _training_summary,
    }
    if name in special:
        lines = special[name](results)
        return None if lines is None else report.markdown(lines) + "\n"
    entries = results.of(name)
    if not entries:
        return None
    if len(entries) > 2 or (len(entries) == 2 and entries[0].work is None):
        return report.markdown(report.matrix([entry.contest for entry in entries])) + "\n"
    tables = []
    for entry in entries:
        lines = report.rows(entry.contest, entry.work, results.peaks)
        if len(entries) > 1:
            lines[0][0] = entry.contest.case_name
        tables.append(report.markdown(lines) + "\n")
    return "\n".join(tables)


def _summary(results: Results) -> list[list[str]] | None:
    entries = [(entry.contest, entry.work) for entry in results.entries if entry.work]
    return report.summary(entries, results.peaks) if entries else None


def _training_summary(results: Results) -> list[list[str]] | None:
    entries = [entry for entry in results.entries if "training step" in entry.contest.title]
    if not entries:
        return None
    lines = report.summary([(e.contest, e.work) for e in entries], results.peaks)
    ratios = [report.speedup(entry.contest) for entry in entries]
    ratios = [ratio for ratio in ratios if not math.isnan(ratio)]
    if len(ratios) > 1:
        mean = statistics.geometric_mean(ratios)
        lines.append(["geometric mean", "", "", "", f"{mean:.2f}x", ""])
    return lines
