"""Tables of contests, as text and Markdown.

Main names: rows, matrix, summary (lines of cells), table, markdown, describe_machine.
May import: the standard library, benchmarks.harness and benchmarks.work.
"""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path

from benchmarks.harness import Contest, Timing
from benchmarks.rivals import core_count
from benchmarks.work import Work

#: floating-point operations and bytes per second
Peaks = tuple[float, float]
_SCALES = {"s": 1.0, "ms": 1e3, "us": 1e6}


def base_of(contest: Contest) -> Timing | None:
    """What ratios are taken to: the contest's base, or the fastest where that is absent."""
    timed = [timing for timing in contest.timings if timing.rounds]
    for timing in timed:
        if timing.contestant == contest.base:
            return timing
    return min(timed, key=lambda timing: timing.median, default=None)


def rows(contest: Contest, work: Work | None = None, peaks: Peaks | None = None):
    """Header and one row per contestant: median, range, ratio of medians, rate, share, compilation,
    memory, version. Columns that nobody has a number for are left out.

    work: what one step has to do. peaks: of the machine; with them the share of its roofline.
    """
    base = base_of(contest)
    ratio_head = f"/ {base.contestant}" if base else "ratio"
    columns = {"contestant": lambda timing: timing.contestant}
    scale = _SCALES[contest.unit]

    def timed(function):
        return lambda timing: function(timing) if timing.rounds else "-"

    columns[f"median {contest.unit}"] = timed(lambda t: digits(t.median * scale))
    columns["min - max"] = timed(
        lambda t: f"{digits(min(t.rounds) * scale)} - {digits(max(t.rounds) * scale)}"
    )
    columns[ratio_head] = timed(lambda t: f"{t.median / base.median:.2f}x")
    if work:
        head, amount = _rate(work, peaks)
        columns[head] = timed(lambda t: digits(amount / t.median))
        if peaks:
            columns["of roofline"] = timed(lambda t: f"{work.seconds(*peaks) / t.median:.0%}")
    for head, field in (("cold s", "cold_seconds"), ("warm s", "warm_seconds")):
        if any(getattr(timing, field) is not None for timing in contest.timings):
            columns[head] = lambda t, field=field: _optional(getattr(t, field), 1)
    if work and any(timing.memory_bytes is not None for timing in contest.timings):
        columns["peak MB"] = lambda t: _optional(t.memory_bytes, 1e-6)
    columns["version"] = lambda t: " ".join(filter(None, [t.version, t.trouble]))
    body = [[column(timing) for column in columns.values()] for timing in contest.timings]
    return [list(columns), *body]


def _rate(work: Work, peaks: Peaks | None) -> tuple[str, float]:
    """(unit, amount) of what bounds the work; without peaks arithmetic, where there is any."""
    arithmetic = work.is_arithmetic(*peaks) if peaks else work.flops > 0
    if arithmetic:
        return "GFLOP/s", work.flops / 1e9
    return "GB/s", work.size_bytes / 1e9


def _optional(value: float | None, scale: float) -> str:
    return "-" if value is None else digits(value * scale)


def matrix(contests: list[Contest]) -> list[list[str]]:
    """One row per case, one column per contestant: medians, the least of a row in bold."""
    names: list[str] = []
    for contest in contests:
        names += [t.contestant for t in contest.timings if t.contestant not in names]
    lines = [[f"median {contests[0].unit}", *names]]
    for contest in contests:
        found = {t.contestant: t.median for t in contest.timings if t.rounds}
        best = min(found.values(), default=math.nan)
        scale = _SCALES[contest.unit]
        cells = [digits(found[name] * scale) if name in found else "-" for name in names]
        for place, name in enumerate(names):
            if found.get(name) == best:
                cells[place] = f"**{cells[place]}**"
        lines.append([contest.case_name, *cells])
    return lines


def ours(contest: Contest) -> Timing | None:
    """TinyFlow's timing, if it took part."""
    return next((t for t in contest.timings if t.contestant == "tinyflow" and t.rounds), None)


def best_rival(contest: Contest) -> Timing | None:
    """The fastest of the others whose values agree."""
    rivals = [
        timing
        for timing in contest.timings
        if timing.rounds and not timing.trouble and not timing.contestant.startswith("tinyflow")
    ]
    return min(rivals, key=lambda timing: timing.median, default=None)


def speedup(contest: Contest) -> float:
    """How many times TinyFlow is faster than the best rival; nan where one of them is missing."""
    mine, rival = ours(contest), best_rival(contest)
    if mine is None or mine.trouble or rival is None:
        return math.nan
    return rival.median / mine.median


def summary(entries: list[tuple[Contest, Work | None]], peaks: Peaks | None) -> list[list[str]]:
    """One row per contest: TinyFlow, the best rival, their ratio, the share of the roofline."""
    lines = [["workload", "tinyflow", "best rival", "its time", "faster by", "of roofline"]]
    for contest, work in entries:
        mine, rival = ours(contest), best_rival(contest)
        ratio, scale = speedup(contest), _SCALES[contest.unit]
        share = work.seconds(*peaks) / mine.median if work and peaks and mine else math.nan
        lines.append(
            [
                f"{contest.title.split(':')[0]}: {contest.case_name}",
                f"{digits(mine.median * scale)} {contest.unit}" if mine else "-",
                rival.contestant if rival else "-",
                f"{digits(rival.median * scale)} {contest.unit}" if rival else "-",
                "-" if math.isnan(ratio) else f"{ratio:.2f}x",
                "-" if math.isnan(share) else f"{share:.0%}",
            ]
        )
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


def digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0 or not math.isfinite(value):
        return str(value)
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
