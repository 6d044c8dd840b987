"""Early stopping: a callback of `fit` that ends a run when it no longer improves."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxd2l.geometry import as_int
from jaxd2l.records import as_float
from jaxd2l.train.files import Record
from jaxd2l.train.step import TrainState


class Best(NamedTuple):
    """The best epoch so far: its number, the figure, and copies of parameters and statistics."""

    epoch: int
    value: float
    params: Any
    state: Any


class EarlyStopping:
    """Ends `fit` after `patience` epochs without improvement, and keeps the best parameters.

    An epoch improves if its figure is below the best one by more than `minimum_change`; for an
    accuracy, `largest=True`, above it. A figure that is NaN does not improve. Given to `fit` as a
    callback; one instance is for one run. `best` is a copy, since the memory of the training state
    is used again by the next step; when the run ended early, `Result.interrupted` is True.

    Stopping early limits how far the weights get from their start: on a quadratic it acts like L2
    with a penalty of about 1 / (rate * steps).

    The test set is what stops the run, so its loss is no longer a fair estimate: give `fit` a
    validation set as `test`.

    `fit(resume=True)` reports only the epochs after the checkpoint. The same instance goes on
    counting; a new one, in a new process, begins anew, so that the run may end up to `patience`
    epochs later, and `best` is the best of what it has seen.

    Attributes:
      best: a `Best`: epoch, value, params, state; None before the first epoch.

    Args:
      patience: how many epochs without improvement end the run, 1 or more.
      monitor: the name of the figure in the records of `fit`.
      minimum_change: how much better counts.
      largest: whether larger is better.

    Raises:
      ValueError: patience below 1, a negative minimum_change; when called, a record without the
        figure, or of an epoch that was seen already (another run).

    Source: Prechelt 1998; D2L 3.6, 5.5.

    Example:
      >>> import optax
      >>> from jaxd2l import data, models, train
      >>> from jaxd2l.ops import losses
      >>> digits = data.train_test_split(data.load_digits(8), 0.2)
      >>> stop = EarlyStopping(patience=2)
      >>> result = train.fit(models.softmax_regression(), digits.train, test=digits.test, epochs=99,
      ...                    batch_size=64, loss=losses.softmax_cross_entropy,
      ...                    optimizer=optax.sgd(2.0), callbacks=[stop])
      >>> result.interrupted, len(result.history) - stop.best.epoch
      (True, 2)
    """

    def __init__(
        self,
        patience: int,
        monitor: str = "test_loss",
        minimum_change: float = 0.0,
        largest: bool = False,
    ) -> None:
        self.patience = as_int(patience, "EarlyStopping: patience", 1)
        self.monitor = monitor
        self.minimum_change = as_float(minimum_change, "EarlyStopping: minimum_change", 0)
        self.largest = bool(largest)
        self.best: Best | None = None
        self._last = 0

    def __call__(self, record: Record, train_state: TrainState) -> bool:
        """Take note of an epoch; True when the run is to end."""
        if self.monitor not in record:
            raise ValueError(
                f"EarlyStopping: there is no {self.monitor!r} among {sorted(record)}; figures of "
                f"held-out data need fit(..., test=...)"
            )
        epoch, value = record["epoch"], float(record[self.monitor])
        if epoch <= self._last:
            raise ValueError(
                f"EarlyStopping: epoch {epoch} after epoch {self._last}; use a new instance for "
                f"each run"
            )
        self._last = epoch
        if self._improves(value):
            params, state = jax.tree.map(jnp.copy, (train_state.params, train_state.state))
            self.best = Best(epoch, value, params, state)
        return epoch - (0 if self.best is None else self.best.epoch) >= self.patience

    def _improves(self, value: float) -> bool:
        if self.best is None:
            return value == value  # not NaN
        gain = value - self.best.value if self.largest else self.best.value - value
        return gain > self.minimum_change
