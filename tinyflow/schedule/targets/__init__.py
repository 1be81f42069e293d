"""What a schedule may know about the machine it schedules for.

Main type: ``Target``; ``host_target`` describes this machine, ``current_target`` as the options
have it. Imports core; llvmlite on first use.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, replace

from tinyflow.core import options

#: lanes of 4 bytes: (LLVM's name, the feature that has it)
_PAIR_PRODUCTS = {
    4: ("x86.sse2.pmadd.wd", "sse2"),
    8: ("x86.avx2.pmadd.wd", "avx2"),
    16: ("x86.avx512.pmaddw.d.512", "avx512bw"),
}

_CACHE_FOLDER = "/sys/devices/system/cpu/cpu0/cache"


@dataclass(frozen=True)
class Target:
    """The capability record of a CPU.

    lanes: elements of 4 bytes per vector (16 AVX-512, 8 AVX2, 4 SSE and NEON).
    vector_registers: how many such vectors fit into registers.
    features: LLVM's feature string ("+avx2,-sse4a,...").
    """

    name: str
    triple: str
    cpu: str
    features: str
    lanes: int
    vector_registers: int
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int

    @property
    def vector_bits(self) -> int:
        return 32 * self.lanes

    @property
    def pair_product(self) -> str | None:
        """LLVM's name of the instruction that multiplies vectors of 2 * lanes int16 and adds
        neighbours; None where there is none."""
        if not self.triple.startswith(("x86_64", "amd64")):
            return None
        name, feature = _PAIR_PRODUCTS.get(self.lanes, ("", ""))
        return name if f"+{feature}" in self.features.split(",") else None

    def with_lanes(self, lanes: int) -> Target:
        """The same machine used with other vectors; 0 keeps it as it is.

        Instructions stay available (fma, masks), so the results keep their bits and only the
        vector length differs.
        """
        if lanes in (0, self.lanes):
            return self
        return replace(self, name=f"{self.name}.lanes{lanes}", lanes=lanes)


def _vectors(triple: str, features: dict[str, bool]) -> tuple[int, int]:
    """(lanes, vector_registers) of an architecture with these features."""
    if triple.startswith(("x86_64", "i686", "amd64")):
        if features.get("avx512f") and features.get("avx512vl") and features.get("avx512dq"):
            return 16, 32
        return (8 if features.get("avx2") else 4), 16
    return 4, 32 if triple.startswith(("aarch64", "arm64")) else 16


def _cache_bytes(level: int, default: int) -> int:
    """The size of the data cache of this level, as Linux reports it."""
    try:
        for index in os.listdir(_CACHE_FOLDER):
            folder = os.path.join(_CACHE_FOLDER, index)
            if not index.startswith("index"):
                continue
            with open(os.path.join(folder, "level")) as file:
                if int(file.read()) != level:
                    continue
            with open(os.path.join(folder, "type")) as file:
                if file.read().strip() == "Instruction":
                    continue
            with open(os.path.join(folder, "size")) as file:
                return int(file.read().strip().removesuffix("K")) * 1024
    except (OSError, ValueError):
        pass  # other systems: a guess is as good
    return default


@functools.cache
def host_target() -> Target:
    """This machine, as LLVM sees it."""
    from llvmlite import binding

    triple = binding.get_process_triple()
    found = binding.get_host_cpu_features()
    lanes, registers = _vectors(triple, found)
    return Target(
        name="host",
        triple=triple,
        cpu=binding.get_host_cpu_name(),
        features=found.flatten(),
        lanes=lanes,
        vector_registers=registers,
        l1_bytes=_cache_bytes(1, 32 << 10),
        l2_bytes=_cache_bytes(2, 512 << 10),
        l3_bytes=_cache_bytes(3, 32 << 20),
    )


def current_target() -> Target:
    """This machine, with the vectors that the options ask for."""
    return host_target().with_lanes(options.current().lanes)
