"""Einstein sums, traces and diagonals with TensorFlow-1's signatures.

Main functions: ``einsum``, ``trace``, ``diag``, ``matrix_diag``. May import core, ops, convert.
"""

from __future__ import annotations

from typing import Any

from tinyflow.core.error import ShapeError
from tinyflow.frontends.tf1.convert import graph_of, scoped, tensor
from tinyflow.frontends.tf1.embedding import _extents, _product
from tinyflow.ops.comparison import equal
from tinyflow.ops.convert import identity
from tinyflow.ops.einsum import einsum as product_of
from tinyflow.ops.logical import select
from tinyflow.ops.movement import expand_dims, reshape
from tinyflow.ops.reduction import reduce_sum
from tinyflow.ops.sequence import arange

__all__ = ["band_part", "diag", "diag_part", "einsum", "matrix_diag", "matrix_diag_part", "trace"]


def einsum(equation: str, *inputs: Any, name: str | None = None, **keywords: Any) -> Any:
    """The sum over the labels that the result lacks of the products of the inputs.

    ``tf.einsum("bij,bjk->bik", a, b)``; "..." for the other axes, a repeated label for a diagonal.
    """
    if keywords:
        raise TypeError(f"invalid keyword arguments for this function: {sorted(keywords)}")
    operands = list(inputs[0]) if len(inputs) == 1 and isinstance(inputs[0], (list, tuple)) else (
        list(inputs)
    )
    graph = graph_of(operands)
    with graph.as_default(), graph.name_scope(name or "einsum") as scope:
        return product_of(equation, *_one_dtype(operands), name=scope)


def _one_dtype(operands: list[Any]) -> list[Any]:
    from tinyflow.frontends.tf1.array_functions import tensors

    return tensors(operands, "inputs")


def _on_diagonal(rows: Any, columns: Any) -> Any:
    """bool[rows, columns]: where the row is the column."""
    return equal(expand_dims(arange(0, rows), 1), expand_dims(arange(0, columns), 0))


@scoped("MatrixDiag")
def matrix_diag(diagonal: Any, name: str | None = None) -> Any:
    """y[..., i, i] = diagonal[..., i], 0 elsewhere."""
    x = tensor(diagonal, "diagonal")
    n = _extents(x)[-1]
    return select(_on_diagonal(n, n), expand_dims(x, -1), 0, name=name)


@scoped("MatrixDiagPart")
def matrix_diag_part(input: Any, name: str | None = None) -> Any:
    """y[..., i] = input[..., i, i]."""
    x = tensor(input, "input")
    rows, columns = _matrix_extents(x)
    square = rows if rows is columns or rows == columns else None
    kept = reduce_sum(select(_on_diagonal(rows, columns), x, 0), -1)
    if square is not None:
        return identity(kept, name=name)
    if type(rows) is not int or type(columns) is not int:
        raise ShapeError("matrix_diag_part: needs known extents", received={"input": x.type})
    return kept[..., : min(rows, columns)]


def _matrix_extents(x: Any) -> tuple[Any, Any]:
    if x.type.rank is None or x.type.rank < 2:
        raise ShapeError("needs matrices", received={"x": x.type}, expected="rank 2 or more")
    extents = _extents(x)
    return extents[-2], extents[-1]


@scoped("Trace")
def trace(x: Any, name: str | None = None) -> Any:
    """The sum of the diagonal of each matrix."""
    x = tensor(x, "x")
    rows, columns = _matrix_extents(x)
    return reduce_sum(select(_on_diagonal(rows, columns), x, 0), (-2, -1), name=name)


@scoped("Diag")
def diag(diagonal: Any, name: str | None = None) -> Any:
    """y[i..., i...] = diagonal[i...], 0 elsewhere: twice the rank."""
    x = tensor(diagonal, "diagonal")
    extents = _extents(x)
    flat = reshape(x, (-1,))
    n = _product(extents)
    square = select(_on_diagonal(n, n), expand_dims(flat, 1), 0)
    return reshape(square, [*extents, *extents], name)


@scoped("DiagPart")
def diag_part(input: Any, name: str | None = None) -> Any:
    """y[i...] = input[i..., i...]: half the rank."""
    x = tensor(input, "input")
    extents = _extents(x)
    half = len(extents) // 2
    if len(extents) != 2 * half or extents[:half] != extents[half:]:
        raise ShapeError("diag_part: the shape is not twice the same", received={"input": x.type})
    n = _product(extents[:half])
    square = reshape(x, [n, n])
    return reshape(reduce_sum(select(_on_diagonal(n, n), square, 0), 1), extents[:half], name)


@scoped("MatrixBandPart")
def band_part(input: Any, num_lower: int, num_upper: int, name: str | None = None) -> Any:
    """Elements with row - column <= num_lower and column - row <= num_upper, 0 elsewhere; a
    negative number is no limit."""
    from tinyflow.ops.comparison import less_equal
    from tinyflow.ops.logical import logical_and

    x = tensor(input, "input")
    rows, columns = _matrix_extents(x)
    below = expand_dims(arange(0, rows), 1) - expand_dims(arange(0, columns), 0)
    kept: Any = None
    for distance, limit in ((below, num_lower), (-below, num_upper)):
        if limit >= 0:
            near = less_equal(distance, int(limit))
            kept = near if kept is None else logical_and(kept, near)
    return identity(x, name=name) if kept is None else select(kept, x, 0, name=name)
