"""Tokens a second of language models, training and decoding, beside the same models in PyTorch.

    python scripts/tokens.py [--repeats 7] [--models gru_lm lstm_lm gpt]
    python scripts/tokens.py --quick

Training: forward, backward and an SGD step on a batch (n, t) of tokens, one program here, eager in
PyTorch. Decoding: `--new` tokens chosen greedily, one after another, for each of `--rows` prompts
of 16 tokens; one program here (`jaxd2l.generation`), a loop over `nn.GRU`, `nn.LSTM` or
`scaled_dot_product_attention` with a growing cache there. Medians of calls in turn; the seconds to
compile are apart. PyTorch takes part where it can be imported, on as many threads as there are
cores. The models: one layer of 256 units over one-hot letters, (32, 64) tokens a step; GPT of 4
blocks, 128 features and 4 heads, (16, 128) tokens. Expected before the first run: training 0.6 to
1.0 times PyTorch's tokens, decoding 2 to 10 times.
"""

import argparse
import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxd2l import apply, init, models
from jaxd2l.generation import generate
from jaxd2l.ops import losses

VOCABULARY = 28
RATE = 0.1


def our_model(name: str, width: int) -> Any:
    """The network of that name."""
    if name == "gpt":
        return models.gpt(VOCABULARY, width // 2, 4, 4, length=1024)
    return models.build(name, vocabulary=VOCABULARY, features=width)


def ours(name: str, width: int, tokens: Any, prompt: Any, new: int) -> tuple[Any, Any, Any]:
    """(a training step, a decoding call, seconds to compile each)."""
    net = our_model(name, width)
    params, state = init(net, jax.random.key(0), tokens.shape[1:])
    x, y = jnp.asarray(tokens[:, :-1]), jnp.asarray(tokens[:, 1:])

    def step(params: Any, x: Any, y: Any) -> Any:
        def loss(params: Any) -> Any:
            logits, _ = apply(net, params, state, x, train=True)
            return losses.softmax_cross_entropy(logits, y).mean()

        return jax.tree.map(lambda p, g: p - RATE * g, params, jax.grad(loss)(params))

    began = time.perf_counter()
    program = jax.jit(step, donate_argnums=0).lower(params, x, y).compile()
    seconds = [time.perf_counter() - began]
    held = [jax.tree.map(jnp.copy, params)]

    def train() -> None:
        held[0] = jax.block_until_ready(program(held[0], x, y))

    def decode() -> Any:
        return jax.block_until_ready(
            generate(net, params, state, jnp.asarray(prompt), new, temperature=0)
        )

    began = time.perf_counter()
    decode()
    seconds.append(time.perf_counter() - began)
    return train, decode, seconds


def torch_model(name: str, width: int) -> Any:
    """The same model: a module (tokens, carry) -> (logits, carry)."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            kind = nn.GRU if name == "gru_lm" else nn.LSTM if name == "lstm_lm" else nn.RNN
            self.layer = kind(VOCABULARY, width, batch_first=True)
            self.output = nn.Linear(width, VOCABULARY)

        def forward(self, tokens: Any, carry: Any = None) -> Any:
            hot = F.one_hot(tokens, VOCABULARY).to(torch.float32)
            y, carry = self.layer(hot, carry)
            return self.output(y), carry

    class Block(nn.Module):
        def __init__(self, d: int) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
            self.inward, self.outward = nn.Linear(d, 3 * d), nn.Linear(d, d)
            self.dense1, self.dense2 = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

        def forward(self, x: Any, cache: Any) -> Any:
            n, t, d = x.shape
            parts = self.inward(self.norm1(x)).view(n, t, 3, 4, d // 4).permute(2, 0, 3, 1, 4)
            q, k, v = parts
            if cache is not None:
                k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=cache is None)
            x = x + self.outward(y.transpose(1, 2).reshape(n, t, d))
            return x + self.dense2(F.gelu(self.dense1(self.norm2(x)))), (k, v)

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            d = width // 2
            self.embedding = nn.Embedding(VOCABULARY, d)
            self.positions = nn.Embedding(1024, d)
            self.blocks = nn.ModuleList(Block(d) for _ in range(4))
            self.norm, self.output = nn.LayerNorm(d), nn.Linear(d, VOCABULARY)

        def forward(self, tokens: Any, carry: Any = None) -> Any:
            start = 0 if carry is None else carry[0][0].shape[2]
            at = torch.arange(start, start + tokens.shape[1])
            x, caches = self.embedding(tokens) + self.positions(at), []
            for i, block in enumerate(self.blocks):
                x, cache = block(x, None if carry is None else carry[i])
                caches.append(cache)
            return self.output(self.norm(x)), caches

    return GPT() if name == "gpt" else Recurrent()


def theirs(name: str, width: int, tokens: Any, prompt: Any, new: int) -> tuple[Any, Any]:
    """(a training step, a decoding call) of PyTorch."""
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(os.cpu_count() or 1)
    model = torch_model(name, width)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    x, y = torch.tensor(tokens[:, :-1]), torch.tensor(tokens[:, 1:])

    def train() -> None:
        optimizer.zero_grad()
        logits, _ = model(x)
        F.cross_entropy(logits.reshape(-1, VOCABULARY), y.reshape(-1)).backward()
        optimizer.step()

    def decode() -> Any:
        with torch.no_grad():
            logits, carry = model(torch.tensor(prompt))
            made = [logits[:, -1:].argmax(-1)]
            for _ in range(new - 1):
                logits, carry = model(made[-1], carry)
                made.append(logits.argmax(-1))
        return torch.cat(made, 1)

    return train, decode


def medians(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each call, in turn."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            time.sleep(0.01)  # threads of the one before go to sleep
            began = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Measure tokens a second.")
    parser.add_argument("--models", nargs="+", default=["rnn_lm", "gru_lm", "lstm_lm", "gpt"])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--new", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="a small model, two repeats")
    options = parser.parse_args()
    width, repeats = 256, options.repeats
    if options.quick:
        options.models, options.rows, options.new = options.models[-1:], [1], 4
        width, repeats = 16, 2
    peer = importlib.util.find_spec("torch") is not None
    draw = np.random.RandomState(0)
    print("| model | what | tokens/s | PyTorch | ratio | compiled in |")
    print("|:--|:--|--:|--:|--:|--:|")
    for name in options.models:
        n, t = (16, 128) if name == "gpt" else (32, 64)
        tokens = draw.randint(1, VOCABULARY, (n, t + 1))
        for number, rows in enumerate(options.rows):
            prompt = draw.randint(1, VOCABULARY, (rows, 16))
            train, decode, compiled = ours(name, width, tokens, prompt, options.new)
            other = theirs(name, width, tokens, prompt, options.new) if peer else ()
            jobs = [(f"decoding, {rows} rows", decode, other[1:2], rows * options.new, compiled[1])]
            if not number:
                jobs.insert(0, (f"training ({n}, {t})", train, other[:1], n * t, compiled[0]))
            for what, own, others, count, seconds in jobs:
                calls = {"ours": own, **({"torch": others[0]} if others else {})}
                found = medians(calls, repeats)
                speed = {who: count / took for who, took in found.items()}
                told = (
                    f"{speed['torch']:,.0f} | {speed['ours'] / speed['torch']:.2f}"
                    if peer
                    else "- | -"
                )
                print(f"| {name} | {what} | {speed['ours']:,.0f} | {told} | {seconds:.1f} s |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
