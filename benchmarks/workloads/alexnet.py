"""Workload: AlexNet in one column (Krizhevsky 2014, as in the convnet-benchmarks), SGD.

224x224 images with 3 more pixels, so that the first convolution gives 55x55 without padding.
May import: see benchmarks.worker.
"""

from __future__ import annotations

from benchmarks import networks

TITLE = "AlexNet: one training step"
CASES = {
    "batch 4": {"batch": 4, "image": [227, 227, 3], "width": 64, "hidden": 4096, "classes": 1000}
}
TINY = {"rate": 0.01, "batch": 2, "image": [67, 67, 3], "width": 4, "hidden": 16, "classes": 10}


def network(nn, x, case):
    width, hidden = case["width"], case["hidden"]
    x = nn.relu(nn.conv(x, "conv1", width, 11, 4, "VALID"))
    x = nn.max_pool(x, 3, 2)
    x = nn.relu(nn.conv(x, "conv2", 3 * width, 5))
    x = nn.max_pool(x, 3, 2)
    x = nn.relu(nn.conv(x, "conv3", 6 * width, 3))
    x = nn.relu(nn.conv(x, "conv4", 4 * width, 3))
    x = nn.relu(nn.conv(x, "conv5", 4 * width, 3))
    x = nn.flatten(nn.max_pool(x, 3, 2))
    x = nn.relu(nn.dense(x, "dense6", hidden))
    x = nn.relu(nn.dense(x, "dense7", hidden))
    return nn.dense(x, "logits", case["classes"])


PROGRAM = networks.training(network, optimizer="sgd", rate=1e-5)
UNIT, CONTESTANTS, work = "ms", PROGRAM.contestants(), PROGRAM.work
