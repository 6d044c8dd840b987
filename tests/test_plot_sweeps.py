"""Learning curves with bands and heat maps of sweeps: what is drawn, read off the figure."""

import numpy as np
import pytest

from jaxd2l import plot
from jaxd2l.plot import sweeps

RATES, DECAYS = [0.01, 0.1, 1.0], [0.0, 0.5]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    figures = []
    save = sweeps.save_figure

    def keep(figure, path, title):
        figures.append(figure)
        return save(figure, path, title)

    monkeypatch.setattr(sweeps, "save_figure", keep)
    return figures


@pytest.mark.smoke
def test_bands_are_the_median_and_percentiles(drawn, tmp_path):
    runs = np.random.RandomState(0).rand(11, 6)
    path = plot.learning_bands({"sgd": runs, "adam": runs[:, :4] + 1}, tmp_path / "a.png", "title")
    assert path.stat().st_size > 5000
    axes = drawn[0].axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["sgd", "adam"]
    ordered = np.sort(runs, axis=0)
    line, other = axes.lines
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3, 4, 5, 6])
    np.testing.assert_allclose(line.get_ydata(), ordered[5])
    assert len(other.get_xdata()) == 4
    edge = axes.collections[0].get_paths()[0].vertices
    for epoch in range(6):
        at = edge[edge[:, 0] == epoch + 1, 1]
        assert at.min() == pytest.approx(ordered[1, epoch])
        assert at.max() == pytest.approx(ordered[9, epoch])


def test_runs_that_diverged_are_not_left_out(drawn, tmp_path):
    runs = np.ones((10, 3))
    runs[:2, 1], runs[:6, 2] = np.nan, np.inf
    plot.learning_bands({"some": runs, "high": np.full((2, 3), 7.0)}, tmp_path / "a.svg", log=True)
    axes = drawn[0].axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [1, 1, np.nan])
    edge = axes.collections[0].get_paths()[0].vertices
    assert edge[edge[:, 0] == 2, 1].max() == 7  # the top of all curves


@pytest.mark.parametrize("highest", [False, True])
def test_the_heat_map_of_a_sweep(drawn, tmp_path, highest):
    scores = np.array([[3.0, 2.5], [1.0, 1.5], [1e9, np.nan]]) * (-1 if highest else 1)
    values = {"learning_rate": RATES, "decay": DECAYS}
    flat = scores.ravel()
    plot.sweep_heat_map(flat, values, tmp_path / "a.png", label="score", highest=highest)
    axes, bar = drawn[0].axes
    texts = {(t.get_position()[1], t.get_position()[0]): t.get_text() for t in axes.texts}
    assert len(texts) == 6
    for (i, j), score in np.ndenumerate(scores):
        shown = texts[i, j]
        assert shown == "×" if np.isnan(score) else float(shown) == score
    (frame,) = axes.patches
    assert frame.get_xy() == (-0.5, 0.5)  # around row 1, column 0
    assert [t.get_text() for t in axes.get_yticklabels()] == ["0.01", "0.1", "1"]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("learning rate", "decay")
    assert bar.get_ylabel() == "score"
    # The best is 1, the median 2.5: colours end at 1 + 3 * 1.5.
    limits = axes.images[0].get_clim()
    assert limits == ((-5.5, -1.0) if highest else (1.0, 5.5))


def test_a_large_map_has_no_figures_in_its_cells(drawn, tmp_path):
    values = {"a": np.arange(20), "b": np.arange(10)}
    plot.sweep_heat_map(np.ones((20, 10)), values, tmp_path / "a.png")
    assert not drawn[0].axes[0].texts


def test_pictures_of_sweeps_say_what_is_wrong(tmp_path):
    place = tmp_path / "a.png"
    with pytest.raises(ValueError, match="there are no curves"):
        plot.learning_bands({}, place)
    with pytest.raises(ValueError, match=r"'a' must be \(s, epochs\), got \(3,\)"):
        plot.learning_bands({"a": np.ones(3)}, place)
    with pytest.raises(ValueError, match="values not above 0"):
        plot.learning_bands({"a": np.zeros((2, 3))}, place, log=True)
    with pytest.raises(ValueError, match=r"two hyper-parameters, got \['a'\]"):
        plot.sweep_heat_map(np.ones(2), {"a": [1, 2]}, place)
    with pytest.raises(ValueError, match=r"scores must be \(3, 2\) or \(6,\), got \(2, 3\)"):
        plot.sweep_heat_map(np.ones((2, 3)), {"a": RATES, "b": DECAYS}, place)
    with pytest.raises(ValueError, match="no score is finite"):
        plot.sweep_heat_map(np.full((3, 2), np.inf), {"a": RATES, "b": DECAYS}, place)
    assert not place.exists()
