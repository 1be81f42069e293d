# L4: the computational graph of a * b + 3
# Lecture: Machine Learning Systems, lecture 10: Machine Learning System Stack
# Deck 000_f411225799bb0a06, line 252; deck 003_c234a8a0bd0b6694, line 346
# Repairs:
#   * the slides draw the graph and print no code; this is the program of the drawing
import tinyflow as tf

a = tf.placeholder(tf.float32, name="a")
b = tf.placeholder(tf.float32, name="b")
c = a * b + 3

sess = tf.Session()
print(sess.run(c, feed_dict={a: 2.0, b: 5.0}))
