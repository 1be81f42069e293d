"""Loop nests to LLVM IR text.

Main functions: ``lower_to_llvm`` (one kernel), ``lower_module`` (several in one module).
Imports core, ir.scalar, ir.loop and schedule.targets.

Every kernel becomes ``void @name(ptr buffers, ptr extents, i64 begin, i64 end)``: buffers[i] and
extents[i] in the kernel's order; the outermost parallel loop runs from begin to end, a kernel
without one runs its body once if begin < end. See README.md for the invariants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

from tinyflow.codegen import llvm_integer, llvm_operations
from tinyflow.codegen.llvm_register import RegisterWriter
from tinyflow.codegen.llvm_text import memory_type
from tinyflow.codegen.llvm_transpose import transpose_block
from tinyflow.codegen.machine import data_layout
from tinyflow.codegen.writer import Value
from tinyflow.core.dtype import bool_
from tinyflow.core.error import InternalError
from tinyflow.ir.loop.nodes import (
    PARALLEL,
    UNROLL,
    VECTORIZE,
    Alloc,
    Body,
    Buffer,
    Call,
    For,
    If,
    Kernel,
    Stmt,
    Store,
)
from tinyflow.ir.loop.visit import (
    all_expressions,
    buffers_read,
    buffers_written,
    collect,
    map_expressions,
)
from tinyflow.ir.scalar.nodes import Expr, index
from tinyflow.ir.scalar.visit import substitute, transform
from tinyflow.schedule.targets import Target

STACK_LIMIT_BYTES = 256 << 10
#: Bodies with fewer expressions get a second copy without masks, for whole vectors.
SPECIALISE_LIMIT = 400

#: write or read, and how near: 3 is the first-level cache, 2 the second.
_PREFETCH = {"prefetch": "i32 1, i32 2", "prefetch_read": "i32 0, i32 3"}

_REPORT = """
define internal void @tinyflow.report(ptr %status, i64 %code, i64 %got, i64 %limit) cold noinline {
entry:
  %pair = cmpxchg ptr %status, i64 0, i64 %code monotonic monotonic
  %first = extractvalue { i64, i1 } %pair, 1
  br i1 %first, label %write, label %done
write:
  %got.at = getelementptr i64, ptr %status, i64 2
  store i64 %got, ptr %got.at
  %limit.at = getelementptr i64, ptr %status, i64 3
  store i64 %limit, ptr %limit.at
  br label %done
done:
  ret void
}
"""


def lower_to_llvm(kernel: Kernel, target: Target) -> str:
    """LLVM IR text of a module with this kernel. Errors: Unsupported, InternalError."""
    return lower_module((kernel,), target)


def lower_module(kernels: Iterable[Kernel], target: Target) -> str:
    """LLVM IR text of a module with these kernels, whose names must differ."""
    functions: list[str] = []
    declarations: dict[str, str] = {}
    helpers = ""
    uses_zero = uses_report = past_caches = False
    for kernel in kernels:
        writer = KernelWriter(kernel, target)
        functions += writer.function()
        declarations.update(writer.declarations)
        uses_zero |= writer.uses_zero
        uses_report |= writer.uses_report
        past_caches |= writer.stores_past_caches
    if uses_zero:
        helpers += "@tinyflow.zero = internal constant i64 0, align 8\n"
    if uses_report:
        helpers += _REPORT
    # Without this the x86 back end splits 512-bit vectors on CPUs that clock down for them.
    attributes = f'attributes #0 = {{ nounwind "prefer-vector-width"="{target.vector_bits}" }}'
    return "\n".join(
        [
            f'target datalayout = "{data_layout(target)}"',
            f'target triple = "{target.triple}"',
            helpers,
            *functions,
            *declarations.values(),
            attributes,
            *(["!0 = !{i32 1}"] if past_caches else []),
            "",
        ]
    )


class KernelWriter(RegisterWriter):
    """Writes one function."""

    emitters = llvm_operations.EMITTERS | llvm_integer.EMITTERS

    def __init__(self, kernel: Kernel, target: Target) -> None:
        super().__init__()
        self.pair_product = {target.lanes: target.pair_product}
        self.kernel = _expanded(kernel)
        self.uses_report = False
        self.kinds: dict[Expr, str] = {}
        body = self.kernel.body
        self.written = frozenset(buffers_read(body)) & frozenset(buffers_written(body))
        for loop in collect(body, For):
            if loop.var not in self.variable_bits:
                self.variable_bits[loop.var] = 1 << len(self.variable_bits)
        self.statements: dict[type[Stmt], Callable[..., None]] = {
            Store: self.store,
            For: self.loop,
            Alloc: self.alloc,
            If: self.condition,
            Call: self.call,
        }

    def function(self) -> list[str]:
        kernel = self.kernel
        for n, buffer in enumerate(kernel.buffers):
            self.header.append(f"  %a{n} = getelementptr inbounds ptr, ptr %buffers, i64 {n}")
            self.header.append(f"  %p{n} = load ptr, ptr %a{n}, align 8")
            self.bases[buffer] = (f"%p{n}", 0, 0)
        for n, extent in enumerate(kernel.extents):
            self.header.append(f"  %x{n} = getelementptr inbounds i64, ptr %extents, i64 {n}")
            self.header.append(f"  %e{n} = load i64, ptr %x{n}, align 8")
            self.describe(extent)
            self.remember(extent, (f"%e{n}", 0, 0))
        for n, buffer in enumerate(kernel.buffers):
            if buffer.nontemporal:
                self.find_apart(n)
        body = kernel.body
        if len(body) == 1 and isinstance(body[0], For) and body[0].kind == PARALLEL:
            loop = body[0]
            self.extents[loop.var] = loop.extent
            self.counted_loop(loop.var, "%begin", "%end", loop.body, True)
        else:
            run = (self.emit(0, "icmp slt i64 %begin, %end"), 0, 0)
            self.branch(run, lambda: self.body(body), None)
        lines, _ = self.close()
        return [
            f"define void @{_symbol(kernel.name)}(ptr %buffers, ptr %extents, "
            "i64 %begin, i64 %end) #0 {",
            "entry:",
            *self.header,
            *lines,
            # Such stores are not ordered by what tells other threads that the task is done.
            *(["  fence seq_cst"] if self.stores_past_caches else []),
            "  ret void",
            "}",
        ]

    def find_apart(self, n: int) -> None:
        """Notes whether parameter ``n`` has memory of its own: a result may take that of an input,
        whose lines are in the cache then."""
        result = ""
        for m in range(len(self.kernel.buffers)):
            if m == n:
                continue
            own = f"%apart{n}.{m}"
            self.header.append(f"  {own} = icmp ne ptr %p{n}, %p{m}")
            if result:
                self.header.append(f"  {own}.all = and i1 {result}, {own}")
                own += ".all"
            result = own
        if result:
            self.apart[self.kernel.buffers[n]] = result

    # --- statements -------------------------------------------------------------------------------

    def body(self, body: Body) -> None:
        for stmt in body:
            rule = self.statements.get(type(stmt))
            if rule is None:
                raise InternalError(
                    f"codegen: kernel {self.kernel.name}: the CPU has no {type(stmt).__name__}"
                )
            rule(stmt)

    def call(self, stmt: Call) -> None:
        """Hints: the line of ``buffer[index]`` that a later store or load will need; an order that
        the compiler's own scheduling keeps (no instruction)."""
        if stmt.function == "in_order":
            self.line('fence syncscope("singlethread") acq_rel')
            return
        if stmt.function == "transpose":
            self.transpose(stmt)
            return
        hint = _PREFETCH.get(stmt.function)
        if hint is None:
            raise InternalError(
                f"codegen: kernel {self.kernel.name}: the CPU has no function {stmt.function}"
            )
        buffer, index = stmt.arguments
        assert isinstance(buffer, Buffer) and isinstance(index, Expr)
        access = self.access(buffer, (index,))
        address = self.pointer(buffer, access.terms, access.offset)
        if "prefetch.p0" not in self.declarations:
            self.declare_intrinsic("prefetch.p0", "void", ["ptr", "i32", "i32", "i32"])
        self.line(f"call void @llvm.prefetch.p0(ptr {address[0]}, {hint}, i32 1)")

    def transpose(self, stmt: Call) -> None:
        """Vectors of the source in, turned in registers, vectors of the target out."""
        target, at, wide, source, start, apart, lanes = stmt.arguments
        assert isinstance(target, Buffer) and isinstance(source, Buffer)
        assert isinstance(at, Expr) and isinstance(wide, Expr) and isinstance(lanes, Expr)
        assert isinstance(start, Expr) and isinstance(apart, Expr)
        count = lanes.attr
        ty = memory_type(source.dtype, count)
        size = source.dtype.size_bytes
        rows = []
        for n in range(count):
            access = self.access(source, (start + apart * n,))
            address = self.pointer(source, access.terms, access.offset)
            rows.append(self.emit(self.level, f"load {ty}, ptr {address[0]}, align {size}"))
        columns = transpose_block(lambda text: self.emit(self.level, text), rows, ty)
        for n, column in enumerate(columns):
            access = self.access(target, (at + wide * n,))
            address = self.pointer(target, access.terms, access.offset)
            self.line(f"store {ty} {column}, ptr {address[0]}, align {size}")
        self.invalidate(target)

    def loop(self, stmt: For) -> None:
        if stmt.kind == PARALLEL:
            raise InternalError(f"codegen: kernel {self.kernel.name}: inner parallel loop")
        kind = stmt.kind
        if kind != UNROLL and stmt.extent == 1:
            kind = UNROLL  # one iteration, or one lane, needs no loop
        if self.kinds.setdefault(stmt.var, kind) != kind:
            self.kinds[stmt.var] = kind
            self.plan_tables.clear()
            self.use_plans(self.lane, self.lanes)
        self.extents[stmt.var] = stmt.extent
        if kind == UNROLL:
            self.unrolled(stmt)
        elif kind == VECTORIZE:
            self.vectorised(stmt)
        elif not isinstance(stmt.extent, int) or stmt.extent > 0:
            stop = str(stmt.extent)
            if isinstance(stmt.extent, Expr):
                stop = self.value(stmt.extent)[0]
            guarded = isinstance(stmt.extent, Expr)
            self.counted_loop(stmt.var, "0", stop, stmt.body, guarded)
        del self.extents[stmt.var]

    def unrolled(self, stmt: For) -> None:
        assert isinstance(stmt.extent, int)
        bit = self.variable_bits[stmt.var]
        self.describe(stmt.var)
        self.bound_bits |= bit
        for n in range(stmt.extent):
            mark = self.mark()
            self.bindings[stmt.var] = n
            self.remember(stmt.var, (str(n), 0, 0))
            self.body(stmt.body)
            self.forget_variable(mark, bit)
        self.bound_bits &= ~bit
        self.bindings.pop(stmt.var, None)

    def vectorised(self, stmt: For) -> None:
        assert isinstance(stmt.extent, int)
        if self.lane is not None:
            raise InternalError(f"codegen: kernel {self.kernel.name}: nested vectorize loops")
        bit = self.variable_bits[stmt.var]
        self.lane, self.lanes, self.lane_bit = stmt.var, stmt.extent, bit
        self.use_plans(stmt.var, stmt.extent)
        mark = self.mark()
        self.body(stmt.body)
        self.forget_variable(mark, bit)
        self.lane, self.lanes, self.lane_bit = None, 0, 0
        self.use_plans(None, 0)

    def forget_variable(self, mark: int, bit: int) -> None:
        facts = self.facts
        self.forget_expressions(
            mark,
            {k for k in self.trail[mark:] if isinstance(k, Expr) and facts[k].variables & bit},
        )

    def counted_loop(self, var: Expr, start: str, stop: str, body: Body, guarded: bool) -> None:
        """``for var in start .. stop`` as a loop that tests at its end, behind a test if needed."""
        number, mark = self.number(), self.mark()
        outer_levels = dict(self.store_levels)
        test = ""
        if guarded:
            test = self.emit(self.level, f"icmp slt i64 {start}, {stop}")
            self.open(f"pre{number}", True)
        self.open(f"loop{number}", False)
        level = self.level
        for buffer in buffers_written(body):
            self.store_levels[buffer] = level
            self.invalidate(buffer)  # an earlier iteration may have stored
        self.describe(var)
        self.remember(var, (f"%i{number}", 0, level))
        self.body(body)
        lines, latch = self.close()
        out, before = self.levels[-1], self.blocks[-1]
        out += [
            f"  br label %loop{number}",
            f"loop{number}:",
            f"  %i{number} = phi i64 [ {start}, %{before} ], [ %n{number}, %{latch} ]",
            *lines,
            f"  %n{number} = add nuw nsw i64 %i{number}, 1",
            f"  %c{number} = icmp slt i64 %n{number}, {stop}",
            f"  br i1 %c{number}, label %loop{number}, label %end{number}",
        ]
        if guarded:
            lines, _ = self.close()
            self.line(f"br i1 {test}, label %pre{number}, label %end{number}")
            self.levels[-1] += [f"pre{number}:", *lines]
        self.place_label(f"end{number}")
        self.forget_level(mark, self.level + 1)
        self.store_levels = outer_levels
        for buffer in buffers_written(body):
            self.invalidate(buffer)

    def branch(
        self, test: Value, then: Callable[[], None], orelse: Callable[[], None] | None
    ) -> None:
        """A real branch on a scalar."""
        number = self.number()
        arms: list[list[str]] = []
        for label, arm in (("then", then), ("else", orelse)):
            if arm is None:
                continue
            mark = self.mark()
            self.open(f"{label}{number}", True)
            arm()
            lines, _ = self.close()
            arms.append([f"{label}{number}:", *lines, f"  br label %join{number}"])
            self.forget_level(mark, self.level + 1)
        other = "else" if orelse else "join"
        self.line(f"br i1 {test[0]}, label %then{number}, label %{other}{number}")
        for arm_lines in arms:
            self.levels[-1] += arm_lines
        self.place_label(f"join{number}")

    def alloc(self, stmt: Alloc) -> None:
        buffer = stmt.buffer
        if buffer.scope == "register":
            self.allocate_registers(stmt)
        else:
            extents = [d for d in buffer.shape if isinstance(d, int)]
            size = math.prod(extents)
            if len(extents) < len(buffer.shape):
                raise InternalError(f"codegen: stack buffer {buffer.name} has no constant size")
            if size * buffer.dtype.size_bytes > STACK_LIMIT_BYTES:
                raise InternalError(
                    f"codegen: stack buffer {buffer.name} has {size * buffer.dtype.size_bytes} "
                    f"bytes, more than {STACK_LIMIT_BYTES}: it belongs in a parameter"
                )
            if buffer not in self.bases:
                # Once for all copies of an unrolled loop: addresses that are known already stay.
                name = f"%s{self.number()}"
                element = memory_type(buffer.dtype)
                self.header.append(f"  {name} = alloca [{max(size, 1)} x {element}], align 64")
                self.bases[buffer] = (name, 0, 0)
        self.body(stmt.body)

    # --- conditions -------------------------------------------------------------------------------

    def condition(self, stmt: If) -> None:
        expr = stmt.condition
        if self.describe(expr).variables & self.bound_bits:
            constants = {v: index(n) for v, n in self.bindings.items()}
            expr = substitute(expr, constants)
        if expr.op == "const":
            self.body(stmt.then if expr.attr else stmt.orelse)
            return
        if not self.describe(expr).variables & self.lane_bit:
            test = self.value(expr)
            if not test[1]:
                orelse = (lambda: self.body(stmt.orelse)) if stmt.orelse else None
                self.branch(test, lambda: self.body(stmt.then), orelse)
                return
        if self.mask is None and not stmt.orelse and _size(stmt.then) <= SPECIALISE_LIMIT:
            whole = self.every_lane(expr)
            if whole is not None:
                self.branch(
                    whole,
                    lambda: self.body(stmt.then),
                    lambda: self.masked(self.value(expr), stmt.then),
                )
                return
        test = self.value(expr)
        self.masked(test, stmt.then)
        if stmt.orelse:
            self.masked(self.negation(test), stmt.orelse)

    def masked(self, lanes: Value, body: Body) -> None:
        outer, mark = self.mask, self.mark()
        self.mask = self.conjunction(outer, lanes)
        self.body(body)
        self.mask = outer
        self.forget_effects(mark)

    def checked(self, expr: Expr) -> Value | None:
        """Reports where ok is false, in a cold block; the value passes through."""
        if any(a not in self.memo for a in expr.args):
            return None
        value, ok, got, limit = (self.memo[a] for a in expr.args)
        status = self.kernel.buffers[0]
        if status.name != "status":
            raise InternalError(
                f"codegen: kernel {self.kernel.name}: checked needs a first buffer named status"
            )
        self.uses_report = True
        failed = self.conjunction(self.mask, self.negation(ok))
        number = self.number()
        some = self.any_lane(failed)[0]
        self.line(f"br i1 {some}, label %failed{number}, label %passed{number}")
        self.place_label(f"failed{number}")
        got_ref, limit_ref = self.first_failed(failed, got), self.first_failed(failed, limit)
        self.line(
            f"call void @tinyflow.report(ptr {self.bases[status][0]}, i64 {expr.attr}, "
            f"i64 {got_ref}, i64 {limit_ref})"
        )
        self.line(f"br label %passed{number}")
        self.place_label(f"passed{number}")
        return value

    def first_failed(self, failed: Value, numbers: Value) -> str:
        """The value in the first lane that failed."""
        if not numbers[1]:
            return numbers[0]
        level, lanes = self.level, numbers[1]
        bits = self.spread(failed, bool_, lanes)
        packed = self.emit(level, f"bitcast <{lanes} x i1> {bits} to i{lanes}")
        wide = packed
        if lanes < 64:
            wide = self.emit(level, f"zext i{lanes} {packed} to i64")
        elif lanes > 64:
            raise InternalError("codegen: checked in more than 64 lanes")
        if "cttz.i64" not in self.declarations:
            self.declare_intrinsic("cttz.i64", "i64", ["i64", "i1"])
        first = self.emit(level, f"call i64 @llvm.cttz.i64(i64 {wide}, i1 false)")
        vector = f"<{lanes} x i64>"
        return self.emit(level, f"extractelement {vector} {numbers[0]}, i64 {first}")


def _symbol(name: str) -> str:
    return '"' + name.replace("\\", "_").replace('"', "_") + '"'


def _size(body: Body) -> int:
    return sum(1 for _ in all_expressions(body))


def _expanded(kernel: Kernel) -> Kernel:
    """The kernel with elementary functions and 16-bit arithmetic written out."""
    calls = narrow = False
    for root in all_expressions(kernel.body):
        calls = calls or root.op == "call"
        narrow = narrow or root.dtype.name in ("float16", "bfloat16")
    if calls:
        from tinyflow.ir.scalar.math import expand

        kernel = replace(kernel, body=map_expressions(kernel.body, expand))
    if narrow:
        from tinyflow.ir.scalar.narrow import widened

        body = map_expressions(kernel.body, lambda root: transform(root, widened))
        kernel = replace(kernel, body=body)
    return kernel
