"""The pool of native worker threads, seen from Python.

Main types: ThreadPool; default_pool() and set_num_threads() for the process's pool. Imports native
and pool_ir of this package.

No Python runs in a worker. Threads are created by the first parallel launch, not by the
constructor, so a pool that is never used, also one inherited by a forked child, costs nothing.
A pool's address stays valid while its size changes: launch lists keep the pointer.
"""

from __future__ import annotations

import functools
import math
import mmap
import os
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tinyflow.runtime import native, pool_ir

SPIN_US = 50.0
"""How long an idle worker polls before it sleeps: longer than the gap between the kernels of a
step, shorter than what anybody would notice as a busy core."""


class ThreadPool:
    """``n_threads`` threads, the calling one included; 1 means that every launch runs alone.

    One thread at a time runs a parallel launch; a second one that comes meanwhile runs its tasks
    itself, so that concurrent sessions never wait for each other.
    """

    def __init__(self, n_threads: int, spin_us: float = SPIN_US) -> None:
        self._spin_us = spin_us
        self._runtime = native.native_runtime()
        # Anonymous memory is zero, aligned to a page and never moves.
        self._memory = mmap.mmap(-1, pool_ir.POOL_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANON)
        self._words = np.frombuffer(self._memory, dtype=np.int64)
        self.pointer: int = self._words.ctypes.data
        self.n_threads: int = _checked_count(n_threads)
        self._runtime.pool_init(self.pointer, n_threads - 1, self._spin_count())
        # Also runs at interpreter exit; the words keep the memory until the threads have left.
        self._finalizer = weakref.finalize(
            self, _stop, self._runtime, self.pointer, self._words, os.getpid()
        )
        _pools.add(self)

    def resize(self, n_threads: int) -> None:
        """Change the number of threads; waits for a running launch, then for the old workers."""
        self.n_threads = _checked_count(n_threads)
        if self._finalizer.alive:
            self._runtime.pool_resize(self.pointer, n_threads - 1, self._spin_count())

    def wake(self) -> None:
        """Have the workers polling soon; a hint, costs one system call when they sleep."""
        self._runtime.pool_wake(self.pointer)

    def close(self) -> None:
        """Stop the workers. The pool stays usable: launches on it run on the caller alone."""
        self.resize(1)

    @property
    def n_started(self) -> int:
        """Worker threads that exist now (0 before the first parallel launch)."""
        return int(self._words[pool_ir.POOL_OFFSETS["n_started"] // 8])

    @property
    def n_sleeping(self) -> int:
        """Worker threads that sleep now, that is, neither work nor poll."""
        return int(self._words[pool_ir.POOL_OFFSETS["sleepers"] // 8])

    def _spin_count(self) -> int:
        # With more threads than cores a polling worker takes the core of one that works.
        spin_us = self._spin_us if self.n_threads <= available_cores() else 0.0
        return int(spin_us * 1000.0 / _pause_ns()) if spin_us > 0 else 0

    def _restart_in_child(self) -> None:
        if not self._finalizer.alive:
            return
        self._runtime.pool_init(self.pointer, self.n_threads - 1, self._spin_count())
        self._finalizer.detach()
        self._finalizer = weakref.finalize(
            self, _stop, self._runtime, self.pointer, self._words, os.getpid()
        )


def default_pool() -> ThreadPool:
    """The process's pool: $TINYFLOW_NUM_THREADS threads, else as many as cores are available."""
    global _default
    if _default is None:
        with _default_lock:
            if _default is None:
                _default = ThreadPool(_environment_threads() or available_cores())
    return _default


def set_num_threads(n_threads: int) -> None:
    """Change the size of the default pool, also for programs that are already compiled."""
    default_pool().resize(n_threads)


@functools.cache
def available_cores() -> int:
    """Cores this process may use: affinity mask, bounded by the cgroup's CPU quota, rounded up."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min([cores, *(math.ceil(quota) for quota in _cgroup_quotas(Path("/")))]))


def _cgroup_quotas(root: Path) -> Iterator[float]:
    """CPU quotas (in cores) on this process's way up the cgroup trees, versions 2 and 1.

    Inside a container /proc names a path of the host, which is not mounted; the controller's mount
    point then is the container's own group, so it is always looked at.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in groups:
        _, controllers, path = line.split(":", 2)
        mounts = ["sys/fs/cgroup", "sys/fs/cgroup/unified"]
        if controllers:
            if "cpu" not in controllers.split(","):
                continue
            mounts = ["sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"]
        own = Path(path.lstrip("/"))
        for mount in mounts:
            for group in [own, *own.parents]:
                yield from _quota(root / mount / group)


def _quota(group: Path) -> Iterator[float]:
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text().strip()
            period = (group / "cpu.cfs_period_us").read_text().strip()
    except (OSError, ValueError):
        return
    if quota not in ("max", "-1") and float(period) > 0:
        yield float(quota) / float(period)


def _environment_threads() -> int:
    text = os.environ.get("TINYFLOW_NUM_THREADS", "").strip()
    if not text:
        return 0
    try:
        return _checked_count(int(text))
    except ValueError as error:
        raise ValueError(
            f"TINYFLOW_NUM_THREADS: expected an integer from 1 to {pool_ir.MAX_WORKERS}, "
            f"got {text!r}"
        ) from error


def _checked_count(n_threads: int) -> int:
    if not 1 <= n_threads <= pool_ir.MAX_WORKERS:
        raise ValueError(
            f"number of threads: expected 1 to {pool_ir.MAX_WORKERS}, got {n_threads}"
        )
    return n_threads


@functools.cache
def _pause_ns() -> float:
    """Time of one waiting instruction: 10 to 140 cycles, depending on the CPU generation."""
    spin = native.native_runtime().spin
    best = math.inf
    for _ in range(3):
        begin = time.perf_counter_ns()
        spin(500)
        best = min(best, (time.perf_counter_ns() - begin) / 500)
    return max(best, 0.5)


def _stop(runtime: native.NativeRuntime, pointer: int, words: np.ndarray, pid: int) -> None:
    # After a fork that bypassed Python's hooks there is nobody to join.
    if pid == os.getpid():
        runtime.pool_resize(pointer, 0, 0)


def _after_fork() -> None:
    global _default_lock
    _default_lock = threading.Lock()
    for pool in list(_pools):
        pool._restart_in_child()


_default: ThreadPool | None = None
_default_lock = threading.Lock()
_pools: weakref.WeakSet[ThreadPool] = weakref.WeakSet()
os.register_at_fork(after_in_child=_after_fork)
