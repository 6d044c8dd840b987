"""Scaled dot-product attention: the function, its weights, and how it is computed."""

import math
import numbers

import jax
import jax.numpy as jnp

from jaxd2l.checks import check_floating, check_rank
from jaxd2l.ops.attention.fused import fits, fused_attention
from jaxd2l.ops.attention.pattern import Pattern, make_pattern, with_dropout
from jaxd2l.ops.attention.tiles import tiled_attention, wide_dtype
from jaxd2l.ops.softmax import softmax

Array = jax.Array

PLAIN = 128  # up to so many queries or keys the scores are made as one table


def masked_softmax(scores: Array, mask: Array | None = None) -> Array:
    """Softmax over the last axis, of the scores whose mask is True; half types in float32.

    p_ij = m_ij exp(s_ij) / sum_k m_ik exp(s_ik). A row without any True gives zeros, and its
    gradient is zero.

    Shapes:
      scores: (..., k); mask: booleans that broadcast to the shape of scores, None for all True;
      returns: the shape and dtype of scores.

    Raises:
      TypeError: scores are not floating point, or mask is not boolean.
      ValueError: mask does not broadcast to the scores.

    Source: D2L 11.3.2, where masked scores become -1e6, so that a row without a key is the mean of
    all of them.

    Example:
      >>> print(masked_softmax(jnp.zeros((2, 3)), jnp.array([[True, True, False], [False] * 3])))
      [[0.5 0.5 0. ]
       [0.  0.  0. ]]
    """
    check_floating(scores, "masked_softmax: scores")
    return softmax(scores.astype(wide_dtype(scores.dtype)), where=mask).astype(scores.dtype)


def dot_product_attention(
    query: Array,
    key: Array,
    value: Array,
    *,
    causal: bool = False,
    lengths: Array | None = None,
    segments: tuple[Array, Array] | None = None,
    mask: Array | None = None,
    offset: Array | int = 0,
    scale: float | None = None,
    dropout: float = 0.0,
    dropout_key: Array | None = None,
    examples: Array | None = None,
) -> Array:
    """Each query's mean of the values, weighted by softmax(scale q k^T) over the keys it sees.

    o_i = sum_j p_ij v_j, p_i = softmax over the visible j of `scale` q_i . k_j. With scale
    1/sqrt(d), scores of independent unit-variance queries and keys have variance 1. A query that
    sees no key gives zeros. Half types are summed, and their softmax taken, in float32.

    A key is visible if all that is given allows it: `causal`, key j <= i + offset; `lengths`, j
    below the example's length; `segments`, equal ids; `mask`.

    Memory grows linearly with the length, in derivatives too (`tiles`), unless a `mask` is given:
    then it is quadratic, q x k numbers for each head. Up to 128 queries or keys the plain formula
    is used. On an NVIDIA GPU cuDNN's fused kernel gives the value, if dtype is bfloat16 or float16,
    d = v is a multiple of 8 up to 128, and there is no mask, segments, dropout or offset (and
    causal has q = k); derivatives are those of the tiles.

    Shapes:
      query: (n, q, [heads,] d); key: (n, k, [heads,] d); value: (n, k, [heads,] v).
      lengths: (n,), integers, how many keys are valid.
      segments: ((n, q), (n, k)), integers.
      mask: booleans, (q, k) or broadcasting to (n, [heads,] q, k); True = attend.
      offset: () or (n,), integers: the position among the keys of the first query.
      dropout_key: (), a PRNG key; examples: (n,), see `dropout`.
      returns: (n, q, [heads,] v).

    Dropout zeroes weights (after the softmax) with probability `dropout` and divides the others by
    1 - dropout; whether p_ij is dropped is a function of (key, example, head, i, j) only.

    Raises:
      TypeError: an array has the wrong kind of dtype.
      ValueError: shapes do not match, dropout without a key, offset without causal.

    Source: Vaswani et al. 2017; D2L 11.3.3. torch.nn.functional.scaled_dot_product_attention has
    its heads before time, and NaN for a query that sees nothing.

    Example:
      >>> x = jnp.eye(2)[None]
      >>> print(dot_product_attention(x, x, x, causal=True, scale=0.0))
      [[[1.  0. ]
        [0.5 0.5]]]
    """
    where = "dot_product_attention"
    _check_value(key, value, where)
    q, k = _check_query_and_key(query, key, where)
    v = value[:, :, None] if value.ndim == 3 else value
    shape = _scores_shape(q, k)
    pattern = make_pattern(shape, causal, lengths, segments, offset, where)
    pattern, rate = with_dropout(pattern, dropout, dropout_key, examples, shape, where)
    table = _full_mask(mask, shape, query.ndim == 3, where)
    factor = _factor(scale, query.shape[-1], where)
    at_start = isinstance(offset, int) and offset == 0 and (not causal or shape[2] == shape[3])
    if rate == 1:
        o = jnp.broadcast_to(jnp.zeros_like(v[:, :1]), (*q.shape[:3], v.shape[-1]))
    elif mask is None and segments is None and rate == 0 and at_start and fits(q, v):
        valid = None if lengths is None else jnp.clip(jnp.asarray(lengths), 0, shape[3])
        valid = None if valid is None else valid.astype(jnp.int32)
        o = fused_attention(causal, factor, q, k, v, valid, pattern)
    elif mask is None and min(shape[2:]) > PLAIN:
        o = tiled_attention(q, k, v, pattern, factor, rate)
    else:
        p = _weights(q, k, pattern, table, factor)
        p = p if rate == 0 else pattern.drop(p, rate, 0, 0)
        o = jnp.einsum("nhqk,nkhv->nqhv", p.astype(v.dtype), v, preferred_element_type=p.dtype)
        o = o.astype(v.dtype)
    return o[:, :, 0] if query.ndim == 3 else o


def attention_weights(
    query: Array,
    key: Array,
    *,
    causal: bool = False,
    lengths: Array | None = None,
    segments: tuple[Array, Array] | None = None,
    mask: Array | None = None,
    offset: Array | int = 0,
    scale: float | None = None,
) -> Array:
    """The weights that `dot_product_attention` takes, p_i = softmax_j(scale q_i . k_j), to look at.

    Memory is quadratic in the length: q x k numbers for each head.

    Shapes:
      query: (n, q, [heads,] d); key: (n, k, [heads,] d); the rest as in `dot_product_attention`;
      returns: (n, [heads,] q, k), each row of sum 1, or 0 where a query sees no key.

    Raises:
      TypeError, ValueError: as `dot_product_attention`.

    Source: D2L 11.3.3 (attention weights as a heat map).

    Example:
      >>> x = jnp.zeros((1, 2, 4))
      >>> print(attention_weights(x, x, causal=True))
      [[[1.  0. ]
        [0.5 0.5]]]
    """
    where = "attention_weights"
    q, k = _check_query_and_key(query, key, where)
    shape = _scores_shape(q, k)
    pattern = make_pattern(shape, causal, lengths, segments, offset, where)
    table = _full_mask(mask, shape, query.ndim == 3, where)
    p = _weights(q, k, pattern, table, _factor(scale, query.shape[-1], where)).astype(query.dtype)
    return p[:, 0] if query.ndim == 3 else p


def _weights(q: Array, k: Array, pattern: Pattern, mask: Array | None, scale: float) -> Array:
    """The plain formula: (n, heads, q, k), in float32 at least."""
    wide = wide_dtype(q.dtype)
    scores = scale * jnp.einsum("nqhd,nkhd->nhqk", q, k, preferred_element_type=wide)
    allowed = pattern.allowed(0, k.shape[1])
    if mask is not None:
        allowed = mask if allowed is None else jnp.logical_and(allowed, mask)
    return softmax(scores, where=allowed)


def _factor(scale: float | None, d: int, where: str) -> float:
    if scale is None:
        return 1 / math.sqrt(d)
    if isinstance(scale, bool) or not isinstance(scale, numbers.Real):
        raise TypeError(f"{where}: scale must be a Python number, got {type(scale).__name__}")
    return float(scale)


def _scores_shape(q: Array, k: Array) -> tuple[int, int, int, int]:
    return q.shape[0], q.shape[2], q.shape[1], k.shape[1]


def _check_query_and_key(query: Array, key: Array, where: str) -> tuple[Array, Array]:
    """Both with an axis of heads."""
    check_floating(query, f"{where}: query")
    check_rank(query, (3, 4), f"{where}: query", "(n, q, [heads,] d)")
    check_rank(key, query.ndim, f"{where}: key", "(n, k, [heads,] d), as query has")
    if query.dtype != key.dtype:
        raise TypeError(f"{where}: query is {query.dtype} but key {key.dtype}; convert one")
    if (query.shape[0], *query.shape[2:]) != (key.shape[0], *key.shape[2:]):
        raise ValueError(
            f"{where}: query and key must agree but in their lengths (axis 1), "
            f"got {query.shape} and {key.shape}"
        )
    return (query[:, :, None], key[:, :, None]) if query.ndim == 3 else (query, key)


def _check_value(key: Array, value: Array, where: str) -> None:
    if jnp.ndim(value) != jnp.ndim(key) or value.shape[:-1] != key.shape[:-1]:
        raise ValueError(
            f"{where}: value must have the shape of key but for the last axis, "
            f"got {jnp.shape(value)} for key {jnp.shape(key)}"
        )
    if value.dtype != key.dtype:
        raise TypeError(f"{where}: value is {value.dtype} but key {key.dtype}; convert one")


def _full_mask(
    mask: Array | None, shape: tuple[int, int, int, int], headless: bool, where: str
) -> Array | None:
    """The mask with all four axes, sizes 1 where it broadcasts."""
    if mask is None:
        return None
    if jnp.result_type(mask) != jnp.bool_:
        raise TypeError(
            f"{where}: mask must be boolean (True = attend), got {jnp.result_type(mask)}"
        )
    wanted = (shape[0], *shape[2:]) if headless else shape
    given = jnp.shape(mask)
    fits = all(a in (1, b) for a, b in zip(given[::-1], wanted[::-1], strict=False))
    if len(given) not in (2, len(wanted)) or not fits:
        raise ValueError(
            f"{where}: mask must have shape {wanted[-2:]} or broadcast to {wanted}, got {given}"
        )
    if len(given) == 2:
        return mask[None, None]
    return mask[:, None] if headless else mask
