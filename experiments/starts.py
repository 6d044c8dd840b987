"""Runs from given starts: every start and seed as one program, each seed with a split of its own.

from starts import drawn, trained
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike
from sweeps import FULL, Size, Splits, classifier, splits

from jaxd2l import data, init
from jaxd2l.layers import Layer
from jaxd2l.ops.initializers import Initializer


class Ends(NamedTuple):
    """What came out of H settings and S seeds; arrays of the host.

    Attributes:
      valid, test: (H, S) percent of errors after the last epoch.
      loss: (H, S) mean loss over the last epoch.
      params: each leaf (H, S, ...).
    """

    valid: np.ndarray
    test: np.ndarray
    loss: np.ndarray
    params: Any


def digits(side: int, size: Size) -> Splits:
    """Training, validation and test parts of the digits, all of them or, in a quick run, some."""
    sizes = (1197, 300, 300) if size.share == FULL.share else (192, 64, 64)
    return splits(data.load_digits(side), sizes, size.seeds)


def half(size: Size) -> Size:
    """Half as many seeds, for what takes long."""
    return size._replace(seeds=max(size.seeds // 2, 2))


def drawn(net: Layer, parts: Splits, kernels: Sequence[Initializer | None]) -> Any:
    """(params, state) with axes (H, S, ...): for each setting every kernel of the network drawn
    by one initialiser, or, for None, as its layers say."""
    shape = parts.train.inputs.shape[1:]

    def starts(seed: jax.Array) -> Any:
        key, made = jax.random.key(seed), {}
        for kernel in dict.fromkeys(kernels):
            overrides = None if kernel is None else {"*/kernel": kernel}
            made[kernel] = init(net, key, shape, initializers=overrides)
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(made[k] for k in kernels))

    return jax.jit(jax.vmap(starts, out_axes=1))(jnp.arange(parts.train.rows.shape[0]))


def trained(
    net: Layer, start: Any, rates: ArrayLike, parts: Splits, epochs: int, batch_size: int = 32
) -> Ends:
    """Stochastic gradient descent from `start` = (params, state) with axes (H, S, ...), at the
    rates (H,). Validation and test parts must be of one size."""
    run = classifier(net, optax.sgd, epochs, batch_size)

    def one(start: Any, rate: jax.Array, seed: jax.Array, rows: Any, held: Any) -> Any:
        train, hyper = replace(parts.train, rows=rows), {"learning_rate": rate}
        out = run.train(jax.random.key(seed), train, hyper, initial=start)

        def wrong(rows: jax.Array) -> jax.Array:
            part = replace(parts.test, rows=rows)
            return 100 * (1 - run.evaluate(out.params, out.state, part)["accuracy"])

        return jax.vmap(wrong)(held), out.history["loss"][-1], out.params

    mapped = jax.jit(jax.vmap(jax.vmap(one, (0, None, 0, 0, 0)), (0, 0, None, None, None)))
    held = jnp.stack([parts.valid.rows, parts.test.rows], 1)  # (S, 2, n)
    seeds = jnp.arange(held.shape[0])
    errors, loss, params = mapped(
        start, jnp.asarray(rates, jnp.float32), seeds, parts.train.rows, held
    )
    valid, test = np.moveaxis(np.asarray(errors, np.float64), -1, 0)
    return Ends(valid, test, np.asarray(loss, np.float64), params)
