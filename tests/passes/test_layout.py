"""Image layouts: pairs of transpositions appear, meet and cancel; values stay what they were."""

import numpy as np
import pytest

import tinyflow as tf
from tests.compile.test_unknown_sizes import check
from tinyflow import ops
from tinyflow.autodiff import gradients
from tinyflow.compile import compile_function
from tinyflow.core import options
from tinyflow.ir.graph.builder import Builder, building, emit
from tinyflow.ir.graph.nodes import Function, Input, Node, TensorType
from tinyflow.ir.graph.text import outline
from tinyflow.ops.convolution import Conv
from tinyflow.ops.movement import Transpose
from tinyflow.ops.normalization import FusedBatchNorm
from tinyflow.ops.pooling import AvgPool, MaxPool
from tinyflow.passes.layout import collapse_layouts, expand_layouts, moved_bytes
from tinyflow.passes.pipeline import optimize


def function(build, *arrays):
    with building(Builder()):
        types = [TensorType(a.dtype, a.shape) for a in arrays]
        inputs = [Node(Input(t), (), (t,)).outputs[0] for t in types]
        outputs = build(*inputs)
    return Function("f", inputs, outputs if isinstance(outputs, tuple) else (outputs,))


def transposes(fn):
    return sum(isinstance(n.op, Transpose) for n in fn.nodes)


def formats(fn):
    return {n.op.data_format for n in fn.nodes if hasattr(n.op, "data_format")}


def normal(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def conv(x, w, strides=(1, 1), padding="SAME"):
    return emit(Conv(strides, padding, (1, 1), "NCHW"), x, w)


def close(build, *arrays, places=2e-5):
    """The default level against level 1, which leaves layouts alone, and both fusion modes."""
    fn = function(build, *arrays)
    with options.override(level=1):
        plain = compile_function(fn)(*arrays)
    with options.override(verify=True):
        last, alone = compile_function(fn)(*arrays), compile_function(fn, fuse=False)(*arrays)
    for got, other, expected in zip(last, alone, plain, strict=True):
        assert got.tobytes() == other.tobytes()
        scale = np.abs(expected).max() + 1e-30
        np.testing.assert_allclose(got / scale, expected / scale, atol=places)


def network(x, w1, b1, w2):
    """Four ops with a format, three without; images come in and go out with channels first."""
    y = ops.relu(ops.bias_add(conv(x, w1), b1, "NCHW"))
    y = emit(MaxPool((2, 2), (2, 2), "SAME", (1, 1), "NCHW"), y)
    return ops.tanh(ops.multiply(conv(y, w2), 0.5))


NETWORK = normal(2, 16, 12, 10), normal(3, 3, 16, 24), normal(24), normal(3, 3, 24, 32)


def test_the_two_phases():
    fn = function(network, *NETWORK)
    expanded = expand_layouts(fn)
    collapsed = collapse_layouts(expanded)
    assert [transposes(f) for f in (fn, expanded, collapsed)] == [0, 2 * 4, 2]
    assert formats(fn) == {"NCHW"} and formats(collapsed) == {"NHWC"}
    kinds = [type(n.op).__name__ for n in collapsed.nodes if not isinstance(n.op, Input)]
    assert kinds[0] == kinds[-1] == "Transpose"
    assert collapsed.outputs[0].type == fn.outputs[0].type
    assert expand_layouts(collapsed) is collapsed
    assert collapse_layouts(collapsed) is collapsed
    close(network, *NETWORK)


def test_each_phase_is_a_record_that_can_be_printed():
    _, records = optimize(function(network, *NETWORK))
    by_name = {r.name: r for r in records}
    assert by_name["expand_layouts"].text.count("Transpose(") == 8
    assert by_name["collapse_layouts"].text.count("Transpose(") == 2
    assert outline(by_name["collapse_layouts"].fn) == by_name["collapse_layouts"].text


def test_level_one_keeps_every_bit_and_so_the_layout():
    with options.override(level=1):
        fn, records = optimize(function(network, *NETWORK))
    assert not {"expand_layouts", "collapse_layouts"} & {r.name for r in records}
    assert transposes(fn) == 0


def test_channels_last_stay_untouched():
    def build(x, w):
        return emit(Conv((1, 1), "SAME", (1, 1), "NHWC"), x, w)

    fn = function(build, normal(2, 9, 8, 16), normal(3, 3, 16, 16))
    assert expand_layouts(fn) is fn and collapse_layouts(fn) is fn


def test_a_convolution_that_gains_less_than_it_costs_stays():
    x, w = normal(2, 16, 40, 40), normal(1, 1, 16, 2)
    fn = function(conv, x, w)
    assert expand_layouts(fn) is fn
    few = function(conv, normal(2, 3, 40, 40), normal(5, 5, 3, 16))
    assert expand_layouts(few) is few


def residual(x, w1, w2, scale, offset):
    """A block with batch norm whose shortcut joins two branches."""
    y = conv(x, w1)
    y, mean, _ = emit(FusedBatchNorm(1e-3, "NCHW"), y, scale, offset)
    y = ops.relu(y)
    y = ops.add(conv(y, w2), conv(x, w1))
    return y, mean


THROUGH = {
    "a shortcut": lambda x, w: ops.add(ops.relu(conv(x, w)), x),
    "a column per channel": lambda x, w: ops.multiply(
        conv(x, w), ops.reshape(ops.slice_(ops.reshape(w, (-1,)), (0,), (32,)), (32, 1, 1))
    ),
    "a row": lambda x, w: ops.add(
        conv(x, w), ops.slice_(ops.reshape(w, (-1,)), (0,), (10,))
    ),
    "means over the image": lambda x, w: ops.reduce_mean(conv(x, w), axis=(2, 3)),
    "a maximum over channels": lambda x, w: ops.reduce_max(conv(x, w), axis=(1,)),
    "sums over rows": lambda x, w: ops.reduce_sum(conv(x, w), axis=(3,)),
    "a sum kept": lambda x, w: ops.reduce_sum(conv(x, w), axis=(1, 2), keepdims=True),
    "pads": lambda x, w: conv(
        ops.pad(ops.relu(conv(x, w)), ((0, 0), (0, 0), (1, 2), (3, 0))), w, (2, 2), "VALID"
    ),
    "a concatenation": lambda x, w: ops.concat(
        [conv(x, w), ops.tanh(conv(x, w)), ops.exp(conv(x, w))], 1
    ),
    "parts": lambda x, w: ops.slice_(conv(x, w), (0, 4, 2, 3), (2, 8, 5, 4)),
    "a choice": lambda x, w: ops.select(
        ops.greater(conv(x, w), 0.0), conv(x, w), ops.zeros_like(conv(x, w))
    ),
    "half precision": lambda x, w: ops.cast(ops.cast(conv(x, w), "float16"), "float32"),
    "mean pooling": lambda x, w: emit(
        AvgPool((3, 2), (2, 1), "SAME", (1, 1), "NCHW"), conv(x, w)
    ),
    "a reshape": lambda x, w: ops.reshape(conv(x, w), (2, -1)),
    "two uses": lambda x, w: (conv(x, w), ops.reshape(ops.relu(conv(x, w)), (-1,))),
}  # fmt: skip


@pytest.mark.parametrize("name", THROUGH)
def test_what_transpositions_move_through(name):
    x, w = normal(2, 32, 12, 10), normal(3, 3, 32, 32)
    fn = function(THROUGH[name], x, w)
    expanded = expand_layouts(fn)
    assert expanded is not fn
    collapsed = collapse_layouts(expanded)
    assert moved_bytes(collapsed) <= moved_bytes(expanded)
    assert formats(collapsed) == {"NHWC"}
    close(THROUGH[name], x, w, places=2e-3 if name == "half precision" else 2e-5)


def test_the_gradient_of_a_concatenation():
    def step(x, w):
        both = ops.concat([conv(x, w), ops.tanh(conv(x, w)), x], 1)
        loss = ops.reduce_sum(ops.square(ops.reduce_mean(ops.relu(both), axis=(2, 3))))
        return gradients(loss, [w])[0]

    x, w = normal(2, 32, 12, 10), normal(3, 3, 32, 32)
    fn, _ = optimize(function(step, x, w))
    assert sum(n.types[0].rank == 4 and n.types[0].shape[0] == 2 for n in fn.nodes
               if isinstance(n.op, Transpose)) == 1  # the images come in  # fmt: skip
    close(step, x, w, places=1e-4)


def test_images_enter_and_leave_once_in_a_residual_block():
    w = normal(3, 3, 16, 16)
    arrays = normal(2, 16, 12, 10), w, w[::-1].copy(), normal(16), normal(16)
    fn = collapse_layouts(expand_layouts(function(residual, *arrays)))
    assert transposes(fn) == 2
    close(residual, *arrays)


def test_one_and_three_spatial_axes():
    def line(x, w):
        return ops.relu(emit(Conv((1,), "SAME", (1,), "NCW"), x, w))

    def volume(x, w):
        return ops.relu(emit(Conv((1,) * 3, "SAME", (1,) * 3, "NCDHW"), x, w))

    for build, x, w in (
        (line, normal(3, 16, 40), normal(15, 16, 24)),
        (volume, normal(2, 8, 5, 6, 7), normal(3, 3, 3, 8, 16)),
    ):
        fn = collapse_layouts(expand_layouts(function(build, x, w)))
        assert transposes(fn) == 2 and formats(fn) <= {"NWC", "NDHWC"}
        close(build, x, w)


def test_transpositions_written_by_hand_meet():
    def build(x, w):
        y = ops.transpose(emit(Conv((1, 1), "SAME", (1, 1), "NHWC"), x, w), (0, 3, 1, 2))
        return ops.transpose(ops.relu(ops.add(y, 1.0)), (0, 2, 3, 1))

    x, w = normal(2, 9, 8, 16), normal(3, 3, 16, 16)
    assert transposes(collapse_layouts(function(build, x, w))) == 0
    close(build, x, w)


# ---- training steps ------------------------------------------------------------------------------
def test_a_training_step_turns_its_input_and_the_flattened_image():
    def step(x, w1, b1, w2, w3):
        y = emit(MaxPool((2, 2), (2, 2), "SAME", (1, 1), "NCHW"),
                 ops.relu(ops.bias_add(conv(x, w1), b1, "NCHW")))
        y = ops.relu(conv(y, w2))
        y = ops.matmul(ops.reshape(y, (x.type.shape[0], -1)), w3)
        loss = ops.reduce_mean(ops.square(y))
        return (loss, *gradients(loss, [w1, b1, w2, w3]))

    arrays = (normal(4, 3, 12, 8), normal(5, 5, 3, 16), normal(16), normal(5, 5, 16, 32),
              normal(32 * 6 * 4, 10))  # fmt: skip
    fn, _ = optimize(function(step, *arrays))
    turned = [n.types[0].shape for n in fn.nodes if isinstance(n.op, Transpose)]
    # The input, the activation that is flattened, and its gradient: each is seen in both layouts.
    # (The fourth is the filter with its channels swapped, which any layout needs.)
    assert sorted(turned) == [(4, 6, 4, 32), (4, 12, 8, 3), (4, 32, 6, 4), (5, 5, 32, 16)]
    close(step, *arrays, places=1e-4)


def lenet_step(data_format, channels=1, batch=8, size=12):
    """Losses of three steps; the weights are the same for both formats."""
    rng = np.random.default_rng(3)
    images = rng.normal(size=(batch, size, size, channels)).astype(np.float32)
    labels = rng.integers(0, 10, batch).astype(np.int32)
    first = data_format == "NCHW"
    if first:
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))

    def weights(*shape):
        return tf.Variable((rng.normal(size=shape) * 0.1).astype(np.float32))

    with tf.Graph().as_default():
        x, y = tf.placeholder(tf.float32, images.shape), tf.placeholder(tf.int32, labels.shape)
        h, window = x, [1, 1, 2, 2] if first else [1, 2, 2, 1]
        for c, k in ((channels, 16), (16, 32)):
            h = tf.nn.conv2d(h, weights(5, 5, c, k), [1] * 4, "SAME", data_format=data_format)
            h = tf.nn.relu(tf.nn.bias_add(h, weights(k), data_format))
            h = tf.nn.max_pool(h, window, window, "SAME", data_format)
        if first:
            h = tf.transpose(h, [0, 2, 3, 1])
        logits = tf.matmul(tf.reshape(h, [batch, -1]), weights(size // 4 * (size // 4) * 32, 10))
        loss = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
        )
        train = tf.train.GradientDescentOptimizer(0.01).minimize(loss)
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            found = [session.run([loss, train], {x: images, y: labels})[0] for _ in range(3)]
    return found


def test_a_training_step_agrees_in_both_formats():
    last, first = lenet_step("NHWC", 3), lenet_step("NCHW", 3)
    np.testing.assert_allclose(first, last, rtol=1e-5)
    assert last[2] < last[0]


def test_any_batch_size_runs_the_same_layout(monkeypatch):
    def build():
        x = tf.placeholder(tf.float32, [None, 3, 12, 8])
        w1, w2 = tf.Variable(normal(5, 5, 3, 16)), tf.Variable(normal(5, 5, 16, 32))
        w3 = tf.Variable(normal(32 * 6 * 4, 10))
        h = tf.nn.relu(tf.nn.conv2d(x, w1, [1] * 4, "SAME", data_format="NCHW"))
        h = tf.nn.max_pool(h, [1, 1, 2, 2], [1, 1, 2, 2], "SAME", "NCHW")
        h = tf.nn.relu(tf.nn.conv2d(h, w2, [1] * 4, "SAME", data_format="NCHW"))
        y = tf.matmul(tf.reshape(h, [-1, 32 * 6 * 4]), w3)
        return [x], [y, tf.gradients(y, [x])[0]]

    check(build, [(normal(n, 3, 12, 8),) for n in (5, 2, 7, 1)], monkeypatch)
