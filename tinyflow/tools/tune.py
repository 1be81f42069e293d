"""``python -m tinyflow tune SCRIPT``: faster schedules for a script's kernels, found by measuring.

Main functions: ``tune_script``, ``main``. May import everything below tools.

The script runs once, unchanged, to see which kernels it has and how much time each takes. Then the
heaviest are searched, each for its share of the time, and the findings go to the tuning log, which
every later run on such a machine reads. What the log knows already is not measured again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinyflow.schedule import tuning
from tinyflow.tools.kernel_table import step_times
from tinyflow.tools.layout import WIDTH, heading, plural, shortened, table
from tinyflow.tools.recording import Recording
from tinyflow.tools.script import ScriptFailed, run_script
from tinyflow.tune import Finding, Workload, tune, workloads_of
from tinyflow.tune.cost_model import CostModel
from tinyflow.tune.search import replayed
from tinyflow.tune.space import shown
from tinyflow.tune.strategies import STRATEGIES
from tinyflow.tune.workload import heaviest

#: Kernels below this share of the steps' time are left alone.
LEAST_SHARE = 0.01
#: A search shorter than this finds nothing.
LEAST_SECONDS = 2.0
_BAR = 24


def recorded_workloads(recording: Recording) -> list[Workload]:
    """Everything that can be tuned in the steps that ran, the heaviest first."""
    found: dict[str, Workload] = {}
    for recorded in recording.ran:
        if recorded.ran_once:
            continue  # an initialiser: its kernels are generic ones
        program = recorded.program
        seconds = _group_seconds(program)
        runs = max(1, step_times(program).runs)
        for workload in workloads_of(program.plan, {g: t * runs for g, t in seconds.items()}):
            known = found.setdefault(workload.signature, workload)
            if known is not workload:
                known.seconds += workload.seconds
                known.count += workload.count
    return heaviest(found.values())


def _group_seconds(program: Any) -> dict[Any, float]:
    """group -> median time of its kernels in one run of the program."""
    found: dict[Any, float] = {}
    for action, times in zip(program.launch_actions, step_times(program).kernels, strict=True):
        group = getattr(action, "group", None)
        if group is not None:
            found[group] = found.get(group, 0.0) + times.median_s
    return found


class ProgressBar:
    """One line on a terminal that is drawn over; nothing where the output is a file."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.label = ""
        self.drawn = bool(getattr(stream, "isatty", lambda: False)())

    def show(self, share: float, text: str) -> None:
        if self.drawn:
            filled = round(_BAR * share)
            bar = "#" * filled + "." * (_BAR - filled)
            line = shortened(f"{self.label} [{bar}] {share:4.0%} {text}", WIDTH - 1)
            self.stream.write(f"\r{line:<{WIDTH - 1}}")
            self.stream.flush()

    def end(self) -> None:
        if self.drawn:
            self.stream.write("\r" + " " * (WIDTH - 1) + "\r")
            self.stream.flush()


def search(
    workloads: Sequence[Workload],
    seconds: float,
    log: Path | None,
    bar: ProgressBar,
    strategy: str = "model",
) -> list[Finding]:
    """Findings for the heaviest workloads within the time; known ones come from the log."""
    total = sum(w.seconds for w in workloads) or 1.0
    known = [(w, replayed(w)) for w in workloads if w.seconds / total >= LEAST_SHARE]
    findings = [finding for _, finding in known if finding is not None]
    waiting = [w for w, finding in known if finding is None]
    models = {kind: CostModel() for kind in {w.kind for w in waiting}}
    waiting = waiting[: max(1, int(seconds // LEAST_SECONDS))]
    for number, workload in enumerate(waiting):
        weight = workload.seconds / (sum(w.seconds for w in waiting[number:]) or 1.0)
        own = max(LEAST_SECONDS, seconds * weight)
        bar.label = f"{number + 1}/{len(waiting)} {workload.name}"
        model = models[workload.kind]
        findings.append(tune(workload, own, log, bar.show, strategy=strategy, model=model))
        seconds = max(0.0, seconds - own)
    bar.end()
    return sorted(findings, key=lambda f: -f.workload.seconds)


def report(findings: Sequence[Finding], workloads: Sequence[Workload]) -> list[str]:
    """The table of what was found, and what it means for the whole program."""
    total = sum(w.seconds for w in workloads) or 1.0
    rows = [
        (
            f.workload.name, str(f.workload.count), f"{f.workload.seconds / total:.0%}",
            f"{f.default_s * 1e6:.1f}", f"{f.default_s * f.ratio * 1e6:.1f}",
            f"{1 / f.ratio:.2f}x", "log" if f.replayed else str(f.tried), shown(f.tuning),
        )
        for f in findings
    ]  # fmt: skip
    lines = heading("tuned kernels", plural(len(findings), "kernel"))
    header = ("kernel", "uses", "share", "before us", "after us", "faster", "tried", "schedule")
    lines += table(rows, "lrrrrrrl", header, flexible=(0, 7))
    saved = sum(f.saved_s for f in findings if not f.replayed) / total
    measured = sum(not f.replayed for f in findings)
    lines.append(
        f"  {plural(measured, 'kernel')} searched, {plural(len(findings) - measured, 'kernel')} "
        f"taken from the log; the kernels' time falls by {saved:.0%} of what it was."
    )
    return lines


def tune_script(
    path: str,
    arguments: Sequence[str],
    seconds: float,
    log: Path | None,
    strategy: str = "model",
) -> list[str]:
    """Runs the script, searches, and returns the table. Errors: ScriptFailed."""
    with Recording() as recording:
        run_script(path, arguments)
        workloads = recorded_workloads(recording)
    if not workloads:
        return ["The script ran no step with kernels that can be tuned."]
    findings = search(workloads, seconds, log, ProgressBar(sys.stderr), strategy)
    return [*report(findings, workloads), f"  log: {log if log is not None else 'not kept'}"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("script", help="a Python script; `import tensorflow` gives it TinyFlow")
    parser.add_argument("arguments", nargs="*", help="arguments of the script (after --)")
    parser.add_argument(
        "--seconds", type=float, default=60.0, metavar="N",
        help="time for the search (default 60); the script's own run is extra",
    )  # fmt: skip
    parser.add_argument(
        "--strategy", choices=list(STRATEGIES), default="model",
        help="what is measured next: what a learned cost model expects most of (default), children "
        "of the best, neighbours of the best, or anything",
    )  # fmt: skip
    parser.add_argument(
        "--log", metavar="FILE", help=f"the log to use instead of ${tuning.TUNING_LOG}"
    )


def main(options: argparse.Namespace) -> int:
    if not options.seconds > 0:
        print(f"tinyflow tune: --seconds must be positive, got {options.seconds}", file=sys.stderr)
        return 2
    log = Path(options.log) if options.log else tuning.log_path()
    try:
        with tuning.log_at(log):
            lines = tune_script(
                options.script, options.arguments, options.seconds, log, options.strategy
            )
    except ScriptFailed as failure:
        return failure.status
    except OSError as error:
        print(f"tinyflow tune: cannot write the log: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0
