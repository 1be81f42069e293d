"""Tables of contests, as text and Markdown.

Main names: table, markdown, describe_machine.
May import: the standard library and benchmarks.harness.
"""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path

from benchmarks.harness import Contest, Timing
from benchmarks.rivals import core_count

_SCALES = {"s": 1.0, "ms": 1e3, "us": 1e6}


def base_of(contest: Contest) -> Timing | None:
    """What ratios are taken to: the contest's base, or the fastest where that is absent."""
    timed = [timing for timing in contest.timings if timing.rounds]
    for timing in timed:
        if timing.contestant == contest.base:
            return timing
    return min(timed, key=lambda timing: timing.median, default=None)


def rows(contest: Contest, work=None) -> list[list[str]]:
    """Header and one row per contestant: median, range, ratio of medians, rate, version.

    work: case -> (amount, unit per second), where the workload counts flops or bytes.
    """
    base = base_of(contest)
    ratio_head = f"/ {base.contestant}" if base else "ratio"
    header = ["contestant", f"median {contest.unit}", "min - max", ratio_head]
    if work:
        amount, rate_unit = work(contest.case)
        header.append(rate_unit)
    header.append("version")
    lines = [header]
    for timing in contest.timings:
        line = [timing.contestant]
        if timing.rounds:
            scale = _SCALES[contest.unit]
            span = f"{_digits(min(timing.rounds) * scale)} - {_digits(max(timing.rounds) * scale)}"
            line += [_digits(timing.median * scale), span, f"{timing.median / base.median:.2f}x"]
            if work:
                line.append(_digits(amount / timing.median))
        else:
            line += ["-"] * (len(header) - 2)
        line.append(" ".join(filter(None, [timing.version, timing.trouble])))
        lines.append(line)
    return lines


def table(lines: list[list[str]]) -> str:
    """Columns in plain text: names left, numbers right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    last = len(widths) - 1
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place in (0, last) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown(lines: list[list[str]]) -> str:
    """The same columns as a Markdown table."""
    header, *body = lines
    rule = ["---", *["---:"] * (len(header) - 2), "---"]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *body])


def describe_machine() -> str:
    """One line: processor, cores, system, Python."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan
    return (
        f"{model}, {core_count()} cores, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, load {load:.1f} at the start"
    )


def _digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0 or not math.isfinite(value):
        return str(value)
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
