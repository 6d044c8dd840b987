"""A small search over architectures, such as depth and width."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxd2l.analysis import summarize
from jaxd2l.geometry import as_int
from jaxd2l.layers import Layer
from jaxd2l.train.many import as_hypers, as_keys, as_shared, run_cases
from jaxd2l.train.mapping import How
from jaxd2l.train.run import Data, Outcome, Run
from jaxd2l.train.selection.halving import crossed, halve, histories, up_to
from jaxd2l.train.selection.scores import Score, last_valid_loss, scores_of

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One line of the table that `search_architectures` gives.

    Attributes:
      choice: the arguments it was made from: {"depth": 2, "width": 16}.
      parameters, macs: of the network, for one example; known before it runs.
      score: after the last epoch it reached, of the best setting, the mean over keys; inf where it
        diverged.
      hyper: that setting.
      epochs: how far it came.
    """

    choice: dict[str, Any]
    parameters: int
    macs: int
    score: float
    hyper: dict[str, float]
    epochs: int


def pareto_front(table: Sequence[Architecture]) -> list[Architecture]:
    """Those that no other equals or beats in both score and parameters, by rising parameters.

    Example:
      >>> rows = [Architecture({}, p, 0, s, {}, 1) for p, s in ((9, 1.0), (5, 2.0), (7, 3.0))]
      >>> [row.parameters for row in pareto_front(rows)]
      [5, 9]
    """
    front: list[Architecture] = []
    for row in sorted(table, key=lambda row: (row.parameters, row.score)):
        if np.isfinite(row.score) and (not front or row.score < front[-1].score):
            front.append(row)
    return front


def search_architectures(
    make: Callable[..., Run],
    choices: Mapping[str, Sequence[Any]],
    data: Data,
    *,
    key: Array,
    valid: Data,
    hyper: Mapping[str, Any] | None = None,
    most_parameters: int | None = None,
    eta: int | None = None,
    score: Score = last_valid_loss,
    how: How | None = None,
    memory: int | None = None,
) -> list[Architecture]:
    """Train every combination of the choices that the budget allows: a table, the best first.

    Shapes differ, so each architecture is a program of its own; the settings and keys of one are
    mapped inside it. What it costs is read off its record before anything runs.

    Args:
      make: called with one value of each choice, gives the run:
        `lambda depth, width: make_run(models.mlp((width,) * depth), ...)`. All of equal epochs.
      choices: {"depth": [1, 2, 3], "width": [16, 64]}.
      key: one key, or keys (s,), whose scores are averaged.
      hyper: as for the run; where values are arrays (h,), the best setting of each architecture
        counts: a comparison at one learning rate favours whom the rate suits.
      most_parameters: larger networks are left out.
      eta: successive halving: of the architectures the best 1/eta go on, see `successive_halving`;
        None trains all of them in full.
      score: of the histories, lower is better.
      data, valid, how, memory: as in `ensemble`.

    Raises:
      TypeError: `make` gives something else than a run of a network.
      ValueError: no architecture is within the budget; unequal epochs; as `sweep`.

    Example:
      >>> from jaxd2l import models, optim, train
      >>> from jaxd2l.ops import losses
      >>> x = jnp.linspace(-1.0, 1.0, 8).reshape(8, 1)
      >>> def make(depth, width):
      ...     net = models.mlp((width,) * depth, 1)
      ...     return train.make_run(net, losses.squared_loss, optim.sgd, epochs=2, batch_size=4)
      >>> table = search_architectures(make, {"depth": [1], "width": [2, 4, 64]}, (x, x * x),
      ...                              key=jax.random.key(0), valid=(x, x * x), how="map",
      ...                              hyper={"learning_rate": 0.1}, most_parameters=100)
      >>> sorted((row.choice["width"], row.parameters) for row in table)
      [(2, 7), (4, 13)]
    """
    where = "search_architectures"
    shared = as_shared(data, valid, where)
    rows = _within_budget(make, choices, shared["data"].inputs.shape[1:], most_parameters, where)
    runs = [run for run, _ in rows]
    epochs = runs[0].epochs
    if any(run.epochs != epochs for run in runs):
        raise ValueError(
            f"{where}: the runs must have equal epochs, got {[r.epochs for r in runs]}"
        )
    keys, many = as_keys(key, where)
    keys = keys if many else keys[None]
    hypers, h = as_hypers(hyper, where)
    settings = {name: jnp.broadcast_to(a, (h or 1,)) for name, a in hypers.items()}
    axis = crossed(settings, h or 1, keys)
    outcomes: dict[int, Outcome] = {}
    best: dict[int, dict[str, float]] = {}

    def advance_one(number: int, epoch: int) -> float:
        run = up_to(runs[number], epoch)
        before = {"before": outcomes[number]} if number in outcomes else {}
        outcome = run_cases(run, [axis | before], shared, how, memory, where)
        outcomes[number] = outcome
        figures = histories(outcome, h or 1, keys.shape[0])
        scores = scores_of(score, figures, h or 1, where)
        best[number] = {name: a[scores.argmin()].item() for name, a in settings.items()}
        return float(scores.min())

    def advance(alive: np.ndarray, epoch: int) -> np.ndarray:
        return np.array([advance_one(int(number), epoch) for number in alive])

    if eta is None:
        every = np.arange(len(rows))
        scores, reached = advance(every, epochs), np.full(len(rows), epochs)
    else:
        eta = as_int(eta, f"{where}: eta", 2)
        scores, reached, _ = halve(len(rows), epochs, eta, advance)
    table = [
        dataclasses.replace(row, score=float(scores[i]), hyper=best[i], epochs=int(reached[i]))
        for i, (_, row) in enumerate(rows)
    ]
    return sorted(table, key=lambda row: (-row.epochs, row.score))


def _within_budget(
    make: Callable[..., Run],
    choices: Mapping[str, Sequence[Any]],
    input_shape: tuple[int, ...],
    most_parameters: int | None,
    where: str,
) -> list[tuple[Run, Architecture]]:
    """The runs that may be tried, each with a line that has no score yet."""
    if not choices or not all(len(values) for values in choices.values()):
        raise ValueError(f"{where}: choices must be a dict such as {{'depth': [1, 2]}}")
    rows, smallest = [], None
    for values in itertools.product(*choices.values()):
        choice = dict(zip(choices, values, strict=True))
        run = make(**choice)
        if not isinstance(run, Run) or not isinstance(run.model, Layer):
            raise TypeError(
                f"{where}: make must give train.make_run of a network, got {run!r} for {choice}"
            )
        cost = summarize(run.model, input_shape)
        smallest = min(smallest or cost.parameters, cost.parameters)
        if most_parameters is None or cost.parameters <= most_parameters:
            rows.append((run, Architecture(choice, cost.parameters, cost.macs, np.inf, {}, 0)))
    if not rows:
        raise ValueError(
            f"{where}: no architecture has at most {most_parameters} parameters, the smallest "
            f"has {smallest}"
        )
    return rows
