"""Initial values for variables: ``tf.zeros_initializer()``, ``tf.glorot_uniform_initializer()``.

Main type: ``Initializer``. May import core, convert, array and random functions of this package.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyflow.core.dtype import DType, as_dtype, float32
from tinyflow.core.error import InvalidArgumentError
from tinyflow.core.frames import public_methods
from tinyflow.frontends.tf1 import array_functions as arrays
from tinyflow.frontends.tf1 import random_functions as random
from tinyflow.frontends.tf1.tensor_shape import TensorShape

__all__ = [
    "Constant", "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "Identity",
    "Initializer", "LecunNormal", "LecunUniform", "Ones", "RandomNormal", "RandomUniform",
    "TruncatedNormal", "UniformUnitScaling", "VarianceScaling", "Zeros", "xavier_initializer",
]  # fmt: skip


class Initializer:
    """``initializer(shape, dtype=None)`` gives the initial value's tensor."""

    dtype: DType = float32

    def __call__(self, shape: Any, dtype: Any = None, partition_info: Any = None) -> Any:
        raise NotImplementedError(type(self).__name__)

    def get_config(self) -> dict[str, Any]:
        config = dict(self.__dict__)
        if "dtype" in config:
            config["dtype"] = config["dtype"].name
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Initializer:
        return cls(**config)

    def _dtype(self, dtype: Any) -> DType:
        return self.dtype if dtype is None else as_dtype(dtype)


class Zeros(Initializer):
    """Zeros."""

    def __init__(self, dtype: Any = float32) -> None:
        self.dtype = as_dtype(dtype)

    def __call__(self, shape: Any, dtype: Any = None, partition_info: Any = None) -> Any:
        return arrays.zeros(shape, self._dtype(dtype))


class Ones(Initializer):
    """Ones."""

    def __init__(self, dtype: Any = float32) -> None:
        self.dtype = as_dtype(dtype)

    def __call__(self, shape: Any, dtype: Any = None, partition_info: Any = None) -> Any:
        return arrays.ones(shape, self._dtype(dtype))


@public_methods("__init__")
class Constant(Initializer):
    """A number everywhere, or a list of numbers in row-major order (the last one repeats)."""

    def __init__(self, value: Any = 0, dtype: Any = float32, verify_shape: bool = False) -> None:
        if not (np.isscalar(value) or isinstance(value, (list, tuple, np.ndarray))):
            raise TypeError(
                f"Invalid type for initial value: {type(value)} (expected number, list)"
            )
        self.value = value
        self.dtype = as_dtype(dtype)
        self._verify_shape = verify_shape

    def __call__(
        self, shape: Any, dtype: Any = None, partition_info: Any = None, verify_shape: Any = None
    ) -> Any:
        verify = self._verify_shape if verify_shape is None else verify_shape
        return arrays.constant_v1(self.value, self._dtype(dtype), shape, verify_shape=verify)

    def get_config(self) -> dict[str, Any]:
        return {"value": self.value, "dtype": self.dtype.name}


class RandomUniform(Initializer):
    """Uniform on [minval, maxval)."""

    def __init__(
        self, minval: float = 0, maxval: float | None = None, seed: int | None = None,
        dtype: Any = float32,
    ) -> None:  # fmt: skip
        self.minval, self.maxval, self.seed = minval, maxval, seed
        self.dtype = as_dtype(dtype)

    def __call__(self, shape: Any, dtype: Any = None, partition_info: Any = None) -> Any:
        maxval = 1.0 if self.maxval is None else self.maxval
        return random.random_uniform(shape, self.minval, maxval, self._dtype(dtype), self.seed)


class RandomNormal(Initializer):
    """Normal with the given mean and standard deviation."""

    def __init__(
        self, mean: float = 0.0, stddev: float = 1.0, seed: int | None = None, dtype: Any = float32
    ) -> None:
        self.mean, self.stddev, self.seed = mean, stddev, seed
        self.dtype = as_dtype(dtype)

    def __call__(self, shape: Any, dtype: Any = None, partition_info: Any = None) -> Any:
        return random.random_normal(shape, self.mean, self.stddev, self._dtype(dtype), self.seed)


class TruncatedNormal(RandomNormal):
    """Normal, redrawn beyond two standard deviations."""

    def __call__(self, shape: Any, dtype: Any = None, partition_info: Any = None) -> Any:
        return random.truncated_normal(shape, self.mean, self.stddev, self._dtype(dtype), self.seed)


class UniformUnitScaling(Initializer):
    """Uniform on +-sqrt(3 / inputs) * factor: keeps the scale of the input.

    Source: Sussillo and Abbott, Random Walk Initialization, 2014.
    """

    def __init__(self, factor: float = 1.0, seed: int | None = None, dtype: Any = float32) -> None:
        self.factor, self.seed, self.dtype = factor, seed, as_dtype(dtype)

    def __call__(self, shape: Any, dtype: Any = None, partition_info: Any = None) -> Any:
        extents = _static(shape)
        inputs = max(1.0, math.prod(float(d) for d in extents[:-1]))
        limit = math.sqrt(3 / inputs) * self.factor
        return random.random_uniform(shape, -limit, limit, self._dtype(dtype), self.seed)


@public_methods("__init__")
class VarianceScaling(Initializer):
    """Variance scale / n with n the inputs, the outputs, or their mean.

    mode: "fan_in", "fan_out", "fan_avg".  distribution: "truncated_normal" (also "normal"),
    "untruncated_normal" or "uniform". Sources: Glorot and Bengio 2010; He et al. 2015.
    """

    def __init__(
        self, scale: float = 1.0, mode: str = "fan_in", distribution: str = "truncated_normal",
        seed: int | None = None, dtype: Any = float32,
    ) -> None:  # fmt: skip
        if scale <= 0.0:
            raise InvalidArgumentError("`scale` must be positive float.")
        if mode not in _FANS:
            raise InvalidArgumentError(f"Invalid `mode` argument: {mode}", choices=sorted(_FANS))
        choices = ("normal", "truncated_normal", "uniform", "untruncated_normal")
        if distribution.lower() not in choices:
            raise InvalidArgumentError(
                f"Invalid `distribution` argument: {distribution}", choices=choices
            )
        self.scale, self.mode, self.distribution = scale, mode, distribution.lower()
        self.seed, self.dtype = seed, as_dtype(dtype)

    def __call__(self, shape: Any, dtype: Any = None, partition_info: Any = None) -> Any:
        dtype = self._dtype(dtype)
        full = getattr(partition_info, "full_shape", None) or shape
        scale = self.scale / max(1.0, _FANS[self.mode](*_fans(_static(full))))
        if self.distribution == "uniform":
            limit = math.sqrt(3.0 * scale)
            return random.random_uniform(shape, -limit, limit, dtype, seed=self.seed)
        if self.distribution == "untruncated_normal":
            return random.random_normal(shape, 0.0, math.sqrt(scale), dtype, seed=self.seed)
        # Cutting at two standard deviations takes variance away; this constant gives it back.
        stddev = math.sqrt(scale) / 0.87962566103423978
        return random.truncated_normal(shape, 0.0, stddev, dtype, seed=self.seed)


_FANS = {
    "fan_in": lambda inputs, outputs: inputs,
    "fan_out": lambda inputs, outputs: outputs,
    "fan_avg": lambda inputs, outputs: (inputs + outputs) / 2,
}


def _static(shape: Any) -> list[int]:
    extents = TensorShape(shape).as_list()
    if None in extents:
        raise InvalidArgumentError(f"an initializer needs a known shape, got {TensorShape(shape)}")
    return extents  # type: ignore[return-value]


def _fans(shape: Sequence[int]) -> tuple[float, float]:
    """Inputs and outputs of one unit: a kernel's last two extents times its receptive field."""
    if len(shape) < 1:
        return 1.0, 1.0
    if len(shape) == 1:
        return float(shape[0]), float(shape[0])
    field = math.prod(shape[:-2])
    return float(shape[-2] * field), float(shape[-1] * field)


def _scaled(name: str, scale: float, mode: str, distribution: str, source: str) -> Any:
    def __init__(self: Any, seed: int | None = None, dtype: Any = float32) -> None:
        VarianceScaling.__init__(self, scale, mode, distribution, seed, dtype)

    def get_config(self: Any) -> dict[str, Any]:
        return {"seed": self.seed, "dtype": self.dtype.name}

    return type(
        name,
        (VarianceScaling,),
        {
            "__init__": __init__,
            "get_config": get_config,
            "__doc__": f"Variance {scale:g} / {mode}, {distribution}. Source: {source}.",
            "__module__": __name__,
        },
    )


_GLOROT, _HE, _LECUN = "Glorot and Bengio 2010", "He et al. 2015", "LeCun et al. 1998"
GlorotUniform = _scaled("GlorotUniform", 1.0, "fan_avg", "uniform", _GLOROT)
GlorotNormal = _scaled("GlorotNormal", 1.0, "fan_avg", "truncated_normal", _GLOROT)
HeUniform = _scaled("HeUniform", 2.0, "fan_in", "uniform", _HE)
HeNormal = _scaled("HeNormal", 2.0, "fan_in", "truncated_normal", _HE)
LecunUniform = _scaled("LecunUniform", 1.0, "fan_in", "uniform", _LECUN)
LecunNormal = _scaled("LecunNormal", 1.0, "fan_in", "truncated_normal", _LECUN)


def xavier_initializer(uniform: bool = True, seed: int | None = None, dtype: Any = float32) -> Any:
    """``tf.contrib.layers.xavier_initializer``: Glorot's."""
    return (GlorotUniform if uniform else GlorotNormal)(seed=seed, dtype=dtype)


class Identity(Initializer):
    """``gain`` times the identity matrix."""

    def __init__(self, gain: float = 1.0, dtype: Any = float32) -> None:
        self.gain, self.dtype = gain, as_dtype(dtype)

    def __call__(self, shape: Any, dtype: Any = None, partition_info: Any = None) -> Any:
        extents = _static(shape)
        if len(extents) != 2:
            raise InvalidArgumentError(
                "Identity matrix initializer can only be used for 2D matrices."
            )
        matrix = np.eye(*extents, dtype=self._dtype(dtype).numpy) * self.gain
        return arrays.constant_v1(matrix, self._dtype(dtype))
