"""Learning curves."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxd2l.plot.figure import new_figure, save_figure


def learning_curve(
    history: Sequence[Mapping[str, Any]],
    path: str | os.PathLike[str],
    title: str = "",
) -> Path:
    """Loss and metrics by epoch, training beside test, written as a picture.

    Args:
      history: the records of `train.fit`: "epoch", "train_loss", "test_loss", ...
      path: of the picture; its ending chooses the format (.png, .svg, .pdf).

    Raises:
      ValueError: an empty history.
      ImportError: matplotlib is not installed.

    Example:
      >>> import tempfile
      >>> history = [{"epoch": e, "train_loss": 1 / e, "test_loss": 2 / e} for e in (1, 2, 3)]
      >>> learning_curve(history, Path(tempfile.mkdtemp()) / "curve.png").name
      'curve.png'
    """
    if not history:
        raise ValueError("learning_curve: the history is empty; train for at least one epoch")
    keys = [k for k in history[0] if k.startswith(("train_", "test_"))]
    names = sorted({k.split("_", 1)[1] for k in keys}, key=lambda n: (n != "loss", n))
    figure = new_figure(4.5 * len(names), 3.5)
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    for ax, name in zip(axes, names, strict=True):
        for part, style in (("train", "--"), ("test", "-")):
            points = [(r["epoch"], r[f"{part}_{name}"]) for r in history if f"{part}_{name}" in r]
            if points:
                marker = "o" if len(points) == 1 else ""
                ax.plot(*zip(*points, strict=True), style, marker=marker, label=part)
        ax.set_xlabel("epoch")
        ax.set_ylabel(name.replace("_", " "))
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(alpha=0.3)
        ax.legend()
    return save_figure(figure, path, title)
