"""Tensor expressions: what to compute per element, in no order.

Main types: ``Tensor`` (a shape and the expression of one element), ``Axis``, ``ReduceAxis``.
Imports core and ir.scalar.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from tinyflow.core.dtype import DType, as_dtype, float32, int64
from tinyflow.core.error import AxisError, InvalidArgumentError
from tinyflow.core.shape import Dim
from tinyflow.ir.scalar import nodes as scalar
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr

Extent = int | Expr


class Tensor:
    """``tensor[i, j]`` is ``body`` with ``axes`` set to (i, j); a placeholder has no body.

    axes: one int64 variable per dimension. The body's only free variables are the axes, symbolic
    extents, and the axes of a ``reduce`` at its top. names: what the author calls the axes.
    """

    __slots__ = ("name", "shape", "dtype", "axes", "body", "names", "__weakref__")

    def __init__(
        self,
        name: str,
        shape: Sequence[Extent],
        dtype: DType,
        axes: tuple[Expr, ...] = (),
        body: Expr | None = None,
        names: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.shape = tuple(shape)
        self.dtype = dtype
        self.axes = axes
        self.body = body
        self.names = names

    @property
    def rank(self) -> int:
        return len(self.shape)

    def __getitem__(self, indices: Any) -> Expr:
        if not isinstance(indices, tuple):
            indices = (indices,)
        if len(indices) != len(self.shape):
            raise AxisError(
                f"{self.name} has {len(self.shape)} dimensions, got {len(indices)} indices",
                received={self.name: self},
            )
        return scalar.read(self, *[as_index(i) for i in indices])

    __call__ = lambda self, *indices: self[indices]  # noqa: E731 - TVM's spelling of A(i, j)

    def changed(self, change: Callable[[Expr], Expr | None]) -> Tensor:
        """The same tensor with ``change`` applied to its expressions, bottom up."""
        body = None if self.body is None else scalar_visit.transform(self.body, change)
        return Tensor(self.name, self.shape, self.dtype, self.axes, body, self.names)

    @property
    def reduction(self) -> scalar.Reduction | None:
        """How the body folds its reduce axes; None for a map."""
        if self.body is not None and self.body.op == "reduce":
            return self.body.attr  # type: ignore[no-any-return]
        return None

    @property
    def op(self) -> Operation:
        """How the tensor is computed: its axes, what it reads."""
        return Operation(self)

    def __repr__(self) -> str:
        dims = ", ".join(map(str, self.shape))
        return f"<te {self.name}: {self.dtype.name}[{dims}]>"


class Axis:
    """A loop over ``range(extent)``; use it as an index."""

    __slots__ = ("var", "extent", "name")

    def __init__(self, var: Expr, extent: Extent, name: str) -> None:
        self.var = var
        self.extent = extent
        self.name = name

    @property
    def expr(self) -> Expr:
        """What it is in an expression."""
        return self.var

    def __add__(self, other: Any) -> Expr:
        return self.expr + as_index(other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Expr:
        return self.expr - as_index(other)

    def __rsub__(self, other: Any) -> Expr:
        return as_index(other) - self.expr

    def __mul__(self, other: Any) -> Expr:
        return self.expr * as_index(other)

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Expr:
        return self.expr // as_index(other)

    def __mod__(self, other: Any) -> Expr:
        return self.expr % as_index(other)

    def __repr__(self) -> str:
        return f"axis({self.name}: {self.extent})"


class ReduceAxis(Axis):
    """A loop whose iterations are folded together."""

    __slots__ = ()

    def __init__(self, extent: Extent, name: str) -> None:
        super().__init__(scalar.var(name), extent, name)

    def __repr__(self) -> str:
        return f"reduce_axis({self.var.attr}: {self.extent})"


class Operation:
    """TVM's ``tensor.op``. axis: a loop per dimension; reduce_axis: the loops that are folded."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.name = tensor.name

    def output(self, position: int = 0) -> Tensor:
        if position != 0:
            raise AxisError(f"{self.name} has one output, got number {position}")
        return self.tensor

    @property
    def axis(self) -> tuple[Axis, ...]:
        tensor = self.tensor
        names = tensor.names or tuple(str(v.attr) for v in tensor.axes)
        return tuple(
            Axis(var, extent, name)
            for var, extent, name in zip(tensor.axes, tensor.shape, names, strict=True)
        )

    @property
    def reduce_axis(self) -> tuple[Axis, ...]:
        reduction = self.tensor.reduction
        axes = reduction.axes if reduction is not None else ()
        return tuple(Axis(var, extent, str(var.attr)) for var, extent in axes)

    @property
    def input_tensors(self) -> tuple[Tensor, ...]:
        """What the element expression reads, in order of first use."""
        if self.tensor.body is None:
            return ()
        return tuple(dict.fromkeys(read.attr for read in scalar_visit.reads(self.tensor.body)))

    def __repr__(self) -> str:
        return f"<te operation {self.name}>"


def as_index(value: Any) -> Expr:
    """An int64 expression from an int, an expression of any integer type or a reduce axis."""
    if isinstance(value, Axis):
        return value.var
    if isinstance(value, Expr):
        return scalar.cast(value, int64)
    return scalar.index(value if isinstance(value, Dim) else int(value))


def var(name: str) -> Expr:
    """A symbolic extent."""
    return scalar.var(_free(name))


def _free(name: str) -> str:
    """Errors: InvalidArgumentError for the names that ``compute`` gives to its axes.

    Variables of one name are one variable, so an axis would capture the author's.
    """
    if re.fullmatch(r"i\d+", name):
        raise InvalidArgumentError(
            f"te: the name {name} is taken: i0, i1, ... are the axes of te.compute"
        )
    return name


def placeholder(shape: Sequence[Extent], dtype: Any = float32, name: str = "x") -> Tensor:
    return Tensor(name, shape, as_dtype(dtype))


def reduce_axis(extent: Extent | tuple[int, Extent], name: str = "k") -> ReduceAxis:
    """An axis to reduce over; TVM's ``(0, extent)`` is accepted too."""
    if isinstance(extent, tuple):
        low, extent = extent
        if low != 0:
            raise InvalidArgumentError(
                f"reduce_axis: {name} must start at 0, got {low}",
                hint=f"count from 0 and index with {name} + {low}",
            )
    if isinstance(extent, int) and extent < 0:
        raise InvalidArgumentError(f"reduce_axis: the extent of {name} is {extent}")
    return ReduceAxis(extent, _free(name))


def compute(
    shape: Sequence[Extent], element: Callable[..., Any], name: str = "compute"
) -> Tensor:
    """The tensor whose element at (i, j, ...) is ``element(i, j, ...)``."""
    axes = tuple(scalar.var(f"i{d}") for d in range(len(shape)))
    body = scalar.as_expr(element(*axes))
    code = getattr(element, "__code__", None)
    names = () if code is None else code.co_varnames[: code.co_argcount]
    return Tensor(
        name, shape, body.dtype, axes, body, names if len(names) == len(axes) else ()
    )


def reduce(combiner: str, axis: Any, *bodies: Expr) -> Expr:
    """``combiner`` (see ir.scalar.COMBINERS) over one or several reduce axes, first slowest."""
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    names = [getattr(a, "name", None) for a in axes]
    for a, name in zip(axes, names, strict=True):
        if not isinstance(a, ReduceAxis):
            raise InvalidArgumentError(
                f"{combiner}: axis is {a!r}", expected="reduce axes, as te.reduce_axis(n) gives"
            )
        if names.count(name) > 1:
            raise InvalidArgumentError(
                f"{combiner}: two reduce axes have the name {name}",
                hint="te.reduce_axis(n, name=...) names them apart",
            )
    return scalar.reduce(combiner, tuple((a.var, a.extent) for a in axes), *bodies)


def dot(a: Expr, b: Expr, axis: Any) -> Expr:
    """sum(a*b) in the canonical order of contractions: acc = fma(a, b, acc), k ascending.

    Integers multiply and add. Fusion and threads never change this order (see te/canonical.py).
    """
    return reduce("dot", axis, a, b)


def elementwise(function: Callable[..., Expr], *tensors: Tensor, name: str = "map") -> Tensor:
    """``function`` of the corresponding elements, NumPy broadcasting (extents 1 stretch).

    An extent counts as 1 only if it is the literal 1: symbolic extents are taken as equal.
    """
    rank = max((t.rank for t in tensors), default=0)
    shape: list[Extent] = [1] * rank
    for t in tensors:
        for d, extent in enumerate(t.shape, rank - t.rank):
            if not (isinstance(extent, int) and extent == 1):
                shape[d] = extent

    def element(*axes: Expr) -> Expr:
        return function(*[broadcast_read(t, axes) for t in tensors])

    return compute(shape, element, name)


def broadcast_read(tensor: Tensor, axes: Sequence[Expr]) -> Expr:
    """``tensor`` read at the trailing ``axes``, index 0 where its extent is 1."""
    own = axes[len(axes) - tensor.rank :]
    return tensor[
        tuple(
            scalar.index(0) if isinstance(extent, int) and extent == 1 else axis
            for axis, extent in zip(own, tensor.shape, strict=True)
        )
    ]


def reduction(
    combiner: str,
    tensor: Tensor,
    axes: Sequence[int],
    keepdims: bool,
    function: Callable[[Expr], Expr] = lambda x: x,
    name: str = "reduce",
) -> Tensor:
    """``combiner`` of ``function(element)`` over the given axes (normalised, sorted)."""
    folded = {a: ReduceAxis(tensor.shape[a], f"r{n}") for n, a in enumerate(axes)}
    kept = [a for a in range(tensor.rank) if a not in folded]
    shape: list[Extent] = (
        [1 if a in folded else tensor.shape[a] for a in range(tensor.rank)]
        if keepdims
        else [tensor.shape[a] for a in kept]
    )

    def element(*own: Expr) -> Expr:
        position = dict(zip(kept, own if not keepdims else [own[a] for a in kept], strict=True))
        indices = tuple(
            folded[a].var if a in folded else position[a] for a in range(tensor.rank)
        )
        body = function(tensor[indices])
        return reduce(combiner, list(folded.values()), body) if folded else body

    return compute(shape, element, name)
