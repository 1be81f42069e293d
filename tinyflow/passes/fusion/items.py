"""The values of a function as fusion sees them: an element's expression and what it reads.

Main types: ``Item``, ``Form`` (what equal items share), ``ItemTable``. May import core, ir, te.

Extents of 1 are ignored when shapes are compared ("squeezed" shapes). An item is *free* when it
costs less to recompute than to store and load (literals, fills, stretched values, renamed
indices, small integers that products read as int32): readers get its expression, it is in no group.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from tinyflow import te
from tinyflow.core.dtype import SMALL_INTEGERS, int32, int64
from tinyflow.ir.graph.nodes import Function, Input, Node, Op, TensorType, Value
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
    """The indices of the dimensions that have more than one element, and those to be checked."""
    return tuple([
        i for i, n in zip(indices, shape, strict=True)
        if not is_one(n) or scalar_visit.is_checked(i)
    ])  # fmt: skip


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
    return _opaque_kind(type(node.op))  # type: ignore[arg-type]  # mypy: __hash__ of instances


@cache
def _opaque_kind(op_class: type[Op]) -> str | None:
    if hasattr(op_class, "call_host"):
        return "host"
    if hasattr(op_class, "is_control"):
        return "control"
    if hasattr(op_class, "is_barrier"):
        return "view"
    return "loops" if hasattr(op_class, "lower_loops") else None


def in_memory(node: Node) -> bool:
    """Constants of more than one element, and settings, live in the constant pool, like inputs."""
    name = node.op.type_name
    return (name == "Constant" and node.types[0].size != 1) or name == "Setting"


def _is_product(node: Node, placeholder: Callable[[Value], te.Tensor]) -> bool:
    tensor = node.op.compute(*[placeholder(v) for v in node.inputs])
    reduction = tensor.reduction if isinstance(tensor, te.Tensor) else None
    return reduction is not None and reduction.combiner == "dot"


class Form:
    """One element's expression and all that follows from it alone. Equal ops on inputs of equal
    types share one: the layers of a network repeat, and are looked at once.

    tensor: the expression as the first such value has it; None for ops without one.
    reads: (number of the value read, index expressions) for every read, by ``types``: the values'
    types.   operations: nodes of the expression; ``work``: those that are arithmetic on elements;
    ``expensive`` if it has a division, root or function call.
    is_checked: whether it can report an error (an index out of range, a division by zero).
    is_cheap: whether an element costs less to compute than to load.
    is_widening: whether an element is a small integer of another value as an int32.
    """

    def __init__(
        self,
        tensor: te.Tensor | None,
        shape: Extents,
        reads: Sequence[tuple[int, tuple[Expr, ...]]],
        types: Sequence[TensorType],
    ) -> None:
        self.tensor, self.shape = tensor, shape
        self.reads, self.types = tuple(reads), tuple(types)
        self.extents = squeeze(shape)  # the squeezed shape
        self.expensive, self.operations, self.work, self.is_checked = False, 0, 0, False
        self.own_axes: tuple[Expr, ...] = ()  # axes of extent other than 1
        self.reduce_axes: tuple[tuple[Expr, Any], ...] = ()
        self.all_axes: tuple[Expr, ...] = ()  # axes of the result, then the reduced ones
        self.combiner: str | None = None  # "sum", "max", "dot", ... for a reduction
        self.is_renaming = self.is_cheap = self.is_widening = False
        if tensor is not None:
            assert tensor.body is not None
            self._look_at(tensor, tensor.body)

    def _look_at(self, tensor: te.Tensor, body: Expr) -> None:
        for expr in scalar_visit.postorder(body):
            if expr.op in EXPENSIVE and expr.dtype.kind == "float":
                self.expensive = True
            self.operations += 1
            self.is_checked = self.is_checked or expr.op == "checked"
            self.work += bool(expr.args) and expr.op != "read" and expr.dtype is not int64
        self.own_axes = self.all_axes = stretched(tensor.axes, tensor.shape)
        self.is_renaming = body.op == "read"
        self.is_widening = (
            body.op == "cast"
            and body.dtype is int32
            and body.args[0].op == "read"
            and body.args[0].dtype in SMALL_INTEGERS
        )
        reduction = tensor.reduction
        if reduction is not None:
            self.combiner = reduction.combiner
            self.reduce_axes = tuple([(v, n) for v, n in reduction.axes if not is_one(n)])
            self.all_axes = self.own_axes + tuple([v for v, _ in self.reduce_axes])
            return
        self.is_cheap = (
            not self.expensive
            and self.operations <= FREE_OPERATIONS
            and all(
                len(squeeze(self.types[n].shape or ())) < len(self.extents) for n, _ in self.reads
            )
        )

    @cached_property
    def is_smooth(self) -> bool:
        """See ``Item.is_smooth``."""
        axes = self.own_axes
        if not axes or self.is_checked or len({n for n, _ in self.reads}) > SMOOTH_READS:
            return False  # an error must name the node, which is where it was
        for number, indices in self.reads:
            shape = self.types[number].shape or ()
            own = stretched(indices, shape)
            if any(scalar_visit.linear(i, axes) is None for i in own):
                return False
            if len(own) == len(axes) and not has_unit_stride(indices, shape, axes):
                return False
        return True


def _of_form(name: str, doc: str) -> Any:
    """A property that an item has from its form."""
    return property(operator.attrgetter(f"form.{name}"), doc=doc)


class Item:
    """One value, how to compute an element of it, and what that reads.

    leaves: the values that the form numbers.   reads: (value, index expressions) for every read.
    number: its place in the order of the function.   group: the kernel it became part of.
    free: see the module's header.
    """

    __slots__ = ("_table", "_tensor", "form", "free", "group", "leaves", "number", "reads", "value")

    def __init__(
        self, table: ItemTable, value: Value, form: Form, leaves: Sequence[Value],
        tensor: te.Tensor | None = None,
    ) -> None:  # fmt: skip
        self.value, self.form, self.leaves = value, form, leaves
        self.reads = tuple([(leaves[n], indices) for n, indices in form.reads])
        self.number, self.free = 0, False
        self.group: Group | None = None
        self._table, self._tensor = table, tensor

    def __repr__(self) -> str:
        return f"<item {self.number} {self.value!r}>"

    @property
    def tensor(self) -> te.Tensor | None:
        """The element's expression, made when somebody looks: a known kernel needs none."""
        if self._tensor is None and self.form.tensor is not None:
            self._tensor = self._table.tensor_of(self.value)
        return self._tensor

    shape = _of_form("shape", "Extents of the value.")
    extents = _of_form("extents", "The squeezed shape.")
    own_axes = _of_form("own_axes", "Axes of extent other than 1.")
    reduce_axes = _of_form("reduce_axes", "Reduced axes of extent other than 1, with extents.")
    all_axes = _of_form("all_axes", "Axes of the result, then the reduced ones.")
    combiner = _of_form("combiner", """ "sum", "max", "dot", ... for a reduction.""")
    operations = _of_form("operations", "Nodes of the expression.")
    work = _of_form("work", "Operations that are arithmetic on elements.")
    expensive = _of_form("expensive", "Whether it has a division, root or function call.")
    is_checked = _of_form("is_checked", "Whether it can report an error.")
    is_renaming = _of_form(
        "is_renaming",
        "Whether an element is one element of another value: a transpose, slice or copy.",
    )
    is_smooth = _of_form(
        "is_smooth",
        "Whether neighbouring elements come from neighbouring elements of a few values, or from "
        "fewer dimensions: what a loop over neighbours computes at full speed.",
    )


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
        self._forms: dict[Any, tuple[Form, ...] | None] = {}

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

    def node_items(self, node: Node) -> list[Item]:
        if opaque_kind(node):
            types = tuple([v.type for v in node.inputs])
            reads: list[Any] = [(n, ()) for n in range(len(types))]
            shapes = [t.shape or () for t in node.types] or [()]
            items = [
                Item(self, v, Form(None, shapes[v.index], reads, types), node.inputs)
                for v in node.outputs or (Value(node, 0),)
            ]
        else:
            items = self.computed_items(node)
        for item in items:
            self.items[item.value] = item
            if not item.free:
                for source in dict.fromkeys([v for v, _ in item.reads]):
                    self.users.setdefault(source, []).append(item)
        return items

    # ---- expressions ---------------------------------------------------------------------------
    def computed_items(self, node: Node) -> list[Item]:
        """Items of a node with a tensor expression; its form is that of an equal node before."""
        leaves: dict[Value, int] = {}  # what is read once free values are expressions
        parts: list[Any] = []
        for value in node.inputs:
            item = self.items.get(value)
            if item is not None and item.free:
                numbers = tuple([leaves.setdefault(v, len(leaves)) for v in item.leaves])
                parts.append((item.form, numbers))
            else:
                parts.append(leaves.setdefault(value, len(leaves)))
        types = tuple([v.type for v in leaves])
        key = (type(node.op), node.op, node.types if is_view(node) else None, *parts, types)
        forms = self._forms.get(key)
        values = tuple(leaves)
        if forms is not None:
            return [self.item(v, f, values) for v, f in zip(node.outputs, forms, strict=True)]
        tensors = self.tensors_of(node)
        made = [self.form_of(t, leaves, types) for t in tensors]
        if key not in self._forms:
            # What the index of a read itself reads is no part of a form.
            shared = all(not _reads_at_read(form) for form in made)
            self._forms[key] = tuple(made) if shared else None
        return [
            self.item(v, f, values, t) for v, f, t in zip(node.outputs, made, tensors, strict=True)
        ]

    def form_of(self, tensor: te.Tensor, leaves: dict[Value, int], types: Any) -> Form:
        assert tensor.body is not None
        reads = scalar_visit.reads(tensor.body)
        numbered = [(leaves[self.placeholders[r.attr]], r.args) for r in reads]
        return Form(tensor, tensor.shape, numbered, types)

    def item(
        self, value: Value, form: Form, leaves: Sequence[Value], tensor: te.Tensor | None = None
    ) -> Item:
        item = Item(self, value, form, leaves, tensor)
        if self.fuse and value not in self._pinned and form.combiner is None:
            item.free = (
                form.is_cheap
                or (is_view(value.node) and len(form.reads) == 1)
                or (form.is_widening and self.only_products_read(value))
            )
        return item

    def tensor_of(self, value: Value) -> te.Tensor:
        return self.tensors_of(value.node)[value.index]

    def tensors_of(self, node: Node) -> tuple[te.Tensor, ...]:
        """The node's expressions, with those of the free values that they read in place."""
        if is_view(node) and not is_reshaping_view(node):
            found: Any = self.squeezed_view(node)
        else:
            found = node.op.compute(*[self.placeholder(v) for v in node.inputs])
        return tuple([self.inlined(t) for t in (found if isinstance(found, tuple) else (found,))])

    def placeholder(self, value: Value) -> te.Tensor:
        tensor = self._placeholder_of.get(value)
        if tensor is None:
            shape = value.type.shape
            assert shape is not None
            tensor = te.placeholder(shape, value.dtype, f"v{len(self.placeholders)}")  # type: ignore[arg-type]
            self.placeholders[tensor] = value
            self._placeholder_of[value] = tensor
        return tensor

    def squeezed_view(self, node: Node) -> te.Tensor:
        """A reshape that only adds or drops extents of 1, as plain index renaming."""
        source = self.placeholder(node.inputs[0])

        def element(*axes: Expr) -> Expr:
            own = iter(stretched(axes, node.types[0].shape or ()))
            return source[tuple(0 if is_one(n) else next(own) for n in source.shape)]

        return te.compute(node.types[0].shape or (), element, "view")  # type: ignore[arg-type]

    def inlined(self, tensor: te.Tensor) -> te.Tensor:
        body = tensor.body
        assert body is not None
        new = scalar_visit.transform(body, self.without_free_reads)
        if new is body:
            return tensor
        return te.Tensor(tensor.name, tensor.shape, tensor.dtype, tensor.axes, new)

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
        return scalar_visit.put_in(
            item.tensor.body, dict(zip(item.tensor.axes, expr.args, strict=True))
        )


def _reads_at_read(form: Form) -> bool:
    return any(scalar_visit.reads(*indices) for _, indices in form.reads)
