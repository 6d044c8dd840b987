"""Additive attention: a small network of one hidden layer scores each query against each key."""

import jax
import jax.numpy as jnp

from jaxd2l.checks import check_floating, check_rank
from jaxd2l.ops.attention.dot_product import masked_softmax
from jaxd2l.ops.attention.pattern import make_pattern
from jaxd2l.ops.dropout import dropout as drop

Array = jax.Array


def additive_attention(
    query: Array,
    key: Array,
    value: Array,
    query_kernel: Array,
    key_kernel: Array,
    score_kernel: Array,
    *,
    lengths: Array | None = None,
    mask: Array | None = None,
    dropout: float = 0.0,
    dropout_key: Array | None = None,
    examples: Array | None = None,
) -> Array:
    """Attention for queries and keys of different sizes: y = sum_i softmax_i(s(q, k_i)) v_i, with
    the score s(q, k) = w . tanh(q W_q + k W_k).

    Quadratic: the hidden layer of every pair is held, n q k h numbers, and again for the gradient.
    `dot_product_attention` needs memory for q + k only.

    Shapes:
      query: (n, q, dq); key: (n, k, dk); value: (n, k, v).
      query_kernel: (dq, h); key_kernel: (dk, h); score_kernel: (h,).
      lengths: (n,), integers, the number of valid keys; mask: boolean, broadcast to (n, q, k),
        True = attend. A query without keys gives zeros.
      dropout: the fraction of weights dropped; dropout_key: (); examples: (n,), see `ops.dropout`.
      returns: (n, q, v), of the dtype of value; softmax in float32 at least.

    Raises:
      TypeError: an array is not floating point, lengths no integers, or the mask not boolean.
      ValueError: the shapes do not fit, or dropout is without a key.

    Source: Bahdanau et al. 2015, arXiv:1409.0473; D2L 11.3 (10.3 in the older edition).

    Example:
      >>> query, key = jnp.ones((1, 1, 3)), jnp.ones((1, 4, 2))  # equal keys: the mean of values
      >>> value = jnp.arange(8.0).reshape(1, 4, 2)
      >>> kernels = jnp.ones((3, 5)), jnp.ones((2, 5)), jnp.ones(5)
      >>> print(additive_attention(query, key, value, *kernels, lengths=jnp.array([2])))
      [[[1. 2.]]]
    """
    where = "additive_attention"
    weights = additive_weights(
        query, key, query_kernel, key_kernel, score_kernel, lengths=lengths, mask=mask
    )
    n, _, k = weights.shape
    check_floating(value, f"{where}: value")
    if jnp.ndim(value) != 3 or value.shape[:2] != (n, k):
        raise ValueError(
            f"{where}: value must have shape ({n}, {k}, v) for these keys, "
            f"got {tuple(jnp.shape(value))}"
        )
    if dropout:
        if dropout_key is None:
            raise ValueError(f"{where}: dropout is {dropout}, but dropout_key is None; pass a key")
        weights = drop(weights, dropout, dropout_key, examples=examples)
    return jnp.matmul(weights.astype(value.dtype), value)


def additive_weights(
    query: Array,
    key: Array,
    query_kernel: Array,
    key_kernel: Array,
    score_kernel: Array,
    *,
    lengths: Array | None = None,
    mask: Array | None = None,
) -> Array:
    """The weights of `additive_attention`, softmax_i(w . tanh(q W_q + k_i W_k)); rows sum to 1.

    Shapes: as there; returns (n, q, k), of the dtype of query.

    Raises:
      TypeError, ValueError: as there.

    Example:
      >>> query, key = jnp.zeros((1, 1, 1)), jnp.array([[[0.0], [9.0], [9.0]]])
      >>> kernels = jnp.ones((1, 1)), jnp.ones((1, 1)), jnp.log(jnp.array([2.0]))
      >>> weights = additive_weights(query, key, *kernels)  # scores 0, log 2, log 2
      >>> [f"{p:.3f}" for p in weights[0, 0]]
      ['0.200', '0.400', '0.400']
    """
    where = "additive_attention"
    kernels = {"query": query_kernel, "key": key_kernel}
    hidden = {}
    for name, x in {"query": query, "key": key}.items():
        check_floating(x, f"{where}: {name}")
        check_rank(x, 3, f"{where}: {name}", "(n, time, features)")
        wanted = (x.shape[-1], *jnp.shape(score_kernel))
        if len(wanted) != 2 or jnp.shape(kernels[name]) != wanted:
            raise ValueError(
                f"{where}: {name}_kernel must have shape ({x.shape[-1]}, h) and score_kernel (h,), "
                f"got {tuple(jnp.shape(kernels[name]))} and {tuple(jnp.shape(score_kernel))}"
            )
        hidden[name] = jnp.matmul(x, kernels[name])
    if query.shape[0] != key.shape[0]:
        raise ValueError(
            f"{where}: query and key must have the same number of examples, got {query.shape[0]} "
            f"and {key.shape[0]}"
        )
    pairs = jnp.tanh(hidden["query"][:, :, None] + hidden["key"][:, None])  # (n, q, k, h)
    scores = jnp.einsum("nqkh,h->nqk", pairs, score_kernel)
    return masked_softmax(scores, _visible(mask, lengths, scores.shape, where))


def _visible(
    mask: Array | None, lengths: Array | None, shape: tuple[int, ...], where: str
) -> Array | None:
    """What the mask and the lengths allow, as booleans (n, q, k); None: everything."""
    n, q, k = shape
    valid = make_pattern((n, 1, q, k), False, lengths, None, 0, where).allowed(0, k)
    if mask is None:
        return None if valid is None else valid[:, 0]
    given = jnp.shape(mask)
    if jnp.result_type(mask) != jnp.bool_:
        raise TypeError(
            f"{where}: mask must be boolean (True = attend), got {jnp.result_type(mask)}"
        )
    if len(given) > 3 or any(
        a not in (1, b) for a, b in zip(given[::-1], shape[::-1], strict=False)
    ):
        raise ValueError(f"{where}: mask must broadcast to {shape}, got {given}")
    mask = jnp.broadcast_to(mask, shape)
    return mask if valid is None else jnp.logical_and(mask, valid[:, 0])
