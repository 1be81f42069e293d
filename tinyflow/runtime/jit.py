"""LLVM IR text -> object bytes -> callable address, through one LLJIT per process.

Main functions: compile_object, load_object, load_symbols, assembly. llvmlite is imported only when
a function is called, so that importing tinyflow stays light. May import core.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
from collections.abc import Iterable
from typing import Any

from tinyflow.core.error import InternalError

DEFAULT_PASSES = "O2"
"""Pipeline of ``compile_object``; see there for the syntax."""

_lock = threading.RLock()
# A child forked while another thread compiles would inherit a lock that nobody releases.
os.register_at_fork(
    before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
)
_lljit: Any = None
_library_numbers = itertools.count()
_libraries: dict[bytes, Any] = {}


def compile_object(llvm_ir_text: str, target_machine: Any, passes: str = DEFAULT_PASSES) -> bytes:
    """Parse, verify, optimise and encode a module: object file bytes for ``target_machine``.

    passes: "O0" .. "O3" (LLVM's pipeline of that level with loop vectoriser, SLP vectoriser and
    loop unrolling off: our IR arrives vectorised and unrolled, doing it twice costs compile time
    and registers), or a comma-separated list of llvmlite pass names in order, for example
    "sroa,instruction_combine,simplify_cfg" (``add_<name>_pass`` of its ModulePassManager).

    Kernels that are loaded in this process want reloc="pic", codemodel="small".
    Errors: InternalError with LLVM's message when the text is not a valid module.
    """
    with _lock:
        module = _optimised(llvm_ir_text, target_machine, passes)
        return bytes(target_machine.emit_object(module))


def assembly(ir_text: str, target_machine: Any, passes: str = DEFAULT_PASSES) -> str:
    """The machine code of ``compile_object`` as readable assembly text."""
    with _lock:
        module = _optimised(ir_text, target_machine, passes)
        return str(target_machine.emit_assembly(module))


def optimised_ir(ir_text: str, target_machine: Any, passes: str = DEFAULT_PASSES) -> str:
    """The module's IR text after the passes, before instruction selection."""
    with _lock:
        return str(_optimised(ir_text, target_machine, passes))


def load_object(object_bytes: bytes, symbol: str) -> int:
    """Address of ``symbol`` in the object; equal bytes are linked once and never unloaded."""
    return load_symbols(object_bytes, (symbol,))[symbol]


def load_symbols(object_bytes: bytes, symbols: Iterable[str]) -> dict[str, int]:
    """Addresses of several symbols of one object file.

    Undefined symbols (memcpy, pthread_create, ...) are looked up in the current process.
    The code stays mapped until the process ends: native worker threads may still run in it while
    the interpreter shuts down. Errors: InternalError when the linker refuses.
    """
    digest = hashlib.sha256(object_bytes).digest()
    with _lock:
        name = _libraries.get(digest)
        addresses: dict[str, int] = {}
        try:
            if name is None:
                name = f"tinyflow.{next(_library_numbers)}"
                _link(object_bytes, name)
                _libraries[digest] = name
            for symbol in symbols:
                tracker = _lljit.lookup(name, symbol)
                addresses[symbol] = tracker[symbol]
                tracker.detach()
        except RuntimeError as error:
            raise InternalError(
                "jit: LLVM cannot link the object", received={"message": str(error).strip()}
            ) from error
        return addresses


def host_machine() -> Any:
    """A target machine for any CPU of this process's architecture (no optional features)."""
    from llvmlite import binding

    with _lock:
        _initialise_llvm()
        target = binding.Target.from_triple(binding.get_process_triple())
        return target.create_target_machine(opt=2, reloc="pic", codemodel="small")


def _initialise_llvm() -> None:
    """Registers the native code generator; repeating it costs nothing."""
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()


def _link(object_bytes: bytes, name: str) -> None:
    """Define library ``name`` in the process's LLJIT."""
    from llvmlite import binding

    global _lljit
    if _lljit is None:
        _initialise_llvm()
        # JITLink places a module's code and constants in one block, so the small code model's
        # 32-bit distances always reach; the older linker maps sections wherever there is room.
        _lljit = binding.create_lljit_compiler(use_jit_link=True)
    builder = binding.JITLibraryBuilder().add_object_img(object_bytes).add_current_process()
    tracker = builder.link(_lljit, name)
    # Detached objects are never disposed: __del__ at interpreter exit would unmap running code.
    tracker.detach()


def _optimised(ir_text: str, target_machine: Any, passes: str) -> Any:
    from llvmlite import binding

    _initialise_llvm()
    try:
        module = binding.parse_assembly(ir_text)
        module.verify()
    except RuntimeError as error:
        raise InternalError(
            "jit: LLVM refuses the module", received={"message": str(error).strip()}
        ) from error
    level = {"O0": 0, "O1": 1, "O2": 2, "O3": 3}.get(passes)
    tuning = binding.create_pipeline_tuning_options(speed_level=2 if level is None else level)
    tuning.loop_vectorization = False
    tuning.slp_vectorization = False
    tuning.loop_unrolling = False
    tuning.loop_interleaving = False
    builder = binding.create_pass_builder(target_machine, tuning)
    if level is None:
        manager = binding.create_new_module_pass_manager()
        for name in filter(None, passes.split(",")):
            add = getattr(manager, f"add_{name.strip()}_pass", None)
            if add is None:
                raise InternalError(f"jit: llvmlite has no pass named {name!r}")
            add()
    else:
        manager = builder.getModulePassManager()
    manager.run(module, builder)
    return module
