"""Norms of vectors and matrices, with the gradient 0 (a subgradient), never NaN, at 0."""

import numbers
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxd2l.checks import check_floating

Array = jax.Array


def lp_norm(x: Array, p: float, axis: int | Sequence[int] | None = None) -> Array:
    """`(sum |x|^p)^(1/p)` for p >= 1; the largest `|x|` for p = infinity.

    The sum is taken of `x` divided by its largest entry, so that it neither overflows nor vanishes.
    At x = 0 the gradient is 0, as are the partial derivatives of p = 1 at entries that are 0.

    Shapes:
      x: any; axis: the axes that are summed, all by default; result: x without these axes.

    Raises:
      TypeError: x is not floating point.
      ValueError: p < 1, where the formula is not a norm; for p = 0 see `l0_count`.

    Source: D2L 2.3.11. The gradient of `jnp.linalg.norm` at 0 is NaN.

    Example:
      >>> lp_norm(jnp.array([3.0, -4.0]), 2), lp_norm(jnp.array([3.0, -4.0]), float("inf"))
      (Array(5., dtype=float32), Array(4., dtype=float32))
    """
    check_floating(x, "lp_norm: x")
    if isinstance(p, bool) or not isinstance(p, numbers.Real):
        raise TypeError(f"lp_norm: p must be a Python number, got {type(p).__name__}")
    if not p >= 1:
        hint = "; for the number of non-zero entries use l0_count" if p == 0 else ""
        raise ValueError(f"lp_norm: p must be at least 1, got {p}{hint}")
    axes = axis if axis is None or isinstance(axis, int) else tuple(axis)
    size = x * jnp.sign(x)  # |x| with derivative 0 at 0; that of jnp.abs is 1 there
    if p == 1:
        return jnp.sum(size, axis=axes)
    largest = jnp.max(size, axis=axes, keepdims=True, initial=0)
    if p == float("inf"):
        return jnp.max(size, axis=axes, initial=0)
    scale = jax.lax.stop_gradient(jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1))
    if p == 2:
        powers = jnp.square(x / scale)
    else:  # the power is kept away from 0, where its higher derivatives are not finite
        some = size != 0  # true for NaN
        powers = jnp.where(some, jnp.where(some, size / scale, 1) ** float(p), 0)
    total = jnp.sum(powers, axis=axes)
    empty = total == 0
    root = jnp.where(empty, 1, total)
    root = jnp.sqrt(root) if p == 2 else root ** (1 / float(p))
    return jnp.where(empty, 0, root) * jnp.reshape(scale, total.shape)


def l0_count(x: Array, axis: int | Sequence[int] | None = None) -> Array:
    """The number of entries that are not 0, sometimes called L0. Not a norm: `2 x` has the same.

    Shapes:
      x: any; axis: the axes that are counted, all by default; result: x without these, int32.

    Example:
      >>> l0_count(jnp.array([0.0, -2.0, 3.0]))
      Array(2, dtype=int32)
    """
    axes = axis if axis is None or isinstance(axis, int) else tuple(axis)
    return jnp.sum(jnp.asarray(x) != 0, axis=axes, dtype=jnp.int32)


def frobenius_norm(matrices: Array) -> Array:
    """`sqrt(sum_ij a_ij^2)` of each matrix: the L2 norm of its entries.

    Shapes:
      matrices: (..., rows, columns); result: (...).

    Raises:
      TypeError: not floating point.
      ValueError: fewer than two axes.

    Source: D2L 2.3.11.

    Example:
      >>> frobenius_norm(jnp.ones((4, 9)))
      Array(6., dtype=float32)
    """
    if jnp.ndim(matrices) < 2:
        raise ValueError(
            f"frobenius_norm: matrices must have shape (..., rows, columns), "
            f"got {tuple(jnp.shape(matrices))}"
        )
    return lp_norm(matrices, 2, axis=(-2, -1))
