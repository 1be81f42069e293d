"""Loads and stores of ``param`` and ``stack`` buffers.

Main type: ``MemoryWriter``. Imports core, ir.scalar and ir.loop.

The stride between lanes chooses the instruction: 0 scalar, 1 contiguous vector, -1 the same
reversed, otherwise gather or scatter. Lanes that are masked off touch no memory.
"""

from __future__ import annotations

from tinyflow.codegen.llvm_address import Access, AddressWriter
from tinyflow.codegen.llvm_operations import memory_to_value, value_to_memory
from tinyflow.codegen.llvm_text import lane_numbers, memory_type, type_name, vector_suffix
from tinyflow.codegen.writer import Value
from tinyflow.core.dtype import bool_
from tinyflow.core.error import InternalError
from tinyflow.ir.loop.nodes import Buffer, Extent, Store
from tinyflow.ir.scalar.nodes import Expr

#: Bytes of the vectors that have a store past the caches.
_WHOLE_STORES = (16, 32, 64)


class MemoryWriter(AddressWriter):
    """Loads and stores; registers are in llvm_register.py."""

    def __init__(self) -> None:
        super().__init__()
        self.store_levels: dict[Buffer, int] = {}  # innermost open loop that writes the buffer
        self.extents: dict[Expr, Extent] = {}  # of open loops
        self.uses_zero = False
        self.stores_past_caches = False
        self.apart: dict[Buffer, str] = {}  # whether a nontemporal buffer is no other one's memory

    # --- loads ------------------------------------------------------------------------------------

    def load(self, expr: Expr) -> Value:
        buffer = expr.attr
        if buffer.scope == "register":
            return self.load_register(expr)
        access = self.access(buffer, expr.args)
        level = max(self.floor, self.store_levels.get(buffer, 0))
        if access.stride == 0 and not access.vector:
            return self.load_scalar(expr, access, level)
        if access.stride in (1, -1) and not access.vector:
            return self.load_contiguous(buffer, access, level)
        addresses = self.lane_pointers(buffer, access)
        level = max(level, addresses[2])
        mask = "splat (i1 true)"
        if self.mask is not None:
            level = max(level, self.mask[2])
            mask = self.spread(self.mask, bool_, self.lanes)
        ty = memory_type(buffer.dtype, self.lanes)
        element, vector = memory_type(buffer.dtype), f"<{self.lanes} x i1>"
        name = f"masked.gather.{vector_suffix(element, self.lanes)}.v{self.lanes}p0"
        if name not in self.declarations:
            self.declare_intrinsic(name, ty, [f"<{self.lanes} x ptr>", vector, ty])
        ref = self.emit(
            level,
            f"call {ty} @llvm.{name}(<{self.lanes} x ptr> align {buffer.dtype.size_bytes} "
            f"{addresses[0]}, {vector} {mask}, {ty} zeroinitializer)",
        )
        return self.from_memory(buffer, ref, self.lanes, level)

    def from_memory(self, buffer: Buffer, ref: str, lanes: int, level: int) -> Value:
        return memory_to_value(self, buffer.dtype, ref, lanes, level), lanes, level

    def load_scalar(self, expr: Expr, access: Access, level: int) -> Value:
        buffer = expr.attr
        address = self.pointer(buffer, access.terms, access.offset)
        level = max(level, address[2])
        ref = address[0]
        if self.mask is not None and not self.is_inside(buffer, expr.args):
            active = self.any_lane(self.mask)
            level = max(level, active[2])
            self.uses_zero = True
            ref = self.emit(level, f"select i1 {active[0]}, ptr {ref}, ptr @tinyflow.zero")
        text = f"load {memory_type(buffer.dtype)}, ptr {ref}, align {buffer.dtype.size_bytes}"
        return self.from_memory(buffer, self.emit(level, text), 0, level)

    def is_inside(self, buffer: Buffer, indices: tuple[Expr, ...]) -> bool:
        """Whether the access is in range whatever the mask says, so that it needs no guard."""
        for index, extent in zip(indices, buffer.shape, strict=True):
            if index.op == "const":
                if not isinstance(extent, int) or not 0 <= index.attr < extent:
                    return False
                continue
            bound = self.extents.get(index)
            if bound is None:
                return False
            both = isinstance(bound, int) and isinstance(extent, int)
            if bound is not extent and not (both and bound <= extent):  # type: ignore[operator]
                return False
        return True

    def load_contiguous(self, buffer: Buffer, access: Access, level: int) -> Value:
        lanes, size = self.lanes, buffer.dtype.size_bytes
        backwards = access.stride < 0
        offset = access.offset - (lanes - 1 if backwards else 0)
        address = self.pointer(buffer, access.terms, offset)
        level = max(level, address[2])
        ty = memory_type(buffer.dtype, lanes)
        if self.mask is None:
            ref = self.emit(level, f"load {ty}, ptr {address[0]}, align {size}")
        else:
            level = max(level, self.mask[2])
            mask = self.spread(self.mask, bool_, lanes)
            if backwards:
                mask = self.reversed(mask, f"<{lanes} x i1>", level)
            vector = f"<{lanes} x i1>"
            name = f"masked.load.{vector_suffix(memory_type(buffer.dtype), lanes)}.p0"
            if name not in self.declarations:
                self.declare_intrinsic(name, ty, ["ptr", vector, ty])
            ref = self.emit(
                level,
                f"call {ty} @llvm.{name}(ptr align {size} {address[0]}, {vector} {mask}, "
                f"{ty} zeroinitializer)",
            )
        if backwards:
            ref = self.reversed(ref, ty, level)
        return self.from_memory(buffer, ref, lanes, level)

    def reversed(self, ref: str, ty: str, level: int) -> str:
        order = lane_numbers("i32", self.lanes, self.lanes - 1, -1)
        text = f"shufflevector {ty} {ref}, {ty} poison, <{self.lanes} x i32> {order}"
        return self.emit(level, text)

    # --- stores -----------------------------------------------------------------------------------

    def store(self, stmt: Store) -> None:
        buffer = stmt.buffer
        value = self.value(stmt.value)
        if buffer.scope == "register":
            self.store_register(stmt, value)
        else:
            access = self.access(buffer, stmt.indices)
            if access.stride == 1 and not access.vector:
                self.store_contiguous(buffer, access, value)
            elif access.stride == 0 and not access.vector and not (value[1] and self.mask):
                self.store_scalar(buffer, access, value)
            else:
                self.scatter(buffer, access, value)
        self.invalidate(buffer)

    def invalidate(self, buffer: Buffer) -> None:
        """Values that were computed from the buffer's old contents are no longer known."""
        for expr in self.readers.pop(buffer, ()):
            self.memo.pop(expr, None)

    def store_contiguous(self, buffer: Buffer, access: Access, value: Value) -> None:
        lanes, size, level = self.lanes, buffer.dtype.size_bytes, self.level
        address = self.pointer(buffer, access.terms, access.offset)
        ty = memory_type(buffer.dtype, lanes)
        ref = self.spread(value, buffer.dtype, lanes)
        ref = value_to_memory(self, buffer.dtype, ref, lanes, level)
        if self.mask is None:
            store = f"store {ty} {ref}, ptr {address[0]}, align"
            if buffer.nontemporal and lanes * size in _WHOLE_STORES:
                self.store_nontemporal(buffer, store, address[0], lanes * size)
            else:
                self.line(f"{store} {size}")
            return
        mask = self.spread(self.mask, bool_, lanes)
        vector = f"<{lanes} x i1>"
        name = f"masked.store.{vector_suffix(memory_type(buffer.dtype), lanes)}.p0"
        if name not in self.declarations:
            self.declare_intrinsic(name, "void", [ty, "ptr", vector])
        self.line(
            f"call void @llvm.{name}({ty} {ref}, ptr align {size} {address[0]}, {vector} {mask})"
        )

    def store_nontemporal(self, buffer: Buffer, store: str, address: str, whole: int) -> None:
        """A vector past the caches if it is aligned, as it must be, and not read here, too.

        The answer is the same for every vector, so the branch costs nothing beside the memory.
        """
        number, level = self.number(), self.level
        bits = self.emit(level, f"ptrtoint ptr {address} to i64")
        low = self.emit(level, f"and i64 {bits}, {whole - 1}")
        past = self.emit(level, f"icmp eq i64 {low}, 0")
        if buffer in self.apart:
            past = self.emit(level, f"and i1 {past}, {self.apart[buffer]}")
        self.line(f"br i1 {past}, label %past{number}, label %cached{number}")
        self.place_label(f"past{number}")
        self.line(f"{store} {whole}, !nontemporal !0")
        self.line(f"br label %stored{number}")
        self.place_label(f"cached{number}")
        self.line(f"{store} {buffer.dtype.size_bytes}")
        self.line(f"br label %stored{number}")
        self.place_label(f"stored{number}")
        self.stores_past_caches = True

    def store_scalar(self, buffer: Buffer, access: Access, value: Value) -> None:
        ref, lanes, _ = value
        size, level = buffer.dtype.size_bytes, self.level
        if lanes:  # all lanes store to one element: the last one wins
            ty = type_name(buffer.dtype, lanes)
            ref = self.emit(level, f"extractelement {ty} {ref}, i64 {lanes - 1}")
        ref = value_to_memory(self, buffer.dtype, ref, 0, level)
        address = self.pointer(buffer, access.terms, access.offset)
        end = ""
        if self.mask is not None:
            active, number = self.any_lane(self.mask), self.number()
            end = f"stored{number}"
            self.line(f"br i1 {active[0]}, label %store{number}, label %{end}")
            self.place_label(f"store{number}")
        self.line(f"store {memory_type(buffer.dtype)} {ref}, ptr {address[0]}, align {size}")
        if end:
            self.line(f"br label %{end}")
            self.place_label(end)

    def scatter(self, buffer: Buffer, access: Access, value: Value) -> None:
        """Lanes store in ascending order, so the last of equal addresses wins."""
        lanes, level = self.lanes, self.level
        addresses = self.lane_pointers(buffer, access)
        ref = self.spread(value, buffer.dtype, lanes)
        ref = value_to_memory(self, buffer.dtype, ref, lanes, level)
        mask = "splat (i1 true)" if self.mask is None else self.spread(self.mask, bool_, lanes)
        ty, vector = memory_type(buffer.dtype, lanes), f"<{lanes} x i1>"
        name = f"masked.scatter.{vector_suffix(memory_type(buffer.dtype), lanes)}.v{lanes}p0"
        if name not in self.declarations:
            self.declare_intrinsic(name, "void", [ty, f"<{lanes} x ptr>", vector])
        self.line(
            f"call void @llvm.{name}({ty} {ref}, <{lanes} x ptr> align {buffer.dtype.size_bytes} "
            f"{addresses[0]}, {vector} {mask})"
        )

    # --- in llvm_register.py ----------------------------------------------------------------------

    def load_register(self, expr: Expr) -> Value:
        raise NotImplementedError

    def store_register(self, stmt: Store, value: Value) -> None:
        raise NotImplementedError


def not_constant(buffer: Buffer) -> InternalError:
    return InternalError(
        f"codegen: register buffer {buffer.name} needs indices that are constant after unrolling"
    )
