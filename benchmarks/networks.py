"""Convolutional networks and perceptrons as workloads: from a network to its contestants.

Main names: training, Inference. A network is `network(nn, images, case) -> logits` for the
layers of benchmarks.workloads.layers. May import: NumPy and the neighbours in this folder.
"""

from __future__ import annotations

import numpy as np

from benchmarks import arrays, rivals
from benchmarks.training import Program
from benchmarks.work import Work
from benchmarks.worker import Prepared
from benchmarks.workloads.layers import JaxLayers, Tally, TfLayers, TorchLayers


def training(network, optimizer, rate):
    """A Program that trains the network on one batch of random images and labels."""

    def tally(case):
        counted = Tally()
        return counted, network(counted, (case["batch"], *case["image"]), case)

    def weights(case, rng):
        return tally(case)[0].weights(rng)

    def batch(case, rng):
        _, (count, classes) = tally(case)
        return {
            "images": _images(case, rng),
            "labels": rng.integers(classes, size=count).astype(np.int32),
        }

    def flops(case):
        counted, _ = tally(case)
        return counted.forward + counted.backward

    def loss(layers):
        def of(module, case, w, x):
            nn = layers(module, w)
            return nn.cross_entropy(network(nn, x["images"], case), x["labels"])

        return of

    return Program(
        weights,
        batch,
        loss(TfLayers),
        loss(TorchLayers),
        loss(JaxLayers),
        flops,
        optimizer,
        rate,
        torch_tensor=TorchLayers.tensor,
    )


def _images(case, rng):
    return rng.standard_normal((case["batch"], *case["image"]), dtype=np.float32)


class Inference:
    """The logits of one batch of images, weights fixed."""

    def __init__(self, network):
        self._network = network

    def _tally(self, case):
        counted = Tally(training=False)
        self._network(counted, (case["batch"], *case["image"]), case)
        return counted

    def work(self, case):
        counted = self._tally(case)
        parameters = 4 * sum(int(np.prod(shape)) for shape, _ in counted.shapes.values())
        return Work(counted.forward, parameters)

    @property
    def makers(self):
        """What makes the arrays of a case; see benchmarks.arrays."""
        return {
            "weights": lambda case, rng: self._tally(case).weights(rng),
            "batch": lambda case, rng: {"images": _images(case, rng)},
        }

    def _arrays(self, case):
        made = arrays.load(case, self.makers)
        return made["weights"], made["batch"]["images"]

    def contestants(self):
        return {
            "tinyflow": self.tinyflow,
            "torch eager": lambda case: self.torch(case, False),
            "torch.compile": lambda case: self.torch(case, True),
            "jax.jit": self.jax_jit,
            "tensorflow": lambda case: self.tensorflow(case, False),
            "tensorflow xla": lambda case: self.tensorflow(case, True),
        }

    def tinyflow(self, case):
        tf = rivals.tinyflow()
        tf.reset_default_graph()
        weights, images = self._arrays(case)
        initial = {name: tf.placeholder(tf.float32, array.shape) for name, array in weights.items()}
        w = {name: tf.Variable(value) for name, value in initial.items()}
        x = tf.placeholder(tf.float32, images.shape)
        logits = self._network(TfLayers(tf, w, training=False), x, case)
        sess = tf.Session()
        feeds = {initial[name]: array for name, array in weights.items()}
        sess.run(tf.global_variables_initializer(), feeds)
        call = sess.make_callable(logits, feed_list=[x])
        return _prepared(lambda: call(images)), rivals.version(tf)

    def tensorflow(self, case, jit):
        tf2, tf = rivals.tensorflow2()
        weights, images = self._arrays(case)
        w = {name: tf2.Variable(array) for name, array in weights.items()}
        x = tf2.constant(images)

        @tf2.function(jit_compile=jit)
        def forward(x):
            return self._network(TfLayers(tf, w, training=False), x, case)

        return _prepared(lambda: forward(x).numpy()), tf2.__version__

    def torch(self, case, compiled):
        torch = rivals.torch()
        weights, images = self._arrays(case)
        w = {name: TorchLayers.tensor(torch, name, array) for name, array in weights.items()}
        x = TorchLayers.tensor(torch, "images", images)

        def forward(w, x):
            return self._network(TorchLayers(torch, w, training=False), x, case)

        call = torch.compile(forward) if compiled else forward

        def step():
            with torch.inference_mode():
                return call(w, x)

        return _prepared(step), torch.__version__

    def jax_jit(self, case):
        jax = rivals.jax()
        weights, images = self._arrays(case)
        w = {name: jax.numpy.asarray(array) for name, array in weights.items()}
        x = jax.numpy.asarray(images)
        call = jax.jit(lambda w, x: self._network(JaxLayers(jax, w, training=False), x, case))
        return _prepared(lambda: call(w, x).block_until_ready()), jax.__version__


def _prepared(step):
    def check():
        logits = np.asarray(step(), np.float64).reshape(-1)
        return [np.abs(logits).mean(), *logits[:4]]

    return Prepared(step, check)
