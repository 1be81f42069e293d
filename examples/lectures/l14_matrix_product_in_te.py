# L14: a matrix product as a tensor expression: shape of C, computation rule
# Lecture: AI-Systems, Machine Learning Frameworks
# Deck 001_1d2baec386ad5c0a, lines 546-557
# Repairs:
#   * import tinyflow.te as tvm instead of import tvm
import tinyflow.te as tvm

m, n, h = tvm.var('m'), tvm.var('n'), tvm.var('h')
A = tvm.placeholder((m, h), name='A')
B = tvm.placeholder((n, h), name='B')
k = tvm.reduce_axis((0, h), name='k')
C = tvm.compute((m, n), lambda i, j: tvm.sum(A[i, k] * B[j, k], axis=k))

if __name__ == "__main__":
    s = tvm.create_schedule(C.op)
    print("shape of C:", C.shape)
    print(tvm.lower(s, [A, B, C], simple_mode=True))
