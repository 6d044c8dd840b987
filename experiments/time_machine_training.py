"""What all runs of time_machine.py share: the text, and a run from a seed as one pure function.

from time_machine_training import make_run, read, shuffled
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxd2l import data, layers, train
from jaxd2l.data import text
from jaxd2l.ops import losses
from jaxd2l.ops.initializers import Initializer

STEPS = 32  # of a window
WINDOWS = 10_000  # to train on, one starting at each character
VALIDATION = 5_000  # the windows after those
BATCH = 1024

Array = jax.Array
#: key of an epoch -> (first token of each window, which windows count): (batches, rows) each
Places = Callable[[Array], tuple[Array, Array]]


class Corpus(NamedTuple):
    """A text in the book's split.

    Attributes:
      codec: characters, lower case, letters and space only.
      tokens: (WINDOWS + STEPS,), what the training windows are cut from.
      validation: VALIDATION windows.
    """

    codec: text.Codec
    tokens: np.ndarray
    validation: data.Dataset


def read(path: str | None) -> Corpus:
    """A text file, or the embedded English text."""
    whole = text.english() if path is None else text.read_text(path)
    codec = text.Codec.train(whole, "character", normalize=True)
    tokens = codec.encode(whole)
    end = WINDOWS + VALIDATION + STEPS
    if len(tokens) < end:
        raise ValueError(f"{path}: {end:,} characters are needed, there are {len(tokens):,}")
    validation = text.windows(tokens[WINDOWS:end], STEPS)
    return Corpus(codec, tokens[: WINDOWS + STEPS], validation)


def shuffled(windows: int, stride: int, batch: int) -> Places:
    """Windows that start `stride` tokens apart in random order, the first at one of the first
    `stride` tokens, drawn anew in each epoch; a short last batch is filled up and masked."""
    at = jnp.arange(-(-windows // batch) * batch).reshape(-1, batch)

    def places(key: Array) -> tuple[Array, Array]:
        first, order = jax.random.split(key)
        offset = jax.random.randint(first, (), 0, stride)
        return offset + stride * jax.random.permutation(order, windows)[at % windows], at < windows

    return places


def continued(length: int, steps: int, batch: int) -> Places:
    """Batches whose rows walk through `batch` stretches of `length` tokens, in order, from one of
    the first `steps` tokens on, drawn anew in each epoch."""
    stretch = (length - steps) // batch
    rows = jnp.arange(batch)[None] * stretch
    starts = rows + jnp.arange(stretch // steps)[:, None] * steps

    def places(key: Array) -> tuple[Array, Array]:
        return starts + jax.random.randint(key, (), 0, steps), jnp.ones(starts.shape, bool)

    return places


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a network is trained.

    Attributes:
      make: a network for a vocabulary of that size.
      optimizer: for that number of steps.
      initializers: overrides by path, as of `jaxd2l.init`.
      batch, stride, steps: of the windows.
      noise: standard deviation of what is added to every parameter, anew in each step.
      carry: each batch goes on from the state that the one before left; zeros in a new epoch.
    """

    make: Callable[[int], layers.Layer]
    epochs: int
    optimizer: Callable[[int], optax.GradientTransformation]
    initializers: Mapping[str, Initializer]
    batch: int = BATCH
    stride: int = 1
    steps: int = STEPS
    noise: float = 0.0
    carry: bool = False


class _Batch(NamedTuple):
    inputs: Array
    targets: Array
    mask: Array


class Trained(NamedTuple):
    """What comes out of a run.

    Attributes:
      params: of the network after the last step.
      training: (epochs,) perplexity over each epoch, every window as it was met.
      validation: () perplexity after the last epoch.
    """

    params: Any
    training: Array
    validation: Array


def noisy(net: layers.Layer, std: float) -> train.Model:
    """The network, whose parameters are disturbed anew in each step of training.

    Source: Jim, Giles and Horne 1996; Graves 2013 (standard deviation 0.075).
    """

    def apply(params: Any, state: Any, inputs: Any, *, key: Any, train: bool, mask: Any) -> Any:
        if train:
            leaves, tree = jax.tree.flatten(params)
            keys = jax.random.split(jax.random.fold_in(key, 0), len(leaves))
            moved = [
                a + std * jax.random.normal(k, a.shape) for a, k in zip(leaves, keys, strict=True)
            ]
            params = jax.tree.unflatten(tree, moved)
        return layers.apply(net, params, state, inputs, key=key, train=train, mask=mask)

    return train.Model(train.model_of(net).init, apply)


def perplexity(net: layers.Layer, params: Any, part: data.Dataset, batch: int = BATCH) -> Array:
    """As the book takes it: exp(mean loss) of each batch, and the mean of those."""
    n = len(part)
    at = jnp.arange(-(-n // batch) * batch).reshape(-1, batch)
    inputs, targets = jnp.asarray(part.inputs), jnp.asarray(part.targets)

    def one(rows: Array) -> Array:
        logits, _ = layers.apply(net, params, {}, inputs[rows % n])
        values = losses.softmax_cross_entropy(logits, targets[rows % n]).mean(axis=1)
        return jnp.exp(losses.masked_mean(values, rows < n))

    return jax.lax.map(one, at).mean()


def make_run(setting: Setting, corpus: Corpus) -> Callable[[Array], Trained]:
    """The pure function seed -> Trained, not yet compiled."""
    net = setting.make(corpus.codec.size)
    steps, batch = setting.steps, setting.batch
    tokens = jnp.asarray(corpus.tokens[:WINDOWS] if setting.carry else corpus.tokens)
    windows = (len(tokens) - steps) // setting.stride
    places = (
        continued(len(tokens), steps, batch)
        if setting.carry
        else shuffled(windows, setting.stride, batch)
    )
    count = jax.eval_shape(places, jax.random.key(0))[0].shape[0]
    optimizer = setting.optimizer(count * setting.epochs)
    model = noisy(net, setting.noise) if setting.noise else net
    padded = not setting.carry and windows % batch != 0
    update = train.make_update(model, losses.softmax_cross_entropy, optimizer, {}, padded=padded)

    def step(current: train.TrainState, place: tuple[Array, Array]) -> tuple[Any, None]:
        window = tokens[place[0][:, None] + jnp.arange(steps + 1)[None]]  # (rows, steps + 1)
        return update(current, _Batch(window[:, :-1], window[:, 1:], place[1])), None

    def run(seed: Array) -> Trained:
        key = jax.random.key(seed)
        initial = layers.init(net, key, (steps,), initializers=setting.initializers)
        rows = batch if setting.carry else None
        first = train.start(net, optimizer, key, (steps,), {}, initial, rows)

        def epoch(current: train.TrainState, number: Array) -> tuple[Any, Array]:
            anew = jax.tree.map(jnp.zeros_like, (current.totals, current.carry))
            current = dataclasses.replace(current, totals=anew[0], carry=anew[1])
            place = places(jax.random.fold_in(jax.random.fold_in(key, 1), number))
            current, _ = jax.lax.scan(step, current, place)
            return current, jnp.exp(current.totals["loss"] / current.totals["count"])

        last, training = jax.lax.scan(epoch, first, jnp.arange(setting.epochs))
        return Trained(last.params, training, perplexity(net, last.params, corpus.validation))

    return run
