"""Ops that multiply and sum over a shared axis: matmul, batched matmul, tensordot.

Main types: ``MatMul``, ``BatchMatMul``. May import ops.base and ops.movement.
Shapes: a: [.., m, k], b: [.., k, n], c: [.., m, n], each matrix possibly stored transposed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow import te
from tinyflow.core.error import DTypeError, ShapeError
from tinyflow.core.shape import (
    Dimension,
    Shape,
    broadcast_shapes,
    merge_dim,
    normalize_axis,
    opaque,
)
from tinyflow.ops.base import (
    Op,
    Sample,
    TensorType,
    Value,
    emit,
    ranged,
    require_same_dtype,
    to_value,
)
from tinyflow.ops.movement import Reshape, expand_dims, reshape, squeeze, transpose, unbroadcast


def _swapped(shape: tuple[Any, ...], flip: bool) -> tuple[Any, ...]:
    """The shape of the matrices as they are multiplied."""
    return (*shape[:-2], shape[-1], shape[-2]) if flip else shape


def _matrix(x: Any, flip: bool) -> Any:
    return np.swapaxes(x, -1, -2) if flip else x


def _check_inner(a: Shape, b: Shape, flips: tuple[bool, bool], words: tuple[str, str]) -> None:
    """Errors: ShapeError with the flag that would make the product fit, if there is one."""
    if a is None or b is None:
        return
    flip_a, flip_b = flips
    left, right = _swapped(a, flip_a), _swapped(b, flip_b)
    if merge_dim(left[-1], right[-2]) is not None:
        return
    at_a, at_b = (-2 if flip_a else -1), (-1 if flip_b else -2)
    raise ShapeError(
        "inner dimensions differ",
        expected=f"a.shape[{at_a + len(a)}] == b.shape[{at_b + len(b)}], "
        f"got {left[-1]} and {right[-2]}",
        hint=_flip_hint(a, b, flips, words),
    )


def _flip_hint(
    a: tuple[Any, ...], b: tuple[Any, ...], flips: tuple[bool, bool], words: tuple[str, str]
) -> str | None:
    flip_a, flip_b = flips
    for try_a, try_b in ((flip_a, not flip_b), (not flip_a, flip_b), (not flip_a, not flip_b)):
        left, right = _swapped(a, try_a), _swapped(b, try_b)
        if merge_dim(left[-1], right[-2]) is not None:
            flags = [f"{w}=True" for w, on in zip(words, (try_a, try_b), strict=True) if on]
            return f"did you mean matmul({', '.join(['a', 'b', *flags])})?"
    if merge_dim(a[-1], b[-1]) is not None:
        return "element-wise multiplication is a * b"
    return None


_VECTORS = "row", "column"


def _require_matrix(x: TensorType, name: str) -> None:
    if x.shape is None or len(x.shape) >= 2:
        return
    if len(x.shape) == 0:
        hint = "a scalar multiplies with *"
    else:
        row, column = (f"tf.expand_dims({name}, {d}) for a {w}" for d, w in enumerate(_VECTORS))
        hint = "use " + " or ".join((row, column) if name == "a" else (column, row)) + " vector"
    raise ShapeError(
        f"{name} has rank {len(x.shape)}", expected=f"matrices, got {name}: {x}", hint=hint
    )


@dataclass(frozen=True)
class MatMul(Op):
    """c[i, j] = sum over k of a[i, k] * b[k, j]; each factor may be stored transposed.

    a: number[m, k] (transpose_a: [k, m])   b: number[k, n] (transpose_b: [n, k])
    c: number[m, n]; every sum is one chain of fused multiply-adds, k ascending
    Gradient: da = dc @ b^T, db = a^T @ dc (with the flags: the same products, transposed)
    Errors: ShapeError for other ranks or different inner dimensions, DTypeError
    Complexity: 2 m n k operations
    """

    transpose_a: bool = False
    transpose_b: bool = False
    onnx = "Gemm"

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        require_same_dtype(a, b)
        a.require_number()
        for x, name in ((a, "a"), (b, "b")):
            _require_matrix(x, name)
            x.require_rank(2)
        flips = self.transpose_a, self.transpose_b
        _check_inner(a.shape, b.shape, flips, ("transpose_a", "transpose_b"))
        rows: Dimension = opaque("rows") if a.shape is None else _swapped(a.shape, flips[0])[0]
        columns: Dimension = (
            opaque("columns") if b.shape is None else _swapped(b.shape, flips[1])[1]
        )
        return a.with_shape((rows, columns))

    def reference(self, a: Any, b: Any) -> Any:
        return np.matmul(_matrix(a, self.transpose_a), _matrix(b, self.transpose_b))

    def compute(self, a: te.Tensor, b: te.Tensor) -> te.Tensor:
        (m, extent), (_, n) = _swapped(a.shape, self.transpose_a), _swapped(
            b.shape, self.transpose_b
        )
        k = te.reduce_axis(extent, "k")
        return te.compute(
            (m, n),
            lambda i, j: te.dot(
                a[(k, i) if self.transpose_a else (i, k)],
                b[(j, k) if self.transpose_b else (k, j)],
                axis=k,
            ),
            "matmul",
        )

    def vjp(self, dc: Value, c: Value, a: Value, b: Value) -> tuple[Any, ...]:
        return _product_gradients(_matmul, self.transpose_a, self.transpose_b, dc, a, b)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for m, k, n in ((3, 5, 4), (1, 7, 2), (6, 1, 5), (2, 0, 3), (0, 4, 3), (17, 33, 19)):
            for flip_a, flip_b in ((False, False), (True, False), (False, True), (True, True)):
                if (flip_a or flip_b) and m not in (3, 17):
                    continue
                a, b = _swapped((m, k), flip_a), _swapped((k, n), flip_b)
                op = MatMul(flip_a, flip_b)
                arrays = _factor(rng, a), _factor(rng, b)
                yield Sample(arrays, op, ulp=k + 2, scale=float(k))
        yield Sample((rng.integers(-9, 9, (3, 4)).astype(np.int32),
                      rng.integers(-9, 9, (4, 5)).astype(np.int32)), MatMul())  # fmt: skip

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 3), np.float32)
        yield (x, x), ShapeError
        yield (x, x[0]), ShapeError
        yield (x, np.zeros((3, 2), np.float64)), DTypeError
        yield (x > 0, x.T > 0), DTypeError
        yield Sample((x, x), MatMul(True, True)), ShapeError


def _factor(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return ranged(rng, shape, "float", -1.0, 1.0)


def _matmul(a: Value, b: Value, flip_a: bool, flip_b: bool) -> Any:
    return emit(MatMul(flip_a, flip_b), a, b)


def _product_gradients(
    product: Any, flip_a: bool, flip_b: bool, dc: Value, a: Value, b: Value
) -> tuple[Any, Any]:
    """da, db of ``product(a, b, flip_a, flip_b)``: with A = a or a^T, dA = dc B^T, dB = A^T dc,
    each read transposed where the factor is stored transposed."""
    da = product(b, dc, flip_b, True) if flip_a else product(dc, b, False, not flip_b)
    db = product(dc, a, True, flip_a) if flip_b else product(a, dc, not flip_a, False)
    return da, db


@dataclass(frozen=True)
class PanelMatMul(Op):
    """c[i, p * w + q] = sum over k of a[i, k] * b[p, k, q]: a product with a b that lies in panels.

    a: number[m, k]   b: number[n / w, k, w], panels of w columns, each of them one stream
    c: number[m, n]; the bits of ``MatMul`` with the same b as a matrix
    Gradient: as MatMul, of b in panels
    Errors: ShapeError for other ranks or different inner dimensions, DTypeError
    Complexity: 2 m n k operations
    """

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        require_same_dtype(a, b)
        a.require_number().require_rank(2)
        b.require_rank(3)
        if a.shape is None or b.shape is None:
            return a.with_shape((opaque("rows"), opaque("columns")))
        if merge_dim(a.shape[1], b.shape[1]) is None:
            raise ShapeError(
                "inner dimensions differ",
                expected=f"a.shape[1] == b.shape[1], got {a.shape[1]} and {b.shape[1]}",
            )
        return a.with_shape((a.shape[0], b.shape[0] * b.shape[2]))

    def reference(self, a: Any, b: Any) -> Any:
        panels, k, width = b.shape
        return np.matmul(a, np.swapaxes(b, 0, 1).reshape(k, panels * width))

    def compute(self, a: te.Tensor, b: te.Tensor) -> te.Tensor:
        panels, extent, width = b.shape
        k = te.reduce_axis(extent, "k")
        return te.compute(
            (a.shape[0], panels * width),
            lambda i, j: te.dot(a[i, k], b[j // width, k, j % width], axis=k),
            "matmul",
        )

    def vjp(self, dc: Value, c: Value, a: Value, b: Value) -> tuple[Any, ...]:
        panels, k, width = _dynamic_extents((b, [0, 1, 2]))
        matrix = reshape(transpose(b, (1, 0, 2)), (k, panels * width))
        db = reshape(_matmul(a, dc, True, False), (k, panels, width))
        return _matmul(dc, matrix, False, True), transpose(db, (1, 0, 2))

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for m, p, k, w in ((3, 2, 5, 4), (1, 3, 7, 2), (6, 1, 1, 5), (0, 2, 4, 3), (2, 2, 0, 3),
                           (17, 3, 33, 32)):  # fmt: skip
            arrays = _factor(rng, (m, k)), _factor(rng, (p, k, w))
            yield Sample(arrays, PanelMatMul(), ulp=k + 2, scale=float(k))

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 3), np.float32)
        yield (x, x), ShapeError
        yield (x, np.zeros((2, 4, 5), np.float32)), ShapeError
        yield (x, np.zeros((2, 3, 5), np.float64)), DTypeError


@dataclass(frozen=True)
class BatchMatMul(Op):
    """c[.., i, j] = sum over k of a[.., i, k] * b[.., k, j]; the leading axes broadcast.

    a: number[.., m, k] (adj_a: [.., k, m])   b: number[.., k, n] (adj_b: [.., n, k])
    c: number[broadcast of the leading axes, m, n]
    Gradient: as MatMul, summed over stretched leading axes
    Errors: ShapeError for ranks below 2, inner or leading dimensions that do not fit; DTypeError
    """

    adj_a: bool = False
    adj_b: bool = False
    onnx = "MatMul"

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        require_same_dtype(a, b)
        a.require_number()
        _require_matrix(a, "a")
        _require_matrix(b, "b")
        _check_inner(a.shape, b.shape, (self.adj_a, self.adj_b), ("transpose_a", "transpose_b"))
        if a.shape is None or b.shape is None:
            return a.with_shape(None)
        try:
            batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
        except ShapeError as error:
            error.expected = "leading dimensions that are equal or 1"
            raise
        rows = _swapped(a.shape, self.adj_a)[-2]
        columns = _swapped(b.shape, self.adj_b)[-1]
        return a.with_shape((*batch, rows, columns))  # type: ignore[misc]

    def reference(self, a: Any, b: Any) -> Any:
        return np.matmul(_matrix(a, self.adj_a), _matrix(b, self.adj_b))

    def compute(self, a: te.Tensor, b: te.Tensor) -> te.Tensor:
        left, right = _swapped(a.shape, self.adj_a), _swapped(b.shape, self.adj_b)
        k = te.reduce_axis(left[-1], "k")
        batch = _broadcast_extents(left[:-2], right[:-2])

        def element(*axes: Any) -> Any:
            lead, (i, j) = axes[:-2], axes[-2:]
            return te.dot(
                a[(*_batch_index(a, lead), *((k, i) if self.adj_a else (i, k)))],
                b[(*_batch_index(b, lead), *((j, k) if self.adj_b else (k, j)))],
                axis=k,
            )

        return te.compute((*batch, left[-2], right[-1]), element, "batch_matmul")

    def vjp(self, dc: Value, c: Value, a: Value, b: Value) -> tuple[Any, ...]:
        da, db = _product_gradients(_batch_matmul, self.adj_a, self.adj_b, dc, a, b)
        return unbroadcast(da, a), unbroadcast(db, b)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for a, b, flip_a, flip_b in (
            ((2, 3, 5), (2, 5, 4), False, False), ((2, 5, 3), (2, 5, 4), True, False),
            ((2, 3, 5), (2, 4, 5), False, True), ((2, 5, 3), (2, 4, 5), True, True),
            ((6, 1, 3, 5), (2, 5, 4), False, False), ((3, 5), (2, 5, 4), False, False),
            ((0, 3, 5), (0, 5, 4), False, False), ((3, 2), (2, 4), False, False),
            ((1, 1, 7), (2, 7, 1), False, False),
        ):  # fmt: skip
            arrays = _factor(rng, a), _factor(rng, b)
            yield Sample(arrays, BatchMatMul(flip_a, flip_b), ulp=8.0, scale=7.0)

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 3, 5), np.float32)
        yield (x, x), ShapeError
        yield (x, x[0, 0]), ShapeError
        yield (x, np.zeros((3, 5, 4), np.float32)), ShapeError
        yield (x, np.zeros((2, 5, 4), np.float64)), DTypeError


def _batch_matmul(a: Value, b: Value, flip_a: bool, flip_b: bool) -> Any:
    return emit(BatchMatMul(flip_a, flip_b), a, b)


def _broadcast_extents(a: Sequence[Any], b: Sequence[Any]) -> tuple[Any, ...]:
    rank = max(len(a), len(b))
    wide: list[Any] = [1] * rank
    for shape in (a, b):
        for d, extent in enumerate(shape, rank - len(shape)):
            if not (isinstance(extent, int) and extent == 1):
                wide[d] = extent
    return tuple(wide)


def _batch_index(x: te.Tensor, lead: Sequence[Any]) -> tuple[Any, ...]:
    """The leading indices of ``x``: 0 where its extent is 1."""
    own = x.shape[:-2]
    return tuple(
        te.index(0) if isinstance(extent, int) and extent == 1 else axis
        for extent, axis in zip(own, lead[len(lead) - len(own) :], strict=True)
    )


def matmul(
    a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False,
    adjoint_a: bool = False, adjoint_b: bool = False, name: str | None = None,
) -> Any:  # fmt: skip
    """Matrix product; with rank above 2 one product per leading index. See MatMul, BatchMatMul.

    adjoint_a, adjoint_b: the same as transpose_a, transpose_b for real numbers.
    """
    flip_a, flip_b = bool(transpose_a or adjoint_a), bool(transpose_b or adjoint_b)
    if _is_batched(a) or _is_batched(b):
        return emit(BatchMatMul(flip_a, flip_b), a, b, name=name or "MatMul")
    return emit(MatMul(flip_a, flip_b), a, b, name=name)


def _is_batched(x: Any) -> bool:
    if isinstance(x, Value):
        return x.type.shape is None or len(x.type.shape) > 2
    type_ = getattr(x, "type", None)
    return (len(type_.shape or ()) if isinstance(type_, TensorType) else np.ndim(x)) > 2


def tensordot(a: Any, b: Any, axes: Any, name: str | None = "Tensordot") -> Any:
    """Sum over the given axes of a and b: ``axes`` = (axes of a, axes of b), or a number n for the
    last n of a and the first n of b. One matmul between reshapes.

    Errors: ShapeError when the axes differ in number or extent, or a rank is unknown
    """
    a, b = to_value(a), to_value(b)
    if a.type.shape is None or b.type.shape is None:
        raise ShapeError("tensordot: a rank is unknown", received={"a": a.type, "b": b.type},
                         hint="tell it with set_shape")  # fmt: skip
    left, right = _contracted(a.type, b.type, axes)
    kept_a = [d for d in range(len(a.type.shape)) if d not in left]
    kept_b = [d for d in range(len(b.type.shape)) if d not in right]
    shape_a, shape_b = a.type.shape, b.type.shape
    for i, j in zip(left, right, strict=True):
        if merge_dim(shape_a[i], shape_b[j]) is None:
            raise ShapeError(
                f"tensordot: axis {i} of a and axis {j} of b differ",
                received={"a": a.type, "b": b.type},
                expected=f"equal extents, got {shape_a[i]} and {shape_b[j]}",
            )
    outer = [shape_a[d] for d in kept_a] + [shape_b[d] for d in kept_b]
    flat_a = _flattened(transpose(a, kept_a + left), kept_a, shape_a, rows_first=True)
    flat_b = _flattened(transpose(b, right + kept_b), kept_b, shape_b, rows_first=False)
    product = matmul(flat_a, flat_b)
    if all(type(d) is int for d in outer):
        return emit(Reshape(tuple(outer)), product, name=name)
    return reshape(product, _dynamic_extents((a, kept_a), (b, kept_b)), name=name)


def _contracted(a: TensorType, b: TensorType, axes: Any) -> tuple[list[int], list[int]]:
    rank_a, rank_b = len(a.shape or ()), len(b.shape or ())
    if isinstance(axes, int):
        pair: tuple[Any, Any] = (range(rank_a - axes, rank_a), range(axes))
    else:
        pair = tuple([x] if isinstance(x, int) else list(x) for x in axes)  # type: ignore[assignment]
    left = [normalize_axis(int(d), rank_a, "tensordot") for d in pair[0]]
    right = [normalize_axis(int(d), rank_b, "tensordot") for d in pair[1]]
    if len(left) != len(right):
        raise ShapeError("tensordot: different numbers of axes", received={"a": a, "b": b},
                         expected=f"as many axes of a as of b, got {axes}")  # fmt: skip
    return left, right


def _flattened(x: Any, kept: list[int], shape: tuple[Any, ...], rows_first: bool) -> Any:
    """``x`` as a matrix: the kept axes as rows (or columns), the summed ones as the other."""
    rows = [shape[d] for d in kept]
    summed = [d for i, d in enumerate(shape) if i not in kept]
    static = [int(np.prod(part)) if all(type(d) is int for d in part) else -1
              for part in (rows, summed)]  # fmt: skip
    if static == [-1, -1]:
        from tinyflow.ops.reduction import reduce_prod
        from tinyflow.ops.shape import shape as shape_of

        extents = shape_of(x)
        cut = len(rows) if rows_first else len(summed)
        static[1] = reduce_prod(extents[cut:] if rows_first else extents[:cut])
    return reshape(x, static if rows_first else static[::-1])


def _dynamic_extents(*parts: tuple[Value, list[int]]) -> list[Any]:
    from tinyflow.ops.shape import shape as shape_of

    found: list[Any] = []
    for x, axes in parts:
        for d in axes:
            extent = x.type.shape[d]  # type: ignore[index]
            found.append(extent if type(extent) is int else shape_of(x)[d])
    return found


def dot(a: Any, b: Any, name: str | None = None) -> Any:
    """NumPy's ``dot``: inner product of vectors, matrix product, or sum over the last axis of a and
    the last but one of b. A scalar multiplies."""
    from tinyflow.ops.elementwise import multiply

    a, b = to_value(a), to_value(b)
    rank_a, rank_b = a.type.rank, b.type.rank
    if 0 in (rank_a, rank_b):
        return multiply(a, b, name=name)
    if rank_a == 1 == rank_b:
        return squeeze(matmul(expand_dims(a, 0), expand_dims(b, 1)), name=name)
    if rank_a == 2 == rank_b:
        return matmul(a, b, name=name)
    return tensordot(a, b, ([-1], [0 if rank_b == 1 else -2]), name=name)
