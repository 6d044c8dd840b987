"""Dot-product attention tile by tile: memory grows with the length and not with its square.

The forward pass goes through the keys tile by tile with a running maximum and sum (an online
softmax), and keeps the output and the logarithm of the sum for each query. The rule for
derivatives is a second such loop, linear in the tangents, that makes the weights of a tile again;
JAX transposes it for reverse mode. It is ordinary JAX code, so every transform goes on working:
jvp, vmap, grad, and grad of those. Tiles in which no query sees a key are passed over.

Source: Milakov and Gimelshein 2018 (online softmax); Rabe and Staats 2021; Dao et al. 2022
(FlashAttention).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxd2l.ops.attention.pattern import Pattern

Array = jax.Array


class Settings(NamedTuple):
    """What is static: sizes of a tile, factor of the scores, fraction dropped."""

    queries: int
    keys: int
    scale: float
    rate: float


def wide_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """float32 for half types (strict promotion forbids `promote_types`), others as they are."""
    return jnp.dtype(jnp.float32) if jnp.finfo(dtype).bits < 32 else dtype


def tile_size(length: int) -> int:
    """Queries or keys of a tile: about 128, or 256 of long sequences, so that little is padding."""
    tiles = -(-length // (128 if length <= 1024 else 256))
    return -(-length // (8 * tiles)) * 8


def tiled_attention(
    q: Array, k: Array, v: Array, pattern: Pattern, scale: float, rate: float
) -> Array:
    """Attention, (n, q, heads, d) x (n, k, heads, d) x (n, k, heads, v) -> (n, q, heads, v)."""
    settings, pattern = prepare(q, k, pattern, scale, rate)
    rows, columns = settings.queries, settings.keys
    o, _ = attend(settings, pad(q, rows), pad(k, columns), pad(v, columns), pattern)
    return o[:, : q.shape[1]]


def prepare(
    q: Array, k: Array, pattern: Pattern, scale: float, rate: float
) -> tuple[Settings, Pattern]:
    """The tiles for such arrays, and the pattern for arrays filled up to whole tiles."""
    queries, keys = q.shape[1], k.shape[1]
    settings = Settings(tile_size(queries), tile_size(keys), scale, rate)
    limit = pattern.limit
    if keys % settings.keys:
        limit = jnp.full((q.shape[0], queries), keys, jnp.int32) if limit is None else limit
        limit = jnp.minimum(limit, keys)
    return settings, pattern._replace(
        limit=pad(limit, settings.queries),  # with 0: queries that see nothing
        query_segments=pad(pattern.query_segments, settings.queries, "edge"),
        key_segments=pad(pattern.key_segments, settings.keys, "edge"),
    )


def pad(x: Any, size: int, mode: str = "constant") -> Any:
    """`x` filled up along axis 1 to a multiple of `size`."""
    more = 0 if x is None else -x.shape[1] % size
    return jnp.pad(x, [(0, 0), (0, more)] + [(0, 0)] * (x.ndim - 2), mode=mode) if more else x


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def attend(
    settings: Settings, q: Array, k: Array, v: Array, pattern: Pattern
) -> tuple[Array, Array]:
    """The output (n, q, heads, v) and log sum_j exp(s_ij) in tiles (tiles, n, heads, queries).

    A query that sees no key has output 0 (and the lowest number as the logarithm, which nobody
    reads: the mask comes after it).
    """
    wide = wide_dtype(q.dtype)
    lowest = float(jnp.finfo(wide).min)
    columns = _split(k, settings.keys), _split(v, settings.keys)
    # Carries begin as zeros made of the inputs, which keeps the axes that a mesh divides them by.
    varying = jnp.zeros_like(columns[0][0, :, :, :1, 0]) + jnp.zeros_like(
        columns[1][0, :, :, :1, 0]
    )

    def block(piece: tuple[Array, Array]) -> tuple[Array, Array]:
        i, q_i = piece
        rows = pattern.rows(i * settings.queries, settings.queries)

        def tile(carry: Any, piece: tuple[Array, Array, Array]) -> tuple[Any, None]:
            j, k_j, v_j = piece
            seen = _Tile(settings, rows, i, j)

            def visit(carry: Any) -> Any:
                total, divisor, top = carry
                s = seen.mask(seen.scores(q_i, k_j), lowest)
                new = jnp.maximum(top, jnp.max(s, axis=-1))
                p = jnp.exp(s - new[..., None])
                shrink = jnp.exp(top - new)
                divisor = divisor * shrink + jnp.sum(p, axis=-1)
                return total * shrink[..., None] + seen.mean(p, v_j), divisor, new

            return seen.unless_empty(visit, carry), None

        zero = (jnp.zeros_like(q_i[..., 0]) + varying).astype(wide)  # (n, heads, queries)
        total = jnp.broadcast_to(zero[..., None], (*zero.shape, v.shape[-1]))
        start = (total, zero, zero + lowest)
        (total, divisor, top), _ = jax.lax.scan(tile, start, (_count(columns[0]), *columns))
        empty = top == lowest
        divisor = jnp.where(empty, 1.0, divisor)
        o = jnp.where(empty[..., None], 0.0, total / divisor[..., None])
        return o.astype(v.dtype), top + jnp.log(divisor)

    blocks = _split(q, settings.queries)
    o, log_sum = jax.lax.map(block, (_count(blocks), blocks))
    return _join(o), log_sum


@attend.defjvp
def _attend_jvp(settings: Settings, primals: Any, tangents: Any) -> Any:
    q, k, v, pattern = primals
    o, log_sum = attend(settings, q, k, v, pattern)
    return (o, log_sum), tangent(settings, q, k, v, pattern, o, log_sum, *tangents[:3])


def tangent(
    settings: Settings, q: Array, k: Array, v: Array, pattern: Pattern, o: Array, log_sum: Array,
    dq: Array, dk: Array, dv: Array,
) -> tuple[Array, Array]:  # fmt: skip
    """The tangents of `attend`, linear in dq, dk, dv.

    With p_ij = exp(s_ij - log_sum_i) and what is kept of it p'_ij (p_ij itself without dropout):
    d log_sum_i = sum_j p_ij ds_ij, and do_i = sum_j p'_ij (ds_ij v_j + dv_j) - o_i d log_sum_i.
    Reverse mode saves the arguments and no p: tiles are made again (`jax.checkpoint`).
    """
    columns = tuple(_split(x, settings.keys) for x in (k, v, dk, dv))
    again = functools.partial(jax.checkpoint, prevent_cse=False)  # inside loops nothing is shared

    @again
    def block(piece: Any, columns: Any) -> tuple[Array, Array]:
        i, q_i, o_i, log_sum_i, dq_i = piece
        rows = pattern.rows(i * settings.queries, settings.queries)

        @again
        def tile(carry: Any, piece: Any, q_i: Array, log_sum_i: Array, dq_i: Array) -> Any:
            j, k_j, v_j, dk_j, dv_j = piece
            seen = _Tile(settings, rows, i, j)

            def visit(carry: Any) -> Any:
                do, dlog_sum = carry
                s = seen.scores(q_i, k_j)
                p = jnp.exp(seen.mask(s - log_sum_i[..., None], -jnp.inf))
                ds = p * (seen.scores(dq_i, k_j) + seen.scores(q_i, dk_j))
                do = do + seen.mean(ds, v_j) + seen.mean(p, dv_j)
                return do, dlog_sum + jnp.sum(ds, axis=-1)

            return seen.unless_empty(visit, carry)

        start = jnp.zeros_like(o_i).astype(log_sum.dtype), jnp.zeros_like(log_sum_i)
        step = lambda carry, piece: (tile(carry, piece, q_i, log_sum_i, dq_i), None)  # noqa: E731
        (do, dlog_sum), _ = jax.lax.scan(step, start, (_count(columns[0]), *columns))
        do = do - o_i.astype(log_sum.dtype) * dlog_sum[..., None]
        return do.astype(o.dtype), dlog_sum

    q_, o_, dq_ = (_split(x, settings.queries) for x in (q, o, dq))
    pieces = (_count(q_), q_, o_, log_sum, dq_)
    do, dlog_sum = jax.lax.map(lambda piece: block(piece, columns), pieces)
    return _join(do), dlog_sum


class _Tile:
    """Tile j of the keys for the queries of tile i, whose part of the pattern is `rows`."""

    def __init__(self, settings: Settings, rows: Pattern, i: Array, j: Array) -> None:
        self.settings, self.row, self.column = settings, i * settings.queries, j * settings.keys
        self.pattern = rows.columns(self.column, settings.keys)

    def unless_empty(self, visit: Callable[[Any], Any], carry: Any) -> Any:
        """`visit(carry)`, or the carry itself where surely no query sees a key."""
        some = self.pattern.some_allowed(self.column)
        return visit(carry) if some is None else jax.lax.cond(some, visit, lambda c: c, carry)

    def scores(self, q: Array, k: Array) -> Array:
        wide = wide_dtype(q.dtype)
        return self.settings.scale * jnp.einsum(
            "nhqd,nhkd->nhqk", q, k, preferred_element_type=wide
        )

    def mask(self, s: Array, outside: float) -> Array:
        allowed = self.pattern.allowed(self.column, self.settings.keys)
        return s if allowed is None else jnp.where(allowed, s, jnp.asarray(outside, s.dtype))

    def mean(self, p: Array, v: Array) -> Array:
        """sum_j p_ij v_j over what is not dropped."""
        if self.settings.rate > 0:
            p = self.pattern.drop(p, self.settings.rate, self.row, self.column)
        return jnp.einsum("nhqk,nhkv->nhqv", p.astype(v.dtype), v, preferred_element_type=p.dtype)


def _split(x: Array, size: int) -> Array:
    """(n, t, heads, d) -> (t / size, n, heads, size, d)."""
    n, t, heads, d = x.shape
    return x.reshape(n, t // size, size, heads, d).transpose(1, 0, 3, 2, 4)


def _join(x: Array) -> Array:
    """(tiles, n, heads, size, d) -> (n, tiles * size, heads, d)."""
    tiles, n, heads, size, d = x.shape
    return x.transpose(1, 0, 3, 2, 4).reshape(n, tiles * size, heads, d)


def _count(pieces: Array) -> Array:
    return jnp.arange(pieces.shape[0], dtype=jnp.int32)
