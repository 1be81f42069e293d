"""Kernels of compiled steps as things that can be measured under different parameters.

Main types: ``Workload``, ``Bench`` (its kernels with memory, ready to run). Imports schedule,
runtime and compile.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinyflow.compile.kernels import kernel_llvm, kernel_text
from tinyflow.passes.fusion import Group, Grouping
from tinyflow.runtime import jit
from tinyflow.runtime.arena import aligned_empty
from tinyflow.runtime.launch_list import Launch, LaunchList
from tinyflow.runtime.thread_pool import default_pool
from tinyflow.schedule import tuning
from tinyflow.schedule.auto import lower_group
from tinyflow.schedule.lowering import LoweredKernel, Scratch
from tinyflow.schedule.targets import Target
from tinyflow.schedule.tuning import Tuning

#: A measurement runs the kernel until this much time has gone by, and at least once.
SAMPLE_S = 2e-3


@dataclass(eq=False)
class Workload:
    """One kind of kernel in a step.

    signature: its name in the log.   kind: class of its parameters.   name: for readers.
    seconds: time that the program spends in all kernels with this signature, per run of a step.
    """

    grouping: Grouping
    group: Group
    target: Target
    signature: str
    kind: type[Tuning]
    name: str
    seconds: float = 0.0
    count: int = 1
    _addresses: dict[str, int] = field(default_factory=dict)
    _arrays: dict[Any, np.ndarray[Any, Any]] = field(default_factory=dict)

    def kernels(self, chosen: Tuning) -> list[LoweredKernel]:
        """The group scheduled with these parameters."""
        with tuning.override(self.signature, chosen):
            return lower_group(self.grouping, self.group, self.target)

    def bench(self, chosen: Tuning) -> Bench:
        return Bench(self.kernels(chosen), self.target, self._addresses, self._arrays)


class Bench:
    """Kernels of one group, compiled, with memory.

    text: what they are; two benches with equal text are the same code.   arrays: shared by all
    benches of a workload, so that they find the caches alike and a search does not grow.
    clock: what ``seconds`` reads.
    """

    clock = staticmethod(time.perf_counter)

    def __init__(
        self,
        kernels: list[LoweredKernel],
        target: Target,
        known: dict[str, int],
        arrays: dict[Any, np.ndarray[Any, Any]],
    ) -> None:
        self.text = "\n".join(f"{kernel_text(k.kernel)}chunk {k.chunk}" for k in kernels)
        memory: dict[Any, np.ndarray[Any, Any]] = {}
        slots: dict[Any, int] = {None: 0}
        launches = []
        for lowered in kernels:
            for argument in lowered.arguments:
                if argument not in slots:
                    slots[argument] = len(slots)
                    key: Any = argument
                    if isinstance(argument, Scratch):  # every lowering has new ones
                        key = (len(slots), argument.dtype.name, argument.size)
                    if key not in arrays:
                        arrays[key] = _filled(argument)
                    memory[argument] = arrays[key]
            launches.append(
                Launch(
                    _address(lowered, target, known), lowered.tasks, max(1, lowered.chunk),
                    tuple(slots[a] for a in lowered.arguments), lowered.extents,
                    serial=lowered.chunk == 0,
                )
            )  # fmt: skip
        self.launches = LaunchList(launches, len(slots), default_pool())
        for argument, array in memory.items():
            self.launches.table[slots[argument]] = array.ctypes.data

    def run(self) -> None:
        self.launches.run()

    def seconds(self) -> float:
        """Time of one run, from as many as fit in SAMPLE_S."""
        run, clock = self.launches.run, self.clock
        count, start = 0, clock()
        while True:
            run()
            count += 1
            spent = clock() - start
            if spent >= SAMPLE_S:
                return spent / count


def _has_known_size(argument: Any) -> bool:
    shape = argument.type.shape if hasattr(argument, "type") else (getattr(argument, "size", 0),)
    return shape is not None and all(isinstance(n, int) for n in shape)


def _filled(argument: Any) -> np.ndarray[Any, Any]:
    """Memory for a value: small random floats, zeros elsewhere (an index 0 is always legal)."""
    if hasattr(argument, "type"):
        shape, dtype = tuple(argument.type.shape), argument.dtype
    else:
        shape, dtype = (argument.size,), argument.dtype
    array = aligned_empty(shape, dtype.numpy)
    array[...] = 0
    if dtype.kind == "float":
        array[...] = np.random.default_rng(0).random(shape, np.float32) - 0.5
    return array


def _address(lowered: LoweredKernel, target: Target, known: dict[str, int]) -> int:
    """Native code, kept out of the cache on disk: most of what a search compiles is not kept."""
    from tinyflow.codegen.machine import PASSES, target_machine

    text = kernel_text(lowered.kernel)
    found = known.get(text)
    if found is None:
        symbol = "t" + hashlib.sha256(text.encode()).hexdigest()[:24]
        code = jit.compile_object(
            kernel_llvm(lowered.kernel, target, symbol), target_machine(target), PASSES
        )
        found = known[text] = jit.load_object(code, symbol)
    return found


def workloads_of(plan: Any, seconds: dict[Group, float]) -> list[Workload]:
    """What of a plan can be tuned, one entry per signature, the heaviest first.

    seconds: group -> time that its kernels take in a run of the step.
    """
    found: dict[str, Workload] = {}
    for group in plan.grouping.groups:
        if group.kind not in ("map", "row", "reduce", "dot") or group not in seconds:
            continue
        with tuning.recorded() as asked:
            kernels = lower_group(plan.grouping, group, plan.target)
        if not all(_has_known_size(a) for k in kernels for a in k.arguments):
            continue  # made for every size: there is no one size to measure
        for signature, kind in asked.items():
            known = found.get(signature)
            if known is None:
                name = kernels[-1].kernel.name
                known = found[signature] = Workload(
                    plan.grouping, group, plan.target, signature, kind, name, count=0
                )
            known.seconds += seconds[group]
            known.count += 1
            break  # a reduction in two kernels asks twice; its first sweep is the long one
    return heaviest(found.values())


def heaviest(workloads: Iterable[Workload]) -> list[Workload]:
    return sorted(workloads, key=lambda w: -w.seconds)
