"""Softmax, log-softmax and log-sum-exp that neither overflow nor take the logarithm of 0."""

import jax
import jax.numpy as jnp

from jaxd2l.checks import check_floating

Array = jax.Array


def softmax(x: Array, axis: int = -1, where: Array | None = None) -> Array:
    """Probabilities from logits.

    p_i = exp(x_i - m) / sum_k exp(x_k - m), with m = max_k x_k: the shift changes nothing on paper
    and keeps every exponent at or below 0. dp_i/dx_j = p_i (delta_ij - p_j). In floating point a
    probability can be exactly 0 (float32: from 104 below the largest logit at the latest), so take
    `log_softmax` rather than the logarithm of this. Logits that are all -inf give NaN: use
    `where` for masks.

    Shapes:
      x: any shape; softmax over `axis`.
      where: None, or booleans that broadcast to the shape of x; True = takes part. The others get
        probability 0 and gradient 0, and a row with none gives zeros (jax.nn.softmax: NaN
        gradients).
      returns: the shape and dtype of x.

    Raises:
      TypeError: x is not floating point, or `where` is not boolean.

    Source: D2L 4.1.1, 4.5.2; equal to torch.softmax and jax.nn.softmax.

    Example:
      >>> [f"{p:.4f}" for p in softmax(jnp.array([1.0, 2.0, 3.0, 4.0, 5.0]))]
      ['0.0117', '0.0317', '0.0861', '0.2341', '0.6364']
      >>> print(softmax(jnp.array([1000.0, 2000.0, 5000.0])))
      [0. 0. 1.]
    """
    check_floating(x, "softmax: x")
    if where is None:
        return jax.nn.softmax(x, axis=axis)
    mask = _as_mask(x, where, "softmax")
    empty = jnp.logical_not(jnp.any(mask, axis=axis, keepdims=True))
    outside = jnp.where(jnp.broadcast_to(empty, mask.shape), 0.0, -jnp.inf).astype(x.dtype)
    p = jax.nn.softmax(jnp.where(mask, x, outside), axis=axis)
    return jnp.where(mask, p, 0.0)


def log_softmax(x: Array, axis: int = -1) -> Array:
    """Logarithms of `softmax(x)`, finite where the probability itself would round to 0.

    log p_i = x_i - m - log sum_k exp(x_k - m), with m = max_k x_k. It replaces log(p + 1e-5),
    whose answer is wrong by the constant for every small p.

    Shapes:
      x: any shape; over `axis`.
      returns: the shape and dtype of x.

    Raises:
      TypeError: x is not floating point.

    Source: D2L 4.5.2; equal to torch.log_softmax and jax.nn.log_softmax.

    Example:
      >>> print(log_softmax(jnp.array([0.0, 1000.0])))
      [-1000.     0.]
    """
    check_floating(x, "log_softmax: x")
    return jax.nn.log_softmax(x, axis=axis)


def logsumexp(x: Array, axis: int | tuple[int, ...] | None = -1, keepdims: bool = False) -> Array:
    """log sum_k exp(x_k), computed as m + log sum_k exp(x_k - m) with m = max_k x_k.

    Its gradient is softmax(x). All logits -inf give -inf with gradient 0 (jax.nn.logsumexp: NaN).

    Shapes:
      x: any shape; reduced over `axis` (an int, a tuple, or None for all axes).
      returns: x without `axis`, or with sizes 1 there when `keepdims`.

    Raises:
      TypeError: x is not floating point.

    Source: D2L 4.5.2; equal to torch.logsumexp and jax.nn.logsumexp.

    Example:
      >>> print(f"{logsumexp(jnp.array([1000.0, 1000.0])):.3f}")
      1000.693
    """
    check_floating(x, "logsumexp: x")
    empty = jnp.all(jnp.isneginf(x), axis=axis, keepdims=True)
    safe = jnp.where(jnp.broadcast_to(empty, jnp.shape(x)), 0.0, x)
    y = jax.nn.logsumexp(safe, axis=axis, keepdims=keepdims)
    return jnp.where(jnp.reshape(empty, y.shape), -jnp.inf, y)


def _as_mask(x: Array, where: Array, what: str) -> Array:
    """`where` as booleans of the shape of `x`."""
    if jnp.result_type(where) != jnp.bool_:
        raise TypeError(
            f"{what}: where must be boolean (True = takes part), got {jnp.result_type(where)}"
        )
    try:
        return jnp.broadcast_to(where, jnp.shape(x))
    except ValueError:
        raise ValueError(
            f"{what}: where must broadcast to the shape of x, {tuple(jnp.shape(x))}, "
            f"got {tuple(jnp.shape(where))}"
        ) from None
