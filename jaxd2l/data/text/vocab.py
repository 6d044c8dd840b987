"""A vocabulary: the tokens that have an index, with their counts."""

import collections
import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jaxd2l.data.dataset import first_outside
from jaxd2l.data.text.stored import Stored
from jaxd2l.geometry import as_int
from jaxd2l.records import record

UNKNOWN = "<unk>"
PADDING = "<pad>"


def check_reserved(reserved: Sequence[str], where: str) -> tuple[str, ...]:
    """Reserved tokens as a tuple of different names, none of them "<unk>"."""
    names = tuple(reserved)
    if isinstance(reserved, str) or not all(isinstance(name, str) and name for name in names):
        raise TypeError(f"{where}: reserved must be a tuple of names, got {reserved!r}")
    if len({UNKNOWN, *names}) != 1 + len(names):
        raise ValueError(f"{where}: reserved must differ, and from {UNKNOWN!r}, got {names}")
    return names


def check_indices(indices: Any, size: int, where: str) -> np.ndarray:
    """`indices` as an array (n,), refused unless all are integers in [0, size)."""
    array = np.asarray(indices)
    if array.size == 0 and array.ndim == 1:
        return np.zeros(0, np.int32)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise TypeError(
            f"{where}: indices must be integers of shape (n,), got {array.dtype} of shape "
            f"{array.shape}"
        )
    bad = first_outside(array, size)
    if bad is not None:
        raise ValueError(f"{where}: index {array[bad]} at position {bad} is outside [0, {size})")
    return array


@record
class Vocab(Stored):
    """Tokens and their indices: `<unk>` is 0, then reserved tokens, then all others by count.

    A value: equal vocabularies are equal and hash alike. `counts` say how often each token came in
    the text that the vocabulary was built from; that of `<unk>` is how many were too rare.

    Raises:
      TypeError, ValueError: tokens that are not different strings beginning with `<unk>`, or
        counts that do not belong to them.

    Source: D2L 9.2.3 (there tokens are sorted by name, and by count in older editions).

    Example:
      >>> vocab = Vocab.build("abracadabra", min_count=2)
      >>> vocab.tokens, vocab.counts
      (('<unk>', 'a', 'b', 'r'), (2, 5, 2, 2))
      >>> vocab.encode("bad")
      array([2, 1, 0], dtype=int32)
      >>> vocab.decode([2, 1, 0])
      ['b', 'a', '<unk>']
    """

    tokens: tuple[str, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        tokens, counts = tuple(self.tokens), tuple(self.counts)
        if not all(isinstance(token, str) and token for token in tokens):
            raise TypeError("Vocab: tokens must be strings that are not empty")
        if not tokens or tokens[0] != UNKNOWN:
            raise ValueError(f"Vocab: the first token must be {UNKNOWN!r}, got {tokens[:1]}")
        if len(set(tokens)) != len(tokens):
            twice = collections.Counter(tokens).most_common(1)[0][0]
            raise ValueError(f"Vocab: tokens must differ, {twice!r} comes twice")
        if len(counts) != len(tokens):
            raise ValueError(f"Vocab: {len(counts)} counts for {len(tokens)} tokens")
        object.__setattr__(self, "tokens", tokens)
        object.__setattr__(self, "counts", tuple(as_int(c, "Vocab: counts", 0) for c in counts))

    @classmethod
    def build(
        cls, tokens: Iterable[str], min_count: int = 1, reserved: Sequence[str] = ()
    ) -> "Vocab":
        """The vocabulary of `tokens` (a str counts as its characters).

        Tokens that come less than `min_count` times are unknown. `reserved` are kept in any case,
        from index 1 on: with ("<pad>",) the index of padding is 1. Equal counts are in the order of
        the tokens.

        Raises:
          ValueError: no tokens, `min_count` below 1, reserved tokens that repeat.
        """
        names = check_reserved(reserved, "Vocab.build")
        least = as_int(min_count, "Vocab.build: min_count", 1)
        found = collections.Counter(tokens)
        if not found:
            raise ValueError("Vocab.build: there are no tokens; give a text with something in it")
        unknown = found.pop(UNKNOWN, 0)
        kept = [(name, found.pop(name, 0)) for name in names]
        ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
        kept += [(token, count) for token, count in ordered if count >= least]
        unknown += sum(count for _, count in ordered if count < least)
        return cls(
            (UNKNOWN, *(token for token, _ in kept)), (unknown, *(count for _, count in kept))
        )

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        return f"Vocab({len(self)} tokens)"

    @functools.cached_property
    def _indices(self) -> dict[str, int]:
        return {token: i for i, token in enumerate(self.tokens)}

    def __contains__(self, token: object) -> bool:
        return token in self._indices

    def index(self, token: str) -> int:
        """The index of one token that must be known.

        Raises:
          ValueError: it is not.
        """
        if token not in self._indices:
            raise ValueError(f"Vocab: {token!r} is none of its {len(self)} tokens")
        return self._indices[token]

    def encode(self, tokens: Iterable[str]) -> np.ndarray:
        """The indices of `tokens`, (n,) int32; 0 for those that are unknown."""
        return np.fromiter(map(self._indices.get, tokens, itertools.repeat(0)), np.int32)

    def decode(self, indices: Sequence[int] | np.ndarray) -> list[str]:
        """The tokens at `indices`.

        Raises:
          TypeError: not integers of shape (n,).
          ValueError: an index outside [0, len(self)).
        """
        array = check_indices(indices, len(self), "Vocab.decode")
        return [self.tokens[i] for i in array.tolist()]
