"""Learning rates that change with the step: ``tf.train.exponential_decay`` and its kin.

Main functions: ``exponential_decay``, ``piecewise_constant``, ``polynomial_decay`` ...
May import core, ops, convert. Every result is a tensor: a new rate recompiles nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyflow.core.error import DTypeError, InvalidArgumentError
from tinyflow.core.titled import titled
from tinyflow.frontends.tf1.array_functions import cast
from tinyflow.frontends.tf1.convert import convert_to_tensor, graph_of, is_tensor, scoped, tensor
from tinyflow.ops.comparison import equal, less_equal
from tinyflow.ops.convert import identity
from tinyflow.ops.elementwise import exp, minimum
from tinyflow.ops.logical import select
from tinyflow.ops.rounding import ceil, floor
from tinyflow.ops.special import cos, power

__all__ = [
    "cosine_decay", "exponential_decay", "inverse_time_decay", "natural_exp_decay",
    "piecewise_constant", "polynomial_decay",
]  # fmt: skip


def _progress(learning_rate: Any, global_step: Any, decay_steps: Any) -> tuple[Any, Any, Any]:
    """The rate, the step and the number of steps as tensors of one floating dtype."""
    if global_step is None:
        raise InvalidArgumentError("global_step is required for the decay of a learning rate.",
                                   hint="tf.train.get_or_create_global_step()")  # fmt: skip
    rate = tensor(learning_rate, "learning_rate")
    return rate, _like(global_step, rate), _like(decay_steps, rate)


def _like(value: Any, rate: Any) -> Any:
    return cast(tensor(value), rate.dtype) if is_tensor(value) else convert_to_tensor(
        float(value), rate.dtype
    )


def _decay(name: str, default: str, formula: str, decayed: Callable[..., Any]) -> Any:
    """decayed(rate, decay rate, share): the new rate; share is global_step / decay_steps."""

    @scoped(default)
    @titled(name, f"{formula}, the quotient rounded down for ``staircase``.")
    def decay(
        learning_rate: Any, global_step: Any, decay_steps: Any, decay_rate: Any,
        staircase: bool = False, name: str | None = None,
    ) -> Any:  # fmt: skip
        rate, step, steps = _progress(learning_rate, global_step, decay_steps)
        share = floor(step / steps) if staircase else step / steps
        return identity(decayed(rate, _like(decay_rate, rate), share), name=name)

    return decay


exponential_decay = _decay(
    "exponential_decay", "ExponentialDecay",
    "learning_rate * decay_rate ** (global_step / decay_steps)",
    lambda rate, decay, share: rate * power(decay, share),
)  # fmt: skip
natural_exp_decay = _decay(
    "natural_exp_decay", "NaturalExpDecay",
    "learning_rate * exp(-decay_rate * (global_step / decay_steps))",
    lambda rate, decay, share: rate * exp(-decay * share),
)  # fmt: skip
inverse_time_decay = _decay(
    "inverse_time_decay", "InverseTimeDecay",
    "learning_rate / (1 + decay_rate * (global_step / decay_steps))",
    lambda rate, decay, share: rate / (1.0 + decay * share),
)  # fmt: skip


@scoped("PolynomialDecay")
def polynomial_decay(
    learning_rate: Any, global_step: Any, decay_steps: Any, end_learning_rate: Any = 0.0001,
    power: Any = 1.0, cycle: bool = False, name: str | None = None,
) -> Any:  # fmt: skip
    """(learning_rate - end) * (1 - step / decay_steps) ** power + end, step at most decay_steps.

    cycle: decay_steps grows to the next multiple above the step instead.
    """
    from tinyflow.ops.special import power as raised

    rate, step, steps = _progress(learning_rate, global_step, decay_steps)
    end = _like(end_learning_rate, rate)
    if cycle:
        steps = steps * select(equal(step, 0.0), 1.0, ceil(step / steps))
    else:
        step = minimum(step, steps)
    p = step / steps
    return identity((rate - end) * raised(1.0 - p, _like(power, rate)) + end, name=name)


@scoped("CosineDecay")
def cosine_decay(
    learning_rate: Any, global_step: Any, decay_steps: Any, alpha: float = 0.0,
    name: str | None = None,
) -> Any:  # fmt: skip
    """learning_rate * ((1 - alpha) * (1 + cos(pi step / decay_steps)) / 2 + alpha)."""
    rate, step, steps = _progress(learning_rate, global_step, decay_steps)
    done = minimum(step, steps) / steps
    share = 0.5 * (1.0 + cos(math.pi * done))
    return identity(rate * ((1.0 - alpha) * share + alpha), name=name)


def piecewise_constant(x: Any, boundaries: Any, values: Any, name: str | None = None) -> Any:
    """values[0] for x <= boundaries[0], values[1] up to boundaries[1] ... the last value above.

    Errors: InvalidArgumentError when there is not one value more than boundaries, DTypeError
    """
    boundaries, values = list(boundaries), list(values)
    if len(boundaries) != len(values) - 1:
        raise InvalidArgumentError(
            "The length of boundaries should be 1 less than the length of values",
            received={"boundaries": len(boundaries), "values": len(values)},
        )
    graph = graph_of(x, *values)
    with graph.as_default(), graph.name_scope(name or "PiecewiseConstant") as scope:
        x = tensor(x)
        limits = [_limit(b, x) for b in boundaries]
        result = tensor(values[-1])
        for limit, value in zip(reversed(limits), reversed(values[:-1]), strict=True):
            chosen = tensor(value)
            if chosen.dtype is not result.dtype:
                raise DTypeError(
                    f"Values must have elements all with the same dtype "
                    f"({chosen.dtype} and {result.dtype})."
                )
            result = select(less_equal(x, limit), chosen, result)
        return identity(result, name=scope)


def _limit(boundary: Any, x: Any) -> Any:
    """A boundary in the dtype of x: an integer step takes whole float boundaries."""
    if is_tensor(boundary):
        return tensor(boundary) if boundary.dtype is x.dtype else cast(tensor(boundary), x.dtype)
    if x.dtype.is_integer and float(boundary) != int(boundary):
        raise DTypeError(
            f"Boundaries ({boundary}) must have the same dtype as x ({x.dtype}).",
            expected="whole numbers",
        )
    return convert_to_tensor(np.asarray(boundary, x.dtype.numpy))
