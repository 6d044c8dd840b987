"""Gaussian noise on inputs or hidden units, drawn for each example from its own key.

What is drawn is a function of (key, index of the example in the global batch), the keys being those
of `randomness.example_keys`: under `pmap` and `shard_map` pass the global indices of the local
examples as `examples`. The random bits are then the same, the samples made of them the same to a
rounding of float32, in which they are drawn whatever the dtype of x.
"""

import math
import numbers

import jax
import jax.numpy as jnp

from jaxd2l.checks import check_floating
from jaxd2l.ops.randomness import example_keys

Array = jax.Array
Number = float | Array


def gaussian_noise(x: Array, scale: Number, key: Array, *, examples: Array | None = None) -> Array:
    """`x + scale e` with e ~ N(0, 1), independent in every entry, for training.

    On the inputs of a linear model with a squared loss this is ridge regression: the mean over e of
    |y - (X + scale e) w|^2 is |y - X w|^2 + n scale^2 |w|^2.

    Shapes:
      x: (n, ...), batch first; scale: (), the standard deviation, in the units of x; key: ();
      examples: (n,), the indices in the global batch, default 0 ... n-1; result: as x.

    Raises:
      TypeError: x is not floating point, or examples are not integers.
      ValueError: a number for scale that is negative, x has no batch axis, examples is not (n,).

    Source: Bishop 1995, "Training with Noise is Equivalent to Tikhonov Regularization".

    Example:
      >>> y = gaussian_noise(jnp.zeros((100, 100)), 0.5, jax.random.key(0))
      >>> round(float(y.std()), 2)
      0.5
    """
    return x + _noise(x, scale, key, examples, "gaussian_noise")


def multiplicative_noise(
    x: Array, scale: Number, key: Array, *, examples: Array | None = None
) -> Array:
    """`x (1 + scale e)` with e ~ N(0, 1), independent in every entry, for training.

    With scale = sqrt(rate / (1 - rate)) mean and variance are those of inverted dropout with that
    rate: Gaussian dropout.

    Shapes:
      x: (n, ...), batch first; scale: (), relative to x; key: (); examples: (n,), see
      `gaussian_noise`; result: as x.

    Raises:
      TypeError, ValueError: as `gaussian_noise`.

    Source: Srivastava et al. 2014, section 10.

    Example:
      >>> y = multiplicative_noise(jnp.full((100, 100), 2.0), 0.25, jax.random.key(0))
      >>> round(float(y.mean()), 1), round(float(y.std()), 1)
      (2.0, 0.5)
    """
    return x + x * _noise(x, scale, key, examples, "multiplicative_noise")


def _noise(x: Array, scale: Number, key: Array, examples: Array | None, where: str) -> Array:
    check_floating(x, f"{where}: x")
    if isinstance(scale, numbers.Real) and not scale >= 0:
        raise ValueError(f"{where}: scale must be at least 0, got {scale}")
    shape = jnp.shape(x)
    if not shape:
        raise ValueError(f"{where}: x must have a leading batch axis (n, ...), got ()")
    keys = example_keys(key, shape[0], examples, where)
    size = math.prod(shape[1:])  # drawn flat: the same samples, and quicker to compile
    samples = jax.vmap(lambda k: jax.random.normal(k, (size,), jnp.float32))(keys)
    return jnp.asarray(scale).astype(x.dtype) * samples.reshape(shape).astype(x.dtype)
