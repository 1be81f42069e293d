"""The native thread pool: exactly-once execution, concurrency, fork, exit."""

import os
import random
import threading
import time

import numpy as np
import pytest

from tinyflow.runtime import pool_ir, thread_pool
from tinyflow.runtime.launch_list import Launch, LaunchList
from tinyflow.runtime.thread_pool import ThreadPool

MAX_TASKS = 300


def random_launches(kernel, n_launches, seed):
    """Launches of the count kernel, and how often each task index occurs in them."""
    rng = random.Random(seed)
    launches = []
    expected = np.zeros(MAX_TASKS, np.int64)
    for _ in range(n_launches):
        n_tasks = rng.choice((0, 1, 2, 3, 7, rng.randrange(MAX_TASKS)))
        launches.append(Launch(kernel, n_tasks, rng.choice((1, 1, 2, 5, 100)), (1,), ()))
        expected[:n_tasks] += 1
    return launches, expected


def counting_list(kernels, pool, n_launches, seed):
    launches, expected = random_launches(kernels["count"], n_launches, seed)
    counts = np.zeros(MAX_TASKS, np.int64)
    native = LaunchList(launches, 2, pool)
    native.table[1] = counts.ctypes.data
    return native, counts, expected


@pytest.mark.parametrize("n_threads", [1, 2, 3, 4])
@pytest.mark.parametrize("spin_us", [0.0, 50.0])
def test_every_task_runs_exactly_once(kernels, n_threads, spin_us):
    """100 000 launches over the four sizes and both ways of waiting."""
    pool = ThreadPool(n_threads, spin_us=spin_us)
    native, counts, expected = counting_list(kernels, pool, 1250, seed=n_threads)
    for _ in range(10):
        assert native.run() == 0
    np.testing.assert_array_equal(counts, 10 * expected)
    pool.close()


def test_naps_between_runs_do_not_lose_wake_ups(kernels):
    pool = ThreadPool(3, spin_us=5.0)
    native, counts, expected = counting_list(kernels, pool, 3, seed=8)
    for turn in range(300):
        native.run()
        if turn % 3:
            time.sleep(0.0003 * (turn % 3))
    np.testing.assert_array_equal(counts, 300 * expected)
    pool.close()


def who_ran(kernels, pool, n_tasks):
    """The thread of each task, of a run in which all threads of the pool took part."""
    threads = np.zeros(n_tasks, np.int64)
    native = LaunchList([Launch(kernels["who"], n_tasks, 1, (1,), ())], 2, pool)
    native.table[1] = threads.ctypes.data
    for _ in range(50):  # on a loaded machine the workers may come late
        native.run()
        if len(set(threads)) == pool.n_threads:
            break
    return threads


def test_several_threads_take_part(kernels):
    pool = ThreadPool(3)
    assert len(set(who_ran(kernels, pool, 24))) == 3
    assert pool.n_started == 2
    pool.close()
    assert pool.n_started == 0


def test_threads_keep_their_end_of_a_job(kernels):
    """The caller begins with the first chunk and its first worker with the last one."""
    pool = ThreadPool(2)
    threads = who_ran(kernels, pool, 8)
    caller = threading.get_ident()
    changes = np.flatnonzero(np.diff(threads))
    assert threads[0] == caller != threads[-1] and len(changes) == 1
    pool.close()


def test_serial_launches_stay_on_the_caller(kernels):
    pool = ThreadPool(3)
    threads = np.zeros(4, np.int64)
    for launch in (
        Launch(kernels["who"], 4, 1, (1,), (), serial=True),
        Launch(kernels["who"], 4, 4, (1,), ()),
    ):
        native = LaunchList([launch], 2, pool)
        native.table[1] = threads.ctypes.data
        native.run()
        assert set(threads) == {threading.get_ident()}
    assert pool.n_started == 0  # nothing parallel came
    pool.close()


def test_threads_that_run_at_the_same_time(kernels):
    """A pool taken by another thread is not waited for; counts stay exact."""
    pool = ThreadPool(3)
    results = []

    def work(seed):
        native, counts, expected = counting_list(kernels, pool, 400, seed)
        codes = [native.run() for _ in range(20)]
        results.append(any(codes) or not np.array_equal(counts, 20 * expected))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [False] * 4
    pool.close()


def test_resize_and_wake_while_running(kernels):
    pool = ThreadPool(2, spin_us=5.0)
    stop = threading.Event()

    def disturb():
        rng = random.Random(3)
        while not stop.is_set():
            pool.resize(rng.randrange(1, 5))
            pool.wake()

    disturber = threading.Thread(target=disturb)
    disturber.start()
    native, counts, expected = counting_list(kernels, pool, 200, seed=5)
    for _ in range(30):
        native.run()
    stop.set()
    disturber.join()
    np.testing.assert_array_equal(counts, 30 * expected)
    pool.close()


def test_more_chunks_than_the_ticket_can_count(kernels):
    """Chunks grow when there would be more of them than a ticket counts."""
    pool = ThreadPool(2)
    native = LaunchList([Launch(kernels["nothing"], 1 << 40, 1, (), ())], 1, pool)
    assert native.run() == 0
    n_tasks = (1 << pool_ir.CHUNK_BITS) + 5
    counts = np.zeros(n_tasks, np.int64)
    native = LaunchList([Launch(kernels["count"], n_tasks, 1, (1,), ())], 2, pool)
    native.table[1] = counts.ctypes.data
    native.run()
    assert counts.min() == counts.max() == 1
    pool.close()


def test_results_do_not_depend_on_the_float_mode_of_a_thread(kernels, run_python):
    """Denormals survive in every thread, also when the caller's thread flushes them."""
    run_python(
        """
import ctypes, platform, sys
import numpy as np
if platform.machine().lower() not in ("x86_64", "amd64"):
    sys.exit(0)
sys.path.insert(0, "tests/runtime")
from conftest import KERNELS_IR
from tinyflow.runtime import jit
from tinyflow.runtime.launch_list import Launch, LaunchList
from tinyflow.runtime.thread_pool import ThreadPool
machine = jit.host_machine()
multiply = jit.load_object(jit.compile_object(KERNELS_IR, machine), "multiply")
mode_ir = '''
declare void @llvm.x86.sse.ldmxcsr(ptr)
declare void @llvm.x86.sse.stmxcsr(ptr)
define void @set(ptr %m) {
  call void @llvm.x86.sse.ldmxcsr(ptr %m)
  ret void
}
define void @get(ptr %m) {
  call void @llvm.x86.sse.stmxcsr(ptr %m)
  ret void
}
'''
modes = jit.load_symbols(jit.compile_object(mode_ir, machine), ("set", "get"))
setter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(modes["set"])
getter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(modes["get"])
x = np.full(64, 1e-30, np.float32)
y = np.full(64, 1e-10, np.float32)
expected = x * y
assert 0 < expected[0] < 1e-38
z = np.zeros(64, np.float32)
word = ctypes.c_uint32()
getter(ctypes.byref(word))
flush = ctypes.c_uint32(word.value | 0x8040)
setter(ctypes.byref(flush))
pool = ThreadPool(2)  # its workers are born in a thread that flushes
native = LaunchList([Launch(multiply, 64, 1, (1, 2, 3), ())], 4, pool)
for slot, array in enumerate((x, y, z), start=1):
    native.table[slot] = array.ctypes.data
for _ in range(200):
    z[:] = 0
    native.run()
    assert z.tobytes() == expected.tobytes()
getter(ctypes.byref(word))
assert word.value & 0x8040 == 0x8040, "the caller's mode must come back"
"""
    )


def test_threads_start_late_and_memory_is_released(kernels):
    pool = ThreadPool(4)
    assert pool.n_started == 0
    pool.wake()
    assert pool.n_started == 3
    words, finalizer = pool._words, pool._finalizer
    del pool
    assert not finalizer.alive
    assert words[pool_ir.POOL_OFFSETS["n_started"] // 8] == 0


def test_idle_workers_sleep():
    pool = ThreadPool(3, spin_us=20.0)
    pool.wake()
    for _ in range(2000):
        if pool.n_sleeping == 2:
            break
        time.sleep(0.001)
    assert pool.n_sleeping == 2
    pool.close()


def test_pool_of_one_never_starts_threads(kernels):
    pool = ThreadPool(1)
    native, counts, expected = counting_list(kernels, pool, 50, seed=1)
    native.run()
    pool.wake()
    np.testing.assert_array_equal(counts, expected)
    assert pool.n_started == 0


@pytest.mark.parametrize("n_threads", [0, -1, 5000])
def test_impossible_sizes_are_refused(n_threads):
    with pytest.raises(ValueError, match="threads"):
        ThreadPool(n_threads)


def test_default_pool_follows_the_environment(run_python):
    code = (
        "from tinyflow.runtime.thread_pool import *\n"
        "from tinyflow.runtime import thread_pool as t\n"
        "pool = t.default_pool()\n"
        "before = pool.pointer\n"
        "print(pool.n_threads, t.default_pool() is pool)\n"
        "t.set_num_threads(2)\n"
        "print(pool.n_threads, pool.pointer == before)\n"
    )
    assert run_python(code, TINYFLOW_NUM_THREADS="3").split() == ["3", "True", "2", "True"]


def test_bad_environment_value_names_the_variable(monkeypatch):
    monkeypatch.setenv("TINYFLOW_NUM_THREADS", "many")
    with pytest.raises(ValueError, match=r"TINYFLOW_NUM_THREADS.*'many'"):
        thread_pool._environment_threads()


@pytest.mark.parametrize(
    "files, expected",
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000"}, [1.5]),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000"}, []),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000",
                "sys/fs/cgroup/a/cpu.max": "300000 100000",
            },
            [3.0],
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/docker/abc\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            [0.5],
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "nonsense"}, []),
        ({}, []),
    ],
    ids=["v2", "v2 unlimited", "v2 parent", "v1 container", "unreadable", "none"],
)
def test_cgroup_quota(tmp_path, files, expected):
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert list(thread_pool._cgroup_quotas(tmp_path)) == expected


def test_available_cores_respect_the_affinity_mask():
    assert 1 <= thread_pool.available_cores() <= (os.cpu_count() or 1)


FORK = """
import os, sys, threading, time, warnings
import numpy as np
warnings.simplefilter("ignore")  # later Pythons warn about fork in a threaded process
sys.path.insert(0, "tests/runtime")
from conftest import KERNELS_IR
from tinyflow.runtime import jit
from tinyflow.runtime.launch_list import Launch, LaunchList
from tinyflow.runtime.thread_pool import ThreadPool
kernel = jit.load_object(jit.compile_object(KERNELS_IR, jit.host_machine()), "count")
pool = ThreadPool(3, spin_us={spin_us})
counts = np.zeros(40, np.int64)
native = LaunchList([Launch(kernel, 40, 1, (1,), ()) for _ in range(20)], 2, pool)
native.table[1] = counts.ctypes.data
native.run()
assert pool.n_started == 2

stop = False
def busy():
    other = np.zeros(40, np.int64)
    mine = LaunchList([Launch(kernel, 40, 1, (1,), ()) for _ in range(20)], 2, pool)
    mine.table[1] = other.ctypes.data
    while not stop:
        mine.run()
thread = threading.Thread(target=busy)
thread.start()
for turn in range(8):
    time.sleep(0.002)
    child = os.fork()
    if child == 0:
        assert pool.n_started == 0
        counts[:] = 0
        native.run()
        good = (counts == 20).all() and pool.n_started == 2
        fresh = jit.load_object(jit.compile_object(KERNELS_IR, jit.host_machine()), "who")
        pool.close()
        os._exit(0 if good and fresh else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
stop = True
thread.join()
counts[:] = 0
native.run()
assert (counts == 20).all() and pool.n_started == 2
print("done")
"""


@pytest.mark.parametrize("spin_us", [0.0, 1000.0])
def test_a_forked_child_has_a_fresh_pool(run_python, spin_us):
    """Forked while another thread uses the pool: the child inherits a taken lock, no threads."""
    assert run_python(FORK.replace("{spin_us}", str(spin_us))).strip() == "done"


EXIT = """
import sys, threading, time
import numpy as np
sys.path.insert(0, "tests/runtime")
from conftest import KERNELS_IR
from tinyflow.runtime import jit
from tinyflow.runtime.launch_list import Launch, LaunchList
from tinyflow.runtime.thread_pool import default_pool
kernel = jit.load_object(jit.compile_object(KERNELS_IR, jit.host_machine()), "count")
counts = np.zeros(40, np.int64)
def forever():
    native = LaunchList([Launch(kernel, 40, 1, (1,), ()) for _ in range(200)], 2)
    native.table[1] = counts.ctypes.data
    while True:
        native.run()
{start}
while default_pool().n_started < 2:
    time.sleep(0.01)
time.sleep(0.02)
print("leaving")
"""


def test_exit_does_not_hang_while_a_daemon_thread_runs(run_python):
    start = "threading.Thread(target=forever, daemon=True).start()"
    output = run_python(EXIT.replace("{start}", start), TINYFLOW_NUM_THREADS="3")
    assert output.strip() == "leaving"


def test_exit_does_not_hang_while_workers_sleep(run_python):
    start = "default_pool().wake()"
    output = run_python(EXIT.replace("{start}", start), TINYFLOW_NUM_THREADS="3")
    assert output.strip() == "leaving"


def test_workers_leave_signals_to_python(run_python):
    output = run_python(
        """
import os, signal, time
from tinyflow.runtime.thread_pool import default_pool
def threads():
    return set(os.listdir("/proc/self/task") if os.path.isdir("/proc/self/task") else ())
pool = default_pool()
before = threads()
pool.wake()
while pool.n_sleeping < 2:  # the C library blocks all signals while a thread is born
    time.sleep(0.01)
blocked = []
for task in threads() - before:
    text = open(f"/proc/self/task/{task}/status").read()
    mask = int(text.split("SigBlk:")[1].split()[0], 16)
    blocked.append([bool(mask >> (s - 1) & 1) for s in (signal.SIGINT, signal.SIGSEGV)])
print(blocked)
""",
        TINYFLOW_NUM_THREADS="3",
    )
    assert output.strip() in ("[[True, False], [True, False]]", "[]")
