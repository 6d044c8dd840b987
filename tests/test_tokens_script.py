"""The benchmark of language models: what it times is the same work, and it prints its table."""

import importlib.util
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "tokens.py"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(SCRIPT))


def test_the_quick_table(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tokens.py", "--quick", "--models", "gru_lm"])
    assert script["main"]() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[2].strip() for line in lines[2:]] == [
        "training (32, 64)",
        "decoding, 1 rows",
    ]
    for line in lines[2:]:
        assert float(line.split("|")[3].replace(",", "")) > 0
        assert ("-" in line.split("|")[4]) == (importlib.util.find_spec("torch") is None)


def test_what_is_timed_is_training_and_decoding(script):
    tokens = np.random.RandomState(0).randint(1, 28, (2, 9))
    train, decode, seconds = script["ours"]("rnn_lm", 8, tokens, tokens[:, :4], 5)
    train()
    assert np.asarray(decode()).shape == (2, 5)
    assert all(s > 0 for s in seconds)
