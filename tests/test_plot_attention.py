"""Heat maps of attention: what stands where, on which scale, and what is refused."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxd2l import plot
from jaxd2l.plot import heat_maps as drawing


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, in a list."""
    figures = []

    def save(figure, path, title):
        figures.append(figure)
        return plot.figure.save_figure(figure, path, title)

    monkeypatch.setattr(drawing, "save_figure", save)
    return figures


def weights(*shape):
    scores = np.random.RandomState(0).randn(*shape)
    return np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def maps(figure):
    """The axes with a heat map; the last of the figure is the scale."""
    return figure.axes[:-1]


@pytest.mark.smoke
def test_one_map_with_tokens_along_its_axes(tmp_path, drawn):
    given = weights(3, 4)
    path = plot.attention(
        given, tmp_path / "new" / "a.png", "a title", queries=["time", "$5", "$6"], keys="a \nb"
    )
    assert path == tmp_path / "new" / "a.png"
    (axes,) = maps(drawn[0])
    (image,) = axes.images
    np.testing.assert_allclose(image.get_array(), given)
    assert image.get_clim() == (0, given.max())
    assert (ticks(axes.yaxis), ticks(axes.xaxis)) == (["time", "$5", "$6"], ["a", "␣", "↵", "b"])
    assert not axes.yaxis.get_ticklabels()[1].get_parse_math()  # a price, no formula
    assert (axes.get_ylabel(), axes.get_xlabel(), axes.get_title()) == ("queries", "keys", "")
    bottom, top = axes.get_ylim()
    assert bottom > top  # queries go down
    assert {label.get_rotation() for label in axes.xaxis.get_ticklabels()} == {0}
    assert drawn[0].get_suptitle() == "a title"
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        pixels = {tuple(c) for c in np.asarray(picture.convert("RGB")).reshape(-1, 3).tolist()}
    for value in given.ravel() / given.max():  # every cell has its color
        color = np.array(image.get_cmap()(value)[:3])
        assert min(np.abs(np.array(list(pixels)) / 255 - color).max(1)) < 0.01


def test_long_tokens_stand_upright_and_have_room(tmp_path, drawn):
    words = [f"word{i}" for i in range(60)]
    plot.attention(weights(60, 60), tmp_path / "a.png", queries=words, keys=words)
    (axes,) = maps(drawn[0])
    assert {label.get_rotation() for label in axes.xaxis.get_ticklabels()} == {90}
    boxes = [label.get_window_extent() for label in axes.xaxis.get_ticklabels()]
    assert all(a.x1 <= b.x0 + 1 for a, b in itertools.pairwise(boxes))


def test_heads_and_layers_make_a_grid_on_one_scale(tmp_path, drawn):
    given = weights(2, 3, 5, 4)
    given[0, 0] *= 0.1
    plot.attention(jnp.asarray(given, jnp.bfloat16), tmp_path / "a.png")
    plot.attention(given[1], tmp_path / "b.png", columns=list("xyz"), labels=("test", "train"))
    grid, row = map(maps, drawn)
    assert len(grid) == 6
    for axes, want in zip(grid, given.reshape(6, 5, 4), strict=True):
        np.testing.assert_allclose(axes.images[0].get_array(), want, rtol=4e-3)
        assert axes.images[0].get_clim() == grid[0].images[0].get_clim()
    assert [axes.get_title() for axes in grid] == ["head 1", "head 2", "head 3", "", "", ""]
    rows = [axes.get_ylabel() for axes in grid]
    assert rows == ["layer 1\nqueries", "", "", "layer 2\nqueries", "", ""]
    assert [axes.get_xlabel() for axes in grid] == ["", "", "", "keys", "keys", "keys"]
    assert [axes.get_title() for axes in row] == ["x", "y", "z"]
    assert [axes.get_ylabel() for axes in row] == ["test", "", ""]
    assert [axes.get_xlabel() for axes in row] == ["train"] * 3


def test_without_tokens_the_axes_count(tmp_path, drawn):
    plot.attention(weights(1, 50), tmp_path / "a.png")
    (axes,) = maps(drawn[0])
    assert [tick for tick in axes.get_yticks() if abs(tick) < 0.5] == [0]
    assert all(float(tick).is_integer() for tick in axes.get_xticks())
    plot.attention(np.zeros((2, 2)), tmp_path / "b.png")  # of queries that see nothing
    assert maps(drawn[1])[0].images[0].get_clim() == (0, 1)


@pytest.mark.parametrize(
    ("given", "options", "told"),
    [
        (np.ones(3), {}, r"\(\[\[layers,\] heads,\] q, k\), got \(3,\)"),
        (np.ones((2, 0)), {}, r"got \(2, 0\)"),
        (np.full((2, 2), np.nan), {}, "weights: holds NaN"),
        (-np.ones((2, 2)), {}, "must not be below 0, got -1"),
        (np.ones((20, 20, 2, 2)), {}, r"400 panels .* \(256\)"),
        (np.ones((2, 3)), {"queries": "abc"}, r"queries must be 2 names for \(2, 3\), got 3"),
        (np.ones((2, 3)), {"keys": ["a"]}, "keys must be 3 names"),
        (np.ones((4, 2, 3)), {"columns": ["a"]}, "columns must be 4 names"),
        (np.ones((4, 2, 3)), {"rows": ["a", "b"]}, "rows must be 1 names"),
    ],
)
def test_what_cannot_be_drawn_is_refused(given, options, told, tmp_path):
    with pytest.raises(ValueError, match=f"plot.attention.*{told}"):
        plot.attention(given, tmp_path / "a.png", **options)
    assert list(tmp_path.iterdir()) == []
