"""Learning curves: real pictures, drawn without pyplot."""

import math
import sys

import numpy as np
import pytest

from jaxd2l import plot

HISTORY = [
    {
        "epoch": e,
        "step": 10 * e,
        "train_loss": 2 / e,
        "train_accuracy": 1 - 1 / (e + 1),
        "test_loss": 2.5 / e,
        "test_accuracy": 0.9 - 1 / (e + 1),
        "seconds": 1.0,
    }
    for e in range(1, 6)
]


def pixels(path):
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.smoke
def test_a_curve_is_a_picture_with_two_panels(tmp_path):
    path = plot.learning_curve(HISTORY, tmp_path / "deep" / "curve.png", "lenet")
    assert path == tmp_path / "deep" / "curve.png"
    picture = pixels(path)
    assert picture.shape == (420, 1080, 3)  # 3.5 x (2 * 4.5) inches at 120 dots
    for half in (picture[:, :540], picture[:, 540:]):
        assert len(np.unique(half.reshape(-1, 3), axis=0)) > 20
    colours = {tuple(c) for c in picture.reshape(-1, 3)}
    assert {(31, 119, 180), (255, 127, 14)} <= colours  # train and test lines


def test_without_a_test_part_one_line(tmp_path):
    short = [{"epoch": r["epoch"], "train_loss": r["train_loss"]} for r in HISTORY]
    picture = pixels(plot.learning_curve(short, tmp_path / "a.png"))
    assert picture.shape == (420, 540, 3)
    colours = {tuple(c) for c in picture.reshape(-1, 3)}
    assert (31, 119, 180) in colours
    assert (255, 127, 14) not in colours


def test_one_epoch_is_drawn_as_points(tmp_path):
    picture = pixels(plot.learning_curve(HISTORY[:1], tmp_path / "a.png"))
    blue = (picture == (31, 119, 180)).all(axis=-1)
    assert blue[60:350, 80:540].sum() > 20


def test_svg_holds_the_words(tmp_path):
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        path = plot.learning_curve(HISTORY, tmp_path / "a.svg", "a title")
    text = path.read_text()
    for word in ("a title", "epoch", "loss", "accuracy", "train", "test"):
        assert f">{word}<" in text


def test_figures_that_are_not_finite_are_left_out(tmp_path):
    broken = [*HISTORY, {**HISTORY[-1], "epoch": 6, "test_loss": math.nan}]
    assert plot.learning_curve(broken, tmp_path / "a.png").stat().st_size > 5000
    broken[-1]["test_loss"] = math.inf
    assert plot.learning_curve(broken, tmp_path / "b.png").stat().st_size > 5000


def test_no_pyplot_and_no_global_state(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    loaded = "matplotlib.pyplot" in sys.modules
    plot.learning_curve(HISTORY, tmp_path / "a.png")
    assert ("matplotlib.pyplot" in sys.modules) == loaded
    assert dict(matplotlib.rcParams) == before


def test_an_empty_history_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the history is empty; train for at least one epoch"):
        plot.learning_curve([], tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxd2l\[plot\]'"):
        plot.learning_curve(HISTORY, tmp_path / "a.png")
