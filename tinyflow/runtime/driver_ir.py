"""LLVM IR text of the launch driver, which walks a segment's launches: one call from Python.

Main constants: DRIVER_IR, LAUNCH_FIELDS, SEGMENT_FIELDS, GANG_FIELDS, ROW_FIELDS, COPY_BITS, the
flags. Imports nothing of this package.
"""

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

GANG_FIELDS = ("members", "table", "times")
"""Each 8 bytes: the members' records, the pointer table, (begin, end) per member or null."""

FLAG_GANG = 32
"""For Python: the tasks are the records behind the jump that follows. The driver has no use for it.
"""

ROW_FIELDS = ("table", "slot", "row_bytes", "rows", "index_bytes", "code")
"""Each 8 bytes, the extents of a launch of ``point_at_row``. table: of pointers; slot: which one is
to show the row; code: the status of an index outside [0, rows)."""

FLAG_ROW = 64
"""For Python: the first extent is to be the address of the pointer table."""

COPY_BITS = 16
"""A task of ``copy_bytes`` is 2 to this power bytes."""

DRIVER_IR = """
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

; Arguments of a launch: pointers from the table, in order.
define internal void @gather(ptr %table, ptr %arg_indices, i64 %n_args, ptr %local) alwaysinline {
entry:
  %no_args = icmp sle i64 %n_args, 0
  br i1 %no_args, label %done, label %next
next:
  %j = phi i64 [0, %entry], [%j.next, %next]
  %a.index = getelementptr i32, ptr %arg_indices, i64 %j
  %index = load i32, ptr %a.index
  %slot = sext i32 %index to i64
  %a.table = getelementptr ptr, ptr %table, i64 %slot
  %pointer = load ptr, ptr %a.table
  %a.local = getelementptr ptr, ptr %local, i64 %j
  store ptr %pointer, ptr %a.local
  %j.next = add i64 %j, 1
  %more_args = icmp slt i64 %j.next, %n_args
  br i1 %more_args, label %next, label %done
done:
  ret void
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
  call void @gather(ptr %table, ptr %arg_indices, i64 %n_args, ptr %local)
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

; A launch whose tasks are other launches: task t runs record t of the gang whole, on one thread.
; %gang: GANG_FIELDS. The members' records stand in the launch list; the driver jumps over them.
define void @run_gang(ptr %none, ptr %gang, i64 %begin, i64 %end) {
entry:
  %g.table = getelementptr i64, ptr %gang, i64 1
  %g.times = getelementptr i64, ptr %gang, i64 2
  %members = load ptr, ptr %gang
  %table = load ptr, ptr %g.table
  %times = load ptr, ptr %g.times
  %timed = icmp ne ptr %times, null
  %some = icmp slt i64 %begin, %end
  br i1 %some, label %member, label %done
member:
  %t = phi i64 [%begin, %entry], [%t.next, %after]
  %m.fn = getelementptr [7 x i64], ptr %members, i64 %t
  %m.n_tasks = getelementptr i64, ptr %m.fn, i64 1
  %m.n_args = getelementptr i64, ptr %m.fn, i64 3
  %m.arg_indices = getelementptr i64, ptr %m.fn, i64 4
  %m.extents = getelementptr i64, ptr %m.fn, i64 5
  %fn = load ptr, ptr %m.fn
  %n_tasks = load i64, ptr %m.n_tasks
  %n_args = load i64, ptr %m.n_args
  %arg_indices = load ptr, ptr %m.arg_indices
  %extents = load ptr, ptr %m.extents
  %stack = call ptr @llvm.stacksave.p0()
  %local = alloca ptr, i64 %n_args, align 16
  call void @gather(ptr %table, ptr %arg_indices, i64 %n_args, ptr %local)
  br i1 %timed, label %stamp, label %call
stamp:
  %t.word = shl i64 %t, 1
  %t.begin = getelementptr i64, ptr %times, i64 %t.word
  %begin_ns = call i64 @now()
  store i64 %begin_ns, ptr %t.begin
  br label %call
call:
  call void %fn(ptr %local, ptr %extents, i64 0, i64 %n_tasks)
  call void @llvm.stackrestore.p0(ptr %stack)
  br i1 %timed, label %stamp_end, label %after
stamp_end:
  %e.word = shl i64 %t, 1
  %e.next = or disjoint i64 %e.word, 1
  %t.end = getelementptr i64, ptr %times, i64 %e.next
  %end_ns = call i64 @now()
  store i64 %end_ns, ptr %t.end
  br label %after
after:
  %t.next = add i64 %t, 1
  %more = icmp slt i64 %t.next, %end
  br i1 %more, label %member, label %done
done:
  ret void
}

; table[slot] = array + index * row_bytes, so that the kernels behind it work on that row.
; %buffers: status, array, index. %row: ROW_FIELDS.
define void @point_at_row(ptr %buffers, ptr %row, i64 %begin, i64 %end) {
entry:
  %p.array = getelementptr ptr, ptr %buffers, i64 1
  %p.index = getelementptr ptr, ptr %buffers, i64 2
  %status = load ptr, ptr %buffers
  %array = load ptr, ptr %p.array
  %index.at = load ptr, ptr %p.index
  %r.slot = getelementptr i64, ptr %row, i64 1
  %r.row_bytes = getelementptr i64, ptr %row, i64 2
  %r.rows = getelementptr i64, ptr %row, i64 3
  %r.index_bytes = getelementptr i64, ptr %row, i64 4
  %r.code = getelementptr i64, ptr %row, i64 5
  %table = load ptr, ptr %row
  %slot = load i64, ptr %r.slot
  %row_bytes = load i64, ptr %r.row_bytes
  %rows = load i64, ptr %r.rows
  %index_bytes = load i64, ptr %r.index_bytes
  %is_wide = icmp eq i64 %index_bytes, 8
  br i1 %is_wide, label %wide, label %narrow
wide:
  %index.64 = load i64, ptr %index.at
  br label %check
narrow:
  %index.32 = load i32, ptr %index.at
  %index.sext = sext i32 %index.32 to i64
  br label %check
check:
  %index = phi i64 [%index.64, %wide], [%index.sext, %narrow]
  %inside = icmp ult i64 %index, %rows
  br i1 %inside, label %point, label %refuse
point:
  %offset = mul i64 %index, %row_bytes
  %address = getelementptr i8, ptr %array, i64 %offset
  %entry.at = getelementptr ptr, ptr %table, i64 %slot
  store ptr %address, ptr %entry.at
  ret void
refuse:
  %code = load i64, ptr %r.code
  %s.value = getelementptr i64, ptr %status, i64 2
  %s.limit = getelementptr i64, ptr %status, i64 3
  store i64 %code, ptr %status
  store i64 %index, ptr %s.value
  store i64 %rows, ptr %s.limit
  ret void
}

; The kernel of every copy: task t copies the bytes from t * 2^$copy_bits on. extents: (size_bytes)
define void @copy_bytes(ptr %buffers, ptr %extents, i64 %begin, i64 %end) {
entry:
  %a.target = getelementptr ptr, ptr %buffers, i64 1
  %source = load ptr, ptr %buffers
  %target = load ptr, ptr %a.target
  %size = load i64, ptr %extents
  %from = shl i64 %begin, $copy_bits
  %asked = shl i64 %end, $copy_bits
  %to = call i64 @llvm.smin.i64(i64 %asked, i64 %size)
  %some = icmp slt i64 %from, %to
  br i1 %some, label %copy, label %done
copy:
  %count = sub i64 %to, %from
  %p.source = getelementptr i8, ptr %source, i64 %from
  %p.target = getelementptr i8, ptr %target, i64 %from
  call void @llvm.memcpy.p0.p0.i64(ptr %p.target, ptr %p.source, i64 %count, i1 false)
  br label %done
done:
  ret void
}
"""
