"""Time and memory of causal attention: ours, the plain formula, jax.nn and PyTorch.

    python scripts/attention.py [--shapes 4,8,512 2,8,2048 1,8,4096] [--size 64] [--repeats 7]
    python scripts/attention.py --quick

For each shape (batch, heads, length) the median milliseconds of the output and of output with
gradients, the MiB that the compiled program holds beside its arguments and results, and the seconds
to compile it; all ways in turn. PyTorch takes part where it can be imported, on as many threads as
there are cores; "ours/it" is our time over that of the line. Expected against PyTorch: about 1.0
for the output, under 1.3 for the gradients.
"""

import argparse
import functools
import importlib.util
import math
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxd2l.ops import attention


def plain(q: Any, k: Any, v: Any) -> Any:
    """The formula with all scores at once."""
    causal = jnp.tril(jnp.ones((q.shape[1], k.shape[1]), bool))
    return attention.dot_product_attention(q, k, v, mask=causal)


WAYS: dict[str, Callable[..., Any]] = {
    "jaxd2l": functools.partial(attention.dot_product_attention, causal=True),
    "plain": plain,
    "jax.nn": functools.partial(jax.nn.dot_product_attention, is_causal=True),
}


def compiled(attend: Callable[..., Any], args: tuple[Any, ...], weight: Any, gradient: bool) -> Any:
    """(a call without arguments that waits for the result, MiB beside it, seconds to compile)."""

    def both(*args: Any) -> Any:
        y, back = jax.vjp(attend, *args)
        return y, back(weight)

    lowered = jax.jit(both if gradient else attend).lower(*args)
    began = time.perf_counter()
    program = lowered.compile()
    seconds = time.perf_counter() - began
    analysis = program.memory_analysis()
    memory = math.nan if analysis is None else analysis.temp_size_in_bytes / 2**20
    return lambda: jax.block_until_ready(program(*args)), memory, seconds


def with_torch(args: tuple[Any, ...], weight: Any, gradient: bool) -> Callable[[], Any]:
    """The same call of PyTorch."""
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(os.cpu_count() or 1)
    q, k, v, c = (torch.tensor(np.asarray(x)).transpose(1, 2).contiguous() for x in (*args, weight))

    def forward() -> Any:
        with torch.no_grad():
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    def both() -> Any:
        leaves = [x.detach().requires_grad_() for x in (q, k, v)]
        y = F.scaled_dot_product_attention(*leaves, is_causal=True)
        return torch.autograd.grad(y, leaves, c)

    return both if gradient else forward


def measure(shape: tuple[int, int, int], size: int, repeats: int, gradient: bool) -> None:
    """Print the lines of one shape."""
    batch, heads, length = shape
    draw = np.random.RandomState(0)
    x = [draw.normal(size=(batch, length, heads, size)).astype(np.float32) for _ in range(4)]
    *inputs, weight = (jnp.asarray(array) for array in x)
    args = tuple(inputs)
    calls, notes = {}, {}
    for name, attend in WAYS.items():
        calls[name], memory, seconds = compiled(attend, args, weight, gradient)
        notes[name] = f"{memory:9.1f} MiB  compiled in {seconds:.2f} s"
    if importlib.util.find_spec("torch") is not None:
        calls["torch"] = with_torch(args, weight, gradient)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):  # in turn, so that a busy moment hits all alike
        for name, call in calls.items():
            time.sleep(0.01)  # threads of the one before go to sleep
            began = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - began))
    what = "gradients" if gradient else "output"
    ours = statistics.median(times["jaxd2l"])
    for name, values in times.items():
        middle = statistics.median(values)
        print(
            f"{','.join(map(str, shape)):10} {what:9} {name:7} {middle:8.1f} ms"
            f"  {ours / middle:5.2f}x ours/it {notes.get(name, '')}"
        )


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Measure causal attention.")
    parser.add_argument("--shapes", nargs="+", default=["4,8,512", "2,8,2048", "1,8,4096"])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one small shape, three repeats")
    options = parser.parse_args()
    if options.quick:
        options.shapes, options.size, options.repeats = ["1,2,192"], 16, 3
    for text in options.shapes:
        batch, heads, length = map(int, text.split(","))
        for gradient in (False, True):
            measure((batch, heads, length), options.size, options.repeats, gradient)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
