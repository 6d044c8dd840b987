"""Shuffled batches of one fixed shape, whose position can be stored and taken up again."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxd2l.data.dataset import Dataset
from jaxd2l.geometry import as_int, iterations_per_epoch


class Batch(NamedTuple):
    """One batch, a pytree of fresh host arrays.

    Shapes:
      inputs: (b, ...) float32.
      targets: (b,) int32 or (b, ...) float32.
      mask: (b,) bool, False for the rows that only fill up a short last batch.
      indices: (b,) int32, which example of the data set each row is.
    """

    inputs: np.ndarray
    targets: np.ndarray
    mask: np.ndarray
    indices: np.ndarray


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order of `n` examples in an epoch: a permutation that depends on (seed, epoch) alone.

    Made from PCG64's raw stream, which NumPy promises not to change, by a stable sort; so a run
    can be resumed under another version of NumPy.

    Example:
      >>> epoch_order(5, seed=0, epoch=0)
      array([3, 1, 4, 2, 0], dtype=int32)
    """
    bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(epoch,)))
    return np.argsort(bits.random_raw(n), kind="stable").astype(np.int32)


class Batches:
    """A data set cut into batches of exactly `batch_size` examples, anew in every epoch.

    Every batch has the same shape, so that nothing is compiled twice. The short last batch is
    filled up with examples from the start of the same epoch, marked False in `mask` (real ones,
    so that no layer sees values that do not occur), or left out with `drop_last=True`. What
    comes is a function of (seed, epoch, step): `epoch(e, start=s)` continues at step `s`. The
    arrays are fresh copies: on a CPU, JAX keeps using the memory of a NumPy array that it was
    given, so a loader must never fill a buffer twice.

    Raises:
      ValueError: a batch size below 1, a negative seed, or `drop_last` with fewer examples than
        one batch.

    Source: D2L 3.3.2 (its iterator gives a short last batch whenever the batch size does not divide
    the number of examples, not only when it is larger).

    Example:
      >>> data = Dataset(np.arange(10.0).reshape(5, 2), np.arange(5))
      >>> batches = Batches(data, batch_size=2, seed=0, shuffle=False)
      >>> len(batches)
      3
      >>> [batch.targets.tolist() for batch in batches.epoch(0)]
      [[0, 1], [2, 3], [4, 0]]
      >>> [batch.mask.tolist() for batch in batches.epoch(0, start=2)]
      [[True, False]]
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
    ) -> None:
        self.dataset = dataset
        self.batch_size = as_int(batch_size, "Batches: batch_size", 1)
        self.seed = as_int(seed, "Batches: seed", 0)
        self.shuffle = bool(shuffle)
        self.drop_last = bool(drop_last)
        if len(self) == 0:
            raise ValueError(
                f"Batches: drop_last with batch_size {batch_size} leaves nothing of "
                f"{len(dataset)} examples; use a smaller batch or drop_last=False"
            )

    def __len__(self) -> int:
        """The number of batches (iterations, steps) in an epoch."""
        return iterations_per_epoch(len(self.dataset), self.batch_size, self.drop_last)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from step `start` on.

        Raises:
          ValueError: a negative epoch, or a start outside [0, len(self)].
        """
        number = as_int(epoch, "Batches.epoch: epoch", 0)
        first = as_int(start, "Batches.epoch: start", 0)
        if first > len(self):
            raise ValueError(
                f"Batches.epoch: start {first} is beyond the {len(self)} steps of an epoch"
            )
        return self._steps(number, first)

    def _steps(self, epoch: int, start: int) -> Iterator[Batch]:
        n, b = len(self.dataset), self.batch_size
        order = epoch_order(n, self.seed, epoch) if self.shuffle else np.arange(n, dtype=np.int32)
        inputs, targets = self.dataset.inputs, self.dataset.targets
        for step in range(start, len(self)):
            place = np.arange(step * b, (step + 1) * b)
            index = order[place % n]
            yield Batch(inputs[index], targets[index], place < n, index)
