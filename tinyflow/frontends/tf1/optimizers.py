"""The optimizers of ``tf.train``: each is one formula on tensors.

Main types: ``GradientDescentOptimizer``, ``MomentumOptimizer``, ``AdamOptimizer`` ...
May import core, ops and optimizer. Formulas: g gradient, w variable, names of slots as in the code.
Where epsilon stands and how slots start is TensorFlow's choice, which differs from the papers'.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tinyflow.core.error import InvalidArgumentError
from tinyflow.core.frames import public_methods
from tinyflow.frontends.tf1.control import group
from tinyflow.frontends.tf1.elements import Operation
from tinyflow.frontends.tf1.graph import get_default_graph
from tinyflow.frontends.tf1.indexed_slices import IndexedSlices, dense_rows
from tinyflow.frontends.tf1.optimizer import Hyper, Optimizer
from tinyflow.frontends.tf1.variables import Variable
from tinyflow.ops.comparison import greater
from tinyflow.ops.elementwise import absolute, rsqrt, sign, sqrt, square
from tinyflow.ops.logical import select
from tinyflow.ops.special import power

__all__ = [
    "AdadeltaOptimizer", "AdagradOptimizer", "AdamOptimizer", "FtrlOptimizer",
    "GradientDescentOptimizer", "MomentumOptimizer", "RMSPropOptimizer",
]  # fmt: skip

Slots = dict[str, Any]


@public_methods()
class GradientDescentOptimizer(Optimizer):
    """w := w - learning_rate * g. ``learning_rate``: a number, a tensor or a function."""

    def __init__(
        self, learning_rate: Any, use_locking: bool = False, name: str = "GradientDescent"
    ) -> None:
        super().__init__(use_locking, name, learning_rate=learning_rate)

    def _update(
        self, gradient: Any, value: Any, slots: Slots, hyper: Hyper
    ) -> tuple[Any, Slots]:
        return gradient * hyper("learning_rate"), {}

    def _apply_sparse(self, gradient: IndexedSlices, variable: Variable) -> Operation:
        from tinyflow.frontends.tf1.state import scatter_sub

        step = gradient.values * self._hyper_of(variable)("learning_rate")
        return scatter_sub(variable, gradient.indices, step).node  # type: ignore[no-any-return]


@public_methods()
class MomentumOptimizer(Optimizer):
    """momentum := momentum * a + g; w := w - learning_rate * momentum.

    a: the argument ``momentum``. use_nesterov: w := w - learning_rate * (g + a * momentum)
    Source: Sutskever et al., On the importance of initialization and momentum, 2013.
    """

    slots: ClassVar[dict[str, float]] = {"momentum": 0.0}

    def __init__(
        self, learning_rate: Any, momentum: Any, use_locking: bool = False,
        name: str = "Momentum", use_nesterov: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(use_locking, name, learning_rate=learning_rate, momentum=momentum)
        self._use_nesterov = bool(use_nesterov)

    def _update(
        self, gradient: Any, value: Any, slots: Slots, hyper: Hyper
    ) -> tuple[Any, Slots]:
        rate, decay = hyper("learning_rate"), hyper("momentum")
        momentum = slots["momentum"] * decay + gradient
        if self._use_nesterov:
            step = gradient * rate + momentum * decay * rate
        else:
            step = momentum * rate
        return step, {"momentum": momentum}


@public_methods()
class AdamOptimizer(Optimizer):
    """m := m + (g - m)(1 - beta1); v := v + (g^2 - v)(1 - beta2); w := w - rate m / (sqrt v + eps).

    rate = learning_rate sqrt(1 - beta2^t) / (1 - beta1^t), the powers kept in the variables
    beta1_power and beta2_power: this is the paper's "epsilon hat" form.
    A gradient that touches some rows only changes the slots of all rows, as in TensorFlow.
    Source: Kingma and Ba, Adam, 2015, end of section 2.
    """

    slots: ClassVar[dict[str, float]] = {"m": 0.0, "v": 0.0}

    def __init__(
        self, learning_rate: Any = 0.001, beta1: Any = 0.9, beta2: Any = 0.999,
        epsilon: Any = 1e-8, use_locking: bool = False, name: str = "Adam",
    ) -> None:  # fmt: skip
        super().__init__(
            use_locking, name, learning_rate=learning_rate, beta1=beta1, beta2=beta2,
            epsilon=epsilon,
        )  # fmt: skip

    def _create_slots(self, var_list: list[Variable]) -> None:
        for name in ("beta1", "beta2"):
            self._make_non_slot(self._call_if_callable(self._hyper[name]), f"{name}_power")
        super()._create_slots(var_list)

    def _get_beta_accumulators(self) -> tuple[Variable, Variable]:
        return self._non_slots["beta1_power"], self._non_slots["beta2_power"]

    def _prepare(self) -> None:
        super()._prepare()
        for name, variable in self._non_slots.items():
            self._tensors[name, None] = variable.value()

    def _rate(self, hyper: Hyper) -> Any:
        """The corrected learning rate: the same for all variables of a dtype, so made once."""
        rate = hyper("learning_rate")
        key = "rate", rate.dtype
        if key not in self._tensors:
            with get_default_graph().name_scope(self._scope):
                self._tensors[key] = (
                    rate * sqrt(1 - hyper("beta2_power")) / (1 - hyper("beta1_power"))
                )
        return self._tensors[key]

    def _update(
        self, gradient: Any, value: Any, slots: Slots, hyper: Hyper
    ) -> tuple[Any, Slots]:
        m = slots["m"] + (gradient - slots["m"]) * (1 - hyper("beta1"))
        v = slots["v"] + (square(gradient) - slots["v"]) * (1 - hyper("beta2"))
        return m * self._rate(hyper) / (sqrt(v) + hyper("epsilon")), {"m": m, "v": v}

    def _apply_sparse(self, gradient: IndexedSlices, variable: Variable) -> Operation:
        return self._apply_dense(dense_rows(gradient, variable.value()), variable)

    def _finish(self, updates: list[Operation], scope: str) -> Operation:
        graph = get_default_graph()
        with graph.control_dependencies(updates):
            for power_of in self._get_beta_accumulators():
                beta = self._tensors[power_of.op.name.rpartition("/")[2].split("_")[0], None]
                updates = [*updates, power_of.assign(power_of.value() * beta).node]
        return group(*updates, name=scope)


@public_methods()
class RMSPropOptimizer(Optimizer):
    """rms := rms + (g^2 - rms)(1 - decay); mom := a mom + rate g / sqrt(rms + eps); w := w - mom.

    a: ``momentum``. rms starts at 1. centered: mg := mg + (g - mg)(1 - decay), and the variance
    rms - mg^2 stands under the root. Source: Hinton, lecture 6 of his course, 2012.
    """

    slots: ClassVar[dict[str, float]] = {"rms": 1.0, "momentum": 0.0}

    def __init__(
        self, learning_rate: Any, decay: Any = 0.9, momentum: Any = 0.0, epsilon: Any = 1e-10,
        use_locking: bool = False, centered: bool = False, name: str = "RMSProp",
    ) -> None:  # fmt: skip
        super().__init__(
            use_locking, name, learning_rate=learning_rate, decay=decay, momentum=momentum,
            epsilon=epsilon,
        )  # fmt: skip
        if centered:
            self.slots = {"rms": 1.0, "mg": 0.0, "momentum": 0.0}  # type: ignore[misc]
        self._centered = bool(centered)

    def _update(
        self, gradient: Any, value: Any, slots: Slots, hyper: Hyper
    ) -> tuple[Any, Slots]:
        fresh = 1 - hyper("decay")
        new = {"rms": slots["rms"] + (square(gradient) - slots["rms"]) * fresh}
        variance = new["rms"]
        if self._centered:
            new["mg"] = slots["mg"] + (gradient - slots["mg"]) * fresh
            variance = variance - square(new["mg"])
        root = sqrt(variance + hyper("epsilon"))
        step = slots["momentum"] * hyper("momentum") + gradient * hyper("learning_rate") / root
        new["momentum"] = step
        return step, new

    @property
    def _op_name(self) -> str:
        return "ApplyCenteredRMSProp" if self._centered else "ApplyRMSProp"


@public_methods()
class AdagradOptimizer(Optimizer):
    """accumulator := accumulator + g^2; w := w - learning_rate g / sqrt(accumulator).

    Source: Duchi, Hazan and Singer, Adaptive subgradient methods, 2011.
    """

    def __init__(
        self, learning_rate: Any, initial_accumulator_value: float = 0.1,
        use_locking: bool = False, name: str = "Adagrad",
    ) -> None:  # fmt: skip
        if initial_accumulator_value <= 0.0:
            raise InvalidArgumentError(
                f"initial_accumulator_value must be positive: {initial_accumulator_value}"
            )
        super().__init__(use_locking, name, learning_rate=learning_rate)
        self.slots = {"accumulator": initial_accumulator_value}  # type: ignore[misc]

    def _update(
        self, gradient: Any, value: Any, slots: Slots, hyper: Hyper
    ) -> tuple[Any, Slots]:
        total = slots["accumulator"] + square(gradient)
        return gradient * hyper("learning_rate") * rsqrt(total), {"accumulator": total}


@public_methods()
class AdadeltaOptimizer(Optimizer):
    """accum := rho accum + (1 - rho) g^2; u = sqrt(accum_update + eps) / sqrt(accum + eps) g;
    accum_update := rho accum_update + (1 - rho) u^2; w := w - learning_rate u.

    Source: Zeiler, ADADELTA, 2012.
    """

    slots: ClassVar[dict[str, float]] = {"accum": 0.0, "accum_update": 0.0}

    def __init__(
        self, learning_rate: Any = 0.001, rho: Any = 0.95, epsilon: Any = 1e-8,
        use_locking: bool = False, name: str = "Adadelta",
    ) -> None:  # fmt: skip
        super().__init__(use_locking, name, learning_rate=learning_rate, rho=rho, epsilon=epsilon)

    def _update(
        self, gradient: Any, value: Any, slots: Slots, hyper: Hyper
    ) -> tuple[Any, Slots]:
        rho, epsilon = hyper("rho"), hyper("epsilon")
        accum = slots["accum"] * rho + square(gradient) * (1 - rho)
        step = sqrt(slots["accum_update"] + epsilon) * rsqrt(accum + epsilon) * gradient
        steps = slots["accum_update"] * rho + square(step) * (1 - rho)
        return step * hyper("learning_rate"), {"accum": accum, "accum_update": steps}


@public_methods()
class FtrlOptimizer(Optimizer):
    """FTRL-Proximal: n := accum + g^2, linear := linear + g - (n^p - accum^p) / rate * w,
    w := (sign(linear) l1 - linear) / (n^p / rate + 2 l2) where |linear| > l1, else 0; accum := n.

    p = -learning_rate_power. l2_shrinkage adds 2 l2_shrinkage w to the g of ``linear`` only.
    Source: McMahan et al., Ad click prediction, 2013.
    """

    def __init__(
        self, learning_rate: Any, learning_rate_power: float = -0.5,
        initial_accumulator_value: float = 0.1, l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0, use_locking: bool = False, name: str = "Ftrl",
        accum_name: str | None = None, linear_name: str | None = None,
        l2_shrinkage_regularization_strength: float = 0.0,
    ) -> None:  # fmt: skip
        for what, value, wrong in (
            ("initial_accumulator_value", initial_accumulator_value, "negative"),
            ("l1_regularization_strength", l1_regularization_strength, "negative"),
            ("l2_regularization_strength", l2_regularization_strength, "negative"),
            ("l2_shrinkage_regularization_strength", l2_shrinkage_regularization_strength,
             "negative"),
        ):  # fmt: skip
            if value < 0.0:
                raise InvalidArgumentError(f"{what} {value} is {wrong}", expected="0 or more")
        if learning_rate_power > 0.0:
            raise InvalidArgumentError(
                f"learning_rate_power {learning_rate_power} is positive", expected="0 or less"
            )
        super().__init__(
            use_locking, name, learning_rate=learning_rate, l1=l1_regularization_strength,
            l2=l2_regularization_strength, l2_shrinkage=l2_shrinkage_regularization_strength,
        )  # fmt: skip
        self._power = -float(np.float32(learning_rate_power))  # a float32 attribute there
        self._names = {"accum": accum_name or name, "linear": linear_name or name}
        self.slots = {"accum": initial_accumulator_value, "linear": 0.0}  # type: ignore[misc]

    def _create_slots(self, var_list: list[Variable]) -> None:
        for variable in var_list:
            for slot, initial in self.slots.items():
                self._make_slot(variable, slot, initial, self._names[slot])

    def _update(
        self, gradient: Any, value: Any, slots: Slots, hyper: Hyper
    ) -> tuple[Any, Slots]:
        rate, l1 = hyper("learning_rate"), hyper("l1")
        old, total = slots["accum"], slots["accum"] + square(gradient)
        grown = self._raised(total)
        if self._hyper["l2_shrinkage"]:
            gradient = gradient + 2 * hyper("l2_shrinkage") * value
        linear = slots["linear"] + gradient - (grown - self._raised(old)) / rate * value
        moved = (l1 * sign(linear) - linear) / (grown / rate + 2 * hyper("l2"))
        new = select(greater(absolute(linear), l1), moved, 0)
        return value - new, {"accum": total, "linear": linear}

    def _raised(self, total: Any) -> Any:
        return sqrt(total) if self._power == 0.5 else power(total, self._power)
