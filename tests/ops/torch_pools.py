"""Pools of torch that TensorFlow 1 does not have: the cases, and a program that stores its results.

``/path/to/python-with-torch tests/ops/torch_pools.py tests/golden/pools_torch.npz``
"""

from __future__ import annotations

import numpy as np

#: name: (kind, shape of x with channels second, arguments as torch calls them)
CASES = {
    "max_ceil": ("max", (2, 3, 7, 6), ((3, 2), (2, 3), (1, 0), (1, 2), True)),
    "max_ceil_cut": ("max", (1, 2, 5, 9), ((2, 3), (4, 2), (0, 1), (1, 1), True)),
    "max_line": ("max", (2, 2, 11), ((4,), (3,), (2,), (1,), True)),
    "max_volume": ("max", (1, 2, 5, 6, 4), ((2, 3, 2), (2, 2, 3), (1, 0, 1), (1, 2, 1), False)),
    "avg_ceil": ("avg", (2, 3, 7, 6), ((3, 2), (2, 3), (1, 0), True, False, None)),
    "avg_padded": ("avg", (2, 3, 7, 6), ((3, 2), (2, 3), (1, 1), False, True, None)),
    "avg_padded_ceil": ("avg", (2, 3, 8, 6), ((3, 3), (2, 2), (1, 1), True, True, None)),
    "avg_divisor": ("avg", (2, 3, 8, 5), ((3, 2), (2, 2), (1, 0), True, True, 5)),
    "lp2": ("lp", (2, 3, 6, 7), (2.0, (2, 3), (2, 2))),
    "lp3": ("lp", (2, 3, 6, 7), (3.0, (3, 2), (1, 2))),
    "adaptive_avg": ("adaptive_avg", (2, 3, 7, 10), ((3, 4),)),
    "adaptive_avg_more": ("adaptive_avg", (1, 2, 3, 5), ((5, 7),)),
    "adaptive_avg_line": ("adaptive_avg", (2, 3, 11), ((4,),)),
    "adaptive_avg_volume": ("adaptive_avg", (1, 2, 5, 3, 4), ((2, 3, 3),)),
    "adaptive_avg_equal": ("adaptive_avg", (2, 3, 6, 8), ((3, 2),)),
    "adaptive_max": ("adaptive_max", (2, 3, 7, 10), ((3, 4),)),
    "adaptive_max_more": ("adaptive_max", (1, 2, 3, 5), ((5, 7),)),
    "adaptive_max_line": ("adaptive_max", (2, 3, 11), ((4,),)),
    "adaptive_max_volume": ("adaptive_max", (1, 2, 5, 3, 4), ((2, 3, 3),)),
    "adaptive_max_equal": ("adaptive_max", (2, 3, 6, 8), ((3, 2),)),
    "unpool": ("unpool", (2, 3, 7, 6), ((2, 2), (2, 2), (1, 0))),
    "unpool_line": ("unpool", (2, 3, 9), ((3,), (3,), (0,))),
    "unpool_volume": ("unpool", (1, 2, 4, 6, 5), ((2, 2, 2), (2, 3, 2), (0, 0, 1))),
}


def image(name):
    """The input of a case: few different values for a maximum, so that windows have ties."""
    kind, shape, _ = CASES[name]
    count = np.arange(int(np.prod(shape)))
    x = np.sin(count * 0.7 + 0.01 * count**1.5).reshape(shape).astype(np.float32)
    if kind == "lp":
        return np.abs(x) + np.float32(0.1)
    return np.round(x * 3).astype(np.float32) if "max" in kind else x


def slope(shape):
    """What a result's gradient is multiplied with."""
    return np.cos(np.arange(int(np.prod(shape))) * 1.3).reshape(shape).astype(np.float32)


def results():
    import torch
    import torch.nn.functional as f

    found = {}
    for name, (kind, shape, own) in CASES.items():
        x = torch.tensor(image(name), requires_grad=True)
        dims, index = len(shape) - 2, None
        if kind == "max":
            y, index = getattr(f, f"max_pool{dims}d")(x, *own, return_indices=True)
        elif kind == "avg":
            *rest, divisor = own
            y = f.avg_pool2d(x, *rest, divisor_override=divisor)
        elif kind == "lp":
            y = f.lp_pool2d(x, *own)
        elif kind == "adaptive_avg":
            y = getattr(f, f"adaptive_avg_pool{dims}d")(x, *own)
        elif kind == "adaptive_max":
            y, index = getattr(f, f"adaptive_max_pool{dims}d")(x, *own, return_indices=True)
        else:
            size, stride, pad = own
            pool = getattr(f, f"max_pool{dims}d")
            z, index = pool(x, size, stride, pad, return_indices=True)
            y = getattr(f, f"max_unpool{dims}d")(z, index, size, stride, pad, shape)
        y.backward(torch.tensor(slope(tuple(y.shape))))
        found[f"{name}.y"], found[f"{name}.dx"] = y.detach().numpy(), x.grad.numpy()
        if index is not None:
            found[f"{name}.index"] = index.numpy()
    return found


if __name__ == "__main__":
    import sys

    np.savez_compressed(sys.argv[1], **results())
