"""Dense layers and their normalised variants, and embedding look-up."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxd2l.checks import check_integer, check_rank

Array = jax.Array


def dense(x: Array, kernel: Array, bias: Array | None = None) -> Array:
    """Fully connected layer y = x kernel + bias.

    Shapes:
      x: (..., in).
      kernel: (in, out).
      bias: (out,) or None.
      returns: (..., out).

    Raises:
      ValueError: the shapes do not fit.

    Source: D2L 3.1, 4.1. torch.nn.Linear stores the kernel as (out, in).

    Example:
      >>> print(dense(jnp.array([[1.0, 2.0]]), jnp.eye(2), jnp.array([10.0, 20.0])))
      [[11. 22.]]
    """
    _check_kernel(x, kernel, "dense")
    y = jnp.matmul(x, kernel)
    if bias is None:
        return y
    if tuple(jnp.shape(bias)) != (kernel.shape[1],):
        raise ValueError(
            f"dense: bias must have shape ({kernel.shape[1]},) for a kernel of shape "
            f"{tuple(kernel.shape)}, got {tuple(jnp.shape(bias))}"
        )
    return y + jnp.reshape(bias, (1,) * (y.ndim - 1) + (-1,))


def cosine_dense(x: Array, kernel: Array, eps: float = 1e-8) -> Array:
    """Cosine normalisation: the cosine of the angle between the input and each unit's weights.

    y_j = x . w_j / (max(|x|, eps) max(|w_j|, eps)), so -1 <= y <= 1 and the magnitude of the input
    is lost. A zero vector gives 0 with gradient 0 (the plain formula: NaN). Large vectors do not
    overflow.

    Shapes:
      x: (..., in).
      kernel: (in, out).
      returns: (..., out).

    Raises:
      ValueError: the shapes do not fit.

    Source: Luo et al. 2017; like torch.nn.functional.cosine_similarity with every column.

    Example:
      >>> print(cosine_dense(jnp.array([3.0, 4.0]), jnp.array([[30.0, 0.0], [40.0, 0.0]])))
      [1. 0.]
    """
    _check_kernel(x, kernel, "cosine_dense")
    return jnp.matmul(_unit(x, (-1,), eps), _unit(kernel, (0,), eps))


def weight_norm(v: Array, g: Array) -> Array:
    """Weight normalisation: the kernel w = g v / |v|, length and direction learned apart.

    The norm of each unit runs over every axis but the last, so |w[..., j]| = g_j. A unit whose v is
    all zeros gives zeros with gradient 0 (torch: NaN).

    Shapes:
      v: (..., in, out), a dense or convolution kernel of any rank from 2.
      g: (out,).
      returns: the shape of v.

    Raises:
      ValueError: v has fewer than two axes, or g is not one number a unit.

    Source: Salimans and Kingma 2016; torch.nn.utils.parametrizations.weight_norm has its units on
    axis 0.

    Example:
      >>> print(weight_norm(jnp.array([[3.0, 0.0], [4.0, 2.0]]), jnp.array([10.0, 1.0])).round(4))
      [[6. 0.]
       [8. 1.]]
    """
    if jnp.ndim(v) < 2:
        raise ValueError(f"weight_norm: v must have shape (..., in, out), got {jnp.shape(v)}")
    if tuple(jnp.shape(g)) != (v.shape[-1],):
        raise ValueError(
            f"weight_norm: g must have shape ({v.shape[-1]},) for v of shape {tuple(v.shape)}, "
            f"got {tuple(jnp.shape(g))}"
        )
    return jnp.reshape(g, (1,) * (v.ndim - 1) + (-1,)) * _unit(v, tuple(range(v.ndim - 1)), 0.0)


def embedding(tokens: Array, table: Array) -> Array:
    """The row of `table` for each token: a one-hot vector times the table, without the product.

    Nothing can raise inside a compiled function. Plain indexing would silently clamp a token that
    is too large to the last row and count a negative one from the end; here both give a row of NaN,
    which the loss shows. Check data on the host with `check_tokens` when it is loaded.

    Shapes:
      tokens: (...), integers in [0, size).
      table: (size, d).
      returns: (..., d), the dtype of the table.

    Raises:
      TypeError: tokens are not integers.
      ValueError: the table has not two axes.

    Source: D2L 10.7 (embedding layer), 15.4. torch.nn.Embedding raises instead of giving NaN.

    Example:
      >>> print(embedding(jnp.array([1, 0, 3]), jnp.array([[1.0, 2.0], [3.0, 4.0]])))
      [[ 3.  4.]
       [ 1.  2.]
       [nan nan]]
    """
    check_integer(tokens, "embedding: tokens")
    check_rank(table, 2, "embedding: table", "(size, d)")
    return table.at[tokens].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)


def check_tokens(tokens: Any, size: int) -> None:
    """Refuse tokens (or labels) outside [0, size); runs on the host, so not under `jit`.

    Shapes:
      tokens: any shape, integers.

    Raises:
      TypeError: tokens are not integers.
      ValueError: one is out of range; the message has the first such value and its index.

    Example:
      >>> check_tokens([[0, 1], [7, 1]], 5)
      Traceback (most recent call last):
      ValueError: check_tokens: token 7 at index (1, 0) is outside [0, 5) (1 of 4 tokens are)
    """
    values = np.asarray(tokens)
    if values.size == 0:
        return
    if not np.issubdtype(values.dtype, np.integer):
        raise TypeError(f"check_tokens: tokens must be integers, got {values.dtype}")
    bad = (values < 0) | (values >= size)
    count = int(bad.sum())
    if count:
        first = np.unravel_index(int(np.argmax(bad)), values.shape)
        index = tuple(int(i) for i in first)
        raise ValueError(
            f"check_tokens: token {int(values[first])} at index {index} is outside [0, {size}) "
            f"({count} of {values.size} tokens are)"
        )


def _check_kernel(x: Array, kernel: Array, what: str) -> None:
    check_rank(kernel, 2, f"{what}: kernel", "(in, out)")
    if jnp.ndim(x) == 0 or x.shape[-1] != kernel.shape[0]:
        raise ValueError(
            f"{what}: x must have shape (..., {kernel.shape[0]}) for a kernel of shape "
            f"{tuple(kernel.shape)}, got {tuple(jnp.shape(x))}"
        )


def _unit(v: Array, axes: Sequence[int], eps: float) -> Array:
    """v / max(|v|, eps) over `axes`; a zero vector gives 0 with gradient 0, a huge one is safe."""
    top = jax.lax.stop_gradient(jnp.max(jnp.abs(v), axis=tuple(axes), keepdims=True))
    full = top > 0
    top = jnp.where(full, top, jnp.ones_like(top))
    scaled = v / top
    squares = jnp.sum(jnp.square(scaled), axis=tuple(axes), keepdims=True)
    length = jnp.sqrt(jnp.where(full, squares, jnp.ones_like(squares)))  # >= 1
    return jnp.where(full, scaled / jnp.maximum(length, eps / top), jnp.zeros_like(v))
