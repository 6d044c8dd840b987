"""A codec: all that is needed to turn a text into indices and back, stored with a checkpoint."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from jaxd2l.data.text import corpus
from jaxd2l.data.text.pairs import BytePairs
from jaxd2l.data.text.stored import Stored
from jaxd2l.data.text.tokens import characters, words
from jaxd2l.data.text.vocab import PADDING, Vocab
from jaxd2l.records import record

Level = Literal["character", "word", "bpe"]
MERGES = 500


def _check_level(level: str, where: str) -> None:
    if level not in get_args(Level):
        raise ValueError(f"{where}: level must be one of {get_args(Level)}, got {level!r}")


@record
class Codec(Stored):
    """How a text is cut (`level`), and the vocabulary of what comes of it.

    With `normalize` the text goes through `corpus.normalize` first, when training and whenever it
    is encoded, so that a prompt is treated as the corpus was. Index 0 is `<unk>` at every level.
    `decode(encode(text))` is the text at level "bpe", the text with `<unk>` for unknown characters
    at level "character", and the words with single spaces between them at level "word" (all of it
    after `normalize`).

    Raises:
      TypeError, ValueError: an unknown level, or a vocabulary that is not of that level (`Vocab`
        for characters and words, `BytePairs` for "bpe").

    Example:
      >>> codec = Codec.train("The Time Machine", "character", normalize=True)
      >>> codec
      Codec('character', Vocab(10 tokens), normalize=True)
      >>> codec.encode("I am!")
      array([4, 2, 7, 5, 2], dtype=int32)
      >>> codec.decode([4, 2, 7, 5, 2])
      'i am '
      >>> Codec.from_json(codec.to_json()) == codec
      True
    """

    level: Level
    vocab: Vocab | BytePairs
    normalize: bool = False

    def __post_init__(self) -> None:
        _check_level(self.level, "Codec")
        wanted = BytePairs if self.level == "bpe" else Vocab
        if not isinstance(self.vocab, wanted):
            raise TypeError(
                f"Codec: level {self.level!r} needs a vocabulary of type {wanted.__name__}, got "
                f"{type(self.vocab).__name__}"
            )
        if not isinstance(self.normalize, bool):
            raise TypeError(f"Codec: normalize must be a bool, got {self.normalize!r}")

    @classmethod
    def train(
        cls,
        text: str,
        level: Level = "character",
        *,
        normalize: bool = False,
        min_count: int = 1,
        merges: int | None = None,
        reserved: Sequence[str] = (),
    ) -> "Codec":
        """The codec of a text.

        Characters and words that come less than `min_count` times are unknown. Level "bpe", which
        knows every text, has the number of `merges` (500) instead. `reserved` get the indices from
        1 on: ("<pad>",) for padded batches.

        Raises:
          TypeError, ValueError: as `Vocab.build` and `BytePairs.train`; an unknown level, or an
            argument of another level.
        """
        _check_level(level, "Codec.train")
        if (min_count != 1) if level == "bpe" else (merges is not None):
            raise ValueError(
                f"Codec.train: level {level!r} has no "
                f"{'min_count' if level == 'bpe' else 'merges'}; leave it out"
            )
        if normalize:
            text = corpus.normalize(text)
        if level == "bpe":
            return cls(
                level,
                BytePairs.train(text, MERGES if merges is None else merges, reserved),
                normalize,
            )
        tokens = (characters if level == "character" else words)(text)
        return cls(level, Vocab.build(tokens, min_count, reserved), normalize)

    def __repr__(self) -> str:
        return f"Codec({self.level!r}, {self.vocab!r}, normalize={self.normalize})"

    @property
    def size(self) -> int:
        """The number of indices: what a model calls its vocabulary size."""
        return len(self.vocab)

    @property
    def padding(self) -> int:
        """The index of `<pad>`.

        Raises:
          ValueError: the codec was trained without it.
        """
        try:
            return self.vocab.index(PADDING)
        except ValueError:
            raise ValueError(
                f"{self} has no {PADDING!r}; train it with reserved=({PADDING!r},)"
            ) from None

    def encode(self, text: str) -> np.ndarray:
        """The indices of a text, (n,) int32.

        Raises:
          TypeError: not a str.
          ValueError: a lone surrogate.
        """
        if self.normalize:
            text = corpus.normalize(text)
        if isinstance(self.vocab, BytePairs):
            return self.vocab.encode(text)
        return self.vocab.encode((characters if self.level == "character" else words)(text))

    def decode(self, indices: Sequence[int] | np.ndarray) -> str:
        """The text of `indices`.

        Raises:
          TypeError: not integers of shape (n,).
          ValueError: an index outside [0, size).
        """
        decoded = self.vocab.decode(indices)
        if isinstance(decoded, str):
            return decoded
        return ("" if self.level == "character" else " ").join(decoded)
