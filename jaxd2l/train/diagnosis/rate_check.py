"""The learning rate, judged by a few steps on one batch with updates scaled by several factors."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxd2l.data import Batch
from jaxd2l.layers import Layer
from jaxd2l.train.diagnosis.evidence import Evidence
from jaxd2l.train.diagnosis.findings import Finding
from jaxd2l.train.step import Loss, make_update, start, zero_totals

STEPS = 20
MOST = 128  # examples
FLAT = 0.01
FALLS = 0.1
JUMP = 2.0


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def trial(
    net: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    initial: Any,
    batch: Batch,
    key: Any,
    factor: Any,
) -> jax.Array:
    """The losses before each of 21 steps, with one mask of dropout and updates times `factor`.

    Example:
      >>> from jaxd2l import init, models
      >>> from jaxd2l.ops import losses
      >>> net, key = models.linear_regression(), jax.random.key(0)
      >>> batch = Batch(jnp.ones((4, 2)), jnp.ones((4, 1)), jnp.ones(4, bool), jnp.arange(4))
      >>> sgd = optax.sgd(0.5)
      >>> initial = init(net, key, (2,))
      >>> curve = trial(net, losses.squared_loss, sgd, initial, batch, key, 0.1)
      >>> curve.shape, bool(curve[-1] < 0.1 * curve[0])
      ((21,), True)
    """
    scaled = optax.chain(optimizer, optax.scale(factor))
    update = make_update(net, loss, scaled, {}, padded=False)

    def step(train: Any, _: Any) -> Any:
        after = update(train, batch)
        mean = after.totals["loss"] / after.totals["count"]
        return dataclasses.replace(after, totals=zero_totals({}), step=train.step), mean

    first = start(net, scaled, key, jnp.shape(batch.inputs)[1:], {}, initial)
    return jax.lax.scan(step, first, None, STEPS + 1)[1]


def learning_rate(
    net: Layer,
    params: Any,
    state: Any,
    seen: Evidence,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    key: Any,
) -> Iterator[Finding]:
    """Whether the optimiser lowers the loss of this batch in 20 steps as well as scaled ones do.

    Too high: the loss becomes NaN or infinite, or jumps to twice what it was and what ignorance
    costs (log C, or predicting the mean); or, while it is above half of that, falls less than half
    as far as with updates a tenth, a hundredth ... as large, which lower it by 5% without a jump.
    (At a low loss the first steps of Adam may double it, and training goes on.)

    Too low: it falls by less than 1%, and updates a hundred times or more as large lower it by 10%
    without a jump. Rates that train well are rarely a hundred times below the largest stable one:
    on our healthy networks they lowered the loss by 3.7% and more.
    """
    count = min(len(seen.inputs), MOST)
    batch = Batch(
        seen.inputs[:count],
        seen.targets[:count],
        np.ones(count, bool),
        np.arange(count, dtype=np.int32),
    )

    def run(factor: float) -> tuple[float, bool]:
        """How much of the loss goes, on the mean of the last five steps, and whether it jumps."""
        curve = np.asarray(
            trial(net, loss, optimizer, (params, state), batch, key, jnp.float32(factor)),
            np.float64,
        )
        first, peak = curve[0], curve.max()
        if not np.isfinite(curve).all():
            return -np.inf, True
        return 1 - curve[-5:].mean() / first, bool(peak > JUMP * max(first, seen.baseline))

    fall, jumps = run(1.0)
    early = seen.mean_loss > seen.baseline / 2
    if jumps or (early and fall < 0.5):
        yield from _too_high(run, fall, jumps)
    if fall < FLAT and not jumps:
        yield from _too_low(run, fall)


def _too_high(run: Callable[[float], Any], fall: float, jumps: bool) -> Iterator[Finding]:
    limit = FLAT if jumps else max(2 * fall, FALLS / 2)
    before, found = -np.inf, None
    for power in range(1, 7):
        smaller, rough = run(10.0**-power)
        if not rough and smaller >= limit:
            before, found = smaller, power
            break
        if not rough and smaller < before:
            break  # from here on it only gets slower
        before = smaller
    if found is None and not jumps:
        return
    what = "jumps" if jumps else f"falls by {fall:.1%}"
    other = f"with updates 10^{found} times smaller it falls by {before:.1%}"
    yield Finding(
        "learning_rate_too_high",
        "optimizer",
        fall,
        limit,
        f"in {STEPS} steps on one batch the loss {what}; "
        + (other if found else "with smaller updates it does not fall either"),
        "lower the rate" + (f" by a factor of 10^{found}" if found else "") + " (train.find_rate)",
    )


def _too_low(run: Callable[[float], Any], fall: float) -> Iterator[Finding]:
    for power in range(2, 7):
        larger, rough = run(10.0**power)
        if not rough and larger > FALLS:
            yield Finding(
                "learning_rate_too_low",
                "optimizer",
                fall,
                FLAT,
                f"in {STEPS} steps on one batch the loss falls by {fall:.2%}; with updates "
                f"10^{power} times larger it falls by {larger:.1%}",
                f"raise the rate by a factor of 10^{power - 1} or so (train.find_rate)",
            )
            return
