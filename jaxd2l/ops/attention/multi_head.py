"""Multi-head attention, and the cache of keys and values with which it decodes step by step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxd2l.checks import check_floating, check_integer
from jaxd2l.ops.attention.dot_product import dot_product_attention
from jaxd2l.ops.positions import rotary as rotate

Array = jax.Array


class HeadWeights(NamedTuple):
    """The four projections of multi-head attention.

    Shapes:
      query: (d, heads, e); key: (dk, heads, e); value: (dv, heads, e); output: (heads, e, o);
      query_bias, key_bias, value_bias: (heads, e); output_bias: (o,).
    """

    query: Array
    key: Array
    value: Array
    output: Array
    query_bias: Array | None = None
    key_bias: Array | None = None
    value_bias: Array | None = None
    output_bias: Array | None = None


class Cache(NamedTuple):
    """Keys and values of what has been read.

    Shapes:
      key, value: (n, length, heads, e); position: (n,) int32, how many entries are filled.
    """

    key: Array
    value: Array
    position: Array


def empty_cache(weights: HeadWeights, n: int, length: int) -> Cache:
    """A cache for `n` sequences of at most `length` tokens, with nothing in it.

    Raises:
      ValueError: n or length is below 1.

    Example:
      >>> w = jnp.zeros((8, 2, 4))
      >>> empty_cache(HeadWeights(w, w, w, w), 3, 16).key.shape
      (3, 16, 2, 4)
    """
    if n < 1 or length < 1:
        raise ValueError(f"empty_cache: n and length must be at least 1, got {n} and {length}")
    key, value = (
        jnp.zeros((n, length, *kernel.shape[1:]), kernel.dtype)
        for kernel in (weights.key, weights.value)
    )
    return Cache(key, value, jnp.zeros((n,), jnp.int32))


def multi_head_attention(
    query: Array,
    key: Array,
    value: Array,
    weights: HeadWeights,
    *,
    causal: bool = False,
    lengths: Array | None = None,
    segments: tuple[Array, Array] | None = None,
    mask: Array | None = None,
    dropout: float = 0.0,
    dropout_key: Array | None = None,
    examples: Array | None = None,
    rotary: float | None = None,
    cache: Cache | None = None,
) -> tuple[Array, Cache | None]:
    """Attention of several heads: y = sum_h attention(x W_q^h, z W_k^h, z W_v^h) W_o^h + b_o.

    `rotary` is the base (10000.0, say) of a rotation of queries and keys by their positions.

    With a `cache` (self-attention, while decoding) the new keys and values are written behind
    those of each example, queries see what has been written up to themselves (whatever `causal`
    says), and the filled cache comes back. Then `lengths` says how many of the new tokens are
    valid, for prompts of several lengths, padded at the end: positions advance by so many, and what
    comes next overwrites the rest. A valid token that has no room left gives NaN, from then on.

    Shapes:
      query: (n, q, d); key: (n, k, dk); value: (n, k, dv); weights: see `HeadWeights`;
      lengths, segments, mask, dropout_key, examples: as in `dot_product_attention`, but with a
      cache its length stands for k, and segments are not taken.
      returns: (n, q, o), and the cache, or None without one.

    Raises:
      TypeError, ValueError: an array has the wrong dtype or shape; segments with a cache.

    Source: Vaswani et al. 2017; D2L 11.5. torch.nn.MultiheadAttention is the same with kernels
    (heads * e, d), and masks whose True forbids.

    Example:
      >>> x, w = jnp.ones((1, 3, 4)), jnp.ones((4, 2, 2))
      >>> weights = HeadWeights(w, w, w, w.reshape(2, 2, 4))
      >>> y, _ = multi_head_attention(x, x, x, weights, causal=True)
      >>> y.shape
      (1, 3, 4)
      >>> a, b, cache = x[:, :2], x[:, 2:], empty_cache(weights, 1, 3)
      >>> first, cache = multi_head_attention(a, a, a, weights, cache=cache)
      >>> last, cache = multi_head_attention(b, b, b, weights, cache=cache)
      >>> bool(jnp.allclose(y, jnp.concatenate([first, last], 1)))
      True
    """
    where = "multi_head_attention"
    _check_shapes(query, key, value, weights, where)
    q = _project(query, weights.query, weights.query_bias)
    k = _project(key, weights.key, weights.key_bias)
    v = _project(value, weights.value, weights.value_bias)
    offset: Array | int = 0
    if cache is not None:
        _check_cache(cache, q, k, v, segments, where)
        offset = cache.position
    if rotary is not None:
        q = rotate(q, _positions(q, offset), rotary)
        k = rotate(k, _positions(k, offset), rotary)
    new = None
    valid = None
    if cache is not None:
        new, valid = _write(cache, k, v, lengths, where)
        k, v, lengths, causal = new.key, new.value, None, True
    o = dot_product_attention(
        q, k, v, causal=causal, lengths=lengths, segments=segments, mask=mask, offset=offset,
        dropout=dropout, dropout_key=dropout_key, examples=examples,
    )  # fmt: skip
    y = jnp.einsum("nqhe,heo->nqo", o, weights.output)
    if weights.output_bias is not None:
        y = y + weights.output_bias[None, None]
    if valid is not None:
        y = jnp.where(valid[:, :, None], y, jnp.full_like(y, jnp.nan))
    return y, new


def _project(x: Array, kernel: Array, bias: Array | None) -> Array:
    y = jnp.einsum("ntd,dhe->nthe", x, kernel)
    return y if bias is None else y + bias[None, None]


def _positions(x: Array, offset: Array | int) -> Array:
    steps = jnp.arange(x.shape[1], dtype=jnp.int32)
    return steps if isinstance(offset, int) else offset[:, None] + steps[None]


def _write(
    cache: Cache, k: Array, v: Array, lengths: Array | None, where: str
) -> tuple[Cache, Array]:
    """The cache with the new entries; and booleans (n, q), False for a token that had no room."""
    n, q = k.shape[:2]
    steps = jnp.arange(q, dtype=jnp.int32)[None]
    slots = cache.position[:, None] + steps
    advance = jnp.full_like(cache.position, q)
    if lengths is not None:
        check_integer(lengths, f"{where}: lengths")
        if jnp.shape(lengths) != (n,):
            raise ValueError(f"{where}: lengths must have shape ({n},), got {jnp.shape(lengths)}")
        advance = jnp.clip(jnp.asarray(lengths).astype(jnp.int32), 0, q)
    rows = jnp.arange(n, dtype=jnp.int32)[:, None]
    filled = Cache(
        cache.key.at[rows, slots].set(k, mode="drop"),
        cache.value.at[rows, slots].set(v, mode="drop"),
        cache.position + advance,
    )
    return filled, jnp.logical_or(slots < cache.key.shape[1], steps >= advance[:, None])


def _check_shapes(query: Array, key: Array, value: Array, weights: HeadWeights, where: str) -> None:
    for name, x, kernel in (
        ("query", query, weights.query),
        ("key", key, weights.key),
        ("value", value, weights.value),
    ):
        check_floating(x, f"{where}: {name}")
        if jnp.ndim(kernel) != 3:
            raise ValueError(
                f"{where}: weights.{name} must have shape (features, heads, e), "
                f"got {jnp.shape(kernel)}"
            )
        if jnp.ndim(x) != 3 or x.shape[-1] != kernel.shape[0]:
            raise ValueError(
                f"{where}: {name} must have shape (n, t, {kernel.shape[0]}) for weights.{name} "
                f"of shape {kernel.shape}, got {jnp.shape(x)}"
            )
    if weights.query.shape[1:] != weights.key.shape[1:]:
        raise ValueError(
            f"{where}: weights.query and weights.key must agree in heads and size, "
            f"got {weights.query.shape} and {weights.key.shape}"
        )
    if weights.output.shape[:-1] != weights.value.shape[1:]:
        raise ValueError(
            f"{where}: weights.output must have shape ({weights.value.shape[1]}, "
            f"{weights.value.shape[2]}, o) for weights.value of shape {weights.value.shape}, "
            f"got {weights.output.shape}"
        )


def _check_cache(cache: Cache, q: Array, k: Array, v: Array, segments: object, where: str) -> None:
    if segments is not None:
        raise ValueError(f"{where}: segments with a cache are not supported; decode one segment")
    if q.shape[1] != k.shape[1]:
        raise ValueError(
            f"{where}: a cache is for self-attention, but there are {q.shape[1]} queries and "
            f"{k.shape[1]} keys"
        )
    for name, old, new in (("key", cache.key, k), ("value", cache.value, v)):
        if old.shape[0] != new.shape[0] or old.shape[2:] != new.shape[2:]:
            raise ValueError(
                f"{where}: cache.{name} must have shape ({new.shape[0]}, length, {new.shape[2]}, "
                f"{new.shape[3]}), got {old.shape}"
            )
        if old.dtype != new.dtype:
            raise TypeError(f"{where}: cache.{name} is {old.dtype}, but the new one {new.dtype}")
