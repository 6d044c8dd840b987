"""PyTorch's RNN, GRU and LSTM in float64: one layer, and two in both directions on packed rows.

Run with PyTorch installed. The inputs are not stored: tests make them again from the same seeds, in
the order x, weights (layer by layer, forward first), first states, factors of y and of the last
states. Gradients are those of the sum of y and of the last states times these factors, in our
layout: kernels (in, g*h), one bias, and for the GRU the candidate's recurrent one.
"""

from pathlib import Path

import numpy as np
import torch

N, T, D, H = 3, 5, 3, 4
LENGTHS = [5, 2, 3]
KINDS = {
    "rnn": (1, torch.nn.RNN, {}),
    "relu": (1, torch.nn.RNN, {"nonlinearity": "relu"}),
    "gru": (3, torch.nn.GRU, {}),
    "lstm": (4, torch.nn.LSTM, {}),
}


def run(kind: str, form: str, seed: int) -> dict[str, np.ndarray]:
    gates, module, options = KINDS[kind]
    layers, both = (1, False) if form == "plain" else (2, True)
    net = module(D, H, layers, bidirectional=both, batch_first=True, **options).double()
    draw = np.random.RandomState(seed)
    x = torch.tensor(draw.randn(N, T, D), requires_grad=True)
    names = [f"l{i}{end}" for i in range(layers) for end in ("", "_reverse")[: 1 + both]]
    for name in names:
        width = D if name.startswith("l0") else 2 * H
        kernel, recurrent = draw.randn(width, gates * H) / 2, draw.randn(H, gates * H) / 2
        bias, second = draw.randn(gates * H) / 2, np.zeros(gates * H)
        if kind == "gru":
            second[2 * H :] = draw.randn(H)
        values = {"weight_ih": kernel.T, "weight_hh": recurrent.T, "bias_ih": bias}
        for key, value in {**values, "bias_hh": second}.items():
            getattr(net, f"{key}_{name}").data = torch.tensor(np.ascontiguousarray(value))
    parts = 2 if kind == "lstm" else 1
    first = [torch.tensor(draw.randn(len(names), N, H), requires_grad=True) for _ in range(parts)]
    factor = torch.tensor(draw.randn(N, T, H * (1 + both)))
    last_factor = [torch.tensor(draw.randn(len(names), N, H)) for _ in range(parts)]
    given = x
    if form == "deep":
        given = torch.nn.utils.rnn.pack_padded_sequence(
            x, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False
        )
    y, last = net(given, tuple(first) if parts == 2 else first[0])
    if form == "deep":
        y = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=T)[0]
    last = last if parts == 2 else (last,)
    total = (y * factor).sum()
    for value, weight in zip(last, last_factor, strict=True):
        total = total + (value * weight).sum()
    total.backward()
    out = {"y": y.detach(), "x": x.grad}
    for i in range(parts):
        out |= {f"last{i}": last[i].detach(), f"first{i}": first[i].grad}
    for i, name in enumerate(names):
        out[f"{i}_input_kernel"] = getattr(net, f"weight_ih_{name}").grad.T
        out[f"{i}_recurrent_kernel"] = getattr(net, f"weight_hh_{name}").grad.T
        out[f"{i}_bias"] = getattr(net, f"bias_ih_{name}").grad
        if kind == "gru":
            out[f"{i}_recurrent_bias"] = getattr(net, f"bias_hh_{name}").grad[2 * H :]
    return {f"{kind}_{form}_{key}": value.numpy() for key, value in out.items()}


def main() -> None:
    out: dict[str, np.ndarray] = {}
    for seed, kind in enumerate(KINDS):
        for form in ("plain", "deep")[: 1 if kind == "relu" else 2]:
            out |= run(kind, form, seed)
    arrays = {name: np.ascontiguousarray(value) for name, value in out.items()}
    np.savez_compressed(Path(__file__).with_name("recurrent.npz"), **arrays)


if __name__ == "__main__":
    main()
