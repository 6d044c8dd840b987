"""A sweep, then narrower sweeps around the best."""

import jax
import jax.numpy as jnp

from jaxd2l.geometry import as_int
from jaxd2l.train.many import sweep
from jaxd2l.train.mapping import How
from jaxd2l.train.run import Data, Run
from jaxd2l.train.selection.scores import Score, Tried, joined, last_valid_loss, scores_of
from jaxd2l.train.selection.settings import Ranges, check_ranges, grid

Array = jax.Array


def coarse_to_fine(
    run: Run,
    ranges: Ranges,
    data: Data,
    *,
    key: Array,
    valid: Data,
    points: int = 5,
    rounds: int = 2,
    score: Score = last_valid_loss,
    how: How | None = None,
    memory: int | None = None,
) -> Tried:
    """Sweep a grid over the ranges, then a finer grid around the best, and so on.

    A grid has `points` values of each hyper-parameter, evenly spaced (by ratios for `LogUniform`),
    the ends included. The next one reaches from the best value one spacing to either side, within
    the ranges given: 2 / (points - 1) of the width, half for 5. A best value at an end of its range
    says that the range should be wider. All rounds are the same compiled program.

    Args:
      ranges: {"learning_rate": LogUniform(1e-4, 1.0), ...}; points^d runs a round.
      key: one key, or keys (s,), whose scores are averaged.
      score: of the histories, lower is better.
      run, data, valid, how, memory: as in `ensemble`.

    Raises:
      TypeError, ValueError: as `sweep`; `points` below 4, with which nothing gets narrower.

    Source: the notes on tuning (SC6).

    Example:
      >>> from jaxd2l import models, optim, train
      >>> from jaxd2l.ops import losses
      >>> x = jnp.linspace(-1.0, 1.0, 8).reshape(8, 1)
      >>> run = train.make_run(models.linear_regression(), losses.squared_loss, optim.sgd,
      ...                      epochs=1, batch_size=8)
      >>> ranges = {"learning_rate": train.LogUniform(1e-3, 10.0)}
      >>> tried = coarse_to_fine(run, ranges, (x, 3 * x), key=jax.random.key(0), valid=(x, 3 * x))
      >>> rates = tried.hypers["learning_rate"].tolist()
      >>> [round(rate, 3) for rate in rates[5:]]
      [0.1, 0.316, 1.0, 3.162, 10.0]
    """
    where = "coarse_to_fine"
    check_ranges(ranges, where)
    points = as_int(points, f"{where}: points", 4)
    spans = dict.fromkeys(ranges, (0.0, 1.0))
    parts = []
    for _ in range(as_int(rounds, f"{where}: rounds", 1)):
        shares = grid({name: jnp.linspace(*span, points) for name, span in spans.items()})
        hypers = {name: ranges[name].at(u) for name, u in shares.items()}
        outcome = sweep(run, hypers, data, key=key, valid=valid, how=how, memory=memory)
        scores = scores_of(score, outcome.history, points ** len(ranges), where)
        parts.append((hypers, scores))
        best = scores.argmin()
        for name, (low, high) in spans.items():
            middle, spacing = float(shares[name][best]), (high - low) / (points - 1)
            spans[name] = (max(0.0, middle - spacing), min(1.0, middle + spacing))
    return joined(parts)
