"""Make pool.npz: PyTorch's pools and their gradients, in float64 over inputs full of ties.

Run with an interpreter that has PyTorch: python tests/golden/make_pool.py. Inputs and weights of
the gradients come from `draw`, which the test calls too; arrays are stored with features last.
"""

from pathlib import Path

import numpy as np

# kind and name -> (input shape with features last, arguments of PyTorch)
MAX = {
    "1d": ((2, 9, 3), {"kernel_size": 3}),
    "1d overlap, padded, ceil": (
        (2, 8, 2),
        {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    ),
    "1d wide": ((2, 23, 2), {"kernel_size": 11, "stride": 3, "padding": 5}),
    "2d": ((2, 6, 6, 3), {"kernel_size": 2}),
    "2d cut": ((1, 7, 5, 2), {"kernel_size": 2}),
    "2d ceil": ((1, 7, 5, 2), {"kernel_size": 2, "ceil_mode": True}),
    "2d AlexNet": ((2, 9, 7, 2), {"kernel_size": 3, "stride": 2}),
    "2d ResNet": ((2, 8, 9, 2), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "2d stride 1": ((1, 5, 5, 2), {"kernel_size": 3, "stride": 1, "padding": 1}),
    "2d uneven": ((1, 7, 9, 2), {"kernel_size": (2, 3), "stride": (3, 2), "padding": (1, 0)}),
    "2d gaps": ((1, 9, 9, 2), {"kernel_size": 2, "stride": 3, "ceil_mode": True}),
    "2d big": ((1, 10, 10, 2), {"kernel_size": 5}),
    "3d": ((1, 4, 4, 6, 2), {"kernel_size": 2}),
    "3d overlap": (
        (1, 4, 5, 6, 2),
        {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    ),
}
AVERAGE = {
    **{name: case for name, case in MAX.items() if "wide" not in name},
    "1d padding not counted": (
        (2, 8, 2),
        {
            "kernel_size": 3,
            "stride": 2,
            "padding": 1,
            "ceil_mode": True,
            "count_include_pad": False,
        },
    ),
    "2d padding not counted": (
        (1, 8, 7, 2),
        {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
    ),
    "2d ceil over the padding": (
        (1, 6, 7, 2),
        {"kernel_size": 4, "stride": 3, "padding": 2, "ceil_mode": True},
    ),
    "3d padding not counted": (
        (1, 4, 5, 6, 1),
        {
            "kernel_size": 3,
            "stride": 2,
            "padding": 1,
            "ceil_mode": True,
            "count_include_pad": False,
        },
    ),
}


def draw(shape, out_shape):
    """Small integers after a ReLU, about half of them zero; and weights of the outputs."""
    random = np.random.RandomState(sum(shape))
    x = np.maximum(random.randint(-4, 5, shape), 0).astype(np.float64)
    return x, random.randn(*out_shape)


def main():
    import torch

    def first(x):  # channels
        return x.movedim(-1, 1)

    def last(x):
        return x.detach().movedim(1, -1).contiguous().numpy()

    functions = torch.nn.functional
    out = {}
    for kind, cases in (("max", MAX), ("avg", AVERAGE)):
        for name, (shape, arguments) in cases.items():
            pool = getattr(functions, f"{kind}_pool{len(shape) - 2}d")
            probe = pool(first(torch.zeros(shape, dtype=torch.float64)), **arguments)
            x, weights = draw(shape, probe.movedim(1, -1).shape)
            x = torch.tensor(x, requires_grad=True)
            y = pool(first(x), **arguments)
            (y * first(torch.tensor(weights))).sum().backward()
            out[f"{kind} {name}"], out[f"{kind} {name} grad"] = last(y), x.grad.numpy()

    # An adaptive pool to one position is the global pool.
    for kind in ("max", "avg"):
        x, weights = draw((2, 5, 3, 4), (2, 4))
        x = torch.tensor(x, requires_grad=True)
        y = getattr(functions, f"adaptive_{kind}_pool2d")(first(x), 1)[:, :, 0, 0]
        (y * torch.tensor(weights)).sum().backward()
        out[f"global {kind}"], out[f"global {kind} grad"] = y.detach().numpy(), x.grad.numpy()

    # One NaN in the first window and two in the third.
    x = torch.tensor([1.0, np.nan, 2, 3, 4, 5, np.nan, 6, np.nan]).reshape(1, 1, 9)
    x.requires_grad_()
    y = functions.max_pool1d(x, 3)
    y.backward(torch.tensor([[[1.0, 10.0, 100.0]]]))
    out["nan"], out["nan grad"] = y.detach().numpy().ravel(), x.grad.numpy().ravel()
    np.savez_compressed(Path(__file__).with_name("pool.npz"), **out)


if __name__ == "__main__":
    main()
