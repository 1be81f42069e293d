"""Compilation of LLVM text and loading of objects."""

import ctypes
import gc
import threading

import pytest

from tinyflow.core.error import InternalError
from tinyflow.runtime import jit


def answer_ir(name, value):
    return f"define i64 @{name}() {{\n  ret i64 {value}\n}}\n"


def call(address):
    return ctypes.CFUNCTYPE(ctypes.c_int64)(address)()


def test_compiled_function_runs():
    code = jit.compile_object(answer_ir("answer", 42), jit.host_machine())
    assert call(jit.load_object(code, "answer")) == 42


def test_equal_objects_are_linked_once():
    code = jit.compile_object(answer_ir("once", 1), jit.host_machine())
    assert jit.load_object(code, "once") == jit.load_object(bytes(bytearray(code)), "once")


def test_same_symbol_in_two_objects():
    machine = jit.host_machine()
    first = jit.load_object(jit.compile_object(answer_ir("same", 1), machine), "same")
    second = jit.load_object(jit.compile_object(answer_ir("same", 2), machine), "same")
    assert (call(first), call(second)) == (1, 2)


def test_code_outlives_everything_python_holds():
    address = jit.load_object(jit.compile_object(answer_ir("kept", 5), jit.host_machine()), "kept")
    gc.collect()
    assert call(address) == 5


def test_undefined_symbols_come_from_the_process(kernels):
    words = (ctypes.c_int64 * 3)(4, 5, 6)
    copied = (ctypes.c_int64 * 3)()
    buffers = (ctypes.c_void_p * 2)(ctypes.addressof(words), ctypes.addressof(copied))
    extents = (ctypes.c_int64 * 1)(3)
    kernel = ctypes.CFUNCTYPE(
        None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64
    )(kernels["copy"])
    kernel(buffers, extents, 0, 1)
    assert list(copied) == [4, 5, 6]


@pytest.mark.parametrize("passes", ["O0", "O1", "O2", "O3", "", "sroa,instruction_combine"])
def test_every_pipeline_keeps_the_meaning(passes):
    text = """
    define i64 @half(i64 %x) {
      %slot = alloca i64
      store i64 %x, ptr %slot
      %same = load i64, ptr %slot
      %y = sdiv i64 %same, 2
      ret i64 %y
    }
    """
    code = jit.compile_object(text, jit.host_machine(), passes)
    half = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(jit.load_object(code, "half"))
    assert half(-7) == -3


def test_loops_are_neither_vectorised_nor_unrolled(kernels):
    text = """
    define void @double(ptr noalias %x, ptr noalias %y) {
    entry:
      br label %loop
    loop:
      %i = phi i64 [0, %entry], [%next, %loop]
      %x.i = getelementptr float, ptr %x, i64 %i
      %y.i = getelementptr float, ptr %y, i64 %i
      %v = load float, ptr %x.i
      %w = fadd float %v, %v
      store float %w, ptr %y.i
      %next = add i64 %i, 1
      %more = icmp ult i64 %next, 64
      br i1 %more, label %loop, label %out
    out:
      ret void
    }
    """
    printed = jit.optimised_ir(text, jit.host_machine())
    assert printed.count("fadd float") == 1
    assert "x float>" not in printed


def test_assembly_names_the_function():
    assert "answer" in jit.assembly(answer_ir("answer", 42), jit.host_machine())


def test_bad_text_is_an_internal_error():
    with pytest.raises(InternalError, match="LLVM refuses the module"):
        jit.compile_object("define nothing", jit.host_machine())


def test_unverifiable_module_is_an_internal_error():
    text = "define i64 @f(i64 %x) {\nentry:\n  br label %entry\n}\n"
    with pytest.raises(InternalError, match="entry"):
        jit.compile_object(text, jit.host_machine())


def test_unknown_pass_is_named():
    with pytest.raises(InternalError, match="'polish'"):
        jit.compile_object(answer_ir("f", 1), jit.host_machine(), "polish")


def test_unknown_symbol_and_bad_object():
    code = jit.compile_object(answer_ir("known", 1), jit.host_machine())
    with pytest.raises(InternalError, match="unknown"):
        jit.load_object(code, "unknown")
    with pytest.raises(InternalError, match="cannot link"):
        jit.load_object(b"not an object", "known")


def test_threads_compile_and_load_at_the_same_time():
    answers = {}

    def work(number):
        code = jit.compile_object(answer_ir("mine", 1000 + number), jit.host_machine())
        answers[number] = call(jit.load_object(code, "mine"))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {n: 1000 + n for n in range(8)}


def test_importing_the_runtime_does_not_load_llvm(run_python):
    run_python(
        "import sys\n"
        "from tinyflow.runtime import arena, jit, kernel_cache, launch_list, native, thread_pool\n"
        "assert not any(name.startswith('llvmlite') for name in sys.modules)\n"
    )
