"""LLVM IR text of the native runtime: thread pool and launch driver, for one architecture.

Main function: runtime_ir. Imports machine_ir, pool_ir and driver_ir of this package.
"""

from __future__ import annotations

import signal
import time
from string import Template

from tinyflow.runtime import driver_ir, pool_ir
from tinyflow.runtime.machine_ir import machine_ir

_SYNCHRONOUS_SIGNALS = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP")


def runtime_ir(machine: str | None = None) -> str:
    """The module's text for ``machine`` (``platform.machine()`` by default) and this system."""
    helpers, float_mode = machine_ir(machine)
    unblock = "\n".join(
        f"  %keep.{name} = call i32 @sigdelset(ptr %blocked, i32 {int(getattr(signal, name))})"
        for name in _SYNCHRONOUS_SIGNALS
    )
    body = Template(pool_ir.POOL_IR + driver_ir.DRIVER_IR).substitute(
        pool_ir.POOL_OFFSETS,
        chunk_bits=pool_ir.CHUNK_BITS,
        chunk_mask=(1 << pool_ir.CHUNK_BITS) - 1,
        one_first=1 << pool_ir.CHUNK_BITS,
        generation_bit=2 * pool_ir.CHUNK_BITS,
        flag_serial=driver_ir.FLAG_SERIAL,
        flag_arm=driver_ir.FLAG_ARM,
        flag_jump=driver_ir.FLAG_JUMP,
        flag_if_true=driver_ir.FLAG_IF_TRUE,
        flag_always=driver_ir.FLAG_ALWAYS,
        copy_bits=driver_ir.COPY_BITS,
        default_float_mode=float_mode,
        clock=int(time.CLOCK_MONOTONIC),
        sig_block=int(signal.SIG_BLOCK),
        sig_setmask=int(signal.SIG_SETMASK),
        unblock=unblock,
    )
    return helpers + body
