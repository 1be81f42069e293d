"""The kernels of a step with their measured times, and how far they are from the machine's limits.

Main types: ``KernelTime``; ``kernel_times(programs)``, ``kernel_table``. May import core, ir,
compile and tools.machine_peak.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from tinyflow.core.source import Source
from tinyflow.tools.layout import plural, table, wrapped
from tinyflow.tools.listing import places
from tinyflow.tools.machine_peak import Peaks


@dataclass(frozen=True)
class KernelTime:
    """One launch of a step. median_s: its median time (0: never ran); calls: runs recorded.

    flops, bytes: estimates of one call, as scheduled. parallel: whether threads share it.
    element_bytes: size of its widest floating-point elements.
    """

    name: str
    sources: tuple[Source, ...]
    calls: int
    median_s: float
    flops: int
    bytes: int
    parallel: bool
    element_bytes: int = 4

    def of_peak(self, peaks: Peaks) -> tuple[float, str]:
        """Least possible time / measured time, and the limit: "fma" or "memory"."""
        least, limit = peaks.seconds(self.flops, self.bytes, self.parallel, self.element_bytes)
        return (least / self.median_s if self.median_s else 0.0), limit


@dataclass(frozen=True)
class StepTimes:
    """A program's record. native_calls: foreign calls in all; runs: complete runs recorded."""

    native_calls: int
    runs: int
    segments: int
    host_calls: int
    median_s: float
    kernels: tuple[KernelTime, ...]


def step_times(program: Any) -> StepTimes:
    """What the program's launch lists have recorded since ``profile(True)``."""
    kernels: list[KernelTime] = []
    compiled = iter(program.launch_actions)
    runs = calls = 0
    total = 0.0
    for native in program.launch_lists:
        record = native.record()
        calls += record.native_calls
        runs = max(runs, record.runs)
        total += record.median_ns * 1e-9
        for launch, found in zip(native.launches, record.launches, strict=True):
            if launch.flags:
                continue  # a jump of a loop
            kernel = getattr(next(compiled), "kernel", None)
            dtypes = [b.dtype for b in kernel.buffers] if kernel is not None else []
            kernels.append(
                KernelTime(
                    launch.name,
                    kernel.sources if kernel is not None else (),
                    found.calls,
                    found.median_ns * 1e-9,
                    launch.flops,
                    launch.bytes,
                    not launch.serial and launch.n_tasks > launch.chunk,
                    max((d.size_bytes for d in dtypes if d.kind == "float"), default=4),
                )
            )
    hosts = len(program.segments) - len(program.launch_lists)
    return StepTimes(calls, runs, len(program.launch_lists), hosts, total, tuple(kernels))


def kernel_table(times: StepTimes, peaks: Peaks, file: str) -> list[str]:
    """One line per kernel and one for the step."""
    rows = []
    for k in times.kernels:
        share, limit = k.of_peak(peaks)
        measured = k.median_s > 0
        rows.append(
            (
                k.name,
                places(k.sources, file),
                f"{k.calls:,}",
                f"{k.median_s * 1e6:.2f}" if measured else "-",
                f"{k.flops / k.median_s / 1e9:.1f}" if measured and k.flops else "-",
                f"{k.bytes / k.median_s / 1e9:.1f}" if measured else "-",
                f"{share:.0%} {limit}" if measured else "-",
            )
        )
    flops, traffic = (sum(getattr(k, x) for k in times.kernels) for x in ("flops", "bytes"))
    whole = times.median_s
    rows.append(
        (
            "the step", "", f"{times.runs:,}", f"{whole * 1e6:.2f}",
            f"{flops / whole / 1e9:.1f}" if whole else "-",
            f"{traffic / whole / 1e9:.1f}" if whole else "-", "",
        )
    )  # fmt: skip
    where = os.path.basename(file) or "line"
    header = ("kernel", where, "calls", "us", "GFLOP/s", "GB/s", "of peak")
    lines = table(rows, "llrrrrr", header, flexible=(0, 1))
    lines.insert(-1, lines[1])
    return lines


def call_summary(times: StepTimes) -> str:
    """A sentence: 1,000 runs made 1,000 native calls (one per step) of 4 kernels."""
    per_step = "one per step" if times.segments == 1 else f"{times.segments} per step"
    hosts = f" and {plural(times.host_calls, 'call')} into Python" if times.host_calls else ""
    return (
        f"{plural(times.runs, 'run')} made {plural(times.native_calls, 'native call')} "
        f"({per_step}) of {plural(len(times.kernels), 'kernel')}{hosts}."
    )


def legend(peaks: Peaks) -> list[str]:
    """What the columns mean, with the peaks they are compared with."""
    threads = peaks.threads
    memory = peaks.triad_gbs[threads][-1][1]
    return wrapped(
        f"us: median of the last 64 runs. of peak: the least time in which this machine could do "
        f"the same work / the measured time. Its limits, measured on {plural(threads, 'thread')}: "
        f"{peaks.fma_gflops[threads]:.0f} GFLOP/s (fma), {memory:.0f} GB/s (memory; small arrays "
        "are held to what caches give for their size).",
        "  ",
        "  ",
    )


def enable_profile(program: Any) -> None:
    for native in program.launch_lists:
        native.profile(True)
