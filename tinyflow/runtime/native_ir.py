"""LLVM IR text of the native runtime: thread pool and launch driver, for one architecture.

Main functions: runtime_ir. Main constants: LAUNCH_FIELDS, SEGMENT_FIELDS, POOL_OFFSETS, the flags.
Imports gang_ir of this package only.

How a parallel job is claimed (the whole proof of the pool is here):

* ``ticket`` = generation << 24 | chunks not yet claimed. To claim, read the ticket, read the job's
  fields, then compare-and-swap ticket -> ticket - 1. The swap succeeds only if the ticket did not
  change, so the fields were those of this generation: they are rewritten only after every chunk of
  the generation has *finished*, and one chunk was unclaimed at the time they were read.
* A finished job has 0 unclaimed chunks: a late worker sees nothing to claim, whatever the fields
  of the next job look like, until the new ticket is published with release order.
* ``finished`` counts completed chunks; the caller waits for finished == n_chunks. A worker adds to
  it before it lets go of the job, so it never adds to a later one.
* A worker that goes to sleep first counts itself in ``sleepers``, then reads the ticket; a caller
  first publishes the ticket, then reads ``sleepers`` (both sequentially consistent): one of the two
  sees the other, no wake-up is lost.
"""

from __future__ import annotations

import platform
import signal
import time
from string import Template

from tinyflow.runtime.gang_ir import GANG_IR

# Every field is 8 bytes; the order is the ABI.
LAUNCH_FIELDS = ("fn", "n_tasks", "chunk", "n_args", "arg_indices", "extents", "flags")
SEGMENT_FIELDS = ("launches", "n_launches", "table", "pool", "profile", "n_calls")
PROFILE_HEADER = ("n_runs", "capacity")
STATUS_FIELDS = ("code", "launch_index", "value", "limit")

FLAG_SERIAL = 1
"""Never on the pool, whatever n_tasks is."""
FLAG_ARM = 2
"""On the first launch of a list: some launch is parallel, wake sleeping workers at once."""

FLAG_JUMP = 4
"""No kernel: go on at launch ``fn`` if the byte in the first argument's slot says so."""
FLAG_IF_TRUE = 8
"""With FLAG_JUMP: jump if the byte is 1 (else: if it is 0)."""
FLAG_ALWAYS = 16
"""With FLAG_JUMP: jump whatever the byte is."""

CHUNK_BITS = 24
MAX_WORKERS = 1023
_LINE = 128  # two cache lines: x86 prefetches them in pairs, Apple cores have 128-byte lines

# What is written together shares a line; what different threads poll does not.
POOL_OFFSETS = {
    "ticket": 0,
    "fn": _LINE,
    "buffers": _LINE + 8,
    "extents": _LINE + 16,
    "n_tasks": _LINE + 24,
    "chunk": _LINE + 32,
    "n_chunks": _LINE + 40,
    "finished": 2 * _LINE,
    "busy": 3 * _LINE,
    "sleepers": 4 * _LINE,
    "epoch": 4 * _LINE + 8,
    "stop": 4 * _LINE + 16,
    "n_workers": 5 * _LINE,
    "n_started": 5 * _LINE + 8,
    "spin_count": 5 * _LINE + 16,
    "mutex": 6 * _LINE,
    "cond": 7 * _LINE,
    "threads": 8 * _LINE,
}
POOL_BYTES = 8 * _LINE + 8 * MAX_WORKERS

_SYNCHRONOUS_SIGNALS = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP")

# pause: waits a few dozen cycles and gives the sibling hyper-thread the core.
# set/restore: round to nearest, denormals kept. A library built with -ffast-math may have switched
# this thread to flush denormals, and then results would depend on which thread runs a task.
_X86 = """
declare void @llvm.x86.sse2.pause()
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)

define internal void @pause() alwaysinline {
  call void @llvm.x86.sse2.pause()
  ret void
}

define internal i64 @float_mode() alwaysinline {
  %slot = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %slot)
  %word = load i32, ptr %slot
  ; the low six bits are sticky exception flags, not modes
  %mode = and i32 %word, 65472
  %wide = zext i32 %mode to i64
  ret i64 %wide
}

define internal void @set_float_mode(i64 %mode) noinline {
  %slot = alloca i32
  %word = trunc i64 %mode to i32
  store i32 %word, ptr %slot
  call void @llvm.x86.sse.ldmxcsr(ptr %slot)
  ret void
}
"""

_AARCH64 = """
declare void @llvm.aarch64.isb(i32)
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)

; yield is a no-op on most cores; isb really waits (Rust and MySQL spin with it)
define internal void @pause() alwaysinline {
  call void @llvm.aarch64.isb(i32 15)
  ret void
}

define internal i64 @float_mode() alwaysinline {
  %mode = call i64 @llvm.aarch64.get.fpcr()
  ret i64 %mode
}

define internal void @set_float_mode(i64 %mode) noinline {
  call void @llvm.aarch64.set.fpcr(i64 %mode)
  ret void
}
"""

_OTHER = """
define internal void @pause() alwaysinline {
  ret void
}

define internal i64 @float_mode() alwaysinline {
  ret i64 0
}

define internal void @set_float_mode(i64 %mode) alwaysinline {
  ret void
}
"""

_POOL = """
; ---- waiting ------------------------------------------------------------------------------------

define void @spin(i64 %n) {
entry:
  br label %again
again:
  %i = phi i64 [0, %entry], [%i.next, %again]
  call void @pause()
  %i.next = add i64 %i, 1
  %more = icmp slt i64 %i.next, %n
  br i1 %more, label %again, label %done
done:
  ret void
}

; Wait until the word at %at equals %wanted (acquire). Workers may have lost their core to another
; process, so after a while give ours away.
define internal void @wait_for(ptr %at, i64 %wanted) noinline {
entry:
  br label %look
look:
  %n = phi i64 [0, %entry], [%n.next, %idle]
  %seen = load atomic i64, ptr %at acquire, align 8
  %there = icmp eq i64 %seen, %wanted
  br i1 %there, label %done, label %miss
miss:
  %n.next = add i64 %n, 1
  %long = icmp ugt i64 %n.next, 2000
  br i1 %long, label %give, label %short
give:
  %ignored = call i32 @sched_yield()
  br label %idle
short:
  call void @pause()
  br label %idle
idle:
  br label %look
done:
  ret void
}

define internal i1 @try_lock(ptr %pool) alwaysinline {
  %busy = getelementptr i8, ptr %pool, i64 $busy
  %pair = cmpxchg ptr %busy, i64 0, i64 1 acquire monotonic, align 8
  %won = extractvalue {i64, i1} %pair, 1
  ret i1 %won
}

define internal void @unlock(ptr %pool) alwaysinline {
  %busy = getelementptr i8, ptr %pool, i64 $busy
  store atomic i64 0, ptr %busy release, align 8
  ret void
}

; ---- running a job ------------------------------------------------------------------------------

; Claim and run chunks of the published job until none is unclaimed.
define internal void @participate(ptr %pool) noinline {
entry:
  %p.ticket = getelementptr i8, ptr %pool, i64 $ticket
  %p.fn = getelementptr i8, ptr %pool, i64 $fn
  %p.buffers = getelementptr i8, ptr %pool, i64 $buffers
  %p.extents = getelementptr i8, ptr %pool, i64 $extents
  %p.n_tasks = getelementptr i8, ptr %pool, i64 $n_tasks
  %p.chunk = getelementptr i8, ptr %pool, i64 $chunk
  %p.n_chunks = getelementptr i8, ptr %pool, i64 $n_chunks
  br label %look
look:
  %mine = phi i64 [0, %entry], [%mine, %claim], [%mine.next, %run]
  %ticket = load atomic i64, ptr %p.ticket acquire, align 8
  %unclaimed = and i64 %ticket, $chunk_mask
  %none = icmp eq i64 %unclaimed, 0
  br i1 %none, label %report, label %claim
claim:
  %fn = load atomic ptr, ptr %p.fn monotonic, align 8
  %buffers = load atomic ptr, ptr %p.buffers monotonic, align 8
  %extents = load atomic ptr, ptr %p.extents monotonic, align 8
  %n_tasks = load atomic i64, ptr %p.n_tasks monotonic, align 8
  %chunk = load atomic i64, ptr %p.chunk monotonic, align 8
  %n_chunks = load atomic i64, ptr %p.n_chunks monotonic, align 8
  %ticket.next = sub i64 %ticket, 1
  %pair = cmpxchg ptr %p.ticket, i64 %ticket, i64 %ticket.next acq_rel monotonic, align 8
  %won = extractvalue {i64, i1} %pair, 1
  br i1 %won, label %run, label %look
run:
  %index = sub i64 %n_chunks, %unclaimed
  %begin = mul i64 %index, %chunk
  %full = add i64 %begin, %chunk
  %end = call i64 @llvm.smin.i64(i64 %full, i64 %n_tasks)
  call void %fn(ptr %buffers, ptr %extents, i64 %begin, i64 %end)
  %mine.next = add i64 %mine, 1
  br label %look
report:
  %helped = icmp ne i64 %mine, 0
  br i1 %helped, label %add, label %done
add:
  %p.finished = getelementptr i8, ptr %pool, i64 $finished
  %before = atomicrmw add ptr %p.finished, i64 %mine release, align 8
  br label %done
done:
  ret void
}

; Publish a job, help with it, wait for the chunks other threads have claimed. Needs the lock.
define internal void @run_job(ptr %pool, ptr %fn, ptr %buffers, ptr %extents, i64 %n_tasks,
                              i64 %chunk, i64 %n_chunks) noinline {
entry:
  %p.ticket = getelementptr i8, ptr %pool, i64 $ticket
  %p.fn = getelementptr i8, ptr %pool, i64 $fn
  %p.buffers = getelementptr i8, ptr %pool, i64 $buffers
  %p.extents = getelementptr i8, ptr %pool, i64 $extents
  %p.n_tasks = getelementptr i8, ptr %pool, i64 $n_tasks
  %p.chunk = getelementptr i8, ptr %pool, i64 $chunk
  %p.n_chunks = getelementptr i8, ptr %pool, i64 $n_chunks
  %p.finished = getelementptr i8, ptr %pool, i64 $finished
  %p.sleepers = getelementptr i8, ptr %pool, i64 $sleepers
  store atomic ptr %fn, ptr %p.fn monotonic, align 8
  store atomic ptr %buffers, ptr %p.buffers monotonic, align 8
  store atomic ptr %extents, ptr %p.extents monotonic, align 8
  store atomic i64 %n_tasks, ptr %p.n_tasks monotonic, align 8
  store atomic i64 %chunk, ptr %p.chunk monotonic, align 8
  store atomic i64 %n_chunks, ptr %p.n_chunks monotonic, align 8
  store atomic i64 0, ptr %p.finished monotonic, align 8
  %old = load atomic i64, ptr %p.ticket monotonic, align 8
  %old.generation = lshr i64 %old, $chunk_bits
  %generation = add i64 %old.generation, 1
  %shifted = shl i64 %generation, $chunk_bits
  %ticket = or i64 %shifted, %n_chunks
  store atomic i64 %ticket, ptr %p.ticket seq_cst, align 8
  %sleepers = load atomic i64, ptr %p.sleepers seq_cst, align 8
  %asleep = icmp ne i64 %sleepers, 0
  br i1 %asleep, label %wake, label %help
wake:
  %wanted = sub i64 %n_chunks, 1
  call void @wake(ptr %pool, i64 %wanted)
  br label %help
help:
  call void @participate(ptr %pool)
  call void @wait_for(ptr %p.finished, i64 %n_chunks)
  ret void
}

; ---- workers ------------------------------------------------------------------------------------

; Let up to %wanted sleepers go and look at the ticket.
define internal void @wake(ptr %pool, i64 %wanted) noinline {
entry:
  %mutex = getelementptr i8, ptr %pool, i64 $mutex
  %cond = getelementptr i8, ptr %pool, i64 $cond
  %p.sleepers = getelementptr i8, ptr %pool, i64 $sleepers
  %p.epoch = getelementptr i8, ptr %pool, i64 $epoch
  %locked = call i32 @pthread_mutex_lock(ptr %mutex)
  %epoch = atomicrmw add ptr %p.epoch, i64 1 monotonic, align 8
  %sleepers = load atomic i64, ptr %p.sleepers monotonic, align 8
  %few = icmp slt i64 %wanted, %sleepers
  br i1 %few, label %one, label %all
one:
  %n = phi i64 [%wanted, %entry], [%n.next, %signal]
  %more = icmp sgt i64 %n, 0
  br i1 %more, label %signal, label %out
signal:
  %signalled = call i32 @pthread_cond_signal(ptr %cond)
  %n.next = sub i64 %n, 1
  br label %one
all:
  %broadcast = call i32 @pthread_cond_broadcast(ptr %cond)
  br label %out
out:
  %unlocked = call i32 @pthread_mutex_unlock(ptr %mutex)
  ret void
}

define internal ptr @worker(ptr %pool) {
entry:
  %mutex = getelementptr i8, ptr %pool, i64 $mutex
  %cond = getelementptr i8, ptr %pool, i64 $cond
  %p.ticket = getelementptr i8, ptr %pool, i64 $ticket
  %p.sleepers = getelementptr i8, ptr %pool, i64 $sleepers
  %p.epoch = getelementptr i8, ptr %pool, i64 $epoch
  %p.stop = getelementptr i8, ptr %pool, i64 $stop
  %p.spin_count = getelementptr i8, ptr %pool, i64 $spin_count
  call void @set_float_mode(i64 $default_float_mode)
  br label %awake
awake:
  %budget = load atomic i64, ptr %p.spin_count monotonic, align 8
  br label %poll
poll:
  %left = phi i64 [%budget, %awake], [%left.next, %idle]
  %seen = load atomic i64, ptr %p.ticket monotonic, align 8
  %unclaimed = and i64 %seen, $chunk_mask
  %work = icmp ne i64 %unclaimed, 0
  br i1 %work, label %help, label %check
check:
  %tired = icmp sle i64 %left, 0
  br i1 %tired, label %doze, label %idle
idle:
  call void @pause()
  %left.next = sub i64 %left, 1
  br label %poll
help:
  call void @participate(ptr %pool)
  br label %awake
doze:
  %locked = call i32 @pthread_mutex_lock(ptr %mutex)
  %counted = atomicrmw add ptr %p.sleepers, i64 1 seq_cst, align 8
  %epoch = load atomic i64, ptr %p.epoch monotonic, align 8
  br label %asleep
asleep:
  %ticket = load atomic i64, ptr %p.ticket seq_cst, align 8
  %open = and i64 %ticket, $chunk_mask
  %has_work = icmp ne i64 %open, 0
  %stop = load atomic i64, ptr %p.stop monotonic, align 8
  %stopped = icmp ne i64 %stop, 0
  %now = load atomic i64, ptr %p.epoch monotonic, align 8
  %called = icmp ne i64 %now, %epoch
  %work_or_stop = or i1 %has_work, %stopped
  %rise = or i1 %work_or_stop, %called
  br i1 %rise, label %up, label %wait
wait:
  %waited = call i32 @pthread_cond_wait(ptr %cond, ptr %mutex)
  br label %asleep
up:
  %uncounted = atomicrmw sub ptr %p.sleepers, i64 1 monotonic, align 8
  %unlocked = call i32 @pthread_mutex_unlock(ptr %mutex)
  br i1 %stopped, label %leave, label %awake
leave:
  ret ptr null
}

; Create the worker threads. Needs the lock. If the system gives fewer threads, we use fewer.
define internal void @start_workers(ptr %pool, i64 %n) noinline {
entry:
  %blocked = alloca [128 x i8], align 16
  %before = alloca [128 x i8], align 16
  %p.n_workers = getelementptr i8, ptr %pool, i64 $n_workers
  %p.n_started = getelementptr i8, ptr %pool, i64 $n_started
  %threads = getelementptr i8, ptr %pool, i64 $threads
  ; Python expects asynchronous signals in its own threads: workers inherit a mask without them.
  %filled = call i32 @sigfillset(ptr %blocked)
$unblock
  %masked = call i32 @pthread_sigmask(i32 $sig_block, ptr %blocked, ptr %before)
  br label %next
next:
  %i = phi i64 [0, %entry], [%i.next, %started]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %create, label %out
create:
  %slot = getelementptr i64, ptr %threads, i64 %i
  %failed = call i32 @pthread_create(ptr %slot, ptr null, ptr @worker, ptr %pool)
  %ok = icmp eq i32 %failed, 0
  br i1 %ok, label %started, label %out
started:
  %i.next = add i64 %i, 1
  br label %next
out:
  %restored = call i32 @pthread_sigmask(i32 $sig_setmask, ptr %before, ptr null)
  store atomic i64 %i, ptr %p.n_workers monotonic, align 8
  store atomic i64 %i, ptr %p.n_started monotonic, align 8
  ret void
}

; First state of a pool's memory, also its state in a forked child (which has none of the threads).
define void @pool_init(ptr %pool, i64 %n_workers, i64 %spin_count) {
  %mutex = getelementptr i8, ptr %pool, i64 $mutex
  %cond = getelementptr i8, ptr %pool, i64 $cond
  %p.ticket = getelementptr i8, ptr %pool, i64 $ticket
  %p.busy = getelementptr i8, ptr %pool, i64 $busy
  %p.sleepers = getelementptr i8, ptr %pool, i64 $sleepers
  %p.stop = getelementptr i8, ptr %pool, i64 $stop
  %p.n_workers = getelementptr i8, ptr %pool, i64 $n_workers
  %p.n_started = getelementptr i8, ptr %pool, i64 $n_started
  %p.spin_count = getelementptr i8, ptr %pool, i64 $spin_count
  %m = call i32 @pthread_mutex_init(ptr %mutex, ptr null)
  %c = call i32 @pthread_cond_init(ptr %cond, ptr null)
  store atomic i64 0, ptr %p.ticket monotonic, align 8
  store atomic i64 0, ptr %p.sleepers monotonic, align 8
  store atomic i64 0, ptr %p.stop monotonic, align 8
  store atomic i64 %n_workers, ptr %p.n_workers monotonic, align 8
  store atomic i64 0, ptr %p.n_started monotonic, align 8
  store atomic i64 %spin_count, ptr %p.spin_count monotonic, align 8
  store atomic i64 0, ptr %p.busy release, align 8
  ret void
}

; Let the workers finish, join them, and have %n_workers started at the next parallel launch.
define void @pool_resize(ptr %pool, i64 %n_workers, i64 %spin_count) {
entry:
  %p.stop = getelementptr i8, ptr %pool, i64 $stop
  %p.n_workers = getelementptr i8, ptr %pool, i64 $n_workers
  %p.n_started = getelementptr i8, ptr %pool, i64 $n_started
  %p.spin_count = getelementptr i8, ptr %pool, i64 $spin_count
  %threads = getelementptr i8, ptr %pool, i64 $threads
  br label %lock
lock:
  %won = call i1 @try_lock(ptr %pool)
  br i1 %won, label %stop, label %retry
retry:
  %ignored = call i32 @sched_yield()
  br label %lock
stop:
  %n = load atomic i64, ptr %p.n_started monotonic, align 8
  store atomic i64 1, ptr %p.stop seq_cst, align 8
  call void @wake(ptr %pool, i64 $chunk_mask)
  br label %next
next:
  %i = phi i64 [0, %stop], [%i.next, %join]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %join, label %out
join:
  %slot = getelementptr i64, ptr %threads, i64 %i
  %thread = load i64, ptr %slot
  %joined = call i32 @pthread_join(i64 %thread, ptr null)
  %i.next = add i64 %i, 1
  br label %next
out:
  store atomic i64 0, ptr %p.stop monotonic, align 8
  store atomic i64 0, ptr %p.n_started monotonic, align 8
  store atomic i64 %n_workers, ptr %p.n_workers monotonic, align 8
  store atomic i64 %spin_count, ptr %p.spin_count monotonic, align 8
  call void @unlock(ptr %pool)
  ret void
}

; Have the workers awake by the time the first job comes: start them, or wake those that sleep.
define void @pool_wake(ptr %pool) {
entry:
  %p.sleepers = getelementptr i8, ptr %pool, i64 $sleepers
  %p.n_workers = getelementptr i8, ptr %pool, i64 $n_workers
  %p.n_started = getelementptr i8, ptr %pool, i64 $n_started
  %n_started = load atomic i64, ptr %p.n_started monotonic, align 8
  %started = icmp ne i64 %n_started, 0
  br i1 %started, label %running, label %cold
running:
  %sleepers = load atomic i64, ptr %p.sleepers monotonic, align 8
  %asleep = icmp ne i64 %sleepers, 0
  br i1 %asleep, label %rouse, label %out
rouse:
  call void @wake(ptr %pool, i64 $chunk_mask)
  br label %out
cold:
  %won = call i1 @try_lock(ptr %pool)
  br i1 %won, label %check, label %out
check:
  ; again, under the lock: another thread may have started them, or resized to none
  %n_now = load atomic i64, ptr %p.n_started monotonic, align 8
  %still_cold = icmp eq i64 %n_now, 0
  br i1 %still_cold, label %start, label %release
start:
  %n_workers = load atomic i64, ptr %p.n_workers monotonic, align 8
  call void @start_workers(ptr %pool, i64 %n_workers)
  br label %release
release:
  call void @unlock(ptr %pool)
  br label %out
out:
  ret void
}
"""

_DRIVER = """
; ---- driver -------------------------------------------------------------------------------------

define internal i64 @now() noinline {
  %time = alloca {i64, i64}
  %failed = call i32 @clock_gettime(i32 $clock, ptr %time)
  %p.nanoseconds = getelementptr i64, ptr %time, i64 1
  %seconds = load i64, ptr %time
  %nanoseconds = load i64, ptr %p.nanoseconds
  %scaled = mul i64 %seconds, 1000000000
  %sum = add i64 %scaled, %nanoseconds
  ret i64 %sum
}

; Split one launch into chunks and run it on the pool, or alone if the pool is taken.
define internal void @run_parallel(ptr %pool, ptr %fn, ptr %buffers, ptr %extents, i64 %n_tasks,
                                   i64 %chunk.asked) noinline {
entry:
  %p.n_workers = getelementptr i8, ptr %pool, i64 $n_workers
  %p.n_started = getelementptr i8, ptr %pool, i64 $n_started
  ; the ticket has $chunk_bits bits for chunks: take larger ones when there are more
  %least.1 = udiv i64 %n_tasks, $chunk_mask
  %least = add i64 %least.1, 1
  %chunk = call i64 @llvm.smax.i64(i64 %chunk.asked, i64 %least)
  %n.1 = sub i64 %n_tasks, 1
  %n.2 = udiv i64 %n.1, %chunk
  %n_chunks = add i64 %n.2, 1
  %won = call i1 @try_lock(ptr %pool)
  br i1 %won, label %mine, label %alone
mine:
  %n_started = load atomic i64, ptr %p.n_started monotonic, align 8
  %n_workers = load atomic i64, ptr %p.n_workers monotonic, align 8
  %cold = icmp slt i64 %n_started, %n_workers
  br i1 %cold, label %start, label %run
start:
  call void @start_workers(ptr %pool, i64 %n_workers)
  br label %run
run:
  call void @run_job(ptr %pool, ptr %fn, ptr %buffers, ptr %extents, i64 %n_tasks, i64 %chunk,
                     i64 %n_chunks)
  call void @unlock(ptr %pool)
  ret void
alone:
  call void %fn(ptr %buffers, ptr %extents, i64 0, i64 %n_tasks)
  ret void
}

define i32 @run_segment(ptr %launches, i64 %n_launches, ptr %table, ptr %pool, ptr %profile) {
entry:
  %status = load ptr, ptr %table
  store i64 0, ptr %status
  %mode = call i64 @float_mode()
  %odd_mode = icmp ne i64 %mode, $default_float_mode
  br i1 %odd_mode, label %normalise, label %sized
normalise:
  call void @set_float_mode(i64 $default_float_mode)
  br label %sized
sized:
  %empty = icmp sle i64 %n_launches, 0
  br i1 %empty, label %succeed, label %arm
arm:
  %p.flags.0 = getelementptr i64, ptr %launches, i64 6
  %flags.0 = load i64, ptr %p.flags.0
  %arm.1 = and i64 %flags.0, $flag_arm
  %wants_arm = icmp ne i64 %arm.1, 0
  %pool.given = icmp ne ptr %pool, null
  br i1 %pool.given, label %sizes, label %profiled
sizes:
  %p.n_workers = getelementptr i8, ptr %pool, i64 $n_workers
  %n_workers = load atomic i64, ptr %p.n_workers monotonic, align 8
  %populated = icmp sgt i64 %n_workers, 0
  %arms = and i1 %wants_arm, %populated
  br i1 %arms, label %rouse, label %profiled
rouse:
  call void @pool_wake(ptr %pool)
  br label %profiled
profiled:
  %has_pool = phi i1 [false, %arm], [%populated, %sizes], [%populated, %rouse]
  %timed = icmp ne ptr %profile, null
  br i1 %timed, label %row, label %first
row:
  %runs = load i64, ptr %profile
  %p.capacity = getelementptr i64, ptr %profile, i64 1
  %capacity = load i64, ptr %p.capacity
  %row.index = urem i64 %runs, %capacity
  %row.launch = mul i64 %row.index, %n_launches
  %row.words = shl i64 %row.launch, 1
  %samples = getelementptr i64, ptr %profile, i64 2
  %row.at = getelementptr i64, ptr %samples, i64 %row.words
  ; a launch inside a loop adds up its spans: the row starts from zeros
  %row.size = shl i64 %n_launches, 4
  call void @llvm.memset.p0.i64(ptr %row.at, i8 0, i64 %row.size, i1 false)
  %begin_ns = call i64 @now()
  br label %first
first:
  %row.0 = phi ptr [null, %profiled], [%row.at, %row]
  %clock.0 = phi i64 [0, %profiled], [%begin_ns, %row]
  br label %launch
launch:
  %i = phi i64 [0, %first], [%i.next, %next], [%i.jump, %jump]
  %clock = phi i64 [%clock.0, %first], [%clock.next, %next], [%clock, %jump]
  %l.fn = getelementptr [7 x i64], ptr %launches, i64 %i
  %l.n_tasks = getelementptr i64, ptr %l.fn, i64 1
  %l.chunk = getelementptr i64, ptr %l.fn, i64 2
  %l.n_args = getelementptr i64, ptr %l.fn, i64 3
  %l.arg_indices = getelementptr i64, ptr %l.fn, i64 4
  %l.extents = getelementptr i64, ptr %l.fn, i64 5
  %l.flags = getelementptr i64, ptr %l.fn, i64 6
  %fn = load ptr, ptr %l.fn
  %n_tasks = load i64, ptr %l.n_tasks
  %chunk = load i64, ptr %l.chunk
  %n_args = load i64, ptr %l.n_args
  %arg_indices = load ptr, ptr %l.arg_indices
  %extents = load ptr, ptr %l.extents
  %flags = load i64, ptr %l.flags
  %jump.bit = and i64 %flags, $flag_jump
  %is_kernel = icmp eq i64 %jump.bit, 0
  br i1 %is_kernel, label %kernel, label %jump
jump:
  %slot.32 = load i32, ptr %arg_indices
  %slot.64 = sext i32 %slot.32 to i64
  %p.byte = getelementptr ptr, ptr %table, i64 %slot.64
  %byte.at = load ptr, ptr %p.byte
  %byte = load i8, ptr %byte.at
  %is_true = icmp ne i8 %byte, 0
  %if_true.bit = and i64 %flags, $flag_if_true
  %if_true = icmp ne i64 %if_true.bit, 0
  %agrees = icmp eq i1 %is_true, %if_true
  %always.bit = and i64 %flags, $flag_always
  %always = icmp ne i64 %always.bit, 0
  %taken = or i1 %agrees, %always
  %after = add i64 %i, 1
  %goal = ptrtoint ptr %fn to i64
  %i.jump = select i1 %taken, i64 %goal, i64 %after
  %inside = icmp slt i64 %i.jump, %n_launches
  br i1 %inside, label %launch, label %count
kernel:
  %stack = call ptr @llvm.stacksave.p0()
  %local = alloca ptr, i64 %n_args, align 16
  %no_args = icmp sle i64 %n_args, 0
  br i1 %no_args, label %choose, label %gather
gather:
  %j = phi i64 [0, %kernel], [%j.next, %gather]
  %a.index = getelementptr i32, ptr %arg_indices, i64 %j
  %index = load i32, ptr %a.index
  %slot = sext i32 %index to i64
  %a.table = getelementptr ptr, ptr %table, i64 %slot
  %pointer = load ptr, ptr %a.table
  %a.local = getelementptr ptr, ptr %local, i64 %j
  store ptr %pointer, ptr %a.local
  %j.next = add i64 %j, 1
  %more_args = icmp slt i64 %j.next, %n_args
  br i1 %more_args, label %gather, label %choose
choose:
  %splits = icmp sgt i64 %n_tasks, %chunk
  %serial = and i64 %flags, $flag_serial
  %may_split = icmp eq i64 %serial, 0
  %wants = and i1 %splits, %may_split
  %parallel = and i1 %wants, %has_pool
  br i1 %parallel, label %shared, label %alone
shared:
  call void @run_parallel(ptr %pool, ptr %fn, ptr %local, ptr %extents, i64 %n_tasks, i64 %chunk)
  br label %ran
alone:
  call void %fn(ptr %local, ptr %extents, i64 0, i64 %n_tasks)
  br label %ran
ran:
  call void @llvm.stackrestore.p0(ptr %stack)
  br i1 %timed, label %sample, label %verdict
sample:
  %end_ns = call i64 @now()
  %s.offset = shl i64 %i, 1
  %s.begin = getelementptr i64, ptr %row.0, i64 %s.offset
  %s.end = getelementptr i64, ptr %s.begin, i64 1
  %begin.old = load i64, ptr %s.begin
  %end.old = load i64, ptr %s.end
  %is_again = icmp ne i64 %begin.old, 0
  %begin.new = select i1 %is_again, i64 %begin.old, i64 %clock
  %end.base = select i1 %is_again, i64 %end.old, i64 %clock
  %spent = sub i64 %end_ns, %clock
  %end.new = add i64 %end.base, %spent
  store i64 %begin.new, ptr %s.begin
  store i64 %end.new, ptr %s.end
  br label %verdict
verdict:
  %clock.next = phi i64 [%clock, %ran], [%end_ns, %sample]
  %code = load i64, ptr %status
  %failed = icmp ne i64 %code, 0
  br i1 %failed, label %fail, label %next
next:
  %i.next = add i64 %i, 1
  %more = icmp slt i64 %i.next, %n_launches
  br i1 %more, label %launch, label %count
count:
  br i1 %timed, label %count_run, label %succeed
count_run:
  %runs.seen = load i64, ptr %profile
  %runs.next = add i64 %runs.seen, 1
  store i64 %runs.next, ptr %profile
  br label %succeed
fail:
  %s.launch = getelementptr i64, ptr %status, i64 1
  store i64 %i, ptr %s.launch
  %code32 = trunc i64 %code to i32
  br label %leave
succeed:
  br label %leave
leave:
  %result = phi i32 [0, %succeed], [%code32, %fail]
  br i1 %odd_mode, label %restore, label %out
restore:
  call void @set_float_mode(i64 %mode)
  br label %out
out:
  ret i32 %result
}

; The one call Python makes per segment: one pointer is cheaper to pass than five.
define i32 @run_packed(ptr %segment) {
  %s.n_launches = getelementptr i64, ptr %segment, i64 1
  %s.table = getelementptr i64, ptr %segment, i64 2
  %s.pool = getelementptr i64, ptr %segment, i64 3
  %s.profile = getelementptr i64, ptr %segment, i64 4
  %s.n_calls = getelementptr i64, ptr %segment, i64 5
  %launches = load ptr, ptr %segment
  %n_launches = load i64, ptr %s.n_launches
  %table = load ptr, ptr %s.table
  %pool = load ptr, ptr %s.pool
  %profile = load ptr, ptr %s.profile
  %n_calls = load i64, ptr %s.n_calls
  %n_calls.next = add i64 %n_calls, 1
  store i64 %n_calls.next, ptr %s.n_calls
  %code = call i32 @run_segment(ptr %launches, i64 %n_launches, ptr %table, ptr %pool,
                                ptr %profile)
  ret i32 %code
}
"""

_LIBC = """
declare i32 @sched_yield()
declare i32 @clock_gettime(i32, ptr)
declare i32 @sigfillset(ptr)
declare i32 @sigdelset(ptr, i32)
declare i32 @pthread_sigmask(i32, ptr, ptr)
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_join(i64, ptr)
declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_init(ptr, ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_signal(ptr)
declare i32 @pthread_cond_broadcast(ptr)
declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)
declare ptr @llvm.stacksave.p0()
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare void @llvm.stackrestore.p0(ptr)
"""

# machine -> (helpers, float mode with IEEE rounding and denormals)
_ARCHITECTURES = {
    "x86_64": (_X86, 0x1F80),
    "amd64": (_X86, 0x1F80),
    "aarch64": (_AARCH64, 0),
    "arm64": (_AARCH64, 0),
}


def runtime_ir(machine: str | None = None) -> str:
    """The module's text for ``machine`` (``platform.machine()`` by default) and this system."""
    helpers, float_mode = _ARCHITECTURES.get((machine or platform.machine()).lower(), (_OTHER, 0))
    unblock = "\n".join(
        f"  %keep.{name} = call i32 @sigdelset(ptr %blocked, i32 {int(getattr(signal, name))})"
        for name in _SYNCHRONOUS_SIGNALS
    )
    body = Template(_POOL + _DRIVER).substitute(
        POOL_OFFSETS,
        chunk_bits=CHUNK_BITS,
        chunk_mask=(1 << CHUNK_BITS) - 1,
        flag_serial=FLAG_SERIAL,
        flag_arm=FLAG_ARM,
        flag_jump=FLAG_JUMP,
        flag_if_true=FLAG_IF_TRUE,
        flag_always=FLAG_ALWAYS,
        default_float_mode=float_mode,
        clock=int(time.CLOCK_MONOTONIC),
        sig_block=int(signal.SIG_BLOCK),
        sig_setmask=int(signal.SIG_SETMASK),
        unblock=unblock,
    )
    return _LIBC + helpers + body + GANG_IR
