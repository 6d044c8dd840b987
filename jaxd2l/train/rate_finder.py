"""A learning rate from one short run in which the rate grows."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxd2l.geometry import as_int
from jaxd2l.layers import Layer
from jaxd2l.records import as_float
from jaxd2l.train.run import Data, part_of, shuffled
from jaxd2l.train.step import Array, Loss, Model, check_optimizer, make_update, start, zero_totals

MEMORY = 0.8  # of the average over steps: about five steps
BELOW = 10.0


class _Batch(NamedTuple):
    inputs: Array
    targets: Array
    mask: Array


class RateSearch(NamedTuple):
    """What `find_rate` gives: the rates, the loss of the batch before each step, its moving
    average, and the rate suggested.
    """

    rates: Array
    losses: Array
    smoothed: Array
    suggestion: Array


def find_rate(
    model: Layer | Model,
    loss: Loss,
    optimizer: Callable[..., optax.GradientTransformation],
    key: Array,
    data: Data,
    *,
    batch_size: int,
    lowest: float = 1e-6,
    highest: float = 10.0,
    steps: int = 100,
    initial: tuple[Any, Any] | None = None,
) -> RateSearch:
    """A learning-rate range test: one run whose rate grows from step to step by a constant factor.

    The rate of step i is lowest (highest / lowest)^(i / (steps - 1)). The suggestion is a tenth of
    the rate at which the moving average of the loss is smallest: the loss falls while steps are
    stable and rises where they are not, so the minimum is near the largest stable rate, which is
    beyond the best one by about that factor. If the loss still falls at the end, `highest` was too
    low, and the suggestion is a tenth of it. The average is m_i = 0.8 m_(i-1) + 0.2 l_i,
    corrected for its start; losses that are not finite count as infinite, from there on.

    All is one `lax.scan`, without host code, so it can be jitted and mapped over keys. Parameters
    are as `make_run` would start them, and are not returned: the run has spoilt them.

    Args:
      model, loss, optimizer, batch_size, data, initial: as for `make_run`; the optimizer is called
        as optimizer(learning_rate=...), and its state is that of one optimiser all the way.
      lowest, highest, steps: the rates tried.

    Shapes: rates, losses, smoothed: (steps,); suggestion: ().

    Raises:
      ValueError: lowest not below highest, fewer than 2 steps, or bad data.

    Source: Smith 2017, "Cyclical learning rates for training neural networks", which reads the
    rate off the picture; the rule is ours.

    Example:
      >>> from jaxd2l import models
      >>> from jaxd2l.ops import losses
      >>> x = jnp.linspace(-1.0, 1.0, 8).reshape(8, 1)
      >>> found = find_rate(models.linear_regression(), losses.squared_loss, optax.sgd,
      ...                   jax.random.key(0), (x, 3 * x), batch_size=8)
      >>> found.rates.shape, bool(0.05 < found.suggestion < 2.0)
      ((100,), True)
    """
    low = as_float(lowest, "find_rate: lowest", 0)
    high = as_float(highest, "find_rate: highest", 0)
    steps = as_int(steps, "find_rate: steps", 2)
    if not 0 < low < high:
        raise ValueError(f"find_rate: lowest must be above 0 and below highest, got {low}, {high}")
    part = part_of(data, "find_rate")
    rows = part.rows.shape[0]
    size = min(as_int(batch_size, "find_rate: batch_size", 1), part.fewest)
    rates = jnp.asarray(np.geomspace(low, high, steps), jnp.float32)
    each = part.fewest // size  # whole batches of an epoch
    first_optimizer = optimizer(learning_rate=low)
    check_optimizer(first_optimizer, "find_rate")

    def step(train: Any, at: Any) -> Any:
        rate, index = at
        transformation = optimizer(learning_rate=rate)
        update = make_update(model, loss, transformation, {}, padded=False)
        batch = _Batch(part.inputs[index], part.targets[index], jnp.ones(size, bool))
        after = update(train, batch)
        value = after.totals["loss"] / after.totals["count"]
        return dataclasses.replace(after, totals=zero_totals({})), value

    @jax.jit  # so that what is drawn before the scan is no program of its own
    def search(key: Array, initial: Any) -> RateSearch:
        shuffle = jax.random.fold_in(key, 1)
        keys = jax.vmap(lambda i: jax.random.fold_in(shuffle, i))(jnp.arange(-(-steps // each)))
        order = jax.vmap(lambda k: shuffled(k, rows, part.count, part.fewest)[: each * size])(keys)
        order = part.rows[order].reshape(-1, size)[:steps]  # (steps, size)
        first = start(model, first_optimizer, key, part.inputs.shape[1:], {}, initial)
        _, values = jax.lax.scan(step, first, (rates, order))
        smoothed = _average(values)
        return RateSearch(rates, values, smoothed, rates[jnp.argmin(smoothed)] / BELOW)

    return search(key, initial)


def _average(values: Array) -> Array:
    """The moving average, corrected for its start; infinite from the first value that is not finite
    on.
    """

    def add(before: Any, value: Array) -> Any:
        total, weight = before
        total = MEMORY * total + (1 - MEMORY) * jnp.where(jnp.isfinite(value), value, jnp.inf)
        weight = MEMORY * weight + (1 - MEMORY)
        return (total, weight), total / weight

    zero = jnp.zeros((), values.dtype)
    return jax.lax.scan(add, (zero, zero), values)[1]
