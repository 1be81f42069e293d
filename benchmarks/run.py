"""Command line: `python -m benchmarks.run [workload ...] [--quick] [--write]`.

Prints one table per case as soon as it is measured; with --write also renews the tables of
README.md and docs/performance.md. May import: everything in this folder.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from benchmarks import compile_time, import_time, machine
from benchmarks.harness import Contest, measure
from benchmarks.pages import write_pages
from benchmarks.report import describe_machine, markdown, rows, table
from benchmarks.results import Entry, Results

_ROOT = Path(__file__).resolve().parent.parent
STORED = _ROOT / "docs" / "performance.json"
TRAINING = (
    "softmax_regression",
    "mlp",
    "lenet",
    "lstm",
    "transformer",
    "graph_convolution",
    "mixture_of_experts",
    "resnet20",
    "alexnet",
    "overfeat",
    "vgg",
    "googlenet",
)
KERNELS = (
    "elementwise",
    "elementwise_gradient",
    "layer_norm",
    "row_softmax",
    "matmul",
    "convolution",
)
STEPPED = (*TRAINING, "inference", *KERNELS, "call_overhead")
WORKLOADS = ("machine", *STEPPED, "import_time", "compile_time")
_GROUPS = {"training": TRAINING, "kernels": KERNELS, "all": WORKLOADS}
# Compile times are told of training steps; that of kernels is a matter of milliseconds.
_COMPILED = TRAINING


def workload_module(name: str):
    return importlib.import_module(f"benchmarks.workloads.{name}")


def contests(name: str, options):
    """The contests of a workload, each when it is done."""
    if name == "import_time":
        yield import_time.measure(options.rounds)
    elif name == "compile_time":
        yield from compile_time.measure(min(options.rounds, 3))
    else:
        workload = workload_module(name)
        for case_name in workload.CASES:
            if options.case and not any(part in case_name for part in options.case):
                continue
            yield measure(
                workload,
                case_name,
                rounds=options.rounds,
                only=options.only,
                compile_times=name in _COMPILED and not options.quick,
            )


def _entry(name: str, contest: Contest) -> Entry:
    work = getattr(workload_module(name), "work", None) if name in STEPPED else None
    return Entry(name, contest, work(contest.case) if work else None)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    names = ", ".join([*_GROUPS, *WORKLOADS])
    parser.add_argument("workloads", nargs="*", metavar="workload", help=names)
    parser.add_argument("--rounds", type=int, help="rounds per contestant (default 9, quick 2)")
    parser.add_argument("--only", action="append", default=[], help="a contestant (repeatable)")
    parser.add_argument("--case", action="append", default=[], help="part of a case's name")
    parser.add_argument("--quick", action="store_true", help="2 rounds, no cold and warm starts")
    parser.add_argument("--write", action="store_true", help="renew README.md and docs/")
    parser.add_argument("--markdown", type=Path, help="also write the tables to this file")
    options = parser.parse_args()
    if options.write and (options.only or options.case):
        parser.error("--write wants whole workloads, without --only and --case")
    if options.rounds is None:
        options.rounds = 2 if options.quick else 9
    chosen: list[str] = []
    for name in options.workloads or ["all"]:
        if name not in WORKLOADS and name not in _GROUPS:
            parser.error(f"no workload {name!r}; there are {names}")
        chosen += [each for each in _GROUPS.get(name, (name,)) if each not in chosen]
    options.workloads = chosen
    return options


def main() -> None:
    options = _options()
    results = Results.read(STORED) if options.write else Results()
    results.machine, results.peaks = describe_machine(), machine.roofline()
    rate, bandwidth = (peak / 1e9 for peak in results.peaks)
    limits = f"roofline: {rate:.0f} GFLOP/s, {bandwidth:.1f} GB/s"
    page = [f"# Benchmarks\n\n{results.machine}; {limits}.\n"]
    print(f"{results.machine}\n{limits}")

    def show(title: str, lines: list[list[str]]) -> None:
        print(f"\n{title}\n\n{table(lines)}", flush=True)
        page.append(f"## {title}\n\n{markdown(lines)}\n")
        if options.markdown:  # after every table: a long run that is stopped keeps its results
            options.markdown.parent.mkdir(parents=True, exist_ok=True)
            options.markdown.write_text("\n".join(page))

    for name in options.workloads:
        if name == "machine":
            show("Limits of the machine", machine.peaks())
            continue
        entries = []
        for contest in contests(name, options):
            entries.append(_entry(name, contest))
            show(
                f"{contest.title}: {contest.case_name}",
                rows(contest, entries[-1].work, results.peaks),
            )
        results.replace(name, entries)
        if options.write:
            results.save(STORED)
            write_pages(results, _ROOT)


if __name__ == "__main__":
    main()
