"""PyTorch's scaled_dot_product_attention and MultiheadAttention in float64, with gradients.

Run with PyTorch installed. The inputs are not stored: tests make them again from the same seeds.
Arrays are stored in our layout: (n, t, heads, d), kernels (in, heads, e) and (heads, e, out).
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

HEADS, SIZE = 2, 3


def leaf(array: np.ndarray) -> torch.Tensor:
    return torch.tensor(array, requires_grad=True)


def dot_product(out: dict[str, torch.Tensor]) -> None:
    draw = np.random.RandomState(0)
    q, k, v = (leaf(draw.randn(2, t, HEADS, SIZE)) for t in (5, 7, 7))
    c = torch.tensor(draw.randn(2, 5, HEADS, SIZE))
    lengths = torch.tensor([7, 4])
    masks = {
        "all": {},
        "causal": {"is_causal": True},
        "lengths": {"attn_mask": (torch.arange(7) < lengths[:, None])[:, None, None, :]},
    }
    for name, options in masks.items():
        q.grad = k.grad = v.grad = None
        heads = (x.transpose(1, 2) for x in (q, k, v))
        y = F.scaled_dot_product_attention(*heads, **options).transpose(1, 2)
        (y * c).sum().backward()
        out |= {name: y.detach(), f"{name}_q": q.grad, f"{name}_k": k.grad, f"{name}_v": v.grad}


def multi_head(
    out: dict[str, torch.Tensor], name: str, seed: int, sizes: tuple[int, int, int]
) -> None:
    """`sizes` are the features of query, key and value; all equal means self-attention."""
    d = HEADS * SIZE
    draw = np.random.RandomState(seed)
    module = torch.nn.MultiheadAttention(
        d, HEADS, kdim=sizes[1], vdim=sizes[2], batch_first=True
    ).double()
    kernels = [draw.randn(size, d) / 2 for size in sizes]
    output, biases, output_bias = draw.randn(d, d) / 2, draw.randn(3 * d), draw.randn(d)
    own = len(set(sizes)) == 1
    if own:
        module.in_proj_weight.data = torch.tensor(np.concatenate([k.T for k in kernels]))
    else:
        for part, kernel in zip("qkv", kernels, strict=True):
            getattr(module, f"{part}_proj_weight").data = torch.tensor(kernel.T.copy())
    module.in_proj_bias.data = torch.tensor(biases)
    module.out_proj.weight.data = torch.tensor(output.T.copy())
    module.out_proj.bias.data = torch.tensor(output_bias)
    query = leaf(draw.randn(2, 4, sizes[0]))
    key, value = (query, query) if own else (leaf(draw.randn(2, 5, size)) for size in sizes[1:])
    c = torch.tensor(draw.randn(2, 4, d))
    causal = torch.ones(4, 4, dtype=torch.bool).triu(1) if own else None
    padding = None if own else torch.arange(5) >= torch.tensor([5, 2])[:, None]
    y, weights = module(
        query, key, value, attn_mask=causal, key_padding_mask=padding, average_attn_weights=False
    )
    (y * c).sum().backward()
    if own:
        projections = module.in_proj_weight.grad.chunk(3)
    else:
        projections = [getattr(module, f"{part}_proj_weight").grad for part in "qkv"]
    out |= {name: y.detach(), f"{name}_weights": weights.detach(), f"{name}_x": query.grad}
    if not own:
        out |= {f"{name}_z": key.grad, f"{name}_u": value.grad}
    for part, grad, size in zip("qkv", projections, sizes, strict=True):
        out[f"{name}_{part}"] = grad.T.reshape(size, HEADS, SIZE)
    out[f"{name}_output"] = module.out_proj.weight.grad.T.reshape(HEADS, SIZE, d)
    out[f"{name}_biases"] = module.in_proj_bias.grad.reshape(3, HEADS, SIZE)
    out[f"{name}_output_bias"] = module.out_proj.bias.grad


def main() -> None:
    out: dict[str, torch.Tensor] = {}
    dot_product(out)
    multi_head(out, "self", 1, (6, 6, 6))
    multi_head(out, "cross", 2, (6, 5, 4))
    arrays = {name: np.ascontiguousarray(value.numpy()) for name, value in out.items()}
    np.savez_compressed(Path(__file__).with_name("attention.npz"), **arrays)


if __name__ == "__main__":
    main()
