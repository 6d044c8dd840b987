"""Gradients cut to a largest norm or value. What is not finite is left as it is, to be seen."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxd2l.ops.metrics import global_norm

Array = jax.Array


def _check_limit(limit: Any, what: str) -> None:
    if isinstance(limit, bool) or (isinstance(limit, int | float) and not limit > 0):
        raise ValueError(f"{what} must be positive, got {limit!r}")


def clip_by_norm(limit: Any) -> optax.GradientTransformation:
    """g <- g min(1, limit / |g|), |g| over all gradients together: the direction is kept.

    To be put before an optimiser: `optax.chain(clip_by_norm(1.0), sgd(0.1))`. Gradients with a NaN
    or an infinite number have no direction: they go through as they are, all of them, for
    `skip_non_finite` around the chain to see. `optax.clip_by_global_norm` turns infinite ones into
    NaN and the finite ones beside them silently into 0, and overflows from norms of 1.8e19 on.

    Args:
      limit: the largest norm, positive: a number or a () array, possibly traced.

    Shapes: as the gradients.

    Raises:
      ValueError: a limit that is not positive.

    Source: Pascanu, Mikolov and Bengio 2013; D2L 9.5.3; catalogue F30. PyTorch's
    `clip_grad_norm_` divides by |g| + 1e-6.

    Example:
      >>> clip = clip_by_norm(1.0)
      >>> grads = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
      >>> clipped, _ = clip.update(grads, clip.init(grads))
      >>> print(clipped["a"], clipped["b"])
      [0.6] [0.8]
    """
    _check_limit(limit, "clip_by_norm: limit")

    def clip(grads: Any, params: Any) -> Any:
        norm = global_norm(grads)
        outside = jnp.isfinite(norm) & (norm > jnp.asarray(limit).astype(norm.dtype))
        one = jnp.ones_like(norm)
        factor = jnp.asarray(limit).astype(norm.dtype) / jnp.where(outside, norm, one)

        def cut(g: Array) -> Array:
            return jnp.where(outside, (g.astype(norm.dtype) * factor).astype(g.dtype), g)

        return jax.tree.map(cut, grads)

    return optax.stateless(clip)


def clip_by_value(limit: Any) -> optax.GradientTransformation:
    """g <- min(max(g, -limit), limit), number by number: the direction changes.

    Infinite gradients and NaN stay what they are, for `skip_non_finite` to see; `optax.clip` makes
    `limit` of an infinite one, as if it were merely large.

    Args:
      limit: the largest absolute value, positive: a number or a () array, possibly traced.

    Shapes: as the gradients.

    Raises:
      ValueError: a limit that is not positive.

    Source: Mikolov 2012, section 3.2.2; catalogue F30. PyTorch: `clip_grad_value_`.

    Example:
      >>> clip = clip_by_value(1.0)
      >>> clip.update(jnp.array([3.0, -0.5, -4.0]), clip.init(None))[0]
      Array([ 1. , -0.5, -1. ], dtype=float32)
    """
    _check_limit(limit, "clip_by_value: limit")

    def cut(g: Array) -> Array:
        bound = jnp.asarray(limit).astype(g.dtype)
        return jnp.where(jnp.isfinite(g), jnp.clip(g, -bound, bound), g)

    return optax.stateless(lambda grads, params: jax.tree.map(cut, grads))
