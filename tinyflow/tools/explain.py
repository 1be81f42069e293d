"""``python -m tinyflow explain SCRIPT``: what became of a script's step, stage by stage.

Main functions: ``explain``, ``main``. May import everything below tools.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from tinyflow.core.error import NameNotFoundError
from tinyflow.ir.graph.nodes import Node
from tinyflow.ops.control import While
from tinyflow.ops.driven import Driven
from tinyflow.tools.layout import WIDTH, heading, plural, shortened, wrapped
from tinyflow.tools.recording import RecordedStep, Recording
from tinyflow.tools.script import ScriptFailed, run_script
from tinyflow.tools.stages import ALL_STAGES, View, show_stages


def explain(
    recording: Recording,
    variables: dict[str, Any],
    fetch: str | None,
    stages: frozenset[str],
    full: bool,
) -> list[str]:
    """The text for one step of what was recorded. Errors: NameNotFoundError."""
    chosen = recording.choose(fetch, variables)
    view = View(chosen, variables, full)
    return [
        *lint_lines(recording.graphs()),
        *python_lines(recording),
        *overview(recording, chosen, variables),
        *show_stages(view, stages),
    ]


def lint_lines(graphs: Sequence[Any]) -> list[str]:
    """Remarks that the front end noted while the graphs were built."""
    notes = list(dict.fromkeys(note for g in graphs for note in getattr(g, "lint_notes", ())))
    if not notes:
        return []
    lines = heading("notes on the program", plural(len(notes), "note"))
    for text, source in notes:
        lines += wrapped(f"{os.path.basename(source.file)}:{source.line}: {text}", "  ")
    return lines


def python_lines(recording: Recording) -> list[str]:
    """Where Python runs between native segments of a step, and why."""
    nodes = dict.fromkeys(n for staged in recording.staged for n in staged.hosts)
    notes = list(dict.fromkeys(_why_python(n) for n in nodes))
    if not notes:
        return []
    lines = heading("Python between native segments", plural(len(notes), "place"))
    for note in notes:
        lines += wrapped(note, "  ")
    return lines


def _why_python(node: Node) -> str:
    op = node.op
    place = f"{os.path.basename(node.source.file)}:{node.source.line}: "
    if isinstance(op, Driven):
        kind = "the loop" if isinstance(op.control, While) else "the branch"
        return f"{place}{kind} is driven by Python: {op.reason}"
    if hasattr(op, "tells_shapes"):
        return f"{place}Python tells a size that is computed from data"
    return f"{place}{op.type_name} '{node.name}' is called"


def overview(
    recording: Recording, chosen: RecordedStep, variables: dict[str, Any]
) -> list[str]:
    """The steps that ran; an arrow at the one that is explained."""
    lines = heading("steps of the script", plural(len(recording.ran), "step"))
    for recorded in recording.ran:
        mark = "->" if recorded is chosen else "  "
        times = recorded.times
        runs = sum(p.launch_lists[0].record().runs for p in recorded.programs if p.launch_lists)
        names = ", ".join(recorded.names(variables)) or "nothing"
        what = f"{plural(runs, 'run')}, {plural(len(times.kernels), 'kernel')}"
        if recorded.ran_once:
            what += ", op by op"
        lines.append(f"  {mark} {shortened(names, WIDTH - 8 - len(what))}: {what}")
        if recorded is chosen:
            lines += wrapped(recorded.sizes_served, "     ", "     ")
    return lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("script", help="a Python script; `import tensorflow` gives it TinyFlow")
    parser.add_argument("arguments", nargs="*", help="arguments of the script (after --)")
    parser.add_argument(
        "--fetch", metavar="NAME",
        help="the step that computed this: a name in the graph (Mean:0) or a variable of the "
        "script; without it the step with the most work",
    )  # fmt: skip
    parser.add_argument(
        "--stage", metavar="STAGE", action="append", choices=[*ALL_STAGES, "all"],
        help=f"what to show, may be repeated: {', '.join(ALL_STAGES)}, all (the default)",
    )  # fmt: skip
    parser.add_argument(
        "--full", action="store_true", help="print long loop nests, LLVM IR and assembly whole"
    )


def main(options: argparse.Namespace) -> int:
    stages = frozenset(options.stage or ["all"])
    if "all" in stages:
        stages = frozenset(ALL_STAGES)
    with Recording() as recording:
        try:
            variables = run_script(options.script, options.arguments)
        except ScriptFailed as failure:
            return failure.status
    try:
        lines = explain(recording, variables, options.fetch, stages, options.full)
    except NameNotFoundError as error:
        print(f"tinyflow explain: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0
