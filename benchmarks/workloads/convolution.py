"""Workload: ten convolutions of ResNet-50, and the gradients of each by its images and filters.

x: float32[4, h, w, in]   f: float32[k, k, in, out]   y = conv(x, f), padding SAME
Passes: forward y, "images" dx for a given dy, "filters" df for a given dy. Each pass counts
2 n h' w' out k k in operations. May import: see benchmarks.worker.
"""

from __future__ import annotations

import numpy as np

from benchmarks.kernels import contestants
from benchmarks.work import Work

TITLE = "Convolution, float32"
UNIT = "ms"
_BATCH = 4
#: extent, channels in, filters, size, stride
_LAYERS = [
    (224, 3, 64, 7, 2),
    (56, 64, 64, 1, 1),
    (56, 64, 64, 3, 1),
    (56, 64, 256, 1, 1),
    (56, 128, 128, 3, 2),
    (28, 128, 128, 3, 1),
    (28, 512, 256, 1, 1),
    (14, 256, 256, 3, 1),
    (14, 256, 1024, 1, 1),
    (7, 512, 512, 3, 1),
]
_PASSES = ("forward", "images", "filters")
CASES = {
    "{}x{} {}->{} {}x{}/{} {}".format(
        extent, extent, channels, filters, size, size, stride, which
    ): {
        "batch": _BATCH,
        "extent": extent,
        "channels": channels,
        "filters": filters,
        "size": size,
        "stride": stride,
        "pass": which,
    }
    for extent, channels, filters, size, stride in _LAYERS
    for which in _PASSES
}
TINY = {
    "batch": 2,
    "extent": 9,
    "channels": 3,
    "filters": 4,
    "size": 3,
    "stride": 2,
    "pass": "images",
}


def _shapes(case):
    """Of images, filters and result."""
    n, extent, channels, filters = (case[key] for key in ("batch", "extent", "channels", "filters"))
    size, out = case["size"], -(-extent // case["stride"])
    return (
        (n, extent, extent, channels),
        (size, size, channels, filters),
        (n, out, out, filters),
    )


def work(case):
    images, filters, result = _shapes(case)
    flops = 2 * int(np.prod(result)) * int(np.prod(filters[:3]))
    return Work(flops, 4 * sum(int(np.prod(shape)) for shape in (images, filters, result)))


def _inputs(case):
    """Images and filters; images' gradient needs (filters, dy), filters' (images, dy)."""
    rng = np.random.default_rng(7)
    x, f, dy = (rng.standard_normal(shape, np.float32) for shape in _shapes(case))
    return {"forward": (x, f), "images": (f, dy), "filters": (x, dy)}[case["pass"]]


def _target(case):
    images, filters, result = _shapes(case)
    return [{"forward": result, "images": images, "filters": filters}[case["pass"]]]


def _tensorflow(tf, case, first, second):
    def conv(x, f):
        strides = [1, case["stride"], case["stride"], 1]
        return tf.nn.conv2d(x, f, strides=strides, padding="SAME")

    if case["pass"] == "forward":
        return conv(first, second)
    images, filters, _ = _shapes(case)
    # The value of what is differentiated by does not matter: convolution is linear in it.
    if case["pass"] == "images":
        x = tf.zeros(images)
        return tf.gradients(conv(x, first), x, grad_ys=second)
    f = tf.zeros(filters)
    return tf.gradients(conv(first, f), f, grad_ys=second)


def _around(case):
    """(before, after) in both directions."""
    extent, stride = case["extent"], case["stride"]
    both = max(0, (-(-extent // stride) - 1) * stride + case["size"] - extent)
    return both // 2, both - both // 2


def _torch_layout(torch, array, is_filters):
    """Our memory as [n, channels, h, w] in channels_last: what PyTorch is fastest with."""
    order = (3, 2, 0, 1) if is_filters else (0, 3, 1, 2)
    return array.permute(order).contiguous(memory_format=torch.channels_last)


_PLACED = {}


def _placed(torch, case, first, second):
    """Both arrays in PyTorch's layout; made once, because the benchmark is not about that."""
    key = first.data_ptr(), second.data_ptr()
    if key not in _PLACED:
        _PLACED[key] = (
            _torch_layout(torch, first, case["pass"] == "images"),
            _torch_layout(torch, second, case["pass"] == "forward"),
        )
    return _PLACED[key]


def _torch_pass(torch, case, first, second):
    before, after = _around(case)
    stride, size = [case["stride"]] * 2, case["extent"]
    images, filters, _ = _shapes(case)
    f = torch.nn.functional
    uneven = before != after
    padding = [0 if uneven else before] * 2

    def padded(x):
        return f.pad(x, (before, after, before, after)) if uneven else x

    if case["pass"] == "forward":
        return f.conv2d(padded(first), second, stride=stride, padding=padding)
    if case["pass"] == "images":
        n, _, _, channels = images
        extent = size + (before + after if uneven else 0)
        x = torch.empty(1).expand(n, channels, extent, extent)
        dx = _backward(torch, second, x, first, stride, padding, (True, False, False))[0]
        return dx[:, :, before : before + size, before : before + size] if uneven else dx
    k, _, channels, count = filters
    w = torch.empty(1).expand(count, channels, k, k)
    return _backward(torch, second, padded(first), w, stride, padding, (False, True, False))[1]


def _backward(torch, dy, x, w, stride, padding, mask):
    return torch.ops.aten.convolution_backward(
        dy, x, w, None, stride, padding, [1, 1], False, [0, 0], 1, mask
    )


def _torch(torch, case, first, second, *out):
    with torch.no_grad():
        return _to_ours(case, _torch_pass(torch, case, *_placed(torch, case, first, second)))


def _to_ours(case, tensor):
    """A view in our order."""
    return tensor.permute((2, 3, 1, 0) if case["pass"] == "filters" else (0, 2, 3, 1))


def _jax(jax, case, first, second):
    images, filters, _ = _shapes(case)

    def conv(x, f):
        return jax.lax.conv_general_dilated(
            x,
            f,
            (case["stride"],) * 2,
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    if case["pass"] == "forward":
        return conv(first, second)
    if case["pass"] == "images":
        return jax.vjp(lambda x: conv(x, first), jax.numpy.zeros(images))[1](second)
    return jax.vjp(lambda f: conv(first, f), jax.numpy.zeros(filters))[1](second)


CONTESTANTS = contestants(
    _inputs,
    {"tensorflow": _tensorflow, "torch": _torch, "compile": _torch, "jax": _jax},
    _target,
)
# PyTorch's convolutions are library calls that torch.compile leaves as they are.
del CONTESTANTS["torch.compile"]
