"""Labelled lines of text, `label<TAB>text`, and the padded arrays made of them."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxd2l.data.dataset import Dataset
from jaxd2l.data.text.codec import Codec
from jaxd2l.data.text.corpus import read_text
from jaxd2l.geometry import as_int


class Example(NamedTuple):
    """One labelled text."""

    label: str
    text: str


def read_labelled(path: str | os.PathLike[str], max_bytes: int = 256 << 20) -> list[Example]:
    """The examples of a UTF-8 file of lines `label<TAB>text`, in order; blank lines are left out.

    The first tab ends the label; space around the label and the text is dropped.

    Raises:
      ValueError: a line without a tab, without a label or without a text, fewer than two different
        labels in the file, or what `read_text` refuses. The message names the file and the line.
      OSError: the file cannot be opened.

    Example:
      >>> import pathlib
      >>> import tempfile
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "a.tsv"
      >>> _ = file.write_text("good\\tA fine film.\\nbad\\tNo.\\n")
      >>> read_labelled(file)
      [Example(label='good', text='A fine film.'), Example(label='bad', text='No.')]
    """
    examples = []
    for number, line in enumerate(read_text(path, max_bytes).split("\n"), 1):
        if not line.strip():
            continue
        label, tab, text = line.partition("\t")
        example = Example(label.strip(), text.strip())
        where = f"{path}, line {number}"
        if not tab:
            raise ValueError(
                f"{where}: no tab; every line must be label<TAB>text, got {line[:40]!r}"
            )
        if not all(example):
            missing = "text after" if example.label else "label before"
            raise ValueError(f"{where}: no {missing} the tab; every line must be label<TAB>text")
        examples.append(example)
    labels = {example.label for example in examples}
    if len(labels) < 2:
        found = f"only the label {labels.pop()!r}" if labels else "no examples"
        raise ValueError(f"{path}: {found}; there must be at least two different labels")
    return examples


def labelled_dataset(
    examples: Sequence[Example],
    codec: Codec,
    length: int,
    classes: Sequence[str] | None = None,
) -> Dataset:
    """The texts as rows of `length` indices, cut off there or filled up with `codec.padding`.

    `classes` are the sorted labels; give those of the training part back for test data.

    Shapes:
      result: inputs (n, length) int32, targets (n,) int32.

    Raises:
      ValueError: no examples, `length` below 1, a codec without `<pad>`, a label that is none of
        `classes`, a text without tokens.

    Example:
      >>> examples = [Example("good", "a fine film"), Example("bad", "no")]
      >>> texts = "\\n".join(example.text for example in examples)
      >>> codec = Codec.train(texts, "word", reserved=("<pad>",))
      >>> data = labelled_dataset(examples, codec, length=2)
      >>> data.inputs.tolist(), data.targets.tolist(), data.classes
      ([[2, 4], [5, 1]], [1, 0], ('bad', 'good'))
    """
    columns = as_int(length, "labelled_dataset: length", 1)
    if not examples:
        raise ValueError("labelled_dataset: there are no examples")
    names = tuple(sorted({e.label for e in examples}) if classes is None else classes)
    index = {name: i for i, name in enumerate(names)}
    inputs = np.full((len(examples), columns), codec.padding, np.int32)
    targets = np.zeros(len(examples), np.int32)
    for i, (label, text) in enumerate(examples):
        if label not in index:
            raise ValueError(
                f"labelled_dataset: example {i} has the label {label!r}, which is none of {names}"
            )
        row = codec.encode(text)[:columns]
        if len(row) == 0:
            raise ValueError(
                f"labelled_dataset: example {i}, {text[:40]!r}, has no tokens under {codec}; leave "
                f"it out or use another codec"
            )
        inputs[i, : len(row)] = row
        targets[i] = index[label]
    return Dataset(inputs, targets, names)
