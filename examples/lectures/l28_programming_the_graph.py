# L28: programming the graph: h = ReLU(xW + b)
# Lecture: How to design a deep learning framework
# Deck 004_7e1265fe86d56fa3, lines 129-135
# Repairs:
#   * import tinyflow instead of tensorflow
#   * the slide scan breaks `-1, 1` over two lines with figure labels between: joined, labels dropped
#   * the scan lost a parenthesis: relutf.matmul(x, W) + b) -> relu(tf.matmul(x, W) + b)
import tinyflow as tf

b = tf.Variable(tf.zeros((100,)))
W = tf.Variable(tf.random_uniform((784, 100), -1, 1))
x = tf.placeholder(tf.float32, (1, 784))
h = tf.nn.relu(tf.matmul(x, W) + b)
