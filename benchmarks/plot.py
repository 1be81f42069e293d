"""A picture of the results: bars of medians relative to TinyFlow, as SVG written by hand.

Main functions: speedups. May import: benchmarks.harness and benchmarks.report.
"""

from __future__ import annotations

import math
from html import escape

from benchmarks import report
from benchmarks.harness import Contest

_COLOURS = {
    "tinyflow": "#1b7f5c",
    "torch eager": "#f3a183",
    "torch.compile": "#d9481c",
    "jax.jit": "#7a5bb5",
    "tensorflow": "#f0c04a",
    "tensorflow xla": "#b8860b",
}
_LEFT, _WIDTH, _RIGHT = 250, 520, 60
_BAR, _GAP, _TOP = 9, 12, 64
_MOST = 8.0  # what is slower by more ends there, with its number


def speedups(entries: list[tuple[str, Contest]]) -> str:
    """Bars of time / TinyFlow's time on a logarithmic scale: longer is slower, 1 is TinyFlow.

    One group per contest that has TinyFlow and a rival of the legend; "" when there is none.
    Workloads of many cases (convolution) are left to the tables.
    """
    cases = [workload for workload, _ in entries]
    groups = [
        (workload, contest)
        for workload, contest in entries
        if cases.count(workload) <= 4 and not math.isnan(report.speedup(contest))
    ]
    if not groups:
        return ""
    parts = [_legend()]
    y = _TOP
    for workload, contest in groups:
        part, y = _group(workload, contest, y)
        parts.append(part)
    height = y + 24
    grid = "".join(_tick(ratio, height) for ratio in (0.5, 1, 2, 4, 8))
    width = _LEFT + _WIDTH + _RIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="11">\n'
        f'<rect width="{width}" height="{height}" fill="white"/>\n'
        f"{grid}{''.join(parts)}</svg>\n"
    )


def _x(ratio: float) -> float:
    """Where a ratio lies: 0.5 at the left edge, the most at the right."""
    part = math.log2(min(max(ratio, 0.5), _MOST) / 0.5) / math.log2(_MOST / 0.5)
    return _LEFT + _WIDTH * part


def _text(x: float, y: float, words: str, extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {extra}>{escape(words)}</text>\n'


def _tick(ratio: float, height: int) -> str:
    x = _x(ratio)
    colour = "#444" if ratio == 1 else "#ddd"
    line = f'<line x1="{x:.1f}" y1="{_TOP - 8}" x2="{x:.1f}" y2="{height - 18}" stroke="{colour}"/>'
    return line + "\n" + _text(x, height - 6, f"{ratio:g}x", 'text-anchor="middle" fill="#555"')


def _legend() -> str:
    title = "Time of a step relative to TinyFlow (shorter is faster)"
    parts = [_text(8, 18, title, 'font-size="14"')]
    x = 8
    for name, colour in _COLOURS.items():
        parts.append(f'<rect x="{x}" y="30" width="10" height="10" fill="{colour}"/>\n')
        parts.append(_text(x + 14, 39, name))
        x += 30 + 7 * len(name)
    return "".join(parts)


def _group(workload: str, contest: Contest, y: int) -> tuple[str, int]:
    mine = report.ours(contest)
    assert mine is not None  # the caller took only contests with a speedup
    shown = [t for t in contest.timings if t.contestant in _COLOURS and t.rounds and not t.trouble]
    middle = y + len(shown) * _BAR / 2 + 4
    name = f"{workload.replace('_', ' ')}, {contest.case_name}"
    parts = [_text(_LEFT - 8, middle, name, 'text-anchor="end"')]
    start = _x(0.5)
    for timing in shown:
        ratio = timing.median / mine.median
        end = _x(ratio)
        parts.append(
            f'<rect x="{start:.1f}" y="{y}" width="{end - start:.1f}" height="{_BAR - 1}" '
            f'fill="{_COLOURS[timing.contestant]}"><title>{escape(timing.contestant)} '
            f"{ratio:.2f}x</title></rect>\n"
        )
        if ratio > _MOST:
            parts.append(_text(end + 4, y + _BAR - 1, f"{ratio:.0f}x", 'font-size="9"'))
        y += _BAR
    return "".join(parts), y + _GAP
