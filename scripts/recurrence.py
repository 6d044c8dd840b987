"""RNN, GRU and LSTM: forward and forward with backward, beside a plain `lax.scan` and PyTorch.

    python scripts/recurrence.py [--quick] [--repeats 15] [--shapes 32,1024,28,32 ...] [--x]

A shape is steps, batch, inputs, units. Milliseconds, medians; the columns of one row run in turn,
each after one untimed run and a short sleep (PyTorch's threads spin on after their work and would
slow down whatever comes next). "train" is the value and its gradient by all weights, with `--x` by
the inputs too (a language model's inputs are one-hot constants, so it needs none). "plain" is the
cell under `lax.scan`, "ratio" ours over plain. PyTorch is left out where it cannot be imported; its
GRU is `reset_after`, ours and plain reset before, as in the book.
"""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxd2l.ops import recurrent
from jaxd2l.ops.recurrent import LSTMCarry, Weights

Array = jax.Array
Timed = tuple[tuple[Callable[[], Any], Callable[[], Any]], float]

SHAPES = ["32,1024,28,32", "35,32,28,256", "128,16,128,128", "64,64,256,512"]
QUICK = ["4,8,6,5"]
KINDS: dict[str, tuple[int, Callable[..., Any], Callable[..., Any]]] = {
    "rnn": (1, recurrent.rnn, recurrent.rnn_cell),
    "gru": (3, recurrent.gru, recurrent.gru_cell),
    "lstm": (4, recurrent.lstm, recurrent.lstm_cell),
}


def plain(kind: str, x: Array, weights: Weights) -> Array:
    """The cell under `lax.scan`, as one writes it."""
    gates, _, cell = KINDS[kind]
    zeros = jnp.zeros((x.shape[0], weights.recurrent_kernel.shape[0]), x.dtype)

    def step(carry: Any, x: Array) -> tuple[Any, Array]:
        carry = cell(x, weights, carry)
        return carry, carry.hidden if gates == 4 else carry

    start = LSTMCarry(zeros, zeros) if gates == 4 else zeros
    return jnp.swapaxes(jax.lax.scan(step, start, jnp.swapaxes(x, 0, 1))[1], 0, 1)


def ours(kind: str, x: Array, weights: Weights) -> Array:
    return KINDS[kind][1](x, weights)[0]


def in_jax(layer: Callable[..., Array], kind: str, shape: tuple[int, ...], by_x: bool) -> Timed:
    """Forward, train, and the seconds that compiling train took."""
    steps, batch, inputs, units = shape
    keys = jax.random.split(jax.random.key(0), 5)
    wide = KINDS[kind][0] * units
    weights = Weights(
        *(
            jax.random.uniform(k, s, minval=-(units**-0.5), maxval=units**-0.5)
            for k, s in zip(keys, [(inputs, wide), (units, wide), (wide,)], strict=False)
        )
    )
    x = jax.random.normal(keys[3], (batch, steps, inputs))
    factor = jax.random.normal(keys[4], (batch, steps, units))
    forward = jax.jit(lambda x, weights: layer(kind, x, weights))
    train = jax.jit(
        jax.value_and_grad(
            lambda weights, x, factor: jnp.sum(layer(kind, x, weights) * factor),
            (0, 1) if by_x else 0,
        )
    )
    began = time.perf_counter()
    jax.block_until_ready(train(weights, x, factor))
    seconds = time.perf_counter() - began
    runs = (
        lambda: jax.block_until_ready(forward(x, weights)),
        lambda: jax.block_until_ready(train(weights, x, factor)),
    )
    return runs, seconds


def in_torch(kind: str, shape: tuple[int, ...], by_x: bool) -> Timed:
    import torch

    steps, batch, inputs, units = shape
    net = getattr(torch.nn, kind.upper())(inputs, units, batch_first=True)
    x = torch.randn(batch, steps, inputs, requires_grad=by_x)
    factor = torch.randn(batch, steps, units)

    def forward() -> None:
        with torch.no_grad():
            net(x)

    def train() -> None:
        net.zero_grad()
        x.grad = None
        (net(x)[0] * factor).sum().backward()

    return (forward, train), 0.0


def measure(kind: str, shape: tuple[int, ...], repeats: int, by_x: bool) -> dict[str, list[float]]:
    """Median milliseconds of forward and train, and seconds of compilation, by name."""
    timed = {
        "plain": in_jax(plain, kind, shape, by_x),
        "ours": in_jax(ours, kind, shape, by_x),
    }
    if importlib.util.find_spec("torch"):
        timed["torch"] = in_torch(kind, shape, by_x)
    spent: dict[str, list[list[float]]] = {name: [[], []] for name in timed}
    for _ in range(repeats):
        for name, (runs, _) in timed.items():
            for which, run in enumerate(runs):
                run()
                time.sleep(0.004)
                began = time.perf_counter()
                run()
                spent[name][which].append(1e3 * (time.perf_counter() - began))
    return {
        name: [*map(statistics.median, spent[name]), seconds]
        for name, (_, seconds) in timed.items()
    }


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Time RNN, GRU and LSTM.")
    parser.add_argument("--quick", action="store_true", help="one tiny shape, twice")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="steps,batch,inputs,units")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--x", action="store_true", help="differentiate by the inputs too")
    options = parser.parse_args()
    shapes, repeats = (QUICK, 2) if options.quick else (options.shapes, options.repeats)
    names = ["plain", "ours", *(["torch"] if importlib.util.find_spec("torch") else [])]
    titles = "".join(f"{name:>9}" for name in [*names, "ratio"])
    print(f"{'shape':16}{'kind':6}{'pass':8}{titles}   ms; then s to compile plain, ours")
    for text in shapes:
        shape = tuple(int(part) for part in text.split(","))
        for kind in options.kinds:
            found = measure(kind, shape, repeats, options.x)
            for which, name in enumerate(["forward", "train"]):
                times = [found[column][which] for column in names]
                cells = "".join(f"{value:9.2f}" for value in [*times, times[1] / times[0]])
                print(f"{text:16}{kind:6}{name:8}{cells}", end="" if which else "\n")
            print("".join(f"{found[column][2]:9.1f}" for column in names[:2]), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
