"""The values of a function as fusion sees them: an element's expression and what it reads.

Main types: ``Item``, ``ItemTable``. May import core, ir, te.

Extents of 1 are ignored when shapes are compared ("squeezed" shapes). An item is *free* when it
costs less to recompute than to store and load (literals, fills, stretched values, renamed
indices, small integers that products read as int32): readers get its expression, it is in no group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tinyflow import te
from tinyflow.core.dtype import SMALL_INTEGERS, int32, int64
from tinyflow.ir.graph.nodes import Function, Input, Node, Value
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr

if TYPE_CHECKING:
    from tinyflow.passes.fusion.groups import Group

Extents = tuple[Any, ...]

#: Scalar operations that take more than about 5 cycles.
EXPENSIVE = frozenset({"call", "div", "sqrt", "floordiv", "mod", "truncdiv", "rem"})
#: Expressions of at most so many operations may be recomputed by every reader.
FREE_OPERATIONS = 8
#: An expression over more values (a long concatenation) is not worth copying.
SMOOTH_READS = 4


def is_one(extent: Any) -> bool:
    return isinstance(extent, int) and extent == 1


def squeeze(shape: Iterable[Any]) -> Extents:
    return tuple([d for d in shape if not is_one(d)])


def stretched(indices: Sequence[Expr], shape: Sequence[Any]) -> tuple[Expr, ...]:
    """The indices of the dimensions that have more than one element."""
    return tuple([i for i, n in zip(indices, shape, strict=True) if not is_one(n)])


def has_unit_stride(
    indices: Sequence[Expr], shape: Sequence[Any], axes: Sequence[Expr]
) -> bool:
    """Whether a step along the last of ``axes`` is a step to the next element in memory, and all
    indices are evenly spaced.
    """
    forms = [scalar_visit.linear(i, axes) for i in stretched(indices, shape)]
    if not forms or not axes or any(f is None for f in forms):
        return False
    steps = [f.coefficients.get(axes[-1], 0) for f in forms]  # type: ignore[union-attr]
    return steps[-1] == 1 and not any(steps[:-1])


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
    if hasattr(node.op, "is_control"):
        return "control"
    if hasattr(node.op, "is_barrier"):
        return "view"
    return "loops" if hasattr(node.op, "lower_loops") else None


def in_memory(node: Node) -> bool:
    """Constants of more than one element, and settings, live in the constant pool, like inputs."""
    name = node.op.type_name
    return (name == "Constant" and node.types[0].size != 1) or name == "Setting"


def _is_product(node: Node, placeholder: Callable[[Value], te.Tensor]) -> bool:
    tensor = node.op.compute(*[placeholder(v) for v in node.inputs])
    reduction = tensor.reduction if isinstance(tensor, te.Tensor) else None
    return reduction is not None and reduction.combiner == "dot"


@dataclass(eq=False)
class Item:
    """One value, how to compute an element of it, and what that reads.

    reads: (value, index expressions) for every read of the tensor expression.
    operations: nodes of the expression; ``work``: those that are arithmetic on elements;
    ``expensive`` if it has a division, root or function call.
    number: its place in the order of the function.   group: the kernel it became part of.
    is_checked: whether it can report an error (an index out of range, a division by zero).
    """

    value: Value
    tensor: te.Tensor | None
    reads: tuple[tuple[Value, tuple[Expr, ...]], ...] = ()
    expensive: bool = False
    operations: int = 0
    work: int = 0
    number: int = 0
    free: bool = False
    is_checked: bool = False
    group: Group | None = None

    def __repr__(self) -> str:
        return f"<item {self.number} {self.value!r}>"

    @property
    def shape(self) -> Extents:
        return self.tensor.shape if self.tensor is not None else self.value.type.shape or ()

    @cached_property
    def extents(self) -> Extents:
        """The squeezed shape."""
        return squeeze(self.shape)

    @cached_property
    def own_axes(self) -> tuple[Expr, ...]:
        """Axes of extent other than 1."""
        assert self.tensor is not None
        return stretched(self.tensor.axes, self.tensor.shape)

    @cached_property
    def reduce_axes(self) -> tuple[tuple[Expr, Any], ...]:
        assert self.tensor is not None
        reduction = self.tensor.reduction
        if reduction is None:
            return ()
        return tuple([(v, n) for v, n in reduction.axes if not is_one(n)])

    @property
    def combiner(self) -> str | None:
        """ "sum", "max", "dot", ... for a reduction."""
        reduction = None if self.tensor is None else self.tensor.reduction
        return None if reduction is None else reduction.combiner

    @property
    def all_axes(self) -> tuple[Expr, ...]:
        """Axes of the result, then the reduced ones."""
        return self.own_axes + tuple([v for v, _ in self.reduce_axes])

    @property
    def is_renaming(self) -> bool:
        """Whether an element is one element of another value: a transpose, slice or copy."""
        return self.tensor is not None and self.tensor.body is not None and (
            self.tensor.body.op == "read"
        )  # fmt: skip

    @property
    def is_widening(self) -> bool:
        """Whether an element is a small integer of another value as an int32."""
        body = None if self.tensor is None else self.tensor.body
        if body is None or body.op != "cast" or body.dtype is not int32:
            return False
        source = body.args[0]
        return source.op == "read" and source.dtype in SMALL_INTEGERS

    @cached_property
    def is_smooth(self) -> bool:
        """Whether neighbouring elements come from neighbouring elements of a few values, or from
        fewer dimensions: what a loop over neighbours computes at full speed.
        """
        axes = self.own_axes
        if not axes or self.is_checked or len({v for v, _ in self.reads}) > SMOOTH_READS:
            return False  # an error must name the node, which is where it was
        for value, indices in self.reads:
            shape = value.type.shape or ()
            own = stretched(indices, shape)
            if any(scalar_visit.linear(i, axes) is None for i in own):
                return False
            if len(own) == len(axes) and not has_unit_stride(indices, shape, axes):
                return False
        return True


class ItemTable:
    """Items of a function's nodes, and who reads what.

    placeholders: tensor expression's input -> value.   users: value -> items that read it.
    """

    def __init__(self, fn: Function, fuse: bool) -> None:
        self.fn, self.fuse = fn, fuse
        self.outputs = frozenset(fn.outputs)
        self.placeholders: dict[te.Tensor, Value] = {}
        self.items: dict[Value, Item] = {}
        self.users: dict[Value, list[Item]] = {}
        self._placeholder_of: dict[Value, te.Tensor] = {}
        self._pinned: set[Value] = set(self.outputs)

    def make_items(self) -> list[list[Item]]:
        """The items of every node, in order; one list per node."""
        nodes = [n for n in self.fn.nodes if not isinstance(n.op, Input) and not in_memory(n)]
        for node in nodes:
            if opaque_kind(node) or is_reshaping_view(node):
                self._pinned.update(node.inputs)
        made = [self.node_items(node) for node in nodes]
        for number, item in enumerate(i for items in made for i in items):
            item.number = number
        return made

    def placeholder(self, value: Value) -> te.Tensor:
        tensor = self._placeholder_of.get(value)
        if tensor is None:
            shape = value.type.shape
            assert shape is not None
            tensor = te.placeholder(shape, value.dtype, f"v{len(self.placeholders)}")  # type: ignore[arg-type]
            self.placeholders[tensor] = value
            self._placeholder_of[value] = tensor
        return tensor

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
        reads, expensive, operations, work, checked = [], False, 0, 0, False
        for expr in scalar_visit.postorder(inlined):
            if expr.op == "read":
                reads.append((self.placeholders[expr.attr], expr.args))
            elif expr.op in EXPENSIVE and expr.dtype.kind == "float":
                expensive = True
            operations += 1
            checked = checked or expr.op == "checked"
            work += bool(expr.args) and expr.op != "read" and expr.dtype is not int64
        item = Item(value, tensor, tuple(reads), expensive, operations, work)
        item.is_checked = checked
        if self.fuse and value not in self._pinned and tensor.reduction is None:
            rank = len(item.extents)
            item.free = (is_view(value.node) and len(reads) == 1) or (
                not expensive
                and operations <= FREE_OPERATIONS
                and all(len(squeeze(v.type.shape or ())) < rank for v, _ in reads)
            )
            item.free = item.free or (item.is_widening and self.only_products_read(value))
        return item

    def only_products_read(self, value: Value) -> bool:
        """Whether every reader is a contraction, whose loads widen small integers on their way."""
        readers = [n for n in self.fn.nodes if value in n.inputs]
        return bool(readers) and all(
            opaque_kind(n) is None and not is_view(n) and _is_product(n, self.placeholder)
            for n in readers
        )

    def without_free_reads(self, expr: Expr) -> Expr | None:
        if expr.op != "read":
            return None
        item = self.items.get(self.placeholders[expr.attr])
        if item is None or not item.free or item.tensor is None or item.tensor.body is None:
            return None
        return scalar_visit.substitute(
            item.tensor.body, dict(zip(item.tensor.axes, expr.args, strict=True))
        )
