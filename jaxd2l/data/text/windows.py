"""Stretches of a text to learn from: every target is the token after its input.

The data sets hold views of the tokens where they can, so overlapping windows cost no memory.
"""

from collections.abc import Sequence

import numpy as np

from jaxd2l.data.dataset import Dataset
from jaxd2l.data.text.vocab import check_indices
from jaxd2l.geometry import as_int

Tokens = Sequence[int] | np.ndarray


def _cut(tokens: Tokens, steps: int, offset: int, rows: int, where: str) -> np.ndarray:
    """The tokens from `offset` on, as int32; enough of them for `rows` rows of `steps`."""
    array = check_indices(tokens, 2**31, where).astype(np.int32, copy=False)
    skipped = as_int(offset, f"{where}: offset", 0)
    needed = as_int(steps, f"{where}: steps", 1) * rows + 1
    if len(array) - skipped < needed:
        after = f" after an offset of {skipped}" if skipped else ""
        raise ValueError(
            f"{where}: {rows} window(s) of {steps} steps and the token after need {needed:,} "
            f"tokens, got {max(0, len(array) - skipped):,}{after}; use a longer text or fewer steps"
        )
    return array[skipped:]


def windows(tokens: Tokens, steps: int) -> Dataset:
    """Every window of `steps` tokens, one starting at each token: n = len(tokens) - steps.

    The book's split, the first 10,000 windows to train and the next 5,000 to validate, is
    `windows(tokens[: 10_000 + steps], steps)` and
    `windows(tokens[10_000 : 15_000 + steps], steps)`.

    Shapes:
      tokens: (length,), integers >= 0; result: inputs and targets (n, steps) int32.

    Raises:
      TypeError: tokens that are not integers of shape (length,).
      ValueError: steps below 1, or fewer than steps + 1 tokens.

    Source: D2L 9.3.3 and 9.5 (its `TimeMachine`).

    Example:
      >>> data = windows([5, 6, 7, 8], 2)
      >>> data.inputs.tolist(), data.targets.tolist()
      ([[5, 6], [6, 7]], [[6, 7], [7, 8]])
    """
    cut = _cut(tokens, steps, 0, 1, "windows")
    every = np.lib.stride_tricks.sliding_window_view(cut, steps)
    return Dataset(every[:-1], every[1:])


def partition(tokens: Tokens, steps: int, offset: int = 0) -> Dataset:
    """Windows that do not overlap, in order: n = (len(tokens) - offset - 1) // steps.

    Shuffled by `Batches`, with another random `offset` in [0, steps) in every epoch, this is the
    book's random sampling.

    Shapes:
      tokens: (length,), integers >= 0; result: inputs and targets (n, steps) int32.

    Raises:
      TypeError: tokens that are not integers of shape (length,).
      ValueError: steps below 1, a negative offset, or too few tokens.

    Source: D2L 9.3.3; `seq_data_iter_random` of the first edition, 8.3.4.

    Example:
      >>> partition([5, 6, 7, 8, 9, 10], 2, offset=1).inputs.tolist()
      [[6, 7], [8, 9]]
    """
    cut = _cut(tokens, steps, offset, 1, "partition")
    n = (len(cut) - 1) // steps
    return Dataset(cut[: n * steps].reshape(n, steps), cut[1 : n * steps + 1].reshape(n, steps))


def adjacent(tokens: Tokens, batch_size: int, steps: int, offset: int = 0) -> Dataset:
    """Windows in such an order that row i of each batch goes on where row i of the last one ended.

    The text is cut into `batch_size` stretches of equal length, and row i walks through stretch i,
    so a recurrent state can be carried from batch to batch. There are
    k = (len(tokens) - offset - 1) // batch_size // steps batches, none of them short:
    `Batches(data, batch_size, shuffle=False)`.

    Shapes:
      tokens: (length,), integers >= 0; result: inputs and targets (k * batch_size, steps) int32.

    Raises:
      TypeError: tokens that are not integers of shape (length,).
      ValueError: batch_size or steps below 1, a negative offset, or too few tokens for one batch.

    Source: `seq_data_iter_sequential` of D2L's first edition, 8.3.4.

    Example:
      >>> adjacent(range(9), batch_size=2, steps=2).inputs.tolist()
      [[0, 1], [4, 5], [2, 3], [6, 7]]
    """
    rows = as_int(batch_size, "adjacent: batch_size", 1)
    cut = _cut(tokens, steps, offset, rows, "adjacent")
    stretch = (len(cut) - 1) // rows
    k = stretch // steps

    def ordered(part: np.ndarray) -> np.ndarray:
        walks = part.reshape(rows, stretch)[:, : k * steps].reshape(rows, k, steps)
        return walks.transpose(1, 0, 2).reshape(k * rows, steps)  # (batch, row, time)

    return Dataset(ordered(cut[: rows * stretch]), ordered(cut[1 : rows * stretch + 1]))
