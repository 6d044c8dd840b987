"""Pictures of many runs: learning curves with bands, and scores over two hyper-parameters."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxd2l.plot.figure import new_figure, save_figure

BAND = (10, 90)  # percentiles
_WRITTEN = 150  # cells that are still large enough for their figure


def learning_bands(
    curves: Mapping[str, Any],
    path: str | os.PathLike[str],
    title: str = "",
    *,
    ylabel: str = "loss",
    log: bool = False,
) -> Path:
    """Learning curves of several runs each: the median, and the band from the 10th to the 90th
    percentile.

    A run that diverged is not left out: what is not finite counts as infinitely high. The line ends
    where half of the runs have diverged, and the band reaches the top of all curves where more than
    a tenth have.

    Args:
      curves: {"adam": (s, epochs), ...}: what each is called in the legend, and a figure of each
        run after each epoch, such as `outcome.history["valid_loss"]` of `train.ensemble`.
      path: of the picture; its ending chooses the format (.png, .svg, .pdf).
      log: a logarithmic axis of the figures.

    Shapes: curves {name: (s, epochs)}; the epochs may differ.

    Raises:
      ValueError: no curves, other shapes, or values not above 0 with `log`.
      ImportError: matplotlib is not installed.

    Example:
      >>> import tempfile
      >>> runs = np.random.RandomState(0).rand(8, 5) + np.linspace(2, 1, 5)
      >>> learning_bands({"sgd": runs}, Path(tempfile.mkdtemp()) / "bands.png").name
      'bands.png'
    """
    where = "plot.learning_bands"
    if not curves:
        raise ValueError(f"{where}: there are no curves")
    arrays = {name: np.asarray(given, np.float64) for name, given in curves.items()}
    finite = np.concatenate([a[np.isfinite(a)] for a in arrays.values()])
    ceiling = finite.max(initial=1e-12)
    figure = new_figure(5.0, 3.6)
    axes = figure.subplots()
    for name, values in arrays.items():
        if values.ndim != 2 or 0 in values.shape:
            raise ValueError(f"{where}: {name!r} must be (s, epochs), got {values.shape}")
        if log and (values <= 0).any():
            raise ValueError(f"{where}: {name!r} has values not above 0; take log=False")
        known = np.where(np.isfinite(values), values, np.inf)
        low, middle, high = np.percentile(known, (BAND[0], 50, BAND[1]), axis=0, method="nearest")
        epochs = np.arange(1, values.shape[1] + 1)
        marker = "o" if len(epochs) == 1 else ""
        (line,) = axes.plot(epochs, _shown(middle), marker=marker, label=name)
        top = np.minimum(high, ceiling)
        axes.fill_between(epochs, _shown(low), top, color=line.get_color(), alpha=0.2, linewidth=0)
    if log:
        axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.set_ylabel(ylabel)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
    return save_figure(figure, path, title)


def _shown(values: np.ndarray) -> np.ndarray:
    """What is infinite interrupts a line."""
    return np.where(np.isfinite(values), values, np.nan)


def sweep_heat_map(
    scores: Any,
    values: Mapping[str, Any],
    path: str | os.PathLike[str],
    title: str = "",
    *,
    label: str = "validation loss",
    highest: bool = False,
) -> Path:
    """A score over two hyper-parameters: bright is good, the best is framed, crosses diverged.

    The first hyper-parameter goes down, the second to the right, in the order given. The colours
    end at three times the distance of the median from the best, so that a loss of 1e9 does not
    make all others look alike.

    Args:
      scores: of the runs of `train.sweep` over `train.grid(values)`; those of several keys averaged
        before.
      values: what was given to `train.grid`: {"learning_rate": (a,), "decay": (b,)}.
      label: what the scores are.
      highest: whether a high score is good, as an accuracy is.

    Shapes: scores (a, b) or (a b,).

    Raises:
      ValueError: not two hyper-parameters; scores of another size; none of them finite.
      ImportError: matplotlib is not installed.

    Example:
      >>> import tempfile
      >>> values = {"learning_rate": [0.01, 0.1], "decay": [0.0, 0.1, 1.0]}
      >>> place = Path(tempfile.mkdtemp()) / "map.png"
      >>> sweep_heat_map(np.arange(6.0), values, place).name
      'map.png'
    """
    where = "plot.sweep_heat_map"
    if len(values) != 2:
        raise ValueError(f"{where}: values must be of two hyper-parameters, got {list(values)}")
    down, across = (np.asarray(v) for v in values.values())
    shape = (down.size, across.size)
    given = np.asarray(scores, np.float64)
    if given.shape not in (shape, (down.size * across.size,)):
        raise ValueError(
            f"{where}: scores must be {shape} or ({down.size * across.size},), got {given.shape}"
        )
    table = np.ma.masked_invalid(given.reshape(shape))
    if table.mask.all():
        raise ValueError(f"{where}: no score is finite")
    figure = new_figure(1.8 + 0.62 * max(across.size, 3), 1.3 + 0.42 * max(down.size, 3))
    axes = figure.subplots()
    sign = -1 if highest else 1
    best = np.unravel_index((sign * table).argmin(), shape)
    end = _end(sign * table.compressed())
    low, high = sorted((float(table[best]), sign * end))
    colors = "viridis" if highest else "viridis_r"
    image = axes.imshow(table, cmap=colors, vmin=low, vmax=high, aspect="auto")
    _write(axes, table, image, shape)
    frame = {"fill": False, "edgecolor": "red", "linewidth": 2, "clip_on": False}
    axes.add_patch(_rectangle((best[1] - 0.5, best[0] - 0.5), frame))
    for axis, name, ticks in zip((axes.yaxis, axes.xaxis), values, (down, across), strict=True):
        axis.set_ticks(range(ticks.size), [f"{tick:.3g}" for tick in ticks])
        axis.set_label_text(name.replace("_", " "))
    beyond = ("min" if highest else "max") if (sign * table).max() > end else "neither"
    figure.colorbar(image, ax=axes, label=label, extend=beyond)
    return save_figure(figure, path, title)


def _end(scores: np.ndarray) -> float:
    """The worst score that still has a colour of its own; low is good."""
    best, middle, worst = scores.min(), np.median(scores), scores.max()
    return float(min(worst, best + 3 * (middle - best)) if middle > best else worst)


def _write(axes: Any, table: Any, image: Any, shape: tuple[int, int]) -> None:
    """Every score in its cell, a cross where there is none."""
    small = table.size > _WRITTEN
    for i, j in np.ndindex(shape):
        if table.mask is not np.ma.nomask and table.mask[i, j]:
            axes.text(j, i, "\N{MULTIPLICATION SIGN}", ha="center", va="center", color="gray")
        elif not small:
            red, green, blue, _ = image.cmap(image.norm(table[i, j]))
            dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
            text = f"{table[i, j]:.3g}"
            color = "white" if dark else "black"
            axes.text(j, i, text, ha="center", va="center", fontsize=8, color=color)


def _rectangle(corner: tuple[float, float], style: dict[str, Any]) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(corner, 1, 1, **style)
