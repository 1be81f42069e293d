"""Workload: a training step of the LeNet-style network of TensorFlow's MNIST tutorial, with Adam.

May import: see benchmarks.worker.
"""

from __future__ import annotations

from benchmarks import networks

TITLE = "LeNet-style network, Adam: one training step"
CASES = {
    "batch 64": {"batch": 64, "image": [28, 28, 1], "filters": [32, 64], "hidden": 1024},
}
TINY = {"batch": 3, "image": [8, 8, 1], "filters": [4, 6], "hidden": 10}
_CLASSES = 10


def network(nn, x, case):
    for place, filters in enumerate(case["filters"]):
        x = nn.relu(nn.conv(x, "conv{}".format(place), filters, 5))
        x = nn.max_pool(x, 2, 2, "SAME")
    x = nn.relu(nn.dense(nn.flatten(x), "hidden", case["hidden"]))
    return nn.dense(x, "logits", _CLASSES)


PROGRAM = networks.training(network, optimizer="adam", rate=1e-4)
UNIT, CONTESTANTS, work = "ms", PROGRAM.contestants(), PROGRAM.work
