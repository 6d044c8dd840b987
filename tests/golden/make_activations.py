"""Values and derivatives of PyTorch's activations in float64; run with PyTorch installed.

The inputs are not stored: tests make them again from the same seed.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

EXTREMES = [-100.0, -50.0, -20.0, -5.0, -1.0, -1e-3, 0.0, 1e-3, 1.0, 5.0, 20.0, 50.0, 100.0]

ELEMENTWISE = {
    "elu": F.elu,
    "elu_alpha_half": lambda x: F.elu(x, 0.5),
    "gelu": F.gelu,
    "gelu_approximate": lambda x: F.gelu(x, approximate="tanh"),
    "identity": torch.nn.Identity(),
    "leaky_relu": F.leaky_relu,
    "leaky_relu_slope_0.2": lambda x: F.leaky_relu(x, 0.2),
    "relu": F.relu,
    "relu6": F.relu6,
    "selu": F.selu,
    "sigmoid": torch.sigmoid,
    "softplus": lambda x: F.softplus(x, threshold=1000.0),  # the exact formula everywhere
    "swish": F.silu,
    "tanh": torch.tanh,
}


def main() -> None:
    out = {}
    points = np.concatenate([EXTREMES, 3 * np.random.RandomState(0).randn(27)])
    for name, function in ELEMENTWISE.items():
        x = torch.tensor(points, requires_grad=True)
        y = function(x)
        y.sum().backward()
        out[name], out[f"{name}_grad"] = y.detach().numpy(), x.grad.numpy()

    draw = np.random.RandomState(1)
    images, slope, weights = draw.randn(4, 3), draw.rand(3), draw.randn(4, 3)
    x, a = torch.tensor(images, requires_grad=True), torch.tensor(slope, requires_grad=True)
    y = F.prelu(x, a)
    (y * torch.tensor(weights)).sum().backward()
    out |= {"prelu": y.detach().numpy(), "prelu_x": x.grad.numpy(), "prelu_slope": a.grad.numpy()}

    draw = np.random.RandomState(2)
    logits, weights = 10 * draw.randn(4, 5), draw.randn(4, 5)
    logits[0] = [1000.0, 2000.0, 3000.0, 4000.0, 5000.0]
    for name, function in {
        "softmax": lambda x: F.softmax(x, -1),
        "softmax_axis0": lambda x: F.softmax(x, 0),
        "log_softmax": lambda x: F.log_softmax(x, -1),
    }.items():
        x = torch.tensor(logits, requires_grad=True)
        y = function(x)
        (y * torch.tensor(weights)).sum().backward()
        out[name], out[f"{name}_grad"] = y.detach().numpy(), x.grad.numpy()
    x = torch.tensor(logits, requires_grad=True)
    y = torch.logsumexp(x, -1)
    (y * torch.tensor(weights[:, 0])).sum().backward()
    out["logsumexp"], out["logsumexp_grad"] = y.detach().numpy(), x.grad.numpy()

    np.savez_compressed(Path(__file__).with_name("activations.npz"), **out)


if __name__ == "__main__":
    main()
