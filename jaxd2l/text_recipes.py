"""Text for `jaxd2l train`: a corpus cut into windows, or labelled lines, and its codec."""

import os
from typing import NamedTuple

from jaxd2l import data
from jaxd2l.data import text

#: How a text may be cut, by name: the level of the codec, and whether it normalises. "letters" are
#: the book's characters: lower case a-z and single spaces.
LEVELS: dict[str, tuple[text.codec.Level, bool]] = {
    "letters": ("character", True),
    "character": ("character", False),
    "word": ("word", True),
    "bpe": ("bpe", False),
}


class TextParts(NamedTuple):
    """Training and test data of a text, and the codec that made them."""

    train: data.Dataset
    test: data.Dataset
    codec: text.Codec


def _trained(corpus: str, level: str, reserved: tuple[str, ...] = ()) -> text.Codec:
    if level not in LEVELS:
        raise ValueError(f"a text can be cut into {', '.join(LEVELS)}; got {level!r}")
    kind, normalize = LEVELS[level]
    return text.Codec.train(corpus, kind, normalize=normalize, reserved=reserved)


def load_language(
    path: str | os.PathLike[str] | None,
    level: str,
    length: int,
    hold_out: int | None = None,
    codec: text.Codec | None = None,
) -> TextParts:
    """A corpus for a language model: windows of `length` tokens one after another.

    The text's last tenth, or its last `hold_out` windows, are to test on. The codec is made of the
    part to train on, unless one is given. Without a path: the English that ships with Python.

    Raises:
      ValueError: a text too short, an unknown level, or what `text.read_text` refuses.

    Example:
      >>> parts = load_language(None, "letters", 64)
      >>> parts.codec.size, parts.train.inputs.shape[1:]
      (28, (64,))
    """
    corpus = text.english() if path is None else text.read_text(path)
    cut = len(corpus) - len(corpus) // 10
    if codec is None:
        codec = _trained(corpus[:cut], level)
    if hold_out is None:
        first, last = codec.encode(corpus[:cut]), codec.encode(corpus[cut:])
    else:
        tokens = codec.encode(corpus)
        at = len(tokens) - hold_out * length - 1
        if at <= length:
            raise ValueError(
                f"the text has {len(tokens):,} tokens, too few to hold out {hold_out} windows of "
                f"{length}"
            )
        first, last = tokens[:at], tokens[at:]
    return TextParts(text.partition(first, length), text.partition(last, length), codec)


def load_labelled(
    path: str | os.PathLike[str] | None,
    level: str,
    length: int,
    hold_out: int | None = None,
    codec: text.Codec | None = None,
    classes: tuple[str, ...] | None = None,
) -> TextParts:
    """Labelled lines, `label<TAB>text`: a fifth of them, or `hold_out`, chosen at random (always
    the same ones), are to test on.

    Raises:
      ValueError: no path, too few lines, or what `text.read_labelled` refuses.

    Example:
      >>> import pathlib, tempfile
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "reviews.tsv"
      >>> _ = file.write_text("good\\ta fine film\\nbad\\ta dull film\\n" * 5)
      >>> parts = load_labelled(file, "word", length=8)
      >>> len(parts.train), len(parts.test), parts.train.classes
      (8, 2, ('bad', 'good'))
    """
    if path is None:
        raise ValueError("a text classifier needs --data FILE, lines of label<TAB>text")
    examples = text.read_labelled(path)
    names = tuple(sorted({e.label for e in examples})) if classes is None else classes
    held = len(examples) // 5 if hold_out is None else hold_out
    if not 0 < held < len(examples):
        raise ValueError(
            f"{path}: cannot hold out {held} of {len(examples)} lines; each part needs some"
        )
    order = data.epoch_order(len(examples), seed=0, epoch=0)
    parts = [[examples[i] for i in sorted(part)] for part in (order[held:], order[:held])]
    if codec is None:
        codec = _trained("\n".join(e.text for e in parts[0]), level, ("<pad>",))
    made = [text.labelled_dataset(part, codec, length, names) for part in parts]
    return TextParts(made[0], made[1], codec)
