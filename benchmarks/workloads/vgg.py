"""Workload: VGG-A, eleven layers of weights (Simonyan and Zisserman 2014, table 1), SGD.

May import: see benchmarks.worker.
"""

from __future__ import annotations

from benchmarks import networks

TITLE = "VGG-A: one training step"
CASES = {
    "batch 4": {
        "batch": 4,
        "image": [224, 224, 3],
        "stages": [[64], [128], [256, 256], [512, 512], [512, 512]],
        "hidden": 4096,
        "classes": 1000,
    }
}
TINY = {
    "rate": 0.01,
    "batch": 2,
    "image": [16, 16, 3],
    "stages": [[4], [5], [6, 6]],
    "hidden": 12,
    "classes": 10,
}


def network(nn, x, case):
    for stage, widths in enumerate(case["stages"]):
        for place, filters in enumerate(widths):
            x = nn.relu(nn.conv(x, "conv{}_{}".format(stage, place), filters, 3))
        x = nn.max_pool(x, 2, 2)
    x = nn.flatten(x)
    for name in ("dense1", "dense2"):
        x = nn.relu(nn.dense(x, name, case["hidden"]))
    return nn.dense(x, "logits", case["classes"])


PROGRAM = networks.training(network, optimizer="sgd", rate=1e-5)
UNIT, CONTESTANTS, work = "ms", PROGRAM.contestants(), PROGRAM.work
