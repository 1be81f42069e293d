"""Partition of a function into groups of nodes that become one kernel each.

Main types: ``Item`` (one value and its tensor expression), ``Group``, ``fuse_groups``.
May import core, ir, te.

Fusion class is derived from each op's tensor expression, never declared. A group has a *domain*,
the extents its loops run over, and every value inside is either *full* (one element per point of
the domain), *per row* (one per point of the leading part ``outer`` of a row group's domain), or
*inlined* (recomputed where it is read). Kinds of groups::

    map       element-wise over the domain
    row       reductions over the trailing part ``inner`` of the domain, and what surrounds them:
              softmax, layer norm, their gradients - one pass over memory per row
    reduce    one other reduction (leading axes, whole tensors), with element-wise work before and
              after it
    dot       one contraction, with element-wise work on its result
    loops     an op that writes its own loop nest (gather gradients, scatter)
    view      no kernel: the input's bytes under another shape
    host      a call back into Python

Extents of 1 are ignored when domains are compared ("squeezed" shapes).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinyflow import te
from tinyflow.ir.graph.nodes import Function, Input, Node, Value
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr

#: A row longer than this is not one task: it is reduced in chunks by several threads.
MAX_ROW = 65536
#: A group is cut at this many items: expression size, and with it compile time, stays bounded.
MAX_ITEMS = 64

Extents = tuple[Any, ...]


def squeeze(shape: Iterable[Any]) -> Extents:
    return tuple(d for d in shape if not (isinstance(d, int) and d == 1))


def is_one(extent: Any) -> bool:
    return isinstance(extent, int) and extent == 1


def stretched(indices: Sequence[Expr], shape: Sequence[Any]) -> tuple[Expr, ...]:
    """The indices of the dimensions that have more than one element."""
    return tuple([i for i, n in zip(indices, shape, strict=True) if not is_one(n)])


def is_view(node: Node) -> bool:
    """Whether the result is the first input's bytes under another shape."""
    return node.op.is_view


def is_reshaping_view(node: Node) -> bool:
    """A view that does more than add or drop extents of 1."""
    return is_view(node) and squeeze(node.types[0].shape or ()) != squeeze(
        node.inputs[0].type.shape or ()
    )


def opaque_kind(node: Node) -> str | None:
    """ "host" or "loops" for nodes without a tensor expression."""
    if hasattr(node.op, "call_host"):
        return "host"
    return "loops" if hasattr(node.op, "lower_loops") else None


def in_memory(node: Node) -> bool:
    """Constants of more than one element live in the constant pool, like inputs."""
    return node.op.type_name == "Constant" and node.types[0].size != 1


@dataclass(eq=False)
class Item:
    """One value, how to compute an element of it, and what that reads.

    reads: (value, index expressions) for every read of the tensor expression.
    cost: number of scalar operations; ``expensive`` if it has a division, root or function call.
    """

    value: Value
    tensor: te.Tensor | None
    reads: tuple[tuple[Value, tuple[Expr, ...]], ...] = ()
    expensive: bool = False
    free: bool = False
    group: Group | None = None

    @property
    def shape(self) -> Extents:
        return self.tensor.shape if self.tensor is not None else self.value.type.shape or ()

    @property
    def own_axes(self) -> tuple[Expr, ...]:
        """Axes of extent other than 1."""
        assert self.tensor is not None
        return stretched(self.tensor.axes, self.tensor.shape)

    @property
    def reduce_axes(self) -> tuple[tuple[Expr, Any], ...]:
        assert self.tensor is not None
        reduction = self.tensor.reduction
        if reduction is None:
            return ()
        return tuple((v, n) for v, n in reduction.axes if not is_one(n))


@dataclass(eq=False)
class Group:
    """Items of one kernel, producers first. See the module's header for the kinds."""

    kind: str
    index: int
    outer: Extents = ()
    inner: Extents = ()
    items: list[Item] = field(default_factory=list)
    inlined: set[Value] = field(default_factory=set)
    sources: set[Group] = field(default_factory=set)  # groups this one reads from

    @property
    def domain(self) -> Extents:
        return self.outer + self.inner

    def position(self, item: Item) -> str:
        """ "full", "row" or "" (fits nowhere in the domain)."""
        extents = squeeze(item.shape)
        if extents == self.domain:
            return "full"
        return "row" if self.kind == "row" and extents == self.outer else ""

    @property
    def label(self) -> str:
        return "_".join(
            dict.fromkeys(i.value.node.op.type_name.lower() for i in self.items[-4:])
        )


@dataclass(eq=False)
class Grouping:
    """The result: groups in execution order and every value's item.

    refused: (producer, consumer, reason) for edges that stayed between kernels.
    """

    groups: list[Group]
    items: dict[Value, Item]
    users: dict[Value, list[Item]]
    outputs: frozenset[Value]
    refused: list[tuple[Value, Value, str]]
    placeholders: dict[te.Tensor, Value]

    def results(self, group: Group) -> list[Item]:
        """Items of the group whose values must exist in memory."""
        return [
            item
            for item in group.items
            if item.value in self.outputs
            or any(
                user.group is not group or group.kind in ("view", "host", "loops")
                for user in self.users.get(item.value, ())
            )
        ]


    def signature(self, group: Group) -> tuple[Any, list[Value], list[Value]]:
        """A key that equal groups share, and the values it numbers: what is read, what is made.

        Two groups with one key differ only in names and lines, so one schedule serves both.
        """
        external: dict[Value, int] = {}
        inside = {item.value: n for n, item in enumerate(group.items)}

        def reference(value: Value) -> Any:
            own = inside.get(value)
            if own is not None:
                return own
            item = self.items.get(value)
            if item is not None and item.free:
                return self._node_key(value, reference)
            return ("in", external.setdefault(value, len(external)), value.type)

        results = [i.value for i in self.results(group)]
        key = (
            group.kind,
            group.outer,
            group.inner,
            tuple([self._node_key(item.value, reference) for item in group.items]),
            tuple([inside[v] for v in results]),
            tuple([n for n, item in enumerate(group.items) if item.value in group.inlined]),
        )
        return key, list(external), results

    def _node_key(self, value: Value, reference: Any) -> Any:
        node = value.node
        return node.op, value.index, value.type, tuple([reference(v) for v in node.inputs])


_EXPENSIVE = frozenset({"call", "div", "sqrt", "floordiv", "mod", "truncdiv", "rem"})


class _Fuser:
    def __init__(self, fn: Function, fuse: bool) -> None:
        self.fn = fn
        self.fuse = fuse
        self.placeholders: dict[te.Tensor, Value] = {}
        self.placeholder_of: dict[Value, te.Tensor] = {}
        self.items: dict[Value, Item] = {}
        self.users: dict[Value, list[Item]] = {}
        self.outputs = frozenset(fn.outputs)
        self.groups: list[Group] = []
        self.refused: list[tuple[Value, Value, str]] = []

    # ---- items ---------------------------------------------------------------------------------
    def placeholder(self, value: Value) -> te.Tensor:
        tensor = self.placeholder_of.get(value)
        if tensor is None:
            shape = value.type.shape
            assert shape is not None
            tensor = te.placeholder(shape, value.dtype, f"v{len(self.placeholders)}")  # type: ignore[arg-type]
            self.placeholders[tensor] = value
            self.placeholder_of[value] = tensor
        return tensor

    def make_items(self) -> list[list[Item]]:
        """The items of every node, in order; one list per node."""
        nodes = [n for n in self.fn.nodes if not isinstance(n.op, Input) and not in_memory(n)]
        self.pinned = set(self.outputs)
        for node in nodes:
            if opaque_kind(node) or is_reshaping_view(node):
                self.pinned.update(node.inputs)
        return [self.node_items(node) for node in nodes]

    def node_items(self, node: Node) -> list[Item]:
        if opaque_kind(node):
            reads = tuple((v, ()) for v in node.inputs)
            items = [Item(v, None, reads) for v in node.outputs or (Value(node, 0),)]
        elif is_view(node) and not is_reshaping_view(node):
            items = [self.make_item(node.outputs[0], self.squeezed_view(node))]
        else:
            tensors = node.op.compute(*[self.placeholder(v) for v in node.inputs])
            if not isinstance(tensors, tuple):
                tensors = (tensors,)
            items = [self.make_item(v, t) for v, t in zip(node.outputs, tensors, strict=True)]
        for item in items:
            self.items[item.value] = item
            if not item.free:
                for source in dict.fromkeys(v for v, _ in item.reads):
                    self.users.setdefault(source, []).append(item)
        return items

    def squeezed_view(self, node: Node) -> te.Tensor:
        """A reshape that only adds or drops extents of 1, as plain index renaming."""
        source = self.placeholder(node.inputs[0])

        def element(*axes: Expr) -> Expr:
            own = iter(stretched(axes, node.types[0].shape or ()))
            return source[tuple(0 if is_one(n) else next(own) for n in source.shape)]

        return te.compute(node.types[0].shape or (), element, "view")  # type: ignore[arg-type]

    def make_item(self, value: Value, tensor: te.Tensor) -> Item:
        body = tensor.body
        assert body is not None
        inlined = scalar_visit.transform(body, self.without_free_reads)
        if inlined is not body:
            tensor = te.Tensor(tensor.name, tensor.shape, tensor.dtype, tensor.axes, inlined)
        reads, expensive, operations = [], False, 0
        for expr in scalar_visit.postorder(inlined):
            if expr.op == "read":
                reads.append((self.placeholders[expr.attr], expr.args))
            elif expr.op in _EXPENSIVE and expr.dtype.kind == "float":
                expensive = True
            operations += 1
        item = Item(value, tensor, tuple(reads), expensive)
        if self.fuse and value not in self.pinned and tensor.reduction is None:
            # Literals, fills, stretched values and renamed indices cost less to recompute than
            # to store and load.
            rank = len(squeeze(tensor.shape))
            item.free = (is_view(value.node) and len(reads) == 1) or (
                not expensive
                and operations <= 8
                and all(len(squeeze(v.type.shape or ())) < rank for v, _ in reads)
            )
        return item

    def without_free_reads(self, expr: Expr) -> Expr | None:
        if expr.op != "read":
            return None
        item = self.items.get(self.placeholders[expr.attr])
        if item is None or not item.free or item.tensor is None or item.tensor.body is None:
            return None
        return scalar_visit.substitute(
            item.tensor.body, dict(zip(item.tensor.axes, expr.args, strict=True))
        )

    # ---- groups --------------------------------------------------------------------------------
    def new_group(self, kind: str, outer: Extents = (), inner: Extents = ()) -> Group:
        group = Group(kind, len(self.groups), outer, inner)
        self.groups.append(group)
        return group

    def add(self, group: Group, item: Item) -> None:
        item.group = group
        group.items.append(item)
        self.link(group, item)

    def link(self, group: Group, item: Item) -> None:
        for value, _ in item.reads:
            producer = self.items.get(value)
            if producer is not None and producer.group is not None and producer.group is not group:
                group.sources.add(producer.group)

    def producers(self, item: Item) -> list[Group]:
        """Groups that the item reads from, latest first, without repetition."""
        found: dict[Group, None] = {}
        for value, _ in item.reads:
            producer = self.items.get(value)
            if producer is not None and producer.group is not None:
                found[producer.group] = None
        return sorted(found, key=lambda g: -g.index)

    def depends(self, group: Group, other: Group) -> bool:
        """Whether ``group`` needs ``other`` through a third group."""
        stack = [s for s in group.sources if s is not other]
        seen = set(stack)
        while stack:
            current = stack.pop()
            if current is other:
                return True
            for source in current.sources:
                if source not in seen:
                    seen.add(source)
                    stack.append(source)
        return False

    def can_join(self, item: Item, group: Group, others: list[Group]) -> str | None:
        """Why the item cannot become part of the group; None if it can."""
        if group.kind not in ("map", "row", "reduce", "dot"):
            return f"its producer is no kernel of ours: {group.kind}"
        if len(group.items) >= MAX_ITEMS:
            return "the group is full"
        for other in others:
            if other is not group and (other.sources and self.reaches(other, group)):
                return "it would wait for a kernel that waits for this one"
        return self.fits(item, group)

    def reaches(self, group: Group, target: Group) -> bool:
        return target in group.sources or self.depends(group, target)

    def fits(self, item: Item, group: Group) -> str | None:
        tensor = item.tensor
        assert tensor is not None
        reduction = tensor.reduction
        if reduction is None:
            where = group.position(item)
            if not where:
                return "its shape is not the group's"
            return self.reads_fit(item, group, item.own_axes, where)
        if reduction.combiner == "dot":
            return "a contraction starts a kernel"
        outer, inner = squeeze(tensor.shape), tuple(n for _, n in item.reduce_axes)
        if _product(inner) > MAX_ROW and _product(outer) < 4:
            return "its rows are so long that threads must share them"
        if group.kind == "map" and group.domain == outer + inner and inner:
            axes = item.own_axes + tuple(v for v, _ in item.reduce_axes)
            return self.reads_fit(item, group, axes, "full")
        if group.kind == "row" and (group.outer, group.inner) == (outer, inner):
            axes = item.own_axes + tuple(v for v, _ in item.reduce_axes)
            return self.reads_fit(item, group, axes, "full")
        return "it reduces other axes than the group's"

    def reads_fit(
        self, item: Item, group: Group, axes: tuple[Expr, ...], where: str
    ) -> str | None:
        """Values of the group must be read at the very point of the domain being computed."""
        rows = len(group.outer)
        for value, indices in item.reads:
            producer = self.items.get(value)
            if producer is None or producer.group is not group:
                continue
            if value in group.inlined:
                return "it reads a value that exists only inside another expression"
            own = stretched(indices, producer.shape)
            position = group.position(producer)
            if position == "full" and where == "full" and own == axes:
                continue
            if position == "row" and own == axes[:rows]:
                continue
            return "it reads elements of the group at other positions"
        return None

    def absorbable(self, group: Group, item: Item) -> bool:
        """Whether the whole group can be recomputed inside the item's expression."""
        if group.kind != "map" or len(group.items) >= MAX_ITEMS:
            return False
        root = group.items[-1]
        for member in group.items:
            if member.value in self.outputs:
                return False
            outside = [u for u in self.users.get(member.value, ()) if u.group is not group]
            if member is root:
                if outside != [item]:
                    return False
            elif outside:
                return False
        size, own = _size(item), _size(root)
        if item.tensor is not None and item.tensor.reduction is not None:
            size = size * _product(n for _, n in item.reduce_axes)
            if item.tensor.reduction.combiner == "dot":
                return False
        expensive = any(m.expensive for m in group.items)
        reads = sum(1 for v, _ in item.reads if v is root.value)
        return (size <= own and reads == 1) or (not expensive and len(group.items) <= 4)

    def start(self, item: Item) -> Group:
        """A new group for the item alone."""
        tensor = item.tensor
        assert tensor is not None
        reduction = tensor.reduction
        if reduction is None:
            return self.new_group("map", squeeze(tensor.shape))
        inner = tuple(n for _, n in item.reduce_axes)
        if reduction.combiner == "dot":
            return self.new_group("dot", squeeze(tensor.shape))
        outer = squeeze(tensor.shape)
        rows = (
            inner
            and self.rows_are_contiguous(item)
            and (_product(inner) <= MAX_ROW or _product(outer) >= 4)
        )
        return self.new_group("row" if rows else "reduce", outer, inner if rows else ())

    def rows_are_contiguous(self, item: Item) -> bool:
        """Whether the reduced axes are the trailing axes of what is read."""
        wanted = item.own_axes + tuple(v for v, _ in item.reduce_axes)
        for value, indices in item.reads:
            own = stretched(indices, value.type.shape or ())
            if own == wanted:
                return True
        return False

    def place_node(self, items: list[Item]) -> None:
        node = items[0].value.node
        kind = opaque_kind(node)
        if kind is None:
            for item in items:
                if not item.free:
                    self.place(item)
            return
        group = self.new_group(kind)
        for item in items:
            self.add(group, item)
        for control in node.control_inputs:
            for value in control.outputs:
                producer = self.items.get(value)
                if producer is not None and producer.group is not None:
                    group.sources.add(producer.group)

    def place(self, item: Item) -> None:
        if is_view(item.value.node) and self.shows_memory(item):
            self.add(self.new_group("view"), item)
            return
        if self.fuse:
            others = self.producers(item)
            for group in others:
                reason = self.can_join(item, group, others)
                if reason is None:
                    self.join(item, group, others)
                    return
                self.refused.append((group.items[-1].value, item.value, reason))
        group = self.start(item)
        if self.fuse:
            for producer in self.producers(item):
                if self.absorbable(producer, item) and not any(
                    self.reaches(o, producer) for o in self.producers(item) if o is not producer
                ):
                    self.absorb(producer, group)
        self.add(group, item)

    def shows_memory(self, item: Item) -> bool:
        """Whether a view's source exists in memory (it may be an expression inlined here)."""
        if is_reshaping_view(item.value.node):
            return True
        source = item.reads[0][0] if len(item.reads) == 1 else None
        assert item.tensor is not None and item.tensor.body is not None
        return (
            source is not None
            and item.tensor.body.op == "read"
            and squeeze(source.type.shape or ()) == squeeze(item.shape)
        )

    def join(self, item: Item, group: Group, others: list[Group]) -> None:
        tensor = item.tensor
        assert tensor is not None
        if tensor.reduction is not None and group.kind == "map":
            group.kind = "row"
            group.outer = squeeze(tensor.shape)
            group.inner = tuple(n for _, n in item.reduce_axes)
        self.add(group, item)
        for other in others:
            if other is not group and self.mergeable(other, group, item):
                self.merge(other, group)

    def mergeable(self, other: Group, group: Group, item: Item) -> bool:
        if other.kind not in ("map", "row") or group.kind not in ("map", "row", "dot", "reduce"):
            return False
        if group.kind in ("dot", "reduce") and other.kind != "map":
            return False
        if len(other.items) + len(group.items) > MAX_ITEMS or other.inlined & group.inlined:
            return False
        if other.kind == "row" and (other.outer, other.inner) != (group.outer, group.inner):
            return False
        if any(not group.position(i) for i in other.items if i.value not in other.inlined):
            return False
        if self.depends(group, other) or self.reaches(other, group):
            return False
        # Everything in `group` that reads `other` must read it at the point being computed.
        for reader in group.items:
            if reader.tensor is None or reader.value in group.inlined:
                continue
            for value, indices in reader.reads:
                producer = self.items.get(value)
                if producer is None or producer.group is not other:
                    continue
                own = stretched(indices, producer.shape)
                axes = reader.own_axes + tuple(v for v, _ in reader.reduce_axes)
                full = group.position(producer) == "full"
                if value in other.inlined or own != (axes if full else axes[: len(group.outer)]):
                    return False
                if group.kind in ("dot", "reduce") and reader.tensor.reduction is not None:
                    return False
        return True

    def merge(self, other: Group, group: Group) -> None:
        """All items of ``other`` become part of ``group``."""
        for member in other.items:
            member.group = group
        group.items = sorted(
            other.items + group.items, key=lambda i: self.position_of[i.value]
        )
        group.inlined |= other.inlined
        group.sources |= other.sources
        group.sources.discard(group)
        group.sources.discard(other)
        other.items = []
        for g in self.groups:
            if other in g.sources:
                g.sources.discard(other)
                if g is not group:
                    g.sources.add(group)

    def absorb(self, producer: Group, group: Group) -> None:
        """Recompute ``producer`` inside ``group``'s expressions."""
        self.merge(producer, group)
        group.inlined |= {m.value for m in group.items}

    def run(self) -> Grouping:
        nodes = self.make_items()
        self.position_of = {item.value: n for n, item in enumerate(i for g in nodes for i in g)}
        for items in nodes:
            self.place_node(items)
        live = [g for g in self.groups if g.items]
        return Grouping(
            _execution_order(live),
            self.items,
            self.users,
            self.outputs,
            self.refused,
            self.placeholders,
        )


def _product(extents: Iterable[Any]) -> int:
    total = 1
    for n in extents:
        total *= n
    return total


def _size(item: Item) -> int:
    return _product(item.shape)


def _execution_order(groups: list[Group]) -> list[Group]:
    """Topological order of the groups, earliest-created first."""
    order: list[Group] = []
    done: set[Group] = set()
    for root in groups:
        stack = [(root, False)]
        while stack:
            group, expanded = stack.pop()
            if expanded:
                if group not in done:
                    done.add(group)
                    order.append(group)
                continue
            if group in done:
                continue
            stack.append((group, True))
            stack += [
                (s, False) for s in sorted(group.sources, key=lambda g: -g.index) if s not in done
            ]
    return order


def fuse_groups(fn: Function, fuse: bool = True) -> Grouping:
    """Groups of ``fn`` (all types static, composites decomposed) in execution order.

    fuse=False gives every node its own group: the op-by-op mode, bit for bit the same results.
    """
    return _Fuser(fn, fuse).run()
