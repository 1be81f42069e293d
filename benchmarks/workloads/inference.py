"""Workload: one image through ResNet-20 and AlexNet, weights fixed, batch normalisation too.

May import: see benchmarks.worker.
"""

from __future__ import annotations

from benchmarks import networks
from benchmarks.workloads import alexnet, resnet20

TITLE = "One image, forward only"
_NETWORKS = {"resnet20": resnet20, "alexnet": alexnet}
CASES = {
    name: dict(module.CASES[next(iter(module.CASES))], batch=1, network=name)
    for name, module in _NETWORKS.items()
}
TINY = dict(resnet20.TINY, batch=1, network="resnet20")


def network(nn, x, case):
    return _NETWORKS[case["network"]].network(nn, x, case)


PROGRAM = networks.Inference(network)
UNIT, CONTESTANTS, work = "ms", PROGRAM.contestants(), PROGRAM.work
