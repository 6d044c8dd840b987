"""What can be said of a network before it runs: its summary table."""

import dataclasses
import json
import math
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp

from jaxd2l.geometry import ReceptiveField
from jaxd2l.layers.composites import Parallel, Repeat, Serial, Split, Tied
from jaxd2l.layers.core import Layer, Shape
from jaxd2l.layers.shapes import (
    check_shape,
    combined_shape,
    label_of,
    output_shape,
    split_shape,
)

#: The receptive field along each spatial axis; None when every output sees the whole input.
Fields = tuple[ReceptiveField, ...] | None


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer of a summary. Sizes are of one example; the fields have one entry per axis.

    Attributes:
      path: where the layer stands, `stage1/conv1`.
      kind: its type.
      output_shape: without the batch axis.
      parameters: how many trained numbers.
      macs: multiply-accumulates of one example (1 MAC = 2 FLOPs); None where they are not known.
      receptive_field: pixels from the first to the last that one unit sees, per axis; None when
        it sees the whole input.
      jump: pixels between neighbouring units (the effective stride), per axis.
      start: the first pixel that unit 0 sees (negative: in the padding), per axis.
    """

    path: str
    kind: str
    output_shape: Shape
    parameters: int
    macs: int | None
    receptive_field: tuple[int, ...] | None
    jump: tuple[int | Fraction, ...] | None
    start: tuple[int | None, ...] | None


@dataclasses.dataclass(frozen=True)
class Summary:
    """A network measured without running it; `str`, `to_markdown` and `to_json` show it.

    Attributes:
      rows: one per layer, in order of execution, and one where branches join (`block/add`).
      input_shape: of one example.
      parameters, macs: totals; macs of the layers where they are known.
      statistics: how many running statistics.
      parameter_bytes: of parameters and statistics together.
    """

    rows: tuple[Row, ...]
    input_shape: Shape
    parameters: int
    macs: int
    statistics: int
    parameter_bytes: int

    def __str__(self) -> str:
        head, body = _cells(self)
        widths = [max(len(line[i]) for line in (head, *body)) for i in range(len(head))]
        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))

        def line(cells: list[str]) -> str:
            first = cells[0].ljust(widths[0])
            rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
            return "  ".join((first, *rest)).rstrip()

        return "\n".join([line(head), rule, *map(line, body), rule, *_totals(self)])

    def to_markdown(self) -> str:
        """The table in Markdown, and the totals below it."""
        head, body = _cells(self)
        align = [":--"] + ["--:"] * (len(head) - 1)
        lines = ["| " + " | ".join(cells) + " |" for cells in (head, align, *body)]
        return "\n".join([*lines, "", *(f"- {total}" for total in _totals(self))])

    def to_json(self) -> str:
        """The same as a JSON object; fractions as strings such as "1/2"."""
        return json.dumps(dataclasses.asdict(self), default=str)


def _per_axis(values: tuple[Any, ...] | None) -> str:
    if values is None:
        return "whole"
    if not values:
        return "-"
    shown = [str(v) for v in values]
    return shown[0] if len(set(shown)) == 1 else "x".join(shown)


def _cells(summary: Summary) -> tuple[list[str], list[list[str]]]:
    head = ["layer", "output", "receptive field", "stride", "start", "parameters", "MACs"]
    body = [["input", "x".join(map(str, summary.input_shape)), "", "", "", "", ""]]
    for row in summary.rows:
        size = "x".join(map(str, row.output_shape))
        whole = row.receptive_field is None
        body.append(
            [
                row.path,
                size,
                _per_axis(row.receptive_field),
                "-" if whole else _per_axis(row.jump),
                "-" if whole else _per_axis(row.start),
                f"{row.parameters:,}",
                "-" if row.macs is None else f"{row.macs:,}",
            ]
        )
    return head, body


def _totals(summary: Summary) -> list[str]:
    least = "at least " if any(row.macs is None for row in summary.rows) else ""
    return [
        f"parameters {summary.parameters:,} ({summary.parameter_bytes:,} bytes"
        + (f" with {summary.statistics:,} running statistics)" if summary.statistics else ")"),
        f"MACs per example {least}{summary.macs:,} ({2 * summary.macs:,} FLOPs)",
    ]


def summarize(net: Layer, input_shape: Any, dtype: Any = jnp.float32) -> Summary:
    """Measure a network: sizes, receptive fields, parameters and MACs, layer by layer.

    The receptive field follows the geometry and ignores the borders of the input. A layer that
    mixes all positions (a dense layer after flattening, a global pool) sees the whole input, and
    so does everything after it.

    Args:
      net: the network.
      input_shape: of one example, without the batch axis.
      dtype: of the parameters, for the bytes.

    Raises:
      ValueError: a layer cannot take its input, or branches of different strides are combined.

    Example:
      >>> from jaxd2l import layers
      >>> net = layers.Serial([layers.Conv("conv", 8, 3, stride=2), layers.Activation("relu")])
      >>> table = summarize(net, (9, 9, 1))
      >>> table.rows[0].output_shape, table.rows[0].receptive_field, table.parameters
      ((4, 4, 8), (3, 3), 80)
      >>> print(table)
      layer  output  receptive field  stride  start  parameters   MACs
      ----------------------------------------------------------------
      input   9x9x1
      conv    4x4x8                3       2      0          80  1,152
      relu    4x4x8                3       2      0           0      0
      ----------------------------------------------------------------
      parameters 80 (320 bytes)
      MACs per example 1,152 (2,304 FLOPs)
    """
    output_shape(net, input_shape)  # refuses what does not fit, and says where
    shape = check_shape(input_shape)
    measure = _Measure(jnp.dtype(dtype))
    measure.layer(net, (), shape, tuple(ReceptiveField() for _ in shape[:-1]), tied=False)
    rows = tuple(measure.rows)
    return Summary(
        rows,
        shape,
        sum(row.parameters for row in rows),
        sum(row.macs or 0 for row in rows),
        measure.statistics,
        measure.bytes,
    )


class _Measure:
    """The interpreter behind `summarize`: shape and receptive fields of one layer after another."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        self.rows: list[Row] = []
        self.statistics = 0
        self.bytes = 0

    def layer(
        self, layer: Layer, path: tuple[str, ...], shape: Shape, fields: Fields, tied: bool
    ) -> tuple[Shape, Fields]:
        path = path if layer.name is None else (*path, layer.name)
        match layer:
            case Serial(children):
                for child in children:
                    shape, fields = self.layer(child, path, shape, fields, tied)
                return shape, fields
            case Parallel(branches, combine) | Split(branches, combine):
                if isinstance(layer, Split):
                    shape = split_shape(shape, len(branches), path)
                ends = [self.layer(branch, path, shape, fields, tied) for branch in branches]
                out = combined_shape(combine, [end[0] for end in ends], path)
                fields = _union([end[1] for end in ends], path)
                self.row((*path, combine), type(layer).__name__, out, fields)
                return out, fields
            case Repeat(child, times):
                for i in range(times):
                    numbered = (*path[:-1], f"{path[-1]}[{i}]") if layer.name else (*path, f"[{i}]")
                    shape, fields = self.layer(child, numbered, shape, fields, tied)
                return shape, fields
            case Tied(_, child, _):
                return self.layer(child, path, shape, fields, True)
            case _:
                return self.leaf(layer, path, shape, fields, tied)

    def leaf(
        self, layer: Layer, path: tuple[str, ...], shape: Shape, fields: Fields, tied: bool
    ) -> tuple[Shape, Fields]:
        out = tuple(layer.output_shape(shape))
        windows = layer.windows(shape)
        if windows is None:
            fields = None
        elif windows and fields is not None:
            fields = tuple(f.then(w) for f, w in zip(fields, windows, strict=True))
        elif fields is not None:  # an embedding: what was the feature axis is now a spatial one
            fields += (ReceptiveField(),) * (len(out) - len(shape))
        drawn = jax.eval_shape(lambda key: layer.init(key, shape, self.dtype), jax.random.key(0))
        params, state = (jax.tree.leaves(tree) for tree in drawn)
        count = 0 if tied else sum(math.prod(p.shape) for p in params)
        if not tied:
            self.statistics += sum(math.prod(s.shape) for s in state)
            self.bytes += sum(math.prod(a.shape) * a.dtype.itemsize for a in (*params, *state))
        where = path if layer.name else (*path, label_of(layer))
        self.row(where, type(layer).__name__, out, fields, count, layer.macs(shape))
        return out, fields

    def row(
        self,
        path: tuple[str, ...],
        kind: str,
        out: Shape,
        fields: Fields,
        parameters: int = 0,
        macs: int | None = 0,
    ) -> None:
        self.rows.append(
            Row(
                "/".join(path),
                kind,
                out,
                parameters,
                macs,
                None if fields is None else tuple(f.size for f in fields),
                None if fields is None else tuple(f.jump for f in fields),
                None if fields is None else tuple(f.start for f in fields),
            )
        )


def _union(ends: list[Fields], path: tuple[str, ...]) -> Fields:
    known = [fields for fields in ends if fields is not None]
    if len(known) < len(ends):
        return None
    joined = known[0]
    for fields in known[1:]:
        try:
            joined = tuple(a.union(b) for a, b in zip(joined, fields, strict=True))
        except ValueError as error:
            error.add_note(f"in the branches at {'/'.join(path) or 'the top level'!r}")
            raise
    return joined
