"""The experiments on attention, nadaraya_watson.py and attention_maps.py, do what they say."""

import importlib
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"


@pytest.fixture
def load(monkeypatch):
    """Imports an experiment as a script beside it would."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    loaded = ["report"]

    def load(name):
        loaded.append(name)
        return importlib.import_module(name)

    yield load
    for name in loaded:
        sys.modules.pop(name, None)


def drawn(lines, folder):
    """The names of the pictures that were printed, all of them more than one shade."""
    paths = [Path(line) for line in lines if line.startswith(str(folder))]
    for path in paths:
        assert np.asarray(Image.open(path).convert("L")).std() > 10
    return [path.name for path in paths]


def test_nadaraya_watson(load, tmp_path, capsys):
    load("nadaraya_watson").main(["--seeds", "3", "--out", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    found = dict(re.fullmatch(r"  (.*?)  +([\d.]+) \[.*\]", line).groups() for line in lines[1:7])
    average, fixed, book, settled, *w = map(float, found.values())
    assert next(iter(found)) == "error, average pooling"
    assert average > fixed + 0.2 > fixed > book > settled  # so it is with these seeds
    assert 0.8 < average < 1.1
    assert settled < 0.35
    assert w[0] > w[1] > 3
    assert "learned to the end: w fell to 0 in 0 of 3 runs" in "\n".join(lines)
    names = ["nadaraya_watson_curves.png", "nadaraya_watson_weights.png"]
    assert drawn(lines, tmp_path) == names


def test_a_wide_kernel_can_fall_to_average_pooling(load):
    """Seed 8 begins at w = 0.07, and w = 0 is a minimum of its error."""
    module = load("nadaraya_watson")
    x, y, start = module.draw(jax.random.key(8))
    assert x.shape == y.shape == (50,)
    assert 0 <= x[0] < x[-1] < 5
    at = [float(module.squared_error(w, x, y)) for w in (0.0, 0.1, 1.0, 4.0)]
    assert at[1] > at[0] > at[2] > at[3]
    learn = jax.jit(lambda w: module.learn(w, x, y, 0.01, 100))
    assert abs(learn(start)) < 1e-3
    assert learn(start + 0.5) > 2


@pytest.mark.slow
def test_attention_maps(load, tmp_path, capsys):
    module = load("attention_maps")
    module.main(["--seeds", "2", "--steps", "150", "--out", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    text = "\n".join(lines)
    for number, kind in (("AT4", "additive"), ("AT5", "dot product")):
        assert f"{number}  Attention ({kind}) learns" in text
    ends = [float(x) for x in re.findall(r"right input in the end +([\d.]+) ", text)]
    starts = [float(x) for x in re.findall(r"right input at first +([\d.]+) ", text)]
    right = [float(x) for x in re.findall(r"right digits in the end \(%\) +([\d.]+) ", text)]
    assert len(starts) == len(ends) == len(right) == 2
    assert starts == pytest.approx([0.1, 0.1], abs=0.02)
    assert min(ends) > 0.5
    assert min(right) > 95
    assert drawn(lines, tmp_path) == ["attention_maps.png"]
    counter = np.fliplr(np.eye(3))
    assert module.on_the_right_input(counter) == 1
    assert module.on_the_right_input(np.eye(3)) == pytest.approx(1 / 3)
