"""LLVM IR text of what the native runtime needs of the processor and of the operating system.

Main function: machine_ir. Imports nothing of this package.

Besides the system's calls: pause(), float_mode(), set_float_mode(mode).
"""

from __future__ import annotations

import platform

# pause: waits a few dozen cycles and gives the sibling hyper-thread the core.
# set/restore: round to nearest, denormals kept. A library built with -ffast-math may have switched
# this thread to flush denormals, and then results would depend on which thread runs a task.
_X86 = """
declare void @llvm.x86.sse2.pause()
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)

define internal void @pause() alwaysinline {
  call void @llvm.x86.sse2.pause()
  ret void
}

define internal i64 @float_mode() alwaysinline {
  %slot = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %slot)
  %word = load i32, ptr %slot
  ; the low six bits are sticky exception flags, not modes
  %mode = and i32 %word, 65472
  %wide = zext i32 %mode to i64
  ret i64 %wide
}

define internal void @set_float_mode(i64 %mode) noinline {
  %slot = alloca i32
  %word = trunc i64 %mode to i32
  store i32 %word, ptr %slot
  call void @llvm.x86.sse.ldmxcsr(ptr %slot)
  ret void
}
"""

_AARCH64 = """
declare void @llvm.aarch64.isb(i32)
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)

; yield is a no-op on most cores; isb really waits (Rust and MySQL spin with it)
define internal void @pause() alwaysinline {
  call void @llvm.aarch64.isb(i32 15)
  ret void
}

define internal i64 @float_mode() alwaysinline {
  %mode = call i64 @llvm.aarch64.get.fpcr()
  ret i64 %mode
}

define internal void @set_float_mode(i64 %mode) noinline {
  call void @llvm.aarch64.set.fpcr(i64 %mode)
  ret void
}
"""

_OTHER = """
define internal void @pause() alwaysinline {
  ret void
}

define internal i64 @float_mode() alwaysinline {
  ret i64 0
}

define internal void @set_float_mode(i64 %mode) alwaysinline {
  ret void
}
"""

_LIBC = """
declare i32 @sched_yield()
declare i32 @clock_gettime(i32, ptr)
declare i32 @sigfillset(ptr)
declare i32 @sigdelset(ptr, i32)
declare i32 @pthread_sigmask(i32, ptr, ptr)
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_join(i64, ptr)
declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_init(ptr, ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_signal(ptr)
declare i32 @pthread_cond_broadcast(ptr)
declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)
declare ptr @llvm.stacksave.p0()
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.stackrestore.p0(ptr)
"""

# machine -> (helpers, float mode with IEEE rounding and denormals)
_ARCHITECTURES = {
    "x86_64": (_X86, 0x1F80),
    "amd64": (_X86, 0x1F80),
    "aarch64": (_AARCH64, 0),
    "arm64": (_AARCH64, 0),
}


def machine_ir(machine: str | None = None) -> tuple[str, int]:
    """Text for ``machine`` (``platform.machine()`` by default), and the word of the float mode that
    kernels run in."""
    helpers, float_mode = _ARCHITECTURES.get((machine or platform.machine()).lower(), (_OTHER, 0))
    return _LIBC + helpers, float_mode
