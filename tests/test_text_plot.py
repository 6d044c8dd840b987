"""The picture of how often tokens come."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from jaxd2l import plot

TOKENS = ["to", "be", "or", "not", "to", "be", "that", "is", "the", "question", "to"]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, in a list."""
    figures = []

    def save(figure, path, title):
        figures.append(figure)
        return plot.figure.save_figure(figure, path, title)

    monkeypatch.setitem(plot.frequencies.__globals__, "save_figure", save)
    return figures


@pytest.mark.smoke
def test_counts_stand_over_their_rank_on_logarithmic_axes(tmp_path, drawn):
    counts = {
        "unigram": Counter(TOKENS),
        "bigram": Counter(pairwise(TOKENS)),
        "trigram": np.array([0, 1, 4, 0, 2]),
    }
    path = plot.frequencies(counts, tmp_path / "new" / "a.png", "Hamlet")
    assert path == tmp_path / "new" / "a.png"
    (axes,) = drawn[0].axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    found = {line.get_label(): line.get_ydata().tolist() for line in axes.lines}
    assert found == {
        "unigram": [3, 2, 1, 1, 1, 1, 1, 1],
        "bigram": [2, 1, 1, 1, 1, 1, 1, 1, 1],
        "trigram": [4, 2, 1],
    }
    for line in axes.lines:
        assert line.get_xdata().tolist() == list(range(1, len(line.get_ydata()) + 1))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(counts)
    with Image.open(path) as image:
        assert image.size == (540, 420)
        colors = {tuple(c) for c in np.asarray(image.convert("RGB")).reshape(-1, 3).tolist()}
    assert {(31, 119, 180), (255, 127, 14), (44, 160, 44)} <= colors


def test_one_count_is_drawn_as_a_point(tmp_path, drawn):
    plot.frequencies({"one": [7]}, tmp_path / "a.png")
    (line,) = drawn[0].axes[0].lines
    assert line.get_marker() == "o"


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({}, 'nothing to draw; give {"unigram": counts}'),
        ({"a": []}, "the counts of 'a' must be 0 or more, and some above 0"),
        ({"b": [0, 0]}, "the counts of 'b'"),
        ({"c": {"x": -1, "y": 2}}, "the counts of 'c'"),
        ({"d": [np.inf]}, "the counts of 'd'"),
        ({"e": [np.nan, 1]}, "the counts of 'e'"),
    ],
)
def test_counts_that_cannot_be(tmp_path, counts, told):
    with pytest.raises(ValueError, match=told):
        plot.frequencies(counts, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
