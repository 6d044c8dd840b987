"""Pictures of receptive fields: of a unit over an image, as measured, and their growth by layer."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxd2l.analysis import EffectiveReceptiveField, Summary
from jaxd2l.geometry import ReceptiveField, as_int
from jaxd2l.plot.figure import new_figure, save_figure
from jaxd2l.plot.images import finite

_PADDING = "0.88"  # gray of what lies outside the image
_MOST_LABELS = 45  # layers named below the growth
_PASS_ON = ("Identity", "Parallel", "Split")  # rows whose field was that of a row before

Fields = Sequence[ReceptiveField]
#: First and last pixel along the rows, then along the columns.
Box = tuple[tuple[int, int], tuple[int, int]]


def receptive_field(
    image: Any,
    fields: Fields | Mapping[str, Fields],
    path: str | os.PathLike[str],
    title: str = "",
    *,
    unit: Sequence[int] | None = None,
) -> Path:
    """What one unit sees: a rectangle over the image, in gray where it reaches into the padding.

    Args:
      fields: of the rows and of the columns, as `jaxd2l.analysis.receptive_field` gives them. Or,
        for several layers, {name: fields} from the first layer up: a rectangle each.
      unit: its row and column in the feature map; of several layers in the last. By default the
        unit that looks at the middle of the image. Of the layers before the last that unit is
        taken which looks nearest to the same place.

    Shapes:
      image: (h, w), (h, w, 1) or (h, w, 3), in [0, 1].

    Raises:
      ValueError: no image, no fields of two axes, or a unit that sees nothing.
      ImportError: matplotlib is not installed.

    Source: D2L 7.2; Araujo, Norris & Sim, Distill 2019, doi:10.23915/distill.00021.

    Example:
      >>> import tempfile
      >>> from jaxd2l import geometry
      >>> field = geometry.receptive_field([geometry.Window(5, 1, 2), geometry.Window(2, 2)])
      >>> place = Path(tempfile.mkdtemp()) / "field.png"
      >>> receptive_field(np.zeros((28, 28)), (field, field), place, unit=(3, 4)).name
      'field.png'
    """
    where = "plot.receptive_field"
    shown = _image(where, image)
    several = fields if isinstance(fields, Mapping) else {"": fields}
    if not several:
        raise ValueError(f"{where}: fields is empty")
    pairs = [_pair(where, pair, name) for name, pair in several.items()]
    middle = [(n - 1) / 2 for n in shown.shape[:2]]
    if unit is None:
        last = tuple(map(_nearest, pairs[-1], middle))
    else:
        last = tuple(as_int(i, f"{where}: each of unit", 0) for i in unit)
        if len(last) != 2:
            raise ValueError(f"{where}: unit must be (row, column), got {unit!r}")
    target = [(first + end) / 2 for first, end in _box(where, pairs[-1], last)]
    units = [tuple(map(_nearest, pair, target)) for pair in pairs[:-1]] + [last]
    boxes = [_box(where, pair, at) for pair, at in zip(pairs, units, strict=True)]
    figure, axes = _canvas(shown, boxes)
    for name, at, box, color in zip(several, units, boxes, _colors(len(boxes)), strict=True):
        _rectangle(axes, box, color, f"{name or 'unit'} {at}: {_size(box)}")
    for color, width in (("white", 3), ("black", 1)):
        axes.plot(target[1], target[0], "+", color=color, markersize=7, markeredgewidth=width)
    _legend(figure, axes)
    return save_figure(figure, path, title, tight=True)


def effective_field(
    image: Any,
    effective: EffectiveReceptiveField,
    path: str | os.PathLike[str],
    title: str = "",
    *,
    fields: Fields | None = None,
) -> Path:
    """The gradient map over the image: brighter where a pixel moves the unit more.

    The image is in faded gray. Color and opacity grow with the root of the map, so that what is
    small stays visible. A rectangle shows the width, mean +- 2 standard deviations.

    Args:
      effective: from `jaxd2l.analysis.effective_receptive_field`.
      fields: the theoretical field of the rows and of the columns, drawn for the same unit.

    Shapes:
      image: (h, w), (h, w, 1) or (h, w, 3), in [0, 1]; the map is (h, w).

    Raises:
      ValueError: image and map differ in size, or the map belongs to the whole output and the
        fields to single units.
      ImportError: matplotlib is not installed.

    Source: Luo, Li, Urtasun & Zemel, NIPS 2016, arXiv:1701.04128.

    Example:
      >>> import tempfile
      >>> field = EffectiveReceptiveField(np.outer([0, 0.5, 0.5], [0.2, 0.6, 0.2]), (1, 1))
      >>> effective_field(np.zeros((3, 3)), field, Path(tempfile.mkdtemp()) / "map.png").name
      'map.png'
    """
    from matplotlib.colors import PowerNorm

    where = "plot.effective_field"
    shown = _image(where, image)
    if not isinstance(effective, EffectiveReceptiveField):
        raise TypeError(f"{where}: wanted an EffectiveReceptiveField, got {effective!r}")
    if effective.map.shape != shown.shape[:2]:
        raise ValueError(
            f"{where}: the map is {effective.map.shape}, the image {shown.shape[:2]}; "
            f"measure it for an input of the image's size"
        )
    boxes = []
    if fields is not None:
        pair = _pair(where, fields, "fields")
        if effective.unit is None and any(f.shift != 0 for f in pair):
            raise ValueError(
                f"{where}: the map is of the whole output and the fields are of single units; "
                f"leave them out"
            )
        boxes = [_box(where, pair, effective.unit or (0, 0))]
    faded = 0.2 + 0.6 * shown.mean(-1, keepdims=True).repeat(3, -1)
    figure, axes = _canvas(faded, boxes)
    values = effective.map / effective.map.max()
    heat = axes.imshow(
        values,
        cmap="inferno",
        norm=PowerNorm(0.5, 0, 1),
        alpha=0.85 * np.sqrt(values),
        zorder=1.5,
    )
    limits = axes.get_xlim(), axes.get_ylim()
    for box in boxes:
        _rectangle(axes, box, "tab:cyan", f"theoretical: {_size(box)}")
    (y, x), (height, width) = effective.mean, effective.width
    _outline(
        axes,
        (x - width / 2, y - height / 2, width, height),
        "tab:green",
        f"4 standard deviations: {height:.1f}x{width:.1f}",
    )
    axes.set_xlim(*limits[0])
    axes.set_ylim(*limits[1])
    bar = figure.colorbar(heat, cax=axes.inset_axes((1.03, 0, 0.04, 1)))
    bar.set_label("share of the largest gradient", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.solids.set_alpha(1)
    _legend(figure, axes, "outside lower center")
    return save_figure(figure, path, title, tight=True)


def growth(summary: Summary, path: str | os.PathLike[str], title: str = "") -> Path:
    """The size of the receptive field by layer; a dashed line at the size of the input.

    Layers stand in the order of execution; joins, and layers that see just what the row before
    them sees (activations, norms), are left out. The line is the largest field so far: dots below
    it are shorter branches. Red layers slide a window over units that see more than the input
    already: they add depth, not context. A star is a layer that sees the whole input.

    Args:
      summary: from `jaxd2l.summarize`.

    Raises:
      ValueError: the network has no spatial axes.
      ImportError: matplotlib is not installed.

    Source: D2L 7.2; Araujo, Norris & Sim, Distill 2019, doi:10.23915/distill.00021.

    Example:
      >>> import tempfile
      >>> from jaxd2l import models, summarize
      >>> table = summarize(models.lenet(), (28, 28, 1))
      >>> growth(table, Path(tempfile.mkdtemp()) / "growth.png").name
      'growth.png'
    """
    extent = summary.input_shape[:-1]
    if not extent:
        raise ValueError(
            f"plot.growth: an input {summary.input_shape} has no spatial axes, so that no field "
            f"can grow"
        )
    rows = []
    seen: tuple[int, ...] | None = (1,) * len(extent)
    for row in summary.rows:
        if row.receptive_field != seen and row.kind not in _PASS_ON:
            rows.append(row)
        seen = row.receptive_field
    whole = [row.receptive_field is None for row in rows]
    sizes = np.array([row.receptive_field or extent for row in rows]).reshape(-1, len(extent))
    figure = new_figure(min(15.0, max(5.0, 3.5 + 0.2 * len(rows))), 4.5)
    axes = figure.subplots()
    x = np.arange(len(rows))
    lines: dict[tuple[int, ...], list[int]] = {}
    for axis in range(len(extent)):  # axes that are alike share a line
        lines.setdefault((extent[axis], *sizes[:, axis].tolist()), []).append(axis)
    for number, alike in enumerate(lines.values()):
        line, color, axis = sizes[:, alike[0]], f"C{(0, 1, 2, 4)[number % 4]}", alike[0]
        name = "" if len(lines) == 1 else " of " + ", ".join(_axis(a, len(extent)) for a in alike)
        axes.plot(x, np.maximum.accumulate(line), color=color, alpha=0.5, zorder=1)
        axes.axhline(extent[axis], color=color, linestyle="--", linewidth=1, label=f"input{name}")
        exceeds = np.array([row.exceeds_input for row in rows], bool)
        for chosen, style in (
            (~exceeds & ~np.array(whole, bool), {"c": color, "label": f"receptive field{name}"}),
            (exceeds, {"c": "C3", "label": "adds depth, not context"}),
            (np.array(whole, bool), {"c": color, "marker": "*", "s": 80, "label": "whole input"}),
        ):
            if chosen.any():
                axes.scatter(x[chosen], line[chosen], **{"s": 18, "zorder": 2, **style})
    step = math.ceil(max(1, len(rows)) / _MOST_LABELS)
    axes.set_xticks(x[::step], [row.path for row in rows[::step]], rotation=90, fontsize=7)
    axes.set_ylabel("pixels")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    _legend(figure, axes)
    return save_figure(figure, path, title, tight=True)


def _axis(axis: int, rank: int) -> str:
    return {2: ("rows", "columns"), 3: ("planes", "rows", "columns")}.get(
        rank, [f"axis {i}" for i in range(rank)]
    )[axis]


def _image(where: str, image: Any) -> np.ndarray:
    """The image as (h, w, 3) in [0, 1]."""
    shape = np.shape(image)
    if len(shape) not in (2, 3) or 0 in shape or shape[2:] not in ((), (1,), (3,)):
        raise ValueError(f"{where}: the image must be (h, w), (h, w, 1) or (h, w, 3), got {shape}")
    values = np.clip(finite(image, f"{where}: the image"), 0, 1)
    return np.broadcast_to(values.reshape(*shape[:2], -1), (*shape[:2], 3))


def _pair(where: str, fields: Any, name: str) -> tuple[ReceptiveField, ReceptiveField]:
    named = f" of {name!r}" if name else ""
    if isinstance(fields, ReceptiveField):
        raise ValueError(
            f"{where}: the fields{named} must be two, of the rows and of the columns; "
            f"got one: where both are alike give (field, field)"
        )
    pair = tuple(fields) if isinstance(fields, Sequence) else ()
    if len(pair) != 2 or not all(isinstance(f, ReceptiveField) for f in pair):
        raise ValueError(
            f"{where}: the fields{named} must be two ReceptiveFields, of the rows and of the "
            f"columns, got {fields!r}"
        )
    return pair


def _nearest(field: ReceptiveField, target: float) -> int:
    """The unit whose middle lies nearest to a pixel; the first of equals."""
    units = period = len(field.intervals)
    if field.shift:
        pixels = abs(target - (field.start or 0)) + field.size
        units += period * math.ceil(pixels / abs(field.shift))
    centres = [(unit, field.centre(unit)) for unit in range(units)]
    known = [(abs(float(centre) - target), unit) for unit, centre in centres if centre is not None]
    return min(known)[1] if known else 0


def _box(where: str, pair: tuple[ReceptiveField, ReceptiveField], unit: tuple[int, ...]) -> Box:
    rows, columns = (field.interval(i) for field, i in zip(pair, unit, strict=True))
    if rows is None or columns is None:
        raise ValueError(f"{where}: the unit {unit} sees nothing; choose another")
    return rows, columns


def _size(box: Box) -> str:
    return "x".join(str(last - first + 1) for first, last in box)


def _colors(n: int) -> list[Any]:
    """Red for one rectangle; for several through a color map, from dark to bright."""
    if n == 1:
        return ["tab:red"]
    import matplotlib

    return [matplotlib.colormaps["plasma"](0.95 * i / (n - 1)) for i in range(n)]


def _canvas(image: np.ndarray, boxes: Sequence[Box]) -> tuple[Any, Any]:
    """A figure with the image, its border, and room for boxes that reach beyond it."""
    h, w, _ = image.shape
    rows = [(0, h - 1), *(box[0] for box in boxes)]
    columns = [(0, w - 1), *(box[1] for box in boxes)]
    top, bottom = min(a for a, _ in rows) - 0.5, max(b for _, b in rows) + 0.5
    left, right = min(a for a, _ in columns) - 0.5, max(b for _, b in columns) + 0.5
    margin = 0.02 * max(bottom - top, right - left)
    scale = 4.5 / max(bottom - top, right - left)
    figure = new_figure(
        max(2.5, scale * (right - left)) + 1.9, max(2.2, scale * (bottom - top)) + 0.5
    )
    axes = figure.subplots()
    axes.set_facecolor(_PADDING)
    axes.imshow(image, interpolation="nearest", zorder=1)
    _outline(axes, (-0.5, -0.5, w, h), "black", None, linewidth=0.8)
    axes.set_xlim(left - margin, right + margin)
    axes.set_ylim(bottom + margin, top - margin)
    axes.set_aspect("equal")
    axes.tick_params(labelsize=7)
    return figure, axes


def _rectangle(axes: Any, box: Box, color: Any, label: str) -> None:
    (top, bottom), (left, right) = box
    _outline(axes, (left - 0.5, top - 0.5, right - left + 1, bottom - top + 1), color, label)


def _outline(
    axes: Any,
    place: tuple[float, float, float, float],
    color: Any,
    label: str | None,
    linewidth: float = 1.6,
) -> None:
    """A rectangle (left, top, width, height) that can be told from any image below it."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import Normal, Stroke

    left, top, width, height = place
    patch = Rectangle(
        (left, top), width, height, fill=False, edgecolor=color, linewidth=linewidth, label=label
    )
    if label:
        patch.set_path_effects([Stroke(linewidth=linewidth + 1.6, foreground="white"), Normal()])
    patch.set_zorder(2)
    axes.add_patch(patch)


def _legend(figure: Any, axes: Any, place: str = "outside right upper") -> None:
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc=place, fontsize=8)
