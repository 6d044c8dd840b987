"""Rearranging channels."""

import jax
import jax.numpy as jnp

from jaxd2l.geometry import as_int

Array = jax.Array


def channel_shuffle(x: Array, groups: int) -> Array:
    """Deal the channels out, so that each new group has some from every old one.

    With m = c / groups channels a group: y[..., j*groups + g] = x[..., g*m + j].

    Between two convolutions in groups it lets every output see every input; without it the groups
    never meet. `channel_shuffle(y, m)` undoes it.

    Shapes:
      x: (..., c), c a multiple of `groups`; returns the same shape and dtype.

    Raises:
      ValueError: x has no axis of channels, or groups do not divide them.

    Source: Zhang et al. 2018 (ShuffleNet), section 3.1. PyTorch's has the channels on axis 1.

    Example:
      >>> print(channel_shuffle(jnp.arange(6), 2))
      [0 3 1 4 2 5]
    """
    x, groups = jnp.asarray(x), as_int(groups, "channel_shuffle: groups", 1)
    if x.ndim == 0 or x.shape[-1] % groups:
        raise ValueError(
            f"channel_shuffle: groups={groups} must divide the channels, the last axis of x, "
            f"got shape {x.shape}"
        )
    *rest, c = x.shape
    parts = x.reshape(*rest, groups, c // groups)  # (..., g, m)
    return jnp.swapaxes(parts, -1, -2).reshape(x.shape)  # (..., m, g) -> (..., c)
