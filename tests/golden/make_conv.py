"""Values and gradients of PyTorch's convolutions, for tests/test_conv.py.

Run with PyTorch installed: python tests/golden/make_conv.py. Inputs are not stored: the test draws
them again, in this order, from numpy.random.RandomState(case["seed"]): x, weight, bias, cotangent,
all in PyTorch's layout.
"""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

# kind, size, c, out, k, and the options that differ from PyTorch's defaults
CASES = [
    ("conv", (7,), 2, 3, (3,), {}),
    ("conv", (8,), 2, 4, (3,), {"stride": [2], "padding": [1], "dilation": [2], "groups": 2}),
    ("conv", (5, 6), 2, 3, (3, 2), {"bias": True}),
    ("conv", (6, 7), 2, 3, (3, 3), {"stride": [2, 1], "padding": [1, 2], "bias": True}),
    ("conv", (7, 8), 4, 6, (2, 3), {"stride": [2, 3], "dilation": [2, 1], "groups": 2}),
    ("conv", (6, 6), 3, 3, (3, 3), {"padding": [1, 1], "groups": 3}),
    ("conv", (5, 5), 2, 3, (4, 3), {"padding": "same"}),
    ("conv", (4, 5, 4), 2, 2, (2, 3, 2), {"stride": [1, 2, 2], "padding": [0, 1, 1]}),
    ("transpose", (5,), 2, 3, (3,), {"stride": [2], "padding": [1], "output_padding": [1]}),
    ("transpose", (3, 4), 2, 3, (3, 2), {"bias": True}),
    ("transpose", (4, 3), 4, 6, (3, 3), {"stride": [2, 3], "padding": [1, 0], "groups": 2}),
    (
        "transpose",
        (3, 3),
        2,
        2,
        (3, 2),
        {"stride": [2, 2], "dilation": [2, 3], "output_padding": [1, 2], "bias": True},
    ),
    ("transpose", (4, 4), 2, 3, (2, 2), {"stride": [3, 3]}),
    ("transpose", (2, 3, 2), 2, 2, (2, 2, 3), {"stride": [2, 1, 2], "padding": [1, 0, 1]}),
]


def main() -> None:
    stored, cases = {}, []
    for seed, (kind, size, c, out, k, options) in enumerate(CASES):
        options = dict(options)
        groups = options.get("groups", 1)
        rs = np.random.RandomState(seed)

        def draw(*shape: int, rs: np.random.RandomState = rs) -> torch.Tensor:
            return torch.tensor(rs.randn(*shape), dtype=torch.float32, requires_grad=True)

        x = draw(2, c, *size)
        shape = (out, c // groups) if kind == "conv" else (c, out // groups)
        weight, bias = draw(*shape, *k), draw(out)
        name = f"conv{'_transpose' if kind == 'transpose' else ''}{len(size)}d"
        use_bias = options.pop("bias", False)
        y = getattr(F, name)(x, weight, bias if use_bias else None, **options)
        (y * torch.tensor(rs.randn(*y.shape), dtype=torch.float32)).sum().backward()
        stored |= {f"{seed}_y": y, f"{seed}_dx": x.grad, f"{seed}_dw": weight.grad}
        if use_bias:
            stored[f"{seed}_db"] = bias.grad
        cases.append(
            {"seed": seed, "kind": kind, "size": size, "c": c, "out": out, "k": k}
            | {"bias": use_bias, "options": options}
        )
    arrays = {name: value.detach().numpy() for name, value in stored.items()}
    np.savez_compressed(
        Path(__file__).parent / "conv.npz", cases=np.array(json.dumps(cases)), **arrays
    )


if __name__ == "__main__":
    main()
