"""How counts of n-grams become probabilities: the smoothing of `NGramModel`."""

import dataclasses
import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxd2l.records import record


def _positive(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{what} must be a number, got {type(value).__name__}")
    if not 0 < float(value) < math.inf:
        raise ValueError(f"{what} must be above 0 and finite, got {value}")
    return float(value)


class Smoothing:
    """Base of the records that say how counts become probabilities."""

    def estimate(
        self, counts: np.ndarray, totals: np.ndarray, lower: Sequence[np.ndarray]
    ) -> np.ndarray:
        """P(w | h) from n(h, w), n(h), and P(w | .) under all shorter contexts.

        Shapes:
          counts: (...), how often h was followed by w; totals: (...) or (), how often by anything;
          lower: one array for each shorter context, each (...) but the first, (): the uniform
          1/vocabulary, then P(w), P(w | the last token of h) and so on, smoothed.
        """
        raise NotImplementedError(f"{type(self).__name__} must define estimate(...)")


@record
class MaximumLikelihood(Smoothing):
    """No smoothing: n(h, w) / n(h).

    What never came has probability 0, so one such token makes a perplexity infinite; so has
    everything after a context that never came, or nothing ever followed.
    """

    def estimate(
        self, counts: np.ndarray, totals: np.ndarray, lower: Sequence[np.ndarray]
    ) -> np.ndarray:
        return counts / np.maximum(totals, 1)


@record
class AddK(Smoothing):
    """(n(h, w) + k) / (n(h) + k V), V the size of the vocabulary; k = 1 is Laplace's.

    A context that never came is followed by every token alike, 1/V.

    Raises:
      TypeError, ValueError: k is not a finite number above 0.
    """

    k: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", _positive(self.k, "AddK: k"))

    def estimate(
        self, counts: np.ndarray, totals: np.ndarray, lower: Sequence[np.ndarray]
    ) -> np.ndarray:
        return (counts + self.k) / (totals + self.k / lower[0])


@dataclasses.dataclass(frozen=True)
class _Mixed(Smoothing):
    """(n(h, w) + e P(w | shorter)) / (n(h) + e), which mixes n(h, w) / n(h) with P(w | shorter)
    in the ratio n(h) : e. `strengths` are e for contexts of 0, 1, 2 and 3 tokens."""

    strengths: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        what = f"{type(self).__name__}: strengths"
        if not isinstance(self.strengths, tuple | list) or len(self.strengths) != 4:
            raise ValueError(
                f"{what} must be four numbers, for contexts of 0 to 3 tokens, got "
                f"{self.strengths!r}"
            )
        object.__setattr__(self, "strengths", tuple(_positive(e, what) for e in self.strengths))

    def shorter(self, lower: Sequence[np.ndarray]) -> np.ndarray:
        """The one of `lower` that is mixed in."""
        raise NotImplementedError(f"{type(self).__name__} must define shorter(lower)")

    def estimate(
        self, counts: np.ndarray, totals: np.ndarray, lower: Sequence[np.ndarray]
    ) -> np.ndarray:
        e = self.strengths[len(lower) - 1]
        return (counts + e * self.shorter(lower)) / (totals + e)


@record
class WithUnigram(_Mixed):
    """The book's Laplace smoothing: (n(h, w) + e P(w)) / (n(h) + e), P(w) = (n(w) + e0/V)/(N + e0).

    Every context, however long, is mixed with the frequencies of single tokens. `strengths` are
    the book's epsilons, for contexts of 0, 1, 2 and 3 tokens.

    Raises:
      TypeError, ValueError: strengths are not four finite numbers above 0.

    Source: D2L 9.3.1.
    """

    def shorter(self, lower: Sequence[np.ndarray]) -> np.ndarray:
        return lower[min(1, len(lower) - 1)]


@record
class WithShorter(_Mixed):
    """Interpolation: (n(h, w) + e P(w | h')) / (n(h) + e), h' = h without its first token.

    So a context that is rare is mixed with one that is less so, down to single tokens and 1/V.
    Up to order 2 it is the book's form.

    Raises:
      TypeError, ValueError: strengths are not four finite numbers above 0.

    Source: Jelinek and Mercer 1980; this form is MacKay and Peto's, 1995.
    """

    def shorter(self, lower: Sequence[np.ndarray]) -> np.ndarray:
        return lower[-1]
