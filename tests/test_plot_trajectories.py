"""Trajectories on contours: real pictures."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxd2l import plot

GREEN, RED, ORANGE = (44, 160, 44), (214, 39, 40), (255, 127, 14)


def bowl(x):
    return 0.1 * (x[0] + x[1]) ** 2 + 2 * (x[0] - x[1]) ** 2


def pixels(path):
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def places(picture, colour):
    """Columns and rows, as far as there are any, where the picture has just that colour."""
    rows, columns = np.nonzero((picture == colour).all(-1))
    return columns, rows


WAY = np.array([[-5.0, -2.0], [-2.0, -4.0], [0.0, 0.0]])


@pytest.mark.smoke
def test_starts_and_ends_are_where_they_belong(tmp_path):
    path = plot.trajectories(bowl, {"one": WAY}, tmp_path / "deep" / "way.png", "title")
    assert path == tmp_path / "deep" / "way.png"
    picture = pixels(path)
    assert picture.shape == (324, 360, 3)
    start, end = (np.median(places(picture, c), axis=1) for c in (GREEN, RED))
    assert start[0] < end[0]  # the start is to the left of the end
    assert start[1] > end[1]  # and below
    assert len(places(picture, ORANGE)[0]) > 50
    blue = (picture[..., 2] > 140) & (picture[..., 0] < 80)
    assert blue.sum() > 200  # contours


def test_a_panel_for_each_path_four_in_a_row(tmp_path):
    from scipy import ndimage

    paths = {f"method {i}": WAY + 0.1 * i for i in range(5)}
    picture = pixels(plot.trajectories(bowl, paths, tmp_path / "ways.png"))
    assert picture.shape == (648, 1440, 3)
    for colour in (GREEN, RED):
        assert ndimage.label((picture == colour).all(-1))[1] == 5
    assert (picture[400:, 400:] == 255).all()


def test_flat_functions_single_points_and_holes_can_be_drawn(tmp_path):
    for number, f in enumerate(
        (lambda x: 0 * x[0], lambda x: jnp.where(x[0] < -3, jnp.nan, bowl(x)))
    ):
        path = plot.trajectories(f, {"one": WAY[:1], "two": WAY}, tmp_path / f"{number}.png")
        assert len(places(pixels(path), ORANGE)[0]) > 10


def test_what_cannot_be_drawn_is_refused(tmp_path):
    path = tmp_path / "a.png"
    with pytest.raises(ValueError, match="there are no paths; give points by name"):
        plot.trajectories(bowl, {}, path)
    with pytest.raises(ValueError, match=r"path 'a' must be \(k, 2\), got \(3,\)"):
        plot.trajectories(bowl, {"a": np.zeros(3)}, path)
    with pytest.raises(ValueError, match="path 'a': holds NaN"):
        plot.trajectories(bowl, {"a": np.full((2, 2), np.nan)}, path)
    with pytest.raises(ValueError, match="f is nowhere finite"):
        plot.trajectories(lambda x: jnp.nan * x[0], {"a": WAY}, path)
    assert list(tmp_path.iterdir()) == []
