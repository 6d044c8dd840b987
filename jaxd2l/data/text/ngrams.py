"""N-grams: their counts, and language models that predict a token from the few before it.

model = NGramModel.fit(codec.encode(corpus), order=4, vocabulary=codec.size)
model.perplexity(codec.encode(held_out))
codec.decode(model.generate(codec.encode("time "), 100, numpy.random.default_rng(0)))
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxd2l.data.text.smoothing import Smoothing, WithShorter
from jaxd2l.data.text.vocab import check_indices
from jaxd2l.geometry import as_int

MAX_ORDER = 4
_NONE = np.iinfo(np.int64).min  # equal to no code
Tokens = Sequence[int] | np.ndarray


class NGramCounts(NamedTuple):
    """The different n-grams of a text in lexicographic order (m, n), and their counts (m,)."""

    grams: np.ndarray
    counts: np.ndarray


class _Level(NamedTuple):
    """The different grams of one length k, sorted: a tree, whose parents are the shorter grams.

    `codes` (m,) are parent * vocabulary + last token, with the parent's index in the level before;
    `first` (m,) is where each came first, `counts` (m,) how often, and `followed` (m,) how often
    with another token after it.
    """

    codes: np.ndarray
    first: np.ndarray
    counts: np.ndarray
    followed: np.ndarray


def _count(tokens: np.ndarray, vocabulary: int, order: int) -> Iterator[_Level]:
    """Levels 0 (one empty gram) to `order`. A code is below len(tokens) * vocabulary, no power."""
    ids = np.zeros(len(tokens), np.int64)  # of the gram that starts at each token
    yield _Level(*(np.zeros(1, np.int64),) * 2, *(np.array([len(tokens)]),) * 2)
    for k in range(1, order + 1):
        starts = max(len(tokens) - k + 1, 0)
        codes, first, ids, counts = np.unique(
            ids[:starts] * vocabulary + tokens[k - 1 :],
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        followed = np.bincount(ids[: max(starts - 1, 0)], minlength=len(codes))
        yield _Level(codes, first, counts, followed)


def ngram_counts(tokens: Tokens, n: int) -> NGramCounts:
    """How often each sequence of n tokens comes in a text: at most len(tokens) - n + 1 of them.

    Shapes:
      tokens: (length,), integers >= 0; result: grams (m, n) and counts (m,), int64.

    Raises:
      TypeError: tokens that are not integers of shape (length,), or n no integer.
      ValueError: a negative token, or n below 1.

    Source: D2L 9.2.4 and 9.3 (its bigrams and trigrams).

    Example:
      >>> grams, counts = ngram_counts([1, 2, 1, 2, 3], 2)
      >>> grams.tolist(), counts.tolist()
      ([[1, 2], [2, 1], [2, 3]], [2, 1, 1])
    """
    n = as_int(n, "ngram_counts: n", 1)
    array = check_indices(tokens, 2**31, "ngram_counts").astype(np.int64)
    if len(array) < n:
        return NGramCounts(np.zeros((0, n), np.int64), np.zeros(0, np.int64))
    *_, level = _count(array, int(array.max()) + 1, n)
    return NGramCounts(
        np.lib.stride_tricks.sliding_window_view(array, n)[level.first], level.counts
    )


@dataclasses.dataclass(frozen=True, eq=False)
class NGramModel:
    """A language model that knows only the order - 1 tokens before the next: counts, smoothed.

    Of a token w after the context h = (the order - 1 tokens before it) it has n(h, w), how often h
    was followed by w, and n(h), how often by anything; `smoothing` makes P(w | h) of them. At the
    beginning of a text, contexts are as long as there are tokens, so that the product of all
    P(w | h) is the probability of the text. Made by `fit`.

    Source: D2L 9.3.1; Shannon 1948.

    Example:
      >>> from jaxd2l.data.text.smoothing import MaximumLikelihood
      >>> text = [0, 1, 0, 1, 0, 2]
      >>> model = NGramModel.fit(text, order=2, vocabulary=3, smoothing=MaximumLikelihood())
      >>> print(round(model.probability([0], 1), 4))  # 0 is followed three times
      0.6667
      >>> model.perplexity([1, 2])  # 2 never came after 1
      inf
    """

    order: int
    vocabulary: int
    smoothing: Smoothing
    _levels: tuple[_Level, ...] = dataclasses.field(repr=False)

    @classmethod
    def fit(
        cls,
        tokens: Tokens,
        order: int,
        *,
        vocabulary: int,
        smoothing: Smoothing = WithShorter(),  # noqa: B008  a record: it cannot change
    ) -> "NGramModel":
        """A model of `tokens`, whose grams up to length `order` are counted.

        Shapes:
          tokens: (length,), integers in [0, vocabulary), length >= 1.

        Raises:
          TypeError: tokens that are not integers, or smoothing that is none.
          ValueError: no tokens, a token out of range, an order that is not in 1..4.
        """
        size = as_int(vocabulary, "NGramModel.fit: vocabulary", 1)
        order = _check_order(order, "NGramModel.fit")
        if not isinstance(smoothing, Smoothing):
            raise TypeError(
                f"NGramModel.fit: smoothing must be a Smoothing such as AddK(1.0), got "
                f"{smoothing!r}"
            )
        array = check_indices(tokens, size, "NGramModel.fit").astype(np.int64)
        if len(array) == 0:
            raise ValueError("NGramModel.fit: there are no tokens to count; the text is empty")
        levels = tuple(_count(array, size, order))
        for level in levels:
            for part in level:
                part.setflags(write=False)
        return cls(order, size, smoothing, levels)

    def with_smoothing(self, smoothing: Smoothing) -> "NGramModel":
        """The same counts, smoothed otherwise."""
        return dataclasses.replace(self, smoothing=smoothing)

    def probability(self, context: Tokens, token: int) -> float:
        """P(token | context), of whose end only the order - 1 last tokens count.

        Raises:
          TypeError, ValueError: a token that is no integer or is out of range.
        """
        before = check_indices(context, self.vocabulary, "NGramModel.probability: context")
        after = check_indices([token], self.vocabulary, "NGramModel.probability: token")
        return float(self._probabilities(np.concatenate([before, after]))[-1])

    def distribution(self, context: Tokens) -> np.ndarray:
        """P(. | context) of all tokens: (vocabulary,), float64. Sums to 1, but under maximum
        likelihood to 0 after a context that nothing followed.

        Raises:
          TypeError, ValueError: a token that is no integer or is out of range.
        """
        before = check_indices(context, self.vocabulary, "NGramModel.distribution: context")
        before = before[max(len(before) - self.order + 1, 0) :]
        lower: list[np.ndarray] = [np.array(1 / self.vocabulary)]
        for start in range(len(before), -1, -1):
            gram, below = self._find(before[start:]), self._levels[len(before) - start + 1]
            counts = np.zeros(self.vocabulary, np.int64)
            if gram >= 0:
                ends = np.array([gram, gram + 1]) * self.vocabulary
                children = slice(*np.searchsorted(below.codes, ends))
                counts[below.codes[children] - ends[0]] = below.counts[children]
            lower.append(self.smoothing.estimate(counts, counts.sum(), lower))
        return lower[-1]

    def log_probabilities(self, tokens: Tokens) -> np.ndarray:
        """log P of every token after those before it; -inf where the probability is 0.

        Shapes:
          tokens: (..., length), integers in [0, vocabulary): each row is a text of its own;
          result: (..., length), float64, in nats.

        Raises:
          TypeError, ValueError: a token that is no integer or is out of range, or no array.
        """
        array = np.asarray(tokens)
        if array.ndim == 0:
            raise TypeError("NGramModel.log_probabilities: tokens must be (..., length), got ()")
        check_indices(array.reshape(-1), self.vocabulary, "NGramModel.log_probabilities")
        with np.errstate(divide="ignore"):
            return np.log(self._probabilities(array))

    def log_probability(self, tokens: Tokens) -> float:
        """log P(tokens), the sum over all tokens by the chain rule, in nats.

        Raises:
          TypeError, ValueError: a token that is no integer or is out of range.
        """
        array = check_indices(tokens, self.vocabulary, "NGramModel.log_probability")
        return float(self.log_probabilities(array).sum())

    def perplexity(self, tokens: Tokens) -> float:
        """exp(-log P(tokens) / length): 1 if all is foreseen, the vocabulary's size if nothing is.

        inf if one token has probability 0, as happens under maximum likelihood.

        Raises:
          TypeError: a token that is no integer.
          ValueError: a token out of range, or none at all.
        """
        array = check_indices(tokens, self.vocabulary, "NGramModel.perplexity")
        if len(array) == 0:
            raise ValueError("NGramModel.perplexity: there are no tokens")
        with np.errstate(over="ignore"):
            return float(np.exp(-self.log_probabilities(array).mean()))

    def generate(self, prompt: Tokens, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` tokens that go on after `prompt` (which may be empty), each drawn from P.

        Shapes:
          prompt: (length,), integers in [0, vocabulary); result: (count,), int64.

        Raises:
          TypeError: prompt or count are no integers, or rng is not a numpy Generator.
          ValueError: a token out of range; or, under maximum likelihood, a context after which
            nothing ever came, such as the end of the text.
        """
        if not isinstance(rng, np.random.Generator):
            raise TypeError(
                f"NGramModel.generate: rng must be a numpy.random.Generator, got "
                f"{type(rng).__name__}; take numpy.random.default_rng(seed)"
            )
        text = check_indices(prompt, self.vocabulary, "NGramModel.generate: prompt").tolist()
        for _ in range(as_int(count, "NGramModel.generate: count", 0)):
            context = text[max(len(text) - self.order + 1, 0) :]
            p = self.distribution(context)
            total = p.sum()
            if total == 0:
                raise ValueError(
                    f"NGramModel.generate: nothing ever came after {context}, and maximum "
                    f"likelihood leaves it at that; take another smoothing"
                )
            text.append(int(rng.choice(self.vocabulary, p=p / total)))
        return np.array(text[len(text) - count :], np.int64)

    def _find(self, gram: np.ndarray) -> int:
        """The index of `gram` in its level, -1 if it never came."""
        return int(self._ids(np.asarray(gram, np.int64), len(gram))[-1][..., 0])

    def _ids(self, tokens: np.ndarray, longest: int) -> list[np.ndarray]:
        """For k = 0..longest the index (..., length - k + 1) of the k-gram that starts at each
        token (k = 0: also after the last), -1 if it never came."""
        ids = [np.zeros((*tokens.shape[:-1], tokens.shape[-1] + 1), np.int64)]
        for k in range(1, longest + 1):
            parents, codes = ids[-1][..., :-1], self._levels[k].codes
            wanted = parents * self.vocabulary + tokens[..., k - 1 :]
            at = np.searchsorted(codes, wanted)
            found = np.append(codes, _NONE)[at] == wanted
            ids.append(np.where(found, at, -1))
        return ids

    def _probabilities(self, tokens: np.ndarray) -> np.ndarray:
        """P of each token (..., length) after those before it."""
        length = tokens.shape[-1]
        used = min(self.order, length)
        ids = self._ids(tokens.astype(np.int64), used)
        found: list[np.ndarray] = []  # for each length of context, P of the tokens that have one
        for k in range(used):  # k = 0 has (..., length), k = 1 has (..., length - 1), ...
            counts = _taken(self._levels[k + 1].counts, ids[k + 1])
            totals = _taken(self._levels[k].followed, ids[k][..., : length - k])
            lower = [np.array(1 / self.vocabulary)]
            lower += [found[i][..., k - i :] for i in range(k)]
            found.append(self.smoothing.estimate(counts, totals, lower))
        if not found:
            return np.zeros(tokens.shape)
        starts = [p[..., :1] for p in found[:-1]]
        return np.concatenate([*starts, found[-1]], axis=-1)


def table_sizes(vocabulary: int, order: int = MAX_ORDER) -> tuple[int, ...]:
    """Cells of full tables of 1-grams to `order`-grams: V, V^2, V^3, ..., exact integers.

    Raises:
      TypeError, ValueError: a vocabulary or an order that is no integer, or below 1.

    Source: F40, CA12 of the notes: V = 100,000 words and order 4.

    Example:
      >>> f"{sum(table_sizes(100_000)):,}"
      '100,001,000,010,000,100,000'
    """
    size = as_int(vocabulary, "table_sizes: vocabulary", 1)
    return tuple(size**k for k in range(1, as_int(order, "table_sizes: order", 1) + 1))


def most_ngrams(length: int, order: int = MAX_ORDER) -> int:
    """How many different 1-grams to `order`-grams a text of `length` tokens can hold at most.

    The sum of N - k + 1 over k: 4N - 6 for order 4. So counts that are stored sparsely grow
    with the text, not with the power of the vocabulary.

    Raises:
      TypeError, ValueError: a length that is no integer or below 0, an order below 1.

    Example:
      >>> f"{most_ngrams(100_000):,}"
      '399,994'
    """
    n = as_int(length, "most_ngrams: length", 0)
    return sum(max(n - k, 0) for k in range(as_int(order, "most_ngrams: order", 1)))


def _check_order(order: Any, where: str) -> int:
    order = as_int(order, f"{where}: order", 1)
    if order > MAX_ORDER:
        raise ValueError(f"{where}: order must be in 1..{MAX_ORDER}, got {order}")
    return order


def _taken(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """values[ids], and 0 where the index is -1."""
    return np.append(values, 0)[ids]
