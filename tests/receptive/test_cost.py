"""The analysis is quick, and takes little memory, whatever the size of the image or the loop."""

import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxd2l.analysis import receptive_field
from jaxd2l.geometry import ReceptiveField, Window
from jaxd2l.geometry import receptive_field as of_windows

PIXEL = ReceptiveField()


def conv(x: jax.Array, k: int, padding: str, stride: int = 1) -> jax.Array:
    """2-D, with constant weights."""
    weights = jnp.ones((k, k, x.shape[-1], x.shape[-1]), x.dtype)
    dimensions = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, weights, (stride, stride), padding, dimension_numbers=dimensions
    )


def seconds(f: Callable[..., Any], shape: tuple[int, ...], *args: Any) -> tuple[float, Any]:
    begin = time.process_time()
    told = receptive_field(f, shape, *args)
    return time.process_time() - begin, told


def test_large_images_cost_nothing() -> None:
    def f(x: jax.Array) -> jax.Array:
        for _ in range(4):
            x = conv(jax.nn.relu(conv(x, 3, "SAME")), 3, "SAME", 2)
        y = jax.image.resize(x, (1, *(2 * n for n in x.shape[1:3]), 3), "nearest")
        return y + jax.image.resize(x, y.shape, "bilinear") + jnp.roll(y, 1, 1)

    receptive_field(f, (1, 64, 64, 3))
    tracemalloc.start()
    took, told = seconds(f, (1, 4096, 4096, 3))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert took < 4
    assert peak < 100e6
    assert told[0].size >= 1 + 2 * 2 * 15
    took, told = seconds(lambda x: conv(x, 3, "SAME"), (1, 10**6, 10**6, 3))
    assert took < 1
    assert told[0] == of_windows([Window(3, 1, 1)])
    took, told = seconds(lambda x: jnp.sort(jnp.cumsum(x, 1), 2), (1, 4096, 4096, 3))
    assert (took < 2, told[1]) == (True, ReceptiveField.whole(4096))


def test_long_loops_cost_little() -> None:
    def walk(x: jax.Array) -> jax.Array:  # (n, t, c)
        def step(h: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
            h = jnp.tanh(h + row)
            return h, h

        return lax.scan(step, x[:, 0], x.swapaxes(0, 1))[1].swapaxes(0, 1)

    took, (field,) = seconds(walk, (1, 5000, 4))
    assert took < 2
    assert [field.interval(t) for t in (0, 17, 4999)] == [(0, 0), (0, 17), (0, 4999)]
    took, (rows, _) = seconds(
        lambda x: lax.fori_loop(0, 5000, lambda i, y: conv(y, 3, "SAME"), x), (1, 64, 64, 1)
    )
    assert took < 2
    assert rows.interval(32)[0] <= 0
    assert rows.interval(32)[1] >= 63
    took, (rows, _) = seconds(
        lambda x: lax.fori_loop(0, 10**7, lambda i, y: y * 2, x), (1, 64, 64, 1)
    )
    assert took < 2
    assert rows == PIXEL


def test_deep_networks() -> None:
    def deep(x: jax.Array) -> jax.Array:
        for _ in range(1000):
            x = jnp.tanh(x[:, 1:] + x[:, :-1])
        return x

    took, (rows, columns) = seconds(deep, (1, 1200, 4, 1))
    assert rows == of_windows([Window(1001)])
    assert columns == PIXEL
    assert took < 10

    def nested(x: jax.Array) -> jax.Array:
        f: Callable[[jax.Array], jax.Array] = jnp.tanh
        for _ in range(60):
            f = jax.jit(lambda x, f=f: f(x) + 1)
        return f(x)

    assert receptive_field(nested, (1, 4, 4, 1)) == (PIXEL, PIXEL)


def test_constants_are_computed_only_when_needed() -> None:
    """A large table inside the function is not built to find out that it is only added."""

    def f(x: jax.Array) -> jax.Array:
        table = jnp.ones((1, 20000, 20000, 1)) * jnp.arange(20000.0)[:, None, None]
        return x + table

    took, told = seconds(f, (1, 20000, 20000, 1))
    assert took < 1
    assert told == (PIXEL, PIXEL)
