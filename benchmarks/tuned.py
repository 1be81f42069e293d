"""How far the automatic scheduler's defaults are from what a search finds: ten kernels.

    python -m benchmarks.tuned [--seconds N] [--only PART] [--write]

Each kernel is searched for N seconds; then default and finding run in turns. On one thread, by
that thread's own CPU time, which other programs disturb least. --write renews the table between
`<!-- tuned -->` and `<!-- /tuned -->` in docs/schedules.md.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.search import compared, layer, undisturbed, workload_of
from tinyflow import ops
from tinyflow.schedule import tuning
from tinyflow.schedule.targets import host_target
from tinyflow.schedule.tuning import SweepTuning
from tinyflow.tune import Workload, tune
from tinyflow.tune.cost_model import CostModel
from tinyflow.tune.space import shown

PAGE = Path(__file__).resolve().parent.parent / "docs" / "schedules.md"
_SECTION = re.compile(r"(<!-- tuned -->\n)(.*?)(<!-- /tuned -->)", re.DOTALL)


def _gelu(x: Any) -> Any:
    half = ops.multiply(x, ops.constant(0.5))
    return ops.multiply(half, ops.add(ops.erf(ops.multiply(x, ops.constant(0.7071))), 1.0))


def _sweep(build: Callable[..., Any], *shapes: tuple[int, ...]) -> Callable[[], Workload]:
    return lambda: workload_of(build, *shapes, kind=SweepTuning)


def _product(m: int, k: int, n: int) -> Callable[[], Workload]:
    return lambda: workload_of(ops.matmul, (m, k), (k, n))


KERNELS: dict[str, Callable[[], Workload]] = {
    "product 512x512x512": _product(512, 512, 512),
    "product 100x784x500": _product(100, 784, 500),
    "product 1024x64x1024": _product(1024, 64, 1024),
    "convolution 56x56 64->64 3x3": lambda: layer(56, 64, 64, 3, 1),
    "convolution 28x28 512->256 1x1": lambda: layer(28, 512, 256, 1, 1),
    "convolution 14x14 256->256 3x3": lambda: layer(14, 256, 256, 3, 1),
    "convolution 7x7 512->512 3x3": lambda: layer(7, 512, 512, 3, 1),
    "softmax of 1024x1000": _sweep(ops.softmax, (1024, 1000)),
    "tanh of 1000000": _sweep(ops.tanh, (1000000,)),
    "gelu of 512x3072": _sweep(_gelu, (512, 3072)),
}


def row(name: str, workload: Workload, seconds: float, models: dict[Any, CostModel]) -> str:
    """Searches, compares again, and says what came out."""
    model = models.setdefault(workload.kind, CostModel())
    finding = tune(workload, seconds, model=model)
    ratio = compared(workload, {finding.tuning})[finding.tuning]
    better = finding.tuning if ratio < 1 else workload.kind()
    best = min(ratio, 1.0)
    default_us = finding.default_s * 1e6
    return (
        f"| {name} | {default_us:.1f} | {default_us * best:.1f} | {1 / best:.2f} | "
        f"{finding.tried} | {shown(better)} |"
    )


def table(seconds: float, part: str) -> list[str]:
    lines = ["| kernel | default, us | tuned, us | default / tuned | measured | schedule |",
             "|---|--:|--:|--:|--:|---|"]  # fmt: skip
    models: dict[Any, CostModel] = {}
    for name, make in KERNELS.items():
        if part in name:
            lines.append(row(name, make(), seconds, models))
            print(lines[-1], file=sys.stderr, flush=True)
    return lines


def summary(lines: list[str]) -> str:
    """The largest and the mean gain of the table's rows."""
    gains = [float(line.split("|")[4]) for line in lines[2:]]
    mean = math.exp(sum(map(math.log, gains)) / len(gains))
    return f"On the whole {mean:.2f}, at most {max(gains):.2f}. One thread of {host_target().cpu}."


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tuned", description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each search, default 15")
    parser.add_argument("--only", default="", metavar="PART", help="kernels with this in the name")
    parser.add_argument("--write", action="store_true", help="renew the table of the page")
    options = parser.parse_args(arguments)
    undisturbed()
    with tuning.log_at(None):
        lines = table(options.seconds, options.only)
    text = "\n".join([*lines, "", summary(lines)])
    print(text)
    if options.write:
        page = PAGE.read_text(encoding="utf-8")
        page = _SECTION.sub(lambda m: f"{m[1]}{text}\n{m[3]}", page)
        PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    os.environ["TINYFLOW_NUM_THREADS"] = "1"
    sys.exit(main(sys.argv[1:]))
