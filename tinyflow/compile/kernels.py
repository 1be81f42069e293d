"""From a scheduled loop nest to the address of its native code, through the caches.

Main functions: ``kernel_address``, ``kernel_text``. Imports core, ir, schedule, codegen, runtime:
what prints and generates code only when a kernel is new, as most processes find theirs on disk.
"""

from __future__ import annotations

import functools
import hashlib
import os
import threading
from dataclasses import replace

from tinyflow.core import options
from tinyflow.ir.loop.nodes import Kernel
from tinyflow.runtime import jit
from tinyflow.runtime.kernel_cache import cache_key, default_cache
from tinyflow.schedule.targets import Target

_addresses: dict[str, int] = {}
_lock = threading.Lock()


@functools.cache
def generator_fingerprint() -> str:
    """Hash of the source files that decide what machine code a loop nest becomes."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    digest = hashlib.sha256()
    for folder in ("codegen", "ir/scalar", "ir/loop"):
        directory = os.path.join(package, folder)
        for name in sorted(os.listdir(directory)):
            if name.endswith(".py"):
                with open(os.path.join(directory, name), "rb") as file:
                    digest.update(file.read())
    return digest.hexdigest()[:16]


def kernel_text(kernel: Kernel) -> str:
    """The canonical text of a kernel: its identity in the caches."""
    from tinyflow.ir.loop.text import show

    return show(replace(kernel, name="kernel"))


@functools.cache
def target_text(target: Target) -> str:
    return (
        f"{target.triple} {target.cpu} {target.features} lanes={target.lanes} "
        f"{generator_fingerprint()}"
    )


def object_key(kernel: Kernel, target: Target) -> str:
    """Key of the kernel's machine code in the caches; kernels that were read from there know it."""
    known: str | None = kernel.__dict__.get("object_key")
    if known is not None:
        return known
    keys: dict[Target, str] = kernel.__dict__.setdefault("_object_keys", {})
    if target not in keys:  # printing a kernel costs as much as scheduling it
        keys[target] = cache_key(kernel_text(kernel), target_text(target))
    return keys[target]


def kernel_llvm(kernel: Kernel, target: Target, symbol: str = "kernel") -> str:
    """LLVM IR of the kernel before LLVM's own passes."""
    from tinyflow.codegen.llvm import lower_to_llvm

    return lower_to_llvm(replace(kernel, name=symbol), target)


def kernel_assembly(kernel: Kernel, target: Target) -> str:
    from tinyflow.codegen.machine import PASSES, target_machine

    return jit.assembly(kernel_llvm(kernel, target), target_machine(target), PASSES)


def kernel_address(kernel: Kernel, target: Target) -> int:
    """Address of the kernel's native code: from memory, from disk, or compiled now."""
    key = object_key(kernel, target)
    known = _addresses.get(key)
    if known is not None:
        return known
    if options.current().verify:
        from tinyflow.ir.loop.verify import verify

        verify(kernel)

    def build() -> bytes:
        from tinyflow.codegen.machine import PASSES, target_machine

        return jit.compile_object(
            kernel_llvm(kernel, target, _symbol(key)), target_machine(target), PASSES
        )

    return _loaded(key, default_cache().get_or_build(key, build))


def known_address(key: str) -> int | None:
    """Address of the code with this ``object_key``, from memory or disk; None if in neither."""
    known = _addresses.get(key)
    if known is None:
        code = default_cache().get(key)
        known = None if code is None else _loaded(key, code)
    return known


def _symbol(key: str) -> str:
    return f"k{key[:24]}"


def _loaded(key: str, code: bytes) -> int:
    with _lock:
        address = _addresses.get(key)
        if address is None:
            address = _addresses[key] = jit.load_object(code, _symbol(key))
        return address
