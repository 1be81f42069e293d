"""``tf.contrib.layers``: the layers that ``tf.layers`` has not.

Main functions: ``layer_norm``. May import core, ops, variable_scope.
"""

from __future__ import annotations

from typing import Any

from tinyflow.core.dtype import float16
from tinyflow.core.error import InvalidArgumentError
from tinyflow.frontends.tf1.convert import tensor
from tinyflow.frontends.tf1.initializers import Ones, Zeros
from tinyflow.frontends.tf1.variable_scope import get_variable, variable_scope
from tinyflow.ops import normalization


def layer_norm(
    inputs: Any, center: bool = True, scale: bool = True, activation_fn: Any = None,
    reuse: Any = None, variables_collections: Any = None, outputs_collections: Any = None,
    trainable: bool = True, begin_norm_axis: int = 1, begin_params_axis: int = -1,
    scope: Any = None,
) -> Any:  # fmt: skip
    """Each example normalised over its axes from ``begin_norm_axis`` on, scaled and moved.

    Variables: LayerNorm/beta, LayerNorm/gamma, of the axes from ``begin_params_axis`` on.
    Errors: InvalidArgumentError for axes outside the rank, or parameters of unknown extent
    """
    x = tensor(inputs)
    rank = x.type.rank
    if rank is None:
        raise InvalidArgumentError("layer_norm: Inputs has undefined rank.")
    first = begin_norm_axis + rank if begin_norm_axis < 0 else begin_norm_axis
    params = begin_params_axis + rank if begin_params_axis < 0 else begin_params_axis
    if not (0 <= first < rank and 0 <= params < rank):
        raise InvalidArgumentError(
            f"layer_norm: begin_norm_axis {begin_norm_axis} and begin_params_axis "
            f"{begin_params_axis} of a rank {rank} input",
            expected=f"axes below {rank}",
        )
    shape = x.type.shape[params:]
    if any(type(d) is not int for d in shape):
        raise InvalidArgumentError(f"layer_norm: shape {x.type} is not fully defined from axis "
                                   f"{params} on")  # fmt: skip
    with variable_scope(scope, "LayerNorm", [x], reuse=reuse):
        beta = gamma = None
        if center:
            beta = get_variable("beta", shape, x.dtype, Zeros, trainable=trainable).as_value()
        if scale:
            gamma = get_variable("gamma", shape, x.dtype, Ones, trainable=trainable).as_value()
        epsilon = 1e-3 if x.dtype is float16 else 1e-12
        axes = tuple(range(first, rank))
        y = normalization.layer_norm(x, gamma, beta, axes, epsilon, "batchnorm/add_1")
        return y if activation_fn is None else activation_fn(y)
