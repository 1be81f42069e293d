"""One program of convolutions, pools and normalisations, for TinyFlow and for TensorFlow 1.15.

``results(tf)`` gives name -> array. Run by TensorFlow it made tests/golden/spatial_tf1.npz:
``python tests/frontends/tf1/spatial_program.py tests/golden/spatial_tf1.npz``.
"""

from __future__ import annotations

import numpy as np


def wave(*shape, phase=0.0):
    """Fixed values between -1 and 1, all different."""
    count = np.arange(int(np.prod(shape)))
    return np.sin(count * 0.7 + phase + 0.01 * count**1.5).reshape(shape).astype(np.float32)


def grid(*shape):
    """Few different values, so that windows have ties."""
    return np.round(wave(*shape) * 2).astype(np.float32)


def cases(tf):
    """(name, function, arrays): the function's result is differentiated for every array."""
    x, w = wave(2, 7, 6, 3), wave(3, 2, 3, 4, phase=1.0)
    nn = tf.nn
    yield "conv", lambda a, b: nn.conv2d(a, b, [1, 2, 1, 1], "SAME"), [x, w]
    yield "conv_valid", lambda a, b: nn.conv2d(a, b, [1, 2, 3, 1], "VALID"), [x, w]
    pairs = [[0, 0], [2, 1], [0, 3], [0, 0]]
    yield "conv_explicit", lambda a, b: nn.conv2d(a, b, [1, 1, 1, 1], pairs), [x, w]
    yield "atrous", lambda a, b: nn.atrous_conv2d(a, b, 2, "SAME"), [x, w]
    yield "conv1d", lambda a, b: nn.conv1d(a, b, 2, "SAME"), [wave(2, 9, 3), wave(4, 3, 2)]
    arrays = [wave(1, 4, 5, 6, 2), wave(2, 3, 2, 2, 3)]
    yield "conv3d", lambda a, b: nn.conv3d(a, b, [1, 1, 2, 1, 1], "SAME"), arrays
    arrays = [x, wave(3, 3, 3, 2)]
    yield "depthwise", lambda a, b: nn.depthwise_conv2d(a, b, [1, 2, 2, 1], "SAME"), arrays
    arrays = [x, wave(2, 2, 3, 2), wave(1, 1, 6, 4)]
    yield (
        "separable",
        lambda a, b, c: nn.separable_conv2d(a, b, c, [1, 1, 1, 1], "VALID"),
        arrays,
    )
    yield (
        "transpose",
        lambda a, b: nn.conv2d_transpose(a, b, [2, 14, 12, 2], [1, 2, 2, 1], "SAME"),
        [x, wave(5, 4, 2, 3)],
    )
    yield (
        "backprop_filter",
        lambda a, b: nn.conv2d_backprop_filter(a, [2, 3, 3, 5], b, [1, 3, 2, 1], "VALID"),
        [x, wave(2, 2, 2, 5)],
    )
    for name, pool in (("max", nn.max_pool), ("avg", nn.avg_pool)):
        for padding in ("SAME", "VALID"):
            for size, stride in ((2, 2), (3, 2), (3, 1), (2, 3)):

                def pooled(a, pool=pool, size=size, stride=stride, padding=padding):
                    return pool(a, [1, size, size, 1], [1, stride, stride, 1], padding)

                yield f"{name}_{size}_{stride}_{padding}", pooled, [grid(2, 7, 6, 3)]
    yield "pool", lambda a: nn.pool(a, [3], "AVG", "SAME", strides=[2]), [wave(2, 9, 3)]
    yield "pool_dilated", lambda a: nn.pool(a, [2], "MAX", "VALID", [3]), [grid(2, 9, 3)]
    yield "pool_v2", lambda a: nn.max_pool_v2(a, 2, [2, 1, 3], "SAME"), [wave(1, 4, 5, 6, 2)]
    arrays = [grid(2, 7, 6, 3), grid(3, 2, 3)]
    yield "dilation", lambda a, b: nn.dilation2d(a, b, [1, 2, 1, 1], [1, 1, 2, 1], "SAME"), arrays
    yield "erosion", lambda a, b: nn.erosion2d(a, b, [1, 1, 2, 1], [1, 2, 1, 1], "VALID"), arrays

    def patches(a):
        return tf.extract_image_patches(a, [1, 3, 2, 1], [1, 2, 1, 1], [1, 1, 2, 1], "SAME")

    yield "patches", patches, [x]
    arrays = [wave(1, 4, 5, 6, 2)]
    sizes = [1, 2, 3, 2, 1], [1, 1, 2, 3, 1]
    yield "volume_patches", lambda a: tf.extract_volume_patches(a, *sizes, "VALID"), arrays
    for batch in (False, True):

        def pooled(a, batch=batch):
            own = [1, 3, 2, 1], [1, 2, 2, 1], "SAME"
            y, index = nn.max_pool_with_argmax(a, *own, include_batch_in_index=batch)
            return y + tf.cast(index, tf.float32)

        yield f"argmax_{batch}", pooled, [grid(2, 7, 6, 3)]
    arrays = [x, wave(3), wave(3, phase=2.0)]
    yield "fused", lambda a, b, c: nn.fused_batch_norm(a, b, c)[0], arrays
    arrays = [x, wave(3), wave(3) ** 2, wave(3, phase=2.0), wave(3, phase=3.0)]
    yield (
        "batch_norm",
        lambda a, m, v, o, s: nn.batch_normalization(a, m, v, o, s, 1e-3),
        arrays,
    )
    for beta in (0.5, 0.75, 0.6):
        arrays = [wave(2, 2, 3, 7)]
        yield f"lrn_{beta}", lambda a, beta=beta: nn.lrn(a, 2, 1.5, 0.3, beta), arrays
    yield "crelu", nn.crelu, [x]


def results(tf):
    found = {}
    for name, function, arrays in cases(tf):
        with tf.Graph().as_default(), tf.Session() as session:
            feeds = [tf.placeholder(tf.float32, a.shape) for a in arrays]
            y = function(*feeds)
            shape = [int(d) for d in y.shape.as_list()]
            slopes = tf.gradients(y, feeds, grad_ys=[wave(*shape, phase=0.5)])
            values = session.run([y, *slopes], dict(zip(feeds, arrays)))
        for n, value in enumerate(values):
            found[f"{name}.{n}"] = np.asarray(value)
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.constant(wave(2, 7, 6, 3))
        y = tf.nn.fused_batch_norm(x, wave(3), wave(3, phase=2.0))
        for n, value in enumerate(session.run(list(y[:3]))):
            found[f"statistics.{n}"] = value
    return found


if __name__ == "__main__":
    import sys

    import tensorflow

    stored = {name: value.astype(np.float32) for name, value in results(tensorflow).items()}
    np.savez_compressed(sys.argv[1], **stored)
