"""Pictures of attention: what each query looks at, as heat maps."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxd2l.plot.figure import new_figure, save_figure
from jaxd2l.plot.images import finite

_MAX_PANELS = 256
_INCHES = 10.0  # width of all panels together, as far as they stay readable
_PANEL = (1.3, 4.5)  # inches of one: at least, at most
_TOKEN = 0.13  # inches of a token's label at least
_SHOWN = {" ": "␣", "\n": "↵", "\t": "⇥", "": "∅"}  # tokens that would not be seen


def attention(
    weights: Any,
    path: str | os.PathLike[str],
    title: str = "",
    *,
    queries: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
    labels: tuple[str, str] = ("queries", "keys"),
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
) -> Path:
    """Attention weights as heat maps on one scale, from 0 (pale) to the largest (dark red).

    Queries go down, keys to the right.

    Args:
      queries, keys: their tokens, written along the axes; blanks become visible signs.
      labels: of the two axes.
      rows, columns: names of the panels, such as "layer 1" and "head 1"; by default numbers
        from 1, where there are several.

    Shapes:
      weights: (q, k), one map; (heads, q, k), a row of them; (layers, heads, q, k), a grid, as the
        weights of several layers for one example.

    Raises:
      ValueError: another shape, values below 0 or not finite, names that do not fit the shape, or
        more than 256 panels.
      ImportError: matplotlib is not installed.

    Source: D2L 11.1 (show_heatmaps).

    Example:
      >>> import tempfile
      >>> place, words = Path(tempfile.mkdtemp()) / "map.png", ["time", "traveller"]
      >>> attention(np.eye(2), place, queries=words, keys=words).name
      'map.png'
    """
    where = "plot.attention"
    shape = np.shape(weights)
    if len(shape) not in (2, 3, 4) or 0 in shape:
        raise ValueError(f"{where}: weights must be ([[layers,] heads,] q, k), got {shape}")
    values = finite(weights, f"{where}: weights").reshape((1,) * (4 - len(shape)) + shape)
    if values.min() < 0:
        raise ValueError(f"{where}: weights must not be below 0, got {values.min():.3g}")
    down, across, q, k = values.shape
    if down * across > _MAX_PANELS:
        raise ValueError(
            f"{where}: {down * across} panels are more than one picture can show "
            f"({_MAX_PANELS}); give a part of them"
        )
    for names, size, name in (
        (queries, q, "queries"),
        (keys, k, "keys"),
        (rows, down, "rows"),
        (columns, across, "columns"),
    ):
        if names is not None and len(names) != size:
            raise ValueError(f"{where}: {name} must be {size} names for {shape}, got {len(names)}")
    if rows is None and down > 1:
        rows = [f"layer {i + 1}" for i in range(down)]
    if columns is None and across > 1:
        columns = [f"head {i + 1}" for i in range(across)]
    height, width = _size(q, k, across, queries, keys)
    figure = new_figure(across * width + 1.6, down * height + 0.9)
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    top = float(values.max()) or 1.0
    for (i, j), axes in np.ndenumerate(grid):
        image = axes.imshow(
            values[i, j], cmap="Reds", vmin=0, vmax=top, aspect="auto", interpolation="nearest"
        )
        axes.tick_params(labelsize=8)
        if i == 0 and columns is not None:
            axes.set_title(columns[j], fontsize=9, parse_math=False)
        if i == down - 1:
            axes.set_xlabel(labels[1])
        if j == 0:
            name = "" if rows is None else f"{rows[i]}\n"
            axes.set_ylabel(name + labels[0])
    for names, axis in ((keys, grid[0, 0].xaxis), (queries, grid[0, 0].yaxis)):
        if names is None:
            axis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        else:
            shown = [_SHOWN.get(name, name) for name in names]
            turned = axis.axis_name == "x" and max(map(len, shown)) > 1
            axis.set_ticks(range(len(shown)), shown, rotation=90 * turned, parse_math=False)
    figure.colorbar(
        image,
        ax=grid,
        shrink=min(1.0, 4 / (down * height)),
        fraction=0.15 / across,
        pad=0.02,
        label="weight",
    )
    return save_figure(figure, path, title)


def _size(
    q: int, k: int, across: int, queries: Sequence[str] | None, keys: Sequence[str] | None
) -> tuple[float, float]:
    """Height and width of a panel in inches: square cells, unless it were a thin strip."""
    least, most = _PANEL
    width = max(least, min(most, _INCHES / across))
    ratio = min(max(q / k, 1 / 4), 3)
    height = max(least, width * ratio)
    if keys is not None:
        width = max(width, _TOKEN * k)
    if queries is not None:
        height = max(height, _TOKEN * q)
    return height, width
