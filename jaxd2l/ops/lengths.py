"""Sequences of several lengths in one array: which of the time steps are valid."""

import jax
import jax.numpy as jnp

from jaxd2l.checks import check_integer

Array = jax.Array


def valid_steps(lengths: Array, n: int, t: int, where: str) -> Array:
    """Mask of the valid steps, True = valid: step j of row i is valid if j < lengths[i].

    A length above t counts as t, and one below 0 as 0. `where` is the name of the calling
    function, for errors.

    Shapes:
      lengths: (n,), integers; returns: (n, t), boolean.

    Raises:
      TypeError: lengths are not integers.
      ValueError: lengths is not (n,).

    Example:
      >>> print(valid_steps(jnp.array([2, 0]), 2, 3, "mean").astype(int))
      [[1 1 0]
       [0 0 0]]
    """
    check_integer(lengths, f"{where}: lengths")
    if jnp.shape(lengths) != (n,):
        raise ValueError(
            f"{where}: lengths must hold one length per row of x, shape ({n},), "
            f"got {jnp.shape(lengths)}"
        )
    steps = jnp.arange(t, dtype=jnp.int32)
    return steps[None, :] < jnp.asarray(lengths).astype(jnp.int32)[:, None]
