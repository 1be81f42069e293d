"""Softmax regression, the lecture's program with a bias: one layer, gradient descent.

Main function: ``build``. Written with public names only, as a user would.
"""

import tinyflow as tf


class Model:
    """x: float32[n, features]; labels: float32[n, classes], one-hot; the rest is computed."""


def build(features, classes=10, learning_rate=0.5):
    """The graph: prediction, loss, one step of gradient descent, accuracy."""
    m = Model()
    # Create the model
    m.x = x = tf.placeholder(tf.float32, [None, features], name="x")
    W = tf.Variable(tf.zeros([features, classes]), name="W")
    b = tf.Variable(tf.zeros([classes]), name="b")
    y = tf.nn.softmax(tf.matmul(x, W) + b)
    # Define loss and optimizer
    m.labels = y_ = tf.placeholder(tf.float32, [None, classes], name="labels")
    m.loss = tf.reduce_mean(-tf.reduce_sum(y_ * tf.log(y), reduction_indices=[1]))
    # Update rule
    W_grad, b_grad = tf.gradients(m.loss, [W, b])
    m.train_step = tf.group(
        tf.assign(W, W - learning_rate * W_grad),
        tf.assign(b, b - learning_rate * b_grad),
    )
    # Share of right answers
    right = tf.equal(tf.argmax(y, 1), tf.argmax(y_, 1))
    m.accuracy = tf.reduce_mean(tf.cast(right, tf.float32))
    m.initialize = tf.global_variables_initializer()
    return m
