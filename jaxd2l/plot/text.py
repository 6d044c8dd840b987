"""How often tokens come: the law of Zipf."""

import itertools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxd2l.plot.figure import new_figure, save_figure

STYLES = ("-", "--", "-.", ":")


def frequencies(
    counts: Mapping[str, Mapping[Any, int] | Iterable[int]],
    path: str | os.PathLike[str],
    title: str = "",
) -> Path:
    """Counts of tokens over their rank, the most frequent first, on logarithmic axes.

    A straight line is a power law, n(x) ~ x^-a: words follow one, and so do pairs and triples.

    Args:
      counts: for every line its name, "unigram", and the counts: a Counter, or numbers in any
        order. Zeros are left out.
      path: of the picture; its ending chooses the format (.png, .svg, .pdf).

    Raises:
      ValueError: no lines, a line without a count above 0, a negative or infinite count.
      ImportError: matplotlib is not installed.

    Source: D2L 9.2.4.

    Example:
      >>> import collections, tempfile
      >>> words = collections.Counter("to be or not to be".split())
      >>> frequencies({"unigram": words}, Path(tempfile.mkdtemp()) / "zipf.png").name
      'zipf.png'
    """
    if not counts:
        raise ValueError('frequencies: nothing to draw; give {"unigram": counts}')
    lines = {}
    for name, given in counts.items():
        values = given.values() if isinstance(given, Mapping) else given
        line = np.sort(np.fromiter(values, np.float64))[::-1]
        if line.size == 0 or not (0 < line[0] < np.inf and line[-1] >= 0):
            raise ValueError(
                f"frequencies: the counts of {name!r} must be 0 or more, and some above 0"
            )
        lines[name] = line[line > 0]
    figure = new_figure(4.5, 3.5)
    ax = figure.subplots()
    for (name, line), style in zip(lines.items(), itertools.cycle(STYLES), strict=False):
        marker = "o" if len(line) == 1 else ""
        ax.plot(np.arange(1, len(line) + 1), line, style, marker=marker, label=name)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("rank of the token")
    ax.set_ylabel("frequency")
    ax.grid(alpha=0.3)
    ax.legend()
    return save_figure(figure, path, title)
