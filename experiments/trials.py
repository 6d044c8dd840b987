"""The same network trained for every learning rate and seed, as one compiled program.

from trials import trials
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxd2l import data, layers, train
from jaxd2l.ops import losses, metrics

DECAY = 0.9  # of every batch norm in these experiments: the library's default


class Trials(NamedTuple):
    """What came out of R rates and S seeds; arrays of the host.

    Attributes:
      params: each leaf (R, S, ...).
      error: (R, S, epochs) share of the training examples that were wrong, each as it was met.
      loss: (R, S, epochs) cross-entropy likewise; not finite where a run diverged.
      train_error, test_error: (R, S) after the last epoch, in evaluation.
    """

    params: Any
    error: np.ndarray
    loss: np.ndarray
    train_error: np.ndarray
    test_error: np.ndarray


def wrong(net: layers.Layer, params: Any, state: Any, part: data.Dataset) -> jax.Array:
    """Share of the examples that the network gets wrong in evaluation: ()."""
    logits, _ = layers.apply(net, params, state, jnp.asarray(part.inputs))
    return (1 - metrics.correct(logits, jnp.asarray(part.targets))).mean()


def settled(net: layers.Layer, params: Any, part: data.Dataset) -> Any:
    """The running statistics at which passes over all the examples at once would settle.

    One such pass makes them decay * before + (1 - decay) * theirs: here before is 0.
    """
    key, inputs = jax.random.key(0), jnp.asarray(part.inputs)
    zeros = jax.tree.map(jnp.zeros_like, layers.init(net, key, inputs.shape[1:])[1])
    _, once = layers.apply(net, params, zeros, inputs, key=key, train=True)
    return jax.tree.map(lambda a: a / (1 - DECAY), once)


def trials(
    net: layers.Layer,
    parts: data.Parts,
    rates: Sequence[float],
    seeds: int,
    *,
    epochs: int,
    batch_size: int = 64,
    momentum: float = 0.0,
) -> Trials:
    """Stochastic gradient descent from every seed at every rate, one run after the other."""

    def sgd(learning_rate: Any) -> optax.GradientTransformation:
        return optax.sgd(learning_rate, momentum or None)

    run = train.make_run(
        net, losses.softmax_cross_entropy, sgd, epochs=epochs, batch_size=batch_size
    )

    def one(case: tuple[jax.Array, jax.Array]) -> tuple[Any, ...]:
        seed, rate = case
        key = jax.random.key(seed)
        params, history = run(key, parts.train, {"learning_rate": rate})
        state = settled(net, params, parts.train)
        errors = [wrong(net, params, state, part) for part in parts]
        return params, 1 - history["accuracy"], history["loss"], *errors

    seed, rate = jnp.meshgrid(jnp.arange(seeds), jnp.asarray(rates))  # (rates, seeds)
    found = jax.jit(lambda *cases: jax.lax.map(one, cases))(seed.ravel(), rate.ravel())
    shape = seed.shape
    return Trials(*jax.tree.map(lambda a: np.asarray(a).reshape(*shape, *a.shape[1:]), found))


def epochs_until(error: np.ndarray, level: float) -> np.ndarray:
    """Epochs until the error over an epoch falls to `level`, interpolated; all of them where it
    never does.

    Shapes: error (..., epochs); result (...).

    Example:
      >>> epochs_until(np.array([[0.5, 0.3, 0.1], [0.9, 0.8, 0.7]]), 0.2).tolist()
      [2.5, 3.0]
    """
    before = np.concatenate([np.full_like(error[..., :1], 1.0), error[..., :-1]], axis=-1)
    there = error <= level
    first = np.where(there.any(-1), there.argmax(-1), error.shape[-1] - 1)
    last, at = (np.take_along_axis(e, first[..., None], -1)[..., 0] for e in (before, error))
    part = np.divide(last - level, last - at, out=np.ones_like(at), where=there.any(-1))
    return first + part


def best(values: np.ndarray) -> tuple[int, np.ndarray]:
    """The rate with the lowest mean over the seeds, as its number, and its values.

    Shapes: values (R, S); result (S,).
    """
    number = int(values.mean(1).argmin())
    return number, values[number]
