# L4: the graph grows statement by statement (repl.py shows what each one adds)
# Lecture: Machine Learning Systems, lecture 10: Machine Learning System Stack
# Deck 000_f411225799bb0a06, lines 259-263, 270-273, 280-282, 292-294 and 301-303
# Repairs:
#   * the imports, learning_rate and the session and data of the last fragment come from L2
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
