# L4 as the second lecture prints it
# Lecture: Machine Learning Systems (spring 2024), Deep Learning and Programming Abstraction
# Deck 003_c234a8a0bd0b6694, lines 527-529, 531-533, 536-538, 544-546, 549-551, 558-560 and 569-571
# Repairs:
#   * the imports, learning_rate and the session and data of the last fragment come from L2
#   * the slides leave out the assignment that makes train_step; it comes from L2
import tinyflow as tf
from tinyflow.datasets import get_mnist

x = tf.placeholder(tf.float32, [None, 784])
W = tf.Variable(tf.zeros([784, 10]))
y = tf.nn.softmax(tf.matmul(x, W))

y_ = tf.placeholder(tf.float32, [None, 10])
cross_entropy = tf.reduce_mean(-tf.reduce_sum(y_ * tf.log(y), reduction_indices=[1]))

W_grad = tf.gradients(cross_entropy, [W])[0]

learning_rate = 0.5
train_step = tf.assign(W, W - learning_rate * W_grad)

sess = tf.Session()
sess.run(tf.initialize_all_variables())
mnist = get_mnist(flatten=True, onehot=True)
batch_xs, batch_ys = mnist.train.next_batch(100)

sess.run(train_step, feed_dict={x: batch_xs, y_:batch_ys})
