"""From a ``Target`` to LLVM's target machine, and the passes that our IR needs.

Main functions: ``target_machine``, ``data_layout``. Constant: ``PASSES``. Imports schedule.targets;
llvmlite on first use.
"""

from __future__ import annotations

import functools
from typing import Any

from tinyflow.schedule.targets import Target

PASSES = "sroa"
"""Pass list for ``runtime.jit.compile_object``.

Kernels arrive vectorised, unrolled, hoisted and free of common sub-expressions; only the slots of
register buffers, which are written as memory, remain to be promoted to values. More passes cost
compile time and gain nothing measurable (tests/codegen/test_speed.py has the numbers to beat).
"""


@functools.cache
def target_machine(target: Target) -> Any:
    """LLVM's target machine for kernels loaded into this process."""
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    # Kernels arrive in the order that keeps the fewest values alive. LLVM's machine scheduler moves
    # loads up in a register tile, which fills all registers, and then spills the accumulators:
    # a matrix product ran at half its speed. The option is the process's, there is no other.
    binding.set_option("tinyflow", "-enable-misched=false")
    found = binding.Target.from_triple(target.triple)
    return found.create_target_machine(
        cpu=target.cpu, features=target.features, opt=2, reloc="pic", codemodel="small"
    )


@functools.cache
def data_layout(target: Target) -> str:
    return str(target_machine(target).target_data)
