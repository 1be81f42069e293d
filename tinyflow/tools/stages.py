"""What ``explain`` shows of a compiled step, one function per stage: each returns lines of text.

Main names: ``STAGES`` (name -> function of a ``View``), ``View``. May import core, ir, passes,
schedule and compile.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tinyflow.compile.memory import memory_report
from tinyflow.ir.graph.nodes import Node, Value
from tinyflow.tools import layout
from tinyflow.tools.kernel_table import call_summary, kernel_table, legend
from tinyflow.tools.layout import WIDTH, heading, plural, shortened, table, wrapped
from tinyflow.tools.listing import (
    Numbers,
    by_line,
    is_gradient,
    listing,
    main_file,
    outputs,
    place,
    places,
    source_text,
    value_name,
)
from tinyflow.tools.recording import RecordedStep

LOOP_LINES, LLVM_LINES, ASSEMBLY_LINES, EVENTS, DECISIONS = 60, 24, 32, 12, 24
_FULL = "--full shows them"
#: instructions that do a kernel's arithmetic, in LLVM IR and in assembly (x86, ARM)
_LLVM_WORK = re.compile(r"= (call .*@llvm\.(fma|fabs|max|min)|f(add|sub|mul|div|cmp) )")
_ASSEMBLY_WORK = re.compile(
    r"\t(v?(fn?m(add|sub)|add|sub|mul|div|max|min)\w*[ps][sd]|fm(la|ls|ul|adal)|f(add|sub|div))\b"
)


@dataclass
class View:
    """A recorded step and how much of it to print. variables: the script's globals."""

    recorded: RecordedStep
    variables: dict[str, Any] = field(default_factory=dict)
    full: bool = False

    @property
    def step(self) -> Any:
        return self.recorded.step

    @property
    def plan(self) -> Any:
        return self.recorded.program.plan

    @cached_property
    def file(self) -> str:
        return main_file(self.step.written.nodes)

    @cached_property
    def numbers(self) -> Numbers:
        """Of the optimised function: groups, memory and kernels speak of its values."""
        return Numbers(self.plan.fn)

    def cut(self, lines: list[str], limit: int) -> list[str]:
        """At most ``limit`` lines of at most WIDTH columns, unless everything was asked for."""
        if self.full:
            return lines
        narrow = [x if len(x) <= WIDTH else x[: WIDTH - 3] + "..." for x in lines]
        return layout.cut(narrow, limit, _FULL)


# ---- the graph -----------------------------------------------------------------------------------
def show_graph(view: View) -> list[str]:
    """The graph as written, under the user's lines."""
    fn = view.step.written
    nodes = [n for n in fn.nodes if not is_gradient(n)]
    nodes.sort(key=lambda n: (n.source.file, n.source.line))
    lines = heading("graph as written", plural(len(nodes), "node"))
    numbers = Numbers(fn)
    return lines + by_line(fn, nodes, numbers) + outputs(fn, numbers)


def show_gradient(view: View) -> list[str]:
    """Nodes made by differentiation, under the lines whose gradients they compute."""
    fn = view.step.written
    nodes = [n for n in fn.nodes if is_gradient(n)]
    lines = heading("gradient", plural(len(nodes), "node"))
    if not nodes:
        return [*lines, "  The step computes no gradient."]
    asked = dict.fromkeys(where for n in nodes for label, where in n.origin
                          if label == "requested at")  # fmt: skip
    for where in asked:
        text = f"{os.path.basename(where.file)}:{where.line}   {source_text(where)}"
        lines.append("  requested at " + shortened(text, WIDTH - 15))
    lines.append("  Each block computes the gradient of the line above it, last line first:")
    return lines + by_line(fn, nodes, Numbers(fn))


# ---- passes --------------------------------------------------------------------------------------
def show_passes(view: View) -> list[str]:
    """The table of passes, then the graph after each one that changed something."""
    step = view.step
    written, specialized = step.written, step.specialized
    rows = [("", "written", "", f"{len(written.nodes)}", "the graph above"),
            ("", "specialize", "", _change(len(written.nodes), len(specialized.nodes)),
             "shapes of this call's feeds put in")]  # fmt: skip
    for r in step.records:
        nodes = _change(r.nodes_before, r.nodes_after) if r.changed else "unchanged"
        rows.append((f"{r.number:03d}", r.name, f"{r.time_us:,.0f} us", nodes, r.reason))
    lines = heading("passes", layout.duration(sum(r.time_us for r in step.records) * 1e-6))
    lines += table(rows, "rlrll", ("", "pass", "time", "nodes", "why it stands here"),
                   flexible=(4,), wrap=True)  # fmt: skip
    lines.append('  Below, "+" marks what is new after a pass, "g" what computes a gradient.')
    change = _change(len(written.nodes), len(specialized.nodes))
    lines += ["", f"  -- after specialize: {change} nodes"]
    lines += listing(specialized, Numbers(specialized))
    before = specialized
    for record in step.records:
        if record.changed or (record.trace is not None and record.trace.events):
            lines += _show_pass(view, record, before)
        before = record.fn
    return lines


def _change(before: int, after: int) -> str:
    return f"{before} -> {after}"


def _show_pass(view: View, record: Any, before: Any) -> list[str]:
    nodes = _change(record.nodes_before, record.nodes_after) + " nodes"
    lines = ["", f"  -- after {record.number:03d} {record.name}: "
             + (nodes if record.changed else "unchanged")]  # fmt: skip
    if record.trace is not None:
        lines += _events(view, "applied", record.trace.rewrites)
        lines += _events(view, "refused", record.trace.refusals)
    if record.changed:
        lines += listing(record.fn, Numbers(record.fn), before)
    return lines


def _events(view: View, title: str, events: list[Any]) -> list[str]:
    """Equal events are counted; one line each: rule, op, places, reason."""
    groups: dict[tuple[str, str, str], list[Any]] = {}
    for event in events:
        groups.setdefault((event.rule, event.op, event.reason or ""), []).append(event)
    rows = []
    for (rule, op, reason), found in groups.items():
        where = places([e.source for e in found], view.file)
        times = f" x{len(found)}" if len(found) > 1 else ""
        rows.append((title, rule, f"{op}{times}", where, reason))
    if title == "refused":
        lines = table(rows, "lllll", indent="     ", flexible=(4,))
    else:
        lines = table([row[:-1] for row in rows], "llll", indent="     ", flexible=(3,))
    return view.cut(lines, EVENTS)


# ---- groups --------------------------------------------------------------------------------------
def show_groups(view: View) -> list[str]:
    """Which nodes became one kernel, and why others did not."""
    plan = view.plan
    grouping = plan.grouping
    kernels = [g for g in grouping.groups if g.kind not in ("view", "host")]
    lines = heading("fusion groups", plural(len(kernels), "group"))
    if view.recorded.ran_once:
        lines.append("  This step ran once, so it went op by op: every node is its own group.")
    lines += ["  Values of the graph after the last pass:"]
    lines += listing(plan.fn, view.numbers)
    for n, group in enumerate(grouping.groups):
        names = [a.kernel.name for a in plan.kernels if a.group is group]
        made = " + ".join(names) or _WITHOUT_KERNEL.get(group.kind, "no kernel")
        domain = " x ".join(map(str, group.outer)) or "one element"
        if group.inner:
            domain += " rows of " + " x ".join(map(str, group.inner))
        lines += ["", f"  group {n}: {group.kind}, {domain}  ->  {made}"]
        lines += _members(view, group)
    return lines + _decisions(view)


_WITHOUT_KERNEL = {
    "view": "no kernel: the same bytes under another shape",
    "host": "a call into Python",
}


def _members(view: View, group: Any) -> list[str]:
    grouping, number = view.plan.grouping, view.numbers
    stored = {item.value for item in grouping.results(group)}
    rows = []
    copies = sorted((grouping.items[v] for v in group.copied), key=lambda i: i.number)
    for item in (*copies, *group.items):
        value = item.value
        if value in group.inlined:
            how = "recomputed where it is read"
        elif item.group not in (group, *group.parts):
            how = "computed again"
        elif group.kind in ("view", "host", "loops"):
            how = ""
        elif value in group.hidden:
            how = "a few rows at a time"
        else:
            how = _POSITIONS.get(item.group.position(item), "")
        kept = "-> memory" if value in stored and group.kind != "view" else ""
        rows.append((number.expression(value.node), str(value.type), how, kept,
                     place(value.node.source, view.file)))  # fmt: skip
    return table(rows, "llllr", indent="    ", flexible=(0, 1))


_POSITIONS = {"full": "per element", "row": "per row", "turned": "stored transposed"}


def _decisions(view: View) -> list[str]:
    """What sharing kernels saves, largest first, and which pairs stay apart, and why."""
    decisions = view.plan.grouping.decisions
    lines: list[str] = []
    for fused, title in ((True, "fused"), (False, "not fused")):
        found = {(d.producer, d.consumer): d for d in decisions if d.fused is fused}
        ranked = sorted(found.values(), key=lambda d: -d.saved_bytes)
        rows = [
            (_title(d.producer.node, view), "->", _title(d.consumer.node, view),
             ("saves " if fused else "moves ") + layout.size(d.saved_bytes), d.reason)
            for d in ranked
        ]  # fmt: skip
        if rows:
            total = sum(d.saved_bytes for d in ranked)
            word = f"{title}: {plural(len(rows), 'edge')}"
            word += f", {layout.size(total)} less to move" if fused else ""
            lines += ["", f"  {word}"]
            lines += view.cut(table(rows, "lllrl", indent="    ", flexible=(4,)), DECISIONS)
    return lines


def _title(node: Node, view: View) -> str:
    return f"{view.numbers(node.outputs[0])} {node.op.type_name} {place(node.source, view.file)}"


# ---- memory --------------------------------------------------------------------------------------
def show_memory(view: View) -> list[str]:
    """Where every value lives, while which kernels run, and what shares memory."""
    plan = view.plan
    memory = plan.memory
    written, read = _lifetimes(plan)
    rows = []
    for value, where in memory.places.items():
        if not isinstance(value, Value):
            kind, name, type_ = where.kind, getattr(value, "name", "copy"), ""
        else:
            kind, name, type_ = where.kind, view.numbers(value), str(value.type)
        at = f"{where.key:+,}" if kind == "arena" else _key_name(kind, where.key, plan)
        rows.append((kind, at, layout.size(plan.bytes_of(value)), name, type_,
                     str(written.get(value, "")), str(read.get(value, ""))))  # fmt: skip
    rows.sort(key=lambda row: _ORDER.index(row[0]) if row[0] in _ORDER else 9)
    lines = heading("memory plan", f"arena {layout.size(memory.arena_bytes)}")
    header = ("where", "", "size", "value", "type", "written by", "last read by")
    lines += table(rows, "llrllrr", header, flexible=(1, 3, 4))
    arena = [v for v, p in memory.places.items() if p.kind == "arena"]
    alone = sum(map(plan.bytes_of, arena))
    lines += _peak_lines(plan)
    if len(arena) > 1:
        lines.append(f"  The arena holds {plural(len(arena), 'value')} of together "
                     f"{layout.size(alone)} in {layout.size(memory.arena_bytes)}.")  # fmt: skip
    for old, new in memory.reused:
        lines.append(f"  in place: {_described(view, new)} is written over {_described(view, old)}")
    for copy in memory.copies:
        kind = getattr(copy.target, "kind", "scratch")
        target = "fetched array" if kind == "fetch" else kind
        lines.append(f"  copied at the end: {_described(view, copy.source)} to the {target} "
                     f"({layout.size(copy.size_bytes)})")  # fmt: skip
    numbered = [f"{n} = {getattr(getattr(a, 'kernel', None), 'name', _host_name(a))}"
                for n, a in enumerate(plan.actions)]  # fmt: skip
    return lines + wrapped("Kernels: " + ", ".join(numbered), "  ", "  ")


def _peak_lines(plan: Any) -> list[str]:
    """The planned peak, which is what the step takes when it runs."""
    report = memory_report(plan)
    parts = [
        f"{kind} {layout.size(getattr(report, kind))}"
        for kind in ("arena", "variables", "feeds", "fetches", "constants")
    ]
    lines = wrapped(f"Peak {layout.size(report.peak_bytes)}: {', '.join(parts)}.", "  ", "  ")
    if report.arena:
        lines += wrapped(
            f"Arena: {layout.size(report.naive)} of values in {layout.size(report.arena)}; at one "
            f"time {layout.size(report.live)} live.", "  ", "  ",
        )  # fmt: skip
    return lines


_ORDER = ["feed", "variable", "counter", "initialized", "constant", "arena", "fetch"]


def _host_name(action: Any) -> str:
    node = getattr(action, "node", None)
    if hasattr(action, "members"):
        return "together: " + " | ".join(k.kernel.name for k in action.members)
    if node is None:
        return "copy"
    kind = "loop" if hasattr(action, "body") else "branch" if hasattr(action, "then") else "Python"
    return f"{kind}: {node.name or node.op.type_name}"


def _key_name(kind: str, key: Any, plan: Any) -> str:
    if kind == "fetch":
        return f"result {key}"
    if kind == "constant":
        return ""
    name = getattr(getattr(key, "node", key), "name", None)
    return str(name or "")


def _described(view: View, value: Any) -> str:
    if not isinstance(value, Value):
        return str(getattr(value, "name", "scratch"))
    return f"{view.numbers(value)} {value_name(value)}"


def _lifetimes(plan: Any) -> tuple[dict[Any, int], dict[Any, int]]:
    """value -> number of the kernel or host call that writes it, and of the last that reads it."""
    written: dict[Any, int] = {}
    read: dict[Any, int] = {}
    steps = [(n, one) for n, a in enumerate(plan.actions) for one in getattr(a, "members", (a,))]
    for n, action in steps:
        node, kernel = getattr(action, "node", None), getattr(action, "kernel", None)
        if node is not None:
            written.update(dict.fromkeys(node.outputs, n))
            read.update(dict.fromkeys(node.inputs, n))
        if kernel is None:
            continue
        for buffer, value in zip(kernel.buffers, action.arguments, strict=True):
            if value is not None:
                (written if buffer.name in kernel.outputs else read)[value] = n
    return written, read


# ---- kernels -------------------------------------------------------------------------------------
def show_kernel(view: View, number: int, stages: frozenset[str]) -> list[str]:
    """One kernel: where it comes from, its arguments, and the chosen of its three forms."""
    action = view.plan.kernels[number]
    kernel = action.kernel
    share = f"{action.tasks:,} tasks" if action.chunk else "one task"
    lines = heading(f"kernel {number}: {kernel.name}", share)
    for source in sorted(set(kernel.sources), key=lambda s: (s.file, s.line)):
        if source.line:
            text = f"{os.path.basename(source.file)}:{source.line}   {source_text(source)}"
            lines.append("  " + shortened(text, WIDTH - 2))
    lines += wrapped("computes " + ", ".join(kernel.ops), "  ")
    if "loops" in stages:
        lines += _loops(view, action)
    if "llvm" in stages:
        from tinyflow.compile.kernels import kernel_llvm

        text = kernel_llvm(kernel, view.plan.target, kernel.name)
        lines += ["", *_code(view, "LLVM IR", text, _LLVM_WORK, LLVM_LINES)]
    if "assembly" in stages:
        from tinyflow.compile.kernels import kernel_assembly

        text = kernel_assembly(kernel, view.plan.target)
        title = f"assembly ({view.plan.target.cpu})"
        lines += ["", *_code(view, title, text, _ASSEMBLY_WORK, ASSEMBLY_LINES)]
    return lines


def _code(view: View, title: str, text: str, work: re.Pattern[str], limit: int) -> list[str]:
    """The whole text, or, if it is long, the basic block where most of the arithmetic is."""
    lines = [line for line in text.splitlines() if line.strip()]
    if view.full or len(lines) <= limit:
        return [f"  {title}", *_indented(lines)]
    starts = [n for n, x in enumerate(lines) if x[0] not in " \t;}" and x.split()[0].endswith(":")]
    blocks = list(zip([0, *starts], [*starts, len(lines)], strict=True))
    start, end = max(blocks, key=lambda b: sum(bool(work.search(x)) for x in lines[b[0] : b[1]]))
    shown = lines[start : min(end, start + limit)]
    title += f", lines {start + 1:,} to {start + len(shown):,} of {len(lines):,}"
    title += ": the block with the most arithmetic"
    return [f"  {title}", *view.cut(_indented(shown), limit),
            f"    ... the rest: {_FULL.removesuffix(' them')} it"]  # fmt: skip


def _loops(view: View, action: Any) -> list[str]:
    from tinyflow.ir.loop.text import show

    kernel = action.kernel
    rows = []
    for buffer, value in zip(kernel.buffers, action.arguments, strict=True):
        way = "writes" if buffer.name in kernel.outputs else "reads"
        if value is None:
            rows.append((way, buffer.name, "the status record", ""))
        elif isinstance(value, Value):
            where = view.plan.memory.places.get(value)
            rows.append((way, buffer.name, _described(view, value),
                         f"{value.type}, {where.kind}" if where else str(value.type)))  # fmt: skip
        else:
            rows.append((way, buffer.name, "scratch", layout.size(view.plan.bytes_of(value))))
    lines = table(rows, "llll", indent="  ", flexible=(2,))
    lines += ["", "  schedule"]
    lines += wrapped("; ".join(action.steps), "    ", "    ")
    nest: list[str] = []
    for line in show(kernel).splitlines():
        own = "    " + " " * (len(line) - len(line.lstrip()))
        nest += wrapped(line.strip(), own)
    return [*lines, "", "  loop nest", *view.cut(nest, LOOP_LINES)]


def _indented(lines: list[str]) -> list[str]:
    return ["    " + line.expandtabs(8) for line in lines]


# ---- times ---------------------------------------------------------------------------------------
def show_profile(view: View) -> list[str]:
    """Measured times and the share of the machine's peaks."""
    from tinyflow.tools.machine_peak import machine_peaks

    times = view.recorded.times
    lines = heading("profile", plural(times.runs, "run"))
    if not times.runs:
        return [*lines, "  The step did not complete a run."]
    peaks = machine_peaks()
    lines += kernel_table(times, peaks, view.file)
    return [*lines, "  " + call_summary(times), *legend(peaks)]


#: stages of a whole step, in the order of compilation
STAGES: dict[str, Callable[[View], list[str]]] = {
    "graph": show_graph,
    "gradient": show_gradient,
    "passes": show_passes,
    "groups": show_groups,
    "memory": show_memory,
}
#: stages that are shown kernel by kernel
KERNEL_STAGES = ("loops", "llvm", "assembly")
ALL_STAGES = (*STAGES, *KERNEL_STAGES, "profile")


def show_stages(view: View, stages: frozenset[str]) -> list[str]:
    """The chosen stages in the order of compilation."""
    lines: list[str] = []
    for name, show in STAGES.items():
        if name in stages:
            lines += show(view)
    if stages & set(KERNEL_STAGES):
        for number in range(len(view.plan.kernels)):
            lines += show_kernel(view, number, stages)
    if "profile" in stages:
        lines += show_profile(view)
    return lines
