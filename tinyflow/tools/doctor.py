"""``python -m tinyflow doctor``: what TinyFlow found on this machine, and whether it works.

Main functions: ``SECTIONS`` (one function each, returning lines), ``main``. May import everything
below tools.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from tinyflow.tools import layout
from tinyflow.tools.layout import heading, plural, table

Rows = list[tuple[str, str]]


class Report:
    """Collects sections; counts what does not work."""

    def __init__(self, remeasure: bool = False) -> None:
        self.remeasure = remeasure
        self.problems: list[str] = []

    def problem(self, text: str) -> str:
        self.problems.append(text)
        return f"PROBLEM: {text}"


def versions(report: Report) -> list[str]:
    import llvmlite
    import numpy
    from llvmlite import binding

    import tinyflow

    llvm = ".".join(map(str, binding.llvm_version_info))
    rows = [
        ("tinyflow", tinyflow.__version__),
        ("python", f"{platform.python_version()} ({platform.python_implementation()})"),
        ("numpy", numpy.__version__),
        ("llvmlite", f"{llvmlite.__version__}, LLVM {llvm}"),
        ("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
    ]
    return _section("versions", rows)


def machine(report: Report) -> list[str]:
    from tinyflow.schedule.targets import host_target

    target = host_target()
    rows = [
        ("processor", _processor() or "unknown"),
        ("LLVM's name", f"{target.cpu}, {target.triple}"),
        ("vectors", f"{plural(target.lanes, 'lane')} of 4 bytes ({target.vector_bits} bits), "
                    f"{target.vector_registers} registers"),
        ("caches", f"{layout.size(target.l1_bytes)} first level, "
                   f"{layout.size(target.l2_bytes)} second level, "
                   f"{layout.size(target.l3_bytes)} third level"),
        ("threads", _threads()),
    ]  # fmt: skip
    return _section("machine", rows)


def _processor() -> str:
    """The processor's name, where Linux or the platform tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith(("model name", "Model")):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def _threads() -> str:
    from tinyflow.runtime.thread_pool import available_cores, default_pool

    count = default_pool().n_threads
    asked = os.environ.get("TINYFLOW_NUM_THREADS")
    cores = available_cores()
    if asked:
        return f"{count}: TINYFLOW_NUM_THREADS={asked}; {plural(cores, 'core')} available"
    all_cores = os.cpu_count() or cores
    why = "all cores of the machine"
    if cores < all_cores:
        why = f"what affinity and control groups allow of {all_cores} cores"
    return f"{count}: {why}; TINYFLOW_NUM_THREADS changes it"


def cache(report: Report) -> list[str]:
    from tinyflow.runtime.kernel_cache import default_cache, default_directory

    kernels = default_cache()
    directory = kernels.directory
    chosen = os.environ.get("TINYFLOW_CACHE")
    origin = "TINYFLOW_CACHE" if chosen else "default; TINYFLOW_CACHE moves it"
    if directory is None:
        reason = report.problem("not usable, kernels are compiled anew in every process")
        return _section("kernel cache", [("directory", str(default_directory())), ("", reason)])
    sizes = [f.stat().st_size for f in directory.glob("*.kernel")]
    stats = kernels.stats
    rows = [
        ("directory", f"{_home(directory)} ({origin})"),
        ("writable", "yes"),
        ("on disk", f"{plural(len(sizes), 'kernel')}, {layout.size(sum(sizes))} of at most "
                    f"{layout.size(kernels.limit_bytes)}"),
        ("this process", f"{stats.hits} found, {stats.disk_hits} of them on disk, and "
                         f"{stats.misses} compiled"),
    ]  # fmt: skip
    return _section("kernel cache", rows)


def _home(path: Path) -> str:
    try:
        return "~/" + str(path.relative_to(Path.home()))
    except (ValueError, RuntimeError):
        return str(path)


def peaks(report: Report) -> list[str]:
    from tinyflow.tools.machine_peak import MEMORY_BYTES, machine_peaks

    found = machine_peaks(report.remeasure)
    counts = sorted(found.fma_gflops)
    header = ("", *(plural(n, "thread") for n in counts), "")

    def row(name: str, rates: dict[int, float], unit: str) -> tuple[str, ...]:
        return (name, *(f"{rates[n]:.1f}" for n in counts), unit)

    memory = {n: found.triad_gbs[n][-1][1] for n in counts}
    rows = [
        row("fused multiply-add, float32", found.fma_gflops, "GFLOP/s"),
        row(f"copy, {layout.size(MEMORY_BYTES)}", found.copy_gbs, "GB/s"),
        row(f"triad, {layout.size(MEMORY_BYTES)}", memory, "GB/s"),
    ]
    curves = {n: dict(found.triad_gbs[n]) for n in counts}
    rows += [
        row(f"triad, {layout.size(at)}", {n: curves[n][at] for n in counts}, "GB/s")
        for at in list(curves[counts[-1]])[:-1:3]  # every third: the shape is what matters
    ]
    lines = heading("measured peaks", "by kernels generated here")
    lines += table(rows, "l" + "r" * len(counts) + "l", header)
    return [*lines, "  Stored beside the kernels; --measure measures again and keeps the best."]


def self_test(report: Report) -> list[str]:
    from tinyflow.tools.self_test import TOLERANCE, cold_and_warm

    try:
        cold, warm = cold_and_warm()
    except (RuntimeError, OSError) as error:
        last = str(error).splitlines()[-1]
        return _section("self-test", [("result", report.problem(last))])
    largest = max(cold["error"], warm["error"])
    verdict = f"agrees with NumPy (largest difference {largest:.1e})"
    if not largest <= TOLERANCE:
        verdict = report.problem(f"differs from NumPy by {largest:.1e}")
    rows = [
        ("softmax(x w + b)", verdict),
        ("first run, cold", layout.duration(cold["first_run_s"]) + " with compilation"),
        ("first run, warm", layout.duration(warm["first_run_s"]) + " with kernels from the cache"),
        ("import tinyflow", layout.duration(warm["import_s"]) + " after NumPy"),
    ]
    return _section("self-test", rows)


def datasets(report: Report) -> list[str]:
    from tinyflow.datasets.mnist import _FILES
    from tinyflow.datasets.store import cache_folder, find_file

    paths = [find_file(file.name, "mnist") for file in _FILES]
    missing = [file.name for file, path in zip(_FILES, paths, strict=True) if path is None]
    if not missing:
        mnist = f"found in {_home(Path(str(paths[0])).parent)}"
    else:
        mnist = (
            f"not here ({plural(len(missing), 'file')} missing); fetched when first used, or set "
            "TINYFLOW_DATA to a folder with it"
        )
    rows = [
        ("mnist", mnist),
        ("digits", "in the package"),
        ("TINYFLOW_DATA", os.environ.get("TINYFLOW_DATA") or "not set"),
        ("downloads go to", _home(cache_folder("mnist").parent)),
    ]
    return _section("data sets", rows)


def extras(report: Report) -> list[str]:
    """The optional requirements, by extra, and which of them are there."""
    from importlib import metadata

    groups: dict[str, list[str]] = {}
    for extra, package in _optional_requirements():
        try:
            text = f"{package} {metadata.version(package)}"
        except metadata.PackageNotFoundError:
            text = f"{package} -"
        groups.setdefault(extra, []).append(text)
    if not groups:
        return _section("extras", [("none", "the package names none")])
    rows = [(name, ", ".join(found)) for name, found in groups.items()]
    return [*_section("extras", rows), '  "-": not installed; TinyFlow runs without any of them.']


def _optional_requirements() -> list[tuple[str, str]]:
    """(extra, package) pairs of the installed package, or of the source it runs from."""
    import re
    import tomllib
    from importlib import metadata

    try:
        required = metadata.requires("tinyflow") or []
        pattern = re.compile(r"([\w.-]+).*extra\s*==\s*['\"]([\w-]+)['\"]")
        return [(m[2], m[1]) for m in map(pattern.match, required) if m]
    except metadata.PackageNotFoundError:
        pass
    try:
        with open(Path(__file__).parents[2] / "pyproject.toml", "rb") as file:
            by_extra = tomllib.load(file)["project"]["optional-dependencies"]
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        return []
    return [
        (extra, re.split(r"[^\w.-]", line)[0])
        for extra, lines in by_extra.items()
        for line in lines
    ]


SECTIONS: dict[str, Callable[[Report], list[str]]] = {
    "versions": versions,
    "machine": machine,
    "cache": cache,
    "peaks": peaks,
    "self-test": self_test,
    "data": datasets,
    "extras": extras,
}


def _section(title: str, rows: Rows) -> list[str]:
    return heading(title) + table(rows, "ll", flexible=(1,), wrap=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--measure", action="store_true", help="measure the machine's peaks again")
    parser.add_argument(
        "--only", metavar="SECTION", action="append", choices=list(SECTIONS),
        help=f"print only this, may be repeated: {', '.join(SECTIONS)}",
    )  # fmt: skip


def main(options: argparse.Namespace) -> int:
    """0, or 1 when something does not work."""
    report = Report(options.measure)
    for name in options.only or SECTIONS:
        # Section by section: the slow ones at the end should not hide the others.
        print("\n".join(SECTIONS[name](report)), flush=True)
    print()
    if report.problems:
        print(f"{plural(len(report.problems), 'problem')}: " + "; ".join(report.problems))
        return 1
    print("No problems found.")
    sys.stdout.flush()
    return 0
