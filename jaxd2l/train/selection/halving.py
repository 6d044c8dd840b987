"""Successive halving: a few epochs for every setting, all of them for the best."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxd2l.geometry import as_int
from jaxd2l.train.many import as_hypers, as_keys, as_shared, run_cases
from jaxd2l.train.mapping import How
from jaxd2l.train.run import Data, Outcome, Run
from jaxd2l.train.selection.scores import Score, last_valid_loss, scores_of

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Halving:
    """What `successive_halving` gives, for h settings.

    Attributes:
      hypers: {name: (h,)} arrays of the host.
      scores: (h,), of each setting after the last epoch it reached; inf where it diverged.
      epochs: (h,) int, how far it came.
      survivors: (r,) int, numbers of the settings that went through all epochs.
      outcome: theirs: every leaf (r, ...), or (r, s, ...) for s keys.
    """

    hypers: dict[str, np.ndarray]
    scores: np.ndarray
    epochs: np.ndarray
    survivors: np.ndarray
    outcome: Outcome

    @property
    def best(self) -> dict[str, Any]:
        """The survivor with the lowest score, as numbers."""
        number = self.survivors[self.scores[self.survivors].argmin()]
        return {name: values[number].item() for name, values in self.hypers.items()}


def budgets(count: int, epochs: int, eta: int) -> list[tuple[int, int]]:
    """Rounds of successive halving: how many settings, and up to which epoch.

    count, count // eta, count // eta^2, ... settings while there is one left and the epochs can be
    divided; eta times the epochs in each round, rounded down, so that the last has all of them.

    Example:
      >>> budgets(9, 27, 3), budgets(10, 7, 2), budgets(4, 1, 2)
      ([(9, 3), (3, 9), (1, 27)], [(10, 1), (5, 3), (2, 7)], [(4, 1)])
    """
    rounds = 0
    while count // eta ** (rounds + 1) and epochs // eta ** (rounds + 1):
        rounds += 1
    return [(count // eta**i, epochs // eta ** (rounds - i)) for i in range(rounds + 1)]


def halve(
    count: int, epochs: int, eta: int, advance: Callable[[np.ndarray, int], np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Successive halving of 0..count-1: last scores, epochs reached, numbers of the survivors.

    `advance(alive, epochs)` takes the numbers (r,) on to that epoch and gives their scores (r,).

    Example:
      >>> scores, reached, left = halve(4, 4, 2, lambda alive, epochs: alive / epochs)
      >>> scores.tolist(), reached.tolist(), left.tolist()
      ([0.0, 0.5, 2.0, 3.0], [4, 2, 1, 1], [0])
    """
    scores, reached = np.full(count, np.inf), np.zeros(count, int)
    alive = np.arange(count)
    for size, epoch in budgets(count, epochs, eta):
        order = np.argsort(scores[alive], kind="stable")  # the first where two are equal
        alive = np.sort(alive[order[:size]])
        scores[alive] = advance(alive, epoch)
        reached[alive] = epoch
    return scores, reached, alive


def up_to(run: Run, epochs: int) -> Run:
    """The run up to an earlier epoch; the same one each time, for its compiled programs.

    Example:
      >>> from jaxd2l import models, optim, train
      >>> from jaxd2l.ops import losses
      >>> run = train.make_run(models.linear_regression(), losses.squared_loss, optim.sgd,
      ...                      epochs=9, batch_size=4)
      >>> up_to(run, 3).epochs, up_to(run, 3) is up_to(run, 3)
      (3, True)
    """
    if epochs == run.epochs:
        return run
    return run.programs.setdefault(("up_to", epochs), dataclasses.replace(run, epochs=epochs))


def crossed(hypers: Mapping[str, Array], r: int, keys: Array | None) -> dict[str, Any]:
    """Settings (r,) and keys (s,) as one axis (r s,) of cases, which can take an outcome along.

    Example:
      >>> axis = crossed({"decay": jnp.array([0.0, 1.0])}, 2, jax.random.split(jax.random.key(0)))
      >>> axis["hyper"]["decay"].tolist(), axis["key"].shape
      ([0.0, 0.0, 1.0, 1.0], (4,))
    """
    if keys is None:
        return {"hyper": dict(hypers)}
    s = keys.shape[0]
    axis = {"hyper": {n: jnp.asarray(np.repeat(np.asarray(a), s)) for n, a in hypers.items()}}
    return axis | {"key": keys[np.tile(np.arange(s), r)]}


def histories(outcome: Outcome, r: int, s: int) -> dict[str, np.ndarray]:
    """The histories (r s, epochs) of such cases as (r, s, epochs).

    Example:
      >>> histories(Outcome({}, {}, {"loss": np.zeros((6, 4))}, ()), 3, 2)["loss"].shape
      (3, 2, 4)
    """
    return {name: np.asarray(v).reshape(r, s, -1) for name, v in outcome.history.items()}


@jax.jit
def _taken(outcome: Outcome, rows: Array) -> Outcome:
    return jax.tree.map(lambda a: a[rows], outcome)


@partial(jax.jit, static_argnums=(1, 2))
def _by_setting(outcome: Outcome, r: int, s: int) -> Outcome:
    """Leaves (r s, ...) as (r, s, ...)."""
    return jax.tree.map(lambda a: a.reshape(r, s, *a.shape[1:]), outcome)


def successive_halving(
    run: Run,
    hypers: Mapping[str, Any],
    data: Data,
    *,
    key: Array,
    valid: Data,
    eta: int = 3,
    score: Score = last_valid_loss,
    how: How | None = None,
    memory: int | None = None,
) -> Halving:
    """Train all settings a little, keep the best 1/eta of them, train these eta times as long, ...

    Round i of s+1 takes count // eta^i settings to epoch run.epochs // eta^(s-i): 9 settings and 9
    epochs cost 21 epochs in place of 81. A setting goes on where it stopped, optimiser and all, so
    the survivors come to what `sweep` gives for them. A schedule should be one of all the epochs.

    Args:
      hypers: {"learning_rate": (h,), ...}, as of `grid` or `random_search`.
      key: one key, or keys (s,), whose scores are averaged.
      eta: one of how many is kept.
      score: of the histories so far, lower is better.
      run, data, valid, how, memory: as in `ensemble`.

    Raises:
      TypeError, ValueError: as `sweep`; `eta` below 2.

    Source: Jamieson and Talwalkar 2016; with a growing budget, Li and others 2018 (Hyperband).

    Example:
      >>> from jaxd2l import models, optim, train
      >>> from jaxd2l.ops import losses
      >>> x = jnp.linspace(-1.0, 1.0, 8).reshape(8, 1)
      >>> run = train.make_run(models.linear_regression(), losses.squared_loss, optim.sgd,
      ...                      epochs=4, batch_size=4)
      >>> found = successive_halving(run, {"learning_rate": [0.01, 0.1, 0.5, 9.0]}, (x, 3 * x),
      ...                            key=jax.random.key(0), valid=(x, 3 * x), eta=2)
      >>> found.epochs.tolist(), found.best
      ([1, 2, 4, 1], {'learning_rate': 0.5})
    """
    where = "successive_halving"
    arrays, h = as_hypers(hypers, where)
    if h is None:
        raise ValueError(f"{where}: no hyper-parameter is an array of values, got {dict(hypers)}")
    keys, many = as_keys(key, where)
    s = keys.shape[0] if many else 1
    host = {name: np.asarray(a) for name, a in arrays.items()}
    shared = as_shared(data, valid, where) | ({} if many else {"key": keys})
    so_far: dict[str, Any] = {"alive": np.arange(h), "outcome": None}

    def advance(alive: np.ndarray, epochs: int) -> np.ndarray:
        left = {name: jnp.asarray(a[alive]) for name, a in host.items()}
        axis = crossed(left, len(alive), keys if many else None)
        if so_far["outcome"] is not None:
            place = np.searchsorted(so_far["alive"], alive)
            rows = (place[:, None] * s + np.arange(s)).ravel()
            axis["before"] = _taken(so_far["outcome"], rows)
        outcome = run_cases(up_to(run, epochs), [axis], shared, how, memory, where)
        so_far.update(alive=alive, outcome=outcome)
        return scores_of(score, histories(outcome, len(alive), s), len(alive), where)

    eta = as_int(eta, f"{where}: eta", 2)
    scores, reached, survivors = halve(h, run.epochs, eta, advance)
    outcome = so_far["outcome"]
    outcome = _by_setting(outcome, len(survivors), s) if many else outcome
    return Halving(host, scores, reached, survivors, outcome)
