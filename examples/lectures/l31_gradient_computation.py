# L31: gradient computation: an optimizer adds the update to the graph
# Lecture: How to design a deep learning framework
# Deck 004_7e1265fe86d56fa3, lines 196-197, after lines 187-193
# Repairs:
#   * L30, which this slide continues, stands before it, with its repairs
#   * the training loop comes from L2: the slide has none
#   * the broken line is joined
#   * not repaired: the loss is a vector of 100, so its gradient is that of the SUM, and the rate 0.5
#     is 50 on the mean. Training saturates the softmax. Naively the log reaches -inf and W becomes NaN
import tinyflow as tf

x = tf.placeholder(tf.float32, [100, 784])
W = tf.Variable(tf.zeros((784, 10)))
b = tf.Variable(tf.zeros((10,)))

prediction = tf.nn.softmax(tf.matmul(x, W) + b)  # Output of neural network
label = tf.placeholder(tf.float32, [100, 10])

cross_entropy = -tf.reduce_sum(label * tf.log(prediction), axis=1)

train_step = tf.train.GradientDescentOptimizer(0.5).minimize(cross_entropy)

from tinyflow.datasets import get_mnist
sess = tf.Session()
sess.run(tf.initialize_all_variables())
mnist = get_mnist(flatten=True, onehot=True)
for i in range(1000):
    batch_xs, batch_ys = mnist.train.next_batch(100)
    sess.run(train_step, feed_dict={x: batch_xs, label: batch_ys})
