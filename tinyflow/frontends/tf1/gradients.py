"""``tf.gradients``: new operations that compute derivatives.

Main function: ``gradients``. May import core, autodiff, convert.
"""

from __future__ import annotations

import enum
from typing import Any

from tinyflow.autodiff.reverse import gradients as reverse
from tinyflow.core.error import DTypeError, InvalidArgumentError
from tinyflow.core.garbage import collections_paused
from tinyflow.frontends.tf1.convert import convert_to_tensor, graph_of, is_tensor, tensor
from tinyflow.frontends.tf1.indexed_slices import sparse_gradient
from tinyflow.ir.graph.nodes import Value

__all__ = ["AggregationMethod", "UnconnectedGradients", "gradients", "hessians"]


class UnconnectedGradients(enum.Enum):
    """What the gradient of an unconnected x is: None, or zeros."""

    NONE = "none"
    ZERO = "zero"


class AggregationMethod:
    """How several gradients of one tensor are added; accepted, the order is always the same."""

    ADD_N = 0
    DEFAULT = ADD_N
    EXPERIMENTAL_TREE = 1
    EXPERIMENTAL_ACCUMULATE_N = 2


def gradients(
    ys: Any, xs: Any, grad_ys: Any = None, name: str = "gradients",
    colocate_gradients_with_ops: bool = False, gate_gradients: Any = False,
    aggregation_method: Any = None, stop_gradients: Any = None,
    unconnected_gradients: Any = UnconnectedGradients.NONE,
) -> list[Any]:  # fmt: skip
    """d(sum of all ys)/dx for every x of ``xs``: a list with a tensor, or None, per x.

    Where x is only read by gathers of its rows, its gradient is ``IndexedSlices``.
    grad_ys: weights of the ys, ones by default. stop_gradients: tensors treated as constants.
    Errors: InvalidArgumentError, ShapeError and DTypeError for arguments that do not fit.
    """
    ys, xs = _listed(ys), _listed(xs)
    stops = _listed(stop_gradients) if stop_gradients is not None else []
    graph = graph_of(ys, xs)
    try:
        mode = UnconnectedGradients(unconnected_gradients)
    except ValueError:
        raise InvalidArgumentError(
            f"Unknown value for unconnected_gradients: {unconnected_gradients!r}",
            choices=["tf.UnconnectedGradients.NONE", "tf.UnconnectedGradients.ZERO"],
        ) from None
    with collections_paused(), graph.as_default(), graph.name_scope(name):
        y_values = [_plain(y, "y") for y in ys]
        x_values = [_plain(x, "x") for x in xs]
        _check_dtypes(y_values)
        weights = None if grad_ys is None else _weights(_listed(grad_ys), y_values)
        found = reverse(
            y_values, x_values, weights, [_plain(s, "stop") for s in stops], mode.value
        )
        return [
            g if g is None else sparse_gradient(g, x) or g
            for g, x in zip(found, x_values, strict=True)
        ]


def _plain(value: Any, role: str) -> Value:
    """Variables stand for the read that everything uses: gradients reach them there."""
    snapshot = getattr(value, "_snapshot", None)
    if snapshot is not None:
        return snapshot  # type: ignore[no-any-return]
    return tensor(value, role)  # type: ignore[no-any-return]


def _listed(values: Any) -> list[Any]:
    return list(values) if isinstance(values, (list, tuple)) else [values]


def _check_dtypes(ys: list[Value]) -> None:
    for y in ys:
        if not y.dtype.is_floating:
            raise DTypeError(
                f"gradients: a gradient of {y} was asked for, whose dtype {y.dtype} has none",
                received={"y": y.type},
                expected="a floating-point y",
                source=y.node.source,
                hint="tf.argmax, comparisons and casts to integers end all gradients; "
                "differentiate the loss that comes before them",
            )


def _weights(weights: list[Any], ys: list[Value]) -> list[Any]:
    if len(weights) != len(ys):
        raise InvalidArgumentError(f"Passed {len(weights)} grad_ys for {len(ys)} ys")
    return [
        w if w is None else convert_to_tensor(w, None if is_tensor(w) else y.dtype, f"grad_ys_{i}")
        for i, (w, y) in enumerate(zip(weights, ys, strict=True))
    ]


def hessians(ys: Any, xs: Any, name: str = "hessians", **ignored: Any) -> list[Any]:
    """Second derivatives of scalars ``ys`` by vectors ``xs`` (one matrix per x)."""
    from tinyflow.frontends.tf1.array_functions import stack

    xs = _listed(xs)
    graph = graph_of(_listed(ys), xs)
    results = []
    with graph.as_default(), graph.name_scope(name):
        for x, first in zip(xs, gradients(ys, xs), strict=True):
            x = tensor(x)
            if x.type.shape is None or len(x.type.shape) != 1 or type(x.type.shape[0]) is not int:
                raise InvalidArgumentError(f"hessians: x must be a vector of known size, got {x}")
            first = tensor(first)  # the gradient of a gather comes as slices
            rows = [gradients(first[i], x)[0] for i in range(x.type.shape[0])]
            results.append(stack([tensor(r) if r is not None else x * 0 for r in rows]))
    return results
