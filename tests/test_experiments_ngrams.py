"""The baseline of n-grams, ngrams.py, runs in a short form and measures what it says."""

import importlib
import math
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxd2l.data import Dataset, text

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
NUMBER = r"(\d+\.\d\d|inf)"


@pytest.fixture
def module(monkeypatch):
    """The experiment, imported as a script beside it would."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    yield importlib.import_module("ngrams")
    sys.modules.pop("ngrams", None)


def test_perplexity_is_the_mean_over_batches_of_windows(module):
    tokens = np.random.RandomState(0).randint(0, 3, 1500 + 4)
    model = text.NGramModel.fit(tokens[:200], 3, vocabulary=3)
    batches: list[list[float]] = [[], []]
    for i in range(1500):
        for j in range(1, 5):
            p = model.probability(tokens[i : i + j], tokens[i + j])  # within the window alone
            batches[i >= 1024].append(-math.log(p))
    wanted = np.mean([math.exp(np.mean(losses)) for losses in batches])
    assert module.perplexity(model, text.windows(tokens, 4)) == pytest.approx(wanted)
    certain = Dataset(np.zeros((5, 4), np.int32), np.zeros((5, 4), np.int32))
    alone = text.NGramModel.fit([0, 0], 2, vocabulary=3, smoothing=text.MaximumLikelihood())
    assert module.perplexity(alone, certain) == 1


def test_the_strength_is_the_best_for_the_last_tenth(module):
    tokens = np.random.RandomState(1).randint(0, 5, 400)  # noise: the stronger the better
    assert module.chosen(tokens, 5, 3, "add k") == max(module.GRID)
    cycle = np.arange(400) % 5  # certain: the weaker the better
    for family in module.FAMILIES:
        assert module.chosen(cycle, 5, 3, family) == min(module.GRID)


def test_words_are_unknown_unless_they_come_twice_in_the_beginning(module):
    tokens = module.words("One two one, two three! Three three four", 5)
    assert (tokens.indices.tolist(), tokens.vocabulary) == ([1, 2, 1, 2, 0, 0, 0, 0], 3)
    assert module.characters("A b?").indices.tolist() == [2, 1, 3, 1]


def test_ngrams_quick(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ngrams.py", "--quick"])
    runpy.run_path(str(EXPERIMENTS / "ngrams.py"), run_name="__main__")
    found = {}
    name = ""
    for line in capsys.readouterr().out.splitlines():
        if match := re.match(r"(\w+), vocabulary \d+, 1,032 to count", line):
            name = match[1]
        elif line.count("/") >= 4:
            _, smoothing, *cells, _ = re.split(r" ?\| ?", line)
            pairs = [re.match(rf"{NUMBER} / {NUMBER}", cell).groups() for cell in cells]
            found[name, smoothing] = np.array(pairs, float)  # (order, train or validation)
    assert len(found) == 10
    for (name, smoothing), values in found.items():
        train, validation = values.T
        if smoothing == "none":
            assert (np.diff(train) < 0).all()
            assert np.isinf(validation[1:]).all()
        else:
            assert np.isfinite(values).all()
        assert (train >= found[name, "none"][:, 0] - 0.005).all()  # nothing fits better
    best = found["Characters", "with shorter contexts"][3, 1]
    assert 5 < best < found["Characters", "add 1"][0, 1] < 28
