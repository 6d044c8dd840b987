"""The benchmark of many runs: its sides do the same work, and it prints its table."""

import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "many_runs.py"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(SCRIPT))


@pytest.mark.slow
def test_the_quick_table(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["many_runs.py", "--quick"])
    assert script["main"]() == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split("|")[2].strip() for line in lines][:2] == [
        "one program",
        "one run after another",
    ]
    assert all(float(line.split("|")[3].replace(",", "")) > 0 for line in lines)


@pytest.mark.slow
def test_one_program_and_fit_learn_alike(script):
    """Other orders of the examples: accuracies are alike, not equal."""
    small = script["Case"](script["models"].mlp((32,)), 8, 32, 2, 2, 20)
    together, (seconds, accuracy) = script["ours"](small)(), script["by_fit"](small)
    assert together.shape == (2, 2)
    assert together.max() == pytest.approx(accuracy, abs=0.08)
    assert together.max() > 0.85
    assert 0 < seconds < 1
