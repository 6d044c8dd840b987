"""How long it takes to measure a network before it runs: its summary, its field, its operations.

    python scripts/geometry.py [--repeats 3] [NAME ...]

By default all networks, at the sizes of their input. Milliseconds, medians of several repeats;
`receptive_field` and `count_flops` read the jaxpr of `apply`, tracing included. Nothing is run or
compiled, and parameters take no memory.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import jaxd2l
from jaxd2l import analysis, models


def milliseconds(run: Callable[[], Any], repeats: int) -> float:
    """The median time of a call, the caches of JAX cleared before each."""
    times = []
    for _ in range(repeats):
        jax.clear_caches()
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def measure(name: str, repeats: int) -> tuple[float, float, float]:
    """The times of `summarize`, `receptive_field` and `count_flops`, whose counts must agree."""
    net, shape = models.build(name), models.input_shape(name)
    declared = jax.eval_shape(lambda key: jaxd2l.init(net, key, shape), jax.random.key(0))
    params, state = jax.tree.map(
        lambda a: np.broadcast_to(np.zeros((), a.dtype), a.shape), declared
    )

    def apply(x: Any) -> Any:
        return jaxd2l.apply(net, params, state, x)[0]

    x = jax.ShapeDtypeStruct((1, *shape), np.float32)
    counted = analysis.count_flops(apply, x).multiply_adds
    summed = jaxd2l.summarize(net, shape).macs
    if counted != summed:
        raise AssertionError(f"{name}: {counted} multiply-adds counted, {summed} summed up")
    axes = tuple(range(1, len(shape))) if len(shape) > 1 else (1,)
    return (
        milliseconds(lambda: jaxd2l.summarize(net, shape), repeats),
        milliseconds(lambda: analysis.receptive_field(apply, x.shape, axes), repeats),
        milliseconds(lambda: analysis.count_flops(apply, x), repeats),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks; by default all")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{'network':20s} {'summarize':>12s} {'field':>12s} {'operations':>12s}")
    for name in arguments.names or models.names():
        times = "".join(f" {t:9.1f} ms" for t in measure(name, arguments.repeats))
        print(f"{name:20s}{times}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
