"""Pictures of the ways that optimisers take, on the contours of what they minimise."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxd2l.plot.figure import new_figure, save_figure
from jaxd2l.plot.images import finite

_GRID = 101  # points a side
_LEVELS = 14
_COLUMNS = 4
_PANEL = (3.0, 2.7)  # inches


def trajectories(
    f: Callable[[Any], Any],
    paths: Mapping[str, Any],
    path: str | os.PathLike[str],
    title: str = "",
) -> Path:
    """The points that each optimiser went through, a panel for each, over the contours of f.

    All panels show the same part of the plane: what all paths cover, and a margin. The contours
    are spaced by the square root of the height, so that those of a bowl are evenly far apart. The
    start is a square, the end a dot.

    Args:
      f: (2,) -> (), a JAX function of a point.
      paths: the points by name, such as {"Adam": points}.
      path: of the picture; its ending chooses the format (.png, .svg, .pdf).

    Shapes: paths: each (k, 2), the start first.

    Raises:
      ValueError: no paths, a path that is not (k, 2) or not finite, or f nowhere finite.
      ImportError: matplotlib is not installed.

    Source: D2L 12 (show_trace_2d).

    Example:
      >>> import tempfile
      >>> f, steps = lambda x: 0.1 * x[0] ** 2 + 2 * x[1] ** 2, np.arange(9)[:, None]
      >>> points = np.array([-5.0, -2.0]) * (1 - 0.4 * np.array([0.2, 4.0])) ** steps
      >>> trajectories(f, {"gradient descent": points}, Path(tempfile.mkdtemp()) / "way.png").name
      'way.png'
    """
    where = "plot.trajectories"
    if not paths:
        raise ValueError(f"{where}: there are no paths; give points by name")
    points = {}
    for name, way in paths.items():
        if np.ndim(way) != 2 or np.shape(way)[1] != 2 or not len(way):
            raise ValueError(f"{where}: path {name!r} must be (k, 2), got {np.shape(way)}")
        points[name] = finite(way, f"{where}: path {name!r}")
    everything = np.concatenate(list(points.values()))
    low, high = everything.min(0), everything.max(0)
    margin = 0.1 * np.maximum(high - low, 1e-3 + 0.1 * (high - low).max())
    sides = np.linspace(low - margin, high + margin, _GRID)  # (_GRID, 2)
    plane = np.stack(np.meshgrid(*sides.T), axis=-1).astype(np.float32)
    heights = np.asarray(jax.vmap(jax.vmap(f))(jnp.asarray(plane)))
    if not np.isfinite(heights).any():
        raise ValueError(f"{where}: f is nowhere finite on the part of the plane to be shown")
    heights = np.ma.masked_invalid(heights)
    bottom, top = heights.min(), heights.max()
    levels = bottom + (top - bottom) * np.linspace(0, 1, _LEVELS + 1)[1:] ** 2
    across = min(_COLUMNS, len(points))
    down = -(-len(points) // across)
    figure = new_figure(across * _PANEL[0], down * _PANEL[1])
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(points) :]:
        axes.remove()
    for axes, (name, way) in zip(grid.flat, points.items(), strict=False):
        if top > bottom:
            axes.contour(*plane.transpose(2, 0, 1), heights, levels, cmap="Blues_r", linewidths=0.7)
        axes.plot(*way.T, "-o", color="tab:orange", markersize=2.5, linewidth=1.2)
        axes.plot(*way[0], "s", color="tab:green", markersize=5)
        axes.plot(*way[-1], "o", color="tab:red", markersize=5)
        axes.set_title(name, fontsize=9, parse_math=False)
        axes.tick_params(labelsize=8)
    for axes in grid[:, 0]:
        axes.set_ylabel("x2")
    for column in range(across):
        last = grid[(len(points) - 1 - column) // across, column]
        last.set_xlabel("x1")
        last.tick_params(labelbottom=True)
    return save_figure(figure, path, title)
