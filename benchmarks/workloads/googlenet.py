"""Workload: GoogLeNet (Szegedy et al. 2014, table 1) without its side heads and LRN, SGD.

May import: see benchmarks.worker.
"""

from __future__ import annotations

from benchmarks import networks

TITLE = "GoogLeNet: one training step"
# 1x1; 1x1 before 3x3, 3x3; 1x1 before 5x5, 5x5; 1x1 after pooling
_STAGES = [
    [(64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)],
    [
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ],
    [(256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)],
]
CASES = {
    "batch 4": {
        "batch": 4,
        "image": [224, 224, 3],
        "modules": [2, 5, 2],
        "divide": 1,
        "classes": 1000,
    }
}
TINY = {
    "rate": 0.001,
    "batch": 2,
    "image": [32, 32, 3],
    "modules": [1, 1],
    "divide": 16,
    "classes": 10,
}


def network(nn, x, case):
    divide = case["divide"]
    x = nn.relu(nn.conv(x, "conv1", 64 // divide, 7, 2))
    x = nn.max_pool(x, 3, 2, "SAME")
    x = nn.relu(nn.conv(x, "conv2/reduce", 64 // divide, 1))
    x = nn.relu(nn.conv(x, "conv2", 192 // divide, 3))
    x = nn.max_pool(x, 3, 2, "SAME")
    for stage, count in enumerate(case["modules"]):
        if stage:
            x = nn.max_pool(x, 3, 2, "SAME")
        for place, widths in enumerate(_STAGES[stage][:count]):
            name = "inception{}_{}".format(stage, place)
            x = _inception(nn, x, name, [width // divide for width in widths])
    return nn.dense(nn.mean_of_pixels(x), "logits", case["classes"])


def _inception(nn, x, name, widths):
    def conv(y, part, filters, size):
        return nn.relu(nn.conv(y, name + part, filters, size))

    return nn.concat(
        [
            conv(x, "/one", widths[0], 1),
            conv(conv(x, "/three_reduce", widths[1], 1), "/three", widths[2], 3),
            conv(conv(x, "/five_reduce", widths[3], 1), "/five", widths[4], 5),
            conv(nn.max_pool(x, 3, 1, "SAME"), "/pool", widths[5], 1),
        ]
    )


PROGRAM = networks.training(network, optimizer="sgd", rate=1e-5)
UNIT, CONTESTANTS, work = "ms", PROGRAM.contestants(), PROGRAM.work
