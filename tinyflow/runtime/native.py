"""The native runtime of this process: compiled once, cached on disk, called through ctypes.

Main types: NativeRuntime; native_runtime() returns the one instance. Imports jit, kernel_cache and
native_ir of this package; the text of the code is in native_ir.

Kernel ABI:  void kernel(void **buffers, int64 *extents, int64 begin, int64 end)
runs the tasks [begin, end) of its outermost parallel loop. Tasks must not depend on each other and
must give the same bits whichever thread runs them, in any split into ranges.

Launch (7 words):  fn, n_tasks, chunk, n_args, int32 *arg_indices, int64 *extents, flags
runs fn over [0, n_tasks) with buffers[j] = table[arg_indices[j]]; on the pool in ranges of
``chunk`` tasks when n_tasks > chunk, unless flags has FLAG_SERIAL.

table[0] is the status record {code, launch_index, value, limit}: a kernel that finds bad input
(index out of range, failed assertion) stores value, limit and a code other than 0.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tinyflow.runtime import jit, kernel_cache, native_ir

_SYMBOLS = (
    "run_segment", "run_packed", "run_gang", "point_at_row", "copy_bytes", "pool_init",
    "pool_resize", "pool_wake", "spin",
)  # fmt: skip
# The text is written as it should run; the rest of O2 takes as long again and changes nothing.
_PASSES = "always_inliner,sroa,instruction_combine,simplify_cfg"


@dataclass(frozen=True)
class NativeRuntime:
    """Callable entry points; each call releases the GIL. Pointers are integers.

    run_segment(launches, n_launches, table, pool, profile) -> status code, 0 when all went well
    run_packed(segment): the same, its arguments in a record of SEGMENT_FIELDS
    pool_init(pool, n_workers, spin_count), pool_resize(pool, n_workers, spin_count)
    pool_wake(pool): sleeping workers start to poll; the first call creates them
    spin(n): n times the waiting instruction of the pool
    addresses: symbol -> address, for code that calls the runtime natively
    """

    run_segment: Callable[..., int]
    run_packed: Callable[[Any], int]
    pool_init: Callable[[int, int, int], None]
    pool_resize: Callable[[int, int, int], None]
    pool_wake: Callable[[int], None]
    spin: Callable[[int], None]
    addresses: dict[str, int]


_lock = threading.Lock()
os.register_at_fork(
    before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
)
_runtime: NativeRuntime | None = None


def native_runtime() -> NativeRuntime:
    """The process's runtime; the first call loads it from the cache or compiles it (0.04 s)."""
    global _runtime
    if _runtime is None:
        with _lock:
            if _runtime is None:
                _runtime = _load()
    return _runtime


def runtime_object() -> bytes:
    """Object file of the native runtime for this machine."""
    text = native_ir.runtime_ir()
    machine = jit.host_machine()
    key = kernel_cache.cache_key(text, f"{machine.triple} {_PASSES}")
    return kernel_cache.default_cache().get_or_build(
        key, lambda: jit.compile_object(text, machine, _PASSES)
    )


def _load() -> NativeRuntime:
    addresses = jit.load_symbols(runtime_object(), _SYMBOLS)
    word, pointer = ctypes.c_int64, ctypes.c_void_p

    def entry(symbol: str, result: Any, *arguments: Any) -> Any:
        return ctypes.CFUNCTYPE(result, *arguments)(addresses[symbol])

    return NativeRuntime(
        run_segment=entry("run_segment", ctypes.c_int32, pointer, word, pointer, pointer, pointer),
        run_packed=entry("run_packed", ctypes.c_int32, pointer),
        pool_init=entry("pool_init", None, pointer, word, word),
        pool_resize=entry("pool_resize", None, pointer, word, word),
        pool_wake=entry("pool_wake", None, pointer),
        spin=entry("spin", None, word),
        addresses=addresses,
    )
