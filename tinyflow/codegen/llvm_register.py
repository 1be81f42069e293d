"""Register buffers: every whole vector (or scalar) of the buffer is one slot.

Main type: ``RegisterWriter``. Imports core, ir.scalar and ir.loop.

A slot is written as an ``alloca`` that LLVM's SROA turns into values and phis. A slot is as wide as
the vectors that the kernel keeps in the buffer; other accesses take slots apart or join them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tinyflow.codegen.llvm_memory import MemoryWriter, not_constant
from tinyflow.codegen.llvm_operations import extreme
from tinyflow.codegen.llvm_text import lane_numbers, literal, type_name
from tinyflow.codegen.writer import Value
from tinyflow.core.dtype import DType, bool_
from tinyflow.core.error import InternalError
from tinyflow.ir.loop.nodes import VECTORIZE, Alloc, Buffer, For, If, Stmt, Store
from tinyflow.ir.loop.visit import bodies, expressions
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ir.scalar.visit import postorder, substitute


@dataclass(eq=False)
class _Uses:
    """How the body of one allocation touches its buffer.

    widths: numbers of lanes that touch adjacent elements.   masked: some lanes of a vector that
    stores may be switched off.
    """

    stmt: Alloc
    loop: For | None  # the vectorised loop around the allocation
    conditions: int  # how many there are around it
    widths: set[int] = field(default_factory=set)
    masked: bool = False


class RegisterWriter(MemoryWriter):
    """Loads, stores and folds of ``register`` buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.widths: dict[Buffer, int] = {}
        #: by the identity of the statement, which its entry keeps alive
        self.uses: dict[int, _Uses] = {}
        self.slot_names: dict[tuple[Buffer, int], str] = {}
        #: the slot's value where it is known in this block
        self.slot_values: dict[tuple[Buffer, int], str] = {}

    def open(self, label: str, guarded: bool) -> None:
        super().open(label, guarded)
        self.slot_values.clear()

    def close(self) -> tuple[list[str], str]:
        self.slot_values.clear()
        return super().close()

    def allocate_registers(self, stmt: Alloc) -> None:
        buffer = stmt.buffer
        if id(stmt) not in self.uses:
            self.find_uses(stmt)
        uses = self.uses[id(stmt)]
        width = math.gcd(*uses.widths) if uses.widths else 1
        size = math.prod(int(d) for d in buffer.shape if isinstance(d, int))
        width = self.widths[buffer] = width if size % width == 0 else 1
        if uses.masked:
            # Lanes that no store reaches would hold whatever the register held before: arithmetic
            # on such a lane can meet a denormal, which costs more than the whole row.
            zero = "zeroinitializer" if width > 1 else literal(0, buffer.dtype)
            for slot in range(size // width):
                self.write_slot(buffer, slot, zero)

    def find_uses(self, outer: Alloc) -> None:
        """Fills ``uses`` for the allocation and for those inside it, in one walk."""
        pending: list[tuple[Stmt, For | None, int, dict[Buffer, _Uses]]] = [(outer, None, 0, {})]
        while pending:
            stmt, loop, conditions, known = pending.pop()
            if isinstance(stmt, Store):
                uses = known.get(stmt.buffer)
                if uses is not None:
                    uses.masked |= conditions > uses.conditions
                    self.touch(uses, stmt.indices, loop)
            if loop is not None:
                for node in postorder(*expressions(stmt)):
                    if node.op == "load" and node.attr in known:
                        self.touch(known[node.attr], node.args, loop)
            if isinstance(stmt, For):
                loop = stmt if stmt.kind == VECTORIZE else loop
            elif isinstance(stmt, If):
                conditions += 1
            elif isinstance(stmt, Alloc) and stmt.buffer.scope == "register":
                uses = self.uses[id(stmt)] = _Uses(stmt, loop, conditions)
                known = {**known, stmt.buffer: uses}
            pending += [(one, loop, conditions, known) for body in bodies(stmt) for one in body]

    def touch(self, uses: _Uses, indices: tuple[Expr, ...], loop: For | None) -> None:
        """Notes an access in a vectorised loop that stands inside the allocation."""
        if loop is None or loop is uses.loop or not isinstance(loop.extent, int):
            return
        if self.polynomials.flattened(uses.stmt.buffer, indices).get((loop.var,)) == 1:
            uses.widths.add(loop.extent)

    # --- slots ------------------------------------------------------------------------------------

    def slot_type(self, buffer: Buffer) -> str:
        width = self.widths[buffer]
        return type_name(buffer.dtype, width if width > 1 else 0)

    def slot_name(self, buffer: Buffer, slot: int) -> str:
        name = self.slot_names.get((buffer, slot))
        if name is None:
            name = self.slot_names[buffer, slot] = f"%r{self.number()}"
            self.header.append(f"  {name} = alloca {self.slot_type(buffer)}")
        return name

    def read_slot(self, buffer: Buffer, slot: int) -> str:
        ref = self.slot_values.get((buffer, slot))
        if ref is None:
            name = self.slot_name(buffer, slot)
            ref = self.emit(self.level, f"load {self.slot_type(buffer)}, ptr {name}")
            self.slot_values[buffer, slot] = ref
        return ref

    def write_slot(self, buffer: Buffer, slot: int, ref: str) -> None:
        name = self.slot_name(buffer, slot)
        self.line(f"store {self.slot_type(buffer)} {ref}, ptr {name}")
        self.slot_values[buffer, slot] = ref

    def read_element(self, buffer: Buffer, position: int) -> str:
        width = self.widths[buffer]
        slot = self.read_slot(buffer, position // width)
        if width == 1:
            return slot
        text = f"extractelement {self.slot_type(buffer)} {slot}, i64 {position % width}"
        return self.emit(self.level, text)

    def write_element(self, buffer: Buffer, position: int, ref: str) -> None:
        width = self.widths[buffer]
        if width > 1:
            old, ty = self.read_slot(buffer, position // width), self.slot_type(buffer)
            element = type_name(buffer.dtype)
            text = f"insertelement {ty} {old}, {element} {ref}, i64 {position % width}"
            ref = self.emit(self.level, text)
        self.write_slot(buffer, position // width, ref)

    def positions(self, buffer: Buffer, indices: tuple[Expr, ...]) -> tuple[list[int], bool]:
        """Element numbers, one per lane (or one), and whether they are a run of whole slots."""
        access = self.access(buffer, indices)
        if access.terms:
            raise not_constant(buffer)
        if not access.vector:
            if access.stride == 0:
                return [access.offset], False
            width = self.widths[buffer]
            run = access.stride == 1 and access.offset % width == 0 and self.lanes % width == 0
            return [access.offset + access.stride * n for n in range(self.lanes)], run and width > 1
        assert self.lane is not None
        out = []
        for lane in range(self.lanes):
            at = tuple(substitute(i, {self.lane: s.index(lane)}) for i in indices)
            one = self.access(buffer, at)
            if one.terms or one.vector:
                raise not_constant(buffer)
            out.append(one.offset)
        return out, False

    # --- loads and stores -------------------------------------------------------------------------

    def load_register(self, expr: Expr) -> Value:
        buffer, level = expr.attr, self.level
        positions, is_run = self.positions(buffer, expr.args)
        if len(positions) == 1 and not is_run:
            return self.read_element(buffer, positions[0]), 0, level
        if is_run:
            width = self.widths[buffer]
            slots = range(positions[0] // width, (positions[-1] + 1) // width)
            parts = [self.read_slot(buffer, slot) for slot in slots]
            return self.joined(parts, buffer.dtype, width), self.lanes, level
        ref, ty = "poison", type_name(buffer.dtype, self.lanes)
        for lane, position in enumerate(positions):
            element = f"{type_name(buffer.dtype)} {self.read_element(buffer, position)}"
            ref = self.emit(level, f"insertelement {ty} {ref}, {element}, i64 {lane}")
        return ref, self.lanes, level

    def joined(self, parts: list[str], dtype: DType, width: int) -> str:
        """Vectors one after the other as one vector."""
        while len(parts) > 1:
            if len(parts) % 2:
                parts.append("poison")
            ty, order = type_name(dtype, width), lane_numbers("i32", 2 * width)
            parts = [
                self.emit(
                    self.level,
                    f"shufflevector {ty} {parts[n]}, {ty} {parts[n + 1]}, "
                    f"<{2 * width} x i32> {order}",
                )
                for n in range(0, len(parts), 2)
            ]
            width *= 2
        if width != self.lanes:
            return self.part(parts[0], dtype, width, 0, self.lanes)
        return parts[0]

    def part(self, ref: str, dtype: DType, lanes: int, start: int, width: int) -> str:
        """Lanes start .. start + width of a vector."""
        if width == lanes:
            return ref
        ty, order = type_name(dtype, lanes), lane_numbers("i32", width, start)
        text = f"shufflevector {ty} {ref}, {ty} poison, <{width} x i32> {order}"
        return self.emit(self.level, text)

    def store_register(self, stmt: Store, value: Value) -> None:
        buffer = stmt.buffer
        positions, is_run = self.positions(buffer, stmt.indices)
        if is_run:
            self.store_run(buffer, positions[0], value)
        elif len(positions) == 1:
            self.store_element(buffer, positions[0], value)
        else:
            self.store_lanes(buffer, positions, value)

    def store_run(self, buffer: Buffer, start: int, value: Value) -> None:
        dtype, width = buffer.dtype, self.widths[buffer]
        ref = self.spread(value, dtype, self.lanes)
        mask = None if self.mask is None else self.spread(self.mask, bool_, self.lanes)
        for n in range(0, self.lanes, width):
            slot = (start + n) // width
            new = ref if ref.startswith("splat") else self.part(ref, dtype, self.lanes, n, width)
            if mask is not None:
                active = self.part(mask, bool_, self.lanes, n, width)
                old, ty = self.read_slot(buffer, slot), self.slot_type(buffer)
                choice = f"select <{width} x i1> {active}, {ty} {new}, {ty} {old}"
                new = self.emit(self.level, choice)
            self.write_slot(buffer, slot, new)

    def store_element(self, buffer: Buffer, position: int, value: Value) -> None:
        ref, ty = value[0], type_name(buffer.dtype)
        if value[1]:
            if self.mask is not None:
                self.store_lanes(buffer, [position] * self.lanes, value)
                return
            text = f"extractelement {type_name(buffer.dtype, value[1])} {ref}, i64 {value[1] - 1}"
            ref = self.emit(self.level, text)
        if self.mask is not None:
            active = self.any_lane(self.mask)[0]
            old = self.read_element(buffer, position)
            ref = self.emit(self.level, f"select i1 {active}, {ty} {ref}, {ty} {old}")
        self.write_element(buffer, position, ref)

    def store_lanes(self, buffer: Buffer, positions: list[int], value: Value) -> None:
        """Lane by lane; the last lane that stores to an element wins."""
        ty, scalar = type_name(buffer.dtype, self.lanes), type_name(buffer.dtype)
        ref = self.spread(value, buffer.dtype, self.lanes)
        mask = None if self.mask is None else self.spread(self.mask, bool_, self.lanes)
        for lane, position in enumerate(positions):
            new = self.emit(self.level, f"extractelement {ty} {ref}, i64 {lane}")
            if mask is not None:
                bits = f"<{self.lanes} x i1> {mask}"
                active = self.emit(self.level, f"extractelement {bits}, i64 {lane}")
                old = self.read_element(buffer, position)
                choice = f"select i1 {active}, {scalar} {new}, {scalar} {old}"
                new = self.emit(self.level, choice)
            self.write_element(buffer, position, new)

    # --- folds ------------------------------------------------------------------------------------

    def fold(self, expr: Expr) -> Value:
        """Lane l with lane l + n/2, then l + n/4, ...: whole slots first, then inside one slot."""
        combiner, buffer = expr.attr
        size, width, level = int(buffer.shape[0]), self.widths[buffer], self.level
        if size & (size - 1):
            return self.fold_any_size(expr, size), 0, level
        parts = [self.read_slot(buffer, n) for n in range(size // width)]
        while len(parts) > 1:
            half = len(parts) // 2
            lanes = width if width > 1 else 0
            parts = [
                self.combine(combiner, buffer.dtype, parts[n], parts[n + half], lanes)
                for n in range(half)
            ]
        ref = parts[0]
        lanes = width
        while lanes > 1:
            half = lanes // 2
            low = self.part(ref, buffer.dtype, lanes, 0, half)
            high = self.part(ref, buffer.dtype, lanes, half, half)
            ref, lanes = self.combine(combiner, buffer.dtype, low, high, half), half
        if width > 1:
            ref = self.emit(level, f"extractelement {type_name(buffer.dtype, 1)} {ref}, i64 0")
        return ref, 0, level

    def fold_any_size(self, expr: Expr, size: int) -> str:
        combiner, buffer = expr.attr
        values = [self.read_element(buffer, n) for n in range(size)]
        while len(values) > 1:
            half = (len(values) + 1) // 2
            for n in range(len(values) - half):
                values[n] = self.combine(combiner, buffer.dtype, values[n], values[n + half], 0)
            del values[half:]
        return values[0]

    def combine(self, combiner: str, dtype: DType, a: str, b: str, lanes: int) -> str:
        if combiner in ("min", "max"):
            return extreme(self, combiner, dtype, [a, b], lanes, self.level)
        ty = type_name(dtype, lanes)
        name = {"sum": "add", "dot": "add", "prod": "mul", "all": "and", "any": "or"}[combiner]
        if dtype.kind == "float":
            if name not in ("add", "mul"):
                raise InternalError(f"codegen: fold {combiner} of {dtype.name}")
            name = "f" + name
        return self.emit(self.level, f"{name} {ty} {a}, {b}")
