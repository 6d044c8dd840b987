"""A whole training run as one pure function."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxd2l.geometry import iterations_per_epoch
from jaxd2l.layers import Layer
from jaxd2l.train.step import (
    Array,
    Loss,
    Metrics,
    Model,
    check_optimizer,
    default_metrics,
    make_update,
    start,
    zero_totals,
)


class _Batch(NamedTuple):
    inputs: Array
    targets: Array
    mask: Array


def make_run(
    model: Layer | Model,
    loss: Loss,
    optimizer: Callable[..., optax.GradientTransformation],
    *,
    epochs: int,
    batch_size: int,
    metrics: Metrics | None = None,
    carry: bool = False,
) -> Callable[..., tuple[Any, dict[str, Array]]]:
    """Training as the pure function `run(key, inputs, targets, hyper) -> (params, history)`.

    No host code runs inside, so the run can be jitted, differentiated, and mapped over keys, over
    hyper-parameters or over data sets. `fit` is the same loop driven from the host. Adam divides
    by a root, whose derivative at a gradient of exactly 0 is infinite: to differentiate through it
    give it an `eps_root` above 0.

    Args:
      optimizer: called with the hyper-parameters as keywords, `optax.sgd` for instance; they may
        be traced values.
      metrics: default accuracy where the targets are integers.
      carry: batches continue each other, as in `fit`; nothing is shuffled.

    Returns:
      run, whose history has one mean per epoch for "loss" and each metric: (epochs,) arrays. A
      fifth argument `initial` = (params, state) is where to start from, default the model's `init`.

    Example:
      >>> from jaxd2l import models
      >>> from jaxd2l.ops import losses
      >>> x = jnp.linspace(-1.0, 1.0, 8).reshape(8, 1)
      >>> run = make_run(models.linear_regression(), losses.squared_loss, optax.sgd,
      ...                epochs=20, batch_size=4)
      >>> rates = jnp.array([0.1, 0.5])
      >>> sweep = jax.vmap(lambda rate: run(jax.random.key(0), x, 3 * x, {"learning_rate": rate}))
      >>> params, history = jax.jit(sweep)(rates)
      >>> history["loss"].shape, params["linear"]["kernel"].shape
      ((2, 20), (2, 1, 1))
    """

    def run(
        key: Array,
        inputs: Array,
        targets: Array,
        hyper: Mapping[str, Any],
        initial: tuple[Any, Any] | None = None,
    ) -> tuple[Any, dict[str, Array]]:
        inputs, targets = jnp.asarray(inputs), jnp.asarray(targets)
        n = inputs.shape[0]
        if targets.shape[:1] != (n,):
            raise ValueError(
                f"run: inputs and targets must have the same length on their first axis, "
                f"got {inputs.shape} and {targets.shape}"
            )
        if n == 0:
            raise ValueError("run: there are no examples")
        size = min(batch_size, n)  # a batch size above the number of examples means all of them
        steps = iterations_per_epoch(n, size)
        names = default_metrics(targets) if metrics is None else metrics
        transformation = optimizer(**hyper)
        check_optimizer(transformation, "run")
        padded = steps * size != n
        if carry and padded:
            raise ValueError(f"run: with carry=True batches of {size} must divide the {n} examples")
        update = make_update(model, loss, transformation, names, padded=padded)
        place = jnp.arange(steps * size).reshape(steps, size)

        def epoch(train: Any, number: Array) -> Any:
            shuffle = jax.random.fold_in(jax.random.fold_in(key, 1), number)
            order = jnp.arange(n) if carry else jax.random.permutation(shuffle, n)

            def step(train: Any, at: Array) -> Any:
                index = order[at % n]
                return update(train, _Batch(inputs[index], targets[index], at < n)), None

            train, _ = jax.lax.scan(step, train, place)
            count = train.totals["count"].astype(jnp.float32)
            history = {k: v / count for k, v in train.totals.items() if k != "count"}
            anew = jax.tree.map(jnp.zeros_like, train.carry)
            return dataclasses.replace(train, totals=zero_totals(names), carry=anew), history

        rows = size if carry else None
        first = start(model, transformation, key, inputs.shape[1:], names, initial, rows)
        last, history = jax.lax.scan(epoch, first, jnp.arange(epochs))
        return last.params, history

    return run
