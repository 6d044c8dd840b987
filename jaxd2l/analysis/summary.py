"""What can be said of a network before it runs: its summary table."""

import dataclasses
import json
from typing import Any

import jax.numpy as jnp

from jaxd2l.analysis.measure import Measure, Row
from jaxd2l.layers.core import Layer, Shape
from jaxd2l.layers.shapes import check_shape, output_shape


@dataclasses.dataclass(frozen=True)
class Summary:
    """A network measured without running it; `str`, `to_markdown` and `to_json` show it.

    Attributes:
      rows: one per layer, in order of execution, and one where branches join (`block/add`).
      input_shape: of one example.
      parameters, macs: totals; macs of the layers where they are known.
      statistics: how many running statistics.
      parameter_bytes: of parameters and statistics together.
      activation_bytes_training: of one example, kept for the backward pass: the input and every
        array that a layer makes, each once.
      activation_bytes_inference: of one example, the most that is alive at once; see `summarize`.
    """

    rows: tuple[Row, ...]
    input_shape: Shape
    parameters: int
    macs: int
    statistics: int
    parameter_bytes: int
    activation_bytes_training: int
    activation_bytes_inference: int

    @property
    def flops(self) -> int:
        """2 * macs: a multiplication and an addition each."""
        return 2 * self.macs

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
        lines += ["", *(f"- {total}" for total in _totals(self))]
        return "\n".join(lines).replace("*", r"\*")

    def to_json(self) -> str:
        """The same as a JSON object; fractions as strings such as "1/2"."""
        rows = [vars(row) | {"flops": row.flops} for row in self.rows]
        record = vars(self) | {"flops": self.flops, "rows": rows}
        return json.dumps(record, default=str)


def _per_axis(values: tuple[Any, ...] | None) -> str:
    if values is None:
        return "whole"
    if not values:
        return "-"
    shown = ["-" if v is None else str(v) for v in values]
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
                _per_axis(row.receptive_field) + "*" * row.exceeds_input,
                "-" if whole else _per_axis(row.jump),
                "-" if whole else _per_axis(row.start),
                f"{row.parameters:,}",
                "-" if row.macs is None else f"{row.macs:,}",
            ]
        )
    return head, body


def _totals(summary: Summary) -> list[str]:
    least = "at least " if any(row.macs is None for row in summary.rows) else ""
    lines = [
        f"parameters {summary.parameters:,} ({summary.parameter_bytes:,} bytes"
        + (f" with {summary.statistics:,} running statistics)" if summary.statistics else ")"),
        f"MACs per example {least}{summary.macs:,} ({summary.flops:,} FLOPs)",
        f"activations per example {summary.activation_bytes_training:,} bytes in training, "
        f"{summary.activation_bytes_inference:,} in inference",
    ]
    if flagged := sum(row.exceeds_input for row in summary.rows):
        size = "x".join(map(str, summary.input_shape[:-1] or summary.input_shape))
        read, add = ("layer reads", "it adds") if flagged == 1 else ("layers read", "they add")
        lines.append(
            f"* {flagged} {read} units that already see more than the input ({size}): "
            f"{add} depth, not context"
        )
    return lines


def summarize(net: Layer, input_shape: Any, dtype: Any = jnp.float32) -> Summary:
    """Measure a network: sizes, receptive fields, parameters, MACs and memory, layer by layer.

    The receptive field follows the geometry and ignores the borders of the input. A layer that
    mixes all positions (a dense layer after flattening, a global pool) sees the whole input, and
    so does everything after it. Where branches step differently their units are compared one by
    one, and follow no pattern (the stride is `-`).

    A user's function or a Flax module inside the network is measured by its trace, on a batch of
    one: its receptive field by `analysis.receptive_field`, along the axes that input and output
    share (the whole input where they do not correspond, as after a transposition); its MACs by
    `analysis.count_flops`: of all matrix products and convolutions, also those without parameters.

    A layer that combines several units through windows is flagged (`exceeds_input`, a `*` in the
    table) where each unit it reads sees more than the network's input on every axis, r > n, as in
    Richter et al.: it adds depth, not context. After a join the largest field of its branches
    counts, so past a shortcut the flag says that one path to the layer has seen all (the authors'
    toolbox takes the smallest). Behind a layer that sees the whole input nothing is flagged: a
    global mean knows no places, and windows after it still bring neighbours together.

    Memory, in bytes of `dtype`: a layer makes one array, its output, and so does a join; identity,
    flatten and reshape make none; nothing is fused or done in place, and what a layer needs inside
    itself is not counted. For training all these arrays are kept, and the input. In inference
    layers run one after another, branches in their order; an array goes when its last reader has
    made its own, and the most that is alive at once counts. Both are for one example and grow with
    the batch; parameters, gradients and the optimiser's memory come on top. Tests compare with
    what JAX keeps for the backward pass (0.7 to 1.1 times the figure for training) and with the
    temporary memory of programs that XLA compiles for a CPU (0.4 to 2.5 times either figure).

    Args:
      net: the network.
      input_shape: of one example, without the batch axis.
      dtype: of parameters and activations, for the bytes.

    Raises:
      ValueError: a layer cannot take its input.

    Warns:
      UserWarning: a function uses a primitive of which it is not known what it reads; it is taken
        to see the whole input.

    Source: receptive fields, Araujo, Norris & Sim, Distill 2019; border layers, Richter et al.
    2021, "Should You Go Deeper?", arXiv:2106.12307.

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
      activations per example 1,348 bytes in training, 1,024 in inference
    """
    output_shape(net, input_shape)  # refuses what does not fit, and says where
    shape = check_shape(input_shape)
    measured = Measure(net, shape, jnp.dtype(dtype))
    return Summary(
        tuple(measured.rows),
        shape,
        sum(row.parameters for row in measured.rows),
        sum(row.macs or 0 for row in measured.rows),
        measured.statistics,
        measured.parameter_bytes,
        measured.input_bytes + sum(row.activation_bytes for row in measured.rows),
        measured.most_alive,
    )
