"""What the machine can do: memory bandwidth by streaming kernels, and sgemm in GFLOP/s.

Main names: roofline, bandwidths, sgemm_rates, peaks. The kernels are a page of LLVM IR, so that
the limits do not depend on any contestant. May import: NumPy, llvmlite, tinyflow.tools and the
neighbours in this folder.
"""

from __future__ import annotations

import ctypes
import threading
import time

import numpy as np

from benchmarks.harness import Worker, WorkerError
from benchmarks.rivals import core_count
from benchmarks.workloads import matmul

_ELEMENTS = 8 * 1024 * 1024  # that of the element-wise workloads
_LANES = 16
_ROUNDS, _PASSES = 7, 5

# One loop over a float32 array in steps of 64 bytes. STORE is empty or asks for a store that
# leaves the caches alone and so need not read the target first.
_LOOP = """
define void @{name}(ptr noalias %out, {arguments}, i64 %count) {{
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  {loads}
  {arithmetic}
  %out.i = getelementptr float, ptr %out, i64 %i
  store <16 x float> %result, ptr %out.i, align 64{store}
  %next = add i64 %i, 16
  %more = icmp ult i64 %next, %count
  br i1 %more, label %loop, label %done
done:
  ret void
}}
declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)
!0 = !{{i32 1}}
"""
_KERNELS = {
    # name: (inputs, value to store)
    "copy": (1, "%result = fadd <16 x float> %v0, splat (float -0.0)"),
    "triad": (
        2,
        "%result = call <16 x float> @llvm.fma.v16f32("
        "<16 x float> %v0, <16 x float> splat (float 3.0), <16 x float> %v1)",
    ),
    "x*y+z": (
        3,
        "%result = call <16 x float> @llvm.fma.v16f32("
        "<16 x float> %v0, <16 x float> %v1, <16 x float> %v2)",
    ),
}


def _compile(arithmetic: str, inputs: int, bypass: bool):
    """(engine to keep alive, address) of one streaming loop."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    loads = "\n  ".join(
        f"%p{k} = getelementptr float, ptr %in{k}, i64 %i\n"
        f"  %v{k} = load <16 x float>, ptr %p{k}, align 64"
        for k in range(inputs)
    )
    text = _LOOP.format(
        name="stream",
        arguments=", ".join(f"ptr noalias %in{k}" for k in range(inputs)),
        loads=loads,
        arithmetic=arithmetic,
        store=", !nontemporal !0" if bypass else "",
    )
    target = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(text), target)
    engine.finalize_object()
    return engine, engine.get_function_address("stream")


def _aligned(count: int) -> np.ndarray:
    """float32[count] at a multiple of 64 bytes, every page touched."""
    room = np.empty(count * 4 + 64, np.uint8)
    start = -room.ctypes.data % 64
    array = room[start : start + count * 4].view(np.float32)
    array[:] = 0.5
    return array


def _seconds(address: int, arrays: list[np.ndarray], threads: int) -> float:
    """Median seconds of one pass over `arrays` (out, *inputs), divided among threads."""
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(arrays), ctypes.c_int64)(address)
    share = len(arrays[0]) // threads // _LANES * _LANES
    gate = threading.Barrier(threads)
    starts, ends = np.empty((2, threads, _ROUNDS))

    def work(part: int) -> None:
        pointers = [array[part * share :].ctypes.data for array in arrays]
        for turn in range(_ROUNDS):
            gate.wait()
            # Each thread holds the clock itself: whoever waits for them is woken late.
            starts[part, turn] = time.perf_counter()
            for _ in range(_PASSES):
                call(*pointers, share)  # ctypes lets the other threads run
            ends[part, turn] = time.perf_counter()

    workers = [threading.Thread(target=work, args=(part,)) for part in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return float(np.median(ends.max(axis=0) - starts.min(axis=0))) / _PASSES


def bandwidths() -> dict[tuple[str, bool, int], float]:
    """GB/s by (kernel, stores bypass the caches, threads); traffic counted as in the workloads."""
    rates = {}
    for name, (inputs, arithmetic) in _KERNELS.items():
        arrays = [_aligned(_ELEMENTS) for _ in range(inputs + 1)]
        for bypass in (False, True):
            engine, address = _compile(arithmetic, inputs, bypass)
            for threads in sorted({1, core_count()}):
                traffic = 4e-9 * _ELEMENTS * (inputs + 1)
                rates[name, bypass, threads] = traffic / _seconds(address, arrays, threads)
            del engine
    return rates


def sgemm_rates() -> dict[tuple[str, int], float]:
    """GFLOP/s of the 2048 matrix product by (contestant, cores); absent ones are left out."""
    case = matmul.CASES["2048x2048x2048"]
    amount = matmul.work(case).flops / 1e9
    rates = {}
    for name in ("numpy", "torch eager"):
        for cores in sorted({1, core_count()}):
            allowed = ",".join(str(core) for core in range(cores))
            try:
                worker = Worker(name, {"TINYFLOW_BENCH_CORES": allowed})
            except WorkerError:
                continue
            try:
                worker.ask("setup", workload=matmul.__name__, contestant=name, case=case)
                worker.ask("run", count=1)
                passes = [worker.ask("run", count=1)["seconds"] for _ in range(5)]
                rates[name, cores] = amount / min(passes)
            except WorkerError:
                continue
            finally:
                worker.close()
    return rates


def roofline() -> tuple[float, float]:
    """(operations per second, bytes per second) of all cores: the limits that shares are taken of.

    Multiply-adds in registers (tinyflow.tools.machine_peak), and the best of the streaming kernels.
    """
    from tinyflow.tools.machine_peak import machine_peaks

    # A busy machine reaches less; what it once reached is kept.
    found = machine_peaks(remeasure=True)
    threads = found.threads
    bandwidth = max(found.copy_gbs[threads], *bandwidths().values())
    return found.fma_gflops[threads] * 1e9, bandwidth * 1e9


def peaks() -> list[list[str]]:
    """Header and rows for the report."""
    lines = [["limit", "cores", "measured", "unit"]]
    for (name, bypass, threads), rate in bandwidths().items():
        kind = "bypassing stores" if bypass else "plain stores"
        lines.append([f"{name}, {kind}", str(threads), f"{rate:.1f}", "GB/s"])
    for (name, cores), rate in sgemm_rates().items():
        lines.append([f"sgemm 2048, {name}", str(cores), f"{rate:.0f}", "GFLOP/s"])
    return lines
