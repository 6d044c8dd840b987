"""From a sequence to a vector: the maximum, k maxima, the mean or the last step, over valid steps.

With `lengths` the steps beyond a row's length are padding: whatever they hold, NaN included,
changes nothing and gets gradient 0. A length above t counts as t. A row of length 0 gives zeros,
gradient 0; so does what is missing of k maxima.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxd2l.checks import check_floating, check_rank
from jaxd2l.geometry import as_int
from jaxd2l.ops import pool
from jaxd2l.ops.lengths import valid_steps
from jaxd2l.ops.sampling import sample_dtype

Array = jax.Array


def max_over_time(x: Array, lengths: Array | None = None) -> Array:
    """The maximum over time of each feature; the gradient goes to the first of equal ones.

    Shapes:
      x: (n, t, c), t >= 1; lengths: (n,), integers, default t; returns: (n, c).

    Raises:
      TypeError: x is not floating point, or lengths not integers.
      ValueError: x is not (n, t, c) with a step, or lengths is not (n,).

    Source: Kim 2014, arXiv:1408.5882 (textCNN); D2L 16.3. PyTorch: `x.max(1).values`.

    Example:
      >>> x = jnp.array([[[1.0, 5.0], [3.0, 2.0], [9.0, 9.0]]])
      >>> print(max_over_time(x, jnp.array([2])))
      [[3. 5.]]
    """
    x, valid = _checked("max_over_time", x, lengths)
    if valid is None:
        return pool.global_max_pool(x)
    return jnp.where(valid[:, 0], pool.global_max_pool(jnp.where(valid, x, -jnp.inf)), 0)


def k_max_over_time(x: Array, k: int, lengths: Array | None = None) -> Array:
    """The k largest values over time of each feature, in the order in which they occur.

    Of equal values the earlier is taken. Where fewer than k steps are valid, all of them come
    first, and then zeros. k = 1 is `max_over_time` with the time axis kept.

    Shapes:
      x: (n, t, c), t >= 1; lengths: (n,), integers, default t; returns: (n, k, c).

    Raises:
      TypeError: x is not floating point, or k or lengths are not integers.
      ValueError: k is below 1, x is not (n, t, c) with a step, or lengths is not (n,).

    Source: Kalchbrenner et al. 2014, arXiv:1404.2188. PyTorch and Flax have none;
    `ops.pool.k_max_pool` is the same for whole sequences, and refuses k > t.

    Example:
      >>> x = jnp.array([3.0, 1.0, 5.0, 2.0, 4.0]).reshape(1, 5, 1)
      >>> print(k_max_over_time(x, 3)[0, :, 0], k_max_over_time(x, 3, jnp.array([2]))[0, :, 0])
      [3. 5. 4.] [3. 1. 0.]
    """
    x, valid = _checked("k_max_over_time", x, lengths)
    k = as_int(k, "k_max_over_time: k", 1)
    found = min(k, x.shape[1])
    if valid is None:
        y = pool.k_max_pool(x, found)
    else:
        # Padding is the smallest and the last, so what is taken of it is at the end.
        y = pool.k_max_pool(jnp.where(valid, x, -jnp.inf), found)
        y = jnp.where(valid[:, :found], y, 0)
    return jnp.pad(y, ((0, 0), (0, k - found), (0, 0)))


def mean_over_time(x: Array, lengths: Array | None = None) -> Array:
    """The mean over time of each feature, summed in float32 at least.

    Shapes:
      x: (n, t, c), t >= 1; lengths: (n,), integers, default t; returns: (n, c).

    Raises:
      TypeError: x is not floating point, or lengths not integers.
      ValueError: x is not (n, t, c) with a step, or lengths is not (n,).

    Source: D2L 16.3 pools over time by the maximum; the mean is Iyyer et al. 2015's.

    Example:
      >>> x = jnp.array([[[1.0, 5.0], [3.0, 2.0], [9.0, 9.0]]])
      >>> print(mean_over_time(x, jnp.array([2])))
      [[2.  3.5]]
    """
    x, valid = _checked("mean_over_time", x, lengths)
    if valid is None:
        return pool.global_avg_pool(x)
    total = jnp.sum(jnp.where(valid, x, 0), axis=1, dtype=sample_dtype(x.dtype))
    count = jnp.sum(valid, axis=1, dtype=total.dtype)  # (n, c)
    return (total / jnp.maximum(count, 1)).astype(x.dtype)


def last_step(x: Array, lengths: Array | None = None) -> Array:
    """The features of the last valid step: of many-to-one recurrent networks, the output.

    Shapes:
      x: (n, t, c), t >= 1; lengths: (n,), integers, default t; returns: (n, c).

    Raises:
      TypeError: x is not floating point, or lengths not integers.
      ValueError: x is not (n, t, c) with a step, or lengths is not (n,).

    Source: D2L 9.4 and 16.2.

    Example:
      >>> x = jnp.array([[[1.0, 5.0], [3.0, 2.0], [9.0, 9.0]]])
      >>> print(last_step(x), last_step(x, jnp.array([2])))
      [[9. 9.]] [[3. 2.]]
    """
    x, valid = _checked("last_step", x, lengths)
    if valid is None:
        return x[:, -1]
    last = jnp.sum(valid[:, :, :1], axis=1, keepdims=True, dtype=jnp.int32) - 1  # (n, 1, 1)
    y = jnp.take_along_axis(x, jnp.maximum(last, 0), axis=1)
    return jnp.where(valid[:, 0], jnp.squeeze(y, 1), 0)


def _checked(where: str, x: Any, lengths: Array | None) -> tuple[Array, Array | None]:
    """x, and which of its entries are valid, both (n, t, c)."""
    check_rank(x, 3, f"{where}: x", "(n, t, c)")
    check_floating(x, f"{where}: x")
    x = jnp.asarray(x)
    n, t, _ = x.shape
    if t == 0:
        raise ValueError(f"{where}: x has no time steps, got shape {x.shape}")
    if lengths is None:
        return x, None
    return x, jnp.broadcast_to(valid_steps(lengths, n, t, where)[:, :, None], x.shape)
