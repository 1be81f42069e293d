"""Workload: ResNet-20 for CIFAR (He et al. 2015, section 4.2): a training step with momentum.

Three stages of three blocks of two 3x3 convolutions, 16, 32 and 64 channels; where the size
halves, a strided 1x1 convolution carries the input across. May import: see benchmarks.worker.
"""

from __future__ import annotations

from benchmarks import networks

TITLE = "ResNet-20 (CIFAR), momentum: one training step"
CASES = {"batch 32": {"batch": 32, "image": [32, 32, 3], "blocks": 3, "filters": [16, 32, 64]}}
TINY = {"rate": 0.01, "batch": 4, "image": [8, 8, 3], "blocks": 1, "filters": [4, 6]}
_CLASSES = 10


def network(nn, x, case):
    x = _conv_norm(nn, x, "stem", case["filters"][0], 3, 1, relu=True)
    for stage, filters in enumerate(case["filters"]):
        for block in range(case["blocks"]):
            stride = 2 if stage and not block else 1
            x = _block(nn, x, "stage{}/block{}".format(stage, block), filters, stride)
    return nn.dense(nn.mean_of_pixels(x), "logits", _CLASSES)


def _block(nn, x, name, filters, stride):
    y = _conv_norm(nn, x, name + "/a", filters, 3, stride, relu=True)
    y = _conv_norm(nn, y, name + "/b", filters, 3, 1, relu=False)
    if stride > 1:
        x = _conv_norm(nn, x, name + "/across", filters, 1, stride, relu=False)
    return nn.relu(nn.add(x, y))


def _conv_norm(nn, x, name, filters, size, stride, relu):
    y = nn.batch_norm(nn.conv(x, name, filters, size, stride, bias=False), name + "/norm")
    return nn.relu(y) if relu else y


PROGRAM = networks.training(network, optimizer="momentum", rate=1e-3)
UNIT, CONTESTANTS, work = "ms", PROGRAM.contestants(), PROGRAM.work
