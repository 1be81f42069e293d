# L29: running the graph: 15 * 5 / (15 + 5)
# Lecture: How to design a deep learning framework
# Deck 004_7e1265fe86d56fa3, lines 161-176
# Repairs:
#   * import tinyflow instead of tensorflow (`tmport` in the scan), line numbers of the slide dropped
#   * the scan lost `a =`, `b =`, `res =` and `out =`
import tinyflow as tf

with tf.Session() as sess:

    a = tf.constant(15, name="a")
    b = tf.constant(5, name="b")

    prod = tf.multiply(a, b, name="Multiply")
    sum = tf.add(a, b, name="Add")

    res = tf.divide(prod, sum, name="Divide")

    out = sess.run(res)
    print(out)
