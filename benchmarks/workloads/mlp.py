"""Workload: a training step of the perceptron 784-512-256-10 with Adam.

May import: see benchmarks.worker.
"""

from __future__ import annotations

from benchmarks import networks

TITLE = "Perceptron 784-512-256-10, Adam: one training step"
CASES = {"batch 128": {"batch": 128, "image": [784], "hidden": [512, 256], "classes": 10}}
TINY = {"batch": 8, "image": [20], "hidden": [16, 12], "classes": 4}


def network(nn, x, case):
    for place, units in enumerate(case["hidden"]):
        x = nn.relu(nn.dense(x, "dense{}".format(place), units))
    return nn.dense(x, "logits", case["classes"])


PROGRAM = networks.training(network, optimizer="adam", rate=1e-3)
UNIT, CONTESTANTS, work = "ms", PROGRAM.contestants(), PROGRAM.work
