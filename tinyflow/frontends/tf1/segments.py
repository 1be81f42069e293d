"""Segments, counts and order with TensorFlow-1's signatures: segment sums, top_k, unique, masks.

Main functions: ``segment_sum``, ``top_k``, ``unique``, ``boolean_mask``, ``cumsum`` ...
May import core, ops, convert.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinyflow.core.dtype import as_dtype, bool_, int32
from tinyflow.core.error import InvalidArgumentError, ShapeError, Unsupported
from tinyflow.core.shape import Dim
from tinyflow.core.titled import titled
from tinyflow.frontends.tf1.array_functions import cast, one_of, static_int, tensors
from tinyflow.frontends.tf1.convert import graph_of, scoped, tensor
from tinyflow.ir.graph.builder import emit
from tinyflow.ops import (
    counted,
    cumulative,
    indexing,
    nd_positions,
    rounding,
    segment,
    sorting,
)
from tinyflow.ops.comparison import equal, greater, less
from tinyflow.ops.convert import identity
from tinyflow.ops.creation import constant_value, ones_like, zeros, zeros_like
from tinyflow.ops.elementwise import maximum, minimum
from tinyflow.ops.joining import concat as joined
from tinyflow.ops.logical import logical_and, select
from tinyflow.ops.movement import add_last_axes, expand_dims, reshape
from tinyflow.ops.reduction import reduce_all, reduce_max, reduce_sum
from tinyflow.ops.sequence import arange
from tinyflow.ops.shape import shape as shape_of
from tinyflow.ops.shape import symbolic_value


def _unsorted(function: Callable[..., Any], default: str) -> Callable[..., Any]:
    @scoped(default)
    @titled(
        function.__name__, f"{default}: rows of ``data`` that share a segment id, in any order."
    )
    def unsorted(data: Any, segment_ids: Any, num_segments: Any, name: str | None = None) -> Any:
        ids = tensor(segment_ids, "segment_ids")
        return function(tensor(data, "data"), ids, num_segments, name=name)

    return unsorted


unsorted_segment_sum = _unsorted(indexing.unsorted_segment_sum, "UnsortedSegmentSum")
unsorted_segment_max = _unsorted(segment.unsorted_segment_max, "UnsortedSegmentMax")
unsorted_segment_min = _unsorted(segment.unsorted_segment_min, "UnsortedSegmentMin")
unsorted_segment_prod = _unsorted(segment.unsorted_segment_prod, "UnsortedSegmentProd")
unsorted_segment_mean = _unsorted(segment.unsorted_segment_mean, "UnsortedSegmentMean")
unsorted_segment_sqrt_n = _unsorted(segment.unsorted_segment_sqrt_n, "UnsortedSegmentSqrtN")


def _sorted(function: Callable[..., Any], default: str, fill_zero: bool) -> Callable[..., Any]:
    """fill_zero: segments without rows are 0, unlike those of the unsorted function."""

    @scoped(default)
    @titled(
        function.__name__.removeprefix("unsorted_"),
        f"{default}: rows of ``data`` by ascending segment ids, gaps included.",
    )
    def over_segments(data: Any, segment_ids: Any, name: str | None = None) -> Any:
        data, ids = tensor(data, "data"), tensor(segment_ids, "segment_ids")
        count = _segment_count(ids)
        if not fill_zero:
            return function(data, ids, count, name=name)
        rows = indexing.unsorted_segment_sum(ones_like(ids), ids, count)
        found = function(data, ids, count)
        rows = add_last_axes(rows, (data.type.rank or 1) - 1)
        return select(greater(rows, 0), found, 0, name=name)

    return over_segments


def _segment_count(ids: Any) -> Any:
    """The last id + 1. Errors: InvalidArgumentError for known ids that are not ascending."""
    known = constant_value(ids)
    if known is not None:
        if known.ndim != 1 or (np.diff(known) < 0).any() or (known < 0).any():
            raise InvalidArgumentError(
                "segment ids are not increasing", received={"segment_ids": ids.type},
                hint="tf.unsorted_segment_sum takes ids in any order",
            )  # fmt: skip
        return int(known[-1]) + 1 if known.size else 0
    ids.type.require_rank(1)
    return counted.extent_of(reduce_max(ids) + 1)


segment_sum = _sorted(indexing.unsorted_segment_sum, "SegmentSum", False)
segment_mean = _sorted(segment.unsorted_segment_mean, "SegmentMean", False)
segment_prod = _sorted(segment.unsorted_segment_prod, "SegmentProd", False)
segment_max = _sorted(segment.unsorted_segment_max, "SegmentMax", True)
segment_min = _sorted(segment.unsorted_segment_min, "SegmentMin", True)


# ---------------------------------------------------------------------- order


class TopKV2(NamedTuple):
    values: Any
    indices: Any


class Unique(NamedTuple):
    y: Any
    idx: Any


class UniqueWithCounts(NamedTuple):
    y: Any
    idx: Any
    count: Any


@scoped("TopKV2")
def top_k(input: Any, k: Any = 1, sorted: bool = True, name: str | None = None) -> TopKV2:
    """The k largest elements of the last axis, largest first, and their positions."""
    return TopKV2(*sorting.top_k(tensor(input, "input"), k, name))


@scoped("in_top_k")
def in_top_k(predictions: Any, targets: Any, k: Any, name: str | None = None) -> Any:
    """Whether each row's target is among its k largest; ties at the border count as inside."""
    scores, classes = tensor(predictions, "predictions"), tensor(targets, "targets")
    extent: Any = scores.type.shape[1]
    inside = logical_and(greater(classes + 1, 0), less(classes, extent))
    own = sorting.take_along(scores, expand_dims(select(inside, classes, 0), 1))
    better = reduce_sum(cast(greater(scores, own), int32), 1)
    finite = reduce_all(rounding.is_finite(scores), 1)
    return logical_and(logical_and(less(better, k), finite), inside, name=name)


def _direction(direction: str) -> bool:
    if direction not in ("ASCENDING", "DESCENDING"):
        raise InvalidArgumentError(
            f"Unknown sort direction {direction!r}", choices=["ASCENDING", "DESCENDING"]
        )
    return direction == "DESCENDING"


def _on_last_axis(x: Any, axis: Any, function: Callable[[Any], Any]) -> Any:
    axis = static_int(axis, "axis")
    rank = x.type.rank
    if rank is None or rank == 0:
        raise ShapeError("needs an input of known rank 1 or more", received={"values": x.type})
    axis += rank if axis < 0 else 0
    if axis == rank - 1:
        return function(x)
    from tinyflow.ops.movement import transpose

    order = [d for d in range(rank) if d != axis] + [axis]
    back = [order.index(d) for d in range(rank)]
    return transpose(function(transpose(x, order)), back)


@scoped("sort")
def sort(
    values: Any, axis: Any = -1, direction: str = "ASCENDING", name: str | None = None
) -> Any:
    """Elements along ``axis`` in order, equal ones in place; NaN last."""
    down = _direction(direction)
    found = _on_last_axis(tensor(values), axis, lambda x: sorting.sort(x, down))
    return identity(found, name=name)


@scoped("argsort")
def argsort(
    values: Any, axis: Any = -1, direction: str = "ASCENDING", stable: bool = False,
    name: str | None = None,
) -> Any:  # fmt: skip
    """Positions that sort ``values`` along ``axis``, always stable."""
    down = _direction(direction)
    found = _on_last_axis(tensor(values), axis, lambda x: sorting.argsort(x, down))
    return identity(found, name=name)


@scoped("Unique")
def unique(x: Any, out_idx: Any = int32, name: str | None = None) -> Unique:
    """Distinct elements of a vector in order of first appearance, and where each element's is."""
    values, inverse, _ = counted.unique(tensor(x, "x"))
    return Unique(identity(values, name=name), cast(inverse, as_dtype(out_idx)))


@scoped("UniqueWithCounts")
def unique_with_counts(x: Any, out_idx: Any = int32, name: str | None = None) -> UniqueWithCounts:
    """``unique``, and how often each distinct element occurs."""
    values, inverse, count = counted.unique(tensor(x, "x"))
    kind = as_dtype(out_idx)
    return UniqueWithCounts(identity(values, name=name), cast(inverse, kind), cast(count, kind))


# ---------------------------------------------------------------------- masks and positions


def boolean_mask(tensor: Any, mask: Any, name: str | None = None, axis: Any = None) -> Any:
    """The elements (or slices) where ``mask`` is true, in order.

    mask: bool, of the shape of some axes of ``tensor`` from ``axis`` on
    """
    from tinyflow.frontends.tf1.convert import tensor as as_tensor

    graph = graph_of(tensor, mask)
    with graph.as_default(), graph.name_scope(name or "boolean_mask"):
        x, flags = as_tensor(tensor, "tensor"), as_tensor(mask, "mask")
        first = 0 if axis is None else static_int(axis, "axis")
        width = flags.type.rank
        if not width:
            raise ShapeError("boolean_mask: mask cannot be scalar.")
        if x.type.shape is not None and flags.type.shape is not None:
            from tinyflow.core.shape import merge_shapes

            merge_shapes(x.type.shape[first : first + width], flags.type.shape)
        if width > 1:
            from tinyflow.frontends.tf1.embedding import _extents

            extents = _extents(x)
            x = reshape(x, [*extents[:first], -1, *extents[first + width :]])
            flags = reshape(flags, (-1,))
        return indexing.gather(x, counted.true_positions(flags), first)


@scoped("Where")
def where_true(condition: Any, name: str | None = None) -> Any:
    """int64[count, rank]: the indices of the true elements (``tf.where`` with one argument)."""
    return counted.where_true(tensor(condition, "condition"), name)


@scoped("SequenceMask")
def sequence_mask(
    lengths: Any, maxlen: Any = None, dtype: Any = bool_, name: str | None = None
) -> Any:
    """mask[..., t] = t < lengths[...]; ``maxlen`` is the largest length unless given."""
    lengths = tensor(lengths, "lengths")
    longest = reduce_max(lengths) if maxlen is None else maxlen
    if hasattr(longest, "as_value") or hasattr(longest, "node"):
        longest = tensor(longest)
        if not isinstance(symbolic_value(longest), (int, Dim)):
            longest = counted.extent_of(maximum(longest, 0))
    positions = cast(arange(0, longest), lengths.dtype)
    mask = less(positions, expand_dims(lengths, -1))
    kind = as_dtype(dtype)
    return identity(mask, name=name) if kind is bool_ else cast(mask, kind, name)


def reverse_sequence(
    input: Any, seq_lengths: Any, seq_axis: Any = None, batch_axis: Any = None,
    name: str | None = None, seq_dim: Any = None, batch_dim: Any = None,
) -> Any:  # fmt: skip
    """Each row reversed up to its own length."""
    time = one_of(seq_axis, seq_dim, "seq_axis", "seq_dim", "reverse_sequence")
    batch = one_of(batch_axis, batch_dim, "batch_axis", "batch_dim", "reverse_sequence")
    if time is None:
        raise InvalidArgumentError("reverse_sequence: seq_axis is missing")
    x, lengths = tensor(input, "input"), tensor(seq_lengths, "seq_lengths")
    return cumulative.reverse_sequence(x, lengths, time, batch or 0, name or "ReverseSequence")


@scoped("Cumsum")
def cumsum(
    x: Any, axis: Any = 0, exclusive: bool = False, reverse: bool = False, name: str | None = None
) -> Any:
    """Running sums along ``axis``."""
    return cumulative.cumsum(tensor(x, "x"), static_int(axis, "axis"), exclusive, reverse, name)


@scoped("Cumprod")
def cumprod(
    x: Any, axis: Any = 0, exclusive: bool = False, reverse: bool = False, name: str | None = None
) -> Any:
    """Running products along ``axis``."""
    return cumulative.cumprod(tensor(x, "x"), static_int(axis, "axis"), exclusive, reverse, name)


@scoped("GatherNd")
def gather_nd_(
    params: Any, indices: Any, name: str | None = None, batch_dims: int = 0
) -> Any:
    """Slices of ``params`` at tuples of positions."""
    if batch_dims:
        raise Unsupported("gather_nd: batch_dims", hint="put the batch index into the indices")
    return nd_positions.gather_nd(tensor(params, "params"), tensor(indices, "indices"), name)


@scoped("ScatterNd")
def scatter_nd(indices: Any, updates: Any, shape: Any, name: str | None = None) -> Any:
    """Zeros of ``shape`` with ``updates`` added at tuples of positions."""
    from tinyflow.frontends.tf1.convert import extents

    places, rows = tensor(indices, "indices"), tensor(updates, "updates")
    return nd_positions.scatter_nd(places, rows, extents(shape), name)


def dynamic_partition(
    data: Any, partitions: Any, num_partitions: int, name: str | None = None
) -> list[Any]:
    """The rows of ``data`` by their partition: a list of tensors, order kept within each."""
    graph = graph_of(data, partitions)
    with graph.as_default(), graph.name_scope(name or "DynamicPartition"):
        x, owner = tensor(data, "data"), tensor(partitions, "partitions")
        return [boolean_mask(x, equal(owner, n)) for n in range(int(num_partitions))]


@scoped("DynamicStitch")
def dynamic_stitch(indices: Any, data: Any, name: str | None = None) -> Any:
    """y[indices[m][i]] = data[m][i]: the inverse of ``dynamic_partition``; later parts win.

    Rows that no index names are 0.
    """
    places = [tensor(i, "indices") for i in indices]
    flat = joined([reshape(i, (-1,)) for i in places], 0)
    rest: Any = None
    parts = []
    for place, part in zip(places, tensors(data, "data"), strict=True):
        rest = part.type.shape[place.type.rank :]
        parts.append(reshape(part, (-1, *rest)))
    known = [constant_value(p) for p in places]
    if all(k is not None for k in known):
        count: Any = max((int(k.max()) + 1 for k in known if k.size), default=0)  # type: ignore[union-attr]
    else:
        count = counted.extent_of(reduce_max(flat) + 1)
    rows = joined(parts, 0)
    start = zeros([count, *rest], rows.dtype)
    return emit(indexing.TensorScatter("update"), start, flat, rows, name=name)


@scoped("InvertPermutation")
def invert_permutation(x: Any, name: str | None = None) -> Any:
    """y[x[i]] = i."""
    x = tensor(x, "x")
    numbers = cast(arange(0, shape_of(x)[0]), x.dtype)
    return emit(indexing.TensorScatter("update"), zeros_like(x), x, numbers, name=name)


# ---------------------------------------------------------------------- counting


@scoped("bincount")
def bincount(
    arr: Any, weights: Any = None, minlength: Any = None, maxlength: Any = None,
    dtype: Any = int32, name: str | None = None,
) -> Any:  # fmt: skip
    """How often (or with which total weight) each of 0, 1, 2 ... occurs; values too large are left
    out when ``maxlength`` is given."""
    numbers = reshape(cast(tensor(arr, "arr"), int32), (-1,))
    size = reduce_max(numbers) + 1
    if minlength is not None:
        size = maximum(size, minlength)
    if maxlength is not None:
        size = minimum(size, maxlength)
    same = type(minlength) is int and minlength == maxlength
    extent = minlength if same else counted.extent_of(maximum(size, 0))
    inside = less(numbers, extent)
    ids = select(inside, numbers, -1)
    counts = ones_like(numbers, as_dtype(dtype)) if weights is None else reshape(
        tensor(weights, "weights"), (-1,)
    )
    return indexing.unsorted_segment_sum(counts, ids, extent, name=name)


@scoped("histogram_fixed_width_bins")
def histogram_fixed_width_bins(
    values: Any, value_range: Any, nbins: Any = 100, dtype: Any = int32, name: str | None = None
) -> Any:
    """The number of the bin of each element; what lies outside counts to the outermost bins."""
    x = tensor(values, "values")
    limits = cast(tensor(value_range, "value_range"), x.dtype)
    share = (x - limits[0]) / (limits[1] - limits[0])
    last = static_int(nbins, "nbins")
    bins = rounding.floor(share * float(last))
    bins = minimum(maximum(cast(bins, int32), 0), last - 1)
    return cast(bins, as_dtype(dtype), name)


@scoped("histogram_fixed_width")
def histogram_fixed_width(
    values: Any, value_range: Any, nbins: Any = 100, dtype: Any = int32, name: str | None = None
) -> Any:
    """How many elements fall into each of ``nbins`` bins of equal width."""
    bins = reshape(histogram_fixed_width_bins(values, value_range, nbins), (-1,))
    ones = ones_like(bins, as_dtype(dtype))
    return indexing.unsorted_segment_sum(ones, bins, static_int(nbins, "nbins"), name=name)


__all__ = [
    "argsort", "bincount", "boolean_mask", "cumprod", "cumsum", "histogram_fixed_width",
    "in_top_k", "reverse_sequence", "segment_max", "segment_mean", "segment_min", "segment_prod",
    "segment_sum", "sequence_mask", "sort", "top_k", "unique", "unique_with_counts", "where_true",
]  # fmt: skip
