"""LLVM IR text of the function that runs launches as the tasks of one: independent small kernels.

Main constants: GANG_IR, GANG_FIELDS, FLAG_GANG. Imports nothing.
"""

GANG_FIELDS = ("members", "table", "times")
"""Each 8 bytes: the members' records, the pointer table, (begin, end) per member or null."""

FLAG_GANG = 32
"""For Python: the tasks are the records behind the jump that follows. The driver has no use for it.
"""

GANG_IR = """
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
  %no_args = icmp sle i64 %n_args, 0
  br i1 %no_args, label %ready, label %gather
gather:
  %j = phi i64 [0, %member], [%j.next, %gather]
  %a.index = getelementptr i32, ptr %arg_indices, i64 %j
  %index = load i32, ptr %a.index
  %slot = sext i32 %index to i64
  %a.table = getelementptr ptr, ptr %table, i64 %slot
  %pointer = load ptr, ptr %a.table
  %a.local = getelementptr ptr, ptr %local, i64 %j
  store ptr %pointer, ptr %a.local
  %j.next = add i64 %j, 1
  %more_args = icmp slt i64 %j.next, %n_args
  br i1 %more_args, label %gather, label %ready
ready:
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
"""
