# L30: a placeholder for labels, a loss from labels and prediction
# Lecture: How to design a deep learning framework
# Deck 004_7e1265fe86d56fa3, lines 187-193
# Repairs:
#   * the literal `...` inside softmax( ) becomes a network: one linear layer, 784 -> 10
#   * broken lines joined; the import is added
import tinyflow as tf

x = tf.placeholder(tf.float32, [100, 784])
W = tf.Variable(tf.zeros((784, 10)))
b = tf.Variable(tf.zeros((10,)))

prediction = tf.nn.softmax(tf.matmul(x, W) + b)  # Output of neural network
label = tf.placeholder(tf.float32, [100, 10])

cross_entropy = -tf.reduce_sum(label * tf.log(prediction), axis=1)
