"""Identical blocks stacked as one `Repeat`, or each with its own parameters: what either costs.

    python scripts/stacking.py [--units 3 8 36 3] [--stack-from 8] [--size 64] [--batch 8]

For ResNet-152 (or bottleneck units as given), stacked and not: CPU seconds of a first `init`,
seconds to compile a training step, and the median seconds of a step, both networks in turn.
"""

import argparse
import statistics
import time
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from jaxd2l import apply, init
from jaxd2l.layers import Layer
from jaxd2l.models.blocks import basic
from jaxd2l.models.resnet import resnet
from jaxd2l.ops import losses


def network(units: list[int], stack_from: int) -> Layer:
    """The network with blocks stacked where so many identical ones follow each other."""
    with mock.patch.object(basic, "STACK_FROM", stack_from):
        return resnet(units, 10, bottleneck=True)


def prepare(net: Layer, x: Any, labels: Any) -> tuple[Any, Any, dict[str, float]]:
    """The compiled step, what it starts from, and the seconds spent until here."""
    began = time.process_time()
    start = jax.block_until_ready(init(net, jax.random.key(0), x.shape[1:]))
    spent = {"init, CPU": time.process_time() - began}

    def step(params: Any, state: Any) -> Any:
        def loss(params: Any) -> Any:
            logits, new = apply(net, params, state, x, train=True)
            return losses.softmax_cross_entropy(logits, labels).mean(), new

        grads, new = jax.grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, grads), new

    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(*start)
    began = time.perf_counter()
    compiled = lowered.compile()
    spent["compile"] = time.perf_counter() - began
    return compiled, compiled(*start), spent


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Measure stacked against separate blocks.")
    parser.add_argument("--units", type=int, nargs="+", default=[3, 8, 36, 3])
    parser.add_argument("--stack-from", type=int, default=basic.STACK_FROM)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    shape = (options.batch, options.size, options.size, 3)
    x = jnp.asarray(np.random.RandomState(0).normal(size=shape), jnp.float32)
    labels = jnp.arange(options.batch) % 10
    kinds = {"stacked": options.stack_from, "separate": 10**9}
    ready = {name: prepare(network(options.units, kind), x, labels) for name, kind in kinds.items()}
    times: dict[str, list[float]] = {name: [] for name in ready}
    arrays = {name: start for name, (_, start, _) in ready.items()}
    for _ in range(options.repeats):  # in turn, so that a busy moment hits both alike
        for name, (step, _, _) in ready.items():
            began = time.perf_counter()
            arrays[name] = jax.block_until_ready(step(*arrays[name]))
            times[name].append(time.perf_counter() - began)
    for name, (_, _, spent) in ready.items():
        spent["step"] = statistics.median(times[name])
        print(f"{name:10}", *(f"{what} {seconds:.2f} s" for what, seconds in spent.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
