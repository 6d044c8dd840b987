"""Pictures, by matplotlib (the extra `plot`); imported only when one is drawn."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def _figure(columns: int) -> tuple[Any, Any]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'jaxd2l[plot]'") from error
    # Not pyplot: no window, no global state, safe in threads.
    figure = Figure(figsize=(4.5 * columns, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


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
    figure, axes = _figure(len(names))
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
    if title:
        figure.suptitle(title)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path
