"""Every experiment runs, in a short form, and prints what it promises."""

import re
import runpy
import sys
from pathlib import Path

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"


def test_every_experiment_is_tested():
    tests = Path(__file__).parent.glob("test_experiments*.py")
    text = "\n".join(path.read_text("utf-8") for path in tests)
    names = {path.name for path in EXPERIMENTS.glob("*.py")}
    assert "lenet.py" in names
    assert {name for name in names if not re.search(rf"\b{re.escape(name)}\b", text)} == set()


def test_lenet(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--seeds", "2", "--epochs", "2", "--set", "batch_norm=True"]
    monkeypatch.setattr(sys, "argv", ["lenet.py", *options])
    runpy.run_path(str(EXPERIMENTS / "lenet.py"), run_name="__main__")
    *runs, median = capsys.readouterr().out.splitlines()
    found = [re.fullmatch(r"seed (\d): test accuracy (\d+\.\d+) %  \(.* s\)", r) for r in runs]
    assert [match[1] for match in found] == ["0", "1"]
    values = [float(match[2]) for match in found]
    assert min(values) > 80  # with batch norm two epochs do
    printed = re.fullmatch(r"median of 2 seeds: (.*) %", median)
    assert abs(float(printed[1]) - sum(values) / 2) < 0.011
    assert list(tmp_path.iterdir()) == []  # nothing is left behind
