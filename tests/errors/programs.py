"""Small wrong programs: what is said about each, when it is built and when only a run can know.

Main value: ``PROGRAMS``. ``p(2, 3)`` in a program is a placeholder of that shape; a test decides
whether the graph knows the shape, or sees it first in the feed. ``i`` makes integers, ``b`` bools.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tinyflow as tf


@dataclass(frozen=True)
class Wrong:
    """texts: parts of the message. dynamic: whether a run without known shapes fails as well."""

    program: Callable[..., Any]
    texts: tuple[str, ...]
    error: type[Exception] = ValueError
    dynamic: bool = True
    shapes: bool = True  # the message shows the types of all placeholders


def wrong(program, *texts, error=ValueError, dynamic=True, shapes=True):
    return Wrong(program, texts, error, dynamic, shapes)


def static(program, *texts, error=ValueError, shapes=True):
    """Known when the graph is built even if no extent is: a dtype, an argument."""
    return Wrong(program, texts, error, False, shapes)


PROGRAMS: dict[str, Wrong] = {
    # ------------------------------------------------ products
    "matmul": wrong(lambda p: tf.matmul(p(2, 3), p(4, 5)), "inner dimensions", "3 and 4"),
    "matmul transposed": wrong(lambda p: tf.matmul(p(2, 3), p(5, 3)), "transpose_b=True"),
    "matmul flags": wrong(lambda p: tf.matmul(p(2, 3), p(3, 5), transpose_a=True), "2 and 3"),
    "matmul of a vector": static(lambda p: tf.matmul(p(2, 3), p(3)), "rank", "expand_dims"),
    "operator @": wrong(lambda p: p(2, 3) @ p(2, 4), "inner dimensions"),
    "batches": wrong(lambda p: tf.matmul(p(2, 4, 3), p(5, 3, 4)), "2", "5"),
    "batched inner": wrong(lambda p: tf.matmul(p(2, 4, 3), p(2, 5, 4)), "3 and 5"),
    "tensordot": wrong(lambda p: tf.tensordot(p(2, 3), p(4, 5), 1), "3", "4", shapes=False),
    "xw_plus_b": wrong(lambda p: tf.nn.xw_plus_b(p(2, 3), p(3, 4), p(5)), "4", "5", shapes=False),
    "xw inner": wrong(lambda p: tf.nn.xw_plus_b(p(2, 3), p(7, 4), p(4)), "3 and 7", shapes=False),
    # ------------------------------------------------ element by element
    "add": wrong(lambda p: p(2, 3) + p(4, 3), "do not broadcast", "2 against 4"),
    "sub": wrong(lambda p: p(2, 3) - p(2), "do not broadcast"),
    "mul of columns": wrong(lambda p: p(4, 3) * p(4), "tf.expand_dims(y, 1)"),
    "div": wrong(lambda p: p(5) / p(4, 3), "do not broadcast"),
    "pow": wrong(lambda p: p(2, 3) ** p(3, 2), "tf.transpose"),
    "floordiv": wrong(lambda p: p(2, 3) // p(2, 2), "do not broadcast"),
    "maximum": wrong(lambda p: tf.maximum(p(2, 3), p(3, 3)), "2 against 3"),
    "squared_difference": wrong(lambda p: tf.squared_difference(p(6), p(5)), "6 against 5"),
    "less": wrong(lambda p: p(2, 3) < p(2, 4), "3 against 4"),
    "equal": wrong(lambda p: tf.equal(p(2), p(3)), "2 against 3"),
    "logical_and": wrong(
        lambda p: tf.logical_and(p(2) > 0.0, p(3) > 0.0),
        "broadcast", shapes=False,
    ),
    "add_n": wrong(lambda p: tf.add_n([p(2, 3), p(2, 3), p(3, 2)]), "[3, 2]"),
    "where": wrong(lambda p: tf.where(p(2, 3) > 0.0, p(2, 4), p(2, 4)), "broadcast", shapes=False),
    "clip": wrong(lambda p: tf.clip_by_value(p(2, 3), p(4), 1.0), "broadcast", shapes=False),
    # ------------------------------------------------ shapes
    "reshape": wrong(lambda p: tf.reshape(p(2, 3), [4, 2]), "6", "8"),
    "reshape to rows": wrong(lambda p: tf.reshape(p(2, 3), [-1, 4]), "6", "4"),
    "squeeze": wrong(lambda p: tf.squeeze(p(2, 3), 0), "2"),
    "concat": wrong(lambda p: tf.concat([p(2, 3), p(4, 5)], 0), "3", "5"),
    "stack": wrong(lambda p: tf.stack([p(2, 3), p(2, 4)]), "tf.concat"),
    "slice": wrong(lambda p: tf.slice(p(2, 3), [0, 2], [2, 2]), "3"),
    "index": wrong(lambda p: p(2, 3)[5], "5", "2"),
    "negative index": wrong(lambda p: p(2, 3)[0, -4], "-4"),
    "broadcast_to": wrong(lambda p: tf.broadcast_to(p(2, 3), [2, 4]), "3", "4"),
    "split sizes": wrong(lambda p: tf.split(p(6), [2, 2])[0], "6", dynamic=False),
    "set shape": wrong(lambda p: p(2, 3).set_shape([2, 4]), "differ", dynamic=False, shapes=False),
    # ------------------------------------------------ losses
    "cross entropy": wrong(
        lambda p: tf.nn.softmax_cross_entropy_with_logits_v2(p(2, 3), p(2, 4)), "3", "4"
    ),
    "cross entropy rows": wrong(
        lambda p: tf.nn.softmax_cross_entropy_with_logits_v2(p(5, 3), p(2, 3)), "5", "2"
    ),
    "sparse labels": wrong(
        lambda p, i: tf.nn.sparse_softmax_cross_entropy_with_logits(labels=i(3), logits=p(2, 5)),
        "3", "2",
    ),
    "sparse one-hot": static(
        lambda p, i: tf.nn.sparse_softmax_cross_entropy_with_logits(labels=i(2, 5), logits=p(2, 5)),
        "labels",
    ),
    "sigmoid cross entropy": static(
        lambda p: tf.nn.sigmoid_cross_entropy_with_logits(labels=p(2), logits=p(2, 1)), "[2]"
    ),
    "bias_add": wrong(lambda p: tf.nn.bias_add(p(2, 3), p(2)), "3", "2"),
    # ------------------------------------------------ variables
    "assign": wrong(
        lambda p: tf.assign(tf.Variable(tf.zeros([2, 3])), p(3, 2)),
        "[2, 3]", "[3, 2]",
    ),
    "assign_add": wrong(lambda p: tf.assign_add(tf.Variable([1.0, 2.0]), p(3)), "[2]"),
    "scatter": wrong(
        lambda p: tf.scatter_add(tf.Variable(tf.zeros([4, 2])), [0, 1], p(2, 3)),
        "[2, 3]", shapes=False,
    ),
    "grad_ys": static(
        lambda p: tf.gradients(p(2) * 2.0, p(2), grad_ys=p(3)), "[2]", "[3]", shapes=False
    ),
    # ------------------------------------------------ axes: only the rank is needed
    "reduce_sum": static(lambda p: tf.reduce_sum(p(2, 3), 2), "axis 2", "rank 2", error=IndexError),
    "the lecture's parenthesis": static(
        lambda p: tf.reduce_mean(-tf.reduce_sum(p(2, 3)), reduction_indices=[1]),
        "rank 0", "none (the input is a scalar)", "did you mean it for the inner reduce_sum?",
        shapes=False,
    ),
    "argmax": static(lambda p: tf.argmax(p(2, 3), -3), "axis -3", error=IndexError),
    "softmax": static(lambda p: tf.nn.softmax(p(2, 3), axis=4), "axis 4", error=IndexError),
    "expand_dims": static(lambda p: tf.expand_dims(p(2, 3), 4), "4", error=IndexError),
    "concat axis": static(lambda p: tf.concat([p(2, 3), p(2, 3)], 2), "2", error=IndexError),
    "unstack axis": static(
        lambda p: tf.unstack(p(2, 3), axis=3),
        "3", error=IndexError, shapes=False,
    ),
    "transpose": static(lambda p: tf.transpose(p(2, 3), [0, 1, 2]), "rank"),
    "transpose twice": static(lambda p: tf.transpose(p(2, 3), [0, 0]), "permutation"),
    "twice": static(lambda p: tf.reduce_sum(p(2, 3), [0, -2]), "name one axis twice"),
    "tile": static(lambda p: tf.tile(p(2, 3), [2]), "multiples"),
    "pad": static(lambda p: tf.pad(p(2, 3), [[1, 1]]), "paddings"),
    "too many indices": static(lambda p: p(2, 3)[0, 0, 0], "rank 2"),
    "concat ranks": static(lambda p: tf.concat([p(2, 3), p(2)], 0), "rank"),
    # ------------------------------------------------ dtypes
    "add dtypes": static(
        lambda p, i: p(2, 3) + i(2, 3),
        "float32 and int32", "tf.cast", error=TypeError,
    ),
    "float literal": static(
        lambda p, i: i(2, 3) * 1.5, "int32", "1.5", error=TypeError, shapes=False,
    ),
    "matmul dtypes": static(lambda p, i: tf.matmul(p(2, 3), i(3, 4)), "tf.cast", error=TypeError),
    "exp of integers": static(lambda p, i: tf.exp(i(2, 3)), "floating", error=TypeError),
    "sum of bools": static(lambda p: tf.reduce_sum(p(2, 3) > 0.0), "numeric", error=TypeError,
                           shapes=False),
    "not of floats": static(lambda p: ~p(2, 3), "bool", error=TypeError),
    "and of floats": static(lambda p: p(2) & p(2), "bool", error=TypeError),
    "condition": static(
        lambda p, i: tf.where(i(2), p(2), p(2)),
        "bool", error=TypeError, shapes=False,
    ),
    "gather": static(lambda p: tf.gather(p(5, 2), p(3)), "integer", error=TypeError),
    "one_hot": static(lambda p: tf.one_hot(p(3), 4), "integer", error=TypeError),
    "labels": static(
        lambda p: tf.nn.sparse_softmax_cross_entropy_with_logits(labels=p(2), logits=p(2, 3)),
        "integer", error=TypeError,
    ),
    "concat dtypes": static(
        lambda p, i: tf.concat([p(2), i(2)], 0),
        "float32", "int32", error=TypeError,
    ),
    "assign dtype": static(
        lambda p, i: tf.assign(tf.Variable(1.0), i()),
        "tf.cast", error=TypeError,
    ),
    "bool of a tensor": static(
        lambda p: bool(p() > 0.0),
        "no number yet", error=TypeError, shapes=False,
    ),
    "float of a tensor": static(lambda p: float(p()), "sess.run", error=TypeError),
    "loop over a tensor": static(lambda p: list(p(3)), "tf.unstack", error=TypeError),
    "numpy of a tensor": static(lambda p: __import__("numpy").asarray(p(3)), "sess.run",
                                error=TypeError),
    "a list as index": static(lambda p: p(3)[[0, 1]], "tf.gather", error=TypeError, shapes=False),
    # ------------------------------------------------ arguments
    "ragged": static(lambda p: tf.constant([[1, 2], [3]]), "unequal lengths"),
    "None": static(lambda p: p(2) + None, "None is not a value", error=TypeError, shapes=False),
    "text": static(lambda p: p(2) + "one", "'one'", error=TypeError, shapes=False),
    "too many elements": static(lambda p: tf.constant([1, 2, 3], shape=[2]), "Too many elements"),
    "fraction": static(lambda p: tf.constant(1.5, tf.int32), "1.5", error=TypeError),
    "dropout of integers": static(lambda p, i: tf.nn.dropout(i(3), 0.5), "tf.cast", shapes=False),
    "labels by position": static(
        lambda p: tf.nn.softmax_cross_entropy_with_logits(p(2, 3), p(2, 3)), "named arguments",
        shapes=False,
    ),
    "two unknown extents": static(lambda p: tf.reshape(p(2, 3), [-1, -1]), "-1"),
    "zero step": static(lambda p: tf.range(0, 5, 0), "0"),
    "an operation as value": static(lambda p: p() + tf.no_op(), "no value", shapes=False),
}  # fmt: skip

