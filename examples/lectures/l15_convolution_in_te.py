# L15: a convolution as a tensor expression
# Lecture: AI-Systems, Machine Learning Frameworks
# Deck 001_1d2baec386ad5c0a, lines 560-563
# Repairs:
#   * import tinyflow.te as tvm; the slide shows no declarations: those above the line are ours
#   * the slide's w is both the width of the output and the weight: the extent is now wd
#   * the weight has no index kc: one 3x3 kernel per output channel serves all input channels
import tinyflow.te as tvm

c, h, wd = tvm.var('c'), tvm.var('h'), tvm.var('wd')
channels = tvm.var('channels')
data = tvm.placeholder((channels, h + 2, wd + 2), name='data')
w = tvm.placeholder((c, 3, 3), name='w')
kx, ky = tvm.reduce_axis((0, 3), name='kx'), tvm.reduce_axis((0, 3), name='ky')
kc = tvm.reduce_axis((0, channels), name='kc')

out = tvm.compute((c, h, wd),
                  lambda i, x, y: tvm.sum(data[kc,x+kx,y+ky] * w[i,kx,ky], [kx,ky,kc]))

if __name__ == "__main__":
    print(tvm.lower(tvm.create_schedule(out.op), [data, w, out], simple_mode=True))
