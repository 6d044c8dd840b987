"""Bias and variance of a learner, over many training sets."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxd2l.checks import check_floating, check_same_shape
from jaxd2l.train.many import as_keys
from jaxd2l.train.mapping import How, map_runs

Array = jax.Array


class Decomposition(NamedTuple):
    """Parts of the expected squared error, all (): error = bias + variance + noise.

    Attributes:
      error: mean over training sets and inputs of (f(x) - truth(x))^2, plus the noise.
      bias: mean over the inputs of (E f(x) - truth(x))^2, the squared bias.
      variance: mean over the inputs of E (f(x) - E f(x))^2, over training sets.
      noise: what no learner can do about.
    """

    error: Array
    bias: Array
    variance: Array
    noise: Array


def decompose(outputs: Array, truth: Array, noise: float | Array = 0.0) -> Decomposition:
    """E (f - y)^2 = (E f - t)^2 + E (f - E f)^2 + noise, from the outputs of s trained learners.

    With y = t + e and E e^2 = noise. The estimates are unbiased for any s: the variance is divided
    by s - 1, and the squared distance of the mean from the truth, which the scatter of the mean
    makes too large, is lessened by variance / s (so a bias near 0 may come out a little below 0).
    The three still sum to the mean error exactly.

    For classification there is no such sum for the 0-1 loss, and several rival definitions
    (Domingos 2000); none is given here. Probabilities with one-hot truth have this one, which
    is that of the Brier score.

    Shapes: outputs (s, n, ...), s above 1; truth (n, ...); results ().

    Raises:
      ValueError: other shapes, or one training set only.
      TypeError: outputs or truth that are not floating point.

    Source: Geman, Bienenstock and Doursat 1992; D2L 3.6.

    Example:
      >>> found = decompose(jnp.array([[1.0], [3.0]]), jnp.array([0.0]))
      >>> float(found.error), float(found.bias), float(found.variance)
      (5.0, 3.0, 2.0)
    """
    where = "decompose"
    check_floating(outputs, f"{where}: outputs")
    check_floating(truth, f"{where}: truth")
    if outputs.ndim < 2 or outputs.shape[0] < 2:
        raise ValueError(
            f"{where}: outputs must be (s, n, ...) of s > 1 training sets, got {outputs.shape}"
        )
    check_same_shape(outputs[0], truth, f"{where}: outputs[0] and truth")
    s = outputs.shape[0]
    mean = outputs.mean(0)
    variance = ((outputs - mean[None]) ** 2).sum(0).mean() / (s - 1)
    bias = ((mean - truth) ** 2).mean() - variance / s
    noise = jnp.asarray(noise, outputs.dtype)
    error = ((outputs - truth[None]) ** 2).mean() + noise
    return Decomposition(error, bias, variance, noise)


def bias_variance(
    predict: Callable[[Array], Array],
    keys: Array,
    truth: Array,
    *,
    noise: float | Array = 0.0,
    how: How = "vmap",
    memory: int | None = None,
) -> Decomposition:
    """Bias and variance of any learner by Monte Carlo over training sets, as one program.

    Args:
      predict: key -> outputs (n, ...): draws a training set from the key, trains on it, and
        predicts at fixed inputs. A run, a bag of runs, boosting and closed forms all fit in.
      keys: (s,), one for each training set.
      truth: (n, ...), what would be predicted without error: the mean of the targets.
      noise: variance of the targets about it.
      how, memory: as in `ensemble`; "vmap" suits small learners.

    Raises:
      ValueError, TypeError: as `decompose`; keys that are none.

    Example:
      >>> def mean_of_three(key):  # of a normal variable: bias 0, variance 1/3
      ...     return jax.random.normal(key, (3,)).mean(keepdims=True)
      >>> keys = jax.random.split(jax.random.key(0), 5000)
      >>> found = bias_variance(mean_of_three, keys, jnp.zeros(1), noise=1.0)
      >>> abs(float(found.variance) - 1 / 3) < 0.02, abs(float(found.bias)) < 0.01
      (True, True)
    """
    where = "bias_variance"
    keys, many = as_keys(keys, where)
    if not many:
        raise ValueError(f"{where}: give one key for each training set: jax.random.split(key, 100)")

    def one(key: Array, _: None) -> Array:
        return predict(key)

    return decompose(map_runs(one, [keys], None, how, memory, {}, where), truth, noise)
