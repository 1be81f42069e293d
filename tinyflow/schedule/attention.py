"""Attention: contractions joined through rows that stay in a task's cache.

Main function: ``lower_attention``. May import core, ir, passes.fusion, te and schedule.

A task has a block of rows (queries) of everything between the contractions on its stack::

    for block of rows:
        scores[block, :] = q[block] @ k^T, its epilogue      tiles of a contraction
        p[block, :]      = softmax(scores[block, :])         the sweeps of a row kernel
        out[block]       = p[block, :] @ v                   rows read from the stack
        dk += ds[block, :]^T @ q[block]                      sums over all rows go on in memory

Every element is computed in the canonical order of its kind (te/canonical.py): whole rows, chains
over all terms; so there is nothing to rescale, and the bits are those of separate kernels. Sums
over the rows go through the blocks in order, so then only the shared axes are for threads; a task
has its rows in the arena if they are too long for a stack.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tinyflow.ir.graph.nodes import Value
from tinyflow.ir.loop import visit as loop_visit
from tinyflow.ir.loop.nodes import PARALLEL, SERIAL, Alloc, Body, Buffer, For, If, Stmt, Store
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ir.scalar.visit import plain
from tinyflow.passes.fusion import Group, Grouping, Item, stretched
from tinyflow.passes.fusion.attention import BLOCK_BYTES, reading_of
from tinyflow.passes.fusion.groups import Member
from tinyflow.schedule.attention_rows import (
    FIRST,
    LOCAL,
    ROWS,
    RowStatements,
    row_statements,
    rows_nest,
)
from tinyflow.schedule.contraction.packing import packed_panels
from tinyflow.schedule.contraction.problem import Problem, extent_of, stride_along
from tinyflow.schedule.contraction.tile import ROW, TERM, Tile, at_tile, results, tile_cases
from tinyflow.schedule.grain import nest
from tinyflow.schedule.lowering import (
    Axes,
    GroupExpressions,
    LoweredKernel,
    Scratch,
    loop_extent,
    single_axis,
)
from tinyflow.schedule.targets import Target
from tinyflow.te.canonical import STRIPE

#: Rows of a block: each reads all of k and v from the second-level cache.
BLOCK_ROWS = 32
#: The task; the block, and how many tiles of rows it has.
TASK, BLOCK, TILES = s.var("task"), s.var("block"), s.var("tiles")
_TILE, _PANEL = s.var("it"), s.var("jt")


class _Expressions(GroupExpressions):
    """Expressions of one member; values of other members are read from the stack.

    places: value -> its rows on the stack.   pitch: elements from one row of them to the next.
    """

    def __init__(
        self, grouping: Grouping, whole: GroupExpressions, member: Group,
        places: dict[Value, Buffer], pitch: int,
    ) -> None:  # fmt: skip
        self.own = set(member.items)
        super().__init__(grouping, member, whole.sizes)
        self.buffers, self.places, self.pitch = whole.buffers, places, pitch
        self.domain = whole.group.domain
        rank = len(whole.outer)
        if member.kind == "map":
            split = [(s.var(f"i{n}"), e) for n, (_, e) in enumerate(self.outer)]
            self.outer, self.inner = split[:rank], split[rank:]
        stored = {i.value for i in grouping.results(whole.group)} | set(places)
        self.results = [i for i in member.items if i.value in stored]

    def contains(self, item: Item) -> bool:
        return item in self.own

    def buffer(self, value: Value) -> Buffer:
        return self.places.get(value) or super().buffer(value)

    def element(self, value: Value, indices: tuple[Expr, ...]) -> Expr:
        item = self.grouping.items.get(value)
        if item is None or item in self.own or value not in self.places:
            return super().element(value, indices)
        own = stretched(indices, item.shape)
        if item.extents != self.domain:
            return s.load(self.places[value], self.local(own[-1]))
        return s.load(self.places[value], self.local(own[-2]) * self.pitch + own[-1])

    def local(self, row: Expr) -> Expr:
        """The row within the block; a sum over rows counts within the block by itself."""
        return row if row is TERM else LOCAL

    def position(self, item: Item) -> Expr:
        if item.value not in self.places:
            return super().position(item)
        if item.extents != self.domain:
            return LOCAL
        return LOCAL * self.pitch + self.point[-1]


@dataclass
class _Blocks:
    """``rows`` per register tile, ``tiles`` of them per block, ``count`` blocks of ``m`` rows."""

    m: int
    rows: int
    tiles: int
    vectors: int

    @property
    def height(self) -> int:
        return self.rows * self.tiles

    @property
    def count(self) -> int:
        return -(-self.m // self.height)

    def bound(self, block: Expr) -> dict[Expr, Expr]:
        """FIRST, ROWS and TILES of a block."""
        first, tiles = block * self.height, -(-self.m // self.rows)
        return {
            FIRST: first,
            ROWS: _at_most(self.height, self.m, first),
            TILES: _at_most(self.tiles, tiles, block * self.tiles),
        }


def _at_most(step: int, total: int, start: Expr) -> Expr:
    full = s.index(step)
    return full if total % step == 0 else s.minimum(full, s.index(total) - start)


def _most_rows(target: Target) -> int:
    """Rows of a tile of two vectors that fills the registers."""
    return max(1, (target.vector_registers - 3) // 2)


def _blocks_of(m: int, fit: int, target: Target) -> _Blocks:
    """At most ``fit`` rows, in tiles that fill the registers, blocks as equal as they can be."""
    most = _most_rows(target)
    if fit < most:
        rows = min(fit, m)
        return _Blocks(m, rows, 1, max(2, (target.vector_registers - 4) // (rows + 1)))
    rows = -(-m // -(-m // most))
    all_tiles = -(-m // rows)
    tiles = max(1, min(fit, BLOCK_ROWS) // rows)
    return _Blocks(m, rows, -(-all_tiles // -(-all_tiles // tiles)), 2)


def _sums_rows(member: Member) -> bool:
    """Whether its contraction's terms are the rows."""
    item = member.group.reduction
    return item is not None and member.square is not None and (
        reading_of(item, member.square) == "terms"
    )  # fmt: skip


def _shifted(body: Body, buffers: set[Buffer], offset: Expr) -> Body:
    """Every access to one of the buffers, ``offset`` elements further."""

    def expression(expr: Expr) -> Expr:
        def one(e: Expr) -> Expr | None:
            if e.op == "load" and e.attr in buffers:
                return s.load(e.attr, e.args[0] + offset)
            return None

        return scalar_visit.transform(expr, one)

    def statement(stmt: Stmt) -> Stmt:
        if isinstance(stmt, Store) and stmt.buffer in buffers:
            return Store(stmt.buffer, (stmt.indices[0] + offset,), stmt.value)
        return stmt

    return loop_visit.map_statements(loop_visit.map_expressions(body, expression), statement)


class _Attention:
    """The kernels of one group; see the module's header."""

    def __init__(
        self, grouping: Grouping, group: Group, target: Target, sizes: Mapping[str, int]
    ) -> None:
        self.grouping, self.group, self.target = grouping, group, target
        self.whole = GroupExpressions(grouping, group, sizes)
        self.shared: Axes = self.whole.outer[:-1]
        self.m, self.n = (loop_extent(e) for e in group.domain[-2:])
        # An odd number of cache lines: rows at a power of two would share few sets of the cache.
        self.pitch = (-(-self.n // STRIPE) | 1) * STRIPE
        self.flops: Any = 0
        self.scratch: list[tuple[Buffer, Scratch]] = []
        self.packing: list[LoweredKernel] = []
        self.places = self._places()
        self.expressions = {
            m: _Expressions(grouping, self.whole, m, self.places, self.pitch)
            for m, _ in group.members
        }
        self.sweeps: dict[Group, RowStatements] = {
            m: row_statements(self.expressions[m], self.n)
            for m, _ in group.members if m.kind != "dot"
        }  # fmt: skip

    def _places(self) -> dict[Value, Buffer]:
        """Values that one member hands to another; their sizes are not known yet."""
        found: dict[Value, Buffer] = {}
        members = {i: m for m, _ in self.group.members for i in m.items}
        for item, member in members.items():
            readers = {members[u] for u in self.grouping.users.get(item.value, ()) if u in members}
            if item.value in self.group.hidden and readers - {member}:
                name = f"{item.value.node.op.type_name.lower()}_rows{len(found)}"
                found[item.value] = Buffer(name, item.value.dtype, (1,), "stack")
        return found

    # ---- the stack -----------------------------------------------------------------------------
    def _slots(self) -> list[list[Value]]:
        """Squares that may share memory: one dies before, or just where, the next is made."""
        members = [m for m, _ in self.group.members]
        made = {i.value: n for n, m in enumerate(members) for i in m.items}
        last: dict[Value, int] = {}
        for n, member in enumerate(members):
            for value in (v for i in member.items for v, _ in i.reads):
                last[value] = n
        slots: list[list[Value]] = []
        domain = self.group.domain
        squares = [v for v in self.places if self.grouping.items[v].extents == domain]
        for value in sorted(squares, key=lambda v: made[v]):
            member = members[made[value]]
            for slot in slots:
                old = slot[-1]
                if old.dtype is value.dtype and (
                    last[old] < made[value]
                    or (last[old] == made[value] and member in self.sweeps
                        and self.sweeps[member].may_replace(self.places[old], self.places[value]))
                ):  # fmt: skip
                    slot.append(value)
                    break
            else:
                slots.append([value])
        return slots

    def _allocated(
        self, body: Body, blocks: _Blocks, slots: list[list[Value]], in_arena: bool
    ) -> Body:
        """``body`` with real buffers for its rows: on the stack, or in the arena, TASK's part."""
        change: dict[Buffer, Buffer] = {}
        size = blocks.height * self.pitch
        for slot in slots:
            first = self.places[slot[0]]
            buffer = Buffer(first.name, first.dtype, (size,), "stack")
            if in_arena:
                total = extent_of(self.shared) * size
                buffer = Buffer(first.name, first.dtype, (total,))
                self.scratch.append((buffer, Scratch(first.dtype, total, "rows")))
                body = _shifted(body, {self.places[v] for v in slot}, TASK * size)
            change |= {self.places[v]: buffer for v in slot}
        for buffer in self.places.values():
            if buffer not in change:
                change[buffer] = Buffer(buffer.name, buffer.dtype, (blocks.height,), "stack")
        body = loop_visit.substitute_buffers(body, change)
        for buffer in dict.fromkeys(change.values()):
            if buffer.scope == "stack":
                body = (Alloc(buffer, body),)
        return body

    # ---- contractions --------------------------------------------------------------------------
    def _problem(
        self, x: _Expressions, rows: int, vectors: int, terms: bool
    ) -> tuple[Problem, Expr, Expr]:
        """The contraction of a member, and its two operands at (row, TERM) and (TERM, column)."""
        item = x.group.reduction
        assert item is not None
        ((_, extent),) = item.reduce_axes
        k = loop_extent(extent)
        row, column = x.point[-2:]
        a, b = x.reduction_body(item, [(TERM, k)])
        if column in scalar_visit.free_vars(a):
            a, b = b, a  # the product commutes exactly; vectors run along the last axis
        if terms:
            a, b = (
                e if any(i.attr.scope == "stack" for i in scalar_visit.loads(e))
                else scalar_visit.substitute(e, {TERM: FIRST + TERM})
                for e in (a, b)
            )  # fmt: skip
        m, n = (loop_extent(e) for e in item.extents[-2:])
        lanes = max(2, self.target.lanes * 4 // item.value.dtype.size_bytes)
        vectors = min(vectors, -(-n // lanes), 8)
        self.flops += 2 * m * n * k * extent_of(self.shared)

        def a_at(position: tuple[Expr, ...], term: object, j: Expr) -> Expr:
            return scalar_visit.substitute(a, {row: position[0]})

        def b_at(term: object, j: Expr) -> Expr:
            return scalar_visit.substitute(b, {column: j})

        p = Problem(
            x, a_at, b_at, item, m, n, k, terms=[(TERM, k)], row_axes=[(row, m)], column=column,
            shared=self.shared, row_loops=[], column_loops=[], mapping={}, lanes=lanes, rows=rows,
            vectors=vectors, b_stride=stride_along(b, column), a_stride=stride_along(a, TERM),
            a_row_stride=stride_along(a, row),
        )  # fmt: skip
        return p, a, b

    def _product(self, x: _Expressions, blocks: _Blocks) -> Body:
        """Rows of a square (or of a result): a is read at the block's rows."""
        p, a, b = self._problem(x, blocks.rows, blocks.vectors, False)
        packed = packed_panels(p, b, self.whole, f"b_packed{len(self.packing)}")
        if packed is not None:
            self.packing.append(packed.kernel)
            self.scratch.append(packed.scratch)
        i = BLOCK * blocks.tiles + _TILE
        row, local = p.row_axes[0][0], _TILE * blocks.rows

        def tile(rows: int, width: int) -> Body:
            t = Tile(p, rows, width)
            now = packed.element(_PANEL, t.offset) if packed else (
                p.b((), _PANEL * p.width + t.offset))  # fmt: skip

            def a_at(u: Expr) -> Expr:
                return scalar_visit.substitute(a, {row: i * blocks.rows + u, LOCAL: local + u})

            sweep = t.sweep(p.terms, a_at, now, packed is None)
            done = t.over_rows(t.lanes(results(p, t, i, _PANEL * p.width)))
            return t.whole(t.start(s.const(0, p.dtype)) + sweep + done)

        tiles = tile_cases(p, i, _PANEL, tile)
        tiles = loop_visit.substitute_vars(tiles, {LOCAL: local + ROW})
        return nest([(_PANEL, p.panels), (_TILE, plain(TILES))], tiles)

    def _sum_over_rows(self, x: _Expressions, blocks: _Blocks) -> Body:
        """A contraction whose terms are the rows: its sums wait in memory for the next block."""
        item = x.group.reduction
        assert item is not None
        most = _most_rows(self.target)
        m = loop_extent(item.extents[-2])
        p, a, _ = self._problem(x, -(-m // -(-m // most)), 2, True)
        bare = len(x.results) == 1 and x.results[0] is item
        if bare:
            total = x.buffer(item.value)
        else:
            size = loop_extent(item.value.type.size)
            total = Buffer(f"partial{len(self.scratch)}", p.dtype, (size,))
            self.scratch.append((total, Scratch(p.dtype, size, "partial")))
        row, place = p.row_axes[0][0], (x.position(item),)

        def tile(rows: int, width: int) -> Body:
            t = Tile(p, rows, width)
            zero = t.start(s.const(0, p.dtype))
            column = _PANEL * p.width + t.offset
            resume, keep = (
                t.over_rows(t.lanes(at_tile(p, (store,), p.row_at(_TILE, ROW), column)))
                for store in (Store(t.acc, t.at, s.load(total, *place)),
                              Store(total, place, s.load(t.acc, *t.at)))
            )  # fmt: skip
            start = If(FIRST.equal(0), zero, (zero if width % p.lanes else ()) + resume)

            def a_at(u: Expr) -> Expr:
                return scalar_visit.substitute(a, {row: _TILE * p.rows + u})

            now = p.b((), _PANEL * p.width + t.offset)
            sweep = t.sweep([(TERM, plain(ROWS))], a_at, now, True)
            end = keep
            if not bare:
                done = t.over_rows(t.lanes(results(p, t, _TILE, _PANEL * p.width)))
                end = (If(BLOCK.equal(blocks.count - 1), done, keep),)
            return t.whole((start, *sweep, *end))

        return nest([(_TILE, p.row_tiles), (_PANEL, p.panels)],
                    tile_cases(p, _TILE, _PANEL, tile))  # fmt: skip

    # ---- all of it -----------------------------------------------------------------------------
    def lower(self) -> list[LoweredKernel]:
        slots = self._slots()
        row_bytes = sum(self.pitch * slot[0].dtype.size_bytes for slot in slots)
        fit = BLOCK_BYTES // row_bytes
        over_rows = any(_sums_rows(m) for m in self.group.members)
        in_arena = over_rows and fit < _most_rows(self.target)
        if in_arena:
            fit = max(_most_rows(self.target), self.target.l2_bytes // 2 // row_bytes)
        blocks = _blocks_of(self.m, max(1, fit), self.target)
        body: Body = ()
        for member in self.group.members:
            x = self.expressions[member.group]
            sweeps = self.sweeps.get(member.group)
            if sweeps is not None:
                body += rows_nest(sweeps, self.n, self.target)
                self.flops += sweeps.operations * self.m * extent_of(self.shared)
            elif _sums_rows(member):
                body += self._sum_over_rows(x, blocks)
            else:
                body += self._product(x, blocks)
        body = loop_visit.substitute_vars(body, blocks.bound(BLOCK))
        if over_rows:
            body = (For(BLOCK, blocks.count, SERIAL, body),)
        body = self._allocated(body, blocks, slots, in_arena)
        axes = self.shared if over_rows else [*self.shared, (BLOCK, blocks.count)]
        task, extent, change = single_axis(axes, str(TASK.attr))
        body = (For(task, extent, PARALLEL, loop_visit.substitute_vars(body, change)),)
        steps = [
            f"block({blocks.height} rows, {len(slots)} x {self.pitch} columns in "
            f"{'the arena' if in_arena else 'the stack'})",
            f"tile(i, j, {blocks.rows}, {blocks.vectors} vectors)", "cache_write(acc, register)",
            f"parallel({', '.join(str(v.attr) for v, _ in axes)})",
        ]  # fmt: skip
        kernel = self.whole.kernel(body, steps, self.flops, 1, self.scratch)
        return [*self.packing, kernel]


def lower_attention(
    grouping: Grouping, group: Group, target: Target, sizes: Mapping[str, int] | None = None
) -> list[LoweredKernel]:
    """Panels of transposed operands, then one kernel for everything between the contractions.

    sizes: seen, of the shared axes' extents that are arguments of the kernels.
    """
    return _Attention(grouping, group, target, sizes or {}).lower()
