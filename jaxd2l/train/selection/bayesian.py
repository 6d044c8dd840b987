"""Bayesian search: settings proposed from how earlier ones did, by Optuna (the extra `search`)."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxd2l.geometry import as_int
from jaxd2l.train.many import sweep
from jaxd2l.train.mapping import How
from jaxd2l.train.run import Data, Run
from jaxd2l.train.selection.scores import Score, Tried, joined, last_valid_loss, scores_of
from jaxd2l.train.selection.settings import LogUniform, Ranges, check_ranges

Array = jax.Array


def bayesian_search(
    run: Run,
    ranges: Ranges,
    data: Data,
    *,
    key: Array,
    valid: Data,
    rounds: int = 5,
    batch: int = 8,
    seed: int = 0,
    score: Score = last_valid_loss,
    how: How | None = None,
    memory: int | None = None,
) -> Tried:
    """Rounds of `batch` settings, each proposed from the scores of the rounds before.

    A round is one sweep, the same compiled program each time. The proposals are those of Optuna's
    tree-structured Parzen estimator: the first round is random; later ones are drawn where the
    density of the good settings so far, divided by that of the others, is high. Runs of one round
    do not know of each other. Equal seeds propose the same.

    Args:
      ranges: {"learning_rate": LogUniform(1e-4, 1.0), ...}.
      key: one key, or keys (s,), whose scores are averaged.
      seed: of the proposals.
      score: of the histories, lower is better.
      run, data, valid, how, memory: as in `ensemble`.

    Raises:
      ImportError: Optuna is not installed.
      TypeError, ValueError: as `sweep`; ranges that are none.

    Source: Bergstra and others 2011.

    Example:
      >>> from jaxd2l import models, optim, train
      >>> from jaxd2l.ops import losses
      >>> x = jnp.linspace(-1.0, 1.0, 8).reshape(8, 1)
      >>> run = train.make_run(models.linear_regression(), losses.squared_loss, optim.sgd,
      ...                      epochs=2, batch_size=4)
      >>> ranges = {"learning_rate": train.LogUniform(1e-4, 1.0)}
      >>> tried = bayesian_search(run, ranges, (x, 3 * x), key=jax.random.key(0),
      ...                         valid=(x, 3 * x), rounds=3, batch=4)
      >>> tried.scores.shape, tried.rounds.max()
      ((12,), np.int64(2))
    """
    where = "bayesian_search"
    try:
        import optuna
    except ImportError as error:
        raise ImportError(f"{where} needs Optuna: pip install 'jaxd2l[search]'") from error
    check_ranges(ranges, where)
    batch = as_int(batch, f"{where}: batch", 1)
    rounds = as_int(rounds, f"{where}: rounds", 1)
    spaces: dict[str, Any] = {
        name: optuna.distributions.FloatDistribution(
            span.low, span.high, log=isinstance(span, LogUniform)
        )
        for name, span in ranges.items()
    }
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=batch)
    study = _quiet_study(optuna, sampler)
    parts = []
    for _ in range(rounds):
        asked = [study.ask(spaces) for _ in range(batch)]
        hypers = {name: jnp.array([trial.params[name] for trial in asked]) for name in ranges}
        outcome = sweep(run, hypers, data, key=key, valid=valid, how=how, memory=memory)
        scores = scores_of(score, outcome.history, batch, where)
        for trial, value in zip(asked, scores, strict=True):
            study.tell(trial, float(value) if math.isfinite(value) else np.finfo(float).max)
        parts.append((hypers, scores))
    return joined(parts)


def _quiet_study(optuna: Any, sampler: Any) -> Any:
    """A study in memory, without the line that Optuna would write about it."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(sampler=sampler)
    finally:
        optuna.logging.set_verbosity(level)
