"""The script that measures stacked blocks runs, and compares what it says it does."""

import importlib.util
import re
from pathlib import Path

from jaxd2l import layers, summarize
from jaxd2l.models.blocks import basic

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "stacking.py"


def test_stacked_and_separate_blocks_are_measured(capsys, monkeypatch):
    spec = importlib.util.spec_from_file_location("stacking", SCRIPT)
    stacking = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stacking)
    nets = [stacking.network([9], least) for least in (8, 9)]
    repeats = [any(isinstance(unit, layers.Repeat) for unit in n.layers[4].layers) for n in nets]
    assert repeats == [True, False]
    assert len({summarize(net, (16, 16, 3)).parameters for net in nets}) == 1
    assert basic.STACK_FROM == 8
    options = ["--units", "1", "--size", "16", "--batch", "2", "--repeats", "2"]
    monkeypatch.setattr("sys.argv", ["stacking.py", *options])
    assert stacking.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["stacked", "separate"]
    for line in lines:
        figures = [float(value) for value in re.findall(r"(\d+\.\d+) s", line)]
        assert len(figures) == 3
        assert figures[1] > 0
