"""experiments/text_classifiers.py: how it makes its texts, and that it runs."""

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxd2l.data import text

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
BOOK = """'How was it?' he asked. 'It was Mr. Wells!' They
went home after that.  It is 1898 now, they said.

No more. THEY WENT HOME AFTER THAT! A last line without an end"""


@pytest.fixture
def classifiers(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    yield importlib.import_module("text_classifiers")
    sys.modules.pop("text_classifiers", None)


def test_sentences_end_at_marks_and_come_once(classifiers):
    assert classifiers.sentences(BOOK) == [
        "how was it he asked",
        "they went home after that",
        "it is now they said",
        "a last line without an end",
    ]


def test_as_many_sentences_of_each_spread_over_it(classifiers):
    long = ". ".join(f"Sentence {'abcdefgh'[i]} of the long one" for i in range(8)) + "."
    short = (
        "One of the short sentences. Another of the short sentences. Sentence a of the long one."
    )
    examples = classifiers.balanced({"long": long, "short": short})
    assert [label for label, _ in examples] == ["long"] * 2 + ["short"] * 2
    # what both have is left out; of the seven that are left come the first and the fourth
    assert [example.text[9] for example in examples[:2]] == ["b", "e"]


def test_the_help_has_two_parts_that_are_real_english(classifiers):
    books = classifiers.help_topics()
    assert list(books) == ["library", "language"]
    assert all(len(book) > 90_000 for book in books.values())
    examples = classifiers.balanced(books)
    assert len(examples) > 1000
    assert len({example.text for example in examples}) == len(examples)
    assert classifiers.balanced(books) == examples
    labels = [example.label for example in examples]
    assert labels.count("library") == labels.count("language")


def test_what_is_held_out_is_not_in_the_vocabulary(classifiers):
    words = [letter * 3 for letter in "abcdefghij"]
    examples = [text.Example("ab"[i % 2], f"{w} {w} common") for i, w in enumerate(words)]
    codec, parts = classifiers.encoded(examples, 3)
    assert (len(parts.train), len(parts.test)) == (8, 2)
    assert parts.test.inputs.shape == (2, classifiers.LENGTH)
    held = parts.test.inputs[:, :3]
    assert (held[:, :2] == 0).all()  # unknown
    assert codec.decode(held[0, 2:]) == "common"
    assert (parts.test.inputs[:, 3:] == codec.padding).all()
    assert parts.train.classes == ("a", "b")
    bags = classifiers.counts(parts.train, codec)
    assert bags.inputs.shape == (8, codec.size)
    np.testing.assert_array_equal(bags.inputs.sum(1), 3)  # padding is not counted
    np.testing.assert_array_equal(np.sort(bags.inputs, axis=1)[:, -2:], [[1, 2]] * 8)
    assert sorted(parts.train.inputs[:, 0]) == list(range(3, 11))  # after <unk>, <pad>, common


@pytest.mark.slow
def test_text_classifiers(classifiers, tmp_path, capsys):
    draw = np.random.RandomState(0)
    rows = [
        (label, " ".join([*draw.choice(["on", "the", "and", "with"], 6), word]))
        for label, word in (("good", "fine"), ("bad", "poor"), ("odd", "strange"))
        for _ in range(80)
    ]
    file = tmp_path / "labelled.tsv"
    file.write_text("".join(f"{label}\t{line}\n" for label, line in rows))
    classifiers.main(["--data", str(file), "--quick"])
    first, head, rule, *table = capsys.readouterr().out.splitlines()
    assert first == "240 texts, 3 classes, 48 held out; 9 words"
    assert head.count("|") == rule.count("|") == 6
    names = ["bag of words", "TextCNN", "bidirectional LSTM"]
    assert [row.split(" | ")[0] for row in table] == [f"| {name}" for name in names]
    # counts, and by hand: 9 words to 3 classes; 8 features each
    convolutions = sum(width * 64 + 8 for width in (3, 4, 5))
    recurrences = 2 * 4 * 8 * (8 + 8 + 1)
    wanted = [9 * 3 + 3, 72 + convolutions + 24 * 3 + 3, 72 + recurrences + 16 * 3 + 3]
    for row, parameters in zip(table, wanted, strict=True):
        cells = row.strip("| ").split(" | ")
        assert int(cells[1].replace(",", "")) == parameters
        values = [float(v) for v in re.findall(r"[+-]?\d+\.\d", cells[2] + cells[3])]
        assert len(values) == 6
        assert values[0] == values[1] == values[2]  # one seed
    assert "+0.0 (+0.0 to +0.0)" in table[0]
    assert float(table[0].split(" | ")[2].split(" (")[0]) > 80  # one word tells
