"""Make interop_torch.npz: small PyTorch networks with every kind of layer, in float64.

Run with an interpreter that has PyTorch: python tests/golden/make_interop_torch.py. Stored are the
state_dict, an input (features last) and the output in evaluation of each network.
"""

from collections import OrderedDict
from pathlib import Path

import numpy as np


def main():
    import torch
    from torch import nn

    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    image = OrderedDict(
        conv=nn.Conv2d(4, 6, (3, 5), stride=2, padding=(1, 2), groups=2),
        bn=nn.BatchNorm2d(6),
        slopes=nn.PReLU(6),
        up=nn.ConvTranspose2d(6, 4, (2, 3), stride=2, groups=2),
        gn=nn.GroupNorm(2, 4),
        instance=nn.InstanceNorm2d(4, affine=True),
        flat=nn.Flatten(),
        flat_bn=nn.BatchNorm1d(4 * 6 * 7),
        drop=nn.Dropout(0.5),
        hidden=nn.Linear(4 * 6 * 7, 5),
        ln=nn.LayerNorm(5),
        out=nn.Linear(5, 3, bias=False),
    )
    signal = OrderedDict(
        conv=nn.Conv1d(3, 4, 3), relu=nn.ReLU(), flat=nn.Flatten(), out=nn.Linear(4 * 5, 2)
    )
    volume = OrderedDict(
        up=nn.ConvTranspose3d(2, 3, (1, 2, 2)), conv=nn.Conv3d(3, 2, (2, 1, 3)), flat=nn.Flatten(),
        out=nn.Linear(2 * 2 * 4 * 3, 2),
    )  # fmt: skip
    tokens = OrderedDict(words=nn.Embedding(7, 4), out=nn.Linear(4, 2))
    inputs = {
        "image": (image, torch.randn(2, 6, 6, 4)),
        "signal": (signal, torch.randn(2, 7, 3)),
        "volume": (volume, torch.randn(2, 3, 3, 4, 2)),
        "tokens": (tokens, torch.tensor([[0, 6, 3], [2, 2, 5]])),
    }
    out = {}
    for name, (modules, x) in inputs.items():
        net = nn.Sequential(modules)
        state = {
            key: value + 0.3 * torch.rand(value.shape) if value.is_floating_point() else value
            for key, value in net.state_dict().items()
        }
        net.load_state_dict(state)
        with torch.no_grad():
            y = net.eval()(x.movedim(-1, 1) if x.is_floating_point() else x)
        out |= {f"{name}/{key}": value.numpy() for key, value in state.items()}
        out |= {f"{name} x": x.numpy(), f"{name} y": y.numpy()}
    np.savez_compressed(Path(__file__).with_name("interop_torch.npz"), **out)


if __name__ == "__main__":
    main()
