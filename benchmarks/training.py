"""Training steps: one model, one batch, one optimizer, in every system.

Main types: Program. A workload gives its arrays and a loss in the words of TensorFlow 1 (TinyFlow
and TensorFlow run that one), of PyTorch and of JAX; what surrounds the loss is here.
May import: NumPy and the neighbours in this folder. Runs under the rivals' Pythons, 3.7 and up.
"""

from __future__ import annotations

import numpy as np

from benchmarks import arrays, rivals
from benchmarks.work import Work
from benchmarks.worker import Prepared

CHECKED_STEPS = 5
_MOMENTUM, _BETA1, _BETA2, _EPSILON = 0.9, 0.9, 0.999, 1e-8
# Passes over a parameter that no arrangement of a step avoids: read forward, read and written by
# the update; and each array of the optimizer's own is read and written once.
_PASSES = {"sgd": 3, "momentum": 5, "adam": 7}
_SLOTS = {"sgd": 0, "momentum": 1, "adam": 2}


class Program:
    """A training step.

    weights(case, rng), batch(case, rng) -> {name: array}; constants(case, rng) likewise, for what
        stays the same from step to step (the graph of a graph network)
    tf_loss(tf, case, w, x), torch_loss(torch, case, w, x), jax_loss(jax, case, w, x) -> scalar;
        w holds the weights, x the batch and the constants
    flops(case) -> operations of the matrix products and convolutions of one step
    torch_tensor(torch, name, array): an array in PyTorch's own layout
    torch_compiled_loss: where torch.compile wants the model put another way
    """

    def __init__(
        self,
        weights,
        batch,
        tf_loss,
        torch_loss,
        jax_loss,
        flops,
        optimizer,
        rate,
        constants=lambda case, rng: {},
        torch_tensor=lambda torch, name, array: torch.from_numpy(array),
        torch_compiled_loss=None,
        xla_loss=None,
    ):
        self._weights, self._batch, self._constants = weights, batch, constants
        self._tf_loss, self._torch_loss, self._jax_loss = tf_loss, torch_loss, jax_loss
        self._torch_compiled_loss = torch_compiled_loss or torch_loss
        self._xla_loss = xla_loss or tf_loss
        self._flops, self._torch_tensor = flops, torch_tensor
        self._optimizer, self._default_rate = optimizer, rate

    def _rate(self, case):
        """A tiny case may take longer steps, so that its losses say more."""
        return case.get("rate", self._default_rate)

    def contestants(self):
        return {
            "tinyflow": self.tinyflow,
            "torch eager": self.torch_eager,
            "torch.compile": self.torch_compile,
            "jax.jit": self.jax_jit,
            "tensorflow": lambda case: self.tensorflow(case, False),
            "tensorflow xla": lambda case: self.tensorflow(case, True),
        }

    def work(self, case):
        """Arithmetic, and the bytes of parameters, optimizer state and batch."""
        rng = np.random.default_rng(0)
        parameters = sum(array.nbytes for array in self._weights(case, rng).values())
        inputs = sum(
            array.nbytes
            for make in (self._batch, self._constants)
            for array in make(case, rng).values()
        )
        return Work(self._flops(case), _PASSES[self._optimizer] * parameters + inputs)

    @property
    def makers(self):
        """What makes the arrays of a case; see benchmarks.arrays."""
        return {"weights": self._weights, "batch": self._batch, "constants": self._constants}

    def load(self, case):
        """{"weights": {name: array}, "batch": {...}, "constants": {...}}"""
        return arrays.load(case, self.makers)

    # ---- TinyFlow ----------------------------------------------------------------------------

    def tinyflow(self, case):
        """The session of a TensorFlow 1 program: variables, `minimize`, a callable step."""
        tf = rivals.tinyflow()
        tf.reset_default_graph()
        made = self.load(case)
        # Filled through the initialisers: as constants the arrays would be part of the graph.
        initial, w = _variables(tf, made["weights"], True)
        fixed_initial, fixed = _variables(tf, made["constants"], False)
        x = {
            name: tf.placeholder(array.dtype, array.shape) for name, array in made["batch"].items()
        }
        loss = self._tf_loss(tf, case, w, dict(fixed, **x))
        train = _tf_optimizer(tf, self._optimizer, self._rate(case)).minimize(
            loss, var_list=list(w.values())
        )
        sess = tf.Session()
        feeds = {initial[name]: array for name, array in made["weights"].items()}
        feeds.update({fixed_initial[name]: array for name, array in made["constants"].items()})
        sess.run(tf.global_variables_initializer(), feeds)
        call = sess.make_callable([train, loss], feed_list=list(x.values()))
        values = list(made["batch"].values())
        return _prepared(lambda: call(*values)[1]), rivals.version(tf)

    # ---- TensorFlow 2 --------------------------------------------------------------------------

    def tensorflow(self, case, jit):
        """tf.function, compiled by XLA if jit. Gradient and update are part of the function."""
        tf2, tf = rivals.tensorflow2()
        made = self.load(case)
        w = {name: tf2.Variable(array) for name, array in made["weights"].items()}
        x = {
            name: tf2.constant(array)
            for part in ("batch", "constants")
            for name, array in made[part].items()
        }
        optimizer = _tf_optimizer(tf, self._optimizer, self._rate(case))
        variables, loss_of = list(w.values()), self._xla_loss if jit else self._tf_loss

        @tf2.function(jit_compile=jit)
        def step(x):
            with tf2.GradientTape() as tape:
                loss = loss_of(tf, case, w, x)
            gradients = tape.gradient(loss, variables)
            with tf2.control_dependencies([optimizer.apply_gradients(zip(gradients, variables))]):
                return tf2.identity(loss)

        return _prepared(lambda: step(x), lambda last: last.numpy()), tf2.__version__

    # ---- PyTorch -------------------------------------------------------------------------------

    def _torch_arrays(self, torch, case):
        made = self.load(case)
        w, x = (
            {
                name: self._torch_tensor(torch, name, array)
                for part in parts
                for name, array in made[part].items()
            }
            for parts in (("weights",), ("batch", "constants"))
        )
        # PyTorch wants labels and indices in 64 bits.
        x = {
            name: value.long() if value.dtype == torch.int32 else value for name, value in x.items()
        }
        return w, x

    def torch_eager(self, case):
        torch = rivals.torch()
        w, x = self._torch_arrays(torch, case)
        for tensor in w.values():
            tensor.requires_grad_()
        if self._optimizer == "adam":
            optimizer = torch.optim.Adam(w.values(), self._rate(case), fused=True)
        else:
            momentum = _MOMENTUM if self._optimizer == "momentum" else 0
            optimizer = torch.optim.SGD(w.values(), self._rate(case), momentum=momentum, fused=True)

        def step():
            loss = self._torch_loss(torch, case, w, x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.detach()

        return _prepared(step), torch.__version__

    def torch_compile(self, case):
        """Forward, gradient and update in one compiled function: the most that can be fused."""
        torch = rivals.torch()
        w, x = self._torch_arrays(torch, case)
        slots = [
            {name: torch.zeros_like(tensor) for name, tensor in w.items()}
            for _ in range(_SLOTS[self._optimizer])
        ]
        count = torch.zeros(())
        rate, loss_of = self._rate(case), self._torch_compiled_loss

        def update(w, slots, count, x):
            gradients, loss = torch.func.grad_and_value(
                lambda weights: loss_of(torch, case, weights, x)
            )(w)
            count.add_(1)
            factor = rate * torch.sqrt(1 - _BETA2**count) / (1 - _BETA1**count)
            for name, g in gradients.items():
                if len(slots) == 2:
                    m, v = slots[0][name], slots[1][name]
                    m.mul_(_BETA1).add_(g, alpha=1 - _BETA1)
                    v.mul_(_BETA2).add_(g * g, alpha=1 - _BETA2)
                    w[name].sub_(factor * m / (torch.sqrt(v) + _EPSILON))
                elif slots:
                    slots[0][name].mul_(_MOMENTUM).add_(g)
                    w[name].sub_(slots[0][name], alpha=rate)
                else:
                    w[name].sub_(g, alpha=rate)
            return loss

        compiled = torch.compile(update)
        return _prepared(lambda: compiled(w, slots, count, x)), torch.__version__

    # ---- JAX -----------------------------------------------------------------------------------

    def jax_jit(self, case):
        jax = rivals.jax()
        jnp = jax.numpy
        made = self.load(case)
        w, x = (
            {name: jnp.asarray(array) for part in parts for name, array in made[part].items()}
            for parts in (("weights",), ("batch", "constants"))
        )
        slots = [
            {name: jnp.zeros_like(array) for name, array in w.items()}
            for _ in range(_SLOTS[self._optimizer])
        ]
        rate, each = self._rate(case), jax.tree_util.tree_map

        def update(w, slots, count, x):
            loss, g = jax.value_and_grad(lambda weights: self._jax_loss(jax, case, weights, x))(w)
            count = count + 1
            if len(slots) == 2:
                m = each(lambda m, g: _BETA1 * m + (1 - _BETA1) * g, slots[0], g)
                v = each(lambda v, g: _BETA2 * v + (1 - _BETA2) * g * g, slots[1], g)
                factor = rate * jnp.sqrt(1 - _BETA2**count) / (1 - _BETA1**count)
                w = each(lambda w, m, v: w - factor * m / (jnp.sqrt(v) + _EPSILON), w, m, v)
                return loss, w, [m, v], count
            if slots:
                g = each(lambda m, g: _MOMENTUM * m + g, slots[0], g)
                slots = [g]
            return loss, each(lambda w, g: w - rate * g, w, g), slots, count

        compiled = jax.jit(update, donate_argnums=(0, 1, 2))
        state = [w, slots, jnp.zeros(())]

        def step():
            loss, *state[:] = compiled(*state, x)
            return loss

        # JAX runs ahead of Python; the clock stops when the last step is done.
        return _prepared(step, lambda last: jax.block_until_ready(state)), jax.__version__


def _variables(tf, values, trainable):
    """(placeholders for the initial values, variables), by name."""
    initial = {name: tf.placeholder(array.dtype, array.shape) for name, array in values.items()}
    return initial, {name: tf.Variable(initial[name], trainable=trainable) for name in values}


def _tf_optimizer(tf, name, rate):
    if name == "adam":
        return tf.train.AdamOptimizer(rate, _BETA1, _BETA2, _EPSILON)
    if name == "momentum":
        return tf.train.MomentumOptimizer(rate, _MOMENTUM)
    return tf.train.GradientDescentOptimizer(rate)


def _prepared(step, finish=None):
    """step() -> the loss. Contestants must agree on the losses of the first steps."""
    return Prepared(step, lambda: [float(step()) for _ in range(CHECKED_STEPS)], finish)
