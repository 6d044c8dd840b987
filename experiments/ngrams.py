"""Perplexity of n-gram models, the baseline of the language models that are trained (C154-C157).

    python experiments/ngrams.py --text timemachine.txt     the book's Time Machine
    python experiments/ngrams.py                            the English text that ships with Python

The data and the measure are those of the book's table for recurrent networks (D2L 9.5 to 10.3). The
text becomes lower-case letters and single spaces. Training text are its tokens [0, 10,032), the
10,000 windows of 32 tokens that start at each; validation text are the tokens [10,000, 15,032), the
next 5,000 windows. In every window tokens 2 to 33 are predicted from the last 0 to 3 tokens before
them in that window. Perplexity is the mean over batches of 1024 windows, in order, of exp(the mean
of -log P). So the first 32 tokens of the validation text were trained on, as in the book.

Tokens are characters (27, and <unk>), and once more words (again 10,032 and 5,032 of them), those
that come twice or more in the training text; all others are <unk>, which counts as a word.

The strengths of smoothing, one for all lengths of context, are the best of GRID for the last tenth
of the training text given the other nine; validation text is not looked at.

Found on The Time Machine, perplexity of characters, train / validation:

    smoothing                  1-gram         2-gram        3-gram        4-gram
    none                       17.07 / 16.68  9.43 / inf    5.04 / inf    2.84 / inf
    add 1                      17.07 / 16.68  9.74 / 9.70   7.12 / 8.01   7.57 / 9.52
    the book's, best strength  17.07 / 16.68  9.45 / 9.59   5.82 / 6.86   3.68 / 6.03
    interpolated, likewise     17.07 / 16.68  9.45 / 9.59   5.56 / 6.69   3.87 / 5.69

So counting passes every network of the book's table, whose best validation perplexity is 6.11. Of
words (a quarter of the validation text is <unk>) interpolation reaches 66.6, single words 92.6. On
Python 3.11's help topics it is 7.3 for characters and 122 for words. Takes 2 s.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxd2l.data import Dataset, text

STEPS, BATCH = 32, 1024
ORDERS = (1, 2, 3, 4)
GRID = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


class Tokens(NamedTuple):
    """Indices of a text, and how many different ones there can be."""

    name: str
    indices: np.ndarray
    vocabulary: int


def with_shorter(strength: float) -> text.Smoothing:
    return text.WithShorter((strength,) * 4)


def with_unigram(strength: float) -> text.Smoothing:
    return text.WithUnigram((strength,) * 4)


FAMILIES: dict[str, Callable[[float], text.Smoothing]] = {
    "add k": text.AddK,
    "with single tokens (the book's)": with_unigram,
    "with shorter contexts": with_shorter,
}


def characters(corpus: str) -> Tokens:
    codec = text.Codec.train(corpus, "character", normalize=True)
    return Tokens("characters", codec.encode(corpus), codec.size)


def words(corpus: str, length: int) -> Tokens:
    """Words; those that come once or never in the first `length` of them are unknown."""
    every = text.words(text.normalize(corpus))
    vocab = text.Vocab.build(every[:length], min_count=2)
    return Tokens("words", vocab.encode(every), len(vocab))


def perplexity(model: text.NGramModel, windows: Dataset) -> float:
    """The mean over batches of exp(mean loss), each window a text of its own."""
    rows = np.concatenate([windows.inputs, windows.targets[:, -1:]], axis=1)  # (n, 33)
    losses = -model.log_probabilities(rows)[:, 1:]
    starts = range(0, len(losses), BATCH)
    return float(np.mean([np.exp(losses[i : i + BATCH].mean()) for i in starts]))


def chosen(tokens: np.ndarray, vocabulary: int, order: int, family: str) -> float:
    """The strength of GRID that suits the last tenth of `tokens` best, given the rest."""
    cut = len(tokens) * 9 // 10
    make = FAMILIES[family]
    model = text.NGramModel.fit(tokens[:cut], order, vocabulary=vocabulary)
    found = [model.with_smoothing(make(strength)).perplexity(tokens[cut:]) for strength in GRID]
    return GRID[int(np.argmin(found))]


def table(tokens: Tokens, train: int, validation: int) -> list[str]:
    """A Markdown table: a row for each smoothing, a column for each order."""
    known = tokens.indices[: train + STEPS]
    windows = text.windows(known, STEPS)
    held_out = text.windows(tokens.indices[train : train + validation + STEPS], STEPS)
    rows: dict[str, list[str]] = {"none": [], "add 1": [], **{name: [] for name in FAMILIES}}
    for order in ORDERS:
        model = text.NGramModel.fit(known, order, vocabulary=tokens.vocabulary)
        best = {name: chosen(known, tokens.vocabulary, order, name) for name in FAMILIES}
        tried = {"none": text.MaximumLikelihood(), "add 1": text.AddK(1.0)}
        tried |= {name: FAMILIES[name](strength) for name, strength in best.items()}
        for name, smoothing in tried.items():
            smoothed = model.with_smoothing(smoothing)
            cell = f"{perplexity(smoothed, windows):.2f} / {perplexity(smoothed, held_out):.2f}"
            rows[name].append(cell + (f" ({best[name]:g})" if name in best else ""))
    head = ["smoothing", *(f"{order}-gram" for order in ORDERS)]
    lines = [head, ["---"] * len(head), *([name, *cells] for name, cells in rows.items())]
    return [
        f"{tokens.name.capitalize()}, vocabulary {tokens.vocabulary}, {len(known):,} to count, "
        f"{np.mean(held_out.targets == 0):.1%} of the validation text <unk>: perplexity "
        f"train / validation (strength)",
        "",
        *("| " + " | ".join(line) + " |" for line in lines),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--text", help="a UTF-8 text file (default: Python's own help topics)")
    parser.add_argument("--quick", action="store_true", help="1,000 and 500 windows only")
    options = parser.parse_args(arguments)
    corpus = text.english() if options.text is None else text.read_text(options.text)
    train, validation = (1_000, 500) if options.quick else (10_000, 5_000)
    for tokens in (characters(corpus), words(corpus, train + STEPS)):
        print("\n".join(table(tokens, train, validation)), end="\n\n")


if __name__ == "__main__":
    main()
