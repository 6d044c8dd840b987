"""The trajectories of PyTorch's optimisers in float64, at a constant and at a changing rate.

Run with PyTorch installed. Problem and rates are made again by the tests from the same seed.
"""

from pathlib import Path

import numpy as np
import torch

STEPS = 15

METHODS = {
    "sgd": lambda p, lr: torch.optim.SGD(p, lr),
    "momentum": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9),
    "nesterov": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9, nesterov=True),
    "adagrad": lambda p, lr: torch.optim.Adagrad(p, lr),
    "rmsprop": lambda p, lr: torch.optim.RMSprop(p, lr),
    "adadelta": lambda p, lr: torch.optim.Adadelta(p, lr),
    "adam": lambda p, lr: torch.optim.Adam(p, lr),
    "adamw": lambda p, lr: torch.optim.AdamW(p, lr),
    "radam": lambda p, lr: torch.optim.RAdam(p, lr),
}


def main() -> None:
    draw = np.random.RandomState(0)
    factor, start = draw.randn(6, 4), draw.randn(4)
    noise = draw.randn(STEPS, 4)
    curvature = torch.tensor(factor.T @ factor / 6)
    changing = 0.05 * (1 + np.cos(np.arange(STEPS)))
    out = {}
    for name, make in METHODS.items():
        for kind, rates in {"constant": np.full(STEPS, 0.1), "changing": changing}.items():
            x = torch.nn.Parameter(torch.tensor(start))
            optimizer = make([x], rates[0])
            path = []
            for step in range(STEPS):
                optimizer.param_groups[0]["lr"] = rates[step]
                x.grad = curvature @ x.detach() + torch.tensor(noise[step])
                optimizer.step()
                path.append(x.detach().numpy().copy())
            out[f"{name}_{kind}"] = np.stack(path)
    np.savez_compressed(Path(__file__).with_name("optimizers.npz"), **out)


if __name__ == "__main__":
    main()
