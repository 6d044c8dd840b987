"""The training loop: epochs, evaluation, checkpoints, and a clean stop."""

import contextlib
import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxd2l.data import Batches, Dataset
from jaxd2l.geometry import as_int
from jaxd2l.layers import (
    Embedding,
    FlaxModule,
    Function,
    Layer,
    OneHot,
    output_shape,
    walk,
)
from jaxd2l.ops.labels import check_labels
from jaxd2l.ops.linear import check_tokens
from jaxd2l.ops.metrics import correct
from jaxd2l.train.files import Record, RunFiles
from jaxd2l.train.progress import Progress
from jaxd2l.train.step import (
    Loss,
    Metrics,
    Model,
    TrainState,
    check_optimizer,
    default_metrics,
    make_evaluate,
    make_step,
    means,
    start,
    zero_totals,
)


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run gives back.

    Attributes:
      params, state: parameters and running statistics after the last step.
      history: one dict per finished epoch: "epoch", "step", "train_loss", "train_accuracy",
        "test_loss", ... and "seconds".
      train_state: everything, to go on with.
      interrupted: True when Ctrl-C or a callback ended the run early.
    """

    params: Any
    state: Any
    history: tuple[Record, ...]
    train_state: TrainState
    interrupted: bool


def evaluate(
    model: Layer | Model,
    params: Any,
    state: Any,
    dataset: Dataset,
    *,
    loss: Loss,
    metrics: Metrics | None = None,
    batch_size: int = 256,
) -> dict[str, float]:
    """Mean loss and metrics over a data set, exact also where the last batch is short.

    Example:
      >>> import numpy as np
      >>> from jaxd2l import data, init, models
      >>> from jaxd2l.ops import losses
      >>> net, test = models.softmax_regression(3), data.Dataset(np.ones((5, 2)), np.arange(5) % 3)
      >>> params, state = init(net, jax.random.key(0), (2,))
      >>> sorted(evaluate(net, params, state, test, loss=losses.softmax_cross_entropy))
      ['accuracy', 'loss']
    """
    names = default_metrics(dataset.targets) if metrics is None else metrics
    return _evaluate(make_evaluate(model, loss, names), params, state, dataset, names, batch_size)


def _evaluate(
    add: Callable[..., Any],
    params: Any,
    state: Any,
    dataset: Dataset,
    names: Metrics,
    batch_size: int,
) -> dict[str, float]:
    totals = zero_totals(names)
    for batch in Batches(dataset, min(batch_size, len(dataset)), shuffle=False).epoch(0):
        totals = add(params, state, batch, totals)
    return means(totals)


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C sets a flag that is read between steps; a second Ctrl-C interrupts at once."""
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: Any) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, before if callable(before) else signal.default_int_handler)

    signal.signal(signal.SIGINT, handle)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)


def _check_labels(
    model: Layer | Model, names: Metrics, train: Dataset, test: Dataset | None
) -> None:
    """Tokens or labels beyond what the network knows would only show as NaN on the device."""
    if not isinstance(model, Layer):
        return
    shape = train.inputs.shape[1:]
    outputs = output_shape(model, shape)
    steps = list(walk(model, shape))
    sizes = [
        step.layer.size
        for step in steps
        if isinstance(step.layer, Embedding | OneHot) and step.input_shape == shape
    ]
    reads = (Embedding, OneHot, Function, FlaxModule)
    if train.inputs.dtype.kind == "i" and not any(isinstance(s.layer, reads) for s in steps):
        raise TypeError(
            "fit: the inputs are tokens (integers), and the network has no Embedding or OneHot to "
            "read them; numbers are to be floating point"
        )
    for name, dataset in (("train", train), ("test", test)):
        if dataset is None:
            continue
        if dataset.inputs.dtype.kind == "i":
            for size in sizes:
                try:
                    check_tokens(dataset.inputs, size)
                except ValueError as error:
                    raise ValueError(
                        f"fit: the network knows {size} tokens, too few for {name}: {error}"
                    ) from None
        if correct in names.values() and dataset.targets.shape[1:] == outputs[:-1]:
            try:
                check_labels(dataset.targets, outputs[-1])
            except ValueError as error:
                raise ValueError(
                    f"fit: the network has {outputs[-1]} outputs, too few for {name}: {error}"
                ) from None


def fit(
    model: Layer | Model,
    train: Dataset,
    *,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    epochs: int,
    batch_size: int,
    seed: int = 0,
    initial: tuple[Any, Any] | None = None,
    test: Dataset | None = None,
    metrics: Metrics | None = None,
    callbacks: Sequence[Callable[[Record, TrainState], Any]] = (),
    folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    save_every: int | None = None,
    keep_last: int = 3,
    meta: Mapping[str, Any] | None = None,
    progress: bool = False,
    carry: bool = False,
) -> Result:
    """Train a model and evaluate it after every epoch.

    Steps are compiled once and dispatched without waiting for the device; figures are fetched once
    an epoch (and twice a second for the bar). A short last batch is padded and masked, so every
    example counts equally. The run is a function of its arguments: with the same seed, machine
    and number of cores it gives the same bits, also when it was killed and resumed.

    Args:
      model: a network, or a `Model(init, apply)`.
      train, test: the data; `test` is only evaluated.
      loss: (outputs, targets) -> one value per example.
      optimizer: any Optax transformation.
      epochs, batch_size, seed: the run. `epochs` counts from the start, also when resuming; a
        batch size above the number of examples means all of them.
      initial: (params, state) to start from, as `transfer` gives them; default the model's `init`.
      metrics: functions (outputs, targets) -> one value per example; default accuracy for labels.
      callbacks: called as f(record, train_state) after every epoch; a true result ends the run.
        The train state's memory is reused by the next step: copy what must be kept.
      folder: where checkpoints (`step_*.safetensors`) and `metrics.jsonl` go; None for nowhere.
        A checkpoint also holds the network, unless a function or Flax module is part of it.
      resume: continue from the newest checkpoint in `folder`, or start where there is none.
      save_every: also save after this many steps; a checkpoint is written after every epoch.
      keep_last: how many checkpoints to keep.
      meta: JSON-able facts to store with each checkpoint.
      progress: show a bar (on a terminal) or a line per epoch.
      carry: the batches continue each other, row i going on where row i of the batch before ended
        (`data.text.adjacent`): they come in order, and the network's carry goes from one to the
        next, without gradient, and from zero again in each epoch. Test data always start anew.

    Returns:
      A `Result`.

    Raises:
      Diverged: a loss, parameter or statistic became NaN or infinite; nothing is saved over the
        last good checkpoint, which the message names.
      ValueError: `folder` holds a run already and `resume` is False, or one of another network,
        other data or batches; labels beyond the network's outputs; bad arguments.

    Example:
      >>> from jaxd2l import data, models
      >>> from jaxd2l.ops import losses
      >>> result = fit(models.softmax_regression(), data.load_digits(8), epochs=2, batch_size=64,
      ...              loss=losses.softmax_cross_entropy, optimizer=optax.sgd(0.1))
      >>> [sorted(record) for record in result.history][-1]
      ['epoch', 'seconds', 'step', 'train_accuracy', 'train_loss']
    """
    epochs = as_int(epochs, "fit: epochs", 1)
    seed = as_int(seed, "fit: seed", 0)
    if seed >= 2**32:  # jax keeps the low 32 bits only
        raise ValueError(f"fit: seed must be below 2**32, got {seed}")
    if save_every is not None:
        save_every = as_int(save_every, "fit: save_every", 1)
    if resume and folder is None:
        raise ValueError("fit: resume=True needs the folder of the run")
    for name, dataset in (("train", train), ("test", test)):
        if not isinstance(dataset, Dataset) and (name == "train" or dataset is not None):
            raise TypeError(f"fit: {name} must be a data.Dataset, got {type(dataset).__name__}")
    check_optimizer(optimizer, "fit")
    batch_size = min(as_int(batch_size, "fit: batch_size", 1), len(train))
    names = default_metrics(train.targets) if metrics is None else metrics
    _check_labels(model, names, train, test)
    batches = Batches(train, batch_size, seed, shuffle=not carry)
    padded = len(batches) * batch_size != len(train)
    if carry and padded:
        raise ValueError(
            f"fit: with carry=True every batch goes on where the one before ended, so batches of "
            f"{batch_size} must divide the {len(train)} examples; see data.text.adjacent"
        )
    step = make_step(model, loss, optimizer, names, padded=padded)
    evaluate_batch = make_evaluate(model, loss, names) if test is not None else None
    shape = train.inputs.shape[1:]
    rows = batch_size if carry else None
    current = start(model, optimizer, jax.random.key(seed), shape, names, initial, rows)
    run = RunFiles(model, None if folder is None else Path(folder), keep_last, batches, meta)
    current, history = run.open(current, resume)

    done = int(current.step)
    total = epochs * len(batches)
    bar = Progress(total, done) if progress else None
    interrupted = False
    with _interruptible() as pressed:
        try:
            for epoch in range(done // len(batches), epochs):
                began = time.monotonic()
                first = done - epoch * len(batches)
                for batch in batches.epoch(epoch, start=first):
                    current = step(current, batch)
                    done += 1
                    if bar is not None:
                        bar.update()
                        if bar.due():
                            bar.figures(means(current.totals))
                    if pressed():
                        break
                    if save_every and done % save_every == 0 and done % len(batches):
                        run.save(current, done)
                if done == (epoch + 1) * len(batches):
                    record: Record = {"epoch": epoch + 1, "step": done}
                    record |= {f"train_{k}": v for k, v in means(current.totals).items()}
                    run.check(current, done)
                    if test is not None and evaluate_batch is not None:
                        figures = _evaluate(
                            evaluate_batch,
                            current.params,
                            current.state,
                            test,
                            names,
                            min(4 * batch_size, len(test)),
                        )
                        record |= {f"test_{k}": v for k, v in figures.items()}
                    record["seconds"] = round(time.monotonic() - began, 3)
                    history.append(record)
                    current = dataclasses.replace(
                        current,
                        totals=zero_totals(names),
                        carry=jax.tree.map(jnp.zeros_like, current.carry),
                    )
                    run.write(record)
                    run.save(current, done)
                    if bar is not None:
                        bar.line(describe(record, epochs))
                    ended = [bool(f(record, current)) for f in callbacks]
                    interrupted = any(ended) and epoch + 1 < epochs
                else:
                    run.save(current, done)
                interrupted = interrupted or (pressed() and done < total)
                if interrupted:
                    break
        finally:
            if bar is not None:
                bar.close()
    return Result(current.params, current.state, tuple(history), current, interrupted)


def describe(record: Mapping[str, Any], epochs: int) -> str:
    """One epoch in one line.

    Example:
      >>> describe({"epoch": 1, "step": 9, "train_loss": 0.5, "seconds": 1.25}, 10)
      'epoch 1/10  train loss 0.5000  (1.2 s)'
    """
    parts = [f"epoch {record['epoch']}/{epochs}"]
    for name, value in record.items():
        if name not in ("epoch", "step", "seconds"):
            parts.append(f"{name.replace('_', ' ')} {value:.4f}")
    return "  ".join([*parts, f"({record['seconds']:.1f} s)"])
