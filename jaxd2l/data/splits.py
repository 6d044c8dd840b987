"""Cutting a data set: test parts, named sizes, and the folds of K-fold cross-validation."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxd2l.data.dataset import Dataset, Parts
from jaxd2l.geometry import as_int


def _order(n: int, seed: int | None, what: str) -> np.ndarray:
    """0..n-1, shuffled unless `seed` is None."""
    if seed is None:
        return np.arange(n)
    bits = np.random.PCG64(as_int(seed, f"{what}: seed", 0))
    return np.argsort(bits.random_raw(n), kind="stable")


def split(
    dataset: Dataset, sizes: Sequence[int] | Sequence[float], seed: int | None = None
) -> tuple[Dataset, ...]:
    """The data set cut into disjoint parts that cover it, shuffled by `seed` or in order (None).

    `sizes` are counts that sum to n, or fractions that sum to 1.

    Raises:
      ValueError: they sum to something else, or a part would be empty.
      TypeError: counts and fractions mixed.

    Source: D2L 3.6.3: choose models on a validation part and look at the test part once.

    Example:
      >>> data = Dataset(np.zeros((10, 2)), np.arange(10))
      >>> [part.targets.tolist() for part in split(data, (0.5, 0.3, 0.2))]
      [[0, 1, 2, 3, 4], [5, 6, 7], [8, 9]]
    """
    n = len(dataset)
    if all(isinstance(size, int | np.integer) and not isinstance(size, bool) for size in sizes):
        counts = [int(size) for size in sizes]
        if sum(counts) != n:
            raise ValueError(f"split: sizes {tuple(counts)} sum to {sum(counts)}, not to {n}")
        ends = np.cumsum(counts)
    elif all(isinstance(size, float | np.floating) for size in sizes):
        total = float(sum(sizes))
        if not abs(total - 1.0) < 1e-6:
            raise ValueError(f"split: fractions {tuple(sizes)} sum to {total:g}, not to 1")
        ends = np.rint(np.cumsum(sizes) * n).astype(int)
        counts = np.diff(ends, prepend=0).tolist()
    else:
        raise TypeError(f"split: give counts or fractions, not a mixture, got {tuple(sizes)}")
    if not counts or min(counts) < 1:
        raise ValueError(f"split: {tuple(sizes)} of {n} examples leaves an empty part")
    parts = np.split(_order(n, seed, "split"), ends[:-1])
    return tuple(dataset.take(part) for part in parts)


def _check_held(n: int, held: int) -> None:
    if not 1 <= held < n:
        raise ValueError(
            f"cannot hold out {held:,} of {n:,} examples: both parts need at least one"
        )


def train_test_split(dataset: Dataset, test: int | float = 0.2, seed: int = 0) -> Parts:
    """Part of the examples, chosen at random by `seed`, held out for testing.

    `test` is a count (int) or a fraction (float).

    Raises:
      ValueError: a part would be empty.

    Example:
      >>> data = Dataset(np.zeros((10, 2)), np.arange(10))
      >>> [len(part) for part in train_test_split(data, 0.3)]
      [7, 3]
    """
    n = len(dataset)
    held = round(test * n) if isinstance(test, float) else test
    _check_held(n, held)
    return Parts(*split(dataset, (n - held, held), as_int(seed, "train_test_split: seed", 0)))


def hold_out_last(dataset: Dataset, n: int) -> Parts:
    """The last `n` examples held out for testing, the order kept.

    Raises:
      ValueError: a part would be empty.

    Example:
      >>> data = Dataset(np.zeros((10, 2)), np.arange(10))
      >>> hold_out_last(data, 2).test.targets
      array([8, 9], dtype=int32)
    """
    held = as_int(n, "hold_out_last: n", 1)
    _check_held(len(dataset), held)
    return Parts(*split(dataset, (len(dataset) - held, held)))


class Fold(NamedTuple):
    """Indices of the examples to train on and to validate on."""

    train: np.ndarray
    valid: np.ndarray


def k_folds(n: int, k: int, seed: int | None = None) -> tuple[Fold, ...]:
    """K folds of `n` examples: each example validates in exactly one fold, trains in the others.

    The validation parts differ in size by at most one. Shuffled by `seed`, or in order (None).

    Raises:
      ValueError: `k` below 2 or above `n`.

    Source: D2L 3.6.3 and 5.7.6.

    Example:
      >>> [fold.valid.tolist() for fold in k_folds(5, 2)]
      [[0, 1, 2], [3, 4]]
    """
    count = as_int(n, "k_folds: n", 2)
    folds = as_int(k, "k_folds: k", 2)
    if folds > count:
        raise ValueError(f"k_folds: {folds} folds of {count} examples; k must be at most n")
    parts = np.array_split(_order(count, seed, "k_folds"), folds)
    return tuple(
        Fold(np.concatenate([*parts[:i], *parts[i + 1 :]]), part) for i, part in enumerate(parts)
    )
