"""Dropout, whose mask belongs to the example and not to the batch or the device it is in.

A random mask is a function of (key, index of the example in the global batch), the keys being those
of `randomness.example_keys`: under `pmap` and `shard_map` pass the global indices of the local
examples as `examples`.
"""

import math
import numbers
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxd2l.checks import check_floating
from jaxd2l.ops.randomness import example_keys

Array = jax.Array


def check_rate(rate: float, where: str) -> float:
    """The rate as a float, refused unless it is a Python number in [0, 1].

    Example:
      >>> check_rate(2.0, "dropout")
      Traceback (most recent call last):
      ValueError: dropout: rate is the fraction dropped and must be in [0, 1], got 2.0
    """
    if isinstance(rate, bool) or not isinstance(rate, numbers.Real):
        raise TypeError(f"{where}: rate must be a Python number, got {type(rate).__name__}")
    if not 0 <= rate <= 1:
        raise ValueError(f"{where}: rate is the fraction dropped and must be in [0, 1], got {rate}")
    return float(rate)


def dropout_mask(
    key: Array, rate: float, shape: Sequence[int], *, examples: Array | None = None
) -> Array:
    """Random mask, True = kept, each entry with probability `1 - rate`.

    Row i is a function of `key`, `examples[i]`, `rate` and `shape[1:]` only.

    Shapes:
      key: (), one PRNG key; shape: (n, ...); examples: (n,), integers, the indices in the global
      batch, default 0 ... n-1; result: `shape`, boolean.

    Raises:
      TypeError: rate is not a Python number, or examples are not integers.
      ValueError: rate is not in [0, 1], shape has no batch axis, examples is not (n,), or key is
        not a single one.

    Example:
      >>> key = jax.random.key(0)
      >>> whole = dropout_mask(key, 0.5, (4, 3))
      >>> half = dropout_mask(key, 0.5, (2, 3), examples=jnp.array([2, 3]))
      >>> bool((whole[2:] == half).all())
      True
    """
    rate = check_rate(rate, "dropout_mask")
    shape = tuple(shape)
    if not shape:
        raise ValueError("dropout_mask: shape must have a leading batch axis (n, ...), got ()")
    keys = example_keys(key, shape[0], examples, "dropout_mask")
    if rate in (0.0, 1.0):
        return jnp.full(shape, rate == 0.0)
    threshold = jnp.uint32(min(round(rate * 2**32), 2**32 - 1))
    size = math.prod(shape[1:])  # drawn flat: the same bits, and quicker to compile
    bits = jax.vmap(lambda k: jax.random.bits(k, (size,), jnp.uint32))(keys)
    return bits.reshape(shape) >= threshold


def dropout(x: Array, rate: float, key: Array, *, examples: Array | None = None) -> Array:
    """Inverted dropout, for training: `x m / (1 - rate)`, so that the mean is `x`.

    The variance of an entry is `x^2 rate / (1 - rate)`. At test time nothing is done. Rate 0
    returns `x`, rate 1 zeros. What is dropped is 0 in the forward pass and gets gradient 0.

    Shapes:
      x: (n, ...), batch first; key: (); examples: (n,), see `dropout_mask`; result: as x.

    Raises:
      TypeError: x is not floating point, rate not a Python number, examples not integers.
      ValueError: rate is not in [0, 1], x has no batch axis, examples is not (n,).

    Source: Srivastava et al. 2014; D2L 5.6. PyTorch's `dropout(p=rate)` is the same with one
    generator for the batch.

    Example:
      >>> y = dropout(jnp.ones((100, 100)), 0.2, jax.random.key(0))
      >>> sorted(set(y.ravel().tolist()))
      [0.0, 1.25]
    """
    check_floating(x, "dropout: x")
    rate = check_rate(rate, "dropout")
    mask = dropout_mask(key, rate, jnp.shape(x), examples=examples)
    if rate == 0:
        return x
    scaled = x if rate == 1 else x / (1 - rate)
    return jnp.where(mask, scaled, 0)


def classic_dropout(
    x: Array, rate: float, key: Array | None, *, train: bool, examples: Array | None = None
) -> Array:
    """Dropout as first published: `x m` in training, `x (1 - rate)` at test time.

    The factor at test time is the probability of *keeping* a unit; multiplying by the rate dropped
    is right only at 0.5.

    Shapes:
      x: (n, ...), batch first; key: (), may be None when `train` is False; examples: (n,), see
      `dropout_mask`; result: as x.

    Raises:
      TypeError, ValueError: as `dropout`; ValueError for training without a key.

    Source: Hinton et al. 2012, "Improving neural networks by preventing co-adaptation of feature
    detectors".

    Example:
      >>> classic_dropout(jnp.ones(2), 0.25, None, train=False)
      Array([0.75, 0.75], dtype=float32)
    """
    check_floating(x, "classic_dropout: x")
    rate = check_rate(rate, "classic_dropout")
    if not train:
        return x * (1 - rate)
    if key is None:
        raise ValueError("classic_dropout: key is None, but training draws a mask; pass a PRNG key")
    return jnp.where(dropout_mask(key, rate, jnp.shape(x), examples=examples), x, 0)
