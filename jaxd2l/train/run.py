"""A whole training run as one pure function."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxd2l.data import Dataset
from jaxd2l.geometry import as_int, iterations_per_epoch
from jaxd2l.layers import Layer
from jaxd2l.train.step import (
    Array,
    Loss,
    Metrics,
    Model,
    add_batch,
    check_optimizer,
    default_metrics,
    make_update,
    start,
    zero_totals,
)

EVALUATED = 1024  # examples that are evaluated at once


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Part:
    """Some of the examples of a data set: the first `count` of `rows`, without copying them.

    Parts of one data set whose `rows` have one length can be mapped over: folds, bootstrap
    samples. A row may occur more than once.

    Attributes:
      inputs, targets: (n, ...), all examples.
      rows: (m,) int32, which of them; what comes after `count` is padding.
      count: () int32, how many are meant.
      fewest: the smallest `count` that may occur (static).

    Example:
      >>> x = jnp.arange(4.0)[:, None]
      >>> Part(x, x, jnp.array([3, 1, 0]), jnp.array(2), 2).rows.tolist()
      [3, 1, 0]
    """

    inputs: Array
    targets: Array
    rows: Array
    count: Array
    fewest: int = dataclasses.field(metadata={"static": True})


Data = Dataset | Part | tuple[Any, Any]


class Outcome(NamedTuple):
    """What a run leaves: parameters, running statistics, the history and the optimiser's state."""

    params: Any
    state: Any
    history: dict[str, Array]
    opt_state: Any


class _Batch(NamedTuple):
    inputs: Array
    targets: Array
    mask: Array


def part_of(data: Data, where: str) -> Part:
    """Any form of data as a `Part`; a whole data set is the part of all its rows.

    Raises:
      TypeError: something else.
      ValueError: inputs and targets of unequal length, or no examples.

    Example:
      >>> part_of((jnp.zeros((3, 2)), jnp.zeros(3)), "run").fewest
      3
    """
    if isinstance(data, Part):
        return data
    if isinstance(data, Dataset):
        data = (data.inputs, data.targets)
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise TypeError(
            f"{where}: data must be a data.Dataset or the pair (inputs, targets), "
            f"got {type(data).__name__}"
        )
    inputs, targets = jnp.asarray(data[0]), jnp.asarray(data[1])
    n = inputs.shape[0] if inputs.ndim else 0
    if targets.shape[:1] != (n,):
        raise ValueError(
            f"{where}: inputs and targets must have the same length on their first axis, "
            f"got {inputs.shape} and {targets.shape}"
        )
    if n == 0:
        raise ValueError(f"{where}: there are no examples")
    return Part(inputs, targets, jnp.arange(n), jnp.array(n, jnp.int32), n)


def shuffled(key: Array, size: int, count: Array, fewest: int) -> Array:
    """0..count-1 in random order, then count..size-1: (size,) int32.

    As `jax.random.permutation`: sorted by random bits, more than once where two of `fewest` numbers
    of 32 bits are likely to be equal. The order of the first `count` does not depend on `size`, so
    that a padded part is gone through as it would be alone.

    Example:
      >>> key = jax.random.key(0)
      >>> shuffled(key, 6, 4, 4).tolist(), shuffled(key, 4, 4, 4).tolist()
      ([0, 1, 3, 2, 4, 5], [0, 1, 3, 2])
    """
    order = place = jnp.arange(size, dtype=jnp.int32)
    for _ in range(math.ceil(3 * math.log(fewest) / math.log(2**32 - 1)) if fewest > 1 else 0):
        key, here = jax.random.split(key)
        bits = jax.random.bits(here, (size,), jnp.uint32)
        bits = jnp.where(place < count, bits, jnp.uint32(2**32 - 1))
        order = jax.lax.sort((bits, order), num_keys=1)[1]
    return order


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """Training as a pure function: `run(key, data, hyper) -> (params, history)`. See `make_run`."""

    model: Layer | Model
    loss: Loss
    optimizer: Callable[..., optax.GradientTransformation]
    epochs: int
    batch_size: int
    metrics: Metrics | None = None
    carry: bool = False
    programs: dict[Any, Any] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def __call__(
        self,
        key: Array,
        data: Data,
        hyper: Mapping[str, Any] | None = None,
        initial: tuple[Any, Any] | None = None,
        valid: Data | None = None,
    ) -> tuple[Any, dict[str, Array]]:
        outcome = self.train(key, data, hyper, initial=initial, valid=valid)
        return outcome.params, outcome.history

    def train(
        self,
        key: Array,
        data: Data,
        hyper: Mapping[str, Any] | None = None,
        initial: tuple[Any, Any] | None = None,
        valid: Data | None = None,
        before: Outcome | None = None,
    ) -> Outcome:
        """The same run, with the running statistics and the optimiser's state as well.

        With `before`, what a run of fewer epochs left on the same key, data and hyper-parameters,
        it goes on where that one stopped, and comes to what it would have come to in one go:
        `dataclasses.replace(run, epochs=9).train(key, data, hyper, before=outcome)`.
        """
        part = part_of(data, "run")
        done = self._done(before, initial)
        n = part.rows.shape[0]
        size = min(self.batch_size, n)  # a batch size above the number of examples means all
        steps = iterations_per_epoch(n, size)
        names = self.metrics_of(part)
        transformation = self.optimizer(**dict(hyper or {}))
        check_optimizer(transformation, "run")
        padded = steps * size != part.fewest
        if self.carry and padded:
            raise ValueError(f"run: with carry=True batches of {size} must divide the {n} examples")
        update = make_update(self.model, self.loss, transformation, names, padded=padded)
        place = jnp.arange(steps * size).reshape(steps, size)
        always = iterations_per_epoch(part.fewest, size)  # steps that have examples in any case

        def epoch(train: Any, number: Array) -> Any:
            shuffle = jax.random.fold_in(jax.random.fold_in(key, 1), number)
            order = (
                part.rows
                if self.carry
                else part.rows[shuffled(shuffle, n, part.count, part.fewest)]
            )

            def step(train: Any, at: Array) -> Any:
                index = order[at % part.count]
                batch = _Batch(part.inputs[index], part.targets[index], at < part.count)
                after = update(train, batch)
                if always < steps:  # a batch of padding only is no step
                    real = at[0] < part.count
                    after = jax.tree.map(lambda new, old: _choose(real, new, old), after, train)
                return after, None

            train, _ = jax.lax.scan(step, train, place)
            count = train.totals["count"].astype(jnp.float32)
            history = {k: v / count for k, v in train.totals.items() if k != "count"}
            if valid is not None:
                figures = self.evaluate(train.params, train.state, valid)
                history |= {f"valid_{name}": value for name, value in figures.items()}
            anew = jax.tree.map(jnp.zeros_like, train.carry)
            return dataclasses.replace(train, totals=zero_totals(names), carry=anew), history

        rows = size if self.carry else None
        shape = part.inputs.shape[1:]
        if before is not None:
            initial = (before.params, before.state)
        first = start(self.model, transformation, key, shape, names, initial, rows)
        if before is not None:
            taken = done * ((part.count + size - 1) // size)  # steps with examples, as above
            first = dataclasses.replace(
                first, opt_state=before.opt_state, step=taken.astype(jnp.int32)
            )
        last, history = jax.lax.scan(epoch, first, jnp.arange(done, self.epochs))
        if before is not None:
            history = _joined(before.history, history)
        return Outcome(last.params, last.state, history, last.opt_state)

    def _done(self, before: Outcome | None, initial: Any) -> int:
        """How many epochs lie behind."""
        if before is None:
            return 0
        if initial is not None:
            raise ValueError("run: give initial or before, not both: before has parameters")
        done = next(iter(before.history.values())).shape[0]
        if done > self.epochs:
            raise ValueError(
                f"run: before has {done} epochs behind it, more than the {self.epochs} of the run"
            )
        return done

    def evaluate(self, params: Any, state: Any, data: Data) -> dict[str, Array]:
        """Mean loss and metrics over the data, in evaluation: {"loss": (), "accuracy": ()}.

        Pure, as the run is. `train.evaluate` is the same over batches from the host.
        """
        part = part_of(data, "run.evaluate")
        names = self.metrics_of(part)
        n = part.rows.shape[0]
        size = min(EVALUATED, n)
        steps = iterations_per_epoch(n, size)

        def add(totals: dict[str, Array], at: Array) -> Any:
            index = part.rows[at % n]
            batch = _Batch(part.inputs[index], part.targets[index], at < part.count)
            return add_batch(self.model, self.loss, names, params, state, batch, totals), None

        place = jnp.arange(steps * size).reshape(steps, size)
        totals, _ = jax.lax.scan(add, zero_totals(names), place)
        count = totals["count"].astype(jnp.float32)
        return {name: value / count for name, value in totals.items() if name != "count"}

    def metrics_of(self, part: Part) -> Metrics:
        """The metrics of the run, default accuracy where the targets are labels."""
        return default_metrics(part.targets) if self.metrics is None else self.metrics


def _joined(before: dict[str, Array], after: dict[str, Array]) -> dict[str, Array]:
    if set(before) != set(after):
        raise ValueError(
            f"run: before must have the same figures as the run, {sorted(after)}, "
            f"got {sorted(before)}: give `valid` in both or in neither"
        )
    return {name: jnp.concatenate([before[name], values]) for name, values in after.items()}


def _choose(real: Array, new: Any, old: Any) -> Any:
    if jnp.issubdtype(jnp.result_type(new), jax.dtypes.prng_key):
        return old  # the key of a run stays as it is
    return jnp.where(real, new, old)


def make_run(
    model: Layer | Model,
    loss: Loss,
    optimizer: Callable[..., optax.GradientTransformation],
    *,
    epochs: int,
    batch_size: int,
    metrics: Metrics | None = None,
    carry: bool = False,
) -> Run:
    """Training as the pure function `run(key, data, hyper) -> (params, history)`.

    No host code runs inside, so the run can be jitted, differentiated, and mapped over keys, over
    hyper-parameters or over data sets; `ensemble`, `sweep` and `cross_validate` do so. `fit` is the
    same loop driven from the host. Batches are drawn inside, in another order in each epoch, and
    the last one is masked. Adam divides by a root, whose derivative at a gradient of exactly 0 is
    infinite: to differentiate through it use `optim.adam(..., eps_in_root=True)`.

    Args:
      model: a network, or a `Model(init, apply)`.
      loss: (outputs, targets) -> one value per example.
      optimizer: called with the hyper-parameters as keywords, `optim.sgd` for instance; they may
        be traced values.
      epochs, batch_size: of every run; a batch size above the number of examples means all.
      metrics: default accuracy where the targets are integers.
      carry: batches continue each other, as in `fit`; nothing is shuffled.

    Returns:
      run, called as run(key, data, hyper={}, initial=None, valid=None).
      data, valid: a `Dataset`, the pair (inputs, targets), or a `Part` of one. initial: (params,
      state) to start from, default the model's `init`. The history has one mean per epoch for
      "loss" and each metric, and for "valid_loss", ... where `valid` is given: (epochs,) arrays.
      run.train, called in the same way, gives an `Outcome`: running statistics too, which a network
      with batch norm needs; run.evaluate(params, state, data) the means in evaluation.

    Raises:
      ValueError: epochs or batch_size below 1; when it is called: bad data.

    Example:
      >>> from jaxd2l import models
      >>> from jaxd2l.ops import losses
      >>> x = jnp.linspace(-1.0, 1.0, 8).reshape(8, 1)
      >>> run = make_run(models.linear_regression(), losses.squared_loss, optax.sgd,
      ...                epochs=20, batch_size=4)
      >>> params, history = jax.jit(run)(jax.random.key(0), (x, 3 * x), {"learning_rate": 0.5})
      >>> history["loss"].shape, params["linear"]["kernel"].round(2).tolist()
      ((20,), [[3.0]])
    """
    return Run(
        model,
        loss,
        optimizer,
        as_int(epochs, "make_run: epochs", 1),
        as_int(batch_size, "make_run: batch_size", 1),
        metrics,
        carry,
    )
