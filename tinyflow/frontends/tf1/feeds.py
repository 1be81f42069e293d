"""What ``Session.run`` was given: values for placeholders and for any other tensor.

Main type: ``Feed`` (one fed tensor: conversion and checks). May import core, elements, fetches.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyflow.core.error import DTypeError, InvalidArgumentError, ShapeError, TinyFlowError
from tinyflow.core.shape import Shape
from tinyflow.frontends.tf1.elements import Tensor
from tinyflow.frontends.tf1.fetches import FetchTypeError
from tinyflow.frontends.tf1.tensor_shape import text_of
from tinyflow.ir.graph.nodes import Value

__all__ = ["Feed", "flatten_feeds"]


class Feed:
    """One fed tensor: how its values become arrays."""

    __slots__ = ("numpy_dtype", "shape", "tensor")

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.numpy_dtype = tensor.dtype.numpy
        self.shape = tensor.type.shape

    def convert(self, value: Any) -> np.ndarray:
        """``value`` as a C-ordered array of the tensor's dtype.

        Errors: TypeError for tensors and for numbers out of range, ValueError for what is no
        rectangular array of numbers.
        """
        if type(value) is np.ndarray and value.dtype == self.numpy_dtype:
            return np.ascontiguousarray(value) if value.ndim else value
        if isinstance(value, Value) or hasattr(value, "as_value"):
            raise self._symbolic(value)
        try:
            array = np.asarray(value, dtype=self.numpy_dtype, order="C")
        except OverflowError:
            raise self._out_of_range(value) from None
        except (ValueError, TypeError) as error:
            raise self._no_array(value, error) from None
        if isinstance(value, int) and not isinstance(value, bool) and int(array) != value:
            raise self._out_of_range(value)
        return array

    def check_shape(self, shape: tuple[int, ...], value: Any = None) -> None:
        """Errors: ShapeError unless ``shape`` fits the tensor's static shape."""
        static = self.shape
        if static is None:
            return
        if len(static) == len(shape) and all(
            type(want) is not int or want == got for want, got in zip(static, shape, strict=True)
        ):
            return
        raise ShapeError(
            f"Cannot feed value of shape {shape} for Tensor '{self.tensor.name}', which has "
            f"shape '{text_of(static)}'",
            source=self.tensor.node.source,
            hint=shape_hint(static, shape),
        )

    def _symbolic(self, value: Any) -> TinyFlowError:
        return FetchTypeError(
            "The value of a feed cannot be a tf.Tensor object. Acceptable feed values include "
            f"Python scalars, strings, lists, numpy ndarrays. For reference, the tensor object "
            f"was {value} which was passed to the feed with key {self.tensor}.",
            source=self.tensor.node.source,
            hint="run it first, value = sess.run(tensor), or build the graph on it directly",
        )

    def _out_of_range(self, value: Any) -> TinyFlowError:
        return DTypeError(
            f"Type of feed value {value} with type {type(value)} is not compatible with Tensor "
            f"type {self.tensor.dtype}. Try explicitly setting the type of the feed tensor to a "
            "larger type (e.g. int64).",
            received={self.tensor.name: self.tensor.type},
            source=self.tensor.node.source,
            expected=f"a value from {self.tensor.dtype.min} to {self.tensor.dtype.max}",
            hint="declare the placeholder with tf.int64",
        )

    def _no_array(self, value: Any, error: Exception) -> TinyFlowError:
        hint = None
        if isinstance(value, dict):
            hint = "a dictionary was fed; feed one tensor per entry"
        elif _is_ragged(value):
            hint = "the rows have different lengths; pad them to one length"
        elif _holds_value(value):
            hint = "the list contains tensors; run them first or use tf.stack in the graph"
        elif isinstance(value, (str, bytes)):
            hint = "text was fed to a numeric tensor; convert it first, e.g. float(text)"
        return InvalidArgumentError(
            f"Cannot convert the value fed for Tensor '{self.tensor.name}' to an array of "
            f"{self.tensor.dtype}: {error}",
            received={"value": type(value).__name__, self.tensor.name: self.tensor.type},
            source=self.tensor.node.source,
            hint=hint,
        )


def shape_hint(static: Shape, shape: tuple[int, ...]) -> str | None:
    """The likely repair of a fed value of the wrong shape."""
    assert static is not None

    def fits(candidate: tuple[int, ...]) -> bool:
        return len(candidate) == len(static) and all(
            type(w) is not int or w == g for w, g in zip(static, candidate, strict=True)
        )

    if fits((1, *shape)):
        return (
            "one example without its batch dimension: feed value[None] (np.expand_dims(value, 0))"
        )
    if fits((*shape, 1)):
        return "feed one value per row: value.reshape(-1, 1)"
    if len(shape) > 1 and shape[-1] == 1 and fits(shape[:-1]):
        return "feed value.reshape(-1), without the last dimension of 1"
    if shape and shape[0] == 1 and fits(shape[1:]):
        return "feed value[0], without the batch dimension"
    if len(shape) == 2 and fits(shape[::-1]):
        return "feed the transpose, value.T"
    size = int(np.prod(shape))
    if len(static) < len(shape) and static:
        known = [d for d in static if type(d) is int]
        rest = int(np.prod(known)) if known else 1
        if (
            len(static) - len(known) <= 1
            and rest
            and size % rest == 0
            and (len(known) < len(static) or rest == size)
        ):
            target = ", ".join("-1" if type(d) is not int else str(d) for d in static)
            return f"feed value.reshape({target})"
    return None


def _is_ragged(value: Any) -> bool:
    if not isinstance(value, (list, tuple)):
        return False
    lengths = {
        len(v) if hasattr(v, "__len__") and not isinstance(v, (str, bytes)) else -1 for v in value
    }
    return len(lengths) > 1 or any(_is_ragged(v) for v in value)


def _holds_value(value: Any) -> bool:
    return isinstance(value, Value) or (
        isinstance(value, (list, tuple)) and any(_holds_value(v) for v in value)
    )


def flatten_feeds(feed_dict: Any) -> tuple[list[Any], list[Any]]:
    """Keys and values; a tuple of tensors as key takes a tuple of values."""
    if not isinstance(feed_dict, dict):
        raise FetchTypeError(
            f"feed_dict: input must be a dictionary, got {type(feed_dict).__name__}",
            expected="{placeholder: value, ...}",
            hint="sess.run(y, feed_dict={x: value})",
        )
    keys: list[Any] = []
    values: list[Any] = []
    for key, value in feed_dict.items():
        if isinstance(key, tuple):
            if len(key) != len(value):
                raise InvalidArgumentError(
                    f"feed_dict: a key of {len(key)} tensors has {len(value)} values"
                )
            keys += key
            values += value
        elif hasattr(key, "feed_parts"):  # one key that stands for several tensors
            own_keys, own_values = key.feed_parts(value)
            keys += own_keys
            values += own_values
        else:
            keys.append(key)
            values.append(value)
    return keys, values
