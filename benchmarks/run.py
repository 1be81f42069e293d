"""Command line: `python -m benchmarks.run [workload ...] [--rounds N] [--markdown FILE]`.

Prints one table per case as soon as it is measured.
May import: everything in this folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import (
    call_overhead,
    compile_time,
    elementwise,
    import_time,
    machine,
    matmul,
    row_softmax,
    softmax_regression,
)
from benchmarks.harness import Contest, measure
from benchmarks.report import describe_machine, markdown, rows, table

_STEPPED = {
    "softmax_regression": softmax_regression,
    "call_overhead": call_overhead,
    "matmul": matmul,
    "elementwise": elementwise,
    "row_softmax": row_softmax,
}
WORKLOADS = ["machine", *_STEPPED, "import_time", "compile_time"]


def contests(name: str, rounds: int, only: list[str]):
    """The contests of a workload, each when it is done."""
    if name == "import_time":
        yield import_time.measure(rounds)
    elif name == "compile_time":
        yield from compile_time.measure(min(rounds, 3))
    else:
        for case_name in _STEPPED[name].CASES:
            yield measure(_STEPPED[name], case_name, rounds=rounds, only=only)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("workloads", nargs="*", metavar="workload", help=", ".join(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=9, help="rounds per contestant (default 9)")
    parser.add_argument("--only", action="append", default=[], help="a contestant (repeatable)")
    parser.add_argument("--markdown", type=Path, help="also write the tables to this file")
    options = parser.parse_args()
    for name in options.workloads:
        if name not in WORKLOADS:
            parser.error(f"no workload {name!r}; there are {', '.join(WORKLOADS)}")

    page = [f"# Benchmarks\n\n{describe_machine()}.\n"]
    print(describe_machine())

    def show(title: str, lines: list[list[str]]) -> None:
        print(f"\n{title}\n\n{table(lines)}", flush=True)
        page.append(f"## {title}\n\n{markdown(lines)}\n")
        if options.markdown:  # after every table: a long run that is stopped keeps its results
            options.markdown.parent.mkdir(parents=True, exist_ok=True)
            options.markdown.write_text("\n".join(page))

    for name in options.workloads or WORKLOADS:
        if name == "machine":
            show("Limits of the machine", machine.peaks())
            continue
        contest: Contest
        for contest in contests(name, options.rounds, options.only):
            work = getattr(_STEPPED.get(name), "work", None)
            show(f"{contest.title}: {contest.case_name}", rows(contest, work))


if __name__ == "__main__":
    main()
