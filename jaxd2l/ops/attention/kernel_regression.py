"""Attention without learned projections: kernel regression, the book's first attention pooling."""

import jax
import jax.numpy as jnp

from jaxd2l.checks import check_floating
from jaxd2l.ops.attention.dot_product import masked_softmax

Array = jax.Array


def nadaraya_watson(
    query: Array,
    key: Array,
    value: Array,
    scale: Array | float = 1.0,
    *,
    mask: Array | None = None,
) -> Array:
    """Kernel regression: the mean of the values, each weighted by how near its key is to the query.

    y(q) = sum_i softmax_i(-|(q - k_i) scale|^2 / 2) v_i, a Gaussian kernel of bandwidth 1 / scale.
    Non-parametric with a fixed scale (1 in the book); parametric where the scale is a parameter
    that gradient descent learns. Scale 0 is average pooling; a scale that grows takes the value of
    the nearest key, and the mean of those that are equally near.

    In training a query is usually one of the keys, and would find its own value: leave it out, by
    `mask=~jnp.eye(n, dtype=bool)`.

    Memory grows as q k d: every difference is formed.

    Shapes:
      query: (..., q, d); key: (..., k, d); value: (..., k, v). Or plain numbers, as in the book:
      (q,), (k,) and (k,).
      scale: (), a number or an array; it may be traced.
      mask: boolean, broadcast to (..., q, k), True = attend. A query without keys gives zeros.
      returns: (..., q, v), or (q,), of the dtype of value.

    Raises:
      TypeError: an array is not floating point, or the mask is not boolean.
      ValueError: the shapes do not fit.

    Source: Nadaraya 1964, Watson 1964; D2L 11.2 (10.2 in the older edition). The book writes w for
    the scale, and builds arrays of keys that lack the query's own.

    Example:
      >>> x, y = jnp.array([0.0, 1.0, 3.0]), jnp.array([0.0, 10.0, 30.0])
      >>> [[f"{p:.2f}" for p in nadaraya_watson(x, x, y, scale)] for scale in (0.0, 1.0, 100.0)]
      [['13.33', '13.33', '13.33'], ['3.96', '8.07', '27.35'], ['0.00', '10.00', '30.00']]
    """
    where = "nadaraya_watson"
    check_floating(value, f"{where}: value")
    if jnp.ndim(query) == jnp.ndim(key) == jnp.ndim(value) == 1:
        q, k, v = (jnp.reshape(x, (-1, 1)) for x in (query, key, value))
        return nadaraya_watson(q, k, v, scale, mask=mask)[:, 0]
    weights = nadaraya_watson_weights(query, key, scale, mask=mask)
    wanted = (*weights.shape[:-2], weights.shape[-1])
    if jnp.ndim(value) != jnp.ndim(query) or value.shape[:-1] != wanted:
        raise ValueError(
            f"{where}: value must have the shape of key but for the last axis, "
            f"got {tuple(jnp.shape(value))} for key {tuple(jnp.shape(key))}"
        )
    return jnp.matmul(weights.astype(value.dtype), value)


def nadaraya_watson_weights(
    query: Array, key: Array, scale: Array | float = 1.0, *, mask: Array | None = None
) -> Array:
    """The weights of `nadaraya_watson`, softmax_i(-|(q - k_i) scale|^2 / 2); each row sums to 1.

    Shapes: as there; returns (..., q, k), of the dtype of query, half precision being computed in
    float32.

    Raises:
      TypeError, ValueError: as there.

    Example:
      >>> x = jnp.array([0.0, 1.0, 3.0])
      >>> weights = nadaraya_watson_weights(x, x, mask=~jnp.eye(3, dtype=bool))
      >>> [f"{p:.3f}" for p in weights[0]]
      ['0.000', '0.982', '0.018']
    """
    where = "nadaraya_watson"
    check_floating(query, f"{where}: query")
    check_floating(key, f"{where}: key")
    if jnp.ndim(query) == jnp.ndim(key) == 1:
        query, key = jnp.reshape(query, (-1, 1)), jnp.reshape(key, (-1, 1))
    rank = jnp.ndim(query)
    if rank < 2 or jnp.ndim(key) != rank or _but_time(query) != _but_time(key):
        raise ValueError(
            f"{where}: query and key must have shapes (..., q, d) and (..., k, d), or (q,) and "
            f"(k,), got {tuple(jnp.shape(query))} and {tuple(jnp.shape(key))}"
        )
    if jnp.ndim(scale) != 0:
        raise ValueError(f"{where}: scale must be one number, got shape {jnp.shape(scale)}")
    dtype = jnp.float64 if query.dtype == jnp.float64 else jnp.float32
    difference = query.astype(dtype)[..., :, None, :] - key.astype(dtype)[..., None, :, :]
    scores = -0.5 * jnp.sum(jnp.square(difference * jnp.asarray(scale, dtype)), axis=-1)
    return masked_softmax(scores, mask).astype(query.dtype)


def _but_time(x: Array) -> tuple[int, ...]:
    return *x.shape[:-2], x.shape[-1]
