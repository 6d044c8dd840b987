"""Byte pairs: tokens learnt by merging, again and again, the neighbours that come most often."""

import collections
import functools
import heapq
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from jaxd2l.data.text.corpus import check_text
from jaxd2l.data.text.stored import Stored
from jaxd2l.data.text.vocab import UNKNOWN, check_indices, check_reserved
from jaxd2l.geometry import as_int
from jaxd2l.records import record

LONGEST = 256  # bytes in a token: a text of one letter would double its tokens with every merge
# Letters, digits or other marks with the space before them, and white space: no merge joins two.
_PIECE = re.compile(r" ?[^\W\d_]+| ?\d+| ?(?:[^\w\s]|_)+|\s+(?!\S)|\s+")

Pair = tuple[int, int]


class _Chain:
    """Symbols in a row of pieces that can be joined in place, in constant time."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.symbols: list[int] = []  # -1 where a symbol was joined to the one before it
        self.after: list[int] = []  # position of the next symbol of the piece, or -1
        self.before: list[int] = []
        for piece in pieces:
            first, last = len(self.symbols), len(self.symbols) + len(piece) - 1
            self.symbols += piece
            self.after += [*range(first + 1, last + 1), -1]
            self.before += [-1, *range(first, last)]

    def pair(self, place: int) -> Pair | None:
        """The symbol at `place` and the one after it, if both are there."""
        after = self.after[place]
        return None if after < 0 else (self.symbols[place], self.symbols[after])

    def join(self, place: int, symbol: int) -> None:
        """Put `symbol` in the place of the two symbols at and after `place`."""
        gone = self.after[place]
        self.symbols[place], self.symbols[gone] = symbol, -1
        self.after[place], self.after[gone] = self.after[gone], -1
        if self.after[place] >= 0:
            self.before[self.after[place]] = place


def _learn(pieces: Mapping[bytes, int], merges: int) -> Iterator[Pair]:
    """The pairs to merge, in order. Counts are kept up to date, so the time grows with the length
    of the different pieces and not with that times the merges."""
    chain = _Chain(list(pieces))
    weights = np.repeat(list(pieces.values()), [len(piece) for piece in pieces]).tolist()
    lengths = [1] * 256
    counts: dict[Pair, int] = {}
    places: dict[Pair, list[int]] = {}  # where a pair was seen; it may be gone from there
    changed: set[Pair] = set()

    def add(place: int) -> None:
        pair = chain.pair(place)
        if pair is not None and lengths[pair[0]] + lengths[pair[1]] <= LONGEST:
            counts[pair] = counts.get(pair, 0) + weights[place]
            places.setdefault(pair, []).append(place)
            changed.add(pair)

    def drop(place: int) -> None:
        pair = chain.pair(place)
        if pair is not None and pair in counts:
            counts[pair] -= weights[place]
            changed.add(pair)

    for place in range(len(chain.symbols)):
        add(place)
    heap = [(-counts[pair], pair) for pair in changed]
    heapq.heapify(heap)
    while heap and len(lengths) < 256 + merges:
        negative, best = heapq.heappop(heap)
        if counts.get(best) != -negative:
            continue  # out of date: the pair is in the heap again with its count of today
        if negative > -2:
            return
        yield best
        symbol = len(lengths)
        lengths.append(lengths[best[0]] + lengths[best[1]])
        changed.clear()
        for place in places.pop(best):
            if chain.pair(place) != best:
                continue
            before, after = chain.before[place], chain.after[place]
            drop(after)
            if before >= 0:
                drop(before)
            chain.join(place, symbol)
            add(place)
            if before >= 0:
                add(before)
        del counts[best]
        for pair in changed - {best}:
            heapq.heappush(heap, (-counts[pair], pair))


def _merged(piece: bytes, ranks: Mapping[Pair, int]) -> list[int]:
    """The symbols of a piece after all merges, the first learnt first, each from left to right."""
    chain = _Chain([piece])
    heap: list[tuple[int, int]] = []

    def offer(place: int) -> None:
        rank = ranks.get(chain.pair(place) or (-1, -1))
        if rank is not None:
            heapq.heappush(heap, (rank, place))

    for place in range(len(piece)):
        offer(place)
    while heap:
        rank, place = heapq.heappop(heap)
        if ranks.get(chain.pair(place) or (-1, -1)) != rank:
            continue  # one of the two was joined to another symbol
        chain.join(place, 256 + rank)
        offer(place)
        if chain.before[place] >= 0:
            offer(chain.before[place])
    return [symbol for symbol in chain.symbols if symbol >= 0]


@record
class BytePairs(Stored):
    """A vocabulary of bytes and of what `merges` join, in their order; any text can be written.

    Indices: 0 is `<unk>` (as in every vocabulary; no text needs it), then the reserved tokens, the
    256 bytes, and the merges. In `merges` a number below 256 is a byte and 256 + k the result of
    merge k. Merges stay within words, with the space before them. `decode(encode(text)) == text`;
    other indices may give bytes that are not UTF-8, which are shown as U+FFFD.

    Raises:
      TypeError, ValueError: merges that are not pairs of earlier numbers, that repeat, or that make
        a token of more than 256 bytes; reserved tokens that repeat.

    Source: Sennrich et al. 2016, on bytes as in GPT-2; D2L 15.6.2 (on characters, without a way to
    write those it has not seen).

    Example:
      >>> pairs = BytePairs.train("low lower lowest", merges=3)
      >>> pairs.pieces[-3:]
      (b'lo', b'low', b' low')
      >>> pairs.encode("slow")
      array([116, 258], dtype=int32)
      >>> pairs.decode([116, 258])
      'slow'
    """

    merges: tuple[Pair, ...]
    reserved: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        merges = tuple(tuple(pair) for pair in self.merges)
        lengths = [1] * 256
        for k, pair in enumerate(merges):
            known = [type(i) is int and 0 <= i < 256 + k for i in pair]
            if known != [True, True]:
                raise ValueError(f"BytePairs: merge {k} must be two of [0, {256 + k}), got {pair}")
            lengths.append(lengths[pair[0]] + lengths[pair[1]])
            if lengths[-1] > LONGEST:
                raise ValueError(f"BytePairs: merge {k} makes a token of over {LONGEST} bytes")
        if len(set(merges)) != len(merges):
            raise ValueError("BytePairs: the same pair is merged twice")
        object.__setattr__(self, "merges", merges)
        object.__setattr__(self, "reserved", check_reserved(self.reserved, "BytePairs"))

    @classmethod
    def train(cls, text: str, merges: int, reserved: Sequence[str] = ()) -> "BytePairs":
        """At most `merges` merges learnt from a text; fewer where no pair comes twice any more.

        The pair that comes most often is merged; of several, the one with the lowest numbers.

        Raises:
          TypeError: not a str.
          ValueError: a negative number of merges, a lone surrogate, no text.
        """
        number = as_int(merges, "BytePairs.train: merges", 0)
        if not check_text(text, "BytePairs.train: text"):
            raise ValueError("BytePairs.train: the text is empty")
        found = collections.Counter(match[0] for match in _PIECE.finditer(text))
        pieces = {piece.encode("utf-8"): count for piece, count in found.items()}
        return cls(tuple(_learn(pieces, number)), tuple(reserved))

    def __len__(self) -> int:
        return len(self.pieces)

    def __repr__(self) -> str:
        return f"BytePairs({len(self)} tokens)"

    @functools.cached_property
    def pieces(self) -> tuple[bytes, ...]:
        """The bytes of every index."""
        made = [bytes([i]) for i in range(256)]
        for left, right in self.merges:
            made.append(made[left] + made[right])
        return tuple(name.encode("utf-8") for name in (UNKNOWN, *self.reserved)) + tuple(made)

    @functools.cached_property
    def _ranks(self) -> dict[Pair, int]:
        return {pair: k for k, pair in enumerate(self.merges)}

    def index(self, token: str) -> int:
        """The index of `<unk>` or of a reserved token.

        Raises:
          ValueError: it is neither.
        """
        names = (UNKNOWN, *self.reserved)
        if token not in names:
            raise ValueError(f"BytePairs: {token!r} is none of its special tokens {names}")
        return names.index(token)

    def encode(self, text: str) -> np.ndarray:
        """The indices of a text, (n,) int32.

        Raises:
          TypeError: not a str.
          ValueError: a lone surrogate.
        """
        check_text(text, "BytePairs.encode: text")
        special = 1 + len(self.reserved)
        known: dict[str, list[int]] = {}
        indices: list[int] = []
        for match in _PIECE.finditer(text):
            piece = match[0]
            if piece not in known:
                known[piece] = _merged(piece.encode("utf-8"), self._ranks)
            indices += known[piece]
        return np.array(indices, np.int32) + np.int32(special)

    def decode(self, indices: Sequence[int] | np.ndarray) -> str:
        """The text of `indices`.

        Raises:
          TypeError: not integers of shape (n,).
          ValueError: an index outside [0, len(self)).
        """
        array = check_indices(indices, len(self), "BytePairs.decode")
        return b"".join(self.pieces[i] for i in array.tolist()).decode("utf-8", "replace")
