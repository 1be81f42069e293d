"""Hand-written kernels for the runtime's tests, compiled once.

Main fixtures: kernels (name -> address), run_python. May import the runtime.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinyflow.runtime import jit

ROOT = Path(__file__).resolve().parents[2]

# Each kernel follows the ABI: buffers, extents, begin, end.
KERNELS_IR = """
declare i64 @pthread_self()
declare i64 @llvm.readcyclecounter()
declare i32 @usleep(i32)

define void @nothing(ptr %b, ptr %e, i64 %begin, i64 %end) {
  ret void
}

; counts[i] += 1 for each task i: shows tasks that run twice or never
define void @count(ptr %b, ptr %e, i64 %begin, i64 %end) {
entry:
  %counts = load ptr, ptr %b
  %any = icmp slt i64 %begin, %end
  br i1 %any, label %loop, label %out
loop:
  %i = phi i64 [%begin, %entry], [%next, %loop]
  %at = getelementptr i64, ptr %counts, i64 %i
  %old = load volatile i64, ptr %at
  %new = add i64 %old, 1
  store volatile i64 %new, ptr %at
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %end
  br i1 %more, label %loop, label %out
out:
  ret void
}

; threads[i] = id of the thread that ran task i, after a nap that lets the others come
define void @who(ptr %b, ptr %e, i64 %begin, i64 %end) {
entry:
  %threads = load ptr, ptr %b
  br label %loop
loop:
  %i = phi i64 [%begin, %entry], [%next, %loop]
  %slept = call i32 @usleep(i32 2000)
  %self = call i64 @pthread_self()
  %at = getelementptr i64, ptr %threads, i64 %i
  store i64 %self, ptr %at
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %end
  br i1 %more, label %loop, label %out
out:
  ret void
}

; z[i] = x[i] * y[i], float32
define void @multiply(ptr %b, ptr %e, i64 %begin, i64 %end) {
entry:
  %b.y = getelementptr ptr, ptr %b, i64 1
  %b.z = getelementptr ptr, ptr %b, i64 2
  %x = load ptr, ptr %b
  %y = load ptr, ptr %b.y
  %z = load ptr, ptr %b.z
  %any = icmp slt i64 %begin, %end
  br i1 %any, label %loop, label %out
loop:
  %i = phi i64 [%begin, %entry], [%next, %loop]
  %x.i = getelementptr float, ptr %x, i64 %i
  %y.i = getelementptr float, ptr %y, i64 %i
  %z.i = getelementptr float, ptr %z, i64 %i
  %left = load float, ptr %x.i
  %right = load float, ptr %y.i
  %product = fmul float %left, %right
  store float %product, ptr %z.i
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %end
  br i1 %more, label %loop, label %out
out:
  ret void
}

; index[0] must be below extents[0]; buffers: status, index
define void @check_index(ptr %b, ptr %e, i64 %begin, i64 %end) {
  %b.index = getelementptr ptr, ptr %b, i64 1
  %status = load ptr, ptr %b
  %index = load ptr, ptr %b.index
  %value = load i64, ptr %index
  %limit = load i64, ptr %e
  %bad = icmp sge i64 %value, %limit
  br i1 %bad, label %report, label %out
report:
  %s.value = getelementptr i64, ptr %status, i64 2
  %s.limit = getelementptr i64, ptr %status, i64 3
  store i64 %value, ptr %s.value
  store i64 %limit, ptr %s.limit
  store i64 7, ptr %status
  br label %out
out:
  ret void
}

; copies extents[0] words by a library call, so the object has an undefined symbol
define void @copy(ptr %b, ptr %e, i64 %begin, i64 %end) {
  %b.to = getelementptr ptr, ptr %b, i64 1
  %from = load ptr, ptr %b
  %to = load ptr, ptr %b.to
  %words = load i64, ptr %e
  %size = shl i64 %words, 3
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %from, i64 %size, i1 false)
  ret void
}
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
"""

NAMES = ("nothing", "count", "who", "multiply", "check_index", "copy")


@pytest.fixture(scope="session")
def kernels():
    """Address of each kernel of KERNELS_IR."""
    return jit.load_symbols(jit.compile_object(KERNELS_IR, jit.host_machine()), NAMES)


@pytest.fixture
def run_python(tmp_path):
    """run_python(code) -> output of a fresh interpreter; fails if it fails or hangs.

    Forking and exiting are tested there: pytest's own process has threads and hooks.
    """

    def run(code, timeout_s=60, **environment):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            cwd=ROOT,
            env={**os.environ, "TINYFLOW_CACHE": str(tmp_path / "kernels"), **environment},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
