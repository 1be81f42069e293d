"""LLVM IR text of the thread pool: waiting, claiming parts of a job, workers that sleep.

Main constants: POOL_IR, POOL_OFFSETS. Imports nothing of this package.

In the text, a line ``fields a b`` stands for two instructions: %p.a and %p.b are the addresses of
these fields of %pool.

How a parallel job is claimed (the whole proof of the pool is here):

* ``ticket`` = generation << 32 | first << 16 | end: the chunks [first, end) are not yet claimed. To
  claim one, read the ticket, read the job's fields, then compare-and-swap the ticket to one with
  first + 1 or end - 1. The swap succeeds only if the ticket did not change, so the fields were
  those of this generation: they are rewritten only after every chunk of the generation has
  *finished*, and one chunk was unclaimed at the time they were read.
* The caller and every second worker claim from the front, the others from the back: from kernel to
  kernel a thread finds its part of weights and activations in its own core's cache.
* A finished job has 0 unclaimed chunks: a late worker sees nothing to claim, whatever the fields
  of the next job look like, until the new ticket is published with release order.
* ``finished`` counts completed chunks; the caller waits for finished == n_chunks. A worker adds to
  it before it lets go of the job, so it never adds to a later one.
* A worker that goes to sleep first counts itself in ``sleepers``, then reads the ticket; a caller
  first publishes the ticket, then reads ``sleepers`` (both sequentially consistent): one of the two
  sees the other, no wake-up is lost.
"""

import re

CHUNK_BITS = 16
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


def _addresses(line: re.Match[str]) -> str:
    return "\n".join(
        f"  %p.{name} = getelementptr i8, ptr %pool, i64 {POOL_OFFSETS[name]}"
        for name in line[1].split()
    )


_TEXT = """
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
  fields busy
  %pair = cmpxchg ptr %p.busy, i64 0, i64 1 acquire monotonic, align 8
  %won = extractvalue {i64, i1} %pair, 1
  ret i1 %won
}

define internal void @unlock(ptr %pool) alwaysinline {
  fields busy
  store atomic i64 0, ptr %p.busy release, align 8
  ret void
}

; ---- running a job ------------------------------------------------------------------------------

define internal i64 @first_of(i64 %ticket) alwaysinline {
  %shifted = lshr i64 %ticket, $chunk_bits
  %first = and i64 %shifted, $chunk_mask
  ret i64 %first
}

; Whether a job has chunks that nobody has claimed.
define internal i1 @is_open(i64 %ticket) alwaysinline {
  %first = call i64 @first_of(i64 %ticket)
  %end = and i64 %ticket, $chunk_mask
  %open = icmp ult i64 %first, %end
  ret i1 %open
}

; Claim and run chunks of the published job until none is unclaimed.
define internal void @participate(ptr %pool, i1 %from_back) noinline {
entry:
  fields ticket fn buffers extents n_tasks chunk
  br label %look
look:
  %mine = phi i64 [0, %entry], [%mine, %claim], [%mine.next, %run]
  %ticket = load atomic i64, ptr %p.ticket acquire, align 8
  %open = call i1 @is_open(i64 %ticket)
  br i1 %open, label %claim, label %report
claim:
  %fn = load atomic ptr, ptr %p.fn monotonic, align 8
  %buffers = load atomic ptr, ptr %p.buffers monotonic, align 8
  %extents = load atomic ptr, ptr %p.extents monotonic, align 8
  %n_tasks = load atomic i64, ptr %p.n_tasks monotonic, align 8
  %chunk = load atomic i64, ptr %p.chunk monotonic, align 8
  %front = call i64 @first_of(i64 %ticket)
  %end = and i64 %ticket, $chunk_mask
  %back = sub i64 %end, 1
  %index = select i1 %from_back, i64 %back, i64 %front
  %ticket.front = add i64 %ticket, $one_first
  %ticket.back = sub i64 %ticket, 1
  %ticket.next = select i1 %from_back, i64 %ticket.back, i64 %ticket.front
  %pair = cmpxchg ptr %p.ticket, i64 %ticket, i64 %ticket.next acq_rel monotonic, align 8
  %won = extractvalue {i64, i1} %pair, 1
  br i1 %won, label %run, label %look
run:
  %task = mul i64 %index, %chunk
  %full = add i64 %task, %chunk
  %task.end = call i64 @llvm.smin.i64(i64 %full, i64 %n_tasks)
  call void %fn(ptr %buffers, ptr %extents, i64 %task, i64 %task.end)
  %mine.next = add i64 %mine, 1
  br label %look
report:
  %helped = icmp ne i64 %mine, 0
  br i1 %helped, label %add, label %done
add:
  fields finished
  %before = atomicrmw add ptr %p.finished, i64 %mine release, align 8
  br label %done
done:
  ret void
}

; Publish a job, help with it, wait for the chunks other threads have claimed. Needs the lock.
define internal void @run_job(ptr %pool, ptr %fn, ptr %buffers, ptr %extents, i64 %n_tasks,
                              i64 %chunk, i64 %n_chunks) noinline {
entry:
  fields ticket fn buffers extents n_tasks chunk finished sleepers
  store atomic ptr %fn, ptr %p.fn monotonic, align 8
  store atomic ptr %buffers, ptr %p.buffers monotonic, align 8
  store atomic ptr %extents, ptr %p.extents monotonic, align 8
  store atomic i64 %n_tasks, ptr %p.n_tasks monotonic, align 8
  store atomic i64 %chunk, ptr %p.chunk monotonic, align 8
  store atomic i64 0, ptr %p.finished monotonic, align 8
  %old = load atomic i64, ptr %p.ticket monotonic, align 8
  %old.generation = lshr i64 %old, $generation_bit
  %generation = add i64 %old.generation, 1
  %shifted = shl i64 %generation, $generation_bit
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
  call void @participate(ptr %pool, i1 false)
  call void @wait_for(ptr %p.finished, i64 %n_chunks)
  ret void
}

; ---- workers ------------------------------------------------------------------------------------

; Let up to %wanted sleepers go and look at the ticket.
define internal void @wake(ptr %pool, i64 %wanted) noinline {
entry:
  fields mutex cond sleepers epoch
  %locked = call i32 @pthread_mutex_lock(ptr %p.mutex)
  %epoch = atomicrmw add ptr %p.epoch, i64 1 monotonic, align 8
  %sleepers = load atomic i64, ptr %p.sleepers monotonic, align 8
  %few = icmp slt i64 %wanted, %sleepers
  br i1 %few, label %one, label %all
one:
  %n = phi i64 [%wanted, %entry], [%n.next, %signal]
  %more = icmp sgt i64 %n, 0
  br i1 %more, label %signal, label %out
signal:
  %signalled = call i32 @pthread_cond_signal(ptr %p.cond)
  %n.next = sub i64 %n, 1
  br label %one
all:
  %broadcast = call i32 @pthread_cond_broadcast(ptr %p.cond)
  br label %out
out:
  %unlocked = call i32 @pthread_mutex_unlock(ptr %p.mutex)
  ret void
}

define internal ptr @front_worker(ptr %pool) {
  call void @work(ptr %pool, i1 false)
  ret ptr null
}

define internal ptr @back_worker(ptr %pool) {
  call void @work(ptr %pool, i1 true)
  ret ptr null
}

define internal void @work(ptr %pool, i1 %from_back) noinline {
entry:
  fields mutex cond ticket sleepers epoch stop spin_count
  call void @set_float_mode(i64 $default_float_mode)
  br label %awake
awake:
  %budget = load atomic i64, ptr %p.spin_count monotonic, align 8
  br label %poll
poll:
  %left = phi i64 [%budget, %awake], [%left.next, %idle]
  %seen = load atomic i64, ptr %p.ticket monotonic, align 8
  %work = call i1 @is_open(i64 %seen)
  br i1 %work, label %help, label %check
check:
  %tired = icmp sle i64 %left, 0
  br i1 %tired, label %doze, label %idle
idle:
  call void @pause()
  %left.next = sub i64 %left, 1
  br label %poll
help:
  call void @participate(ptr %pool, i1 %from_back)
  br label %awake
doze:
  %locked = call i32 @pthread_mutex_lock(ptr %p.mutex)
  %counted = atomicrmw add ptr %p.sleepers, i64 1 seq_cst, align 8
  %epoch = load atomic i64, ptr %p.epoch monotonic, align 8
  br label %asleep
asleep:
  %ticket = load atomic i64, ptr %p.ticket seq_cst, align 8
  %has_work = call i1 @is_open(i64 %ticket)
  %stop = load atomic i64, ptr %p.stop monotonic, align 8
  %stopped = icmp ne i64 %stop, 0
  %now = load atomic i64, ptr %p.epoch monotonic, align 8
  %called = icmp ne i64 %now, %epoch
  %work_or_stop = or i1 %has_work, %stopped
  %rise = or i1 %work_or_stop, %called
  br i1 %rise, label %up, label %wait
wait:
  %waited = call i32 @pthread_cond_wait(ptr %p.cond, ptr %p.mutex)
  br label %asleep
up:
  %uncounted = atomicrmw sub ptr %p.sleepers, i64 1 monotonic, align 8
  %unlocked = call i32 @pthread_mutex_unlock(ptr %p.mutex)
  br i1 %stopped, label %leave, label %awake
leave:
  ret void
}

; Create the worker threads. Needs the lock. If the system gives fewer threads, we use fewer.
define internal void @start_workers(ptr %pool, i64 %n) noinline {
entry:
  %blocked = alloca [128 x i8], align 16
  %before = alloca [128 x i8], align 16
  fields n_workers n_started threads
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
  %slot = getelementptr i64, ptr %p.threads, i64 %i
  %odd = and i64 %i, 1
  %in_front = icmp ne i64 %odd, 0
  %routine = select i1 %in_front, ptr @front_worker, ptr @back_worker
  %failed = call i32 @pthread_create(ptr %slot, ptr null, ptr %routine, ptr %pool)
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
  fields mutex cond ticket busy sleepers stop n_workers n_started spin_count
  %m = call i32 @pthread_mutex_init(ptr %p.mutex, ptr null)
  %c = call i32 @pthread_cond_init(ptr %p.cond, ptr null)
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
  fields stop n_workers n_started spin_count threads
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
  %slot = getelementptr i64, ptr %p.threads, i64 %i
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
  fields sleepers n_workers n_started
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

POOL_IR = re.sub(r"^  fields (.+)$", _addresses, _TEXT, flags=re.MULTILINE)
