"""Make geometry.npz: the output sizes that PyTorch gives over two small grids of arguments.

Run with an interpreter that has PyTorch: python tests/golden/make_geometry.py. The grids below are
read by tests/test_geometry.py too, so only the sizes are stored; 0 stands for a refusal.
"""

from itertools import product
from pathlib import Path

import numpy as np


def pool_grid():
    """(size, kernel, stride, padding, dilation, ceil_mode); PyTorch pads at most half a kernel."""
    for n, k, s, d, ceil in product(range(1, 12), range(1, 5), range(1, 5), (1, 2), (0, 1)):
        for p in range(k // 2 + 1):
            yield n, k, s, p, d, ceil


def transpose_grid():
    """(size, kernel, stride, padding, output_padding, dilation)."""
    for n, k, s, p, d in product((1, 2, 5), range(1, 5), range(1, 4), range(3), (1, 2, 3)):
        for extra in range(max(s, d)):
            yield n, k, s, p, extra, d


def main():
    import torch

    def size(function, *args, **kwargs):
        try:
            return function(*args, **kwargs).shape[-1]
        except RuntimeError:
            return 0

    pool = [
        size(
            torch.nn.functional.max_pool1d,
            torch.zeros(1, 1, n),
            k,
            stride=s,
            padding=p,
            dilation=d,
            ceil_mode=bool(ceil),
        )
        for n, k, s, p, d, ceil in pool_grid()
    ]
    transpose = [
        size(
            torch.nn.functional.conv_transpose1d,
            torch.zeros(1, 1, n),
            torch.zeros(1, 1, k),
            stride=s,
            padding=p,
            output_padding=extra,
            dilation=d,
        )
        for n, k, s, p, extra, d in transpose_grid()
    ]
    np.savez_compressed(
        Path(__file__).with_name("geometry.npz"),
        pool=np.array(pool, np.uint8),
        transpose=np.array(transpose, np.uint8),
    )


if __name__ == "__main__":
    main()
