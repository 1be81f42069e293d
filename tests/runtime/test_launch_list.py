"""Native segments: gathering, errors, profile, one foreign call."""

import ctypes
import functools
import re
import sys

import numpy as np
import pytest

from tinyflow.runtime import driver_ir, jit, native, native_ir
from tinyflow.runtime.arena import Arena
from tinyflow.runtime.launch_list import Launch, LaunchList, LaunchStatus
from tinyflow.runtime.thread_pool import ThreadPool


@pytest.fixture(scope="module")
def pool():
    made = ThreadPool(2)
    yield made
    made.close()


def pointers(native_list, arrays):
    for slot, array in enumerate(arrays, start=1):
        native_list.table[slot] = array.ctypes.data


@pytest.mark.parametrize("n_threads", [1, 2, 4])
def test_kernels_run_in_order_on_their_own_buffers(kernels, n_threads):
    """z = x * y, then w = z * x: the second launch needs all of the first."""
    pool = ThreadPool(n_threads)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 1003)).astype(np.float32)
    z, w = np.zeros((2, 1003), np.float32)
    segment = LaunchList(
        [
            Launch(kernels["multiply"], 1003, 10, (1, 2, 3), ()),
            Launch(kernels["multiply"], 1003, 7, (3, 1, 4), ()),
        ],
        5,
        pool,
    )
    pointers(segment, (x, y, z, w))
    for _ in range(50):
        z[:] = w[:] = np.nan
        assert segment.run() == 0
        assert z.tobytes() == (x * y).tobytes()
        assert w.tobytes() == (x * y * x).tobytes()
    pool.close()


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 65_537, 200_001])
def test_copies_take_the_bytes_asked_for_and_no_more(pool, size):
    source = np.random.default_rng(size).integers(0, 255, size + 3, dtype=np.uint8)
    target = np.full(size + 3, 7, np.uint8)
    tasks = -(-size // (1 << driver_ir.COPY_BITS))
    address = native.native_runtime().addresses["copy_bytes"]
    for chunk in (1, 2):
        target[:] = 7
        segment = LaunchList([Launch(address, tasks, chunk, (1, 2), (size,))], 3, pool)
        pointers(segment, (source[1:], target[1:]))
        assert segment.run() == 0
        np.testing.assert_array_equal(target[1 : size + 1], source[1 : size + 1])
        assert target[0] == 7 and (target[size + 1 :] == 7).all()


def test_table_can_change_between_runs(kernels, pool):
    segment = LaunchList([Launch(kernels["count"], 3, 1, (1,), ())], 2, pool)
    first, second = np.zeros((2, 3), np.int64)
    for array in (first, second, second):
        segment.table[1] = array.ctypes.data
        segment.run()
    assert first.tolist() == [1, 1, 1] and second.tolist() == [2, 2, 2]


def test_buffers_in_an_arena(kernels, pool):
    arena = Arena(4096)
    view = arena.view(128, (6,), np.int64)
    segment = LaunchList([Launch(kernels["count"], 6, 2, (1,), ())], 2, pool)
    segment.table[1] = arena.address + 128
    segment.run()
    assert view.tolist() == [1] * 6


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_a_slot_shows_a_row_of_an_array(kernels, pool, kind):
    """Slot 3 is row index of the array in slot 1, of which the next launch counts up elements."""
    array, index = np.zeros((4, 5), np.int64), np.zeros(1, kind)
    segment = LaunchList(
        [Launch.row(3, 1, 2, 40, 4, index.itemsize, 7), Launch(kernels["count"], 5, 1, (3,), ())],
        4, pool,
    )  # fmt: skip
    pointers(segment, (array, index))
    for row in (2, 0, 3, 2):
        index[0] = row
        assert segment.run() == 0
    assert array.tolist() == [[n] * 5 for n in (1, 0, 2, 1)]
    for row in (4, -1):
        index[0] = row
        assert segment.run() == 7
        assert segment.status == LaunchStatus(7, 0, row, 4)
    assert array.sum() == 20
    index[0] = 1
    assert segment.run() == 0 and array[1].tolist() == [1] * 5


def test_a_row_needs_a_slot_of_the_table(pool):
    with pytest.raises(ValueError, match="slots below 3"):
        LaunchList([Launch.row(3, 1, 2, 40, 4, 4, 1)], 3, pool)


def test_many_arguments(kernels, pool):
    """More buffers than any fixed array would hold."""
    n_args = 3000
    text = f"""
    define void @last(ptr %b, ptr %e, i64 %begin, i64 %end) {{
      %b.last = getelementptr ptr, ptr %b, i64 {n_args - 1}
      %p = load ptr, ptr %b.last
      store i64 77, ptr %p
      ret void
    }}
    """
    last = jit.load_object(jit.compile_object(text, jit.host_machine()), "last")
    word = np.zeros(1, np.int64)
    launch = Launch(last, 1, 1, tuple(range(1, n_args + 1)), ())
    segment = LaunchList([launch] * 500, n_args + 1, pool)
    segment.table[n_args] = word.ctypes.data
    assert segment.run() == 0  # 500 * 24 kB would overflow the stack if they added up
    assert word[0] == 77


def test_error_stops_the_list_and_names_the_launch(kernels, pool):
    index = np.array([5], np.int64)
    counts = np.zeros(4, np.int64)
    check = Launch(kernels["check_index"], 1, 1, (0, 1), (5,), name="gather")
    count = Launch(kernels["count"], 4, 1, (2,), ())
    segment = LaunchList([count, check, count], 3, pool)
    pointers(segment, (index, counts))
    assert segment.run() == 7
    assert segment.status == LaunchStatus(code=7, launch_index=1, value=5, limit=5)
    assert counts.tolist() == [1] * 4
    index[0] = 4
    assert segment.run() == 0  # the code of the last run does not stick
    assert segment.status.code == 0
    assert counts.tolist() == [3] * 4


def test_error_inside_a_parallel_launch(kernels, pool):
    index = np.array([9], np.int64)
    segment = LaunchList([Launch(kernels["check_index"], 16, 1, (0, 1), (5,))], 2, pool)
    pointers(segment, (index,))
    for _ in range(100):
        assert segment.run() == 7
        assert (segment.status.value, segment.status.limit) == (9, 5)


def test_empty_list(pool):
    segment = LaunchList([], 1, pool)
    assert segment.run() == 0
    segment.profile(True)
    assert segment.run() == 0
    assert segment.record().native_calls == 2
    assert segment.record().launches == ()


def test_zero_tasks_and_no_arguments(kernels, pool):
    segment = LaunchList(
        [Launch(kernels["count"], 0, 1, (1,), ()), Launch(kernels["nothing"], 4, 1, (), ())],
        2,
        pool,
    )
    counts = np.zeros(1, np.int64)
    pointers(segment, (counts,))
    assert segment.run() == 0
    assert counts[0] == 0


def test_a_run_is_one_foreign_call(kernels, pool):
    segment = LaunchList([Launch(kernels["nothing"], 4, 1, (), ())] * 30, 1, pool)
    assert isinstance(segment.run, functools.partial)
    assert isinstance(segment.run.func, ctypes._CFuncPtr)
    for _ in range(5):
        segment.run()
    assert segment.record().native_calls == 5


def test_profile_counts_and_times(kernels, pool):
    launches = [
        Launch(kernels["nothing"], 1, 1, (), (), "relu", "model.py:3", flops=10, bytes=80),
        Launch(kernels["nothing"], 6, 1, (), (), "matmul", "model.py:4"),
    ]
    segment = LaunchList(launches, 1, pool)
    segment.run()
    assert segment.record().runs == 0
    segment.profile(True)
    for _ in range(200):
        segment.run()
    segment.profile(False)
    segment.run()
    record = segment.record()
    assert (record.native_calls, record.runs) == (202, 200)
    first, second = record.launches
    assert (first.name, first.source, first.calls) == ("relu", "model.py:3", 200)
    assert (first.flops, first.bytes) == (10, 80)
    assert second.name == "matmul"
    for one in record.launches:
        assert one.median_ns >= 0 and one.last_ns >= 0
    assert record.median_ns >= max(first.median_ns, second.median_ns)


def test_profile_shows_which_kernel_is_slow(kernels, pool):
    threads = np.zeros(2, np.int64)
    launches = [
        Launch(kernels["nothing"], 1, 1, (), ()),
        Launch(kernels["who"], 2, 2, (1,), ()),  # sleeps 2 ms per task
    ]
    segment = LaunchList(launches, 2, pool)
    pointers(segment, (threads,))
    segment.profile(True)
    for _ in range(5):
        segment.run()
    fast, slow = segment.record().launches
    assert slow.median_ns > max(fast.median_ns, 2_000_000)
    segment.profile(True)  # starting again forgets
    assert segment.record().runs == 0


def test_failed_runs_are_not_recorded(kernels, pool):
    index = np.array([5], np.int64)
    segment = LaunchList([Launch(kernels["check_index"], 1, 1, (0, 1), (5,))], 2, pool)
    pointers(segment, (index,))
    segment.profile(True)
    segment.run()
    assert segment.record().runs == 0
    index[0] = 0
    segment.run()
    assert segment.record().runs == 1


@pytest.mark.parametrize(
    "change",
    [
        {"fn_address": 0},
        {"n_tasks": -1},
        {"chunk": 0},
        {"arg_slots": (2,)},
        {"arg_slots": (-1,)},
    ],
    ids=str,
)
def test_numbers_native_code_would_trust_are_checked(kernels, pool, change):
    good = {"fn_address": kernels["nothing"], "n_tasks": 1, "chunk": 1, "arg_slots": (1,)}
    with pytest.raises(ValueError, match="'bad'"):
        LaunchList([Launch(**{**good, **change}, extents=(), name="bad")], 2, pool)


def test_run_keeps_the_memory_it_needs(kernels, pool):
    counts = np.zeros(3, np.int64)
    segment = LaunchList([Launch(kernels["count"], 3, 1, (1,), ())], 2, pool)
    segment.table[1] = counts.ctypes.data
    run = segment.run
    del segment
    junk = [np.full(64, 255, np.uint8) for _ in range(200)]
    assert run() == 0 and counts.tolist() == [1, 1, 1]
    del junk


def test_unpacked_entry_point_without_pool(kernels, pool):
    """run_segment with its five arguments, as natively compiled callers use it."""
    segment = LaunchList([Launch(kernels["count"], 5, 1, (1,), ())], 2, pool)
    counts = np.zeros(5, np.int64)
    segment.table[1] = counts.ctypes.data
    launches, n_launches, table, *_ = (int(word) for word in segment._segment)
    code = native.native_runtime().run_segment(launches, n_launches, table, None, None)
    assert code == 0 and counts.tolist() == [1] * 5


def test_the_native_path_calls_nothing_that_allocates():
    declared = re.findall(r"^declare \S+ @([\w.]+)\(", native_ir.runtime_ir(), re.MULTILINE)
    calls = {name for name in declared if not name.startswith("llvm.")}
    assert calls == {
        "sched_yield", "clock_gettime", "sigfillset", "sigdelset", "pthread_sigmask",
        "pthread_create", "pthread_join", "pthread_mutex_init", "pthread_mutex_lock",
        "pthread_mutex_unlock", "pthread_cond_init", "pthread_cond_wait", "pthread_cond_signal",
        "pthread_cond_broadcast",
    }  # fmt: skip


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads glibc's counters")
def test_running_allocates_nothing(kernels, pool):
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("no mallinfo2 in this libc")

    class Usage(ctypes.Structure):
        _fields_ = [(name, ctypes.c_size_t) for name in "abcdefghij"]

    libc.mallinfo2.restype = Usage
    launches = [Launch(kernels["nothing"], 4, 1, (0,), ())] * 1000
    segment = LaunchList(launches, 1, pool)
    segment.profile(True)
    segment.run()
    before = libc.mallinfo2().h  # bytes in use
    for _ in range(10):
        segment.run()
    assert libc.mallinfo2().h - before < 1000  # 10 000 launches; Python may take a little


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "riscv64"])
def test_the_text_is_valid_for_every_architecture(machine):
    """Parsed and encoded for the machine; only its own can be run here."""
    from llvmlite import binding

    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    target = binding.Target.from_triple(f"{machine}-unknown-linux-gnu")
    features = "+m,+a,+f,+d" if machine == "riscv64" else ""
    compiled = jit.compile_object(
        native_ir.runtime_ir(machine),
        target.create_target_machine(features=features, reloc="pic", codemodel="small"),
    )
    assert b"run_segment" in compiled
