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

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tinyflow.ir.graph.nodes import Value
from tinyflow.ir.loop import visit as loop_visit
from tinyflow.ir.loop.nodes import PARALLEL, SERIAL, Alloc, Body, Buffer, For, If, Stmt, Store
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ir.scalar.visit import plain
from tinyflow.passes.fusion import Group, Grouping, Item, stretched
from tinyflow.passes.fusion.attention import BLOCK_BYTES, are_few, reading_of
from tinyflow.passes.fusion.groups import Member
from tinyflow.schedule.attention_blocks import (
    BLOCK,
    TASK,
    TILES,
    Blocks,
    blocks_of,
    longest_for,
    most_rows,
)
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
from tinyflow.schedule.contraction.sized import (
    Sized,
    cases_of,
    existing_rows,
    results_of,
    tile_of,
)
from tinyflow.schedule.contraction.tile import ROW, TERM, at_tile
from tinyflow.schedule.grain import nest
from tinyflow.schedule.lowering import (
    Axes,
    GroupExpressions,
    LoweredKernel,
    Scratch,
    loop_extent,
    single_axis,
    value_at,
)
from tinyflow.schedule.targets import Target
from tinyflow.te.canonical import STRIPE, is_striped_dot

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
    """The kernels of one group; see the module's header.

    longest: the most columns, where their number is an argument.
    """

    def __init__(
        self, grouping: Grouping, group: Group, target: Target, sizes: Mapping[str, int],
        longest: int = 0,
    ) -> None:  # fmt: skip
        self.grouping, self.group, self.target = grouping, group, target
        self.whole = GroupExpressions(grouping, group, sizes)
        self.shared: Axes = self.whole.outer[:-1]
        self.m, self.n = (loop_extent(e) for e in group.domain[-2:])
        longest = self.longest = self.n if isinstance(self.n, int) else longest
        # An odd number of cache lines: rows at a power of two would share few sets of the cache.
        self.pitch = (-(-longest // STRIPE) | 1) * STRIPE
        self.flops: Any = 0
        self.scratch: list[tuple[Buffer, Scratch]] = []
        self.packing: list[LoweredKernel] = []
        self.places = self._places()
        self.expressions = {
            m: _Expressions(grouping, self.whole, m, self.places, self.pitch)
            for m, _ in group.members
        }
        self.sweeps: dict[Group, RowStatements] = {
            m: row_statements(self.expressions[m], self.n, self.longest)
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
        self, body: Body, blocks: Blocks, slots: list[list[Value]], in_arena: bool
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
    ) -> tuple[Sized, Expr, Expr]:
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
        vectors = min(vectors, -(-n // lanes) if isinstance(n, int) else vectors, 8)
        self.flops += 2 * m * n * k * extent_of(self.shared)
        x.estimated([(column, n)])

        def a_at(position: tuple[Expr, ...], term: object, j: Expr) -> Expr:
            return scalar_visit.substitute(a, {row: position[0]})

        def b_at(term: object, j: Expr) -> Expr:
            return scalar_visit.substitute(b, {column: j})

        p = Problem(
            x, a_at, b_at, item, x.seen(m), x.seen(n), x.seen(k),
            terms=[(TERM, k)], row_axes=[(row, m)], column=column,
            shared=self.shared, row_loops=[], column_loops=[], mapping={}, lanes=lanes, rows=rows,
            vectors=vectors, b_stride=stride_along(b, column), a_stride=stride_along(a, TERM),
            a_row_stride=stride_along(a, row),
        )  # fmt: skip
        return Sized(p, rows), a, b

    def _product(self, x: _Expressions, blocks: Blocks) -> Body:
        """Rows of a square (or of a result): a is read at the block's rows."""
        q, a, b = self._problem(x, blocks.rows, blocks.vectors, False)
        p = q.p
        packed = packed_panels(q, b, self.whole, f"b_packed{len(self.packing)}")
        if packed is not None:
            self.packing.append(packed.kernel)
            self.scratch.append(packed.scratch)
        i = BLOCK * blocks.tiles + _TILE
        row, local = p.row_axes[0][0], _TILE * blocks.rows

        def tile(rows: int, width: int, whole: bool) -> Body:
            t = tile_of(q, rows, width, _PANEL)
            now = packed.element(_PANEL, t.offset) if packed else (
                p.b((), _PANEL * p.width + t.offset))  # fmt: skip

            def a_at(u: Expr) -> Expr:
                at = q.position(i, u, whole)[0]
                return scalar_visit.substitute(a, {row: at, LOCAL: local + u})

            sweep = t.sweep(p.terms, a_at, now, packed is None)
            done = t.over_rows(t.lanes(results_of(q, t, i, _PANEL * p.width, whole)))
            return t.whole(t.start(s.const(0, p.dtype)) + sweep + done)

        tiles = cases_of(q, i, _PANEL, tile, blocks.lower)
        tiles = loop_visit.substitute_vars(tiles, {LOCAL: local + ROW})
        return nest([(_PANEL, q.panels), (_TILE, plain(TILES))], tiles)

    def _sum_over_rows(self, x: _Expressions, blocks: Blocks) -> Body:
        """A contraction whose terms are the rows: its sums wait in memory for the next block."""
        item = x.group.reduction
        assert item is not None
        most, m = most_rows(self.target), loop_extent(item.extents[-2])
        q, a, _ = self._problem(x, blocks_of(m, most, self.target).rows, 2, True)
        p = q.p
        bare = len(x.results) == 1 and x.results[0] is item
        if bare:
            total = x.buffer(item.value)
        else:
            size = loop_extent(item.value.type.size)
            total = Buffer(f"partial{len(self.scratch)}", p.dtype, (size,))
            self.scratch.append((total, Scratch(p.dtype, size, "partial")))
        row, place = p.row_axes[0][0], (x.position(item),)
        inside = all(load.attr.scope == "stack" for load in scalar_visit.loads(a))

        def tile(rows: int, width: int, whole: bool) -> Body:
            t = tile_of(q, rows, width, _PANEL)
            zero = t.start(s.const(0, p.dtype))
            column = _PANEL * p.width + t.offset

            def moved(store: Store) -> Body:
                body = at_tile(p, (store,), p.row_at(_TILE, ROW), column)
                return t.over_rows(t.lanes(existing_rows(q, _TILE, body, whole)))

            resume = moved(Store(t.acc, t.at, s.load(total, *place)))
            keep = moved(Store(total, place, s.load(t.acc, *t.at)))
            every = whole and width and width % p.lanes == 0
            start = If(FIRST.equal(0), zero, (() if every else zero) + resume)

            def a_at(u: Expr) -> Expr:
                # Memory on the stack goes on beyond the last row.
                return scalar_visit.substitute(a, {row: q.position(_TILE, u, whole or inside)[0]})

            now = p.b((), _PANEL * p.width + t.offset)
            sweep = t.sweep([(TERM, plain(ROWS))], a_at, now, True)
            end = keep
            if not bare:
                done = t.over_rows(t.lanes(results_of(q, t, _TILE, _PANEL * p.width, whole)))
                end = (If(BLOCK.equal(blocks.count - 1), done, keep),)
            return t.whole((start, *sweep, *end))

        tiles = cases_of(q, _TILE, _PANEL, tile, blocks_of(m, most, self.target).lower)
        return nest([(_TILE, q.row_tiles), (_PANEL, q.panels)], tiles)

    # ---- all of it -----------------------------------------------------------------------------
    def lower(self) -> list[LoweredKernel]:
        slots = self._slots()
        row_bytes = sum(self.pitch * slot[0].dtype.size_bytes for slot in slots)
        fit = BLOCK_BYTES // row_bytes
        over_rows = any(_sums_rows(m) for m in self.group.members)
        symbolic = not (isinstance(self.m, int) and isinstance(self.n, int))
        in_arena = fit < most_rows(self.target) and (over_rows or symbolic)
        if in_arena:
            fit = max(most_rows(self.target), self.target.l2_bytes // 2 // row_bytes)
        blocks = blocks_of(self.m, max(1, fit), self.target)
        body: Body = ()
        for member in self.group.members:
            x = self.expressions[member.group]
            sweeps = self.sweeps.get(member.group)
            if sweeps is not None:
                body += rows_nest(sweeps, self.target)
                self.flops += sweeps.operations * self.m * extent_of(self.shared)
            elif _sums_rows(member):
                body += self._sum_over_rows(x, blocks)
            else:
                body += self._product(x, blocks)
        body = loop_visit.substitute_vars(body, blocks.bound(BLOCK))
        if over_rows or in_arena:
            body = (For(BLOCK, blocks.count, SERIAL, body),)
        body = self._allocated(body, blocks, slots, in_arena)
        axes = self.shared if over_rows or in_arena else [*self.shared, (BLOCK, blocks.count)]
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
    grouping: Grouping, group: Group, target: Target
) -> list[LoweredKernel]:
    """Panels of transposed operands, then one kernel for everything between the contractions."""
    return _Attention(grouping, group, target, {}).lower()


class _Kind(NamedTuple):
    """longest: see ``_Attention``.   kept: whether squares wait in memory for the gradient."""

    longest: int
    kept: bool


def lower_symbolic_attention(
    grouping: Grouping, group: Group, target: Target, sizes: Mapping[str, int]
) -> tuple[Callable[[Mapping[str, int]], _Kind], Callable[[_Kind], list[LoweredKernel]]]:
    """How to choose and how to make the kernels where extents are arguments.

    Rows and tiles are as long as the longest of a kernel needs, so a few serve all lengths.
    Errors of choosing: TypeError where no kernel here keeps the order of the sums.
    """
    rows, columns = group.domain[-2:]
    sums_rows = any(_sums_rows(m) for m in group.members)
    products = [
        (m.reduction.shape[-1], m.reduction.reduce_axes[0][1])
        for m, _ in group.members
        if m.kind == "dot" and m.reduction
    ]

    def choose(sizes: Mapping[str, int]) -> _Kind:
        for last, terms in products:
            if is_striped_dot(value_at(last, sizes), value_at(terms, sizes)):
                raise TypeError("a narrow product in an attention")
        if sums_rows and not value_at(rows, sizes):
            raise TypeError("sums over no rows in an attention")
        kept = group.kept is not None and are_few(group.squares, sizes)
        return _Kind(0 if isinstance(columns, int) else longest_for(value_at(columns, sizes)), kept)

    def make(kind: _Kind) -> list[LoweredKernel]:
        form = group.kept if kind.kept and group.kept is not None else group
        return _Attention(grouping, form, target, sizes, kind.longest).lower()

    return choose, make
