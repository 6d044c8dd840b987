"""Make normalization.npz: PyTorch's normalisations, in float64, with gradients.

Run with an interpreter that has PyTorch: python tests/golden/make_normalization.py. Inputs come
from `draw`, which the test calls too; arrays are stored with features last.
"""

from pathlib import Path

import numpy as np

BATCH = {"dense": (5, 3), "1d": (4, 5, 3), "2d": (3, 4, 2, 3), "3d": (2, 3, 2, 2, 3)}
LAYER = {"features": ((2, 3, 5), (-1,)), "image": ((2, 3, 4, 2), (1, 2, 3))}
GROUP = {"2d": ((2, 3, 4, 6), 3), "one group": ((2, 4, 6), 1), "dense": ((3, 6), 2)}
INSTANCE = {"1d": (2, 5, 3), "2d": (2, 3, 4, 3), "3d": (2, 2, 3, 2, 3)}
RESPONSE = {"odd": ((2, 3, 7), 5, 2.0, 1e-1, 0.75), "even": ((2, 3, 7), 4, 1.0, 0.5, 0.6)}


def draw(shape, parameters):
    """The input, scale, bias, and weights of the outputs for the gradient."""
    random = np.random.RandomState(sum(shape))
    x = 2 * random.randn(*shape) + 1
    scale, bias = 1 + 0.3 * random.randn(*parameters), 0.3 * random.randn(*parameters)
    return x, scale, bias, random.randn(*shape)


def main():
    import torch

    functions = torch.nn.functional
    out = {}

    def first(x):  # channels
        return x.movedim(-1, 1)

    def leaf(a):
        return torch.tensor(a, requires_grad=True)

    def keep(name, y, weights, **inputs):
        (y * torch.tensor(weights)).sum().backward()
        out[name] = y.detach().contiguous().numpy()
        for what, v in inputs.items():
            out[f"{name} {what}"] = v.grad.contiguous().numpy()

    for name, shape in BATCH.items():
        x, scale, bias, weights = draw(shape, shape[-1:])
        mean, var = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
        for step in range(2):  # the second step sees another batch
            x_, s, b = leaf(x + step * x**2), leaf(scale), leaf(bias)
            y = functions.batch_norm(first(x_), mean, var, s, b, training=True, momentum=0.1)
            keep(f"batch {name} {step}", y.movedim(1, -1), weights, x=x_, scale=s, bias=b)
        out[f"batch {name} mean"], out[f"batch {name} var"] = mean.numpy(), var.numpy()
        x_, s, b = leaf(x), leaf(scale), leaf(bias)
        y = functions.batch_norm(first(x_), mean, var, s, b, training=False)
        keep(f"batch {name} eval", y.movedim(1, -1), weights, x=x_, scale=s, bias=b)

    for name, (shape, axes) in LAYER.items():
        parameters = tuple(shape[a] for a in axes)
        x, scale, bias, weights = draw(shape, parameters)
        x_, s, b = leaf(x), leaf(scale), leaf(bias)
        y = functions.layer_norm(x_, parameters, s, b)
        keep(f"layer {name}", y, weights, x=x_, scale=s, bias=b)

    for name, (shape, groups) in GROUP.items():
        x, scale, bias, weights = draw(shape, shape[-1:])
        x_, s, b = leaf(x), leaf(scale), leaf(bias)
        y = functions.group_norm(first(x_), groups, s, b)
        keep(f"group {name}", y.movedim(1, -1), weights, x=x_, scale=s, bias=b)

    for name, shape in INSTANCE.items():
        x, scale, bias, weights = draw(shape, shape[-1:])
        x_, s, b = leaf(x), leaf(scale), leaf(bias)
        y = functions.instance_norm(first(x_), weight=s, bias=b)
        keep(f"instance {name}", y.movedim(1, -1), weights, x=x_, scale=s, bias=b)

    for name, (shape, size, k, alpha, beta) in RESPONSE.items():
        x, _, _, weights = draw(shape, ())
        x_ = leaf(x)
        y = functions.local_response_norm(first(x_), size, alpha * size, beta, k)
        keep(f"response {name}", y.movedim(1, -1), weights, x=x_)
    np.savez_compressed(Path(__file__).with_name("normalization.npz"), **out)


if __name__ == "__main__":
    main()
