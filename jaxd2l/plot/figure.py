"""What every picture begins and ends with: a figure without pyplot, and its file."""

import os
from pathlib import Path
from typing import Any


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure of this size in inches.

    Raises:
      ImportError: matplotlib is not installed.

    Example:
      >>> new_figure(4.5, 3.5).get_size_inches().tolist()
      [4.5, 3.5]
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'jaxd2l[plot]'") from error
    # Not pyplot: no window, no global state, safe in threads.
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: str | os.PathLike[str], title: str, tight: bool = False) -> Path:
    """Write the figure; the ending of the path chooses the format (.png, .svg, .pdf). A tight one
    is as large as what is drawn, with what stands outside of the axes.

    Example:
      >>> import tempfile
      >>> save_figure(new_figure(1, 1), Path(tempfile.mkdtemp()) / "new" / "a.png", "").name
      'a.png'
    """
    if title:
        figure.suptitle(title)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, bbox_inches="tight" if tight else None)
    return path
