"""PyTorch's linear, embedding, cosine and weight-normalised layers in float64.

Run with PyTorch installed. The inputs are not stored: tests make them again from the same seeds.
Kernels are stored in our layout (in, out).
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F


def leaf(array: np.ndarray) -> torch.Tensor:
    return torch.tensor(array, requires_grad=True)


def main() -> None:
    out = {}
    draw = np.random.RandomState(0)
    x, w, b = leaf(draw.randn(2, 3, 5)), leaf(draw.randn(5, 4)), leaf(draw.randn(4))
    c = torch.tensor(draw.randn(2, 3, 4))
    y = F.linear(x, w.T, b)
    (y * c).sum().backward()
    out |= {"dense": y.detach(), "dense_x": x.grad, "dense_kernel": w.grad, "dense_bias": b.grad}

    draw = np.random.RandomState(1)
    tokens, table = draw.randint(0, 6, (2, 4)), leaf(draw.randn(6, 3))
    c = torch.tensor(draw.randn(2, 4, 3))
    y = F.embedding(torch.tensor(tokens), table)
    (y * c).sum().backward()
    out |= {"embedding": y.detach(), "embedding_table": table.grad}

    draw = np.random.RandomState(2)
    x, w, c = leaf(draw.randn(3, 5)), leaf(draw.randn(5, 4)), torch.tensor(draw.randn(3, 4))
    y = F.cosine_similarity(x[:, None, :], w.T[None, :, :], dim=-1)
    (y * c).sum().backward()
    out |= {"cosine": y.detach(), "cosine_x": x.grad, "cosine_kernel": w.grad}

    draw = np.random.RandomState(3)
    v, g, c = draw.randn(3, 2, 2, 4), draw.randn(4), draw.randn(3, 2, 2, 4)  # (h, w, in, out)
    layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv2d(2, 4, (3, 2)).double())
    parameters = layer.parametrizations.weight
    parameters.original0.data = torch.tensor(g).reshape(4, 1, 1, 1)
    parameters.original1.data = torch.tensor(v).permute(3, 2, 0, 1).contiguous()
    y = layer.weight.permute(2, 3, 1, 0)
    (y * torch.tensor(c)).sum().backward()
    out |= {
        "weight_norm": y.detach(),
        "weight_norm_g": parameters.original0.grad.reshape(4),
        "weight_norm_v": parameters.original1.grad.permute(2, 3, 1, 0),
    }

    arrays = {name: np.ascontiguousarray(value.numpy()) for name, value in out.items()}
    np.savez_compressed(Path(__file__).with_name("linear.npz"), **arrays)


if __name__ == "__main__":
    main()
