"""Layers of convolutional networks in four systems, under one set of names.

Main types: Tally (shapes, weights and arithmetic, without computing), TfLayers (TinyFlow and
TensorFlow), TorchLayers, JaxLayers. A network is a function of one of them and of the images.
Images are float32[n, height, width, channels]; PyTorch gets the same memory as channels_last.
Filters are [height, width, in, out] everywhere but in PyTorch. May import: NumPy.
"""

from __future__ import annotations

import math

import numpy as np

_EPSILON = 1e-5  # of batch normalisation


class Tally:
    """Follows a network by shapes alone: images are tuples.

    shapes: weight name -> (shape, standard deviation at the start)
    forward, backward: floating-point operations of convolutions and products
    """

    def __init__(self, training=True):
        self.shapes = {}
        self.forward = self.backward = 0
        self._training = training
        self._first = True

    def conv(self, x, name, filters, size, stride=1, padding="SAME", bias=True):
        n, height, width, channels = x
        spread = math.sqrt(2 / (size * size * channels))
        self.shapes[name + "/w"] = (size, size, channels, filters), spread
        if bias:
            self.shapes[name + "/b"] = (filters,), 0.0
        y = (n, *(_windows(extent, size, stride, padding) for extent in (height, width)), filters)
        return self._counted(y, size * size * channels)

    def dense(self, x, name, units):
        spread = math.sqrt(2 / x[1])
        # Small logits: a loss near log(classes), from which the first steps go down gently.
        self.shapes[name + "/w"] = (x[1], units), spread / 10 if name == "logits" else spread
        self.shapes[name + "/b"] = (units,), 0.0
        return self._counted((x[0], units), x[1])

    def _counted(self, y, terms):
        amount = 2 * int(np.prod(y)) * terms
        self.forward += amount
        # The images themselves need no gradient.
        self.backward += amount * (1 if self._first else 2)
        self._first = False
        return y

    def batch_norm(self, x, name):
        self.shapes[name + "/scale"] = (x[-1],), 0.1
        self.shapes[name + "/offset"] = (x[-1],), 0.1
        if not self._training:
            self.shapes[name + "/mean"] = (x[-1],), 0.1
            self.shapes[name + "/variance"] = (x[-1],), 0.1
        return x

    def relu(self, x):
        return x

    def add(self, x, y):
        return x

    def max_pool(self, x, size, stride, padding="VALID"):
        n, height, width, channels = x
        out = (_windows(extent, size, stride, padding) for extent in (height, width))
        return (n, *out, channels)

    def mean_of_pixels(self, x):
        return x[0], x[3]

    def flatten(self, x):
        return x[0], int(np.prod(x[1:]))

    def concat(self, parts):
        return (*parts[0][:3], sum(part[3] for part in parts))

    def weights(self, rng):
        """Arrays by name; scales and variances of batch normalisation lie around 1."""
        made = {}
        for name, (shape, spread) in self.shapes.items():
            array = rng.standard_normal(shape, dtype=np.float32)
            array *= spread
            if name.endswith(("/scale", "/variance")):
                array += 1
            made[name] = array
        return made


def _windows(extent, size, stride, padding):
    return -(-extent // stride) if padding == "SAME" else (extent - size) // stride + 1


class TfLayers:
    """TensorFlow 1's functions, from TinyFlow or from tensorflow.compat.v1."""

    def __init__(self, tf, weights, training=True):
        self._tf, self._w, self._training = tf, weights, training

    def conv(self, x, name, filters, size, stride=1, padding="SAME", bias=True):
        tf, w = self._tf, self._w
        y = tf.nn.conv2d(x, w[name + "/w"], strides=[1, stride, stride, 1], padding=padding)
        return tf.nn.bias_add(y, w[name + "/b"]) if bias else y

    def dense(self, x, name, units):
        return self._tf.matmul(x, self._w[name + "/w"]) + self._w[name + "/b"]

    def batch_norm(self, x, name):
        w, nn = self._w, self._tf.nn
        scale, offset = w[name + "/scale"], w[name + "/offset"]
        if self._training:
            y, _, _ = nn.fused_batch_norm(x, scale, offset, epsilon=_EPSILON)
        else:
            mean, variance = w[name + "/mean"], w[name + "/variance"]
            y, _, _ = nn.fused_batch_norm(
                x, scale, offset, mean, variance, epsilon=_EPSILON, is_training=False
            )
        return y

    def relu(self, x):
        return self._tf.nn.relu(x)

    def add(self, x, y):
        return x + y

    def max_pool(self, x, size, stride, padding="VALID"):
        window, step = [1, size, size, 1], [1, stride, stride, 1]
        return self._tf.nn.max_pool(x, ksize=window, strides=step, padding=padding)

    def mean_of_pixels(self, x):
        return self._tf.reduce_mean(x, axis=[1, 2])

    def flatten(self, x):
        return self._tf.reshape(x, [x.shape[0], int(np.prod([int(d) for d in x.shape[1:]]))])

    def concat(self, parts):
        return self._tf.concat(parts, axis=3)

    def cross_entropy(self, logits, labels):
        each = self._tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        return self._tf.reduce_mean(each)


class TorchLayers:
    """Images as [n, channels, height, width] in channels_last memory, the faster one on CPUs."""

    def __init__(self, torch, weights, training=True):
        self._torch, self._w, self._training = torch, weights, training
        self._f = torch.nn.functional

    def conv(self, x, name, filters, size, stride=1, padding="SAME", bias=True):
        around = 0
        if padding == "SAME" and stride == 1:
            around = size // 2
        elif padding == "SAME":
            left, right = _same(x.shape[2], size, stride), _same(x.shape[3], size, stride)
            x = self._f.pad(x, (*right, *left))
        b = self._w[name + "/b"] if bias else None
        return self._f.conv2d(x, self._w[name + "/w"], b, stride=stride, padding=around)

    def dense(self, x, name, units):
        return self._torch.addmm(self._w[name + "/b"], x, self._w[name + "/w"])

    def batch_norm(self, x, name):
        w = self._w
        return self._f.batch_norm(
            x,
            w.get(name + "/mean"),
            w.get(name + "/variance"),
            w[name + "/scale"],
            w[name + "/offset"],
            training=self._training,
            eps=_EPSILON,
        )

    def relu(self, x):
        return self._torch.relu(x)

    def add(self, x, y):
        return x + y

    def max_pool(self, x, size, stride, padding="VALID"):
        if padding == "VALID":
            return self._f.max_pool2d(x, size, stride)
        before, after = _same(x.shape[2], size, stride)
        if before == after:
            return self._f.max_pool2d(x, size, stride, padding=before)
        # One more column after than before is what rounding the size up amounts to.
        return self._f.max_pool2d(x, size, stride, padding=before, ceil_mode=True)

    def mean_of_pixels(self, x):
        return x.mean((2, 3))

    def flatten(self, x):
        return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1)

    def concat(self, parts):
        return self._torch.cat(parts, 1)

    def cross_entropy(self, logits, labels):
        return self._f.cross_entropy(logits, labels)

    @staticmethod
    def tensor(torch, name, array):
        """An array of ours as PyTorch's layers want it."""
        tensor = torch.from_numpy(array)
        if array.ndim != 4:
            return tensor
        order = (3, 2, 0, 1) if name.endswith("/w") else (0, 3, 1, 2)
        return tensor.permute(order).contiguous(memory_format=torch.channels_last)


def _same(extent, size, stride):
    """(before, after): the padding that TensorFlow calls SAME."""
    both = max(0, (-(-extent // stride) - 1) * stride + size - extent)
    return both // 2, both - both // 2


class JaxLayers:
    """jax.lax on [n, height, width, channels]."""

    def __init__(self, jax, weights, training=True):
        self._jax, self._w, self._training = jax, weights, training

    def conv(self, x, name, filters, size, stride=1, padding="SAME", bias=True):
        y = self._jax.lax.conv_general_dilated(
            x,
            self._w[name + "/w"],
            (stride, stride),
            padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + self._w[name + "/b"] if bias else y

    def dense(self, x, name, units):
        return x @ self._w[name + "/w"] + self._w[name + "/b"]

    def batch_norm(self, x, name):
        w = self._w
        if self._training:
            mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        else:
            mean, variance = w[name + "/mean"], w[name + "/variance"]
        scale = self._jax.lax.rsqrt(variance + _EPSILON) * w[name + "/scale"]
        return (x - mean) * scale + w[name + "/offset"]

    def relu(self, x):
        return self._jax.nn.relu(x)

    def add(self, x, y):
        return x + y

    def max_pool(self, x, size, stride, padding="VALID"):
        lax, lowest = self._jax.lax, -np.inf
        return lax.reduce_window(
            x, lowest, lax.max, (1, size, size, 1), (1, stride, stride, 1), padding
        )

    def mean_of_pixels(self, x):
        return x.mean((1, 2))

    def flatten(self, x):
        return x.reshape(x.shape[0], -1)

    def concat(self, parts):
        return self._jax.numpy.concatenate(parts, axis=3)

    def cross_entropy(self, logits, labels):
        logs = self._jax.nn.log_softmax(logits)
        return -self._jax.numpy.take_along_axis(logs, labels[:, None], 1).mean()
