"""Workload: OverFeat, the fast model (Sermanet et al. 2013, as in the convnet-benchmarks), SGD.

May import: see benchmarks.worker.
"""

from __future__ import annotations

from benchmarks import networks

TITLE = "OverFeat: one training step"
CASES = {
    "batch 4": {
        "batch": 4,
        "image": [231, 231, 3],
        "filters": [96, 256, 512, 1024, 1024],
        "hidden": [3072, 4096],
        "classes": 1000,
    }
}
TINY = {
    "rate": 0.01,
    "batch": 2,
    "image": [71, 71, 3],
    "filters": [3, 4, 5, 6, 6],
    "hidden": [12, 14],
    "classes": 10,
}


def network(nn, x, case):
    filters = case["filters"]
    x = nn.max_pool(nn.relu(nn.conv(x, "conv1", filters[0], 11, 4, "VALID")), 2, 2)
    x = nn.max_pool(nn.relu(nn.conv(x, "conv2", filters[1], 5, 1, "VALID")), 2, 2)
    for place in (2, 3, 4):
        x = nn.relu(nn.conv(x, "conv{}".format(place + 1), filters[place], 3))
    x = nn.flatten(nn.max_pool(x, 2, 2))
    for place, units in enumerate(case["hidden"]):
        x = nn.relu(nn.dense(x, "dense{}".format(place + 6), units))
    return nn.dense(x, "logits", case["classes"])


PROGRAM = networks.training(network, optimizer="sgd", rate=1e-5)
UNIT, CONTESTANTS, work = "ms", PROGRAM.contestants(), PROGRAM.work
