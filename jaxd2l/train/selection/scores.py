"""How settings are judged, and the record of those that were tried."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

Array = jax.Array
Score = Callable[[Mapping[str, Array]], Array]


def last_valid_loss(history: Mapping[str, Array]) -> Array:
    """The validation loss after the last epoch: what searches minimise unless told otherwise.

    Another score is another such function, for instance `lambda h: -h["valid_accuracy"][..., -1]`.

    Shapes: history {name: (..., epochs)}; result (...).

    Example:
      >>> last_valid_loss({"valid_loss": np.array([[3.0, 1.0], [2.0, 4.0]])}).tolist()
      [1.0, 4.0]
    """
    return history["valid_loss"][..., -1]


def scores_of(score: Score, history: Mapping[str, Any], h: int, where: str) -> np.ndarray:
    """The score of each setting, the mean over keys; what is not finite is worst: (h,) float64.

    Raises:
      ValueError: the score is not one number a run.

    Example:
      >>> history = {"valid_loss": np.array([[[1.0], [3.0]], [[np.nan], [0.0]]])}
      >>> scores_of(last_valid_loss, history, 2, "search").tolist()
      [2.0, inf]
    """
    host: dict[str, Any] = {name: np.asarray(v) for name, v in history.items()}
    values = np.asarray(score(host), np.float64)
    if values.ndim not in (1, 2) or values.shape[0] != h:
        raise ValueError(
            f"{where}: score must give one number for each run, shape ({h},) or ({h}, keys), from "
            f"histories (..., epochs), got {values.shape}; take the last epoch: [..., -1]"
        )
    mean = values.reshape(h, -1).mean(axis=1)
    return np.where(np.isfinite(mean), mean, np.inf)


@dataclasses.dataclass(frozen=True)
class Tried:
    """The settings that a search tried, in order, and how each did.

    Attributes:
      hypers: {name: (t,)} arrays of the host.
      scores: (t,), lower is better; inf where a run diverged.
      rounds: (t,) int, the round in which it was tried, from 0.

    Example:
      >>> tried = Tried({"learning_rate": np.array([0.5, 0.1])}, np.array([2.0, 1.0]), np.zeros(2))
      >>> tried.best, tried.best_score
      ({'learning_rate': 0.1}, 1.0)
    """

    hypers: dict[str, np.ndarray]
    scores: np.ndarray
    rounds: np.ndarray

    @property
    def best(self) -> dict[str, Any]:
        """The setting with the lowest score, as numbers."""
        return {name: values[self.scores.argmin()].item() for name, values in self.hypers.items()}

    @property
    def best_score(self) -> float:
        """Its score."""
        return float(self.scores.min())


def joined(parts: Sequence[tuple[Mapping[str, Any], np.ndarray]]) -> Tried:
    """One record of several rounds of (settings, scores).

    Example:
      >>> parts = [({"decay": [0.0, 1.0]}, np.array([2.0, 3.0])), ({"decay": [0.5]}, np.ones(1))]
      >>> joined(parts).rounds.tolist(), joined(parts).best
      ([0, 0, 1], {'decay': 0.5})
    """
    names = list(parts[0][0])
    hypers = {n: np.concatenate([np.asarray(settings[n]) for settings, _ in parts]) for n in names}
    scores = [scores for _, scores in parts]
    rounds = np.repeat(np.arange(len(parts)), [len(s) for s in scores])
    return Tried(hypers, np.concatenate(scores), rounds)
