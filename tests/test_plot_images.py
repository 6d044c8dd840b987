"""Pictures of kernels, feature maps and augmentation samples: read back, pixel by pixel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxd2l
from jaxd2l import layers, models, plot
from jaxd2l.ops import augment as aug

FRAME = (90, 140, 220)
DENSE = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}


def tiles_of(path):
    """The tiles of a picture of full rows, found by their blue frames, in the order of reading."""
    with Image.open(path) as image:
        picture = np.asarray(image.convert("RGB")).astype(int)
    blue = abs(picture - np.array(FRAME)).max(axis=-1) < 3

    def inside(share):
        lines = np.concatenate([[0], (share > share.max() / 2).astype(int), [0]])
        starts, ends = np.flatnonzero(np.diff(lines) == 1), np.flatnonzero(np.diff(lines) == -1)
        return list(zip(ends[::2], starts[1::2], strict=True))  # between two lines of a frame

    return [
        picture[top:bottom, left:right]
        for top, bottom in inside(blue.mean(axis=1))
        for left, right in inside(blue.mean(axis=0))
    ]


def values(tile, h, w):
    """The h x w pixels that a tile shows, in [0, 1], from the middle of each square."""
    rows = ((np.arange(h) + 0.5) * tile.shape[0] / h).astype(int)
    columns = ((np.arange(w) + 0.5) * tile.shape[1] / w).astype(int)
    return tile[rows][:, columns] / 255


def stretched(x):
    return (x - x.min()) / (x.max() - x.min())


@pytest.mark.smoke
def test_gray_kernels_have_a_scale_each(tmp_path):
    kernel = np.random.RandomState(0).normal(size=(5, 4, 1, 6)) * np.array([1, 2, 3, 0.1, 5, 6])
    path = plot.kernels(kernel, tmp_path / "new" / "k.png", "a title", columns=3)
    assert path == tmp_path / "new" / "k.png"
    tiles = tiles_of(path)
    assert len(tiles) == 6
    for i, tile in enumerate(tiles):
        want = stretched(kernel[..., i])
        np.testing.assert_allclose(values(tile, 5, 4), want.repeat(3, axis=-1), atol=0.01)
        assert tile.shape[0] / tile.shape[1] == pytest.approx(5 / 4, abs=0.06)  # as the kernel


def test_kernels_of_three_channels_are_rgb_and_of_more_a_row(tmp_path):
    kernel = np.random.RandomState(0).normal(size=(3, 3, 3, 2))
    tiles = tiles_of(plot.kernels(kernel, tmp_path / "a.png"))
    for i, tile in enumerate(tiles):
        np.testing.assert_allclose(values(tile, 3, 3), stretched(kernel[..., i]), atol=0.01)
    kernel = np.random.RandomState(1).normal(size=(3, 3, 4, 2))
    tiles = tiles_of(plot.kernels(kernel, tmp_path / "b.png"))
    assert len(tiles) == 8
    for i, tile in enumerate(tiles):
        want = stretched(kernel[..., i // 4])[..., i % 4, None]  # one scale for the row
        np.testing.assert_allclose(values(tile, 3, 3), want.repeat(3, axis=-1), atol=0.01)


def test_feature_maps_are_the_outputs_of_the_layer(tmp_path):
    net = models.lenet()
    params, state = jaxd2l.init(net, jax.random.key(0), (28, 28, 1))
    params["conv1"]["kernel"] = params["conv1"]["kernel"].at[..., 4].set(0.0)  # a dead channel
    image = jax.random.uniform(jax.random.key(1), (28, 28, 1))
    tiles = tiles_of(plot.feature_maps(net, params, state, image, "conv1", tmp_path / "m.png"))
    want = layers.outputs_at(net, params, state, image[None], ["conv1"])["conv1"][0]
    assert len(tiles) == 6
    for i, tile in enumerate(tiles):
        if i == 4:
            np.testing.assert_allclose(tile / 255, 0.5, atol=0.01)
        else:
            shown = values(tile, 28, 28)
            np.testing.assert_allclose(shown[..., 0], stretched(want[..., i]), atol=0.02)


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_begin_with_the_image_as_a_test_sees_it(tmp_path, channels):
    images = np.random.RandomState(0).uniform(size=(2, 6, 6, channels)).astype(np.float32)
    step = aug.Compose([aug.RandomFlip(), aug.RandomCrop(4)])
    key = jax.random.key(0)
    path = plot.augmentations(key, images, step, tmp_path / "a.png", copies=3)
    tiles = tiles_of(path)
    assert len(tiles) == 8
    drawn = aug.augment(key, jnp.repeat(images, 3, axis=0), step)
    for i, tile in enumerate(tiles):
        row, column = divmod(i, 4)
        want = images[row, 1:5, 1:5] if column == 0 else drawn[3 * row + column - 1]
        np.testing.assert_allclose(values(tile, 4, 4), np.broadcast_to(want, (4, 4, 3)), atol=0.01)


def test_a_grid_shows_images_as_they_are(tmp_path):
    images = np.linspace(-0.5, 1.5, 4 * 3 * 5).reshape(4, 3, 5, 1)
    tiles = tiles_of(plot.image_grid(images, tmp_path / "a.png", columns=2))
    for tile, image in zip(tiles, images, strict=True):
        want = np.clip(image, 0, 1).repeat(3, axis=-1)
        np.testing.assert_allclose(values(tile, 3, 5), want, atol=0.01)


def test_labels_are_words_in_an_svg(tmp_path):
    import matplotlib

    images = np.zeros((1, 4, 4, 1), np.float32)
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        path = plot.augmentations(
            jax.random.key(0), images, aug.RandomFlip(), tmp_path / "a.svg", "flips", copies=2
        )
    for word in ("flips", "original", "1", "2"):
        assert f">{word}<" in path.read_text()


@pytest.mark.parametrize(
    ("draw", "error", "told"),
    [
        (lambda p: plot.kernels(np.ones((5, 5)), p), ValueError, r"must be \(kh, kw, in, out\)"),
        (
            lambda p: plot.kernels(np.full((2, 2, 1, 1), np.nan), p),
            ValueError,
            "kernels: kernel: holds NaN or infinite values",
        ),
        (
            lambda p: plot.kernels(np.ones((3, 3, 64, 64)), p),
            ValueError,
            r"4096 tiles are more than one picture can show \(1024\); give a part",
        ),
        (lambda p: plot.image_grid(np.ones((2, 4, 4, 2)), p), ValueError, r"\(n, h, w, 1 or 3\)"),
        (lambda p: plot.image_grid(np.ones((2, 4, 4, 1)), p, columns=0), ValueError, "columns"),
        (
            lambda p: plot.feature_maps(
                layers.Dense("dense", 2), {"dense": DENSE}, {}, jnp.ones(3), "dense", p
            ),
            ValueError,
            r"feature_maps: the output of 'dense' must be \(h, w, c\), got \(2,\)",
        ),
        (
            lambda p: plot.feature_maps(
                layers.Dense("dense", 2), {"dense": DENSE}, {}, jnp.ones(3), "conv", p
            ),
            ValueError,
            r"no layer at 'conv'; the named layers are \['dense'\]",
        ),
    ],
)
def test_errors_leave_no_file(tmp_path, draw, error, told):
    with pytest.raises(error, match=told):
        draw(tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
