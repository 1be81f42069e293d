"""What this machine can do at best, measured by kernels that we generate ourselves.

Main types: ``Peaks``; ``machine_peaks()`` reads or measures them. May import core, ir, schedule,
compile and runtime.

Two limits bound every kernel: fused multiply-adds per second, and bytes per second between the
registers and where the kernel's arrays are. The second depends on the size of the arrays, because
small ones stay in a cache. Source: Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009;
the triad is McCalpin's STREAM.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow.core.dtype import float32
from tinyflow.ir.loop.nodes import (
    PARALLEL,
    SERIAL,
    UNROLL,
    VECTORIZE,
    Alloc,
    Body,
    Buffer,
    For,
    Kernel,
    Store,
)
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar.nodes import Expr

#: the working set of the figures called "memory bandwidth": several times a third-level cache, of
#: which a smaller one would find half again, however often it is walked through
MEMORY_BYTES = 256 << 20
_SMALLEST_BYTES = 16 << 10
_ROUND_BYTES = 8 << 20  # traffic per timing: about a millisecond
_PATIENCE_S, _LEAST_ROUNDS = 0.03, 5
_FMA_ROUNDS = 40_000
_FORMAT = 2


@dataclass(frozen=True)
class Peaks:
    """threads -> what was reached.

    fma_gflops: float32 operations, a fused multiply-add counted as two.
    triad_gbs: (bytes of the three arrays, GB/s) by ascending size; two reads and one write counted.
    copy_gbs: one read and one write counted, over MEMORY_BYTES.
    """

    fma_gflops: dict[int, float]
    triad_gbs: dict[int, tuple[tuple[int, float], ...]]
    copy_gbs: dict[int, float]

    @property
    def threads(self) -> int:
        return max(self.fma_gflops)

    def bandwidth(self, size_bytes: int, threads: int) -> float:
        """GB/s that the triad reached on arrays of this size or larger."""
        curve = self.triad_gbs[threads]
        reached = [rate for at, rate in curve if at >= size_bytes]
        return max(reached) if reached else curve[-1][1]

    def seconds(
        self, flops: int, size_bytes: int, parallel: bool, element_bytes: int = 4
    ) -> tuple[float, str]:
        """The least time for this work, and which limit sets it: "fma" or "memory"."""
        threads = self.threads if parallel else 1
        arithmetic = flops * (element_bytes / 4) / (self.fma_gflops[threads] * 1e9)
        traffic = size_bytes / (self.bandwidth(size_bytes, threads) * 1e9)
        return (arithmetic, "fma") if arithmetic > traffic else (traffic, "memory")


# ---- the kernels ---------------------------------------------------------------------------------
_TASK, _ROUND, _U, _LANE = s.var("task"), s.var("round"), s.var("u"), s.var("lane")


def fma_kernel(lanes: int, registers: int, rounds: int = _FMA_ROUNDS) -> tuple[Kernel, int]:
    """(kernel, operations of one task): acc[u] = fma(acc[u], 0.5, 0.25) in registers only.

    There are as many independent chains as registers allow: a unit's latency of 4 cycles is hidden
    by 4 chains per unit.
    """
    chains = min(16, registers - 4)
    tasks = s.var("tasks")
    source = Buffer("x", float32, (lanes,))
    target = Buffer("y", float32, (tasks * lanes,))
    acc = Buffer("acc", float32, (chains * lanes,), "register")
    at = _U * lanes + _LANE

    def every_chain(store: Store) -> Body:
        return (For(_U, chains, UNROLL, (For(_LANE, lanes, VECTORIZE, (store,)),)),)

    here = _TASK * lanes + _LANE
    step = s.fma(s.load(acc, at), s.const(0.5, float32), s.const(0.25, float32))
    body = every_chain(Store(acc, (at,), s.load(source, _LANE)))
    body += (For(_ROUND, rounds, SERIAL, every_chain(Store(acc, (at,), step))),)
    body += (For(_LANE, lanes, VECTORIZE, (Store(target, (here,), s.const(0, float32)),)),)
    body += every_chain(Store(target, (here,), s.load(target, here) + s.load(acc, at)))
    nest = (For(_TASK, tasks, PARALLEL, (Alloc(acc, body),)),)
    kernel = Kernel("peak_fma", (source, target), (tasks,), nest, ("y",), tasks)
    return kernel, 2 * chains * lanes * rounds


def stream_kernel(lanes: int, inputs: int, nontemporal: bool = False) -> Kernel:
    """Copy (1 input) or triad (2): z[i] = x[i], or fma(x[i], 3, y[i]); each task walks its own part
    of the arrays ``rounds`` times. blocks: extents in steps of 4 vectors. nontemporal: z is stored
    past the caches, as kernels do with arrays that are larger than these."""
    tasks, blocks, rounds = s.var("tasks"), s.var("blocks"), s.var("rounds")
    block, step = s.var("block"), 4 * lanes
    length = tasks * blocks * step
    arrays = [Buffer(name, float32, (length,)) for name in "xyz"[:inputs]]
    arrays.append(Buffer("z", float32, (length,), nontemporal=nontemporal))
    at = (_TASK * blocks + block) * step + _U * lanes + _LANE
    value: Expr = s.load(arrays[0], at)
    if inputs == 2:
        value = s.fma(value, s.const(3, float32), s.load(arrays[1], at))
    vectors = For(_LANE, lanes, VECTORIZE, (Store(arrays[-1], (at,), value),))
    nest: Body = (For(block, blocks, SERIAL, (For(_U, 4, UNROLL, (vectors,)),)),)
    nest = (For(_TASK, tasks, PARALLEL, (For(_ROUND, rounds, SERIAL, nest),)),)
    name = "copy" if inputs == 1 else "triad"
    return Kernel(f"peak_{name}", tuple(arrays), (tasks, blocks, rounds), nest, ("z",), tasks)


# ---- measuring -----------------------------------------------------------------------------------
def measure() -> Peaks:
    """Measures everything, in about a second; the best of several rounds counts."""
    from tinyflow.runtime.thread_pool import default_pool
    from tinyflow.schedule.targets import host_target

    target = host_target()
    threads = sorted({1, default_pool().n_threads})
    fma, operations = fma_kernel(target.lanes, target.vector_registers)
    source = _aligned(target.lanes)
    results = _aligned(target.lanes * threads[-1])
    rates = {}
    for count in threads:
        run = _launcher(fma, [source, results], (count,), count)
        rates[count] = operations * count / _best_seconds(run) / 1e9
    # Three arrays of the largest working set serve all sizes.
    arrays = [_aligned(MEMORY_BYTES // 8) for _ in range(3)]
    copy = stream_kernel(target.lanes, 1, nontemporal=True)
    curve = {}
    for count in threads:
        points = []
        size_bytes = _SMALLEST_BYTES * count
        while size_bytes <= MEMORY_BYTES:
            triad = stream_kernel(target.lanes, 2, size_bytes >= target.l3_bytes)
            rate = _stream_rate(triad, arrays, size_bytes, count, target.lanes)
            points.append((size_bytes, rate))
            size_bytes *= 2
        curve[count] = tuple(points)
    copies = {
        count: _stream_rate(copy, arrays[1:], MEMORY_BYTES, count, target.lanes)
        for count in threads
    }
    return Peaks(rates, curve, copies)


def _aligned(count: int) -> Any:
    from tinyflow.runtime.arena import Arena

    array = Arena(4 * count).view(0, (count,), np.float32)  # in huge pages, as in programs
    array[...] = 0.5  # also touches every page
    return array


def _launcher(
    kernel: Kernel, arrays: list[Any], extents: tuple[int, ...], tasks: int
) -> Callable[[], int]:
    from tinyflow.compile.kernels import kernel_address
    from tinyflow.runtime.launch_list import Launch, LaunchList
    from tinyflow.schedule.targets import host_target

    slots = tuple(range(1, len(arrays) + 1))
    launch = Launch(kernel_address(kernel, host_target()), tasks, 1, slots, extents, kernel.name)
    native = LaunchList([launch], len(arrays) + 1)
    for slot, array in zip(slots, arrays, strict=True):
        native.table[slot] = array.ctypes.data
    return native.run


def _stream_rate(
    kernel: Kernel, arrays: list[Any], size_bytes: int, threads: int, lanes: int
) -> float:
    """GB/s over arrays of ``size_bytes`` together, divided among the threads."""
    step = 4 * lanes
    blocks = max(1, size_bytes // (4 * len(arrays) * threads * step))
    traffic = 4 * len(arrays) * threads * step * blocks
    rounds = max(1, _ROUND_BYTES // traffic)
    run = _launcher(kernel, arrays, (threads, blocks, rounds), threads)
    return traffic * rounds / _best_seconds(run) / 1e9


def _best_seconds(run: Callable[[], int]) -> float:
    """The least time of a run: noise only ever adds. Several short runs, so that some of them fall
    between the time slices of other programs."""
    run()
    best, rounds = float("inf"), 0
    end = time.perf_counter() + _PATIENCE_S
    while rounds < _LEAST_ROUNDS or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
        rounds += 1
    return best


# ---- remembering ---------------------------------------------------------------------------------
def machine_peaks(remeasure: bool = False) -> Peaks:
    """The peaks of this machine and number of threads: from the cache directory, or measured now.

    A new measurement never lowers a stored figure: a busy machine reaches less, its limit is the
    same.
    """
    path = _path()
    known = _load(path)
    if known is not None and not remeasure:
        return known
    found = measure()
    if known is not None:
        found = _better(known, found)
    _store(path, found)
    return found


def _path() -> str | None:
    from tinyflow.runtime.kernel_cache import default_cache
    from tinyflow.runtime.thread_pool import default_pool
    from tinyflow.schedule.targets import host_target

    directory = default_cache().directory
    if directory is None:
        return None
    machine = host_target(), default_pool().n_threads, platform.node()
    text = f"{_FORMAT} {machine}"
    return str(directory / f"peaks-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json")


def _better(one: Peaks, other: Peaks) -> Peaks:
    def larger(a: dict[int, float], b: dict[int, float]) -> dict[int, float]:
        return {n: max(rate, b.get(n, 0.0)) for n, rate in a.items()}

    curves = {}
    for threads, points in one.triad_gbs.items():
        found = dict(other.triad_gbs.get(threads, ()))
        curves[threads] = tuple((at, max(rate, found.get(at, 0.0))) for at, rate in points)
    return Peaks(
        larger(one.fma_gflops, other.fma_gflops), curves, larger(one.copy_gbs, other.copy_gbs)
    )


def _store(path: str | None, peaks: Peaks) -> None:
    if path is None:
        return
    content = {
        "fma_gflops": peaks.fma_gflops,
        "triad_gbs": peaks.triad_gbs,
        "copy_gbs": peaks.copy_gbs,
    }
    with contextlib.suppress(OSError):
        handle, partial = tempfile.mkstemp(dir=os.path.dirname(path), suffix=".partial")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file)
        os.replace(partial, path)


def _load(path: str | None) -> Peaks | None:
    """What was stored; None when there is nothing or it is damaged."""
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        return Peaks(
            {int(n): float(rate) for n, rate in content["fma_gflops"].items()},
            {
                int(n): tuple((int(at), float(rate)) for at, rate in points)
                for n, points in content["triad_gbs"].items()
            },
            {int(n): float(rate) for n, rate in content["copy_gbs"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
