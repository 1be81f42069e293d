"""What the tools' tests share: a fresh default graph, quick peaks that are stored nowhere else."""

import pytest

from tinyflow.tools import machine_peak

SCRIPT = '''\
import sys
import tinyflow as tf
from tinyflow.datasets import get_digits

x = tf.placeholder(tf.float32, [None, 64])
W = tf.Variable(tf.zeros([64, 10]))
y = tf.nn.softmax(tf.matmul(x, W))
y_ = tf.placeholder(tf.float32, [None, 10])
loss = tf.reduce_mean(-tf.reduce_sum(y_ * tf.log(y), reduction_indices=[1]))
W_grad = tf.gradients(loss, [W])[0]
train_step = tf.assign(W, W - 0.5 * W_grad)
sess = tf.Session()
sess.run(tf.global_variables_initializer())
digits = get_digits(flatten=True, onehot=True)
for i in range(20):
    images, labels = digits.train.next_batch(100)
    sess.run(train_step, feed_dict={x: images, y_: labels})
print("loss", sess.run(loss, feed_dict={x: images, y_: labels}))
'''


@pytest.fixture(autouse=True)
def fresh_graph():
    from tinyflow.frontends.tf1.graph import Graph

    with Graph().as_default():
        yield


@pytest.fixture(autouse=True)
def quick_peaks(tmp_path, monkeypatch):
    """Measurements of a few milliseconds, stored in the test's own folder."""
    monkeypatch.setattr(machine_peak, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(machine_peak, "_LEAST_ROUNDS", 1)
    monkeypatch.setattr(machine_peak, "_ROUND_BYTES", 1 << 20)
    monkeypatch.setattr(machine_peak, "MEMORY_BYTES", 1 << 20)
    monkeypatch.setattr(machine_peak, "_path", lambda: str(tmp_path / "peaks.json"))


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "train.py"
    path.write_text(SCRIPT)
    return str(path)
