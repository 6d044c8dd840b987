"""Pictures of images: kernels, feature maps, samples of augmentation, all as one grid of tiles."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxd2l.geometry import as_int
from jaxd2l.layers import Layer, outputs_at
from jaxd2l.ops.augment import Augmentation, augment
from jaxd2l.plot.figure import new_figure, save_figure

MAX_TILES = 1024
_INCHES = 9.0  # width of a picture at most
_TILE = 0.9  # inches of a tile at most
_PIXELS = 32  # of the picture of a tile at least
_FRAME = (90, 140, 220, 255)


def _mosaic(tiles: np.ndarray, columns: int) -> tuple[np.ndarray, int, int]:
    """Tiles (n, h, w, 3) in rows, each in a thin blue frame, so that white ones can be told from
    the paper: (RGBA image, step in rows, step in columns).
    """
    factor = math.ceil(_PIXELS / max(tiles.shape[1:3]))
    shown = np.round(255 * np.clip(tiles, 0, 1)).astype(np.uint8)
    shown = shown.repeat(factor, axis=1).repeat(factor, axis=2)
    n, h, w, _ = shown.shape
    gap = max(6, max(h, w) // 12)
    down, right = h + gap, w + gap
    canvas = np.zeros((math.ceil(n / columns) * down, columns * right, 4), np.uint8)
    for i, tile in enumerate(shown):
        top, left = i // columns * down + gap // 2, i % columns * right + gap // 2
        canvas[top - 1 : top + h + 1, left - 1 : left + w + 1] = _FRAME
        canvas[top : top + h, left : left + w, :3] = tile
    return canvas, down, right


def _draw(
    tiles: np.ndarray,
    path: str | os.PathLike[str],
    title: str,
    columns: int,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
) -> Path:
    n = len(tiles)
    if n > MAX_TILES:
        raise ValueError(
            f"{n} tiles are more than one picture can show ({MAX_TILES}); give a part of them"
        )
    columns = min(columns, n)
    rows = math.ceil(n / columns)
    canvas, down, right = _mosaic(tiles, columns)
    scale = min(_TILE, _INCHES / columns) / max(down, right)  # inches of a pixel
    width = scale * columns * right + (0.15 + 0.08 * max(map(len, row_labels)) if row_labels else 0)
    height = scale * rows * down + (0.25 if column_labels else 0) + (0.4 if title else 0)
    figure = new_figure(max(2.5, width + 0.1), height + 0.1)
    axes = figure.subplots()
    axes.imshow(canvas, interpolation="nearest" if scale * 120 >= 1 else "antialiased")
    axes.set_frame_on(False)
    axes.tick_params(length=0, labelsize=8)
    axes.xaxis.tick_top()
    for ticks, step, labels in (
        (axes.set_xticks, right, column_labels),
        (axes.set_yticks, down, row_labels),
    ):
        ticks([step * (i + 0.5) - 0.5 for i in range(len(labels or []))], labels or [])
    return save_figure(figure, path, title)


def _stretched(tiles: np.ndarray) -> np.ndarray:
    """Each tile from its own minimum (black) to its own maximum (white); a flat one is gray."""
    low = tiles.min(axis=(1, 2, 3), keepdims=True)
    size = tiles.max(axis=(1, 2, 3), keepdims=True) - low
    return np.where(size > 0, (tiles - low) / np.where(size > 0, size, 1), 0.5)


def finite(array: Any, where: str) -> np.ndarray:
    """The array in float64, refused if it cannot be drawn."""
    values = np.asarray(array, np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{where}: holds NaN or infinite values, which cannot be drawn")
    return values


def image_grid(
    images: Any,
    path: str | os.PathLike[str],
    title: str = "",
    columns: int = 8,
) -> Path:
    """Images in [0, 1], gray or RGB, as they are; what lies outside [0, 1] is clipped.

    Shapes:
      images: (n, h, w, c), c 1 or 3.

    Raises:
      ValueError: another shape, values that are not finite, or more than 1024 images.
      ImportError: matplotlib is not installed. So do all pictures here.

    Example:
      >>> import tempfile
      >>> image_grid(np.zeros((3, 8, 8, 1)), Path(tempfile.mkdtemp()) / "a.png").name
      'a.png'
    """
    return _draw(_tiles(images, "image_grid: images"), path, title, as_int(columns, "columns", 1))


def _tiles(images: Any, what: str) -> np.ndarray:
    shape = np.shape(images)
    if len(shape) != 4 or shape[3] not in (1, 3) or 0 in shape:
        raise ValueError(f"{what} must have shape (n, h, w, 1 or 3), got {shape}")
    values = finite(images, what)
    return np.broadcast_to(values, (*shape[:3], 3))


def kernels(kernel: Any, path: str | os.PathLike[str], title: str = "", columns: int = 8) -> Path:
    """The kernels of a convolution, each from its own minimum (black) to its maximum (white).

    With 3 input channels as RGB, with 1 in gray. With more, each kernel is a row, with a tile for
    each input channel; the whole row has one scale.

    Shapes:
      kernel: (kh, kw, in, out), for instance `params["conv1"]["kernel"]`.

    Raises:
      ValueError: another shape, values that are not finite, or more than 1024 tiles.

    Source: Krizhevsky et al. 2012, figure 3; Zeiler & Fergus 2014.

    Example:
      >>> import tempfile
      >>> kernels(np.ones((5, 5, 1, 6)), Path(tempfile.mkdtemp()) / "kernels.png").name
      'kernels.png'
    """
    if np.ndim(kernel) != 4 or 0 in np.shape(kernel):
        raise ValueError(f"kernels: kernel must be (kh, kw, in, out), got {np.shape(kernel)}")
    values = finite(kernel, "kernels: kernel").transpose(3, 0, 1, 2)  # (out, kh, kw, in)
    values = _stretched(values)
    n, kh, kw, channels = values.shape
    if channels in (1, 3):
        return _draw(
            np.broadcast_to(values, (n, kh, kw, 3)), path, title, as_int(columns, "columns", 1)
        )
    tiles = values.transpose(0, 3, 1, 2).reshape(n * channels, kh, kw, 1)
    rows = [str(i) for i in range(n)]
    names = [str(i) for i in range(channels)] if channels <= 32 else None
    return _draw(np.broadcast_to(tiles, (*tiles.shape[:3], 3)), path, title, channels, rows, names)


def feature_maps(
    net: Layer,
    params: Any,
    state: Any,
    image: Any,
    layer: str,
    path: str | os.PathLike[str],
    title: str = "",
    columns: int = 8,
) -> Path:
    """The output of one layer for one image, a tile for each channel, each on its own scale.

    Black is the minimum of the channel and white its maximum; a channel that is the same
    everywhere is gray. The number at the left is the first channel of the row.

    Args:
      layer: the path of a named layer, `stage1/conv1`; `layers.layer_paths` lists them.

    Shapes:
      image: the input shape of the network, without a batch axis.

    Raises:
      ValueError: no such layer, an output that is not (h, w, c), or as `kernels`.

    Source: Zeiler & Fergus 2014.

    Example:
      >>> import tempfile
      >>> from jaxd2l import init, models
      >>> net = models.lenet()
      >>> params, state = init(net, jax.random.key(0), (28, 28, 1))
      >>> place = Path(tempfile.mkdtemp()) / "maps.png"
      >>> feature_maps(net, params, state, np.ones((28, 28, 1), np.float32), "conv1", place).name
      'maps.png'
    """
    y = outputs_at(net, params, state, jax.numpy.asarray(image)[None], [layer])[layer]
    if y.ndim != 4:
        raise ValueError(
            f"feature_maps: the output of {layer!r} must be (h, w, c), got {y.shape[1:]}"
        )
    maps = finite(y[0], f"feature_maps: the output of {layer!r}").transpose(2, 0, 1)[..., None]
    tiles = np.broadcast_to(_stretched(maps), (*maps.shape[:3], 3))
    rows = [str(i) for i in range(0, len(tiles), as_int(columns, "columns", 1))]
    return _draw(tiles, path, title or layer, columns, rows)


def augmentations(
    key: Any,
    images: Any,
    step: Augmentation,
    path: str | os.PathLike[str],
    title: str = "",
    copies: int = 7,
) -> Path:
    """Samples of an augmentation: each row an image as a test sees it, then `copies` draws of it.

    Shapes:
      key: (), one PRNG key; images: (n, h, w, c) in [0, 1], c 1 or 3.

    Raises:
      TypeError, ValueError: as `ops.augment.augment` and `image_grid`.

    Source: D2L 14.1.

    Example:
      >>> import tempfile
      >>> from jaxd2l.ops.augment import RandomFlip
      >>> images, place = np.zeros((2, 8, 8, 1), np.float32), Path(tempfile.mkdtemp()) / "a.png"
      >>> augmentations(jax.random.key(0), images, RandomFlip(), place).name
      'a.png'
    """
    tiles = _tiles(images, "augmentations: images")
    copies = as_int(copies, "copies", 1)
    images = jax.numpy.asarray(images)
    n = len(tiles)
    repeated = jax.numpy.repeat(images, copies, axis=0)
    drawn = np.asarray(augment(key, repeated, step))
    drawn = drawn.reshape(n, copies, *drawn.shape[1:])
    seen = np.asarray(jax.vmap(step.at_test)(images))[:, None]
    both = np.concatenate([seen, drawn], axis=1)
    both = both.reshape(-1, *both.shape[2:])  # (n * (1 + copies), h, w, c)
    names = ["original", *(str(i) for i in range(1, copies + 1))]
    return _draw(_tiles(both, "augmentations: the results"), path, title, copies + 1, None, names)
